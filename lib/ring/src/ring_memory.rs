//! The memory of one ring inside a region.

use crate::copy::prefetch_read;
use crate::layout::{LINE, RingHeader, RingSpan};
use crate::mapping::Mapping;
use crate::pages::PAGE;
use std::ptr::NonNull;
use std::sync::Arc;

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
    pub(crate) fn descriptor(&self, position: u32) -> &std::sync::atomic::AtomicU64 {
        let at = self.descriptors.wrapping_add((position & self.mask) as usize);
        // SAFETY: the mask keeps the index inside the ring, which `new` checked to lie inside the mapping, aligned.
        unsafe { std::sync::atomic::AtomicU64::from_ptr(at) }
    }

    /// The address of the slot of ring position `position`, valid for `slot_size` bytes.
    #[inline]
    pub(crate) fn slot(&self, position: u32) -> *mut u8 {
        self.slots().at(position)
    }

    /// Where the slots lie: a copy for loops over many slots, which need not be read again after each frame.
    #[inline]
    pub(crate) const fn slots(&self) -> SlotPlaces {
        SlotPlaces { data: self.data, stride: self.stride, mask: self.mask }
    }
}

/// Where the slots of a ring lie.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SlotPlaces {
    data: *mut u8,
    stride: usize,
    mask: u32,
}

impl SlotPlaces {
    /// The address of the slot of ring position `position`, valid for `slot_size` bytes.
    #[inline]
    pub(crate) const fn at(self, position: u32) -> *mut u8 {
        self.data.wrapping_add(((position & self.mask) as usize).wrapping_mul(self.stride))
    }

    /// Prefetches `len` bytes, at least one line, of the slot that lies `slots` behind that at `slot`. Behind the last one there is
    /// none, and the hint is lost.
    #[inline]
    pub(crate) fn prefetch_behind(self, slot: *const u8, slots: u32, len: usize) {
        let ahead = slot.wrapping_add((slots as usize).wrapping_mul(self.stride));
        prefetch_read(ahead);
        let mut at = LINE;
        while at < len {
            prefetch_read(ahead.wrapping_add(at));
            at = at.wrapping_add(LINE);
        }
    }
}
