//! The flow table: what was decided for a packet's key, so that its followers need not ask again.
//!
//! Fixed in size, allocated at start, owned by one worker. Eight-way set-associative: a key's hash chooses one bucket
//! of eight entries, a 16-bit tag of the hash finds the entry in it. A lookup touches the bucket's tags, the entry's key
//! and the entry's state: three cache lines, two of them neighbours.
//!
//! The table is a cache. When a bucket is full, whoever has most of its entries gives up the one unused for longest, so
//! that nobody who makes up flows evicts another's; its packets are evaluated anew when they come again. Entries idle for
//! [`IDLE_SECONDS`] go by themselves.

use crate::ids::{PortId, Verdict, WIRE};
use crate::policy_counters::CounterId;
use crate::worker::packet_type::packet_type;
use kopi_config::policy::{Direction, State};
use kopi_packet::{FlowKey, RssSeed, Seed};
use kopi_policy::{CtLookup, CtVersion, Evaluation, TOUCH_SHIFT};
use kopi_ring::DropReason;
use kopi_ring::layout::Notes;

/// Entries in a bucket.
const WAYS: usize = 8;
/// An entry that was not used for so long is removed, in seconds.
pub const IDLE_SECONDS: u64 = 30;

/// Ticks by which the age of flows is told: about a tenth of a second, which leaves room for ten years in 32 bits.
pub const AGE_UNIT: u64 = 1 << 28;

/// Ticks by which it is told when a flow was last seen: less than a millisecond, so that 32 bits last for two weeks.
pub const SEEN_UNIT: u64 = 1 << SEEN_SHIFT;
const SEEN_SHIFT: u32 = 20;

/// The tags of one bucket: 0 for a free entry.
type Tags = [u16; WAYS];

/// What is known about a flow.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
pub struct Flow {
    /// The [`crate::snapshot::Snapshot::epoch`] that the verdict was made under; 0 for none yet.
    pub epoch: u32,
    /// Where its packets go.
    pub verdict: Verdict,
    /// Packets seen.
    pub packets: u64,
    /// Bytes seen, FCS not counted.
    pub bytes: u64,
    /// TSC of the burst with its first packet, in units of [`AGE_UNIT`].
    first_seen: u32,
    /// TSC of the burst with its last packet, in units of [`SEEN_UNIT`].
    last_seen: u32,
    /// What the policy knows of it.
    pub hooks: Hooks,
    /// The state that its packets were evaluated by at the sender's and at the receiver's side; `None` for a side that they were
    /// not evaluated at, or without tracking.
    pub states: [Option<State>; 2],
    /// The hash that chooses the queue of the app that gets its packets.
    rss: u32,
    /// The [packet type](Notes::packet_type), and [`EACH`].
    marks: u16,
}

/// Bit of [`Flow::marks`]: each packet is evaluated by itself.
const EACH: u16 = 1 << 15;
/// Bit of [`Flow::marks`]: a connection has a say at one side, or each packet is evaluated by itself.
const TRACKED: u16 = 1 << 14;

/// What the policy knows of a flow at the sender's and at the receiver's side, in this order.
#[derive(Clone, Copy, Debug, Default)]
pub struct Hooks {
    /// The connection that its packets belong to, in the condition that they were evaluated by. `None` if there is no
    /// connection, or if the next packet may change it.
    pub connections: [Option<CtVersion>; 2],
    /// What counts them.
    pub counter_ids: [CounterId; 2],
    /// Their classes, counted from 1; 0 for none.
    pub classes: [u16; 2],
}

impl Hooks {
    const EMPTY: Self = Self { connections: [None; 2], counter_ids: [0; 2], classes: [0; 2] };
}

impl Flow {
    /// What a new one is.
    pub const EMPTY: Self = Self {
        epoch: 0,
        verdict: Verdict::Drop(DropReason::PortGone),
        packets: 0,
        bytes: 0,
        first_seen: 0,
        last_seen: 0,
        hooks: Hooks::EMPTY,
        states: [None; 2],
        rss: 0,
        marks: 0,
    };

    /// The flow of a packet with this key, the first one, at `now` (TSC). Nobody has evaluated it yet.
    fn new(key: &FlowKey, rss: &RssSeed, now: u64) -> Self {
        let (first_seen, last_seen) = (age_units(now), seen_units(now));
        Self { first_seen, last_seen, rss: key.rss(rss), marks: packet_type(key), ..Self::EMPTY }
    }

    /// Forgets what the policy has said of it.
    pub const fn forget(&mut self) {
        self.hooks = Hooks::EMPTY;
        self.states = [None; 2];
        self.marks &= !(EACH | TRACKED);
    }

    /// Has each packet evaluated by itself: it says something that its key does not.
    pub const fn judge_each(&mut self) {
        self.marks |= EACH | TRACKED;
        if matches!(self.states[0], None | Some(State::Untracked)) {
            self.states[0] = Some(State::New);
        }
    }

    /// Whether each packet is evaluated by itself.
    #[inline]
    #[must_use]
    pub const fn is_judged_each(&self) -> bool {
        self.marks & EACH != 0
    }

    /// Whether no connection has a say.
    #[inline]
    #[must_use]
    pub const fn is_untracked(&self) -> bool {
        self.marks & TRACKED == 0
    }

    /// What the app that gets its packets is told about each.
    #[inline]
    #[must_use]
    pub const fn notes(&self) -> Notes {
        Notes::new(self.marks, self.rss)
    }

    /// Notes what was said at one side, and gives the lookup back, if there was one.
    pub fn note(
        &mut self,
        side: Direction,
        evaluation: &Evaluation,
        lookup: Option<CtLookup>,
        counter_id: CounterId,
    ) -> Option<CtLookup> {
        let at = usize::from(side == Direction::Ingress);
        self.states[at] = lookup.as_ref().map(CtLookup::state);
        if !matches!(self.states[at], None | Some(State::Untracked)) {
            self.marks |= TRACKED;
        }
        self.hooks.counter_ids[at] = counter_id;
        self.hooks.classes[at] = evaluation.class.map_or(0, |class| class.saturating_add(1));
        lookup
    }

    /// Ticks since its first packet, at `now` (TSC), to within [`AGE_UNIT`]; 0 if that came later.
    #[must_use]
    pub const fn age(&self, now: u64) -> u64 {
        passed(age_units(now).wrapping_sub(self.first_seen)) * AGE_UNIT
    }

    /// Ticks since its last packet, at `now` (TSC), to within [`SEEN_UNIT`]; 0 if that came later.
    #[must_use]
    pub const fn idle(&self, now: u64) -> u64 {
        passed(self.idle_units(seen_units(now))) * SEEN_UNIT
    }

    #[inline]
    const fn idle_units(&self, now: u32) -> u32 {
        now.wrapping_sub(self.last_seen)
    }

    /// Whether its last packet came in an earlier period of 2^[`TOUCH_SHIFT`] ticks than that of `now` (TSC).
    #[inline]
    #[must_use]
    pub const fn is_to_be_touched(&self, now: u64) -> bool {
        (seen_units(now) ^ self.last_seen) >> (TOUCH_SHIFT - SEEN_SHIFT) != 0
    }

    /// Counts packets of `bytes` bytes in all, seen at `now` (TSC).
    #[inline]
    pub fn count(&mut self, packets: u64, bytes: u64, now: u64) {
        self.packets = self.packets.wrapping_add(packets);
        self.bytes = self.bytes.wrapping_add(bytes);
        self.last_seen = seen_units(now);
    }
}

#[derive(Clone, Copy, Debug)]
#[repr(align(128))]
struct Entry {
    key: FlowKey,
    flow: Flow,
}

impl Entry {
    /// Whose flow it is: the sender's, or the receiver's of what the wire has sent.
    const fn holder(&self) -> PortId {
        match (self.key.source(), self.flow.verdict) {
            (WIRE, Verdict::App(id) | Verdict::Refuse(id, _) | Verdict::Reject(id)) => id,
            (source, _) => source,
        }
    }
}

// A lookup pays for cache lines: key and state have one each, side by side.
const _: () = {
    assert!(size_of::<FlowKey>() == 64);
    assert!(size_of::<Flow>() == 64);
    assert!(size_of::<Entry>() == 128);
};

/// A place in the hash space: which bucket, which tag.
#[derive(Clone, Copy, Debug, Default)]
pub struct Hash(u64);

impl Hash {
    /// All of it.
    #[inline]
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// What tells flows apart in the queue of a class.
    #[inline]
    #[must_use]
    pub const fn flow(self) -> u32 {
        (self.0 >> 16 & 0xffff_ffff) as u32
    }

    const fn tag(self) -> u16 {
        (self.0 >> 48) as u16 | 1
    }
}

/// The flows of one worker.
#[derive(Debug)]
pub struct FlowTable {
    tags: Box<[Tags]>,
    entries: Box<[Entry]>,
    seed: Seed,
    rss: RssSeed,
    /// Entries by the port that their packets come from.
    begun: Box<[u32]>,
    /// Bucket to be swept next.
    sweep: usize,
    used: usize,
    misses: u64,
    evictions: u64,
}

impl FlowTable {
    /// Flows of a bucket at most.
    pub const WAYS: usize = WAYS;

    /// A table of `capacity` entries, a power of two of at least 8, hashed under `seed`, for ports below `ports`. Flows are spread
    /// over the queues of apps under `rss`, the same at all workers.
    ///
    /// # Panics
    ///
    /// If `capacity` is anything else: the configuration checks it.
    #[must_use]
    pub fn new(capacity: usize, ports: usize, seed: Seed, rss: RssSeed) -> Self {
        assert!(capacity.is_power_of_two() && capacity >= WAYS, "flow table of {capacity} entries");
        // The key of a runt without any bytes serves as filler; its tag of 0 keeps it from being found.
        let (_, filler) = kopi_packet::parse(&[], 0);
        Self {
            tags: vec![[0; WAYS]; capacity / WAYS].into(),
            entries: vec![Entry { key: filler, flow: Flow::EMPTY }; capacity].into(),
            seed,
            rss,
            begun: vec![0; ports].into(),
            sweep: 0,
            used: 0,
            misses: 0,
            evictions: 0,
        }
    }

    /// The hash of `key`, with its bucket on the way into the cache.
    #[inline]
    #[must_use]
    pub fn hash(&self, key: &FlowKey) -> Hash {
        let hash = Hash(key.hash(&self.seed));
        if let Some(tags) = self.tags.get(self.bucket(hash)) {
            kopi_ring::prefetch(tags);
        }
        hash
    }

    #[expect(clippy::cast_possible_truncation, reason = "only the low bits are used")]
    const fn bucket(&self, hash: Hash) -> usize {
        hash.0 as usize & (self.tags.len() - 1)
    }

    /// The flow of `key`. A new one has epoch 0, and `now` as its first use. `None` if there is no such flow, and the port
    /// that the packet comes from has `limit` flows already.
    #[inline]
    pub fn flow(&mut self, key: &FlowKey, hash: Hash, limit: u32, now: u64) -> Option<&mut Flow> {
        let bucket = self.bucket(hash);
        let found = match (self.tags.get(bucket), self.entries.as_chunks::<WAYS>().0.get(bucket)) {
            (Some(tags), Some(entries)) => {
                let tag = hash.tag();
                tags.iter().zip(entries).position(|(t, entry)| *t == tag && entry.key == *key)
            }
            _ => None,
        };
        let way = match found {
            Some(way) => way,
            None if self.begun.get(usize::from(key.source())).is_some_and(|begun| *begun >= limit) => return None,
            None => self.insert(bucket, key, hash, now),
        };
        self.entries.get_mut(bucket * WAYS + way).map(|entry| &mut entry.flow)
    }

    #[cold]
    fn insert(&mut self, bucket: usize, key: &FlowKey, hash: Hash, now: u64) -> usize {
        self.misses += 1;
        let entries = &mut self.entries[bucket * WAYS..][..WAYS];
        let way = self.tags[bucket].iter().position(|tag| *tag == 0).unwrap_or_else(|| {
            let way = victim(entries, key.source(), seen_units(now));
            self.evictions += 1;
            self.used -= 1;
            release(&mut self.begun, &entries[way].key);
            way
        });
        self.used += 1;
        if let Some(begun) = self.begun.get_mut(usize::from(key.source())) {
            *begun += 1;
        }
        self.tags[bucket][way] = hash.tag();
        entries[way] = Entry { key: *key, flow: Flow::new(key, &self.rss, now) };
        way
    }

    /// Looks at the next bucket and frees its entries that at `now` (TSC) were unused for more than `idle` ticks, or whose
    /// source `is_gone`. Call it regularly; [`buckets`](Self::buckets) calls go once round the table.
    pub fn sweep(&mut self, now: u64, idle: u64, is_gone: impl Fn(PortId) -> bool) {
        let bucket = self.sweep;
        self.sweep = (bucket + 1) & (self.tags.len() - 1);
        let entries = &self.entries[bucket * WAYS..][..WAYS];
        for (tag, entry) in self.tags[bucket].iter_mut().zip(entries).filter(|(tag, _)| **tag != 0) {
            let gone = is_gone(entry.key.source()) || matches!(entry.flow.verdict, Verdict::App(id) if is_gone(id));
            if gone || entry.flow.idle(now) > idle {
                *tag = 0;
                self.used -= 1;
                release(&mut self.begun, &entry.key);
            }
        }
    }

    /// The flows of the buckets from `from` on, up to `to` or the last one.
    pub fn flows(&self, from: usize, to: usize) -> impl Iterator<Item = (&FlowKey, &Flow)> {
        let to = to.min(self.buckets());
        let range = from.min(to)..to;
        let tags = self.tags.get(range.clone()).unwrap_or_default().as_flattened();
        let entries = self.entries.get(range.start * WAYS..range.end * WAYS).unwrap_or_default();
        tags.iter().zip(entries).filter(|(tag, _)| **tag != 0).map(|(_, entry)| (&entry.key, &entry.flow))
    }

    /// Buckets in the table.
    #[must_use]
    pub const fn buckets(&self) -> usize {
        self.tags.len()
    }

    /// Entries in use.
    #[must_use]
    pub const fn used(&self) -> usize {
        self.used
    }

    /// Lookups that found nothing.
    #[must_use]
    pub const fn misses(&self) -> u64 {
        self.misses
    }

    /// Entries that had to go because their bucket was full.
    #[must_use]
    pub const fn evictions(&self) -> u64 {
        self.evictions
    }
}

/// The entry of a full bucket that makes room for a flow from port `source`, at `now` in units of [`SEEN_UNIT`]: of those whose
/// holder would have most, the one unused for longest.
///
/// Who receives what the wire sends is not known before it is evaluated, so such a flow counts for nobody yet.
fn victim(entries: &[Entry], source: PortId, now: u32) -> usize {
    let would_have = |holder| {
        let has = entries.iter().filter(|entry| entry.holder() == holder).count();
        has + usize::from(holder == source)
    };
    let rank = |entry: &Entry| (would_have(entry.holder()), entry.flow.idle_units(now));
    let (way, _) = entries.iter().enumerate().max_by_key(|(_, entry)| rank(entry)).expect("a bucket has entries");
    way
}

/// Units from one moment to another, by their difference, which wraps: what is more than half of all is the other way round.
const fn passed(difference: u32) -> u64 {
    if difference > u32::MAX / 2 { 0 } else { difference as u64 }
}

/// A moment in units of [`AGE_UNIT`].
#[expect(clippy::cast_possible_truncation, reason = "it wraps after ten years")]
const fn age_units(now: u64) -> u32 {
    (now / AGE_UNIT) as u32
}

/// A moment in units of [`SEEN_UNIT`].
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "it wraps after two weeks, and what is idle goes after seconds")]
const fn seen_units(now: u64) -> u32 {
    (now >> SEEN_SHIFT) as u32
}

/// One flow less for the port that `key` names.
fn release(begun: &mut [u32], key: &FlowKey) {
    if let Some(begun) = begun.get_mut(usize::from(key.source())) {
        *begun = begun.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    /// A distinct key for every number: a UDP packet with the number in its source address.
    fn key(n: u32) -> FlowKey {
        key_from(n, 1)
    }

    /// The same from another port.
    fn key_from(n: u32, source: PortId) -> FlowKey {
        let mut frame = [0_u8; 64];
        frame[12..14].copy_from_slice(&[8, 0]);
        frame[14..24].copy_from_slice(&[0x45, 0, 0, 50, 0, 0, 0, 0, 64, 17]);
        frame[26..30].copy_from_slice(&n.to_be_bytes());
        frame[38..40].copy_from_slice(&[0, 30]);
        kopi_packet::parse(&frame, source).1
    }

    fn table(capacity: usize) -> FlowTable {
        let seed = Seed::from_bytes(std::array::from_fn(|i| u8::try_from(i * 7 % 251).unwrap()));
        FlowTable::new(capacity, 2, seed, RssSeed::from_bytes([3; 64]))
    }

    /// Time, in the smallest steps that the table tells apart, begins where its clock is about to wrap.
    const fn at(steps: u64) -> u64 {
        (u32::MAX as u64 - 20 + steps) * SEEN_UNIT
    }

    fn touch(table: &mut FlowTable, n: u32, steps: u64) -> u64 {
        let (key, now) = (key(n), at(steps));
        let hash = table.hash(&key);
        let flow = table.flow(&key, hash, u32::MAX, now).unwrap();
        flow.count(1, 64, now);
        flow.packets
    }

    proptest! {
        /// Against a map: a flow that still has its place counts on, one that lost it starts anew; the number of
        /// places in use never exceeds the capacity, and misses minus evictions minus removals are what is left.
        #[test]
        fn table_behaves_like_a_map_that_forgets(
            steps in prop::collection::vec((0_u32..200, 0_u8..10), 1..400)
        ) {
            let mut table = table(64);
            let mut model = BTreeMap::new();
            for (now, (n, kind)) in (1_u64..).zip(steps) {
                if kind == 0 {
                    let before = table.used();
                    table.sweep(at(now), 50 * SEEN_UNIT, |_| false);
                    prop_assert!(table.used() <= before);
                    continue;
                }
                let misses = table.misses();
                let packets = touch(&mut table, n, now);
                let counted = model.entry(n).and_modify(|p| *p += 1).or_insert(1);
                if table.misses() > misses {
                    prop_assert_eq!(packets, 1);
                    *counted = 1;
                } else {
                    prop_assert_eq!(packets, *counted);
                }
                prop_assert!(table.used() <= 64);
            }
        }
    }

    /// A flow of the model: whose it is, and when it was used last.
    type Model = BTreeMap<(PortId, u32), (PortId, u64)>;

    /// Uses flow `n` from port `source`, which goes to app `to`. Returns whether it was there.
    fn send(table: &mut FlowTable, n: u32, source: PortId, to: PortId, steps: u64) -> bool {
        let key = key_from(n, source);
        let (hash, misses) = (table.hash(&key), table.misses());
        let flow = table.flow(&key, hash, u32::MAX, at(steps)).unwrap();
        flow.count(1, 64, at(steps));
        flow.verdict = Verdict::App(to);
        table.misses() == misses
    }

    proptest! {
        /// Against a list of what one bucket has: when it is full, the flow goes that was unused for longest, of those whose
        /// holder would have most. Flows from the wire are their receiver's.
        #[test]
        fn full_bucket_takes_from_whoever_has_most(
            steps in prop::collection::vec((0_u32..12, 0_u16..3, 1_u16..4), 1..200)
        ) {
            let mut table = table(8);
            let mut model = Model::new();
            for (now, (n, source, to)) in (1_u64..).zip(steps) {
                let holder = if source == WIRE { to } else { source };
                prop_assert_eq!(send(&mut table, n, source, to, now), model.contains_key(&(source, n)));
                if model.len() == 8 && !model.contains_key(&(source, n)) {
                    let has = |of: PortId| {
                        model.values().filter(|(holder, _)| *holder == of).count() + usize::from(of == source)
                    };
                    let most = model.values().map(|(of, _)| has(*of)).max().unwrap();
                    let oldest = model.iter().filter(|(_, (of, _))| has(*of) == most).min_by_key(|(_, (_, seen))| *seen);
                    let gone = *oldest.unwrap().0;
                    model.remove(&gone);
                }
                model.insert((source, n), (holder, now));
                prop_assert_eq!(table.used(), model.len());
            }
            for ((source, n), (holder, _)) in &model {
                prop_assert!(send(&mut table, *n, *source, *holder, 1000), "flow {} from port {} has gone", n, source);
            }
        }
    }

    /// An app that makes up flows, or somebody who sends it such, evicts no other app's: those stay though the table is filled
    /// ten times over between any two of their packets.
    #[test]
    fn scan_evicts_nobody_elses_flows() {
        for (source, to) in [(1, 3), (WIRE, 1)] {
            let mut table = table(4096);
            let (mut now, mut made_up) = (1, 1 << 24);
            // The victim sends and receives a little, and has a share of the places that leaves no bucket full of its own.
            let own = |table: &mut FlowTable, now| (0..400).filter(|n| !send(table, *n, 2 * (*n as u16 % 2), 2, now)).count();
            assert_eq!(own(&mut table, now), 400);
            for _ in 0..3 {
                for _ in 0..10 * 4096 {
                    now += 1;
                    made_up += 1;
                    assert!(!send(&mut table, made_up, source, to, now));
                }
                assert_eq!(own(&mut table, now), 0, "flows of another were evicted");
            }
            assert_eq!(table.used(), 4096);
        }
    }

    /// Flows that fit are all kept, whatever their addresses, up to a load that a set-associative table can bear.
    #[test]
    fn half_full_table_keeps_nearly_everything() {
        let mut table = table(65536);
        for n in 0..20_000 {
            touch(&mut table, n, 1);
        }
        assert!(table.evictions() < 20, "{} evictions", table.evictions());
        let misses = table.misses();
        for n in 0..20_000 {
            touch(&mut table, n, 2);
        }
        assert!(table.misses() - misses <= 40, "{} misses", table.misses() - misses);
    }

    /// In the queue of a class, nobody stands in another's place: what two ports send are two flows, also if the frames are the
    /// same, or are none of IP.
    #[test]
    fn senders_are_told_apart_in_the_queue_of_a_class() {
        let table = table(8);
        let mut arp = [0_u8; 60];
        arp[12..14].copy_from_slice(&[8, 6]);
        let mut udp = [0_u8; 60];
        udp[12..24].copy_from_slice(&[8, 0, 0x45, 0, 0, 46, 0, 0, 0, 0, 64, 17]);
        for frame in [&arp, &udp] {
            let flow = |port| table.hash(&kopi_packet::parse(frame, port).1).flow();
            assert_ne!(flow(1), flow(2));
        }
        assert_ne!(
            table.hash(&kopi_packet::parse(&arp, 1).1).flow(),
            table.hash(&kopi_packet::parse(&udp, 1).1).flow()
        );
    }

    /// A flow that goes on while it is asked about is neither weeks idle nor years old.
    #[test]
    fn what_came_later_is_no_time_ago() {
        let mut table = table(8);
        let (key, now) = (key(1), 3 << 28);
        let hash = table.hash(&key);
        let flow = table.flow(&key, hash, u32::MAX, now).unwrap();
        flow.count(1, 64, now + 5 * SEEN_UNIT);
        assert_eq!((flow.age(now), flow.age(now - 1), flow.age(now + AGE_UNIT)), (0, 0, AGE_UNIT));
        assert_eq!((flow.idle(now), flow.idle(now + 7 * SEEN_UNIT)), (0, 2 * SEEN_UNIT));
    }

    /// A full bucket gives up the entry that was unused for longest.
    #[test]
    fn oldest_of_a_full_bucket_makes_room() {
        let mut table = table(8);
        for n in 0..8 {
            touch(&mut table, n, u64::from(n) + 1);
        }
        touch(&mut table, 0, 100);
        touch(&mut table, 50, 101);
        assert_eq!((table.used(), table.evictions()), (8, 1));
        assert_eq!(touch(&mut table, 0, 102), 3, "recently used, so it stayed");
        assert_eq!(touch(&mut table, 1, 103), 1, "the oldest, so it went");
    }

    /// Once round the table, sweeping frees what is idle and what belongs to a port that is gone, and nothing else.
    #[test]
    fn sweep_frees_idle_and_orphaned_flows() {
        let mut table = table(64);
        for n in 0..10 {
            touch(&mut table, n, if n < 4 { 10 } else { 1000 });
        }
        let kept = table.used();
        for _ in 0..table.buckets() {
            table.sweep(at(1000), 500 * SEEN_UNIT, |_| false);
        }
        assert_eq!(table.used(), kept - 4);
        for _ in 0..table.buckets() {
            table.sweep(at(1000), u64::MAX, |port| port == 1);
        }
        assert_eq!(table.used(), 0);
    }
}
