//! Diagnostics: what is wrong in a file, where, and what would be right.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;

use crate::source::Source;

/// Most errors, and most warnings, kept of one file. Later ones are counted only: a file of garbage must not fill the
/// memory or the terminal.
const SHOWN_MAX: usize = 50;

/// Most characters of a source line, or of a word of the file, that a message repeats.
const LINE_MAX: usize = 110;
const WORD_MAX: usize = 48;

/// How bad a [`Diagnostic`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The file is refused.
    Error,
    /// The file is taken, and probably means something else than was intended.
    Warning,
}

/// A place in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
}

/// One problem of a file. Its `Display` is the message with the line it points at, as compilers show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Whether the file is refused for it.
    pub severity: Severity,
    /// The file's name, as it was given.
    pub file: String,
    /// Where it is; `None` if the file could not be read at all.
    pub position: Option<Position>,
    /// The key it is about, with its table: `dataplane.cores`.
    pub key: Option<String>,
    /// What is wrong.
    pub message: String,
    /// What would be right.
    pub help: Option<String>,
    pub(crate) excerpt: Option<Excerpt>,
}

impl Diagnostic {
    pub(crate) fn error(file: &str, message: String) -> Self {
        Self {
            severity: Severity::Error,
            file: file.to_owned(),
            position: None,
            key: None,
            message,
            help: None,
            excerpt: None,
        }
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        write!(f, "{severity}: {}", self.message)?;
        let number = self.position.map(|position| position.line.to_string()).unwrap_or_default();
        let gutter = " ".repeat(number.len());
        write!(f, "\n {gutter}--> {}", self.file)?;
        if let Some(Position { line, column }) = self.position {
            write!(f, ":{line}:{column}")?;
        }
        if let Some(Excerpt { text, indent, width }) = &self.excerpt {
            let marks = "^".repeat((*width).max(1));
            write!(f, "\n {gutter} |\n {number} | {text}\n {gutter} | {:indent$}{marks}", "")?;
        }
        if let Some(help) = &self.help {
            write!(f, "\n {gutter} = help: {help}")?;
        }
        Ok(())
    }
}

/// The part of a source line that a diagnostic shows. Counts are characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Excerpt {
    text: String,
    indent: usize,
    width: usize,
}

impl Excerpt {
    /// Cuts a window out of `line`, with `width` characters marked from the 1-based `column` on.
    pub(crate) fn cut(line: &str, column: usize, width: usize) -> Self {
        const LEAD: usize = 40;
        let before = column - 1;
        let skipped = if before > LINE_MAX / 2 { before - LEAD } else { 0 };
        let mut rest = line.chars().skip(skipped);
        let mut text: String = rest.by_ref().take(LINE_MAX).map(printable).collect();
        let width = width.min(text.chars().count().saturating_sub(before - skipped));
        if rest.next().is_some() {
            text.push_str(" ...");
        }
        let cut_mark = if skipped > 0 { "... " } else { "" };
        Self { text: format!("{cut_mark}{text}"), indent: cut_mark.len() + before - skipped, width }
    }
}

/// Every problem that one run found in a file, in the order of the file.
///
/// Its `Display` shows them all, up to fifty errors and as many warnings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Errors {
    diagnostics: Vec<Diagnostic>,
    /// Errors found, shown or not.
    count: usize,
}

impl Errors {
    /// The problems, at most fifty errors, and at most as many warnings.
    #[must_use]
    pub fn diagnostics(&self) -> &[Diagnostic] {
        &self.diagnostics
    }

    /// How many errors there are, those that are not shown counted, too.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }
}

impl From<Diagnostic> for Errors {
    fn from(error: Diagnostic) -> Self {
        Self { diagnostics: vec![error], count: 1 }
    }
}

impl From<Vec<Diagnostic>> for Errors {
    fn from(errors: Vec<Diagnostic>) -> Self {
        let count = errors.iter().filter(|diagnostic| diagnostic.severity == Severity::Error).count();
        Self { count, diagnostics: errors }
    }
}

impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, diagnostic) in self.diagnostics.iter().enumerate() {
            let gap = if index > 0 { "\n\n" } else { "" };
            write!(f, "{gap}{diagnostic}")?;
        }
        let shown = self.diagnostics.iter().filter(|diagnostic| diagnostic.severity == Severity::Error).count();
        match self.count.saturating_sub(shown) {
            0 => Ok(()),
            hidden => write!(f, "\n\nerror: {hidden} more errors are not shown"),
        }
    }
}

impl std::error::Error for Errors {}

/// Collects the problems of one file while it is walked.
#[derive(Debug)]
pub(crate) struct Report<'s> {
    source: &'s Source,
    /// With the byte at which each stands.
    found: RefCell<Vec<(usize, Diagnostic)>>,
    errors: Cell<usize>,
    warnings: Cell<usize>,
    /// Errors in a value or the use of a key, those on broken lines, too.
    faults: Cell<usize>,
    /// Lines that are not TOML. What else is wrong there is only a consequence.
    broken_lines: RefCell<BTreeSet<usize>>,
}

impl<'s> Report<'s> {
    /// An empty report on `source`.
    pub(crate) fn new(source: &'s Source) -> Self {
        let (errors, warnings, faults) = Default::default();
        Self { source, found: RefCell::default(), errors, warnings, faults, broken_lines: RefCell::default() }
    }

    /// The file that the report is about.
    pub(crate) fn source(&self) -> &'s Source {
        self.source
    }

    /// Whether the file had errors of syntax, so that what seems to be missing may just not have been understood.
    pub(crate) fn is_broken(&self) -> bool {
        !self.broken_lines.borrow().is_empty()
    }

    /// How many errors that are none of syntax were met.
    pub(crate) fn faults(&self) -> usize {
        self.faults.get()
    }

    /// Reports an error of syntax. Only the first of a line is kept.
    pub(crate) fn syntax(&self, span: Range<usize>, message: String, help: &str) {
        if self.broken_lines.borrow_mut().insert(self.source.line_of(span.start)) {
            self.add(Severity::Error, span, None, message, help);
        }
    }

    /// Reports an error in the value or the use of `key`.
    pub(crate) fn error(&self, span: Range<usize>, key: &str, message: String, help: &str) {
        self.faults.set(self.faults.get() + 1);
        if !self.broken_lines.borrow().contains(&self.source.line_of(span.start)) {
            self.add(Severity::Error, span, Some(key.to_owned()), message, help);
        }
    }

    /// Reports something that is allowed, and probably not intended.
    pub(crate) fn warning(&self, span: Range<usize>, key: &str, message: String, help: &str) {
        self.add(Severity::Warning, span, Some(key.to_owned()), message, help);
    }

    /// Whether [`SHOWN_MAX`] errors are reported: the text of further ones is not needed.
    pub(crate) fn is_full(&self) -> bool {
        self.errors.get() >= SHOWN_MAX
    }

    fn add(&self, severity: Severity, span: Range<usize>, key: Option<String>, message: String, help: &str) {
        let count = match severity {
            Severity::Error => &self.errors,
            Severity::Warning => &self.warnings,
        };
        count.set(count.get() + 1);
        if count.get() <= SHOWN_MAX {
            let start = span.start;
            // It may repeat text of the file.
            let help = (!help.is_empty()).then(|| help.chars().map(printable).collect());
            let diagnostic = Diagnostic { severity, key, help, ..self.source.error_at(span, message) };
            self.found.borrow_mut().push((start, diagnostic));
        }
    }

    /// Ends the walk: the warnings if there was no error, else everything that was found.
    pub(crate) fn finish(self) -> Result<Vec<Diagnostic>, Errors> {
        let mut found = self.found.into_inner();
        found.sort_by_key(|&(start, _)| start);
        let diagnostics = found.into_iter().map(|(_, diagnostic)| diagnostic).collect();
        match self.errors.get() {
            0 => Ok(diagnostics),
            count => Err(Errors { diagnostics, count }),
        }
    }
}

/// A word of the file, as a message repeats it: cut to a readable length, in backquotes.
pub(crate) fn quoted(word: &str) -> String {
    let mut rest = word.chars();
    let mut shown: String = rest.by_ref().take(WORD_MAX).map(printable).collect();
    if rest.next().is_some() {
        shown.push_str("...");
    }
    format!("`{shown}`")
}

/// Replaces characters that would move the cursor, colour the terminal or turn the direction of writing.
fn printable(c: char) -> char {
    match c {
        '\t' => ' ',
        '\'' | '"' | '\\' => c,
        c if c.escape_debug().len() > 1 => char::REPLACEMENT_CHARACTER,
        c => c,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The whole picture of an error: place, line, marks under the right characters, help.
    #[test]
    fn an_error_is_shown_like_a_compilers() {
        let source = Source::from_bytes("kopid.toml", "# ä\n[x]\n\tcöers = [2]\r\n".as_bytes(), 1 << 20).unwrap();
        let start = source.text().find("cöers").unwrap();
        let mut error = source.error_at(start..start + "cöers".len(), "unknown key".to_owned());
        error.help = Some("did you mean `cores`?".to_owned());
        let expected = "error: unknown key
  --> kopid.toml:3:2
   |
 3 |  cöers = [2]
   |  ^^^^^
   = help: did you mean `cores`?";
        assert_eq!(error.to_string(), expected);
    }

    /// A long line is cut around the place, and the marks still stand under it.
    #[test]
    fn a_long_line_is_cut_around_the_place() {
        let line = format!("{}here{}", "x".repeat(5000), "y".repeat(5000));
        let Excerpt { text, indent, width } = Excerpt::cut(&line, 5001, 4);
        assert!(text.chars().count() < LINE_MAX + 10);
        assert_eq!(text.get(indent..indent + width), Some("here"));
        let end = Excerpt::cut(&line, line.len() + 1, 0);
        assert_eq!(end.indent, end.text.chars().count());
    }

    /// Text of the file cannot play with the terminal that shows the message.
    #[test]
    fn control_and_direction_characters_are_not_repeated() {
        let shown = quoted("a\u{1b}[31m\u{202e}\0\n\t\"b\\");
        assert_eq!(shown, "`a\u{fffd}[31m\u{fffd}\u{fffd}\u{fffd} \"b\\`");
        assert_eq!(quoted(&"w".repeat(100)).len(), WORD_MAX + 5);
    }
}
