//! The scheduler: guarantees, priorities, weights and ceilings over a tree of classes.
//!
//! # What it does
//!
//! Classes are a tree under one root, the wire. Leaves have packets, which the scheduler never sees: the caller reports when a
//! leaf begins to have some ([`activate`](Scheduler::activate)), asks which leaf may send how many bytes
//! ([`pick`](Scheduler::pick)), and reports what was sent ([`charge`](Scheduler::charge)). So a leaf may be an app's ring,
//! which is simply not drained, or a queue.
//!
//! From the wire down, at each parent, the child is chosen that is first by these rules:
//!
//! 1. A child counts only if something below it has packets and neither it nor the way there is at its ceiling.
//! 2. Children who have a part of their guarantee (`rate`) left, or below whom somebody has, come before all others.
//! 3. Among these, and among the others, the lower `priority` number comes first.
//! 4. Among equals the one comes first that has had the least, divided by its weight. What was given as a guarantee and
//!    what was left are counted apart, so weights divide what is left.
//! 5. The guard: children that come second or later get one part in 64 of what their parent is given, all of them together, each
//!    group in turn. So nobody starves, below a busy class of a higher priority or below guarantees that add up to
//!    all there is. Guarantees are therefore exact as long as they add up to 63 parts in 64.
//!
//! Priorities and weights count among siblings: an app of the first priority comes first within its user's share, and takes
//! nothing from other users.
//!
//! # What it guarantees
//!
//! With *Q* for the most bytes of a pick ([`Options::quantum`](crate::Options::quantum)) and *F* for the longest frame, and a
//! caller that stops at the frame that uses up its budget, so that a pick is at most *Q + F* bytes:
//!
//! - **Ceilings**: in any time `t` a class and everything below it send at most `ceil * t + burst` bytes, if the burst is longer
//!   than *F*; else frames pass one by one. The same for the wire. [`SharedBucket`](crate::SharedBucket) says what sharing adds.
//! - **Work conservation**: `pick` says `WaitUntil` only if every leaf with packets is at a ceiling, its own or one above
//!   it. A class that reaches its ceiling rests until it may send what it earns in 15 µs, so that its wake-ups are
//!   bounded; its bucket is deep enough to lose nothing by that.
//! - **Weights**: of two siblings that have packets all the time, the same priority and no ceiling in the way, what they are
//!   given, divided by their weights, never differs by more than a pick each: *(Q + F) / w₁ + (Q + F) / w₂*. This holds
//!   whatever else the wire carries, for any sizes of frames and any ratio of weights.
//! - **Delay**: a class that begins to have packets is served after the pick that is under way, if its priority is above that of all
//!   others, at each level; and after one pick of each sibling else, if it has not had more than its share. After 63 *Q* there is one
//!   pick for somebody else.
//! - **Unused shares** go to others with the next pick.
//! - **Cost**: a pick and its charge touch the nodes on one way through the tree, and are *O(log n)* in the siblings that can be
//!   served. A class without packets, or at a ceiling, is in no list that is looked at.
//!
//! # Why this way
//!
//! Which class may send is a token bucket for `rate` and one for `ceil`, as in HTB; but what HTB keeps from level
//! to level in rows of "borrowing" classes is here one rule that is the same at each parent, and the ceilings of
//! all ancestors hold, which they do not for HTB's guarantees. The order among equals is start-time fair queueing instead of deficit
//! round robin (Shreedhar and Varghese, SIGCOMM 1995), for three reasons: a class that rested at its ceiling comes back to its place and not to
//! the end of a round, and so gets a ceiling that is just below its share; nobody sends a thousand frames in a row because
//! of a weight of 1,000; and its fairness does not depend on the rate of the server, so it is right at inner
//! nodes. It costs a heap of the siblings instead of a list, a few nanoseconds for each pick of up to 35 frames.
//!
//! Carousel gives each *packet* a time to leave, in a timing wheel: it shapes, and cannot share what is left, since a time that was
//! given cannot be taken back when somebody else falls silent. Eiffel replaces heaps by bitmaps over
//! buckets, for millions of ranks that change with each packet. Here a heap holds classes, not packets: those with a
//! guarantee or ceiling to wait for, once each. At the tens of thousands of classes that are wanted it has eight levels, is exact to the tick
//! where a wheel has slots, and its first entry is the answer to "wait until when".
//!
//! # Source
//!
//! - M. Devera, "HTB Linux queuing discipline manual", and tc-htb(8), for rate, ceil, burst and priority.
//! - P. Goyal, H. Vin, H. Cheng, "Start-time fair queuing", SIGCOMM 1996: theorem 1 is the bound of fairness, section 3
//!   that of hierarchies.
//! - J. Billaud, A. Gulati, "hClock: hierarchical QoS for packet scheduling in a hypervisor", EuroSys 2013, for
//!   reservations before shares, each with tags of their own.
//! - A. Saeed et al., "Carousel", SIGCOMM 2017, and "Eiffel", NSDI 2019.

use crate::bucket::bytes_of;
use crate::meter::Meter;
use crate::spec::{self, ClassSpec, Options, PRIORITIES, SpecError};
use crate::timers::Timers;
use crate::tree::{NONE, OUT, Tree, WIRE};

/// What [`Scheduler::pick`] returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pick {
    /// It is this leaf's turn.
    Serve {
        /// The class, as a place in the list of classes.
        leaf: u32,
        /// How many bytes it may send, overhead counted, and at least 1. The frame that reaches this number may exceed it.
        bytes: u32,
    },
    /// Leaves have packets, and none may send before this tick, unless another one begins to have some.
    WaitUntil(u64),
    /// No leaf has packets, or none that may ever send.
    Idle,
}

/// The scheduler of one worker.
#[derive(Debug)]
pub struct Scheduler {
    pub(crate) tree: Tree,
    pub(crate) wire: Option<Meter>,
    /// Of nodes that are at their ceiling, or wait for their guarantee.
    timers: Timers,
    /// Leaves with packets.
    active: usize,
    quantum: u32,
    overhead: u32,
    /// Units of a byte in buckets: see [`Bucket`](crate::Bucket).
    unit: u64,
    /// Each class's id and place, sorted.
    pub(crate) ids: Vec<(u64, u32)>,
}

/// The guard gives one part in so many of a parent's bytes to children that do not come first.
pub const GUARD: i64 = 64;
/// Most timers that a pick handles while some class can be served. The others can wait for the next pick.
const TIMERS_MAX: usize = 32;

impl Scheduler {
    /// A scheduler for `classes`, all of them without packets and with full buckets at tick `now`.
    ///
    /// Classes are named by their places in the list. Allocates all memory that it ever needs.
    ///
    /// # Errors
    ///
    /// [`SpecError`] if the classes are no tree, or a number is out of its limits.
    pub fn new(classes: &[ClassSpec], options: &Options, now: u64) -> Result<Self, SpecError> {
        spec::check(classes, options)?;
        let mut ids: Vec<(u64, u32)> = (0..).zip(classes).map(|(at, class)| (class.id, at)).collect();
        ids.sort_unstable();
        if let Some(twice) = ids.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            return Err(SpecError::SameId(twice[0].0));
        }
        let Options { hz, frame, quantum, overhead, .. } = *options;
        Ok(Self {
            tree: Tree::new(classes, options, now),
            wire: options.wire.as_ref().map(|limit| Meter::new(limit, frame, quantum, hz, now)),
            timers: Timers::new(classes.len()),
            active: 0,
            quantum,
            overhead,
            unit: 8 * hz,
            ids,
        })
    }

    /// How many classes there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tree.nodes.len()
    }

    /// Whether there are no classes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tree.nodes.is_empty()
    }

    /// Whether `class` has no children: only leaves can be active.
    #[must_use]
    pub fn is_leaf(&self, class: u32) -> bool {
        self.tree.nodes[class as usize].family == NONE
    }

    /// Whether `leaf` has packets, as far as the scheduler knows.
    #[inline]
    #[must_use]
    pub fn is_active(&self, leaf: u32) -> bool {
        self.tree.nodes[leaf as usize].active
    }

    /// Whether no leaf has packets, as far as the scheduler knows.
    #[inline]
    #[must_use]
    pub const fn is_idle(&self) -> bool {
        self.active == 0
    }

    /// Whether no more than one leaf has packets, as far as the scheduler knows.
    #[inline]
    #[must_use]
    pub const fn has_one_active(&self) -> bool {
        self.active <= 1
    }

    /// Whether nothing can be held up: neither the wire nor any class has a limit.
    #[must_use]
    pub fn is_unlimited(&self) -> bool {
        self.wire.is_none() && self.tree.nodes.iter().all(|node| node.ceil.is_none())
    }

    /// How often `class` was held up by its own ceiling, since the scheduler was made.
    #[must_use]
    pub fn overlimits(&self, class: u32) -> u64 {
        self.tree.nodes[class as usize].overlimits
    }

    /// The bytes that each frame costs besides its own.
    #[must_use]
    pub const fn overhead(&self) -> u32 {
        self.overhead
    }

    /// `leaf` has packets from now on. Does nothing if it had some already.
    ///
    /// # Panics
    ///
    /// If `leaf` is no leaf.
    #[inline]
    pub fn activate(&mut self, leaf: u32, now: u64) {
        let node = &mut self.tree.nodes[leaf as usize];
        assert!(node.family == NONE, "class {leaf} has children and cannot have packets");
        if !node.active {
            node.active = true;
            self.active += 1;
            self.update(leaf, now);
        }
    }

    /// `leaf` has no packets any more. Does nothing if it had none.
    #[inline]
    pub fn deactivate(&mut self, leaf: u32, now: u64) {
        let node = &mut self.tree.nodes[leaf as usize];
        if node.active {
            node.active = false;
            self.active -= 1;
            self.update(leaf, now);
        }
    }

    /// Whose turn it is at tick `now`. Asked again without a charge, it says the same.
    #[inline]
    pub fn pick(&mut self, now: u64) -> Pick {
        self.wake(now);
        if self.tree.families[0].mask == 0 {
            return self.pause();
        }
        let whole = i128::from(self.quantum) * i128::from(self.unit);
        let mut least = whole;
        if let Some(wire) = &mut self.wire {
            wire.refill(now);
            if !wire.is_open() {
                return wire.ready_at(now).map_or(Pick::Idle, |tick| Pick::WaitUntil(tick.max(now.saturating_add(1))));
            }
            least = least.min(wire.tokens());
        }
        let mut family = 0;
        loop {
            let at = self.tree.first(family, self.choose(family));
            let node = &mut self.tree.nodes[at as usize];
            if let Some(ceil) = &mut node.ceil {
                ceil.refill(now);
                least = least.min(ceil.tokens());
            }
            if node.family == NONE {
                // A division takes as long as all the rest.
                let bytes = if least == whole { self.quantum.into() } else { bytes_of(least, self.unit) };
                return Pick::Serve { leaf: at, bytes: u32::try_from(bytes).unwrap_or(self.quantum).max(1) };
            }
            family = node.family;
        }
    }

    /// `leaf` has sent `frames` frames with `bytes` bytes, their overhead not counted, and has more packets or not.
    ///
    /// It need not have been picked: what it has sent is taken from its buckets, and from those above it, in any case.
    #[inline]
    pub fn charge(&mut self, leaf: u32, bytes: u64, frames: u32, more: bool, now: u64) {
        let bytes = bytes + u64::from(frames) * u64::from(self.overhead);
        let node = &mut self.tree.nodes[leaf as usize];
        if node.active != more && node.family == NONE {
            node.active = more;
            self.active = if more { self.active + 1 } else { self.active - 1 };
        }
        let mut at = leaf;
        while at != WIRE {
            let node = &mut self.tree.nodes[at as usize];
            // Who was out has taken from what was left.
            let group = if node.group == OUT { node.priority + PRIORITIES } else { node.group };
            if let Some(ceil) = &mut node.ceil {
                ceil.refill(now);
                ceil.charge(bytes);
            }
            // What is borrowed is no part of one's own guarantee.
            if group < PRIORITIES
                && let Some(rate) = &mut node.rate
            {
                rate.refill(now);
                rate.charge_guarantee(bytes);
            }
            let (home, parent) = (node.home, node.parent);
            self.guard(home, group, bytes);
            self.tree.served(at, group, bytes);
            let group = self.group_of(at, now);
            self.tree.place(at, group);
            at = parent;
        }
        if let Some(wire) = &mut self.wire {
            wire.refill(now);
            wire.charge(bytes);
        }
    }

    /// `leaf`, which has packets, had its turn for `bytes` that it did not send after all, overhead counted. Nothing is taken from
    /// buckets, but those who wait come before it as if it had sent them.
    pub fn defer(&mut self, leaf: u32, bytes: u64) {
        let mut at = leaf;
        while at != WIRE {
            let node = &self.tree.nodes[at as usize];
            let (home, parent, group) = (node.home, node.parent, node.group);
            if group == OUT {
                return;
            }
            self.guard(home, group, bytes);
            self.tree.served(at, group, bytes);
            self.tree.place(at, group);
            at = parent;
        }
    }

    /// The group of `family`, which is not empty, that is to be served.
    #[inline]
    fn choose(&self, family: u32) -> u8 {
        let family = &self.tree.families[family as usize];
        let others = family.mask & (family.mask - 1);
        if others == 0 || family.guard < (GUARD - 1) * i64::from(self.quantum) {
            return bit(family.mask);
        }
        let later = others & !(2_u16 << family.turn).wrapping_sub(1);
        bit(if later == 0 { others } else { later })
    }

    /// Counts `bytes` that a member of `group` was given, while others wait.
    #[inline]
    fn guard(&mut self, family: u32, group: u8, bytes: u64) {
        let family = &mut self.tree.families[family as usize];
        let others = family.mask & family.mask.wrapping_sub(1);
        if others == 0 {
            return;
        }
        // Far above what any caller can send at once.
        let bytes = i64::try_from(bytes.min(1 << 32)).unwrap_or(0);
        if group == bit(family.mask) {
            family.guard = (family.guard + bytes).min(GUARD * i64::from(self.quantum));
        } else {
            family.guard -= (GUARD - 1) * bytes;
            family.turn = group;
        }
    }

    /// Puts node `at` where it belongs after something about it has changed, and those above it that this concerns.
    fn update(&mut self, mut at: u32, now: u64) {
        while at != WIRE {
            let group = self.group_of(at, now);
            if !self.tree.place(at, group) {
                break;
            }
            at = self.tree.nodes[at as usize].parent;
        }
    }

    /// The group that node `at` belongs to now. Sets its timer if it has to wait for something.
    #[inline]
    fn group_of(&mut self, at: u32, now: u64) -> u8 {
        let node = &mut self.tree.nodes[at as usize];
        let mask = match node.family {
            NONE if node.active => 1 << PRIORITIES,
            NONE => 0,
            family => self.tree.families[family as usize].mask,
        };
        if mask == 0 {
            node.meters().for_each(Meter::release);
            return OUT;
        }
        if let Some(ceil) = &mut node.ceil
            && !ceil.is_open()
        {
            ceil.refill(now);
            if !ceil.is_open() {
                let ready = ceil.ready_at(now);
                node.overlimits += u64::from(node.group != OUT);
                self.timers.set(at, ready, now);
                return OUT;
            }
        }
        let mut guaranteed = mask & ((1 << PRIORITIES) - 1) != 0;
        if let Some(rate) = &mut node.rate {
            if !rate.is_open() {
                rate.refill(now);
            }
            if rate.is_open() {
                guaranteed = true;
            } else if !self.timers.has(at) {
                let ready = rate.ready_at(now);
                self.timers.set(at, ready, now);
            }
        }
        let node = &self.tree.nodes[at as usize];
        if guaranteed { node.priority } else { node.priority + PRIORITIES }
    }

    /// Updates the nodes whose timers have run out: at all of them if no class can be served.
    #[inline]
    fn wake(&mut self, now: u64) {
        let mut looked = 0;
        while let Some((_, at)) = self.timers.first().filter(|first| first.0 <= now) {
            if looked >= TIMERS_MAX && self.tree.families[0].mask != 0 {
                break;
            }
            self.timers.clear(at);
            self.update(at, now);
            looked += 1;
        }
    }

    /// What to do while nobody can be served. Timers of classes without packets may still run, so this may be
    /// earlier than it has to be.
    fn pause(&self) -> Pick {
        match self.timers.first() {
            Some((tick, _)) if self.active > 0 => Pick::WaitUntil(tick),
            _ => Pick::Idle,
        }
    }
}

/// The lowest bit of `mask`, which has one.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "there are 16 bits")]
const fn bit(mask: u16) -> u8 {
    mask.trailing_zeros() as u8
}
