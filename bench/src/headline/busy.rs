//! How busy cores were, by the kernel's account.

use std::fs;
use std::time::Duration;

use crate::error::{BenchError, Doing, Result};
use crate::throughput::approximate;

/// Processor time of one core since the machine has started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Busy {
    /// All that was neither idle nor taken by the hypervisor.
    pub(super) all: Duration,
    /// Of that, interrupts and what they leave for later.
    pub(super) interrupts: Duration,
}

impl Busy {
    /// Looks at one core.
    ///
    /// # Errors
    ///
    /// When the kernel has no such core.
    pub(super) fn of(core: usize) -> Result<Self> {
        let text = fs::read_to_string("/proc/stat").doing(|| "read /proc/stat".to_owned())?;
        Self::parse(&text, core).ok_or_else(|| BenchError::Failed(format!("/proc/stat has no core {core}")))
    }

    /// # Source
    ///
    /// proc_stat(5): clock ticks as user, in user mode with low priority, system, idle, waiting for I/O, interrupts, softirqs.
    fn parse(text: &str, core: usize) -> Option<Self> {
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("cpu{core} ")))?;
        let ticks: Vec<u64> = line.split_whitespace().map_while(|word| word.parse().ok()).collect();
        let &[user, nice, system, _idle, _waiting, hard, soft, ..] = ticks.as_slice() else { return None };
        let time = |ticks: u64| Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second());
        Some(Self { all: time(user + nice + system + hard + soft), interrupts: time(hard + soft) })
    }

    /// What came since an earlier look, in seconds: of all, and of interrupts.
    pub(super) fn since(self, first: Self) -> (f64, f64) {
        let seconds = |last: Duration, first| last.saturating_sub(first).as_secs_f64();
        (seconds(self.all, first.all), seconds(self.interrupts, first.interrupts))
    }
}

/// Million frames per second for each busy core: `cores` of them gave `mpps`.
pub(super) fn per_core(mpps: f64, cores: f64) -> f64 {
    if cores > 0.0 { mpps / cores } else { 0.0 }
}

/// Million frames per second of so many in so many nanoseconds.
pub(super) fn mpps(frames: u64, nanoseconds: u64) -> f64 {
    approximate(frames) / approximate(nanoseconds) * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_stolen_and_other_cores_do_not_count() {
        let text = "cpu  9 9 9 9 9 9 9 9 9 9\ncpu1 100 10 200 5000 60 3 40 700 0 0\ncpu11 1 1 1 1 1 1 1 1 0 0\n";
        let tick = 1000 / rustix::param::clock_ticks_per_second();
        let busy = Busy::parse(text, 1).expect("there is a core 1");
        assert_eq!(busy, Busy { all: Duration::from_millis(353 * tick), interrupts: Duration::from_millis(43 * tick) });
        assert_eq!(Busy::parse(text, 2), None);
        let (all, interrupts) = busy.since(Busy::default());
        assert!((all / interrupts - 353.0 / 43.0).abs() < 1e-9);
    }

    #[test]
    fn a_rate_a_core() {
        assert!((per_core(mpps(30_000_000, 1_000_000_000), 2.0) - 15.0).abs() < 1e-9);
        assert_eq!(per_core(1.0, 0.0), 0.0);
    }
}
