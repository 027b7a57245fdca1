//! Patterns of names.

use std::fmt;
use std::marker::PhantomData;
use std::str::Chars;

use serde_json::{Value as Json, json};

use crate::value::{Fault, Form, is_line};

/// A pattern of names: `*` is any number of characters, `?` one, `[a-z]` one of them, `[!a-z]` one of the others;
/// everything else is itself. None of them minds a slash.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Glob(String);

impl Glob {
    /// The pattern `text`, whose brackets are closed and not empty.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let mut rest = text;
        while let Some((_, after)) = rest.split_once('[') {
            let (class, behind) = after.split_once(']')?;
            let class = class.strip_prefix('!').unwrap_or(class);
            let mut members = members(class).peekable();
            members.peek()?;
            if members.any(|(first, last)| first > last) {
                return None;
            }
            rest = behind;
        }
        Some(Self(text.to_owned()))
    }

    /// The pattern as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the whole of `name` is of the pattern.
    ///
    /// Takes time in proportion to the length of both, multiplied, and not more.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        let (mut pattern, mut rest) = (self.0.chars(), name.chars());
        // Behind the last `*`: the pattern, and what of the name it has been tried on. Earlier ones need no other try,
        // since what is between two of them was found at its first place.
        let mut retry: Option<(Chars<'_>, Chars<'_>)> = None;
        loop {
            let mut next = pattern.clone();
            match next.next() {
                Some('*') => {
                    retry = Some((next.clone(), rest.clone()));
                    pattern = next;
                    continue;
                }
                None if rest.as_str().is_empty() => return true,
                Some(c) => {
                    let mut ahead = rest.clone();
                    if ahead.next().is_some_and(|found| one(c, &mut next, found)) {
                        (pattern, rest) = (next, ahead);
                        continue;
                    }
                }
                None => {}
            }
            let Some((behind, tried)) = &mut retry else { return false };
            if tried.next().is_none() {
                return false;
            }
            (pattern, rest) = (behind.clone(), tried.clone());
        }
    }

    /// Whether there is one name of the pattern, the pattern itself.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        !self.0.contains(['*', '?', '['])
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether `found` is what `c` stands for, the beginning of an element whose rest is taken from `pattern`.
fn one(c: char, pattern: &mut Chars<'_>, found: char) -> bool {
    match c {
        '?' => true,
        '[' => {
            let (class, behind) = pattern.as_str().split_once(']').unwrap_or((pattern.as_str(), ""));
            *pattern = behind.chars();
            let (class, wanted) = class.strip_prefix('!').map_or((class, true), |class| (class, false));
            members(class).any(|(first, last)| (first..=last).contains(&found)) == wanted
        }
        c => c == found,
    }
}

/// The ranges of characters of what stands between brackets.
fn members(class: &str) -> impl Iterator<Item = (char, char)> {
    let mut rest = class.chars();
    std::iter::from_fn(move || {
        let first = rest.next()?;
        let mut ahead = rest.clone();
        match (ahead.next(), ahead.next()) {
            (Some('-'), Some(last)) => {
                rest = ahead;
                Some((first, last))
            }
            _ => Some((first, first)),
        }
    })
}

/// What a [`Glob`] is matched with.
pub(super) trait Named {
    /// What would be right.
    const EXPECTED: &'static str;
    /// Why nothing is ever of the pattern.
    const FAULT: fn(&Glob) -> Option<String>;
}

macro_rules! named {
    ($($(#[$doc:meta])* $name:ident, $expected:literal, $fault:expr;)*) => { $(
        $(#[$doc])*
        pub(super) struct $name;

        impl Named for $name {
            const EXPECTED: &'static str = $expected;
            const FAULT: fn(&Glob) -> Option<String> = $fault;
        }
    )* };
}
named! {
    /// The name of a port.
    PortName, "the name of an app, such as \"bob-*\"", |_| None;
    /// What a process calls itself.
    Comm, "the name of a process, such as \"postgres\"", is_long;
    /// The path of a program.
    Program, "the path of a program, such as \"/usr/lib/postgresql/*/bin/postgres\"", is_relative;
    /// The label of a security module.
    Label, "the label of a process, such as \"*:postgresql_t:*\"", |_| None;
}

fn is_long(glob: &Glob) -> Option<String> {
    // `TASK_COMM_LEN` of Linux without the NUL.
    const COMM_MAX: usize = 15;
    let text = glob.as_str();
    let kept = &text[..text.floor_char_boundary(COMM_MAX)];
    let is_long = glob.is_plain() && text.len() > COMM_MAX;
    is_long.then(|| format!("the kernel keeps {COMM_MAX} bytes of it: \"{kept}\""))
}

fn is_relative(glob: &Glob) -> Option<String> {
    let text = glob.as_str();
    let is_relative = !text.starts_with(['/', '*', '?', '[']);
    is_relative.then(|| format!("the path of a program begins with /: \"*/{text}\" is one of that name anywhere"))
}

/// The form of a [`Glob`] of such names.
pub(super) struct GlobOf<N>(PhantomData<N>);

/// Most bytes of a pattern: `PATH_MAX` of Linux without the NUL.
const PATTERN_MAX: usize = 4095;

impl<N: Named> Form for GlobOf<N> {
    type Value = Glob;

    fn expected() -> String {
        N::EXPECTED.to_owned()
    }

    fn schema() -> Json {
        json!({ "type": "string", "minLength": 1, "maxLength": PATTERN_MAX })
    }

    fn text(text: &str) -> Result<Glob, Fault> {
        if !is_line(text, PATTERN_MAX) {
            return Err(Fault::default());
        }
        let help = match Glob::new(text) {
            None => Some("after [ come characters or a range such as a-z, and ]".to_owned()),
            Some(glob) => match (N::FAULT)(&glob) {
                None => return Ok(glob),
                help => help,
            },
        };
        Err(Fault::unexpected(help))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Each kind of element, at the start, in the middle and at the end.
    #[test]
    fn patterns_match_whole_names() {
        for (pattern, name, expected) in [
            ("postgres", "postgres", true),
            ("postgres", "postgres1", false),
            ("", "", true),
            ("*", "", true),
            ("*", "a/b", true),
            ("**", "ab", true),
            ("bob-*", "bob-", true),
            ("bob-*", "bobx", false),
            ("*-db", "a-db-db", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c-b", false),
            ("?", "ä", true),
            ("?", "", false),
            ("[a-c]?", "bx", true),
            ("[a-c]", "d", false),
            ("[!a-c]", "d", true),
            ("[!a-c]", "a", false),
            ("[*]", "*", true),
            ("[*]", "a", false),
            ("[a-]", "-", true),
            ("x]", "x]", true),
            ("*[0-9]/bin", "/usr/15/bin", true),
        ] {
            assert_eq!(Glob::new(pattern).unwrap().matches(name), expected, "{pattern} {name}");
        }
        for pattern in ["[", "a[b", "[]", "[!]", "[z-a]", "[a]["] {
            assert_eq!(Glob::new(pattern), None, "{pattern}");
        }
    }

    /// A pattern that makes simple matchers try every way takes no time worth mentioning.
    #[test]
    fn many_stars_are_no_trap() {
        let glob = Glob::new(&"*a".repeat(1000)).unwrap();
        assert!(!glob.matches(&"a".repeat(999)));
        assert!(glob.matches(&"a".repeat(3000)));
    }

    /// The plain meaning, by recursion.
    fn model(pattern: &[char], name: &[char]) -> bool {
        match pattern {
            [] => name.is_empty(),
            ['*', rest @ ..] => (0..=name.len()).any(|at| model(rest, &name[at..])),
            ['?', rest @ ..] => !name.is_empty() && model(rest, &name[1..]),
            [c, rest @ ..] => name.first() == Some(c) && model(rest, &name[1..]),
        }
    }

    proptest! {
        #[test]
        fn matching_is_what_the_model_says(pattern in "[ab*?]{0,8}", name in "[ab]{0,8}") {
            let chars = |text: &str| text.chars().collect::<Vec<_>>();
            let expected = model(&chars(&pattern), &chars(&name));
            prop_assert_eq!(Glob::new(&pattern).unwrap().matches(&name), expected);
        }
    }
}
