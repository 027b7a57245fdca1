//! Lengths of time.

use std::time::Duration;

use serde_json::{Value as Json, json};

use crate::value::{Fault, Form, pattern};

/// `digits` and a unit; the product.
fn product(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let (digits, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    digits.parse::<u64>().ok()?.checked_mul(*factor)
}

/// A length of time in seconds, from one to 365 days: a whole number, or one with a unit such as `"30s"` or `"5d"`.
pub(super) struct Seconds;

impl Seconds {
    const MAX: u64 = 365 * 86_400;
    const UNITS: [(&str, u64); 5] = [("d", 86_400), ("h", 3600), ("min", 60), ("m", 60), ("s", 1)];
}

impl Form for Seconds {
    type Value = u32;

    fn expected() -> String {
        "a time from \"1s\" to \"365d\", with the unit s, m, h or d".to_owned()
    }

    fn schema() -> Json {
        json!({ "anyOf": [pattern("^[0-9]+(s|m|min|h|d)$"), { "type": "integer", "minimum": 1, "maximum": Self::MAX }] })
    }

    fn text(text: &str) -> Result<u32, Fault> {
        Self::number(product(text, &Self::UNITS).unwrap_or(0).into())
    }

    fn number(number: i128) -> Result<u32, Fault> {
        u32::try_from(number).ok().filter(|n| (1..=Self::MAX).contains(&(*n).into())).ok_or_else(Fault::default)
    }
}

/// A length of time from a microsecond to ten seconds, with a unit as tc writes it: `"5ms"`.
pub(super) struct Moment;

impl Moment {
    const MAX_US: u64 = 10_000_000;
    const UNITS: [(&str, u64); 3] = [("us", 1), ("ms", 1000), ("s", 1_000_000)];
}

impl Form for Moment {
    type Value = Duration;

    fn expected() -> String {
        "a time from \"1us\" to \"10s\", with the unit us, ms or s".to_owned()
    }

    fn schema() -> Json {
        pattern("^[0-9]+(us|ms|s)$")
    }

    fn text(text: &str) -> Result<Duration, Fault> {
        let us = product(text, &Self::UNITS).filter(|us| (1..=Self::MAX_US).contains(us));
        us.map(Duration::from_micros).ok_or_else(Fault::default)
    }

    fn number(number: i128) -> Result<Duration, Fault> {
        Err(Fault::hint(format!("say of which unit: \"{number}ms\"")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each unit of the clock, and what is none.
    #[test]
    fn seconds_have_the_units_of_the_clock() {
        for (text, seconds) in [("30s", 30), ("2m", 120), ("2min", 120), ("1h", 3600), ("5d", 432_000)] {
            assert_eq!(Seconds::text(text), Ok(seconds), "{text}");
        }
        for text in ["", "30", "s", "-1s", "1.5h", "1w", "5 d", "99999999999s", "4294967295d"] {
            assert!(Seconds::text(text).is_err(), "{text}");
        }
    }

    /// Each unit of tc, and what is none.
    #[test]
    fn moments_have_the_units_of_tc() {
        for (text, us) in [("1us", 1), ("5ms", 5000), ("100ms", 100_000), ("10s", 10_000_000)] {
            assert_eq!(Moment::text(text), Ok(Duration::from_micros(us)), "{text}");
        }
        for text in ["", "5", "ms", "0ms", "-5ms", "1.5ms", "11s", "5 ms", "1m", "99999999999999999999s"] {
            assert!(Moment::text(text).is_err(), "{text}");
        }
    }
}
