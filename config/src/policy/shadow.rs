//! Rules that never come to their turn, because an earlier one decides everything that they match.
//!
//! Comparing every rule with every other would take hours for a large policy. A rule is compared with the one before it
//! that says exactly the same, and with the first [`BROAD_MAX`] earlier ones that say little: two keys at most. It is
//! taken for shadowed by one of them alone, never by several together, and only by a rule for every owner or for the
//! same owner. So a warning is always right, and none is no proof.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};

use rustc_hash::FxHasher;

use super::rule::Rule;
use crate::document::Document;
use crate::report::quoted;

/// Most earlier rules that a rule is compared with.
const BROAD_MAX: usize = 1000;
/// Most keys that such a rule states.
const BROAD_KEYS: u32 = 2;
/// Most comparisons of two rules in all, each of some ten nanoseconds. Later rules are not looked at.
const COMPARISONS_MAX: usize = 20_000_000;

/// Warns of shadowed rules: of the first one behind each rule that shadows some. `starts` has the place of each rule.
pub(super) fn warn(rules: &[Rule], starts: &[usize], document: &Document<'_>) {
    for (earlier, Shadow { first, others }) in find(rules) {
        let (Some(earlier), Some(later), Some(&start)) = (rules.get(earlier), rules.get(first), starts.get(first))
        else {
            continue;
        };
        let (name, line) = (quoted(&earlier.name), earlier.line);
        let message = format!("the rule {} never matches: {name} on line {line} comes first", quoted(&later.name));
        let more = if others > 0 { format!(", as it does for {others} more rules below") } else { String::new() };
        let help = format!("that rule decides every frame of this one{more}; move one of them, or leave it out");
        document.warning(start, "rule", message, &help);
    }
}

/// What one rule shadows.
#[derive(Debug, PartialEq, Eq)]
struct Shadow {
    /// Index of the first rule in it.
    first: usize,
    /// How many more there are.
    others: usize,
}

/// The rules that shadow others, by their index.
fn find(rules: &[Rule]) -> BTreeMap<usize, Shadow> {
    let mut found: BTreeMap<usize, Shadow> = BTreeMap::new();
    let mut broad: Vec<(usize, u32, &Rule)> = Vec::new();
    let mut twins: BTreeMap<u64, usize> = BTreeMap::new();
    let mut left = COMPARISONS_MAX;
    for (index, rule) in rules.iter().enumerate() {
        let stated = rule.matches.stated();
        let print = fingerprint(rule);
        let twin = twins.get(&print).copied().filter(|&twin| rules.get(twin).is_some_and(|twin| decides(twin, rule)));
        let shadow = twin.or_else(|| {
            let mut candidates = broad.iter().filter(|(_, keys, _)| keys & !stated == 0).take(left);
            left -= candidates.clone().count().min(left);
            candidates.find(|(_, _, earlier)| decides(earlier, rule)).map(|(earlier, ..)| *earlier)
        });
        if let Some(earlier) = shadow {
            found.entry(earlier).and_modify(|shadow| shadow.others += 1).or_insert(Shadow { first: index, others: 0 });
        } else if rule.action.decision().is_some() {
            twins.insert(print, index);
            if stated.count_ones() <= BROAD_KEYS && broad.len() < BROAD_MAX {
                broad.push((index, stated, rule));
            }
        }
    }
    found
}

/// Whether `earlier` decides every frame that `later` matches.
fn decides(earlier: &Rule, later: &Rule) -> bool {
    earlier.action.decision().is_some()
        && (earlier.owner.is_any() || earlier.owner == later.owner)
        && earlier.matches.covers(&later.matches)
}

/// Equal for rules that match the same, and seldom for others. Costs the same whatever sets they use. Who writes a policy so that
/// others have the same goes without a warning. Who writes a policy so that
/// others have the same goes without a warning.
fn fingerprint(rule: &Rule) -> u64 {
    let mut hasher = FxHasher::default();
    rule.owner.hash(&mut hasher);
    rule.matches.hash_ends(&mut hasher);
    hasher.finish()
}
