//! The classes as nodes, and for each parent which of its children can be served, in which order.

use crate::heap::{self, Entry, NOWHERE};
use crate::meter::{Limit, Meter};
use crate::spec::{ClassSpec, Options, PRIORITIES};

/// A class.
#[derive(Debug)]
#[repr(align(64))]
pub(crate) struct Node {
    pub(crate) ceil: Option<Meter>,
    pub(crate) rate: Option<Meter>,
    /// Bytes served under its guarantee, and of the rest, each divided by its weight: see [`Family`].
    pub(crate) tags: [u64; 2],
    /// What a byte adds to a tag: [`BYTE`] divided by its weight.
    pub(crate) cost: u32,
    /// Its parent's place, [`WIRE`] for the wire.
    pub(crate) parent: u32,
    /// The family that it is a child of.
    pub(crate) home: u32,
    /// The family of its children, [`NONE`] for a leaf.
    pub(crate) family: u32,
    /// The group of its home that it is in, [`OUT`] if it cannot be served.
    pub(crate) group: u8,
    pub(crate) priority: u8,
    /// Whether it is a leaf with packets.
    pub(crate) active: bool,
    /// How often it was held up by its ceiling.
    pub(crate) overlimits: u64,
}

impl Node {
    /// Its limits.
    #[inline]
    pub(crate) fn meters(&mut self) -> impl Iterator<Item = &mut Meter> {
        [&mut self.ceil, &mut self.rate].into_iter().flatten()
    }
}

/// The parent of classes under the wire.
pub(crate) const WIRE: u32 = u32::MAX;
/// No family: the node is a leaf.
pub(crate) const NONE: u32 = u32::MAX;
/// No group: the node has nothing to send, or may not.
pub(crate) const OUT: u8 = u8::MAX;
/// Groups of a family: by priority those who have a guarantee left, and then, by priority, all others.
pub(crate) const GROUPS: usize = 2 * PRIORITIES as usize;
/// A byte of a class with weight 1, in tags. Division by a weight of 1,000 so is off by less than a thousandth.
const BYTE: u32 = 1 << 20;

/// The children of one parent.
///
/// Those who can be served are in groups, a bit of `mask` each; within a group the one with the least tag is first.
#[derive(Clone, Debug, Default)]
#[repr(align(64))]
pub(crate) struct Family {
    /// Groups that are not empty. The lowest bit is served first.
    pub(crate) mask: u16,
    /// The group that the guard has served last.
    pub(crate) turn: u8,
    /// Bytes that the first group got since the guard served one of the others, more or less.
    pub(crate) guard: i64,
    groups: [Group; GROUPS],
}

/// Those children of one priority that have a guarantee left, or those that have not.
#[derive(Clone, Copy, Debug, Default)]
struct Group {
    /// Where its heap is in [`Tree::entries`], and how many are in it.
    start: u32,
    len: u32,
    /// The group's virtual time: the tag of the node that it has served last.
    time: u64,
}

/// All classes.
#[derive(Debug)]
pub(crate) struct Tree {
    pub(crate) nodes: Vec<Node>,
    pub(crate) families: Vec<Family>,
    /// The heaps of all groups, one behind the other, each with room for all children that it can have.
    entries: Vec<Entry>,
    /// Where each node stands in the heap of its group.
    places: Vec<u32>,
    /// A returning class is at most so far ahead of the others, in bytes of weight 1.
    lead: u64,
}

/// The index among a node's tags for `group`.
#[inline]
const fn kind(group: u8) -> usize {
    (group >= PRIORITIES) as usize
}

impl Tree {
    /// The tree of `classes`, which are known to be one.
    pub(crate) fn new(classes: &[ClassSpec], options: &Options, now: u64) -> Self {
        let meter = |limit: &Limit| Meter::new(limit, options.frame, options.quantum, options.hz, now);
        let mut family_of = vec![NONE; classes.len()];
        let mut families = vec![Family::default()];
        for parent in classes.iter().filter_map(|class| class.parent) {
            if family_of[parent as usize] == NONE {
                family_of[parent as usize] = index(families.len());
                families.push(Family::default());
            }
        }
        let node = |(at, class): (usize, &ClassSpec)| Node {
            ceil: class.ceil.as_ref().map(meter),
            rate: class.rate.as_ref().map(meter),
            tags: [0; 2],
            cost: BYTE / u32::from(class.weight),
            parent: class.parent.unwrap_or(WIRE),
            home: class.parent.map_or(0, |parent| family_of[parent as usize]),
            family: family_of[at],
            group: OUT,
            priority: class.priority,
            active: false,
            overlimits: 0,
        };
        let nodes: Vec<Node> = classes.iter().enumerate().map(node).collect();
        for node in &nodes {
            for group in [node.priority, node.priority + PRIORITIES] {
                families[node.home as usize].groups[usize::from(group)].len += 1;
            }
        }
        let mut start = 0;
        for group in families.iter_mut().flat_map(|family| &mut family.groups) {
            group.start = start;
            start += group.len;
            group.len = 0;
        }
        let lead = u64::from(options.quantum) + u64::from(options.frame);
        Self {
            entries: vec![Entry::default(); start as usize],
            places: vec![NOWHERE; nodes.len()],
            lead: lead * u64::from(BYTE),
            nodes,
            families,
        }
    }

    /// The child of `family` that is first in `group`, which is not empty.
    #[inline]
    pub(crate) fn first(&self, family: u32, group: u8) -> u32 {
        let group = &self.families[family as usize].groups[usize::from(group)];
        self.entries[group.start as usize].id
    }

    /// Takes down that node `at` was given `bytes`, as one of `group`.
    #[inline]
    pub(crate) fn served(&mut self, at: u32, group: u8, bytes: u64) {
        let node = &mut self.nodes[at as usize];
        let tag = node.tags[kind(group)];
        node.tags[kind(group)] = tag.wrapping_add(bytes.wrapping_mul(node.cost.into()));
        let group = &mut self.families[node.home as usize].groups[usize::from(group)];
        if heap::before(group.time, tag) {
            group.time = tag;
        }
    }

    /// Puts node `at` into `group`, or takes it out, and gives it its place by its tag. Says whether the set of its family's
    /// groups that are not empty has changed.
    #[inline]
    pub(crate) fn place(&mut self, at: u32, group: u8) -> bool {
        let node = &mut self.nodes[at as usize];
        let family = &mut self.families[node.home as usize];
        if node.group == group {
            if group != OUT {
                let list = &family.groups[usize::from(group)];
                let heap = &mut self.entries[list.start as usize..][..list.len as usize];
                let stands = self.places[at as usize] as usize;
                heap::change(heap, &mut self.places, stands, node.tags[kind(group)]);
            }
            return false;
        }
        let mask = family.mask;
        if node.group != OUT {
            let list = &mut family.groups[usize::from(node.group)];
            let heap = &mut self.entries[list.start as usize..][..list.len as usize];
            let stands = self.places[at as usize] as usize;
            heap::remove(heap, &mut self.places, stands);
            list.len -= 1;
            if list.len == 0 {
                family.mask &= !(1 << node.group);
            }
        }
        node.group = group;
        if group != OUT {
            let list = &mut family.groups[usize::from(group)];
            list.len += 1;
            let heap = &mut self.entries[list.start as usize..][..list.len as usize];
            let tag = &mut node.tags[kind(group)];
            // A node that comes back gets nothing for the time it was away, and is not forgiven what it had too much.
            let ahead = tag.wrapping_sub(list.time);
            *tag = list.time.wrapping_add(if ahead > u64::MAX / 2 { 0 } else { ahead.min(self.lead) });
            heap::insert(heap, &mut self.places, Entry { key: *tag, id: at });
            family.mask |= 1 << group;
        }
        family.mask != mask
    }

    /// How far node `at` is ahead of its groups' virtual times.
    pub(crate) fn leads(&self, at: u32) -> [u64; 2] {
        let node = &self.nodes[at as usize];
        let family = &self.families[node.home as usize];
        let ahead = |group: u8| {
            let ahead = node.tags[kind(group)].wrapping_sub(family.groups[usize::from(group)].time);
            if ahead > u64::MAX / 2 { 0 } else { ahead.min(self.lead) }
        };
        [ahead(node.priority), ahead(node.priority + PRIORITIES)]
    }
}

/// A place in a list that is shorter than 2^32.
fn index(at: usize) -> u32 {
    u32::try_from(at).expect("as many as classes, of which there are fewer than 2^16")
}
