//! The JSON schema of a file, from the same table of keys that reads it.
//!
//! Editors use it to complete and check a file while it is written. It knows each key alone; what concerns two of them,
//! and whether a CPU or a device exists, only the daemon says.

use serde_json::{Map, Value as Json, json};

use crate::walk::{Layout, Need, Section};

/// The schema of the files that `layout` describes, as text that ends in a line break.
#[must_use]
pub fn schema(layout: &Layout, title: &str) -> String {
    let properties: Map<_, _> =
        layout.sections.iter().map(|section| (section.name.to_owned(), table(section))).collect();
    let required: Vec<_> = layout.sections.iter().filter(|section| is_required(section)).map(|s| s.name).collect();
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

fn table(section: &Section) -> Json {
    let properties: Map<_, _> = section.keys.iter().map(|key| (key.name().to_owned(), key.schema())).collect();
    let required: Vec<_> =
        section.keys.iter().filter(|key| key.need() == Need::Required).map(|key| key.name()).collect();
    json!({
        "description": section.doc,
        "type": "object",
        "additionalProperties": false,
        "properties": properties,
        "required": required,
    })
}

fn is_required(section: &Section) -> bool {
    section.keys.iter().any(|key| key.need() == Need::Required)
}
