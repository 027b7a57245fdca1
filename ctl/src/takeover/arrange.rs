//! Has the kernel's routes and rules, and what they stand on, be as they were, by way of one interface or the other.
//!
//! Routes that share table, destination and metric, and rules of one priority, are a group: the kernel goes by their order. In each
//! group, what is moved stands where it stood, between what others have there. What is new is made before what is old goes.

use super::form::{
    GroupKey, Link, Mapping, NHA_GROUP, NHA_ID, address_key, aged, group_key, has_gateway, identity, interfaces, moved,
    names,
};
use super::kernel::{Act, Fault, Kernel};
use super::message::{INET6, Kind, Message};
use super::state::{Row, State};
use super::steps::{Tools, drop_address};
use super::survey::{self, is_own};
use nix::libc::{RTA_DST, RTA_EXPIRES, RTPROT_KERNEL};
use rustix::io::Errno;
use std::collections::{BTreeMap, BTreeSet};

/// How often all is looked at. One route may wait for another that goes to its router.
const PASSES: usize = 12;

/// The interface that is to have everything, and the other one.
#[derive(Debug)]
pub(crate) struct Side<'a> {
    pub(crate) here: &'a Link,
    pub(crate) there: Option<&'a Link>,
    /// From what was written down to how it is here.
    pub(crate) mapping: Mapping,
    /// The same for the other interface, if it is there.
    pub(crate) away: Option<Mapping>,
    /// Numbers of all interfaces that are there.
    links: BTreeSet<u32>,
    /// Seconds since it was written down.
    pub(crate) age: u32,
}

impl<'a> Side<'a> {
    /// # Errors
    ///
    /// What the kernel says.
    pub(crate) fn new(
        state: &State,
        here: &'a Link,
        there: Option<&'a Link>,
        tools: &mut Tools<'_>,
    ) -> Result<Self, Fault> {
        let now = survey::link_names(tools.kernel)?;
        let by_name: BTreeMap<&str, u32> = now.iter().map(|(index, name)| (name.as_str(), *index)).collect();
        let to = |link: &Link| {
            let others = state.links.iter().filter_map(|(old, name)| Some((*old, *by_name.get(name.as_str())?)));
            let indexes = others.chain([(state.interface.index, link.index)]).collect();
            Mapping { indexes, from: state.interface.name.clone(), to: link.name.clone() }
        };
        let age = tools.now.saturating_sub(state.taken);
        let (mapping, away) = (to(here), there.map(to));
        Ok(Self { here, there, mapping, away, links: now.into_keys().collect(), age })
    }
}

/// What the kernel has made by itself since the addresses were given: routes to their networks, and link-local addresses.
#[derive(Debug)]
pub(crate) struct Fresh {
    addresses: Vec<Message>,
    rows: Vec<Message>,
}

impl Fresh {
    /// What there is, of which nothing is fresh.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub(crate) fn before(link: &Link, kernel: &mut dyn Kernel) -> Result<Self, Fault> {
        let mut rows = survey::rows(kernel)?;
        rows.retain(|row| row.kind() == Kind::Route && row.byte(5) == RTPROT_KERNEL && names(row, link));
        Ok(Self { addresses: survey::addresses(link, kernel)?, rows })
    }

    /// What has come since.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub(crate) fn after(self, link: &Link, kernel: &mut dyn Kernel) -> Result<Self, Fault> {
        let known: BTreeSet<Message> = self.rows.iter().map(identity).collect();
        let mut now = Self::before(link, kernel)?;
        now.rows.retain(|row| !known.contains(&identity(row)));
        now.addresses.retain(|address| !self.addresses.iter().any(|old| old.attributes() == address.attributes()));
        Ok(now)
    }

    /// Takes away what an interface has made for itself, and had not before.
    pub(crate) fn drop_addresses(&self, state: &State, kernel: &mut dyn Kernel) -> Vec<String> {
        let known: Vec<_> = state.addresses.iter().map(address_key).collect();
        let new = self.addresses.iter().filter(|of| is_own(of) && !known.contains(&address_key(of)));
        new.filter_map(|address| drop_address(address, kernel)).collect()
    }
}

/// Has everything but addresses go by the side's interface, in its old order; with `finish` nothing goes by the other one any more.
/// Returns what could not be done.
pub(crate) fn arrange(
    state: &State,
    side: &Side<'_>,
    fresh: &Fresh,
    finish: bool,
    kernel: &mut dyn Kernel,
) -> Vec<String> {
    let fresh: BTreeSet<Message> = fresh.rows.iter().map(identity).collect();
    let mut groups: BTreeMap<GroupKey, Vec<&Row>> = BTreeMap::new();
    for row in &state.rows {
        groups.entry(group_key(&row.message)).or_default().push(row);
    }
    // A router has to be reachable before routes go by it.
    let mut order: Vec<_> = groups.iter().collect();
    order.sort_by_key(|(_, rows)| rows.iter().any(|row| has_gateway(&row.message)));
    let mut problems = Vec::new();
    // What others had at the beginning. It stays, even if the kernel takes it for what was to be deleted: of a route with several next
    // hops it compares as many as the one that it looks at has.
    let mut first: Option<BTreeMap<GroupKey, Vec<Message>>> = None;
    for _ in 0..PASSES {
        problems = Vec::new();
        let mut changed = false;
        let mut note = |outcome: Result<bool, String>| match outcome {
            Ok(done) => changed |= done,
            Err(problem) => problems.push(problem),
        };
        note(arrange_neighbours(state, side, kernel));
        note(arrange_nexthops(state, side, kernel));
        let mut actual: BTreeMap<GroupKey, Vec<Message>> = BTreeMap::new();
        match survey::rows(kernel) {
            Ok(rows) => rows.into_iter().for_each(|row| actual.entry(group_key(&row)).or_default().push(row)),
            Err(fault) => note(Err(fault.into())),
        }
        let first = first.get_or_insert_with(|| {
            actual
                .iter()
                .filter(|(key, _)| groups.contains_key(*key))
                .map(|(key, rows)| (key.clone(), rows.clone()))
                .collect()
        });
        for (key, rows) in &order {
            let there = actual.remove(*key).unwrap_or_default();
            let first = first.get(*key).map_or(&[][..], Vec::as_slice);
            note(Group::new(rows, first, there, side, &fresh).arrange(finish, kernel));
        }
        // What the kernel has made for an address, and was not there.
        let extra = actual.into_values().flatten().filter(|row| finish && fresh.contains(&identity(row)));
        extra.for_each(|row| note(delete(&row, kernel)));
        if !changed {
            return problems;
        }
    }
    problems.push("routes do not stay as they are made: does something else change them meanwhile?".to_owned());
    problems
}

/// One group as it is and as it is to be.
struct Group {
    wanted: Vec<Message>,
    /// Of what is there, what is wanted, and what is not.
    kept: Vec<Message>,
    unwanted: Vec<Message>,
}

impl Group {
    fn new(rows: &[&Row], first: &[Message], actual: Vec<Message>, side: &Side<'_>, fresh: &BTreeSet<Message>) -> Self {
        let all = || first.iter().chain(&actual);
        let there: BTreeSet<Message> = all().map(identity).collect();
        let mut known = BTreeSet::new();
        let mut wanted = Vec::new();
        for row in rows {
            let here = moved(&row.message, &side.mapping);
            let is = identity(&here);
            if (row.ours || there.contains(&is))
                && let Some(left) = aged(&here, side.age)
                && known.insert(is)
            {
                wanted.push(left);
            }
        }
        // The kernel lets a route end with the last address of its network.
        let lasting = |row: &Message| row.without(&[RTA_EXPIRES]);
        let away = side.away.as_ref();
        let ours = rows.iter().filter(|row| row.ours);
        let stale: BTreeSet<Message> = ours.filter_map(|row| Some(lasting(&moved(&row.message, away?)))).collect();
        // Of next hops that IPv6 has for a destination and a metric, the kernel makes one route: another one is what is left of it.
        let whole = wanted.iter().any(is_joined);
        for row in all() {
            let is = identity(row);
            let left = whole && is_joined(row) || interfaces(row).iter().any(|index| !side.links.contains(index));
            if !left && !stale.contains(&lasting(row)) && !fresh.contains(&is) && known.insert(is) {
                wanted.push(row.clone());
            }
        }
        let (kept, unwanted) = actual.into_iter().partition(|row| known.contains(&identity(row)));
        Self { wanted, kept, unwanted }
    }

    /// Whether nobody goes by the order: each frame for a link-local address or a group says by which interface it goes.
    fn has_no_order(&self) -> bool {
        self.wanted.iter().all(|row| {
            let to = row.get(RTA_DST).unwrap_or_default();
            row.byte(0) == INET6 && (to.starts_with(&[0xfe, 0x80]) || to.starts_with(&[0xff]))
        })
    }

    /// Makes what is wanted and not there, and with `finish` takes away what is not wanted; returns whether there was anything to be
    /// done.
    fn arrange(mut self, finish: bool, kernel: &mut dyn Kernel) -> Result<bool, String> {
        let is = |rows: &[Message]| -> Vec<Message> { rows.iter().map(identity).collect() };
        let (wanted, kept) = (is(&self.wanted), is(&self.kept));
        let free = self.has_no_order();
        let as_wanted = if free { wanted.len() == kept.len() } else { wanted == kept };
        if as_wanted {
            let mut changed = false;
            for row in self.unwanted.iter().filter(|_| finish) {
                changed |= delete(row, kernel)?;
            }
            return Ok(changed);
        }
        if let ([new], [], [old]) = (&*self.wanted, &*self.kept, &*self.unwanted)
            && old.kind() == Kind::Route
        {
            return make(Act::Replace, new, kernel).map(|()| true);
        }
        let same = if free { 0 } else { wanted.iter().zip(&kept).take_while(|(a, b)| a == b).count() };
        for (new, is) in self.wanted.iter().zip(&wanted).skip(same) {
            if kept.contains(is) {
                if !free {
                    delete(new, kernel)?;
                    // It may be somebody else's, and is not to be lost.
                    make(Act::Append, new, kernel).or_else(|_| make(Act::Append, new, kernel))?;
                }
                continue;
            }
            if is_joined(new) {
                for old in self.unwanted.extract_if(.., |old| is_joined(old)) {
                    delete(&old, kernel)?;
                }
            }
            make(Act::Append, new, kernel)?;
        }
        Ok(true)
    }
}

/// Whether the kernel makes one route of this one and others to the same destination.
fn is_joined(row: &Message) -> bool {
    row.kind() == Kind::Route && row.byte(0) == INET6 && has_gateway(row)
}

fn make(act: Act, row: &Message, kernel: &mut dyn Kernel) -> Result<(), String> {
    match kernel.change(act, row) {
        Err(fault) if !fault.is(&[Errno::EXIST]) => Err(fault.about(row)),
        _ => Ok(()),
    }
}

fn delete(row: &Message, kernel: &mut dyn Kernel) -> Result<bool, String> {
    match kernel.change(Act::Delete, row) {
        Err(fault) if fault.is(&[Errno::SRCH, Errno::NOENT]) => Ok(false),
        Err(fault) => Err(fault.about(row)),
        Ok(()) => Ok(true),
    }
}

/// Has the objects for next hops go by the interface. The routes by them follow.
fn arrange_nexthops(state: &State, side: &Side<'_>, kernel: &mut dyn Kernel) -> Result<bool, String> {
    if state.nexthops.is_empty() {
        return Ok(false);
    }
    let actual: BTreeSet<Message> = survey::nexthops(kernel)?.into_iter().collect();
    let wanted = state.nexthops.iter().map(|of| moved(of, &side.mapping));
    // Groups behind their members.
    let (groups, single): (Vec<_>, Vec<_>) = wanted.partition(|of| of.get(NHA_GROUP).is_some());
    let mut outcome = Ok(false);
    for nexthop in single.into_iter().chain(groups).filter(|of| of.get(NHA_ID).is_some() && !actual.contains(of)) {
        match kernel.change(Act::Replace, &nexthop) {
            Ok(()) => outcome = outcome.map(|_| true),
            Err(fault) => outcome = Err(fault.about(&nexthop)),
        }
    }
    outcome
}

fn arrange_neighbours(state: &State, side: &Side<'_>, kernel: &mut dyn Kernel) -> Result<bool, String> {
    if state.neighbours.is_empty() {
        return Ok(false);
    }
    let actual = survey::neighbours(side.here, kernel)?;
    let mut changed = false;
    for neighbour in state.neighbours.iter().map(|of| moved(of, &side.mapping)) {
        if !actual.contains(&neighbour) {
            kernel.change(Act::Replace, &neighbour).map_err(|fault| fault.about(&neighbour))?;
            changed = true;
        }
    }
    Ok(changed)
}
