//! Who may open a file: users, groups, permission bits.

use std::fmt;

use serde::Serialize;
use serde_json::{Value as Json, json};

use crate::value::{Fault, Form, is_line, pattern};

/// A user or a group, as it is written: resolving a name is the daemon's work, on the machine it runs on.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(untagged)]
pub enum Account {
    /// By name, to be looked up.
    Name(String),
    /// By number. Never `u32::MAX`, which means "leave it" to chown(2).
    Id(u32),
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Id(id) => id.fmt(f),
        }
    }
}

/// Permission bits of a file, at most `0o777`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mode(u32);

impl Mode {
    pub(crate) const fn new(bits: u32) -> Self {
        Self(bits)
    }

    /// The bits, as chmod(2) takes them.
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// Whether every user of the machine may write.
    #[must_use]
    pub const fn is_world_writable(self) -> bool {
        self.0 & 0o002 != 0
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04o}", self.0)
    }
}

impl Account {
    /// Most bytes of a name: `LOGIN_NAME_MAX` of Linux, without the NUL.
    const NAME_MAX: usize = 255;
}

impl Form for Account {
    type Value = Self;

    fn expected() -> String {
        format!("a name or a number up to {}", u32::MAX - 1)
    }

    fn schema() -> Json {
        let name = json!({ "type": "string", "minLength": 1, "maxLength": Self::NAME_MAX });
        json!({ "anyOf": [name, { "type": "integer", "minimum": 0, "maximum": u32::MAX - 1 }] })
    }

    /// A name is what a line of passwd(5) or group(5) can hold, and what no path or list can be taken for. One of digits
    /// alone is a number, as it is to chown(1) when no such name exists.
    fn text(text: &str) -> Result<Self, Fault> {
        let bad = |c: char| c.is_whitespace() || matches!(c, ':' | ',' | '/');
        if text.bytes().all(|byte| byte.is_ascii_digit()) {
            Self::number(text.parse().unwrap_or(-1))
        } else if is_line(text, Self::NAME_MAX) && !text.starts_with(['-', '+']) && !text.contains(bad) {
            Ok(Self::Name(text.to_owned()))
        } else {
            Err(Fault::default())
        }
    }

    fn number(id: i128) -> Result<Self, Fault> {
        u32::try_from(id).ok().filter(|&id| id != u32::MAX).map(Self::Id).ok_or_else(Fault::default)
    }
}

/// Three octal digits, with a zero before them or not, in quotes.
impl Form for Mode {
    type Value = Self;

    fn expected() -> String {
        "permission bits in octal, from \"0000\" to \"0777\"".to_owned()
    }

    fn schema() -> Json {
        pattern("^0?[0-7]{3}$")
    }

    fn text(text: &str) -> Result<Self, Fault> {
        let digits = text.strip_prefix('0').filter(|rest| rest.len() == 3).unwrap_or(text);
        let bits = u32::from_str_radix(digits, 8).ok().filter(|_| digits.len() == 3 && is_octal(digits));
        bits.map(Self).ok_or_else(Fault::default)
    }

    /// A bare 660 would be decimal.
    fn number(number: i128) -> Result<Self, Fault> {
        let digits = number.to_string();
        let is_meant = digits.len() <= 4 && is_octal(&digits);
        Err(Fault::unexpected(is_meant.then(|| format!("write it as a string: \"{digits:0>4}\""))))
    }

    /// Such as 0o660, which is meant as it is read.
    fn based_number(number: i128) -> Result<Self, Fault> {
        Err(Fault::unexpected((0..=0o777).contains(&number).then(|| format!("write it as a string: \"{number:04o}\""))))
    }
}

fn is_octal(digits: &str) -> bool {
    digits.bytes().all(|byte| matches!(byte, b'0'..=b'7'))
}

impl Serialize for Mode {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
