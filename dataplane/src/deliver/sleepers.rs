//! Those who sleep: apps that are to be woken, and the worker itself.

use super::Delivery;
use crate::forwarding::PortId;
use crate::port::WorkerPort;
use kopi_config::policy::Direction;
use kopi_ring::alarm::barrier;

impl Delivery {
    /// Wakes the apps, and the workers, that sleep and were given frames. Once a turn, so that a sleeper costs one call and
    /// all of them one barrier.
    #[inline]
    pub fn wake(&mut self) {
        if !self.shown.is_empty() {
            self.wake_shown();
        }
        self.mesh.wake();
    }

    /// Until when there is nothing to be done for what waits here, as far as is known at `now`. Frames that come are another
    /// matter.
    pub fn idle_until(&mut self, now: u64) -> u64 {
        if !self.takes_burst() || !self.wire.is_clear() || self.has_orphans() || self.mesh.has_frames() {
            return now;
        }
        let due = |direction| self.lane(direction).and_then(|lane| lane.due(now));
        [Direction::Egress, Direction::Ingress].into_iter().filter_map(due).min().unwrap_or(u64::MAX)
    }

    #[cold]
    fn wake_shown(&mut self) {
        barrier();
        while let Some(id) = self.shown.pop() {
            if let Some(port) = self.port_mut(id) {
                port.wake();
            }
        }
    }
}

/// Notes that `port` is shown frames, if it may sleep.
#[inline]
pub(super) fn note_shown<'a>(shown: &mut Vec<PortId>, port: &'a mut WorkerPort) -> &'a mut WorkerPort {
    if port.caller.is_some() && !port.shown {
        port.shown = true;
        shown.push(port.id);
    }
    port
}
