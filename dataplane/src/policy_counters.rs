//! What one worker counts for each evaluation of the policy.
//!
//! A [`CounterKey`] is everything that an evaluation says, at one app's side: which rule decided, which were passed on the way.
//! All flows with the same key share a counter, so a packet costs one addition whatever it has passed, and the control
//! thread works out from the counters what each rule and each app has seen. Policy counters belong to one snapshot of the ports,
//! whose rules and port numbers their keys name.

use crate::ids::PortId;
use crate::worker::counters::Counter;
use kopi_config::policy::{Decision, Direction};
use kopi_policy::{Cause, Evaluation, Violation};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

/// Most counters of a worker: each is named by 16 bits in a flow.
const MOST: usize = 1 << 15;
/// Fewest counters of a worker.
const LEAST: usize = 1 << 12;

/// Which counter counts a flow's packets. The first one is for keys that found no place.
pub type CounterId = u16;

/// An evaluation at one app's side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CounterKey {
    /// The app.
    pub port: PortId,
    /// Which way the frames go.
    pub direction: Direction,
    /// What is done with them.
    pub decision: Decision,
    /// Why.
    pub cause: Cause,
    /// The rules that were passed.
    pub passing: u64,
}

impl CounterKey {
    /// The key of `evaluation` for frames that go in `direction` at the side of app `port`.
    #[must_use]
    pub const fn new(port: PortId, direction: Direction, evaluation: &Evaluation) -> Self {
        let Evaluation { decision, cause, passing, .. } = *evaluation;
        Self { port, direction, decision, cause, passing }
    }

    /// Two words that say the same. The first is never zero.
    fn words(self) -> [u64; 2] {
        let (kind, rule) = match self.cause {
            Cause::Rule(rule) => (1, rule),
            Cause::Default => (2, 0),
            Cause::PortSecurity(violation) => {
                (3, (0..).zip(Violation::ALL).find(|(_, v)| *v == violation).map_or(0, |(at, _)| at))
            }
            Cause::Malformed => (4, 0),
            Cause::Fragment => (5, 0),
        };
        let decision = match self.decision {
            Decision::Accept => 0,
            Decision::Drop => 1,
            Decision::Reject => 2,
        };
        let way = u64::from(self.direction == Direction::Ingress);
        let word = u64::from(rule) << 32 | u64::from(self.port) << 16 | way << 15 | decision << 8 | kind;
        [word, self.passing]
    }

    fn from_words([word, passing]: [u64; 2]) -> Option<Self> {
        let rule = u32::try_from(word >> 32).ok()?;
        let cause = match word & 0xff {
            1 => Cause::Rule(rule),
            2 => Cause::Default,
            3 => Cause::PortSecurity(*Violation::ALL.get(usize::try_from(rule).ok()?)?),
            4 => Cause::Malformed,
            5 => Cause::Fragment,
            _ => return None,
        };
        let decision = match word >> 8 & 0x7f {
            0 => Decision::Accept,
            1 => Decision::Drop,
            _ => Decision::Reject,
        };
        let direction = if word >> 15 & 1 == 1 { Direction::Ingress } else { Direction::Egress };
        Some(Self { port: PortId::try_from(word >> 16 & 0xffff).ok()?, direction, decision, cause, passing })
    }
}

#[derive(Debug, Default)]
struct Entry {
    words: [AtomicU64; 2],
    packets: Counter,
    bytes: Counter,
}

/// The counters of one worker under one snapshot. One thread writes, any thread reads.
#[derive(Debug)]
pub struct PolicyCounters {
    entries: Box<[Entry]>,
}

impl PolicyCounters {
    /// Empty counters for a policy of `rules` rules.
    #[must_use]
    pub fn new(rules: usize) -> Self {
        // Each rule may decide in either direction, at a few apps; and then there is what is not a rule.
        let entries = (rules * 4).next_power_of_two().clamp(LEAST, MOST);
        Self { entries: (0..entries).map(|_| Entry::default()).collect() }
    }

    /// The counter of `key`. Only the owning thread may call this.
    #[must_use]
    pub fn counter_of(&self, key: &CounterKey) -> CounterId {
        /// How far to look for a free place.
        const REACH: usize = 64;
        let words = key.words();
        let mask = self.entries.len() - 1;
        let mixed = words[0].wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ words[1].wrapping_mul(0xc2b2_ae3d_27d4_eb4f);
        let start = usize::try_from(mixed >> 40).unwrap_or(0);
        for at in (start..start + REACH).map(|at| at & mask).filter(|at| *at != 0) {
            let Some(entry) = self.entries.get(at) else { continue };
            match entry.words[0].load(Relaxed) {
                0 => {
                    entry.words[1].store(words[1], Relaxed);
                    entry.words[0].store(words[0], Release);
                }
                first if first != words[0] || entry.words[1].load(Relaxed) != words[1] => continue,
                _ => {}
            }
            return CounterId::try_from(at).unwrap_or(0);
        }
        0
    }

    /// Counts packets. Only the owning thread may call this.
    #[inline]
    pub fn count(&self, id: CounterId, packets: u64, bytes: u64) {
        if let Some(entry) = self.entries.get(usize::from(id)) {
            entry.packets.add(packets);
            entry.bytes.add(bytes);
        }
    }

    /// The key of a counter; `None` for the one that has none.
    #[must_use]
    pub fn key(&self, id: CounterId) -> Option<CounterKey> {
        let entry = self.entries.get(usize::from(id))?;
        let first = entry.words[0].load(Acquire);
        CounterKey::from_words([first, entry.words[1].load(Relaxed)])
    }

    /// Every key so far, with its packets and bytes. Those that found no place are not in it.
    pub fn entries(&self) -> impl Iterator<Item = (CounterKey, u64, u64)> + '_ {
        self.entries.iter().filter_map(|entry| {
            let first = entry.words[0].load(Acquire);
            let key = CounterKey::from_words([first, entry.words[1].load(Relaxed)])?;
            Some((key, entry.packets.get(), entry.bytes.get()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key_of(port: PortId, cause: Cause, passing: u64) -> CounterKey {
        CounterKey { port, direction: Direction::Ingress, decision: Decision::Drop, cause, passing }
    }

    /// Keys come back as they went in, each with what was counted for it.
    #[test]
    fn keys_keep_their_counts() {
        let policy_counters = PolicyCounters::new(10);
        let causes = [
            Cause::Rule(0),
            Cause::Rule(99_999),
            Cause::Default,
            Cause::PortSecurity(Violation::Ndp),
            Cause::Malformed,
            Cause::Fragment,
        ];
        let mut expected = Vec::new();
        for (n, cause) in (1..).zip(causes) {
            for (port, passing) in [(1, 0), (1023, 1 << 63)] {
                let key = key_of(port, cause, passing);
                let counter_id = policy_counters.counter_of(&key);
                assert_ne!(counter_id, 0);
                policy_counters.count(counter_id, n, 64 * n);
                assert_eq!(policy_counters.counter_of(&key), counter_id);
                assert_eq!(policy_counters.key(counter_id), Some(key));
                expected.push((key, n, 64 * n));
            }
        }
        let mut found: Vec<_> = policy_counters.entries().collect();
        let key = |(key, ..): &(CounterKey, u64, u64)| key.words();
        found.sort_by_key(key);
        expected.sort_by_key(key);
        assert_eq!(found, expected);
    }

    /// With more keys than there is room for, the last ones share the counter that has no name.
    #[test]
    fn full_ledger_counts_namelessly() {
        let policy_counters = PolicyCounters::new(0);
        let counter_ids: Vec<_> =
            (0..8192).map(|rule| policy_counters.counter_of(&key_of(1, Cause::Rule(rule), 0))).collect();
        assert_eq!(
            counter_ids.iter().filter(|counter_id| **counter_id == 0).count() + policy_counters.entries().count(),
            8192
        );
        assert_eq!(policy_counters.key(0), None);
    }
}
