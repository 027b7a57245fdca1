//! What a value of a file may look like, and what it becomes.
//!
//! A [`Form`] reads one string, number or truth value. serde's fields take it by `#[serde(with = "As::<Form>")]`, which
//! is their JSON schema, too; [`List`] and [`Many`] are lists of such values. [`table!`] puts what a key is into one
//! place.

use std::fmt::{self, Display};
use std::marker::PhantomData;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Value as Json, json};

/// Why a value is not of its form.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Fault {
    /// What is wrong, to follow the name of the key; if empty, that the value must be what the form expects.
    what: String,
    /// What would be right, if it is known.
    help: Option<String>,
}

impl Fault {
    /// The value is not what the form expects.
    pub(crate) fn unexpected(help: Option<String>) -> Self {
        Self { what: String::new(), help }
    }

    /// The same, with what would be right.
    pub(crate) fn hint(help: impl Into<String>) -> Self {
        Self::unexpected(Some(help.into()))
    }

    /// The key `what`: "must not be ...".
    pub(crate) fn new(what: impl Into<String>, help: Option<String>) -> Self {
        Self { what: what.into(), help }
    }

    /// The fault as serde carries it: what is wrong, what was expected, and the help, a line each.
    fn carry<E: Error>(self, expected: impl Display) -> E {
        E::custom(format_args!("{}\n{expected}\n{}", self.what, self.help.unwrap_or_default()))
    }
}

/// What one value may be, and what it becomes.
pub(crate) trait Form {
    /// What a value becomes.
    type Value;

    /// What would be right, to complete "must be ...".
    fn expected() -> String;

    /// The JSON schema of a value.
    fn schema() -> Json;

    /// Reads a string.
    fn text(_: &str) -> Result<Self::Value, Fault> {
        Err(Fault::default())
    }

    /// Reads a whole number.
    fn number(_: i128) -> Result<Self::Value, Fault> {
        Err(Fault::default())
    }

    /// Reads a whole number that is not written in decimal digits.
    fn based_number(number: i128) -> Result<Self::Value, Fault> {
        Self::number(number)
    }

    /// Reads `true` or `false`.
    fn truth(_: bool) -> Result<Self::Value, Fault> {
        Err(Fault::default())
    }
}

/// Declares a table by its keys: `name: type = default, "form"`. What has no form is read by its type. A key that must be
/// stated is in `required` of the schema; what is its default stands for it after an error.
macro_rules! table {
    ($(#[$meta:meta])* $vis:vis struct $name:ident {
        $($(#[$doc:meta])* $key_vis:vis $key:ident: $type:ty = $default:expr $(, $with:tt)?;)*
    }) => {
        #[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
        #[serde(deny_unknown_fields, default)]
        $(#[$meta])*
        #[non_exhaustive]
        $vis struct $name {
            $($(#[$doc])* $(#[serde(with = $with)])? $key_vis $key: $type,)*
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $($key: $default,)* }
            }
        }
    };
}
pub(crate) use table;

/// A field of the form `F`, in `#[serde(with = "As::<F>")]`.
pub(crate) struct As<F>(PhantomData<F>);

impl<F: Form> As<F> {
    /// Reads a value, or an option of one.
    pub(crate) fn deserialize<'de, D: Deserializer<'de>, T: From<F::Value>>(deserializer: D) -> Result<T, D::Error> {
        let mut values = deserializer.deserialize_any(Values::<F> { or_one: true, list: None, form: PhantomData })?;
        values.pop().map(T::from).ok_or_else(|| D::Error::custom(""))
    }

    /// Writes a default into the schema.
    pub(crate) fn serialize<S: Serializer, T: Serialize>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
        value.serialize(serializer)
    }
}

/// A list of `MIN` to `MAX` values of the form `F`.
pub(crate) struct List<F, const MIN: usize, const MAX: usize>(PhantomData<F>);

impl<F: Form, const MIN: usize, const MAX: usize> List<F, MIN, MAX> {
    pub(crate) fn deserialize<'de, D: Deserializer<'de>, T: From<Vec<F::Value>>>(d: D) -> Result<T, D::Error> {
        d.deserialize_any(Values::<F> { or_one: false, list: Some((MIN, MAX)), form: PhantomData }).map(T::from)
    }

    /// Writes a default into the schema: no list has an element unless a file says so.
    pub(crate) fn serialize<S: Serializer, T>(_: &T, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq([(); 0])
    }
}

/// One value of the form `F`, or a list of such, of `MIN` at least. Nothing is in it if the key is not there.
pub(crate) struct OneOrMany<F: Form, const MIN: usize>(pub(crate) Vec<F::Value>);

/// A list of these is not empty.
pub(crate) type Many<F> = OneOrMany<F, 1>;
/// A list of these may be empty.
pub(crate) type MaybeEmpty<F> = OneOrMany<F, 0>;

impl<F: Form, const MIN: usize> Default for OneOrMany<F, MIN> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, F: Form, const MIN: usize> Deserialize<'de> for OneOrMany<F, MIN> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::deserialize(deserializer).map(Self)
    }
}

impl<F: Form, const MIN: usize> OneOrMany<F, MIN> {
    pub(crate) fn deserialize<'de, D: Deserializer<'de>, T: From<Vec<F::Value>>>(d: D) -> Result<T, D::Error> {
        d.deserialize_any(Values::<F> { or_one: true, list: Some((MIN, usize::MAX)), form: PhantomData }).map(T::from)
    }

    /// Such a key has no default.
    pub(crate) fn serialize<S: Serializer, T>(_: &T, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_none()
    }
}

/// Reads one value of the form `F`, a list of such, or either.
struct Values<F> {
    /// Whether one value may stand without brackets.
    or_one: bool,
    /// Fewest and most elements, if it may be a list.
    list: Option<(usize, usize)>,
    form: PhantomData<F>,
}

impl<F: Form> Values<F> {
    fn one<E: Error>(self, read: Result<F::Value, Fault>) -> Result<Vec<F::Value>, E> {
        match (self.or_one, read) {
            (true, Ok(value)) => Ok(vec![value]),
            (true, Err(fault)) => Err(fault.carry(F::expected())),
            (false, _) => Err(Fault::hint("put it into brackets: [...]").carry(&self as &dyn serde::de::Expected)),
        }
    }
}

impl<'de, F: Form> Visitor<'de> for Values<F> {
    type Value = Vec<F::Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.or_one, self.list) {
            (_, None) => write!(f, "{}", F::expected()),
            (true, Some(_)) => write!(f, "{}, or a list of such", F::expected()),
            (false, Some((min, max))) => write!(f, "a list of {min} to {max} elements, each {}", F::expected()),
        }
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        self.one(F::text(text))
    }

    fn visit_i128<E: Error>(self, number: i128) -> Result<Self::Value, E> {
        self.one(F::number(number))
    }

    fn visit_u128<E: Error>(self, number: u128) -> Result<Self::Value, E> {
        self.one(F::based_number(number.try_into().unwrap_or(i128::MAX)))
    }

    fn visit_bool<E: Error>(self, truth: bool) -> Result<Self::Value, E> {
        self.one(F::truth(truth))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let count = list.size_hint().unwrap_or(0);
        match self.list {
            Some((min, max)) if (min..=max).contains(&count) => {}
            None => return Err(Fault::default().carry(F::expected())),
            Some(_) if self.or_one => {
                let help = "leave the key out for anything".to_owned();
                return Err(Fault::new("is an empty list, which nothing matches", Some(help)).carry(""));
            }
            Some(_) => {
                let expected = &self as &dyn serde::de::Expected;
                return Err(Fault::new(format!("must be {expected}, found {count} elements"), None).carry(""));
            }
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

/// One element of a list: `None` after an error in it was reported, so that the next ones are read.
struct Element<F: Form>(Option<F::Value>);

impl<'de, F: Form> Deserialize<'de> for Element<F> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(As::<F>::deserialize(deserializer).ok()))
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
    [const MIN: usize] OneOrMany<F, MIN>,
        json!({ "anyOf": [F::schema(), { "type": "array", "items": F::schema(), "minItems": MIN }] });
}

/// The schema of a string.
pub(crate) fn pattern(pattern: &str) -> Json {
    json!({ "type": "string", "pattern": pattern })
}

/// A whole number from `MIN` to `MAX`, which are powers of two if it has to be one.
pub(crate) struct Whole<T, const MIN: u64, const MAX: u64, const POWER_OF_TWO: bool>(PhantomData<T>);

/// A whole number from `MIN` to `MAX`.
pub(crate) type Int<T, const MIN: u64, const MAX: u64> = Whole<T, MIN, MAX, false>;
/// A power of two from `MIN` to `MAX`.
pub(crate) type PowerOfTwo<T, const MIN: u64, const MAX: u64> = Whole<T, MIN, MAX, true>;

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

    fn number(number: i128) -> Result<T, Fault> {
        let is_right = !POWER_OF_TWO || number.count_ones() == 1;
        match T::try_from(number) {
            Ok(value) if is_right && (i128::from(MIN)..=i128::from(MAX)).contains(&number) => return Ok(value),
            _ => {}
        }
        Err(Fault::unexpected(u64::try_from(number).ok().map(|number| {
            if number <= MIN {
                format!("the least is {MIN}")
            } else if number >= MAX {
                format!("the most is {MAX}")
            } else {
                let below = 1_u64 << number.ilog2();
                format!("the nearest are {below} and {}", below * 2)
            }
        })))
    }

    fn text(text: &str) -> Result<T, Fault> {
        let number = text.parse().ok().filter(|number| Self::number(*number).is_ok());
        Err(Fault::unexpected(number.map(|number| format!("write it without quotes: {number}"))))
    }
}

/// `true` or `false`.
pub(crate) struct Truth;

impl Form for Truth {
    type Value = bool;

    fn expected() -> String {
        "true or false".to_owned()
    }

    fn schema() -> Json {
        json!({ "type": "boolean" })
    }

    fn text(text: &str) -> Result<bool, Fault> {
        let is_one = matches!(text, "true" | "false");
        Err(Fault::unexpected(is_one.then(|| format!("write it without quotes: {text}"))))
    }

    fn truth(truth: bool) -> Result<bool, Fault> {
        Ok(truth)
    }
}

/// Whether `text` is one line of 1 to `max` bytes without control characters.
pub(crate) fn is_line(text: &str, max: usize) -> bool {
    (1..=max).contains(&text.len()) && !text.contains(char::is_control)
}

/// A name of at most `MAX` letters, digits, `.`, `_` and `-`, so that it needs no quotes on a command line.
pub(crate) struct Name<const MAX: usize>;

impl<const MAX: usize> Form for Name<MAX> {
    type Value = String;

    fn expected() -> String {
        format!("a name of 1 to {MAX} letters, digits, `.`, `_` and `-`")
    }

    fn schema() -> Json {
        json!({ "type": "string", "minLength": 1, "maxLength": MAX, "pattern": "^[0-9A-Za-z._-]+$" })
    }

    fn text(text: &str) -> Result<String, Fault> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        let is_name = (1..=MAX).contains(&text.len()) && text.bytes().all(allowed);
        if is_name { Ok(text.to_owned()) } else { Err(Fault::default()) }
    }
}

/// One word out of a few.
pub(crate) trait Choice {
    /// What a word stands for.
    type Of: Copy + 'static;
    /// The words and what they mean.
    const WORDS: &'static [(&'static str, Self::Of)];
}

/// The form of a [`Choice`].
pub(crate) struct Word<C>(PhantomData<C>);

impl<C: Choice> Form for Word<C> {
    type Value = C::Of;

    fn expected() -> String {
        one_of(&names(C::WORDS))
    }

    fn schema() -> Json {
        json!({ "type": "string", "enum": names(C::WORDS) })
    }

    fn text(text: &str) -> Result<C::Of, Fault> {
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
pub(crate) fn nearest<'n>(word: &str, names: &[&'n str]) -> Option<&'n str> {
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
