//! serde's reader of a parsed table that goes on after an error.
//!
//! An error is reported where it occurs, with its place, and the key that has it is left out of the next try. So a table
//! is read again for each of its keys that is wrong, and what a run reports is everything that is wrong with it. The
//! elements of a list are read in one go, right or wrong: see [`List`](crate::value::List).

use std::cell::{Cell, RefCell};
use std::fmt;
use std::ops::Range;

use serde::de::value::StrDeserializer;
use serde::de::{self, DeserializeSeed, Deserializer, Expected, MapAccess, SeqAccess, Unexpected, Visitor};
use serde::forward_to_deserialize_any;
use serde_spanned::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use crate::document::{Place, describe, in_file_order};
use crate::report::quoted;
use crate::value::{did_you_mean, nearest, one_of};

/// Why a value is not what it should be.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// What is wrong, what was expected, and the help, a line each.
    Wrong(String),
    /// The reason is reported, or what is missing will be.
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

    fn missing_field(_: &'static str) -> Self {
        Self::Reported
    }
}

/// Reads the table at `place` by `read`; what could be read of it, and whether that is all.
pub(crate) fn read<'r, T>(
    place: &Place<'r>,
    value: &'r DeValue<'r>,
    read: impl Fn(Node<'_, 'r>) -> Result<T, Refusal>,
) -> (Option<T>, bool) {
    let tries = Tries { place, failed: RefCell::default(), checked: RefCell::default(), progress: Cell::new(0) };
    loop {
        let before = tries.progress.get();
        let path = Path { parent: None, name: "", index: None };
        let node = Node { value, span: place.span(), path: &path, tries: &tries };
        match read(node) {
            Ok(value) => return (Some(value), tries.progress.get() == 0),
            Err(_) if tries.progress.get() > before => {}
            Err(_) => return (None, false),
        }
    }
}

/// What the tries at one table have in common.
#[derive(Debug)]
pub(crate) struct Tries<'p, 'r> {
    place: &'p Place<'r>,
    /// The values that are left out, by their address.
    failed: RefCell<Vec<usize>>,
    /// The tables whose names are checked, likewise.
    checked: RefCell<Vec<usize>>,
    /// How much a next try has to leave out.
    progress: Cell<usize>,
}

impl Tries<'_, '_> {
    /// Leaves out what is at `address`.
    fn fail(&self, address: usize) {
        self.note(&self.failed, address);
    }

    /// Adds `address` to a list; false if it is there already.
    fn note(&self, list: &RefCell<Vec<usize>>, address: usize) -> bool {
        let mut list = list.borrow_mut();
        let is_new = !list.contains(&address);
        if is_new {
            list.push(address);
            self.progress.set(self.progress.get() + 1);
        }
        is_new
    }
}

/// The way to a value from its table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Path<'p> {
    parent: Option<&'p Path<'p>>,
    name: &'p str,
    index: Option<usize>,
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent.filter(|parent| parent.parent.is_some() || !parent.name.is_empty()) {
            write!(f, "{parent}.")?;
        }
        f.write_str(self.name)?;
        self.index.map_or(Ok(()), |index| write!(f, "[{index}]"))
    }
}

/// A value, while it is read.
#[derive(Clone, Debug)]
pub(crate) struct Node<'p, 'r> {
    value: &'r DeValue<'r>,
    span: Range<usize>,
    path: &'p Path<'p>,
    tries: &'p Tries<'p, 'r>,
}

impl<'r> Node<'_, 'r> {
    /// Reports `error` here, unless it is reported.
    fn report(&self, error: Refusal) -> Refusal {
        if let Refusal::Wrong(text) = error {
            let place = self.tries.place;
            let mut lines = text.splitn(3, '\n');
            let (what, expected) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
            let help = lines.next().filter(|help| !help.is_empty()).map(str::to_owned);
            let path = self.path.to_string();
            let what = match what {
                "" => format!("must be {expected}, found {}", describe(self.value)),
                what => what.to_owned(),
            };
            place.report(self.span.clone(), &path, &what, help);
        }
        Refusal::Reported
    }

    /// Reports each name in the table that is not one of `known`.
    fn check_names(&self, entries: &DeTable<'_>, known: &[&str]) {
        if entries.keys().all(|key| known.contains(&key.get_ref().as_ref()))
            || !self.tries.note(&self.tries.checked, std::ptr::from_ref(self.value).addr())
        {
            return;
        }
        for (name, span) in in_file_order(entries).into_iter().filter(|(name, _)| !known.contains(name)) {
            let help = nearest(name, known).map_or_else(
                || format!("known are `{}`", known.join("`, `")),
                |near| format!("did you mean `{near}`?"),
            );
            let path = Path { parent: Some(self.path), name, index: None }.to_string();
            let place = self.tries.place;
            place.error_at(span, &path, format!("unknown key {} {}", quoted(&path), place.home()), Some(help));
        }
    }
}

impl<'de> Deserializer<'de> for Node<'_, '_> {
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

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Refusal> {
        visitor.visit_newtype_struct(self)
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
        self.check_names(table, names);
        let entries = Entries { node: &self, names, entries: table.iter(), next: None };
        visitor.visit_map(entries).map_err(|error| self.report(error))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map identifier ignored_any
    }
}

/// The elements of a list.
struct Elements<'n, 'p, 'r, I> {
    node: &'n Node<'p, 'r>,
    list: I,
}

impl<'de, 'r, I> SeqAccess<'de> for Elements<'_, '_, 'r, I>
where
    I: ExactSizeIterator<Item = (usize, &'r Spanned<DeValue<'r>>)>,
{
    type Error = Refusal;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Refusal> {
        let Some((index, value)) = self.list.next() else { return Ok(None) };
        let path = Path { index: Some(index), ..*self.node.path };
        let (span, value) = (value.span(), value.get_ref());
        seed.deserialize(Node { value, span, path: &path, tries: self.node.tries }).map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.list.len())
    }
}

/// The entries of a table whose names are known, and which were not wrong before.
struct Entries<'n, 'p, 'r, I> {
    node: &'n Node<'p, 'r>,
    names: &'static [&'static str],
    entries: I,
    /// The entry whose value comes next.
    next: Option<(&'r str, &'r Spanned<DeValue<'r>>)>,
}

impl<'de, 'r, I> MapAccess<'de> for Entries<'_, '_, 'r, I>
where
    I: Iterator<Item = (&'r Spanned<DeString<'r>>, &'r Spanned<DeValue<'r>>)>,
{
    type Error = Refusal;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Refusal> {
        let tries = self.node.tries;
        self.next = self.entries.by_ref().find_map(|(name, value)| {
            let name: &'r str = name.get_ref();
            let is_read = self.names.contains(&name)
                && !tries.failed.borrow().contains(&std::ptr::from_ref(value.get_ref()).addr());
            is_read.then_some((name, value))
        });
        self.next.map(|(name, _)| seed.deserialize(StrDeserializer::new(name))).transpose()
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Refusal> {
        let Some((name, value)) = self.next.take() else { return Err(Refusal::Reported) };
        let tries = self.node.tries;
        let before = tries.progress.get();
        let path = Path { parent: Some(self.node.path), name, index: None };
        let node = Node { value: value.get_ref(), span: value.span(), path: &path, tries };
        seed.deserialize(node).inspect_err(|_| {
            // What is wrong inside of it is left out by the next try.
            if tries.progress.get() == before {
                tries.fail(std::ptr::from_ref(value.get_ref()).addr());
            }
        })
    }
}
