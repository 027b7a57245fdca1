//! How frames are published to the daemon.

use crate::memory_map::MemoryMap;
use kopi_ring::layout::HEAD;
use kopi_ring::need_wakeup::{barrier, light_barrier, register_light};
use kopi_ring::{Doorbell, Producer};
use std::sync::Arc;

/// The app's end of a TX ring, and what wakes a daemon that sleeps.
#[derive(Debug)]
pub(crate) struct TxPublisher {
    pub(crate) ring: Producer,
    /// What wakes the daemon, if it sleeps at times.
    doorbell: Option<Arc<Doorbell>>,
    /// Whether a light barrier is enough, because the daemon executes a heavy one before it sleeps.
    light: bool,
    /// What the daemon reads of the application's memory, if any.
    pub(crate) memory: Option<Arc<MemoryMap>>,
    /// The list there in which the last packet was found.
    pub(crate) last: usize,
}

impl TxPublisher {
    /// A publisher of `ring`, whose daemon is woken by `doorbell`, if by anything.
    pub(crate) fn new(ring: Producer, doorbell: Option<Arc<Doorbell>>) -> Self {
        let light = doorbell.is_some() && register_light();
        Self { ring, doorbell, light, memory: None, last: 0 }
    }

    /// The same, to a daemon that reads what is shared of `memory`.
    pub(crate) fn sharing(self, memory: Option<Arc<MemoryMap>>) -> Self {
        Self { memory, ..self }
    }

    /// The longest packet, of those up to `max_frame` bytes, that is always copied: what is longer may be left where it lies.
    #[inline]
    pub(crate) fn longest(&self, max_frame: u32) -> u32 {
        if self.memory.is_some() { max_frame.min(HEAD.into()) } else { max_frame }
    }

    /// Publishes what was pushed, and wakes the daemon if it sleeps.
    #[inline]
    pub(crate) fn publish(&mut self) {
        self.ring.publish();
        if let Some(doorbell) = &self.doorbell {
            if self.light {
                light_barrier();
            } else {
                barrier();
            }
            if self.ring.take_need_wakeup() {
                doorbell.ring();
            }
        }
    }
}
