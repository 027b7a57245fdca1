//! What becomes of an operator's question.
//!
//! An answer that grows with the host is made in parts. The control thread takes out of its own what one part needs, which is little,
//! and the connection's thread makes text of it, sends that, and asks for the next one. So no answer holds up the control thread for
//! long, nor takes more memory than a part of it, for as long as its reader may take. On the socket it is one line, like others.

use super::PendingCapture;
use crate::control::stats::Sources;
use kopi_api::refusal;
use serde::Serialize;
use serde_json::json;
use std::fmt;

/// What becomes of a question.
#[derive(Debug)]
pub enum Answer {
    /// This line is the reply.
    Reply(String),
    /// There is none, for this reason.
    Refused(String),
    /// The connection's thread makes the reply of this, and of what comes after it.
    Part(Part),
    /// The connection is that of a capture from now on.
    Capture(Box<PendingCapture>),
    /// This line is the reply once all workers use this snapshot: whoever is told that a policy is in force may count on it for the next
    /// frame.
    InForce(u64, String),
}

impl From<Result<String, String>> for Answer {
    fn from(reply: Result<String, String>) -> Self {
        reply.map_or_else(Self::Refused, Self::Reply)
    }
}

impl Answer {
    /// A part that `work` makes the rows of, on the connection's thread. It returns what comes after it, if anything does, or why there
    /// is no more.
    #[must_use]
    pub fn part(work: impl FnOnce(&mut Rows) -> Result<Option<Next>, String> + Send + 'static) -> Self {
        Self::Part(Part(Box::new(work)))
    }
}

type Work = dyn FnOnce(&mut Rows) -> Result<Option<Next>, String> + Send;

/// A part of an answer.
pub struct Part(Box<Work>);

impl Part {
    /// Adds its rows to `rows`. Returns what comes after it.
    ///
    /// # Errors
    ///
    /// A text for people: the answer is not whole.
    pub fn make(self, rows: &mut Rows) -> Result<Option<Next>, String> {
        (self.0)(rows)
    }
}

impl fmt::Debug for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Part")
    }
}

type Ask = dyn FnOnce(&mut Sources<'_>) -> Answer + Send;

/// What the control thread is asked for the next part of an answer.
pub struct Next(Box<Ask>);

impl Next {
    /// `ask` takes what the next part needs.
    #[must_use]
    pub fn new(ask: impl FnOnce(&mut Sources<'_>) -> Answer + Send + 'static) -> Self {
        Self(Box::new(ask))
    }

    /// Takes what the next part needs.
    #[must_use]
    pub fn answer(self, sources: &mut Sources<'_>) -> Answer {
        (self.0)(sources)
    }
}

impl fmt::Debug for Next {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Next")
    }
}

/// The rows of an answer, as text: an object with one array, which is named after what was asked.
#[derive(Debug)]
pub struct Rows {
    name: String,
    text: Vec<u8>,
    /// Rows of all parts.
    count: usize,
}

impl Rows {
    /// No rows of `name` yet.
    #[must_use]
    pub const fn new(name: String) -> Self {
        Self { name, text: Vec::new(), count: 0 }
    }

    /// Adds a row.
    pub fn push(&mut self, row: &impl Serialize) {
        self.begin();
        // What cannot be written as JSON is not put into rows: these have texts for keys.
        let written = serde_json::to_writer(&mut self.text, row);
        debug_assert!(written.is_ok(), "{written:?}");
    }

    /// Adds a row that was written before.
    pub fn push_text(&mut self, row: &[u8]) {
        self.begin();
        self.text.extend_from_slice(row);
    }

    fn begin(&mut self) {
        if self.count == 0 {
            self.text.extend_from_slice(format!("{{{}:[", json!(self.name)).as_bytes());
        } else {
            self.text.push(b',');
        }
        self.count += 1;
    }

    /// Rows so far.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.count
    }

    /// The text of the rows that were added since the last time. If there were none it is a blank, which means nothing between rows,
    /// and shows the reader that the answer goes on: of a million flows few may be wanted.
    pub(super) fn take_some(&mut self) -> Vec<u8> {
        let text = std::mem::take(&mut self.text);
        if text.is_empty() { b" ".to_vec() } else { text }
    }

    /// The end of the answer, with what came before it and is not taken yet. If it is not whole, it says `error`.
    pub(super) fn end(self, error: Option<String>) -> Vec<u8> {
        let Self { name, mut text, count } = self;
        let end = match error {
            Some(error) if count == 0 => refusal(&error),
            None if count == 0 => kopi_api::answer(&name, &[(); 0]),
            Some(error) => format!("],\"error\":{}}}\n", json!(error)),
            None => "]}\n".to_owned(),
        };
        text.extend_from_slice(end.as_bytes());
        text
    }
}

#[cfg(test)]
impl Rows {
    /// The whole answer, for tests of those who make rows.
    pub(crate) fn finished(self) -> Vec<u8> {
        self.end(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    /// What is sent is the object that it was before it was sent in parts, however it is cut; an answer that is not whole says so.
    #[test]
    fn parts_make_one_object() {
        for count in 0..4 {
            for cut in 0..=count {
                for error in [None, Some("gone")] {
                    let mut rows = Rows::new("a\"b".to_owned());
                    let mut text = Vec::new();
                    for n in 0..count {
                        if n == cut {
                            text.extend(rows.take_some());
                            text.extend(rows.take_some());
                        }
                        if n % 2 == 0 { rows.push(&json!({ "n": n })) } else { rows.push_text(b"{\"n\":1}") }
                    }
                    text.extend(rows.end(error.map(str::to_owned)));
                    assert_eq!(text.iter().position(|byte| *byte == b'\n'), Some(text.len() - 1));
                    let value: Value = serde_json::from_slice(&text).unwrap();
                    let list: Vec<_> = (0..count).map(|n| json!({ "n": if n % 2 == 0 { n } else { 1 } })).collect();
                    let expected = match error {
                        None => json!({ "a\"b": list }),
                        Some(error) if count == 0 => json!({ "error": error }),
                        Some(error) => json!({ "a\"b": list, "error": error }),
                    };
                    assert_eq!(value, expected);
                }
            }
        }
    }
}
