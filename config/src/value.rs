//! What a value of a file may look like, and what it becomes.
//!
//! A [`Form`] reads one string, number or truth value. serde's fields take it by `#[serde(with = "As::<Form>")]`, which
//! is their JSON schema, too; [`List`] and [`Many`] are lists of such values.

use std::fmt::{self, Display};
use std::marker::PhantomData;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Value as Json, json};

/// A string, a number or a truth value as it stands in a file.
#[derive(Clone, Copy, Debug)]
pub enum Raw<'a> {
    /// A string.
    Text(&'a str),
    /// A whole number.
    Number(i128),
    /// `true` or `false`.
    Truth(bool),
}

/// Why a value is not of its form.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fault {
    /// What is wrong, to follow the name of the key; if empty, that the value must be what the form expects.
    pub what: String,
    /// What would be right, if it is known.
    pub help: Option<String>,
}

impl Fault {
    /// The value is not what the form expects.
    #[must_use]
    pub fn unexpected(help: Option<String>) -> Self {
        Self { what: String::new(), help }
    }

    /// The same, with what would be right.
    #[must_use]
    pub fn hint(help: impl Into<String>) -> Self {
        Self::unexpected(Some(help.into()))
    }

    /// The key `what`: "must not be ...".
    #[must_use]
    pub fn new(what: impl Into<String>, help: Option<String>) -> Self {
        Self { what: what.into(), help }
    }

    /// The fault as serde carries it: what is wrong, what was expected, and the help, a line each.
    fn carry<E: Error>(self, expected: impl Display) -> E {
        E::custom(format_args!("{}\n{expected}\n{}", self.what, self.help.unwrap_or_default()))
    }
}

/// What one value may be, and what it becomes.
pub trait Form {
    /// What a value becomes.
    type Value;

    /// What would be right, to complete "must be ...".
    fn expected() -> String;

    /// The JSON schema of a value.
    fn schema() -> Json;

    /// Reads `raw`.
    ///
    /// # Errors
    ///
    /// If it is not of this form.
    fn read(raw: Raw<'_>) -> Result<Self::Value, Fault>;

    /// Reads a number that is not written in decimal digits.
    ///
    /// # Errors
    ///
    /// If it is not of this form.
    fn read_based(number: i128) -> Result<Self::Value, Fault> {
        Self::read(Raw::Number(number))
    }
}

/// A field of the form `F`, in `#[serde(with = "As::<F>")]`.
#[derive(Debug)]
pub struct As<F>(PhantomData<F>);

impl<F: Form> As<F> {
    /// Reads a value, or an option of one.
    ///
    /// # Errors
    ///
    /// If it is not of the form.
    pub fn deserialize<'de, D: Deserializer<'de>, T: From<F::Value>>(deserializer: D) -> Result<T, D::Error> {
        deserializer.deserialize_any(Scalar::<F>(PhantomData)).map(T::from)
    }

    /// Writes a default into the schema.
    ///
    /// # Errors
    ///
    /// Those of the serializer.
    pub fn serialize<S: Serializer, T: Serialize>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
        value.serialize(serializer)
    }
}

/// A number that was not written in decimal digits.
fn based(number: u128) -> i128 {
    i128::try_from(number).unwrap_or(i128::MAX)
}

/// Reads one value of the form `F`.
struct Scalar<F>(PhantomData<F>);

impl<F: Form> Scalar<F> {
    fn read<E: Error>(raw: Raw<'_>) -> Result<F::Value, E> {
        F::read(raw).map_err(|fault| fault.carry(F::expected()))
    }
}

impl<F: Form> Visitor<'_> for Scalar<F> {
    type Value = F::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&F::expected())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<F::Value, E> {
        Self::read(Raw::Text(text))
    }

    fn visit_i128<E: Error>(self, number: i128) -> Result<F::Value, E> {
        Self::read(Raw::Number(number))
    }

    fn visit_u128<E: Error>(self, number: u128) -> Result<F::Value, E> {
        F::read_based(based(number)).map_err(|fault| fault.carry(F::expected()))
    }

    fn visit_bool<E: Error>(self, truth: bool) -> Result<F::Value, E> {
        Self::read(Raw::Truth(truth))
    }
}

/// One element of a list: `None` after an error in it was reported, so that the next ones are read.
struct Element<F: Form>(Option<F::Value>);

impl<'de, F: Form> Deserialize<'de> for Element<F> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(As::<F>::deserialize(deserializer).ok()))
    }
}

/// What a list of values of the form `F` may be.
struct Items<F> {
    /// Whether one value may stand without brackets.
    or_one: bool,
    /// Fewest elements.
    min: usize,
    /// Most elements.
    max: usize,
    form: PhantomData<F>,
}

impl<F: Form> Items<F> {
    fn one<E: Error>(self, raw: Raw<'_>) -> Result<Vec<F::Value>, E> {
        match self.or_one {
            true => Scalar::<F>::read(raw).map(|value| vec![value]),
            false => Err(Fault::hint("put it into brackets: [...]").carry(self.expected())),
        }
    }

    fn expected(&self) -> String {
        match self.or_one {
            true => format!("{}, or a list of such", F::expected()),
            false => format!("a list of {} to {} elements, each {}", self.min, self.max, F::expected()),
        }
    }
}

impl<'de, F: Form> Visitor<'de> for Items<F> {
    type Value = Vec<F::Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.expected())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        self.one(Raw::Text(text))
    }

    fn visit_i128<E: Error>(self, number: i128) -> Result<Self::Value, E> {
        self.one(Raw::Number(number))
    }

    fn visit_u128<E: Error>(self, number: u128) -> Result<Self::Value, E> {
        self.one(Raw::Number(based(number)))
    }

    fn visit_bool<E: Error>(self, truth: bool) -> Result<Self::Value, E> {
        self.one(Raw::Truth(truth))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let count = list.size_hint().unwrap_or(0);
        let fault = match (self.min..=self.max).contains(&count) {
            true => None,
            false if self.or_one => {
                let help = Some("leave the key out for anything".to_owned());
                Some(Fault::new("is an empty list, which nothing matches", help))
            }
            false => Some(Fault::new(format!("must be {}, found {count} elements", self.expected()), None)),
        };
        if let Some(fault) = fault {
            return Err(fault.carry(""));
        }
        let (mut values, mut failed) = (Vec::with_capacity(count), false);
        // Every element is read, right or wrong.
        while let Some(Element::<F>(value)) = list.next_element()? {
            failed |= value.is_none();
            values.extend(value);
        }
        // What was wrong in it is reported.
        if failed { Err(A::Error::custom("")) } else { Ok(values) }
    }
}

/// A list of `MIN` to `MAX` values of the form `F`.
#[derive(Debug)]
pub struct List<F, const MIN: usize, const MAX: usize>(PhantomData<F>);

impl<F: Form, const MIN: usize, const MAX: usize> List<F, MIN, MAX> {
    /// Reads a list.
    ///
    /// # Errors
    ///
    /// If it is none, or has fewer or more elements, or one of them is not of the form.
    pub fn deserialize<'de, D: Deserializer<'de>, T: From<Vec<F::Value>>>(deserializer: D) -> Result<T, D::Error> {
        let items = Items::<F> { or_one: false, min: MIN, max: MAX, form: PhantomData };
        deserializer.deserialize_any(items).map(T::from)
    }

    /// Writes a default into the schema.
    ///
    /// # Errors
    ///
    /// Those of the serializer.
    pub fn serialize<S: Serializer, T: Serialize>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
        value.serialize(serializer)
    }
}

/// One value of the form `F`, or a list of such that is not empty. Nothing is in it if the key is not there.
#[derive(Debug)]
pub struct Many<F: Form>(pub Vec<F::Value>);

impl<F: Form> Default for Many<F> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, F: Form> Deserialize<'de> for Many<F> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let items = Items::<F> { or_one: true, min: 1, max: usize::MAX, form: PhantomData };
        deserializer.deserialize_any(items).map(Self)
    }
}

impl<F: Form> Many<F> {
    /// Reads the values for a field of another type. An empty list is one, too.
    ///
    /// # Errors
    ///
    /// If one of them is not of the form.
    pub fn deserialize<'de, D: Deserializer<'de>, T: From<Vec<F::Value>>>(deserializer: D) -> Result<T, D::Error> {
        let items = Items::<F> { or_one: true, min: 0, max: usize::MAX, form: PhantomData };
        deserializer.deserialize_any(items).map(T::from)
    }
}

/// The schemas of fields, which stand where they are used.
macro_rules! schemas {
    ($([$($parameters:tt)*] $type:ty, $schema:expr;)*) => { $(
        impl<F: Form, $($parameters)*> JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                Schema::try_from($schema).expect("a schema is an object")
            }
        }
    )* };
}
schemas! {
    [] As<F>, F::schema();
    [const MIN: usize, const MAX: usize] List<F, MIN, MAX>,
        json!({ "type": "array", "items": F::schema(), "minItems": MIN, "maxItems": MAX });
    [] Many<F>, json!({ "anyOf": [F::schema(), { "type": "array", "items": F::schema(), "minItems": 1 }] });
}

/// A whole number from `MIN` to `MAX`, which are powers of two if it has to be one.
#[derive(Debug)]
pub struct Whole<T, const MIN: u64, const MAX: u64, const POWER_OF_TWO: bool>(PhantomData<T>);

/// A whole number from `MIN` to `MAX`.
pub type Int<T, const MIN: u64, const MAX: u64> = Whole<T, MIN, MAX, false>;
/// A power of two from `MIN` to `MAX`.
pub type PowerOfTwo<T, const MIN: u64, const MAX: u64> = Whole<T, MIN, MAX, true>;

impl<T: TryFrom<i128>, const MIN: u64, const MAX: u64, const POWER_OF_TWO: bool> Whole<T, MIN, MAX, POWER_OF_TWO> {
    fn take(number: i128) -> Option<T> {
        let is_power = !POWER_OF_TWO || number.count_ones() == 1;
        let fits = (i128::from(MIN)..=i128::from(MAX)).contains(&number) && is_power;
        T::try_from(number).ok().filter(|_| fits)
    }

    /// What to write instead of `number`: a power of two beside it, or the limit that it passed.
    fn instead_of(number: i128) -> Option<String> {
        match u64::try_from(number) {
            // The limits in the message say enough.
            Err(_) => None,
            Ok(number) if number <= MIN => Some(format!("the least is {MIN}")),
            Ok(number) if number >= MAX => Some(format!("the most is {MAX}")),
            Ok(number) => {
                let below = 1_u64 << number.ilog2();
                Some(format!("the nearest are {below} and {}", below * 2))
            }
        }
    }
}

impl<T: TryFrom<i128>, const MIN: u64, const MAX: u64, const POWER_OF_TWO: bool> Form
    for Whole<T, MIN, MAX, POWER_OF_TWO>
{
    type Value = T;

    fn expected() -> String {
        let what = if POWER_OF_TWO { "power of two" } else { "whole number" };
        format!("a {what} from {MIN} to {MAX}")
    }

    fn schema() -> Json {
        if POWER_OF_TWO {
            let powers: Vec<u64> = (0..u64::BITS).map(|bit| 1 << bit).filter(|n| (MIN..=MAX).contains(n)).collect();
            return json!({ "type": "integer", "enum": powers });
        }
        json!({ "type": "integer", "minimum": MIN, "maximum": MAX })
    }

    fn read(raw: Raw<'_>) -> Result<T, Fault> {
        let help = match raw {
            Raw::Number(number) => match Self::take(number) {
                Some(value) => return Ok(value),
                None => Self::instead_of(number),
            },
            Raw::Text(text) => {
                let number = text.parse().ok().filter(|number| Self::take(*number).is_some());
                number.map(|number| format!("write it without quotes: {number}"))
            }
            Raw::Truth(_) => None,
        };
        Err(Fault::unexpected(help))
    }
}

/// `true` or `false`.
#[derive(Debug)]
pub struct Truth;

impl Form for Truth {
    type Value = bool;

    fn expected() -> String {
        "true or false".to_owned()
    }

    fn schema() -> Json {
        json!({ "type": "boolean" })
    }

    fn read(raw: Raw<'_>) -> Result<bool, Fault> {
        match raw {
            Raw::Truth(truth) => Ok(truth),
            Raw::Text(word @ ("true" | "false")) => Err(Fault::hint(format!("write it without quotes: {word}"))),
            _ => Err(Fault::default()),
        }
    }
}

/// One line of text of at most `MAX` bytes: not empty, no control characters.
#[derive(Debug)]
pub struct Line<const MAX: usize>;

impl<const MAX: usize> Form for Line<MAX> {
    type Value = String;

    fn expected() -> String {
        format!("a string of 1 to {MAX} bytes without control characters")
    }

    fn schema() -> Json {
        json!({ "type": "string", "minLength": 1, "maxLength": MAX })
    }

    fn read(raw: Raw<'_>) -> Result<String, Fault> {
        match raw {
            Raw::Text(text) if !text.is_empty() && text.len() <= MAX && !text.contains(char::is_control) => {
                Ok(text.to_owned())
            }
            _ => Err(Fault::default()),
        }
    }
}

/// One word out of a few.
pub trait Choice {
    /// What a word stands for.
    type Of: Copy + 'static;
    /// The words and what they mean.
    const WORDS: &'static [(&'static str, Self::Of)];
}

/// The form of a [`Choice`].
#[derive(Debug)]
pub struct Word<C>(PhantomData<C>);

impl<C: Choice> Form for Word<C> {
    type Value = C::Of;

    fn expected() -> String {
        one_of(&names(C::WORDS))
    }

    fn schema() -> Json {
        json!({ "type": "string", "enum": names(C::WORDS) })
    }

    fn read(raw: Raw<'_>) -> Result<C::Of, Fault> {
        let Raw::Text(text) = raw else { return Err(Fault::default()) };
        let word = C::WORDS.iter().find(|(word, _)| *word == text);
        word.map(|(_, value)| *value).ok_or_else(|| Fault::unexpected(did_you_mean(text, &names(C::WORDS))))
    }
}

/// The words of a table of them.
pub(crate) fn names<T>(words: &[(&'static str, T)]) -> Vec<&'static str> {
    words.iter().map(|(word, _)| *word).collect()
}

/// `"a", "b" or "c"`.
pub(crate) fn one_of(words: &[&str]) -> String {
    let words: Vec<_> = words.iter().map(|word| format!("\"{word}\"")).collect();
    match words.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
        None => String::new(),
    }
}

/// The word that `word` was probably meant to be, as a help.
pub(crate) fn did_you_mean(word: &str, words: &[&str]) -> Option<String> {
    nearest(word, words).map(|word| format!("did you mean \"{word}\"?"))
}

/// The one of `names` that `word` was probably meant to be.
#[must_use]
pub fn nearest<'n>(word: &str, names: &[&'n str]) -> Option<&'n str> {
    // Nobody mistypes more than this, and the distance costs time in the square of the length.
    const WORD_MAX: usize = 32;
    if word.len() > WORD_MAX {
        return None;
    }
    let word = word.to_ascii_lowercase().replace('-', "_");
    let (distance, name) = names.iter().map(|&name| (strsim::damerau_levenshtein(&word, name), name)).min()?;
    (distance <= 1 + name.len() / 4).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A mistyped word finds its name; a different word finds none.
    #[test]
    fn nearest_forgives_slips_only() {
        let names = ["cores", "idle", "flows", "mbufs", "ring_size"];
        for (word, name) in [
            ("coers", Some("cores")),
            ("Cores", Some("cores")),
            ("core", Some("cores")),
            ("ring-size", Some("ring_size")),
            ("rign_szie", Some("ring_size")),
            ("speed", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, &names), name, "{word}");
        }
        assert_eq!(nearest(&"cores".repeat(100_000), &names), None);
    }
}
