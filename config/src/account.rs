//! Who may open a file: users, groups, permission bits.

use std::fmt;

use serde::Serialize;
use serde_json::{Value as Json, json};

use crate::value::{Fault, Form, Raw};

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
#[derive(Clone, Copy, PartialEq, Eq)]
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

impl fmt::Debug for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mode({self})")
    }
}

impl Account {
    /// Most bytes of a name: `LOGIN_NAME_MAX` of Linux, without the NUL.
    const NAME_MAX: usize = 255;

    fn number(id: impl TryInto<u32>) -> Option<Self> {
        id.try_into().ok().filter(|&id| id != u32::MAX).map(Self::Id)
    }

    /// A name is what a line of passwd(5) or group(5) can hold, and what no path or list can be taken for.
    fn name(text: &str) -> Option<Self> {
        let bad = |c: char| c.is_control() || c.is_whitespace() || matches!(c, ':' | ',' | '/');
        let good = !text.is_empty() && text.len() <= Self::NAME_MAX && !text.starts_with(['-', '+']);
        (good && !text.contains(bad)).then(|| Self::Name(text.to_owned()))
    }
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

    fn read(raw: Raw<'_>) -> Result<Self, Fault> {
        let account = match raw {
            // A name of digits alone is a number, as it is to chown(1) when no such name exists.
            Raw::Text(text) if text.bytes().all(|byte| byte.is_ascii_digit()) => {
                text.parse::<u32>().ok().and_then(Self::number)
            }
            Raw::Text(text) => Self::name(text),
            Raw::Number(number) => Self::number(number),
            Raw::Truth(_) => None,
        };
        account.ok_or_else(Fault::default)
    }
}

/// Three octal digits, with a zero before them or not, in quotes.
impl Form for Mode {
    type Value = Self;

    fn expected() -> String {
        "permission bits in octal, from \"0000\" to \"0777\"".to_owned()
    }

    fn schema() -> Json {
        json!({ "type": "string", "pattern": "^0?[0-7]{3}$" })
    }

    fn read(raw: Raw<'_>) -> Result<Self, Fault> {
        let is_octal = |digits: &str| digits.bytes().all(|byte| matches!(byte, b'0'..=b'7'));
        match raw {
            Raw::Text(text) => {
                let digits = text.strip_prefix('0').filter(|rest| rest.len() == 3).unwrap_or(text);
                let bits = u32::from_str_radix(digits, 8).ok().filter(|_| digits.len() == 3 && is_octal(digits));
                bits.map(Self).ok_or_else(Fault::default)
            }
            // A bare 660 would be decimal.
            Raw::Number(number) => {
                let digits = number.to_string();
                let octal = digits.len() <= 4 && is_octal(&digits);
                Err(Fault::unexpected(octal.then(|| format!("write it as a string: \"{digits:0>4}\""))))
            }
            Raw::Truth(_) => Err(Fault::default()),
        }
    }

    /// Such as 0o660, which is meant as it is read.
    fn read_based(number: i128) -> Result<Self, Fault> {
        Err(Fault::unexpected((0..=0o777).contains(&number).then(|| format!("write it as a string: \"{number:04o}\""))))
    }
}

impl Serialize for Mode {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
