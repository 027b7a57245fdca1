//! What a flow table keeps of a connection: which one it is, and in which version.

use std::num::NonZeroU64;

use super::entry::Slot;

/// A connection of the table, for as long as it is there. Small enough to be kept with each flow.
///
/// The generation and the tag tell a connection from others that had its place before: from all but one in 2^24. So a
/// reference that is not looked at while its place changes hands 65,536 times may come to stand for another connection.
///
/// ```text
/// 63  56    48           32              0
/// | 1 | tag | generation |  place: index  |
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ref(NonZeroU64);

impl Ref {
    pub(super) fn new(index: usize, slot: Slot) -> Option<Self> {
        let place = u64::from(u32::try_from(index).ok()?);
        let word = 1 << 63 | u64::from(slot.tag) << 48 | u64::from(slot.generation) << 32 | place;
        NonZeroU64::new(word).map(Self)
    }

    /// The reference as a number that is not zero.
    #[must_use]
    pub const fn to_u64(self) -> u64 {
        self.0.get()
    }

    /// The reference that was made into `word`; `None` if none was.
    #[must_use]
    pub const fn from_u64(word: u64) -> Option<Self> {
        match NonZeroU64::new(word) {
            Some(word) if word.get() >> 63 != 0 => Some(Self(word)),
            _ => None,
        }
    }

    pub(super) fn index(self) -> usize {
        let [a, b, c, d, ..] = self.0.get().to_le_bytes();
        usize::try_from(u32::from_le_bytes([a, b, c, d])).unwrap_or(usize::MAX)
    }

    pub(super) fn is_of(self, slot: Slot) -> bool {
        let [_, _, _, _, g0, g1, tag, _] = self.0.get().to_le_bytes();
        slot.generation == u16::from_le_bytes([g0, g1]) && slot.tag == tag
    }
}

/// A version of a connection: everything about it but when its last packet was seen.
///
/// As long as it [holds](super::Connections::holds), a plain packet is what the packet before it was. Small enough to be kept with
/// each flow, and cheap enough to be asked about for each.
///
/// ```text
/// 63         48     40      36      32              0
/// | generation | tag | flags | state | place: index  |
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CtVersion(NonZeroU64);

impl CtVersion {
    pub(super) fn new(of: Ref, word: u64) -> Option<Self> {
        NonZeroU64::new(word & VERSION | of.0.get() & !VERSION).map(Self)
    }

    /// The connection.
    #[must_use]
    pub fn connection(self) -> Option<Ref> {
        let [a, b, c, d, _, tag, g0, g1] = self.0.get().to_le_bytes();
        NonZeroU64::new(u64::from_le_bytes([a, b, c, d, g0, g1, tag, 1 << 7])).map(Ref)
    }

    pub(super) fn index(self) -> usize {
        usize::try_from(self.0.get() & !VERSION).unwrap_or(usize::MAX)
    }

    /// Whether the slot at its place, which is `word`, is of this version.
    pub(super) fn is_of(self, word: u64) -> bool {
        (word ^ self.0.get()) & VERSION == 0
    }
}

/// The half of a slot that says everything but when the last packet was seen.
pub(super) const VERSION: u64 = 0xffff_ffff_0000_0000;
