//! Short lengths of time.

use std::time::Duration;

use serde_json::{Value as Json, json};
use toml::de::DeValue;

use crate::walk::{Form, Item};

/// A length of time from a microsecond to ten seconds, with a unit as tc writes it: `"5ms"`.
#[derive(Clone, Copy, Debug)]
pub(super) struct MomentForm;

const UNITS: [(&str, u64); 3] = [("us", 1), ("ms", 1000), ("s", 1_000_000)];
const MAX_US: u64 = 10_000_000;

impl MomentForm {
    fn parse(text: &str) -> Option<Duration> {
        let (digits, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
        let (_, microseconds) = UNITS.iter().find(|(name, _)| *name == unit)?;
        let total = digits.parse::<u64>().ok()?.checked_mul(*microseconds)?;
        (1..=MAX_US).contains(&total).then(|| Duration::from_micros(total))
    }
}

impl Form for MomentForm {
    type Value = Duration;

    fn expected(&self) -> String {
        "a time from \"1us\" to \"10s\", with the unit us, ms or s".to_owned()
    }

    fn schema(&self) -> Json {
        json!({ "type": "string", "pattern": "^[0-9]+(us|ms|s)$" })
    }

    fn read(&self, item: &Item<'_>) -> Option<Duration> {
        match item.value {
            DeValue::String(text) => Self::parse(text).or_else(|| item.refuse(self, None)),
            DeValue::Integer(number) => {
                item.refuse(self, Some(format!("say of which unit: \"{}ms\"", number.as_str())))
            }
            _ => item.refuse(self, None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each unit, and what is none.
    #[test]
    fn units_are_those_of_tc() {
        for (text, us) in [("1us", 1), ("5ms", 5000), ("100ms", 100_000), ("10s", 10_000_000)] {
            assert_eq!(MomentForm::parse(text), Some(Duration::from_micros(us)), "{text}");
        }
        for text in ["", "5", "ms", "0ms", "-5ms", "1.5ms", "11s", "5 ms", "1m", "99999999999999999999s"] {
            assert_eq!(MomentForm::parse(text), None, "{text}");
        }
    }
}
