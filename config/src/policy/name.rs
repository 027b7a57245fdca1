//! Names that a policy gives.

use serde_json::{Value as Json, json};
use toml::de::DeValue;

use crate::walk::{Form, Item};

/// A name of letters, digits, `.`, `_` and `-`, so that it needs no quotes on a command line.
#[derive(Clone, Copy, Debug)]
pub(super) struct NameForm {
    /// Most characters.
    pub max: usize,
}

impl Form for NameForm {
    type Value = String;

    fn expected(&self) -> String {
        format!("a name of 1 to {} letters, digits, `.`, `_` and `-`", self.max)
    }

    fn schema(&self) -> Json {
        json!({ "type": "string", "minLength": 1, "maxLength": self.max, "pattern": "^[0-9A-Za-z._-]+$" })
    }

    fn read(&self, item: &Item<'_>) -> Option<String> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        match item.value {
            DeValue::String(text) if (1..=self.max).contains(&text.len()) && text.bytes().all(allowed) => {
                Some(text.to_string())
            }
            _ => item.refuse(self, None),
        }
    }
}
