//! What is read beside the flow key, and the answers to rejected packets, over packets that `etherparse` writes.
#![expect(
    clippy::tests_outside_test_module,
    clippy::unwrap_used,
    reason = "the whole file is a test, which the lints do not see"
)]

use std::hint::black_box;
use std::net::{IpAddr, Ipv6Addr};

use etherparse::{NetSlice, PacketBuilder, PacketBuilderStep, SlicedPacket, TcpOptionElement, TransportSlice, VlanId};
use kopi_packet::tcp::{Segment, flags};
use kopi_packet::{FlowKey, Headers, MacAddr, fragment_id, icmp, ndp, parse, reply};
use proptest::prelude::*;

const HERE: [u8; 6] = [2, 0, 0, 0, 0, 1];
const THERE: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// Both ends of a packet between two hosts.
#[derive(Clone, Debug)]
enum Hosts {
    V4([u8; 4], [u8; 4]),
    V6([u8; 16], [u8; 16]),
}

fn hosts() -> impl Strategy<Value = Hosts> {
    let v4 = || any::<[u8; 4]>().prop_map(|mut a| (a[0] = 1 + a[0] % 100, a).1);
    let v6 = || any::<[u8; 16]>().prop_map(|mut a| (a[0] = 0x20, a).1);
    prop_oneof![(v4(), v4()).prop_map(|(a, b)| Hosts::V4(a, b)), (v6(), v6()).prop_map(|(a, b)| Hosts::V6(a, b))]
}

/// A frame with up to two VLAN tags between the hosts, up to its IP header.
fn ip(hosts: &Hosts, tags: u8) -> PacketBuilderStep<etherparse::IpHeaders> {
    let id = |n| VlanId::try_new(n).unwrap();
    let link = PacketBuilder::ethernet2(THERE, HERE);
    match (hosts, tags) {
        (Hosts::V4(a, b), 0) => link.ipv4(*a, *b, 9),
        (Hosts::V4(a, b), 1) => link.single_vlan(id(7)).ipv4(*a, *b, 9),
        (Hosts::V4(a, b), _) => link.double_vlan(id(7), id(8)).ipv4(*a, *b, 9),
        (Hosts::V6(a, b), 0) => link.ipv6(*a, *b, 9),
        (Hosts::V6(a, b), 1) => link.single_vlan(id(7)).ipv6(*a, *b, 9),
        (Hosts::V6(a, b), _) => link.double_vlan(id(7), id(8)).ipv6(*a, *b, 9),
    }
}

/// A TCP segment as it was meant.
#[derive(Clone, Debug)]
struct Tcp {
    ports: (u16, u16),
    numbers: (u32, u32),
    window: u16,
    /// FIN, SYN, RST and ACK in the low bits, in no order that matters.
    flags: u8,
    scale: Option<u8>,
    payload: usize,
}

fn tcp() -> impl Strategy<Value = Tcp> {
    (any::<(u16, u16)>(), any::<(u32, u32)>(), any::<u16>(), 0_u8..16, prop::option::of(any::<u8>()), 0_usize..600)
        .prop_map(|(ports, numbers, window, flags, scale, payload)| Tcp {
            ports,
            numbers,
            window,
            flags,
            scale,
            payload,
        })
}

fn tcp_frame(hosts: &Hosts, tags: u8, tcp: &Tcp) -> Vec<u8> {
    let mut step = ip(hosts, tags).tcp(tcp.ports.0, tcp.ports.1, tcp.numbers.0, tcp.window);
    let set = |bit: u8| tcp.flags & bit != 0;
    step = if set(1) { step.fin() } else { step };
    step = if set(2) { step.syn() } else { step };
    step = if set(4) { step.rst() } else { step };
    step = if set(8) { step.ack(tcp.numbers.1) } else { step };
    if let Some(scale) = tcp.scale {
        step = step.options(&[TcpOptionElement::Noop, TcpOptionElement::WindowScale(scale)]).unwrap();
    }
    let mut frame = Vec::new();
    step.write(&mut frame, &vec![0xab; tcp.payload]).unwrap();
    frame
}

fn udp_frame(hosts: &Hosts, tags: u8, ports: (u16, u16), payload: usize) -> Vec<u8> {
    let mut frame = Vec::new();
    ip(hosts, tags).udp(ports.0, ports.1).write(&mut frame, &vec![0xab; payload]).unwrap();
    frame
}

fn echo_frame(hosts: &Hosts, tags: u8, id: u16) -> Vec<u8> {
    let mut frame = Vec::new();
    match hosts {
        Hosts::V4(..) => ip(hosts, tags).icmpv4_echo_request(id, 1).write(&mut frame, &[1, 2, 3]).unwrap(),
        Hosts::V6(..) => ip(hosts, tags).icmpv6_echo_request(id, 1).write(&mut frame, &[1, 2, 3]).unwrap(),
    }
    frame
}

fn unreachable(frame: &[u8]) -> Option<Vec<u8>> {
    let mut out = [0; reply::MAX_LEN];
    let length = reply::unreachable(frame, &parse(frame, 0).0, &mut out)?;
    Some(out[..length].to_vec())
}

fn reset(frame: &[u8]) -> Option<Vec<u8>> {
    let mut out = [0; reply::MAX_LEN];
    let length = reply::tcp_reset(frame, &parse(frame, 0).0, &mut out)?;
    Some(out[..length].to_vec())
}

/// All checksums of the frame are right, by the oracle's arithmetic.
fn checksums_hold(frame: &[u8]) {
    let sliced = SlicedPacket::from_ethernet(frame).unwrap();
    let (v4, v6) = match sliced.net.as_ref().unwrap() {
        NetSlice::Ipv4(slice) => {
            let header = slice.header().to_header();
            assert_eq!(header.header_checksum, header.calc_header_checksum());
            (Some((header.source, header.destination)), None)
        }
        NetSlice::Ipv6(slice) => (None, Some((slice.header().source(), slice.header().destination()))),
        NetSlice::Arp(_) => panic!("an answer in ARP"),
    };
    match (sliced.transport.unwrap(), v4, v6) {
        (TransportSlice::Tcp(tcp), Some((a, b)), _) => {
            assert_eq!(tcp.checksum(), tcp.calc_checksum_ipv4(a, b).unwrap());
        }
        (TransportSlice::Tcp(tcp), _, Some((a, b))) => {
            assert_eq!(tcp.checksum(), tcp.calc_checksum_ipv6(a, b).unwrap());
        }
        (TransportSlice::Icmpv4(icmp), Some(_), _) => {
            let expected = icmp.icmp_type().calc_checksum(icmp.payload());
            assert_eq!(icmp.checksum(), expected);
        }
        (TransportSlice::Icmpv6(icmp), _, Some((a, b))) => assert!(icmp.is_checksum_valid(a, b)),
        other => panic!("{other:?}"),
    }
}

/// Both addresses, protocol, ports and echo of a packet, as an ICMP error about it has them.
fn quoted(key: &FlowKey) -> icmp::Quoted {
    icmp::Quoted {
        src: key.src_addr().unwrap(),
        dst: key.dst_addr().unwrap(),
        proto: key.proto(),
        ports: key.src_port().zip(key.dst_port()),
        icmp: key.icmp().map(|(kind, _)| (kind, key.icmp_id().unwrap_or(0))),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_segment_is_read_as_it_was_written(hosts in hosts(), tags in 0_u8..3, tcp in tcp()) {
        let frame = tcp_frame(&hosts, tags, &tcp);
        let segment = Segment::of(&frame, &parse(&frame, 0).0).unwrap();
        let set = |bit: u8, flag: u8| if tcp.flags & bit != 0 { flag } else { 0 };
        let flags = set(1, flags::FIN) | set(2, flags::SYN) | set(4, flags::RST) | set(8, flags::ACK);
        prop_assert_eq!(segment.flags, flags);
        prop_assert_eq!((segment.seq, segment.window), (tcp.numbers.0, tcp.window));
        prop_assert_eq!(segment.ack, if tcp.flags & 8 != 0 { tcp.numbers.1 } else { 0 });
        prop_assert_eq!(usize::from(segment.payload_len), tcp.payload);
        prop_assert_eq!(segment.window_scale, tcp.scale.map(|shift| shift.min(14)).filter(|_| tcp.flags & 2 != 0));
    }

    /// RFC 9293, 3.10.7.1: the three answers of a closed port.
    #[test]
    fn a_reset_is_what_a_closed_port_answers(hosts in hosts(), tags in 0_u8..3, tcp in tcp()) {
        let frame = tcp_frame(&hosts, tags, &tcp);
        let Some(answer) = reset(&frame) else {
            prop_assert!(tcp.flags & 4 != 0, "only a reset is not answered");
            return Ok(());
        };
        prop_assert_eq!(tcp.flags & 4, 0);
        checksums_hold(&answer);
        let (headers, key) = parse(&answer, 0);
        let segment = Segment::of(&answer, &headers).unwrap();
        prop_assert_eq!(key.src_port().zip(key.dst_port()), Some((tcp.ports.1, tcp.ports.0)));
        let controls = u32::from(tcp.flags & 1 != 0) + u32::from(tcp.flags & 2 != 0);
        let length = u32::try_from(tcp.payload).unwrap() + controls;
        let expected = match tcp.flags & 8 {
            0 => (flags::RST | flags::ACK, 0, tcp.numbers.0.wrapping_add(length)),
            _ => (flags::RST, tcp.numbers.1, 0),
        };
        prop_assert_eq!((segment.flags, segment.seq, segment.ack), expected);
        prop_assert_eq!((segment.payload_len, segment.window), (0, 0));
    }

    /// The error names the packet that it is about, and goes back where that came from.
    #[test]
    fn an_icmp_error_quotes_the_packet(
        hosts in hosts(), tags in 0_u8..3, tcp in tcp(), ports: (u16, u16), id: u16, length in 0_usize..1400
    ) {
        let others = [udp_frame(&hosts, tags, ports, length), echo_frame(&hosts, tags, id)];
        for frame in others.into_iter().chain([tcp_frame(&hosts, tags, &tcp)]) {
            let (headers, key) = parse(&frame, 0);
            let answer = unreachable(&frame).unwrap();
            checksums_hold(&answer);
            let (back, back_key) = parse(&answer, 0);
            prop_assert!(icmp::is_error(&back_key));
            prop_assert_eq!(back_key.icmp(), Some(if key.src_addr().unwrap().is_ipv4() { (3, 3) } else { (1, 4) }));
            prop_assert_eq!(icmp::embedded(&answer, &back), Some(quoted(&key)));
            let (room, head) = if key.src_addr().unwrap().is_ipv4() { (576, 28) } else { (1280, 48) };
            let packet = &frame[usize::from(headers.l3_offset)..];
            let whole = answer.len() - usize::from(back.l3_offset);
            prop_assert_eq!(whole, room.min(head + packet.len()));
            prop_assert_eq!(&answer[usize::from(back.l4_offset) + 8..], &packet[..whole - head]);
            prop_assert_eq!(unreachable(&answer), None, "no error about an error");
        }
    }

    /// RFC 1122, 3.2.2 and RFC 4443, 2.4 (e): nothing that went to many is answered.
    #[test]
    fn what_is_not_between_two_hosts_is_not_answered(hosts in hosts(), ports: (u16, u16), tcp in tcp()) {
        for frame in [udp_frame(&hosts, 0, ports, 8), tcp_frame(&hosts, 0, &tcp)] {
            let (src, dst) = match hosts { Hosts::V4(..) => (26, 30), Hosts::V6(..) => (22, 38) };
            for (at, byte) in [(0, 1), (0, 0xff), (6, 1), (src, 0xff), (dst, 0xff)] {
                let mut wrong = frame.clone();
                wrong[at] = byte;
                prop_assert_eq!((reset(&wrong), unreachable(&wrong)), (None, None), "byte {}", at);
            }
        }
    }

    /// A quotation that was cut anywhere names the right packet or none.
    #[test]
    fn a_cut_quotation_is_right_or_none(hosts in hosts(), ports: (u16, u16), keep in 0_usize..80) {
        let frame = udp_frame(&hosts, 0, ports, 8);
        let mut answer = unreachable(&frame).unwrap();
        let cut = parse(&answer, 0).0;
        let length = (usize::from(cut.l4_offset) + 8 + keep).min(answer.len());
        answer.truncate(length);
        let [l0, l1] = u16::try_from(answer.len() - 14).unwrap().to_be_bytes();
        match hosts {
            Hosts::V4(..) => answer[16..18].copy_from_slice(&[l0, l1]),
            Hosts::V6(..) => {
                let [l0, l1] = u16::try_from(answer.len() - 54).unwrap().to_be_bytes();
                answer[18..20].copy_from_slice(&[l0, l1]);
            }
        }
        let found = icmp::embedded(&answer, &parse(&answer, 0).0);
        let needed = if matches!(hosts, Hosts::V4(..)) { 24 } else { 44 };
        prop_assert_eq!(found, (keep >= needed).then(|| quoted(&parse(&frame, 0).1)));
    }

    #[test]
    fn bytes_of_any_kind_cause_no_panic(frame: Vec<u8>, shape in 0_usize..6, offsets: (u16, u16), proto: u8) {
        // Headers that were not made from this frame are a caller's mistake, and still no reason to end a worker.
        let all = [kopi_packet::Shape::Runt, kopi_packet::Shape::Other, kopi_packet::Shape::Arp,
            kopi_packet::Shape::Ipv4, kopi_packet::Shape::Ipv6, kopi_packet::Shape::Ipv6];
        let (l3_offset, l4_offset) = (offsets.0 % 64, offsets.1 % 128);
        let wrong = Headers { shape: all[shape], l3_offset, l4_offset, proto, ..Headers::default() };
        let mut out = [0; reply::MAX_LEN];
        for headers in [wrong, parse(&frame, 0).0] {
            black_box(Segment::of(&frame, &headers));
            black_box(icmp::embedded(&frame, &headers));
            black_box(ndp::message(&frame, &headers));
            black_box(fragment_id(&frame, &headers));
            black_box(reply::tcp_reset(&frame, &headers, &mut out));
            black_box(reply::unreachable(&frame, &headers, &mut out));
        }
    }
}

/// An IPv6 frame between two link-local addresses, with a message of ICMPv6.
fn icmpv6(message: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    let (src, dst) = ([0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1], [0xfe; 16]);
    let step = PacketBuilder::ethernet2(HERE, THERE).ipv6(src, dst, 255);
    step.icmpv6_raw(message[0], message[1], message[4..8].try_into().unwrap())
        .write(&mut frame, &message[8..])
        .unwrap();
    frame
}

fn neighbor(kind: u8, options: &[u8]) -> Option<ndp::Message> {
    let target = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 9).octets();
    let frame = icmpv6(&[&[kind, 0, 0, 0, 0, 0, 0, 0][..], &target, options].concat());
    let (headers, key) = parse(&frame, 0);
    assert!(ndp::is_ndp(&key));
    assert_eq!(ndp::target(&frame, &headers), ndp::message(&frame, &headers).and_then(|message| message.target));
    ndp::message(&frame, &headers)
}

#[test]
fn rfc_4861_neighbor_messages_tell_target_and_link_layer_addresses() {
    let source = [1, 1, 2, 0, 0, 0, 0, 7];
    let target = [2, 1, 2, 0, 0, 0, 0, 8];
    let other = [14, 1, 1, 2, 3, 4, 5, 6];
    let message = neighbor(135, &[other, source].concat()).unwrap();
    assert_eq!(message.kind, ndp::Kind::NeighborSolicitation);
    assert_eq!(message.target.map(IpAddr::V6), Some("fe80::9".parse().unwrap()));
    assert_eq!(message.source_link, Some(MacAddr::new([2, 0, 0, 0, 0, 7])));
    assert_eq!(message.target_link, None);
    let message = neighbor(136, &target).unwrap();
    assert_eq!(message.target_link, Some(MacAddr::new([2, 0, 0, 0, 0, 8])));
    assert!(neighbor(136, &[]).is_some(), "options may be missing");
    assert!(neighbor(136, &[target, target].concat()).is_some());
}

#[test]
fn neighbor_messages_that_hosts_may_read_in_two_ways_are_refused() {
    let target = [2, 1, 2, 0, 0, 0, 0, 8];
    let twice = [target, [2, 1, 2, 0, 0, 0, 0, 9]].concat();
    assert_eq!(neighbor(136, &twice), None, "two addresses");
    assert_eq!(neighbor(136, &[2, 0, 0, 0, 0, 0, 0, 0]), None, "RFC 4861, 4.6: length zero");
    assert_eq!(neighbor(136, &[2, 2, 0, 0, 0, 0, 0, 0]), None, "beyond the end");
    assert_eq!(neighbor(136, &target[..7]), None, "cut");
    let short = icmpv6(&[&[136, 0, 0, 0, 0, 0, 0, 0][..], &[0xfe; 15]].concat());
    assert_eq!(ndp::message(&short, &parse(&short, 0).0), None, "no room for the target");
}

#[test]
fn router_messages_tell_the_routers_link_layer_address() {
    let source = [1, 1, 2, 0, 0, 0, 0, 7];
    let link = Some(MacAddr::new([2, 0, 0, 0, 0, 7]));
    for (kind, fixed) in [(133, 8), (134, 16), (137, 40)] {
        let mut message = vec![0; fixed];
        message[0] = kind;
        let frame = icmpv6(&[&message[..], &source].concat());
        let found = ndp::message(&frame, &parse(&frame, 0).0).unwrap();
        assert_eq!((found.source_link, found.target.is_some()), (link, kind == 137));
    }
    let echo = icmpv6(&[128, 0, 0, 0, 0, 1, 0, 1]);
    assert_eq!(ndp::message(&echo, &parse(&echo, 0).0), None);
}

#[test]
fn fragments_of_one_packet_share_their_number() {
    let v4 = |flags: u8| {
        let header =
            [0x45, 0, 0, 28, 0xab, 0xcd, flags, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, 0, 1, 0, 2, 0, 8, 0, 0];
        [&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0][..], &header].concat()
    };
    let id = |frame: &[u8]| fragment_id(frame, &parse(frame, 0).0);
    assert_eq!((id(&v4(0x20)), id(&v4(0x01)), id(&v4(0x40))), (Some(0xabcd), Some(0xabcd), None));
    // A destination option header before the fragment header, and UDP behind it.
    let v6 = |offset: u8| {
        let mut packet = vec![0x60, 0, 0, 0, 0, 24, 60, 64];
        packet.extend([0x20; 32]);
        packet.extend([44, 0, 1, 4, 0, 0, 0, 0, 17, 0, 0, offset, 0x12, 0x34, 0x56, 0x78, 0, 1, 0, 2, 0, 8, 0, 0]);
        [&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x86, 0xdd][..], &packet].concat()
    };
    assert_eq!((id(&v6(1)), id(&v6(8)), id(&v6(0))), (Some(0x1234_5678), Some(0x1234_5678), None));
}
