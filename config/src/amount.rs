//! Amounts of memory and of traffic, with the units of tc.

use std::fmt;
use std::marker::PhantomData;

use serde::{Serialize, Serializer};
use serde_json::{Value as Json, json};

use crate::value::{Fault, Form, pattern};

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

impl Rate {
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

/// Why a text is no amount. The text of each is in [`Amount::HELP`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AmountError {
    /// There is no number at the start, or it is not written in digits and one point.
    Number,
    /// What follows the number is no unit.
    Unit,
    /// It is not whole.
    Fraction,
    /// It is 2^64 or more.
    TooLarge,
}

/// What a [`Size`] and a [`Rate`] have in common.
pub(crate) trait Amount: Copy + fmt::Display + From<u64> {
    /// What one is: "a size".
    const WHAT: &'static str;
    /// Units with what each counts. The first that divides an amount is what it is displayed in.
    const UNITS: &'static [(&'static str, u64)];
    /// A text for people for each [`AmountError`].
    const HELP: [&'static str; 4];
    /// What an editor takes for one.
    const PATTERN: &'static str;
}

impl Amount for Size {
    const WHAT: &'static str = "a size";
    const UNITS: &'static [(&'static str, u64)] =
        &[("gb", 1 << 30), ("g", 1 << 30), ("mb", 1 << 20), ("m", 1 << 20), ("kb", 1 << 10), ("k", 1 << 10), ("b", 1)];
    const HELP: [&'static str; 4] = [
        "a size is a number and a unit: \"256mb\"",
        "the units are b, kb, mb and gb, each 1024 of the one before",
        "a size is a whole number of bytes",
        "this is more than 64 bits can count",
    ];
    const PATTERN: &'static str = r"^[0-9]+(\.[0-9]*)?([bB]|[kKmMgG][bB]?)?$";
}

impl Amount for Rate {
    const WHAT: &'static str = "a rate";
    const UNITS: &'static [(&'static str, u64)] = &[
        ("tbit", 1_000_000_000_000),
        ("gbit", 1_000_000_000),
        ("mbit", 1_000_000),
        ("kbit", 1000),
        ("bit", 1),
        ("tibit", 1 << 40),
        ("gibit", 1 << 30),
        ("mibit", 1 << 20),
        ("kibit", 1 << 10),
        ("tbps", 8_000_000_000_000),
        ("gbps", 8_000_000_000),
        ("mbps", 8_000_000),
        ("kbps", 8000),
        ("bps", 8),
        ("tibps", 8 << 40),
        ("gibps", 8 << 30),
        ("mibps", 8 << 20),
        ("kibps", 8 << 10),
    ];
    const HELP: [&'static str; 4] = [
        "a rate is a number and a unit: \"2gbit\"",
        "the units are bit, kbit, mbit and gbit; bps, kbps, mbps and gbps are bytes",
        "a rate is a whole number of bits per second",
        "a rate is a whole number of bits per second",
    ];
    const PATTERN: &'static str = r"^[0-9]+(\.[0-9]*)?([kKmMgGtT][iI]?)?([bB][iI][tT]|[bB][pP][sS])?$";
}

macro_rules! amounts {
    ($($name:ident)*) => { $(
        impl From<u64> for $name {
            fn from(amount: u64) -> Self {
                Self(amount)
            }
        }

        impl fmt::Display for $name {
            /// Writes the amount in the largest unit that divides it, so that it reads back as the same.
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let fits = |unit: u64| unit == 1 || self.0 != 0 && self.0.is_multiple_of(unit);
                let (name, unit) = Self::UNITS.iter().find(|(_, unit)| fits(*unit)).unwrap_or(&("", 1));
                write!(f, "{}{name}", self.0 / unit)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
    )* };
}
amounts!(Size Rate);

fn parse(text: &str, units: &[(&str, u64)]) -> Result<u64, AmountError> {
    let (number, name) = text.split_at(text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len()));
    let unit = units.iter().find(|(unit, _)| name.eq_ignore_ascii_case(unit)).map(|(_, unit)| *unit);
    match unit.or_else(|| name.is_empty().then_some(1)) {
        Some(unit) => times(number, unit),
        None if number.is_empty() => Err(AmountError::Number),
        None => Err(AmountError::Unit),
    }
}

/// `number` times `unit`, exactly.
fn times(number: &str, unit: u64) -> Result<u64, AmountError> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() || !whole.bytes().chain(fraction.bytes()).all(|byte| byte.is_ascii_digit()) {
        return Err(AmountError::Number);
    }
    let whole = whole.parse().ok().and_then(|whole: u64| whole.checked_mul(unit)).ok_or(AmountError::TooLarge)?;
    whole.checked_add(fraction_of(unit, fraction.trim_end_matches('0'))?).ok_or(AmountError::TooLarge)
}

/// `0.digits` times `unit`.
fn fraction_of(unit: u64, digits: &str) -> Result<u64, AmountError> {
    if digits.is_empty() {
        return Ok(0);
    }
    // More decimals than 128 bits hold cannot come out whole: the last digit is not zero.
    let power = u32::try_from(digits.len()).ok().and_then(|places| 10_u128.checked_pow(places));
    let (mut power, mut unit) = (power.ok_or(AmountError::Fraction)?, u128::from(unit));
    let digits: u128 = digits.parse().map_err(|_| AmountError::Fraction)?;
    // What unit and power have in common is left out, so that nothing overflows.
    for prime in [2, 5] {
        while power.is_multiple_of(prime) && unit.is_multiple_of(prime) {
            (power, unit) = (power / prime, unit / prime);
        }
    }
    if !digits.is_multiple_of(power) {
        return Err(AmountError::Fraction);
    }
    u64::try_from(digits / power * unit).map_err(|_| AmountError::TooLarge)
}

/// The form of an amount from `MIN` to `MAX`: a string with a unit, or a whole number of the smallest.
pub(crate) struct AmountIn<A, const MIN: u64, const MAX: u64>(PhantomData<A>);

/// Sizes in bytes.
pub(crate) type SizeIn<const MIN: u64, const MAX: u64> = AmountIn<Size, MIN, MAX>;
/// Rates of a port. No port has more than the largest, 10 Tbit/s.
pub(crate) type AnyRate = AmountIn<Rate, 8, 10_000_000_000_000>;

impl<A: Amount, const MIN: u64, const MAX: u64> Form for AmountIn<A, MIN, MAX> {
    type Value = A;

    fn expected() -> String {
        format!("{} from \"{}\" to \"{}\"", A::WHAT, A::from(MIN), A::from(MAX))
    }

    fn schema() -> Json {
        json!({ "anyOf": [pattern(A::PATTERN), { "type": "integer", "minimum": MIN, "maximum": MAX }] })
    }

    fn text(text: &str) -> Result<A, Fault> {
        let amount = parse(text, A::UNITS).map_err(|error| Fault::hint(A::HELP[error as usize]))?;
        Self::number(amount.into())
    }

    fn number(number: i128) -> Result<A, Fault> {
        let amount = u64::try_from(number).map_err(|_| Fault::hint(A::HELP[AmountError::Number as usize]))?;
        if (MIN..=MAX).contains(&amount) { Ok(A::from(amount)) } else { Err(Fault::default()) }
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
            assert_eq!(parse(text, Size::UNITS), Ok(bytes), "{text}");
        }
    }

    /// What is no size says why.
    #[test]
    fn other_text_is_refused_with_its_reason() {
        use AmountError::{Fraction, Number, TooLarge, Unit};
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
            assert_eq!(parse(text, Size::UNITS), Err(error), "{text}");
        }
    }

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
            assert_eq!(parse(text, Rate::UNITS), Ok(bits), "{text}");
        }
        use AmountError::{Fraction, Number, TooLarge, Unit};
        for (text, error) in [
            ("", Number),
            ("gbit", Number),
            ("1.2.3kbit", Number),
            ("-1bit", Number),
            ("2gb", Unit),
            ("2 gbit", Unit),
            ("2g", Unit),
            ("0.3bit", Fraction),
            ("99999999999999999999tbit", TooLarge),
        ] {
            assert_eq!(parse(text, Rate::UNITS), Err(error), "{text}");
        }
    }

    proptest! {
        /// A size that is displayed reads back as itself.
        #[test]
        fn sizes_read_back(bytes in prop_oneof![any::<u64>(), (0_u64..1 << 34, 0_u32..30).prop_map(|(n, s)| n << s)]) {
            prop_assert_eq!(parse(&Size(bytes).to_string(), Size::UNITS), Ok(bytes));
        }

        /// No text makes the parser panic.
        #[test]
        fn any_text_is_a_size_or_none(text in "[0-9.]{0,50}[a-zA-Z]{0,3}|.{0,20}") {
            let judged = parse(&text, Size::UNITS);
            prop_assert!(judged.is_ok() || judged.is_err());
        }
    }

    proptest! {
        /// A rate that is displayed reads back as itself.
        #[test]
        fn rates_read_back(bits in prop_oneof![any::<u64>(), (0_u64..1000, 0_u32..6).prop_map(|(n, p)| n * 10_u64.pow(p * 2))]) {
            prop_assert_eq!(parse(&Rate(bits).to_string(), Rate::UNITS), Ok(bits));
        }

        /// No text makes the parser panic.
        #[test]
        fn any_text_is_a_rate_or_none(text in "[0-9.]{0,50}[a-zA-Z]{0,5}|.{0,20}") {
            let judged = parse(&text, Rate::UNITS);
            prop_assert!(judged.is_ok() || judged.is_err());
        }
    }
}
