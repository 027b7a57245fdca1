//! Numbers that a frame is matched by: protocols, ports, VLANs and so on.

use std::fmt::Display;
use std::ops::RangeInclusive;

use serde_json::{Value as Json, json};
use toml::de::DeValue;

use super::field::{Field, Scalar};
use super::set::{Names, Set};
use super::values::{Negatable, Part, Values, field};
use super::words::Words;
use crate::walk::{Form, Item, nearest};

/// Whole numbers, ranges of them as `"8000-8100"`, and words that stand for some.
#[derive(Clone, Copy, Debug)]
pub(super) struct NumberForm<T: 'static> {
    /// What one of them is: "a port".
    pub what: &'static str,
    /// The largest. The least is zero.
    pub max: T,
    /// Words for numbers. Of several for one, the first is written back.
    pub words: Words<T>,
    /// Whether numbers are written back in hexadecimal.
    pub hex: bool,
}

impl<T: Scalar + Display + Into<u64> + TryFrom<u64> + Sync> NumberForm<T> {
    fn take(&self, number: u64) -> Option<T> {
        T::try_from(number).ok().filter(|number| *number <= self.max)
    }

    /// A number in decimal, or in hexadecimal with `0x` before it.
    fn number(&self, text: &str) -> Option<T> {
        let (digits, radix) = text.strip_prefix("0x").map_or((text, 10), |digits| (digits, 16));
        let plain = digits.bytes().all(|byte| byte.is_ascii_alphanumeric());
        u64::from_str_radix(digits, radix).ok().filter(|_| plain).and_then(|number| self.take(number))
    }

    pub(super) fn text(&self, text: &str) -> Result<Part<T>, Option<String>> {
        if let Some((_, numbers)) = self.words.iter().find(|(word, _)| *word == text) {
            return Ok(match numbers {
                [number] => Part::Range(*number..=*number),
                _ => Part::Word(numbers),
            });
        }
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        match (self.number(first.trim()), self.number(last.trim())) {
            (Some(first), Some(last)) if first <= last => Ok(Part::Range(first..=last)),
            (Some(first), Some(last)) => Err(Some(format!("the smaller one comes first: \"{last}-{first}\""))),
            _ => {
                let words: Vec<_> = self.words.iter().map(|(word, _)| *word).collect();
                Err(nearest(text, &words).map(|word| format!("did you mean \"{word}\"?")))
            }
        }
    }

    fn write_number(&self, number: T) -> String {
        if self.hex { format!("{:#06x}", number.into()) } else { number.to_string() }
    }

    fn write_range(&self, range: &RangeInclusive<T>) -> String {
        let (first, last) = (*range.start(), *range.end());
        if first != last {
            return format!("\"{}-{}\"", self.write_number(first), self.write_number(last));
        }
        match self.words.iter().find(|(_, numbers)| *numbers == [first]) {
            Some((word, _)) => format!("\"{word}\""),
            None => self.write_number(first),
        }
    }
}

impl<T: Scalar + Display + Into<u64> + TryFrom<u64> + Sync> Form for NumberForm<T> {
    type Value = Part<T>;

    fn expected(&self) -> String {
        let word = self.words.first().map(|(word, _)| format!(" or a word such as \"{word}\"")).unwrap_or_default();
        let (max, half) = (self.max, self.max.into() / 2);
        format!("{} from 0 to {max}, a range such as \"{half}-{max}\"{word}", self.what)
    }

    fn schema(&self) -> Json {
        let number = json!({ "type": "integer", "minimum": 0, "maximum": self.max.into() });
        let range = json!({ "type": "string", "pattern": "^(0x)?[0-9a-fA-F]+(-(0x)?[0-9a-fA-F]+)?$" });
        let words: Vec<_> = self.words.iter().map(|(word, _)| *word).collect();
        if words.is_empty() {
            return json!({ "anyOf": [number, range] });
        }
        json!({ "anyOf": [number, { "type": "string", "enum": words }, range] })
    }

    fn read(&self, item: &Item<'_>) -> Option<Part<T>> {
        let read = match item.value {
            DeValue::Integer(text) => {
                let number = u64::from_str_radix(text.as_str(), text.radix()).ok().and_then(|number| self.take(number));
                number.map(|number| Part::Range(number..=number)).ok_or(None)
            }
            DeValue::String(text) => self.text(text),
            _ => Err(None),
        };
        read.map_or_else(|help| item.refuse(self, help), Some)
    }
}

impl<T: Scalar + Display + Into<u64> + TryFrom<u64> + Sync + 'static> Values for NumberForm<T> {
    type Union = Field<T>;

    fn universe(&self) -> Field<T> {
        Field::new([T::MIN..=self.max])
    }

    fn union(&self, parts: Vec<Part<T>>, sets: &[&Field<T>]) -> Field<T> {
        field(parts, sets)
    }

    fn write(&self, field: &Field<T>) -> Vec<String> {
        let ranges = field.ranges();
        let alone = |number: &T| ranges.contains(&(*number..=*number));
        let several = self.words.iter().find(|(_, numbers)| numbers.len() > 1 && numbers.iter().all(alone));
        let in_word = |range: &&RangeInclusive<T>| several.is_some_and(|(_, numbers)| numbers.contains(range.start()));
        let rest = ranges.iter().filter(|range| !in_word(range)).map(|range| self.write_range(range));
        several.iter().map(|(word, _)| format!("\"{word}\"")).chain(rest).collect()
    }
}

/// Ports, and sets of them as `"@name"`.
#[derive(Clone, Copy, Debug)]
pub(super) struct PortForm {
    /// Whether the name of a set may stand here.
    pub sets: bool,
}

impl PortForm {
    const NUMBER: NumberForm<u16> = NumberForm { what: "a port", max: u16::MAX, words: &[], hex: false };
}

impl Form for PortForm {
    type Value = Part<u16>;

    fn expected(&self) -> String {
        let set = if self.sets { " or a set such as \"@name\"" } else { "" };
        format!("a port from 0 to 65535, a range such as \"8000-8100\"{set}")
    }

    fn schema(&self) -> Json {
        let mut schema = Self::NUMBER.schema();
        if let (true, Some(forms)) = (self.sets, schema["anyOf"].as_array_mut()) {
            forms.push(Names::reference_schema());
        }
        schema
    }

    fn read(&self, item: &Item<'_>) -> Option<Part<u16>> {
        let read = match item.value {
            DeValue::String(text) if self.sets && text.starts_with('@') => Ok(Part::Set(text[1..].to_owned())),
            DeValue::String(text) => Self::NUMBER.text(text),
            _ => return Self::NUMBER.read(item),
        };
        read.map_or_else(|help| item.refuse(self, help), Some)
    }
}

impl Values for PortForm {
    type Union = Field<u16>;

    fn universe(&self) -> Field<u16> {
        Field::new([0..=u16::MAX])
    }

    fn union(&self, parts: Vec<Part<u16>>, sets: &[&Field<u16>]) -> Field<u16> {
        field(parts, sets)
    }

    fn write(&self, field: &Field<u16>) -> Vec<String> {
        Self::NUMBER.write(field)
    }

    fn of_set<'n>(&self, set: &'n Set) -> Option<&'n Negatable<Field<u16>>> {
        set.ports.as_ref()
    }
}
