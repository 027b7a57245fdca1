//! Types and codes of ICMP.

use std::ops::RangeInclusive;

use serde_json::{Value as Json, json};

use super::field::Field;
use super::values::{Part, Ranges};
use super::words::{self, Words};
use crate::value::{Fault, Form, did_you_mean, names, pattern};

/// Types of ICMP, or of ICMPv6, with a code behind a slash or without: `"echo-request"`, `8`, `"3/1"`, `"3/1-3/5"`.
pub(super) struct Icmp<const V6: bool>;

impl<const V6: bool> Icmp<V6> {
    /// Names of types.
    const WORDS: Words<u8> = if V6 { words::ICMP6_TYPES } else { words::ICMP_TYPES };

    fn number(text: &str) -> Option<u8> {
        let word = Self::WORDS.iter().find(|(word, _)| *word == text);
        word.and_then(|(_, number)| number.first().copied()).or_else(|| words::decimal(text))
    }

    /// Every code of a type, or the one that is stated, as `type << 8 | code`.
    fn codes(text: &str) -> Option<RangeInclusive<u16>> {
        let of = |kind: u8, code: u8| u16::from_be_bytes([kind, code]);
        match text.split_once('/') {
            None => Self::number(text).map(|kind| of(kind, 0)..=of(kind, u8::MAX)),
            Some((kind, code)) => {
                let number = of(Self::number(kind)?, words::decimal(code)?);
                Some(number..=number)
            }
        }
    }

    fn write_range(range: &RangeInclusive<u16>) -> String {
        let ([kind, code], [last_kind, last_code]) = (range.start().to_be_bytes(), range.end().to_be_bytes());
        let word = Self::WORDS.iter().find(|(_, number)| *number == [kind]).map(|(word, _)| *word);
        match (code, last_code) {
            (0, u8::MAX) if kind == last_kind => word.map_or_else(|| kind.to_string(), |word| format!("\"{word}\"")),
            (0, u8::MAX) => format!("\"{kind}-{last_kind}\""),
            _ if range.start() == range.end() => format!("\"{kind}/{code}\""),
            _ => format!("\"{kind}/{code}-{last_kind}/{last_code}\""),
        }
    }
}

impl<const V6: bool> Form for Icmp<V6> {
    type Value = Part<u16>;

    fn expected() -> String {
        let word = Self::WORDS.first().map(|(word, _)| *word).unwrap_or_default();
        format!("a type of ICMP: a number up to 255, a word such as \"{word}\", or type and code such as \"3/1\"")
    }

    fn schema() -> Json {
        let number = json!({ "type": "integer", "minimum": 0, "maximum": 255 });
        let words = json!({ "type": "string", "enum": names(Self::WORDS) });
        json!({ "anyOf": [number, words, pattern("/|^[0-9-]+$")] })
    }

    fn text(text: &str) -> Result<Part<u16>, Fault> {
        // Names have hyphens too.
        let range = Self::codes(text).or_else(|| {
            let (first, last) = text.split_once('-')?;
            Some(*Self::codes(first)?.start()..=*Self::codes(last)?.end())
        });
        match range {
            Some(range) if !range.is_empty() => Ok(Part::Range(range)),
            _ => Err(Fault::unexpected(did_you_mean(text, &names(Self::WORDS)))),
        }
    }

    fn number(number: i128) -> Result<Part<u16>, Fault> {
        Self::codes(&number.to_string()).map(Part::Range).ok_or_else(Fault::default)
    }
}

impl<const V6: bool> Ranges for Icmp<V6> {
    type Of = u16;
    const MAX: u16 = u16::MAX;

    fn write(field: &Field<u16>) -> Vec<String> {
        field.ranges().iter().map(Self::write_range).collect()
    }
}
