//! What is left to the port, in packets of DPDK's.

use super::tests::{drain, queue};
use super::*;
use crate::tests::{Pool, TestEal, allocations, bytes, pattern, region};
use kopi_packet::crc32c::Crc32c;
use kopi_packet::{checksum, parse};
use kopi_ring::Region;

const ALL: u64 = crate::limits::TX_OFFLOADS & !sys::RTE_ETH_TX_OFFLOAD_MBUF_FAST_FREE;

/// The lengths of a packet's headers, as DPDK keeps them.
const fn lengths(l2: u64, l3: u64, l4: u64, segment: u64) -> u64 {
    l2 | l3 << 7 | l4 << 16 | segment << 24
}

/// A frame with this protocol and payload, of which no checksum is right, and the length of IP's header.
fn unfinished(v6: bool, proto: u8, payload: &[u8]) -> (Vec<u8>, u64) {
    let header: &[u8] = match proto {
        6 => &[1, 2, 3, 4, 0, 0, 0, 5, 0, 0, 0, 6, 0x50, 0x19, 1, 0, 0xde, 0xad, 0, 0],
        17 => &[1, 2, 3, 4, 0, 0, 0xde, 0xad],
        _ => &[1, 2, 3, 4, 0, 0, 0, 5, 0xde, 0xad, 0xbe, 0xef],
    };
    let length = u16::try_from(header.len() + payload.len()).unwrap();
    let mut frame = vec![2; 12];
    let l3 = if v6 {
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
        frame.extend(length.to_be_bytes());
        frame.extend([proto, 64]);
        frame.extend((0..32).map(|i| i * 5));
        40
    } else {
        frame.extend([8, 0, 0x45, 0]);
        frame.extend((length + 20).to_be_bytes());
        frame.extend([0, 7, 0x40, 0, 64, proto, 0xde, 0xad, 10, 0, 0, 1, 10, 0, 0, 2]);
        20
    };
    let l4 = frame.len();
    frame.extend(header);
    frame.extend(payload);
    if proto == 17 {
        frame[l4 + 4..l4 + 6].copy_from_slice(&length.to_be_bytes());
    }
    (frame, l3)
}

/// The same with right checksums, by other code.
fn finished(frame: &[u8], l3: u64) -> Vec<u8> {
    let mut right = frame.to_vec();
    let headers = parse(frame, 1).0;
    checksum::complete(&mut right, &headers);
    if headers.proto == 132 {
        let l4 = 14 + usize::try_from(l3).unwrap();
        right[l4 + 8..l4 + 12].fill(0);
        let mut crc = Crc32c::default();
        crc.update(&right[l4..]);
        right[l4 + 8..l4 + 12].copy_from_slice(&crc.bytes());
    }
    right
}

/// Has a packet ask for something.
fn ask(packet: *mut rte_mbuf, flags: u64, lengths: u64) -> *mut rte_mbuf {
    // SAFETY: a packet of ours.
    unsafe { (*packet).ol_flags |= flags };
    // SAFETY: as above.
    unsafe { (*packet).tx_offload = lengths };
    packet
}

/// A packet that is cut after so many bytes each.
fn cut(pool: &Pool, frame: &[u8], pieces: &[usize]) -> *mut rte_mbuf {
    let (mut rest, mut parts) = (frame, Vec::new());
    for piece in pieces {
        let (part, behind) = rest.split_at(*piece);
        parts.push(part);
        rest = behind;
    }
    parts.extend(rest.chunks(2048));
    pool.packet(&parts)
}

/// Keeps a packet beyond its being sent.
fn hold(packet: *mut rte_mbuf) {
    let mut segment = packet;
    while !segment.is_null() {
        // SAFETY: a segment of a packet of ours.
        unsafe { sys::kopi_mbuf_refcnt_update(segment, 1) };
        // SAFETY: as above.
        segment = unsafe { (*segment).next };
    }
}

const fn flags_for(proto: u8) -> u64 {
    sys::RTE_MBUF_F_TX_IP_CKSUM
        | match proto {
            6 => sys::RTE_MBUF_F_TX_TCP_CKSUM,
            17 => sys::RTE_MBUF_F_TX_UDP_CKSUM,
            _ => sys::RTE_MBUF_F_TX_SCTP_CKSUM,
        }
}

/// Checksums are right in the ring, whatever the segments and the slots, packets that ask for nothing are left alone in between, and the
/// application's buffers are as they were.
#[test]
fn checksums_are_written_in_the_ring() {
    let eal = TestEal::new();
    let pool = eal.pool(255, 2048);
    for slot_size in [256, 2048] {
        let region = region(64, slot_size);
        let mut ring = region.tx_consumer(0).unwrap();
        let mut queue = queue(&region, ALL);
        let mut sent = 0;
        for (v6, proto) in [(false, 6), (false, 17), (false, 132), (true, 6), (true, 17), (true, 132)] {
            for payload in [0, 1, 100, 1001, 1401] {
                let (frame, l3) = unfinished(v6, proto, &pattern(payload, 3));
                let right = finished(&frame, l3);
                assert_ne!(right, frame);
                for pieces in [&[][..], &[13], &[frame.len()], &[1, 14, 15], &[40, 0, 2]] {
                    let packet = ask(cut(&pool, &frame, pieces), flags_for(proto), lengths(14, l3, 0, 0));
                    hold(packet);
                    let plain = || pool.packet(&[&frame]);
                    assert_eq!(queue.send(&mut [plain(), packet, plain()]), 3);
                    assert_eq!(
                        drain(&mut ring),
                        [frame.clone(), right.clone(), frame.clone()],
                        "{v6} {proto} {payload} {pieces:?}"
                    );
                    sent += 3;
                    assert_eq!(bytes(packet), frame);
                    // SAFETY: the hold that is left is ours.
                    unsafe { sys::kopi_pktmbuf_free(packet) };
                }
            }
        }
        let counters = queue.shared().counters();
        assert_eq!((counters.packets.get(), counters.malformed.get(), pool.used()), (sent, 0, 0));
    }
}

/// A queue does what it is configured for, and nothing else.
#[test]
fn only_what_is_configured_is_done() {
    let eal = TestEal::new();
    let pool = eal.pool(255, 2048);
    let (frame, l3) = unfinished(false, 6, b"hello");
    let flags = flags_for(6) | sys::RTE_MBUF_F_TX_VLAN | sys::RTE_MBUF_F_TX_TCP_SEG;
    let send = |offloads: u64, flags: u64| {
        let region = region(64, 2048);
        let mut queue = queue(&region, offloads);
        let packet = ask(pool.packet(&[&frame]), flags, lengths(14, l3, 20, 3));
        // SAFETY: a packet of ours.
        unsafe { (*packet).vlan_tci = 0x6005 };
        // SAFETY: as above.
        unsafe { (*packet).vlan_tci_outer = 0x4007 };
        assert_eq!(queue.send(&mut [packet]), 1);
        drain(&mut region.tx_consumer(0).unwrap())
    };
    let right = finished(&frame, l3);
    let mut ip = frame.clone();
    ip[24..26].copy_from_slice(&right[24..26]);
    let mut tcp = right.clone();
    tcp[24..26].copy_from_slice(&frame[24..26]);
    let tagged = |tags: &[u8]| [&frame[..12], tags, &frame[12..]].concat();
    for others in [0, sys::RTE_ETH_TX_OFFLOAD_MULTI_SEGS, sys::RTE_ETH_TX_OFFLOAD_UDP_CKSUM] {
        assert_eq!(send(others, flags), std::slice::from_ref(&frame));
    }
    assert_eq!(send(sys::RTE_ETH_TX_OFFLOAD_IPV4_CKSUM, flags), [ip]);
    assert_eq!(send(sys::RTE_ETH_TX_OFFLOAD_TCP_CKSUM, flags), [tcp]);
    assert_eq!(send(sys::RTE_ETH_TX_OFFLOAD_VLAN_INSERT, flags), [tagged(&[0x81, 0, 0x60, 5])]);
    let two = send(sys::RTE_ETH_TX_OFFLOAD_QINQ_INSERT, sys::RTE_MBUF_F_TX_QINQ);
    assert_eq!(two, [tagged(&[0x88, 0xa8, 0x40, 7, 0x81, 0, 0x60, 5])]);
    assert_eq!(send(sys::RTE_ETH_TX_OFFLOAD_TCP_TSO, flags).len(), 2);
    assert_eq!(send(ALL, 0), std::slice::from_ref(&frame));
    // All at once: two frames with tags, whose checksums are right.
    let frames = send(ALL, flags);
    assert_eq!(frames.len(), 2);
    for frame in &frames {
        assert_eq!(frame[12..16], [0x81, 0, 0x60, 5]);
        assert!(checksum::is_intact(frame, &parse(frame, 1).0));
    }
}

/// A packet of 64 KiB becomes frames on the wire, all of them or none, and they are what is counted.
#[test]
fn large_packets_are_cut() {
    let eal = TestEal::new();
    let pool = eal.pool(511, 2048);
    for v6 in [false, true] {
        let region = region(128, 2048);
        let mut ring = region.tx_consumer(0).unwrap();
        let mut queue = queue(&region, ALL);
        queue.shared().set_max_frame(1522);
        let payload = pattern(65_000, 3);
        let (mut frame, l3) = unfinished(v6, 6, &payload[..60_000]);
        frame.extend(&payload[60_000..]);
        let headers = frame.len() - payload.len();
        let large = || {
            let flags = sys::RTE_MBUF_F_TX_TCP_SEG;
            ask(cut(&pool, &frame, &[15, 900, 0, 77]), flags, lengths(14, l3, 20, 1400))
        };
        let mut packets = [large(), large(), large()];
        assert_eq!(queue.send(&mut packets), 2, "47 slots for each, of 128");
        let mut frames = drain(&mut ring);
        assert_eq!((queue.send(&mut packets[2..]), pool.used()), (1, 0));
        frames.extend(drain(&mut ring));
        assert_eq!(frames.len(), 3 * 47);
        for cut in frames.chunks(47) {
            let mut together: Vec<u8> = Vec::new();
            for (at, frame) in cut.iter().enumerate() {
                assert!(checksum::is_intact(frame, &parse(frame, 1).0), "{at}");
                let tcp = 14 + usize::try_from(l3).unwrap();
                let sequence = u32::from_be_bytes(*frame[tcp + 4..].first_chunk().unwrap());
                assert_eq!(sequence as usize, 5 + together.len());
                assert_eq!(frame[tcp + 13], if at == 46 { 0x19 } else { 0x10 });
                together.extend(&frame[headers..]);
            }
            assert!(together == payload);
        }
        let counters = queue.shared().counters();
        let wire = 3 * (65_000 + 47 * headers as u64);
        assert_eq!((counters.packets.get(), counters.bytes.get()), (3 * 47, wire));
    }
}

/// What can never be sent is dropped, counted by its reason, and does not hold the others up.
#[test]
fn what_cannot_be_done_is_dropped_by_reason() {
    let eal = TestEal::new();
    let pool = eal.pool(255, 2048);
    let region = region(64, 2048);
    let mut ring = region.tx_consumer(0).unwrap();
    let mut queue = queue(&region, ALL);
    queue.shared().set_max_frame(1522);
    let (frame, l3) = unfinished(false, 6, &pattern(1400, 3));
    let (long, _) = unfinished(false, 6, &pattern(1480, 3));
    let segments =
        |segment, frame: &[u8]| ask(pool.packet(&[frame]), sys::RTE_MBUF_F_TX_TCP_SEG, lengths(14, l3, 20, segment));
    let checksums = |l2, l3, frame: &[u8]| ask(pool.packet(&[frame]), flags_for(6), lengths(l2, l3, 0, 0));
    let lying = ask(pool.packet(&[&frame[..500], &frame[500..]]), sys::RTE_MBUF_F_TX_TCP_SEG, lengths(14, l3, 20, 300));
    // SAFETY: a packet of ours.
    unsafe { (*lying).pkt_len -= 1 };
    let mut packets = [
        checksums(14, 24, &frame),
        checksums(0, 0, &frame),
        checksums(127, 511, &frame),
        checksums(14, l3, &frame[..50]),
        segments(0, &frame),
        lying,
        segments(21, &frame),
        segments(1480, &long),
        segments(700, &long[..13]),
        ask(pool.packet(&[&long]), sys::RTE_MBUF_F_TX_QINQ, 0),
        checksums(14, l3, &frame),
    ];
    // It is as long as may be without the tags.
    queue.shared().set_max_frame(u32::try_from(long.len()).unwrap());
    assert_eq!(queue.send(&mut packets[..10]), 10);
    assert_eq!(drain(&mut ring).len(), 1, "a frame with 1480 bytes of payload");
    assert_eq!(queue.send(&mut packets[10..]), 1);
    assert_eq!(drain(&mut ring), [finished(&frame, l3)]);
    let counters = queue.shared().counters();
    let dropped = [&counters.malformed, &counters.oversize, &counters.runt].map(|c| c.get());
    assert_eq!((dropped, counters.packets.get(), pool.used()), ([6, 2, 1], 2, 0));
}

/// Not one allocation, whatever is asked for.
#[test]
fn finishing_allocates_nothing() {
    let eal = TestEal::new();
    let pool = eal.pool(255, 2048);
    let region: Region = region(256, 2048);
    let mut ring = region.tx_consumer(0).unwrap();
    let mut queue = queue(&region, ALL);
    let (tcp, l3) = unfinished(false, 6, &pattern(1400, 3));
    let (sctp, _) = unfinished(false, 132, &pattern(100, 3));
    queue.send(&mut [pool.packet(&[&tcp])]);
    let before = allocations();
    for _ in 0..1000 {
        let large = pool.packet(&[&tcp[..20], &tcp[20..]]);
        let mut packets = [
            ask(pool.packet(&[&tcp]), flags_for(6), lengths(14, l3, 0, 0)),
            ask(pool.packet(&[&sctp]), flags_for(132), lengths(14, l3, 0, 0)),
            ask(large, sys::RTE_MBUF_F_TX_TCP_SEG, lengths(14, l3, 20, 300)),
            ask(pool.packet(&[&tcp]), flags_for(6), 0),
        ];
        assert_eq!(queue.send(&mut packets), 4);
        ring.poll().unwrap();
        while ring.next().unwrap().is_some() {}
        ring.release();
    }
    assert_eq!(allocations(), before);
}
