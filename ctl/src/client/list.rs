//! An answer that may be long, row by row: of whatever length it is, no more than a row is in memory.
//!
//! It is the same line of JSON as every answer, an object with an array of the command's name, read while it comes.

use crate::client::{Client, Request};
use crate::failure::Failure;
use serde::de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use std::cell::{Cell, RefCell};
use std::fmt;
use std::io::{self, BufReader, Read};

/// Longest row in bytes, and longest value of another key: a thousand times what kopid says of a flow.
const ROW_MAX: usize = 1 << 20;
/// Bytes read at a time.
const READ: usize = 64 << 10;

/// Takes one row.
type Take<'a> = dyn FnMut(Box<RawValue>) -> Result<(), Failure> + 'a;

/// Asks, and gives each row of the answer to `take` as it comes. Returns what else is in the answer.
///
/// # Errors
///
/// [`Failure`] if nothing comes in time, it is no answer of kopid's, it says that something failed, or `take` does. Rows may have been
/// taken before that.
pub(crate) fn for_each_row(
    client: &mut Client,
    request: &Request,
    take: &mut Take<'_>,
) -> Result<Map<String, Value>, Failure> {
    client.post(&request.line(), request.file())?;
    let state = State { failure: RefCell::new(None), room: Cell::new(ROW_MAX) };
    let mut reader = BufReader::with_capacity(READ, Source { client, state: &state });
    let answer = Answer { command: request.command(), take, state: &state };
    let read = answer.deserialize(&mut serde_json::Deserializer::from_reader(&mut reader));
    let end = read.and_then(|rest| {
        let mut end = [0];
        reader.read_exact(&mut end).map_err(serde_json::Error::io)?;
        Ok((rest, end == *b"\n" && reader.buffer().is_empty()))
    });
    if let Some(failure) = state.failure.take() {
        return Err(failure);
    }
    let (rest, is_whole) = end.map_err(|error| Failure::Garbage(error.to_string()))?;
    match (rest, is_whole) {
        (Rest { error: Some(error), .. }, _) => Err(Failure::said(&error)),
        (Rest { found: false, .. }, _) => Err(Failure::Garbage(format!("it has no list `{}`", request.command()))),
        (_, false) => Err(Failure::Garbage("it goes on after its end".into())),
        (Rest { others, .. }, true) => Ok(others),
    }
}

/// What reading and taking have in common: why it has ended, which JSON knows nothing of, and how many more bytes a row may have.
struct State {
    failure: RefCell<Option<Failure>>,
    room: Cell<usize>,
}

impl State {
    fn fail(&self, failure: Failure) -> io::Error {
        let error = io::Error::other(failure.to_string());
        *self.failure.borrow_mut() = Some(failure);
        error
    }
}

/// What comes from kopid.
struct Source<'a> {
    client: &'a mut Client,
    state: &'a State,
}

impl Read for Source<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.client.receive(buffer) {
            Ok(0) => Err(self.state.fail(Failure::Closed)),
            Ok(n) => match self.state.room.get().checked_sub(n) {
                Some(room) => {
                    self.state.room.set(room);
                    Ok(n)
                }
                None => Err(self.state.fail(Failure::TooLong(ROW_MAX))),
            },
            Err(failure) => Err(self.state.fail(failure)),
        }
    }
}

/// What there is beside the rows.
#[derive(Default)]
struct Rest {
    found: bool,
    error: Option<String>,
    others: Map<String, Value>,
}

struct Answer<'a, 't> {
    command: &'a str,
    take: &'a mut Take<'t>,
    state: &'a State,
}

impl<'de> DeserializeSeed<'de> for Answer<'_, '_> {
    type Value = Rest;

    fn deserialize<D: serde::Deserializer<'de>>(self, source: D) -> Result<Rest, D::Error> {
        source.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Answer<'_, '_> {
    type Value = Rest;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Rest, M::Error> {
        let mut rest = Rest::default();
        while let Some(key) = map.next_key::<String>()? {
            if key == self.command && !rest.found {
                map.next_value_seed(List { take: &mut *self.take, state: self.state })?;
                rest.found = true;
            } else if key == "error" {
                rest.error = map.next_value::<Value>()?.as_str().map(str::to_owned);
            } else {
                rest.others.insert(key, map.next_value()?);
            }
        }
        Ok(rest)
    }
}

struct List<'a, 't> {
    take: &'a mut Take<'t>,
    state: &'a State,
}

impl<'de> DeserializeSeed<'de> for List<'_, '_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, source: D) -> Result<(), D::Error> {
        source.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for List<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of rows")
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut rows: S) -> Result<(), S::Error> {
        while let Some(row) = rows.next_element::<Box<RawValue>>()? {
            self.state.room.set(ROW_MAX);
            (self.take)(row).map_err(|failure| S::Error::custom(self.state.fail(failure)))?;
        }
        Ok(())
    }
}
