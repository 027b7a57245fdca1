//! Text that is safe on a terminal, and numbers for people.

use serde_json::Value;
use std::borrow::Cow;
use std::fmt::Display;

/// Whether a terminal might act on `c`, or show the text around it in another order.
pub(crate) fn is_unsafe(c: char) -> bool {
    // Beside the control characters: bidirectional formatting, line separators and invisible ones (Unicode TR36, 3).
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// `text` with every unsafe character replaced by what `escape` makes of it.
pub(crate) fn replace(text: &str, escape: impl Fn(char) -> String) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut out, c| {
        if is_unsafe(c) {
            out.push_str(&escape(c));
        } else {
            out.push(c);
        }
        out
    })
}

/// `text` for people's eyes. Names come from processes, which may call themselves anything.
pub(crate) fn clean(text: &str) -> String {
    replace(text, |c| c.escape_default().to_string())
}

/// The same for several lines, which stay lines.
pub(crate) fn clean_lines(text: &str) -> String {
    text.lines().map(clean).collect::<Vec<_>>().join("\n")
}

/// `value` as JSON on one line.
pub(crate) fn as_json(value: &Value) -> String {
    format!("{}\n", escaped_json(&value.to_string()))
}

/// JSON that is safe on a terminal. Control characters can only be left inside strings, where they may be escaped.
pub(crate) fn escaped_json(json: &str) -> Cow<'_, str> {
    if json.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        return Cow::Borrowed(json);
    }
    Cow::Owned(replace(json, |c| {
        let mut units = [0; 2];
        c.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04x}")).collect()
    }))
}

/// `count` and the word for it, which takes an `s` unless there is one.
pub(crate) fn counted<N: Display + PartialEq + From<u8>>(count: N, word: &str) -> String {
    format!("{count} {word}{}", if count == 1.into() { "" } else { "s" })
}

/// A number of bytes, rounded down to a tenth of the largest unit that fits.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [(&str, u32); 3] = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
    match UNITS.iter().find(|(_, shift)| bytes >> shift > 0) {
        None => format!("{bytes} B"),
        Some((unit, shift)) => {
            let tenths = (u128::from(bytes) * 10) >> shift;
            format!("{}.{} {unit}", tenths / 10, tenths % 10)
        }
    }
}

/// A time span, to the second.
pub(crate) fn span(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, _, _) => format!("{hours} h {} min", minutes % 60),
        _ => format!("{days} d {} h", hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// JSON comes out with the same meaning, on one line, and without anything that a terminal acts on.
    #[test]
    fn json_passes_through_escaped() {
        let answer = json!({ "apps": [{ "comm": "a\u{1b}[31m\u{7f}\u{9b}\u{202e}\nb", "tx_packets": u64::MAX }] });
        let line = as_json(&answer);
        assert_eq!(serde_json::from_str::<Value>(&line).unwrap(), answer);
        assert!(line.trim_end_matches('\n').chars().all(|c| !is_unsafe(c)), "{line:?}");
    }

    /// Nothing that a process can put into its name reaches the terminal as a command.
    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(clean("a\u{1b}[31mb\u{7f}\n\u{9b}\u{202e}"), "a\\u{1b}[31mb\\u{7f}\\n\\u{9b}\\u{202e}");
        assert_eq!(clean("naïve \\n"), "naïve \\n");
        assert!(
            (0..=0x10_ffff).filter_map(char::from_u32).all(|c| !clean(&c.to_string()).chars().any(char::is_control))
        );
    }

    /// Sizes keep a tenth of their unit, whatever their magnitude.
    #[test]
    fn sizes_choose_their_unit() {
        let sizes = [0, 1023, 1024, 1536, 2 << 20, (1 << 30) - 1, u64::MAX];
        let texts = ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "2.0 MiB", "1023.9 MiB", "17179869183.9 GiB"];
        assert_eq!(sizes.map(size), texts);
    }

    /// Spans name their two largest units.
    #[test]
    fn spans_choose_their_units() {
        assert_eq!([0, 59, 61, 3660, 90_000].map(span), ["0 s", "59 s", "1 min 1 s", "1 h 1 min", "1 d 1 h"]);
    }
}
