//! What an interface had before it was taken over, and the file that it is kept in.

use super::first_version;
use super::form::Link;
use super::message::Message;
use crate::failure::Failure;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

/// Version of the file.
pub(crate) const VERSION: u32 = 2;
/// Longest name of an interface (Linux, `IFNAMSIZ` without the NUL).
pub(crate) const NAME_MAX: usize = 15;

/// What an interface had. All messages are canonical ones, as they were for that interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct State {
    /// Of the file.
    pub(crate) version: u32,
    /// Seconds since the machine was started when this was so, sleep included.
    pub(crate) taken: u32,
    /// The interface that was taken over.
    pub(crate) interface: Link,
    /// The interface that has it all meanwhile.
    pub(crate) tap: String,
    /// Whether IPv6 was off there; `None` if this kernel has none.
    pub(crate) ipv6_off: Option<bool>,
    /// What the numbers in the messages meant.
    pub(crate) links: BTreeMap<u32, String>,
    /// In the kernel's order.
    pub(crate) addresses: Vec<Message>,
    pub(crate) nexthops: Vec<Message>,
    pub(crate) neighbours: Vec<Message>,
    /// Routes and rules, in the kernel's order.
    pub(crate) rows: Vec<Row>,
}

/// A route or rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Row {
    /// Whether it is moved. Others are here since the order with these counts.
    pub(crate) ours: bool,
    pub(crate) message: Message,
}

impl State {
    /// Whether it can be acted on.
    ///
    /// # Errors
    ///
    /// A text for people.
    pub(crate) fn check(&self) -> Result<(), String> {
        match [&self.interface.name, &self.tap].into_iter().find(|name| !is_name(name)) {
            Some(name) => Err(format!("`{name}` is no name of an interface")),
            None if self.interface.name == self.tap => Err(format!("`{}` cannot be taken over by itself", self.tap)),
            None => Ok(()),
        }
    }

    /// How many addresses, and how many routes and rules.
    pub(crate) fn sizes(&self) -> (usize, usize) {
        (self.addresses.len(), self.rows.iter().filter(|row| row.ours).count())
    }

    /// The state in `file`, if there is one.
    ///
    /// # Errors
    ///
    /// [`Failure`] if it cannot be read.
    pub(crate) fn read(file: &Path) -> Result<Option<Self>, Failure> {
        let failed = |reason: String| Failure::File { path: file.into(), reason };
        let text = match fs::read(file) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            other => other.map_err(|error| failed(error.to_string()))?,
        };
        let version: Version = serde_json::from_slice(&text).map_err(|error| failed(error.to_string()))?;
        if version.version == 1 {
            let advice = first_version::advice(&text, file);
            return Err(Failure::Refusal(format!("{}: {advice}", file.display())));
        }
        if version.version != VERSION {
            return Err(failed(format!("it is of version {}, and this kopictl knows {VERSION}", version.version)));
        }
        let state: Self = serde_json::from_slice(&text).map_err(|error| failed(error.to_string()))?;
        state.check().map_err(failed)?;
        Ok(Some(state))
    }

    /// Writes it to `file`, as a whole or not at all, and waits until it is there.
    ///
    /// # Errors
    ///
    /// [`Failure`] if it cannot be written.
    pub(crate) fn write(&self, file: &Path) -> Result<(), Failure> {
        let folder = file.parent().unwrap_or_else(|| Path::new("."));
        let new = file.with_extension("json.new");
        let done = DirBuilder::new().recursive(true).mode(0o755).create(folder).and_then(|()| {
            let mut open = OpenOptions::new();
            let mut out = open.write(true).create(true).truncate(true).mode(0o600).open(&new)?;
            out.write_all(format!("{}\n", serde_json::to_string_pretty(self)?).as_bytes())?;
            out.sync_all()?;
            fs::rename(&new, file)?;
            File::open(folder)?.sync_all()
        });
        done.map_err(|error| Failure::File { path: file.into(), reason: error.to_string() })
    }

    /// Removes `file`.
    ///
    /// # Errors
    ///
    /// [`Failure`] if it stays.
    pub(crate) fn forget(file: &Path) -> Result<(), Failure> {
        match fs::remove_file(file) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(Failure::File { path: file.into(), reason: error.to_string() })
            }
            _ => Ok(()),
        }
    }
}

/// What is read first.
#[derive(Deserialize)]
struct Version {
    version: u32,
}

/// Whether an interface can have this name, and a file, too.
pub(super) fn is_name(name: &str) -> bool {
    (1..=NAME_MAX).contains(&name.len()) && !name.contains(['/', '"', ' ']) && !name.starts_with(['-', '.'])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A state comes back from its file as it was; with names that are none, or of another version, it is refused.
    #[test]
    fn only_what_can_be_acted_on_is_accepted() {
        for good in ["eth0", "eth0.7", "k"] {
            assert!(is_name(good), "{good}");
        }
        for bad in ["", "-x", "../a", "a b", "a\"b", "sixteen-letters-"] {
            assert!(!is_name(bad), "{bad}");
        }
        let state = super::super::steps::tests::state();
        let folder = std::env::temp_dir().join(format!("kopictl-state-{}", std::process::id()));
        let file = folder.join("state.json");
        state.write(&file).unwrap();
        assert_eq!(State::read(&file).unwrap(), Some(state.clone()));
        for (bad, said) in [
            (State { tap: state.interface.name.clone(), ..state.clone() }, "by itself"),
            (State { tap: "../a".to_owned(), ..state.clone() }, "no name"),
            (State { version: 1, ..state }, "of version 1"),
        ] {
            bad.write(&file).unwrap();
            let error = State::read(&file).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
        fs::remove_dir_all(folder).unwrap();
    }
}
