//! The comment of a packet: whose it is, and what became of it.
//!
//! Pairs `key=value`, with one space between them. A byte of a value that is not printable ASCII, is a space or is a
//! backslash is written as `\xNN`; so no name that somebody gives himself can look like another key, or reach a terminal
//! as anything but text.

use std::borrow::Cow;
use std::fmt::Write;

/// Whose a packet is and what became of it. Keys are written in this order; what is `None` is left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Note<'a> {
    /// The owner's app name.
    pub app: Option<&'a str>,
    /// The owner's process.
    pub pid: Option<i32>,
    /// The owner's user, as a number.
    pub uid: Option<u32>,
    /// The owner's user, as a name.
    pub user: Option<&'a str>,
    /// What the owner calls itself.
    pub comm: Option<&'a str>,
    /// The owner's container.
    pub container: Option<&'a str>,
    /// The pod of that container.
    pub pod: Option<&'a str>,
    /// `accept`, `drop` or `reject`.
    pub verdict: &'a str,
    /// The name of the reason for which it was dropped.
    pub reason: Option<&'a str>,
    /// The rule that decided, if one did.
    pub rule: Option<&'a str>,
    /// The queue that it came through.
    pub queue: Option<u32>,
}

impl Note<'_> {
    /// Appends the comment to `out`. Does not allocate, but to grow it.
    ///
    /// This costs several times as much as the packet around it. Who writes many packets with the same note keeps it.
    pub fn write(&self, out: &mut String) {
        let mut writer = Writer { out, between: "" };
        writer.text("app=", self.app);
        writer.number("pid=", self.pid.map(i64::from));
        writer.number("uid=", self.uid.map(i64::from));
        writer.text("user=", self.user);
        writer.text("comm=", self.comm);
        writer.text("container=", self.container);
        writer.text("pod=", self.pod);
        writer.text("verdict=", Some(self.verdict));
        writer.text("reason=", self.reason);
        writer.text("rule=", self.rule);
        writer.number("queue=", self.queue.map(i64::from));
    }
}

/// Reads a comment back: keys and their values, unescaped, in the order in which they are there.
///
/// Words without `=`, which other programs may have put there, are passed over. A backslash that begins no `\xNN` is
/// taken as it is, and what is no UTF-8 after all is replaced.
pub fn read_note(comment: &str) -> impl Iterator<Item = (&str, Cow<'_, str>)> {
    comment.split(' ').filter_map(|word| word.split_once('=')).map(|(key, value)| (key, unescape(value)))
}

struct Writer<'o> {
    out: &'o mut String,
    /// What stands before the next key.
    between: &'static str,
}

impl Writer<'_> {
    fn key(&mut self, key: &str) {
        self.out.push_str(self.between);
        self.out.push_str(key);
        self.between = " ";
    }

    fn text(&mut self, key: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.key(key);
            escape(self.out, value);
        }
    }

    fn number(&mut self, key: &str, value: Option<i64>) {
        if let Some(value) = value {
            self.key(key);
            write!(self.out, "{value}").expect(TAKES_ALL);
        }
    }
}

/// Why writing to a `String` does not fail.
const TAKES_ALL: &str = "a String takes whatever there is memory for";

fn escape(out: &mut String, value: &str) {
    let plain = |byte: u8| byte.is_ascii_graphic() && byte != b'\\';
    if value.bytes().all(plain) {
        out.push_str(value);
        return;
    }
    for byte in value.bytes() {
        if plain(byte) {
            out.push(char::from(byte));
        } else {
            write!(out, "\\x{byte:02x}").expect(TAKES_ALL);
        }
    }
}

fn unescape(value: &str) -> Cow<'_, str> {
    if !value.contains('\\') {
        return Cow::Borrowed(value);
    }
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let [first, others @ ..] = rest {
        let (byte, after) = escaped(rest).unwrap_or((*first, others));
        bytes.push(byte);
        rest = after;
    }
    Cow::Owned(String::from_utf8_lossy(&bytes).into_owned())
}

/// The byte that `bytes` begin with as `\xNN`, and what is after it.
fn escaped(bytes: &[u8]) -> Option<(u8, &[u8])> {
    let [b'\\', b'x', high, low, after @ ..] = bytes else { return None };
    let nibble = |byte: u8| char::from(byte).to_digit(16);
    let byte = nibble(*high)? << 4 | nibble(*low)?;
    Some((u8::try_from(byte).ok()?, after))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(note: &Note<'_>) -> String {
        let mut out = String::new();
        note.write(&mut out);
        out
    }

    /// The comment is what the contract with other tools says, in every detail.
    #[test]
    fn all_keys_in_order() {
        let note = Note {
            app: Some("web"),
            pid: Some(4711),
            uid: Some(0),
            user: Some("bob"),
            comm: Some("a b\\c"),
            container: Some("u@7.service/3f2a"),
            pod: Some("2c48-9"),
            verdict: "reject",
            reason: Some("rejected"),
            rule: Some("größe=1\n"),
            queue: Some(u32::MAX),
        };
        assert_eq!(
            written(&note),
            "app=web pid=4711 uid=0 user=bob comm=a\\x20b\\x5cc container=u@7.service/3f2a pod=2c48-9 \
             verdict=reject reason=rejected rule=gr\\xc3\\xb6\\xc3\\x9fe=1\\x0a queue=4294967295"
        );
    }

    /// A frame that has no owner has a comment that begins with the verdict.
    #[test]
    fn the_verdict_alone() {
        assert_eq!(written(&Note { verdict: "accept", ..Note::default() }), "verdict=accept");
    }

    /// What no note of ours looks like is read as well as it can be.
    #[test]
    fn foreign_comments_are_read() {
        let read: Vec<_> = read_note("seen twice  a= b=\\ c=\\x d=\\x4 e=\\xg0 f=\\xC3\\xa4 g=\\xff =h").collect();
        let expected = [
            ("a", ""),
            ("b", "\\"),
            ("c", "\\x"),
            ("d", "\\x4"),
            ("e", "\\xg0"),
            ("f", "ä"),
            ("g", "\u{fffd}"),
            ("", "h"),
        ];
        assert_eq!(read, expected.map(|(key, value)| (key, Cow::Borrowed(value))));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Any note is printable ASCII, and is read back as it was; no value becomes a key.
        #[test]
        fn notes_are_read_back(
            texts in any::<[Option<String>; 7]>(),
            verdict in any::<String>(),
            numbers in any::<(Option<i32>, Option<u32>, Option<u32>)>(),
        ) {
            let [app, user, comm, container, pod, reason, rule] = texts.each_ref().map(Option::as_deref);
            let (pid, uid, queue) = numbers;
            let note = Note { app, pid, uid, user, comm, container, pod, verdict: &verdict, reason, rule, queue };
            let comment = written(&note);
            prop_assert!(comment.bytes().all(|byte| (0x20..0x7f).contains(&byte)), "{comment}");
            let expected: Vec<_> = [
                ("app", app.map(String::from)),
                ("pid", pid.map(|n| n.to_string())),
                ("uid", uid.map(|n| n.to_string())),
                ("user", user.map(String::from)),
                ("comm", comm.map(String::from)),
                ("container", container.map(String::from)),
                ("pod", pod.map(String::from)),
                ("verdict", Some(verdict.clone())),
                ("reason", reason.map(String::from)),
                ("rule", rule.map(String::from)),
                ("queue", queue.map(|n| n.to_string())),
            ]
            .into_iter()
            .filter_map(|(key, value)| Some((key, value?)))
            .collect();
            let read: Vec<_> = read_note(&comment).map(|(key, value)| (key, value.into_owned())).collect();
            prop_assert_eq!(read, expected);
        }

        /// Any comment can be read.
        #[test]
        fn any_comment_is_read(comment in "[a= \\\\x0-9äé]{0,40}|.*") {
            prop_assert!(read_note(&comment).count() <= comment.len());
        }
    }
}
