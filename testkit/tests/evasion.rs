//! Frames that try to get past a policy: changed while they are judged, or such that not all of them can be read. Faults
//! 13 and 17.
#![expect(clippy::tests_outside_test_module, reason = "this whole file is a test")]
#![forbid(unsafe_code)]

use kopi_ring::layout::{DEFAULT_SLOT, Notes};
use kopi_ring::{Geometry, Producer};
use kopi_testkit::evil::{Client, Random, Vandal, small};
use kopi_testkit::frames::{Ends, Mac, TCP, UDP, checksum, ethernet, flags, framed, id_of, ipv6};
use kopi_testkit::wait::SOON;
use kopi_testkit::{Kopid, Netns, Peer, Settings, TempDir, wait_until};
use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

const EVIL: Mac = [2, 0, 0, 0, 0xee, 1];
const OWN: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 66);
const GOOD: u16 = 7777;
const BAD: u16 = 6666;
/// The last frame of a batch.
const MARK: u16 = 0xffff;

fn ends(id: u16) -> Ends {
    Ends { source: OWN, destination: Ipv4Addr::new(10, 77, 0, 9), id }
}

/// A frame to the wire.
fn frame(packet: &[u8]) -> Vec<u8> {
    framed(Netns::MAC, EVIL, packet)
}

fn push(producer: &mut Producer, frame: &[u8]) {
    wait_until("there is room", SOON, || producer.free(1).is_ok_and(|free| free > 0));
    assert!(producer.push(frame, Notes::NONE));
    producer.publish();
}

/// What of a frame the policy of fault 13 asks for, read as a receiver would: source address and destination port.
fn read(frame: &[u8]) -> (&[u8], u16) {
    let payload = 14 + usize::from(frame[14] & 15) * 4;
    (&frame[26..30], u16::from_be_bytes([frame[payload + 2], frame[payload + 3]]))
}

/// Changes addresses, ports and the length of the IP header in all slots, over and over, until `stop`.
fn flip(vandal: &Vandal, slots: &[usize], stop: &AtomicBool) {
    let mut random = Random::new(13);
    while !stop.load(Relaxed) {
        for slot in slots {
            let dice = random.next();
            match dice % 4 {
                0 => vandal.write(slot + 36, &[GOOD, BAD][usize::from(dice & 16 != 0)].to_be_bytes()),
                1 => vandal.write(slot + 29, &[66 + u8::from(dice & 16 != 0)]),
                2 => vandal.write(slot + 14, &[0x45 + u8::from(dice & 16 != 0)]),
                _ => vandal.write(slot + 11, &[1 + u8::from(dice & 16 != 0)]),
            }
        }
    }
}

/// Fault 13: a thread of the app's changes addresses, ports and lengths in the slots while kopid reads them. Every frame on
/// the wire is one that the policy lets pass.
#[test]
fn fault_13_frames_that_change_are_judged_as_they_are_sent() {
    let policy = "[[app]]\nname = \"evil\"\nowner = { uid = 0 }\nmac = \"02:00:00:00:ee:01\"\naddresses = \"10.77.0.66\"\n\
                  [[rule]]\nname = \"bad\"\nmatch = { dst_port = 6666 }\naction = \"drop\"\n";
    let dir = TempDir::new("flip");
    let netns = Netns::new(1500);
    let settings = Settings { huge_pages: "off", ..Settings::on_interface(netns.outside(), 1) };
    let mut kopid = Kopid::start(&dir, &settings.policy(policy));
    let geometry = Geometry::new(&[64], &[64], DEFAULT_SLOT).expect("within the limits");
    let (_client, region) = Client::attach_old(&kopid.socket(), "evil", EVIL, &geometry);
    let span = &region.geometry().layout().tx[0];
    let slots: Vec<usize> = (0..64).map(|slot| span.data() + slot * span.stride()).collect();
    // With a header of six words the ports are those of the bad one: what is the checksum otherwise is read as a port.
    let mut template =
        frame(&ends(1).udp((4000, GOOD), &[0, 24, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 0, 0, 0, 0]));
    template[40..42].copy_from_slice(&BAD.to_be_bytes());
    let stop = AtomicBool::new(false);
    let mut producer = region.tx_producer(0).expect("a ring");
    let vandal = Vandal::new(&region);
    let peer = Peer::new(&netns);
    let mut passed: u32 = 0;
    std::thread::scope(|scope| {
        scope.spawn(|| flip(&vandal, &slots, &stop));
        let mut buffer = vec![0; 2048];
        let end = Instant::now() + Duration::from_secs(4);
        while Instant::now() < end {
            while producer.free(1).is_ok_and(|free| free > 0) {
                assert!(producer.push(&template, Notes::NONE));
            }
            producer.publish();
            while let Some(frame) = peer.next(&mut buffer) {
                if frame[6..12] == Netns::MAC {
                    continue;
                }
                let (source, port) = read(frame);
                let right = frame[6..12] == EVIL && source == OWN.octets() && port != BAD;
                if !right {
                    stop.store(true, Relaxed);
                }
                assert!(right, "this passed: {frame:02x?}");
                passed += 1;
            }
        }
        stop.store(true, Relaxed);
    });
    let refused = (kopid.rule("bad"), kopid.drops("spoofed"));
    assert!(passed > 300 && refused.0 > 300 && refused.1 > 300, "{passed} passed, {refused:?} did not");
    assert!(kopid.stop().success());
}

/// `frame` behind `depth` VLAN tags.
fn tagged(frame: &[u8], depth: usize) -> Vec<u8> {
    [&frame[..12], &[0x81, 0, 0, 7].repeat(depth), &frame[12..]].concat()
}

/// An IPv4 packet with options.
fn with_options(id: u16, words: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = ends(id).packet(UDP, payload);
    packet[0] += words;
    let options = vec![1; usize::from(words) * 4];
    packet.splice(20..20, options);
    let length = u16::try_from(packet.len()).expect("short");
    packet[2..4].copy_from_slice(&length.to_be_bytes());
    packet[10..12].copy_from_slice(&[0, 0]);
    let header = 20 + usize::from(words) * 4;
    let sum = checksum(&[&packet[..header]]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet
}

/// Frames to `port` that are whole, and those of which a part is missing or cannot be read.
fn corpus(port: u16) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
    let udp = ends(2).udp((4000, port), b"sixteen bytes...");
    let v6 = |next, payload: &[u8]| {
        let host = |n| Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, n);
        frame(&ipv6(host(66), host(1), next, payload))
    };
    let datagram = &udp[20..];
    let mut whole = vec![
        frame(&udp),
        tagged(&frame(&udp), 1),
        frame(&with_options(2, 1, datagram)),
        frame(&with_options(2, 10, datagram)),
        v6(UDP, datagram),
        v6(60, &[&[UDP, 0, 1, 4, 0, 0, 0, 0], datagram].concat()),
    ];
    let mut odd: Vec<Vec<u8>> = Vec::new();
    for frame in &whole {
        odd.extend((14..frame.len()).map(|end| frame[..end].to_vec()));
    }
    // What UDP says of its own length is the receiver's to judge: the ports are where they are.
    for length in [0_u16, 7, 0xffff] {
        let mut wrong = frame(&udp);
        wrong[38..40].copy_from_slice(&length.to_be_bytes());
        whole.push(wrong);
    }
    odd.extend((3..8).map(|depth| tagged(&frame(&udp), depth)));
    odd.push(tagged(&frame(&udp), 300));
    // Lengths that say more than there is, or less than a header.
    for length in [0_u16, 19, 27, 0xffff] {
        let mut wrong = frame(&udp);
        wrong[16..18].copy_from_slice(&length.to_be_bytes());
        odd.push(wrong);
    }
    for first in [0x40, 0x44, 0x55, 0x65, 0x4f] {
        let mut wrong = frame(&udp);
        wrong[14] = first;
        odd.push(wrong);
    }
    // A hundred headers that go on, and the jumbo payload option (RFC 2675).
    let chain = [60, 0, 1, 4, 0, 0, 0, 0].repeat(99);
    odd.push(v6(60, &[&chain, &[UDP, 0, 1, 4, 0, 0, 0, 0][..], datagram].concat()));
    odd.push(v6(0, &[&[UDP, 0, 0xc2, 4, 0, 1, 0, 0], datagram].concat()));
    odd.push(ethernet(Netns::MAC, EVIL, 0xffff, datagram));
    odd.push(ethernet(Netns::MAC, EVIL, 0, datagram));
    (whole, odd)
}

/// kopid, an app that may do what `policy` says, and the wire.
fn start(policy: &str) -> (TempDir, Netns, Kopid, Client, Producer) {
    let dir = TempDir::new("odd");
    let netns = Netns::new(1500);
    let kopid = Kopid::start(&dir, &Settings::on_interface(netns.outside(), 1).policy(policy));
    let (client, region) = Client::attach_old(&kopid.socket(), "odd", EVIL, &small());
    let producer = region.tx_producer(0).expect("a ring");
    (dir, netns, kopid, client, producer)
}

/// Sends frames and then one that surely passes; returns those that were on the wire.
fn what_passes(producer: &mut Producer, peer: &Peer, frames: &[Vec<u8>]) -> Vec<Vec<u8>> {
    frames.iter().for_each(|frame| push(producer, frame));
    push(producer, &frame(&ends(MARK).udp((9, GOOD), b"last")));
    peer.collect(|frame| id_of(frame) == Some(MARK))
}

/// The frame as a packet socket sees it.
fn untagged(frame: &[u8]) -> Vec<u8> {
    if frame[12..14] == [0x81, 0] { [&frame[..12], &frame[16..]].concat() } else { frame.to_vec() }
}

const ONLY_GOOD: &str = "default = { egress = \"drop\" }\n\
    [[rule]]\nname = \"good\"\nmatch = { dst_port = 7777 }\naction = \"accept\"\n";

/// Fault 17: frames that cannot be read to their end are dropped, whatever whole frame came before and has left its verdict
/// in the flow table, and change nothing for the whole ones.
#[test]
fn fault_17_what_cannot_be_read_never_passes() {
    let (_dir, netns, mut kopid, _client, mut producer) = start(ONLY_GOOD);
    let peer = Peer::new(&netns);
    let (good, odd_good) = corpus(GOOD);
    let (bad, odd_bad) = corpus(BAD);
    assert_eq!(what_passes(&mut producer, &peer, &bad), Vec::<Vec<u8>>::new());
    let expected: Vec<_> = good.iter().map(|frame| untagged(frame)).collect();
    assert_eq!(what_passes(&mut producer, &peer, &good), expected);
    let may_pass: BTreeSet<_> = expected.iter().cloned().collect();
    let odd = [&odd_good[..], &odd_bad[..]].concat();
    for frames in odd.chunks(100) {
        // Around each there are a whole one that passes and one that does not.
        let (passes, does_not) = (good.iter().cycle(), bad.iter().cycle());
        let around = frames.iter().zip(passes).zip(does_not);
        let mixed: Vec<_> =
            around.flat_map(|((odd, good), bad)| [good, odd, bad, odd, good].map(Clone::clone)).collect();
        let passed = what_passes(&mut producer, &peer, &mixed);
        for frame in &passed {
            assert!(may_pass.contains(frame), "this passed: {frame:02x?}");
        }
        assert_eq!(passed.len(), 2 * frames.len(), "the whole ones to {GOOD}");
    }
    // Nearly all of them: an ethertype that nobody knows is not malformed, and no rule is for it.
    assert!(kopid.drops("malformed") > odd.len() as u64, "of {} odd frames {:?}", odd.len(), kopid.ask("drops"));
    assert!(kopid.stop().success());
}

/// Fault 17: a policy that accepts everything still accepts nothing that it cannot read, unless it says so.
#[test]
fn fault_17_malformed_frames_are_the_policys_to_decide() {
    let udp = frame(&ends(2).udp((4000, BAD), b"sixteen bytes..."));
    // As a kernel pads a short frame on its way, some are longer on the wire.
    let cut: Vec<_> = (15..udp.len()).map(|end| udp[..end].to_vec()).collect();
    for (word, passes) in [("drop", false), ("accept", true)] {
        let policy = format!("default = {{ malformed = \"{word}\" }}\n");
        let (_dir, netns, kopid, _client, mut producer) = start(&policy);
        let peer = Peer::new(&netns);
        let passed = what_passes(&mut producer, &peer, &cut);
        assert_eq!(passed, if passes { cut.clone() } else { Vec::new() }, "malformed = {word:?}");
        assert_eq!(kopid.drops("malformed"), if passes { 0 } else { cut.len() as u64 });
    }
}

/// Fault 17: a later fragment goes the way of its first one, and nowhere if that was not seen.
#[test]
fn fault_17_fragments_follow_their_first() {
    let (_dir, netns, kopid, _client, mut producer) = start(ONLY_GOOD);
    let peer = Peer::new(&netns);
    let fragments = |id: u16, port: u16| {
        let packet = ends(id).udp((4000, port), &[7; 32]);
        let [first, later] = [(0x2000, 20..44), (3, 44..60)]
            .map(|(offset, range)| frame(&ends(id).fragment(UDP, offset, &packet[range])));
        [first, later]
    };
    let [good, bad, unknown] = [(11, GOOD), (12, BAD), (13, GOOD)].map(|(id, port)| fragments(id, port));
    let sent = [&good[0], &bad[0], &bad[1], &good[1], &unknown[1], &bad[1], &good[1]].map(Clone::clone);
    assert_eq!(what_passes(&mut producer, &peer, &sent), [&good[0], &good[1], &good[1]].map(Clone::clone));
    assert_eq!(kopid.drops("fragment"), 1, "{:?}", kopid.ask("drops"));
}

/// Fault 17: a first fragment too small for its flags, and one that writes over the flags of a whole one (RFC 1858), do not
/// open a connection that the policy denies.
#[test]
fn fault_17_tiny_and_overlapping_fragments_open_nothing() {
    let policy = "default = { egress = \"drop\" }\n\
                  [[rule]]\nname = \"no-syn\"\nmatch = { proto = \"tcp\", tcp_flags = \"syn/syn,ack\" }\naction = \"drop\"\n\
                  [[rule]]\nname = \"good\"\nmatch = { dst_port = 7777 }\naction = \"accept\"\n";
    let (_dir, netns, kopid, _client, mut producer) = start(policy);
    let peer = Peer::new(&netns);
    let segment = |id: u16, flags: u8| ends(id).tcp((4000, GOOD), flags, (1, 1), &[7; 16])[20..].to_vec();
    let part = |id: u16, offset: u16, bytes: &[u8]| frame(&ends(id).fragment(TCP, offset, bytes));
    let (syn, ack) = (segment(21, flags::SYN), segment(21, flags::ACK));
    // Ports in the first, flags in the second.
    let tiny = [part(21, 0x2000, &syn[..8]), part(21, 1, &syn[8..])];
    let passed = what_passes(&mut producer, &peer, &tiny);
    assert!(passed.len() < 2, "both parts of a tiny SYN passed: {passed:02x?}, {:?}", kopid.ask("drops"));
    // A whole header without SYN in the first, and eight bytes on another one with it.
    let overlapping = [part(22, 0x2000, &ack[..24]), part(22, 1, &syn[8..])];
    let passed = what_passes(&mut producer, &peer, &overlapping);
    assert!(passed.len() < 2, "a SYN passed over an ACK: {passed:02x?}, {:?}", kopid.ask("drops"));
}
