//! How a connection lies in memory: a slot of one word, which changes, and an entry of one cache line, which does not.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU64, fence};

use kopi_config::policy::Direction;

use super::timeouts::Units;
use crate::tcp::TcpState;

/// Connections in a bucket: their slots fill one cache line.
pub(crate) const WAYS: usize = 8;

/// Everything about a connection that changes, in one word, so that it changes as a whole.
///
/// ```text
/// 63         48     40      36      32              0
/// | generation | tag | flags | state | last seen     |   a free slot is 0
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    /// When its last packet was seen.
    pub(crate) seen: Units,
    pub(crate) tcp_state: TcpState,
    /// Whether there were packets in both directions.
    pub(crate) answered: bool,
    /// Whether the originator has shown that it got an answer: it is not made up by one side, and is not evicted.
    pub(crate) assured: bool,
    /// Which way its first packet went.
    pub(crate) begun: Direction,
    /// Whether its window is known from the first SYN on.
    pub(crate) windowed: bool,
    /// Bits of the hash that the bucket does not tell.
    pub(crate) tag: u8,
    /// Counts how often the place was used anew; wraps.
    pub(crate) generation: u16,
}

const ANSWERED: u8 = 1;
const ASSURED: u8 = 2;
const INGRESS: u8 = 4;
const WINDOWED: u8 = 8;
/// Bits by which a slot is still that of the same connection.
const IDENTITY: u64 = 0xffff_ff00_0000_0000;

impl Slot {
    pub(crate) fn to_word(self) -> u64 {
        let bit = |set: bool, bit: u8| if set { bit } else { 0 };
        let flags = bit(self.answered, ANSWERED)
            | bit(self.assured, ASSURED)
            | bit(self.begun == Direction::Ingress, INGRESS)
            | bit(self.windowed, WINDOWED);
        let [s0, s1, s2, s3] = self.seen.to_le_bytes();
        let [g0, g1] = self.generation.to_le_bytes();
        u64::from_le_bytes([s0, s1, s2, s3, flags << 4 | self.tcp_state as u8, self.tag, g0, g1])
    }

    /// Whether a slot that is `word` may have this tag: cheaper than to take it apart. A free slot has the tag 0.
    #[inline]
    pub(crate) const fn has_tag(word: u64, tag: u8) -> bool {
        word.to_le_bytes()[5] == tag
    }

    /// `None` for a free slot.
    pub(crate) fn from_word(word: u64) -> Option<Self> {
        let [s0, s1, s2, s3, low, tag, g0, g1] = word.to_le_bytes();
        let tcp_state = *TcpState::ALL.get(usize::from(low & 0x0f).checked_sub(1)?)?;
        let flags = low >> 4;
        Some(Self {
            seen: Units::from_le_bytes([s0, s1, s2, s3]),
            tcp_state,
            answered: flags & ANSWERED != 0,
            assured: flags & ASSURED != 0,
            begun: if flags & INGRESS != 0 { Direction::Ingress } else { Direction::Egress },
            windowed: flags & WINDOWED != 0,
            tag,
            generation: u16::from_le_bytes([g0, g1]),
        })
    }
}

/// The slots of one bucket, in one cache line.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(crate) struct Bucket(pub(crate) [AtomicU64; WAYS]);

/// What is compared in a lookup: the tuple's six words, with the life of the zone in the low half of the second.
pub(crate) type Key = [u64; 6];

/// The part of a connection that stays as it is while the connection lives.
///
/// It is only written while its slot is free, and only by who holds the bucket's lock. Readers go by the slot: if that
/// has not changed its identity while they read, what they have read belongs together (a sequence lock; H. Boehm, "Can
/// Seqlocks Get Along With Programming Language Memory Models?", 2012).
#[derive(Debug, Default)]
#[repr(align(64))]
pub(crate) struct Entry {
    key: [AtomicU64; 6],
    /// When it began, in the low half; above it the generation that the place was last used in.
    begun: AtomicU64,
    /// The [`Claim`](super::numbers::Claim) that a segment has made, or 0. Unlike the rest it changes while the connection
    /// lives, though rarely, and nobody relies on it: it says what to look for.
    claim: AtomicU64,
}

// One line for the slots of a bucket, one for each connection in it: what a lookup pays for.
const _: () = assert!(size_of::<Bucket>() == 64 && size_of::<Entry>() == 64);

impl Entry {
    /// The key and when the connection began, if the slot `at`, from which `word` was read before, is still that of the
    /// same connection.
    pub(crate) fn read(&self, at: &AtomicU64, word: u64) -> Option<(Key, Units)> {
        let key = self.key.each_ref().map(|word| word.load(Relaxed));
        let [b0, b1, b2, b3, ..] = self.begun.load(Relaxed).to_le_bytes();
        // The loads above come before the one below.
        fence(Acquire);
        let same = (at.load(Relaxed) ^ word) & IDENTITY == 0;
        same.then_some((key, Units::from_le_bytes([b0, b1, b2, b3])))
    }

    /// The generation that the next connection at this place has.
    pub(crate) fn next_generation(&self) -> u16 {
        let [_, _, _, _, g0, g1, ..] = self.begun.load(Relaxed).to_le_bytes();
        u16::from_le_bytes([g0, g1]).wrapping_add(1)
    }

    /// Writes a connection to its place. The slot is free, and nobody else is writing here.
    pub(crate) fn write(&self, key: &Key, began: Units, generation: u16) {
        // Whoever reads one of the words below also finds the slot changed.
        fence(Release);
        for (to, from) in self.key.iter().zip(key) {
            to.store(*from, Relaxed);
        }
        self.begun.store(u64::from(generation) << 32 | u64::from(began), Relaxed);
        self.claim.store(0, Relaxed);
    }

    pub(crate) fn claim(&self) -> u64 {
        self.claim.load(Relaxed)
    }

    pub(crate) fn set_claim(&self, claim: u64) {
        self.claim.store(claim, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_slot_is_read_as_it_was_written() {
        for tcp_state in TcpState::ALL {
            for flags in 0_u8..16 {
                let set = |bit: u8| flags & bit != 0;
                let slot = Slot {
                    seen: 0x1234_5678,
                    tcp_state,
                    answered: set(1),
                    assured: set(2),
                    begun: if set(4) { Direction::Ingress } else { Direction::Egress },
                    windowed: set(8),
                    tag: 0xab,
                    generation: 0xcdef,
                };
                assert_eq!(Slot::from_word(slot.to_word()), Some(slot));
                assert!(Slot::has_tag(slot.to_word(), 0xab) && !Slot::has_tag(slot.to_word(), 0xaa));
                assert_eq!(slot.to_word() & IDENTITY, 0xcdef_ab00_0000_0000);
            }
        }
        assert_eq!(Slot::from_word(0), None);
    }
}
