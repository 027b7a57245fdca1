//! From a parsed TOML document to values, by a table of keys.
//!
//! A file is described once, by statics: its [`Section`]s, their [`Key`]s, each with its [`Form`], its need and a line
//! of documentation. The walk reads values by these descriptions, tells the user about every deviation instead of the
//! first, and the JSON schema is made from the same statics.

use std::cell::RefCell;
use std::fmt;
use std::ops::Range;

use serde_json::{Value as Json, json};
use serde_spanned::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use crate::report::{Report, quoted};
use crate::source::Source;

/// Largest text, in bytes, of which every error of syntax is shown. Of a longer one it is the first: the parser keeps
/// them all in memory, and a large file of garbage has millions.
const RECOVER_MAX: usize = 256 << 10;

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

/// One table of a file: `[name]`.
#[expect(missing_debug_implementations, reason = "a table of keys of different forms has nothing to show")]
pub struct Section {
    /// As it stands between the brackets.
    pub name: &'static str,
    /// What it is about, in one line.
    pub doc: &'static str,
    /// Every key that it may have.
    pub keys: &'static [&'static dyn AnyKey],
}

/// A whole file.
#[expect(missing_debug_implementations, reason = "see `Section`")]
pub struct Layout {
    /// Every table that it may have.
    pub sections: &'static [&'static Section],
    /// Names at the top of the file that are known, but not supported, each with the reason.
    pub later: &'static [(&'static str, &'static str)],
}

/// A parsed file.
#[derive(Debug)]
pub struct Document<'r> {
    root: DeTable<'r>,
    report: &'r Report<'r>,
}

impl<'r> Document<'r> {
    /// Parses the text of the report's source, and reports errors of syntax and unknown names at the top of the file.
    #[must_use]
    pub fn parse(layout: &Layout, report: &'r Report<'r>) -> Self {
        let source = report.source();
        report_control_characters(source, report);
        let text = source.text();
        let (root, mut errors) = if text.len() <= RECOVER_MAX {
            DeTable::parse_recoverable(text)
        } else {
            match DeTable::parse(text) {
                Ok(root) => (root, Vec::new()),
                Err(error) => (Spanned::new(0..0, DeTable::new()), vec![error]),
            }
        };
        errors.sort_by_key(|error| error.span().map_or(0, |span| span.start));
        for error in errors {
            report_syntax(&error, text, report);
        }
        let document = Self { root: root.into_inner(), report };
        document.check_names(layout);
        document
    }

    /// The table that `section` describes. One that is absent counts as empty; one that is something else is reported,
    /// and `None`.
    #[must_use]
    pub fn table(&self, section: &'static Section) -> Option<Table<'_>> {
        let end = self.report.source().text().len();
        let Some((_, value)) = entry(&self.root, section.name) else {
            return Some(Table {
                section,
                entries: None,
                span: end..end,
                report: self.report,
                taken: RefCell::default(),
            });
        };
        let DeValue::Table(entries) = value.get_ref() else {
            let name = section.name;
            let message = format!("`{name}` must be a table, found {}", describe(value.get_ref()));
            self.report.error(value.span(), name, message, Some(format!("write it once, as [{name}]")));
            return None;
        };
        let table = Table {
            section,
            entries: Some(entries),
            span: value.span(),
            report: self.report,
            taken: RefCell::default(),
        };
        table.check_names();
        Some(table)
    }

    fn check_names(&self, layout: &Layout) {
        for (name, span) in in_file_order(&self.root) {
            if layout.sections.iter().any(|section| section.name == name) || self.report.is_full() {
                continue;
            }
            if let Some((_, why)) = layout.later.iter().find(|(later, _)| *later == name) {
                let message = format!("{} is not supported by this version: {why}", quoted(name));
                self.report.error(span, name, message, Some("leave it out".to_owned()));
                continue;
            }
            let names: Vec<_> = layout.sections.iter().map(|section| section.name).collect();
            let home = layout.sections.iter().find(|section| section.keys.iter().any(|key| key.name() == name));
            let help = match (home, nearest(name, &names)) {
                (Some(section), _) => format!("it belongs into [{}]", section.name),
                (None, Some(near)) => format!("did you mean `{near}`?"),
                (None, None) => format!("known are [{}]", names.join("], [")),
            };
            let what = match entry(&self.root, name).map(|(_, value)| value.get_ref()) {
                Some(DeValue::Table(_)) => "table",
                _ => "key",
            };
            self.report.error(
                span,
                name,
                format!("unknown {what} {} at the top of the file", quoted(name)),
                Some(help),
            );
        }
    }
}

/// One table of a file, while its keys are taken.
///
/// Dropping it asserts, in debug builds, that every key of the section was asked for: a key that is described and not
/// read would be ignored silently.
pub struct Table<'r> {
    section: &'static Section,
    /// `None` if the file does not have the table.
    entries: Option<&'r DeTable<'r>>,
    /// Where it begins; the end of the file if it does not.
    span: Range<usize>,
    report: &'r Report<'r>,
    /// Names asked for so far.
    taken: RefCell<Vec<&'static str>>,
}

impl fmt::Debug for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table").field("section", &self.section.name).field("entries", &self.entries).finish()
    }
}

impl<'r> Table<'r> {
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

    /// The value of `key` as it stands in the file, for checks that concern more than one key.
    #[must_use]
    pub fn item<F>(&self, key: &'static Key<F>) -> Option<Item<'r>> {
        self.taken.borrow_mut().push(key.name);
        let (_, value) = entry(self.entries?, key.name)?;
        Some(Item {
            section: self.section.name,
            name: key.name.to_owned(),
            value: value.get_ref(),
            span: value.span(),
            report: self.report,
        })
    }

    /// Reports an error that concerns `key`, at its value, or at the table if it has its default.
    pub fn error<F>(&self, key: &'static Key<F>, message: String, help: Option<String>) {
        let span = self.span_of(key);
        self.report.error(span, &format!("{}.{}", self.section.name, key.name), message, help);
    }

    /// Reports a warning that concerns `key`, as [`Table::error`] does.
    pub fn warning<F>(&self, key: &'static Key<F>, message: String, help: Option<String>) {
        let span = self.span_of(key);
        self.report.warning(span, &format!("{}.{}", self.section.name, key.name), message, help);
    }

    fn span_of<F>(&self, key: &'static Key<F>) -> Range<usize> {
        self.item(key).map_or_else(|| self.span.clone(), |item| item.span)
    }

    fn report_missing<F: Form, T>(&self, key: &Key<F>) -> Option<T> {
        // What follows an error of syntax may have been swallowed by it.
        if !self.report.is_broken() {
            let Section { name: table, .. } = self.section;
            let message = match self.entries {
                Some(_) => format!("`{}` is missing in [{table}]", key.name),
                None => format!("`{}` is missing: there is no [{table}]", key.name),
            };
            let help = Some(format!("it must be {}: {}", key.form.expected(), key.doc));
            self.report.error(self.span.clone(), &format!("{table}.{}", key.name), message, help);
        }
        None
    }

    fn check_names(&self) {
        let Some(entries) = self.entries else { return };
        for (name, span) in in_file_order(entries) {
            let names: Vec<_> = self.section.keys.iter().map(|key| key.name()).collect();
            if names.contains(&name) {
                continue;
            }
            let help = nearest(name, &names).map_or_else(
                || format!("known are `{}`", names.join("`, `")),
                |near| format!("did you mean `{near}`?"),
            );
            let table = self.section.name;
            self.report.error(
                span,
                &format!("{table}.{name}"),
                format!("unknown key {} in [{table}]", quoted(name)),
                Some(help),
            );
        }
    }
}

impl Drop for Table<'_> {
    fn drop(&mut self) {
        let taken = self.taken.borrow();
        let all = self.section.keys.iter().all(|key| taken.contains(&key.name()));
        debug_assert!(all || std::thread::panicking(), "[{}] has a key that nobody read", self.section.name);
    }
}

/// One value of a file, with its name and place.
#[derive(Debug)]
pub struct Item<'r> {
    section: &'static str,
    /// `cores`, or `cores[1]` for an element of a list.
    name: String,
    /// What stands in the file.
    pub value: &'r DeValue<'r>,
    /// Where it stands, as a range of bytes.
    pub span: Range<usize>,
    report: &'r Report<'r>,
}

impl<'r> Item<'r> {
    /// Reports that the value is not of `form`.
    pub fn refuse<T>(&self, form: &impl Form, help: Option<String>) -> Option<T> {
        self.fail(&format!("must be {}, found {}", form.expected(), describe(self.value)), help)
    }

    /// Reports `what` about the value: "must be ...".
    pub fn fail<T>(&self, what: &str, help: Option<String>) -> Option<T> {
        let Self { section, name, .. } = self;
        self.report.error(
            self.span.clone(),
            &format!("{section}.{name}"),
            format!("`{name}` in [{section}] {what}"),
            help,
        );
        None
    }

    /// The file that the value stands in.
    #[must_use]
    pub fn source(&self) -> &'r Source {
        self.report.source()
    }

    /// The elements, if the value is a list.
    #[must_use]
    pub fn elements(&self) -> Option<Vec<Item<'r>>> {
        let DeValue::Array(elements) = self.value else { return None };
        let item = |(index, element): (usize, &'r Spanned<DeValue<'r>>)| Item {
            section: self.section,
            name: format!("{}[{index}]", self.name),
            value: element.get_ref(),
            span: element.span(),
            report: self.report,
        };
        Some(elements.iter().enumerate().map(item).collect())
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

fn default_value<F: Form>(key: &Key<F>, text: &'static str) -> F::Value {
    let source = Source::from_bytes("default", text.as_bytes()).expect("a default is short text");
    let report = Report::new(&source);
    let value = DeValue::parse(text).expect("a default is TOML");
    let item =
        Item { section: "", name: key.name.to_owned(), value: value.get_ref(), span: value.span(), report: &report };
    key.form.read(&item).expect("a default is of the form of its key")
}

fn entry<'t>(table: &'t DeTable<'t>, name: &str) -> Option<(&'t Spanned<DeString<'t>>, &'t Spanned<DeValue<'t>>)> {
    table.get_key_value(name)
}

/// The names of a table with their places, first in the file first.
fn in_file_order<'t>(table: &'t DeTable<'_>) -> Vec<(&'t str, Range<usize>)> {
    let mut names: Vec<_> = table.keys().map(|key| (key.get_ref().as_ref(), key.span())).collect();
    names.sort_by_key(|(_, span)| span.start);
    names
}

/// TOML has no place for control characters, not even in comments. The parser's own messages do not name them.
fn report_control_characters(source: &Source, report: &Report<'_>) {
    let text = source.text();
    for (at, c) in text.char_indices().filter(|(_, c)| c.is_ascii_control() && !matches!(c, '\t' | '\n' | '\r')) {
        let name = if c == '\0' { " (NUL)" } else { "" };
        let message = format!("control character U+{:04X}{name} is not allowed", u32::from(c));
        report.syntax(at..at + 1, message, Some("remove it, or write it as an escape in a string".to_owned()));
    }
}

/// Reports an error of the TOML parser, with the two most frequent ones in our words.
fn report_syntax(error: &toml::de::Error, text: &str, report: &Report<'_>) {
    let span = error.span().unwrap_or(0..0);
    let found = text.get(span.clone()).unwrap_or_default();
    let (message, help) = match error.message() {
        "duplicate key" => (
            format!("{} is set twice", quoted(found)),
            Some("a name may stand only once in its table, and a table only once in the file".to_owned()),
        ),
        message if message.starts_with("string values must be quoted") && found.is_empty() => {
            ("a value is missing after `=`".to_owned(), None)
        }
        message if is_bare_word(message, found) => {
            (format!("{} is not a value", quoted(found)), Some("a string needs quotes: \"...\"".to_owned()))
        }
        message => (message.to_owned(), None),
    };
    report.syntax(span, message, help);
}

/// Whether the parser, with `message` about `found`, most likely looks at a string without quotes.
fn is_bare_word(message: &str, found: &str) -> bool {
    // The first letter of a word makes the parser expect `true`, `inf`, a date and so on.
    message.starts_with("string values must be quoted")
        || (message.starts_with("invalid ") && found.starts_with(char::is_alphanumeric))
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
