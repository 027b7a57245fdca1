//! Rates of traffic.

use std::fmt;
use std::str::FromStr;

use serde_json::{Value as Json, json};

use crate::decimal::{self, DecimalError};
use crate::value::{Fault, Form, Raw};

/// A rate in bits per second, written as `tc` writes rates: `2gbit`, and `1mbps` for bytes.
///
/// `bit` counts bits and `bps` bytes; `k`, `m`, `g` and `t` before them are steps of 1000, with an `i` behind of 1024.
/// No unit is bits. A fraction is allowed where the result is a whole number of bits.
///
/// # Source
///
/// tc(8) of iproute2, "PARAMETERS", "RATES".
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rate(u64);

/// Prefixes with their factors, as they are displayed first.
const PREFIXES: [(&str, u64); 9] = [
    ("t", 1_000_000_000_000),
    ("g", 1_000_000_000),
    ("m", 1_000_000),
    ("k", 1000),
    ("", 1),
    ("ti", 1 << 40),
    ("gi", 1 << 30),
    ("mi", 1 << 20),
    ("ki", 1 << 10),
];

impl Rate {
    /// The largest: 10 Tbit/s, more than any port has.
    pub const MAX: Self = Self(10_000_000_000_000);

    /// `bits` bits per second.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// Bits per second.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Whole bytes per second.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0 / 8
    }
}

impl serde::Serialize for Rate {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl fmt::Display for Rate {
    /// Writes the rate in the largest unit that divides it, so that it reads back as the same.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let divides = |factor: u64| self.0 != 0 && self.0.is_multiple_of(factor);
        let (prefix, factor) = PREFIXES.iter().find(|(_, factor)| divides(*factor)).unwrap_or(&("", 1));
        write!(f, "{}{prefix}bit", self.0 / factor)
    }
}

/// Why a text is not a [`Rate`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParseRateError {
    /// There is no number at the start, or it is not written in digits and one point.
    Number,
    /// What follows the number is no unit of rate.
    Unit,
    /// It is not a whole number of bits, or more than 64 bits can count.
    Range,
}

impl fmt::Display for ParseRateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Number => "a rate is a number and a unit: \"2gbit\"",
            Self::Unit => "the units are bit, kbit, mbit and gbit; bps, kbps, mbps and gbps are bytes",
            Self::Range => "a rate is a whole number of bits per second",
        })
    }
}

impl std::error::Error for ParseRateError {}

impl FromStr for Rate {
    type Err = ParseRateError;

    fn from_str(text: &str) -> Result<Self, ParseRateError> {
        let (number, unit) = decimal::split(text);
        let unit = unit.to_ascii_lowercase();
        let (prefix, bits) = match (unit.strip_suffix("bit"), unit.strip_suffix("bps")) {
            (Some(prefix), _) => (prefix, 1),
            (_, Some(prefix)) => (prefix, 8),
            _ if unit.is_empty() => ("", 1),
            _ => return Err(ParseRateError::Unit),
        };
        let (_, factor) = PREFIXES.iter().find(|(name, _)| *name == prefix).ok_or(ParseRateError::Unit)?;
        decimal::times(number, bits * factor).map(Self).map_err(|error| match error {
            DecimalError::Number => ParseRateError::Number,
            DecimalError::Fraction | DecimalError::TooLarge => ParseRateError::Range,
        })
    }
}

/// A string with a unit, or a whole number of bits per second.
impl Form for Rate {
    type Value = Self;

    fn expected() -> String {
        format!("a rate from \"8bit\" to \"{}\"", Self::MAX)
    }

    fn schema() -> Json {
        let text = json!({ "type": "string", "pattern": r"^[0-9]+(\.[0-9]*)?([kKmMgGtT][iI]?)?([bB][iI][tT]|[bB][pP][sS])?$" });
        json!({ "anyOf": [text, { "type": "integer", "minimum": 8, "maximum": Self::MAX.0 }] })
    }

    fn read(raw: Raw<'_>) -> Result<Self, Fault> {
        let rate = match raw {
            Raw::Text(text) => text.parse(),
            Raw::Number(number) => u64::try_from(number).map(Self).map_err(|_| ParseRateError::Number),
            Raw::Truth(_) => Err(ParseRateError::Number),
        };
        match rate {
            Ok(rate) if (Self(8)..=Self::MAX).contains(&rate) => Ok(rate),
            Ok(_) => Err(Fault::default()),
            Err(error) => Err(Fault::hint(error.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Rates as tc(8) reads them.
    #[test]
    fn rates_are_read_as_tc_reads_them() {
        for (text, bits) in [
            ("1000", 1000),
            ("8bit", 8),
            ("2gbit", 2_000_000_000),
            ("100Mbit", 100_000_000),
            ("64kbit", 64_000),
            ("1mbps", 8_000_000),
            ("1bps", 8),
            ("1kibit", 1024),
            ("1kibps", 8192),
            ("1.5gbit", 1_500_000_000),
            ("0.001kbit", 1),
            ("1.", 1),
            ("10tbit", 10_000_000_000_000),
        ] {
            assert_eq!(text.parse(), Ok(Rate(bits)), "{text}");
        }
        use ParseRateError::{Number, Range, Unit};
        for (text, error) in [
            ("", Number),
            ("gbit", Number),
            ("1.2.3kbit", Number),
            ("-1bit", Unit),
            ("2gb", Unit),
            ("2 gbit", Unit),
            ("2g", Unit),
            ("0.3bit", Range),
            ("99999999999999999999tbit", Range),
        ] {
            assert_eq!(text.parse::<Rate>(), Err(error), "{text}");
        }
    }

    proptest! {
        /// A rate that is displayed reads back as itself.
        #[test]
        fn display_reads_back(bits in prop_oneof![any::<u64>(), (0_u64..1000, 0_u32..6).prop_map(|(n, p)| n * 10_u64.pow(p * 2))]) {
            prop_assert_eq!(Rate(bits).to_string().parse(), Ok(Rate(bits)));
        }

        /// No text makes the parser panic.
        #[test]
        fn any_text_is_judged(text in "[0-9.]{0,50}[a-zA-Z]{0,5}|.{0,20}") {
            let judged = text.parse::<Rate>();
            prop_assert!(judged.is_ok() || judged.is_err());
        }
    }
}
