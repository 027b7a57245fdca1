//! Which keys of a match can hold together: a frame of ARP has no port, and one of IPv4 no address of IPv6.

use super::addresses::Addresses;
use super::field::Field;
use super::matches::Match;
use crate::document::Place;

/// A set of kinds of frames, a bit each.
type Kinds = u16;

const OTHER: Kinds = 1;
const ARP: Kinds = 1 << 1;
/// Kinds of IPv4, by protocol; those of IPv6 are [`V6`] bits higher.
const TCP: Kinds = 1 << 2;
const PORTS: Kinds = 1 << 3;
const ICMP: Kinds = 1 << 4;
const ICMP6: Kinds = 1 << 5;
const OTHER_IP: Kinds = 1 << 6;
const IPV4: Kinds = TCP | PORTS | ICMP | ICMP6 | OTHER_IP;
const V6: u32 = 5;
const IPV6: Kinds = IPV4 << V6;
const ANY: Kinds = OTHER | ARP | IPV4 | IPV6;

/// Protocols with a kind of their own.
const PROTOCOLS: [(u8, Kinds); 6] = [(6, TCP), (17, PORTS), (132, PORTS), (136, PORTS), (1, ICMP), (58, ICMP6)];
const ETHERTYPES: [(u16, Kinds); 3] = [(0x0800, IPV4), (0x86dd, IPV6), (0x0806, ARP)];

/// Reports a key under `match` of `rule` that never holds together with another one, or never at all.
pub(super) fn check(matches: &Match, rule: &Place<'_>) -> Option<()> {
    let stated = stated(matches);
    let mut left = ANY;
    for (at, &(key, kinds)) in stated.iter().enumerate() {
        left &= kinds;
        if left != 0 {
            continue;
        }
        let other = stated[..at].iter().find(|(_, other)| other & kinds == 0).map(|(other, _)| *other);
        let what = match other {
            _ if kinds == 0 => "never holds: ARP speaks of IPv4 addresses".to_owned(),
            Some(other) => format!("and `{other}` never hold together"),
            None => "and the keys above never hold together".to_owned(),
        };
        let help = "no frame has all that is stated: write a rule for each kind of frame".to_owned();
        rule.fail(&format!("match.{key}"), &what, Some(help));
        return None;
    }
    Some(())
}

/// The keys that are stated and not for every frame, with the kinds of frames that they can hold for.
fn stated(matches: &Match) -> Vec<(&'static str, Kinds)> {
    let ip = |addresses: &Addresses| {
        let v4 = if addresses.v4.is_empty() { 0 } else { IPV4 };
        v4 | if addresses.v6.is_empty() { 0 } else { IPV6 }
    };
    let arp = |addresses: &Addresses| if addresses.v4.is_empty() { 0 } else { ARP };
    let both = |kinds: Kinds| kinds | kinds << V6;
    [
        ("ethertype", matches.ethertype.as_ref().map(of_ethertypes)),
        ("proto", matches.proto.as_ref().map(|proto| both(of_protocols(proto)))),
        ("dscp", matches.dscp.as_ref().map(|_| IPV4 | IPV6)),
        ("src", matches.src.as_ref().map(ip)),
        ("dst", matches.dst.as_ref().map(ip)),
        ("src_port", matches.src_port.as_ref().map(|_| both(TCP | PORTS))),
        ("dst_port", matches.dst_port.as_ref().map(|_| both(TCP | PORTS))),
        ("icmp_type", matches.icmp.as_ref().map(|_| ICMP)),
        ("icmp6_type", matches.icmp6.as_ref().map(|_| ICMP6 << V6)),
        ("tcp_flags", matches.tcp_flags.map(|_| both(TCP))),
        ("arp_op", matches.arp_op.as_ref().map(|_| ARP)),
        ("arp_src", matches.arp_src.as_ref().map(arp)),
        ("arp_dst", matches.arp_dst.as_ref().map(arp)),
        ("arp_src_mac", matches.arp_src_mac.as_ref().map(|_| ARP)),
        ("fragment", matches.fragment.filter(|&fragment| fragment).map(|_| IPV4 | IPV6)),
    ]
    .into_iter()
    .filter_map(|(key, kinds)| Some((key, kinds?)))
    .collect()
}

fn of_ethertypes(ethertypes: &Field<u16>) -> Kinds {
    let known = ETHERTYPES.iter().filter(|(ethertype, _)| ethertypes.contains(*ethertype));
    let has_other = !Field::new(ETHERTYPES.map(|(ethertype, _)| ethertype..=ethertype)).covers(ethertypes);
    known.fold(if has_other { OTHER } else { 0 }, |kinds, (_, kind)| kinds | kind)
}

fn of_protocols(protocols: &Field<u8>) -> Kinds {
    let known = PROTOCOLS.iter().filter(|(protocol, _)| protocols.contains(*protocol));
    let has_other = !Field::new(PROTOCOLS.map(|(protocol, _)| protocol..=protocol)).covers(protocols);
    known.fold(if has_other { OTHER_IP } else { 0 }, |kinds, (_, kind)| kinds | kind)
}
