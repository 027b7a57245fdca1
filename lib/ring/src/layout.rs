//! Where everything lies in a region.
//!
//! ```text
//! 0        header page: magic, version, geometry, status (see `status`), futex (see `wake_futex`)
//! 4096     ring 0, ring 1, … : TX rings by queue number, then RX rings by queue number, each queue's by lane
//!
//! a ring:  +0    head, the producer's counter, alone on its pair of cache lines
//!          +128  tail, the consumer's counter, likewise
//!          +256  need_wakeup, set by a consumer that sleeps, likewise
//!          +384  descriptors, 8 bytes for each slot
//!          +…    slots, `slot_size` bytes each, one cache line apart from the next
//! ```
//!
//! The spare line between slots makes the distance between them an odd number of cache lines, so that the first lines
//! of all slots spread over every set of a cache instead of a few ("colouring"). On the processor measured this makes no
//! difference (`bench/results`, question `colour`); it is kept for those with fewer ways. TX and RX are named from the
//! app's side.

mod descriptor;

use std::mem::offset_of;
use std::sync::atomic::{AtomicU32, AtomicU64};
use thiserror::Error;

pub use descriptor::{Descriptor, Notes};

/// "kopiring" in little-endian ASCII, at offset 0 of every region.
pub const MAGIC: u64 = u64::from_le_bytes(*b"kopiring");
/// Bytes before the first ring.
pub const HEADER_SIZE: usize = 4096;
/// Most queues in each direction.
pub const MAX_QUEUES: usize = 16;
/// Fewest slots in a ring.
pub const MIN_RING: u32 = 64;
/// Most slots in a ring.
pub const MAX_RING: u32 = 8192;
/// Smallest slot, in bytes.
pub const MIN_SLOT: u32 = 256;
/// Largest slot, in bytes.
pub const MAX_SLOT: u32 = 16384;
/// The slot size that a client gets unless it asks for another: a frame of a 1,500-byte MTU fits in one.
///
/// Measured (`bench/results`, question `slot`): smaller slots save nothing for short frames, and frames that fill their
/// slot, or take several, cost two to four times as much.
pub const DEFAULT_SLOT: u32 = 2048;
/// Largest MTU, in bytes of layer 3.
pub const MAX_MTU: u16 = 9000;
/// Layer-2 bytes on top of an MTU: Ethernet header and two VLAN tags. FCS is not counted.
pub const L2_OVERHEAD: u16 = 22;
/// Longest frame that any port may carry, in bytes without FCS.
pub const MAX_FRAME: u32 = MAX_MTU as u32 + L2_OVERHEAD as u32;
/// Shortest frame that is one: an Ethernet header.
pub const MIN_FRAME: u32 = 14;
/// Bytes of a cache line.
pub const LINE: usize = 64;
/// Bytes of a frame that always lie in its slot. A frame with more may have the rest where the client's packet buffer is.
///
/// What a rule can ask for mostly lies there.
pub const HEAD: u16 = 128;
/// Bits of a place in a window: those that a descriptor has left.
pub const WINDOW_BITS: u32 = 44;
/// Longest window in bytes.
pub const MAX_WINDOW: u64 = 1 << 40;
/// Most pages of a window: so many bits say which of them are shared.
pub const MAX_WINDOW_PAGES: u64 = 1 << 20;
/// Smallest and largest page of a window in bytes.
pub const MIN_PAGE: u64 = 4096;
/// See [`MIN_PAGE`].
pub const MAX_PAGE: u64 = 1 << 30;

/// The first bytes of a region. Written by the daemon once, before the client sees it.
#[derive(Debug)]
#[repr(C)]
pub struct Header {
    /// [`MAGIC`].
    pub magic: AtomicU64,
    /// [`crate::PROTOCOL`].
    pub version: AtomicU32,
    /// Bytes in one slot.
    pub slot_size: AtomicU32,
    /// TX rings.
    pub tx_rings: AtomicU32,
    /// RX rings.
    pub rx_rings: AtomicU32,
    /// Slots of each TX ring.
    pub tx_sizes: [AtomicU32; MAX_QUEUES],
    /// Slots of each RX ring.
    pub rx_sizes: [AtomicU32; MAX_QUEUES],
    /// How the client is advised to copy: 1 by registers, 2 by string moves from 1024 bytes on, 3 by string moves. Daemons of
    /// before leave it 0.
    pub tx_copy: AtomicU32,
}

/// The counters of one ring, and its `need_wakeup`. 128 bytes apart, since processors fetch cache lines in pairs.
///
/// The bytes between them are atomics as well, though they are never read: the peer may write those too, and a reference may
/// only cover bytes that others write if all of them are inside an `UnsafeCell`.
#[derive(Debug)]
#[repr(C)]
pub struct RingHeader {
    /// Slots ever filled. The producer writes, the consumer reads. Wraps at 2^32.
    pub head: AtomicU32,
    _pad0: [AtomicU32; 31],
    /// Slots ever emptied. The consumer writes, the producer reads. Wraps at 2^32.
    pub tail: AtomicU32,
    _pad1: [AtomicU32; 31],
    /// Whether the consumer sleeps: see [`crate::need_wakeup`]. Both sides write it, and only around a sleep.
    pub need_wakeup: AtomicU32,
    _pad2: [AtomicU32; 31],
}

/// Bytes before the descriptors of a ring.
pub const RING_HEADER_SIZE: usize = size_of::<RingHeader>();

// The other process is compiled apart from this one: the layout is a contract, not a detail.
const _: () = {
    assert!(offset_of!(Header, magic) == 0);
    assert!(offset_of!(Header, version) == 8);
    assert!(offset_of!(Header, slot_size) == 12);
    assert!(offset_of!(Header, tx_rings) == 16);
    assert!(offset_of!(Header, rx_rings) == 20);
    assert!(offset_of!(Header, tx_sizes) == 24);
    assert!(offset_of!(Header, rx_sizes) == 88);
    assert!(offset_of!(Header, tx_copy) == 152);
    assert!(size_of::<Header>() == 160);
    assert!(offset_of!(RingHeader, head) == 0);
    assert!(offset_of!(RingHeader, tail) == 128);
    assert!(offset_of!(RingHeader, need_wakeup) == 256);
    assert!(RING_HEADER_SIZE == 384);
};

/// How many rings of which size a region has. Valid by construction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Geometry {
    slot_size: u32,
    tx: Vec<u32>,
    rx: Vec<u32>,
    lanes: u16,
}

/// Why a geometry was refused. The text names the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum GeometryError {
    /// No queue at all, or too many in one direction.
    #[error("{0} queues asked for, a port has 1 to {MAX_QUEUES} in each direction")]
    Queues(usize),
    /// A ring is too small, too large or not a power of two.
    #[error("ring of {0} slots asked for, a ring has a power of two from {MIN_RING} to {MAX_RING}")]
    RingSize(u32),
    /// No lanes, or not as many for each RX queue.
    #[error("{lanes} RX rings for each queue asked for, and {rings} in all")]
    Lanes {
        /// For each queue.
        lanes: u16,
        /// In all.
        rings: usize,
    },
    /// A slot is too small, too large or not a multiple of 128 bytes.
    #[error("slots of {0} bytes asked for, a slot has a multiple of 128 from {MIN_SLOT} to {MAX_SLOT}")]
    SlotSize(u32),
}

impl Geometry {
    /// Checks and keeps the sizes: `tx` and `rx` give the slots of each ring, `slot_size` is in bytes.
    ///
    /// # Errors
    ///
    /// [`GeometryError`] if a number is outside its limits; a client's request may hold anything.
    pub fn new(tx: &[u32], rx: &[u32], slot_size: u32) -> Result<Self, GeometryError> {
        for sizes in [tx, rx] {
            if sizes.len() > MAX_QUEUES || sizes.is_empty() {
                return Err(GeometryError::Queues(sizes.len()));
            }
            if let Some(bad) = sizes.iter().find(|s| !s.is_power_of_two() || **s < MIN_RING || **s > MAX_RING) {
                return Err(GeometryError::RingSize(*bad));
            }
        }
        if !(MIN_SLOT..=MAX_SLOT).contains(&slot_size) || !slot_size.is_multiple_of(128) {
            return Err(GeometryError::SlotSize(slot_size));
        }
        Ok(Self { slot_size, tx: tx.to_vec(), rx: rx.to_vec(), lanes: 1 })
    }

    /// The same, in which each RX queue has `lanes` rings in a row, its lanes, instead of one.
    ///
    /// # Errors
    ///
    /// [`GeometryError::Lanes`] if the RX rings are not such a number.
    pub fn with_lanes(self, lanes: u16) -> Result<Self, GeometryError> {
        let rings = self.rx.len();
        if lanes == 0 || !rings.is_multiple_of(lanes.into()) {
            return Err(GeometryError::Lanes { lanes, rings });
        }
        Ok(Self { lanes, ..self })
    }

    /// Bytes in one slot.
    #[must_use]
    pub const fn slot_size(&self) -> u32 {
        self.slot_size
    }

    /// Slots of each TX ring.
    #[must_use]
    pub fn tx(&self) -> &[u32] {
        &self.tx
    }

    /// Slots of each RX ring.
    #[must_use]
    pub fn rx(&self) -> &[u32] {
        &self.rx
    }

    /// RX rings of each RX queue.
    #[must_use]
    pub const fn lanes(&self) -> u16 {
        self.lanes
    }

    /// RX queues.
    #[must_use]
    pub const fn rx_queues(&self) -> usize {
        // There is one lane at least.
        match self.rx.len().checked_div(self.lanes as usize) {
            Some(queues) => queues,
            None => 0,
        }
    }

    /// Where everything lies.
    #[must_use]
    pub fn layout(&self) -> Layout {
        let mut at = HEADER_SIZE;
        let mut place = |sizes: &[u32]| {
            let ring = |&slots: &u32| {
                let span = RingSpan { offset: at, slots, slot_size: self.slot_size };
                at = at.saturating_add(span.size());
                span
            };
            sizes.iter().map(ring).collect::<Vec<_>>()
        };
        let tx = place(&self.tx);
        let rx = place(&self.rx);
        Layout { tx, rx, size: at }
    }
}

/// Where the rings of a region lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The TX rings, by queue.
    pub tx: Vec<RingSpan>,
    /// The RX rings: by queue, and each queue's by lane.
    pub rx: Vec<RingSpan>,
    /// Bytes of the whole region, before rounding to pages.
    pub size: usize,
}

/// Where one ring lies in its region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingSpan {
    /// Offset of the [`RingHeader`] from the start of the region, a multiple of 128.
    pub offset: usize,
    /// Number of slots, a power of two.
    pub slots: u32,
    /// Bytes in one slot.
    pub slot_size: u32,
}

// Geometry bounds every factor: at most 8,192 slots of 16,448 bytes, 16 rings in two directions, below 2^33 bytes.
#[cfg_attr(
    not(test),
    expect(
        clippy::arithmetic_side_effects,
        reason = "bounded by the limits of Geometry, far below the range of usize"
    )
)]
impl RingSpan {
    /// Bytes from one slot to the next: an odd number of cache lines.
    #[must_use]
    pub const fn stride(&self) -> usize {
        self.slot_size as usize + LINE
    }

    /// Offset of the first descriptor from the start of the region.
    #[must_use]
    pub const fn descriptors(&self) -> usize {
        self.offset + RING_HEADER_SIZE
    }

    /// Offset of the first slot from the start of the region.
    #[must_use]
    pub const fn data(&self) -> usize {
        self.descriptors() + self.slots as usize * size_of::<u64>()
    }

    /// Bytes of the whole ring, a multiple of 128.
    #[must_use]
    pub const fn size(&self) -> usize {
        let bytes = RING_HEADER_SIZE + self.slots as usize * (size_of::<u64>() + self.stride());
        bytes.next_multiple_of(2 * LINE)
    }
}

/// The part of a client's address space in which it may share memory with the daemon. Valid by construction.
///
/// Nothing of it is shared at first; see [`Segment`](crate::message::Segment).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowLayout {
    page: u64,
    size: u64,
}

/// Why there can be no such window. The text names the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum WindowError {
    /// A page is too small, too large or not a power of two.
    #[error("pages of {0} bytes, a window has a power of two from {MIN_PAGE} to {MAX_PAGE}")]
    Page(u64),
    /// It is empty, too long, or not a number of whole pages.
    #[error("a window of {0} bytes, it has 1 to {MAX_WINDOW_PAGES} whole pages and up to {MAX_WINDOW} bytes")]
    Size(u64),
}

impl WindowLayout {
    /// A window of `size` bytes, shared in pages of `page` bytes.
    ///
    /// # Errors
    ///
    /// [`WindowError`] if a number is outside its limits; a client's message may hold anything.
    pub const fn new(page: u64, size: u64) -> Result<Self, WindowError> {
        if !page.is_power_of_two() || page < MIN_PAGE || page > MAX_PAGE {
            return Err(WindowError::Page(page));
        }
        if size == 0 || size > MAX_WINDOW || !size.is_multiple_of(page) || size >> page.ilog2() > MAX_WINDOW_PAGES {
            return Err(WindowError::Size(size));
        }
        Ok(Self { page, size })
    }

    /// Bytes of a page.
    #[must_use]
    pub const fn page(&self) -> u64 {
        self.page
    }

    /// Bytes of the window.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Whether `length` bytes at `at` are some whole pages of it.
    #[must_use]
    pub const fn has(&self, at: u64, length: u64) -> bool {
        at.is_multiple_of(self.page)
            && length.is_multiple_of(self.page)
            && length > 0
            && length <= self.size
            && at <= self.size.wrapping_sub(length)
    }
}

const _: () = assert!(MAX_WINDOW <= 1 << WINDOW_BITS);

#[cfg(test)]
mod tests {
    use super::*;

    /// Fault 5: sizes outside the limits are refused, and the error names the limit.
    #[test]
    fn geometry_refuses_sizes_outside_its_limits() {
        for ring in [0, 3, 32, 100, 16384, 65536, u32::MAX] {
            let refused = Geometry::new(&[ring], &[512], DEFAULT_SLOT);
            assert_eq!(refused, Err(GeometryError::RingSize(ring)));
            assert!(refused.unwrap_err().to_string().contains("64 to 8192"));
        }
        for slot in [0, 64, 255, 300, 32768, u32::MAX] {
            assert_eq!(Geometry::new(&[512], &[512], slot), Err(GeometryError::SlotSize(slot)));
        }
        for queues in [0, 17, 65] {
            assert_eq!(Geometry::new(&vec![512; queues], &[512], 2048), Err(GeometryError::Queues(queues)));
            assert_eq!(Geometry::new(&[512], &vec![512; queues], 2048), Err(GeometryError::Queues(queues)));
        }
    }

    /// Rings neither overlap nor leave the region, and their counters keep their alignment.
    #[test]
    fn rings_lie_one_after_the_other() {
        let geometry = Geometry::new(&[64, 128, 8192], &[512, 64], 2048).unwrap();
        let layout = geometry.layout();
        let mut at = HEADER_SIZE;
        for ring in layout.tx.iter().chain(&layout.rx) {
            assert_eq!(ring.offset, at);
            assert_eq!(ring.offset % 128, 0);
            assert_eq!(ring.stride() / LINE % 2, 1);
            assert!(ring.data() + ring.slots as usize * ring.stride() <= ring.offset + ring.size());
            at += ring.size();
        }
        assert_eq!(layout.size, at);
    }

    /// Windows outside the limits are refused, and only whole pages inside of one are a part of it.
    #[test]
    fn windows_have_whole_pages() {
        for page in [0, 1, 2048, 6000, 1 << 31, u64::MAX] {
            assert_eq!(WindowLayout::new(page, 1 << 30), Err(WindowError::Page(page)));
        }
        for size in [0, 1, 4097, (MAX_WINDOW_PAGES + 1) * 4096, u64::MAX] {
            assert_eq!(WindowLayout::new(4096, size), Err(WindowError::Size(size)));
        }
        assert_eq!(WindowLayout::new(1 << 30, MAX_WINDOW * 2), Err(WindowError::Size(MAX_WINDOW * 2)));
        let window = WindowLayout::new(4096, 1 << 20).unwrap();
        for (at, length) in [(0, 4096), (0, 1 << 20), ((1 << 20) - 4096, 4096)] {
            assert!(window.has(at, length), "{at} {length}");
        }
        for (at, length) in [(0, 0), (1, 4096), (0, 4097), (1 << 20, 4096), (4096, 1 << 20), (u64::MAX - 4095, 8192)] {
            assert!(!window.has(at, length), "{at} {length}");
        }
    }
}
