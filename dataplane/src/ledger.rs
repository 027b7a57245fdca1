//! What one worker counts for each outcome of the policy.
//!
//! An outcome is everything that a judgement says, at one app's side: which rule decided, which were passed on the way.
//! All flows with the same outcome share a tally, so a packet costs one addition whatever it has passed, and the control
//! thread works out from the tallies what each rule and each app has seen. A ledger belongs to one picture of the ports,
//! whose rules and port numbers its outcomes name.

use crate::counters::Counter;
use crate::ids::PortId;
use kopi_config::policy::{Decision, Direction};
use kopi_policy::{Cause, Judgement, Violation};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

/// Tallies of a ledger at most: each is named by 16 bits in a flow.
const MOST: usize = 1 << 15;
/// Tallies of a ledger at least.
const LEAST: usize = 1 << 12;

/// Which tally counts a flow's packets. The first one is for outcomes that found no place.
pub type TallyId = u16;

/// A judgement at one app's side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
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

impl Outcome {
    /// The outcome of `judgement` for frames that go in `direction` at the side of app `port`.
    #[must_use]
    pub const fn new(port: PortId, direction: Direction, judgement: &Judgement) -> Self {
        let Judgement { decision, cause, passing, .. } = *judgement;
        Self { port, direction, decision, cause, passing }
    }

    /// Two words that say the same. The first is never zero.
    fn words(self) -> [u64; 2] {
        let (kind, rule) = match self.cause {
            Cause::Rule(rule) => (1, rule),
            Cause::Default => (2, 0),
            Cause::Lease(violation) => {
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
            3 => Cause::Lease(*Violation::ALL.get(usize::try_from(rule).ok()?)?),
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
struct Tally {
    words: [AtomicU64; 2],
    packets: Counter,
    bytes: Counter,
}

/// The tallies of one worker under one picture. One thread writes, any thread reads.
#[derive(Debug)]
pub struct Ledger {
    tallies: Box<[Tally]>,
}

impl Ledger {
    /// An empty ledger for a policy of `rules` rules.
    #[must_use]
    pub fn new(rules: usize) -> Self {
        // Each rule may decide in either direction, at a few apps; and then there is what is not a rule.
        let tallies = (rules * 4).next_power_of_two().clamp(LEAST, MOST);
        Self { tallies: (0..tallies).map(|_| Tally::default()).collect() }
    }

    /// The tally of `outcome`. Only the owning thread may call this.
    #[must_use]
    pub fn tally_of(&self, outcome: &Outcome) -> TallyId {
        /// How far to look for a free place.
        const REACH: usize = 64;
        let words = outcome.words();
        let mask = self.tallies.len() - 1;
        let mixed = words[0].wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ words[1].wrapping_mul(0xc2b2_ae3d_27d4_eb4f);
        let start = usize::try_from(mixed >> 40).unwrap_or(0);
        for at in (start..start + REACH).map(|at| at & mask).filter(|at| *at != 0) {
            let Some(tally) = self.tallies.get(at) else { continue };
            match tally.words[0].load(Relaxed) {
                0 => {
                    tally.words[1].store(words[1], Relaxed);
                    tally.words[0].store(words[0], Release);
                }
                first if first != words[0] || tally.words[1].load(Relaxed) != words[1] => continue,
                _ => {}
            }
            return TallyId::try_from(at).unwrap_or(0);
        }
        0
    }

    /// Counts packets. Only the owning thread may call this.
    #[inline]
    pub fn count(&self, tally: TallyId, packets: u64, bytes: u64) {
        if let Some(tally) = self.tallies.get(usize::from(tally)) {
            tally.packets.add(packets);
            tally.bytes.add(bytes);
        }
    }

    /// What `tally` is of; `None` for the one without an outcome.
    #[must_use]
    pub fn outcome(&self, tally: TallyId) -> Option<Outcome> {
        let tally = self.tallies.get(usize::from(tally))?;
        let first = tally.words[0].load(Acquire);
        Outcome::from_words([first, tally.words[1].load(Relaxed)])
    }

    /// Every outcome so far, with its packets and bytes. Those that found no place are not in it.
    pub fn entries(&self) -> impl Iterator<Item = (Outcome, u64, u64)> + '_ {
        self.tallies.iter().filter_map(|tally| {
            let first = tally.words[0].load(Acquire);
            let outcome = Outcome::from_words([first, tally.words[1].load(Relaxed)])?;
            Some((outcome, tally.packets.get(), tally.bytes.get()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(port: PortId, cause: Cause, passing: u64) -> Outcome {
        Outcome { port, direction: Direction::Ingress, decision: Decision::Drop, cause, passing }
    }

    /// Outcomes come back as they went in, each with what was counted for it.
    #[test]
    fn outcomes_keep_their_counts() {
        let ledger = Ledger::new(10);
        let causes = [
            Cause::Rule(0),
            Cause::Rule(99_999),
            Cause::Default,
            Cause::Lease(Violation::Ndp),
            Cause::Malformed,
            Cause::Fragment,
        ];
        let mut expected = Vec::new();
        for (n, cause) in (1..).zip(causes) {
            for (port, passing) in [(1, 0), (1023, 1 << 63)] {
                let outcome = outcome(port, cause, passing);
                let tally = ledger.tally_of(&outcome);
                assert_ne!(tally, 0);
                ledger.count(tally, n, 64 * n);
                assert_eq!(ledger.tally_of(&outcome), tally);
                assert_eq!(ledger.outcome(tally), Some(outcome));
                expected.push((outcome, n, 64 * n));
            }
        }
        let mut found: Vec<_> = ledger.entries().collect();
        let key = |(outcome, ..): &(Outcome, u64, u64)| outcome.words();
        found.sort_by_key(key);
        expected.sort_by_key(key);
        assert_eq!(found, expected);
    }

    /// With more outcomes than there is room for, the last ones share the tally that has no name.
    #[test]
    fn full_ledger_counts_namelessly() {
        let ledger = Ledger::new(0);
        let tallies: Vec<_> = (0..8192).map(|rule| ledger.tally_of(&outcome(1, Cause::Rule(rule), 0))).collect();
        assert_eq!(tallies.iter().filter(|tally| **tally == 0).count() + ledger.entries().count(), 8192);
        assert_eq!(ledger.outcome(0), None);
    }
}
