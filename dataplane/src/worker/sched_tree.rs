//! What a worker keeps to of the policy's classes: who may send next, what waits, and for how long.
//!
//! There is a [`SchedTree`] for each direction that has classes: egress shares the wire, ingress what reaches apps. A tree has a
//! scheduler, and for each class that has no others below it a *leaf*. On egress, the leaf of an app all of whose frames
//! are of one class has no queue: the app's rings are the queue, and are left alone until it is the leaf's turn, so that
//! nothing is lost. Other frames wait in the leaf's own queue, which is fair between flows and drops what waits too long.

use crate::ids::PortId;
use crate::worker::counters::Counter;
use crate::worker::handoff::Handoff;
use crate::worker::port::User;
use kopi_config::policy::Direction;
use kopi_packet::mark::Mark;
use kopi_qos::{Cause, PacketStore, Pick, Pushed, Queue, QueueConfig, Scheduler};
use kopi_ring::DropReason;
use std::sync::Arc;

/// Bytes of a turn of who shares with nobody: a burst of the longest frames that are common.
const ALONE: u32 = 32 * 1542;
/// Nobody, where a port is.
const NOBODY: PortId = PortId::MAX;

/// A frame that waits.
#[derive(Debug)]
pub struct Waiting {
    /// The frame, and where it goes.
    pub handoff: Handoff,
    /// To whom it is charged if it is dropped, because it waits too long.
    pub charged: PortId,
}

/// Where frames wait: one for each worker, whatever the classes.
pub type FrameStore = PacketStore<Waiting>;

/// What one worker has counted for one class. The worker writes, the control thread reads.
#[derive(Debug, Default)]
pub struct ClassCounters {
    /// Packets sent.
    pub packets: Counter,
    /// Bytes of those, overhead not counted.
    pub bytes: Counter,
    /// Packets dropped because the queue was full.
    pub full: Counter,
    /// Packets dropped because they had waited too long.
    pub late: Counter,
    /// Packets in the queue. A gauge.
    pub backlog_packets: Counter,
    /// Bytes in the queue. A gauge.
    pub backlog_bytes: Counter,
    /// How often the class was at its ceiling.
    pub overlimits: Counter,
}

/// How long a packet of a class has waited.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// By what the class is known across reloads.
    pub class: u64,
    /// Ticks of the TSC.
    pub ticks: u64,
}

/// Samples that wait for the control thread. What comes beyond is left out.
pub const SAMPLES: usize = 4096;

/// A class without others below it.
#[derive(Debug)]
pub struct Leaf {
    /// By what the class is known across reloads.
    pub class: u64,
    /// What waits in kopid.
    pub queue: Queue,
    /// How that is kept.
    pub config: QueueConfig,
    /// What its frames are marked with.
    pub mark: Mark,
    /// The first of the apps whose rings are its queue and have frames; [`NOBODY`] if there are none. Those of a user stand
    /// together.
    first: PortId,
    /// Since when what waits in rings has been waiting for its turn.
    since: u64,
    /// Whether the queue had the last turn, where rings and the queue take turns.
    queued: bool,
}

impl Leaf {
    /// A leaf without apps.
    #[must_use]
    pub const fn new(class: u64, queue: Queue, config: QueueConfig, mark: Mark) -> Self {
        Self { class, queue, config, mark, first: NOBODY, since: 0, queued: false }
    }
}

/// What the numbers of a tree's leaves stand for.
#[derive(Clone, Debug)]
pub struct Numbers {
    /// The leaf of each of the policy's classes, by its index; `u32::MAX` for those of the other direction.
    pub of_class: Arc<[u32]>,
    /// By what each leaf is known across reloads, sorted.
    pub ids: Arc<[(u64, u32)]>,
    /// The leaf of frames without a class.
    pub unclassed: u32,
}

/// The classes of one direction. The control thread makes it, a worker uses it.
#[derive(Debug)]
pub struct SchedTree {
    scheduler: Scheduler,
    /// By the scheduler's numbers. Those of inner classes are never used.
    leaves: Box<[Leaf]>,
    /// The leaf of each of the policy's classes, by its index; `u32::MAX` for those of the other direction.
    of_class: Arc<[u32]>,
    /// By what each leaf is known across reloads, sorted.
    ids: Arc<[(u64, u32)]>,
    counters: Arc<[ClassCounters]>,
    /// The leaf of frames without a class.
    unclassed: u32,
    /// Whether no class and not the wire has a limit, and whether no leaf is marked, either.
    unlimited: bool,
    unmarked: bool,
    /// By port.
    links: Box<[RingLink]>,
    /// Turns that rings have had.
    turns: u64,
}

/// An app's place in the leaf whose queue its rings are.
#[derive(Clone, Copy, Debug)]
struct RingLink {
    /// The leaf; `u32::MAX` while the rings have no frames.
    leaf: u32,
    /// The next app of that leaf.
    next: PortId,
    /// Whose turns its turns are.
    user: User,
    /// Its last turn.
    turn: u64,
}

/// All classes, as one worker keeps to them.
#[derive(Debug)]
pub struct Shaper {
    /// What shares the wire; `None` if nothing is said of it.
    pub egress: Option<SchedTree>,
    /// What shares what reaches apps.
    pub ingress: Option<SchedTree>,
}

impl Shaper {
    /// The classes of one direction.
    #[inline]
    pub const fn tree(&mut self, direction: Direction) -> Option<&mut SchedTree> {
        match direction {
            Direction::Egress => self.egress.as_mut(),
            Direction::Ingress => self.ingress.as_mut(),
        }
    }
}

/// What is to be served next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dequeue {
    /// The rings of this app, up to so many bytes.
    AppRing {
        /// The leaf.
        leaf: u32,
        /// The app.
        port: PortId,
        /// Bytes, overhead counted. The frame that reaches this number may exceed it.
        bytes: u32,
    },
    /// The queue of this leaf.
    ClassQueue {
        /// The leaf.
        leaf: u32,
        /// Bytes, overhead counted.
        bytes: u32,
    },
    /// Nobody, for now.
    Nothing,
}

impl SchedTree {
    /// A tree of `leaves`, by the numbers of `scheduler`, for ports below `ports`.
    #[must_use]
    pub fn new(
        scheduler: Scheduler,
        leaves: Vec<Leaf>,
        numbers: &Numbers,
        counters: Arc<[ClassCounters]>,
        ports: usize,
    ) -> Self {
        let Numbers { of_class, ids, unclassed } = numbers;
        Self {
            unlimited: scheduler.is_unlimited(),
            unmarked: leaves.iter().all(|leaf| leaf.mark.is_none()),
            scheduler,
            leaves: leaves.into(),
            of_class: Arc::clone(of_class),
            ids: Arc::clone(ids),
            counters,
            unclassed: *unclassed,
            links: vec![RingLink { leaf: u32::MAX, next: NOBODY, user: User::Host, turn: 0 }; ports].into(),
            turns: 0,
        }
    }

    /// The leaf of the policy's class `class`, counted from 1 as in flows; `None` for 0 and for classes of the other
    /// direction.
    #[inline]
    #[must_use]
    pub fn leaf_of(&self, class: u16) -> Option<u32> {
        let at = usize::from(class.checked_sub(1)?);
        self.of_class.get(at).copied().filter(|leaf| *leaf != u32::MAX)
    }

    /// The leaf of frames without a class.
    #[inline]
    #[must_use]
    pub const fn unclassed(&self) -> u32 {
        self.unclassed
    }

    /// Whether frames need not wait: they would go in the same turn, for no class is limited and nothing waits.
    #[inline]
    #[must_use]
    pub const fn is_free(&self) -> bool {
        self.unlimited && self.unmarked && self.scheduler.is_idle()
    }

    /// Counts frames of a leaf, of so many bytes, that went without waiting.
    #[inline]
    pub fn went(&self, leaf: u32, frames: usize, bytes: u64) {
        if let Some(counters) = self.counters.get(leaf as usize) {
            counters.packets.add(frames as u64);
            counters.bytes.add(bytes);
        }
    }

    /// What frames of a leaf are marked with.
    #[inline]
    #[must_use]
    pub fn mark(&self, leaf: u32) -> Mark {
        self.leaves.get(leaf as usize).map_or(Mark::NONE, |leaf| leaf.mark)
    }

    /// Whether the leaf has something to send, as far as is known.
    #[inline]
    #[must_use]
    pub fn is_active(&self, leaf: u32) -> bool {
        (leaf as usize) < self.leaves.len() && self.scheduler.is_active(leaf)
    }

    /// The leaf has something to send from now on.
    #[inline]
    pub fn activate(&mut self, leaf: u32, now: u64) {
        if (leaf as usize) < self.leaves.len() && !self.scheduler.is_active(leaf) {
            self.scheduler.activate(leaf, now);
            if let Some(leaf) = self.leaves.get_mut(leaf as usize) {
                leaf.since = now;
            }
        }
    }

    /// Notes that the rings of app `port`, of `user`, are the queue of `leaf` and have frames.
    pub fn link(&mut self, port: PortId, user: User, leaf: u32, now: u64) {
        self.unlink(port);
        let Some(place) = self.leaves.get_mut(leaf as usize) else { return };
        // Behind another one of the same user, if there is one.
        let mut before = place.first;
        while before != NOBODY && self.links[usize::from(before)].user != user {
            before = self.links[usize::from(before)].next;
        }
        let next = match before {
            NOBODY => std::mem::replace(&mut place.first, port),
            before => std::mem::replace(&mut self.links[usize::from(before)].next, port),
        };
        let turn = self.links.get(usize::from(port)).map_or(0, |link| link.turn);
        if let Some(link) = self.links.get_mut(usize::from(port)) {
            *link = RingLink { leaf, next, user, turn };
        }
        self.activate(leaf, now);
    }

    /// Notes that the rings of app `port` have no frames.
    pub fn unlink(&mut self, port: PortId) {
        let Some(link) = self.links.get_mut(usize::from(port)) else { return };
        let (leaf, next) = (std::mem::replace(&mut link.leaf, u32::MAX), link.next);
        let Some(place) = self.leaves.get_mut(leaf as usize) else { return };
        if place.first == port {
            place.first = next;
            return;
        }
        let mut before = place.first;
        while before != NOBODY {
            let link = &mut self.links[usize::from(before)];
            if link.next == port {
                link.next = next;
                return;
            }
            before = link.next;
        }
    }

    /// Whether the rings of app `port` wait for the turn of their leaf.
    #[inline]
    #[must_use]
    pub fn is_linked(&self, port: PortId) -> bool {
        self.links.get(usize::from(port)).is_some_and(|link| link.leaf != u32::MAX)
    }

    /// Whether there are apps whose rings are the queue of `leaf` and have frames.
    #[inline]
    #[must_use]
    pub fn has_rings(&self, leaf: u32) -> bool {
        self.leaves.get(leaf as usize).is_some_and(|leaf| leaf.first != NOBODY)
    }

    /// Which of the apps whose rings are the queue of a leaf, of which `first` is the first, comes next: that which has waited
    /// longest of the user who has.
    fn next_ring(&self, first: PortId) -> PortId {
        let (mut best, mut best_turn) = (first, u64::MAX);
        let mut at = first;
        while at != NOBODY {
            let user = self.links[usize::from(at)].user;
            let (mut longest, mut oldest, mut latest) = (at, u64::MAX, 0);
            while at != NOBODY && self.links[usize::from(at)].user == user {
                let link = &self.links[usize::from(at)];
                if link.turn < oldest {
                    (longest, oldest) = (at, link.turn);
                }
                latest = latest.max(link.turn);
                at = link.next;
            }
            if latest < best_turn {
                (best, best_turn) = (longest, latest);
            }
        }
        best
    }

    /// Whose turn it is.
    #[inline]
    pub fn next(&mut self, now: u64) -> Dequeue {
        let Pick::Serve { leaf, bytes } = self.scheduler.pick(now) else { return Dequeue::Nothing };
        let Some(place) = self.leaves.get_mut(leaf as usize) else { return Dequeue::Nothing };
        let first = place.first;
        // Turns are short so that classes share a wire finely, and so that the rings of a class, which have turns and not bytes, do. Who
        // is alone shares it with nobody, and a burst of long frames costs half of what as many turns of two cost.
        let sole = first == NOBODY || place.queue.is_empty() && self.links[usize::from(first)].next == NOBODY;
        let alone = sole && self.unlimited && self.scheduler.has_one_active();
        let bytes = if alone { bytes.max(ALONE) } else { bytes };
        place.queued = !place.queue.is_empty() && (first == NOBODY || !place.queued);
        if place.queued {
            return Dequeue::ClassQueue { leaf, bytes };
        }
        if first == NOBODY {
            self.scheduler.deactivate(leaf, now);
            return Dequeue::Nothing;
        }
        let port = if self.links[usize::from(first)].next == NOBODY { first } else { self.next_ring(first) };
        self.turns += 1;
        self.links[usize::from(port)].turn = self.turns;
        Dequeue::AppRing { leaf, port, bytes }
    }

    /// From when on something may be sent, as far as is known at `now`; `None` if nothing waits that ever may.
    pub fn due(&mut self, now: u64) -> Option<u64> {
        match self.scheduler.pick(now) {
            Pick::Serve { .. } => Some(now),
            Pick::WaitUntil(tick) => Some(tick),
            Pick::Idle => None,
        }
    }

    /// Notes that `leaf` had its turn for so many bytes that went somewhere else than this direction's classes share, overhead
    /// counted: they take nothing of its limits, but it had its turn.
    #[inline]
    pub fn passed(&mut self, leaf: u32, bytes: u64) {
        if bytes > 0 && (leaf as usize) < self.leaves.len() {
            self.scheduler.defer(leaf, bytes);
        }
    }

    /// Notes that `leaf` has sent so much. Returns how long it had waited for its turn, as far as kopid can see.
    #[inline]
    pub fn sent(&mut self, leaf: u32, (frames, bytes): (u32, u64), now: u64) -> Option<Sample> {
        let more = self.waits(leaf) || self.has_rings(leaf);
        self.scheduler.charge(leaf, bytes, frames, more, now);
        let overlimits = self.scheduler.overlimits(leaf);
        if let Some(counters) = self.counters.get(leaf as usize) {
            counters.packets.add(frames.into());
            counters.bytes.add(bytes);
            counters.overlimits.set(overlimits);
        }
        let place = self.leaves.get_mut(leaf as usize)?;
        let ticks = now.saturating_sub(std::mem::replace(&mut place.since, now));
        (frames > 0).then_some(Sample { class: place.class, ticks })
    }

    /// What each frame costs besides its own bytes.
    #[inline]
    #[must_use]
    pub const fn overhead(&self) -> u32 {
        self.scheduler.overhead()
    }

    /// Has a frame wait in the queue of `leaf`. What has to go for it is given to `sink`.
    #[inline]
    pub fn push(
        &mut self,
        leaf: u32,
        store: &mut FrameStore,
        (waiting, hash): (Waiting, u32),
        now: u64,
        mut sink: impl FnMut(Waiting, DropReason),
    ) {
        let (Some(place), Some(counters)) = (self.leaves.get_mut(leaf as usize), self.counters.get(leaf as usize))
        else {
            return sink(waiting, DropReason::QueueFull);
        };
        let length = waiting.handoff.mbuf.len();
        let pushed = Pushed { item: waiting, length, hash };
        let outcome = place.queue.push(store, pushed, now, |waiting, cause| {
            count(counters, cause);
            sink(waiting, reason(cause));
        });
        if let Err(waiting) = outcome {
            count(counters, Cause::Full);
            sink(waiting, DropReason::QueueFull);
        }
        gauge(counters, &place.queue);
        if !place.queue.is_empty() && !self.scheduler.is_active(leaf) {
            self.scheduler.activate(leaf, now);
        }
    }

    /// Takes frames out of the queue of `leaf`, up to `bytes` with their overhead and at most `most`, and gives each to
    /// `send`, those that have waited too long to `sink`. Returns how many there were, their bytes, and how long the first
    /// one has waited.
    #[inline]
    pub fn pop(
        &mut self,
        leaf: u32,
        (most, bytes): (usize, u32),
        store: &mut FrameStore,
        now: u64,
        mut send: impl FnMut(Waiting),
        mut sink: impl FnMut(Waiting, DropReason),
    ) -> (u32, u64, Option<u64>) {
        let overhead = self.scheduler.overhead();
        let (Some(place), Some(counters)) = (self.leaves.get_mut(leaf as usize), self.counters.get(leaf as usize))
        else {
            return (0, 0, None);
        };
        let (mut frames, mut sent, mut cost, mut waited) = (0_u32, 0_u64, 0_u64, None);
        while cost < bytes.into() && (frames as usize) < most {
            let popped = place.queue.pop(store, now, |waiting, cause| {
                count(counters, cause);
                sink(waiting, reason(cause));
            });
            let Some(popped) = popped else { break };
            waited.get_or_insert(popped.sojourn);
            frames += 1;
            sent += u64::from(popped.length);
            cost += u64::from(popped.length) + u64::from(overhead);
            send(popped.item);
        }
        gauge(counters, &place.queue);
        (frames, sent, waited)
    }

    /// Whether anything waits in the queue of `leaf`.
    #[inline]
    #[must_use]
    pub fn waits(&self, leaf: u32) -> bool {
        self.leaves.get(leaf as usize).is_some_and(|leaf| !leaf.queue.is_empty())
    }

    /// Takes over what `old` knows of the classes that both have: debts, turns, and what waits. What waits in others is
    /// given to `drain`. Which apps' rings belong where is not taken over.
    pub fn adopt(&mut self, old: &mut Self, store: &mut FrameStore, now: u64, mut drain: impl FnMut(Waiting)) {
        self.scheduler.adopt(&mut old.scheduler, now);
        let mut ids = self.ids.iter().peekable();
        for (id, leaf) in old.ids.iter() {
            let Some(before) = old.leaves.get_mut(*leaf as usize) else { continue };
            while ids.next_if(|(mine, _)| mine < id).is_some() {}
            let mine =
                ids.peek().filter(|(mine, _)| mine == id).and_then(|(_, leaf)| self.leaves.get_mut(*leaf as usize));
            match mine {
                Some(mine) => {
                    std::mem::swap(&mut mine.queue, &mut before.queue);
                    mine.queue.reconfigure(mine.config);
                    mine.since = now;
                }
                None => before.queue.drain(store, &mut drain),
            }
        }
    }

    /// Gives everything that waits to `sink`.
    pub fn drain(&mut self, store: &mut FrameStore, mut sink: impl FnMut(Waiting)) {
        self.leaves
            .iter_mut()
            .filter(|leaf| !leaf.queue.is_empty())
            .for_each(|leaf| leaf.queue.drain(store, &mut sink));
    }
}

fn count(counters: &ClassCounters, cause: Cause) {
    match cause {
        Cause::Full => counters.full.add(1),
        Cause::Codel => counters.late.add(1),
    }
}

fn gauge(counters: &ClassCounters, queue: &Queue) {
    counters.backlog_packets.set(queue.len().into());
    counters.backlog_bytes.set(queue.bytes());
}

const fn reason(cause: Cause) -> DropReason {
    match cause {
        Cause::Full => DropReason::QueueFull,
        Cause::Codel => DropReason::Codel,
    }
}
