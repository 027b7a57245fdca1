//! A file as a whole: its syntax, and the tables at its top.

use std::ops::Range;

use serde_spanned::Spanned;
use toml::de::{DeTable, DeValue};
use toml_parser::lexer::TokenKind;

use crate::report::{Report, quoted};
use crate::source::Source;
use crate::walk::{Layout, Place, Section, Table, describe, entry, in_file_order, nearest};

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
        let document = Self { root: root.into_inner(), report };
        document.check_names(layout);
        document
    }

    /// The keys before the first table of the file, as `section` describes them.
    #[must_use]
    pub fn top(&self, section: &'static Section) -> Table<'_> {
        Table::new(Place::one(section), Some(&self.root), 0..0, self.report)
    }

    /// The table that `section` describes. One that is absent counts as empty; one that is something else is reported,
    /// and `None`.
    #[must_use]
    pub fn table(&self, section: &'static Section) -> Option<Table<'_>> {
        let place = Place::one(section);
        let Some((_, value)) = entry(&self.root, section.name) else {
            return Some(Table::new(place, None, self.end(), self.report));
        };
        let DeValue::Table(entries) = value.get_ref() else {
            self.refuse(section, value, "a table", format!("write it once, as {place}"));
            return None;
        };
        let table = Table::new(place, Some(entries), value.span(), self.report);
        table.check_names();
        Some(table)
    }

    /// The tables that `section` describes, each headed by `[[name]]`, in the order of the file. What is something else
    /// is reported, and left out.
    pub fn tables(&self, section: &'static Section) -> impl Iterator<Item = Table<'_>> {
        let place = Place::many(section);
        let elements = match entry(&self.root, section.name).map(|(_, value)| (value, value.get_ref())) {
            None => [].iter(),
            Some((_, DeValue::Array(elements))) => elements.iter(),
            Some((value, _)) => {
                self.refuse(section, value, "a list of tables", format!("write {place} above each"));
                [].iter()
            }
        };
        elements.filter_map(move |value| {
            let DeValue::Table(entries) = value.get_ref() else {
                self.refuse(section, value, "a list of tables", format!("write {place} above each"));
                return None;
            };
            let table = Table::new(place, Some(entries), value.span(), self.report);
            table.check_names();
            Some(table)
        })
    }

    /// Warns of something that `key` says on the line of the byte `start`.
    pub fn warning(&self, start: usize, key: &str, message: String, help: String) {
        let text = self.report.source().text();
        let end =
            text.get(start..).and_then(|rest| rest.find(['\r', '\n'])).map_or(text.len(), |length| start + length);
        self.report.warning(start..end, key, message, Some(help));
    }

    fn refuse(&self, section: &Section, value: &Spanned<DeValue<'_>>, what: &str, help: String) {
        let name = section.name;
        let message = format!("`{name}` must be {what}, found {}", describe(value.get_ref()));
        self.report.error(value.span(), name, message, Some(help));
    }

    fn end(&self) -> Range<usize> {
        let end = self.report.source().text().len();
        end..end
    }

    fn check_names(&self, layout: &Layout) {
        let known = layout.names();
        for (name, span) in in_file_order(&self.root) {
            if known.contains(&name) || self.report.is_full() {
                continue;
            }
            let home = layout.places().find(|place| place.section.keys.iter().any(|key| key.name() == name));
            let help = match (home, nearest(name, &known)) {
                (Some(place), _) => format!("it belongs into {place}"),
                (None, Some(near)) => format!("did you mean `{near}`?"),
                (None, None) => format!("known are {}", layout.list()),
            };
            let what = match entry(&self.root, name).map(|(_, value)| value.get_ref()) {
                Some(DeValue::Table(_)) => "table",
                _ => "key",
            };
            let message = format!("unknown {what} {} at the top of the file", quoted(name));
            self.report.error(span, name, message, Some(help));
        }
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
