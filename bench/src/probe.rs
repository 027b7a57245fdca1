//! One-way latency of a cache line between two cores, and the state of the machine that it shows.
//!
//! A virtual machine's two cores may share a cache at one moment and not at the next, as the hypervisor moves them.
//! Everything that crosses cores changes by two to four times with it, so each sample is filed under the state that a
//! probe found before and after it.
//!
//! Two threads of one core hand over a line the fastest. How fast differs: cores that share a cache are as near on newer
//! processors as threads of one core were on older ones. So whatever is that near is asked whether it slows the other down.

use std::fmt;
use std::hint::{self, black_box};
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use core_affinity::CoreId;

use crate::error::{BenchError, Result};

/// Round trips in one batch: long enough for the clock, short beside a scheduler's tick.
const TRIPS: u32 = 20_000;
/// Batches in one probe, the first of which warms up.
const BATCHES: usize = 6;
/// Steps of arithmetic in a batch of work, a tenth of a millisecond or so, and batches of which the fastest counts.
const STEPS: u32 = 60_000;
const WORKS: usize = 8;
/// Two threads of one core take this much longer for such work at once than one of them alone. Two cores take as long, threads
/// of one core nearly twice as long.
const CROWDED: f64 = 1.35;

/// Processors that a CPU set can hold (`CPU_SETSIZE`, `sched.h`).
const CPU_SET: usize = 1024;

/// One-way latencies that tell the states apart, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Thresholds {
    /// Below this, the two "cores" may be threads of one, and are if they slow each other down.
    pub(crate) siblings_below: f64,
    /// Below this, they share a cache.
    pub(crate) near_below: f64,
    /// From this on, something else ran on them during the probe.
    pub(crate) disturbed_from: f64,
}

impl fmt::Display for Thresholds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { siblings_below, near_below, disturbed_from } = self;
        write!(
            f,
            "near below {near_below:.0} ns one way, far below {disturbed_from:.0} ns, threads of one core (siblings) below \
             {siblings_below:.0} ns if they slow each other down"
        )
    }
}

impl FromStr for Thresholds {
    type Err = String;

    /// Reads three numbers with commas between them.
    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let numbers: std::result::Result<Vec<f64>, _> = text.split(',').map(|number| number.trim().parse()).collect();
        match numbers.as_deref() {
            Ok(&[siblings_below, near_below, disturbed_from]) => {
                Ok(Self { siblings_below, near_below, disturbed_from })
            }
            _ => Err("three numbers with commas between them are wanted".to_owned()),
        }
    }
}

impl Default for Thresholds {
    fn default() -> Self {
        Self { siblings_below: 25.0, near_below: 80.0, disturbed_from: 300.0 }
    }
}

/// Where the two cores stand to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum State {
    /// They share a cache.
    Near,
    /// They share none.
    Far,
    /// They are hardware threads of one core, and slow each other down.
    Siblings,
}

impl State {
    /// Every state, in the order of reports.
    pub(crate) const ALL: [Self; 3] = [Self::Near, Self::Far, Self::Siblings];

    /// Files a one-way latency of `one_way_ns` nanoseconds, between cores that are asked whether they slow each other down if it
    /// matters. `None` means that the machine was disturbed.
    fn of(one_way_ns: f64, thresholds: &Thresholds, crowded: impl FnOnce() -> bool) -> Option<Self> {
        match one_way_ns {
            ns if ns < thresholds.siblings_below && crowded() => Some(Self::Siblings),
            ns if ns < thresholds.near_below => Some(Self::Near),
            ns if ns < thresholds.disturbed_from => Some(Self::Far),
            _ => None,
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Near => "near",
            Self::Far => "far",
            Self::Siblings => "siblings",
        })
    }
}

/// One half of the shared pair, alone on its cache lines (two, for the prefetcher that takes them in pairs).
#[derive(Debug, Default)]
#[repr(align(128))]
struct Turn(AtomicU32);

/// What a look at two cores found.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found {
    /// The one-way latency, in nanoseconds.
    pub(crate) one_way_ns: f64,
    /// `None` if the machine was disturbed.
    pub(crate) state: Option<State>,
}

/// Finds out how two cores stand to each other.
///
/// # Errors
///
/// When a core does not exist or may not be used.
///
/// # Panics
///
/// If one of the probing threads panicked, which they do not.
pub(crate) fn look(first: usize, second: usize, thresholds: &Thresholds) -> Result<Found> {
    let one_way_ns = one_way_ns(first, second)?;
    let state = State::of(one_way_ns, thresholds, || slow_down(first, second) > CROWDED);
    Ok(Found { one_way_ns, state })
}

/// How much longer arithmetic takes on both cores at once than on one alone. The fastest batches count, so that what else runs
/// there for a while does not.
fn slow_down(first: usize, second: usize) -> f64 {
    let busy = AtomicBool::new(true);
    let fastest = || (0..WORKS).map(|_| work()).min().unwrap_or_default();
    thread::scope(|scope| {
        let measure = scope.spawn(|| {
            // Where the latency could be measured, work can.
            let _pinned = pin(first);
            fastest()
        });
        let alone = measure.join().unwrap_or_default();
        scope.spawn(|| {
            let _pinned = pin(second);
            while busy.load(Ordering::Relaxed) {
                work();
            }
        });
        let measure = scope.spawn(|| {
            let _pinned = pin(first);
            let both = fastest();
            busy.store(false, Ordering::Relaxed);
            both
        });
        let both = measure.join().unwrap_or_default();
        // Whatever became of it, the other one ends.
        busy.store(false, Ordering::Relaxed);
        both.as_secs_f64() / alone.as_secs_f64().max(f64::MIN_POSITIVE)
    })
}

/// Keeps a core's multiplier busy in every cycle: eight products at once, none of which waits for another one.
fn work() -> Duration {
    const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
    let start = Instant::now();
    let mut numbers = black_box([1_u64, 3, 5, 7, 9, 11, 13, 15]);
    for _ in 0..STEPS {
        numbers = numbers.map(|number| number.wrapping_mul(ODD));
    }
    black_box(numbers);
    start.elapsed()
}

/// Measures the one-way latency between two cores, in nanoseconds: the median of a few batches of round trips.
///
/// # Errors
///
/// When a core does not exist or may not be used.
///
/// # Panics
///
/// If one of the two probing threads panicked, which they do not.
pub(crate) fn one_way_ns(first: usize, second: usize) -> Result<f64> {
    let turn = Turn::default();
    let trips = TRIPS * u32::try_from(BATCHES).unwrap_or(u32::MAX);
    let (asked, echoed) = thread::scope(|scope| {
        let echo = scope.spawn(|| {
            let pinned = pin(second);
            // Answers even when pinning failed: the other side waits for it.
            for trip in 0..trips {
                wait_for(&turn, 2 * trip + 1);
                turn.0.store(2 * trip + 2, Ordering::Release);
            }
            pinned
        });
        let ask = scope.spawn(|| {
            let pinned = pin(first);
            let batch = |index: usize| {
                let first_trip = TRIPS * u32::try_from(index).unwrap_or_default();
                let start = Instant::now();
                for trip in first_trip..first_trip + TRIPS {
                    turn.0.store(2 * trip + 1, Ordering::Release);
                    wait_for(&turn, 2 * trip + 2);
                }
                start.elapsed()
            };
            let mut batches: Vec<Duration> = (0..BATCHES).map(batch).skip(1).collect();
            batches.sort_unstable();
            pinned.map(|()| batches.get(batches.len() / 2).copied().unwrap_or_default())
        });
        (ask.join().expect("the asking thread does not panic"), echo.join().expect("the echo does not panic"))
    });
    echoed?;
    Ok(asked?.as_secs_f64() * 1e9 / f64::from(TRIPS) / 2.0)
}

fn wait_for(turn: &Turn, value: u32) {
    while turn.0.load(Ordering::Acquire) != value {
        hint::spin_loop();
    }
}

fn pin(core: usize) -> Result<()> {
    // Checked first: `set_for_current` aborts for a number that no CPU set can hold. The cores that the calling thread
    // may use say nothing: it may itself be pinned.
    if core < CPU_SET && core_affinity::set_for_current(CoreId { id: core }) {
        Ok(())
    } else {
        Err(BenchError::Failed(format!("cannot run on core {core}: it is absent, offline or not ours")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_threshold_belongs_to_the_slower_state() {
        let state = |ns| State::of(ns, &Thresholds::default(), || true);
        assert_eq!([24.9, 25.0, 79.9, 80.0, 299.9].map(state), {
            use State::{Far, Near, Siblings};
            [Siblings, Near, Near, Far, Far].map(Some)
        });
        assert_eq!([300.0, f64::INFINITY, f64::NAN].map(state), [None; 3]);
    }

    /// Cores of newer processors are as near to each other as threads of one core were before.
    #[test]
    fn cores_that_do_not_slow_each_other_down_are_no_siblings() {
        assert_eq!(State::of(21.0, &Thresholds::default(), || false), Some(State::Near));
    }

    #[test]
    fn thresholds_are_three_numbers() {
        let thresholds = Thresholds { siblings_below: 12.0, near_below: 80.5, disturbed_from: 300.0 };
        assert_eq!("12, 80.5,300".parse(), Ok(thresholds));
        assert!(["", "1,2", "1,2,3,4", "1,2,far"].iter().all(|text| text.parse::<Thresholds>().is_err()));
    }

    #[test]
    fn a_pinned_thread_can_probe_other_cores() {
        let cores: Vec<usize> = core_affinity::get_core_ids().unwrap_or_default().iter().map(|core| core.id).collect();
        let [first, second, ..] = cores[..] else { return };
        assert!(pin(second).is_ok());
        assert!(one_way_ns(first, second).is_ok());
    }

    #[test]
    fn an_absent_core_is_an_error_and_not_a_hang() {
        assert!(one_way_ns(0, 100_000).is_err());
    }
}
