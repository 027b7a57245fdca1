//! The memory of one ring inside a region.

use crate::copy::prefetch_read;
use crate::layout::{LINE, RingHeader, RingSpan};
use crate::mapping::Mapping;
use crate::pages::PAGE;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

/// One ring's memory, with its bounds.
#[derive(Debug)]
pub(crate) struct RingMemory {
    pub(crate) header: NonNull<RingHeader>,
    descriptors: *mut u64,
    data: *mut u8,
    stride: usize,
    pub(crate) mask: u32,
    pub(crate) slot_size: u32,
    /// Keeps the memory mapped.
    _mapping: Arc<Mapping>,
}

// SAFETY: the pointers lead into the mapping, which is `Sync` and lives as long as the `Arc`.
unsafe impl Send for RingMemory {}

impl RingMemory {
    #[cfg_attr(
        not(test),
        expect(clippy::expect_used, clippy::arithmetic_side_effects, reason = "set-up; bounded by Geometry")
    )]
    pub(crate) fn new(mapping: Arc<Mapping>, span: &RingSpan) -> Self {
        assert!(span.offset.is_multiple_of(128) && mapping.base.as_ptr().addr().is_multiple_of(PAGE));
        let last = mapping.at(span.offset + span.size() - 1);
        debug_assert!(!last.is_null());
        let header = NonNull::new(mapping.at(span.offset).cast()).expect("a mapping is not at zero");
        Self {
            header,
            descriptors: mapping.at(span.descriptors()).cast(),
            data: mapping.at(span.data()),
            stride: span.stride(),
            mask: span.slots - 1,
            slot_size: span.slot_size,
            _mapping: mapping,
        }
    }

    #[inline]
    pub(crate) fn counters(&self) -> &RingHeader {
        // SAFETY: `new` checked that the ring lies inside the mapping, aligned; a `RingHeader` consists of atomics only,
        // for which any bytes at any time are valid.
        unsafe { self.header.as_ref() }
    }

    /// The descriptor of ring position `position`.
    #[inline]
    pub(crate) fn descriptor(&self, position: u32) -> &AtomicU64 {
        let at = self.descriptors.wrapping_add((position & self.mask) as usize);
        // SAFETY: the mask keeps the index inside the ring, which `new` checked to lie inside the mapping, aligned.
        unsafe { AtomicU64::from_ptr(at) }
    }

    /// The address of the slot of ring position `position`, valid for `slot_size` bytes.
    #[inline]
    pub(crate) fn slot(&self, position: u32) -> *mut u8 {
        self.data.wrapping_add(((position & self.mask) as usize).wrapping_mul(self.stride))
    }

    /// The places of positions from `position` on, at most `most`, as far as they lie one behind the other.
    #[inline]
    pub(crate) fn stretch(&self, position: u32, most: u32) -> Stretch<'_> {
        let index = position & self.mask;
        // At most the size of the ring, and so no less than one.
        let n = most.min(self.mask.wrapping_sub(index).wrapping_add(1)) as usize;
        let first = self.descriptors.wrapping_add(index as usize).cast();
        // SAFETY: `n` descriptors from there on are inside the ring, which `new` checked to lie inside the mapping, aligned. They
        // are atomics, for which any bytes at any time are valid.
        let descriptors = unsafe { std::slice::from_raw_parts(first, n) };
        Stretch { descriptors, slot: self.slot(position), stride: self.stride }
    }
}

/// Places of a ring one behind the other, for loops over many: their addresses are found by addition, and nothing is read again
/// after each frame.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stretch<'ring> {
    /// The descriptors.
    pub(crate) descriptors: &'ring [AtomicU64],
    /// The slot of the first of them, valid for `slot_size` bytes; after [`next_slot`](Self::next_slot), the next one's.
    pub(crate) slot: *mut u8,
    stride: usize,
}

impl Stretch<'_> {
    /// Goes to the next slot, of which there have to be as many as descriptors.
    #[inline]
    pub(crate) const fn next_slot(&mut self) {
        self.slot = self.slot.wrapping_add(self.stride);
    }

    /// Where the slot lies that is `slots` further on, for a hint: behind the end of the ring there is none.
    #[inline]
    pub(crate) const fn ahead(&self, slots: u32) -> *const u8 {
        self.slot.wrapping_add((slots as usize).wrapping_mul(self.stride))
    }

    /// Prefetches `len` bytes, at least one line, of the slot that lies `slots` further on. Behind the end of the ring there is
    /// none, and the hint is lost.
    #[inline]
    pub(crate) fn prefetch_ahead(&self, slots: u32, len: usize) {
        let ahead = self.slot.wrapping_add((slots as usize).wrapping_mul(self.stride));
        prefetch_read(ahead);
        let mut at = LINE;
        while at < len {
            prefetch_read(ahead.wrapping_add(at));
            at = at.wrapping_add(LINE);
        }
    }
}
