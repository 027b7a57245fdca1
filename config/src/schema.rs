//! The JSON schema of a file, from the same types that read it.
//!
//! Editors use it to complete and check a file while it is written. It knows each key alone; what concerns two of them,
//! and whether a CPU or a device exists, only the daemon says.

use schemars::generate::SchemaSettings;
use schemars::transform::{RecursiveTransform, Transform};
use schemars::{JsonSchema, Schema};
use serde_json::Value as Json;

/// The schema of a file of the type `T`.
#[must_use]
pub(crate) fn schema<T: JsonSchema>(title: &str) -> Schema {
    let mut settings = SchemaSettings::draft07();
    settings.inline_subschemas = true;
    let mut schema = settings.into_generator().into_root_schema_for::<T>();
    schema.insert("title".to_owned(), title.into());
    RecursiveTransform(|schema: &mut Schema| {
        // A key that is optional has no default.
        if schema.get("default") == Some(&Json::Null) {
            schema.remove("default");
        }
        // Lines are broken for who reads the source.
        if let Some(Json::String(text)) = schema.get_mut("description") {
            *text = text.replace('\n', " ");
        }
    })
    .transform(&mut schema);
    schema
}
