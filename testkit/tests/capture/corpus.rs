//! Frames of every kind that a filter may tell from others.

use kopi_testkit::evil::Random;
use kopi_testkit::frames::{
    self, Ends, ICMP, ICMPV6, Mac, TCP, UDP, advertisement, arp, ethernet, flags, framed, ipv6,
};
use std::net::{Ipv4Addr, Ipv6Addr};

/// Ethertypes.
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const VLAN: u16 = 0x8100;
/// The longest frame without a tag.
const LONGEST: usize = 1514;

/// Who sends most of it.
const HERE: Mac = [0x02, 0x77, 0, 0, 0, 1];
const THERE: Mac = [0x02, 0, 0, 0, 0, 0xb];
const EVERYBODY: Mac = [0xff; 6];

const A: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
const B: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 11);
const C: Ipv4Addr = Ipv4Addr::new(192, 168, 5, 200);
const A6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
const B6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 5, 0, 0, 0, 0xb);
const LINK6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0x77ff, 0xfe00, 1);
const ALL6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

fn ends(source: Ipv4Addr, destination: Ipv4Addr, id: u16) -> Ends {
    Ends { source, destination, id }
}

fn frame(packet: &[u8]) -> Vec<u8> {
    framed(THERE, HERE, packet)
}

fn number(n: usize) -> u16 {
    u16::try_from(n).expect("small")
}

/// All frames, in the order in which they are sent.
#[must_use]
pub(crate) fn corpus() -> Vec<Vec<u8>> {
    let plain: Vec<Vec<u8>> =
        [tcp(), udp(), icmp(), protocols(), fragments(), options(), six(), extensions(), arps()].concat();
    let mut frames = [plain.clone(), ethertypes(), llc(), lengths()].concat();
    // One of each kind behind tags.
    frames
        .extend(plain.iter().step_by(7).enumerate().map(|(n, frame)| tagged(frame, &[(VLAN, number(n * 37) & 0xfff)])));
    frames.extend(plain.iter().step_by(23).map(|frame| tagged(frame, &[(0x88a8, 100), (VLAN, 7)])));
    frames.extend(plain.iter().step_by(29).map(|frame| tagged(frame, &[(VLAN, 0x6007), (VLAN, 0xf00)])));
    frames.extend(plain.iter().step_by(41).map(|frame| tagged(frame, &[(0x9100, 1), (VLAN, 2), (VLAN, 3)])));
    frames.extend(truncated(&plain));
    frames
}

/// A frame behind tags, the outermost first.
fn tagged(frame: &[u8], tags: &[(u16, u16)]) -> Vec<u8> {
    let bytes = tags.iter().flat_map(|(kind, tag)| [kind.to_be_bytes(), tag.to_be_bytes()].concat());
    [&frame[..12], &bytes.collect::<Vec<_>>(), &frame[12..]].concat()
}

/// Every set of the six flags of RFC 793, some with those of RFC 3168, and segments of several lengths.
fn tcp() -> Vec<Vec<u8>> {
    let ports = [(40_000, 80), (443, 40_001), (22, 40_002), (50_000, 8080), (25, 25), (0, 0xffff)];
    let all = (0..64_u8).chain([0x42, 0xc2, 0x92, 0xff]);
    let segments = all.enumerate().map(|(n, flags)| {
        let (from, to) = if n % 2 == 0 { (A, B) } else { (C, A) };
        let numbers = (0x0102_0304_u32.wrapping_mul(flags.into()), 77);
        ends(from, to, number(n)).tcp(ports[n % ports.len()], flags, numbers, &vec![n.to_le_bytes()[0]; n * 5 % 60])
    });
    let get = ends(A, C, 900).tcp((40_009, 80), flags::PSH | flags::ACK, (1, 2), b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    let mut long_header = ends(A, B, 901).tcp((1, 2), flags::SYN, (3, 4), &[2, 4, 5, 0xb4, 1, 1, 4, 2]);
    long_header[32] = 0x70;
    segments.chain([get, long_header]).map(|packet| frame(&packet)).collect()
}

fn udp() -> Vec<Vec<u8>> {
    let ports = [(53, 40_000), (40_000, 53), (68, 67), (123, 123), (5000, 5001), (1024, 65_535), (9, 9), (4789, 4789)];
    let sizes = [0, 1, 12, 64, 300, 1000, 1472];
    let mut packets: Vec<Vec<u8>> = Vec::new();
    for (n, ports) in ports.into_iter().enumerate() {
        for (m, (from, to)) in [(A, B), (B, A), (C, Ipv4Addr::BROADCAST)].into_iter().enumerate() {
            packets.push(ends(from, to, number(n * 10 + m)).udp(ports, &vec![7; sizes[(n + m) % sizes.len()]]));
        }
    }
    let mut frames: Vec<Vec<u8>> = packets.iter().map(|packet| frame(packet)).collect();
    let group = ends(A, Ipv4Addr::new(224, 0, 0, 251), 80).udp((5353, 5353), b"mdns");
    frames.push(framed([1, 0, 0x5e, 0, 0, 251], HERE, &group));
    frames.push(framed(EVERYBODY, HERE, &ends(A, Ipv4Addr::new(10, 77, 0, 255), 81).udp((137, 137), &[0; 50])));
    // Geneve (RFC 8926): an Ethernet frame with UDP in it.
    let inner = frame(&ends(C, A, 82).udp((7, 8), b"inside"));
    frames.push(frame(&ends(A, B, 83).udp((9999, 6081), &[&[0, 0, 0x65, 0x58, 0, 0, 5, 0][..], &inner].concat())));
    frames
}

fn icmp() -> Vec<Vec<u8>> {
    let about = ends(A, B, 1).udp((1, 2), b"lost");
    let kinds = [0, 5, 8, 9, 10, 13, 14, 17, 18, 30, 40];
    let others = kinds.map(|kind| ends(A, B, 200 + u16::from(kind)).icmp(kind, 0, &[1, 2, 3, 4, 5]));
    let errors = [(3, 0), (3, 1), (3, 3), (3, 4), (3, 13), (11, 0), (11, 1), (12, 0)];
    let errors = errors.map(|(kind, code)| ends(B, A, 300 + u16::from(kind)).error(kind, code, &about));
    others.into_iter().chain(errors).map(|packet| frame(&packet)).collect()
}

/// Protocols of IPv4 with nothing or little in them, some with odd header fields.
fn protocols() -> Vec<Vec<u8>> {
    let kinds = [0, 2, 4, 41, 47, 50, 51, 89, 103, 112, 132, 136, 255];
    let mut packets: Vec<Vec<u8>> =
        kinds.iter().map(|kind| ends(A, B, 400 + u16::from(*kind)).packet(*kind, &[*kind; 24])).collect();
    // SCTP (RFC 9260): ports, tag, checksum, and a chunk of each of some types.
    for (n, chunk) in [0_u8, 1, 3, 6, 14].into_iter().enumerate() {
        let ports = [36_412_u16, 36_412 + number(n)].map(u16::to_be_bytes).concat();
        packets.push(ends(C, B, 700).packet(132, &[&ports[..], &[9; 8], &[chunk, 3, 0, 8, 1, 2, 3, 4]].concat()));
    }
    let mut marked = ends(A, B, 701).udp((5000, 5000), b"marked");
    (marked[1], marked[8]) = (0xb8 | 3, 1);
    let mut seven = ends(A, B, 702).udp((5000, 5000), b"a version that is none");
    seven[0] = 0x75;
    packets.extend([marked, ends(C, C, 703).packet(17, &[]), ends(A, A, 704).packet(6, &[0, 80])]);
    let mut frames: Vec<Vec<u8>> = packets.iter().map(|packet| frame(packet)).collect();
    frames.push(ethernet(THERE, HERE, IPV4, &seven));
    frames
}

/// First, middle and last fragments of each protocol with ports, and one that says not to.
fn fragments() -> Vec<Vec<u8>> {
    let mut packets = Vec::new();
    for protocol in [TCP, UDP, ICMP, 132] {
        for (n, field) in [0x2000, 0x2001, 0x2040, 0x0041, 0x1fff, 0x8000].into_iter().enumerate() {
            let payload = [0x9c, 0x40, 0, 80, 0, 8, 0, 0].repeat(4 + n);
            packets.push(ends(A, B, 500 + u16::from(protocol)).fragment(protocol, field, &payload));
        }
    }
    packets.iter().map(|packet| frame(packet)).collect()
}

/// IPv4 headers of every length, in front of TCP and UDP.
fn options() -> Vec<Vec<u8>> {
    let longer = |words: u8, packet: Vec<u8>| {
        let mut longer = [&packet[..20], &vec![1; usize::from(words - 5) * 4], &packet[20..]].concat();
        longer[0] = 0x40 | words;
        let total = number(longer.len()).to_be_bytes();
        longer[2..4].copy_from_slice(&total);
        longer
    };
    let both = (6..=15).flat_map(|words| {
        let ends = ends(A, B, 600 + u16::from(words));
        [longer(words, ends.tcp((80, 81), flags::SYN, (0, 0), b"x")), longer(words, ends.udp((53, 54), b"y"))]
    });
    let mut frames: Vec<Vec<u8>> = both.map(|packet| frame(&packet)).collect();
    // A header that claims to be shorter than it can be.
    let mut short = ends(A, B, 699).tcp((80, 81), flags::ACK, (0, 0), &[]);
    short[0] = 0x42;
    frames.push(ethernet(THERE, HERE, IPV4, &short));
    frames
}

/// A TCP header with these flags.
fn segment(from: u16, to: u16, flags: u8) -> Vec<u8> {
    let ports = [from, to].map(u16::to_be_bytes).concat();
    [&ports[..], &[0, 0, 0, 1, 0, 0, 0, 2, 0x50, flags, 0x20, 0, 0, 0, 0, 0]].concat()
}

fn datagram(from: u16, to: u16, data: &[u8]) -> Vec<u8> {
    let words = [from, to, number(8 + data.len()), 0].map(u16::to_be_bytes).concat();
    [&words[..], data].concat()
}

/// IPv6 without extension headers.
fn six() -> Vec<Vec<u8>> {
    let mut packets = Vec::new();
    for (n, flags) in [2, 18, 16, 24, 17, 4].into_iter().enumerate() {
        packets.push(ipv6(A6, B6, TCP, &segment(40_000 + number(n), 443, flags)));
        packets.push(ipv6(B6, A6, TCP, &segment(80, 40_000, flags)));
    }
    for (n, port) in [53, 546, 547, 5353, 123].into_iter().enumerate() {
        packets.push(ipv6(A6, B6, UDP, &datagram(port, 53, &vec![1; n * 100])));
    }
    for kind in [1, 2, 3, 4, 128, 129, 130, 131, 133, 134, 135, 137, 143] {
        packets.push(ipv6(LINK6, ALL6, ICMPV6, &[kind, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4]));
    }
    packets.push(advertisement(LINK6, ALL6, LINK6, HERE));
    packets.push(ipv6(A6, B6, 59, &[]));
    packets.push(ipv6(A6, B6, 132, &[0x8e, 0x3c, 0x8e, 0x3c, 0, 0, 0, 1, 0, 0, 0, 0, 0, 3, 0, 4]));
    packets.push(ipv6(Ipv6Addr::UNSPECIFIED, Ipv6Addr::LOCALHOST, 47, &[0; 20]));
    let mut frames: Vec<Vec<u8>> = packets.iter().map(|packet| frame(packet)).collect();
    frames.push(framed([0x33, 0x33, 0, 0, 0, 1], HERE, &advertisement(LINK6, ALL6, LINK6, HERE)));
    frames
}

/// IPv6 with extension headers of each kind, one or several.
fn extensions() -> Vec<Vec<u8>> {
    let extension = |next: u8, words: u8| {
        let mut header = vec![next, words, 1, 4];
        header.resize(usize::from(words) * 8 + 8, 0);
        header
    };
    let fragment = |next: u8, field: u16| [&[next, 0][..], &field.to_be_bytes(), &[0, 0, 0, 1]].concat();
    let (tcp, udp, echo) = (segment(80, 81, 2), datagram(53, 54, b"dns"), vec![128, 0, 0, 0, 0, 1, 0, 1]);
    let mut packets = Vec::new();
    for kind in [0, 43, 60] {
        packets.push(ipv6(A6, B6, kind, &[extension(TCP, 0), tcp.clone()].concat()));
        packets.push(ipv6(A6, B6, kind, &[extension(UDP, 2), udp.clone()].concat()));
        packets.push(ipv6(A6, B6, kind, &[extension(ICMPV6, 1), echo.clone()].concat()));
        packets.push(ipv6(A6, B6, kind, &[extension(60, 1), extension(44, 0), fragment(UDP, 1), udp.clone()].concat()));
    }
    for field in [0, 1, 0x00f8, 0x00f9] {
        packets.push(ipv6(A6, B6, 44, &[fragment(TCP, field), tcp.clone()].concat()));
        packets.push(ipv6(B6, A6, 44, &[fragment(UDP, field), udp.clone()].concat()));
    }
    packets.push(ipv6(A6, B6, 51, &[vec![TCP, 4, 0, 0], vec![1; 20], tcp].concat()));
    packets.push(ipv6(A6, B6, 50, &[1; 32]));
    packets.iter().map(|packet| frame(packet)).collect()
}

fn arps() -> Vec<Vec<u8>> {
    let nobody = Ipv4Addr::UNSPECIFIED;
    let mut frames = vec![
        arp(HERE, 1, (HERE, A), ([0; 6], B)),
        arp(HERE, 2, (HERE, A), (THERE, B)),
        arp(HERE, 1, (HERE, nobody), ([0; 6], A)),
        arp(HERE, 1, (HERE, A), ([0; 6], A)),
        arp(HERE, 1, (HERE, C), ([0; 6], B)),
        arp(HERE, 8, (HERE, A), (THERE, B)),
    ];
    let mut reverse = arp(HERE, 3, (HERE, nobody), (HERE, nobody));
    reverse[12..14].copy_from_slice(&[0x80, 0x35]);
    let mut odd = arp(HERE, 1, (HERE, A), ([0; 6], B));
    odd[15] = 6;
    let padded = [arp(HERE, 1, (HERE, A), ([0; 6], B)), vec![0; 18]].concat();
    frames.extend([reverse, odd, padded]);
    frames
}

/// Ethernet types that are not IP, with what belongs behind some of them.
fn ethertypes() -> Vec<Vec<u8>> {
    let udp = ends(A, B, 800).udp((53, 54), b"inside");
    let kinds = [
        0x0600, 0x0601, 0x0805, 0x6000, 0x6001, 0x6002, 0x6003, 0x6004, 0x6007, 0x809b, 0x80f3, 0x8137, 0x8808, 0x8809,
        0x888e, 0x88b5, 0x88cc, 0x88e5, 0x88f7, 0x8906, 0x9000, 0xffff,
    ];
    let mut frames: Vec<Vec<u8>> = kinds.iter().map(|kind| ethernet(EVERYBODY, HERE, *kind, &[0x5a; 46])).collect();
    // Labels (RFC 3032), the last of which has the bottom bit, and IPv4 or IPv6 behind them.
    let label = |value: u32, bottom: u32| (value << 12 | bottom << 8 | 64).to_be_bytes();
    frames.push(ethernet(THERE, HERE, 0x8847, &[&label(100, 1)[..], &udp].concat()));
    frames.push(ethernet(THERE, HERE, 0x8847, &[&label(100, 0)[..], &label(1000, 1), &udp].concat()));
    frames.push(ethernet(THERE, HERE, 0x8848, &[&label(7, 1)[..], &udp].concat()));
    frames.push(ethernet(THERE, HERE, 0x8847, &[&label(2, 1)[..], &ipv6(A6, B6, UDP, &datagram(1, 2, b"x"))].concat()));
    // PPPoE (RFC 2516): discovery, and sessions with IPv4, IPv6 and LCP.
    let session = |session: u16, protocol: u16, packet: &[u8]| {
        let head = [0x1100, session, number(packet.len() + 2), protocol].map(u16::to_be_bytes).concat();
        ethernet(THERE, HERE, 0x8864, &[&head[..], packet].concat())
    };
    frames.push(ethernet(EVERYBODY, HERE, 0x8863, &[0x11, 9, 0, 0, 0, 4, 1, 1, 0, 0]));
    frames.push(session(7, 0x0021, &udp));
    frames.push(session(8, 0x0021, &ends(A, B, 801).tcp((80, 81), flags::SYN, (0, 0), &[])));
    frames.push(session(7, 0x0057, &ipv6(A6, B6, UDP, &datagram(1, 2, b"x"))));
    frames.push(session(9, 0xc021, &[9, 1, 0, 8, 1, 2, 3, 4]));
    frames
}

/// Frames whose type is a length: LLC of each kind (IEEE 802.2), with SNAP and without.
fn llc() -> Vec<Vec<u8>> {
    let spanning = [&[0x42, 0x42, 3, 0, 0, 0, 0][..], &[0; 31]].concat();
    let snap = |oui: [u8; 3], kind: u16| [&[0xaa, 0xaa, 3][..], &oui, &kind.to_be_bytes(), &[0; 38]].concat();
    let mut bodies = vec![
        spanning,
        snap([0, 0, 0x0c], 0x2000),
        snap([8, 0, 7], 0x809b),
        snap([0, 0, 0], 0x80f3),
        snap([0, 0, 0], IPV4),
        [&[0xfe, 0xfe, 3][..], &[0x82; 40]].concat(),
        [&[0xfe, 0xfe, 3][..], &[0x83, 27, 1, 0, 15, 1], &[0; 40]].concat(),
        [&[0xfe, 0xfe, 3][..], &[0x81; 40]].concat(),
        [&[0xe0, 0xe0, 3, 0xff, 0xff][..], &[0; 40]].concat(),
        [&[0xf0, 0xf0, 3][..], &[0; 40]].concat(),
        vec![0xff, 0xff, 0, 0x22],
    ];
    // Control fields: information, supervisory, and unnumbered frames.
    for control in [0x00, 0x02, 0x01, 0x05, 0x09, 0x03, 0x0f, 0x43, 0x63, 0x6f, 0x87, 0xaf, 0xe3] {
        bodies.push(vec![0x04, 0x05, control, 0x10, 1, 2, 3, 4]);
    }
    let framed = |body: &Vec<u8>| ethernet([1, 0x80, 0xc2, 0, 0, 0], HERE, number(body.len()), body);
    let mut frames: Vec<Vec<u8>> = bodies.iter().map(framed).collect();
    frames.push(ethernet(THERE, HERE, 1500, &[0xaa; 46]));
    frames.push(ethernet(THERE, HERE, 0, &[0xaa; 46]));
    frames
}

/// Frames of chosen lengths, with bytes that look random in them.
fn lengths() -> Vec<Vec<u8>> {
    let mut random = Random::new(4);
    let mut frames = Vec::new();
    for length in [14, 15, 16, 33, 34, 35, 41, 42, 43, 59, 60, 61, 63, 64, 65, 100, 127, 128, 500, 1000, 1513, LONGEST]
    {
        for kind in [0x88b5, IPV4] {
            let mut payload = vec![0; length - 14];
            random.fill(&mut payload);
            frames.push(ethernet(if length % 2 == 0 { THERE } else { EVERYBODY }, HERE, kind, &payload));
        }
    }
    frames.push(frame(&ends(A, B, 802).udp((5000, 5000), &vec![0xa5; LONGEST - 42])));
    frames.push(frame(&ipv6(A6, B6, UDP, &datagram(5000, 5000, &vec![0xa5; LONGEST - 62]))));
    frames
}

/// Frames that end in the middle of a header.
fn truncated(plain: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let first = |wanted: fn(&[u8]) -> bool| plain.iter().find(|frame| wanted(frame)).expect("there is one").clone();
    let tcp = first(|frame| frames::id_of(frame).is_some() && frame[23] == TCP);
    let udp = first(|frame| frames::id_of(frame).is_some() && frame[23] == UDP);
    let icmp = first(|frame| frames::id_of(frame).is_some() && frame[23] == ICMP);
    let six = first(|frame| frame[12..14] == IPV6.to_be_bytes() && frame[20] == TCP);
    let extended = first(|frame| frame[12..14] == IPV6.to_be_bytes() && frame[20] == 0);
    let request = first(|frame| frame[12..14] == [8, 6]);
    let vlan = tagged(&udp, &[(VLAN, 7)]);
    let cut = |frame: &Vec<u8>, ends: &[usize]| -> Vec<Vec<u8>> {
        ends.iter().filter(|end| **end < frame.len()).map(|end| frame[..*end].to_vec()).collect()
    };
    [
        cut(&tcp, &[14, 20, 23, 24, 30, 33, 34, 36, 37, 38, 46, 47, 48]),
        cut(&udp, &[26, 34, 37, 38]),
        cut(&icmp, &[34, 35]),
        cut(&six, &[14, 20, 21, 38, 54, 56, 57, 58, 67, 68]),
        cut(&extended, &[54, 55, 62, 64]),
        cut(&request, &[14, 16, 22, 28, 32, 41]),
        cut(&vlan, &[16, 18, 27, 28, 38, 41]),
    ]
    .concat()
}
