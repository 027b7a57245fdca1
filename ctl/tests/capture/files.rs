//! Where packets go.

use crate::folder::Folder;
use crate::{captured, packets, said};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

/// The files of a folder, and how many packets each has.
fn files(folder: &Folder) -> Vec<(String, usize)> {
    let files = fs::read_dir(&folder.0).unwrap().map(|entry| entry.unwrap());
    let names = files.filter(|entry| entry.file_type().unwrap().is_file());
    let mut files: Vec<_> =
        names.map(|file| (file.file_name().into_string().unwrap(), packets(&file.path()))).collect();
    files.sort();
    files
}

/// A file is kopid's own; kopictl makes it and says how it went, with `--json` as kopid does.
#[test]
fn files_are_written_by_kopid() {
    let folder = Folder::new("capture-file");
    let file = folder.0.join("f");
    fs::write(&file, vec![b'x'; 100_000]).unwrap();
    let name = file.to_str().unwrap();
    let output = captured(&folder, &["--json", "capture", "-i", "batch", "-i", "later", "-w", name], |kopid| {
        assert_eq!(kopid.request, json!({ "interfaces": ["batch", "later"] }));
        let mut kopid = kopid.start();
        kopid.packet();
        kopid.packet();
        kopid.close();
        kopid.say_with(&json!({ "state": "ended", "why": "bytes", "disk_full": true, "new": 1 }));
    });
    let heading = "kopictl: listening on batch-2";
    assert!(!said(&output).contains(heading), "only those that were asked for");
    assert!(said(&output).starts_with("kopictl: listening on batch (not attached yet), later (not attached yet),"));
    assert!(said(&output).ends_with("3 packets dropped by kopid (the disk was full)\n"), "{}", said(&output));
    let ended: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&ended["capture"][0]["captured"], &ended["capture"][0]["new"]), (&json!(2), &json!(1)));
    assert_eq!((output.status.code(), packets(&file)), (Some(0), 2));
}

/// `-w -` hands over standard output, and nothing else is written there.
#[test]
fn standard_output_is_handed_over() {
    let folder = Folder::new("capture-stdout");
    let output = captured(&folder, &["capture", "-w", "-", "arp"], |kopid| {
        let mut kopid = kopid.start();
        kopid.packet();
        kopid.end("seconds");
    });
    let file = folder.0.join("f");
    fs::write(&file, output.stdout).unwrap();
    assert_eq!((output.status.code(), packets(&file)), (Some(0), 1));
}

/// By size: kopid says when a file is full, and gets the next one, round and round.
#[test]
fn full_files_go_round() {
    let folder = Folder::new("capture-round");
    let name = folder.0.join("f").display().to_string();
    let output = captured(&folder, &["capture", "-w", &name, "-C", "1k", "-W", "3"], |kopid| {
        assert_eq!(kopid.request, json!({ "file_bytes": 1024 }));
        let mut kopid = kopid.start();
        for file in 1..=4 {
            (0..file).for_each(|_| kopid.packet());
            kopid.say("full", None);
            kopid.expect_rotate();
        }
        kopid.packet();
        kopid.end("bytes");
    });
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert_eq!(files(&folder), [("f0".into(), 4), ("f1".into(), 1), ("f2".into(), 3)]);
}

/// A ring of one file: the new one is another file, though it has the name of the one that is still written to.
#[test]
fn one_file_is_replaced() {
    let folder = Folder::new("capture-one");
    let name = folder.0.join("f").display().to_string();
    let output = captured(&folder, &["capture", "-w", &name, "-C", "1", "-W", "1"], |kopid| {
        let mut kopid = kopid.start();
        (0..100).for_each(|_| kopid.packet());
        kopid.say("full", None);
        kopid.expect_rotate();
        kopid.packet();
        kopid.end("bytes");
    });
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert_eq!(files(&folder), [("f".into(), 1)]);
}

/// By time: each period has its file, and the last one ends the capture. That a file is full as its period ends is no
/// reason for two.
#[test]
fn periods_have_their_files() {
    let folder = Folder::new("capture-periods");
    let name = folder.0.join("f").display().to_string();
    let start = Instant::now();
    let output = captured(&folder, &["capture", "-w", &name, "-G", "1", "-W", "2"], |kopid| {
        let mut kopid = kopid.start();
        kopid.packet();
        let file = kopid.expect("rotate");
        kopid.say("full", None);
        kopid.say("running", None);
        assert!(file.is_some());
        kopid.expect_stop();
    });
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert!(start.elapsed() >= Duration::from_secs(2));
    assert_eq!(files(&folder), [("f0".into(), 1), ("f1".into(), 0)]);

    let name = folder.0.join("t-%Y").display().to_string();
    let output = captured(&folder, &["capture", "-w", &name, "-G", "60"], |kopid| kopid.start().end("seconds"));
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert!(files(&folder).iter().any(|(name, _)| name.starts_with("t-2") && name.len() == 6));
}

/// A next file that cannot be made ends the capture in good order, and with what was wrong.
#[test]
fn impossible_files_end_it() {
    let folder = Folder::new("capture-impossible");
    let name = folder.0.join("f").display().to_string();
    fs::create_dir(folder.0.join("f1")).unwrap();
    let output = captured(&folder, &["capture", "-w", &name, "-C", "1"], |kopid| {
        let mut kopid = kopid.start();
        kopid.say("full", None);
        kopid.expect_stop();
    });
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("f1: Is a directory"), "{}", said(&output));
    assert_eq!(files(&folder), [("f".into(), 0)]);
}

/// `-z` runs for each file, once kopid does not write to it any more, and for the last one; kopictl ends behind it.
#[test]
fn a_command_runs_for_each_complete_file() {
    let (folder, other) = (Folder::new("capture-then"), Folder::new("capture-then-other"));
    let (script, seen) = (other.0.join("z.sh"), other.0.join("seen"));
    fs::write(&script, format!("#!/bin/sh\nsleep 0.2\necho \"${{1##*/}}\" >> {}\n", seen.display())).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let name = folder.0.join("f").display().to_string();
    let line = ["capture", "-w", &name, "-C", "1k", "-z", script.to_str().unwrap()];
    let before = seen.clone();
    let output = captured(&folder, &line, move |kopid| {
        let mut kopid = kopid.start();
        kopid.packet();
        kopid.say("full", None);
        let file = kopid.expect("rotate");
        // Until it says that it has the next file it may write to this one.
        std::thread::sleep(Duration::from_millis(500));
        assert!(file.is_some() && !before.exists());
        kopid.say("running", None);
        kopid.end("bytes");
    });
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let mut names: Vec<_> = fs::read_to_string(&seen).unwrap().lines().map(str::to_owned).collect();
    names.sort();
    assert_eq!(names, ["f", "f1"]);
    let output = captured(&folder, &["capture", "-w", &name, "-C", "1", "-z", "/nonexistent"], |kopid| {
        kopid.start().end("seconds");
    });
    assert_eq!(output.status.code(), Some(0), "the file is there");
    assert!(said(&output).contains("cannot run /nonexistent for "), "{}", said(&output));
    let refused = folder.kopictl(&["capture", "-w", &name, "-z", "gzip"]).output().unwrap();
    assert!(refused.status.code() == Some(2) && said(&refused).contains("-z is for the files of -C or -G"));
}

/// `-r` prints a file as the packets were printed when they came, without any kopid; tcpdump's options that mean nothing here are taken.
#[test]
fn files_are_read() {
    let folder = Folder::new("capture-read");
    let file = folder.0.join("f").display().to_string();
    let play = |kopid: crate::kopid::Kopid| {
        let mut kopid = kopid.start();
        (0..3).for_each(|_| kopid.packet());
        kopid.end("seconds");
    };
    captured(&folder, &["capture", "-w", &file], play);
    let live = captured(&folder, &["capture", "-t"], play);
    let read = |arguments: &[&str]| folder.kopictl(&[&["capture", "-r", &file], arguments].concat()).output().unwrap();
    let shown = read(&["-t", "-p", "-K", "-N", "-n", "-O", "-Z", "nobody"]);
    assert_eq!((shown.status.code(), &shown.stdout), (Some(0), &live.stdout), "{}", said(&shown));
    let numbered = String::from_utf8(read(&["-t", "-#", "-c", "2"]).stdout).unwrap();
    let starts: Vec<_> = numbered.lines().map(|line| line.get(..7)).collect();
    assert_eq!(starts, [Some("    1  "), Some("    2  ")], "{numbered}");
    let selecting = read(&["--user", "bob"]);
    assert!(selecting.status.code() == Some(2) && said(&selecting).contains("-r takes no selectors"));
    assert_eq!(read(&["arp"]).status.code(), Some(2));
    fs::write(&file, b"no packets here").unwrap();
    let garbage = read(&[]);
    assert!(garbage.status.code() == Some(1) && said(&garbage).contains("not pcapng"), "{}", said(&garbage));
}
