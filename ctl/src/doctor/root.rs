//! Files of the machine, seen from `/`, or from a folder that a test plays it with.

use std::fs::{self, Metadata};
use std::path::{Path, PathBuf};

/// Where `/` is.
#[derive(Clone, Debug)]
pub(crate) struct Root(PathBuf);

impl Root {
    /// This machine.
    pub(crate) fn machine() -> Self {
        Self("/".into())
    }

    /// Where the file is that the machine has at `path`.
    pub(crate) fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        self.0.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// The text of a file, without blanks at its end.
    pub(crate) fn text(&self, path: impl AsRef<Path>) -> Option<String> {
        fs::read_to_string(self.path(path)).ok().map(|text| text.trim_end().to_owned())
    }

    /// The number in a file.
    pub(crate) fn number(&self, path: impl AsRef<Path>) -> Option<u64> {
        self.text(path)?.parse().ok()
    }

    /// Whether there is something.
    pub(crate) fn has(&self, path: impl AsRef<Path>) -> bool {
        self.path(path).exists()
    }

    /// What a file is, or the one that it is a link to.
    pub(crate) fn metadata(&self, path: impl AsRef<Path>) -> Option<Metadata> {
        fs::metadata(self.path(path)).ok()
    }

    /// Names in a folder, in order.
    pub(crate) fn names(&self, folder: impl AsRef<Path>) -> Vec<String> {
        let entries = fs::read_dir(self.path(folder)).into_iter().flatten().flatten();
        let mut names: Vec<_> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort_unstable();
        names
    }

    /// Where a file is that links lead to.
    pub(crate) fn real(&self, path: impl AsRef<Path>) -> Option<PathBuf> {
        let (file, root) = (fs::canonicalize(self.path(path)).ok()?, fs::canonicalize(&self.0).ok()?);
        Some(Path::new("/").join(file.strip_prefix(root).ok()?))
    }

    /// The last part of what a link says.
    pub(crate) fn link(&self, path: impl AsRef<Path>) -> Option<String> {
        let target = fs::read_link(self.path(path)).ok()?;
        Some(target.file_name()?.to_string_lossy().into_owned())
    }
}

#[cfg(test)]
pub(crate) use fake::Fake;

#[cfg(test)]
mod fake {
    use super::Root;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::{Path, PathBuf};
    use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

    /// A machine of a test's, gone with its value.
    #[derive(Debug)]
    pub(crate) struct Fake(PathBuf);

    impl Fake {
        /// One with nothing in it.
        pub(crate) fn new() -> Self {
            static NEXT: AtomicU32 = AtomicU32::new(0);
            let number = NEXT.fetch_add(1, Relaxed);
            let path = std::env::temp_dir().join(format!("kopictl-root-{}-{number}", std::process::id()));
            fs::create_dir(&path).expect("the folder is new");
            Self(path)
        }

        pub(crate) fn root(&self) -> Root {
            Root(self.0.clone())
        }

        fn place(&self, path: &str) -> PathBuf {
            let place = self.root().path(path);
            fs::create_dir_all(place.parent().unwrap_or_else(|| Path::new("/"))).expect("folders can be made");
            place
        }

        pub(crate) fn file(self, path: &str, text: &str) -> Self {
            fs::write(self.place(path), text).expect("the file can be written");
            self
        }

        pub(crate) fn folder(self, path: &str, mode: u32) -> Self {
            let place = self.place(path);
            fs::create_dir_all(&place).expect("the folder can be made");
            fs::set_permissions(place, PermissionsExt::from_mode(mode)).expect("it is ours");
            self
        }

        pub(crate) fn mode(self, path: &str, mode: u32) -> Self {
            fs::set_permissions(self.root().path(path), PermissionsExt::from_mode(mode)).expect("it is ours");
            self
        }

        pub(crate) fn link(self, path: &str, target: &str) -> Self {
            symlink(target, self.place(path)).expect("the link is new");
            self
        }
    }

    impl Drop for Fake {
        fn drop(&mut self) {
            drop(fs::remove_dir_all(&self.0));
        }
    }
}
