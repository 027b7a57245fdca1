//! An operator does not read, sends what takes its time to be closed, names a file that nobody serves, or asks without end; and a name
//! service does not answer. Others attach and are answered meanwhile, and kopid ends when it is told to.

use crate::descriptors::Lingering;
use kopi_testkit::capture::Session;
use kopi_testkit::evil::{Client, as_user, small};
use kopi_testkit::process::Launch;
use kopi_testkit::{Kopid, Settings, TempDir, machine, wait_until};
use rustix::process::Signal;
use serde_json::json;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// What nobody needs who does not wait for another, on however busy a machine.
pub(crate) const LIMIT: Duration = Duration::from_secs(5);
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
pub(crate) fn others_go_on(kopid: &Kopid, what: &str) {
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
pub(crate) fn ends(mut kopid: Kopid, what: &str) {
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
pub(crate) fn operator_of_eve(kopid: &Kopid) -> UnixStream {
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
