//! Replacing the policy under traffic: all or nothing, and never half of it. Faults 31, 32 and 33.
#![expect(clippy::tests_outside_test_module, reason = "this whole file is a test")]
#![forbid(unsafe_code)]

use kopi_ring::layout::Notes;
use kopi_testkit::app::{AppOptions, Transfer};
use kopi_testkit::evil::{Client, small};
use kopi_testkit::frames::{self, Ends, framed};
use kopi_testkit::machine::run;
use kopi_testkit::wait::SOON;
use kopi_testkit::{App, Kopid, Netns, Peer, Settings, TempDir, wait_until};
use rustix::process::Signal;
use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::symlink;
use std::time::{Duration, Instant};

const A: &str = "02:00:00:00:00:0a";
const B: &str = "02:00:00:00:00:0b";
const EVIL: [u8; 6] = [2, 0, 0, 0, 0xee, 1];
const LIMIT: Duration = Duration::from_secs(60);

/// Both let the sequence-numbered frames and their acknowledgements pass, each for reasons of its own.
const FIRST: &str = r#"
default = { egress = "drop", ingress = "drop" }
[[rule]]
name   = "numbered"
match  = { proto = "udp", dst_port = 7777 }
action = "accept"
"#;
const SECOND: &str = r#"
default = { egress = "accept", ingress = "accept" }
[[set]]
name  = "bad"
ports = ["1-1000", 6000]
[[rule]]
name   = "count"
match  = { proto = "udp" }
action = "count"
[[rule]]
name   = "bad"
match  = { dst_port = "@bad" }
action = "drop"
[[rule]]
name   = "state"
match  = { proto = "udp", state = ["new", "established"] }
action = "accept"
"#;

fn rules(kopid: &Kopid) -> Vec<String> {
    kopid.ask("rules").iter().map(|row| row["name"].as_str().unwrap_or_default().to_owned()).collect()
}

/// Replaces the policy about a hundred times a second until `done`; returns how often.
fn reload_until(kopid: &Kopid, policies: &[String], mut done: impl FnMut() -> bool) -> u64 {
    let mut reloads = 0;
    let mut due = Instant::now();
    for policy in policies.iter().cycle() {
        kopid.reload(policy).unwrap_or_else(|error| panic!("a good policy is refused: {error}"));
        reloads += 1;
        if done() {
            break;
        }
        due += Duration::from_millis(10);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    reloads
}

/// Fault 32: a hundred reloads a second cost no frame that both policies accept, between apps and with two workers.
#[test]
fn fault_32_reloads_lose_no_frame_between_apps() {
    for workers in [1, 2] {
        let dir = TempDir::new("reload-apps");
        let mut kopid = Kopid::start(&dir, &Settings { workers, ..Settings::default() }.policy(FIRST));
        let load = Transfer::new(300_000, 60..=1514);
        let mut receiver = App::receive(&dir, &kopid, &AppOptions::new("receiver", B), &load);
        let mut sender = App::send(&dir, &kopid, &AppOptions::new("sender", A), &load, B);
        let begun = Instant::now();
        let policies = [SECOND.to_owned(), FIRST.to_owned()];
        let reloads = reload_until(&kopid, &policies, || sender.process().ended().is_some());
        let rate = f64::from(u32::try_from(reloads).expect("few")) / begun.elapsed().as_secs_f64();
        assert!(reloads > 20 && rate > 50.0, "only {reloads} reloads, {rate} a second");
        sender.finish(LIMIT);
        assert_eq!(receiver.finish(LIMIT)["received"], load.count);
        // The acknowledgements that a receiver repeats at its end find nobody.
        let lost = ["policy", "rejected", "rx_ring_full", "no_mbuf", "handoff_full"].map(|reason| kopid.drops(reason));
        assert_eq!(lost, [0; 5]);
        assert!(kopid.stop().success());
    }
}

/// Fault 32: the same from an app to the wire.
#[test]
fn fault_32_reloads_lose_no_frame_to_the_wire() {
    let dir = TempDir::new("reload-wire");
    let netns = Netns::new(1500);
    let mut kopid = Kopid::start(&dir, &Settings::on_interface(netns.outside(), 1).policy(FIRST));
    let load = Transfer::new(100_000, 60..=1514);
    let peer = Peer::new(&netns);
    let received = std::thread::scope(|scope| {
        let heard = scope.spawn(|| peer.receive(&load, LIMIT));
        let mut sender = App::send(&dir, &kopid, &AppOptions::new("sender", A), &load, "02:77:00:00:00:01");
        let policies = [SECOND.to_owned(), FIRST.to_owned()];
        let reloads = reload_until(&kopid, &policies, || sender.process().ended().is_some());
        assert!(reloads > 20, "only {reloads} reloads");
        let received = heard.join().expect("the peer reports");
        sender.finish(LIMIT);
        received
    });
    assert_eq!((received.problem, received.frames), (None, load.count));
    assert!(kopid.stop().success());
}

/// Two policies that agree about what passes, and of which parts put together would not.
fn agreeing() -> [String; 2] {
    let rule = |name: &str, ports: &str, action: &str| {
        format!("[[rule]]\nname = \"{name}\"\nmatch = {{ dst_port = \"{ports}\" }}\naction = \"{action}\"\n")
    };
    // 7003 is dropped by the first rule of one and by the default of the other, 7001 accepted likewise.
    let first = rule("drop", "7003", "drop") + &rule("accept", "7000-7099", "accept");
    let second = rule("accept", "7001", "accept") + &rule("drop", "7000-7099", "drop");
    let (open, closed) = ("{ egress = \"accept\" }", "{ egress = \"drop\" }");
    [format!("default = {closed}\n{first}"), format!("default = {open}\n{second}")]
}

/// Fault 32: no frame is judged by half a policy. Every frame belongs to another flow, so each is judged anew.
#[test]
fn fault_32_no_frame_sees_half_a_policy() {
    let dir = TempDir::new("half");
    let netns = Netns::new(1500);
    let policies = agreeing();
    let settings = Settings::on_interface(netns.outside(), 1).policy(&policies[0]);
    let mut kopid = Kopid::start(&dir, &settings);
    let (_client, region) = Client::attach(&kopid.socket(), "flows", EVIL, &small());
    let mut producer = region.tx_producer(0).expect("a ring");
    let peer = Peer::new(&netns);
    let frame = |number: u16, port: u16| {
        let ends = Ends { source: Ipv4Addr::new(10, 77, 0, 2), destination: Ipv4Addr::new(10, 77, 0, 9), id: number };
        framed(Netns::MAC, EVIL, &ends.udp((number, port), &port.to_be_bytes()))
    };
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let kopid = &kopid;
        let reloading = scope.spawn(|| reload_until(kopid, &policies, || begun.elapsed() > Duration::from_secs(4)));
        let mut buffer = vec![0; 2048];
        let mut sent: u16 = 0;
        while begun.elapsed() < Duration::from_secs(4) {
            for number in sent..sent + 64 {
                for port in [7003, 7001] {
                    wait_until("there is room", SOON, || producer.free(1).is_ok_and(|free| free > 0));
                    assert!(producer.push(&frame(number, port), Notes::NONE));
                    producer.publish();
                }
            }
            for number in sent..sent + 64 {
                let start = Instant::now();
                let got = loop {
                    match peer.next(&mut buffer).and_then(|frame| Some((frames::id_of(frame)?, frame[43]))) {
                        Some(got) => break got,
                        None => assert!(start.elapsed() < SOON, "frame {number} to 7001 is lost"),
                    }
                };
                assert_eq!(got, (number, 7001_u16.to_be_bytes()[1]), "identification and port of the next frame");
            }
            sent = (sent + 64) % 60_000;
        }
        let reloads = reloading.join().expect("all of them are taken");
        assert!(reloads > 200, "only {reloads} reloads");
    });
    assert!(kopid.stop().success());
}

/// Fault 31: what is wrong with a file, and a part of what kopid says of it.
const BROKEN: [(&str, &str); 12] = [
    ("[[rule]]\naction = \"dorp\"\n", "policy.toml:2:10\n"),
    ("[[rule]]\nname = \"a\"\n", "`action`"),
    ("[[rule]]\naction = \"drop\"\naction = \"drop\"\n", "policy.toml:3:1\n"),
    ("[[rule]]\nactoin = \"drop\"\n", "did you mean"),
    ("[[rule]]\naction = 7\n", "policy.toml:2:10\n"),
    ("[[rule]]\nmatch = { dst_port = 65536 }\naction = \"drop\"\n", "policy.toml:2:22\n"),
    ("[[rule]\naction = \"drop\"\n", "policy.toml:1:"),
    ("[[rule]]\nclass = \"gold\"\naction = \"accept\"\n", "gold"),
    ("[[rule]]\nmatch = { src = \"@nowhere\" }\naction = \"drop\"\n", "nowhere"),
    ("default = { egress = \"accept\"", "policy.toml:1:"),
    ("\0\0\0", "policy.toml:1:"),
    (
        "x = [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
        "policy.toml:1:",
    ),
];

/// Fault 31: whatever is wrong with the file, the old policy stays in force and kopid says where the problem is.
#[test]
fn fault_31_broken_policy_changes_nothing() {
    let dir = TempDir::new("broken");
    let mut kopid = Kopid::start(&dir, &Settings::default().policy(FIRST));
    let before = rules(&kopid);
    for (text, part) in BROKEN {
        let error = kopid.reload(text).expect_err("a broken policy is taken");
        assert!(error.contains(part), "{text:?}: no {part:?} in\n{error}");
        assert!(error.contains("policy.toml:"), "{text:?}: the error has no place:\n{error}");
        assert_eq!(rules(&kopid), before, "{text:?}");
        // The same by signal, where only the log can say so.
        let said = kopid.log().len();
        kopid.process().signal(Signal::HUP);
        kopid.process().expect(said, part, SOON);
        assert_eq!(rules(&kopid), before, "{text:?}");
    }
    let not_text = b"# \xff\xfe\n";
    fs::write(kopid.policy(), not_text).expect("the folder can be written");
    let error = kopid.reload_again().expect_err("what is no text is taken");
    assert!(error.contains("policy.toml:1:"), "{error}");
    fs::write(kopid.policy(), vec![b'#'; 17 << 20]).expect("the folder can be written");
    let error = kopid.reload_again().expect_err("17 MB are taken");
    assert!(error.contains("16"), "the limit is not named: {error}");
    assert_eq!(rules(&kopid), before);
    for good in [format!("\u{feff}{SECOND}"), SECOND.replace('\n', "\r\n")] {
        kopid.reload(&good).unwrap_or_else(|error| panic!("a byte order mark or CRLF is refused: {error}"));
        assert_eq!(rules(&kopid).len(), 5);
    }
    assert!(kopid.stop().success());
}

/// Fault 31: kopid does not start on a broken policy, and says why.
#[test]
fn fault_31_broken_policy_refuses_the_start() {
    for (text, part) in BROKEN {
        let dir = TempDir::new("start");
        let output = Kopid::start_refused(&dir, &Settings::default().policy(text));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && output.status.code().is_some(), "{text:?}: {}", output.status);
        assert!(said.contains(part) && said.contains("policy.toml:"), "{text:?}: no {part:?} in\n{said}");
    }
}

/// Fault 31: a policy of 100,000 rules is taken, while traffic goes on.
#[test]
fn fault_31_large_policy_is_taken_under_traffic() {
    let dir = TempDir::new("large");
    let mut kopid = Kopid::start(&dir, &Settings::default().policy(FIRST));
    let mut large = String::from(FIRST);
    for n in 1..100_000_u32 {
        let ip = Ipv4Addr::from(0x0b00_0000 + n);
        large.push_str(&format!(
            "[[rule]]\nmatch = {{ src = \"{ip}\", dst_port = {} }}\naction = \"drop\"\n",
            n % 60_000
        ));
    }
    let load = Transfer::new(300_000, 60..=1514);
    let mut receiver = App::receive(&dir, &kopid, &AppOptions::new("receiver", B), &load);
    let mut sender = App::send(&dir, &kopid, &AppOptions::new("sender", A), &load, B);
    fs::write(kopid.policy(), &large).expect("the folder can be written");
    kopid.process().signal(Signal::HUP);
    wait_until("all rules are in force", LIMIT, || kopid.status()["policy"]["rules"] == 100_000);
    sender.finish(LIMIT);
    assert_eq!(receiver.finish(LIMIT)["received"], load.count);
    let error = kopid.reload(&(large + "[[rule]]\naction = \"drop\"\n")).expect_err("100,001 rules are taken");
    assert!(error.contains("100000"), "{error}");
    assert!(kopid.stop().success());
}

/// Fault 32: in the place of the file there is something else. Nothing blocks, and the old policy stays unless it is a link
/// to a good file.
#[test]
fn fault_32_what_is_no_file_blocks_nobody() {
    let dir = TempDir::new("no-file");
    let mut kopid = Kopid::start(&dir, &Settings::default().policy(FIRST));
    let before = rules(&kopid);
    let place = kopid.policy();
    let path = place.display().to_string();
    let elsewhere = dir.join("elsewhere.toml");
    fs::write(&elsewhere, SECOND).expect("the folder can be written");
    let cases: [(&str, &dyn Fn()); 6] = [
        ("nothing", &|| {}),
        ("a folder", &|| fs::create_dir(&place).expect("it can be made")),
        ("a FIFO", &|| drop(run("mkfifo", &[&path]))),
        ("a link to nothing", &|| symlink("/nowhere/at/all", &place).expect("it can be made")),
        ("a link to itself", &|| symlink(&place, &place).expect("it can be made")),
        ("a device that never ends", &|| symlink("/dev/zero", &place).expect("it can be made")),
    ];
    for (what, make) in cases {
        drop(run("rm", &["-rf", &path]));
        make();
        for by_signal in [false, true] {
            let (asked, said) = (Instant::now(), kopid.log().len());
            if by_signal {
                kopid.process().signal(Signal::HUP);
                kopid.process().expect(said, "policy", SOON);
            } else {
                let error = kopid.reload_again().expect_err(what);
                assert!(error.contains("policy.toml"), "{what}: {error}");
            }
            drop(kopid.status());
            assert!(asked.elapsed() < Duration::from_secs(2), "{what}: {:?}", asked.elapsed());
            assert_eq!(rules(&kopid), before, "{what}");
        }
    }
    drop(run("rm", &["-rf", &path]));
    symlink(&elsewhere, &place).expect("it can be made");
    assert_eq!(kopid.reload_again(), Ok(()), "a link to a good file");
    assert_eq!(rules(&kopid).len(), 5);
    assert!(kopid.stop().success());
}

/// Fault 33: names that nobody has are no error, since somebody may have them tomorrow. kopid warns of each, at its start
/// and at a reload.
#[test]
fn fault_33_unknown_names_are_warned_of() {
    let unknown = r#"
[[rule]]
owner  = { user = "kopi-no-such-user", group = "kopi-no-such-group" }
action = "drop"
[[rule]]
owner  = { cgroup = "/kopi-no-such-cgroup" }
action = "drop"
[[rule]]
owner  = { cgroup = "/" }
action = "drop"
"#;
    let dir = TempDir::new("unknown");
    let mut kopid = Kopid::start(&dir, &Settings::default().policy(unknown));
    let names = ["kopi-no-such-user", "kopi-no-such-group", "kopi-no-such-cgroup"];
    let warned = |text: &str| names.iter().all(|name| text.contains(name));
    assert!(warned(&kopid.log()), "no warning at the start:\n{}", kopid.log());
    let reply = kopid.exchange(&serde_json::json!({ "command": "reload" })).expect("kopid answers");
    let warnings = reply["reload"][0]["warnings"].as_array().expect("a list of warnings").clone();
    assert!(warned(&format!("{warnings:?}")) && warnings.len() == 3, "{reply}");
    let said = kopid.log().len();
    kopid.process().signal(Signal::HUP);
    kopid.process().expect(said, names[2], SOON);
    assert!(kopid.stop().success());
}

/// The log names who has put a policy in force, or could not, by a signal as by `kopictl`, and who has ended kopid.
#[test]
fn who_reloads_is_named_in_the_log() {
    let dir = TempDir::new("who");
    let mut kopid = Kopid::start(&dir, &Settings::default().policy(FIRST));
    let own = std::process::id();
    let policy = kopid.policy().display().to_string();
    let expect = |kopid: &mut Kopid, text: &str| {
        let said = kopid.log().len();
        kopid.process().signal(Signal::HUP);
        kopid.process().expect(said, text, SOON);
    };
    expect(&mut kopid, &format!("user root (0), pid {own} (SIGHUP) has put \"{policy}\" in force, 1 rules"));
    fs::write(kopid.policy(), "rule = 1\n").expect("the folder can be written");
    expect(&mut kopid, &format!("user root (0), pid {own} (SIGHUP): the policy in force stays: "));
    fs::write(kopid.policy(), SECOND).expect("the folder can be written");
    assert!(kopid.kopictl(&["reload"]).status.success());
    // Whose pid that was nobody knows any more.
    kopid.await_log(&format!(" has put \"{policy}\" in force, 3 rules"));
    let log = kopid.log();
    let line = log.lines().rfind(|line| line.contains("3 rules")).expect("it was there");
    assert!(line.contains("user root (0), pid ") && !line.contains("SIGHUP"), "{line}");
    assert!(kopid.stop().success());
    assert!(kopid.log().contains(&format!("stopping: uid 0, pid {own} has sent SIGTERM or SIGINT")), "{}", kopid.log());
}

/// A policy on trial is taken back unless it is confirmed; the counters of rules that stay are kept.
#[test]
fn unconfirmed_policy_is_taken_back() {
    let dir = TempDir::new("trial");
    let mut kopid = Kopid::start(&dir, &Settings::default().policy(FIRST));
    let before = rules(&kopid);
    fs::write(kopid.policy(), SECOND).expect("the folder can be written");
    let trial = || kopid.kopictl(&["reload", "--confirm", "1"]);
    assert!(trial().status.success());
    assert_eq!(rules(&kopid).len(), 5);
    wait_until("the old policy is back", Duration::from_secs(5), || rules(&kopid) == before);
    assert!(trial().status.success() && kopid.kopictl(&["reload", "--keep"]).status.success());
    let kept = Instant::now();
    wait_until("two seconds are over", SOON, || kept.elapsed() > Duration::from_secs(2));
    assert_eq!(rules(&kopid).len(), 5, "a confirmed policy stays");
    assert!(!kopid.kopictl(&["reload", "--keep"]).status.success(), "there is nothing to confirm");
    assert!(kopid.stop().success());
}

/// `--check` tries what a start would, and says what is missing in the words of a start; beside a kopid that runs it disturbs nothing.
#[test]
fn check_tries_what_a_start_needs() {
    let dir = TempDir::new("check-start");
    let settings = Settings { huge_pages: "off", ..Settings::default() };
    let mut kopid = Kopid::start(&dir, &settings);
    let other = TempDir::new("check-other");
    let said = |settings: &Settings, edit: &dyn Fn(String) -> String| {
        let output = Kopid::check(&other, settings, edit);
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        (output.status.code(), said)
    };
    let (code, text) = said(&settings, &|text| text);
    assert!(code == Some(0) && text.ends_with("kopid.toml: ok\n"), "{text}");
    let missing = Settings { wire: "net_af_packet0,iface=nowhere0".into(), ..settings.clone() };
    let (code, text) = said(&missing, &|text| text);
    let words = "the wire `net_af_packet0,iface=nowhere0` cannot be used: there is no interface `nowhere0` here";
    assert!(code == Some(1) && text.contains(words), "{text}");
    let refused = Kopid::start_refused(&other, &missing);
    assert!(String::from_utf8_lossy(&refused.stderr).contains(words), "a start says the same");
    let (code, text) = said(&settings, &|text| text.replace("[control]", "[control]\ngroup = \"nobody-has-it\""));
    assert!(code == Some(1) && text.contains("there is no group `nobody-has-it` on this system"), "{text}");
    let (code, text) = said(&settings, &|text| text.replace("\"--no-telemetry\"", "\"--in-memory\""));
    assert!(code == Some(1) && text.contains("DPDK does not start") && text.contains("in-memory"), "{text}");
    assert_eq!(kopid.ask("status").len(), 1, "the one that runs goes on");
    let left: Vec<_> = fs::read_dir(other.path()).expect("a folder").flatten().map(|entry| entry.path()).collect();
    assert!(left.iter().all(|path| path.ends_with("kopid.toml") || path.ends_with("dpdk")), "{left:?}");
    assert!(kopid.stop().success());
}
