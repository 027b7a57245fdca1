//! Names of other files.

use std::path::PathBuf;

use serde_json::{Value as Json, json};

use crate::value::{Fault, Form, Raw};

/// The form of the path of a file, absolute or relative.
#[derive(Debug)]
pub struct FilePath;

impl FilePath {
    /// `PATH_MAX` of Linux, without the NUL.
    const MAX: usize = 4095;
}

impl Form for FilePath {
    type Value = PathBuf;

    fn expected() -> String {
        format!("the path of a file, of 1 to {} bytes", Self::MAX)
    }

    fn schema() -> Json {
        json!({ "type": "string", "minLength": 1, "maxLength": Self::MAX, "pattern": "[^/]$" })
    }

    fn read(raw: Raw<'_>) -> Result<PathBuf, Fault> {
        match raw {
            Raw::Text(text) if text.is_empty() || text.len() > Self::MAX || text.contains(char::is_control) => {
                Err(Fault::default())
            }
            Raw::Text(text) if text.ends_with('/') => Err(Fault::hint("it must end in a file's name")),
            Raw::Text(text) => Ok(PathBuf::from(text)),
            _ => Err(Fault::default()),
        }
    }
}
