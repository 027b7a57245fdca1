//! The form of TCP's flags.

use std::fmt;

use serde_json::Value as Json;

use super::matches::TcpFlags;
use super::words::TCP_FLAGS;
use crate::value::{Fault, Form, did_you_mean, pattern};

impl TcpFlags {
    /// Flags by their names, with commas between: `syn,ack`; `none` for none of them, `all` for all.
    fn parse(names: &str) -> Result<u8, &str> {
        match names.trim() {
            "none" => Ok(0),
            "all" => Ok(u8::MAX),
            names => names.split(',').map(str::trim).try_fold(0, |flags, name| {
                TCP_FLAGS.iter().position(|flag| *flag == name).map(|bit| flags | 1 << bit).ok_or(name)
            }),
        }
    }

    fn names(flags: u8) -> String {
        match flags {
            0 => "none".to_owned(),
            u8::MAX => "all".to_owned(),
            _ => {
                let set = TCP_FLAGS.iter().enumerate().filter(|(bit, _)| flags & 1 << bit != 0).map(|(_, name)| *name);
                set.collect::<Vec<_>>().join(",")
            }
        }
    }
}

impl fmt::Display for TcpFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", Self::names(self.value), Self::names(self.mask))
    }
}

/// The flags that are set, a slash, and the flags that are looked at.
impl Form for TcpFlags {
    type Value = Self;

    fn expected() -> String {
        "flags that are set and flags that are looked at, such as \"syn/syn,ack,rst,fin\"".to_owned()
    }

    fn schema() -> Json {
        pattern("^[a-z, ]+(/[a-z, ]+)?$")
    }

    fn text(text: &str) -> Result<Self, Fault> {
        let (value, mask) = text.split_once('/').unwrap_or((text, text));
        let flags = Self::parse(value).and_then(|value| Ok(Self { mask: Self::parse(mask)?, value }));
        Err(Fault::hint(match flags {
            Ok(Self { mask: 0, .. }) => {
                "to look at no flag, leave the key out; for none set write \"none/all\"".to_owned()
            }
            Ok(Self { mask, value }) if value & !mask != 0 => {
                format!("{} must be behind the slash too, to be looked at", Self::names(value & !mask))
            }
            Ok(flags) => return Ok(flags),
            Err(word) => {
                did_you_mean(word, &TCP_FLAGS).unwrap_or_else(|| format!("the flags are {}", TCP_FLAGS.join(", ")))
            }
        }))
    }
}
