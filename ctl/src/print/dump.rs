//! Bytes as hexadecimal and ASCII.

use std::fmt::Write;

/// Bytes of a row.
const ROW: usize = 16;
/// Bytes of an Ethernet header without tags, which a dump leaves out unless it is asked for.
const ETHERNET: usize = 14;
/// Characters of a row's hexadecimal part: eight groups of four, and a space in front of each.
const HEX_WIDTH: usize = ROW / 2 * 5;

/// How bytes are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dump {
    /// Hexadecimal.
    Hex,
    /// Hexadecimal, and ASCII beside it.
    HexAscii,
    /// ASCII only, with the line breaks that are in it.
    Ascii,
}

/// `frame` in rows, with its Ethernet header if it is `whole`. Nothing that comes out is acted on by a terminal.
pub(crate) fn dump(frame: &[u8], form: Dump, whole: bool) -> String {
    let bytes = if whole { frame } else { frame.get(ETHERNET..).unwrap_or_default() };
    let mut text = String::with_capacity(bytes.len() * 5);
    if form == Dump::Ascii {
        let shown = |byte: &u8| if *byte == b'\n' { '\n' } else { visible(*byte) };
        text.extend(bytes.iter().map(shown));
        text.push('\n');
        return text;
    }
    for (number, row) in bytes.chunks(ROW).enumerate() {
        let mut hex = String::with_capacity(HEX_WIDTH);
        for pair in row.chunks(2) {
            hex.push(' ');
            for byte in pair {
                // Writing to a string does not fail.
                write!(hex, "{byte:02x}").unwrap_or(());
            }
        }
        write!(text, "\t{:#06x}: ", number * ROW).unwrap_or(());
        if form == Dump::HexAscii {
            let ascii: String = row.iter().map(|byte| visible(*byte)).collect();
            writeln!(text, "{hex:<HEX_WIDTH$}  {ascii}").unwrap_or(());
        } else {
            writeln!(text, "{hex}").unwrap_or(());
        }
    }
    text
}

fn visible(byte: u8) -> char {
    if byte.is_ascii_graphic() || byte == b' ' { byte.into() } else { '.' }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows have sixteen bytes, the last one what is left; the columns stay below each other.
    #[test]
    fn rows_are_aligned() {
        let frame: Vec<u8> = (0..14).chain(0x3a..0x4d).collect();
        let hex = "\t0x0000:  3a3b 3c3d 3e3f 4041 4243 4445 4647 4849\n\t0x0010:  4a4b 4c\n";
        assert_eq!(dump(&frame, Dump::Hex, false), hex);
        let both = dump(&frame, Dump::HexAscii, false);
        let column = |line: &str, word: &str| line.find(word).unwrap();
        let lines: Vec<&str> = both.lines().collect();
        assert_eq!(column(lines[0], ":;<=>?@ABCDEFGHI"), column(lines[1], "JKL"));
        assert_eq!(dump(&frame, Dump::HexAscii, true).lines().count(), 3);
        assert_eq!(dump(&frame[..3], Dump::Hex, false), "");
    }

    /// ASCII keeps its lines, and no other control character.
    #[test]
    fn ascii_is_harmless() {
        let all: Vec<u8> = (0..=255).collect();
        for form in [Dump::Hex, Dump::HexAscii, Dump::Ascii] {
            let text = dump(&all, form, true);
            assert!(text.chars().all(|c| c == '\n' || c == '\t' || !c.is_control()));
        }
        assert_eq!(dump(b"GET /\r\n\x1b[2J", Dump::Ascii, true), "GET /.\n.[2J\n");
    }
}
