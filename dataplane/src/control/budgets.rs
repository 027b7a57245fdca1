//! What a user may ask for in a given time: so much at once, and then so much a second.
//!
//! It belongs to the user and not to a connection, so nothing is gained by connecting anew.

use std::collections::BTreeMap;
use std::time::Duration;

/// Parts of one unit; nanoseconds, if it is a millisecond.
const UNIT: i64 = 1_000_000;

/// Budgets of one kind, of all users. A user that has spent nothing of late takes no memory.
#[derive(Debug)]
pub struct Budgets {
    /// Parts that a user may have saved.
    burst: i64,
    /// Parts that it is granted in a second.
    rate: i64,
    users: BTreeMap<u32, i64>,
}

impl Budgets {
    /// Budgets of `burst` units at once, and `per_second` more.
    #[must_use]
    pub fn new(burst: u32, per_second: u32) -> Self {
        Self { burst: i64::from(burst) * UNIT, rate: i64::from(per_second) * UNIT, users: BTreeMap::new() }
    }

    /// One unit at once, and one more in each `period`.
    #[must_use]
    pub fn every(burst: u32, period: Duration) -> Self {
        let period = i64::try_from(period.as_millis()).unwrap_or(i64::MAX).max(1);
        Self { burst: i64::from(burst) * UNIT, rate: UNIT * 1000 / period, users: BTreeMap::new() }
    }

    /// Whether a user has a unit left.
    #[must_use]
    pub fn has(&self, user: u32) -> bool {
        self.users.get(&user).is_none_or(|left| *left >= UNIT)
    }

    /// Whether a user has half of what it may have saved.
    #[must_use]
    pub fn has_half(&self, user: u32) -> bool {
        self.left(user) >= self.burst / 2
    }

    /// Takes one unit from a user, which may owe it afterwards, but never more than it can have saved.
    pub fn spend(&mut self, user: u32) {
        let left = self.users.entry(user).or_insert(self.burst);
        *left = (*left - UNIT).max(-self.burst);
    }

    /// Takes `time` from a user whose units are milliseconds. It may owe some afterwards, as with [`spend`](Self::spend).
    pub fn spend_time(&mut self, user: u32, time: Duration) {
        let parts = i64::try_from(time.as_nanos()).unwrap_or(i64::MAX);
        let left = self.users.entry(user).or_insert(self.burst);
        *left = left.saturating_sub(parts).max(-self.burst);
    }

    /// What a user has left, in parts that are good for comparing.
    #[must_use]
    pub fn left(&self, user: u32) -> i64 {
        self.users.get(&user).copied().unwrap_or(self.burst)
    }

    /// Grants what is due after `passed`.
    pub fn grant(&mut self, passed: Duration) {
        let millis = i64::try_from(passed.as_millis()).unwrap_or(i64::MAX);
        let due = self.rate.saturating_mul(millis) / 1000;
        let burst = self.burst;
        self.users.retain(|_, left| {
            *left = left.saturating_add(due);
            *left < burst
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A user gets its burst and then its rate, whatever others spend; who is quiet is forgotten with all it had.
    #[test]
    fn users_get_burst_and_rate() {
        let mut budgets = Budgets::new(10, 100);
        let spend = |budgets: &mut Budgets, user| {
            (0..1000).take_while(|_| budgets.has(user).then(|| budgets.spend(user)).is_some()).count()
        };
        assert_eq!((spend(&mut budgets, 1), spend(&mut budgets, 1)), (10, 0));
        assert_eq!(spend(&mut budgets, 2), 10);
        budgets.grant(Duration::from_millis(50));
        assert_eq!(spend(&mut budgets, 1), 5);
        for _ in 0..10 {
            budgets.grant(Duration::from_millis(100));
            assert_eq!(spend(&mut budgets, 1), 10);
        }
        budgets.grant(Duration::from_secs(1));
        assert!(budgets.users.is_empty());
    }

    /// Less than one in a second adds up, and what is owed is paid back.
    #[test]
    fn slow_rates_add_up_and_debts_are_paid() {
        let mut budgets = Budgets::every(2, Duration::from_secs(2));
        (0..100).for_each(|_| budgets.spend(7));
        let mut ticks = 0;
        while !budgets.has(7) {
            budgets.grant(Duration::from_millis(100));
            ticks += 1;
        }
        // From two owed to one, at one in two seconds.
        assert_eq!(ticks, 60);
    }
}
