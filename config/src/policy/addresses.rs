//! IP addresses.

use std::fmt;
use std::hash::DefaultHasher;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use ipnet::IpNet;
use serde_json::{Value as Json, json};

use super::field::Field;
use super::set::{self, Set};
use super::values::{Negatable, Union, Values};
use super::words;
use crate::value::{Fault, Form, Raw};

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

    /// What is in both `self` and `other`.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        Self { v4: self.v4.and(&other.v4), v6: self.v6.and(&other.v6) }
    }

    /// Whether everything in `other` is in `self` too.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        self.v4.covers(&other.v4) && self.v6.covers(&other.v6)
    }

    /// Whether there is no range of either family, so that nothing matches.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }

    /// Everything that `self` is not, in both families.
    #[must_use]
    pub fn negated(&self) -> Self {
        Self { v4: self.v4.negated(), v6: self.v6.negated() }
    }
}

/// A block of addresses: `10.0.0.0/8`, `2001:db8::/32`, or one address. No bit is set beyond the prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cidr(IpNet);

impl Cidr {
    /// The block of `address` with `prefix` leading bits; `None` if the prefix is too long or bits are set beyond it.
    #[must_use]
    pub fn new(address: IpAddr, prefix: u8) -> Option<Self> {
        IpNet::new(address, prefix).ok().filter(|net| net.network() == address).map(Self)
    }

    /// Reads `10.0.0.0/8` or one address; or says what would help, if it is known.
    fn parse(text: &str) -> Result<Self, Option<String>> {
        let (address, prefix) = text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
        let address: IpAddr = address.parse().map_err(|_| None)?;
        let bits = IpNet::from(address).max_prefix_len();
        let prefix = prefix.map_or(Some(bits), words::decimal);
        let net = prefix.and_then(|prefix| IpNet::new(address, prefix).ok());
        match net {
            None => Err(Some(format!("the prefix is a number from 0 to {bits}"))),
            Some(net) if net.network() == address => Ok(Self(net)),
            Some(net) => Err(Some(format!("bits are set beyond the prefix: did you mean \"{}\"?", net.trunc()))),
        }
    }

    /// The first address.
    #[must_use]
    pub fn address(&self) -> IpAddr {
        self.0.addr()
    }

    /// Leading bits that count.
    #[must_use]
    pub fn prefix(&self) -> u8 {
        self.0.prefix_len()
    }

    /// Whether `address` is in the block.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address)
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.prefix_len() == self.0.max_prefix_len() { self.0.addr().fmt(f) } else { self.0.fmt(f) }
    }
}

/// One element of a list of addresses, as it stands in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum AddressPart {
    /// A block or a range of IPv4.
    V4(RangeInclusive<u32>),
    /// A block or a range of IPv6.
    V6(RangeInclusive<u128>),
    /// The name of a set, without its `@`.
    Set(String),
}

impl AddressPart {
    fn text(text: &str) -> Result<Self, Option<String>> {
        if let Some((first, last)) = text.split_once('-') {
            let parse = |text: &str| text.trim().parse::<IpAddr>().ok();
            return match (parse(first), parse(last)) {
                (Some(IpAddr::V4(first)), Some(IpAddr::V4(last))) if first <= last => {
                    Ok(Self::V4(first.to_bits()..=last.to_bits()))
                }
                (Some(IpAddr::V6(first)), Some(IpAddr::V6(last))) if first <= last => {
                    Ok(Self::V6(first.to_bits()..=last.to_bits()))
                }
                (Some(first), Some(last)) if first.is_ipv4() != last.is_ipv4() => {
                    Err(Some("both ends of a range are of one family".to_owned()))
                }
                (Some(_), Some(_)) => Err(Some("the smaller address comes first".to_owned())),
                _ => Err(None),
            };
        }
        Ok(match Cidr::parse(text)?.0 {
            IpNet::V4(net) => Self::V4(net.network().to_bits()..=net.broadcast().to_bits()),
            IpNet::V6(net) => Self::V6(net.network().to_bits()..=net.broadcast().to_bits()),
        })
    }
}

/// An address, a block if the range is one, or a range. `prefix` is what its ends have in common.
fn write_range(first: IpAddr, last: IpAddr, prefix: u32) -> String {
    let block = u8::try_from(prefix).ok().and_then(|prefix| Cidr::new(first, prefix));
    match block.filter(|block| block.0.broadcast() == last) {
        Some(block) => format!("\"{block}\""),
        None => format!("\"{first}-{last}\""),
    }
}

/// A block such as `10.0.0.0/8`, one address, a range of two with a hyphen between, or a set as `@name` if there may be
/// some. A frame's field has addresses of both families, or of IPv4 alone.
#[derive(Debug)]
pub(super) struct AddressIn<const SETS: bool, const V4_ONLY: bool>;

impl<const SETS: bool, const V4_ONLY: bool> Form for AddressIn<SETS, V4_ONLY> {
    type Value = AddressPart;

    fn expected() -> String {
        let set = if SETS { " or a set such as \"@name\"" } else { "" };
        format!("an IP address, a block such as \"10.0.0.0/8\", a range such as \"10.0.0.1-10.0.0.9\"{set}")
    }

    fn schema() -> Json {
        let address = json!({ "type": "string", "pattern": "^[0-9a-fA-F:.]+(/[0-9]+|-[0-9a-fA-F:.]+)?$" });
        if SETS { json!({ "anyOf": [address, set::reference_schema()] }) } else { address }
    }

    fn read(raw: Raw<'_>) -> Result<AddressPart, Fault> {
        let Raw::Text(text) = raw else { return Err(Fault::default()) };
        match text.strip_prefix('@') {
            Some(name) if SETS => Ok(AddressPart::Set(name.to_owned())),
            _ => AddressPart::text(text).map_err(Fault::unexpected),
        }
    }
}

impl Union for Addresses {
    fn and(&self, other: &Self) -> Self {
        Self::and(self, other)
    }

    fn negated(&self) -> Self {
        Self::negated(self)
    }

    fn covers(&self, other: &Self) -> bool {
        Self::covers(self, other)
    }

    fn size(&self) -> usize {
        self.v4.ranges().len() + self.v6.ranges().len()
    }

    fn is_shared_with(&self, other: &Self) -> bool {
        self.v4.is_shared_with(&other.v4) && self.v6.is_shared_with(&other.v6)
    }

    fn hash_ends(&self, hasher: &mut DefaultHasher) {
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
                AddressPart::V4(range) => v4.push(range),
                AddressPart::V6(range) => v6.push(range),
                AddressPart::Set(_) => {}
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
            let prefix = (first ^ last).leading_zeros();
            write_range(Ipv4Addr::from_bits(first).into(), Ipv4Addr::from_bits(last).into(), prefix)
        });
        let v6 = addresses.v6.ranges().iter().map(|range| {
            let (first, last) = (*range.start(), *range.end());
            let prefix = (first ^ last).leading_zeros();
            write_range(Ipv6Addr::from_bits(first).into(), Ipv6Addr::from_bits(last).into(), prefix)
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

/// A block of addresses, or one.
impl Form for Cidr {
    type Value = Self;

    fn expected() -> String {
        "an IP address, or a block such as \"10.0.0.0/8\"".to_owned()
    }

    fn schema() -> Json {
        json!({ "type": "string", "pattern": "^[0-9a-fA-F:.]+(/[0-9]+)?$" })
    }

    fn read(raw: Raw<'_>) -> Result<Self, Fault> {
        let Raw::Text(text) = raw else { return Err(Fault::default()) };
        Self::parse(text).map_err(Fault::unexpected)
    }
}
