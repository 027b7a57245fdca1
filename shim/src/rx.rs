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
            self.discard();
            return false;
        }
        true
    }

    /// Empties the ring, as if the frames had not come.
    fn discard(&mut self) {
        let Some(ring) = &mut self.ring else { return };
        if ring.poll().is_ok() {
            // A fault will be met again when the link is up.
            while let Ok(Some(_)) = ring.next() {}
            ring.release();
        }
    }

    /// Frames in the ring, also if it is one that no burst has seen yet. That is left where it is: whoever asks may be another
    /// thread than the one that polls.
    fn filled(&mut self) -> u32 {
        if self.shared.is_away() || self.shared.is_down() {
            return 0;
        }
        if self.shared.is_offered() {
            return self.shared.look(|ring| ring.filled().unwrap_or(0)).unwrap_or(0);
        }
        self.ring.as_mut().and_then(|ring| ring.filled().ok()).unwrap_or(0)
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
mod tests {
    use super::*;
    use crate::lab::{Lab, Pool, allocations, bytes, pattern, region, reported};
    use kopi_ring::{Producer, Region};

    fn queue(pool: &Pool, room: u16, region: &Region) -> RxQueue {
        let offloads = sys::RTE_ETH_RX_OFFLOAD_RSS_HASH;
        let config = RxConfig { descriptors: 64, room, scatter: true, offloads };
        // SAFETY: the pool outlives the queue in every test, and was made with this room.
        let queue = unsafe { RxQueue::new(pool.0, 7, config) };
        queue.shared().offer(Box::new(region.rx_consumer(0).unwrap()), region.rx_consumer(0));
        queue
    }

    fn send(ring: &mut Producer, frame: &[u8]) {
        ring.free(u32::MAX).unwrap();
        assert!(ring.push(frame, Notes::new(0x211, 0xfeed)));
        ring.publish();
    }

    fn receive(queue: &mut RxQueue, n: usize) -> Vec<*mut rte_mbuf> {
        let mut out = vec![MaybeUninit::new(null_mut()); n];
        let got = queue.receive(&mut out);
        // SAFETY: initialised with null above.
        out[..usize::from(got)].iter().map(|p| unsafe { p.assume_init() }).collect()
    }

    /// What ethdev is told of frames that wait: how many, and of three places whether one does.
    fn waiting(queue: &mut RxQueue) -> (sys::QueueCount, [c_int; 3]) {
        let at = (&raw mut *queue).cast();
        // SAFETY: a queue, which nobody else uses.
        let status = [0, 2, 3].map(|offset| unsafe { descriptor_status(at, offset) });
        // SAFETY: as above.
        let count = unsafe { count(at) };
        (count, status)
    }

    fn free(packets: &[*mut rte_mbuf]) {
        // SAFETY: packets that the queue has given to us.
        packets.iter().for_each(|p| unsafe { sys::kopi_pktmbuf_free(*p) });
    }

    /// Frames arrive whole and in order, in one buffer or in as many as they need, with port, type and hash.
    #[test]
    fn frames_become_packets() {
        let lab = Lab::new();
        let pool = lab.pool(511, 512);
        let region = region(64, 256);
        let mut ring = region.rx_producer(0).unwrap();
        let mut queue = queue(&pool, 512, &region);
        for (seed, len) in [14, 60, 64, 255, 256, 257, 511, 512, 513, 1024, 1025, 1518, 9022].into_iter().enumerate() {
            send(&mut ring, &pattern(len, seed));
            let packets = receive(&mut queue, 32);
            assert_eq!(packets.len(), 1, "{len} bytes");
            assert_eq!(bytes(packets[0]), pattern(len, seed), "{len} bytes");
            // SAFETY: a packet of ours.
            let head = unsafe { &*packets[0] };
            assert_eq!((head.port, head.packet_type, head.hash[0]), (7, 0x211, 0xfeed));
            assert_eq!((head.ol_flags, head.refcnt), (sys::RTE_MBUF_F_RX_RSS_HASH, 1));
            free(&packets);
        }
        assert_eq!(queue.shared().counters().packets.get(), 13);
    }

    /// Fault 28: with the pool empty, frames stay in the ring, the failure is counted, and they come later.
    #[test]
    fn empty_pool_delays_frames() {
        let lab = Lab::new();
        let pool = lab.pool(7, 512);
        let region = region(64, 256);
        let mut ring = region.rx_producer(0).unwrap();
        let mut queue = queue(&pool, 512, &region);
        (0..20).for_each(|seed| send(&mut ring, &pattern(if seed == 6 { 1500 } else { 100 }, seed)));
        let mut seed = 0;
        while seed < 20 {
            let packets = receive(&mut queue, 32);
            assert!(!packets.is_empty() && packets.len() <= 7);
            assert!(queue.shared().counters().no_mbuf.get() > 0);
            for packet in &packets {
                assert_eq!(bytes(*packet), pattern(if seed == 6 { 1500 } else { 100 }, seed));
                seed += 1;
            }
            free(&packets);
        }
    }

    /// What is shorter than an Ethernet header is dropped and counted, and the next frame comes all the same.
    #[test]
    fn runts_are_dropped() {
        let lab = Lab::new();
        let pool = lab.pool(127, 512);
        let region = region(64, 256);
        let mut ring = region.rx_producer(0).unwrap();
        let mut queue = queue(&pool, 512, &region);
        send(&mut ring, &[1; 13]);
        send(&mut ring, &[2; 14]);
        let packets = receive(&mut queue, 32);
        assert_eq!(packets.iter().map(|p| bytes(*p)).collect::<Vec<_>>(), [[2; 14]]);
        assert_eq!(queue.shared().counters().runt.get(), 1);
        free(&packets);
    }

    /// An application that polls only when frames are said to wait is told so before its first burst: after a start, and when
    /// the daemon has come back, with the old ring still in its hands.
    #[test]
    fn frames_are_counted_before_the_first_burst() {
        let lab = Lab::new();
        let pool = lab.pool(127, 512);
        let (first, second) = (region(64, 256), region(64, 256));
        let mut queue = queue(&pool, 512, &first);
        let [done, open] = [sys::RTE_ETH_RX_DESC_DONE, sys::RTE_ETH_RX_DESC_AVAIL].map(crate::ops::status);
        for region in [&first, &second] {
            let mut ring = region.rx_producer(0).unwrap();
            assert_eq!(waiting(&mut queue), (0, [open; 3]));
            (0..3).for_each(|seed| send(&mut ring, &pattern(100, seed)));
            assert_eq!(waiting(&mut queue), (3, [done, done, open]));
            assert_eq!(waiting(&mut queue), (3, [done, done, open]), "asking takes nothing");
            let packets = receive(&mut queue, 2);
            assert_eq!(packets.len(), 2);
            free(&packets);
            assert_eq!(waiting(&mut queue), (1, [done, open, open]));
            queue.shared().set_away();
            assert_eq!(waiting(&mut queue), (0, [open; 3]), "the daemon has gone");
            queue.shared().collect();
            queue.shared().offer(Box::new(second.rx_consumer(0).unwrap()), second.rx_consumer(0));
        }
    }

    /// While the link is down nothing is received, also from a ring that comes in the meantime, and what has come by then is not
    /// received later.
    #[test]
    fn nothing_is_received_while_the_link_is_down() {
        let lab = Lab::new();
        let pool = lab.pool(127, 512);
        let (first, second) = (region(64, 256), region(64, 256));
        let mut queue = queue(&pool, 512, &first);
        let (mut old, mut new) = (first.rx_producer(0).unwrap(), second.rx_producer(0).unwrap());
        assert!(receive(&mut queue, 32).is_empty());
        queue.shared().set_down(true);
        send(&mut old, &[1; 60]);
        assert!(receive(&mut queue, 32).is_empty() && waiting(&mut queue).0 == 0);
        queue.shared().set_away();
        queue.shared().offer(Box::new(second.rx_consumer(0).unwrap()), second.rx_consumer(0));
        send(&mut new, &[2; 60]);
        assert!(receive(&mut queue, 32).is_empty() && waiting(&mut queue).0 == 0);
        queue.shared().set_down(false);
        send(&mut new, &[3; 60]);
        assert_eq!(waiting(&mut queue).0, 1);
        let packets = receive(&mut queue, 32);
        assert_eq!(packets.iter().map(|p| bytes(*p)).collect::<Vec<_>>(), [[3; 60]]);
        free(&packets);
    }

    /// Fault 14: a daemon that writes nonsense ends this ring, and nothing else; the next ring works.
    #[test]
    fn broken_ring_is_given_up() {
        let lab = Lab::new();
        let pool = lab.pool(127, 512);
        let (broken, good) = (region(64, 256), region(64, 256));
        let mut queue = queue(&pool, 512, &broken);
        rustix::io::pwrite(broken.fd(), &[0xff; 64 * 1024], 4096).unwrap();
        assert!(receive(&mut queue, 32).is_empty());
        assert!(reported(queue.shared()));
        assert!(receive(&mut queue, 32).is_empty());
        assert!(!reported(queue.shared()), "a fault is told once");
        queue.shared().offer(Box::new(good.rx_consumer(0).unwrap()), good.rx_consumer(0));
        send(&mut good.rx_producer(0).unwrap(), &[3; 60]);
        let packets = receive(&mut queue, 32);
        assert_eq!(packets.len(), 1);
        free(&packets);
    }

    /// No allocation per packet: not one, over many bursts, with scattered frames and an empty pool among them.
    #[test]
    fn receiving_allocates_nothing() {
        let lab = Lab::new();
        let pool = lab.pool(63, 512);
        let region = region(64, 256);
        let mut ring = region.rx_producer(0).unwrap();
        let mut queue = queue(&pool, 512, &region);
        let (short, long) = (pattern(64, 1), pattern(1500, 2));
        let mut out = [MaybeUninit::new(null_mut()); 32];
        queue.receive(&mut out);
        let before = allocations();
        let mut received = 0;
        for round in 0..10_000 {
            ring.free(u32::MAX).unwrap();
            while ring.push(if round % 8 == 0 { &long } else { &short }, Notes::NONE) {}
            ring.publish();
            let got = queue.receive(&mut out);
            for packet in out.iter().take(got.into()) {
                // SAFETY: the queue has written that many.
                free(&[unsafe { packet.assume_init() }]);
            }
            received += u32::from(got);
        }
        assert_eq!(allocations(), before);
        assert!(received > 100_000, "{received}");
    }
}
