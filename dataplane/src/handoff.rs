//! Frames on their way from the worker that judged them to the worker that owns their destination.

use crate::forwarding::{Generation, PortId, WIRE};
use crate::rest::Waker;
use dpdk::Mbuf;
use kopi_ring::alarm::barrier;
use kopi_ring::layout::Notes;
use std::sync::Arc;

/// Frames that wait between two workers, at most.
const CAPACITY: usize = 1024;

/// A judged frame.
#[derive(Debug)]
pub struct Handoff {
    /// The frame.
    pub mbuf: Mbuf,
    /// Where it goes.
    pub target: Target,
}

/// A destination that another worker owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The wire: the judging worker has no TX queue of its own.
    Wire,
    /// An app's RX ring.
    App {
        /// The port.
        id: PortId,
        /// Which use of its number: the app may go while the frame is under way.
        generation: Generation,
        /// The RX queue.
        queue: u16,
        /// What the app is told about the frame.
        notes: Notes,
    },
}

impl Target {
    /// The port's number.
    #[must_use]
    pub const fn port(self) -> PortId {
        match self {
            Self::Wire => WIRE,
            Self::App { id, .. } => id,
        }
    }
}

/// One worker's ends of the queues to and from the others, by worker number. Its own place is empty.
#[derive(Debug, Default)]
pub struct Mesh {
    /// Towards the others.
    pub out: Vec<Option<rtrb::Producer<Handoff>>>,
    /// From the others.
    pub inbox: Vec<Option<rtrb::Consumer<Handoff>>>,
    /// By what the others are woken; empty if they do not sleep.
    pub wakers: Vec<Arc<Waker>>,
    /// Whether anything was handed over since somebody last looked for sleepers.
    sent: bool,
}

impl Mesh {
    /// The meshes of `workers` workers, each connected with each other.
    #[must_use]
    pub fn among(workers: usize) -> Vec<Self> {
        let mut meshes: Vec<Self> = (0..workers).map(|_| Self::default()).collect();
        for from in 0..workers {
            for to in 0..workers {
                let (producer, consumer) = match from == to {
                    true => (None, None),
                    false => {
                        let (producer, consumer) = rtrb::RingBuffer::new(CAPACITY);
                        (Some(producer), Some(consumer))
                    }
                };
                meshes[from].out.push(producer);
                meshes[to].inbox.push(consumer);
            }
        }
        meshes
    }

    /// Hands a frame to worker `to`.
    ///
    /// # Errors
    ///
    /// Gives the frame back if that worker does not keep up.
    pub fn send(&mut self, to: usize, handoff: Handoff) -> Result<(), Handoff> {
        match self.out.get_mut(to).and_then(Option::as_mut) {
            Some(queue) => {
                self.sent = true;
                queue.push(handoff).map_err(|rtrb::PushError::Full(handoff)| handoff)
            }
            None => Err(handoff),
        }
    }

    /// Wakes the workers that sleep, if anything was handed over. Once a turn.
    #[inline]
    pub fn wake(&mut self) {
        if std::mem::take(&mut self.sent) && !self.wakers.is_empty() {
            barrier();
            self.wakers.iter().for_each(|waker| waker.call());
        }
    }

    /// Whether another worker has handed anything over.
    #[must_use]
    pub fn has_frames(&self) -> bool {
        self.inbox.iter().flatten().any(|inbox| !inbox.is_empty())
    }

    /// Whether worker `to` would take `n` more frames.
    #[must_use]
    pub fn has_room(&self, to: usize, n: usize) -> bool {
        self.out.get(to).and_then(Option::as_ref).is_some_and(|queue| queue.slots() >= n)
    }
}
