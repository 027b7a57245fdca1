//! A folder of one test.

use crate::machine::{self, is_alive, unique};
use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

/// Where the folders lie. Not below `/tmp`, for EAL refuses a plug-in under a folder that everybody may write; not below
/// `/run`, which may be mounted without the right to execute; and not in a home, where other users may not look.
const BASE: &str = "/var/cache/kopi-test";

/// A folder that goes with its value. Other users may read it, and only root may write.
#[derive(Debug)]
pub struct TempDir(PathBuf);

impl TempDir {
    /// Makes one, and removes those of test runs that were killed.
    #[must_use]
    pub fn new(label: &str) -> Self {
        machine::require_root();
        fs::create_dir_all(BASE).unwrap_or_else(|e| panic!("{BASE}: {e}"));
        remove_stale();
        let path = Path::new(BASE).join(format!("{}-{}-{label}", std::process::id(), unique()));
        fs::create_dir(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        for dir in [Path::new(BASE), &path] {
            fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).expect("root may set a mode");
        }
        Self(path)
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// A file in it.
    #[must_use]
    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Copies a program or library here, where every user and EAL may load it from, and returns its place.
    #[must_use]
    pub fn stage(&self, file: &Path) -> PathBuf {
        let to = self.0.join(file.file_name().expect("a file has a name"));
        if !to.exists() {
            fs::copy(file, &to).unwrap_or_else(|e| panic!("copying {}: {e}", file.display()));
            fs::set_permissions(&to, fs::Permissions::from_mode(0o755)).expect("root may set a mode");
        }
        to
    }

    /// Makes a folder in it that belongs to user `uid`, for what EAL of an ordinary user wants to write.
    #[must_use]
    pub fn folder_of(&self, uid: u32, name: &str) -> PathBuf {
        let path = self.join(name);
        fs::create_dir_all(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        chown(&path, Some(uid), Some(uid)).expect("root may give a folder away");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).expect("root may set a mode");
        path
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            // A panic here would hide the reason for which a test failed.
            drop(writeln!(std::io::stderr(), "{} is left behind: {error}", self.0.display()));
        }
        // The last one out takes the base along.
        drop(fs::remove_dir(BASE));
    }
}

fn remove_stale() {
    for entry in fs::read_dir(BASE).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name.split('-').next().unwrap_or_default();
        if owner.parse::<u32>().is_ok() && !is_alive(owner) {
            drop(fs::remove_dir_all(entry.path()));
        }
    }
}
