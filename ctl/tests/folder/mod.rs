//! A folder for a test, with a socket in it for the daemon that the test plays.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// A private folder for a test's socket.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    /// Makes it. `test` tells it from those of other tests.
    pub(crate) fn new(test: &str) -> Self {
        let path = std::env::temp_dir().join(format!("kopictl-{}-{test}", std::process::id()));
        fs::DirBuilder::new().mode(0o755).create(&path).unwrap();
        Self(path)
    }

    /// Where kopid would listen.
    pub(crate) fn socket(&self) -> PathBuf {
        self.0.join("control.sock")
    }

    /// kopictl, with that socket.
    pub(crate) fn kopictl(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kopictl"));
        command.env("KOPI_CONTROL", self.socket()).args(arguments).stdin(Stdio::null());
        command
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}
