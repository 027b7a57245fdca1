//! Frames of a small world: two apps, two hosts on the wire, few ports, so that what belongs together meets.

use crate::ids::{PortId, WIRE};
use kopi_packet::checksum::{checksum, sum};
use kopi_packet::tcp::flags::{ACK, FIN, PSH, RST, SYN, URG};
use kopi_ring::message::Mac;
use proptest::prelude::*;

/// Addresses of the hosts: those of app 1, app 2, and the two on the wire.
pub(super) const MACS: [Mac; 4] = [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2], [2, 0, 0, 0, 0, 3], [2, 0, 0, 0, 0, 4]];

/// What happens next.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// Time passes, in seconds.
    Wait(u8),
    /// The other policy comes into force.
    Reload,
    /// Frames, in one burst.
    Send(Send),
}

/// The first segment of a connection from the wire to app 1, by the broadcast address of Ethernet.
pub(crate) fn broadcast_syn() -> Vec<u8> {
    let way = Way { from: 2, to: 0, link: Link::Broadcast };
    way.ip(6, &tcp((1, 2), Segment { flags: SYN, seq: 1, words: 5 }, 0)).1
}

/// Frames from one host to another.
#[derive(Clone, Debug)]
pub(super) struct Send {
    from: u8,
    to: u8,
    what: What,
    times: u8,
    link: Link,
}

/// How a frame differs from what its sender would send as a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Link {
    Usual,
    Tagged,
    /// To the broadcast address of Ethernet.
    Broadcast,
    /// From another's IP address.
    Spoofed,
}

#[derive(Clone, Debug)]
enum What {
    /// As many segments of a whole connection, both ways, and then another one, twice.
    Connection {
        ports: (u8, u8),
        segments: u8,
        then: Segment,
    },
    Tcp {
        ports: (u8, u8),
        segment: Segment,
    },
    Udp {
        ports: (u8, u8),
    },
    /// A datagram and its answer.
    Exchange {
        ports: (u8, u8),
    },
    Echo {
        request: bool,
        id: u8,
    },
    /// An ICMP error about a packet from the receiver to the sender.
    Error {
        proto: u8,
        ports: (u8, u8),
    },
    Fragment {
        first: bool,
        id: u8,
        ports: (u8, u8),
    },
    /// Another protocol, or a header that is cut short.
    Other {
        proto: u8,
        length: u8,
    },
    Multicast,
    Arp {
        op: u8,
    },
    /// Neighbour solicitation for the address of a host.
    Neighbour {
        target: u8,
    },
}

/// Any segment.
#[derive(Clone, Copy, Debug)]
struct Segment {
    flags: u8,
    seq: u32,
    /// Length of its header, as that says.
    words: u8,
}

fn ports() -> impl Strategy<Value = (u8, u8)> {
    (1_u8..3, 1_u8..3)
}

fn segment() -> impl Strategy<Value = Segment> {
    let flags = proptest::sample::select(
        &[ACK, ACK, ACK | PSH, SYN, SYN | ACK, FIN | ACK, RST, RST | ACK, PSH, 0, URG, ACK | URG, SYN | FIN, 0xff][..],
    );
    let seq = prop_oneof![3 => 1000_u32..1300, 1 => any::<u32>()];
    let words = prop_oneof![2 => Just(5_u8), 1 => 0_u8..16];
    (flags, seq, words).prop_map(|(flags, seq, words)| Segment { flags, seq, words })
}

fn what() -> impl Strategy<Value = What> {
    prop_oneof![
        4 => (ports(), 1_u8..13, segment())
            .prop_map(|(ports, segments, then)| What::Connection { ports, segments, then }),
        3 => (ports(), segment()).prop_map(|(ports, segment)| What::Tcp { ports, segment }),
        3 => ports().prop_map(|ports| What::Udp { ports }),
        2 => ports().prop_map(|ports| What::Exchange { ports }),
        2 => (any::<bool>(), 0_u8..2).prop_map(|(request, id)| What::Echo { request, id }),
        2 => (proptest::sample::select(&[6_u8, 17, 1][..]), ports()).prop_map(|(proto, ports)| What::Error { proto, ports }),
        2 => (any::<bool>(), 0_u8..2, ports()).prop_map(|(first, id, ports)| What::Fragment { first, id, ports }),
        1 => (proptest::sample::select(&[6_u8, 17, 47, 132][..]), 0_u8..20)
            .prop_map(|(proto, length)| What::Other { proto, length }),
        1 => Just(What::Multicast),
        1 => (1_u8..3).prop_map(|op| What::Arp { op }),
        1 => (0_u8..4).prop_map(|target| What::Neighbour { target }),
    ]
}

pub(crate) fn steps() -> impl Strategy<Value = Vec<Step>> {
    let link = prop_oneof![
        12 => Just(Link::Usual), 1 => Just(Link::Tagged), 1 => Just(Link::Broadcast), 1 => Just(Link::Spoofed)
    ];
    let host = || prop_oneof![4 => Just(0_u8), 1 => Just(1), 4 => Just(2), 1 => Just(3)];
    let send = (host(), host(), what(), 1_u8..4, link)
        .prop_map(|(from, to, what, times, link)| Step::Send(Send { from, to, what, times, link }));
    let wait = proptest::sample::select(&[0_u8, 1, 5, 31, 130][..]).prop_map(Step::Wait);
    prop::collection::vec(prop_oneof![12 => send, 2 => wait, 1 => Just(Step::Reload)], 1..40)
}

/// The frames of a step, each with the port that it comes from.
pub(crate) fn frames(step: &Step) -> Vec<(PortId, Vec<u8>)> {
    let Step::Send(send) = step else { return Vec::new() };
    let &Send { from, to, ref what, times, link } = send;
    let way = Way { from, to, link };
    let back = Way { from: to, to: from, link };
    let once: Vec<(PortId, Vec<u8>)> = match *what {
        What::Connection { ports: (a, b), segments, then } => {
            let segments = connection().into_iter().take(segments.into()).map(|(forth, flags, seq, ack)| match forth {
                true => way.ip(6, &tcp((a, b), Segment { flags, seq, words: 5 }, ack)),
                false => back.ip(6, &tcp((b, a), Segment { flags, seq, words: 5 }, ack)),
            });
            let then = way.ip(6, &tcp((a, b), then, 5001));
            return segments.chain([then.clone(), then]).collect();
        }
        What::Exchange { ports: (a, b) } => vec![way.ip(17, &udp((a, b))), back.ip(17, &udp((b, a)))],
        What::Tcp { ports, segment } => vec![way.ip(6, &tcp(ports, segment, 5001))],
        What::Udp { ports } => vec![way.ip(17, &udp(ports))],
        What::Echo { request, id } => vec![way.ip(1, &[if request { 8 } else { 0 }, 0, 0, 0, 0, id, 0, 1])],
        What::Error { proto, ports } => {
            let transport = if proto == 1 { vec![8, 0, 0, 0, 0, ports.0, 0, 1] } else { udp(ports) };
            let quoted = ipv4(back.addresses(), proto, (0, 0), &transport);
            vec![way.ip(1, &[&[3, 3, 0, 0, 0, 0, 0, 0][..], &quoted].concat())]
        }
        What::Fragment { first, id, ports } => {
            let part = if first { 0x2000 } else { 0x2004 };
            let packet = ipv4(way.addresses(), 17, (id.into(), part), &udp(ports));
            vec![way.frame(0x0800, &packet)]
        }
        What::Other { proto, length } => vec![way.ip(proto, &vec![1; length.into()])],
        What::Multicast => {
            let addresses = ([10, 0, 0, from + 1], [224, 0, 0, 9]);
            vec![way.to_mac([1, 0, 0x5e, 0, 0, 9], 0x0800, &ipv4(addresses, 17, (0, 0), &udp((1, 2))))]
        }
        What::Arp { op } => vec![way.to_mac([0xff; 6], 0x0806, &way.arp(op))],
        What::Neighbour { target } => vec![way.frame(0x86dd, &way.solicitation(target))],
    };
    let count = once.len() * usize::from(times);
    once.into_iter().cycle().take(count).collect()
}

/// A connection of TCP from SYN to the last acknowledgment: whether from the one who began, flags, sequence and
/// acknowledgment number. Each segment with data has four bytes.
fn connection() -> [(bool, u8, u32, u32); 12] {
    [
        (true, SYN, 1000, 0),
        (false, SYN | ACK, 5000, 1001),
        (true, ACK, 1001, 5001),
        (true, ACK | PSH, 1001, 5001),
        (true, ACK | PSH, 1005, 5001),
        (false, ACK | PSH, 5001, 1009),
        (false, ACK | PSH, 5005, 1009),
        (true, ACK, 1009, 5009),
        (true, FIN | ACK, 1013, 5009),
        (false, ACK, 5009, 1018),
        (false, FIN | ACK, 5013, 1018),
        (true, ACK, 1018, 5018),
    ]
}

/// A segment with four bytes of data behind a header of five words, whatever the header says.
fn tcp(ports: (u8, u8), Segment { flags, seq, words }: Segment, ack: u32) -> Vec<u8> {
    let numbers = [seq.to_be_bytes(), ack.to_be_bytes()].concat();
    let data: &[u8] = if flags & SYN == 0 { &[1; 4] } else { &[] };
    [&[0, ports.0, 0, ports.1][..], &numbers, &[words << 4, flags, 1, 0, 0, 0, 0, 0], data].concat()
}

fn udp(ports: (u8, u8)) -> Vec<u8> {
    vec![0, ports.0, 0, ports.1, 0, 8, 0, 0]
}

type Addresses = ([u8; 4], [u8; 4]);

fn ipv4((src, dst): Addresses, proto: u8, (id, part): (u16, u16), payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(20 + payload.len()).unwrap();
    let words = [length.to_be_bytes(), id.to_be_bytes(), part.to_be_bytes(), [64, proto]].concat();
    let header = |sum: [u8; 2]| [&[0x45, 0][..], &words, &sum, &src, &dst].concat();
    let right = checksum(sum(&header([0, 0]))).to_be_bytes();
    let mut payload = payload.to_vec();
    // UDP goes without.
    let (field, pseudo) = match proto {
        6 => (16, sum(&src) + sum(&dst) + 6 + u64::try_from(payload.len()).unwrap()),
        1 => (2, 0),
        _ => (usize::MAX - 2, 0),
    };
    if payload.len() >= field + 2 {
        let right = checksum(pseudo + sum(&payload)).to_be_bytes();
        payload[field..field + 2].copy_from_slice(&right);
    }
    [&header(right)[..], &payload].concat()
}

/// Who sends to whom.
#[derive(Clone, Copy)]
struct Way {
    from: u8,
    to: u8,
    link: Link,
}

impl Way {
    fn addresses(self) -> Addresses {
        let src = if self.link == Link::Spoofed { (self.from + 1) % 4 } else { self.from };
        ([10, 0, 0, src + 1], [10, 0, 0, self.to + 1])
    }

    fn ip(self, proto: u8, payload: &[u8]) -> (PortId, Vec<u8>) {
        self.frame(0x0800, &ipv4(self.addresses(), proto, (0, 0), payload))
    }

    fn frame(self, ethertype: u16, packet: &[u8]) -> (PortId, Vec<u8>) {
        let to = if self.link == Link::Broadcast { [0xff; 6] } else { MACS[usize::from(self.to)] };
        self.to_mac(to, ethertype, packet)
    }

    fn to_mac(self, to: Mac, ethertype: u16, packet: &[u8]) -> (PortId, Vec<u8>) {
        let tag: &[u8] = if self.link == Link::Tagged { &[0x81, 0, 0, 5] } else { &[] };
        let bytes = [&to[..], &MACS[usize::from(self.from)], tag, &ethertype.to_be_bytes(), packet].concat();
        let source = if self.from < 2 { PortId::from(self.from) + 1 } else { WIRE };
        (source, bytes)
    }

    fn arp(self, op: u8) -> Vec<u8> {
        let (src, dst) = self.addresses();
        [&[0, 1, 8, 0, 6, 4, 0, op][..], &MACS[usize::from(self.from)], &src, &[0; 6], &dst].concat()
    }

    fn solicitation(self, target: u8) -> Vec<u8> {
        let address = |host: u8| [&[0xfd][..], &[0; 14], &[host + 1]].concat();
        let link = [&[1, 1][..], &MACS[usize::from(self.from)]].concat();
        let message = [&[135, 0, 0, 0, 0, 0, 0, 0][..], &address(target), &link].concat();
        let length = u16::try_from(message.len()).unwrap().to_be_bytes();
        [&[0x60, 0, 0, 0][..], &length, &[58, 255], &address(self.from), &address(self.to), &message].concat()
    }
}
