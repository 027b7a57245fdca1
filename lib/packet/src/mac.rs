//! Ethernet addresses.

use core::error::Error;
use core::fmt;
use core::ops::BitAnd;
use core::str::FromStr;

/// An Ethernet (EUI-48) address, in the order in which its bytes go over the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct MacAddr([u8; 6]);

impl MacAddr {
    /// `00:00:00:00:00:00`, which no station may have.
    pub const ZERO: Self = Self([0; 6]);
    /// `ff:ff:ff:ff:ff:ff`, which every station listens to.
    pub const BROADCAST: Self = Self([0xff; 6]);

    /// Makes an address from its six bytes.
    #[inline]
    #[must_use]
    pub const fn new(bytes: [u8; 6]) -> Self {
        Self(bytes)
    }

    /// The six bytes in wire order.
    #[inline]
    #[must_use]
    pub const fn bytes(self) -> [u8; 6] {
        self.0
    }

    /// The address as a number below 2^48, first byte most significant: a compact key for a table.
    #[inline]
    #[must_use]
    pub const fn to_u64(self) -> u64 {
        let [a, b, c, d, e, f] = self.0;
        u64::from_be_bytes([0, 0, a, b, c, d, e, f])
    }

    /// The address whose number is `value`; bits above 2^48 are ignored.
    #[inline]
    #[must_use]
    pub const fn from_u64(value: u64) -> Self {
        let [_, _, a, b, c, d, e, f] = value.to_be_bytes();
        Self([a, b, c, d, e, f])
    }

    /// Whether this addresses a group of stations; true for the broadcast address as well (IEEE 802, I/G bit).
    #[inline]
    #[must_use]
    pub const fn is_multicast(self) -> bool {
        self.0[0] & 1 != 0
    }

    /// Whether this is `ff:ff:ff:ff:ff:ff`.
    #[inline]
    #[must_use]
    pub const fn is_broadcast(self) -> bool {
        self.to_u64() == Self::BROADCAST.to_u64()
    }

    /// Whether this is `00:00:00:00:00:00`.
    #[inline]
    #[must_use]
    pub const fn is_zero(self) -> bool {
        self.to_u64() == 0
    }

    /// Whether this was assigned locally and not by a manufacturer (IEEE 802, U/L bit).
    #[inline]
    #[must_use]
    pub const fn is_local(self) -> bool {
        self.0[0] & 2 != 0
    }
}

impl From<[u8; 6]> for MacAddr {
    fn from(bytes: [u8; 6]) -> Self {
        Self(bytes)
    }
}

impl BitAnd for MacAddr {
    type Output = Self;

    /// The bits that both have.
    fn bitand(self, other: Self) -> Self {
        Self::from_u64(self.to_u64() & other.to_u64())
    }
}

impl From<MacAddr> for [u8; 6] {
    fn from(mac: MacAddr) -> Self {
        mac.0
    }
}

impl From<MacAddr> for u64 {
    fn from(mac: MacAddr) -> Self {
        mac.to_u64()
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// Why a text is not an Ethernet address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ParseMacError {
    /// There are not six bytes between the colons.
    Count(usize),
    /// The byte with this number, counted from one, is not two hexadecimal digits.
    Byte(usize),
}

impl fmt::Display for ParseMacError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(found) => write!(f, "found {found} bytes instead of 6")?,
            Self::Byte(number) => write!(f, "byte {number} is not two hexadecimal digits")?,
        }
        f.write_str("; an Ethernet address looks like 02:00:00:00:00:01")
    }
}

impl Error for ParseMacError {}

impl FromStr for MacAddr {
    type Err = ParseMacError;

    /// Reads six two-digit hexadecimal bytes with colons between them.
    ///
    /// # Errors
    ///
    /// [`ParseMacError::Count`] if there are more or fewer than six, [`ParseMacError::Byte`] for the first one that is
    /// not two hexadecimal digits: a guess at what was meant could give an app somebody else's frames.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = text.split(':').count();
        if found != 6 {
            return Err(ParseMacError::Count(found));
        }
        let mut bytes = [0; 6];
        for ((number, part), byte) in (1..).zip(text.split(':')).zip(&mut bytes) {
            // `from_str_radix` also takes a sign, which is no digit.
            let digits = part.len() == 2 && part.bytes().all(|digit| digit.is_ascii_hexdigit());
            let value = u8::from_str_radix(part, 16).ok().filter(|_| digits);
            *byte = value.ok_or(ParseMacError::Byte(number))?;
        }
        Ok(Self(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::string::ToString;

    proptest! {
        #[test]
        fn text_and_number_lead_back_to_the_same_address(bytes: [u8; 6]) {
            let mac = MacAddr::new(bytes);
            prop_assert_eq!(mac.to_string().parse(), Ok(mac));
            prop_assert_eq!(mac.to_string().to_uppercase().parse(), Ok(mac));
            prop_assert_eq!(MacAddr::from_u64(mac.to_u64()), mac);
            prop_assert!(mac.to_u64() < 1 << 48);
        }

        #[test]
        fn any_text_is_read_or_refused_without_panic(text in ".*") {
            if let Ok(mac) = text.parse::<MacAddr>() {
                prop_assert_eq!(mac.to_string(), text.to_lowercase());
            }
        }
    }

    #[test]
    fn a_refusal_names_the_place() {
        for (text, expected) in [
            ("", ParseMacError::Count(1)),
            ("02:00:00:00:00", ParseMacError::Count(5)),
            ("02:00:00:00:00:01:02", ParseMacError::Count(7)),
            ("02-00-00-00-00-01", ParseMacError::Count(1)),
            ("02:00:00:00:00:", ParseMacError::Byte(6)),
            ("2:00:00:00:00:01", ParseMacError::Byte(1)),
            ("02:+1:00:00:00:01", ParseMacError::Byte(2)),
            ("02:00:0g:00:00:01", ParseMacError::Byte(3)),
            ("02:00:00:000:00:01", ParseMacError::Byte(4)),
        ] {
            assert_eq!(text.parse::<MacAddr>(), Err(expected), "{text}");
        }
        let text = ParseMacError::Byte(3).to_string();
        assert_eq!(text, "byte 3 is not two hexadecimal digits; an Ethernet address looks like 02:00:00:00:00:01");
    }

    #[test]
    fn kinds_of_address_follow_the_first_byte() {
        let unicast = MacAddr::new([2, 0, 0, 0, 0, 1]);
        assert!(!unicast.is_multicast() && unicast.is_local() && !unicast.is_zero());
        let group = MacAddr::new([1, 0, 0x5e, 0, 0, 1]);
        assert!(group.is_multicast() && !group.is_broadcast() && !group.is_local());
        assert!(MacAddr::BROADCAST.is_broadcast() && MacAddr::BROADCAST.is_multicast());
        assert!(MacAddr::ZERO.is_zero() && MacAddr::ZERO == MacAddr::default());
    }
}
