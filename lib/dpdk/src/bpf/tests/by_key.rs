//! Pairs of frames with equal flow keys, against what is said about filters.

use kopi_packet::describe::frame_of;
use kopi_packet::{FlowKey, Fragment, Shape, parse};

use super::frames::{self, Random};
use super::{Frame, random_program};
use crate::bpf::program::Program;
use crate::bpf::{Bpf, Layout};

/// Types of a service tag, which a key does not tell apart.
const SERVICE_TAGS: [[u8; 2]; 3] = [[0x88, 0xa8], [0x91, 0], [0x92, 0]];

/// Two frames of one flow.
struct Pair {
    key: FlowKey,
    frames: [Vec<u8>; 2],
    buffers: [Frame; 2],
}

/// Frames of all kinds, and others of the same flows that differ from them in some bytes or in their length. The parser
/// tells what is of one flow, so all that it leaves out of the key is tried, and nothing else.
fn pairs(count: usize) -> Vec<Pair> {
    let mut random = Random(7);
    let mut pairs = Vec::new();
    while pairs.len() < count {
        let first = frames::any(&mut random);
        let mut second = first.clone();
        for _ in 0..random.below(50) {
            let mut tried = second.clone();
            match random.below(10) {
                0 => tried.truncate(random.below(tried.len() + 1)),
                2 => {
                    // A step from one service tag to another changes several bits.
                    if let Some(kind) = tried.get_mut(12..14).filter(|kind| SERVICE_TAGS.iter().any(|tag| tag == kind))
                    {
                        kind.copy_from_slice(&random.pick(&SERVICE_TAGS));
                    }
                }
                1 => tried.extend(random.bytes(40)),
                _ if tried.is_empty() => {}
                // What is read by programs is near the begin.
                _ => {
                    let reach = random.pick(&[64, 64, 300]);
                    let at = random.below(tried.len().min(reach));
                    tried[at] ^= 1 << random.below(8);
                }
            }
            if parse(&tried, 0).1 == parse(&first, 0).1 {
                second = tried;
            }
        }
        if first != second {
            let buffers = [Frame::new(&first, &[]), Frame::new(&second, &[])];
            pairs.push(Pair { key: parse(&first, 0).1, frames: [first, second], buffers });
        }
    }
    pairs
}

/// What the key of a flow says, as dataplane's cache of answers has it.
fn layout(key: &FlowKey) -> Option<Layout> {
    let plain = key.vlans() == 0 && !key.is_snap() && !key.has_options() && key.fragment() == Fragment::None;
    Some(match key.shape() {
        Shape::Runt => return None,
        Shape::Arp if plain => Layout::Arp,
        Shape::Ipv4 if plain => Layout::Ipv4,
        Shape::Ipv6 if plain => Layout::Ipv6,
        _ => Layout::Ethernet,
    })
}

/// Counts the pairs that have to agree, by their layout, and checks that they do.
fn check(filter: &Bpf, name: &str, pairs: &mut [Pair]) -> [usize; 4] {
    let mut checked = [0; 4];
    for pair in pairs.iter_mut() {
        let Some(layout) = layout(&pair.key) else { continue };
        let [first, second] = pair.buffers.each_mut().map(|buffer| filter.decides(&buffer.mbuf(), layout));
        let said = || format!("{name}: {layout:?} {}: {:02x?}", pair.key, pair.frames);
        assert_eq!(first, second, "{}", said());
        if let Some(answer) = first {
            let answers = pair.buffers.each_mut().map(|buffer| filter.matches(&buffer.mbuf()));
            assert_eq!(answers, [answer; 2], "{}", said());
            checked[layout as usize] += 1;
        }
    }
    checked
}

/// Filters give both frames of a flow one answer where they are said to; these are the expressions of the other tests.
#[test]
fn frames_of_a_flow_get_one_answer() {
    let mut pairs = pairs(6_000);
    let plain = pairs.iter().filter(|pair| layout(&pair.key).is_some_and(|layout| layout != Layout::Ethernet)).count();
    assert!(plain > 700, "only {plain} pairs of layouts that are looked into");
    let lines = include_str!("../../../tests/bpf/expressions.txt").lines();
    let (mut checked, mut filters) = (0, [0; 4]);
    for expression in lines.filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let filter = Bpf::compile(expression).expect("libpcap takes it");
        let of_layouts = check(&filter, expression, &mut pairs);
        checked += of_layouts.iter().sum::<usize>();
        filters.iter_mut().zip(of_layouts).for_each(|(count, checked)| *count += usize::from(checked > 0));
    }
    assert!(checked > 100_000 && filters.iter().all(|count| *count >= 20), "{checked} {filters:?}");
}

/// A frame with one kind of service tag says nothing of those with another, of which libpcap's `vlan` takes some.
#[test]
fn service_tags_are_told_apart() {
    let tagged = frame_of("vlan 5 udp 10.0.0.1:53 > 10.0.0.2:999").expect("a frame");
    let mut pairs = Vec::new();
    for first in SERVICE_TAGS {
        for second in SERVICE_TAGS {
            let frames = [first, second].map(|tag| [&tagged[..12], &tag, &tagged[14..]].concat());
            let [key, other] = [&frames[0], &frames[1]].map(|frame| parse(frame, 0).1);
            assert_eq!(key, other);
            let buffers = [Frame::new(&frames[0], &[]), Frame::new(&frames[1], &[])];
            pairs.push(Pair { key, frames, buffers });
        }
    }
    for expression in ["vlan", "vlan 5", "not vlan", "vlan and udp", "ether proto 0x88a8", "ether proto 0x9100", "ip"] {
        check(&Bpf::compile(expression).expect("libpcap takes it"), expression, &mut pairs);
    }
}

/// The same for programs that no expression gives, most of which look at what is not in the key.
#[test]
fn frames_of_a_flow_get_one_answer_from_any_program() {
    let mut pairs = pairs(300);
    let (mut random, mut checked) = (Random(8), 0);
    for _ in 0..20_000 {
        let filter = Bpf { program: Program::check(random_program(&mut random)).expect("a valid program") };
        checked += check(&filter, &format!("{:?}", filter.program), &mut pairs).iter().sum::<usize>();
    }
    assert!(checked > 100_000, "only {checked}");
}

/// For which frames an answer is known to depend on nothing but the flow key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "they are independent, and each is asked for by its name")]
struct ByKey {
    /// What is neither of IP nor ARP, or has tags.
    other: bool,
    arp: bool,
    /// TCP, UDP, ICMP and GRE.
    ipv4: bool,
    /// TCP, UDP and ICMPv6.
    ipv6: bool,
}

fn by_key(filter: &Bpf) -> ByKey {
    let all = |frames: &[Vec<u8>], want: Layout| {
        frames.iter().all(|bytes| {
            assert_eq!(layout(&parse(bytes, 0).1), Some(want), "{bytes:02x?}");
            filter.decides(&Frame::new(bytes, &[]).mbuf(), want).is_some()
        })
    };
    let described = |texts: &[&str]| texts.iter().map(|text| frame_of(text).expect("a frame")).collect::<Vec<_>>();
    let arp = described(&["arp request 10.9.0.66 > 10.9.0.1"]);
    let mut other = described(&OTHER);
    // ARP of other hardware, and a length in the place of a type.
    other.extend([(15, 6), (12, 1)].map(|(at, byte)| {
        let mut frame = arp[0].clone();
        frame[at] = byte;
        frame
    }));
    ByKey {
        other: all(&other, Layout::Ethernet),
        arp: all(&arp, Layout::Arp),
        ipv4: all(&described(&IPV4), Layout::Ipv4),
        ipv6: all(&described(&IPV6), Layout::Ipv6),
    }
}

const OTHER: [&str; 4] = [
    "0x88cc 02:00:00:00:00:01 > 02:00:00:00:00:02",
    "vlan 5 udp 10.0.0.1:53 > 10.0.0.2:999",
    "udp 10.0.0.1:53 > 10.0.0.2:999 first fragment",
    "udp [fe80::1]:53 > [fe80::2]:999 first fragment",
];
const IPV4: [&str; 4] = [
    "tcp 10.0.0.1:5432 > 10.0.0.2:999",
    "udp 10.0.0.1:53 > 10.0.0.2:999",
    "icmp 10.0.0.1 > 10.0.0.2",
    "proto 47 10.0.0.1 > 10.0.0.2",
];
const IPV6: [&str; 3] =
    ["tcp [fe80::1]:5432 > [fe80::2]:999", "udp [fe80::1]:53 > [fe80::2]:999", "icmp6 fe80::1 > fe80::2"];
const ALL: ByKey = ByKey { other: true, arp: true, ipv4: true, ipv6: true };

/// The filters that people use most are known to depend on the key, and those that look at other bytes are not.
#[test]
fn usual_filters_depend_on_the_key() {
    let ip = ByKey { other: false, ..ALL };
    let not_ipv4 = ByKey { ipv4: false, ..ip };
    let not_ipv6 = ByKey { ipv6: false, ..ip };
    let neither = ByKey { ipv4: false, ..not_ipv6 };
    let cases = [
        ("", ALL),
        ("arp", ALL),
        ("ip", ALL),
        ("not ip6", ALL),
        ("ether host 02:00:00:00:00:01", ALL),
        ("broadcast", ALL),
        ("ether proto 0x88cc", ALL),
        ("vlan", ALL),
        ("udp", ip),
        ("udp port 53", ip),
        ("port 53", ip),
        ("tcp portrange 1-1023", ip),
        ("tcp port 80 and host 10.0.0.1", ip),
        ("not (tcp port 22 or tcp port 80) and not arp", ip),
        ("host 10.0.0.1", ip),
        ("net 10.0.0.0/8 or net 2001:db8::/32", ip),
        ("host 2001:db8::1 or host 2001:db8::2", ip),
        ("arp host 10.0.0.1", ip),
        ("arp[6:2] = 1 and ether src 02:00:00:00:00:01", ip),
        ("icmp[icmptype] = icmp-echo", ip),
        ("icmp6[icmp6type] = icmp6-echo", ip),
        ("ip[1] >> 2 = 46", ip),
        ("ip6[0:2] & 0x0fc0 = 0x0b80", ip),
        ("ip[6:2] & 0x1fff = 0", ip),
        ("ip[6:2] & 0x4000 != 0", not_ipv4),
        ("ip[1] & 3 = 3", not_ipv4),
        ("ip[8] < 5", not_ipv4),
        ("ip6[7] = 255", not_ipv6),
        ("tcp[tcpflags] & tcp-syn != 0", not_ipv4),
        ("udp[4:2] > 30", not_ipv4),
        ("ip[9] = 47 and ip[20:2] = 0", not_ipv4),
        ("len > 100", ByKey { other: false, arp: false, ipv4: false, ipv6: false }),
        ("ether[60] = 0", ByKey { other: false, arp: false, ipv4: false, ipv6: false }),
        ("tcp and greater 80", ByKey { arp: true, ..neither }),
        ("ether[12:2] < 1000", ByKey { other: false, ..ALL }),
        ("ip6 protochain 6", ip),
    ];
    for (expression, want) in cases {
        let filter = Bpf::compile(expression).expect("libpcap takes it");
        assert_eq!(by_key(&filter), want, "\"{expression}\"");
    }
}
