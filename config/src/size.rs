//! Amounts of memory.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;
use serde_json::{Value as Json, json};

use crate::decimal::{self, DecimalError};
use crate::value::{Fault, Form, Raw};

/// An amount of memory in bytes, written as `tc` writes sizes: `256mb`.
///
/// The units are `b`, `k` or `kb`, `m` or `mb`, `g` or `gb`, in either case; each is 1024 of the one before, and none is
/// bytes. A fraction is allowed where the result is a whole number of bytes.
///
/// # Source
///
/// tc(8) of iproute2, "PARAMETERS", "SIZES". Its `kbit`, `mbit` and `gbit` are left out: memory is not counted in bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(u64);

/// The units of [`Size`] with their bytes, as they are displayed first.
const UNITS: [(&str, u64); 7] =
    [("gb", 1 << 30), ("g", 1 << 30), ("mb", 1 << 20), ("m", 1 << 20), ("kb", 1 << 10), ("k", 1 << 10), ("b", 1)];

impl Size {
    /// `bytes` bytes.
    #[must_use]
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    /// The amount in bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Size {
    /// Writes the amount in the largest unit that divides it, so that it reads back as the same.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, bytes) = UNITS.iter().find(|(_, bytes)| self.0.is_multiple_of(*bytes)).unwrap_or(&("b", 1));
        match self.0 {
            0 => f.write_str("0b"),
            amount => write!(f, "{}{unit}", amount / bytes),
        }
    }
}

/// Why a text is not a [`Size`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParseSizeError {
    /// There is no number at the start, or it is not written in digits and one point.
    Number,
    /// What follows the number is no unit of size.
    Unit,
    /// It is not a whole number of bytes.
    Fraction,
    /// It is 2^64 bytes or more.
    TooLarge,
}

impl fmt::Display for ParseSizeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Number => "a size is a number and a unit: \"256mb\"",
            Self::Unit => "the units are b, kb, mb and gb, each 1024 of the one before",
            Self::Fraction => "a size is a whole number of bytes",
            Self::TooLarge => "this is more than 64 bits can count",
        })
    }
}

impl std::error::Error for ParseSizeError {}

impl FromStr for Size {
    type Err = ParseSizeError;

    fn from_str(text: &str) -> Result<Self, ParseSizeError> {
        let (number, unit) = decimal::split(text);
        let known = UNITS.iter().find(|(name, _)| unit.eq_ignore_ascii_case(name));
        let bytes = match (known, unit) {
            (Some((_, bytes)), _) => *bytes,
            (None, "") => 1,
            (None, _) if number.is_empty() => return Err(ParseSizeError::Number),
            (None, _) => return Err(ParseSizeError::Unit),
        };
        decimal::times(number, bytes).map(Self).map_err(|error| match error {
            DecimalError::Number => ParseSizeError::Number,
            DecimalError::Fraction => ParseSizeError::Fraction,
            DecimalError::TooLarge => ParseSizeError::TooLarge,
        })
    }
}

impl Serialize for Size {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The form of a [`Size`] from `MIN` to `MAX` bytes: a string with a unit, or a whole number of bytes.
#[derive(Debug)]
pub struct SizeIn<const MIN: u64, const MAX: u64>;

impl<const MIN: u64, const MAX: u64> Form for SizeIn<MIN, MAX> {
    type Value = Size;

    fn expected() -> String {
        format!("a size from \"{}\" to \"{}\"", Size(MIN), Size(MAX))
    }

    fn schema() -> Json {
        let text = json!({ "type": "string", "pattern": r"^[0-9]+(\.[0-9]*)?([bB]|[kKmMgG][bB]?)?$" });
        json!({ "anyOf": [text, { "type": "integer", "minimum": MIN, "maximum": MAX }] })
    }

    fn read(raw: Raw<'_>) -> Result<Size, Fault> {
        let size = match raw {
            Raw::Text(text) => text.parse(),
            Raw::Number(number) => u64::try_from(number).map(Size).map_err(|_| ParseSizeError::Number),
            Raw::Truth(_) => Err(ParseSizeError::Number),
        };
        match size {
            Ok(size) if (MIN..=MAX).contains(&size.0) => Ok(size),
            Ok(_) => Err(Fault::default()),
            Err(error) => Err(Fault::hint(error.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Sizes as tc(8) reads them, at the edges of 64 bits too.
    #[test]
    fn sizes_are_read_as_tc_reads_them() {
        for (text, bytes) in [
            ("0", 0),
            ("1500", 1500),
            ("1500b", 1500),
            ("64kb", 65_536),
            ("64K", 65_536),
            ("256mb", 268_435_456),
            ("256MB", 268_435_456),
            ("1g", 1 << 30),
            ("1.5gb", 3 << 29),
            ("0.5k", 512),
            ("2.", 2),
            ("1.000b", 1),
            ("0.000000000931322574615478515625gb", 1),
            ("0.999999999068677425384521484375gb", (1 << 30) - 1),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(text.parse(), Ok(Size(bytes)), "{text}");
        }
    }

    /// What is no size says why.
    #[test]
    fn other_text_is_refused_with_its_reason() {
        use ParseSizeError::{Fraction, Number, TooLarge, Unit};
        for (text, error) in [
            ("", Number),
            ("mb", Number),
            (".5k", Number),
            ("1.2.3k", Number),
            ("-1", Number),
            ("+1", Number),
            ("256 mb", Unit),
            ("256mib", Unit),
            ("64kbit", Unit),
            ("0.3b", Fraction),
            ("1.1k", Fraction),
            ("0.0000000000000000000000000000001gb", Fraction),
            ("18446744073709551616", TooLarge),
            ("17179869184gb", TooLarge),
        ] {
            assert_eq!(text.parse::<Size>(), Err(error), "{text}");
        }
    }

    proptest! {
        /// A size that is displayed reads back as itself.
        #[test]
        fn display_reads_back(bytes in prop_oneof![any::<u64>(), (0_u64..1 << 34, 0_u32..30).prop_map(|(n, s)| n << s)]) {
            prop_assert_eq!(Size(bytes).to_string().parse(), Ok(Size(bytes)));
        }

        /// No text makes the parser panic.
        #[test]
        fn any_text_is_judged(text in "[0-9.]{0,50}[a-zA-Z]{0,3}|.{0,20}") {
            let judged = text.parse::<Size>();
            prop_assert!(judged.is_ok() || judged.is_err());
        }
    }
}
