//! The time stamp counter, whose ticks are the dataplane's time.

use std::time::Duration;

#[cfg(not(target_arch = "x86_64"))]
use dpdk_sys as sys;

/// The time stamp counter of this core, in ticks. All cores agree on a machine that DPDK supports.
#[must_use]
#[inline]
pub fn tsc() -> u64 {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every x86_64 processor has the instruction, and it has no effect.
    return unsafe { core::arch::x86_64::_rdtsc() };
    #[cfg(not(target_arch = "x86_64"))]
    // SAFETY: reads a register.
    return unsafe { sys::kopi_rdtsc() };
}

/// `span` in ticks of a clock of `hz` ticks a second, rounded down; [`u64::MAX`] if they are more.
///
/// ```
/// assert_eq!(dpdk::tsc::ticks(std::time::Duration::from_millis(2), 2_600_000_000), 5_200_000);
/// ```
#[must_use]
pub fn ticks(span: Duration, hz: u64) -> u64 {
    u64::try_from(span.as_nanos().saturating_mul(u128::from(hz)) / 1_000_000_000).unwrap_or(u64::MAX)
}

/// `ticks` of a clock of `hz` ticks a second in nanoseconds, rounded down; [`u64::MAX`] if they are more. A clock of 0 Hz
/// is taken for one of 1 Hz.
#[must_use]
pub fn nanoseconds(ticks: u64, hz: u64) -> u64 {
    u64::try_from(u128::from(ticks) * 1_000_000_000 / u128::from(hz.max(1))).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_become_nanoseconds_without_overflow() {
        assert_eq!(nanoseconds(2_600, 2_600_000_000), 1_000);
        assert_eq!(nanoseconds(u64::MAX, 1), u64::MAX);
        assert_eq!(nanoseconds(1, 0), 1_000_000_000);
        assert_eq!(ticks(Duration::MAX, u64::MAX), u64::MAX);
    }
}
