//! How frames are published to the daemon.

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
}

impl TxPublisher {
    /// A publisher of `ring`, whose daemon is woken by `doorbell`, if by anything.
    pub(crate) fn new(ring: Producer, doorbell: Option<Arc<Doorbell>>) -> Self {
        let light = doorbell.is_some() && register_light();
        Self { ring, doorbell, light }
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
