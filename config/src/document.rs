//! A file as a whole: its syntax, the tables at its top, and the places in them.
//!
//! Which keys a table may have and must have is what its schema says.

use std::fmt;
use std::ops::Range;

use serde::de::DeserializeOwned;
use serde_json::Value as Json;
use serde_spanned::Spanned;
use toml::de::{DeTable, DeValue};
use toml_parser::lexer::TokenKind;

use crate::de::{self, Path};
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

/// A parsed file.
#[derive(Debug)]
pub(crate) struct Document<'r> {
    root: DeValue<'r>,
    /// What stands for a table that is not there.
    absent: DeValue<'r>,
    /// The schema of the file.
    schema: &'static Json,
    report: &'r Report<'r>,
}

/// One table of a file: what was read of it, and its place.
#[derive(Debug)]
pub(crate) struct Entry<'r, T> {
    /// With the default of each key that was wrong.
    pub(crate) value: T,
    /// Whether no key was wrong. One that must be stated may be missing.
    pub(crate) is_whole: bool,
    /// Where it is.
    pub(crate) place: Place<'r>,
}

impl<'r> Document<'r> {
    /// Parses the text of the report's source, and reports errors of syntax and unknown names at the top of the file.
    pub(crate) fn parse(schema: &'static Json, report: &'r Report<'r>) -> Self {
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
        let (root, absent) = (DeValue::Table(root.into_inner()), DeValue::Table(DeTable::new()));
        let document = Self { root, absent, schema, report };
        let place = document.place("", false, &document.root, 0..0);
        place.table.into_iter().for_each(|table| place.check_names(table, &Known::by(schema), &Path::TABLE));
        document
    }

    /// How many errors were reported so far, those of syntax not counted.
    pub(crate) fn faults(&self) -> usize {
        self.report.faults()
    }

    /// The keys before the first table.
    pub(crate) fn top<T: DeserializeOwned + Default>(&self) -> T {
        de::read(&self.place("", false, &self.root, 0..0), &self.root).unwrap_or_default()
    }

    /// The table `[name]`. One that is absent counts as empty; one that is something else is reported.
    pub(crate) fn table<T: DeserializeOwned + Default>(&self, name: &'static str) -> Entry<'_, T> {
        match self.root.get(name) {
            Some(value) => self.entry(name, false, &Known::by(self.schema(name)), value.get_ref(), value.span()),
            None => {
                let end = self.report.source().text().len();
                self.entry(name, false, &Known::by(self.schema(name)), &self.absent, end..end)
            }
        }
    }

    /// The tables `[[name]]` in the order of the file. What is something else is reported.
    pub(crate) fn tables<T: DeserializeOwned + Default>(
        &self,
        name: &'static str,
    ) -> impl Iterator<Item = Entry<'_, T>> {
        let elements = match self.root.get(name).map(|value| (value, value.get_ref())) {
            None => [].iter(),
            Some((_, DeValue::Array(elements))) => elements.iter(),
            Some((value, _)) => {
                self.refuse(name, true, value.get_ref(), value.span());
                [].iter()
            }
        };
        // The schema is looked into once for all.
        let known = Known::by(self.schema(name));
        elements.map(move |value| self.entry(name, true, &known, value.get_ref(), value.span()))
    }

    fn entry<'d, T: DeserializeOwned + Default>(
        &'d self,
        section: &'static str,
        many: bool,
        known: &Known,
        value: &'d DeValue<'d>,
        span: Range<usize>,
    ) -> Entry<'d, T> {
        let before = self.report.faults();
        let place = self.place(section, many, value, span);
        let Some(table) = place.table else {
            self.refuse(section, many, value, place.span());
            return Entry { value: T::default(), is_whole: false, place };
        };
        place.check_names(table, known, &Path::TABLE);
        let value = de::read(&place, value).unwrap_or_default();
        let is_whole = self.report.faults() == before;
        place.check_required(table, known);
        Entry { value, is_whole, place }
    }

    fn place<'d>(&'d self, section: &'static str, many: bool, value: &'d DeValue<'d>, span: Range<usize>) -> Place<'d> {
        Place { section, many, table: value.as_table(), span, document: self }
    }

    /// Warns of something that `key` says on the line of the byte `start`.
    pub(crate) fn warning(&self, start: usize, key: &str, message: String, help: &str) {
        let text = self.report.source().text();
        let end =
            text.get(start..).and_then(|rest| rest.find(['\r', '\n'])).map_or(text.len(), |length| start + length);
        self.report.warning(start..end, key, message, help);
    }

    fn refuse(&self, name: &str, many: bool, value: &DeValue<'_>, span: Range<usize>) {
        let (what, help) = match many {
            false => ("a table", format!("write it once, as [{name}]")),
            true => ("a list of tables", format!("write [[{name}]] above each")),
        };
        let message = format!("`{name}` must be {what}, found {}", describe(value));
        self.report.error(span, name, message, &help);
    }

    /// The schema of the table `section`, or of each of them.
    fn schema(&self, section: &str) -> &'static Json {
        match section {
            "" => self.schema,
            name => of_table(&self.schema["properties"][name]).unwrap_or(&Json::Null),
        }
    }

    /// Everything that the top of the file may have, as a message lists it.
    fn known(&self) -> impl Iterator<Item = (&'static String, String)> {
        self.schema["properties"].as_object().into_iter().flatten().map(|(name, schema)| {
            let shown = match of_table(schema) {
                None => format!("`{name}`"),
                Some(table) if std::ptr::eq(table, schema) => format!("[{name}]"),
                Some(_) => format!("[[{name}]]"),
            };
            (name, shown)
        })
    }

    /// What a name was meant to be that is not one of `known` in `section`.
    fn help(&self, section: &str, name: &str, known: &serde_json::Map<String, Json>) -> String {
        let names: Vec<_> = known.keys().map(String::as_str).collect();
        let mut tables = self.known().filter(|(table, _)| table.as_str() != section);
        let home = tables.find(|(table, _)| !self.schema(table)["properties"][name].is_null());
        match (home, nearest(name, &names)) {
            (Some((_, header)), _) => format!("it belongs into {header}"),
            (None, Some(near)) => format!("did you mean `{near}`?"),
            (None, None) if section.is_empty() => {
                format!("known are {}", self.known().map(|(_, shown)| shown).collect::<Vec<_>>().join(", "))
            }
            (None, None) => format!("known are `{}`", names.join("`, `")),
        }
    }
}

/// What a schema says of the keys of a table, at hand for many of them.
struct Known {
    schema: &'static Json,
    names: Vec<&'static str>,
    required: Vec<&'static str>,
    /// Those that are tables themselves.
    tables: Vec<(&'static str, Self)>,
}

impl Known {
    fn by(schema: &'static Json) -> Self {
        let properties = || schema["properties"].as_object().into_iter().flatten();
        Self {
            schema,
            names: properties().map(|(name, _)| name.as_str()).collect(),
            required: schema["required"].as_array().into_iter().flatten().filter_map(Json::as_str).collect(),
            tables: properties()
                .filter(|(_, schema)| schema["properties"].is_object())
                .map(|(name, schema)| (name.as_str(), Self::by(schema)))
                .collect(),
        }
    }

    fn has(&self, name: &str) -> bool {
        self.names.contains(&name)
    }
}

/// The schema of the table that `schema` is or is a list of.
fn of_table(schema: &Json) -> Option<&Json> {
    [schema, &schema["items"]].into_iter().find(|schema| schema["properties"].is_object())
}

/// Where a table is, to report what is wrong with its keys.
#[derive(Clone, Debug)]
pub(crate) struct Place<'r> {
    /// Its name, as it stands between the brackets; empty at the top of the file.
    section: &'static str,
    /// Whether there may be many of it.
    many: bool,
    /// `None` if it is something else.
    table: Option<&'r DeTable<'r>>,
    /// Where it begins; the end of the file if it does not.
    span: Range<usize>,
    document: &'r Document<'r>,
}

/// Where the table is, as a message says it.
impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.section, self.many) {
            ("", _) => f.write_str("at the top of the file"),
            (section, false) => write!(f, "in [{section}]"),
            (section, true) => write!(f, "in [[{section}]]"),
        }
    }
}

impl<'r> Place<'r> {
    /// Reports each key of `table`, which is at `path`, that is not in its schema.
    fn check_names(&self, table: &DeTable<'_>, known: &Known, path: &Path<'_>) {
        let Some(properties) = known.schema["properties"].as_object() else { return };
        let report = self.document.report;
        // Both are sorted, so mostly one pass over the names finds all keys. If not, it is looked at more closely.
        let mut names = known.names.iter();
        if !table.keys().all(|key| names.any(|name| *name == key.get_ref())) {
            for (name, span) in in_file_order(table).into_iter().filter(|(name, _)| !known.has(name)) {
                let path = path.key(name).to_string();
                // The text is not needed if nobody sees it.
                let help =
                    if report.is_full() { String::new() } else { self.document.help(self.section, name, properties) };
                self.error_at(span, &path, format!("unknown key {} {self}", quoted(&path)), &help);
            }
        }
        // The tables at the top are checked one by one.
        for (name, value) in table.iter().filter(|_| !self.section.is_empty()) {
            if let (DeValue::Table(nested), name) = (value.get_ref(), name.get_ref().as_ref())
                && let Some((_, known)) = known.tables.iter().find(|(table, _)| *table == name)
            {
                self.check_names(nested, known, &path.key(name));
            }
        }
    }

    /// Reports each key that `table` must have and does not have.
    fn check_required(&self, table: &DeTable<'_>, known: &Known) {
        // What follows an error of syntax may have been swallowed by it.
        if self.document.report.is_broken() {
            return;
        }
        for name in known.required.iter().filter(|name| !table.contains_key(**name)) {
            let message = match self.document.root.get(self.section) {
                Some(_) => format!("`{name}` is missing {self}"),
                None => format!("`{name}` is missing: there is no [{}]", self.section),
            };
            self.error(name, message, known.schema["properties"][*name]["description"].as_str().unwrap_or_default());
        }
    }

    /// How many errors were reported so far.
    pub(crate) fn faults(&self) -> usize {
        self.document.faults()
    }

    /// Whether the report has room for the text of another problem.
    pub(crate) fn is_shown(&self) -> bool {
        !self.document.report.is_full()
    }

    /// The line on which the table begins, from 1.
    pub(crate) fn line(&self) -> usize {
        self.document.report.source().line_of(self.span.start)
    }

    /// Where the table begins, as a range of bytes.
    pub(crate) fn span(&self) -> Range<usize> {
        self.span.clone()
    }

    /// A diagnostic without text that points at the value of `path`.
    pub(crate) fn locate(&self, path: &str) -> Diagnostic {
        let place = self.document.report.source().error_at(self.span_of(path), String::new());
        Diagnostic { key: Some(self.key(path)), ..place }
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
    pub(crate) fn states(&self, path: &str) -> bool {
        self.find(path).is_some()
    }

    /// The path of an element of what is at `path`: `path[index]` if that is a list.
    pub(crate) fn element(&self, path: &str, index: usize) -> String {
        match self.find(path).map(Spanned::get_ref) {
            Some(DeValue::Array(_)) => format!("{path}[{index}]"),
            _ => path.to_owned(),
        }
    }

    /// Where the value at `path` is; where the table begins if it is not stated.
    fn span_of(&self, path: &str) -> Range<usize> {
        self.find(path).map_or_else(|| self.span(), Spanned::span)
    }

    /// `path` with its table: `rule.match.dst_port`.
    fn key(&self, path: &str) -> String {
        if self.section.is_empty() { path.to_owned() } else { format!("{}.{path}", self.section) }
    }

    /// Reports an error at the value of `path`: the key, its table, and `what`.
    pub(crate) fn fail(&self, path: &str, what: &str, help: &str) {
        self.fail_at(self.span_of(path), path, what, help);
    }

    /// The same at another place.
    pub(crate) fn fail_at(&self, span: Range<usize>, path: &str, what: &str, help: &str) {
        // A file of garbage has millions of these, of which nobody sees the text.
        let message = if self.is_shown() { format!("`{path}` {self} {what}") } else { String::new() };
        self.error_at(span, path, message, help);
    }

    /// Reports an error at the value of `path`, in a sentence of its own.
    pub(crate) fn error(&self, path: &str, message: String, help: &str) {
        self.error_at(self.span_of(path), path, message, help);
    }

    fn error_at(&self, span: Range<usize>, path: &str, message: String, help: &str) {
        self.document.report.error(span, &self.key(path), message, help);
    }

    /// Reports a warning at the value of `path`.
    pub(crate) fn warning(&self, path: &str, message: String, help: &str) {
        self.document.report.warning(self.span_of(path), &self.key(path), message, help);
    }
}

/// The names of a table with their places, first in the file first.
fn in_file_order<'t>(table: &'t DeTable<'_>) -> Vec<(&'t str, Range<usize>)> {
    let mut names: Vec<_> = table.keys().map(|key| (key.get_ref().as_ref(), key.span())).collect();
    names.sort_by_key(|(_, span)| span.start);
    names
}

/// What `value` is, in a message: its type, and the value itself if it is short.
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
        let message = match report.is_full() {
            true => String::new(),
            false => format!("control character U+{:04X}{name} is not allowed", u32::from(c)),
        };
        report.syntax(at..at + 1, message, "remove it, or write it as an escape in a string");
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
            report.syntax(span, format!("the file has more than {most} {what}"), "");
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
            "a name may stand only once in its table, and a table only once in the file",
        ),
        message if message.starts_with("string values must be quoted") && found.is_empty() => {
            ("a value is missing after `=`".to_owned(), "")
        }
        message if is_bare_word(message, found) => {
            (format!("{} is not a value", quoted(found)), "a string needs quotes: \"...\"")
        }
        message => (message.to_owned(), ""),
    };
    report.syntax(span, message, help);
}

/// Whether the parser, with `message` about `found`, most likely looks at a string without quotes.
fn is_bare_word(message: &str, found: &str) -> bool {
    // The first letter of a word makes the parser expect `true`, `inf`, a date and so on.
    message.starts_with("string values must be quoted")
        || (message.starts_with("invalid ") && found.starts_with(char::is_alphanumeric))
}
