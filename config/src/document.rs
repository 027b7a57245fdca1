//! A file as a whole: its syntax, the tables at its top, and the places in them.

use std::cell::OnceCell;
use std::fmt;
use std::ops::Range;

use serde::de::DeserializeOwned;
use serde_json::Value as Json;
use serde_spanned::Spanned;
use toml::de::{DeTable, DeValue};
use toml_parser::lexer::TokenKind;

use crate::de::{self, Node, Refusal};
use crate::report::{Diagnostic, Report, quoted};
use crate::source::Source;
use crate::value::nearest;

/// Largest text, in bytes, of which every error of syntax is shown. Of a longer one it is the first: the parser keeps
/// them all in memory, and a large file of garbage has millions.
const RECOVER_MAX: usize = 256 << 10;

/// Most tables of a file, those that a dotted key or a header makes on its way among them. Each takes more than a
/// kilobyte of memory while the file is read. A policy of 100,000 rules has half a million at the very most.
const TABLES_MAX: usize = 600_000;
/// Most values of a file, the elements of lists among them. Each takes some hundred bytes.
const VALUES_MAX: usize = 2_000_000;
/// Most words, signs, blanks and line breaks of a file. Each takes some hundred bytes while the file is parsed.
const TOKENS_MAX: usize = 8_000_000;

/// What may stand at the top of a file.
#[derive(Debug)]
pub struct Layout {
    /// The keys before the first table.
    pub keys: &'static [&'static str],
    /// Every table that it may have once: `[name]`.
    pub tables: &'static [&'static str],
    /// Every table that it may have many times: `[[name]]`.
    pub lists: &'static [&'static str],
    /// The JSON schema of the file.
    pub schema: fn() -> schemars::Schema,
}

impl Layout {
    /// The names, as they stand in the file.
    fn names(&self) -> Vec<&'static str> {
        [self.keys, self.tables, self.lists].concat()
    }

    /// Everything that may stand at the top, as a message lists it.
    fn list(&self) -> String {
        let keys = self.keys.iter().map(|key| format!("`{key}`"));
        keys.chain(self.names().iter().skip(self.keys.len()).map(|name| self.header(name)))
            .collect::<Vec<_>>()
            .join(", ")
    }

    fn header(&self, name: &str) -> String {
        if self.lists.contains(&name) { format!("[[{name}]]") } else { format!("[{name}]") }
    }
}

/// A parsed file.
#[derive(Debug)]
pub struct Document<'r> {
    root: DeTable<'r>,
    /// What stands for a table that is not there.
    absent: DeValue<'r>,
    layout: &'static Layout,
    /// The schema of the file, once a message asks for it.
    schema: OnceCell<Json>,
    report: &'r Report<'r>,
}

/// One table of a file: what was read of it, and its place.
#[derive(Debug)]
pub struct Entry<'r, T> {
    /// Without the keys that were wrong; `None` if it cannot be without these.
    pub value: Option<T>,
    /// Whether no key was wrong.
    pub is_whole: bool,
    /// Where it is.
    pub place: Place<'r>,
}

impl<'r, T: DeserializeOwned> Entry<'r, T> {
    /// Reads the table `value`, and reports what is wrong in it or missing.
    fn read(value: &'r DeValue<'r>, place: Place<'r>) -> Self {
        let (value, is_whole) = de::read(&place, value, |node| T::deserialize(node));
        if value.is_none() {
            place.report_missing();
        }
        Self { value, is_whole, place }
    }
}

impl<T> Entry<'_, T> {
    /// The table, if nothing in it was wrong.
    pub fn whole(self) -> Option<T> {
        self.value.filter(|_| self.is_whole)
    }
}

impl<'r> Document<'r> {
    /// Parses the text of the report's source, and reports errors of syntax and unknown names at the top of the file.
    #[must_use]
    pub fn parse(layout: &'static Layout, report: &'r Report<'r>) -> Self {
        let source = report.source();
        report_control_characters(source, report);
        let text = source.text();
        let (root, mut errors) = if text.len() <= RECOVER_MAX {
            DeTable::parse_recoverable(text)
        } else if report_abundance(text, report) {
            (Spanned::new(0..0, DeTable::new()), Vec::new())
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
        let (root, absent) = (root.into_inner(), DeValue::Table(DeTable::new()));
        let document = Self { root, absent, layout, schema: OnceCell::new(), report };
        document.check_names();
        document
    }

    /// The value of the key `name` before the first table, by `read`. `Some(None)` if it is not there.
    pub(crate) fn key<T>(
        &self,
        name: &'static str,
        read: impl Fn(Node<'_, '_>) -> Result<T, Refusal>,
    ) -> Option<Option<T>> {
        let Some(value) = self.root.get(name) else { return Some(None) };
        let place = Place { key: name, section: "", many: false, table: None, span: value.span(), document: self };
        let (value, is_whole) = de::read(&place, value.get_ref(), read);
        is_whole.then_some(value)
    }

    /// The table `[name]`. One that is absent counts as empty; one that is something else is reported.
    #[must_use]
    pub fn table<T: DeserializeOwned>(&self, name: &'static str) -> Entry<'_, T> {
        match self.root.get(name) {
            Some(value) => self.entry(name, false, value),
            None => {
                let end = self.report.source().text().len();
                let place = Place { key: "", section: name, many: false, table: None, span: end..end, document: self };
                Entry::read(&self.absent, place)
            }
        }
    }

    /// The tables `[[name]]` in the order of the file. What is something else is reported.
    pub fn tables<T: DeserializeOwned>(&self, name: &'static str) -> impl Iterator<Item = Entry<'_, T>> {
        let elements = match self.root.get(name).map(|value| (value, value.get_ref())) {
            None => [].iter(),
            Some((_, DeValue::Array(elements))) => elements.iter(),
            Some((value, _)) => {
                self.refuse(name, true, value);
                [].iter()
            }
        };
        elements.map(move |value| self.entry(name, true, value))
    }

    fn entry<'d, T: DeserializeOwned>(
        &'d self,
        section: &'static str,
        many: bool,
        value: &'d Spanned<DeValue<'r>>,
    ) -> Entry<'d, T> {
        let (span, document) = (value.span(), self);
        let DeValue::Table(table) = value.get_ref() else {
            self.refuse(section, many, value);
            let place = Place { key: "", section, many, table: None, span, document };
            return Entry { value: None, is_whole: false, place };
        };
        let place = Place { key: "", section, many, table: Some(table), span, document };
        Entry::read(value.get_ref(), place)
    }

    /// Warns of something that `key` says on the line of the byte `start`.
    pub(crate) fn warning(&self, start: usize, key: &str, message: String, help: String) {
        let text = self.report.source().text();
        let end =
            text.get(start..).and_then(|rest| rest.find(['\r', '\n'])).map_or(text.len(), |length| start + length);
        self.report.warning(start..end, key, message, Some(help));
    }

    fn refuse(&self, name: &str, many: bool, value: &Spanned<DeValue<'_>>) {
        let (what, help) = match many {
            false => ("a table", format!("write it once, as [{name}]")),
            true => ("a list of tables", format!("write [[{name}]] above each")),
        };
        let message = format!("`{name}` must be {what}, found {}", describe(value.get_ref()));
        self.report.error(value.span(), name, message, Some(help));
    }

    /// The schema of the table `name`, or of each of them.
    fn schema(&self, name: &str) -> &Json {
        let table = &self.schema.get_or_init(|| (self.layout.schema)().into())["properties"][name];
        table.get("items").unwrap_or(table)
    }

    /// The header of the table that has the key `name`.
    fn home(&self, name: &str) -> Option<String> {
        let mut tables = self.layout.tables.iter().chain(self.layout.lists);
        let table = tables.find(|table| !self.schema(table)["properties"][name].is_null());
        table.map(|table| self.layout.header(table))
    }

    fn check_names(&self) {
        let (layout, known) = (self.layout, self.layout.names());
        if self.root.keys().all(|key| known.contains(&key.get_ref().as_ref())) {
            return;
        }
        for (name, span) in in_file_order(&self.root) {
            if known.contains(&name) {
                continue;
            }
            if self.report.is_full() {
                // The text is not needed.
                self.report.error(span, name, String::new(), None);
                continue;
            }
            let help = match (self.home(name), nearest(name, &known)) {
                (Some(header), _) => format!("it belongs into {header}"),
                (None, Some(near)) => format!("did you mean `{near}`?"),
                (None, None) => format!("known are {}", layout.list()),
            };
            let is_table = matches!(self.root.get(name).map(Spanned::get_ref), Some(DeValue::Table(_)));
            let what = if is_table { "table" } else { "key" };
            let message = format!("unknown {what} {} at the top of the file", quoted(name));
            self.report.error(span, name, message, Some(help));
        }
    }
}

/// Where a table is, to report what is wrong with its keys.
#[derive(Clone, Debug)]
pub struct Place<'r> {
    /// The name of the one key of which it is the place; else empty.
    key: &'static str,
    /// Its name, as it stands between the brackets; empty at the top of the file.
    section: &'static str,
    /// Whether there may be many of it.
    many: bool,
    /// `None` if the file does not have the table.
    table: Option<&'r DeTable<'r>>,
    /// Where it begins; the end of the file if it does not.
    span: Range<usize>,
    document: &'r Document<'r>,
}

/// The header of the table.
impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.many { write!(f, "[[{}]]", self.section) } else { write!(f, "[{}]", self.section) }
    }
}

impl<'r> Place<'r> {
    /// Whether the report has room for the text of another problem.
    #[must_use]
    pub fn is_shown(&self) -> bool {
        !self.document.report.is_full()
    }

    /// The line on which the table begins, from 1.
    #[must_use]
    pub fn line(&self) -> usize {
        self.document.report.source().line_of(self.span.start)
    }

    /// Where the table begins, as a range of bytes.
    #[must_use]
    pub fn span(&self) -> Range<usize> {
        self.span.clone()
    }

    /// A diagnostic without text that points at the value of `path`, and calls it `key`.
    pub(crate) fn locate(&self, path: &str, key: &str) -> Diagnostic {
        let place = self.document.report.source().error_at(self.span_of(path), String::new());
        Diagnostic { key: Some(self.key(key)), ..place }
    }

    /// The value at `path`, such as `match.src`, `class[1]`. The first element of what is no list is the value itself.
    fn find(&self, path: &str) -> Option<&'r Spanned<DeValue<'r>>> {
        let (path, index) = match path.strip_suffix(']').and_then(|path| path.rsplit_once('[')) {
            Some((path, index)) => (path, index.parse::<usize>().ok()),
            None => (path, None),
        };
        let mut names = path.split('.');
        let first = self.table?.get(names.next()?)?;
        let value = names.try_fold(first, |value, name| value.get_ref().as_table()?.get(name))?;
        match (index, value.get_ref()) {
            (Some(index), DeValue::Array(elements)) => elements.get(index),
            _ => Some(value),
        }
    }

    /// Whether the key at `path` is stated.
    #[must_use]
    pub fn states(&self, path: &str) -> bool {
        self.find(path).is_some()
    }

    /// The path of an element of what is at `path`: `path[index]` if that is a list.
    #[must_use]
    pub fn element(&self, path: &str, index: usize) -> String {
        match self.find(path).map(Spanned::get_ref) {
            Some(DeValue::Array(_)) => format!("{path}[{index}]"),
            _ => path.to_owned(),
        }
    }

    /// Where the value at `path` is; where the table begins if it is not stated.
    #[must_use]
    pub fn span_of(&self, path: &str) -> Range<usize> {
        self.find(path).map_or_else(|| self.span(), Spanned::span)
    }

    /// Where the table is, as a message says it.
    pub(crate) fn home(&self) -> String {
        if self.section.is_empty() { "at the top of the file".to_owned() } else { format!("in {self}") }
    }

    /// `path` with its table: `rule.match.dst_port`.
    pub(crate) fn key(&self, path: &str) -> String {
        match (self.section, path) {
            ("", _) => self.key.to_owned(),
            (section, path) => format!("{section}.{path}"),
        }
    }

    /// Reports an error at the value of `path`: the key, its table, and `what`.
    pub fn fail(&self, path: &str, what: &str, help: Option<String>) {
        self.report(self.span_of(path), path, what, help);
    }

    /// Reports an error at the value of `path`, in a sentence of its own.
    pub fn error(&self, path: &str, message: String, help: Option<String>) {
        self.error_at(self.span_of(path), path, message, help);
    }

    /// Reports a warning at the value of `path`.
    pub fn warning(&self, path: &str, message: String, help: &str) {
        self.document.report.warning(self.span_of(path), &self.key(path), message, Some(help.to_owned()));
    }

    pub(crate) fn error_at(&self, span: Range<usize>, path: &str, message: String, help: Option<String>) {
        self.document.report.error(span, &self.key(path), message, help);
    }

    pub(crate) fn report(&self, span: Range<usize>, path: &str, what: &str, help: Option<String>) {
        let message = match self.document.report.is_full() {
            true => String::new(),
            false => format!("`{}` {} {what}", if path.is_empty() { self.key } else { path }, self.home()),
        };
        self.error_at(span, path, message, help);
    }

    /// Reports each key that the table must have and that is not stated.
    pub(crate) fn report_missing(&self) {
        // What follows an error of syntax may have been swallowed by it.
        if self.document.report.is_broken() {
            return;
        }
        let schema = self.document.schema(self.section);
        let required = schema["required"].as_array().into_iter().flatten().filter_map(Json::as_str);
        for name in required.filter(|name| !self.states(name)) {
            let message = match self.table {
                Some(_) => format!("`{name}` is missing {}", self.home()),
                None => format!("`{name}` is missing: there is no {self}"),
            };
            let help = schema["properties"][name]["description"].as_str().map(str::to_owned);
            self.error(name, message, help);
        }
    }
}

/// The names of a table with their places, first in the file first.
pub(crate) fn in_file_order<'t>(table: &'t DeTable<'_>) -> Vec<(&'t str, Range<usize>)> {
    let mut names: Vec<_> = table.keys().map(|key| (key.get_ref().as_ref(), key.span())).collect();
    names.sort_by_key(|(_, span)| span.start);
    names
}

/// What `value` is, in a message: its type, and the value itself if it is short.
#[must_use]
pub(crate) fn describe(value: &DeValue<'_>) -> String {
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

/// TOML has no place for control characters, not even in comments. The parser's own messages do not name them.
fn report_control_characters(source: &Source, report: &Report<'_>) {
    let text = source.text();
    for (at, c) in text.char_indices().filter(|(_, c)| c.is_ascii_control() && !matches!(c, '\t' | '\n' | '\r')) {
        let name = if c == '\0' { " (NUL)" } else { "" };
        let message = format!("control character U+{:04X}{name} is not allowed", u32::from(c));
        report.syntax(at..at + 1, message, Some("remove it, or write it as an escape in a string".to_owned()));
    }
}

/// Reports more tables or values than memory is good for, and whether there were.
fn report_abundance(text: &str, report: &Report<'_>) -> bool {
    let (mut tables, mut values) = (0, 0);
    for (tokens, token) in toml_parser::Source::new(text).lex().enumerate() {
        match token.kind() {
            TokenKind::LeftSquareBracket | TokenKind::LeftCurlyBracket | TokenKind::Dot => tables += 1,
            TokenKind::Equals | TokenKind::Comma => values += 1,
            _ => {}
        }
        let counts = [(tables, TABLES_MAX, "tables"), (values, VALUES_MAX, "values"), (tokens, TOKENS_MAX, "words")];
        if let Some((_, most, what)) = counts.into_iter().find(|(count, most, _)| count > most) {
            let span = token.span().start()..token.span().end();
            report.syntax(span, format!("the file has more than {most} {what}"), None);
            return true;
        }
    }
    false
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
