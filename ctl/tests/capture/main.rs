//! `kopictl capture` and the extcap plugin against a kopid that this test plays.
#![forbid(unsafe_code)]
#![expect(
    clippy::tests_outside_test_module,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "the whole file is a test, which the lints do not see"
)]

mod extcap;
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
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, ChildStderr, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

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

/// The files of a folder, and how many packets each has.
fn files(folder: &Folder) -> Vec<(String, usize)> {
    let files = fs::read_dir(&folder.0).unwrap().map(|entry| entry.unwrap());
    let names = files.filter(|entry| entry.file_type().unwrap().is_file());
    let mut files: Vec<_> =
        names.map(|file| (file.file_name().into_string().unwrap(), packets(&file.path()))).collect();
    files.sort();
    files
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
    let owner = json!({ "pid": 4711, "uid": 1001, "user": "bob", "comm": "evil] \u{1b}[2J" });
    let row = &row["capture"][0];
    assert_eq!((&row["owner"], &row["app"], &row["port"]), (&owner, &json!("batch"), &json!("batch")));
    assert_eq!((&row["time"], &row["dst"]), (&json!("2026-03-04T12:00:00.123456000Z"), &json!("10.9.0.1")));
    assert!(row["data"].as_str().unwrap().starts_with("ffffffffffff"));
    assert!(output.stdout.iter().all(|byte| !byte.is_ascii_control() || *byte == b'\n'));
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

/// SIGUSR1 asks for the counts, SIGTERM ends it as SIGINT does.
#[test]
fn signals_count_and_stop() {
    let folder = Folder::new("capture-signals");
    let name = folder.0.join("f").display().to_string();
    let daemon = kopid(&folder, |kopid| {
        let mut kopid = kopid.start();
        kopid.packet();
        kopid.expect("counts");
        kopid.say("running", None);
        kopid.expect_stop();
    });
    let mut running = Running::start(&folder, &["capture", "-w", &name]);
    running.signal(Signal::USR1);
    assert_eq!(running.line(), "kopictl: 1 packet captured, 4 received by filter, 3 dropped by kopid\n");
    running.signal(Signal::TERM);
    assert_eq!(running.end().0, Some(0));
    daemon.join().unwrap();
}

/// A kopid that does not end when it is told to is given up after some seconds, or by the second signal at once.
#[test]
fn impatience_ends_it() {
    let folder = Folder::new("capture-impatience");
    for (second, code) in [(false, Some(3)), (true, None)] {
        let daemon = kopid(&folder, |kopid| {
            let mut kopid = kopid.start();
            kopid.expect("stop");
            kopid.expect_gone();
        });
        let mut running = Running::start(&folder, &["capture", "-w", "/dev/null"]);
        let start = Instant::now();
        running.signal(Signal::INT);
        if second {
            std::thread::sleep(Duration::from_millis(100));
            running.signal(Signal::INT);
            let status = running.child.wait().unwrap();
            assert_eq!((status.code(), status.signal()), (code, Some(2)));
            assert!(start.elapsed() < Duration::from_secs(4));
        } else {
            let (ended, _, said) = running.end();
            assert_eq!(ended, code, "{said}");
            assert!(said.contains("does not answer") && start.elapsed() >= Duration::from_secs(5));
        }
        daemon.join().unwrap();
        fs::remove_file(folder.socket()).unwrap();
    }
}

/// Exit code 3 if kopid dies, in the middle of a packet or not; what it has written is shown, or stays in its file.
#[test]
fn dead_kopids_leave_their_packets() {
    let folder = Folder::new("capture-dead");
    let file = folder.0.join("f");
    let name = file.to_str().unwrap();
    for arguments in [&["capture", "-t"][..], &["capture", "-w", name]] {
        let output = captured(&folder, arguments, |kopid| {
            let mut kopid = kopid.start();
            kopid.packet();
            kopid.write(&[6, 0, 0, 0, 0xff]);
        });
        assert_eq!(output.status.code(), Some(3));
        assert!(said(&output).ends_with("what was captured until then is there\n"), "{}", said(&output));
        let out = String::from_utf8(output.stdout).unwrap();
        assert_eq!(out, if arguments.len() == 2 { format!("{LINE}\n") } else { String::new() });
    }
    assert!(fs::metadata(&file).unwrap().len() > 100);
}

/// What comes through the pipe is not trusted: garbage is an error, after what came before it.
#[test]
fn garbage_is_no_packet() {
    let folder = Folder::new("capture-garbage");
    let output = captured(&folder, &["capture", "-t"], |kopid| {
        let mut kopid = kopid.start();
        kopid.packet();
        kopid.write(&[0xff; 64]);
        kopid.expect_stop();
    });
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("kopid's packets cannot be read"), "{}", said(&output));
    assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("{LINE}\n"));
}

/// libpcap's words about an expression are shown as they are, without anything that a terminal acts on.
#[test]
fn refusals_are_shown() {
    let folder = Folder::new("capture-refused");
    let output = captured(&folder, &["capture", "-i", "x", "tcp", "prot", "80"], |kopid| {
        assert_eq!(kopid.request["filter"], "tcp prot 80");
        kopid.refuse("filter: syntax error\n  tcp prot 80\u{1b}[2J");
    });
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0));
    assert_eq!(said(&output), "kopictl: filter: syntax error\n  tcp prot 80\\u{1b}[2J\n");
}

/// A capture that ends with an error of kopid's has failed, after its counts.
#[test]
fn errors_of_kopid_are_failures() {
    let folder = Folder::new("capture-error");
    let output = captured(&folder, &["capture", "-w", "/dev/null"], |kopid| {
        let mut kopid = kopid.start();
        kopid.close();
        kopid.say_with(&json!({ "state": "ended", "why": "error", "error": "Input/output error", "jit": false }));
    });
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).ends_with("the capture has failed: Input/output error\n"), "{}", said(&output));
    let output = captured(&folder, &["capture", "-w", "/dev/null", "arp"], |mut kopid| {
        kopid.say_with(&json!({ "jit": false }));
        kopid.end("count");
    });
    assert!(said(&output).contains("the filter is interpreted"), "{}", said(&output));
}

/// `| head` ends it quietly, also if no further packet comes: of lines and of pcapng.
#[test]
fn readers_may_leave() {
    let folder = Folder::new("capture-head");
    for arguments in [&["capture"][..], &["capture", "-w", "-"]] {
        let daemon = kopid(&folder, |kopid| {
            let mut kopid = kopid.start();
            kopid.packet();
            kopid.expect_stop();
        });
        let mut running = Running::start(&folder, arguments);
        let mut out = running.child.stdout.take().unwrap();
        out.read_exact(&mut [0; 20]).unwrap();
        drop(out);
        let (code, _, said) = running.end();
        daemon.join().unwrap();
        assert_eq!((code, said.as_str()), (Some(0), ""));
        fs::remove_file(folder.socket()).unwrap();
    }
    let output = captured(&folder, &["capture", "-w", "-"], |kopid| kopid.start().end("reader"));
    assert_eq!((output.status.code(), said(&output).lines().count()), (Some(0), 1));
}

/// A reader that does not read stops nothing but the lines.
#[test]
fn slow_readers_keep_nobody_from_ending() {
    let folder = Folder::new("capture-slow");
    let daemon = kopid(&folder, |kopid| {
        let mut kopid = kopid.start();
        // More than the reader's pipe takes, less than the two of them.
        (0..1500).for_each(|_| kopid.packet());
        kopid.expect_stop();
    });
    let running = Running::start(&folder, &["capture"]);
    running.signal(Signal::INT);
    daemon.join().unwrap();
    let (code, out, _) = running.end();
    assert_eq!((code, out.lines().count()), (Some(0), 1500));
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
