//! `kopictl capture` and the extcap plugin against a kopid that this test plays.
#![forbid(unsafe_code)]
#![expect(
    clippy::tests_outside_test_module,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "the whole file is a test, which the lints do not see"
)]

mod ends;
mod extcap;
mod files;
#[path = "../folder/mod.rs"]
mod folder;
mod kopid;

use folder::Folder;
use kopi_pcapng::{Block, Reader};
use kopid::kopid;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStderr, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// The line of every packet of the played kopid, behind its time.
const LINE: &str = r"batch out ARP, Request who-has 10.9.0.1 tell 10.9.0.66, length 28 [pid 4711 bob evil\u{5d}\u{20}\u{1b}\u{5b}2J] drop spoofed";

/// A kopictl that runs.
struct Running {
    child: Child,
    /// What it said when it began to listen.
    heading: String,
    stderr: BufReader<ChildStderr>,
}

impl Running {
    /// Starts `kopictl ARGUMENTS`, and waits until it listens.
    fn start(folder: &Folder, arguments: &[&str]) -> Self {
        let mut command = folder.kopictl(arguments);
        let mut child = command.env("TZ", "UTC").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut heading = String::new();
        stderr.read_line(&mut heading).unwrap();
        Self { child, heading, stderr }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.stderr.read_line(&mut line).unwrap();
        line
    }

    /// Its exit code, its standard output if that was not taken, and what else it said.
    fn end(mut self) -> (Option<i32>, String, String) {
        let (mut out, mut said) = (String::new(), String::new());
        if let Some(mut stdout) = self.child.stdout.take() {
            stdout.read_to_string(&mut out).unwrap();
        }
        self.stderr.read_to_string(&mut said).unwrap();
        (self.child.wait().unwrap().code(), out, said)
    }
}

/// What `kopictl ARGUMENTS` does with a kopid that does as `play` says.
fn captured(folder: &Folder, arguments: &[&str], play: impl FnOnce(kopid::Kopid) + Send + 'static) -> Output {
    let daemon = kopid(folder, play);
    let output = folder.kopictl(arguments).env("TZ", "UTC").output().unwrap();
    daemon.join().unwrap();
    fs::remove_file(folder.socket()).unwrap();
    output
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// How many packets are in a file, which has to be read to its end.
fn packets(path: &Path) -> usize {
    let mut reader = Reader::new(fs::File::open(path).unwrap());
    let mut packets = 0;
    while let Some(block) = reader.next().unwrap() {
        packets += usize::from(matches!(block, Block::Packet(_)));
    }
    packets
}

/// Lines come as packets do, not at the end; the summary is tcpdump's.
#[test]
fn packets_become_lines_at_once() {
    let folder = Folder::new("capture-lines");
    let (go_on, wait) = mpsc::channel();
    let daemon = kopid(&folder, move |kopid| {
        assert_eq!(kopid.request, json!({ "filter": "arp or icmp", "user": ["bob"] }));
        let mut kopid = kopid.start();
        for _ in 0..3 {
            kopid.packet();
            wait.recv_timeout(Duration::from_secs(10)).unwrap();
        }
        kopid.expect_stop();
    });
    let mut running = Running::start(&folder, &["capture", "-n", "--user", "bob", "arp", "or", "icmp"]);
    assert_eq!(running.heading, "kopictl: listening on any (2 applications), snapshot length 262144 bytes\n");
    let mut out = BufReader::new(running.child.stdout.take().unwrap());
    for microsecond in 456..459 {
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        assert_eq!(line, format!("12:00:00.123{microsecond} {LINE}\n"));
        go_on.send(()).unwrap();
    }
    running.signal(Signal::INT);
    let (code, _, said) = running.end();
    daemon.join().unwrap();
    assert_eq!(code, Some(0));
    assert_eq!(said, "3 packets captured\n6 packets received by filter\n3 packets dropped by kopid\n");
}

/// kopid ends the stream before it says how the capture ended, and the summary comes all the same.
#[test]
fn the_summary_waits_for_kopid() {
    let folder = Folder::new("capture-summary");
    let output = captured(&folder, &["capture", "-c", "1"], |kopid| {
        let mut kopid = kopid.start();
        kopid.packet();
        kopid.close();
        std::thread::sleep(Duration::from_millis(300));
        kopid.say("ended", Some("count"));
    });
    assert_eq!(output.status.code(), Some(0));
    assert!(said(&output).contains("1 packet captured\n"), "{}", said(&output));
}

/// kopid counts; with `-c` it ends by itself, and what is still in the pipe is printed.
#[test]
fn counts_end_it() {
    let folder = Folder::new("capture-count");
    let output = captured(&folder, &["capture", "-c", "1000", "-t"], |kopid| {
        assert_eq!(kopid.request, json!({ "count": 1000 }));
        let mut kopid = kopid.start();
        for _ in 0..1000 {
            kopid.packet();
        }
        kopid.end("count");
    });
    assert_eq!(output.status.code(), Some(0));
    let out = String::from_utf8(output.stdout).unwrap();
    assert!(out.lines().count() == 1000 && out.lines().all(|line| line == LINE));
}

/// JSON is a row for each packet, with names as they are.
#[test]
fn json_has_a_row_for_each_packet() {
    let folder = Folder::new("capture-json");
    let output = captured(&folder, &["--json", "capture", "-x"], |kopid| {
        let mut kopid = kopid.start();
        kopid.packet();
        kopid.end("seconds");
    });
    let row: Value = serde_json::from_slice(&output.stdout).unwrap();
    let owner =
        json!({ "pid": 4711, "uid": 1001, "user": "bob", "comm": "evil] \u{1b}[2J", "container": null, "pod": null });
    let row = &row["capture"][0];
    assert_eq!((&row["owner"], &row["app"], &row["port"]), (&owner, &json!("batch"), &json!("batch")));
    assert_eq!((&row["time"], &row["dst"]), (&json!("2026-03-04T12:00:00.123456000Z"), &json!("10.9.0.1")));
    assert!(row["data"].as_str().unwrap().starts_with("ffffffffffff"));
    assert!(output.stdout.iter().all(|byte| !byte.is_ascii_control() || *byte == b'\n'));
}

/// `-D` lists where to look.
#[test]
fn interfaces_are_listed() {
    let folder = Folder::new("capture-list");
    let listener = std::os::unix::net::UnixListener::bind(folder.socket()).unwrap();
    let daemon = std::thread::spawn(move || {
        for _ in 0..2 {
            kopid::tell_apps(&listener);
        }
    });
    let output = folder.kopictl(&["capture", "-D"]).output().unwrap();
    let out = String::from_utf8(output.stdout).unwrap();
    assert_eq!(out.lines().skip(2).collect::<Vec<_>>(), ["3.bob", "4.batch-2"]);
    let output = folder.kopictl(&["--json", "capture", "-D"]).output().unwrap();
    let list: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(list, json!({ "interfaces": ["any", "wire", "bob", "batch-2"] }));
    daemon.join().unwrap();
}

/// Exit code 2 or 1, and no kopid asked: what cannot be captured, or not there.
#[test]
fn usage_errors_need_no_kopid() {
    let folder = Folder::new("capture-usage");
    let code = |arguments: &[&str]| {
        let output = folder.kopictl(&[&["capture"], arguments].concat()).output().unwrap();
        (output.status.code(), said(&output))
    };
    for bad in [
        &["-w", "-", "-C", "1"][..],
        &["-w", "f", "-W", "1"],
        &["-w", "f%!", "-G", "1"],
        &["--json", "-w", "-"],
        &["-c", "0"],
        &["--passed", "--dropped"],
    ] {
        let (code, said) = code(bad);
        assert_eq!(code, Some(2), "{bad:?}: {said}");
    }
    assert_eq!(code(&["-F", "/nonexistent"]).0, Some(1));
    assert_eq!(code(&["arp"]).0, Some(3));
}
