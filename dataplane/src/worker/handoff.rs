//! Frames on their way from the worker that evaluated them to the worker that owns their destination.

use crate::ids::{Generation, PortId, WIRE};
use crate::worker::sleep::Waker;
use dpdk::{Batch, Mbuf};
use kopi_ring::layout::Notes;
use kopi_ring::need_wakeup::barrier;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU32, AtomicU64};

/// Frames for the wire that wait between two workers: a few bursts, since behind a slow wire each one more is delay.
const WIRE_FRAMES: usize = 4 * Batch::MAX;
/// Frames for apps that wait between two workers, besides those that each port has room for in any case.
const SHARED: u32 = 1024;
/// Frames for which all ports together have room in any case, and the least and the most for one.
const RESERVED: usize = 2048;
const RESERVED_PORT: std::ops::RangeInclusive<usize> = 8..=64;

/// What a frame for the wire takes of the credit of the worker that has handed it over, and the most credit that it keeps.
const FRAME: u32 = 16;
const CREDIT_MAX: u32 = 128 * FRAME;

/// An evaluated frame.
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
        /// The RX ring's number.
        ring: u16,
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

/// The sending end of the queues from one worker to another.
///
/// Frames for the wire have a queue of their own: they wait where they are for as long as the wire is busy, and nothing else has
/// to wait behind them. In the queue for apps each port has room for a few frames in any case, and what is left is for
/// whoever comes first; so nobody loses frames because another port is flooded.
#[derive(Debug)]
struct Outbox {
    wire: rtrb::Producer<Handoff>,
    apps: rtrb::Producer<Handoff>,
    /// By port: frames ever sent, and those of them that had arrived when last looked at. Both wrap.
    sent: Box<[u32]>,
    seen: Box<[u32]>,
    /// By port: frames ever taken out. Written by the receiver.
    taken: Arc<[AtomicU32]>,
    /// Frames for which a port has room in any case.
    reserved: u32,
    /// Frames beyond that, of all ports, as far as is known.
    shared: u32,
}

impl Outbox {
    #[inline]
    fn send(&mut self, handoff: Handoff) -> Result<(), Handoff> {
        let Target::App { id, .. } = handoff.target else {
            return self.wire.push(handoff).map_err(|rtrb::PushError::Full(handoff)| handoff);
        };
        let at = usize::from(id);
        let (Some(sent), Some(seen)) = (self.sent.get_mut(at), self.seen.get_mut(at)) else { return Err(handoff) };
        let mut waiting = sent.wrapping_sub(*seen);
        if waiting >= self.reserved {
            // The shared line is only looked at for a port with many frames under way.
            let before = waiting - self.reserved;
            *seen = self.taken.get(at).map_or(*seen, |taken| taken.load(Acquire));
            waiting = sent.wrapping_sub(*seen);
            self.shared -= before - waiting.saturating_sub(self.reserved);
            if waiting >= self.reserved {
                if self.shared >= SHARED {
                    return Err(handoff);
                }
                self.shared += 1;
            }
        }
        self.apps.push(handoff).map_err(|rtrb::PushError::Full(handoff)| handoff)?;
        *sent = sent.wrapping_add(1);
        Ok(())
    }
}

/// The receiving end.
#[derive(Debug)]
struct Inbox {
    wire: rtrb::Consumer<Handoff>,
    apps: rtrb::Consumer<Handoff>,
    taken: Arc<[AtomicU32]>,
    /// Frames for the wire that it may still send before this worker's own apps send more, times [`FRAME`].
    credit: u32,
}

impl Inbox {
    #[inline]
    fn take(&mut self) -> Option<Handoff> {
        let handoff = self.apps.pop().ok()?;
        if let Some(taken) = self.taken.get(usize::from(handoff.target.port())) {
            // This worker alone writes it.
            taken.store(taken.load(Relaxed).wrapping_add(1), Release);
        }
        Some(handoff)
    }
}

/// How many users have something to send at each worker, each on a line of its own. A worker writes its own.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Busy(AtomicU32);

/// Who has put something into the queues to a worker since that one last looked: a bit for each of the others, of which there are
/// fewer than 64. So a worker to which nobody hands anything over looks at one line, however many others there are.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Mail(AtomicU64);

/// Workers, by the bits of their numbers.
#[derive(Clone, Debug)]
pub struct Senders(u64);

impl Iterator for Senders {
    type Item = usize;

    #[inline]
    fn next(&mut self) -> Option<usize> {
        let next = (self.0 != 0).then_some(self.0.trailing_zeros() as usize);
        self.0 &= self.0.wrapping_sub(1);
        next
    }
}

/// One worker's ends of the queues to and from the others, by worker number. Its own place is empty.
#[derive(Debug, Default)]
pub struct Mesh {
    index: usize,
    out: Vec<Option<Outbox>>,
    inbox: Vec<Option<Inbox>>,
    busy: Arc<[Busy]>,
    /// By the worker that gets it.
    mail: Arc<[Mail]>,
    /// Whose queues to this worker may have frames, a bit for each.
    waiting: u64,
    /// Whether each of the others may send as much as it ever may.
    rested: bool,
    /// By what the others are woken; empty if they do not sleep.
    pub wakers: Vec<Arc<Waker>>,
    /// To whom anything was handed over since they were last told, a bit for each.
    handed: u64,
}

impl Mesh {
    /// The meshes of `workers` workers, each connected with each other, for ports below `ports`.
    ///
    /// # Panics
    ///
    /// If there are more than 64 workers: the configuration sees to it.
    #[must_use]
    pub fn among(workers: usize, ports: usize) -> Vec<Self> {
        assert!(workers <= 64, "{workers} workers have no bit each in a word");
        let busy: Arc<[Busy]> = (0..workers).map(|_| Busy::default()).collect();
        let mail: Arc<[Mail]> = (0..workers).map(|_| Mail::default()).collect();
        let mesh = |index| Self { index, busy: Arc::clone(&busy), mail: Arc::clone(&mail), ..Self::default() };
        let mut meshes: Vec<Self> = (0..workers).map(mesh).collect();
        let reserved = (RESERVED / ports.max(1)).clamp(*RESERVED_PORT.start(), *RESERVED_PORT.end());
        for from in 0..workers {
            for to in 0..workers {
                let (out, inbox) = if from == to {
                    (None, None)
                } else {
                    let (out, inbox) = pair(ports, reserved);
                    (Some(out), Some(inbox))
                };
                meshes[from].out.push(out);
                meshes[to].inbox.push(inbox);
            }
        }
        meshes
    }

    /// How many workers there are.
    #[must_use]
    pub fn workers(&self) -> usize {
        self.out.len()
    }

    /// Hands a frame to worker `to`.
    ///
    /// # Errors
    ///
    /// Gives the frame back if that worker does not keep up with what its target is sent.
    pub fn send(&mut self, to: usize, handoff: Handoff) -> Result<(), Handoff> {
        match self.out.get_mut(to).and_then(Option::as_mut) {
            Some(out) => {
                self.handed |= 1 << to;
                out.send(handoff)
            }
            None => Err(handoff),
        }
    }

    /// The workers that may have handed something over that is still there.
    #[inline]
    pub fn senders(&mut self) -> Senders {
        if let Some(mail) = self.mail.get(self.index)
            && mail.0.load(Relaxed) != 0
        {
            self.waiting |= mail.0.swap(0, Acquire);
        }
        Senders(self.waiting)
    }

    /// Forgets about worker `from`, until there is news of it, if there is nothing left of what it has handed over. Not at the end,
    /// when [nothing more is sent](Self::close): then all are looked at.
    #[inline]
    pub fn settle(&mut self, from: usize) {
        if self.out.is_empty() {
            return;
        }
        let inbox = self.inbox.get(from).and_then(Option::as_ref);
        if inbox.is_some_and(|inbox| inbox.apps.is_empty() && inbox.wire.is_empty()) {
            self.waiting &= !(1 << from);
        }
    }

    /// The next frame for an app that worker `from` has handed over.
    #[inline]
    pub fn receive(&mut self, from: usize) -> Option<Handoff> {
        self.inbox.get_mut(from).and_then(Option::as_mut)?.take()
    }

    /// The next frame for the wire that worker `from` has handed over.
    #[inline]
    pub fn receive_for_wire(&mut self, from: usize) -> Option<Handoff> {
        let inbox = self.inbox.get_mut(from).and_then(Option::as_mut)?;
        let handoff = inbox.wire.pop().ok()?;
        inbox.credit = inbox.credit.saturating_sub(FRAME);
        self.rested = false;
        Some(handoff)
    }

    /// Frames for the wire that worker `from` has handed over and may send now, a burst at most. For each frame of this worker's own
    /// apps each may send as many as it has busy users for each one here: for whom this is the only way to the wire.
    #[inline]
    #[must_use]
    pub fn may_send(&self, from: usize) -> usize {
        let Some(inbox) = self.inbox.get(from).and_then(Option::as_ref) else { return 0 };
        inbox.wire.slots().min((inbox.credit / FRAME) as usize).min(Batch::MAX)
    }

    /// Notes that one of this worker's own apps has sent `frames`, and that `users` of them have more. Who waits earns by it.
    #[inline]
    pub fn sent(&mut self, frames: u32, users: u32) {
        self.note_busy(users);
        for from in self.senders() {
            if let (Some(Some(inbox)), Some(busy)) = (self.inbox.get_mut(from), self.busy.get(from)) {
                let earned = busy.0.load(Relaxed).saturating_mul(frames * FRAME) / users.max(1);
                inbox.credit = inbox.credit.saturating_add(earned).min(CREDIT_MAX);
            }
        }
    }

    /// Notes that this worker's own apps have nothing to send.
    #[inline]
    pub fn idle(&mut self) {
        self.note_busy(0);
        if !std::mem::replace(&mut self.rested, true) {
            self.inbox.iter_mut().flatten().for_each(|inbox| inbox.credit = CREDIT_MAX);
        }
    }

    fn note_busy(&self, users: u32) {
        if let Some(busy) = self.busy.get(self.index)
            && busy.0.load(Relaxed) != users
        {
            busy.0.store(users, Relaxed);
        }
    }

    /// Tells the others of what was handed over to them, and wakes the workers that sleep. Once an iteration.
    #[inline]
    pub fn wake(&mut self) {
        if self.handed != 0 {
            self.tell();
        }
    }

    fn tell(&mut self) {
        for to in Senders(std::mem::take(&mut self.handed)) {
            if let Some(mail) = self.mail.get(to) {
                mail.0.fetch_or(1 << self.index, Release);
            }
        }
        if !self.wakers.is_empty() {
            barrier();
            self.wakers.iter().for_each(|waker| waker.call());
        }
    }

    /// Whether another worker has handed anything over.
    #[must_use]
    pub fn has_frames(&self) -> bool {
        self.inbox.iter().flatten().any(|inbox| !inbox.apps.is_empty() || !inbox.wire.is_empty())
    }

    /// Whether worker `to` would take `n` more frames for the wire.
    #[must_use]
    pub fn has_room(&self, to: usize, n: usize) -> bool {
        self.out.get(to).and_then(Option::as_ref).is_some_and(|out| out.wire.slots() >= n)
    }

    /// Sends nothing more.
    pub fn close(&mut self) {
        self.out.clear();
        self.waiting =
            self.inbox.iter().enumerate().filter(|(_, inbox)| inbox.is_some()).map(|(from, _)| 1_u64 << from).sum();
    }

    /// Whether no other worker sends anything more.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.inbox.iter().flatten().all(|inbox| inbox.apps.is_abandoned() && inbox.wire.is_abandoned())
    }
}

/// The ends of the queues between two workers.
fn pair(ports: usize, reserved: usize) -> (Outbox, Inbox) {
    let taken: Arc<[AtomicU32]> = (0..ports).map(|_| AtomicU32::new(0)).collect();
    let (wire_in, wire_out) = rtrb::RingBuffer::new(WIRE_FRAMES);
    let (apps_in, apps_out) = rtrb::RingBuffer::new(SHARED as usize + reserved * ports);
    let none = || vec![0; ports].into_boxed_slice();
    let reserved = u32::try_from(reserved).unwrap_or(u32::MAX);
    let out = Outbox {
        wire: wire_in,
        apps: apps_in,
        sent: none(),
        seen: none(),
        taken: Arc::clone(&taken),
        reserved,
        shared: 0,
    };
    (out, Inbox { wire: wire_out, apps: apps_out, taken, credit: CREDIT_MAX })
}
