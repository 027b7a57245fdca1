//! Wake-ups of those who sleep: apps that are to be woken, and the worker itself.

use super::Outputs;
use crate::ids::PortId;
use crate::worker::port::WorkerPort;
use kopi_config::policy::Direction;
use kopi_ring::need_wakeup::barrier;

impl Outputs {
    /// Has the apps, and the workers, woken that sleep and were given frames. Once an iteration, so that all of them cost one barrier
    /// and one call, of the thread that calls apps.
    #[inline]
    pub fn wake(&mut self) {
        if !self.pending_kick.is_empty() {
            self.wake_shown();
        }
        self.mesh.wake();
    }

    /// Until when there is nothing to be done for what waits here, as far as is known at `now`. Frames that come are another
    /// matter.
    pub fn idle_until(&mut self, now: u64) -> u64 {
        if !self.takes_burst() || !self.wire.is_clear() || self.has_draining() || self.mesh.has_frames() {
            return now;
        }
        let due = |direction| self.tree(direction).and_then(|tree| tree.due(now));
        [Direction::Egress, Direction::Ingress].into_iter().filter_map(due).min().unwrap_or(u64::MAX)
    }

    #[cold]
    fn wake_shown(&mut self) {
        barrier();
        while let Some(id) = self.pending_kick.pop() {
            let port = self.ports.get_mut(usize::from(id)).and_then(Option::as_deref_mut);
            if let Some(port) = port {
                port.wake(&mut self.requests);
            }
        }
        self.requests.kick();
    }

    /// The doorbell of port `id` was rung: it is to have room for more.
    #[cold]
    pub fn rung(&mut self, id: PortId) {
        let Some(port) = self.ports.get_mut(usize::from(id)).and_then(Option::as_deref_mut) else { return };
        match &port.doorbell {
            // It is the host's, whose other end is kopid's own.
            Some(doorbell) => doorbell.quiet(),
            None => port.rings = self.requests.rung(id, port.rings),
        }
        self.requests.kick();
    }
}

/// Notes that `port` is shown frames, if it may sleep.
#[inline]
pub(crate) fn will_kick<'a>(pending_kick: &mut Vec<PortId>, port: &'a mut WorkerPort) -> &'a mut WorkerPort {
    if port.caller.is_some() && !port.pending_kick {
        port.pending_kick = true;
        pending_kick.push(port.id);
    }
    port
}
