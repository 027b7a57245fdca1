//! What an administrator has besides traffic: the log's level, and `doctor`, with a real kopid.
#![expect(clippy::tests_outside_test_module, reason = "this whole file is a test")]
#![forbid(unsafe_code)]

use kopi_testkit::evil::as_user;
use kopi_testkit::{Kopid, Settings, TempDir};
use serde_json::{Value, json};
use std::fs;
use std::process::Output;

/// A user that exists everywhere and may do nothing.
const NOBODY: u32 = 65534;
const POLICY: &str = "# hunter2\n[[class]]\nname = \"gold\"\nrate = \"1gbit\"\n\n[[rule]]\nname = \"no-telnet\"\nmatch = { proto = \"tcp\", dst_port = 23 }\naction = \"drop\"\n";

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.as_slice(), &output.stderr].concat()).into_owned()
}

fn json_of(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", text(output)))
}

/// The level is shown, changed and obeyed at once, the log says by whom, and it is nobody else's business.
#[test]
fn level_of_the_log_changes_at_run_time() {
    let dir = TempDir::new("level");
    let kopid = Kopid::start(&dir, &Settings::default().policy(POLICY));
    assert_eq!(text(&kopid.kopictl(&["log"])), "info\n");
    assert_eq!(text(&kopid.kopictl(&["log", "error"])), "error (`info` is configured)\n");
    kopid.await_log("lines of level error and above now, by user root (0)");
    // The log keeps the order: what was not written before the next line never will be.
    assert!(kopid.kopictl(&["reload"]).status.success());
    assert_eq!(
        json_of(&kopid.kopictl(&["--json", "log", "debug"])),
        json!({ "log": [{ "level": "debug", "configured": "info" }] })
    );
    kopid.await_log("lines of level debug and above now");
    let log = kopid.log();
    let quiet = log.split("level error and above").nth(1).and_then(|rest| rest.split("level debug and above").next());
    assert!(quiet.is_some_and(|lines| lines.lines().count() <= 2), "{log}");
    assert_eq!(kopid.kopictl(&["log", "loud"]).status.code(), Some(2));
    let unknown = kopid.exchange(&json!({ "command": "log", "level": "loud" })).expect("an answer");
    assert!(unknown["error"].as_str().is_some_and(|error| error.contains("`level`")), "{unknown}");
    let refused = as_user(NOBODY, || std::os::unix::net::UnixStream::connect(kopid.control()).is_err());
    assert!(refused, "anybody may set the level");
}

/// doctor finds nothing that keeps kopid from working where it works, before and after it runs, and says so where a file is wrong.
#[test]
fn doctor_works_with_and_without_kopid() {
    let dir = TempDir::new("doctor");
    let mut kopid = Kopid::start(&dir, &Settings::default().policy(POLICY));
    let config = dir.join("kopid.toml").display().to_string();
    let severity = |output: &Output, check: &str| {
        let found = json_of(output);
        let rows = found["doctor"].as_array().expect("a list").iter().filter(|row| row["check"] == check);
        rows.map(|row| row["severity"].as_str().unwrap_or_default().to_owned()).collect::<Vec<_>>()
    };
    // The file is that of the running kopid.
    let runs = kopid.kopictl(&["doctor", "--json"]);
    assert_eq!(runs.status.code(), Some(0), "{}", text(&runs));
    assert_eq!(
        (severity(&runs, "config"), severity(&runs, "wire")),
        (vec!["ok".into(), "ok".into()], vec!["ok".into()])
    );
    assert!(severity(&runs, "kopid").iter().all(|severity| severity == "ok"), "{}", text(&runs));
    kopid.stop();
    let stopped = kopid.kopictl(&["doctor", "--json", "--config", &config]);
    assert_eq!(
        (stopped.status.code(), severity(&stopped, "kopid")),
        (Some(0), vec!["warning".into()]),
        "{}",
        text(&stopped)
    );
    fs::write(&config, "[wire]\ndevice = \"net_af_packet0,iface=kopi-none\"\n[dataplane]\ncores = [0]\n")
        .expect("it is ours");
    let broken = kopid.kopictl(&["doctor", "--config", &config]);
    assert_eq!(broken.status.code(), Some(1), "{}", text(&broken));
    assert!(text(&broken).contains("error    wire         there is no interface `kopi-none`"), "{}", text(&broken));
}
