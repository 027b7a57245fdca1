//! What was decided about the first fragment of a packet, for the fragments that follow it.
//!
//! Only the first fragment has ports, so only it can be evaluated. The others take its verdict, if they come after it; those
//! that come before it are for the policy to decide. Each worker has a table of its own, of a fixed size.
//!
//! # Who makes room
//!
//! An application may have all of the table as long as nobody else needs it. In a full table the user who has most makes
//! room, of its applications the one that has most, with its oldest verdict. So of `n` users each has an `n`th of the table
//! whatever the others do, and nobody's packet waits for its fragments in vain because somebody else's are many.
//!
//! What an application has lies in a queue, oldest first; a packet is found by a hash under a secret seed. Verdicts of who has
//! gone are the first to make room. To whom a verdict is charged, the caller says: see
//! [`Connections::charged`](crate::Connections::charged).

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};

use kopi_config::policy::Direction;
use kopi_packet::{FlowKey, Seed};

use crate::connection::{Holder, ZONES};

/// A verdict holds for so many seconds, as long as Linux waits for the rest of a packet (`ipfrag_time`).
pub const HOLD_SECONDS: u64 = 30;

/// What the fragments of one packet have in common at one policy hook.
///
/// # Source
///
/// RFC 791, 3.2 (addresses, protocol, identification) and RFC 8200, 4.5 (addresses and identification: the protocol that
/// an IPv6 fragment names need not be the same in all of them).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FragmentKey([u64; 8]);

impl FragmentKey {
    /// The key of a fragment at the policy hook of `holder`; `id` is what [`fragment_id`](kopi_packet::fragment_id) says of it.
    /// `None` if the frame is not IP.
    #[must_use]
    pub fn of(holder: Holder, direction: Direction, key: &FlowKey, id: u32) -> Option<Self> {
        let (src, dst) = key.src_addr().zip(key.dst_addr())?;
        let proto = if src.is_ipv4() { key.proto() } else { 0 };
        let family = if src.is_ipv4() { 4 } else { 6 };
        let way = u8::from(direction == Direction::Ingress);
        let [z0, z1] = holder.zone().to_be_bytes();
        let [i0, i1, i2, i3] = id.to_be_bytes();
        let vlan = |tag: Option<kopi_packet::VlanTag>| tag.map_or(0, |tag| u64::from(tag.id()));
        let ([s0, s1], [d0, d1]) = (halves(src), halves(dst));
        Some(Self([
            u64::from_be_bytes([z0, z1, way, proto, i0, i1, i2, i3]),
            vlan(key.outer_vlan()) << 32 | vlan(key.inner_vlan()) << 16 | family,
            s0,
            s1,
            d0,
            d1,
            holder.tenure(),
            0,
        ]))
    }
}

fn halves(address: IpAddr) -> [u64; 2] {
    let bits = match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    };
    let [a, b, c, d, e, f, g, h, rest @ ..] = bits.to_be_bytes();
    [u64::from_be_bytes([a, b, c, d, e, f, g, h]), u64::from_be_bytes(rest)]
}

/// Verdicts on packets whose first fragment was seen.
#[derive(Debug)]
pub struct Fragments<T> {
    entries: Box<[Entry<T>]>,
    /// Entries that were ever used since the table was last cleared: the first ones.
    used: u16,
    /// Of each bucket the first entry of its chain.
    buckets: Box<[u16]>,
    /// By zone.
    queues: Box<[Queue]>,
    followed: Arc<Followed>,
    /// Verdicts that each user has.
    accounts: Box<[u16]>,
    /// Above the numbers of all zones and users that were ever seen.
    known: usize,
    /// What the applications that have gone have left.
    left: Queue,
    seed: Seed,
    hold: u64,
}

/// How many verdicts each application has. Whose table it is writes, anybody reads.
#[derive(Debug)]
pub struct Followed(Box<[AtomicU16]>);

impl Followed {
    /// Those of app `zone`.
    #[must_use]
    pub fn in_zone(&self, zone: u16) -> u16 {
        self.0[index(zone)].load(Relaxed)
    }
}

/// No entry.
const NONE: u16 = u16::MAX;

#[derive(Clone, Copy, Debug)]
struct Entry<T> {
    key: FragmentKey,
    /// When the first fragment was seen, in ticks.
    since: u64,
    verdict: Option<T>,
    /// The queue it was put into, and which one of those there were with this number. It lies there, or among what was left.
    queue: (u16, u32),
    /// Neighbours in its queue.
    older: u16,
    newer: u16,
    /// The next one in its bucket's chain.
    next: u16,
}

/// Verdicts of one application, by age.
#[derive(Clone, Copy, Debug)]
struct Queue {
    holder: Holder,
    /// Counts how often the queue was emptied at once; wraps.
    life: u32,
    oldest: u16,
    newest: u16,
    count: u16,
}

impl Queue {
    fn new(holder: Holder, life: u32) -> Self {
        Self { holder, life, oldest: NONE, newest: NONE, count: 0 }
    }
}

impl<T: Copy> Fragments<T> {
    /// A table for `capacity` packets, a power of two of at least 4 and less than 2^16, hashed under `seed`, with a clock of
    /// `hz` ticks a second.
    ///
    /// # Panics
    ///
    /// If `capacity` is anything else.
    #[must_use]
    pub fn new(capacity: usize, seed: Seed, hz: u64) -> Self {
        let fits = capacity.is_power_of_two() && (4..usize::from(NONE)).contains(&capacity);
        assert!(fits, "table of {capacity} fragments");
        let key = FragmentKey([0; 8]);
        let entry = Entry { key, since: 0, verdict: None, queue: (0, 0), older: NONE, newer: NONE, next: NONE };
        Self {
            entries: vec![entry; capacity].into(),
            used: 0,
            buckets: vec![NONE; capacity].into(),
            queues: vec![Queue::new(Holder::default(), 0); ZONES].into(),
            followed: Arc::new(Followed(std::iter::repeat_with(AtomicU16::default).take(ZONES).collect())),
            accounts: vec![0; ZONES].into(),
            known: 0,
            left: Queue::new(Holder::default(), 0),
            seed,
            hold: hz.saturating_mul(HOLD_SECONDS),
        }
    }

    /// Packets that there is room for.
    #[must_use]
    pub const fn capacity(&self) -> usize {
        self.entries.len()
    }

    /// How many of them each application has, for others to read.
    #[must_use]
    pub const fn followed(&self) -> &Arc<Followed> {
        &self.followed
    }

    fn show(&self, zone: usize) {
        self.followed.0[zone].store(self.queues[zone].count, Relaxed);
    }

    /// Remembers what was decided about the first fragment of a packet, instead of what was decided about an earlier packet
    /// with the same key, charged to `holder`.
    pub fn remember(&mut self, key: &FragmentKey, holder: Holder, verdict: T, now: u64) {
        let zone = index(holder.zone());
        if self.queues[zone].holder != holder {
            // Another life of the number.
            self.forget(zone);
            self.queues[zone].holder = holder;
            self.known = self.known.max(zone + 1).max(index(holder.account()) + 1);
        }
        let at = match self.find(key) {
            Some(at) => {
                self.leave_queue(at);
                at
            }
            None => {
                let at = self.room(holder);
                let bucket = self.bucket(key);
                let next = std::mem::replace(&mut self.buckets[bucket], at);
                let entry = &mut self.entries[usize::from(at)];
                (entry.key, entry.next) = (*key, next);
                at
            }
        };
        let entry = &mut self.entries[usize::from(at)];
        (entry.since, entry.verdict) = (now, Some(verdict));
        self.enter_queue(at, zone);
    }

    /// What was decided about the first fragment of the packet, at most [`HOLD_SECONDS`] ago.
    #[must_use]
    pub fn recall(&self, key: &FragmentKey, now: u64) -> Option<T> {
        let entry = &self.entries[usize::from(self.find(key)?)];
        entry.verdict.filter(|_| now.saturating_sub(entry.since) < self.hold)
    }

    /// Forgets everything, as after a change of the policy. Traffic waits meanwhile, so verdicts are not written over.
    pub fn clear(&mut self) {
        self.used = 0;
        self.buckets.fill(NONE);
        self.queues.iter_mut().for_each(|queue| *queue = Queue::new(queue.holder, queue.life));
        (0..self.known).for_each(|zone| self.show(zone));
        self.accounts.fill(0);
        self.left = Queue::new(Holder::default(), 0);
    }

    /// Has the applications make room of which `is_there` says that they have gone. Called when some may have.
    pub fn forget_gone(&mut self, is_there: impl Fn(Holder) -> bool) {
        for zone in 0..self.known {
            let Queue { holder, count, .. } = self.queues[zone];
            if count > 0 && !is_there(holder) {
                self.forget(zone);
            }
        }
    }

    /// Puts all of a queue behind what was left, in a few steps, however much it is. It stays in its chains until its place is
    /// needed.
    fn forget(&mut self, zone: usize) {
        let Queue { holder, life, oldest, newest, count } = self.queues[zone];
        if count == 0 {
            return;
        }
        self.accounts[index(holder.account())] -= count;
        self.queues[zone] = Queue::new(holder, life.wrapping_add(1));
        self.show(zone);
        match self.left.newest {
            NONE => self.left.oldest = oldest,
            last => {
                self.entries[usize::from(last)].newer = oldest;
                self.entries[usize::from(oldest)].older = last;
            }
        }
        self.left.newest = newest;
        self.left.count += count;
    }

    fn bucket(&self, key: &FragmentKey) -> usize {
        let mask = u64::try_from(self.buckets.len() - 1).unwrap_or(0);
        usize::try_from(self.seed.hash(&key.0) & mask).unwrap_or(0)
    }

    fn find(&self, key: &FragmentKey) -> Option<u16> {
        let mut at = self.buckets[self.bucket(key)];
        while at != NONE {
            let entry = &self.entries[usize::from(at)];
            if entry.key == *key {
                return Some(at);
            }
            at = entry.next;
        }
        None
    }

    /// An entry for one more verdict of `holder`, in no queue and no chain.
    fn room(&mut self, holder: Holder) -> u16 {
        if usize::from(self.used) < self.entries.len() {
            self.used += 1;
            return self.used - 1;
        }
        let at = match self.left.oldest {
            NONE => self.queues[self.giver(holder)].oldest,
            at => at,
        };
        self.leave_queue(at);
        self.leave_chain(at);
        at
    }

    /// The application that makes room for `holder` in a full table. Who has as much as the most is the one itself.
    fn giver(&self, holder: Holder) -> usize {
        let (accounts, queues) = (&self.accounts[..self.known], &self.queues[..self.known]);
        let (own, itself) = (index(holder.account()), index(holder.zone()));
        let most = |(at, count): &(usize, &u16)| (**count, *at == own);
        let account = accounts.iter().enumerate().max_by_key(most).map_or(own, |(at, _)| at);
        let of_account = |(_, queue): &(usize, &Queue)| queue.count > 0 && index(queue.holder.account()) == account;
        let most = |(zone, queue): &(usize, &Queue)| (queue.count, *zone == itself);
        queues.iter().enumerate().filter(of_account).max_by_key(most).map_or(itself, |(zone, _)| zone)
    }

    fn enter_queue(&mut self, at: u16, zone: usize) {
        let queue = &mut self.queues[zone];
        let last = std::mem::replace(&mut queue.newest, at);
        queue.count += 1;
        self.accounts[index(queue.holder.account())] += 1;
        let entry = &mut self.entries[usize::from(at)];
        entry.queue = (u16::try_from(zone).unwrap_or(0), queue.life);
        (entry.older, entry.newer) = (last, NONE);
        match last {
            NONE => queue.oldest = at,
            last => self.entries[usize::from(last)].newer = at,
        }
        self.show(zone);
    }

    /// Takes an entry out of its queue, which is that of those who have gone if its holder has.
    fn leave_queue(&mut self, at: u16) {
        let Entry { queue: (zone, life), older, newer, .. } = self.entries[usize::from(at)];
        let own = &mut self.queues[usize::from(zone)];
        let queue = match own.life == life {
            true => {
                self.accounts[index(own.holder.account())] -= 1;
                own
            }
            false => &mut self.left,
        };
        queue.count -= 1;
        match older {
            NONE => queue.oldest = newer,
            older => self.entries[usize::from(older)].newer = newer,
        }
        match newer {
            NONE => queue.newest = older,
            newer => self.entries[usize::from(newer)].older = older,
        }
        self.show(usize::from(zone));
    }

    fn leave_chain(&mut self, at: u16) {
        let Entry { key, next, .. } = self.entries[usize::from(at)];
        let bucket = self.bucket(&key);
        let mut before = self.buckets[bucket];
        if before == at {
            self.buckets[bucket] = next;
            return;
        }
        while before != NONE {
            let entry = &mut self.entries[usize::from(before)];
            if entry.next == at {
                entry.next = next;
                return;
            }
            before = entry.next;
        }
    }
}

/// Where somebody's queue or count is.
fn index(number: u16) -> usize {
    usize::from(number) % ZONES
}

#[cfg(test)]
mod tests;
