//! Files of every kind under the name of `kopid.toml`: none blocks, none is read beyond the limit (fault 31).
#![expect(clippy::tests_outside_test_module, reason = "this whole file is a test")]

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use kopi_config::policy::Policy;
use kopi_config::{Config, Errors};

const MINIMAL: &str = "[wire]\ndevice = \"net_null0\"\n[dataplane]\ncores = [0]\n";

/// A folder of one test, removed at its end.
struct Folder(PathBuf);

impl Folder {
    fn new(test: &str) -> Self {
        let path = std::env::temp_dir().join(format!("kopi-config-{}-{test}", std::process::id()));
        fs::create_dir(&path).expect("the folder is new");
        Self(path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).expect("nobody else removes it");
    }
}

fn refusal(path: &Path) -> String {
    let errors: Errors = Config::load(path).expect_err("the file cannot be read");
    assert_eq!(errors.count(), 1, "{errors}");
    let text = errors.to_string();
    assert!(text.contains(&format!("--> {}", path.display())), "{text}");
    text
}

/// A regular file is read, through symbolic links too.
#[test]
fn regular_files_and_links_are_read() {
    let folder = Folder::new("regular");
    let (file, link) = (folder.path("kopid.toml"), folder.path("link.toml"));
    fs::write(&file, MINIMAL).unwrap();
    symlink(&file, &link).unwrap();
    assert!(Config::load(&file).is_ok());
    assert!(Config::load(&link).is_ok());
    fs::write(&file, format!("{MINIMAL}x = 1\n")).unwrap();
    let shown = Config::load(&link).unwrap_err().to_string();
    assert!(shown.contains("link.toml:5:1"), "{shown}");
}

/// A FIFO without a writer would make an ordinary open wait for ever.
#[test]
fn a_fifo_is_refused_at_once() {
    let folder = Folder::new("fifo");
    let path = folder.path("kopid.toml");
    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    assert!(refusal(&path).contains("this is a FIFO, not a regular file"));
}

/// Folders, sockets, devices, broken links and loops of them.
#[test]
fn other_kinds_are_refused() {
    let folder = Folder::new("kinds");
    assert!(refusal(&folder.0).contains("this is a folder"));
    assert!(refusal(Path::new("/dev/zero")).contains("this is a device"));
    assert!(refusal(&folder.path("absent.toml")).contains("cannot read the file: No such file"));
    let (socket, from, to) = (folder.path("s"), folder.path("a"), folder.path("b"));
    let listener = UnixListener::bind(&socket).unwrap();
    assert!(refusal(&socket).contains("cannot read the file"));
    drop(listener);
    symlink(&from, &to).unwrap();
    symlink(&to, &from).unwrap();
    assert!(refusal(&from).contains("cannot read the file"));
}

/// 10 MB are refused before they are read; the sparse file would take a terabyte of memory otherwise.
#[test]
fn a_large_file_is_refused_unread() {
    let folder = Folder::new("large");
    let path = folder.path("kopid.toml");
    for size in [10 << 20, 1 << 40] {
        fs::File::create(&path).unwrap().set_len(size).unwrap();
        assert!(refusal(&path).contains("the file is larger than 4 MiB"));
    }
}

/// The policy's file is looked for beside `kopid.toml`, wherever the daemon was started.
#[test]
fn the_policy_is_seen_from_the_folder_of_the_file() {
    let folder = Folder::new("policy");
    let path = folder.path("kopid.toml");
    for (written, expected) in [("policy.toml", folder.path("policy.toml")), ("/etc/p.toml", "/etc/p.toml".into())] {
        fs::write(&path, format!("policy = \"{written}\"\n{MINIMAL}")).unwrap();
        assert_eq!(Config::load(&path).unwrap().policy, Some(expected));
    }
}

/// A policy that was replaced by something else is refused at once too, since a reload must not stop the daemon.
#[test]
fn policies_of_other_kinds_are_refused_at_once() {
    let folder = Folder::new("policies");
    let refusal = |path: &Path| Policy::read(path).expect_err("the file cannot be read").to_string();
    let (fifo, link, file) = (folder.path("fifo"), folder.path("link"), folder.path("policy.toml"));
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    symlink(&fifo, &link).unwrap();
    assert!(refusal(&fifo).contains("this is a FIFO"));
    assert!(refusal(&link).contains("this is a FIFO"));
    assert!(refusal(&folder.0).contains("this is a folder"));
    assert!(refusal(Path::new("/dev/zero")).contains("this is a device"));
    assert!(refusal(&file).contains("cannot read the file: No such file"));
    fs::File::create(&file).unwrap().set_len(1 << 40).unwrap();
    assert!(refusal(&file).contains("the file is larger than 16 MiB"));
    fs::write(&file, "[[rule]]\naction = \"drop\"\n").unwrap();
    assert_eq!(Policy::read(&file).unwrap().rules.len(), 1);
}

/// A name that is not UTF-8 is no obstacle.
#[test]
fn any_file_name_is_read() {
    let folder = Folder::new("name");
    let path = folder.0.join(std::ffi::OsStr::from_bytes(b"k\xff.toml"));
    fs::write(&path, MINIMAL).unwrap();
    assert!(Config::load(&path).is_ok());
    fs::write(&path, "x").unwrap();
    assert!(Config::load(&path).is_err());
}
