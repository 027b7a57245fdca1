//! What an administrator has besides traffic: the log's level, with a real kopid.
#![expect(clippy::tests_outside_test_module, reason = "this whole file is a test")]
#![forbid(unsafe_code)]

use kopi_testkit::evil::as_user;
use kopi_testkit::{Kopid, Settings, TempDir};
use serde_json::{Value, json};
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
