//! One packet buffer.

use std::ptr::NonNull;

use dpdk_sys as sys;

use crate::error::{DpdkError, check};

/// One packet buffer, owned: dropping it returns the buffer to its pool.
///
/// It holds one frame in one segment, which lies within the buffer: what a driver receives is brought into this form, or
/// freed, before anybody sees it ([`RxQueue::receive`](crate::RxQueue::receive)).
#[derive(Debug)]
#[repr(transparent)]
pub struct Mbuf(NonNull<sys::rte_mbuf>);

// `RxQueue::receive` and `Pool::fill` let DPDK write raw pointers straight into a `Batch`.
const _: () = assert!(size_of::<Mbuf>() == size_of::<*mut sys::rte_mbuf>());

// SAFETY: a buffer belongs to whoever owns the `Mbuf`, and any thread may return it to its pool.
unsafe impl Send for Mbuf {}
// SAFETY: `&Mbuf` only reads.
unsafe impl Sync for Mbuf {}

/// Reads one field of the description of an `Mbuf`, and no byte beside it: of the others, the count of references may be
/// changed by whoever had one until now, so that no reference to the whole description may exist.
macro_rules! read {
    ($mbuf:expr, $field:ident) => {{
        let raw = $mbuf.0.as_ptr();
        // SAFETY: an `Mbuf` is the only owner of its `rte_mbuf`, which stays as long; nobody else writes this field of it.
        unsafe { (*raw).$field }
    }};
}

/// Writes one field, likewise.
macro_rules! write {
    ($mbuf:expr, $field:ident, $value:expr) => {{
        let (raw, value) = ($mbuf.0.as_ptr(), $value);
        // SAFETY: an `Mbuf` is the only owner of its `rte_mbuf`, and we borrow it mutably.
        unsafe { (*raw).$field = value };
    }};
}

impl Mbuf {
    /// Takes over a buffer.
    ///
    /// # Safety
    ///
    /// The caller owns `raw`, and gives it away: a valid packet buffer, with one reference to it and to each of its
    /// segments, in memory of a pool that stays until all of its buffers are back. Its `buf_addr` leads to `buf_len` bytes
    /// that are initialised, `data_len` of them from `data_off` on.
    pub(crate) unsafe fn from_raw(raw: NonNull<sys::rte_mbuf>) -> Self {
        Self(raw)
    }

    /// Whether the frame lies in the first segment, and has at most `room` bytes.
    #[inline]
    pub(crate) fn is_plain(&self, room: u16) -> bool {
        let len = read!(self, data_len);
        len <= room && read!(self, pkt_len) == u32::from(len)
    }

    /// Whether the frame lies in the first segment, and that in its buffer.
    fn is_whole(&self) -> bool {
        let len = u32::from(read!(self, data_len));
        read!(self, pkt_len) == len && u32::from(read!(self, data_off)) + len <= u32::from(read!(self, buf_len))
    }

    /// Makes a frame out of what a driver says of it, if that can be.
    ///
    /// # Errors
    ///
    /// Why it cannot; then the buffer is only to be dropped.
    pub(crate) fn mend(&mut self) -> Result<(), Broken> {
        if self.is_whole() {
            return Ok(());
        }
        let (mut next, mut segments, mut len) = (self.0.as_ptr(), 0_u16, 0_u32);
        while !next.is_null() {
            // SAFETY: the segments are ours, and each is a valid one. Only the numbers in them are in doubt.
            let offset = u32::from(unsafe { (*next).data_off });
            // SAFETY: as above.
            let bytes = u32::from(unsafe { (*next).data_len });
            // SAFETY: as above.
            let room = u32::from(unsafe { (*next).buf_len });
            segments = segments.checked_add(1).ok_or(Broken::Malformed)?;
            len = len.checked_add(bytes).filter(|_| offset + bytes <= room).ok_or(Broken::Malformed)?;
            // SAFETY: as above.
            next = unsafe { (*next).next };
        }
        if segments != read!(self, nb_segs) || len != read!(self, pkt_len) {
            return Err(Broken::Malformed);
        }
        self.linearize().map_err(|_| Broken::Oversize(len))
    }

    /// Bytes of the frame.
    #[must_use]
    #[inline]
    pub fn len(&self) -> u32 {
        read!(self, pkt_len)
    }

    /// Whether the frame has no bytes, as in a buffer that was just taken from its pool.
    #[must_use]
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Segments that the frame lies in.
    #[must_use]
    #[inline]
    pub fn segments(&self) -> u16 {
        read!(self, nb_segs)
    }

    /// Bytes that a frame can have in this buffer: [`Mbuf::frame_mut`] takes at most this.
    #[must_use]
    #[inline]
    pub fn room(&self) -> u16 {
        read!(self, buf_len).saturating_sub(read!(self, data_off))
    }

    /// The first byte of the frame.
    #[inline]
    fn start(&self) -> *mut u8 {
        read!(self, buf_addr).cast::<u8>().wrapping_add(usize::from(read!(self, data_off)))
    }

    /// The frame, or the first segment of one that is in several.
    #[must_use]
    #[inline]
    pub fn data(&self) -> &[u8] {
        let (start, len) = (self.start(), usize::from(read!(self, data_len)));
        // SAFETY:
        // - the bytes lie within the buffer, as whoever made the `Mbuf` has seen to, and no buffer is at null;
        // - its bytes were written when the pool was made, or by the driver that received the frame;
        // - an `Mbuf` is the only owner of its buffer, and we borrow it.
        unsafe { std::slice::from_raw_parts(start, len) }
    }

    /// The frame, to be changed in place.
    #[inline]
    pub fn data_mut(&mut self) -> &mut [u8] {
        let (start, len) = (self.start(), usize::from(read!(self, data_len)));
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
        write!(self, data_len, len);
        write!(self, pkt_len, u32::from(len));
        self.data_mut()
    }

    /// The same for a buffer as it lies in a pool, without another look at what is known of it then: it has one segment and one
    /// reference (`rte_mbuf.h`, `rte_mbuf_raw_free`), so only what lies in the first of its two cache lines has to be set.
    ///
    /// # Safety
    ///
    /// It has room for `len` bytes behind the headroom.
    #[inline]
    pub(crate) unsafe fn begin(&mut self, len: u16) -> &mut [u8] {
        #[expect(clippy::cast_possible_truncation, reason = "128, by DPDK's build")]
        const HEADROOM: u16 = sys::RTE_PKTMBUF_HEADROOM as u16;
        // One copy of the pointer: it lies where frames are told from each other, and would be read again after each store.
        let mbuf = (self.0,);
        write!(mbuf, data_off, HEADROOM);
        write!(mbuf, ol_flags, 0);
        write!(mbuf, data_len, len);
        write!(mbuf, pkt_len, u32::from(len));
        let start = read!(mbuf, buf_addr).cast::<u8>().wrapping_add(HEADROOM.into());
        // SAFETY: no buffer is at null. It is said for who asks whether there is one.
        unsafe { std::hint::assert_unchecked(!start.is_null()) };
        // SAFETY: as in `data_mut`; the bytes lie within the buffer by the caller's word.
        unsafe { std::slice::from_raw_parts_mut(start, len.into()) }
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

    /// Leaves the checksums of a frame with UDP over IPv4 without options to the device that sends it, which is configured for that
    /// ([`PortConfig::checksums`](crate::PortConfig::checksums)).
    pub fn leave_checksums(&mut self) {
        const LENGTHS: u64 = 14 | 20 << 7;
        let flags = sys::RTE_MBUF_F_TX_IPV4 | sys::RTE_MBUF_F_TX_IP_CKSUM | sys::RTE_MBUF_F_TX_UDP_CKSUM;
        write!(self, ol_flags, read!(self, ol_flags) | flags);
        // Bit fields of DPDK's: 7 bits for the Ethernet header, 9 for IP's.
        write!(self, tx_offload, LENGTHS);
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
        let [low, high] = read!(self, hash);
        u64::from(high) << 32 | u64::from(low)
    }

    /// Leaves a number of the application with the frame. It costs nothing on the wire, and no cache line beyond the
    /// one that holds the length: it takes the place of the RSS hash, which nobody needs after reception.
    #[inline]
    pub fn set_user(&mut self, user: u64) {
        #[expect(clippy::cast_possible_truncation, reason = "the number is cut into two halves")]
        let halves = [user as u32, (user >> 32) as u32];
        write!(self, hash, halves);
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

    /// Whether a driver may return this buffer to `pool` without a look at it (`RTE_ETH_TX_OFFLOAD_MBUF_FAST_FREE`).
    #[inline]
    pub(crate) fn is_plain_of(&self, pool: *mut sys::rte_mempool) -> bool {
        let elsewhere = sys::RTE_MBUF_F_EXTERNAL | sys::RTE_MBUF_F_INDIRECT;
        read!(self, pool) == pool && read!(self, nb_segs) == 1 && read!(self, ol_flags) & elsewhere == 0
    }
}

/// Why no frame can be made out of what a driver has received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    /// Its lengths contradict each other, or its buffer.
    Malformed,
    /// So many bytes in several segments do not fit the first one.
    Oversize(u32),
}

impl Drop for Mbuf {
    fn drop(&mut self) {
        // SAFETY: an `Mbuf` is the only owner of its `rte_mbuf`, so nothing else can touch or free it.
        unsafe { sys::kopi_pktmbuf_free(self.0.as_ptr()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::ManuallyDrop;

    /// What a driver says of one segment: its offset, its length, and the size of its buffer.
    type Claim = (u16, u16, u16);

    /// A frame as a driver would give it, outside of any pool.
    struct Given {
        segments: Vec<sys::rte_mbuf>,
        _bytes: Vec<u8>,
    }

    impl Given {
        fn new(pkt_len: u32, nb_segs: u16, claims: &[Claim]) -> Self {
            // However long a segment claims to be, nothing beyond this is touched.
            let mut bytes = vec![0x5a; 256];
            let mut segments = Vec::new();
            for &(data_off, data_len, buf_len) in claims {
                // SAFETY: all of its fields are numbers and pointers, which may be zero.
                let mut segment: sys::rte_mbuf = unsafe { std::mem::zeroed() };
                segment.buf_addr = bytes.as_mut_ptr().cast();
                (segment.data_off, segment.data_len, segment.buf_len) = (data_off, data_len, buf_len);
                segments.push(segment);
            }
            for at in 1..segments.len() {
                segments[at - 1].next = &raw mut segments[at];
            }
            (segments[0].pkt_len, segments[0].nb_segs) = (pkt_len, nb_segs);
            Self { segments, _bytes: bytes }
        }

        fn mend(&mut self) -> Result<(), Broken> {
            let raw = NonNull::from(&mut self.segments[0]);
            // SAFETY: a packet buffer as drivers give them, which `mend` is there for; being in no pool, it is never freed.
            ManuallyDrop::new(unsafe { Mbuf::from_raw(raw) }).mend()
        }
    }

    /// A frame that lies in its buffer is taken, up to the last byte of it, and one that reaches out of it by a byte is not,
    /// wherever that byte comes from.
    #[test]
    fn frames_end_within_their_buffers() {
        for (offset, len, room) in [(0, 0, 0), (0, 256, 256), (128, 0, 128), (128, 128, 256), (255, 1, 256)] {
            assert_eq!(Given::new(len.into(), 1, &[(offset, len, room)]).mend(), Ok(()), "{offset} {len} {room}");
        }
        for (offset, len, room) in
            [(0, 1, 0), (0, 257, 256), (128, 129, 256), (256, 1, 256), (u16::MAX, u16::MAX, u16::MAX), (300, 0, 256)]
        {
            let given = Given::new(len.into(), 1, &[(offset, len, room)]).mend();
            assert_eq!(given, Err(Broken::Malformed), "{offset} {len} {room}");
        }
    }

    /// What a frame says of itself has to be what its segments say, or it is malformed; if it is true, but too much for one
    /// buffer, the frame is too long.
    #[test]
    fn lengths_of_a_frame_add_up() {
        let (one, two) = ((128, 64, 256), (0, 200, 256));
        for (pkt_len, nb_segs, claims) in [
            (65, 1, &[one][..]),
            (63, 1, &[one]),
            (u32::MAX, 1, &[one]),
            (65, 2, &[one]),
            (263, 2, &[one, two]),
            (264, 1, &[one, two]),
            (264, 3, &[one, two]),
            (364, 2, &[one, (100, 300, 256)]),
        ] {
            let given = Given::new(pkt_len, nb_segs, claims).mend();
            assert_eq!(given, Err(Broken::Malformed), "{pkt_len} {nb_segs} {claims:?}");
        }
        assert_eq!(Given::new(264, 2, &[one, two]).mend(), Err(Broken::Oversize(264)));
    }
}
