//! Rules that never come to their turn, because an earlier one decides everything that they match.
//!
//! Comparing every rule with every other would take hours for a large policy. A rule is compared with the one before it
//! that says exactly the same, and with the first [`BROAD_MAX`] earlier ones that say little: two keys at most. It is
//! taken for shadowed by one of them alone, never by several together, and only by a rule for every owner or for the
//! same owner. So a warning is always right, and none is no proof.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use super::addresses::Addresses;
use super::field::{Field, Scalar};
use super::matches::Match;
use super::rule::Rule;
use crate::report::quoted;
use crate::walk::Document;

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
        document.warning(start, "rule", message, help);
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

/// Equal for rules that match the same, and seldom for others. Costs the same whatever sets they use.
fn fingerprint(rule: &Rule) -> u64 {
    let mut hasher = DefaultHasher::new();
    rule.owner.hash(&mut hasher);
    rule.matches.hash_ends(&mut hasher);
    hasher.finish()
}

/// Hashes the number of ranges, and the first and the last.
fn ends<T: Scalar + Hash>(field: &Field<T>, hasher: &mut DefaultHasher) {
    let ranges = field.ranges();
    (ranges.len(), ranges.first(), ranges.last()).hash(hasher);
}

fn both_ends(addresses: &Addresses, hasher: &mut DefaultHasher) {
    ends(&addresses.v4, hasher);
    ends(&addresses.v6, hasher);
}

/// Whether what is stated, if anything, leaves room for what the other states.
fn open<T>(own: Option<&T>, other: Option<&T>, covers: impl Fn(&T, &T) -> bool) -> bool {
    own.is_none_or(|own| other.is_some_and(|other| covers(own, other)))
}

impl Match {
    /// Whether every frame that `other` matches is matched by `self` too. May say no where it is so.
    pub(super) fn covers(&self, other: &Self) -> bool {
        let (a, b) = (self, other);
        open(a.direction.as_ref(), b.direction.as_ref(), PartialEq::eq)
            && open(a.ethertype.as_ref(), b.ethertype.as_ref(), Field::covers)
            && open(a.proto.as_ref(), b.proto.as_ref(), Field::covers)
            && open(a.dscp.as_ref(), b.dscp.as_ref(), Field::covers)
            && open(a.dst_port.as_ref(), b.dst_port.as_ref(), Field::covers)
            && open(a.src_port.as_ref(), b.src_port.as_ref(), Field::covers)
            && open(a.dst.as_ref(), b.dst.as_ref(), Addresses::covers)
            && open(a.src.as_ref(), b.src.as_ref(), Addresses::covers)
            && open(a.vlan.as_ref(), b.vlan.as_ref(), Field::covers)
            && open(a.inner_vlan.as_ref(), b.inner_vlan.as_ref(), Field::covers)
            && open(a.src_mac.as_ref(), b.src_mac.as_ref(), Field::covers)
            && open(a.dst_mac.as_ref(), b.dst_mac.as_ref(), Field::covers)
            && open(a.icmp.as_ref(), b.icmp.as_ref(), Field::covers)
            && open(a.icmp6.as_ref(), b.icmp6.as_ref(), Field::covers)
            && open(a.tcp_flags.as_ref(), b.tcp_flags.as_ref(), PartialEq::eq)
            && open(a.arp_op.as_ref(), b.arp_op.as_ref(), Field::covers)
            && open(a.arp_src.as_ref(), b.arp_src.as_ref(), Addresses::covers)
            && open(a.arp_dst.as_ref(), b.arp_dst.as_ref(), Addresses::covers)
            && open(a.arp_src_mac.as_ref(), b.arp_src_mac.as_ref(), Field::covers)
            && open(a.state.as_ref(), b.state.as_ref(), |a, b| b.and(a.negated()).is_empty())
            && open(a.fragment.as_ref(), b.fragment.as_ref(), PartialEq::eq)
    }

    /// A bit for each key that is stated.
    fn stated(&self) -> u32 {
        let keys = [
            self.direction.is_some(),
            self.ethertype.is_some(),
            self.vlan.is_some(),
            self.inner_vlan.is_some(),
            self.src_mac.is_some(),
            self.dst_mac.is_some(),
            self.proto.is_some(),
            self.dscp.is_some(),
            self.src.is_some(),
            self.dst.is_some(),
            self.src_port.is_some(),
            self.dst_port.is_some(),
            self.icmp.is_some(),
            self.icmp6.is_some(),
            self.tcp_flags.is_some(),
            self.arp_op.is_some(),
            self.arp_src.is_some(),
            self.arp_dst.is_some(),
            self.arp_src_mac.is_some(),
            self.state.is_some(),
            self.fragment.is_some(),
        ];
        keys.iter().enumerate().fold(0, |bits, (bit, &stated)| bits | u32::from(stated) << bit)
    }

    /// Hashes what is stated; of each list the length and the ends.
    fn hash_ends(&self, hasher: &mut DefaultHasher) {
        (self.stated(), self.direction, self.tcp_flags, self.state, self.fragment).hash(hasher);
        for field in [&self.ethertype, &self.vlan, &self.inner_vlan, &self.src_port, &self.dst_port, &self.icmp] {
            field.iter().for_each(|field| ends(field, hasher));
        }
        for field in [&self.icmp6, &self.arp_op] {
            field.iter().for_each(|field| ends(field, hasher));
        }
        for field in [&self.src_mac, &self.dst_mac, &self.arp_src_mac] {
            field.iter().for_each(|field| ends(field, hasher));
        }
        for field in [&self.proto, &self.dscp] {
            field.iter().for_each(|field| ends(field, hasher));
        }
        for addresses in [&self.src, &self.dst, &self.arp_src, &self.arp_dst] {
            addresses.iter().for_each(|addresses| both_ends(addresses, hasher));
        }
    }
}
