//! The JSON schema of a file, from the same table of keys that reads it.
//!
//! Editors use it to complete and check a file while it is written. It knows each key alone; what concerns two of them,
//! and whether a CPU or a device exists, only the daemon says.

use serde_json::{Map, Value as Json, json};

use crate::walk::{Layout, Need, Section};

/// The schema of the files that `layout` describes, as text that ends in a line break.
#[must_use]
pub fn schema(layout: &Layout, title: &str) -> String {
    let mut properties = keys(layout.top);
    properties.extend(layout.sections.iter().map(|section| (section.name.to_owned(), table(section))));
    properties.extend(layout.lists.iter().map(|section| {
        let list = json!({ "description": section.doc, "type": "array", "items": table(section) });
        (section.name.to_owned(), list)
    }));
    let mut required = required_keys(layout.top);
    required.extend(layout.sections.iter().filter(|section| !required_keys(section).is_empty()).map(|s| s.name));
    let schema = json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": title,
        "type": "object",
        "additionalProperties": false,
        "properties": properties,
        "required": required,
    });
    format!("{schema:#}\n")
}

/// The schema of one table.
pub(crate) fn table(section: &Section) -> Json {
    json!({
        "description": section.doc,
        "type": "object",
        "additionalProperties": false,
        "properties": keys(section),
        "required": required_keys(section),
    })
}

fn keys(section: &Section) -> Map<String, Json> {
    section.keys.iter().map(|key| (key.name().to_owned(), key.schema())).collect()
}

fn required_keys(section: &Section) -> Vec<&'static str> {
    section.keys.iter().filter(|key| key.need() == Need::Required).map(|key| key.name()).collect()
}
