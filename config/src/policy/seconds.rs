//! Lengths of time.

use serde_json::{Value as Json, json};
use toml::de::DeValue;

use crate::walk::{Form, Item};

/// A length of time in seconds, from one to 365 days: a whole number, or one with a unit such as `"30s"` or `"5d"`.
#[derive(Clone, Copy, Debug)]
pub(super) struct SecondsForm;

const MAX: u32 = 365 * 86_400;
const UNITS: [(&str, u32); 5] = [("d", 86_400), ("h", 3600), ("min", 60), ("m", 60), ("s", 1)];

impl SecondsForm {
    fn parse(text: &str) -> Option<u32> {
        let (digits, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
        let (_, seconds) = UNITS.iter().find(|(name, _)| *name == unit)?;
        digits.parse::<u32>().ok()?.checked_mul(*seconds)
    }
}

impl Form for SecondsForm {
    type Value = u32;

    fn expected(&self) -> String {
        "a time from \"1s\" to \"365d\", with the unit s, m, h or d".to_owned()
    }

    fn schema(&self) -> Json {
        let text = json!({ "type": "string", "pattern": "^[0-9]+(s|m|min|h|d)$" });
        json!({ "anyOf": [text, { "type": "integer", "minimum": 1, "maximum": MAX }] })
    }

    fn read(&self, item: &Item<'_>) -> Option<u32> {
        let seconds = match item.value {
            DeValue::String(text) => Self::parse(text),
            DeValue::Integer(number) => u32::from_str_radix(number.as_str(), number.radix()).ok(),
            _ => None,
        };
        seconds.filter(|seconds| (1..=MAX).contains(seconds)).or_else(|| item.refuse(self, None))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each unit, and what is none.
    #[test]
    fn units_are_those_of_the_clock() {
        for (text, seconds) in [("30s", 30), ("2m", 120), ("2min", 120), ("1h", 3600), ("5d", 432_000)] {
            assert_eq!(SecondsForm::parse(text), Some(seconds), "{text}");
        }
        for text in ["", "30", "s", "-1s", "1.5h", "1w", "5 d", "99999999999s", "4294967295d"] {
            assert_eq!(SecondsForm::parse(text), None, "{text}");
        }
    }
}
