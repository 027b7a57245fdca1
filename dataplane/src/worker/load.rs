//! How a worker spends its time.

use crate::worker::counters::WorkerCounters;
use std::cell::Cell;

/// Shares of the time between two looks, a second or so apart.
#[derive(Debug, Default)]
pub struct Load {
    /// The TSC, busy cycles and cycles asleep at the last look.
    last: (u64, u64, u64),
    /// Share of the time in iterations that moved a frame, 0 to 1.
    pub busy: f64,
    /// Share of the time asleep, 0 to 1. The rest was spent looking for something to do.
    pub asleep: f64,
}

impl Load {
    /// Looks at `counters` if a second, `hz` ticks of the TSC, has passed by `now`.
    pub fn look(&mut self, counters: &WorkerCounters, now: u64, hz: u64) {
        let (then, busy, asleep) = self.last;
        let span = now.saturating_sub(then);
        if span < hz {
            return;
        }
        let seen = (now, counters.busy_cycles.get(), counters.asleep_cycles.get());
        // The first look has nothing to compare with.
        if then > 0 {
            self.busy = share(seen.1.saturating_sub(busy), span);
            self.asleep = share(seen.2.saturating_sub(asleep), span);
        }
        self.last = seen;
    }
}

/// Seconds of what [`LongestTurn`] knows of late at the least; at the most it is twice as long.
const LATE_SECONDS: u64 = 30;

/// The longest iteration of a worker, in cycles, for two who look at different times: operators, each of whom is told of the time
/// since the one before, and metrics, which several may read without taking anything from each other.
#[derive(Debug, Default)]
pub struct LongestTurn {
    /// Since an operator was last told.
    untold: Cell<u64>,
    /// In the present half minute, and in the one before.
    now: Cell<u64>,
    before: u64,
    /// When the present one began (TSC).
    since: u64,
}

impl LongestTurn {
    /// Notes an iteration of `cycles`, at `now` (TSC, `hz` ticks a second).
    pub fn look(&mut self, cycles: u64, now: u64, hz: u64) {
        if now.saturating_sub(self.since) >= LATE_SECONDS * hz {
            self.since = now;
            self.before = self.now.replace(0);
        }
        self.note(cycles);
    }

    /// Notes an iteration of `cycles`, and gives the longest since the last call.
    pub fn tell(&self, cycles: u64) -> u64 {
        self.note(cycles);
        self.untold.replace(0)
    }

    /// The longest of the last half minute to minute.
    #[must_use]
    pub fn of_late(&self) -> u64 {
        self.now.get().max(self.before)
    }

    fn note(&self, cycles: u64) {
        self.untold.set(self.untold.get().max(cycles));
        self.now.set(self.now.get().max(cycles));
    }
}

/// `part` of `whole`, in thousandths. A part that began before the whole is cut.
fn share(part: u64, whole: u64) -> f64 {
    let thousandths = u128::from(part.min(whole)) * 1000 / u128::from(whole.max(1));
    f64::from(u16::try_from(thousandths).unwrap_or(1000)) / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An operator is told of each time once; who reads metrics learns the same however often, until a minute has passed.
    #[test]
    fn longest_turn_is_told_to_both() {
        let (mut longest, hz) = (LongestTurn::default(), 1000);
        longest.look(7, 100_000, hz);
        longest.look(3, 100_100, hz);
        assert_eq!((longest.of_late(), longest.of_late()), (7, 7));
        assert_eq!((longest.tell(5), longest.tell(2), longest.of_late()), (7, 2, 7));
        longest.look(1, 130_000, hz);
        assert_eq!(longest.of_late(), 7, "half a minute later");
        longest.look(1, 160_000, hz);
        assert_eq!((longest.of_late(), longest.tell(0)), (1, 1));
    }

    /// Each look tells of the time since the one before, and none comes before a second has passed.
    #[test]
    fn shares_are_those_of_the_last_second() {
        let (counters, mut load) = (WorkerCounters::new(1), Load::default());
        let hz = 1000;
        load.look(&counters, 10_000, hz);
        counters.busy_cycles.add(100);
        counters.asleep_cycles.add(900);
        load.look(&counters, 10_999, hz);
        assert_eq!((load.busy, load.asleep), (0.0, 0.0));
        load.look(&counters, 11_000, hz);
        assert_eq!((load.busy, load.asleep), (0.1, 0.9));
        load.look(&counters, 13_000, hz);
        assert_eq!((load.busy, load.asleep), (0.0, 0.0));
        counters.busy_cycles.add(5000);
        load.look(&counters, 14_000, hz);
        assert_eq!((load.busy, load.asleep), (1.0, 0.0), "a turn that is longer than a second");
    }
}
