//! From a parsed TOML document to values, by a table of keys.
//!
//! A file is described once, by statics: its [`Section`]s, their [`Key`]s, each with its [`Form`], its need and a line
//! of documentation. A table inside a table is a key of the form [`Nested`], with a section of its own. The walk reads
//! values by these descriptions, tells the user about every deviation instead of the first, and the JSON schema is made
//! from the same statics.

use std::cell::RefCell;
use std::fmt;
use std::ops::Range;

use serde_json::{Value as Json, json};
use serde_spanned::Spanned;
use toml::de::{DeString, DeTable, DeValue};

pub use crate::document::Document;
pub(crate) use crate::layout::Place;
pub use crate::layout::{Layout, Section};
use crate::report::{Report, quoted};
use crate::schema;
use crate::source::Source;

/// How a value may look, and what it means.
pub trait Form: Sync {
    /// What a value becomes.
    type Value;

    /// What would be right, to complete "must be ...".
    fn expected(&self) -> String;

    /// The JSON schema of a value.
    fn schema(&self) -> Json;

    /// Converts `item`, or reports why not and returns `None`.
    fn read(&self, item: &Item<'_>) -> Option<Self::Value>;
}

/// Whether a key has to be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// The file is refused without it.
    Required,
    /// Without it, the value is this TOML text.
    Default(&'static str),
    /// Without it there is no value.
    Optional,
}

/// One key of a section.
#[derive(Debug)]
pub struct Key<F> {
    /// As it stands in the file.
    pub name: &'static str,
    /// What it does, in one line.
    pub doc: &'static str,
    /// What its value may be.
    pub form: F,
    /// Whether it has to be there.
    pub need: Need,
}

/// A [`Key`] of any form, as a section lists it.
pub trait AnyKey: Sync {
    /// As it stands in the file.
    fn name(&self) -> &'static str;
    /// Whether it has to be there.
    fn need(&self) -> Need;
    /// The JSON schema of the key.
    fn schema(&self) -> Json;
}

impl<F: Form> AnyKey for Key<F> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn need(&self) -> Need {
        self.need
    }

    fn schema(&self) -> Json {
        let mut schema = self.form.schema();
        schema["description"] = json!(self.doc);
        if let Need::Default(text) = self.need {
            // Strings, whole numbers and lists of them are written alike in TOML and JSON.
            schema["default"] = serde_json::from_str(text).expect("a default is also JSON");
        }
        schema
    }
}

/// The form of a table inside a table, which [`Table::nested`] opens.
#[expect(missing_debug_implementations, reason = "see `Section`")]
pub struct Nested(pub &'static Section);

impl Form for Nested {
    type Value = ();

    fn expected(&self) -> String {
        let keys: Vec<_> = self.0.keys.iter().take(2).map(|key| format!("{} = ...", key.name())).collect();
        format!("a table such as {{ {} }}", keys.join(", "))
    }

    fn schema(&self) -> Json {
        schema::table(self.0)
    }

    fn read(&self, item: &Item<'_>) -> Option<()> {
        match item.value {
            DeValue::Table(_) => Some(()),
            _ => item.refuse(self, None),
        }
    }
}

/// One table of a file, while its keys are taken.
///
/// Dropping it asserts, in debug builds, that every key of the section was asked for: a key that is described and not
/// read would be ignored silently.
pub struct Table<'r> {
    place: Place,
    /// `None` if the file does not have the table.
    entries: Option<&'r DeTable<'r>>,
    /// Where it begins; the end of the file if it does not.
    span: Range<usize>,
    report: &'r Report<'r>,
    /// Names asked for so far, in debug builds.
    taken: RefCell<Vec<&'static str>>,
}

impl fmt::Debug for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table").field("section", &self.place.section.name).field("entries", &self.entries).finish()
    }
}

impl<'r> Table<'r> {
    pub(crate) fn new(
        place: Place,
        entries: Option<&'r DeTable<'r>>,
        span: Range<usize>,
        report: &'r Report<'r>,
    ) -> Self {
        Self { place, entries, span, report, taken: RefCell::default() }
    }

    /// The value of a required key, or of one with a default. `None` after an error was reported.
    ///
    /// # Panics
    ///
    /// If the key is optional, or its default is not of its form: both are bugs of the table of keys.
    #[must_use]
    pub fn get<F: Form>(&self, key: &'static Key<F>) -> Option<F::Value> {
        if let Some(item) = self.item(key) {
            return key.form.read(&item);
        }
        match key.need {
            Need::Default(text) => Some(default_value(key, text)),
            Need::Required => self.report_missing(key),
            Need::Optional => panic!("`{}` is optional: use `optional`", key.name),
        }
    }

    /// The value of an optional key: `Some(None)` if it is absent, `None` after an error was reported.
    #[must_use]
    pub fn optional<F: Form>(&self, key: &'static Key<F>) -> Option<Option<F::Value>> {
        self.item(key).map_or(Some(None), |item| key.form.read(&item).map(Some))
    }

    /// The table under `key`: `Some(None)` if it is absent, `None` after an error was reported.
    #[must_use]
    pub fn nested(&self, key: &'static Key<Nested>) -> Option<Option<Table<'r>>> {
        let Some(item) = self.item(key) else { return Some(None) };
        let DeValue::Table(entries) = item.value else { return item.refuse(&key.form, None) };
        let place = Place { section: key.form.0, many: self.place.many };
        let table = Table::new(place, Some(entries), item.span, self.report);
        table.check_names();
        Some(Some(table))
    }

    /// The value of `key` as it stands in the file, for checks that concern more than one key.
    #[must_use]
    pub fn item<F>(&self, key: &'static Key<F>) -> Option<Item<'r>> {
        if cfg!(debug_assertions) {
            self.taken.borrow_mut().push(key.name);
        }
        let (_, value) = entry(self.entries?, key.name)?;
        Some(Item {
            place: self.place,
            name: key.name,
            index: None,
            value: value.get_ref(),
            span: value.span(),
            report: self.report,
        })
    }

    /// The line on which the table begins, from 1.
    #[must_use]
    pub fn line(&self) -> usize {
        self.report.source().line_of(self.span.start)
    }

    /// The offset in bytes at which the table begins.
    #[must_use]
    pub const fn start(&self) -> usize {
        self.span.start
    }

    /// Lets go of a table whose other keys nobody will read.
    pub fn abandon(self) {
        self.taken.borrow_mut().extend(self.place.section.keys.iter().map(|key| key.name()));
    }

    /// Reports `what` about the key `name`, at its value, or at the table if it is not there.
    pub fn refuse_key(&self, name: &str, what: &str, help: Option<String>) {
        let span = self.entries.and_then(|entries| entry(entries, name)).map(|(_, value)| value.span());
        let message = format!("`{}` {} {what}", self.place.path(name), self.place.home());
        self.report.error(span.unwrap_or_else(|| self.span.clone()), &self.place.key(name), message, help);
    }

    /// Reports an error that concerns `key`, at its value, or at the table if it has its default.
    pub fn error<F>(&self, key: &'static Key<F>, message: String, help: Option<String>) {
        let span = self.span_of(key);
        self.report.error(span, &self.place.key(key.name), message, help);
    }

    /// Reports a warning that concerns `key`, as [`Table::error`] does.
    pub fn warning<F>(&self, key: &'static Key<F>, message: String, help: Option<String>) {
        let span = self.span_of(key);
        self.report.warning(span, &self.place.key(key.name), message, help);
    }

    /// Reports a warning at a value of the table.
    pub fn warning_at(&self, item: &Item<'_>, message: String, help: Option<String>) {
        self.report.warning(item.span.clone(), &item.key(), message, help);
    }

    fn span_of<F>(&self, key: &'static Key<F>) -> Range<usize> {
        self.item(key).map_or_else(|| self.span.clone(), |item| item.span)
    }

    fn report_missing<F: Form, T>(&self, key: &Key<F>) -> Option<T> {
        // What follows an error of syntax may have been swallowed by it.
        if !self.report.is_broken() {
            let Self { place, .. } = self;
            let path = place.path(key.name);
            let message = match self.entries {
                Some(_) => format!("`{path}` is missing {}", place.home()),
                None => format!("`{path}` is missing: there is no {place}"),
            };
            let help = Some(format!("it must be {}: {}", key.form.expected(), key.doc));
            self.report.error(self.span.clone(), &place.key(key.name), message, help);
        }
        None
    }

    pub(crate) fn check_names(&self) {
        let Some(entries) = self.entries else { return };
        let is_known = |name: &str| self.place.section.keys.iter().any(|key| key.name() == name);
        if entries.keys().all(|key| is_known(key.get_ref())) {
            return;
        }
        let names: Vec<_> = self.place.section.keys.iter().map(|key| key.name()).collect();
        for (name, span) in in_file_order(entries) {
            if is_known(name) {
                continue;
            }
            let help = nearest(name, &names).map_or_else(
                || format!("known are `{}`", names.join("`, `")),
                |near| format!("did you mean `{near}`?"),
            );
            let Self { place, .. } = self;
            let message = format!("unknown key {} {}", quoted(&place.path(name)), place.home());
            self.report.error(span, &place.key(name), message, Some(help));
        }
    }
}

impl Drop for Table<'_> {
    fn drop(&mut self) {
        let taken = self.taken.borrow();
        let all = self.place.section.keys.iter().all(|key| taken.contains(&key.name()));
        debug_assert!(all || std::thread::panicking(), "{} has a key that nobody read", self.place.key(""));
    }
}

/// One value of a file, with its name and place.
pub struct Item<'r> {
    place: Place,
    name: &'static str,
    /// Its position, if it is an element of a list.
    index: Option<usize>,
    /// What stands in the file.
    pub value: &'r DeValue<'r>,
    /// Where it stands, as a range of bytes.
    pub span: Range<usize>,
    report: &'r Report<'r>,
}

impl fmt::Debug for Item<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Item").field("name", &self.name()).field("value", &self.value).finish()
    }
}

impl<'r> Item<'r> {
    /// Reports that the value is not of `form`.
    pub fn refuse<T>(&self, form: &impl Form, help: Option<String>) -> Option<T> {
        if self.report.is_full() {
            return self.fail("", None);
        }
        self.fail(&format!("must be {}, found {}", form.expected(), describe(self.value)), help)
    }

    /// Reports `what` about the value: "must be ...".
    pub fn fail<T>(&self, what: &str, help: Option<String>) -> Option<T> {
        let message = match self.report.is_full() {
            true => String::new(),
            false => format!("`{}` {} {what}", self.place.path(&self.name()), self.place.home()),
        };
        self.report.error(self.span.clone(), &self.key(), message, help);
        None
    }

    /// Whether the report has room for the text of another problem.
    #[must_use]
    pub fn is_shown(&self) -> bool {
        !self.report.is_full()
    }

    /// The file that the value stands in.
    #[must_use]
    pub fn source(&self) -> &'r Source {
        self.report.source()
    }

    /// The value's name with all of its tables: `dataplane.cores[1]`.
    #[must_use]
    pub fn key(&self) -> String {
        self.place.key(&self.name())
    }

    /// `cores`, or `cores[1]` for an element of a list.
    fn name(&self) -> String {
        self.index.map_or_else(|| self.name.to_owned(), |index| format!("{}[{index}]", self.name))
    }

    /// The elements, if the value is a list.
    #[must_use]
    pub fn elements(&self) -> Option<impl ExactSizeIterator<Item = Item<'r>> + use<'r>> {
        let DeValue::Array(elements) = self.value else { return None };
        let Self { place, name, report, .. } = *self;
        let item = move |(index, element): (usize, &'r Spanned<DeValue<'r>>)| Item {
            place,
            name,
            index: Some(index),
            value: element.get_ref(),
            span: element.span(),
            report,
        };
        Some(elements.iter().enumerate().map(item))
    }

    /// Runs `each` on the elements of a list, or on the value if it is none.
    pub fn each(&self, mut each: impl FnMut(&Item<'r>)) {
        match self.elements() {
            Some(elements) => elements.for_each(|element| each(&element)),
            None => each(self),
        }
    }
}

/// What `value` is, in a message: its type, and the value itself if it is short.
#[must_use]
pub fn describe(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("the string {}", quoted(&format!("\"{text}\""))),
        DeValue::Integer(number) => format!("the whole number {}", quoted(&number.to_string())),
        DeValue::Float(number) => format!("the fraction {}", quoted(&number.to_string())),
        DeValue::Boolean(value) => format!("the truth value `{value}`"),
        DeValue::Datetime(_) => "a date or time".to_owned(),
        DeValue::Array(_) => "a list".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
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

/// The section of a default.
static NOWHERE: Section = Section { name: "", doc: "", keys: &[] };

fn default_value<F: Form>(key: &Key<F>, text: &'static str) -> F::Value {
    let source = Source::from_bytes("default", text.as_bytes()).expect("a default is short text");
    let report = Report::new(&source);
    let value = DeValue::parse(text).expect("a default is TOML");
    let place = Place::one(&NOWHERE);
    let (value, span) = (value.get_ref(), value.span());
    let item = Item { place, name: key.name, index: None, value, span, report: &report };
    key.form.read(&item).expect("a default is of the form of its key")
}

pub(crate) fn entry<'t>(
    table: &'t DeTable<'t>,
    name: &str,
) -> Option<(&'t Spanned<DeString<'t>>, &'t Spanned<DeValue<'t>>)> {
    table.get_key_value(name)
}

/// The names of a table with their places, first in the file first.
pub(crate) fn in_file_order<'t>(table: &'t DeTable<'_>) -> Vec<(&'t str, Range<usize>)> {
    let mut names: Vec<_> = table.keys().map(|key| (key.get_ref().as_ref(), key.span())).collect();
    names.sort_by_key(|(_, span)| span.start);
    names
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
