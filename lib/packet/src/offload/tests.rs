//! Jobs against a plain model, and against segments that are cut for the kernel's port.

use super::*;
use crate::segment::tests::{cut, unfinished};
use proptest::prelude::*;
use std::vec;
use std::vec::Vec;

/// Does what is left to the port of `packet`, whose bytes come in pieces of `piece` bytes.
fn play(request: &OffloadRequest, packet: &[u8], piece: usize) -> Option<Vec<Vec<u8>>> {
    // What an earlier packet left makes no difference.
    let mut job = Job { head: [0xa5; MAX_HEADERS], sum: 7, odd: true, uncovered: 9, ..Job::default() };
    job.start(request, packet.get(..request.head_len())?, packet.len())?;
    let mut body = &packet[request.head_len()..];
    let mut frames = Vec::new();
    for at in 0..job.frames() {
        job.begin(at)?;
        let (mut here, rest) = body.split_at(job.body_len(at));
        body = rest;
        let payload = here;
        while !here.is_empty() {
            let (now, later) = here.split_at(piece.min(here.len()));
            let (covered, _) = now.split_at(job.uncovered().min(now.len()));
            job.add_bytes(covered);
            here = later;
        }
        assert_eq!(job.uncovered(), 0);
        frames.push([job.finish(), payload].concat());
    }
    assert!(body.is_empty());
    Some(frames)
}

/// The same by the short way, with whatever rest by 65,535 the sum of the bytes is told.
fn play_short(request: &OffloadRequest, packet: &[u8]) -> Option<Vec<u8>> {
    let short = Short::of(request, packet)?;
    let mut frame = packet.to_vec();
    let sum = crate::verify::raw_sum(packet);
    for (at, bytes) in [short.ipv4(), Some(short.checksum(sum))].into_iter().flatten() {
        frame[at..at + 2].copy_from_slice(&bytes);
    }
    Some(frame)
}

/// The sum of RFC 1071 by its words, of which an odd last byte is padded.
fn words(bytes: &[u8]) -> u32 {
    bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0))).sum()
}

fn complement(mut sum: u32) -> [u8; 2] {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!u16::try_from(sum).unwrap()).to_be_bytes()
}

/// A packet, where its headers lie, and the same with right checksums.
#[derive(Clone, Debug)]
struct Model {
    packet: Vec<u8>,
    right: Vec<u8>,
    request: OffloadRequest,
}

/// Bytes of padding behind every packet: no checksum covers them.
const PADDING: usize = 3;

impl Model {
    fn new(v6: bool, transport: Transport, options: usize, payload: &[u8]) -> Self {
        let mut packet = vec![2; 12];
        let header = [&[9; 4][..], &[7; 16]].concat();
        let (header, field) = match transport {
            Transport::Tcp => {
                let mut header = header;
                header[12] = 0x50;
                (header, 16)
            }
            Transport::Udp => {
                let length = u16::try_from(8 + payload.len()).unwrap().to_be_bytes();
                ([&header[..4], &length, &[7; 2]].concat(), 6)
            }
            Transport::Sctp => (header[..12].to_vec(), 8),
        };
        let behind = u16::try_from(header.len() + payload.len()).unwrap();
        let (l3, addresses) = if v6 {
            packet.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            packet.extend((behind + u16::try_from(options * 8).unwrap()).to_be_bytes());
            packet.extend([if options > 0 { DESTINATION } else { transport.number() }, 64]);
            packet.extend((0..32).map(|i| i * 7));
            for left in (0..options).rev() {
                packet.extend([if left > 0 { DESTINATION } else { transport.number() }, 0, 1, 4, 0, 0, 0, 0]);
            }
            (40 + options * 8, packet[22..54].to_vec())
        } else {
            let l3 = 20 + options * 4;
            packet.extend([8, 0, 0x40 | u8::try_from(l3 / 4).unwrap(), 0]);
            packet.extend((behind + u16::try_from(l3).unwrap()).to_be_bytes());
            packet.extend([0, 9, 0x40, 0, 64, transport.number(), 0xab, 0xcd, 10, 0, 0, 1, 198, 51, 100, 2]);
            packet.extend(vec![1; options * 4]);
            (l3, packet[26..34].to_vec())
        };
        packet.extend(&header);
        packet.extend(payload);
        let mut right = packet.clone();
        packet.extend([0xee; PADDING]);
        let l4 = 14 + l3;
        if !v6 {
            right[24..26].fill(0);
            let sum = complement(words(&right[14..l4]));
            right[24..26].copy_from_slice(&sum);
        }
        if transport == Transport::Sctp {
            right[l4 + 8..l4 + 12].fill(0);
            let mut crc = Crc32c::default();
            crc.update(&right[l4..]);
            right[l4 + 8..l4 + 12].copy_from_slice(&crc.bytes());
        } else {
            right[l4 + field..l4 + field + 2].fill(0);
            let pseudo = words(&addresses) + u32::from(transport.number()) + u32::from(behind);
            let mut sum = complement(pseudo + words(&right[l4..]));
            if sum == [0, 0] && transport == Transport::Udp {
                sum = [0xff; 2];
            }
            right[l4 + field..l4 + field + 2].copy_from_slice(&sum);
        }
        right.extend([0xee; PADDING]);
        let request =
            OffloadRequest { l2: 14, l3, ipv4_checksum: !v6, transport: Some(transport), ..OffloadRequest::default() };
        Self { packet, right, request }
    }

    /// The tags of this request in front of `frame`.
    fn tagged(&self, mut frame: Vec<u8>) -> Vec<u8> {
        let kinds = [(0x81, 0x00, self.request.tag), (0x88, 0xa8, self.request.service_tag)];
        for (a, b, tag) in kinds {
            if let Some(tag) = tag {
                let [c, d] = tag.to_be_bytes();
                frame.splice(12..12, [a, b, c, d]);
            }
        }
        frame
    }
}

fn transports() -> impl Strategy<Value = Transport> {
    prop_oneof![Just(Transport::Tcp), Just(Transport::Udp), Just(Transport::Sctp)]
}

fn models() -> impl Strategy<Value = Model> {
    let payload = prop::collection::vec(any::<u8>(), 0..300);
    let tag = prop::option::of(any::<u16>());
    (any::<bool>(), transports(), 0..4_usize, payload, any::<bool>(), tag).prop_map(
        |(v6, transport, options, payload, two, tag)| {
            let mut model = Model::new(v6, transport, options, &payload);
            model.request.tag = tag;
            model.request.service_tag = tag.filter(|_| two).map(|tag| !tag);
            model
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// All checksums are right, whatever stood there and in whatever pieces the packet comes; nothing else is changed, and tags are in
    /// their place.
    #[test]
    fn checksums_are_written_as_a_whole(model in models(), piece in 1..40_usize, junk in any::<[u8; 4]>()) {
        let mut packet = model.packet.clone();
        let OffloadRequest { l2, l3, .. } = model.request;
        let transport = model.request.transport.unwrap();
        let field = l2 + l3 + transport.field();
        let width = if transport == Transport::Sctp { 4 } else { 2 };
        packet[field..field + width].copy_from_slice(&junk[..width]);
        let frames = play(&model.request, &packet, piece).unwrap();
        prop_assert_eq!(frames, vec![model.tagged(model.right.clone())]);
    }

    /// The short way is taken where it can be, and leads to the same frame.
    #[test]
    fn the_short_way_leads_to_the_same_frame(model in models(), junk in any::<[u8; 2]>(), vlan in any::<bool>()) {
        let mut request = model.request;
        let transport = request.transport.unwrap();
        let bare = |frame: &[u8]| {
            let mut frame = frame[..frame.len() - PADDING].to_vec();
            if vlan {
                frame.splice(12..12, [0x81, 0, 0x12, 0x34]);
            }
            frame
        };
        let (mut packet, right) = (bare(&model.packet), bare(&model.right));
        request.l2 += if vlan { 4 } else { 0 };
        let field = request.l2 + request.l3 + transport.field();
        packet[field..field + 2].copy_from_slice(&junk);
        let options = ![20, 40].contains(&request.l3);
        let expected = (request.tags_len() == 0 && transport != Transport::Sctp && !options).then_some(right);
        prop_assert_eq!(play_short(&request, &packet), expected);
        // One byte more is padding, and one less is missing.
        prop_assert_eq!(play_short(&request, &packet[..packet.len() - 1]), None);
        packet.push(0);
        prop_assert_eq!(play_short(&request, &packet), None);
    }

    /// Each alone, the others stay as they are.
    #[test]
    fn only_what_is_asked_for_is_done(model in models(), which in 0..3) {
        let l4 = 14 + model.request.l3;
        let mut expected = model.packet.clone();
        let none = OffloadRequest { ipv4_checksum: false, transport: None, tag: None, service_tag: None, ..model.request };
        let request = match which {
            0 => {
                expected[14..l4].copy_from_slice(&model.right[14..l4]);
                OffloadRequest { ipv4_checksum: model.request.ipv4_checksum, ..none }
            }
            1 => {
                expected[l4..].copy_from_slice(&model.right[l4..]);
                OffloadRequest { transport: model.request.transport, ..none }
            }
            _ => {
                expected = model.tagged(expected);
                OffloadRequest { tag: model.request.tag, service_tag: model.request.service_tag, ..none }
            }
        };
        prop_assert_eq!(play(&request, &model.packet, 1000).unwrap(), vec![expected]);
    }

    /// A packet is cut as one of the kernel's is, tags or not.
    #[test]
    fn segments_are_those_of_the_kernels_port(
        v6 in any::<bool>(),
        payload in prop::collection::vec(any::<u8>(), 0..3000),
        flags in any::<u8>(),
        size in 1..1500_u16,
        piece in 1..700_usize,
        tag in prop::option::of(any::<u16>()),
    ) {
        let (mut packet, header) = unfinished(v6, 0, &payload, flags, size);
        let expected = cut(&mut packet.clone(), &header);
        let l3 = if v6 { 40 } else { 20 };
        // Neither lengths nor checksums have to be right.
        packet[14 + l3 + 16..][..2].fill(0x77);
        packet[if v6 { 18 } else { 16 }..][..2].fill(0x77);
        let request = OffloadRequest { l2: 14, l3, l4: 32, segment: Some(size), tag, ..OffloadRequest::default() };
        let mut frames = play(&request, &packet, piece).unwrap();
        for frame in &mut frames {
            if let Some(tag) = tag {
                let [a, b] = tag.to_be_bytes();
                prop_assert_eq!(frame.drain(12..16).collect::<Vec<_>>(), vec![0x81, 0, a, b]);
            }
        }
        prop_assert_eq!(frames, expected);
    }

    /// Whatever bytes and lengths: frames or nothing, and never a panic. What comes has the bytes of the packet.
    #[test]
    fn no_packet_and_no_request_does_harm(
        mut packet in prop::collection::vec(any::<u8>(), 0..700),
        ip in prop_oneof![Just(0x45_u8), Just(0x46), Just(0x60), any::<u8>()],
        lengths in (0..128_usize, 0..512_usize, 0..256_usize),
        usual in any::<[bool; 3]>(),
        transport in prop::option::of(transports()),
        segment in prop::option::of(any::<u16>()),
        ipv4_checksum in any::<bool>(),
        tag in prop::option::of(any::<u16>()),
        proto in prop_oneof![Just(6_u8), Just(17), Just(132), Just(44), Just(43), Just(0), any::<u8>()],
        behind in prop_oneof![Just(6_u8), Just(17), Just(132), Just(43), any::<u8>()],
    ) {
        let l2 = if usual[0] { 14 } else { lengths.0 };
        let l3 = if usual[1] { if ip == 0x60 { 56 } else { 20 } } else { lengths.1 };
        let l4 = if usual[2] { 20 } else { lengths.2 };
        for (at, value) in [(l2, ip), (l2 + if ip == 0x60 { 6 } else { 9 }, proto), (l2 + 40, behind)] {
            if let Some(byte) = packet.get_mut(at) {
                *byte = value;
            }
        }
        let request = OffloadRequest { l2, l3, l4, ipv4_checksum, transport, segment, service_tag: tag, tag };
        let frames = play(&request, &packet, 100);
        if let Some(frame) = play_short(&request, &packet) {
            prop_assert_eq!(frames.as_deref(), Some(&[frame][..]));
        }
        if let Some(frames) = frames {
            let heads = request.head_len() + request.tags_len();
            let bytes: usize = frames.iter().map(|frame| frame.len() - heads).sum();
            prop_assert_eq!(bytes, packet.len() - request.head_len());
        }
    }
}

/// In UDP zero stands for no checksum (RFC 768).
#[test]
fn a_sum_of_zero_is_sent_as_ones_in_udp() {
    for v6 in [false, true] {
        let without = Model::new(v6, Transport::Udp, 0, &[0, 0]);
        let field = 14 + without.request.l3 + 6;
        // What makes the checksum zero is what it was without.
        let payload = [without.right[field], without.right[field + 1]];
        let model = Model::new(v6, Transport::Udp, 0, &payload);
        assert_eq!(model.right[field..field + 2], [0xff, 0xff]);
        let bare = model.packet.len() - PADDING;
        assert_eq!(play_short(&model.request, &model.packet[..bare]).as_deref(), model.right.get(..bare));
        assert_eq!(play(&model.request, &model.packet, 1).unwrap(), [model.right]);
    }
}

/// No fragment has all that a checksum covers: that stays as it is, and the checksum of IPv4 is written.
#[test]
fn fragments_keep_their_payload() {
    for bits in [[0x20, 0], [0, 1], [0x3f, 0xff]] {
        let mut model = Model::new(false, Transport::Udp, 0, b"hello");
        model.packet[20..22].copy_from_slice(&bits);
        let mut expected = model.packet.clone();
        expected[24..26].fill(0);
        let sum = complement(words(&expected[14..34]));
        expected[24..26].copy_from_slice(&sum);
        assert_eq!(play(&model.request, &model.packet, 9).unwrap(), [expected]);
        let cut = OffloadRequest { segment: Some(100), l4: 20, transport: None, ..model.request };
        assert!(play(&cut, &model.packet, 9).is_none());
    }
    let mut v6 = Model::new(true, Transport::Udp, 1, b"hello");
    v6.packet[20] = FRAGMENT;
    v6.packet[54..62].copy_from_slice(&[proto::UDP, 0, 0, 1, 0, 0, 0, 9]);
    assert_eq!(play(&v6.request, &v6.packet, 9).unwrap(), std::slice::from_ref(&v6.packet));
    // The only one of its packet: it has all.
    v6.packet[57] = 0;
    assert_ne!(play(&v6.request, &v6.packet, 9).unwrap(), [v6.packet]);
}

/// The pseudo header has the address where the packet ends (RFC 8200, 8.1): the last one of a source route, the first one of a segment
/// list; the destination when no segment is left.
#[test]
fn source_routes_are_summed_up_by_their_end() {
    let end = [0x5a; 16];
    for (kind, left, at) in [(0, 1, 24), (0, 0, 24), (2, 1, 24), (4, 2, 8)] {
        let plain = Model::new(true, Transport::Udp, 0, b"hello");
        let mut packet = plain.packet;
        let mut routing = vec![proto::UDP, 4, kind, left];
        routing.extend([3; 36]);
        routing[at..at + 16].copy_from_slice(&end);
        packet[20] = ROUTING;
        packet[19] += 40;
        let mut expected = packet.clone();
        packet.splice(54..54, routing.clone());
        // The sum is that of a packet straight to the end.
        expected[19] -= 40;
        expected[20] = proto::UDP;
        if left > 0 {
            expected[38..54].copy_from_slice(&end);
        }
        let straight = play(&plain.request, &expected, 100).unwrap().swap_remove(0);
        let request = OffloadRequest { l3: 80, ..plain.request };
        let routed = play(&request, &packet, 100).unwrap().swap_remove(0);
        assert_eq!(routed[94..], straight[54..], "{kind} {left}");
        assert_eq!(routed[..94], packet[..94]);
    }
    let mut unknown = Model::new(true, Transport::Udp, 1, b"hello");
    unknown.packet[20] = ROUTING;
    unknown.packet[56..58].copy_from_slice(&[3, 1]);
    assert!(play(&unknown.request, &unknown.packet, 9).is_none());
}

/// What contradicts itself becomes no frame.
#[test]
fn contradictions_are_refused() {
    let tcp = Model::new(false, Transport::Tcp, 0, b"hello").packet;
    let udp = Model::new(false, Transport::Udp, 0, b"hello").packet;
    let v6 = Model::new(true, Transport::Tcp, 0, b"hello").packet;
    let of = |transport| OffloadRequest { l2: 14, l3: 20, ipv4_checksum: true, transport, ..OffloadRequest::default() };
    let (tcp4, udp4) = (of(Some(Transport::Tcp)), of(Some(Transport::Udp)));
    let segments = OffloadRequest { segment: Some(2), l4: 20, ..of(None) };
    let changed = |packet: &[u8], at: usize, value: u8| {
        let mut packet = packet.to_vec();
        packet[at] = value;
        packet
    };
    for (request, packet) in [(tcp4, &tcp), (udp4, &udp), (segments, &tcp)] {
        assert!(play(&request, packet, 9).is_some());
    }
    let refused = [
        ("another protocol", tcp4, udp.clone()),
        ("another protocol, segments", segments, udp.clone()),
        ("no IP", tcp4, changed(&tcp, 14, 0x25)),
        ("other options", tcp4, changed(&tcp, 14, 0x46)),
        ("headers beyond Ethernet's", OffloadRequest { l2: 13, ..tcp4 }, tcp[1..].to_vec()),
        ("another length of headers", OffloadRequest { l3: 24, ..tcp4 }, tcp.clone()),
        ("longer than the packet", tcp4, tcp[..53].to_vec()),
        ("more payload than there is", tcp4, changed(&tcp, 16, 1)),
        ("no room for a header", tcp4, changed(&tcp, 17, 39)),
        ("a long datagram", udp4, changed(&udp, 38, 1)),
        ("a short datagram", udp4, changed(&udp, 39, 7)),
        ("no segments", OffloadRequest { segment: Some(0), ..segments }, tcp.clone()),
        ("another TCP header", OffloadRequest { l4: 24, ..segments }, tcp.clone()),
        ("no TCP header", OffloadRequest { l4: 0, ..segments }, tcp.clone()),
        ("IPv6", tcp4, v6.clone()),
        ("too few headers", OffloadRequest { l3: 36, ..tcp4 }, v6.clone()),
        ("unknown extension", OffloadRequest { l3: 48, ..tcp4 }, v6.clone()),
        ("more headers than can be", OffloadRequest { l2: 127, l3: 511, ..tcp4 }, vec![0x45; 1000]),
        ("tags without addresses", OffloadRequest { tag: Some(1), ..OffloadRequest::default() }, vec![0; 11]),
    ];
    for (what, request, packet) in refused {
        assert!(play(&request, &packet, 9).is_none(), "{what}");
    }
}
