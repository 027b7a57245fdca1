//! The form of TCP's flags.

use std::fmt;

use serde_json::{Value as Json, json};
use toml::de::DeValue;

use super::matches::TcpFlags;
use super::words::TCP_FLAGS;
use crate::walk::{Form, Item, nearest};

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

/// The form of [`TcpFlags`]: the flags that are set, a slash, and the flags that are looked at.
#[derive(Clone, Copy, Debug)]
pub(super) struct TcpFlagsForm;

impl Form for TcpFlagsForm {
    type Value = TcpFlags;

    fn expected(&self) -> String {
        "flags that are set and flags that are looked at, such as \"syn/syn,ack,rst,fin\"".to_owned()
    }

    fn schema(&self) -> Json {
        json!({ "type": "string", "pattern": "^[a-z, ]+(/[a-z, ]+)?$" })
    }

    fn read(&self, item: &Item<'_>) -> Option<TcpFlags> {
        let DeValue::String(text) = item.value else { return item.refuse(self, None) };
        let (value, mask) = text.split_once('/').unwrap_or((text, text));
        let flags = TcpFlags::parse(value).and_then(|value| Ok(TcpFlags { mask: TcpFlags::parse(mask)?, value }));
        match flags {
            Ok(TcpFlags { mask: 0, .. }) => item.refuse(
                self,
                Some("to look at no flag, leave the key out; for none set write \"none/all\"".to_owned()),
            ),
            Ok(TcpFlags { mask, value }) if value & !mask != 0 => {
                let unseen = TcpFlags::names(value & !mask);
                item.refuse(self, Some(format!("{unseen} must be behind the slash too, to be looked at")))
            }
            Ok(flags) => Some(flags),
            Err(word) => {
                let near = nearest(word, &TCP_FLAGS).map(|near| format!("did you mean \"{near}\"?"));
                item.refuse(self, near.or_else(|| Some(format!("the flags are {}", TCP_FLAGS.join(", ")))))
            }
        }
    }
}
