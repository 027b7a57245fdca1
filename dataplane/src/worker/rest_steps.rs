//! A worker with nothing to do.

use super::Worker;
use crate::worker::idle::Step;

/// Pauses of the processor between two looks, some tens of nanoseconds each.
const PAUSES: usize = 20;

impl Worker {
    /// What comes after a turn that ended at `now`, in which frames moved if it was `busy`. Returns when the next one begins.
    #[inline]
    pub(super) fn rest(&mut self, busy: bool, now: u64) -> u64 {
        let Some(rest) = &mut self.rest else {
            if !busy {
                std::hint::spin_loop();
            }
            return now;
        };
        if busy {
            self.stir(now);
            return now;
        }
        match rest.step(now) {
            Step::Look => {
                std::hint::spin_loop();
                now
            }
            Step::Pause => {
                (0..PAUSES).for_each(|_| std::hint::spin_loop());
                (self.clock)()
            }
            Step::Arm => {
                self.arm();
                now
            }
            Step::Sleep => self.sleep(now),
        }
    }

    /// Notes that there was something to do until `now`.
    #[inline]
    pub(super) fn stir(&mut self, now: u64) {
        if self.rest.as_mut().is_some_and(|rest| rest.worked(now)) {
            self.disarm();
        }
    }

    /// Asks everybody to call. The turn that follows finds what came before they could know.
    #[cold]
    fn arm(&mut self) {
        for id in self.rounds.ports() {
            if let Some(port) = self.delivery.port_mut(id) {
                port.tx.iter().for_each(kopi_ring::Consumer::set_need_wakeup);
            }
        }
        self.delivery.wire.set_interrupt(true);
        // The turn that follows looks at every ring, whoever is in debt.
        self.rounds.deactivate_all();
        self.looks = usize::MAX;
        if let Some(rest) = &mut self.rest {
            rest.arm();
        }
    }

    /// Asks for no more calls.
    #[cold]
    fn disarm(&mut self) {
        for id in self.rounds.ports() {
            if let Some(port) = self.delivery.port_mut(id) {
                port.tx.iter().for_each(kopi_ring::Consumer::clear_need_wakeup);
            }
        }
        self.delivery.wire.set_interrupt(false);
        if let Some(rest) = &self.rest {
            rest.disarm();
        }
    }

    /// Sleeps until there is something to do, as far as that is known or somebody calls.
    #[cold]
    fn sleep(&mut self, now: u64) -> u64 {
        // What waits for tokens of its class has a time; what waits for the wire, and a list that is made, go on at once.
        let until = if self.listing.is_some() || !self.running { now } else { self.delivery.idle_until(now) };
        let Self { rest, delivery, .. } = self;
        let Some(rest) = rest else { return now };
        let called = rest.sleep(now, until, |id| delivery.rung(id));
        let end = (self.clock)();
        self.counters.sleeps.add(1);
        self.counters.asleep_cycles.add(end.wrapping_sub(now));
        if called {
            self.disarm();
            // Who has called has something to do, if not at once.
            self.stir(end);
        }
        end
    }
}
