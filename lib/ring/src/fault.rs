//! What a peer can do wrong in shared memory.

use thiserror::Error;

/// The peer broke the contract of a ring. The ring is unusable from then on; the daemon detaches the app, the client
/// takes the link down and attaches again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PeerFault {
    /// The producer's index moved further than the ring has free slots, or backwards.
    #[error("ring head moved by {moved} slots, only {room} were free")]
    HeadJump {
        /// Slots by which the index moved since it was last looked at, modulo 2^32.
        moved: u32,
        /// Slots by which it was allowed to move.
        room: u32,
    },
    /// The consumer's index moved further than there were filled slots, or backwards.
    #[error("ring tail moved by {moved} slots, only {filled} were filled")]
    TailJump {
        /// Slots by which the index moved since it was last looked at, modulo 2^32.
        moved: u32,
        /// Slots by which it was allowed to move.
        filled: u32,
    },
    /// A descriptor claims zero bytes or more than a slot holds.
    #[error("descriptor length {length}, a slot holds 1 to {slot_size} bytes")]
    Length {
        /// The claimed length in bytes.
        length: u16,
        /// Bytes in one slot.
        slot_size: u32,
    },
    /// A descriptor has bits set that this side does not know.
    #[error("reserved descriptor bits {bits:#x} are set")]
    Reserved {
        /// The bits that should have been zero.
        bits: u64,
    },
    /// A chain has not ended where the published slots end, or is longer than the largest frame.
    #[error("frame chain of {slots} slots has no end")]
    Chain {
        /// Slots looked at before giving up.
        slots: u32,
    },
    /// A descriptor refers to memory that is not shared.
    #[error("a frame refers to memory at {at:#x} of the window, which is not shared")]
    Reference {
        /// Where in the window the rest of it is said to lie.
        at: u64,
    },
    /// A page of the region was taken away under us, as `fallocate` with `PUNCH_HOLE` does.
    #[error("a page of the shared region was punched out")]
    Page,
}
