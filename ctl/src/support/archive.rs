//! The file: whole or not there, for its owner alone, and never in the place of another.

use super::collect::Part;
use crate::failure::Failure;
use flate2::Compression;
use flate2::write::GzEncoder;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};
use tar::{Builder, Header};

/// Who may read it, and what is in it.
const MODE: u32 = 0o600;
const THERE: &str = "is there already; name another with -o";

/// Fails if there is something already. It is looked for again when the file gets its name.
///
/// # Errors
///
/// [`Failure::File`].
pub(super) fn check_absent(file: &Path) -> Result<(), Failure> {
    match fs::symlink_metadata(file) {
        Ok(_) => Err(failed(file, THERE)),
        Err(_) => Ok(()),
    }
}

/// Writes `parts` into a folder `name` of the archive `file`.
///
/// # Errors
///
/// [`Failure::File`]; then there is no file.
pub(super) fn write(file: &Path, name: &str, parts: &[Part]) -> Result<(), Failure> {
    let partial = Partial::new(file).map_err(|error| failed(file, error))?;
    fill(&partial.file, name, parts).map_err(|error| failed(file, error))?;
    match renameat_with(CWD, &partial.path, CWD, file, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::EXIST) => Err(failed(file, THERE)),
        Err(errno) => Err(failed(file, io::Error::from(errno))),
    }
}

fn failed(file: &Path, reason: impl ToString) -> Failure {
    Failure::File { path: file.to_owned(), reason: reason.to_string() }
}

/// A file without its name yet. What is left of it goes with its value.
struct Partial {
    path: PathBuf,
    file: File,
}

impl Partial {
    fn new(file: &Path) -> io::Result<Self> {
        let name = file.file_name().ok_or_else(|| io::Error::other("no name of a file"))?;
        let path = file.with_file_name(format!(".{}.{}", name.display(), std::process::id()));
        let file = OpenOptions::new().write(true).create_new(true).mode(MODE).open(&path)?;
        Ok(Self { path, file })
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // After the file has its name there is none.
        drop(fs::remove_file(&self.path));
    }
}

fn fill(file: &File, folder: &str, parts: &[Part]) -> io::Result<()> {
    let mut archive = Builder::new(GzEncoder::new(file, Compression::default()));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    for part in parts {
        let mut header = Header::new_ustar();
        header.set_size(part.text.len() as u64);
        header.set_mode(MODE);
        header.set_mtime(now);
        archive.append_data(&mut header, Path::new(folder).join(&part.name), part.text.as_bytes())?;
    }
    archive.into_inner()?.finish()?.flush()?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::read::GzDecoder;
    use std::io::Read;
    use std::os::unix::fs::MetadataExt;

    /// What was put in comes out; the file is its owner's alone, takes the place of none, and leaves nothing beside it.
    #[test]
    fn archive_is_whole_private_and_new() {
        let folder = std::env::temp_dir().join(format!("kopictl-archive-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        let file = folder.join("a.tar.gz");
        let part = |name: &str, text: &str| Part { name: name.into(), text: text.into() };
        let parts = [part("a", "one\n"), part("b", "")];
        write(&file, "x", &parts).unwrap();
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, MODE);
        let mut archive = tar::Archive::new(GzDecoder::new(File::open(&file).unwrap()));
        let read = archive.entries().unwrap().map(|entry| {
            let mut entry = entry.unwrap();
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            (entry.path().unwrap().display().to_string(), text)
        });
        assert_eq!(read.collect::<Vec<_>>(), [("x/a".into(), "one\n".into()), ("x/b".into(), String::new())]);
        assert!(write(&file, "x", &parts).unwrap_err().to_string().contains(THERE));
        assert!(check_absent(&file).is_err() && check_absent(&folder.join("b")).is_ok());
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
        fs::remove_dir_all(&folder).unwrap();
    }
}
