//! Names that a policy gives.

use serde_json::{Value as Json, json};

use crate::value::{Fault, Form, Raw};

/// A name of at most `MAX` letters, digits, `.`, `_` and `-`, so that it needs no quotes on a command line.
#[derive(Debug)]
pub(super) struct Name<const MAX: usize>;

impl<const MAX: usize> Form for Name<MAX> {
    type Value = String;

    fn expected() -> String {
        format!("a name of 1 to {MAX} letters, digits, `.`, `_` and `-`")
    }

    fn schema() -> Json {
        json!({ "type": "string", "minLength": 1, "maxLength": MAX, "pattern": "^[0-9A-Za-z._-]+$" })
    }

    fn read(raw: Raw<'_>) -> Result<String, Fault> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        match raw {
            Raw::Text(text) if (1..=MAX).contains(&text.len()) && text.bytes().all(allowed) => Ok(text.to_owned()),
            _ => Err(Fault::default()),
        }
    }
}
