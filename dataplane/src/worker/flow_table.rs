//! The flow table: what was decided for a packet's key, so that its followers need not ask again.
//!
//! Fixed in size, allocated at start, owned by one worker. Eight-way set-associative: a key's hash chooses one bucket
//! of eight entries, a 16-bit tag of the hash finds the entry in it. Of an entry's two cache lines the first has a short key,
//! such as that of IPv4, and what every packet needs; the second has the rest: of the key of IPv6, and what a policy says.
//!
//! A worker looks the flows of a burst up in three passes, each of which asks for what the next one reads, so that it waits for
//! memory once a burst and not once a flow: [`hash`](FlowTable::hash) asks for the tags, [`locate`](FlowTable::locate) for the
//! entry, and [`flow_at`](FlowTable::flow_at) compares keys.
//!
//! The table is a cache. When a bucket is full, whoever has most of its entries gives up the one unused for longest, so
//! that nobody who makes up flows evicts another's; its packets are evaluated anew when they come again. Entries idle for
//! [`IDLE_SECONDS`] go by themselves.

mod flow;

pub use flow::{AGE_UNIT, Flow, Hooks, SEEN_UNIT};

use crate::ids::{PortId, Verdict};
use flow::seen_units;
use kopi_packet::{FlowKey, Seed};

/// Entries in a bucket.
const WAYS: usize = 8;
/// An entry that was not used for so long is removed, in seconds.
pub const IDLE_SECONDS: u64 = 30;

/// The tags of one bucket: 0 for a free entry, odd for any other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(align(16))]
struct Tags([u16; WAYS]);

impl Tags {
    const FREE: Self = Self([0; WAYS]);

    /// The first way with the tag `tag`, which is odd; `None` if there is none. All eight are compared at once.
    #[inline]
    fn find(&self, tag: u16) -> Option<usize> {
        let found = kopi_ring::equal(&self.0, tag);
        (found != 0).then(|| found.trailing_zeros() as usize / 2)
    }
}

// A lookup pays for cache lines: the tags of four buckets share one.
const _: () = assert!(size_of::<Tags>() == 16);

/// Where a flow may be, as [`FlowTable::locate`] has found: the number of an entry.
pub type Place = u32;
/// That of a flow which is not in the table.
const NOWHERE: Place = u32::MAX;

/// A place in the hash space: which bucket, which tag.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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
    entries: Box<[Flow]>,
    seed: Seed,
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
    /// Bytes of memory for each entry.
    pub const ENTRY_SIZE: usize = size_of::<Flow>() + size_of::<Tags>() / WAYS;

    /// A table of `capacity` entries, a power of two of at least 8, hashed under `seed`, for ports below `ports`.
    ///
    /// # Panics
    ///
    /// If `capacity` is anything else: the configuration checks it.
    #[must_use]
    pub fn new(capacity: usize, ports: usize, seed: Seed) -> Self {
        Self::advised(capacity, ports, seed, |_, _| ())
    }

    /// The same in memory whose beginning and bytes are given to `advise` before it is touched.
    ///
    /// # Panics
    ///
    /// As [`new`](Self::new).
    #[must_use]
    pub fn advised(capacity: usize, ports: usize, seed: Seed, advise: Advise) -> Self {
        assert!(capacity.is_power_of_two() && capacity >= WAYS, "flow table of {capacity} entries");
        Self {
            tags: filled(Tags::FREE, capacity / WAYS, advise),
            // Their tags of 0 keep these from being found.
            entries: filled(Flow::EMPTY, capacity, advise),
            seed,
            begun: vec![0; ports].into(),
            sweep: 0,
            used: 0,
            misses: 0,
            evictions: 0,
        }
    }

    /// The hash of `key`, with its bucket on the way into the cache.
    #[expect(clippy::inline_always, reason = "where the key was just made, half of the work is known to be needless")]
    #[inline(always)]
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

    /// Where the flow with this hash is, if it is there: what its tag says. Its entry is on the way into the cache, as a `whole` or what
    /// is needed without a policy. Holds as long as nobody [sweeps](Self::sweep) the table.
    #[inline]
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "a table has at most 2^24 entries")]
    pub fn locate(&self, hash: Hash, whole: bool) -> Place {
        let bucket = self.bucket(hash);
        let Some(way) = self.tags.get(bucket).and_then(|tags| tags.find(hash.tag())) else { return NOWHERE };
        let place = bucket * WAYS + way;
        if let Some(flow) = self.entries.get(place) {
            kopi_ring::prefetch(&flow.key);
            if whole {
                kopi_ring::prefetch(&flow.key_rest);
            }
        }
        place as Place
    }

    /// The flow at a place, for who knows that it is needed as a whole.
    #[inline]
    #[must_use]
    pub fn at(&self, place: Place) -> Option<&Flow> {
        self.entries.get(place as usize)
    }

    /// The flow of `key`. A new one has epoch 0, and `now` as its first use. `None` if there is no such flow, and the port
    /// that the packet comes from has `limit` flows already.
    #[inline]
    pub fn flow(&mut self, key: &FlowKey, hash: Hash, limit: u32, now: u64) -> Option<&mut Flow> {
        self.flow_at(self.locate(hash, false), key, hash, limit, now)
    }

    /// The flow of `key` if it is at `place`, where it was [located](Self::locate). Others may have taken it since then.
    #[inline]
    pub fn found(&mut self, place: Place, key: &FlowKey) -> Option<&mut Flow> {
        self.entries.get_mut(place as usize).filter(|flow| flow.is_of(key))
    }

    /// As [`flow`](Self::flow), for who has [located](Self::locate) it at `place` before.
    #[inline]
    pub fn flow_at(&mut self, place: Place, key: &FlowKey, hash: Hash, limit: u32, now: u64) -> Option<&mut Flow> {
        let place = place as usize;
        if self.entries.get(place).is_some_and(|flow| flow.is_of(key)) {
            return self.entries.get_mut(place);
        }
        let place = self.search(key, hash, limit, now)?;
        self.entries.get_mut(place)
    }

    /// The entry of a flow that is not at the first place with its tag, or is new.
    #[cold]
    fn search(&mut self, key: &FlowKey, hash: Hash, limit: u32, now: u64) -> Option<usize> {
        let bucket = self.bucket(hash);
        let entries = &self.entries[bucket * WAYS..][..WAYS];
        let tags = self.tags[bucket];
        let mut ways = entries.iter().enumerate();
        let way = match ways.position(|(way, flow)| tags.0[way] == hash.tag() && flow.is_of(key)) {
            Some(way) => way,
            None if self.begun.get(usize::from(key.source())).is_some_and(|begun| *begun >= limit) => return None,
            None => self.insert(bucket, key, hash, now),
        };
        Some(bucket * WAYS + way)
    }

    fn insert(&mut self, bucket: usize, key: &FlowKey, hash: Hash, now: u64) -> usize {
        self.misses += 1;
        let entries = &mut self.entries[bucket * WAYS..][..WAYS];
        let tags = self.tags[bucket];
        let way = tags.0.iter().position(|tag| *tag == 0).unwrap_or_else(|| {
            let way = victim(entries, key.source(), seen_units(now));
            self.evictions += 1;
            self.used -= 1;
            release(&mut self.begun, entries[way].source());
            way
        });
        self.used += 1;
        if let Some(begun) = self.begun.get_mut(usize::from(key.source())) {
            *begun += 1;
        }
        self.tags[bucket].0[way] = hash.tag();
        entries[way] = Flow::new(key, now);
        way
    }

    /// Looks at the next bucket and frees its entries that at `now` (TSC) were unused for more than `idle` ticks, or whose
    /// source `is_gone`. Call it regularly; [`buckets`](Self::buckets) calls go once round the table.
    #[inline]
    pub fn sweep(&mut self, now: u64, idle: u64, is_gone: impl Fn(PortId) -> bool) {
        let bucket = self.sweep;
        self.sweep = (bucket + 1) & (self.tags.len() - 1);
        // Most of a large table is empty, and a daemon at rest is to cost nothing.
        if self.tags[bucket] == Tags::FREE {
            return;
        }
        let (tags, entries) = (&mut self.tags[bucket], &self.entries[bucket * WAYS..][..WAYS]);
        for (way, flow) in entries.iter().enumerate() {
            if tags.0[way] == 0 {
                continue;
            }
            let gone = is_gone(flow.source()) || matches!(flow.verdict, Verdict::App(id) if is_gone(id));
            if gone || flow.idle(now) > idle {
                tags.0[way] = 0;
                self.used -= 1;
                release(&mut self.begun, flow.source());
            }
        }
    }

    /// The flows of the buckets from `from` on, up to `to` or the last one.
    pub fn flows(&self, from: usize, to: usize) -> impl Iterator<Item = &Flow> {
        let to = to.min(self.buckets());
        let range = from.min(to)..to;
        let buckets = self.entries.as_chunks::<WAYS>().0.get(range.clone()).unwrap_or_default();
        let tags = self.tags.get(range).unwrap_or_default();
        tags.iter().zip(buckets).flat_map(|(tags, flows)| {
            let used = flows.iter().enumerate().filter(|(way, _)| tags.0[*way] != 0);
            used.map(|(_, flow)| flow)
        })
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

/// Given where the memory of a table begins and how many bytes it has, before it is touched.
pub type Advise = fn(*const u8, usize);

/// `length` times `value`, in memory of which `advise` is told first.
fn filled<T: Copy>(value: T, length: usize, advise: Advise) -> Box<[T]> {
    let mut values: Vec<T> = Vec::with_capacity(length);
    advise(values.as_ptr().cast(), length * size_of::<T>());
    values.resize(length, value);
    values.into()
}

/// The entry of a full bucket that makes room for a flow from port `source`, at `now` in units of [`SEEN_UNIT`]: of those whose
/// holder would have most, the one unused for longest.
///
/// Who receives what the wire sends is not known before it is evaluated, so such a flow counts for nobody yet.
fn victim(entries: &[Flow], source: PortId, now: u32) -> usize {
    let would_have = |holder| {
        let has = entries.iter().filter(|flow| flow.holder() == holder).count();
        has + usize::from(holder == source)
    };
    let rank = |flow: &Flow| (would_have(flow.holder()), flow.idle_units(now));
    let (way, _) = entries.iter().enumerate().max_by_key(|(_, flow)| rank(flow)).expect("a bucket has entries");
    way
}

/// One flow less for port `source`.
fn release(begun: &mut [u32], source: PortId) {
    if let Some(begun) = begun.get_mut(usize::from(source)) {
        *begun = begun.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests;
