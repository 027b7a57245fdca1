//! The two Unix sockets that the daemon listens on.

use std::fmt;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};

use crate::account::{Account, Mode};
use crate::value::{As, Fault, Form, Raw};

/// Declares a listening Unix socket by its defaults.
macro_rules! socket {
    ($(#[$doc:meta])* $name:ident, $path:literal, $mode:literal) => {
        $(#[$doc])*
        #[derive(Deserialize, JsonSchema)]
        #[serde(deny_unknown_fields, default)]
        pub(crate) struct $name {
            /// Where the socket is.
            #[serde(with = "As::<SocketPath>")]
            path: SocketPath,
            /// The user that owns the socket; without it, the daemon's.
            #[serde(with = "As::<Account>")]
            owner: Option<Account>,
            /// The group that owns the socket; without it, the daemon's.
            #[serde(with = "As::<Account>")]
            group: Option<Account>,
            /// Who may connect: permission bits.
            #[serde(with = "As::<Mode>")]
            mode: Mode,
        }

        impl Default for $name {
            fn default() -> Self {
                let (path, mode) = (SocketPath(PathBuf::from($path)), Mode::new($mode));
                Self { path, owner: None, group: None, mode }
            }
        }

        impl From<$name> for Socket {
            fn from($name { path, owner, group, mode }: $name) -> Self {
                Self { path, owner, group, mode }
            }
        }
    };
}
socket! {
    /// The socket that apps attach to.
    AppSocket, "/run/kopi/kopi.sock", 0o660
}
socket! {
    /// The socket for operators.
    ControlSocket, "/run/kopi/control.sock", 0o600
}

/// One listening Unix socket.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Socket {
    /// Where it is.
    pub path: SocketPath,
    /// Its owner; `None` leaves the daemon's user.
    pub owner: Option<Account>,
    /// Its group; `None` leaves the daemon's group.
    pub group: Option<Account>,
    /// Who may connect: that takes the right to write.
    pub mode: Mode,
}

/// An absolute path that fits a socket's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketPath(PathBuf);

impl SocketPath {
    /// Most bytes of a path: those of `sun_path`, without the NUL.
    ///
    /// # Source
    ///
    /// unix(7), "Address format".
    pub const LEN_MAX: usize = 107;

    /// The path.
    #[must_use]
    pub fn as_path(&self) -> &Path {
        &self.0
    }
}

impl AsRef<Path> for SocketPath {
    fn as_ref(&self) -> &Path {
        &self.0
    }
}

impl fmt::Display for SocketPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.display().fmt(f)
    }
}

impl Form for SocketPath {
    type Value = Self;

    fn expected() -> String {
        format!("an absolute path of at most {} bytes", Self::LEN_MAX)
    }

    fn schema() -> Json {
        json!({ "type": "string", "pattern": "^/.*[^/]$", "maxLength": Self::LEN_MAX })
    }

    fn read(raw: Raw<'_>) -> Result<Self, Fault> {
        let Raw::Text(text) = raw else { return Err(Fault::default()) };
        let help = if !text.starts_with('/') {
            "the path must begin with /: the daemon's working folder is not the file's".to_owned()
        } else if text.len() > Self::LEN_MAX {
            format!("a socket's address holds no more, and this has {}", text.len())
        } else if text.ends_with('/') {
            "the path must end in a file's name".to_owned()
        } else if text.contains(char::is_control) {
            "it has a control character".to_owned()
        } else {
            return Ok(Self(PathBuf::from(text)));
        };
        Err(Fault::hint(help))
    }
}

impl Serialize for SocketPath {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
