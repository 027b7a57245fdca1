use super::tests::{free, offer, receive, send};
use super::*;
use crate::tests::{Pool, TestEal, allocations, bytes, lanes, pattern, region};
use kopi_packet::checksum::complete;
use kopi_packet::parse;
use kopi_packet::verify::{Verdict, Wanted, raw_sum, verify};
use kopi_ring::layout::Notes;
use kopi_ring::{Producer, Region};
use std::ptr::null_mut;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

const CHECKSUMS: u64 = sys::RTE_ETH_RX_OFFLOAD_IPV4_CKSUM
    | sys::RTE_ETH_RX_OFFLOAD_TCP_CKSUM
    | sys::RTE_ETH_RX_OFFLOAD_UDP_CKSUM
    | sys::RTE_ETH_RX_OFFLOAD_SCTP_CKSUM;
const STRIP: u64 = sys::RTE_ETH_RX_OFFLOAD_VLAN_STRIP;
const STAMP: u64 = sys::RTE_ETH_RX_OFFLOAD_TIMESTAMP;
const L4: u64 = sys::RTE_MBUF_F_RX_L4_CKSUM_GOOD | sys::RTE_MBUF_F_RX_L4_CKSUM_BAD;
const IP: u64 = sys::RTE_MBUF_F_RX_IP_CKSUM_GOOD | sys::RTE_MBUF_F_RX_IP_CKSUM_BAD;
const STRIPPED: u64 = sys::RTE_MBUF_F_RX_VLAN | sys::RTE_MBUF_F_RX_VLAN_STRIPPED;

fn queue(pool: &Pool, room: u16, region: &Region, offloads: u64) -> RxQueue {
    let timestamp = (offloads & STAMP != 0).then(|| Timestamp::register().unwrap());
    let config = RxConfig { descriptors: 64, room, offloads, timestamp };
    // SAFETY: the pool outlives the queue in every test, and was made with this room.
    let queue = unsafe { RxQueue::new(pool.0, 7, config) };
    offer(&queue, region);
    queue
}

/// A frame of `len` bytes with UDP over IPv4 and right checksums, behind these tags.
fn udp(tags: &[u8], len: usize) -> Vec<u8> {
    let ip = u16::try_from(len - 14 - tags.len()).unwrap();
    let mut frame = vec![2; 12];
    frame.extend(tags);
    frame.extend([8, 0, 0x45, 0]);
    frame.extend(ip.to_be_bytes());
    frame.extend([1, 2, 0x40, 0, 64, 17, 0, 0, 10, 0, 0, 1, 192, 168, 7, 2, 0, 7, 0, 9]);
    frame.extend((ip - 20).to_be_bytes());
    frame.extend([0, 0]);
    frame.extend(pattern(len - frame.len(), len));
    let (headers, _) = parse(&frame, 0);
    complete(&mut frame, &headers);
    frame
}

/// Sends a frame as of packet type `kind`.
fn send_as(ring: &mut Producer, frame: &[u8], kind: u16) {
    ring.free(u32::MAX).unwrap();
    assert!(ring.push(frame, Notes::new(kind, 0xfeed)));
    ring.publish();
}

fn flags(packet: *const rte_mbuf) -> u64 {
    // SAFETY: a valid packet.
    unsafe { (*packet).ol_flags }
}

/// Passes one frame through the queue, and returns the flags of the packet, which has the frame's bytes.
fn pass(ring: &mut Producer, queue: &mut RxQueue, frame: &[u8]) -> u64 {
    send(ring, frame);
    let packets = receive(queue, 32);
    assert_eq!(packets.len(), 1);
    assert_eq!(bytes(packets[0]), frame);
    let flags = flags(packets[0]);
    free(&packets);
    flags
}

/// Whatever the length, and into however many buffers it is put and from however many slots it comes, a right checksum is good and a
/// wrong one is bad, and only what was asked for is said.
#[test]
fn checksums_are_verified_over_all_buffers() {
    let eal = TestEal::new();
    for room in [64, 101, 512, 2048] {
        let pool = eal.pool(511, room);
        for (offloads, ip, l4) in [
            (CHECKSUMS, true, true),
            (sys::RTE_ETH_RX_OFFLOAD_IPV4_CKSUM, true, false),
            (sys::RTE_ETH_RX_OFFLOAD_UDP_CKSUM, false, true),
            (sys::RTE_ETH_RX_OFFLOAD_TCP_CKSUM, false, false),
        ] {
            let region = region(64, 256);
            let mut ring = region.rx_producer(0).unwrap();
            let mut queue = queue(&pool, room, &region, offloads);
            let said = |ip_flag, l4_flag| (if ip { ip_flag } else { 0 }) | (if l4 { l4_flag } else { 0 });
            for len in [60, 61, 64, 100, 101, 102, 255, 256, 257, 513, 1518] {
                let mut frame = udp(&[], len);
                let found = pass(&mut ring, &mut queue, &frame);
                let right = said(sys::RTE_MBUF_F_RX_IP_CKSUM_GOOD, sys::RTE_MBUF_F_RX_L4_CKSUM_GOOD);
                assert_eq!(found, right, "{len} bytes, {room}");
                frame[len - 1] ^= 0x10;
                let found = pass(&mut ring, &mut queue, &frame);
                let wrong = said(sys::RTE_MBUF_F_RX_IP_CKSUM_GOOD, sys::RTE_MBUF_F_RX_L4_CKSUM_BAD);
                assert_eq!(found, wrong, "{len} bytes, {room}");
                frame[len - 1] ^= 0x10;
                frame[22] ^= 1;
                let found = pass(&mut ring, &mut queue, &frame);
                let wrong = said(sys::RTE_MBUF_F_RX_IP_CKSUM_BAD, sys::RTE_MBUF_F_RX_L4_CKSUM_GOOD);
                assert_eq!(found, wrong, "another TTL, {len} bytes, {room}");
            }
            let mut absent = udp(&[], 100);
            absent[40..42].fill(0);
            let found = pass(&mut ring, &mut queue, &absent);
            assert_eq!(found, said(sys::RTE_MBUF_F_RX_IP_CKSUM_GOOD, L4), "L4_CKSUM_NONE");
            assert_eq!(pass(&mut ring, &mut queue, &pattern(100, 1)) & (IP | L4), 0, "no IP");
            assert_eq!(pass(&mut ring, &mut queue, &[0; 14]) & (IP | L4), 0, "a header alone");
        }
    }
}

/// Long bursts of frames of all kinds, some of them wrong: each packet has the flags of its own bytes, by several lanes, too.
#[test]
fn each_packet_of_a_burst_is_judged_by_itself() {
    let eal = TestEal::new();
    let pool = eal.pool(511, 512);
    for region in [region(512, 256), lanes(2, 256)] {
        let mut queue = queue(&pool, 512, &region, CHECKSUMS | sys::RTE_ETH_RX_OFFLOAD_RSS_HASH);
        let mut rings: Vec<_> = (0..region.geometry().rx().len()).map(|n| region.rx_producer(n).unwrap()).collect();
        let count = rings.len();
        for number in 0..120_usize {
            let mut frame = udp(&[], [60, 100, 1000, 256, 257, 513][number % 6]);
            frame[50] ^= u8::from(number % 5 == 0);
            send(&mut rings[number % count], &frame);
        }
        let packets = receive(&mut queue, 200);
        assert_eq!(packets.len(), 120);
        let all = Wanted { ipv4: true, tcp: true, udp: true, sctp: true };
        let mut bad = 0;
        for packet in &packets {
            let frame = bytes(*packet);
            let right = verify(&frame, raw_sum(&frame), all).l4 == Verdict::Good;
            bad += usize::from(!right);
            let l4 = if right { sys::RTE_MBUF_F_RX_L4_CKSUM_GOOD } else { sys::RTE_MBUF_F_RX_L4_CKSUM_BAD };
            let hash = sys::RTE_MBUF_F_RX_RSS_HASH;
            assert_eq!(flags(*packet), hash | sys::RTE_MBUF_F_RX_IP_CKSUM_GOOD | l4);
        }
        assert_eq!(bad, 24);
        assert_eq!(queue.shared().counters().packets.get(), 120);
        free(&packets);
    }
}

/// A daemon that writes into a slot while it is read fools nobody: what is said of a packet is said of the bytes that the application
/// has got.
#[test]
fn packets_are_judged_by_the_bytes_that_the_application_gets() {
    let eal = TestEal::new();
    let pool = eal.pool(127, 2048);
    let region = region(64, 2048);
    let mut queue = queue(&pool, 2048, &region, CHECKSUMS);
    let mut ring = region.rx_producer(0).unwrap();
    let span = region.geometry().layout().rx[0];
    let done = AtomicBool::new(false);
    let (mut good, mut bad) = (0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let right = udp(&[], 1518);
            let mut wrong = right.clone();
            wrong[900] ^= 0xff;
            while !done.load(Relaxed) {
                for frame in [&right, &wrong] {
                    rustix::io::pwrite(region.fd(), &frame[890..910], (span.data() + 890).try_into().unwrap()).unwrap();
                }
            }
        });
        for _ in 0..20_000 {
            // Always in the first slot: 63 others are passed over.
            send(&mut ring, &udp(&[], 1518));
            (0..63).for_each(|_| send(&mut ring, &[0; 14]));
            let packets = receive(&mut queue, 64);
            assert_eq!(packets.len(), 64);
            let frame = bytes(packets[0]);
            let all = Wanted { ipv4: true, tcp: true, udp: true, sctp: true };
            let right = verify(&frame, raw_sum(&frame), all).l4 == Verdict::Good;
            let said = flags(packets[0]) & L4;
            free(&packets);
            let expected = if right { sys::RTE_MBUF_F_RX_L4_CKSUM_GOOD } else { sys::RTE_MBUF_F_RX_L4_CKSUM_BAD };
            assert_eq!(said, expected);
            *(if right { &mut good } else { &mut bad }) += 1;
            if good > 50 && bad > 50 {
                break;
            }
        }
        done.store(true, Relaxed);
    });
}

/// A packet with its tag: TCI, length, type, and all other bytes.
#[track_caller]
fn assert_stripped(packet: *const rte_mbuf, frame: &[u8], kind: u32) {
    let rest = [&frame[..12], &frame[16..]].concat();
    assert_eq!(bytes(packet), rest);
    // SAFETY: a valid packet.
    let mbuf = unsafe { &*packet };
    let tci = u16::from_be_bytes([frame[14], frame[15]]);
    assert_eq!((mbuf.ol_flags & STRIPPED, mbuf.vlan_tci, mbuf.packet_type), (STRIPPED, tci, kind));
}

/// The outer tag of IEEE 802.1Q goes into the mbuf, in packets of one buffer and of several, and no other bytes do; the checksums are
/// those of the packet all the same. Bytes are counted as they came.
#[test]
fn tags_are_stripped() {
    let eal = TestEal::new();
    for room in [64, 512, 2048] {
        let pool = eal.pool(511, room);
        let region = region(64, 256);
        let mut ring = region.rx_producer(0).unwrap();
        let mut queue = queue(&pool, room, &region, CHECKSUMS | STRIP);
        let mut sent = 0;
        for len in [64, 65, 200, 513, 1522] {
            for (tags, before, after) in [
                (&[0x81, 0, 0x6f, 0xff][..], 0x216, 0x211),
                (&[0x81, 0, 0, 0], 0x216, 0x211),
                (&[0x81, 0, 0x20, 7, 0x81, 0, 0, 9], 0x217, 0x216),
            ] {
                let frame = udp(tags, len);
                send_as(&mut ring, &frame, before);
                sent += len;
                let packets = receive(&mut queue, 32);
                assert_stripped(packets[0], &frame, after);
                assert_eq!(
                    flags(packets[0]) & (IP | L4),
                    sys::RTE_MBUF_F_RX_IP_CKSUM_GOOD | sys::RTE_MBUF_F_RX_L4_CKSUM_GOOD
                );
                free(&packets);
            }
            let service = udp(&[0x88, 0xa8, 0, 7, 0x81, 0, 0, 9], len);
            for frame in [udp(&[], len), service] {
                assert_eq!(pass(&mut ring, &mut queue, &frame) & STRIPPED, 0);
                sent += len;
            }
        }
        // The shortest frame with a tag, and what is too short to have one.
        let mut frame = vec![3; 18];
        frame[12..14].copy_from_slice(&[0x81, 0]);
        send_as(&mut ring, &frame, 6);
        let packets = receive(&mut queue, 32);
        assert_stripped(packets[0], &frame, 1);
        free(&packets);
        assert_eq!(pass(&mut ring, &mut queue, &frame[..17]) & STRIPPED, 0);
        sent += 18 + 17;
        assert_eq!(queue.shared().counters().bytes.get(), sent as u64);
    }
}

/// Stripping is switched on and off at any time, also for a queue that was asked for nothing: from the next burst on, with whatever rings,
/// and nothing is lost by it.
#[test]
fn stripping_changes_at_run_time() {
    let eal = TestEal::new();
    let pool = eal.pool(127, 512);
    for count in [1, 2] {
        for offloads in [0, STRIP, CHECKSUMS] {
            let region = lanes(count, 64);
            let mut queue = queue(&pool, 512, &region, offloads);
            let mut ring = region.rx_producer(0).unwrap();
            let frame = udp(&[0x81, 0, 0, 9], 100);
            let mut strips = offloads == STRIP;
            for turn in 0..20 {
                for n in 1..3 {
                    (0..n).for_each(|_| send_as(&mut ring, &frame, 0x216));
                    if turn % 3 == 0 && n == 2 {
                        // Frames that are in the ring already.
                        strips = !strips;
                        queue.shared().set_strip(strips);
                    }
                    let packets = receive(&mut queue, 32);
                    assert_eq!(packets.len(), n);
                    for packet in &packets {
                        if strips {
                            assert_stripped(*packet, &frame, 0x211);
                        } else {
                            assert_eq!((bytes(*packet), flags(*packet) & STRIPPED), (frame.clone(), 0));
                        }
                    }
                    free(&packets);
                    assert_eq!(queue.offloads() & STRIP != 0, strips);
                    assert_eq!(queue.offloads() & !STRIP, offloads & !STRIP);
                }
                assert!(receive(&mut queue, 32).is_empty());
                assert!(queue.shared().is_calm());
            }
            queue.shared().collect();
        }
    }
}

/// A queue that was asked for nothing keeps its ring where the short way looks for it.
#[test]
fn who_asks_for_nothing_takes_the_short_way() {
    let eal = TestEal::new();
    let pool = eal.pool(127, 512);
    let region = region(64, 256);
    for (offloads, short) in
        [(0, true), (sys::RTE_ETH_RX_OFFLOAD_RSS_HASH, true), (CHECKSUMS, false), (STRIP, false), (STAMP, false)]
    {
        let mut queue = queue(&pool, 512, &region, offloads);
        assert!(receive(&mut queue, 32).is_empty());
        assert_eq!((queue.ring.is_some(), queue.lanes.is_some()), (short, !short));
    }
}

/// All packets of a burst have the clock of its begin, and later bursts have later ones.
#[test]
fn packets_have_the_time_of_their_burst() {
    let eal = TestEal::new();
    let pool = eal.pool(127, 512);
    let region = region(64, 256);
    let mut queue = queue(&pool, 512, &region, STAMP);
    let mut ring = region.rx_producer(0).unwrap();
    let (mut offset, mut flag) = (0, 0);
    // SAFETY: two places of ours.
    assert_eq!(unsafe { sys::rte_mbuf_dyn_rx_timestamp_register(&raw mut offset, &raw mut flag) }, 0);
    for _ in 0..5 {
        let before = offloads::clock();
        [60, 100, 1000].into_iter().for_each(|len| send(&mut ring, &pattern(len, len)));
        let packets = receive(&mut queue, 32);
        let after = offloads::clock();
        assert_eq!(packets.len(), 3);
        let times: Vec<u64> = packets
            .iter()
            .map(|packet| {
                assert_eq!(flags(*packet), flag);
                let at = packet.wrapping_byte_add(offset.try_into().unwrap()).cast::<u64>();
                // SAFETY: a field of a valid packet.
                unsafe { at.read() }
            })
            .collect();
        assert!(before < times[0] && times[0] < after && times == [times[0]; 3], "{before} {times:?} {after}");
        free(&packets);
    }
}

/// No allocation per packet, with everything asked for.
#[test]
fn offloads_allocate_nothing() {
    let eal = TestEal::new();
    let pool = eal.pool(127, 512);
    let region = region(64, 256);
    let mut ring = region.rx_producer(0).unwrap();
    let mut queue = queue(&pool, 512, &region, CHECKSUMS | STRIP | STAMP);
    let frames = [udp(&[], 60), udp(&[0x81, 0, 0, 9], 250), udp(&[], 1500)];
    let mut out = [MaybeUninit::new(null_mut()); 32];
    queue.receive(&mut out);
    let before = allocations();
    let mut received = 0;
    for round in 0..3000 {
        ring.free(u32::MAX).unwrap();
        while ring.push(&frames[round % 3], Notes::NONE) {}
        ring.publish();
        let got = queue.receive(&mut out);
        for packet in out.iter().take(got.into()) {
            // SAFETY: the queue has written that many.
            free(&[unsafe { packet.assume_init() }]);
        }
        received += u32::from(got);
    }
    assert_eq!(allocations(), before);
    assert!(received > 10_000, "{received}");
}
