//! Marks that frames get: one code point.

use serde_json::{Value as Json, json};
use toml::de::DeValue;

use super::match_keys::DSCP_FORM;
use super::values::Part;
use super::words::DSCP;
use crate::walk::{Form, Item};

/// One differentiated services code point: a number from 0 to 63, or its name.
#[derive(Clone, Copy, Debug)]
pub(super) struct CodePointForm;

impl Form for CodePointForm {
    type Value = u8;

    fn expected(&self) -> String {
        "a code point from 0 to 63, or a word such as \"ef\"".to_owned()
    }

    fn schema(&self) -> Json {
        let words: Vec<_> = DSCP.iter().map(|(word, _)| *word).collect();
        json!({ "anyOf": [{ "type": "integer", "minimum": 0, "maximum": 63 }, { "type": "string", "enum": words }] })
    }

    fn read(&self, item: &Item<'_>) -> Option<u8> {
        let help = match item.value {
            DeValue::String(text) => match DSCP_FORM.text(text) {
                Ok(Part::Range(range)) if range.start() == range.end() => return Some(*range.start()),
                Ok(_) => Some("a frame has one: state a single number or name".to_owned()),
                Err(help) => help,
            },
            DeValue::Integer(text) => {
                match u8::from_str_radix(text.as_str(), text.radix()).ok().filter(|number| *number <= 63) {
                    Some(number) => return Some(number),
                    None => None,
                }
            }
            _ => None,
        };
        item.refuse(self, help)
    }
}
