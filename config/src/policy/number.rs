//! Numbers that a frame is matched by: protocols, ports, VLANs and so on.

use std::fmt::Display;
use std::marker::PhantomData;
use std::ops::RangeInclusive;

use serde_json::{Value as Json, json};

use super::field::{Field, Scalar};
use super::set;
use super::values::{OfSet, Part, Ranges};
use super::words::{self, Words};
use crate::value::{Fault, Form, did_you_mean, names, pattern};

/// Numbers of one kind.
pub(super) trait Kind {
    /// What they are made of.
    type Of: Scalar + Display + Into<u64> + TryFrom<u64> + 'static;
    /// What one of them is: "a port".
    const WHAT: &'static str;
    /// The largest. The least is zero.
    const MAX: Self::Of;
    /// Words for numbers. Of several for one, the first is written back.
    const WORDS: Words<Self::Of>;
    /// Whether numbers are written back in hexadecimal.
    const HEX: bool;
    /// What a set as `"@name"` stands for, if there may be some.
    const OF_SET: OfSet<Self::Of>;
}

/// Declares kinds of numbers.
macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident: $of:ty, $what:literal, $max:expr, $words:expr, $hex:literal, $of_set:expr;)*) => { $(
        $(#[$doc])*
        pub(super) struct $name;

        impl Kind for $name {
            type Of = $of;
            const WHAT: &'static str = $what;
            const MAX: $of = $max;
            const WORDS: Words<$of> = $words;
            const HEX: bool = $hex;
            const OF_SET: OfSet<$of> = $of_set;
        }
    )* };
}
kinds! {
    /// Ethertypes.
    Ethertype: u16, "an ethertype", u16::MAX, words::ETHERTYPES, true, None;
    /// VLAN identifiers.
    Vlan: u16, "a VLAN", 4095, &[], false, None;
    /// IP protocols.
    Protocol: u8, "an IP protocol", u8::MAX, words::PROTOCOLS, false, None;
    /// Differentiated services code points.
    Dscp: u8, "a code point", 63, words::DSCP, false, None;
    /// Operations of ARP.
    ArpOperation: u16, "an operation of ARP", u16::MAX, words::ARP_OPERATIONS, false, None;
    /// Ports.
    Port: u16, "a port", u16::MAX, &[], false, Some(|set| set.ports.as_ref());
    /// Ports in a set.
    SetPort: u16, "a port", u16::MAX, &[], false, None;
}

/// Whole numbers, ranges of them as `"8000-8100"`, and words that stand for some.
pub(super) struct Numbers<K>(PhantomData<K>);

impl<K: Kind> Numbers<K> {
    fn take(number: impl TryInto<u64>) -> Option<K::Of> {
        K::Of::try_from(number.try_into().ok()?).ok().filter(|number| *number <= K::MAX)
    }

    /// A number in decimal, or in hexadecimal with `0x` before it.
    fn parse(text: &str) -> Option<K::Of> {
        let (digits, radix) = text.strip_prefix("0x").map_or((text, 10), |digits| (digits, 16));
        let plain = digits.bytes().all(|byte| byte.is_ascii_alphanumeric());
        u64::from_str_radix(digits, radix).ok().filter(|_| plain).and_then(Self::take)
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
        let set = if K::OF_SET.is_some() { " or a set such as \"@name\"" } else { "" };
        let half = K::MAX.into() / 2;
        format!("{} from 0 to {}, a range such as \"{half}-{}\"{word}{set}", K::WHAT, K::MAX, K::MAX)
    }

    fn schema() -> Json {
        let mut forms = vec![
            json!({ "type": "integer", "minimum": 0, "maximum": K::MAX.into() }),
            pattern("^(0x)?[0-9a-fA-F]+(-(0x)?[0-9a-fA-F]+)?$"),
        ];
        if !K::WORDS.is_empty() {
            forms.insert(1, json!({ "type": "string", "enum": names(K::WORDS) }));
        }
        forms.extend(K::OF_SET.map(|_| set::reference_schema()));
        json!({ "anyOf": forms })
    }

    fn text(text: &str) -> Result<Part<K::Of>, Fault> {
        if let Some(name) = text.strip_prefix('@').filter(|_| K::OF_SET.is_some()) {
            return Ok(Part::Set(name.to_owned()));
        }
        if let Some((_, numbers)) = K::WORDS.iter().find(|(word, _)| *word == text) {
            return Ok(match numbers {
                [number] => Part::Range(*number..=*number),
                _ => Part::Word(numbers),
            });
        }
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        match (Self::parse(first.trim()), Self::parse(last.trim())) {
            (Some(first), Some(last)) if first <= last => Ok(Part::Range(first..=last)),
            (Some(first), Some(last)) => Err(Fault::hint(format!("the smaller one comes first: \"{last}-{first}\""))),
            _ => Err(Fault::unexpected(did_you_mean(text, &names(K::WORDS)))),
        }
    }

    fn number(number: i128) -> Result<Part<K::Of>, Fault> {
        Self::take(number).map(|number| Part::Range(number..=number)).ok_or_else(Fault::default)
    }
}

impl<K: Kind> Ranges for Numbers<K> {
    type Of = K::Of;
    const MAX: K::Of = K::MAX;
    const OF_SET: OfSet<K::Of> = K::OF_SET;

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
pub(super) struct CodePoint;

impl CodePoint {
    fn single(part: Part<u8>) -> Result<u8, Fault> {
        match part {
            Part::Range(range) if range.start() == range.end() => Ok(*range.start()),
            _ => Err(Fault::hint("a frame has one: state a single number or name")),
        }
    }
}

impl Form for CodePoint {
    type Value = u8;

    fn expected() -> String {
        "a code point from 0 to 63, or a word such as \"ef\"".to_owned()
    }

    fn schema() -> Json {
        let words = json!({ "type": "string", "enum": names(words::DSCP) });
        json!({ "anyOf": [{ "type": "integer", "minimum": 0, "maximum": 63 }, words] })
    }

    fn text(text: &str) -> Result<u8, Fault> {
        Numbers::<Dscp>::text(text).and_then(Self::single)
    }

    fn number(number: i128) -> Result<u8, Fault> {
        Numbers::<Dscp>::number(number).and_then(Self::single)
    }
}
