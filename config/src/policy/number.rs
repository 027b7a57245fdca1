//! Numbers that a frame is matched by: protocols, ports, VLANs and so on.

use std::fmt::Display;
use std::hash::Hash;
use std::marker::PhantomData;
use std::ops::RangeInclusive;

use serde_json::{Value as Json, json};

use super::field::{Field, Scalar};
use super::set::{self, Set};
use super::values::{Negatable, Part, Values, field};
use super::words::{self, Words};
use crate::value::{Fault, Form, Raw, did_you_mean, names};

/// Numbers of one kind.
pub(super) trait Kind {
    /// What they are made of.
    type Of: Scalar + Hash + Display + Into<u64> + TryFrom<u64> + 'static;
    /// What one of them is: "a port".
    const WHAT: &'static str;
    /// The largest. The least is zero.
    const MAX: Self::Of;
    /// Words for numbers. Of several for one, the first is written back.
    const WORDS: Words<Self::Of> = &[];
    /// Whether numbers are written back in hexadecimal.
    const HEX: bool = false;
}

/// Declares kinds of numbers.
macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident: $of:ty, $what:literal, $max:expr, $words:expr, $hex:literal;)*) => { $(
        $(#[$doc])*
        #[derive(Debug)]
        pub(super) struct $name;

        impl Kind for $name {
            type Of = $of;
            const WHAT: &'static str = $what;
            const MAX: $of = $max;
            const WORDS: Words<$of> = $words;
            const HEX: bool = $hex;
        }
    )* };
}
kinds! {
    /// Ethertypes.
    Ethertype: u16, "an ethertype", u16::MAX, words::ETHERTYPES, true;
    /// VLAN identifiers.
    Vlan: u16, "a VLAN", 4095, &[], false;
    /// IP protocols.
    Protocol: u8, "an IP protocol", u8::MAX, words::PROTOCOLS, false;
    /// Differentiated services code points.
    Dscp: u8, "a code point", 63, words::DSCP, false;
    /// Operations of ARP.
    ArpOperation: u16, "an operation of ARP", u16::MAX, words::ARP_OPERATIONS, false;
    /// Ports.
    Port: u16, "a port", u16::MAX, &[], false;
}

/// Whole numbers, ranges of them as `"8000-8100"`, and words that stand for some.
#[derive(Debug)]
pub(super) struct Numbers<K>(PhantomData<K>);

impl<K: Kind> Numbers<K> {
    fn take(number: impl TryInto<u64>) -> Option<K::Of> {
        K::Of::try_from(number.try_into().ok()?).ok().filter(|number| *number <= K::MAX)
    }

    /// A number in decimal, or in hexadecimal with `0x` before it.
    fn number(text: &str) -> Option<K::Of> {
        let (digits, radix) = text.strip_prefix("0x").map_or((text, 10), |digits| (digits, 16));
        let plain = digits.bytes().all(|byte| byte.is_ascii_alphanumeric());
        u64::from_str_radix(digits, radix).ok().filter(|_| plain).and_then(Self::take)
    }

    fn text(text: &str) -> Result<Part<K::Of>, Fault> {
        if let Some((_, numbers)) = K::WORDS.iter().find(|(word, _)| *word == text) {
            return Ok(match numbers {
                [number] => Part::Range(*number..=*number),
                _ => Part::Word(numbers),
            });
        }
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        match (Self::number(first.trim()), Self::number(last.trim())) {
            (Some(first), Some(last)) if first <= last => Ok(Part::Range(first..=last)),
            (Some(first), Some(last)) => Err(Fault::hint(format!("the smaller one comes first: \"{last}-{first}\""))),
            _ => Err(Fault::unexpected(did_you_mean(text, &names(K::WORDS)))),
        }
    }

    fn write_number(number: K::Of) -> String {
        if K::HEX { format!("{:#06x}", number.into()) } else { number.to_string() }
    }

    fn write_range(range: &RangeInclusive<K::Of>) -> String {
        let (first, last) = (*range.start(), *range.end());
        if first != last {
            return format!("\"{}-{}\"", Self::write_number(first), Self::write_number(last));
        }
        match K::WORDS.iter().find(|(_, numbers)| *numbers == [first]) {
            Some((word, _)) => format!("\"{word}\""),
            None => Self::write_number(first),
        }
    }
}

impl<K: Kind> Form for Numbers<K> {
    type Value = Part<K::Of>;

    fn expected() -> String {
        let word = K::WORDS.first().map(|(word, _)| format!(" or a word such as \"{word}\"")).unwrap_or_default();
        let half = K::MAX.into() / 2;
        format!("{} from 0 to {}, a range such as \"{half}-{}\"{word}", K::WHAT, K::MAX, K::MAX)
    }

    fn schema() -> Json {
        let number = json!({ "type": "integer", "minimum": 0, "maximum": K::MAX.into() });
        let range = json!({ "type": "string", "pattern": "^(0x)?[0-9a-fA-F]+(-(0x)?[0-9a-fA-F]+)?$" });
        match names(K::WORDS) {
            words if words.is_empty() => json!({ "anyOf": [number, range] }),
            words => json!({ "anyOf": [number, { "type": "string", "enum": words }, range] }),
        }
    }

    fn read(raw: Raw<'_>) -> Result<Part<K::Of>, Fault> {
        match raw {
            Raw::Number(number) => {
                Self::take(number).map(|number| Part::Range(number..=number)).ok_or_else(Fault::default)
            }
            Raw::Text(text) => Self::text(text),
            Raw::Truth(_) => Err(Fault::default()),
        }
    }
}

impl<K: Kind> Values for Numbers<K> {
    type Union = Field<K::Of>;

    fn universe() -> Field<K::Of> {
        Field::new([K::Of::MIN..=K::MAX])
    }

    fn union(parts: Vec<Part<K::Of>>, sets: &[&Field<K::Of>]) -> Field<K::Of> {
        field(parts, sets)
    }

    fn write(field: &Field<K::Of>) -> Vec<String> {
        let ranges = field.ranges();
        let alone = |number: &K::Of| ranges.contains(&(*number..=*number));
        let several = K::WORDS.iter().find(|(_, numbers)| numbers.len() > 1 && numbers.iter().all(alone));
        let in_word =
            |range: &&RangeInclusive<K::Of>| several.is_some_and(|(_, numbers)| numbers.contains(range.start()));
        let rest = ranges.iter().filter(|range| !in_word(range)).map(Self::write_range);
        several.iter().map(|(word, _)| format!("\"{word}\"")).chain(rest).collect()
    }
}

/// One differentiated services code point: a number from 0 to 63, or its name.
#[derive(Debug)]
pub(super) struct CodePoint;

impl Form for CodePoint {
    type Value = u8;

    fn expected() -> String {
        "a code point from 0 to 63, or a word such as \"ef\"".to_owned()
    }

    fn schema() -> Json {
        let words = json!({ "type": "string", "enum": names(words::DSCP) });
        json!({ "anyOf": [{ "type": "integer", "minimum": 0, "maximum": 63 }, words] })
    }

    fn read(raw: Raw<'_>) -> Result<u8, Fault> {
        match Numbers::<Dscp>::read(raw)? {
            Part::Range(range) if range.start() == range.end() => Ok(*range.start()),
            _ => Err(Fault::hint("a frame has one: state a single number or name")),
        }
    }
}

/// Ports, and sets of them as `"@name"` if there may be some.
#[derive(Debug)]
pub(super) struct Ports<const SETS: bool>;

impl<const SETS: bool> Form for Ports<SETS> {
    type Value = Part<u16>;

    fn expected() -> String {
        let set = if SETS { " or a set such as \"@name\"" } else { "" };
        format!("a port from 0 to 65535, a range such as \"8000-8100\"{set}")
    }

    fn schema() -> Json {
        let mut schema = Numbers::<Port>::schema();
        if let (true, Some(forms)) = (SETS, schema["anyOf"].as_array_mut()) {
            forms.push(set::reference_schema());
        }
        schema
    }

    fn read(raw: Raw<'_>) -> Result<Part<u16>, Fault> {
        match raw {
            Raw::Text(text) if SETS && text.starts_with('@') => Ok(Part::Set(text[1..].to_owned())),
            _ => Numbers::<Port>::read(raw),
        }
    }
}

impl Values for Ports<true> {
    type Union = Field<u16>;

    fn universe() -> Field<u16> {
        Numbers::<Port>::universe()
    }

    fn union(parts: Vec<Part<u16>>, sets: &[&Field<u16>]) -> Field<u16> {
        field(parts, sets)
    }

    fn write(field: &Field<u16>) -> Vec<String> {
        Numbers::<Port>::write(field)
    }

    fn set_name(part: &Part<u16>) -> Option<&str> {
        if let Part::Set(name) = part { Some(name) } else { None }
    }

    fn of_set(set: &Set) -> Option<&Negatable<Field<u16>>> {
        set.ports.as_ref()
    }
}
