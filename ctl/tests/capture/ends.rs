//! How a capture ends.

use crate::folder::Folder;
use crate::kopid::kopid;
use crate::{LINE, Running, captured, said};
use rustix::process::Signal;
use serde_json::json;
use std::fs;
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

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
