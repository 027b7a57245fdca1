//! serde's reader of a parsed table that goes on after an error.
//!
//! An error is reported where it occurs, with its place, and the key that has it is left out of the next try. So a table
//! is read again for each of its keys that is wrong, and what a run reports is everything that is wrong with it. The
//! elements of a list are read in one go, right or wrong: see [`List`](crate::value::List).

use std::cell::RefCell;
use std::fmt;
use std::ops::Range;

use serde::Deserialize;
use serde::de::value::StrDeserializer;
use serde::de::{self, DeserializeSeed, Deserializer, Expected, MapAccess, SeqAccess, Unexpected, Visitor};
use serde::forward_to_deserialize_any;
use serde_spanned::Spanned;
use toml::de::{DeString, DeValue};

use crate::document::{Place, describe};
use crate::value::{did_you_mean, one_of};

/// The name of a field that takes its keys from the same table. `#[serde(flatten)]` would lose the places of the values.
pub(crate) const FLATTEN: &str = ".";

/// Why a value is not what it should be.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// What is wrong, what was expected, and the help, a line each.
    Wrong(String),
    /// The reason is reported.
    Reported,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl std::error::Error for Refusal {}

impl de::Error for Refusal {
    fn custom<T: fmt::Display>(message: T) -> Self {
        match message.to_string() {
            message if message.is_empty() => Self::Reported,
            message => Self::Wrong(message),
        }
    }

    fn invalid_type(_: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::Wrong(format!("\n{expected}"))
    }

    fn unknown_variant(word: &str, words: &'static [&'static str]) -> Self {
        Self::Wrong(format!("\n{}\n{}", one_of(words), did_you_mean(word, words).unwrap_or_default()))
    }
}

/// Reads the table `value` at `place`. `None` if it is none, after that was reported.
pub(crate) fn read<'r, T: Deserialize<'r>>(place: &Place<'r>, value: &'r DeValue<'r>) -> Option<T> {
    let failed = RefCell::new(Vec::new());
    loop {
        let before = failed.borrow().len();
        let node = Node { value, span: place.span(), path: &Path::TABLE, place, failed: &failed };
        match T::deserialize(node) {
            Ok(value) => return Some(value),
            Err(_) if failed.borrow().len() > before => {}
            Err(_) => return None,
        }
    }
}

/// The way to a value from its table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Path<'p> {
    parent: Option<&'p Path<'p>>,
    name: &'p str,
    index: Option<usize>,
}

impl<'p> Path<'p> {
    /// The table itself.
    pub(crate) const TABLE: Self = Path { parent: None, name: "", index: None };

    /// That of the key `name` in it.
    pub(crate) const fn key(&'p self, name: &'p str) -> Self {
        Path { parent: Some(self), name, index: None }
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent.filter(|parent| !parent.name.is_empty()) {
            write!(f, "{parent}.")?;
        }
        f.write_str(self.name)?;
        self.index.map_or(Ok(()), |index| write!(f, "[{index}]"))
    }
}

/// A value, while it is read.
#[derive(Clone, Debug)]
struct Node<'p, 'r> {
    value: &'r DeValue<'r>,
    span: Range<usize>,
    path: &'p Path<'p>,
    place: &'p Place<'r>,
    /// The values that are left out, by their address.
    failed: &'p RefCell<Vec<usize>>,
}

impl Node<'_, '_> {
    /// Reports `error` here, unless it is reported.
    fn report(&self, error: Refusal) -> Refusal {
        if let Refusal::Wrong(text) = error {
            let mut lines = text.splitn(3, '\n');
            let (what, expected) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
            let help = lines.next().unwrap_or_default();
            let what = match what {
                "" => format!("must be {expected}, found {}", describe(self.value)),
                what => what.to_owned(),
            };
            self.place.fail_at(self.span.clone(), &self.path.to_string(), &what, help);
        }
        Refusal::Reported
    }
}

impl<'de> Deserializer<'de> for Node<'_, 'de> {
    type Error = Refusal;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        let unexpected = |visitor: &V| de::Error::invalid_type(Unexpected::Unit, visitor);
        let read = match self.value {
            DeValue::String(text) => visitor.visit_str(text),
            DeValue::Integer(number) => match i128::from_str_radix(number.as_str(), number.radix()) {
                Ok(value) if number.radix() == 10 => visitor.visit_i128(value),
                // Only decimal numbers have a sign.
                Ok(value) => visitor.visit_u128(value.unsigned_abs()),
                Err(_) => Err(unexpected(&visitor)),
            },
            DeValue::Boolean(truth) => visitor.visit_bool(*truth),
            DeValue::Array(list) => visitor.visit_seq(Elements { node: &self, list: list.iter().enumerate() }),
            DeValue::Float(_) | DeValue::Datetime(_) | DeValue::Table(_) => Err(unexpected(&visitor)),
        };
        read.map_err(|error| self.report(error))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        words: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        let read = match self.value {
            DeValue::String(text) => visitor.visit_enum(StrDeserializer::new(text)),
            _ => Err(Refusal::Wrong(format!("\n{}", one_of(words)))),
        };
        read.map_err(|error| self.report(error))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        names: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        let DeValue::Table(table) = self.value else {
            let example: Vec<_> = names.iter().take(2).map(|name| format!("{name} = ...")).collect();
            return Err(self.report(Refusal::Wrong(format!("\na table such as {{ {} }}", example.join(", ")))));
        };
        let own = names.contains(&FLATTEN).then_some(FLATTEN);
        let entries = Entries { node: &self, names, own, entries: table.iter(), next: None };
        visitor.visit_map(entries).map_err(|error| self.report(error))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map identifier ignored_any option newtype_struct
    }
}

/// The elements of a list.
struct Elements<'n, 'p, 'r, I> {
    node: &'n Node<'p, 'r>,
    list: I,
}

impl<'de, I: ExactSizeIterator<Item = (usize, &'de Spanned<DeValue<'de>>)>> SeqAccess<'de>
    for Elements<'_, '_, 'de, I>
{
    type Error = Refusal;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Refusal> {
        let Some((index, value)) = self.list.next() else { return Ok(None) };
        let path = Path { index: Some(index), ..*self.node.path };
        let node = Node { value: value.get_ref(), span: value.span(), path: &path, ..*self.node };
        seed.deserialize(node).map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.list.len())
    }
}

/// The entries of a table whose names are known, and which were not wrong before.
struct Entries<'n, 'p, 'r, I> {
    node: &'n Node<'p, 'r>,
    names: &'static [&'static str],
    /// [`FLATTEN`], as long as it is to come.
    own: Option<&'static str>,
    entries: I,
    /// The entry whose value comes next; the table itself if there is none.
    next: Option<(&'r str, &'r Spanned<DeValue<'r>>)>,
}

impl<'de, I: Iterator<Item = (&'de Spanned<DeString<'de>>, &'de Spanned<DeValue<'de>>)>> MapAccess<'de>
    for Entries<'_, '_, 'de, I>
{
    type Error = Refusal;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Refusal> {
        let (failed, names) = (self.node.failed, self.names);
        let name = self.own.take().or_else(|| {
            let is_read = |name: &str, value: &Spanned<DeValue<'_>>| {
                names.contains(&name) && !failed.borrow().contains(&std::ptr::from_ref(value.get_ref()).addr())
            };
            let mut entries = self.entries.by_ref().map(|(name, value)| (name.get_ref().as_ref(), value));
            self.next = entries.find(|(name, value)| is_read(name, value));
            self.next.map(|(name, _)| name)
        });
        name.map(|name| seed.deserialize(StrDeserializer::new(name))).transpose()
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Refusal> {
        let Some((name, value)) = self.next.take() else { return seed.deserialize(self.node.clone()) };
        let failed = self.node.failed;
        let before = failed.borrow().len();
        let path = self.node.path.key(name);
        let node = Node { value: value.get_ref(), span: value.span(), path: &path, ..*self.node };
        seed.deserialize(node).inspect_err(|_| {
            // What is wrong inside of it is left out by the next try.
            if failed.borrow().len() == before {
                failed.borrow_mut().push(std::ptr::from_ref(value.get_ref()).addr());
            }
        })
    }
}
