//! Who may open a file: users, groups, permission bits.

use std::fmt;

use serde_json::{Value as Json, json};
use toml::de::DeValue;

use crate::walk::{Form, Item};

/// A user or a group, as it is written: resolving a name is the daemon's work, on the machine it runs on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
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

/// The form of an [`Account`].
#[derive(Clone, Copy, Debug)]
pub struct AccountForm;

impl AccountForm {
    /// Most bytes of a name: `LOGIN_NAME_MAX` of Linux, without the NUL.
    const NAME_MAX: usize = 255;

    fn number(text: &str, radix: u32) -> Option<Account> {
        u32::from_str_radix(text, radix).ok().filter(|&id| id != u32::MAX).map(Account::Id)
    }

    /// A name is what a line of passwd(5) or group(5) can hold, and what no path or list can be taken for.
    fn name(text: &str) -> Option<Account> {
        let bad = |c: char| c.is_control() || c.is_whitespace() || matches!(c, ':' | ',' | '/');
        let good = !text.is_empty() && text.len() <= Self::NAME_MAX && !text.starts_with(['-', '+']);
        (good && !text.contains(bad)).then(|| Account::Name(text.to_owned()))
    }
}

impl Form for AccountForm {
    type Value = Account;

    fn expected(&self) -> String {
        format!("a name or a number up to {}", u32::MAX - 1)
    }

    fn schema(&self) -> Json {
        let name = json!({ "type": "string", "minLength": 1, "maxLength": Self::NAME_MAX });
        json!({ "anyOf": [name, { "type": "integer", "minimum": 0, "maximum": u32::MAX - 1 }] })
    }

    fn read(&self, item: &Item<'_>) -> Option<Account> {
        let account = match item.value {
            // A name of digits alone is a number, as it is to chown(1) when no such name exists.
            DeValue::String(text) if text.bytes().all(|byte| byte.is_ascii_digit()) => Self::number(text, 10),
            DeValue::String(text) => Self::name(text),
            DeValue::Integer(number) => Self::number(number.as_str(), number.radix()),
            _ => None,
        };
        account.or_else(|| item.refuse(self, None))
    }
}

/// The form of a [`Mode`]: three octal digits, with a zero before them or not, in quotes.
#[derive(Clone, Copy, Debug)]
pub struct ModeForm;

impl Form for ModeForm {
    type Value = Mode;

    fn expected(&self) -> String {
        "permission bits in octal, from \"0000\" to \"0777\"".to_owned()
    }

    fn schema(&self) -> Json {
        json!({ "type": "string", "pattern": "^0?[0-7]{3}$" })
    }

    fn read(&self, item: &Item<'_>) -> Option<Mode> {
        let digits = match item.value {
            DeValue::String(text) => {
                let digits = text.strip_prefix('0').filter(|rest| rest.len() == 3).unwrap_or(text);
                if digits.len() == 3 && digits.bytes().all(|byte| matches!(byte, b'0'..=b'7')) {
                    return u32::from_str_radix(digits, 8).ok().map(Mode);
                }
                return item.refuse(self, None);
            }
            DeValue::Integer(number) => number.as_str(),
            _ => return item.refuse(self, None),
        };
        // A bare 660 would be decimal.
        let octal = digits.len() <= 4 && digits.bytes().all(|byte| matches!(byte, b'0'..=b'7'));
        item.refuse(self, octal.then(|| format!("write it as a string: \"{digits:0>4}\"")))
    }
}
