//! A file's text, read without blocking, and the places in it.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::ops::Range;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use crate::report::{Diagnostic, Errors, Excerpt, Position};

/// Largest `kopid.toml`, in bytes. A longer one is refused before it is read.
pub(crate) const SIZE_MAX: u64 = 4 << 20;

const BOM: &[u8] = b"\xef\xbb\xbf";

/// The text of one configuration file, and where its lines begin.
///
/// A byte order mark at the start is left out, so offsets and columns count from the first character after it.
#[derive(Debug)]
pub(crate) struct Source {
    name: String,
    text: String,
    /// Offset in bytes of the first character of every line. Never empty.
    line_starts: Vec<usize>,
}

impl Source {
    /// Reads the file at `path`, following symbolic links.
    ///
    /// Fails if it cannot be read, is not a regular file (a FIFO would block the daemon), is larger than `size_max`, or is
    /// not UTF-8.
    pub(crate) fn read(path: &Path, size_max: u64) -> Result<Self, Errors> {
        let name = path.display().to_string();
        let bytes = read_regular(path, size_max)
            .map_err(|(message, help)| Diagnostic { help, ..Diagnostic::error(&name, message) })?;
        Self::from_bytes(&name, &bytes, size_max)
    }

    /// Takes `bytes` as the content of a file called `name`. Fails if they are more than `size_max` or not UTF-8.
    pub(crate) fn from_bytes(name: &str, bytes: &[u8], size_max: u64) -> Result<Self, Errors> {
        if bytes.len() as u64 > size_max {
            return Err(Diagnostic::error(name, too_large(size_max)).into());
        }
        if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
            let mut error = Diagnostic::error(name, "the file is UTF-16, and TOML is UTF-8".to_owned());
            error.position = Some(Position { line: 1, column: 1 });
            error.help = Some("save it as UTF-8".to_owned());
            return Err(error.into());
        }
        let bytes = bytes.strip_prefix(BOM).unwrap_or(bytes);
        match str::from_utf8(bytes) {
            Ok(text) => Ok(Self::new(name, text.to_owned())),
            Err(error) => {
                let bad = error.valid_up_to();
                // Everything before the bad byte is text, so the replacement characters that come after it cannot
                // move the place.
                let source = Self::new(name, String::from_utf8_lossy(bytes).into_owned());
                let byte = bytes.get(bad).copied().unwrap_or_default();
                let mut error = source.error_at(bad..bad, format!("byte 0x{byte:02x} is not UTF-8"));
                error.help = Some("save the file as UTF-8".to_owned());
                Err(error.into())
            }
        }
    }

    fn new(name: &str, text: String) -> Self {
        let after_breaks = text.bytes().enumerate().filter(|&(_, byte)| byte == b'\n').map(|(at, _)| at + 1);
        let line_starts = std::iter::once(0).chain(after_breaks).collect();
        Self { name: name.to_owned(), text, line_starts }
    }

    /// The file's content, without a byte order mark.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// The place of the character at the byte `offset`; the end of the text for an offset behind it.
    pub(crate) fn position(&self, offset: usize) -> Position {
        let offset = offset.min(self.text.len());
        let line = self.line_of(offset);
        let before = self.text.get(self.line_start(line)..offset).unwrap_or_default();
        Position { line, column: before.chars().count() + 1 }
    }

    /// The number, from 1, of the line that holds the byte `offset`.
    pub(crate) fn line_of(&self, offset: usize) -> usize {
        self.line_starts.partition_point(|&start| start <= offset).max(1)
    }

    /// An error that points at the bytes of `span`. Of a span over several lines, the first is shown.
    pub(crate) fn error_at(&self, span: Range<usize>, message: String) -> Diagnostic {
        let position = self.position(span.start);
        let end = self.position(span.end.min(self.line_end(position.line))).column;
        let line = self.text.get(self.line_start(position.line)..self.line_end(position.line)).unwrap_or_default();
        let mut error = Diagnostic::error(&self.name, message);
        error.position = Some(position);
        error.excerpt = Some(Excerpt::cut(line, position.column, end.saturating_sub(position.column)));
        error
    }

    fn line_start(&self, line: usize) -> usize {
        self.line_starts.get(line - 1).copied().unwrap_or(self.text.len())
    }

    /// The offset behind the last character of `line`, its line break not counted.
    fn line_end(&self, line: usize) -> usize {
        let start = self.line_start(line);
        let rest = self.text.get(start..self.line_start(line + 1)).unwrap_or_default();
        start + rest.trim_end_matches(['\r', '\n']).len()
    }
}

/// Why a file was not read, and what would help.
type Refusal = (String, Option<String>);

/// Reads a regular file of at most `size_max` bytes.
fn read_regular(path: &Path, size_max: u64) -> Result<Vec<u8>, Refusal> {
    let cannot = |error: io::Error| (format!("cannot read the file: {error}"), None);
    let file = open_without_waiting(path).map_err(cannot)?;
    let metadata = file.metadata().map_err(cannot)?;
    let kind = metadata.file_type();
    if !kind.is_file() {
        let what = if kind.is_dir() {
            "a folder"
        } else if kind.is_fifo() {
            "a FIFO"
        } else if kind.is_socket() {
            "a socket"
        } else {
            "a device"
        };
        let help = "name a regular file, or a symbolic link to one".to_owned();
        return Err((format!("this is {what}, not a regular file"), Some(help)));
    }
    if metadata.len() > size_max {
        return Err((too_large(size_max), None));
    }
    // The file may still grow while it is read.
    let mut bytes = Vec::new();
    file.take(size_max + 1).read_to_end(&mut bytes).map_err(cannot)?;
    Ok(bytes)
}

/// Opens `path` for reading. `O_NONBLOCK` makes a FIFO open at once, writer or not; the kind of the file is then read
/// from the open descriptor, so that nobody can swap the file between the look and the open.
fn open_without_waiting(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)
}

fn too_large(size_max: u64) -> String {
    format!("the file is larger than {} MiB", size_max >> 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(result: Result<Source, Errors>) -> Diagnostic {
        result.unwrap_err().diagnostics()[0].clone()
    }

    /// Lines and columns count from one, columns count characters, and `\r\n` is one line break.
    #[test]
    fn positions_count_lines_and_characters() {
        let source = Source::from_bytes("f", "aä\r\nb\n\nc".as_bytes(), SIZE_MAX).unwrap();
        let text = source.text();
        let at = |needle: &str| source.position(text.find(needle).unwrap());
        assert_eq!(at("a"), Position { line: 1, column: 1 });
        assert_eq!(at("\r"), Position { line: 1, column: 3 });
        assert_eq!(at("b"), Position { line: 2, column: 1 });
        assert_eq!(at("c"), Position { line: 4, column: 1 });
        assert_eq!(source.position(usize::MAX), Position { line: 4, column: 2 });
        assert_eq!(Source::from_bytes("f", b"", SIZE_MAX).unwrap().position(0), Position { line: 1, column: 1 });
    }

    /// Fault 31, byte order mark: it is accepted, and does not count as a column.
    #[test]
    fn byte_order_mark_is_no_text() {
        let source = Source::from_bytes("f", b"\xef\xbb\xbfab", SIZE_MAX).unwrap();
        assert_eq!(source.text(), "ab");
        assert_eq!(source.position(1), Position { line: 1, column: 2 });
    }

    /// Fault 31, not UTF-8: the error names the bad byte and its place, also behind wide characters and at the end.
    #[test]
    fn bad_bytes_have_a_place() {
        for (bytes, line, column, name) in [
            (&b"a = 1\nb = \"\xc3\xa4\xff\"\n"[..], 2, 7, "0xff"),
            (b"\xef\xbb\xbf\xfe", 1, 1, "0xfe"),
            (b"a\r\n\r\nbc\xc3", 3, 3, "0xc3"),
        ] {
            let error = first(Source::from_bytes("f", bytes, SIZE_MAX));
            assert_eq!(error.position, Some(Position { line, column }), "{error}");
            assert!(error.message.contains(name), "{error}");
        }
        let utf16 = first(Source::from_bytes("f", b"\xff\xfea\0", SIZE_MAX));
        assert!(utf16.message.contains("UTF-16"), "{utf16}");
    }

    /// Fault 31, size: the limit itself passes, one byte more does not.
    #[test]
    fn size_is_limited() {
        let mut bytes = vec![b'#'; usize::try_from(SIZE_MAX).unwrap()];
        assert!(Source::from_bytes("f", &bytes, SIZE_MAX).is_ok());
        bytes.push(b'#');
        let error = first(Source::from_bytes("f", &bytes, SIZE_MAX));
        assert!(error.message.contains("larger than 4 MiB"), "{error}");
    }
}
