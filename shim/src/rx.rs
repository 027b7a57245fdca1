//! The receiving side: an RX queue and its burst function.

use crate::handoff::{Counters, Handoff};
use crate::interrupt::Relay;
use dpdk_sys as sys;
use dpdk_sys::rte_mbuf;
use kopi_ring::layout::{MIN_FRAME, Notes};
use kopi_ring::{Consumer, Frame, PeerFault};
use std::ffi::{c_int, c_void};
use std::mem::MaybeUninit;
use std::ptr::null_mut;
use std::sync::Arc;

/// Buffers that a queue takes from its pool at once, and keeps ready at most.
const STASH: usize = 64;
/// How many buffers ahead of the one being filled are prefetched.
const PREFETCH: usize = 4;

/// One RX queue, as ethdev hands it to the burst function. Only one thread may use it at a time.
#[derive(Debug)]
#[repr(C, align(128))]
pub(crate) struct RxQueue {
    ring: Option<Box<Consumer>>,
    shared: Arc<Handoff<Consumer>>,
    buffers: Buffers,
    /// The ring end of a daemon that broke the contract, until it can be put aside.
    spent: Option<Box<Consumer>>,
    config: RxConfig,
    /// What wakes the application for this queue, if it has interrupts.
    relay: Option<Arc<Relay>>,
}

/// How a queue was set up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RxConfig {
    /// Slots in the ring.
    pub(crate) descriptors: u16,
    /// Bytes of a frame that one buffer takes.
    pub(crate) room: u16,
    /// Whether frames may be spread over several buffers.
    pub(crate) scatter: bool,
    /// The effective offloads.
    pub(crate) offloads: u64,
}

/// The supply of packet buffers.
#[derive(Debug)]
struct Buffers {
    /// Taken from the pool and not yet used: the first `stashed`.
    stash: [*mut rte_mbuf; STASH],
    stashed: usize,
    template: Template,
    pool: *mut sys::rte_mempool,
}

/// What is the same for all packets of a queue.
#[derive(Clone, Copy, Debug)]
struct Template {
    headroom: u16,
    port: u16,
    /// Bytes of a frame that one buffer takes.
    room: u32,
    flags: u64,
}

/// Why a frame did not become a packet.
enum Stuck {
    /// No buffer is to be had.
    NoMbuf,
    /// It is too short to be a frame.
    Runt,
}

impl RxQueue {
    /// A queue of port `port` over buffers of `pool`.
    ///
    /// # Safety
    ///
    /// `pool` is a pool of packet buffers that outlives the queue, with at least the headroom and `config.room` bytes
    /// in each.
    pub(crate) unsafe fn new(pool: *mut sys::rte_mempool, port: u16, config: RxConfig) -> Self {
        // SAFETY: a pool of packet buffers, by the caller's word.
        let pinned = unsafe { sys::kopi_pktmbuf_pool_pinned(pool) };
        let external = if pinned { sys::RTE_MBUF_F_EXTERNAL } else { 0 };
        let hashed = config.offloads & sys::RTE_ETH_RX_OFFLOAD_RSS_HASH != 0;
        let hash = if hashed { sys::RTE_MBUF_F_RX_RSS_HASH } else { 0 };
        let headroom = u16::try_from(sys::RTE_PKTMBUF_HEADROOM).unwrap_or(0);
        let template = Template { headroom, port, room: config.room.into(), flags: external | hash };
        Self {
            ring: None,
            shared: Arc::new(Handoff::new()),
            buffers: Buffers { stash: [null_mut(); STASH], stashed: 0, template, pool },
            spent: None,
            config,
            relay: None,
        }
    }

    /// What the queue shares with the control thread.
    pub(crate) const fn shared(&self) -> &Arc<Handoff<Consumer>> {
        &self.shared
    }

    /// How it was set up.
    pub(crate) const fn config(&self) -> &RxConfig {
        &self.config
    }

    /// What wakes the application for this queue, if it has interrupts.
    pub(crate) const fn relay(&self) -> Option<&Arc<Relay>> {
        self.relay.as_ref()
    }

    /// Sets that. The application does not poll now.
    pub(crate) fn set_relay(&mut self, relay: Option<&Arc<Relay>>) {
        self.relay = relay.cloned();
    }

    /// Where its buffers come from.
    pub(crate) const fn pool(&self) -> *mut sys::rte_mempool {
        self.buffers.pool
    }

    /// Lets go of rings and buffers. The application does not poll now, and the control thread makes no offer.
    pub(crate) fn reset(&mut self) {
        self.shared.set_away();
        self.shared.collect();
        self.ring = None;
        self.spent = None;
        self.buffers.give_back();
    }

    /// Fills `out` with packets from the front on and returns how many.
    #[inline]
    fn receive(&mut self, out: &mut [MaybeUninit<*mut rte_mbuf>]) -> u16 {
        if !self.shared.is_calm() && !self.settle() {
            return 0;
        }
        let Some(ring) = &mut self.ring else { return 0 };
        let (packets, fault) = self.buffers.receive(ring, self.shared.counters(), out);
        if let Some(fault) = fault {
            self.spent = self.ring.take();
            self.shared.report(fault);
        }
        packets
    }

    /// Takes a ring that is offered. Whether frames are to be received.
    #[cold]
    #[inline(never)]
    fn settle(&mut self) -> bool {
        self.shared.take(&mut self.ring, &mut self.spent);
        if self.shared.is_away() {
            // The region may be taken apart by now.
            return false;
        }
        if self.shared.is_down() {
            self.discard(None);
            return false;
        }
        if self.shared.stale_to().is_some() {
            if self.shared.is_offered() {
                // The ring in hand is one of the past, and the other cannot be taken yet.
                return false;
            }
            let end = self.shared.forget_stale();
            self.discard(Some(end));
        }
        true
    }

    /// Throws away the frames in the ring, all or those before `end`.
    fn discard(&mut self, end: Option<u32>) {
        let Some(ring) = &mut self.ring else { return };
        let Ok(filled) = ring.filled() else {
            // The fault will be met again when the link is up.
            return;
        };
        let mut thrown = 0_u64;
        while end.is_none_or(|end| before(ring, end, filled) > 0) {
            let Ok(Some(_)) = ring.next() else { break };
            thrown = thrown.wrapping_add(1);
        }
        ring.release();
        self.shared.counters().link_down.add(thrown);
    }

    /// Frames in the ring, also if it is one that no burst has seen yet. That is left where it is: whoever asks may be another
    /// thread than the one that polls. What the next burst will throw away does not count.
    fn filled(&mut self) -> u32 {
        if self.shared.is_away() || self.shared.is_down() {
            return 0;
        }
        let stale = self.shared.stale_to();
        let fresh = |ring: &mut Consumer| {
            let filled = ring.filled().unwrap_or(0);
            filled.saturating_sub(stale.map_or(0, |end| before(ring, end, filled)))
        };
        if self.shared.is_offered() {
            return self.shared.look(fresh).unwrap_or(0);
        }
        self.ring.as_mut().map_or(0, |ring| fresh(ring))
    }
}

/// How many of the next `filled` slots of `ring` lie before `end`.
const fn before(ring: &Consumer, end: u32, filled: u32) -> u32 {
    match end.wrapping_sub(ring.position()) {
        slots if slots <= filled => slots,
        // The queue was polled, and has passed that place.
        _ => 0,
    }
}

impl Drop for RxQueue {
    fn drop(&mut self) {
        self.reset();
    }
}

impl Buffers {
    /// Turns frames of `ring` into packets.
    #[inline]
    fn receive(
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
        if self.stashed < want {
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
                Err(Stuck::NoMbuf) => {
                    ring.put_back(&frame);
                    counters.no_mbuf.add(1);
                    break;
                }
                Err(Stuck::Runt) => counters.runt.add(1),
            }
        }
        ring.release();
        counters.packets.add(packets.into());
        counters.bytes.add(bytes);
        (packets, fault)
    }

    /// Copies `frame` into a packet.
    #[inline]
    fn packet(&mut self, ring: &Consumer, frame: &Frame) -> Result<*mut rte_mbuf, Stuck> {
        let len = frame.len();
        if len > self.template.room || len < MIN_FRAME {
            return self.odd_packet(ring, frame);
        }
        let mbuf = self.pop().ok_or(Stuck::NoMbuf)?;
        // SAFETY: the buffer comes from the stash, so it is valid, and now ours alone.
        let to = unsafe { self.template.fill(mbuf, frame.notes(), len, len) };
        ring.copy(frame, to);
        Ok(mbuf)
    }

    /// Deals with a frame that is too short, or too long for one buffer.
    #[cold]
    fn odd_packet(&mut self, ring: &Consumer, frame: &Frame) -> Result<*mut rte_mbuf, Stuck> {
        let (len, room) = (frame.len(), self.template.room);
        if len < MIN_FRAME || room == 0 {
            return Err(Stuck::Runt);
        }
        let (mut head, mut last) = (null_mut::<rte_mbuf>(), null_mut::<rte_mbuf>());
        let (mut offset, mut segments) = (0_u32, 0_u16);
        while offset < len {
            if self.stashed == 0 {
                self.refill();
            }
            let Some(mbuf) = self.pop() else {
                // SAFETY: null, or a chain that is well-formed so far and ours alone.
                unsafe { sys::kopi_pktmbuf_free(head) };
                return Err(Stuck::NoMbuf);
            };
            let here = len.wrapping_sub(offset).min(room);
            // SAFETY: the buffer comes from the stash, so it is valid, and now ours alone.
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
        let at = self.stashed.checked_sub(1)?;
        let mbuf = *self.stash.get(at)?;
        self.stashed = at;
        if let Some(&soon) = at.checked_sub(PREFETCH).and_then(|at| self.stash.get(at)) {
            prefetch(soon);
        }
        Some(mbuf)
    }

    /// Fills the stash from the pool, or, where the pool has less, a half of it, a quarter, and so on.
    fn refill(&mut self) {
        let mut n = STASH.saturating_sub(self.stashed);
        while n > 0 {
            let Some(room) = self.stash.get_mut(self.stashed..self.stashed.saturating_add(n)) else { return };
            let count = u32::try_from(room.len()).unwrap_or(0);
            // SAFETY: the pool is valid, and there is room for `count` pointers.
            let failed = unsafe { sys::kopi_mempool_get_bulk(self.pool, room.as_mut_ptr().cast(), count) };
            if failed == 0 {
                self.stashed = self.stashed.saturating_add(n);
                return;
            }
            n = n.checked_div(2).unwrap_or(0);
        }
    }

    fn give_back(&mut self) {
        let kept = self.stash.get_mut(..self.stashed).unwrap_or_default();
        let count = u32::try_from(kept.len()).unwrap_or(0);
        if count > 0 {
            // SAFETY: the stash holds `count` objects of this pool, in the state in which they came from it.
            unsafe { sys::kopi_mempool_put_bulk(self.pool, kept.as_ptr().cast(), count) };
        }
        self.stashed = 0;
    }
}

impl Template {
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

/// The burst function.
///
/// # Safety
///
/// As ethdev calls it: `queue` is an [`RxQueue`] that no other thread uses now, `packets` takes `n` pointers.
pub(crate) unsafe extern "C" fn burst(queue: *mut c_void, packets: *mut *mut rte_mbuf, n: u16) -> u16 {
    // SAFETY: the queue belongs to this thread during the call.
    let queue = unsafe { &mut *queue.cast::<RxQueue>() };
    if n == 0 {
        return 0;
    }
    // SAFETY: an array of `n` pointers, which may hold anything before.
    let out = unsafe { std::slice::from_raw_parts_mut(packets.cast::<MaybeUninit<*mut rte_mbuf>>(), n.into()) };
    queue.receive(out)
}

/// How many frames wait in the ring.
///
/// # Safety
///
/// As for [`burst`].
pub(crate) unsafe extern "C" fn count(queue: *mut c_void) -> sys::QueueCount {
    // SAFETY: the queue belongs to this thread during the call.
    let queue = unsafe { &mut *queue.cast::<RxQueue>() };
    sys::QueueCount::try_from(queue.filled()).unwrap_or(0)
}

/// Whether the slot `offset` places after the next one to be read has a frame.
///
/// # Safety
///
/// As for [`burst`].
pub(crate) unsafe extern "C" fn descriptor_status(queue: *mut c_void, offset: u16) -> c_int {
    // SAFETY: the queue belongs to this thread during the call.
    let queue = unsafe { &mut *queue.cast::<RxQueue>() };
    if offset >= queue.config.descriptors {
        return crate::ops::code(libc::EINVAL);
    }
    let done = u32::from(offset) < queue.filled();
    crate::ops::status(if done { sys::RTE_ETH_RX_DESC_DONE } else { sys::RTE_ETH_RX_DESC_AVAIL })
}

#[cfg(test)]
mod tests;
