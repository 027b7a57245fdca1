//! The JSON schema of a file, from the same types that read it.
//!
//! Editors use it to complete and check a file while it is written; which keys there are, the reader takes from it, too.
//! It knows each key alone; what concerns two of them, and whether a CPU or a device exists, only the daemon says.

use schemars::generate::SchemaSettings;
use schemars::transform::{RecursiveTransform, Transform};
use schemars::{JsonSchema, Schema};
use serde_json::{Map, Value as Json};

use crate::de::FLATTEN;

/// The schema of a file of the type `T`.
pub(crate) fn schema<T: JsonSchema>(title: &str) -> Json {
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
        let required = schema.get("required").cloned().unwrap_or_default();
        let Some(Json::Object(properties)) = schema.get_mut("properties") else { return };
        if let Some(Json::Object(own)) = properties.remove(FLATTEN)
            && let Some(Json::Object(own)) = own.get("properties")
        {
            properties.extend(Map::clone(own));
        }
        for name in required.as_array().into_iter().flatten().filter_map(Json::as_str) {
            properties.get_mut(name).and_then(Json::as_object_mut).map(|key| key.remove("default"));
        }
    })
    .transform(&mut schema);
    schema.into()
}
