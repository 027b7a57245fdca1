//! An operator does not read, sends what takes its time to be closed, names a file that nobody serves, or asks without end; and a name
//! service does not answer. Others attach and are answered meanwhile, and kopid ends when it is told to.

use crate::descriptors::Lingering;
use kopi_testkit::capture::Session;
use kopi_testkit::evil::{Client, as_user, small};
use kopi_testkit::frames::{Ends, framed};
use kopi_testkit::process::Launch;
use kopi_testkit::{Kopid, Piped, Settings, TempDir, machine, wait_until};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// What nobody needs who does not wait for another, on however busy a machine.
const LIMIT: Duration = Duration::from_secs(5);
/// What the half of attaches and of answers may take.
const ATTACH: Duration = Duration::from_millis(100);
const ANSWER: Duration = Duration::from_millis(200);
const ROUNDS: u8 = 15;
/// Users who do not like each other.
const EVE: u32 = 4_243_001;
const ALICE: u32 = 4_243_501;
/// A user with a name, who is on every machine, and whose name is not found in time.
const NAMED: (u32, &str) = (1, "daemon");

/// Functions of the C library that hang for as long as there is the file `KOPI_TEST_GATE`: names of users, and files that are called
/// `policy.toml`, as if they lay where nobody answers.
const HANGING: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pwd.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void hang(void)
{
	const char *gate = getenv("KOPI_TEST_GATE");

	while (gate && access(gate, F_OK) == 0)
		usleep(1000);
}

int getpwuid_r(uid_t uid, struct passwd *entry, char *buffer, size_t size, struct passwd **result)
{
	int (*next)(uid_t, struct passwd *, char *, size_t, struct passwd **) = dlsym(RTLD_NEXT, "getpwuid_r");

	if (uid == 1)
		hang();
	return next(uid, entry, buffer, size, result);
}

int getpwnam_r(const char *name, struct passwd *entry, char *buffer, size_t size, struct passwd **result)
{
	int (*next)(const char *, struct passwd *, char *, size_t, struct passwd **) = dlsym(RTLD_NEXT, "getpwnam_r");

	hang();
	return next(name, entry, buffer, size, result);
}

int open64(const char *path, int flags, ...)
{
	int (*next)(const char *, int, ...) = dlsym(RTLD_NEXT, "open64");
	size_t length = strlen(path);
	va_list rest;
	int mode;

	va_start(rest, flags);
	mode = va_arg(rest, int);
	va_end(rest);
	if (length > 12 && strcmp(path + length - 12, "/policy.toml") == 0)
		hang();
	return next(path, flags, mode);
}
"#;

/// A kopid with such a C library. While the gate is closed, names and the policy are waited for.
struct Hanging {
    kopid: Kopid,
    gate: PathBuf,
}

impl Hanging {
    fn start(dir: &TempDir, policy: &str) -> Self {
        let (source, library, gate) = (dir.join("hanging.c"), dir.join("hanging.so"), dir.join("gate"));
        fs::write(&source, HANGING).expect("the folder can be written");
        let word = |path: &Path| path.display().to_string();
        machine::run("gcc", &["-shared", "-fPIC", "-o", &word(&library), &word(&source)]);
        let env = [("LD_PRELOAD", word(&library)), ("KOPI_TEST_GATE", word(&gate))];
        let env = env.map(|(key, value)| (key.to_owned(), value)).to_vec();
        let launch = Launch { env, ..Launch::default() };
        let settings = Settings { huge_pages: "off", ..Settings::default() }.policy(policy);
        Self { kopid: Kopid::start_as(dir, &settings, &launch), gate }
    }

    fn close(&self) {
        fs::write(&self.gate, "").expect("the folder can be written");
    }

    fn open(&self) {
        fs::remove_file(&self.gate).expect("it is closed");
    }
}

/// Fails unless others attach and are answered as if nothing was.
fn others_go_on(kopid: &Kopid, what: &str) {
    let (mut attaches, mut answers) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        assert!(kopid.exchange(&json!({ "command": "status" })).is_some(), "{what}: kopid does not answer");
        answers.push(begun.elapsed());
        let begun = Instant::now();
        as_user(ALICE, || drop(Client::attach(&kopid.socket(), "", [0; 6], &small())));
        attaches.push(begun.elapsed());
    }
    for (whose, times, bound) in [("attaches", &mut attaches, ATTACH), ("answers", &mut answers, ANSWER)] {
        times.sort_unstable();
        let (half, all) = (times[times.len() / 2], times[times.len() - 1]);
        assert!(half < bound && all < LIMIT, "{what}: half of the {whose} took {half:?}, the last one {all:?}");
    }
}

/// Fails unless kopid ends when it is told to.
fn ends(mut kopid: Kopid, what: &str) {
    let begun = Instant::now();
    assert!(kopid.stop().success(), "{what}");
    assert!(begun.elapsed() < LIMIT, "{what}: kopid took {:?} to end", begun.elapsed());
}

/// The configured policy lies where nobody answers. Whoever has it read waits, up to a number of them, and nobody else does; another
/// policy comes into force meanwhile, and is not taken back by one that was asked for before.
#[test]
fn policy_that_nobody_serves_holds_up_nobody() {
    let dir = TempDir::new("operators-policy");
    let mut hanging = Hanging::start(&dir, "");
    hanging.close();
    let kopid = &mut hanging.kopid;
    let early = UnixStream::connect(kopid.control()).expect("kopid listens");
    (&early).write_all(b"{\"command\": \"reload\"}\n").expect("it is taken");
    for _ in 0..8 {
        kopid.process().signal(Signal::HUP);
        others_go_on(kopid, "a policy is read");
    }
    kopid.await_log("does not answer");
    let other = dir.join("other.toml");
    fs::write(&other, "[[rule]]\nname = \"other\"\nmatch = { proto = \"tcp\" }\naction = \"drop\"\n").expect("a file");
    let done = kopid.kopictl(&["reload", &other.display().to_string()]);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    hanging.open();
    early.set_read_timeout(Some(LIMIT)).expect("a socket");
    let mut said = String::new();
    BufReader::new(&early).read_line(&mut said).expect("there is an answer");
    assert!(said.contains("asked for later"), "{said}");
    assert_eq!(hanging.kopid.rule("other"), 0, "the other policy stays");
    hanging.kopid.reload_again().expect("nothing hangs any more");
    hanging.close();
    let Hanging { mut kopid, .. } = hanging;
    kopid.process().signal(Signal::HUP);
    others_go_on(&kopid, "a policy is read again");
    ends(kopid, "a policy is read");
}

/// A name service does not answer. Who attaches waits for the name of its own user alone, and not for long; the policy's names stand for
/// what they stood for.
#[test]
fn name_service_that_hangs_holds_up_nobody() {
    let dir = TempDir::new("operators-names");
    let policy = format!("[[rule]]\nowner = {{ user = \"{}\" }}\naction = \"drop\"\n", NAMED.1);
    let hanging = Hanging::start(&dir, &policy);
    hanging.close();
    let kopid = &hanging.kopid;
    let app = std::thread::scope(|scope| {
        let attach = scope.spawn(|| as_user(NAMED.0, || Client::attach(&kopid.socket(), "named", [0; 6], &small())));
        others_go_on(kopid, "a name is looked up");
        attach.join().expect("it attaches")
    });
    let row = kopid.app("named").expect("it is attached");
    assert_eq!((row["uid"].as_u64(), row["user"].as_str()), (Some(NAMED.0.into()), None));
    kopid.await_log("does not say what user 1 is called");
    others_go_on(kopid, "names hang");
    hanging.open();
    wait_until("its user has a name", LIMIT, || kopid.app("named").is_some_and(|row| row["user"] == NAMED.1));
    drop(app);
    hanging.close();
    ends(hanging.kopid, "names hang");
}

/// Connects as an operator of user EVE, who may.
fn operator_of_eve(kopid: &Kopid) -> UnixStream {
    fs::set_permissions(kopid.control(), fs::Permissions::from_mode(0o666)).expect("root may");
    as_user(EVE, || UnixStream::connect(kopid.control()).expect("kopid listens"))
}

/// Operators of another user ask, do not read what they get, and send connections that linger when they are closed, with everything
/// that one can be sent with.
#[test]
fn operators_that_do_not_read_hold_up_nobody() {
    let dir = TempDir::new("operators-deaf");
    let kopid = Kopid::start(&dir, &Settings { huge_pages: "off", log: "warn", ..Settings::default() });
    let mut crowd = Vec::new();
    for _ in 0..100 {
        let deaf = operator_of_eve(&kopid);
        deaf.set_nonblocking(true).expect("a socket");
        while (&deaf).write(&b"{\"command\": \"status\"}\n".repeat(100)).is_ok() {}
        crowd.push(deaf);
    }
    others_go_on(&kopid, "nobody reads");
    // Those that follow have to be let in, or nothing of theirs is closed.
    crowd.clear();
    others_go_on(&kopid, "they have gone");
    for request in ["", "{\"command\": \"status\"}\n", "{\"command\": \"reload\"}\n", "{\"command\": \"capture\"}\n"] {
        for _ in 0..4 {
            let operator = operator_of_eve(&kopid);
            // It comes with the first bytes of the request.
            let sent = Lingering::new().send_with(&operator, format!("{request} ").as_bytes());
            assert!(sent, "the operators' socket takes descriptors");
            crowd.push(operator);
        }
    }
    others_go_on(&kopid, "what lingers is closed");
    ends(kopid, "operators hang");
}

/// Operators of another user ask for what takes most, from as many connections as they may have, without pause.
#[test]
fn operators_that_ask_without_end_have_their_share() {
    let dir = TempDir::new("operators-many");
    let rules: String = (0..2000)
        .map(|n| {
            format!(
                "[[rule]]\nname = \"r{n}\"\nmatch = {{ proto = \"tcp\", dst_port = {} }}\naction = \"drop\"\n",
                n + 1
            )
        })
        .collect();
    let settings = Settings { huge_pages: "off", log: "warn", ..Settings::default() }.policy(&rules);
    let kopid = Kopid::start(&dir, &settings);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for n in 0..16 {
            let (operator, stop) = (operator_of_eve(&kopid), &stop);
            operator.set_read_timeout(Some(LIMIT)).expect("a socket");
            let command = ["status", "rules", "drops", "flows"][n % 4];
            let request = json!({ "command": command });
            scope.spawn(move || {
                let mut lines = BufReader::new(&operator).lines();
                while !stop.load(Relaxed) && (&operator).write_all(format!("{request}\n").as_bytes()).is_ok() {
                    drop(lines.next());
                }
            });
        }
        let go_on = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| others_go_on(&kopid, "they ask")));
        stop.store(true, Relaxed);
        go_on.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    ends(kopid, "they asked");
}

/// Flows of a list that is far longer than what is in memory of it.
const MANY: usize = 20_000;

/// A kopid with so many flows of an app, but for a few that a full bucket had no room for; the app; and how many there are.
fn with_flows(dir: &TempDir) -> (Kopid, Piped, usize) {
    let kopid = Kopid::start(dir, &Settings { huge_pages: "off", log: "warn", ..Settings::default() });
    let mac = [2, 0, 0, 0, 0, 0xb];
    let mut app = Piped::client(dir, &kopid, "many", "02:00:00:00:00:0b", &Launch::default(), &[]);
    drop(kopid.await_app("many"));
    for n in 0..MANY {
        let [.., high, low] = (n / 5000 + 1).to_be_bytes();
        let ends = Ends { source: Ipv4Addr::new(10, 0, high, low), destination: Ipv4Addr::new(10, 9, 9, 9), id: 0 };
        let port = u16::try_from(1024 + n % 5000).expect("a port");
        // Some are longer than others, so that rates differ.
        app.send(&framed([2, 9, 9, 9, 9, 9], mac, &ends.udp((port, 7), &[0; 99][..n % 100])));
    }
    let seen = || kopid.status()["workers"][0]["flow_misses"].as_u64();
    wait_until("all flows are there", Duration::from_secs(20), || seen() == u64::try_from(MANY).ok());
    let flows = kopid.status()["flows"].as_u64().and_then(|flows| flows.try_into().ok()).expect("a number");
    assert!(flows > MANY - 200, "{flows}");
    (kopid, app, flows)
}

/// A list of flows comes in parts, whole, as one object on one line, each flow once; so many of them, or those with the highest rate, if
/// that is asked for. kopictl shows the same. Meanwhile others are answered.
#[test]
fn long_lists_come_whole() {
    let dir = TempDir::new("operators-lists");
    let (kopid, app, many) = with_flows(&dir);
    let ask = |request: Value| kopid.exchange(&request).expect("kopid answers")["flows"].as_array().cloned();
    let all = ask(json!({ "command": "flows" })).expect("a list");
    let names: BTreeSet<_> = all.iter().map(|flow| flow["packet"].as_str().map(str::to_owned)).collect();
    assert_eq!((all.len(), names.len()), (many, many));
    assert_eq!(ask(json!({ "command": "flows", "limit": 700 })).map(|flows| flows.len()), Some(700));
    let rate = |flow: &Value| flow["bits_per_second"].as_u64();
    let highest = ask(json!({ "command": "flows", "limit": 50, "sort": "rate" })).expect("a list");
    assert!(highest.len() == 50 && highest.is_sorted_by(|a, b| rate(a) >= rate(b)), "{highest:?}");
    let of_port = ask(json!({ "command": "flows", "port": 1025 })).expect("a list");
    assert!(matches!(of_port.len(), 1..=4) && of_port.iter().all(|flow| flow["src_port"] == 1025), "{of_port:?}");

    let text = kopid.kopictl(&["flows"]);
    assert_eq!(String::from_utf8_lossy(&text.stdout).lines().count(), many + 1);
    let listed: Value = serde_json::from_slice(&kopid.kopictl(&["--json", "flows"]).stdout).expect("JSON");
    assert_eq!(listed["flows"].as_array().map(Vec::len), Some(many));
    let sorted = kopid.kopictl(&["--json", "flows", "--sort", "rate", "--limit", "5"]);
    assert_eq!(
        serde_json::from_slice::<Value>(&sorted.stdout).expect("JSON")["flows"].as_array().map(Vec::len),
        Some(5)
    );
    app.finish();
    ends(kopid, "lists were read");
}

/// Memory of a process that is its own, in bytes.
fn memory_of(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("proc(5)");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10
}

/// Operators of a user begin to read long lists from as many connections as they may have, and stop. kopid has a part of a list for each,
/// and not a list; who reads on later gets the rest; another user is answered.
#[test]
fn lists_that_are_not_read_take_little() {
    /// What kopid may have for a connection: a part of the list as text, the next one, and a thread's stack.
    const EACH: u64 = 1 << 20;
    let dir = TempDir::new("operators-slow");
    let (kopid, app, many) = with_flows(&dir);
    let pid = u32::try_from(kopid.status()["pid"].as_u64().expect("a number")).expect("a pid");
    // What a list takes once, such as memory that the workers fill in, is there before.
    assert_eq!(kopid.ask("flows").len(), many);
    let before = memory_of(pid);
    let crowd: Vec<_> = (0..48).map(|_| operator_of_eve(&kopid)).collect();
    for mut operator in &crowd {
        operator.write_all(b"{\"command\": \"flows\"}\n").expect("it is taken");
        operator.set_read_timeout(Some(LIMIT)).expect("a socket");
        operator.read_exact(&mut [0; 1000]).expect("a list begins");
    }
    others_go_on(&kopid, "lists are not read");
    let grown = memory_of(pid).saturating_sub(before);
    assert!(grown < EACH * 48, "kopid has taken {grown} bytes for 48 lists that nobody reads");
    // Of a list that is held in memory as text there would be more.
    let list = kopid.kopictl(&["--json", "flows"]).stdout.len();
    assert!(u64::try_from(list).is_ok_and(|list| list > 4 * EACH), "the list has {list} bytes");
    let mut rest = String::new();
    BufReader::new(&crowd[7]).read_line(&mut rest).expect("the list goes on");
    assert!(rest.ends_with("]}\n") && rest.len() + 1000 > list / 2, "{} bytes of {list}", rest.len());
    drop(crowd);
    app.finish();
    ends(kopid, "lists were not read");
}

/// A user who captures as much as it may leaves places for another, and that one for a third.
#[test]
fn captures_of_a_user_leave_places_for_others() {
    let dir = TempDir::new("operators-captures");
    let kopid = Kopid::start(&dir, &Settings { huge_pages: "off", log: "warn", ..Settings::default() });
    fs::set_permissions(kopid.control(), fs::Permissions::from_mode(0o666)).expect("root may");
    let null = fs::File::options().write(true).open("/dev/null").expect("there is one");
    let most = |user: u32| {
        let mut sessions = Vec::new();
        loop {
            match as_user(user, || Session::try_start(&kopid, &json!({ "buffer": 65536 }), &null)) {
                Ok(session) => sessions.push(session),
                Err(why) => break (sessions, why),
            }
        }
    };
    let (eves, why) = most(EVE);
    assert!(eves.len() == 16 && why.contains("places that are left are for others"), "{}: {why}", eves.len());
    let (others, _) = most(ALICE);
    assert_eq!((others.len(), most(0).0.len()), (8, 4));
    ends(kopid, "there are captures");
}

/// The log says who has put a policy in force; signals that are wishes for other programs end nothing.
#[test]
fn reloads_are_signed_and_signals_survived() {
    let dir = TempDir::new("operators-signed");
    let settings = Settings { huge_pages: "off", ..Settings::default() }.policy("");
    let mut kopid = Kopid::start(&dir, &settings);
    for signal in [Signal::USR1, Signal::USR2] {
        kopid.process().signal(signal);
    }
    kopid.reload_again().expect("the policy is good");
    kopid.await_log("user root (0), pid ");
    kopid.await_log("in force, 0 rules");
    ends(kopid, "it was signalled");
}
