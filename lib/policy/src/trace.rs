//! An evaluation with its reasons, for people.

use std::cmp::Reverse;

use kopi_config::policy::Rule;

use crate::bits::Ones;
use crate::fields;
use crate::frame::{Cause, Evaluation, Packet};
use crate::ruleset::{PortPolicy, Ruleset};

/// Why a frame was evaluated as it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace<'a> {
    /// The same that [`Ruleset::evaluate`] says.
    pub evaluation: Evaluation,
    /// The rule that decided, unless it was none.
    pub rule: Option<&'a Rule>,
    /// Rules that matched before and went on, in order.
    pub passed: Vec<&'a Rule>,
    /// Rules that were asked before and did not match, in order: those that came closest.
    pub missed: Vec<Miss<'a>>,
}

/// A rule that did not match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Miss<'a> {
    /// The rule.
    pub rule: &'a Rule,
    /// What of it did not hold, by the names of the policy file; `owner` for any part of that.
    pub fields: Vec<&'static str>,
}

impl Ruleset {
    /// Evaluates a frame, and says by which rules, and why at most `most` others did not match. Visits every
    /// rule: for people who ask, not for the way of a frame.
    #[must_use]
    pub fn trace(&self, port_policy: &PortPolicy, packet: &Packet<'_>, most: usize) -> Trace<'_> {
        let evaluation = self.evaluate(port_policy, packet);
        let rules = self.rules();
        let (asked, rule) = match evaluation.cause {
            Cause::Rule(index) => (index as usize, rules.get(index as usize)),
            Cause::Default => (rules.len(), None),
            Cause::PortSecurity(_) | Cause::Malformed | Cause::Fragment => (0, None),
        };
        let mut missed: Vec<(usize, Miss<'_>)> = Vec::new();
        for (index, rule) in rules.iter().enumerate().take(asked) {
            let owner = (!port_policy.rules.contains(index)).then_some("owner");
            let fields: Vec<_> = fields::differences(&rule.matches, packet).into_iter().chain(owner).collect();
            if !fields.is_empty() {
                missed.push((index, Miss { rule, fields }));
            }
        }
        // Of those that are equally close, the ones that were asked last.
        missed.sort_by_key(|(index, miss)| (miss.fields.len(), Reverse(*index)));
        missed.truncate(most);
        missed.sort_by_key(|(index, _)| *index);
        let passed = Ones(evaluation.passing).filter_map(|bit| rules.get(self.passing_rules()[bit] as usize));
        let missed = missed.into_iter().map(|(_, miss)| miss).collect();
        Trace { evaluation, rule, passed: passed.collect(), missed }
    }
}
