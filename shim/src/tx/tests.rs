use super::*;
use crate::tests::{TestEal, allocations, fill as write, pattern, region, reported};
use kopi_ring::{Consumer, Doorbell, Region};

pub(super) fn queue(region: &Region, offloads: u64) -> TxQueue {
    let queue = TxQueue::new(TxConfig { descriptors: 64, offloads });
    queue.shared().offer(Box::new(TxPublisher::new(region.tx_producer(0).unwrap(), None)), None);
    queue
}

/// Everything in the ring.
pub(super) fn drain(ring: &mut Consumer) -> Vec<Vec<u8>> {
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

/// A ring has room before the first burst, as after it, and none while the daemon is away.
#[test]
fn ring_has_room_before_the_first_burst() {
    let eal = TestEal::new();
    let pool = eal.pool(127, 512);
    let (first, second) = (region(64, 256), region(64, 256));
    let mut queue = queue(&first, 0);
    let states = |queue: &mut TxQueue| {
        // SAFETY: a queue, which nobody else uses.
        [0, 63].map(|offset| unsafe { descriptor_status((&raw mut *queue).cast(), offset) })
    };
    let [done, full] = [sys::RTE_ETH_TX_DESC_DONE, sys::RTE_ETH_TX_DESC_FULL].map(status);
    for _ in 0..2 {
        assert_eq!(states(&mut queue), [done, done]);
        assert_eq!(queue.send(&mut [pool.packet(&[&[1; 60]])]), 1);
        assert_eq!(states(&mut queue), [done, full]);
        queue.shared().set_down(true);
        let mut packet = [pool.packet(&[&[1; 60]])];
        assert_eq!((queue.send(&mut packet), states(&mut queue)), (0, [full, full]));
        queue.shared().set_down(false);
        assert_eq!((queue.send(&mut packet), states(&mut queue)), (1, [done, full]));
        queue.shared().set_away();
        assert_eq!(states(&mut queue), [full, full]);
        queue.shared().collect();
        queue.shared().offer(Box::new(TxPublisher::new(second.tx_producer(0).unwrap(), None)), None);
    }
}

/// Packets arrive whole and in order, whatever their segments, and are freed: one by one and in bulk.
#[test]
fn packets_become_frames() {
    let eal = TestEal::new();
    for offloads in [0, sys::RTE_ETH_TX_OFFLOAD_MBUF_FAST_FREE] {
        let pool = eal.pool(255, 2048);
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
    let eal = TestEal::new();
    let pool = eal.pool(255, 512);
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
    let eal = TestEal::new();
    let pool = eal.pool(64, 2048);
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
    let eal = TestEal::new();
    let pool = eal.pool(255, 2048);
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
    let eal = TestEal::new();
    let pool = eal.pool(255, 2048);
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
    let eal = TestEal::new();
    let pool = eal.pool(255, 2048);
    let (first, second) = (region(64, 256), region(64, 256));
    let mut queue = queue(&first, 0);
    let mut packets = [pool.packet(&[&[1; 60]])];
    queue.shared().set_away();
    assert_eq!(queue.send(&mut packets), 0);
    queue.shared().offer(Box::new(TxPublisher::new(second.tx_producer(0).unwrap(), None)), None);
    assert_eq!(queue.send(&mut packets), 1);
    assert_eq!(drain(&mut second.tx_consumer(0).unwrap()).len(), 1);
}

/// Fault 14: a daemon that writes nonsense costs this ring; nothing is taken any more, and nothing leaks.
#[test]
fn broken_ring_is_given_up() {
    let eal = TestEal::new();
    let pool = eal.pool(255, 2048);
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
    let eal = TestEal::new();
    let pool = eal.pool(255, 2048);
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
    let eal = TestEal::new();
    let pool = eal.pool(63, 512);
    let region = region(64, 2048);
    let (daemon, doorbell) = Doorbell::pair().unwrap();
    let mut queue = TxQueue::new(TxConfig { descriptors: 64, offloads: 0 });
    queue.shared().offer(Box::new(TxPublisher::new(region.tx_producer(0).unwrap(), Some(Arc::new(doorbell)))), None);
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
