//! Compiled patterns against one that looks at what the frame was made from, field by field.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use proptest::prelude::*;
use proptest::sample::select;
use std::format;
use std::string::String;
use std::vec;
use std::vec::Vec;

use super::*;
use crate::{describe, parse};

/// What a frame is made from. Its values are few, so that rules match often.
#[derive(Clone, Debug)]
struct Truth {
    dst_mac: u8,
    src_mac: u8,
    /// Numbers of the tags, and whether they are of a service.
    tags: Vec<(u16, bool)>,
    body: Body,
}

#[derive(Clone, Debug)]
enum Body {
    Other(u16),
    Arp,
    Ip { src: IpAddr, dst: IpAddr, inside: Inside },
}

#[derive(Clone, Debug)]
enum Inside {
    Ports { proto: &'static str, src: u16, dst: u16, fragment: bool },
    Later(&'static str),
    Icmp { kind: u8, code: u8 },
    Protocol(u8),
}

fn mac(last: u8) -> MacAddr {
    MacAddr::new([2, 0, 0, 0, 0, last])
}

impl Truth {
    fn text(&self) -> String {
        let tag = |(id, service): &(u16, bool)| format!("{}vlan {id} ", if *service { "service-" } else { "" });
        let tags: String = self.tags.iter().map(tag).collect();
        let (from, to) = (mac(self.src_mac), mac(self.dst_mac));
        let body = match &self.body {
            Body::Other(ether_type) => return format!("{tags}{ether_type:#06x} {from} > {to}"),
            Body::Arp => String::from("arp request 10.0.0.1 > 10.0.0.2"),
            Body::Ip { src, dst, inside } => {
                let end = |address: &IpAddr, port: u16| match address {
                    IpAddr::V4(address) => format!("{address}:{port}"),
                    IpAddr::V6(address) => format!("[{address}]:{port}"),
                };
                match inside {
                    Inside::Ports { proto, src: from, dst: to, fragment } => {
                        let fragment = if *fragment { " first fragment" } else { "" };
                        format!("{proto} {} > {}{fragment}", end(src, *from), end(dst, *to))
                    }
                    Inside::Later(proto) => format!("{proto} {src} > {dst} later fragment"),
                    Inside::Icmp { kind, code } => {
                        let name = if src.is_ipv4() { "icmp" } else { "icmp6" };
                        format!("{name} {src} > {dst} type {kind} code {code}")
                    }
                    Inside::Protocol(proto) => format!("proto {proto} {src} > {dst}"),
                }
            }
        };
        format!("{tags}{body} from {from} to {to}")
    }

    fn ether_type(&self) -> u16 {
        match &self.body {
            Body::Other(ether_type) => *ether_type,
            Body::Arp => 0x0806,
            Body::Ip { src, .. } if src.is_ipv4() => 0x0800,
            Body::Ip { .. } => 0x86dd,
        }
    }

    fn matches(&self, pattern: &FlowPattern) -> bool {
        let fits = |wanted: Masked<MacAddr>, last| mac(last) & wanted.mask == wanted.value;
        let vlan = match pattern.vlan {
            VlanPattern::Any => true,
            VlanPattern::Untagged => self.tags.is_empty(),
            VlanPattern::Tagged { tci, customer, more } => self.tags.first().is_some_and(|(id, service)| {
                id & tci.mask == tci.value
                    && !(customer && *service)
                    && more.is_none_or(|more| more == (self.tags.len() > 1))
            }),
        };
        let ip = pattern.ip.is_none_or(|pattern| match &self.body {
            Body::Ip { src, dst, inside } => {
                let addresses = match (pattern.addresses, src, dst) {
                    (AddressPattern::V4 { src, dst }, IpAddr::V4(from), IpAddr::V4(to)) => {
                        from.to_bits() & src.mask == src.value && to.to_bits() & dst.mask == dst.value
                    }
                    (AddressPattern::V6 { src, dst }, IpAddr::V6(from), IpAddr::V6(to)) => {
                        from.to_bits() & src.mask == src.value && to.to_bits() & dst.mask == dst.value
                    }
                    _ => false,
                };
                addresses && inside.matches(src.is_ipv4(), pattern.transport)
            }
            _ => false,
        });
        fits(pattern.dst_mac, self.dst_mac)
            && fits(pattern.src_mac, self.src_mac)
            && pattern.ether_type.is_none_or(|ether_type| ether_type == self.ether_type())
            && vlan
            && ip
    }
}

impl Inside {
    fn matches(&self, is_v4: bool, pattern: TransportPattern) -> bool {
        let number = |name: &str| match name {
            "tcp" => 6,
            "udp" => 17,
            _ => 132,
        };
        let proto = match self {
            Self::Ports { proto, .. } | Self::Later(proto) => number(proto),
            Self::Icmp { .. } if is_v4 => 1,
            Self::Icmp { .. } => 58,
            Self::Protocol(proto) => *proto,
        };
        let ports = |wanted: PortsPattern, of: &str| match self {
            Self::Ports { proto, src, dst, fragment: false } => {
                *proto == of && src & wanted.src.mask == wanted.src.value && dst & wanted.dst.mask == wanted.dst.value
            }
            _ => false,
        };
        match pattern {
            TransportPattern::Any => true,
            TransportPattern::Protocol(wanted) => proto == wanted,
            TransportPattern::Tcp(wanted) => ports(wanted, "tcp"),
            TransportPattern::Udp(wanted) => ports(wanted, "udp"),
            TransportPattern::Icmp { kind, code } => match self {
                Self::Icmp { kind: is, code: coded } => is & kind.mask == kind.value && coded & code.mask == code.value,
                _ => false,
            },
        }
    }
}

fn truth() -> impl Strategy<Value = Truth> {
    let proto = || select(vec!["tcp", "udp", "sctp"]);
    let inside = prop_oneof![
        4 => (proto(), 0_u16..4, 0_u16..4, prop::bool::weighted(0.1))
            .prop_map(|(proto, src, dst, fragment)| Inside::Ports { proto, src, dst, fragment }),
        1 => proto().prop_map(Inside::Later),
        2 => (0_u8..4, 0_u8..4).prop_map(|(kind, code)| Inside::Icmp { kind, code }),
        1 => select(vec![47_u8, 50]).prop_map(Inside::Protocol),
    ];
    let addresses = prop_oneof![
        (0_u32..4, 0_u32..4).prop_map(|(a, b)| (IpAddr::V4(v4(a)), IpAddr::V4(v4(b)))),
        (0_u128..4, 0_u128..4).prop_map(|(a, b)| (IpAddr::V6(v6(a)), IpAddr::V6(v6(b)))),
    ];
    let body = prop_oneof![
        1 => select(vec![0x88cc_u16, 0x0600]).prop_map(Body::Other),
        1 => Just(Body::Arp),
        8 => (addresses, inside).prop_map(|((src, dst), inside)| Body::Ip { src, dst, inside }),
    ];
    let tags = prop_oneof![2 => Just(Vec::new()), 1 => prop::collection::vec((0_u16..4, any::<bool>()), 1..=2)];
    (0_u8..4, 0_u8..4, tags, body).prop_map(|(dst_mac, src_mac, tags, body)| Truth { dst_mac, src_mac, tags, body })
}

/// Addresses that differ in two bits at their ends, which lie in different words of a key.
fn v4(n: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(n & 1 | (n & 2) << 30)
}

fn v6(n: u128) -> Ipv6Addr {
    Ipv6Addr::from_bits(n & 1 | (n & 2) << 126 | 5 << 40 | 6 << 70)
}

/// Mostly nothing, or all of it; a part at times.
fn masked<T>(value: impl Strategy<Value = T>, all: T) -> impl Strategy<Value = Masked<T>>
where
    T: Copy + Default + BitAnd<Output = T> + std::fmt::Debug + Arbitrary + 'static,
{
    let mask = prop_oneof![4 => Just(T::default()), 3 => Just(all), 1 => any::<T>()];
    (value, mask).prop_map(|(value, mask)| Masked::new(value, mask))
}

fn masked_mac() -> impl Strategy<Value = Masked<MacAddr>> {
    let mask = prop_oneof![6 => Just([0; 6]), 1 => Just([0xff; 6]), 1 => Just([0xff, 0, 0, 0, 0, 1])];
    (0_u8..4, mask).prop_map(|(last, mask)| Masked::new(mac(last), MacAddr::new(mask)))
}

fn pattern() -> impl Strategy<Value = FlowPattern> {
    let a4 = || masked((0_u32..4).prop_map(|n| v4(n).to_bits()), !0);
    let a6 = || masked((0_u128..4).prop_map(|n| v6(n).to_bits()), !0);
    let addresses = prop_oneof![
        (a4(), a4()).prop_map(|(src, dst)| AddressPattern::V4 { src, dst }),
        (a6(), a6()).prop_map(|(src, dst)| AddressPattern::V6 { src, dst }),
    ];
    let ports = || (masked(0_u16..4, !0), masked(0_u16..4, !0)).prop_map(|(src, dst)| PortsPattern { src, dst });
    let transport = prop_oneof![
        Just(TransportPattern::Any),
        select(vec![1_u8, 6, 17, 47, 58, 132]).prop_map(TransportPattern::Protocol),
        ports().prop_map(TransportPattern::Tcp),
        ports().prop_map(TransportPattern::Udp),
        (masked(0_u8..4, !0), masked(0_u8..4, !0)).prop_map(|(kind, code)| TransportPattern::Icmp { kind, code }),
    ];
    let ip = prop_oneof![
        Just(None),
        (addresses, transport).prop_map(|(addresses, transport)| Some(IpPattern { addresses, transport })),
    ];
    let vlan = prop_oneof![
        4 => Just(VlanPattern::Any),
        1 => Just(VlanPattern::Untagged),
        2 => (masked(0_u16..4, 0x0fff), any::<bool>(), any::<Option<bool>>())
            .prop_map(|(tci, customer, more)| VlanPattern::Tagged { tci, customer, more }),
    ];
    let ether_type = prop_oneof![3 => Just(None), 1 => select(vec![0x0800_u16, 0x0806, 0x86dd, 0x88cc]).prop_map(Some)];
    (masked_mac(), masked_mac(), ether_type, vlan, ip)
        .prop_map(|(dst_mac, src_mac, ether_type, vlan, ip)| FlowPattern { dst_mac, src_mac, ether_type, vlan, ip })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]
    /// A pattern matches what it says of the frame, and nothing else.
    #[test]
    fn compiled_patterns_match_what_they_say(truth in truth(), pattern in pattern(), source: u16) {
        let frame = describe::frame_of(&truth.text()).unwrap();
        let key = parse(&frame, source).1;
        prop_assert_eq!(pattern.compile().matches(&key), truth.matches(&pattern), "{}", key);
    }

    /// Flags of TCP that a policy has put into a key, and the port that a frame came from, do not matter.
    #[test]
    fn what_a_policy_adds_does_not_matter(truth in truth(), pattern in pattern(), flags: u8) {
        let frame = describe::frame_of(&truth.text()).unwrap();
        let (key, compiled) = (parse(&frame, 1).1, pattern.compile());
        prop_assert_eq!(compiled.matches(&key), compiled.matches(&parse(&frame, 2).1.with_tcp_flags(flags)));
    }

    /// Whatever the bytes: a frame without a whole packet of IP is matched by no pattern that asks for one.
    #[test]
    fn malformed_packets_match_no_pattern_of_ip(mut frame: [u8; 60], length in 14_usize..=60, pattern in pattern()) {
        frame[12..15].copy_from_slice(&[8, 0, 0x45]);
        let (headers, key) = parse(&frame[..length], 0);
        if pattern.ip.is_some() && pattern.compile().matches(&key) {
            prop_assert_eq!(headers.shape, crate::Shape::Ipv4);
        }
    }
}

/// The default pattern is for every frame.
#[test]
fn nothing_asked_for_is_always_there() {
    let every = FlowPattern::default().compile();
    for frame in [&[0xff_u8; 64][..], &[0; 64], &[]] {
        assert!(every.matches(&parse(frame, 7).1));
    }
    assert!(every.matches(&FlowKey::from_words([!0; 8])));
}

/// Bits of a value that do not count are not kept.
#[test]
fn masked_values_keep_what_counts() {
    let masked = Masked::new(0xffff_u16, 0x0ff0);
    assert_eq!((masked.value(), masked.mask()), (0x0ff0, 0x0ff0));
    assert_eq!(Masked::new(mac(3), MacAddr::ZERO), Masked::default());
}
