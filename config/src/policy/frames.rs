//! Which keys of a match can hold together: a frame of ARP has no port, and one of IPv4 no address of IPv6.

use super::addresses::Addresses;
use super::field::{Field, Scalar, Union};
use crate::document::Place;

/// A set of kinds of frames, a bit each.
type Kinds = u16;

const OTHER: Kinds = 1;
pub(super) const ARP: Kinds = 1 << 1;
/// IPv4 by protocol; the same of IPv6 are [`V6`] bits higher.
const TCP4: Kinds = 1 << 2;
const UDP4: Kinds = 1 << 3;
const ICMP4: Kinds = 1 << 4;
const ICMP6_4: Kinds = 1 << 5;
const OTHER4: Kinds = 1 << 6;
const IPV4: Kinds = TCP4 | UDP4 | ICMP4 | ICMP6_4 | OTHER4;
const V6: u32 = 5;
const IPV6: Kinds = IPV4 << V6;

pub(super) const ICMP: Kinds = ICMP4;
pub(super) const ICMP6: Kinds = ICMP6_4 << V6;
pub(super) const TCP: Kinds = TCP4 | TCP4 << V6;
pub(super) const PORTS: Kinds = TCP | UDP4 | UDP4 << V6;
pub(super) const IP: Kinds = IPV4 | IPV6;
pub(super) const ANY: Kinds = OTHER | ARP | IP;

/// Protocols with a kind of their own.
const PROTOCOLS: [(u8, Kinds); 6] = [(6, TCP4), (17, UDP4), (132, UDP4), (136, UDP4), (1, ICMP4), (58, ICMP6_4)];
const ETHERTYPES: [(u16, Kinds); 3] = [(0x0800, IPV4), (0x86dd, IPV6), (0x0806, ARP)];

/// Reports a key under `match` of `rule` that never holds together with another one, or never at all. `keys` have the
/// kinds of frames that they can hold for, if they are stated.
pub(super) fn check(keys: &[(&str, Option<Kinds>)], rule: &Place<'_>) -> Option<()> {
    let mut left = ANY;
    for (at, (key, kinds)) in keys.iter().enumerate() {
        let Some(kinds) = *kinds else { continue };
        left &= kinds;
        if left != 0 {
            continue;
        }
        let is_other = |(_, other): &&(&str, Option<Kinds>)| other.is_some_and(|other| other & kinds == 0);
        let what = match keys[..at].iter().find(is_other) {
            _ if kinds == 0 => "never holds: ARP speaks of IPv4 addresses".to_owned(),
            Some((other, _)) => format!("and `{other}` never hold together"),
            None => "and the keys above never hold together".to_owned(),
        };
        let help = "no frame has all that is stated: write a rule for each kind of frame";
        rule.fail(&format!("match.{key}"), &what, help);
        return None;
    }
    Some(())
}

pub(super) fn of_ip(addresses: &Addresses) -> Kinds {
    let v4 = if addresses.v4.is_empty() { 0 } else { IPV4 };
    v4 | if addresses.v6.is_empty() { 0 } else { IPV6 }
}

pub(super) fn of_arp(addresses: &Addresses) -> Kinds {
    if addresses.v4.is_empty() { 0 } else { ARP }
}

pub(super) fn of_ethertypes(ethertypes: &Field<u16>) -> Kinds {
    of_numbers(ethertypes, ETHERTYPES, OTHER)
}

pub(super) fn of_protocols(protocols: &Field<u8>) -> Kinds {
    let kinds = of_numbers(protocols, PROTOCOLS, OTHER4);
    kinds | kinds << V6
}

/// The kinds of the known numbers in `field`, and `other` if there are more.
fn of_numbers<T: Scalar, const N: usize>(field: &Field<T>, known: [(T, Kinds); N], other: Kinds) -> Kinds {
    let kinds = known.iter().filter(|(number, _)| field.contains(*number)).fold(0, |kinds, (_, kind)| kinds | kind);
    let has_other = !Field::new(known.map(|(number, _)| number..=number)).covers(field);
    kinds | if has_other { other } else { 0 }
}
