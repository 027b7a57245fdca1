//! kopictl as Wireshark runs it.

use crate::folder::Folder;
use crate::kopid::{self, kopid};
use crate::{packets, said};
use rustix::fs::{CWD, Mode, mkfifoat};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use std::fs;
use std::io::Read;
use std::os::unix::net::UnixListener;
use std::process::Stdio;

/// The interfaces are those that are always there, and an app each; without kopid it is no error.
#[test]
fn interfaces_are_listed_with_and_without_kopid() {
    let folder = Folder::new("extcap-list");
    let list = || {
        let output = folder.kopictl(&["--extcap-interfaces", "--extcap-version=4.0"]).output().unwrap();
        assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0));
        String::from_utf8(output.stdout).unwrap()
    };
    let alone = list();
    assert!(alone.starts_with("extcap {version="), "{alone}");
    for interface in ["any", "wire", "dropped"] {
        assert!(alone.contains(&format!("\ninterface {{value=kopi:{interface}}}{{display=kopi: ")), "{alone}");
    }
    let listener = UnixListener::bind(folder.socket()).unwrap();
    let daemon = std::thread::spawn(move || kopid::tell_apps(&listener));
    let apps = "interface {value=kopi:app/bob}{display=kopi: application bob}\ninterface {value=kopi:app/batch-2}\
                {display=kopi: application batch-2}\n";
    assert_eq!(list(), format!("{alone}{apps}"));
    daemon.join().unwrap();
}

/// An interface has its link type and its fields; one that there is not is an error.
#[test]
fn interfaces_have_a_link_type_and_fields() {
    let folder = Folder::new("extcap-config");
    let ask = |what: &str, interface: &str| {
        let output = folder.kopictl(&[what, "--extcap-interface", interface]).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    assert_eq!(ask("--extcap-dlts", "kopi:any").1, "dlt {number=1}{name=EN10MB}{display=Ethernet}\n");
    let (code, fields) = ask("--extcap-config", "kopi:app/bob");
    assert_eq!(code, Some(0));
    assert!(fields.contains("{call=--user}") && fields.contains("{value=dropped}"), "{fields}");
    assert!(fields.contains(&format!("{{default={}}}", folder.socket().display())), "{fields}");
    assert_eq!(ask("--extcap-config", "eth0").0, Some(2));
}

/// A capture goes into Wireshark's FIFO until it is ended by a signal, or nobody reads any more; and says nothing.
#[test]
fn captures_go_into_the_fifo() {
    let folder = Folder::new("extcap-capture");
    let fifo = folder.0.join("fifo");
    mkfifoat(CWD, &fifo, Mode::RUSR | Mode::WUSR).unwrap();
    // Wireshark finds the plugin under a name of its own.
    let plugin = folder.0.join("kopi-extcap");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_kopictl"), &plugin).unwrap();
    for signalled in [true, false] {
        let daemon = kopid(&folder, |kopid| {
            assert_eq!(kopid.request, json!({ "filter": "arp", "user": ["bob", "eve"], "which": "dropped" }));
            let mut kopid = kopid.start();
            kopid.packet();
            kopid.expect_stop();
        });
        let mut command = std::process::Command::new(&plugin);
        let arguments = ["--capture", "--extcap-interface", "kopi:dropped", "--extcap-capture-filter", "arp"];
        command.args(arguments).arg("--fifo").arg(&fifo).args(["--user", "bob,eve", "--pid", "", "--snap", "262144"]);
        let child = command.env("KOPI_CONTROL", folder.socket()).stderr(Stdio::piped()).spawn().unwrap();
        let mut reader = fs::File::open(&fifo).unwrap();
        let mut first = vec![0; 300];
        reader.read_exact(&mut first).unwrap();
        if signalled {
            kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
            reader.read_to_end(&mut first).unwrap();
            let file = folder.0.join("f");
            fs::write(&file, &first).unwrap();
            assert_eq!(packets(&file), 1);
        }
        drop(reader);
        let output = child.wait_with_output().unwrap();
        assert_eq!((output.status.code(), said(&output).as_str()), (Some(0), ""));
        daemon.join().unwrap();
        fs::remove_file(folder.socket()).unwrap();
    }
}

/// Wireshark is told what is wrong with a filter, and nothing if it is right.
#[test]
fn filters_are_checked() {
    let folder = Folder::new("extcap-filter");
    let check = |filter: &str| {
        let arguments = ["--extcap-capture-filter", filter, "--extcap-interface", "kopi:any"];
        let output = folder.kopictl(&arguments).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let daemon = kopid(&folder, |kopid| kopid.refuse("syntax error"));
    assert_eq!(check("tcp prot"), (Some(0), "syntax error\n".into()));
    daemon.join().unwrap();
    fs::remove_file(folder.socket()).unwrap();
    let daemon = kopid(&folder, |kopid| kopid.start().expect_gone());
    assert_eq!(check("tcp"), (Some(0), String::new()));
    daemon.join().unwrap();
    fs::remove_file(folder.socket()).unwrap();
    assert_eq!(check("tcp").0, Some(3));
}
