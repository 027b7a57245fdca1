//! What an administrator has besides traffic: the log's level, completions in a shell, `doctor` and `support`, with a real kopid.
#![expect(clippy::tests_outside_test_module, reason = "this whole file is a test")]
#![forbid(unsafe_code)]

use kopi_testkit::evil::{Client, as_user, small};
use kopi_testkit::{Kopid, Settings, TempDir, machine};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output};

/// A user that exists everywhere and may do nothing.
const NOBODY: u32 = 65534;
/// What must be in no archive.
const PLANTED: &str = "hunter2";
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

/// bash completes the names that kopid knows, and waits for none if there is no kopid.
#[test]
fn shell_completes_names() {
    let dir = TempDir::new("completion");
    let mut kopid = Kopid::start(&dir, &Settings::default().policy(POLICY));
    let _app = Client::attach(&kopid.socket(), "web-1", [0; 6], &small());
    let control = kopid.control().display().to_string();
    let complete = |words: &[&str]| {
        let folder = machine::built("kopictl").parent().expect("it is in a folder").display().to_string();
        let words: Vec<_> = words.iter().map(|word| format!("'{word}'")).collect();
        let last = words.len() - 1;
        let script = format!(
            "PATH={folder}:$PATH; source <(COMPLETE=bash kopictl); COMP_WORDS=({}); COMP_CWORD={last}; COMP_TYPE=9; \
             _clap_complete_kopictl kopictl {} x; printf '%s ' \"${{COMPREPLY[@]}}\"",
            words.join(" "),
            words[last]
        );
        let output = Command::new("bash").arg("-c").arg(script).env("KOPI_CONTROL", &control).output();
        text(&output.expect("bash runs")).trim().to_owned()
    };
    assert_eq!(complete(&["kopictl", "flows", "--app", "w"]), "web-1");
    assert_eq!(complete(&["kopictl", "capture", "-i", "w"]), "wire web-1");
    assert_eq!(complete(&["kopictl", "capture", "--rule", ""]), "no-telnet");
    assert_eq!(complete(&["kopictl", "rules", "no"]), "no-telnet");
    assert_eq!(complete(&["kopictl", "classes", "g"]), "gold");
    assert_eq!(complete(&["kopictl", "doc"]), "doctor");
    kopid.stop();
    assert_eq!(complete(&["kopictl", "flows", "--app", ""]), "");
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

/// The archive has what it should, nothing that was planted as a secret, and is its owner's alone; it replaces none.
#[test]
fn support_has_no_secrets() {
    let dir = TempDir::new("support");
    let mut settings = Settings::default().policy(POLICY);
    settings.limits.push_str("# password: hunter2\n");
    let kopid = Kopid::start(&dir, &settings);
    let mac = kopid.status()["wire"]["mac"].as_str().expect("the wire has one").to_owned();
    let log = dir.join("lines.log");
    fs::write(&log, format!("kopid: info: device net_memif0,secret={PLANTED},id=1 has {mac} and 192.0.2.1\n"))
        .expect("it is ours");
    let (log, archive) = (log.display().to_string(), dir.join("report.tar.gz"));
    let name = archive.display().to_string();
    let made = kopid.kopictl(&["support", "-o", &name, "--mask", "--log", &log]);
    assert_eq!((made.status.code(), text(&made)), (Some(0), format!("{name}\n")));
    assert_eq!(fs::metadata(&archive).expect("it is there").permissions().mode() & 0o777, 0o600);
    assert_eq!(kopid.kopictl(&["support", "-o", &name]).status.code(), Some(1), "it was replaced");

    let out = dir.join("out");
    fs::create_dir(&out).expect("it is ours");
    let tar = Command::new("tar").args(["-xzf", &name, "--strip-components=1", "-C"]).arg(&out).status();
    assert!(tar.expect("tar runs").success());
    let mut files: Vec<_> = fs::read_dir(&out).expect("it is ours").flatten().map(|entry| entry.path()).collect();
    files.sort();
    let names: Vec<_> = files.iter().filter_map(|file| file.file_name()?.to_str()).collect();
    let expected = "README.txt apps.json classes.json doctor.json drops.json kernel.txt kopid.log kopid.toml log.json policy.toml \
                    rules.json stats.json status.json versions.txt";
    assert_eq!(names.join(" "), expected);
    for file in &files {
        let content = fs::read_to_string(file).expect("it is text");
        for planted in [PLANTED, &mac, "192.0.2.1"] {
            assert!(!content.contains(planted), "{planted} is in {}:\n{content}", file.display());
        }
        if file.extension().is_some_and(|extension| extension == "json") {
            let value: Value =
                serde_json::from_str(&content).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
            assert!(value.get("error").is_none(), "{}: {value}", file.display());
        }
    }
    let line = fs::read_to_string(out.join("kopid.log")).expect("it is text");
    assert!(line.contains("secret=[redacted],id=1 has MAC-1 and IP-1"), "{line}");
    assert!(fs::read_to_string(out.join("policy.toml")).expect("it is text").contains("no-telnet"));
}
