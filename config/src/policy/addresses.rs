//! IP addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rustc_hash::FxHasher;

use ipnet::IpNet;
use serde_json::{Value as Json, json};

use super::field::{Field, Union};
use super::set::{self, Set};
use super::values::{Negatable, Values};
use super::words;
use crate::value::{Fault, Form, pattern};

/// IP addresses of both families: a frame matches if its address is in a range of its own family.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Addresses {
    /// IPv4.
    pub v4: Field<u32>,
    /// IPv6.
    pub v6: Field<u128>,
}

impl Addresses {
    /// Whether `address` is in one of the ranges of its family.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(v4) => self.v4.contains(v4.to_bits()),
            IpAddr::V6(v6) => self.v6.contains(v6.to_bits()),
        }
    }

    /// Whether there is no range of either family, so that nothing matches.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }
}

/// Reads a block such as `10.0.0.0/8`, or one address; or says what would help, if it is known.
fn block(text: &str) -> Result<IpNet, Option<String>> {
    let (address, prefix) = text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
    let address: IpAddr = address.parse().map_err(|_| None)?;
    let bits = IpNet::from(address).max_prefix_len();
    let prefix = prefix.map_or(Some(bits), words::decimal);
    match prefix.and_then(|prefix| IpNet::new(address, prefix).ok()) {
        None => Err(Some(format!("the prefix is a number from 0 to {bits}"))),
        Some(net) if net.network() == address => Ok(net),
        Some(net) => Err(Some(format!("bits are set beyond the prefix: did you mean \"{}\"?", net.trunc()))),
    }
}

/// One element of a list of addresses, as it stands in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum AddressPart {
    /// A block or a range of one family.
    Range(IpAddr, IpAddr),
    /// The name of a set, without its `@`.
    Set(String),
}

impl AddressPart {
    fn range(text: &str) -> Result<Self, Option<String>> {
        let Some((first, last)) = text.split_once('-') else {
            let net = block(text)?;
            return Ok(Self::Range(net.network(), net.broadcast()));
        };
        let parse = |text: &str| text.trim().parse::<IpAddr>().map_err(|_| None);
        match (parse(first)?, parse(last)?) {
            (first, last) if first.is_ipv4() != last.is_ipv4() => {
                Err(Some("both ends of a range are of one family".to_owned()))
            }
            (first, last) if first > last => Err(Some("the smaller address comes first".to_owned())),
            (first, last) => Ok(Self::Range(first, last)),
        }
    }
}

/// An address, a block if the range is one, or a range. `prefix` is what its ends have in common.
fn write_range(first: IpAddr, last: IpAddr, prefix: u32) -> String {
    let block = u8::try_from(prefix).ok().and_then(|prefix| IpNet::new(first, prefix).ok());
    match block.filter(|block| (block.network(), block.broadcast()) == (first, last)) {
        Some(_) if first == last => format!("\"{first}\""),
        Some(block) => format!("\"{block}\""),
        None => format!("\"{first}-{last}\""),
    }
}

/// A block such as `10.0.0.0/8`, one address, a range of two with a hyphen between, or a set as `@name` if there may be
/// some. A frame's field has addresses of both families, or of IPv4 alone.
pub(super) struct AddressIn<const SETS: bool, const V4_ONLY: bool>;

impl<const SETS: bool, const V4_ONLY: bool> Form for AddressIn<SETS, V4_ONLY> {
    type Value = AddressPart;

    fn expected() -> String {
        let set = if SETS { " or a set such as \"@name\"" } else { "" };
        format!("an IP address, a block such as \"10.0.0.0/8\", a range such as \"10.0.0.1-10.0.0.9\"{set}")
    }

    fn schema() -> Json {
        let address = pattern("^[0-9a-fA-F:.]+(/[0-9]+|-[0-9a-fA-F:.]+)?$");
        if SETS { json!({ "anyOf": [address, set::reference_schema()] }) } else { address }
    }

    fn text(text: &str) -> Result<AddressPart, Fault> {
        match text.strip_prefix('@') {
            Some(name) if SETS => Ok(AddressPart::Set(name.to_owned())),
            _ => AddressPart::range(text).map_err(Fault::unexpected),
        }
    }
}

impl Union for Addresses {
    fn and(&self, other: &Self) -> Self {
        Self { v4: self.v4.and(&other.v4), v6: self.v6.and(&other.v6) }
    }

    fn negated(&self) -> Self {
        Self { v4: self.v4.negated(), v6: self.v6.negated() }
    }

    fn covers(&self, other: &Self) -> bool {
        self.v4.covers(&other.v4) && self.v6.covers(&other.v6)
    }

    fn size(&self) -> usize {
        self.v4.size() + self.v6.size()
    }

    fn is_shared_with(&self, other: &Self) -> bool {
        self.v4.is_shared_with(&other.v4) && self.v6.is_shared_with(&other.v6)
    }

    fn hash_ends(&self, hasher: &mut FxHasher) {
        self.v4.hash_ends(hasher);
        self.v6.hash_ends(hasher);
    }
}

impl<const SETS: bool, const V4_ONLY: bool> Values for AddressIn<SETS, V4_ONLY> {
    type Union = Addresses;

    fn universe() -> Addresses {
        let v6 = if V4_ONLY { Field::default() } else { Field::new([0..=u128::MAX]) };
        Addresses { v4: Field::new([0..=u32::MAX]), v6 }
    }

    fn union(parts: Vec<AddressPart>, sets: &[&Addresses]) -> Addresses {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for part in parts {
            match part {
                AddressPart::Range(IpAddr::V4(first), IpAddr::V4(last)) => v4.push(first.to_bits()..=last.to_bits()),
                AddressPart::Range(IpAddr::V6(first), IpAddr::V6(last)) => v6.push(first.to_bits()..=last.to_bits()),
                // No range is of two families.
                AddressPart::Range(..) | AddressPart::Set(_) => {}
            }
        }
        for set in sets {
            v4.extend(set.v4.ranges().iter().cloned());
            v6.extend(set.v6.ranges().iter().cloned());
        }
        Addresses { v4: Field::new(v4), v6: Field::new(v6) }
    }

    fn write(addresses: &Addresses) -> Vec<String> {
        let v4 = addresses.v4.ranges().iter().map(|range| {
            let (first, last) = (*range.start(), *range.end());
            write_range(Ipv4Addr::from(first).into(), Ipv4Addr::from(last).into(), (first ^ last).leading_zeros())
        });
        let v6 = addresses.v6.ranges().iter().map(|range| {
            let (first, last) = (*range.start(), *range.end());
            write_range(Ipv6Addr::from(first).into(), Ipv6Addr::from(last).into(), (first ^ last).leading_zeros())
        });
        v4.chain(v6).collect()
    }

    fn set_name(part: &AddressPart) -> Option<&str> {
        if let AddressPart::Set(name) = part { Some(name) } else { None }
    }

    fn of_set(set: &Set) -> Option<&Negatable<Addresses>> {
        set.addresses.as_ref()
    }
}

/// A block of addresses, no bit of which is set beyond the prefix, or one address.
pub(super) struct Block;

impl Form for Block {
    type Value = IpNet;

    fn expected() -> String {
        "an IP address, or a block such as \"10.0.0.0/8\"".to_owned()
    }

    fn schema() -> Json {
        pattern("^[0-9a-fA-F:.]+(/[0-9]+)?$")
    }

    fn text(text: &str) -> Result<IpNet, Fault> {
        block(text).map_err(Fault::unexpected)
    }
}
