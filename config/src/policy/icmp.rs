//! Types and codes of ICMP.

use std::ops::RangeInclusive;

use serde_json::{Value as Json, json};
use toml::de::DeValue;

use super::field::Field;
use super::values::{Part, Values, field};
use super::words::{self, Words};
use crate::walk::{Form, Item, nearest};

/// Types of ICMP, with a code behind a slash or without: `"echo-request"`, `8`, `"3/1"`, `"3/1-3/5"`.
#[derive(Clone, Copy, Debug)]
pub(super) struct IcmpForm {
    /// Names of types.
    pub words: Words<u8>,
}

impl IcmpForm {
    fn number(&self, text: &str) -> Option<u8> {
        let word = self.words.iter().find(|(word, _)| *word == text);
        word.and_then(|(_, number)| number.first().copied()).or_else(|| words::decimal(text))
    }

    /// Every code of a type, or the one that is stated, as `type << 8 | code`.
    fn codes(&self, text: &str) -> Option<RangeInclusive<u16>> {
        let of = |kind: u8, code: u8| u16::from_be_bytes([kind, code]);
        match text.split_once('/') {
            None => self.number(text).map(|kind| of(kind, 0)..=of(kind, u8::MAX)),
            Some((kind, code)) => {
                let number = of(self.number(kind)?, words::decimal(code)?);
                Some(number..=number)
            }
        }
    }

    fn text(&self, text: &str) -> Option<RangeInclusive<u16>> {
        // Names have hyphens too.
        self.codes(text).or_else(|| {
            let (first, last) = text.split_once('-')?;
            let range = *self.codes(first)?.start()..=*self.codes(last)?.end();
            (!range.is_empty()).then_some(range)
        })
    }

    fn write_range(&self, range: &RangeInclusive<u16>) -> String {
        let ([kind, code], [last_kind, last_code]) = (range.start().to_be_bytes(), range.end().to_be_bytes());
        let word = self.words.iter().find(|(_, number)| *number == [kind]).map(|(word, _)| *word);
        match (code, last_code) {
            (0, u8::MAX) if kind == last_kind => word.map_or_else(|| kind.to_string(), |word| format!("\"{word}\"")),
            (0, u8::MAX) => format!("\"{kind}-{last_kind}\""),
            _ if range.start() == range.end() => format!("\"{kind}/{code}\""),
            _ => format!("\"{kind}/{code}-{last_kind}/{last_code}\""),
        }
    }
}

impl Form for IcmpForm {
    type Value = Part<u16>;

    fn expected(&self) -> String {
        let word = self.words.first().map(|(word, _)| *word).unwrap_or_default();
        format!("a type of ICMP: a number up to 255, a word such as \"{word}\", or type and code such as \"3/1\"")
    }

    fn schema(&self) -> Json {
        let words: Vec<_> = self.words.iter().map(|(word, _)| *word).collect();
        let number = json!({ "type": "integer", "minimum": 0, "maximum": 255 });
        json!({ "anyOf": [number, { "type": "string", "enum": words }, { "type": "string", "pattern": "/|^[0-9-]+$" }] })
    }

    fn read(&self, item: &Item<'_>) -> Option<Part<u16>> {
        let range = match item.value {
            DeValue::String(text) => self.text(text),
            DeValue::Integer(number) if number.radix() == 10 => self.codes(number.as_str()),
            _ => None,
        };
        let help = || {
            let DeValue::String(text) = item.value else { return None };
            let words: Vec<_> = self.words.iter().map(|(word, _)| *word).collect();
            nearest(text, &words).map(|word| format!("did you mean \"{word}\"?"))
        };
        range.map(Part::Range).or_else(|| item.refuse(self, help()))
    }
}

impl Values for IcmpForm {
    type Union = Field<u16>;

    fn universe(&self) -> Field<u16> {
        Field::new([0..=u16::MAX])
    }

    fn union(&self, parts: Vec<Part<u16>>, sets: &[&Field<u16>]) -> Field<u16> {
        field(parts, sets)
    }

    fn write(&self, field: &Field<u16>) -> Vec<String> {
        field.ranges().iter().map(|range| self.write_range(range)).collect()
    }
}
