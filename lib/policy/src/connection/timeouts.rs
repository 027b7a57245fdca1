//! How long a connection may stay in its state without a packet.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU32};

use kopi_config::policy::Tracking;

use super::entry::Slot;
use crate::tcp::TcpState;

/// Turns the caller's ticks into the unit in which the table keeps time: a power of two of ticks, one to two milliseconds
/// of a fast clock. Fine enough to tell under a flood which connection is older, and no division is needed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    hz: u64,
    shift: u32,
}

/// A time in units of [`Clock`]; wraps after 48 days or more. So what has ended has to be swept within half of that.
pub(crate) type Units = u32;

/// No time-out is longer, in [`Units`], so that a difference of times is not taken for its negative: twelve days or more.
const LONGEST: Units = 1 << 30;

impl Clock {
    /// A clock of `hz` ticks a second.
    pub(crate) fn new(hz: u64) -> Self {
        Self { hz: hz.max(1), shift: (hz / 512).max(1).ilog2() }
    }

    #[expect(clippy::cast_possible_truncation, reason = "times are compared by their difference")]
    pub(crate) const fn units(self, ticks: u64) -> Units {
        (ticks >> self.shift) as Units
    }

    /// A time-out. It is over when so many units have passed, and at least `seconds` have then: both its own fraction of
    /// a unit and that of its start are rounded up.
    pub(crate) fn timeout(self, seconds: u32) -> Units {
        let units = (u128::from(seconds) * u128::from(self.hz)) >> self.shift;
        Units::try_from(units + 2).map_or(LONGEST, |units| units.min(LONGEST))
    }

    /// Seconds, rounded to whole ones.
    pub(crate) fn seconds(self, units: Units) -> u32 {
        let hz = u128::from(self.hz);
        let seconds = ((u128::from(units) << self.shift) + hz / 2) / hz;
        u32::try_from(seconds).unwrap_or(u32::MAX)
    }
}

/// The settings of `[tracking]`, which a reload of the policy may change while workers read them.
#[derive(Debug, Default)]
pub(crate) struct Settings {
    /// By the number of the state.
    timeouts: [AtomicU32; 16],
    udp_stream: AtomicU32,
    /// A connection that was picked up in its middle and is not answered yet.
    unanswered: AtomicU32,
    window: AtomicBool,
    loose: AtomicBool,
}

impl Settings {
    /// Seconds for which a connection that was picked up in its middle waits for the other side, instead of the days
    /// that an established one has. Linux has the same five minutes.
    const UNANSWERED: u32 = 300;

    pub(crate) fn set(&self, tracking: &Tracking, clock: Clock) {
        for state in TcpState::ALL {
            let seconds = match state {
                TcpState::SynSent | TcpState::SynRecv | TcpState::SynSent2 => tracking.tcp_syn,
                TcpState::Established | TcpState::Challenged => tracking.tcp_established,
                TcpState::FinWait | TcpState::CloseWait | TcpState::LastAck | TcpState::TimeWait => {
                    tracking.tcp_closing
                }
                TcpState::Close => tracking.tcp_closed,
                TcpState::Udp => tracking.udp,
                TcpState::Icmp => tracking.icmp,
                TcpState::Other => tracking.other,
            };
            self.timeouts[state as usize].store(clock.timeout(seconds), Relaxed);
        }
        self.udp_stream.store(clock.timeout(tracking.udp_stream), Relaxed);
        self.unanswered.store(clock.timeout(tracking.tcp_established.min(Self::UNANSWERED)), Relaxed);
        self.window.store(tracking.tcp_window, Relaxed);
        self.loose.store(tracking.tcp_loose, Relaxed);
    }

    /// Whether TCP segments have to fit the window.
    pub(crate) fn window(&self) -> bool {
        self.window.load(Relaxed)
    }

    /// Whether connections may be picked up in their middle.
    pub(crate) fn loose(&self) -> bool {
        self.loose.load(Relaxed)
    }

    /// How long the connection may stay without a packet.
    fn timeout(&self, slot: Slot) -> Units {
        let of = match slot.tcp_state {
            TcpState::Udp if slot.answered => &self.udp_stream,
            TcpState::Established if !slot.answered => &self.unanswered,
            // A refused connection never was one: the next packet is looked at as the first.
            TcpState::Close if !slot.answered => return 0,
            state => &self.timeouts[state as usize],
        };
        of.load(Relaxed)
    }

    /// Units until the connection ends for want of packets; 0 if it has ended.
    pub(crate) fn rest(&self, slot: Slot, now: Units) -> Units {
        self.timeout(slot).saturating_sub(since(slot.seen, now))
    }

    pub(crate) fn is_expired(&self, slot: Slot, now: Units) -> bool {
        self.rest(slot, now) == 0
    }
}

/// Units from `then` to `now`. Zero if `then` is later: another worker may look at the clock after us, and be faster.
pub(crate) fn since(then: Units, now: Units) -> Units {
    let passed = now.wrapping_sub(then);
    if passed > Units::MAX / 2 { 0 } else { passed }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// For clocks from a kernel's jiffies to a fast TSC, a time-out is never short, and never half a second long.
    #[test]
    fn time_outs_are_kept_to_a_fraction_of_a_second() {
        for hz in [100, 1000, 999_999_937, 2_595_124_000, 5_000_000_000] {
            let clock = Clock::new(hz);
            assert!(LONGEST > clock.timeout(12 * 24 * 3600));
            for seconds in [1, 30, 120, 432_000] {
                let due = clock.timeout(seconds);
                let start = hz * 1_000_000_000 % (1 << 40) + 17;
                let at = |ticks: u64| clock.units(ticks).wrapping_sub(clock.units(start));
                assert!(at(start + u64::from(seconds) * hz) < due, "{hz} {seconds}");
                assert!(at(start + u64::from(seconds) * hz + hz / 2) >= due, "{hz} {seconds}");
                assert_eq!(clock.seconds(due), seconds, "{hz}");
            }
            assert!(clock.timeout(u32::MAX) <= LONGEST);
        }
    }

    #[test]
    fn a_clock_that_lags_does_not_expire_anything() {
        assert_eq!((since(5, 4), since(4, 5), since(u32::MAX, 3)), (0, 1, 4));
    }
}
