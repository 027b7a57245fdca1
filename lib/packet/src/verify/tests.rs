use super::*;
use crate::checksum::{checksum, complete, sum};
use proptest::prelude::*;
use std::vec;
use std::vec::Vec;

const ALL: Wanted = Wanted { ipv4: true, tcp: true, udp: true, sctp: true };

fn verified(frame: &[u8]) -> (Verdict, Verdict) {
    let Verified { ipv4, l4 } = verify(frame, raw_sum(frame), ALL);
    assert_eq!(good_tcp_or_udp(frame, raw_sum(frame)), good_by_verify(frame, raw_sum(frame)));
    (ipv4, l4)
}

/// What `good_tcp_or_udp` has to say: no more and no less than `verify_short`.
fn good_by_verify(frame: &[u8], sum: u64) -> Option<bool> {
    let good = Verified { ipv4: Verdict::Good, l4: Verdict::Good };
    (verify_short(frame, sum, ALL) == Some(good)).then(|| frame[23] == TCP)
}

/// What is said, by sums over the packet itself and nothing else.
fn model(frame: &[u8]) -> (Verdict, Verdict) {
    let (headers, _) = parse(frame, 0);
    let l3 = frame.get(usize::from(headers.l3_offset)..).unwrap_or_default();
    let length = l3.first().map_or(0, |first| usize::from(first & 15) * 4);
    let is_header = headers.ethertype == 0x0800 && length >= 20 && l3[0] >> 4 == 4 && l3.len() >= length;
    let ipv4 = if is_header { good_if(checksum(sum(&l3[..length])) == 0) } else { Verdict::Unknown };
    let known = matches!(headers.proto, TCP | UDP | SCTP);
    let (Some(packet), Some(payload)) = (ip::packet(frame, &headers), ip::transport(frame, &headers)) else {
        return (ipv4, Verdict::Unknown);
    };
    if !known || headers.fragment != Fragment::None {
        return (ipv4, Verdict::Unknown);
    }
    if headers.proto == SCTP {
        let mut whole = payload.to_vec();
        whole[8..12].fill(0);
        return (ipv4, good_if(crc32c(&[&whole]).to_le_bytes() == payload[8..12]));
    }
    let v6 = headers.shape == Shape::Ipv6;
    let mut covered = payload.len();
    if headers.proto == UDP {
        covered = usize::from(u16::from_be_bytes([payload[4], payload[5]]));
        let is_absent = payload[6..8] == [0, 0];
        match (covered < 8 || covered > payload.len(), is_absent, v6) {
            (true, ..) | (_, true, true) => return (ipv4, Verdict::Bad),
            (_, true, false) => return (ipv4, Verdict::Absent),
            _ => {}
        }
    }
    let mut all = if v6 { packet[8..40].to_vec() } else { packet[12..20].to_vec() };
    all.extend([0, headers.proto]);
    all.extend(u16::try_from(covered).unwrap().to_be_bytes());
    all.extend(&payload[..covered]);
    let right = checksum(sum(&all)) == 0;
    let unsure = !right && has_other_ends(packet, &headers);
    (ipv4, if unsure { Verdict::Unknown } else { good_if(right) })
}

/// What stands before the payload.
#[derive(Clone, Debug)]
struct Before {
    tags: Vec<u8>,
    v6: bool,
    /// Options of IPv4, or an extension header of IPv6 with its type.
    more: Option<(u8, [u8; 8])>,
    proto: u8,
}

/// A frame with right checksums, and behind the packet some padding. Also says where the payload begins.
fn frame_of(before: &Before, payload: &[u8], padding: usize) -> (Vec<u8>, usize) {
    let Before { tags, v6, more, proto } = before;
    let mut frame = vec![2; 12];
    frame.extend(tags);
    let extra = more.map_or(0, |(_, bytes)| bytes.len());
    let length = u16::try_from(payload.len() + extra).unwrap();
    if *v6 {
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
        frame.extend(length.to_be_bytes());
        frame.extend([more.map_or(*proto, |(kind, _)| kind), 64]);
        frame.extend((0..32).map(|i| i * 7 + 1));
        frame.extend(more.iter().flat_map(|(_, bytes)| [*proto, 0].into_iter().chain(bytes[2..].iter().copied())));
    } else {
        frame.extend([8, 0, 0x45 + u8::try_from(extra / 4).unwrap(), 0]);
        frame.extend((length + 20).to_be_bytes());
        frame.extend([1, 2, 0x40, 0, 64, *proto, 0, 0, 10, 0, 0, 1, 192, 168, 7, 2]);
        frame.extend(more.iter().flat_map(|(_, bytes)| bytes));
    }
    let start = frame.len();
    frame.extend(payload);
    frame.extend((0..padding).map(|i| u8::try_from(i % 251).unwrap() | 1));
    let (headers, _) = parse(&frame, 0);
    complete(&mut frame, &headers);
    if *proto == SCTP {
        let end = start + payload.len();
        frame[start + 8..start + 12].fill(0);
        let sum = crc32c(&[&frame[start..end]]);
        frame[start + 8..start + 12].copy_from_slice(&sum.to_le_bytes());
    }
    (frame, start)
}

/// The least header of each protocol, and `data`.
fn payload_of(proto: u8, data: &[u8]) -> Vec<u8> {
    let mut payload = vec![0, 7, 0, 9];
    match proto {
        TCP => payload.extend([0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x10, 1, 0, 0, 0, 0, 0]),
        UDP => {
            payload.extend(u16::try_from(8 + data.len()).unwrap().to_be_bytes());
            payload.extend([0, 0]);
        }
        _ => payload.extend([0, 0, 0, 5, 0, 0, 0, 0]),
    }
    payload.extend(data);
    payload
}

fn befores() -> impl Strategy<Value = Before> {
    let tag = prop_oneof![
        Just(vec![]),
        Just(vec![0x81, 0, 0x20, 7]),
        Just(vec![0x88, 0xa8, 0, 7, 0x81, 0, 0, 9]),
        Just(vec![0x81, 0, 0, 7, 0x81, 0, 0, 9])
    ];
    let proto = prop_oneof![Just(TCP), Just(TCP), Just(UDP), Just(UDP), Just(SCTP), Just(47)];
    let v4 = prop_oneof![
        Just([1, 1, 1, 1, 1, 1, 1, 0]),
        Just([131, 7, 4, 10, 1, 1, 1, 0]),
        Just([148, 4, 0, 0, 1, 0, 0, 0])
    ];
    let kind = prop_oneof![Just(0_u8), Just(60), Just(43)];
    (tag, any::<bool>(), proto, prop::option::of((kind, v4))).prop_map(|(tags, v6, proto, more)| Before {
        tags,
        v6,
        proto,
        // Six bytes of padding, in an extension header of eight.
        more: more.map(|(kind, options)| (kind, if v6 { [0, 0, 1, 4, 0, 0, 0, 0] } else { options })),
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]
    /// What a sender made right is good, whatever stands before and behind it; and what is said of it after some bytes have changed
    /// is what sums over the packet alone say.
    #[test]
    fn verdicts_are_those_of_the_model(
        before in befores(),
        data in prop::collection::vec(any::<u8>(), 0..90),
        padding in 0_usize..20,
        patches in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in prop_oneof![3 => Just(0_usize), 1 => 0_usize..40],
        surplus in 0_u64..1 << 20,
    ) {
        let (mut frame, _) = frame_of(&before, &payload_of(before.proto, &data), padding);
        let whole = verified(&frame);
        prop_assert_eq!(whole.0, if before.v6 { Verdict::Unknown } else { Verdict::Good });
        prop_assert_eq!(whole.1, if before.proto == 47 { Verdict::Unknown } else { Verdict::Good });
        for (at, value) in patches {
            let at = at.index(frame.len());
            frame[at] = value;
        }
        frame.truncate(frame.len().saturating_sub(cut));
        let expected = model(&frame);
        prop_assert_eq!(verified(&frame), expected);
        let Verified { ipv4, l4 } = verify(&frame, raw_sum(&frame) + 0xffff * surplus, ALL);
        prop_assert_eq!((ipv4, l4), expected, "another number with the same rest");
        let sum = raw_sum(&frame) + 0xffff * surplus;
        prop_assert_eq!(good_tcp_or_udp(&frame, sum), good_by_verify(&frame, sum));
    }

    /// Any bytes and any sum: it answers, and what is not wanted is unknown.
    #[test]
    fn nothing_panics(frame in prop::collection::vec(any::<u8>(), 0..200), sum: u64, ipv4: bool, tcp: bool, udp: bool) {
        let wanted = Wanted { ipv4, tcp, udp, sctp: false };
        let _any = verify(&frame, sum, wanted);
        prop_assert_eq!(good_tcp_or_udp(&frame, sum), good_by_verify(&frame, sum));
        prop_assert_eq!(verify(&frame, sum, Wanted::default()), Verified::default());
    }
}

/// Every bit counts: one that is turned anywhere in what a checksum covers makes it bad, at every length, also where the short way
/// is taken.
#[test]
fn each_bit_is_covered() {
    for (v6, proto) in [(false, TCP), (false, UDP), (false, SCTP), (true, TCP), (true, UDP), (true, SCTP)] {
        let before = Before { tags: vec![], v6, more: None, proto };
        for (len, padding) in [(0, 0), (1, 0), (2, 0), (31, 7), (64, 1), (65, 2)] {
            let payload = payload_of(proto, &(0..len).collect::<Vec<u8>>());
            let (frame, start) = frame_of(&before, &payload, padding);
            assert_eq!(verified(&frame).1, Verdict::Good);
            for bit in start * 8..(start + payload.len()) * 8 {
                let mut damaged = frame.clone();
                damaged[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(verified(&damaged), model(&damaged));
                assert_ne!(verified(&damaged).1, Verdict::Good, "{proto}, bit {bit}, {len} bytes");
            }
            // Padding is not covered.
            for byte in start + payload.len()..frame.len() {
                let mut other = frame.clone();
                other[byte] ^= 0x5a;
                assert_eq!(verified(&other), verified(&frame));
            }
        }
    }
}

/// What RFC 768 lets a sender do over IPv4, and RFC 8200 does not over IPv6; lengths of UDP that cannot be; a checksum that Linux has
/// left to a card.
#[test]
fn special_cases_of_udp() {
    for v6 in [false, true] {
        let before = Before { tags: vec![], v6, more: None, proto: UDP };
        let (right, start) = frame_of(&before, &payload_of(UDP, b"hello"), 4);
        let with = |at: usize, bytes: [u8; 2]| {
            let mut frame = right.clone();
            frame[start + at..start + at + 2].copy_from_slice(&bytes);
            verified(&frame).1
        };
        assert_eq!(with(6, [0, 0]), if v6 { Verdict::Bad } else { Verdict::Absent });
        for length in [0_u16, 7, 14, 17, 0xffff] {
            assert_eq!(with(4, length.to_be_bytes()), Verdict::Bad, "{length}");
        }
        let addresses = if v6 { &right[22..54] } else { &right[26..34] };
        let partial = crate::checksum::fold(sum(addresses) + u64::from(UDP) + 13);
        assert_eq!(with(6, partial.to_be_bytes()), Verdict::Bad);
    }
}

/// A fragment's payload is not judged, its header is; a malformed packet's header, too, if it is all there.
#[test]
fn parts_of_packets() {
    let before = Before { tags: vec![], v6: false, more: None, proto: UDP };
    let (mut frame, _) = frame_of(&before, &payload_of(UDP, b"hello"), 0);
    frame[20] = 0x20;
    assert_eq!(verified(&frame), (Verdict::Bad, Verdict::Unknown));
    frame[24..26].fill(0);
    let right = checksum(sum(&frame[14..34])).to_be_bytes();
    frame[24..26].copy_from_slice(&right);
    assert_eq!(verified(&frame), (Verdict::Good, Verdict::Unknown));
    assert_eq!(verified(&frame[..34]), (Verdict::Good, Verdict::Unknown), "shorter than it says");
    assert_eq!(verified(&frame[..33]), (Verdict::Unknown, Verdict::Unknown));
    assert_eq!(verified(&[]), (Verdict::Unknown, Verdict::Unknown));
}

/// Guards the benchmark: were the short way never taken, the properties above would still hold.
#[test]
fn plain_packets_take_the_short_way() {
    for proto in [TCP, UDP] {
        let before = Before { tags: vec![], v6: false, more: None, proto };
        let (frame, _) = frame_of(&before, &payload_of(proto, b"hello"), 0);
        assert_eq!(verify_short(&frame, raw_sum(&frame), ALL), Some(verify_long(&frame, raw_sum(&frame), ALL)));
        assert_eq!(good_tcp_or_udp(&frame, raw_sum(&frame)), Some(proto == TCP));
        let (frame, _) = frame_of(&before, &payload_of(proto, b"hello"), 6);
        assert_eq!(verify_short(&frame, raw_sum(&frame), ALL), None);
    }
}
