//! The two Unix sockets that the daemon listens on.

use std::fmt;
use std::path::{Path, PathBuf};

use serde_json::{Value as Json, json};
use toml::de::DeValue;

use crate::account::{Account, AccountForm, Mode, ModeForm};
use crate::walk::{Form, Item, Key, Need, Table};

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

/// The form of a [`SocketPath`].
#[derive(Clone, Copy, Debug)]
pub struct SocketPathForm;

impl Form for SocketPathForm {
    type Value = SocketPath;

    fn expected(&self) -> String {
        format!("an absolute path of at most {} bytes", SocketPath::LEN_MAX)
    }

    fn schema(&self) -> Json {
        json!({ "type": "string", "pattern": "^/.*[^/]$", "maxLength": SocketPath::LEN_MAX })
    }

    fn read(&self, item: &Item<'_>) -> Option<SocketPath> {
        let DeValue::String(text) = item.value else { return item.refuse(self, None) };
        let help = if !text.starts_with('/') {
            "the path must begin with /: the daemon's working folder is not the file's".to_owned()
        } else if text.len() > SocketPath::LEN_MAX {
            format!("a socket's address holds no more, and this has {}", text.len())
        } else if text.ends_with('/') {
            "the path must end in a file's name".to_owned()
        } else if text.contains(char::is_control) {
            "it has a control character".to_owned()
        } else {
            return Some(SocketPath(PathBuf::from(text.as_ref())));
        };
        item.refuse(self, Some(help))
    }
}

/// The keys of a table that describes a [`Socket`], besides [`OWNER`] and [`GROUP`]: those with a default of their own.
#[derive(Debug)]
pub(crate) struct SocketKeys {
    pub(crate) path: &'static Key<SocketPathForm>,
    pub(crate) mode: &'static Key<ModeForm>,
}

impl SocketKeys {
    pub(crate) const fn path(default: &'static str) -> Key<SocketPathForm> {
        Key { name: "path", doc: "where the socket is", form: SocketPathForm, need: Need::Default(default) }
    }

    pub(crate) const fn mode(default: &'static str) -> Key<ModeForm> {
        Key { name: "mode", doc: "who may connect: permission bits", form: ModeForm, need: Need::Default(default) }
    }

    pub(crate) fn read(&self, table: &Table<'_>) -> Option<Socket> {
        let path = table.get(self.path);
        let owner = table.optional(&OWNER);
        let group = table.optional(&GROUP);
        let mode = table.get(self.mode);
        Some(Socket { path: path?, owner: owner?, group: group?, mode: mode? })
    }
}

pub(crate) static OWNER: Key<AccountForm> = Key {
    name: "owner",
    doc: "the user that owns the socket; without it, the daemon's",
    form: AccountForm,
    need: Need::Optional,
};

pub(crate) static GROUP: Key<AccountForm> = Key {
    name: "group",
    doc: "the group that owns the socket; without it, the daemon's",
    form: AccountForm,
    need: Need::Optional,
};
