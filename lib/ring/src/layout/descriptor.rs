//! What stands for a frame in a ring: how long it is, where it lies, and what the daemon knows about it.

use super::{HEAD, WINDOW_BITS};

/// A descriptor: what lies in the slot of the same position.
///
/// ```text
/// bits  0..16  bytes in this slot, 1 to slot_size; with bit 17, bytes of the frame
/// bit   16     the frame goes on in the next slot
/// bit   17     TX: a reference; only the first HEAD bytes of the frame lie in the slot
/// bits 20..32  RX: packet type, the L2, L3 and L4 nibbles of `RTE_PTYPE_*`; TX: zero
/// bit   31     RX: the frame is steered
/// bits 32..64  RX: flow hash of the frame; TX: zero
/// bits 32..48  RX, steered: number of the flow rule that has held for the frame, or all ones
/// bits 48..56  RX, steered: the queue that it goes to
/// bits 20..64  of a reference: where in the window the bytes behind those lie
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptor(pub u64);

impl Descriptor {
    /// The frame goes on in the next slot.
    pub const MORE: u64 = 1 << 16;
    /// Only the head of the frame lies in the slot; the rest lies in the client's own memory, in its [window](super::WindowLayout).
    pub const REFERENCE: u64 = 1 << 17;
    /// Bits that no side may set.
    const UNUSED: u64 = 0xe << 16;
    /// The same of a reference.
    const UNUSED_OF_REFERENCE: u64 = 0xd << 16;
    /// Bits that carry the daemon's notes about a received frame.
    const NOTES: u64 = !0 << 20;
    /// All bits but those: of a frame in one slot that has notes, only its length is left.
    pub(crate) const BARE: u64 = !Self::NOTES;

    /// A descriptor for `length` bytes with `notes` (see [`Notes`]), which goes on in the next slot if `more`.
    #[inline]
    #[must_use]
    pub const fn new(length: u16, more: bool, notes: Notes) -> Self {
        let more = if more { Self::MORE } else { 0 };
        Self(length as u64 | more | notes.0)
    }

    /// A descriptor for a frame of `length` bytes, more than [`HEAD`] of them, whose others lie `at` bytes into the window. `None` if
    /// no descriptor can say so.
    #[inline]
    #[must_use]
    pub const fn reference(length: u16, at: u64) -> Option<Self> {
        if length <= HEAD || at >> WINDOW_BITS != 0 {
            return None;
        }
        Some(Self(length as u64 | Self::REFERENCE | at << 20))
    }

    /// Where in the window the bytes behind the head lie, if this is a reference. It may say so of any place.
    #[inline]
    #[must_use]
    pub const fn referred(self) -> Option<u64> {
        if self.0 & Self::REFERENCE != 0 { Some(self.0 >> 20) } else { None }
    }

    /// Bytes in the slot; of a reference, bytes of the frame.
    #[inline]
    #[must_use]
    pub const fn length(self) -> u16 {
        let [a, b, ..] = self.0.to_le_bytes();
        u16::from_le_bytes([a, b])
    }

    /// Whether the frame goes on in the next slot.
    #[inline]
    #[must_use]
    pub const fn more(self) -> bool {
        self.0 & Self::MORE != 0
    }

    /// Bits that must be zero; `notes` says whether this direction carries notes.
    #[inline]
    #[must_use]
    pub const fn reserved(self, notes: bool) -> u64 {
        self.0 & if notes { Self::UNUSED } else { Self::UNUSED | Self::NOTES }
    }

    /// The same of a reference.
    #[inline]
    #[must_use]
    pub const fn reserved_of_reference(self) -> u64 {
        self.0 & Self::UNUSED_OF_REFERENCE
    }

    /// The daemon's notes.
    #[inline]
    #[must_use]
    pub const fn notes(self) -> Notes {
        Notes(self.0 & Self::NOTES)
    }
}

/// What the daemon knows about a received frame, so that the app need not work it out again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Notes(u64);

impl Notes {
    /// No notes, as on every TX descriptor.
    pub const NONE: Self = Self(0);

    /// `packet_type` is the low 12 bits of an `RTE_PTYPE_*` combination, `hash` the frame's flow hash.
    #[inline]
    #[must_use]
    pub const fn new(packet_type: u16, hash: u32) -> Self {
        Self((packet_type as u64 & 0xfff) << 20 | (hash as u64) << 32)
    }

    /// The L2, L3 and L4 nibbles of `RTE_PTYPE_*`.
    #[inline]
    #[must_use]
    pub const fn packet_type(self) -> u32 {
        (self.0 >> 20 & 0xfff) as u32
    }

    /// The same with another hash.
    #[inline]
    #[must_use]
    pub const fn with_hash(self, hash: u32) -> Self {
        Self(self.0 & 0xffff_ffff | (hash as u64) << 32)
    }

    /// The flow hash; something else if the frame is [steered](Self::is_steered).
    #[inline]
    #[must_use]
    pub const fn hash(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// The highest bit of the L4 nibble, which no packet type here has: a flow rule has held for the frame, and where the hash would be
    /// stands which one.
    pub const STEERED: u16 = 0x800;
    /// Stands for no rule: the client need not know of it.
    pub const NOT_TOLD: u16 = u16::MAX;

    /// The notes of a frame for which flow rule `slot` has held, and which goes to RX queue `queue`. The slot is
    /// [`NOT_TOLD`](Self::NOT_TOLD) unless the rule is to be told of.
    #[inline]
    #[must_use]
    pub const fn steered(packet_type: u16, slot: u16, queue: u8) -> Self {
        Self::new(packet_type | Self::STEERED, slot as u32 | (queue as u32) << 16)
    }

    /// Whether a flow rule has held for the frame.
    #[inline]
    #[must_use]
    pub const fn is_steered(self) -> bool {
        self.packet_type() & Self::STEERED as u32 != 0
    }

    /// The flow rule of a frame that is [steered](Self::is_steered), or [`NOT_TOLD`](Self::NOT_TOLD).
    #[inline]
    #[must_use]
    pub const fn slot(self) -> u16 {
        let [.., a, b, _, _] = self.0.to_le_bytes();
        u16::from_le_bytes([a, b])
    }

    /// The RX queue of a frame that is [steered](Self::is_steered).
    #[inline]
    #[must_use]
    pub const fn queue(self) -> u8 {
        let [.., queue, _] = self.0.to_le_bytes();
        queue
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::MAX_WINDOW;

    /// Every field of a descriptor comes back as it went in, and reserved bits are seen in the direction they matter.
    #[test]
    fn descriptor_keeps_its_fields() {
        let d = Descriptor::new(1518, true, Notes::new(0x211, 0xdead_beef));
        assert_eq!((d.length(), d.more()), (1518, true));
        assert_eq!((d.notes().packet_type(), d.notes().hash()), (0x211, 0xdead_beef));
        let other = d.notes().with_hash(7);
        assert_eq!((other.packet_type(), other.hash()), (0x211, 7));
        assert_eq!(d.reserved(true), 0);
        assert_ne!(d.reserved(false), 0);
        for bit in 17..20 {
            assert_ne!(Descriptor(64 | 1 << bit).reserved(true), 0);
        }
    }

    /// A rule's number and a queue come back as they went in, beside the packet type, and no other notes have them.
    #[test]
    fn steered_notes_keep_their_fields() {
        for (slot, queue) in [(0, 0), (255, 15), (Notes::NOT_TOLD, 7)] {
            let notes = Descriptor::new(64, false, Notes::steered(0x211, slot, queue)).notes();
            assert!(notes.is_steered());
            assert_eq!((notes.slot(), notes.queue()), (slot, queue));
            assert_eq!(notes.packet_type() & !u32::from(Notes::STEERED), 0x211);
            assert_eq!(notes.hash() & 0xffff, slot.into());
        }
        assert!(!Notes::new(0x7ff, u32::MAX).is_steered());
    }

    /// A reference says how long the frame is and where the rest of it lies, up to the ends of what it can say.
    #[test]
    fn reference_keeps_its_fields() {
        for (length, at) in [(129, 0), (1518, 4096), (9022, (1 << WINDOW_BITS) - 1), (u16::MAX, MAX_WINDOW)] {
            let d = Descriptor::reference(length, at).unwrap();
            assert_eq!((d.length(), d.referred(), d.more()), (length, Some(at), false));
        }
        assert_eq!(Descriptor::reference(HEAD, 0), None);
        assert_eq!(Descriptor::reference(200, 1 << WINDOW_BITS), None);
        assert_eq!(Descriptor::new(1518, false, Notes::NONE).referred(), None);
    }
}
