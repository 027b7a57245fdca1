//! The packet buffers of an RX queue, taken from their pool many at a time, and how frames are copied into them.

use crate::counters::Counters;
use dpdk_sys as sys;
use dpdk_sys::rte_mbuf;
use kopi_ring::layout::{MIN_FRAME, Notes};
use kopi_ring::{Consumer, Frame, PeerFault};
use std::mem::MaybeUninit;
use std::ptr::null_mut;

/// Buffers that a queue takes from its pool at once, and keeps ready at most.
const SIZE: usize = 64;
/// How many buffers ahead of the one being filled are prefetched.
const PREFETCH: usize = 4;

/// The packet buffers of one queue.
#[derive(Debug)]
pub(crate) struct MbufCache {
    /// Taken from the pool and not yet used: the first `len`.
    mbufs: [*mut rte_mbuf; SIZE],
    len: usize,
    template: Template,
    pool: *mut sys::rte_mempool,
}

/// What is the same for all packets of a queue.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Template {
    headroom: u16,
    port: u16,
    /// Bytes of a frame that one buffer takes.
    room: u32,
    flags: u64,
}

/// Why a frame did not become a packet.
enum NoPacket {
    /// No buffer is to be had.
    NoMbuf,
    /// It is too short to be a frame.
    Runt,
}

impl MbufCache {
    /// An empty cache over `pool`.
    ///
    /// # Safety
    ///
    /// `pool` is a pool of packet buffers, valid for as long as the cache is, and the one that `template` was made for: each buffer
    /// takes the headroom and the bytes of a frame that the template says.
    pub(crate) const unsafe fn new(pool: *mut sys::rte_mempool, template: Template) -> Self {
        Self { mbufs: [null_mut(); SIZE], len: 0, template, pool }
    }

    /// Where its buffers come from.
    pub(crate) const fn pool(&self) -> *mut sys::rte_mempool {
        self.pool
    }

    /// Turns frames of `ring` into packets.
    #[inline]
    pub(crate) fn receive(
        &mut self,
        ring: &mut Consumer,
        counters: &Counters,
        out: &mut [MaybeUninit<*mut rte_mbuf>],
    ) -> (u16, Option<PeerFault>) {
        let want = match ring.poll() {
            Ok(ready) => out.len().min(ready as usize),
            Err(fault) => return (0, Some(fault)),
        };
        if want == 0 {
            return (0, None);
        }
        if self.len < want {
            self.refill();
        }
        let (mut packets, mut bytes, mut fault) = (0_u16, 0_u64, None);
        while let Some(to) = out.get_mut(usize::from(packets)) {
            let frame = match ring.next() {
                Ok(Some(frame)) => frame,
                Ok(None) => break,
                Err(found) => {
                    fault = Some(found);
                    break;
                }
            };
            match self.packet(ring, &frame) {
                Ok(mbuf) => {
                    to.write(mbuf);
                    packets = packets.wrapping_add(1);
                    bytes = bytes.wrapping_add(frame.len().into());
                }
                Err(NoPacket::NoMbuf) => {
                    ring.put_back(&frame);
                    counters.no_mbuf.add(1);
                    break;
                }
                Err(NoPacket::Runt) => counters.runt.add(1),
            }
        }
        ring.release();
        counters.packets.add(packets.into());
        counters.bytes.add(bytes);
        (packets, fault)
    }

    /// Copies `frame` into a packet.
    #[inline]
    fn packet(&mut self, ring: &Consumer, frame: &Frame) -> Result<*mut rte_mbuf, NoPacket> {
        let len = frame.len();
        if len > self.template.room || len < MIN_FRAME {
            return self.odd_packet(ring, frame);
        }
        let mbuf = self.pop().ok_or(NoPacket::NoMbuf)?;
        // SAFETY: the buffer comes from the cache, so it is valid, and now ours alone.
        let to = unsafe { self.template.fill(mbuf, frame.notes(), len, len) };
        ring.copy(frame, to);
        Ok(mbuf)
    }

    /// Deals with a frame that is too short, or too long for one buffer.
    #[cold]
    fn odd_packet(&mut self, ring: &Consumer, frame: &Frame) -> Result<*mut rte_mbuf, NoPacket> {
        let (len, room) = (frame.len(), self.template.room);
        if len < MIN_FRAME || room == 0 {
            return Err(NoPacket::Runt);
        }
        let (mut head, mut last) = (null_mut::<rte_mbuf>(), null_mut::<rte_mbuf>());
        let (mut offset, mut segments) = (0_u32, 0_u16);
        while offset < len {
            if self.len == 0 {
                self.refill();
            }
            let Some(mbuf) = self.pop() else {
                // SAFETY: null, or a chain that is well-formed so far and ours alone.
                unsafe { sys::kopi_pktmbuf_free(head) };
                return Err(NoPacket::NoMbuf);
            };
            let here = len.wrapping_sub(offset).min(room);
            // SAFETY: the buffer comes from the cache, so it is valid, and now ours alone.
            let to = unsafe { self.template.fill(mbuf, frame.notes(), len, here) };
            ring.copy_from(frame, offset, to);
            if last.is_null() {
                head = mbuf;
            } else {
                // SAFETY: a buffer of ours, no longer borrowed.
                unsafe { (*last).next = mbuf };
            }
            last = mbuf;
            offset = offset.wrapping_add(here);
            segments = segments.wrapping_add(1);
            // SAFETY: a buffer of ours, no longer borrowed. The count is kept right, so that the chain can be freed.
            unsafe { (*head).nb_segs = segments };
        }
        Ok(head)
    }

    #[inline]
    fn pop(&mut self) -> Option<*mut rte_mbuf> {
        let at = self.len.checked_sub(1)?;
        let mbuf = *self.mbufs.get(at)?;
        self.len = at;
        if let Some(&soon) = at.checked_sub(PREFETCH).and_then(|at| self.mbufs.get(at)) {
            prefetch(soon);
        }
        Some(mbuf)
    }

    /// Fills the cache from the pool. Where the pool has too few, it fills a half of what is missing, a quarter, and so on.
    fn refill(&mut self) {
        let mut n = SIZE.saturating_sub(self.len);
        while n > 0 {
            let Some(room) = self.mbufs.get_mut(self.len..self.len.saturating_add(n)) else { return };
            let count = u32::try_from(room.len()).unwrap_or(0);
            // SAFETY: the pool is valid, and there is room for `count` pointers.
            let failed = unsafe { sys::kopi_mempool_get_bulk(self.pool, room.as_mut_ptr().cast(), count) };
            if failed == 0 {
                self.len = self.len.saturating_add(n);
                return;
            }
            n = n.checked_div(2).unwrap_or(0);
        }
    }

    /// Returns all cached buffers to the pool.
    pub(crate) fn clear(&mut self) {
        let kept = self.mbufs.get_mut(..self.len).unwrap_or_default();
        let count = u32::try_from(kept.len()).unwrap_or(0);
        if count > 0 {
            // SAFETY: the cache holds `count` objects of this pool, in the state in which they came from it.
            unsafe { sys::kopi_mempool_put_bulk(self.pool, kept.as_ptr().cast(), count) };
        }
        self.len = 0;
    }
}

impl Template {
    /// For packets of port `port` in buffers of `pool` that take `room` bytes of a frame each. `hashed` if packets carry the hash.
    ///
    /// # Safety
    ///
    /// `pool` is a pool of packet buffers.
    pub(crate) unsafe fn new(pool: *mut sys::rte_mempool, port: u16, room: u16, hashed: bool) -> Self {
        // SAFETY: a pool of packet buffers, by the caller's word.
        let pinned = unsafe { sys::kopi_pktmbuf_pool_pinned(pool) };
        let external = if pinned { sys::RTE_MBUF_F_EXTERNAL } else { 0 };
        let hash = if hashed { sys::RTE_MBUF_F_RX_RSS_HASH } else { 0 };
        let headroom = u16::try_from(sys::RTE_PKTMBUF_HEADROOM).unwrap_or(0);
        Self { headroom, port, room: room.into(), flags: external | hash }
    }

    /// Makes a raw buffer the first segment of a packet of `len` bytes, of which `here` lie in it, and returns where
    /// those go.
    ///
    /// # Safety
    ///
    /// `mbuf` came from the queue's pool, is the caller's alone for as long as the result lives, and takes `here` bytes.
    #[inline]
    unsafe fn fill<'a>(&self, mbuf: *mut rte_mbuf, notes: Notes, len: u32, here: u32) -> &'a mut [u8] {
        // SAFETY: valid and unshared, by the caller's word. A buffer in a pool has no next segment already.
        let mbuf = unsafe { &mut *mbuf };
        mbuf.data_off = self.headroom;
        mbuf.refcnt = 1;
        mbuf.nb_segs = 1;
        mbuf.port = self.port;
        mbuf.ol_flags = self.flags;
        mbuf.packet_type = notes.packet_type();
        mbuf.pkt_len = len;
        // The room of a buffer is counted in 16 bits.
        mbuf.data_len = u16::try_from(here).unwrap_or(u16::MAX);
        mbuf.vlan_tci = 0;
        let [hash, _] = &mut mbuf.hash;
        *hash = notes.hash();
        let data = mbuf.buf_addr.cast::<u8>().wrapping_add(self.headroom.into());
        // SAFETY: the buffer takes that many bytes behind its headroom, and belongs to the caller alone.
        unsafe { std::slice::from_raw_parts_mut(data, here as usize) }
    }
}

/// Asks the processor to fetch the first line of a buffer's description.
#[inline]
fn prefetch(at: *const rte_mbuf) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch never faults and changes no memory.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}
