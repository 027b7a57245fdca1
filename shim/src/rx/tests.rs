use super::*;
use crate::tests::{Pool, TestEal, allocations, bytes, lanes, pattern, region, reported};
use kopi_ring::layout::Notes;
use kopi_ring::{Producer, Region};
use std::ptr::null_mut;

fn queue(pool: &Pool, room: u16, region: &Region) -> RxQueue {
    let offloads = sys::RTE_ETH_RX_OFFLOAD_RSS_HASH;
    let config = RxConfig { descriptors: 64, room, offloads, timestamp: None };
    // SAFETY: the pool outlives the queue in every test, and was made with this room.
    let queue = unsafe { RxQueue::new(pool.0, 7, config) };
    offer(&queue, region);
    queue
}

/// Offers a region's first queue, as the control thread does.
pub(super) fn offer(queue: &RxQueue, region: &Region) {
    queue.shared().offer(Box::new(Lanes::of(region, 0).unwrap()), Lanes::of(region, 0));
}

pub(super) fn send(ring: &mut Producer, frame: &[u8]) {
    ring.free(u32::MAX).unwrap();
    assert!(ring.push(frame, Notes::new(0x211, 0xfeed)));
    ring.publish();
}

pub(super) fn receive(queue: &mut RxQueue, n: usize) -> Vec<*mut rte_mbuf> {
    let mut out = vec![MaybeUninit::new(null_mut()); n];
    let got = queue.receive(&mut out);
    // SAFETY: initialised with null above.
    out[..usize::from(got)].iter().map(|p| unsafe { p.assume_init() }).collect()
}

/// What ethdev gets to know of frames in the ring: how many, and whether each of three slots has one.
fn waiting(queue: &mut RxQueue) -> (sys::QueueCount, [c_int; 3]) {
    let at = (&raw mut *queue).cast();
    // SAFETY: a queue, which nobody else uses.
    let states = [0, 2, 3].map(|offset| unsafe { descriptor_status(at, offset) });
    // SAFETY: as above.
    let count = unsafe { count(at) };
    (count, states)
}

pub(super) fn free(packets: &[*mut rte_mbuf]) {
    // SAFETY: packets that the queue has given to us.
    packets.iter().for_each(|p| unsafe { sys::kopi_pktmbuf_free(*p) });
}

/// Frames arrive whole and in order, in one buffer or in as many as they need, with port, type and hash.
#[test]
fn frames_become_packets() {
    let eal = TestEal::new();
    let pool = eal.pool(511, 512);
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
    let eal = TestEal::new();
    let pool = eal.pool(7, 512);
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

/// A burst may be longer than what a queue keeps of buffers, and has frames of all kinds: all of them come, in order, and no buffer
/// was missing.
#[test]
fn long_bursts_come_whole() {
    let eal = TestEal::new();
    let pool = eal.pool(511, 512);
    let region = region(512, 256);
    let mut ring = region.rx_producer(0).unwrap();
    let mut queue = queue(&pool, 512, &region);
    let lens: Vec<usize> = (0..150).map(|n| [64, 256, 14, 1000, 60, 513, 300][n / 5 % 7]).collect();
    lens.iter().enumerate().for_each(|(seed, len)| send(&mut ring, &pattern(*len, seed)));
    let packets = receive(&mut queue, 200);
    assert_eq!(packets.len(), lens.len());
    for (seed, (packet, len)) in packets.iter().zip(&lens).enumerate() {
        assert_eq!(bytes(*packet), pattern(*len, seed), "frame {seed}");
    }
    let counters = queue.shared().counters();
    let total = lens.iter().sum::<usize>() as u64;
    assert_eq!((counters.packets.get(), counters.bytes.get(), counters.no_mbuf.get()), (150, total, 0));
    free(&packets);
}

/// What is shorter than an Ethernet header is dropped and counted, and the next frame comes all the same.
#[test]
fn runts_are_dropped() {
    let eal = TestEal::new();
    let pool = eal.pool(127, 512);
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

/// An application that polls only when frames are in its ring learns of them before its first burst: after a start, and when the
/// daemon has come back and the application still has the old ring.
#[test]
fn frames_are_counted_before_the_first_burst() {
    let eal = TestEal::new();
    let pool = eal.pool(127, 512);
    let (first, second) = (region(64, 256), region(64, 256));
    let mut queue = queue(&pool, 512, &first);
    let [done, open] = [sys::RTE_ETH_RX_DESC_DONE, sys::RTE_ETH_RX_DESC_AVAIL].map(status);
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
        offer(&queue, &second);
    }
}

/// While the link is down nothing is received, also from a ring that comes in the meantime, and what has come by then is not
/// received later.
#[test]
fn nothing_is_received_while_the_link_is_down() {
    let eal = TestEal::new();
    let pool = eal.pool(127, 512);
    let (first, second) = (region(64, 256), region(64, 256));
    let mut queue = queue(&pool, 512, &first);
    let (mut old, mut new) = (first.rx_producer(0).unwrap(), second.rx_producer(0).unwrap());
    assert!(receive(&mut queue, 32).is_empty());
    queue.shared().set_rx_down(true);
    send(&mut old, &[1; 60]);
    assert!(receive(&mut queue, 32).is_empty() && waiting(&mut queue).0 == 0);
    queue.shared().set_away();
    offer(&queue, &second);
    send(&mut new, &[2; 60]);
    assert!(receive(&mut queue, 32).is_empty() && waiting(&mut queue).0 == 0);
    queue.shared().set_rx_down(false);
    send(&mut new, &[3; 60]);
    assert_eq!(waiting(&mut queue).0, 1);
    let packets = receive(&mut queue, 32);
    assert_eq!(packets.iter().map(|p| bytes(*p)).collect::<Vec<_>>(), [[3; 60]]);
    assert_eq!(queue.shared().counters().link_down.get(), 2);
    free(&packets);
}

/// An application that does not poll while its link is down receives no frame of that time later, nor are such frames counted as
/// waiting. It gets what came after, however much later it polls: from a ring that it has, and from one that it has not taken yet.
#[test]
fn nothing_of_the_time_with_the_link_down_comes_later() {
    let eal = TestEal::new();
    let pool = eal.pool(127, 512);
    let (first, second) = (region(64, 256), region(64, 256));
    let mut queue = queue(&pool, 512, &first);
    assert!(receive(&mut queue, 32).is_empty());
    for (region, already) in [(&first, 0), (&second, 9)] {
        let mut ring = region.rx_producer(0).unwrap();
        send(&mut ring, &[1; 60]);
        queue.shared().set_rx_down(true);
        // One of them in several slots.
        (0..5).for_each(|_| send(&mut ring, &[2; 60]));
        send(&mut ring, &[2; 1000]);
        queue.shared().set_rx_down(false);
        assert_eq!(waiting(&mut queue).0, 0);
        // Once more, with frames between.
        send(&mut ring, &[2; 60]);
        queue.shared().set_rx_down(true);
        send(&mut ring, &[2; 60]);
        queue.shared().set_rx_down(false);
        assert_eq!(waiting(&mut queue).0, 0);
        send(&mut ring, &[3; 60]);
        assert_eq!((waiting(&mut queue).0, queue.shared().counters().link_down.get()), (1, already));
        let packets = receive(&mut queue, 32);
        assert_eq!(packets.iter().map(|p| bytes(*p)).collect::<Vec<_>>(), [[3; 60]]);
        assert_eq!((waiting(&mut queue).0, queue.shared().counters().link_down.get()), (0, already + 9));
        free(&packets);
        queue.shared().collect();
        offer(&queue, &second);
    }
}

/// A ring that comes after the link is up again, or a link that is set up twice, costs no frame.
#[test]
fn nothing_is_stale_in_a_new_ring() {
    let eal = TestEal::new();
    let pool = eal.pool(127, 512);
    let (first, second) = (region(64, 256), region(64, 256));
    let mut queue = queue(&pool, 512, &first);
    let mut old = first.rx_producer(0).unwrap();
    queue.shared().set_rx_down(true);
    (0..5).for_each(|_| send(&mut old, &[1; 60]));
    queue.shared().set_rx_down(false);
    queue.shared().set_away();
    queue.shared().set_rx_down(true);
    queue.shared().set_rx_down(false);
    offer(&queue, &second);
    let mut new = second.rx_producer(0).unwrap();
    (0..3).for_each(|_| send(&mut new, &[2; 60]));
    queue.shared().set_rx_down(false);
    let packets = receive(&mut queue, 32);
    assert_eq!((packets.len(), queue.shared().counters().link_down.get()), (3, 0));
    free(&packets);
}

/// Fault 14: a daemon that writes nonsense costs this ring, and nothing else; the next ring works.
#[test]
fn broken_ring_is_given_up() {
    let eal = TestEal::new();
    let pool = eal.pool(127, 512);
    let (broken, good) = (region(64, 256), region(64, 256));
    let mut queue = queue(&pool, 512, &broken);
    rustix::io::pwrite(broken.fd(), &[0xff; 64 * 1024], 4096).unwrap();
    assert!(receive(&mut queue, 32).is_empty());
    assert!(reported(queue.shared()));
    assert!(receive(&mut queue, 32).is_empty());
    assert!(!reported(queue.shared()), "a fault is reported once");
    offer(&queue, &good);
    send(&mut good.rx_producer(0).unwrap(), &[3; 60]);
    let packets = receive(&mut queue, 32);
    assert_eq!(packets.len(), 1);
    free(&packets);
}

/// No allocation per packet: not one, over many bursts, with scattered frames and an empty pool among them.
#[test]
fn receiving_allocates_nothing() {
    let eal = TestEal::new();
    let pool = eal.pool(63, 512);
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

/// The filling ends of all lanes.
fn producers(region: &Region) -> Vec<Producer> {
    (0..region.geometry().rx().len()).map(|ring| region.rx_producer(ring).unwrap()).collect()
}

/// Receives up to `n` frames, gives the buffers back, and returns each one's first byte and the number in its second.
fn heads(queue: &mut RxQueue, n: usize) -> Vec<(u8, u8)> {
    let packets = receive(queue, n);
    let heads = packets.iter().map(|packet| bytes(*packet)).map(|frame| (frame[0], frame[1])).collect();
    free(&packets);
    heads
}

/// Frame `number` of lane `lane`.
fn numbered(lane: u8, number: u8) -> [u8; 60] {
    let mut frame = [0; 60];
    [frame[0], frame[1]] = [lane, number];
    frame
}

/// Everything that comes through any lane is received once, with the order of each lane, whatever the bursts; and it is all counted
/// as waiting before.
#[test]
fn lanes_are_merged() {
    let eal = TestEal::new();
    let pool = eal.pool(511, 512);
    for (count, burst) in [(2, 32), (2, 1), (3, 5), (4, 7), (16, 32)] {
        let region = lanes(count, 64);
        let mut rings = producers(&region);
        let mut queue = queue(&pool, 512, &region);
        assert!(heads(&mut queue, burst).is_empty());
        let mut sent = vec![0_u8; count];
        let mut received = vec![0_u8; count];
        for round in 0..60_usize {
            for (lane, ring) in rings.iter_mut().enumerate() {
                // Some lanes are empty, some have one frame, some more.
                for _ in 0..(round * 5 + lane * 3) % 7 % 4 {
                    send(ring, &numbered(u8::try_from(lane).unwrap(), sent[lane]));
                    sent[lane] += 1;
                }
            }
            let left = |received: &[u8]| {
                sent.iter().zip(received).map(|(s, r)| sys::QueueCount::from(s - r)).sum::<sys::QueueCount>()
            };
            assert_eq!(waiting(&mut queue).0, left(&received).min(64));
            for _ in 0..if round == 59 { 1000 } else { 2 } {
                for (lane, number) in heads(&mut queue, burst) {
                    let expected = &mut received[usize::from(lane)];
                    assert_eq!(number, *expected, "lane {lane} of {count}");
                    *expected += 1;
                }
            }
        }
        assert_eq!(received, sent);
        let total: u64 = sent.iter().map(|n| u64::from(*n)).sum();
        assert_eq!(queue.shared().counters().packets.get(), total);
    }
}

/// However much comes through one lane, the others get their turn: a full lane leaves another one's frame waiting for no more bursts
/// than there are lanes.
#[test]
fn full_lanes_do_not_hold_up_others() {
    let eal = TestEal::new();
    let pool = eal.pool(511, 512);
    let region = lanes(4, 64);
    let mut rings = producers(&region);
    let mut queue = queue(&pool, 512, &region);
    assert!(heads(&mut queue, 8).is_empty());
    let mut counts = [0; 4];
    for _ in 0..40 {
        for (lane, ring) in rings.iter_mut().enumerate() {
            ring.free(u32::MAX).unwrap();
            while ring.push(&numbered(u8::try_from(lane).unwrap(), 0), Notes::NONE) {}
            ring.publish();
        }
        let got = heads(&mut queue, 8);
        assert_eq!(got.len(), 8);
        got.iter().for_each(|(lane, _)| counts[usize::from(*lane)] += 1);
    }
    assert_eq!(counts, [80; 4]);
}

/// Fault 14: nonsense in one lane costs all of them, since they are one daemon's; what was received from others in that burst is
/// good, and the next rings work.
#[test]
fn broken_lane_is_given_up_with_the_others() {
    let eal = TestEal::new();
    let pool = eal.pool(127, 512);
    let (broken, good) = (lanes(3, 64), lanes(2, 64));
    let mut queue = queue(&pool, 512, &broken);
    let mut rings = producers(&broken);
    assert!(heads(&mut queue, 32).is_empty());
    // The next burst begins with lane 1, and comes to lane 0 last.
    send(&mut rings[1], &numbered(1, 0));
    send(&mut rings[2], &numbered(2, 0));
    let span = broken.geometry().layout().rx[0];
    rustix::io::pwrite(broken.fd(), &[0xff; 4], span.offset.try_into().unwrap()).unwrap();
    assert_eq!(heads(&mut queue, 32), [(1, 0), (2, 0)]);
    assert!(reported(queue.shared()));
    assert!(heads(&mut queue, 32).is_empty() && waiting(&mut queue).0 == 0);
    assert!(!reported(queue.shared()), "a fault is reported once");
    offer(&queue, &good);
    send(&mut producers(&good)[1], &numbered(1, 7));
    assert_eq!(heads(&mut queue, 32), [(1, 7)]);
    queue.shared().collect();
}

/// A kopid with another number of workers brings another number of lanes, while the application polls: each frame of the rings in use
/// is received once.
#[test]
fn number_of_lanes_changes_while_polled() {
    let eal = TestEal::new();
    let pool = eal.pool(127, 512);
    let first = region(64, 256);
    let mut queue = queue(&pool, 512, &first);
    for count in [1, 2, 1, 4, 2, 16, 1] {
        let region = lanes(count, 64);
        assert!(heads(&mut queue, 32).is_empty());
        queue.shared().set_away();
        assert!(heads(&mut queue, 32).is_empty());
        queue.shared().collect();
        offer(&queue, &region);
        let mut rings = producers(&region);
        for (lane, ring) in (0..).zip(&mut rings) {
            send(ring, &numbered(lane, 1));
        }
        assert_eq!(usize::try_from(waiting(&mut queue).0).unwrap(), count);
        let mut got = heads(&mut queue, 32);
        got.sort_unstable();
        assert_eq!(got, (0..u8::try_from(count).unwrap()).map(|lane| (lane, 1)).collect::<Vec<_>>());
        // Once more, and now the rings are replaced without a pause.
        let other = lanes(count % 4 + 1, 64);
        offer(&queue, &other);
        send(&mut producers(&other)[count % 4], &numbered(9, 9));
        queue.shared().collect();
        assert_eq!(heads(&mut queue, 32), [(9, 9)]);
        queue.shared().collect();
    }
}

/// What came through any lane while the link was down is not received later, and what came after that is.
#[test]
fn lanes_are_emptied_when_the_link_comes_up() {
    let eal = TestEal::new();
    let pool = eal.pool(127, 512);
    let region = lanes(3, 64);
    let mut rings = producers(&region);
    let mut queue = queue(&pool, 512, &region);
    assert!(heads(&mut queue, 32).is_empty());
    send(&mut rings[0], &numbered(0, 0));
    queue.shared().set_rx_down(true);
    for ring in &mut rings {
        (0..4).for_each(|_| send(ring, &numbered(9, 9)));
    }
    assert_eq!(waiting(&mut queue).0, 0);
    queue.shared().set_rx_down(false);
    assert_eq!(waiting(&mut queue).0, 0);
    send(&mut rings[1], &numbered(1, 1));
    send(&mut rings[2], &numbered(2, 1));
    assert_eq!(waiting(&mut queue).0, 2);
    let mut got = heads(&mut queue, 32);
    got.sort_unstable();
    assert_eq!(got, [(1, 1), (2, 1)]);
    assert_eq!(queue.shared().counters().link_down.get(), 13);
    // A burst while it is down empties all of them, too.
    queue.shared().set_rx_down(true);
    rings.iter_mut().for_each(|ring| send(ring, &numbered(9, 9)));
    assert!(heads(&mut queue, 32).is_empty());
    queue.shared().set_rx_down(false);
    assert!(heads(&mut queue, 32).is_empty());
    assert_eq!(queue.shared().counters().link_down.get(), 16);
}

/// What a queue says of a packet: mark, flags without those of the hash, and whether there is a hash.
fn said(packet: *mut rte_mbuf) -> (u32, u64, bool) {
    // SAFETY: a packet of ours.
    let mbuf = unsafe { &*packet };
    assert_eq!(mbuf.packet_type, 0x211);
    let hash = sys::RTE_MBUF_F_RX_RSS_HASH;
    (mbuf.hash[1], mbuf.ol_flags & !hash, mbuf.ol_flags & hash != 0)
}

/// A queue marks, counts and drops what flow rules have held for as soon as its port has a rule, over one lane and over several, and
/// allocates nothing for it; rules that come or change meanwhile hold from the next burst on.
#[test]
fn steered_frames_are_marked_counted_and_dropped() {
    use crate::steering::{Hits, Steering, Telling};
    let eal = TestEal::new();
    let pool = eal.pool(255, 512);
    for count in [1, 3] {
        let region = lanes(count, 64);
        let steering = Arc::new(Steering::default());
        let mut queue = queue(&pool, 512, &region);
        queue.set_steering(Arc::clone(&steering), 2);
        let mut rings: Vec<_> = (0..count).map(|lane| region.rx_producer(lane).unwrap()).collect();
        let mut push = |notes: &[Notes]| {
            for ring in &mut rings {
                ring.free(u32::MAX).unwrap();
                notes.iter().for_each(|notes| assert!(ring.push(&[0; 100], *notes)));
                ring.publish();
            }
        };
        let (plain, ours, other) = (Notes::new(0x211, 1), Notes::steered(0x211, 5, 2), Notes::steered(0x211, 6, 2));
        push(&[plain]);
        let packets = receive(&mut queue, 32);
        assert_eq!(packets.len(), count);
        free(&packets);

        let (flag, id) = (sys::RTE_MBUF_F_RX_FDIR, sys::RTE_MBUF_F_RX_FDIR_ID);
        steering.set(5, Telling::default().mark(99).count());
        steering.set_active(true);
        queue.shared().set_changed();
        push(&[plain, ours, other]);
        let packets = receive(&mut queue, 32);
        let expected = [(0, 0, true), (99, flag | id, false), (0, 0, false)];
        assert_eq!(packets.iter().map(|packet| said(*packet)).collect::<Vec<_>>(), expected.repeat(count));
        free(&packets);

        steering.set(6, Telling::default().drop().count());
        push(&[other, ours, plain, other]);
        let mut out = [MaybeUninit::new(null_mut()); 32];
        let before = allocations();
        let left = queue.receive(&mut out);
        assert_eq!(allocations(), before);
        assert_eq!(usize::from(left), 2 * count);
        // SAFETY: initialised with null above.
        free(&out[..left.into()].iter().map(|packet| unsafe { packet.assume_init() }).collect::<Vec<_>>());
        let count = count as u64;
        assert_eq!(steering.hits(5), Hits { frames: 2 * count, bytes: 200 * count });
        assert_eq!((steering.hits(6).frames, steering.dropped()), (2 * count, 2 * count));

        // Without rules after a restart, it is as before.
        steering.set_active(false);
        queue.reset();
        let region = lanes(usize::try_from(count).unwrap(), 64);
        offer(&queue, &region);
        assert!(receive(&mut queue, 32).is_empty());
        assert_eq!(queue.ring.is_some(), count == 1);
    }
}
