//! Pairs of frames with equal flow keys, against what is said about filters.

use kopi_packet::{FlowKey, Fragment, Shape, parse};

use super::frames::{self, Random};
use super::{Frame, random_program};
use crate::bpf::program::Program;
use crate::bpf::{Bpf, Layouts};

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

/// Whether the filter has to give both frames of this flow the same answer.
fn has_to_agree(by_key: Layouts, key: &FlowKey) -> bool {
    let plain = key.vlans() == 0 && !key.has_options() && key.fragment() == Fragment::None;
    let here = match key.shape() {
        Shape::Runt => return false,
        Shape::Arp => by_key.arp,
        Shape::Ipv4 => by_key.ipv4,
        Shape::Ipv6 => by_key.ipv6,
        _ => false,
    };
    by_key.any || (here && plain)
}

/// Counts the pairs of each kind that had to agree, and checks that they do.
fn check(filter: &Bpf, name: &str, pairs: &mut [Pair]) -> usize {
    let mut checked = 0;
    for pair in pairs.iter_mut().filter(|pair| has_to_agree(filter.by_key(), &pair.key)) {
        let [first, second] = pair.buffers.each_mut().map(|buffer| filter.matches(&buffer.mbuf()));
        assert_eq!(first, second, "{name}: {:?} {}: {:02x?}", filter.by_key(), pair.key, pair.frames);
        checked += 1;
    }
    checked
}

/// Filters give both frames of a flow one answer where they are said to; these are the expressions of the other tests.
#[test]
fn frames_of_a_flow_get_one_answer() {
    let mut pairs = pairs(6_000);
    let plain = pairs.iter().filter(|pair| has_to_agree(Layouts { any: false, ..ALL }, &pair.key)).count();
    assert!(plain > 700, "only {plain} pairs of layouts that are looked into");
    let lines = include_str!("../../../tests/bpf/expressions.txt").lines();
    let (mut checked, mut filters) = (0, [0; 4]);
    for expression in lines.filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let filter = Bpf::compile(expression).expect("libpcap takes it");
        checked += check(&filter, expression, &mut pairs);
        let Layouts { any, ipv4, ipv6, arp } = filter.by_key();
        filters.iter_mut().zip([any, ipv4, ipv6, arp]).for_each(|(count, holds)| *count += usize::from(holds));
    }
    assert!(checked > 100_000 && filters.iter().all(|count| *count >= 20), "{checked} {filters:?}");
}

/// The same for programs that no expression gives, most of which look at what is not in the key.
#[test]
fn frames_of_a_flow_get_one_answer_from_any_program() {
    let mut pairs = pairs(300);
    let (mut random, mut checked) = (Random(8), 0);
    for _ in 0..20_000 {
        let raw = random_program(&mut random);
        // Interpreted, because compiling takes longer than all of these frames do.
        let program = Program::decode(&raw).expect("a valid program");
        let by_key = Layouts::of(&program);
        if by_key == Layouts::default() {
            continue;
        }
        let filter = Bpf { program, code: crate::bpf::Code::Interpreted, by_key };
        checked += check(&filter, &format!("{:?}", filter.program), &mut pairs);
    }
    assert!(checked > 100_000, "only {checked}");
}

const ALL: Layouts = Layouts { any: true, ipv4: true, ipv6: true, arp: true };

/// The filters that people use most are known to depend on the key, and those that look at other bytes are not.
#[test]
fn usual_filters_depend_on_the_key() {
    let ip = Layouts { any: false, ..ALL };
    let not_ipv4 = Layouts { ipv4: false, ..ip };
    let not_ipv6 = Layouts { ipv6: false, ..ip };
    let neither = Layouts { ipv4: false, ..not_ipv6 };
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
        ("len > 100", Layouts::default()),
        ("ether[60] = 0", Layouts::default()),
        ("tcp and greater 80", Layouts { arp: true, ..neither }),
        ("ether[12:2] < 1000", Layouts { any: false, ..ALL }),
        ("ip6 protochain 6", ip),
    ];
    for (expression, want) in cases {
        let filter = Bpf::compile(expression).expect("libpcap takes it");
        assert_eq!(filter.by_key(), want, "\"{expression}\"");
    }
}
