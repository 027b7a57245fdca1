//! Names of other files.

use std::path::PathBuf;

use serde_json::{Value as Json, json};
use toml::de::DeValue;

use crate::walk::{Form, Item};

/// The form of the path of a file, absolute or relative.
#[derive(Clone, Copy, Debug)]
pub struct FilePathForm;

impl FilePathForm {
    /// `PATH_MAX` of Linux, without the NUL.
    const MAX: usize = 4095;
}

impl Form for FilePathForm {
    type Value = PathBuf;

    fn expected(&self) -> String {
        format!("the path of a file, of 1 to {} bytes", Self::MAX)
    }

    fn schema(&self) -> Json {
        json!({ "type": "string", "minLength": 1, "maxLength": Self::MAX, "pattern": "[^/]$" })
    }

    fn read(&self, item: &Item<'_>) -> Option<PathBuf> {
        let DeValue::String(text) = item.value else { return item.refuse(self, None) };
        if text.is_empty() || text.len() > Self::MAX || text.contains(char::is_control) {
            return item.refuse(self, None);
        }
        if text.ends_with('/') {
            return item.refuse(self, Some("it must end in a file's name".to_owned()));
        }
        Some(PathBuf::from(&**text))
    }
}
