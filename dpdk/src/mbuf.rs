//! One packet buffer.

use std::ptr::NonNull;

use dpdk_sys as sys;

use crate::error::{DpdkError, check};

/// One packet buffer, owned: dropping it returns the buffer to its pool.
///
/// It holds one frame, in one segment unless a driver received it in several ([`Mbuf::segments`]).
#[derive(Debug)]
#[repr(transparent)]
pub struct Mbuf(NonNull<sys::rte_mbuf>);

// `RxQueue::receive` and `Pool::fill` let DPDK write raw pointers straight into a `Batch`.
const _: () = assert!(size_of::<Mbuf>() == size_of::<*mut sys::rte_mbuf>());

// SAFETY: a buffer belongs to whoever owns the `Mbuf`, and any thread may return it to its pool.
unsafe impl Send for Mbuf {}
// SAFETY: `&Mbuf` only reads.
unsafe impl Sync for Mbuf {}

impl Mbuf {
    /// Takes over a buffer.
    ///
    /// # Safety
    ///
    /// The caller owns `raw`, and gives it away: a valid packet buffer, with one reference to it and to each of its
    /// segments, in memory of a pool that stays until all of its buffers are back.
    pub(crate) unsafe fn from_raw(raw: NonNull<sys::rte_mbuf>) -> Self {
        Self(raw)
    }

    #[inline]
    fn raw(&self) -> &sys::rte_mbuf {
        // SAFETY: an `Mbuf` is the only owner of its `rte_mbuf`, and we borrow it.
        unsafe { self.0.as_ref() }
    }

    #[inline]
    fn raw_mut(&mut self) -> &mut sys::rte_mbuf {
        // SAFETY: an `Mbuf` is the only owner of its `rte_mbuf`, and we borrow it mutably.
        unsafe { self.0.as_mut() }
    }

    /// Bytes of the frame, over all of its segments.
    #[must_use]
    #[inline]
    pub fn len(&self) -> u32 {
        self.raw().pkt_len
    }

    /// Whether the frame has no bytes, as in a buffer that was just taken from its pool.
    #[must_use]
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Segments that the frame lies in; 1 unless a driver scattered it.
    #[must_use]
    #[inline]
    pub fn segments(&self) -> u16 {
        self.raw().nb_segs
    }

    /// Bytes that a frame can have in this buffer: [`Mbuf::frame_mut`] takes at most this.
    #[must_use]
    #[inline]
    pub fn room(&self) -> u16 {
        let raw = self.raw();
        raw.buf_len.saturating_sub(raw.data_off)
    }

    /// The frame, or the first segment of it.
    #[must_use]
    #[inline]
    pub fn data(&self) -> &[u8] {
        let raw = self.raw();
        // SAFETY: `data_off` lies within the buffer.
        let start = unsafe { raw.buf_addr.cast::<u8>().add(usize::from(raw.data_off)) };
        // SAFETY:
        // - DPDK and we keep `data_off + data_len` within the buffer;
        // - its bytes were written when the pool was made, or by the driver that received the frame;
        // - an `Mbuf` is the only owner of its buffer, and we borrow it.
        unsafe { std::slice::from_raw_parts(start, usize::from(raw.data_len)) }
    }

    /// The frame, or the first segment of it, to be changed in place.
    #[inline]
    pub fn data_mut(&mut self) -> &mut [u8] {
        let raw = self.raw();
        let len = usize::from(raw.data_len);
        // SAFETY: `data_off` lies within the buffer.
        let start = unsafe { raw.buf_addr.cast::<u8>().add(usize::from(raw.data_off)) };
        // SAFETY: as in `data`, and we borrow the buffer mutably.
        unsafe { std::slice::from_raw_parts_mut(start, len) }
    }

    /// Makes this a frame of `len` bytes in one segment, and lends them to be written.
    ///
    /// What they hold before is whatever an earlier frame left there, so write all of them. They are initialised in the
    /// sense of Rust, because a pool writes its memory once when it is made.
    ///
    /// # Panics
    ///
    /// If `len` is above [`Mbuf::room`], or if this is a received frame of several segments: the caller checks lengths
    /// that come from somebody else.
    #[inline]
    pub fn frame_mut(&mut self, len: u16) -> &mut [u8] {
        assert!(len <= self.room() && self.segments() == 1, "frame of {len} bytes in a buffer of {}", self.room());
        let raw = self.raw_mut();
        raw.data_len = len;
        raw.pkt_len = u32::from(len);
        self.data_mut()
    }

    /// Makes this a copy of `frame`. Returns false, and changes nothing, if it is larger than [`Mbuf::room`].
    #[must_use]
    #[inline]
    pub fn fill(&mut self, frame: &[u8]) -> bool {
        match u16::try_from(frame.len()) {
            Ok(len) if len <= self.room() && self.segments() == 1 => {
                self.frame_mut(len).copy_from_slice(frame);
                true
            }
            _ => false,
        }
    }

    /// Moves a frame of several segments into its first one. Does nothing to a frame of one segment.
    ///
    /// # Errors
    ///
    /// [`DpdkError::Call`] if the first segment has no room for the rest; the frame stays as it was.
    pub fn linearize(&mut self) -> Result<(), DpdkError> {
        // SAFETY: an `Mbuf` is the only owner of its segments, and we borrow them mutably.
        let result = unsafe { sys::kopi_pktmbuf_linearize(self.0.as_ptr()) };
        check("rte_pktmbuf_linearize", result).map(drop)
    }

    /// The number of the application that [`Mbuf::set_user`] left here.
    ///
    /// Any number if nobody did since the buffer came from its pool or from a driver.
    #[must_use]
    #[inline]
    pub fn user(&self) -> u64 {
        let [low, high] = self.raw().hash;
        u64::from(high) << 32 | u64::from(low)
    }

    /// Leaves a number of the application with the frame. It costs nothing on the wire, and no cache line beyond the
    /// one that holds the length: it takes the place of the RSS hash, which nobody needs after reception.
    #[inline]
    pub fn set_user(&mut self, user: u64) {
        #[expect(clippy::cast_possible_truncation, reason = "the number is cut into two halves")]
        let halves = [user as u32, (user >> 32) as u32];
        self.raw_mut().hash = halves;
    }

    /// Copies bytes of the frame from `offset` on, over all of its segments. Returns false if not all of them are there.
    pub(crate) fn read(&self, offset: u32, bytes: &mut [u8]) -> bool {
        let Ok(len) = u32::try_from(bytes.len()) else { return false };
        // DPDK does not see an end that wraps around.
        if offset.checked_add(len).is_none_or(|end| end > self.len()) {
            return false;
        }
        let into = bytes.as_mut_ptr();
        // SAFETY: the frame has so many bytes at the offset, in segments of ours, and `into` has room for them.
        let found = unsafe { sys::__rte_pktmbuf_read(self.0.as_ptr(), offset, len, into.cast()) };
        if found.is_null() {
            return false;
        }
        // SAFETY: `found` is within a segment, or is `into` itself, where DPDK has put them together.
        unsafe { std::ptr::copy(found.cast(), into, bytes.len()) };
        true
    }

    #[inline]
    pub(crate) fn as_ptr(&self) -> *mut sys::rte_mbuf {
        self.0.as_ptr()
    }

    /// Whether a driver may return this buffer to `pool` without a look at it (`RTE_ETH_TX_OFFLOAD_MBUF_FAST_FREE`).
    #[inline]
    pub(crate) fn is_plain_of(&self, pool: *mut sys::rte_mempool) -> bool {
        let raw = self.raw();
        let elsewhere = sys::RTE_MBUF_F_EXTERNAL | sys::RTE_MBUF_F_INDIRECT;
        raw.pool == pool && raw.nb_segs == 1 && raw.ol_flags & elsewhere == 0
    }
}

impl Drop for Mbuf {
    fn drop(&mut self) {
        // SAFETY: an `Mbuf` is the only owner of its `rte_mbuf`, so nothing else can touch or free it.
        unsafe { sys::kopi_pktmbuf_free(self.0.as_ptr()) }
    }
}
