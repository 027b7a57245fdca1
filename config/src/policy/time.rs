//! Lengths of time.

use std::time::Duration;

use serde_json::{Value as Json, json};

use crate::value::{Fault, Form, Raw};

/// `digits` and a unit; the product.
fn product(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let (digits, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    digits.parse::<u64>().ok()?.checked_mul(*factor)
}

/// A length of time in seconds, from one to 365 days: a whole number, or one with a unit such as `"30s"` or `"5d"`.
#[derive(Debug)]
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
        let text = json!({ "type": "string", "pattern": "^[0-9]+(s|m|min|h|d)$" });
        json!({ "anyOf": [text, { "type": "integer", "minimum": 1, "maximum": Self::MAX }] })
    }

    fn read(raw: Raw<'_>) -> Result<u32, Fault> {
        let seconds = match raw {
            Raw::Text(text) => product(text, &Self::UNITS),
            Raw::Number(number) => u64::try_from(number).ok(),
            Raw::Truth(_) => None,
        };
        let seconds = seconds.filter(|seconds| (1..=Self::MAX).contains(seconds));
        seconds.and_then(|seconds| u32::try_from(seconds).ok()).ok_or_else(Fault::default)
    }
}

/// A length of time from a microsecond to ten seconds, with a unit as tc writes it: `"5ms"`.
#[derive(Debug)]
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
        json!({ "type": "string", "pattern": "^[0-9]+(us|ms|s)$" })
    }

    fn read(raw: Raw<'_>) -> Result<Duration, Fault> {
        match raw {
            Raw::Text(text) => {
                let total = product(text, &Self::UNITS).filter(|total| (1..=Self::MAX_US).contains(total));
                total.map(Duration::from_micros).ok_or_else(Fault::default)
            }
            Raw::Number(number) => Err(Fault::hint(format!("say of which unit: \"{number}ms\""))),
            Raw::Truth(_) => Err(Fault::default()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each unit of the clock, and what is none.
    #[test]
    fn seconds_have_the_units_of_the_clock() {
        for (text, seconds) in [("30s", 30), ("2m", 120), ("2min", 120), ("1h", 3600), ("5d", 432_000)] {
            assert_eq!(Seconds::read(Raw::Text(text)), Ok(seconds), "{text}");
        }
        for text in ["", "30", "s", "-1s", "1.5h", "1w", "5 d", "99999999999s", "4294967295d"] {
            assert!(Seconds::read(Raw::Text(text)).is_err(), "{text}");
        }
    }

    /// Each unit of tc, and what is none.
    #[test]
    fn moments_have_the_units_of_tc() {
        for (text, us) in [("1us", 1), ("5ms", 5000), ("100ms", 100_000), ("10s", 10_000_000)] {
            assert_eq!(Moment::read(Raw::Text(text)), Ok(Duration::from_micros(us)), "{text}");
        }
        for text in ["", "5", "ms", "0ms", "-5ms", "1.5ms", "11s", "5 ms", "1m", "99999999999999999999s"] {
            assert!(Moment::read(Raw::Text(text)).is_err(), "{text}");
        }
    }
}
