//! Roff of the Markdown that the documents are written in: what man(7) has a form for.
//!
//! A table becomes a list, since its cells are too long for the columns of a terminal: the first cell is the tag, the others follow,
//! from the third on behind the heading of their column.

use pulldown_cmark::{Event, HeadingLevel, Options, Parser, Tag, TagEnd};

/// Columns of a line of roff.
const WIDTH: usize = 78;

/// The text before the first section, without the title.
pub(crate) fn introduction(text: &str) -> &str {
    let from = text.find("\n\n").unwrap_or(0);
    let to = starts(text).first().map_or(text.len(), |(at, _)| *at);
    &text[from.min(to)..to]
}

/// The sections with their titles, which they begin with.
pub(crate) fn sections(text: &str) -> Vec<(&str, &str)> {
    let starts = starts(text);
    let ends = starts.iter().skip(1).map(|(at, _)| *at).chain([text.len()]);
    starts.iter().zip(ends).map(|((from, title), to)| (*title, &text[*from..to])).collect()
}

/// The section of this title.
pub(crate) fn section<'a>(text: &'a str, title: &str) -> Option<&'a str> {
    sections(text).into_iter().find(|(own, _)| *own == title).map(|(_, text)| text)
}

/// Where sections begin. A line in a block of code begins none.
fn starts(text: &str) -> Vec<(usize, &str)> {
    let (mut at, mut code, mut found) = (0, false, Vec::new());
    for line in text.split_inclusive('\n') {
        code ^= line.starts_with("```");
        if let Some(title) = line.strip_prefix("## ").filter(|_| !code) {
            found.push((at, title.trim_end()));
        }
        at += line.len();
    }
    found
}

/// `text` as roff.
pub(crate) fn roff(text: &str) -> String {
    let mut roff = Roff::default();
    Parser::new_ext(text, Options::ENABLE_TABLES).for_each(|event| roff.take(event));
    roff.out
}

/// What was written, and where in the document it is.
#[derive(Default)]
struct Roff {
    out: String,
    /// Text that is not broken into lines yet.
    line: String,
    /// Numbers of the lists around, `None` for bullets.
    lists: Vec<Option<u64>>,
    /// Whether an item has begun, whose first paragraph needs no macro.
    fresh: bool,
    in_code: bool,
    /// The table's headings, and the cell of a row.
    headings: Vec<String>,
    in_head: bool,
    cell: usize,
}

impl Roff {
    fn take(&mut self, event: Event<'_>) {
        match event {
            Event::Start(tag) => self.begin(&tag),
            Event::End(tag) => self.end(tag),
            Event::Text(text) if self.in_code => {
                for line in text.lines() {
                    self.out.push_str(&protected(&escaped(line, true)));
                    self.out.push('\n');
                }
            }
            Event::Text(text) => self.line.push_str(&escaped(&text, false)),
            Event::Code(text) => self.line.push_str(&format!("\\fB{}\\fR", escaped(&text, true))),
            Event::SoftBreak | Event::HardBreak => self.line.push(' '),
            _ => {}
        }
    }

    fn begin(&mut self, tag: &Tag<'_>) {
        match tag {
            Tag::Paragraph if self.fresh => self.fresh = false,
            // A section begins with one.
            Tag::Paragraph if self.is_begun() => {}
            Tag::Paragraph => self.request(if self.lists.is_empty() { ".PP" } else { ".IP" }),
            Tag::CodeBlock(_) => {
                self.flush();
                let gap = if self.is_begun() { "" } else { ".PP\n" };
                self.request(&format!("{gap}.RS 4\n.nf"));
                self.in_code = true;
            }
            Tag::List(first) => {
                self.flush();
                if !self.lists.is_empty() {
                    self.request(".RS 4");
                }
                self.lists.push(*first);
            }
            Tag::Item => self.item(),
            Tag::Table(_) => self.headings.clear(),
            Tag::TableHead => self.in_head = true,
            Tag::TableRow => self.cell = 0,
            Tag::Emphasis => self.line.push_str("\\fI"),
            Tag::Strong => self.line.push_str("\\fB"),
            _ => {}
        }
    }

    fn end(&mut self, tag: TagEnd) {
        match tag {
            TagEnd::Heading(level) => {
                // The macro has one font for all of it.
                let title =
                    std::mem::take(&mut self.line).replace("\\fB", "").replace("\\fR", "").replace('"', "\\(dq");
                match level {
                    HeadingLevel::H1 => {}
                    HeadingLevel::H2 => self.request(&format!(".SH \"{title}\"")),
                    _ => self.request(&format!(".SS \"{title}\"")),
                }
            }
            TagEnd::CodeBlock => {
                self.in_code = false;
                self.request(".fi\n.RE");
            }
            TagEnd::List(_) => {
                self.lists.pop();
                if !self.lists.is_empty() {
                    self.request(".RE");
                }
            }
            TagEnd::Item => {
                self.flush();
                self.fresh = false;
            }
            TagEnd::TableCell if self.in_head => self.headings.push(std::mem::take(&mut self.line)),
            TagEnd::TableHead => self.in_head = false,
            TagEnd::TableCell => self.end_cell(),
            TagEnd::Emphasis | TagEnd::Strong => self.line.push_str("\\fR"),
            TagEnd::Paragraph => self.flush(),
            _ => {}
        }
    }

    fn item(&mut self) {
        self.fresh = true;
        let mark = match self.lists.last_mut() {
            Some(Some(number)) => {
                *number += 1;
                format!(".IP {}. 4", *number - 1)
            }
            _ => ".IP \\(bu 2".to_owned(),
        };
        self.request(&mark);
    }

    fn end_cell(&mut self) {
        self.cell += 1;
        let text = std::mem::take(&mut self.line);
        match self.cell {
            1 => {
                self.request(".TP");
                self.out.push_str(&format!("{}\n", if text.is_empty() { "\\&" } else { &text }));
            }
            2 => {
                self.line = if text.is_empty() { "\\&".to_owned() } else { text };
                self.flush();
            }
            _ if text.is_empty() => {}
            column => {
                let heading = self.headings.get(column - 1).cloned().unwrap_or_default();
                self.request(".br");
                self.line = format!("\\fI{heading}:\\fR {text}");
                self.flush();
            }
        }
    }

    /// Whether nothing has come since the heading of a section.
    fn is_begun(&self) -> bool {
        let last = self.out.lines().last().unwrap_or_default();
        last.starts_with(".SH ") || last.starts_with(".SS ")
    }

    fn request(&mut self, line: &str) {
        self.flush();
        self.out.push_str(line);
        self.out.push('\n');
    }

    /// Breaks the text into lines of [`WIDTH`], where there are blanks.
    fn flush(&mut self) {
        let text = std::mem::take(&mut self.line);
        let mut line = String::new();
        for word in text.split_whitespace() {
            if !line.is_empty() && line.len() + 1 + word.len() > WIDTH {
                self.out.push_str(&format!("{}\n", protected(&line)));
                line.clear();
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
        if !line.is_empty() {
            self.out.push_str(&format!("{}\n", protected(&line)));
        }
    }
}

/// `text` without what roff would act on. In code a hyphen is a minus sign, which can be copied to a shell.
fn escaped(text: &str, code: bool) -> String {
    let text = text.replace('\\', "\\e");
    if code { text.replace('-', "\\-") } else { text }
}

/// A line that roff takes for text, whatever it begins with.
fn protected(line: &str) -> String {
    if line.starts_with(['.', '\'']) { format!("\\&{line}") } else { line.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each form of the documents has one in roff.
    #[test]
    fn markdown_becomes_roff() {
        let text = "## A `b`\n\nc *d* `-e`\n.f [g](h.md)\n\n- i\n- j\n\n  k\n\n1. l\n2. m\n\n```sh\n.n \\\n\no\n```\n\n### p\n";
        let expected = ".SH \"A b\"\nc \\fId\\fR \\fB\\-e\\fR .f g\n.IP \\(bu 2\ni\n.IP \\(bu 2\nj\n.IP\nk\n.IP 1. 4\nl\n.IP 2. 4\nm\n\
                        .PP\n.RS 4\n.nf\n\\&.n \\e\n\no\n.fi\n.RE\n.SS \"p\"\n";
        assert_eq!(roff(text), expected);
    }

    /// A table is a list: first cell, second cell, and the others by the names of their columns.
    #[test]
    fn tables_become_lists() {
        let text = "| k | v | default |\n| --- | --- | --- |\n| `a` | b | c |\n| d | | |\n";
        assert_eq!(roff(text), ".TP\n\\fBa\\fR\nb\n.br\n\\fIdefault:\\fR c\n.TP\nd\n\\&\n");
    }

    /// Sections begin at headings, and not at comments in code.
    #[test]
    fn sections_are_those_of_headings() {
        let text = "# T\n\nintro\n\n## A\na\n```\n## no\n```\n## B\nb\n";
        assert_eq!(introduction(text), "\n\nintro\n\n");
        assert_eq!(sections(text), [("A", "## A\na\n```\n## no\n```\n"), ("B", "## B\nb\n")]);
        assert_eq!(section(text, "B"), Some("## B\nb\n"));
    }
}
