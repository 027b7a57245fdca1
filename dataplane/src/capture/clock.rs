//! The time of day of frames, of which only the TSC is known.

use rustix::time::{ClockId, clock_gettime};

/// How far the time of day may be put right in a second, in nanoseconds: more than a TSC differs from what was measured at
/// start, and less than people notice. A clock that somebody sets is followed at this pace, too, so that time neither
/// stands still nor jumps in a file.
const SLEW: u64 = 1_000_000;
/// How often the time of day is looked at, in seconds.
const PERIOD: u64 = 1;
/// Looks of which the quickest counts: what else runs on the CPU falls between the two clocks' readings.
const TRIES: usize = 5;

/// Turns the TSC into nanoseconds since 1970. Never runs backwards.
#[derive(Debug)]
pub struct Clock {
    hz: u64,
    /// A moment by both clocks.
    anchor: Moment,
    /// Nanoseconds to be made up for in the period that begins there.
    late: i64,
}

/// A moment by both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Moment {
    tsc: u64,
    ns: u64,
}

impl Clock {
    /// A clock over a TSC of `hz` ticks a second, right now.
    #[must_use]
    pub fn new(hz: u64) -> Self {
        Self { hz: hz.max(1), anchor: look(), late: 0 }
    }

    /// Nanoseconds since 1970 at `tsc`, which may lie before the clock was made.
    #[inline]
    #[must_use]
    pub fn ns(&self, tsc: u64) -> u64 {
        let Moment { tsc: from, ns } = self.anchor;
        let Some(ticks) = tsc.checked_sub(from) else {
            return ns.saturating_sub(self.span(from - tsc));
        };
        let part = i128::from(ticks.min(self.hz * PERIOD)) * i128::from(self.late) / i128::from(self.hz * PERIOD);
        ns.saturating_add(self.span(ticks)).saturating_add_signed(i64::try_from(part).unwrap_or(0))
    }

    /// Nanoseconds of `ticks`.
    fn span(&self, ticks: u64) -> u64 {
        dpdk::tsc::nanoseconds(ticks, self.hz)
    }

    /// Follows the time of day, if it is time to. To be called now and then; what lies before this call must have been
    /// asked for already.
    pub fn follow(&mut self) {
        if dpdk::tsc().wrapping_sub(self.anchor.tsc) >= self.hz * PERIOD {
            self.correct(look());
        }
    }

    /// From `now` on, makes up within a period for the difference to its time of day, as far as that is allowed.
    fn correct(&mut self, now: Moment) {
        let told = self.ns(now.tsc);
        let late = i128::from(now.ns) - i128::from(told);
        let slew = i128::from(SLEW * PERIOD);
        self.late = i64::try_from(late.clamp(-slew, slew)).unwrap_or(0);
        self.anchor = Moment { tsc: now.tsc, ns: told };
    }
}

/// Both clocks at the same moment, as well as can be.
fn look() -> Moment {
    let tries = (0..TRIES).map(|_| {
        let before = dpdk::tsc();
        let time = clock_gettime(ClockId::Realtime);
        let after = dpdk::tsc();
        let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
        let ns = seconds.saturating_mul(1_000_000_000).saturating_add(u64::try_from(time.tv_nsec).unwrap_or(0));
        let took = after.wrapping_sub(before);
        (took, Moment { tsc: before.wrapping_add(took / 2), ns })
    });
    tries.min_by_key(|(took, _)| *took).map_or(Moment { tsc: 0, ns: 0 }, |(_, moment)| moment)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HZ: u64 = 2_000_000_000;

    proptest! {
        /// Whatever the time of day does, frames' times never run backwards, and never pass by more than a thousandth
        /// faster or slower.
        #[test]
        fn time_never_runs_backwards(steps in prop::collection::vec((1_u64..5 * HZ, any::<u32>()), 1..50)) {
            let mut clock = Clock { hz: HZ, anchor: Moment { tsc: 0, ns: 1 << 60 }, late: 0 };
            let (mut tsc, mut last) = (0, clock.ns(0));
            for (ticks, ns) in steps {
                tsc += ticks;
                let time = clock.ns(tsc);
                let true_span = ticks / 2;
                prop_assert!(time >= last);
                prop_assert!(time - last <= true_span + true_span / 1000 + 2);
                prop_assert!(time - last + 2 >= true_span - true_span / 1000 - 2);
                last = time;
                clock.correct(Moment { tsc, ns: (1 << 60) + u64::from(ns) });
                prop_assert_eq!(clock.ns(tsc), last);
            }
        }
    }

    /// A TSC that is faster than was measured, and a clock that was put right by some milliseconds, are made up for.
    #[test]
    fn small_errors_vanish() {
        let mut clock = Clock { hz: HZ, anchor: Moment { tsc: 0, ns: 0 }, late: 0 };
        // 100 millionths too fast, and five milliseconds early.
        let truth = |second: u64| Moment { tsc: second * (HZ + HZ / 10_000), ns: second * 1_000_000_000 + 5_000_000 };
        for second in 1..20 {
            clock.correct(truth(second));
        }
        let error = clock.ns(truth(20).tsc).abs_diff(truth(20).ns);
        assert!(error < 200_000, "{error} ns");
    }

    /// Made now, it tells the time of day.
    #[test]
    fn time_is_right_at_first() {
        let clock = Clock::new(HZ);
        let now = look();
        assert!(clock.ns(clock.anchor.tsc) <= now.ns && now.ns - clock.ns(clock.anchor.tsc) < 1_000_000_000);
    }
}
