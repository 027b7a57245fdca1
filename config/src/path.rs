//! Names of files and of interfaces.

use std::path::PathBuf;

use serde_json::{Value as Json, json};

use crate::value::{Fault, Form, Name, is_line};

/// The form of the path of a file, absolute or relative.
pub(crate) struct FilePath;

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

    fn text(text: &str) -> Result<PathBuf, Fault> {
        match text {
            _ if !is_line(text, Self::MAX) => Err(Fault::default()),
            _ if text.ends_with('/') => Err(Fault::hint("it must end in a file's name")),
            _ => Ok(PathBuf::from(text)),
        }
    }
}

/// The form of an absolute path that fits a socket's address.
pub(crate) struct SocketPath;

impl SocketPath {
    /// Most bytes of a path: those of `sun_path`, without the NUL.
    ///
    /// # Source
    ///
    /// unix(7), "Address format".
    const LEN_MAX: usize = 107;
}

impl Form for SocketPath {
    type Value = PathBuf;

    fn expected() -> String {
        format!("an absolute path of at most {} bytes", Self::LEN_MAX)
    }

    fn schema() -> Json {
        json!({ "type": "string", "pattern": "^/.*[^/]$", "maxLength": Self::LEN_MAX })
    }

    fn text(text: &str) -> Result<PathBuf, Fault> {
        Err(Fault::hint(match text {
            _ if !text.starts_with('/') => {
                "the path must begin with /: the daemon's working folder is not the file's".to_owned()
            }
            _ if text.len() > Self::LEN_MAX => {
                format!("a socket's address holds no more, and this has {}", text.len())
            }
            _ if text.ends_with('/') => "the path must end in a file's name".to_owned(),
            _ if text.contains(char::is_control) => "it has a control character".to_owned(),
            _ => return Ok(PathBuf::from(text)),
        }))
    }
}

/// The form of an interface's name that the kernel takes as it is.
pub(crate) struct Interface;

impl Interface {
    /// Most bytes of a name: `IFNAMSIZ`, without the NUL.
    ///
    /// # Source
    ///
    /// Linux, `include/uapi/linux/if.h`.
    const LEN_MAX: usize = 15;
}

impl Form for Interface {
    type Value = String;

    fn expected() -> String {
        format!("an interface's name of 1 to {} letters, digits, `.`, `_` and `-`", Self::LEN_MAX)
    }

    fn schema() -> Json {
        json!({ "type": "string", "minLength": 1, "maxLength": Self::LEN_MAX, "pattern": "^[0-9A-Za-z_-][0-9A-Za-z._-]*$" })
    }

    fn text(text: &str) -> Result<String, Fault> {
        match Name::<{ Self::LEN_MAX }>::text(text) {
            // "." and ".." are folders in sysfs, so the kernel does not take them.
            Ok(name) if !name.starts_with('.') => Ok(name),
            _ => Err(Fault::default()),
        }
    }
}
