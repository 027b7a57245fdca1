//! The packet buffers of an RX queue, taken from their pool many at a time, and how frames are copied into them.

use crate::counters::Counters;
use crate::sys;
use crate::sys::rte_mbuf;
use kopi_ring::layout::Notes;
use kopi_ring::{Consumer, Frame, PeerFault};
use std::mem::{MaybeUninit, offset_of};
use std::ops::RangeInclusive;
use std::ptr::null_mut;

/// Buffers that a queue takes from its pool at once, and keeps ready at most.
const SIZE: usize = 64;
/// Bytes of a buffer before the frame.
const HEADROOM: u16 = short(sys::RTE_PKTMBUF_HEADROOM);
/// Shortest frame that is one.
const MIN_FRAME: u16 = short(kopi_ring::layout::MIN_FRAME);

/// A constant that needs no more than 16 bits.
#[expect(clippy::cast_possible_truncation, reason = "asserted when this is compiled")]
const fn short(n: u32) -> u16 {
    assert!(n <= u16::MAX as u32);
    n as u16
}

/// The packet buffers of one queue.
#[derive(Debug)]
pub(crate) struct MbufCache {
    /// Taken from the pool and not yet used: the first `len`.
    mbufs: [*mut rte_mbuf; SIZE],
    len: usize,
    template: Template,
    pool: *mut sys::rte_mempool,
}

/// What is done to packets beyond the copying.
pub(crate) trait Finish {
    /// Takes the oldest frames of `ring` as [`Consumer::take_run`] does, copies each to the place that `place` gives, with the buffer that
    /// it lies in, and finishes the packet.
    ///
    /// # Safety
    ///
    /// The buffers that `place` gives are valid, described as first buffers of their packets, and the caller's alone.
    unsafe fn take_run<'a>(
        &mut self,
        ring: &mut Consumer,
        most: usize,
        lens: RangeInclusive<u16>,
        place: impl FnMut(u16, Notes) -> Option<(*mut rte_mbuf, &'a mut [u8])>,
    ) -> usize;

    /// Finishes a packet that was made in another way.
    ///
    /// # Safety
    ///
    /// `packet` is a well-formed packet, which is the caller's alone.
    unsafe fn finish_odd(&mut self, packet: *mut rte_mbuf);
}

/// Nothing.
#[derive(Debug)]
pub(crate) struct AsCopied;

impl Finish for AsCopied {
    #[inline]
    unsafe fn take_run<'a>(
        &mut self,
        ring: &mut Consumer,
        most: usize,
        lens: RangeInclusive<u16>,
        mut place: impl FnMut(u16, Notes) -> Option<(*mut rte_mbuf, &'a mut [u8])>,
    ) -> usize {
        ring.take_run(most, lens, |len, notes| place(len, notes).map(|(_, to)| to))
    }

    #[inline]
    unsafe fn finish_odd(&mut self, _packet: *mut rte_mbuf) {}
}

/// What is the same for all packets of a queue.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Template {
    rearm: Rearm,
    /// Bytes of a frame that one buffer takes.
    room: u16,
}

/// The second 16 bytes of an `rte_mbuf`, which are written at once: the same in all packets of a queue.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct Rearm {
    data_off: u16,
    refcnt: u16,
    nb_segs: u16,
    port: u16,
    ol_flags: u64,
}

/// The third 16 bytes: what a packet is.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct Described {
    packet_type: u32,
    pkt_len: u32,
    data_len: u16,
    vlan_tci: u16,
    hash: u32,
}

/// Asserts that each field lies in an `rte_mbuf` where it lies in the part that begins `$at` bytes into that.
macro_rules! assert_layout {
    ($part:ident at $at:literal: $($field:ident),+) => {
        const _: () = assert!(size_of::<$part>() == 16);
        $(const _: () = assert!(offset_of!(rte_mbuf, $field) == usize::wrapping_add($at, offset_of!($part, $field)));)+
    };
}

assert_layout!(Rearm at 16: data_off, refcnt, nb_segs, port, ol_flags);
assert_layout!(Described at 32: packet_type, pkt_len, data_len, vlan_tci, hash);

/// What one burst has received.
#[derive(Debug, Default)]
struct Received {
    packets: usize,
    bytes: u64,
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

    /// Turns frames of `ring` into packets, and finishes those.
    #[inline]
    pub(crate) fn receive(
        &mut self,
        ring: &mut Consumer,
        counters: &Counters,
        out: &mut [MaybeUninit<*mut rte_mbuf>],
        finish: &mut impl Finish,
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
        self.kept().iter().rev().take(want).for_each(|mbuf| prefetch(*mbuf));
        let (mut done, mut fault) = (Received::default(), None);
        while self.receive_plain(ring, out, &mut done, finish) && ring.has_more() {
            match self.receive_odd(ring, counters, out, &mut done, finish) {
                Ok(true) => {}
                Ok(false) => break,
                Err(found) => {
                    fault = Some(found);
                    break;
                }
            }
        }
        ring.release();
        counters.packets.add(done.packets as u64);
        counters.bytes.add(done.bytes);
        (u16::try_from(done.packets).unwrap_or(u16::MAX), fault)
    }

    /// Turns the oldest frame into a packet, if it lies in one slot and fits one buffer, and a buffer is ready.
    #[inline]
    pub(crate) fn receive_one(
        &mut self,
        ring: &mut Consumer,
        counters: &Counters,
        to: &mut MaybeUninit<*mut rte_mbuf>,
    ) -> bool {
        let Some(&mbuf) = self.kept().last() else { return false };
        let mut bytes = 0;
        let taken = ring.take_one(self.template.lengths(), |len, notes| {
            to.write(mbuf);
            bytes = len;
            // SAFETY: the buffer comes from the cache, so it is valid, and now ours alone.
            Some(unsafe { self.template.fill(mbuf, notes, len.into(), len) })
        });
        if taken {
            self.len = self.len.saturating_sub(1);
            ring.release();
            counters.packets.add(1);
            counters.bytes.add(bytes.into());
        }
        taken
    }

    /// Turns frames that lie in one slot, and fit one buffer, into packets, until there is something else. Returns whether there is
    /// room for more.
    #[inline]
    fn receive_plain(
        &mut self,
        ring: &mut Consumer,
        out: &mut [MaybeUninit<*mut rte_mbuf>],
        done: &mut Received,
        finish: &mut impl Finish,
    ) -> bool {
        let out = out.get_mut(done.packets..).unwrap_or_default();
        // The newest first.
        let mut places = self.kept().iter().rev().zip(&mut *out);
        let (template, mut bytes) = (&self.template, 0_u64);
        let most = places.len();
        let place = |len: u16, notes| {
            let (&mbuf, to) = places.next()?;
            to.write(mbuf);
            bytes = bytes.wrapping_add(len.into());
            // SAFETY: the buffer comes from the cache, so it is valid, and now ours alone.
            Some((mbuf, unsafe { template.fill(mbuf, notes, len.into(), len) }))
        };
        // SAFETY: the buffers come from the cache, so they are valid, and `place` has described them; they are ours alone.
        let packets = unsafe { finish.take_run(ring, most, template.lengths(), place) };
        self.len = self.len.saturating_sub(packets);
        done.packets = done.packets.saturating_add(packets);
        done.bytes = done.bytes.wrapping_add(bytes);
        packets < out.len()
    }

    /// Turns one frame, whatever it is, into a packet, or drops it. Returns whether to go on.
    #[cold]
    fn receive_odd(
        &mut self,
        ring: &mut Consumer,
        counters: &Counters,
        out: &mut [MaybeUninit<*mut rte_mbuf>],
        done: &mut Received,
        finish: &mut impl Finish,
    ) -> Result<bool, PeerFault> {
        let (Some(to), Some(frame)) = (out.get_mut(done.packets), ring.next()?) else { return Ok(false) };
        match self.packet(ring, &frame) {
            Ok(mbuf) => {
                // SAFETY: just made, and ours alone.
                unsafe { finish.finish_odd(mbuf) };
                to.write(mbuf);
                done.packets = done.packets.saturating_add(1);
                done.bytes = done.bytes.wrapping_add(frame.len().into());
            }
            Err(NoPacket::NoMbuf) => {
                ring.put_back(&frame);
                counters.no_mbuf.add(1);
                return Ok(false);
            }
            Err(NoPacket::Runt) => counters.runt.add(1),
        }
        Ok(true)
    }

    /// Copies `frame` into a packet, in as many buffers as it needs.
    fn packet(&mut self, ring: &Consumer, frame: &Frame) -> Result<*mut rte_mbuf, NoPacket> {
        let (len, room) = (frame.len(), self.template.room);
        if len < MIN_FRAME.into() || room == 0 {
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
            let here = u16::try_from(len.wrapping_sub(offset)).unwrap_or(u16::MAX).min(room);
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
            offset = offset.wrapping_add(here.into());
            segments = segments.wrapping_add(1);
            // SAFETY: a buffer of ours, no longer borrowed. The count is kept right, so that the chain can be freed.
            unsafe { (*head).nb_segs = segments };
        }
        Ok(head)
    }

    fn pop(&mut self) -> Option<*mut rte_mbuf> {
        let at = self.len.checked_sub(1)?;
        let mbuf = *self.kept().get(at)?;
        self.len = at;
        Some(mbuf)
    }

    /// Fills the cache from the pool. Where the pool has too few, it fills a half of what is missing, a quarter, and so on.
    #[cold]
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

    /// The buffers that were taken and not yet used, newest last.
    fn kept(&self) -> &[*mut rte_mbuf] {
        self.mbufs.get(..self.len).unwrap_or_default()
    }

    /// Returns all cached buffers to the pool.
    pub(crate) fn clear(&mut self) {
        let kept = self.kept();
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
        Self { rearm: Rearm { data_off: HEADROOM, refcnt: 1, nb_segs: 1, port, ol_flags: external | hash }, room }
    }

    /// Lengths of frames that one buffer takes.
    #[inline]
    fn lengths(&self) -> RangeInclusive<u16> {
        MIN_FRAME..=self.room
    }

    /// Makes a raw buffer the first segment of a packet of `len` bytes, of which `here` lie in it, and returns where
    /// those go.
    ///
    /// # Safety
    ///
    /// `mbuf` came from the queue's pool, is the caller's alone for as long as the result lives, and takes `here` bytes.
    #[inline]
    unsafe fn fill<'a>(&self, mbuf: *mut rte_mbuf, notes: Notes, len: u32, here: u16) -> &'a mut [u8] {
        let described = Described {
            packet_type: notes.packet_type(),
            pkt_len: len,
            data_len: here,
            vlan_tci: 0,
            hash: notes.hash(),
        };
        // A buffer in a pool has no next segment already.
        // SAFETY: valid and unshared, by the caller's word; these are the fields from `data_off` to `ol_flags`.
        unsafe { mbuf.cast::<Rearm>().wrapping_add(1).write(self.rearm) };
        // SAFETY: likewise; these are the fields from `packet_type` to the first word of `hash`.
        unsafe { mbuf.cast::<Described>().wrapping_add(2).write(described) };
        // SAFETY: likewise.
        let buffer = unsafe { (*mbuf).buf_addr };
        let data = buffer.cast::<u8>().wrapping_add(HEADROOM.into());
        // SAFETY: the buffer takes that many bytes behind its headroom, and belongs to the caller alone.
        unsafe { std::slice::from_raw_parts_mut(data, here.into()) }
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
