//! The sending side: a TX queue and its burst function.

use crate::handoff::{Counters, Handoff};
use dpdk_sys as sys;
use dpdk_sys::rte_mbuf;
use kopi_ring::layout::{MIN_FRAME, Notes};
use kopi_ring::need_wakeup::{barrier, light_barrier, register_light};
use kopi_ring::{Doorbell, PeerFault, Producer};
use std::ffi::{c_int, c_void};
use std::sync::Arc;
use std::sync::atomic::AtomicU16;
use std::sync::atomic::Ordering::Relaxed;

/// One TX queue, as ethdev hands it to the burst function. Only one thread may use it at a time.
#[derive(Debug)]
#[repr(C, align(128))]
pub(crate) struct TxQueue {
    out: Option<Box<Outlet>>,
    shared: Arc<Handoff<Outlet>>,
    /// The application promises that all packets come from one pool and are not shared.
    fast_free: bool,
    /// The ring end of a daemon that broke the contract, until it can be put aside.
    spent: Option<Box<Outlet>>,
    config: TxConfig,
}

/// A way to the daemon.
#[derive(Debug)]
pub(crate) struct Outlet {
    ring: Producer,
    /// What wakes a daemon that sleeps at times.
    doorbell: Option<Arc<Doorbell>>,
    /// Whether the daemon makes up for a light barrier.
    light: bool,
}

impl Outlet {
    /// A way through `ring`, whose daemon is woken by `doorbell`.
    pub(crate) fn new(ring: Producer, doorbell: Option<Arc<Doorbell>>) -> Self {
        let light = doorbell.is_some() && register_light();
        Self { ring, doorbell, light }
    }

    /// Shows the daemon what was pushed, and wakes it if it sleeps.
    #[inline]
    fn publish(&mut self) {
        self.ring.publish();
        if let Some(doorbell) = &self.doorbell {
            if self.light {
                light_barrier();
            } else {
                barrier();
            }
            if self.ring.take_need_wakeup() {
                doorbell.ring();
            }
        }
    }
}

/// How a queue was set up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TxConfig {
    /// Slots in the ring.
    pub(crate) descriptors: u16,
    /// The effective offloads.
    pub(crate) offloads: u64,
}

/// What one burst did.
#[derive(Debug, Default)]
struct Burst {
    /// Packets done with, sent or dropped.
    done: usize,
    /// Packets put into the ring.
    sent: u64,
    /// Their bytes.
    bytes: u64,
    /// Whether some packet cannot go back to the pool of the first one as it is.
    mixed: bool,
    fault: Option<PeerFault>,
}

/// What became of one packet.
enum Fate {
    Sent,
    Dropped,
    /// The ring has no room for it.
    Full,
}

impl TxQueue {
    /// A queue without ring.
    pub(crate) fn new(config: TxConfig) -> Self {
        let fast_free = config.offloads & sys::RTE_ETH_TX_OFFLOAD_MBUF_FAST_FREE != 0;
        Self { out: None, shared: Arc::new(Handoff::new()), fast_free, spent: None, config }
    }

    /// What the queue shares with the control thread.
    pub(crate) const fn shared(&self) -> &Arc<Handoff<Outlet>> {
        &self.shared
    }

    /// How it was set up.
    pub(crate) const fn config(&self) -> &TxConfig {
        &self.config
    }

    /// Lets go of rings. The application does not send now, and the control thread makes no offer.
    pub(crate) fn reset(&mut self) {
        self.shared.set_away();
        self.shared.collect();
        self.out = None;
        self.spent = None;
    }

    /// Sends packets from the front on, and returns how many it is done with. Those are freed; the ring had no room for
    /// the rest.
    #[inline]
    fn send(&mut self, packets: &mut [*mut rte_mbuf]) -> u16 {
        if !self.shared.is_calm() {
            self.shared.take(&mut self.out, &mut self.spent);
            if self.shared.is_away() || self.shared.is_down() {
                return 0;
            }
        }
        let Some(out) = &mut self.out else { return 0 };
        let burst = fill(&mut out.ring, &self.shared, packets, self.fast_free);
        if burst.sent > 0 {
            out.publish();
            self.shared.counters().packets.add(burst.sent);
            self.shared.counters().bytes.add(burst.bytes);
        }
        if let Some(fault) = burst.fault {
            self.spent = self.out.take();
            self.shared.report(fault);
        }
        if let Some(done) = packets.get_mut(..burst.done) {
            free(done, !burst.mixed);
        }
        u16::try_from(burst.done).unwrap_or(u16::MAX)
    }

    /// Slots that can be filled now. In a ring that no burst has seen yet, that is all of them.
    fn room(&mut self) -> u32 {
        if self.shared.is_away() || self.shared.is_down() {
            return 0;
        }
        if self.shared.is_offered() {
            return self.config.descriptors.into();
        }
        self.out.as_mut().and_then(|out| out.ring.free(u32::MAX).ok()).unwrap_or(0)
    }
}

impl Drop for TxQueue {
    fn drop(&mut self) {
        self.reset();
    }
}

/// Reads one field of a packet's description, and no byte beside it: of the others, the count of references may be changed by
/// whoever shares the packet, so that no reference to the whole description may exist.
macro_rules! read {
    ($mbuf:expr, $field:ident) => {{
        let mbuf: *const rte_mbuf = $mbuf;
        // SAFETY: the application gives us valid packets, and nobody changes this field of them during the call.
        unsafe { (*mbuf).$field }
    }};
}

/// Copies packets into the ring until it is full.
#[inline]
fn fill(ring: &mut Producer, shared: &Handoff<Outlet>, packets: &[*mut rte_mbuf], fast_free: bool) -> Burst {
    let mut burst = Burst::default();
    match ring.free(u32::try_from(packets.len()).unwrap_or(u32::MAX)) {
        Ok(0) => return burst,
        Ok(_) => {}
        Err(fault) => return Burst { fault: Some(fault), ..burst },
    }
    let max_frame = shared.max_frame();
    let mut pool = None;
    for &mbuf in packets {
        let single = read!(mbuf, nb_segs) == 1;
        burst.mixed |= !single;
        if !fast_free {
            let home = read!(mbuf, pool);
            burst.mixed |= !is_unshared(mbuf) || *pool.get_or_insert(home) != home;
        }
        let len = u32::from(read!(mbuf, data_len));
        let plain = single && (MIN_FRAME..=max_frame).contains(&len);
        // SAFETY: a valid packet of the application's.
        let fate = if plain && ring.push(unsafe { data(mbuf) }, Notes::NONE) {
            burst.bytes = burst.bytes.wrapping_add(len.into());
            Fate::Sent
        } else {
            match send_odd(ring, mbuf, max_frame, shared.counters()) {
                Ok((fate, bytes)) => {
                    burst.bytes = burst.bytes.wrapping_add(bytes.into());
                    fate
                }
                Err(fault) => {
                    burst.fault = Some(fault);
                    break;
                }
            }
        };
        match fate {
            Fate::Sent => burst.sent = burst.sent.wrapping_add(1),
            Fate::Dropped => {}
            Fate::Full => break,
        }
        burst.done = burst.done.wrapping_add(1);
    }
    burst
}

/// Sends or drops a packet that is not a plain one, or for which no slot was known to be free.
#[cold]
fn send_odd(
    ring: &mut Producer,
    mbuf: *const rte_mbuf,
    max_frame: u32,
    counters: &Counters,
) -> Result<(Fate, u32), PeerFault> {
    let len = read!(mbuf, pkt_len);
    if len < MIN_FRAME {
        counters.runt.add(1);
        return Ok((Fate::Dropped, 0));
    }
    if len > max_frame {
        counters.oversize.add(1);
        return Ok((Fate::Dropped, 0));
    }
    let slots = ring.slots_for(len);
    if slots <= ring.size() && ring.free(slots)? < slots {
        return Ok((Fate::Full, 0));
    }
    if let Some(mut frame) = ring.begin(len, Notes::NONE) {
        let mut next = mbuf;
        let mut whole = true;
        while whole && !next.is_null() {
            // SAFETY: the segments of a valid packet are valid.
            whole = frame.append(unsafe { data(next) });
            next = read!(next, next);
        }
        if whole && frame.finish() {
            return Ok((Fate::Sent, len));
        }
    }
    counters.malformed.add(1);
    Ok((Fate::Dropped, 0))
}

/// The bytes of a segment.
///
/// # Safety
///
/// A valid segment, whose bytes nobody changes as long as the result lives.
#[inline]
unsafe fn data<'a>(mbuf: *const rte_mbuf) -> &'a [u8] {
    let len = usize::from(read!(mbuf, data_len));
    // A segment without bytes may have no buffer either.
    if len == 0 {
        return &[];
    }
    let begin = read!(mbuf, buf_addr).cast::<u8>().cast_const().wrapping_add(read!(mbuf, data_off).into());
    // SAFETY: the application vouches for the data of its packet, and leaves it alone during the call.
    unsafe { std::slice::from_raw_parts(begin, len) }
}

/// Whether the packet is ours alone, in a buffer of its own.
#[inline]
fn is_unshared(mbuf: *const rte_mbuf) -> bool {
    let mbuf = mbuf.cast_mut();
    // SAFETY: a field of a valid packet.
    let count = unsafe { &raw mut (*mbuf).refcnt };
    // SAFETY: aligned and valid. Other holders, if there are any, change it atomically too.
    let count = unsafe { AtomicU16::from_ptr(count) }.load(Relaxed);
    count == 1 && read!(mbuf, ol_flags) & (sys::RTE_MBUF_F_INDIRECT | sys::RTE_MBUF_F_EXTERNAL) == 0
}

/// Gives packets back to their pools. `one_pool` says that all of them can go to that of the first one as they
/// are.
#[inline]
fn free(packets: &mut [*mut rte_mbuf], one_pool: bool) {
    let count = u32::try_from(packets.len()).unwrap_or(0);
    let Some(&first) = packets.first() else { return };
    if one_pool {
        // SAFETY: a valid packet that is ours now.
        let pool = unsafe { (*first).pool };
        // SAFETY: all packets are unshared, direct, of one segment and of this pool, as they were when they came from it.
        unsafe { sys::kopi_mempool_put_bulk(pool, packets.as_ptr().cast(), count) };
    } else {
        // SAFETY: `count` valid packets that are ours now.
        unsafe { sys::rte_pktmbuf_free_bulk(packets.as_mut_ptr(), count) };
    }
}

/// The burst function.
///
/// # Safety
///
/// As ethdev calls it: `queue` is a [`TxQueue`] that no other thread uses now, `packets` are `n` valid packets.
pub(crate) unsafe extern "C" fn burst(queue: *mut c_void, packets: *mut *mut rte_mbuf, n: u16) -> u16 {
    // SAFETY: the queue belongs to this thread during the call.
    let queue = unsafe { &mut *queue.cast::<TxQueue>() };
    if n == 0 {
        return 0;
    }
    // SAFETY: an array of `n` pointers, which nobody else uses during the call.
    let packets = unsafe { std::slice::from_raw_parts_mut(packets, n.into()) };
    queue.send(packets)
}

/// Whether the slot `offset` places after the next one to be filled is free.
///
/// # Safety
///
/// As for [`burst`].
pub(crate) unsafe extern "C" fn descriptor_status(queue: *mut c_void, offset: u16) -> c_int {
    // SAFETY: the queue belongs to this thread during the call.
    let queue = unsafe { &mut *queue.cast::<TxQueue>() };
    if offset >= queue.config.descriptors {
        return crate::ops::code(libc::EINVAL);
    }
    let free = u32::from(offset) < queue.room();
    crate::ops::status(if free { sys::RTE_ETH_TX_DESC_DONE } else { sys::RTE_ETH_TX_DESC_FULL })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::{Lab, allocations, fill as write, pattern, region, reported};
    use kopi_ring::{Consumer, Region};

    fn queue(region: &Region, offloads: u64) -> TxQueue {
        let queue = TxQueue::new(TxConfig { descriptors: 64, offloads });
        queue.shared().offer(Box::new(Outlet::new(region.tx_producer(0).unwrap(), None)), None);
        queue
    }

    /// Everything in the ring.
    fn drain(ring: &mut Consumer) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        ring.poll().unwrap();
        while let Some(frame) = ring.next().unwrap() {
            let mut bytes = vec![0; frame.len() as usize];
            ring.copy_from(&frame, 0, &mut bytes);
            frames.push(bytes);
        }
        ring.release();
        frames
    }

    /// A ring is said to have room before the first burst, as after it, and none while the daemon is away.
    #[test]
    fn room_is_told_before_the_first_burst() {
        let lab = Lab::new();
        let pool = lab.pool(127, 512);
        let (first, second) = (region(64, 256), region(64, 256));
        let mut queue = queue(&first, 0);
        let status = |queue: &mut TxQueue| {
            // SAFETY: a queue, which nobody else uses.
            [0, 63].map(|offset| unsafe { descriptor_status((&raw mut *queue).cast(), offset) })
        };
        let [done, full] = [sys::RTE_ETH_TX_DESC_DONE, sys::RTE_ETH_TX_DESC_FULL].map(crate::ops::status);
        for _ in 0..2 {
            assert_eq!(status(&mut queue), [done, done]);
            assert_eq!(queue.send(&mut [pool.packet(&[&[1; 60]])]), 1);
            assert_eq!(status(&mut queue), [done, full]);
            queue.shared().set_down(true);
            let mut packet = [pool.packet(&[&[1; 60]])];
            assert_eq!((queue.send(&mut packet), status(&mut queue)), (0, [full, full]));
            queue.shared().set_down(false);
            assert_eq!((queue.send(&mut packet), status(&mut queue)), (1, [done, full]));
            queue.shared().set_away();
            assert_eq!(status(&mut queue), [full, full]);
            queue.shared().collect();
            queue.shared().offer(Box::new(Outlet::new(second.tx_producer(0).unwrap(), None)), None);
        }
    }

    /// Packets arrive whole and in order, whatever their segments, and are freed: one by one and in bulk.
    #[test]
    fn packets_become_frames() {
        let lab = Lab::new();
        for offloads in [0, sys::RTE_ETH_TX_OFFLOAD_MBUF_FAST_FREE] {
            let pool = lab.pool(255, 2048);
            let region = region(64, 256);
            let mut ring = region.tx_consumer(0).unwrap();
            let mut queue = queue(&region, offloads);
            let whole = pattern(1500, 3);
            let splits: [&[usize]; 7] = [&[], &[1], &[14], &[256], &[255, 257], &[0, 700], &[100, 200, 300, 1400]];
            for cuts in splits {
                let mut pieces = Vec::new();
                let mut from = 0;
                for to in cuts.iter().chain(&[whole.len()]) {
                    pieces.push(&whole[from..*to]);
                    from = *to;
                }
                let mut packets = [pool.packet(&[&whole[..60]]), pool.packet(&pieces), pool.packet(&[&whole[..14]])];
                assert_eq!(queue.send(&mut packets), 3, "{cuts:?}");
                assert_eq!(drain(&mut ring), [&whole[..60], &whole, &whole[..14]], "{cuts:?}");
                assert_eq!(pool.used(), 0, "{cuts:?}");
            }
        }
    }

    /// Fault 28: buffers that are attached, external or held by somebody else too are sent right, and only our hold on
    /// them ends.
    #[test]
    fn shared_buffers_are_sent_and_let_go() {
        let lab = Lab::new();
        let pool = lab.pool(255, 512);
        let region = region(64, 256);
        let mut ring = region.tx_consumer(0).unwrap();
        let mut queue = queue(&region, 0);
        let payload = pattern(200, 5);

        let held = pool.packet(&[&payload]);
        // SAFETY: a packet of ours.
        unsafe { sys::kopi_mbuf_refcnt_update(held, 1) };
        let direct = pool.packet(&[&payload]);
        // SAFETY: a valid pool.
        let indirect = unsafe { sys::kopi_pktmbuf_alloc(pool.0) };
        // SAFETY: two packets of ours.
        unsafe { sys::kopi_pktmbuf_attach(indirect, direct) };
        let mut outside = [0_u8; 512];
        outside[..200].copy_from_slice(&payload);
        unsafe extern "C" fn forget(_at: *mut c_void, _argument: *mut c_void) {}
        // SAFETY: all zeros is a valid description, and is filled in below.
        let mut shared: sys::rte_mbuf_ext_shared_info = unsafe { std::mem::zeroed() };
        shared.free_cb = Some(forget);
        shared.refcnt = 1;
        // SAFETY: a valid pool.
        let external = unsafe { sys::kopi_pktmbuf_alloc(pool.0) };
        // SAFETY: the memory and its description outlive the packet.
        unsafe { sys::kopi_pktmbuf_attach_extbuf(external, outside.as_mut_ptr().cast(), 0, 512, &raw mut shared) };
        // SAFETY: a packet of ours.
        unsafe { (*external).data_off = 0 };
        write(external, &payload);

        let mut packets = [held, indirect, external];
        assert_eq!(queue.send(&mut packets), 3);
        assert_eq!(drain(&mut ring), [&payload[..], &payload, &payload]);
        // SAFETY: the hold that is left is ours.
        assert_eq!(unsafe { sys::kopi_mbuf_refcnt_read(held) }, 1);
        assert_eq!(pool.used(), 2, "held and direct");
        // SAFETY: packets of ours.
        [held, direct].iter().for_each(|packet| unsafe { sys::kopi_pktmbuf_free(*packet) });
    }

    /// A segment without bytes may be without a buffer, wherever in the packet it is.
    #[test]
    fn empty_segments_need_no_buffer() {
        let lab = Lab::new();
        let pool = lab.pool(64, 2048);
        let region = region(64, 256);
        let mut ring = region.tx_consumer(0).unwrap();
        let mut queue = queue(&region, 0);
        let piece = pattern(60, 1);
        for (pieces, empty) in
            [(&[&piece[..], &[]][..], 1), (&[&[], &piece[..]], 0), (&[&piece[..30], &[], &piece[30..]], 1)]
        {
            let packet = pool.packet(pieces);
            let mut segment = packet;
            for _ in 0..empty {
                // SAFETY: a segment of a valid packet of ours.
                segment = unsafe { (*segment).next };
            }
            // SAFETY: as above. Nobody takes the buffer from the pool again.
            unsafe { (*segment).buf_addr = std::ptr::null_mut() };
            // SAFETY: as above.
            unsafe { (*segment).data_off = 0 };
            assert_eq!(queue.send(&mut [packet]), 1);
            assert_eq!(drain(&mut ring), std::slice::from_ref(&piece));
        }
    }

    /// A full ring takes no more, and the packets that it did not take stay the application's.
    #[test]
    fn full_ring_pushes_back() {
        let lab = Lab::new();
        let pool = lab.pool(255, 2048);
        let region = region(64, 256);
        let mut ring = region.tx_consumer(0).unwrap();
        let mut queue = queue(&region, 0);
        let frame = pattern(600, 1);
        let mut packets: Vec<_> = (0..32).map(|_| pool.packet(&[&frame])).collect();
        assert_eq!(queue.send(&mut packets), 21, "three slots for each, of 64");
        assert_eq!(pool.used(), 11);
        assert_eq!(queue.send(&mut packets[21..]), 0);
        assert_eq!(drain(&mut ring).len(), 21);
        assert_eq!(queue.send(&mut packets[21..]), 11);
        assert_eq!(drain(&mut ring).len(), 11);
    }

    /// What cannot be a frame is dropped, counted by its reason, and does not hold the others up.
    #[test]
    fn bad_packets_are_dropped_by_reason() {
        let lab = Lab::new();
        let pool = lab.pool(255, 2048);
        let region = region(64, 2048);
        let mut ring = region.tx_consumer(0).unwrap();
        let mut queue = queue(&region, 0);
        queue.shared().set_max_frame(1522);
        let lying = pool.packet(&[&[1; 100], &[2; 100]]);
        // SAFETY: a packet of ours.
        unsafe { (*lying).pkt_len = 150 };
        let mut packets = [
            pool.packet(&[&[0; 13]]),
            pool.packet(&[&[0; 1523]]),
            pool.packet(&[&[0; 1000], &[0; 1000]]),
            lying,
            pool.packet(&[&[9; 1522]]),
        ];
        assert_eq!(queue.send(&mut packets), 5);
        assert_eq!(drain(&mut ring), [[9; 1522]]);
        let counters = queue.shared().counters();
        let dropped = [&counters.runt, &counters.oversize, &counters.malformed].map(|c| c.get());
        assert_eq!((dropped, counters.packets.get()), ([1, 2, 1], 1));
    }

    /// While the daemon is away nothing is taken, and with the next ring it goes on.
    #[test]
    fn absent_daemon_pushes_back() {
        let lab = Lab::new();
        let pool = lab.pool(255, 2048);
        let (first, second) = (region(64, 256), region(64, 256));
        let mut queue = queue(&first, 0);
        let mut packets = [pool.packet(&[&[1; 60]])];
        queue.shared().set_away();
        assert_eq!(queue.send(&mut packets), 0);
        queue.shared().offer(Box::new(Outlet::new(second.tx_producer(0).unwrap(), None)), None);
        assert_eq!(queue.send(&mut packets), 1);
        assert_eq!(drain(&mut second.tx_consumer(0).unwrap()).len(), 1);
    }

    /// Fault 14: a daemon that writes nonsense ends this ring; nothing is taken any more, and nothing leaks.
    #[test]
    fn broken_ring_is_given_up() {
        let lab = Lab::new();
        let pool = lab.pool(255, 2048);
        let region = region(64, 256);
        let mut queue = queue(&region, 0);
        rustix::io::pwrite(region.fd(), &[0xff; 1024], 4096).unwrap();
        let mut packets: Vec<_> = (0..65).map(|_| pool.packet(&[&[1; 60]])).collect();
        let taken = usize::from(queue.send(&mut packets));
        assert!(reported(queue.shared()));
        assert_eq!(queue.send(&mut packets[taken..]), 0);
        // SAFETY: packets that the queue has not taken.
        packets[taken..].iter().for_each(|packet| unsafe { sys::kopi_pktmbuf_free(*packet) });
    }

    /// No allocation per packet: not one, over many bursts, with segments, drops and a full ring among them.
    #[test]
    fn sending_allocates_nothing() {
        let lab = Lab::new();
        let pool = lab.pool(255, 2048);
        let region = region(64, 256);
        let mut ring = region.tx_consumer(0).unwrap();
        let mut queue = queue(&region, 0);
        let frame = pattern(600, 1);
        queue.send(&mut [pool.packet(&[&frame])]);
        let before = allocations();
        let mut sent = 0;
        for _ in 0..5_000 {
            let mut packets = [
                pool.packet(&[&frame]),
                pool.packet(&[&frame[..60]]),
                pool.packet(&[&frame[..5]]),
                pool.packet(&[&frame[..100], &frame[100..]]),
            ];
            let taken = usize::from(queue.send(&mut packets));
            sent += taken;
            for packet in &packets[taken..] {
                // SAFETY: a packet that the queue has not taken.
                unsafe { sys::kopi_pktmbuf_free(*packet) };
            }
            if sent % 64 < 8 || taken == 0 {
                ring.poll().unwrap();
                while ring.next().unwrap().is_some() {}
                ring.release();
            }
        }
        assert_eq!(allocations(), before);
        assert!(sent > 10_000, "{sent}");
    }

    /// A daemon that sleeps is woken once, by the first burst after it has set `need_wakeup`, and by none before.
    #[test]
    fn sleeping_daemon_is_woken_once() {
        let lab = Lab::new();
        let pool = lab.pool(63, 512);
        let region = region(64, 2048);
        let (daemon, doorbell) = Doorbell::pair().unwrap();
        let mut queue = TxQueue::new(TxConfig { descriptors: 64, offloads: 0 });
        queue.shared().offer(Box::new(Outlet::new(region.tx_producer(0).unwrap(), Some(Arc::new(doorbell)))), None);
        let consumer = region.tx_consumer(0).unwrap();
        let mut wakeups = || {
            let mut packets = [pool.packet(&[&[7; 60]]), pool.packet(&[&[7; 60]])];
            assert_eq!(queue.send(&mut packets), 2);
            rustix::net::recv(&daemon, &mut [0; 16], rustix::net::RecvFlags::DONTWAIT).map_or(0, |(n, _)| n)
        };
        assert_eq!(wakeups(), 0);
        consumer.set_need_wakeup();
        assert_eq!([wakeups(), wakeups()], [1, 0]);
        consumer.set_need_wakeup();
        consumer.clear_need_wakeup();
        assert_eq!(wakeups(), 0);
    }
}
