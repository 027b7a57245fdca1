//! IP addresses.

use std::net::IpAddr;

use super::field::Field;

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
pub struct Cidr {
    address: IpAddr,
    prefix: u8,
}

impl Cidr {
    /// The block of `address` with `prefix` leading bits; `None` if the prefix is too long or bits are set beyond it.
    #[must_use]
    pub fn new(address: IpAddr, prefix: u8) -> Option<Self> {
        let stray = match address {
            IpAddr::V4(v4) => v4.to_bits() & u32::MAX.checked_shr(prefix.into()).unwrap_or(0) != 0,
            IpAddr::V6(v6) => v6.to_bits() & u128::MAX.checked_shr(prefix.into()).unwrap_or(0) != 0,
        };
        let bits = if address.is_ipv4() { 32 } else { 128 };
        (prefix <= bits && !stray).then_some(Self { address, prefix })
    }

    /// The first address.
    #[must_use]
    pub const fn address(&self) -> IpAddr {
        self.address
    }

    /// Leading bits that count.
    #[must_use]
    pub const fn prefix(&self) -> u8 {
        self.prefix
    }

    /// Whether `address` is in the block.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let same = |shift: u32, a: u128, b: u128| (a ^ b).checked_shr(shift).unwrap_or(0) == 0;
        let prefix = u32::from(self.prefix);
        match (self.address, address) {
            (IpAddr::V4(a), IpAddr::V4(b)) => same(32 - prefix, a.to_bits().into(), b.to_bits().into()),
            (IpAddr::V6(a), IpAddr::V6(b)) => same(128 - prefix, a.to_bits(), b.to_bits()),
            _ => false,
        }
    }
}
