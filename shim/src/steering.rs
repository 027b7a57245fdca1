//! What RX queues do with frames for which a flow rule has held: marks, counts, and drops what is to be counted before.
//!
//! The daemon says of each such frame which rule it was, in place of the hash. Queues look that up in a table that the operations on
//! flow rules write. A port that never had a rule that queues have to know of pays nothing: see [`crate::rx`].

use crate::sys;
use crate::sys::rte_mbuf;
use kopi_ring::Counter;
use kopi_ring::layout::{MAX_QUEUES, Notes};
use kopi_ring::message::MAX_FLOW_RULES;
use std::mem::MaybeUninit;
use std::sync::atomic::Ordering::{Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU64};

/// The bit of a packet type that the daemon sets in frames for which a rule has held.
const STEERED: u32 = Notes::STEERED as u32;

/// What becomes of the frames of one rule in the driver, as one word. The low half is the mark.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Telling(u64);

impl Telling {
    const COUNT: u64 = 1 << 63;
    const FLAG: u64 = 1 << 62;
    const MARK: u64 = 1 << 61;
    const DROP: u64 = 1 << 60;

    /// Frames are counted.
    pub(crate) const fn count(self) -> Self {
        Self(self.0 | Self::COUNT)
    }

    /// Packets say that a rule has held.
    pub(crate) const fn flag(self) -> Self {
        Self(self.0 | Self::FLAG)
    }

    /// Packets carry `id`.
    pub(crate) const fn mark(self, id: u32) -> Self {
        Self(self.0 & !0xffff_ffff | Self::FLAG | Self::MARK | id as u64)
    }

    /// Frames are dropped here.
    pub(crate) const fn drop(self) -> Self {
        Self(self.0 | Self::DROP)
    }

    /// Whether frames are counted.
    pub(crate) const fn counts(self) -> bool {
        self.0 & Self::COUNT != 0
    }

    /// Whether queues have to know of frames of the rule at all.
    pub(crate) const fn is_needed(self) -> bool {
        self.0 != 0
    }
}

/// Frames and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Hits<T = u64> {
    pub(crate) frames: T,
    pub(crate) bytes: T,
}

impl Hits {
    /// What came after `base`.
    pub(crate) const fn since(self, base: Self) -> Self {
        Self { frames: self.frames.wrapping_sub(base.frames), bytes: self.bytes.wrapping_sub(base.bytes) }
    }
}

/// What the RX queues of a port share with its operations on flow rules.
#[derive(Debug)]
pub(crate) struct Steering {
    /// Whether frames may have been steered since the port was last started.
    active: AtomicBool,
    /// By number of the rule.
    tellings: Box<[AtomicU64]>,
    /// By queue.
    queues: Box<[QueueHits]>,
}

/// What one queue has counted, by number of the rule. Written by the core that polls the queue; goes on when a number is used again.
#[derive(Debug)]
#[repr(C, align(128))]
struct QueueHits {
    rules: Box<[Hits<Counter>]>,
    dropped: Counter,
}

impl Default for Steering {
    fn default() -> Self {
        let rules = usize::from(MAX_FLOW_RULES);
        let queue = |_| QueueHits {
            rules: std::iter::repeat_with(Hits::default).take(rules).collect(),
            dropped: Counter::default(),
        };
        Self {
            active: AtomicBool::new(false),
            tellings: std::iter::repeat_with(AtomicU64::default).take(rules).collect(),
            queues: (0..MAX_QUEUES).map(queue).collect(),
        }
    }
}

impl Steering {
    /// Sets what becomes of frames of rule `slot`.
    pub(crate) fn set(&self, slot: u16, telling: Telling) {
        if let Some(place) = self.tellings.get(usize::from(slot)) {
            place.store(telling.0, Relaxed);
        }
    }

    /// Says whether there are frames that were steered. The queues learn of it when they look again.
    pub(crate) fn set_active(&self, active: bool) {
        self.active.store(active, Release);
    }

    /// Whether there may be frames that were steered.
    pub(crate) fn is_active(&self) -> bool {
        self.active.load(Relaxed)
    }

    /// What all queues have counted under `slot`.
    pub(crate) fn hits(&self, slot: u16) -> Hits {
        let rules = self.queues.iter().filter_map(|queue| queue.rules.get(usize::from(slot)));
        rules.fold(Hits::default(), |sum, hits| Hits {
            frames: sum.frames.wrapping_add(hits.frames.get()),
            bytes: sum.bytes.wrapping_add(hits.bytes.get()),
        })
    }

    /// Frames that all queues have dropped for rules.
    pub(crate) fn dropped(&self) -> u64 {
        self.queues.iter().fold(0, |sum, queue| sum.wrapping_add(queue.dropped.get()))
    }

    /// Does with the first `count` of `packets` what the rules say, and returns how many are left at their front. Queue `queue` has just
    /// received them.
    ///
    /// # Safety
    ///
    /// They are packets, and the caller's alone.
    pub(crate) unsafe fn apply(&self, queue: usize, packets: &mut [MaybeUninit<*mut rte_mbuf>], count: u16) -> u16 {
        let mut left = 0_u16;
        for at in 0..usize::from(count) {
            let Some(place) = packets.get(at) else { break };
            // SAFETY: by the caller's word.
            let packet = unsafe { place.assume_init() };
            // SAFETY: as above.
            let mbuf = unsafe { &mut *packet };
            if mbuf.packet_type & STEERED != 0 && !self.steer(queue, mbuf) {
                // SAFETY: a whole packet, which nobody else has.
                unsafe { sys::kopi_pktmbuf_free(packet) };
                continue;
            }
            if let Some(to) = packets.get_mut(usize::from(left)) {
                to.write(packet);
                left = left.saturating_add(1);
            }
        }
        left
    }

    /// The same with one packet for which a rule has held. Returns whether the application gets it.
    fn steer(&self, queue: usize, mbuf: &mut rte_mbuf) -> bool {
        let slot = usize::from(slot_of(mbuf.hash));
        mbuf.packet_type &= !STEERED;
        mbuf.ol_flags &= !sys::RTE_MBUF_F_RX_RSS_HASH;
        mbuf.hash = [0; 2];
        // A rule that there is no more, or that is not told.
        let Some(telling) = self.tellings.get(slot).map(|telling| telling.load(Relaxed)) else { return true };
        let counters = self.queues.get(queue);
        if telling & Telling::COUNT != 0
            && let Some(hits) = counters.and_then(|queue| queue.rules.get(slot))
        {
            hits.frames.add(1);
            hits.bytes.add(mbuf.pkt_len.into());
        }
        if telling & Telling::DROP != 0 {
            counters.iter().for_each(|queue| queue.dropped.add(1));
            return false;
        }
        if telling & Telling::FLAG != 0 {
            mbuf.ol_flags |= sys::RTE_MBUF_F_RX_FDIR;
        }
        if telling & Telling::MARK != 0 {
            mbuf.ol_flags |= sys::RTE_MBUF_F_RX_FDIR_ID;
            // `hash.fdir.hi` of DPDK.
            mbuf.hash = [0, mark_of(telling)];
        }
        true
    }
}

/// The rule's number, in the low half of where the hash would be.
const fn slot_of([hash, _]: [u32; 2]) -> u16 {
    let [a, b, ..] = hash.to_le_bytes();
    u16::from_le_bytes([a, b])
}

const fn mark_of(telling: u64) -> u32 {
    let [a, b, c, d, ..] = telling.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{Pool, TestEal};

    /// A packet of `len` bytes as a queue has received it: steered by rule `slot`, or with a hash.
    fn packet(pool: &Pool, len: usize, slot: Option<u16>) -> MaybeUninit<*mut rte_mbuf> {
        let packet = pool.packet(&[&vec![0; len]]);
        let notes = slot.map_or(Notes::new(0x211, 0xfeed), |slot| Notes::steered(0x211, slot, 3));
        // SAFETY: a packet of ours.
        let mbuf = unsafe { &mut *packet };
        (mbuf.packet_type, mbuf.hash) = (notes.packet_type(), [notes.hash(), 0]);
        mbuf.ol_flags = sys::RTE_MBUF_F_RX_RSS_HASH;
        MaybeUninit::new(packet)
    }

    /// What the application finds in packets: flags, and both halves of the hash.
    fn found(packets: &[MaybeUninit<*mut rte_mbuf>]) -> Vec<(u64, [u32; 2])> {
        let look = |packet: &MaybeUninit<*mut rte_mbuf>| {
            // SAFETY: it was written.
            let packet = unsafe { packet.assume_init() };
            // SAFETY: a packet of ours.
            let mbuf = unsafe { &*packet };
            assert_eq!(mbuf.packet_type, 0x211);
            let found = (mbuf.ol_flags, mbuf.hash);
            // SAFETY: as above.
            unsafe { sys::kopi_pktmbuf_free(packet) };
            found
        };
        packets.iter().map(look).collect()
    }

    /// Packets are marked, flagged, counted and dropped as their rules say; those without a rule stay as they are, in their order.
    #[test]
    fn packets_are_steered_as_their_rules_say() {
        let eal = TestEal::new();
        let pool = eal.pool(63, 512);
        let steering = Steering::default();
        steering.set(0, Telling::default().mark(0xdead_beef).count());
        steering.set(1, Telling::default().flag());
        steering.set(2, Telling::default().drop().count());
        steering.set(255, Telling::default().mark(7));
        let slots =
            [None, Some(0), Some(2), Some(1), None, Some(2), Some(255), Some(9), Some(Notes::NOT_TOLD), Some(300)];
        let mut packets: Vec<_> = slots.iter().enumerate().map(|(n, slot)| packet(&pool, 60 + n, *slot)).collect();
        // SAFETY: packets of ours.
        let left = unsafe { steering.apply(3, &mut packets, 10) };
        assert_eq!(left, 8);
        let (hashed, flag, id) = (sys::RTE_MBUF_F_RX_RSS_HASH, sys::RTE_MBUF_F_RX_FDIR, sys::RTE_MBUF_F_RX_FDIR_ID);
        let expected = [
            (hashed, [0xfeed, 0]),
            (flag | id, [0, 0xdead_beef]),
            (flag, [0, 0]),
            (hashed, [0xfeed, 0]),
            (flag | id, [0, 7]),
            (0, [0, 0]),
            (0, [0, 0]),
            (0, [0, 0]),
        ];
        assert_eq!(found(&packets[..8]), expected);
        assert_eq!(steering.hits(0), Hits { frames: 1, bytes: 61 });
        assert_eq!(steering.hits(2), Hits { frames: 2, bytes: 62 + 65 });
        assert_eq!((steering.hits(1), steering.hits(255), steering.dropped()), (Hits::default(), Hits::default(), 2));
        assert_eq!(pool.used(), 0);
    }

    /// Counts are over all queues, and each queue has its own.
    #[test]
    fn hits_of_all_queues_add_up() {
        let eal = TestEal::new();
        let pool = eal.pool(63, 512);
        let steering = Steering::default();
        steering.set(4, Telling::default().count());
        for queue in [0, 15, 15, 16] {
            let mut packets = [packet(&pool, 100, Some(4))];
            // SAFETY: a packet of ours.
            assert_eq!(unsafe { steering.apply(queue, &mut packets, 1) }, 1);
            found(&packets);
        }
        assert_eq!(steering.hits(4), Hits { frames: 3, bytes: 300 });
        assert_eq!(steering.hits(4).since(Hits { frames: 1, bytes: 100 }), Hits { frames: 2, bytes: 200 });
    }
}
