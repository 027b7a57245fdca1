//! A worker with nothing to do.

use super::Worker;
use crate::worker::sleep::Step;

/// Pauses of the processor between two polls, some tens of nanoseconds each.
const PAUSES: usize = 20;

impl Worker {
    /// What comes after an iteration that ended at `now`, in which frames moved if it was `busy`. Returns when the next one begins.
    #[inline]
    pub(super) fn idle(&mut self, busy: bool, now: u64) -> u64 {
        let Some(sleep) = &mut self.sleep_state else {
            if !busy {
                std::hint::spin_loop();
            }
            return now;
        };
        if busy {
            self.note_work(now);
            return now;
        }
        match sleep.step(now) {
            Step::Poll => {
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
    pub(super) fn note_work(&mut self, now: u64) {
        if self.sleep_state.as_mut().is_some_and(|sleep| sleep.worked(now)) {
            self.disarm();
        }
    }

    /// Asks everybody to call. The iteration that follows finds what came before they could know.
    #[cold]
    fn arm(&mut self) {
        for id in self.rounds.ports() {
            if let Some(port) = self.outputs.port_mut(id) {
                port.tx.iter().for_each(kopi_ring::Consumer::set_need_wakeup);
            }
        }
        self.outputs.wire.set_interrupt(true);
        // The iteration that follows looks at every ring, whoever is in debt.
        self.rounds.deactivate_all();
        self.idle_polls = usize::MAX;
        if let Some(sleep) = &mut self.sleep_state {
            sleep.arm();
        }
    }

    /// Asks for no more calls.
    #[cold]
    fn disarm(&mut self) {
        for id in self.rounds.ports() {
            if let Some(port) = self.outputs.port_mut(id) {
                port.tx.iter().for_each(kopi_ring::Consumer::clear_need_wakeup);
            }
        }
        self.outputs.wire.set_interrupt(false);
        if let Some(sleep) = &self.sleep_state {
            sleep.disarm();
        }
    }

    /// Sleeps until there is something to do, as far as that is known or somebody calls.
    #[cold]
    fn sleep(&mut self, now: u64) -> u64 {
        // What waits for tokens of its class has a time; what waits for the wire, and a list that is made, go on at once.
        let until = if self.flow_dump.is_some() || !self.running { now } else { self.outputs.idle_until(now) };
        let Self { sleep_state, outputs, .. } = self;
        let Some(sleep) = sleep_state else { return now };
        let called = sleep.sleep(now, until, |id| outputs.rung(id));
        let end = (self.clock)();
        self.counters.sleeps.add(1);
        self.counters.asleep_cycles.add(end.wrapping_sub(now));
        if called {
            self.disarm();
            // Who has called has something to do, if not at once.
            self.note_work(end);
        }
        end
    }
}
