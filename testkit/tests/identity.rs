//! Whose frames they are, by what the kernel says of the process: faults 19 to 23.
#![expect(clippy::tests_outside_test_module, reason = "this whole file is a test")]
#![forbid(unsafe_code)]

use kopi_testkit::frames::{Ends, framed, id_of, to_hex};
use kopi_testkit::machine::{own, unique};
use kopi_testkit::process::Launch;
use kopi_testkit::wait::SOON;
use kopi_testkit::{Kopid, Netns, Peer, Piped, Process, Settings, TempDir, wait_for, wait_until};
use rustix::process::Signal;
use serde_json::Value;
use std::fs;
use std::io::Write;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Users that need no account.
const BOB: u32 = 64201;
const CHARLIE: u32 = 64202;
const MAC: &str = "02:00:00:00:00:0b";
const MAC_BYTES: [u8; 6] = [2, 0, 0, 0, 0, 0xb];
const NO_MAC: &str = "00:00:00:00:00:00";

fn as_user(uid: u32) -> Launch {
    Launch { user: Some(uid), ..Launch::default() }
}

/// The same in namespaces of its own.
fn unshared(uid: Option<u32>, namespaces: &str) -> Launch {
    let wrapper = format!("unshare {namespaces}").split(' ').map(str::to_owned).collect();
    Launch { user: uid, wrapper, ..Launch::default() }
}

fn settings(policy: &str) -> Settings {
    Settings { huge_pages: "off", ..Settings::default() }.policy(policy)
}

/// A process of bob's that connects and gives the connection to a process of charlie's, which then asks for a port; bob's
/// process ends at once if it is to `leave`.
fn hand_over(dir: &TempDir, kopid: &Kopid, leave: bool) -> Process {
    let (program, socket) = (dir.stage(&own("kopi-client")), kopid.socket());
    let words = format!(
        "hand-over --socket {socket} {leave}-- setpriv --reuid {CHARLIE} --regid {CHARLIE} --clear-groups \
         {program} attach --socket {socket} --name given --mac {MAC} --inherited",
        socket = socket.display(),
        leave = if leave { "--leave " } else { "" },
        program = program.display(),
    );
    let args: Vec<String> = words.split(' ').map(str::to_owned).collect();
    let how = Launch { capabilities: "+setuid,+setgid", ..as_user(BOB) };
    Process::start(&how, program, &args, dir.join(&format!("given-{}.log", unique())))
}

/// Processes whose parent is `pid`.
fn children(pid: u32) -> Vec<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().filter_map(|word| word.parse().ok()).collect()
}

/// The user of a process that runs; `None` if it has ended, even if nobody has taken note of it yet.
fn user_of(pid: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let field = |key: &str| status.lines().find_map(|line| line.strip_prefix(key))?.split_whitespace().next();
    if field("State:")? == "Z" { None } else { field("Uid:")?.parse().ok() }
}

/// Fault 21: the connection is used by another user's process. The owner is who connected, and when that ends the port is
/// gone, though the connection is open still.
#[test]
fn fault_21_owner_is_who_connected() {
    let policy = "default = { attach = \"refuse\" }\n[[app]]\nname = \"given\"\nowner = { uid = 64201 }\n";
    let dir = TempDir::new("given");
    let mut kopid = Kopid::start(&dir, &settings(policy));
    let mut parent = hand_over(&dir, &kopid, false);
    let app = kopid.await_app("given");
    assert_eq!((&app["uid"], &app["pid"]), (&BOB.into(), &parent.pid().into()), "{app}");
    let child = wait_for("it has a child", SOON, || children(parent.pid()).pop());
    assert_eq!(user_of(child), Some(CHARLIE));
    parent.signal(Signal::KILL);
    kopid.await_no_app("given");
    assert!(!parent.wait(SOON).success());
    wait_until("the child hears that it has no port", SOON, || user_of(child).is_none());
    kopid.await_no_connections();
    assert!(kopid.stop().success());
}

/// A process connects, becomes the program that an entry asks for, and has another one say hello. It is admitted by what it ran
/// when it connected and not by what it has become.
#[test]
fn borrowed_program_is_unknown() {
    let dir = TempDir::new("borrowed");
    let program = dir.stage(&own("kopi-client"));
    let other = fs::canonicalize("/bin/cat").expect("there is cat");
    let entry = |name: &str, exe: &Path| {
        format!("[[app]]\nname = \"{name}\"\nowner = {{ uid = {BOB}, exe = \"{}\" }}\n", exe.display())
    };
    let policy = ["default = { attach = \"refuse\" }\n", &entry("own", &program), &entry("other", &other)].concat();
    let mut kopid = Kopid::start(&dir, &settings(&policy));
    let start = |name: &str, becomes: &str| {
        let socket = kopid.socket();
        // Hello is said once the parent runs the other program.
        let script = format!(
            "until [ -z '{becomes}' ] || [ \"$(readlink /proc/$PPID/exe)\" = '{becomes}' ]; do sleep 0.01; done; \
             exec {program} attach --socket {socket} --name {name} --mac {MAC} --inherited",
            program = program.display(),
            socket = socket.display(),
        );
        let mut args: Vec<String> = ["hand-over", "--socket"].map(str::to_owned).to_vec();
        args.push(socket.display().to_string());
        if !becomes.is_empty() {
            args.extend(["--become".to_owned(), becomes.to_owned()]);
        }
        args.extend(["--", "sh", "-c", &script].map(str::to_owned));
        Process::start(&as_user(BOB), &program, &args, dir.join(&format!("borrowed-{}.log", unique())))
    };
    let mut honest = start("own", "");
    assert_eq!(kopid.await_app("own")["exe"], program.display().to_string());
    honest.signal(Signal::KILL);
    kopid.await_no_app("own");
    honest.wait(SOON);
    let becomes = other.display().to_string();
    for name in ["other", "own"] {
        let mut borrowed = start(name, &becomes);
        wait_until("kopid has accepted the connection", SOON, || kopid.status()["connections"] == 1);
        borrowed.input().write_all(b"!").expect("it reads its input");
        let answer = borrowed.expect_more("refused");
        assert!(answer.contains(name), "{answer}");
        borrowed.signal(Signal::KILL);
        borrowed.wait(SOON);
        kopid.await_no_connections();
    }
    assert!(kopid.ask("apps").is_empty());
    assert!(kopid.stop().success());
}

/// Fault 19: a process connects, gives the connection away and ends before kopid looks. It is refused, whether its pid is
/// free or belongs to a process of root's by then.
#[test]
fn fault_19_ended_process_is_nobody() {
    for reuse in [false, true] {
        let dir = TempDir::new("gone");
        let mut kopid = Kopid::start(&dir, &settings(""));
        kopid.process().signal(Signal::STOP);
        wait_until("kopid is stopped", SOON, || kopid.process().is_stopped());
        let mut parent = hand_over(&dir, &kopid, true);
        let pid = parent.pid();
        assert!(parent.wait(SOON).success());
        let _other = reuse.then(|| with_pid(&dir, pid));
        kopid.process().signal(Signal::CONT);
        kopid.process().expect(0, "refused a connection", SOON);
        let answer = parent.expect_more("refused");
        assert!(answer.contains("could not find out who you are"), "{answer}");
        assert!(answer.contains(&pid.to_string()), "it does not name the process: {answer}");
        assert!(kopid.ask("apps").is_empty());
        kopid.await_no_connections();
        assert!(kopid.stop().success());
    }
}

/// A process of root's that has this pid.
fn with_pid(dir: &TempDir, pid: u32) -> Process {
    wait_for("a process gets the pid", SOON, || {
        fs::write("/proc/sys/kernel/ns_last_pid", (pid - 1).to_string()).expect("root may choose the next pid");
        let other = Process::start(&Launch::default(), "sleep", &["60".into()], dir.join("other.log"));
        (other.pid() == pid).then_some(other)
    })
}

/// Fault 20: what a process calls itself is shown without control characters, and does not get in the way of what the
/// kernel says of it.
#[test]
fn fault_20_strange_names_are_only_names() {
    let dir = TempDir::new("comm");
    let mut kopid = Kopid::start(&dir, &settings(""));
    let names: [(&[u8], &str); 9] = [
        (b"two words", "two words"),
        (b") R 1 1 1 (", ") R 1 1 1 ("),
        (b"))))))", "))))))"),
        (b"line\nend", "line\\nend"),
        (b"\x1b[2J\x07", "\\u{1b}[2J\\u{7}"),
        (b"fifteen-bytes-x", "fifteen-bytes-x"),
        (b"\xff\xfe", "\u{fffd}\u{fffd}"),
        (b"\xe2\x82", "\u{fffd}"),
        (b"\"}]\\", "\"}]\\"),
    ];
    for (comm, shown) in names {
        let mut client = Piped::client(&dir, &kopid, "", NO_MAC, &as_user(BOB), &["--comm", &to_hex(comm)]);
        assert_eq!(client.answer(), None, "{shown:?}");
        let pid = client.process().pid();
        let app = kopid.ask("apps").into_iter().find(|app| app["pid"] == pid);
        let app = app.unwrap_or_else(|| panic!("no app of {pid}, which calls itself {shown:?}"));
        assert_eq!((&app["comm"], &app["uid"]), (&shown.into(), &BOB.into()));
        let table = kopid.kopictl(&["apps"]);
        let table = String::from_utf8(table.stdout).expect("the table is text");
        assert!(!table.chars().any(|c| c.is_control() && c != '\n'), "{table:?}");
        assert_eq!(table.lines().count(), 2, "{table}");
        client.finish();
        wait_until("it is gone", SOON, || kopid.ask("apps").is_empty());
    }
    let log = kopid.log();
    assert!(!log.chars().any(|c| c.is_control() && c != '\n'), "{log:?}");
    assert!(kopid.stop().success());
}

/// Fault 22: namespaces of its own make nobody somebody else: root of a user namespace is the user that made it.
#[test]
fn fault_22_namespaces_of_an_app_change_nothing() {
    let dir = TempDir::new("inside");
    let policy = "default = { attach = \"refuse\" }\n\
                  [[app]]\nname = \"root\"\nowner = { uid = 0 }\n[[app]]\nname = \"bob\"\nowner = { uid = 64201 }\n";
    let kopid = Kopid::start(&dir, &settings(policy));
    for namespaces in ["--user --map-root-user", "--user --map-root-user --pid --fork --kill-child=KILL"] {
        let how = unshared(Some(BOB), namespaces);
        let mut client = Piped::client(&dir, &kopid, "root", NO_MAC, &how, &[]);
        let refusal = client.answer().expect("bob is not root");
        assert!(refusal.contains("another process"), "{refusal}");
        let mut client = Piped::client(&dir, &kopid, "bob", NO_MAC, &how, &[]);
        assert_eq!(client.answer(), None);
        let app = kopid.await_app("bob");
        let forked = children(client.process().pid()).pop();
        let pid = forked.unwrap_or_else(|| client.process().pid());
        assert_eq!((&app["uid"], &app["pid"]), (&BOB.into(), &pid.into()), "{namespaces}: {app}");
        drop(client);
        kopid.await_no_app("bob");
    }
}

/// Fault 22: a process that is not in kopid's pid namespace is known by its user alone, and matches no rule that asks for
/// more.
#[test]
fn fault_22_process_outside_is_known_by_its_user_alone() {
    let policy = "default = { attach = \"refuse\" }\n\
                  [[app]]\nname = \"by-exe\"\nowner = { uid = 64201, exe = \"/*\" }\n\
                  [[app]]\nname = \"by-comm\"\nowner = { uid = 64201, comm = \"*\" }\n\
                  [[app]]\nname = \"by-cgroup\"\nowner = { uid = 64201, cgroup = \"/\" }\n\
                  [[app]]\nname = \"not-exe\"\nowner = { uid = 64201, not = { exe = \"/bin/false\" } }\n\
                  [[app]]\nname = \"by-user\"\nowner = { uid = 64201 }\n";
    let dir = TempDir::new("outside");
    let how = unshared(None, "--pid --fork --kill-child=KILL --mount-proc");
    let kopid = Kopid::start_as(&dir, &settings(policy), &how);
    for name in ["by-exe", "by-comm", "by-cgroup", "not-exe"] {
        let mut client = Piped::client(&dir, &kopid, name, NO_MAC, &as_user(BOB), &[]);
        let refusal = client.answer().unwrap_or_else(|| panic!("nothing is known of it, and it may be {name}"));
        assert!(refusal.contains("another process"), "{refusal}");
    }
    let mut client = Piped::client(&dir, &kopid, "by-user", NO_MAC, &as_user(BOB), &[]);
    assert_eq!(client.answer(), None);
    let app = kopid.await_app("by-user");
    assert_eq!((&app["uid"], &app["pid"], &app["exe"]), (&BOB.into(), &0.into(), &Value::Null), "{app}");
    client.finish();
    kopid.await_no_app("by-user");
}

/// Fault 22: a user that kopid's user namespace does not have is nobody, not the user with the number that stands for
/// those.
#[test]
fn fault_22_user_outside_is_unknown() {
    let policy = "default = { attach = \"refuse\" }\n\
                  [[app]]\nname = \"nobody\"\nowner = { uid = 65534 }\n\
                  [[app]]\nname = \"not-root\"\nowner = { not = { uid = 0 } }\n\
                  [[app]]\nname = \"anybody\"\n";
    let dir = TempDir::new("user");
    let kopid = Kopid::start_as(&dir, &settings(policy), &unshared(None, "--user --map-root-user"));
    for name in ["nobody", "not-root"] {
        let mut client = Piped::client(&dir, &kopid, name, NO_MAC, &as_user(BOB), &[]);
        assert!(client.answer().is_some(), "nothing is known of it, and it may be {name}");
    }
    let mut client = Piped::client(&dir, &kopid, "anybody", NO_MAC, &as_user(BOB), &[]);
    assert_eq!(client.answer(), None);
    client.finish();
    kopid.await_no_app("anybody");
}

/// A group of processes in the unified hierarchy. It goes with its value.
struct Cgroup(PathBuf);

impl Cgroup {
    /// Makes one, if this machine lets us.
    fn new() -> Option<Self> {
        let mounts = fs::read_to_string("/proc/mounts").expect("there is a list of mounts");
        let root = mounts.lines().find(|line| line.split(' ').nth(2) == Some("cgroup2"))?.split(' ').nth(1)?;
        let path = Path::new(root).join(format!("kopi-test-{}-{}", std::process::id(), unique()));
        fs::create_dir(&path).ok()?;
        Some(Self(path))
    }

    /// Its path as rules have it.
    fn name(&self) -> String {
        format!("/{}", self.0.file_name().expect("it has a name").to_string_lossy())
    }

    fn take(&self, pid: u32) {
        fs::write(self.0.join("cgroup.procs"), pid.to_string()).expect("root may move processes");
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let empty = || fs::read_to_string(self.0.join("cgroup.procs")).is_ok_and(|text| text.is_empty());
        let start = Instant::now();
        while !empty() && start.elapsed() < Duration::from_secs(2) {
            std::thread::sleep(Duration::from_millis(10));
        }
        drop(fs::remove_dir(&self.0));
    }
}

/// Fault 23: an app that is moved to another cgroup is judged by the rules for that one within a second.
#[test]
fn fault_23_policy_follows_a_change_of_cgroup() {
    let (Some(allowed), Some(other)) = (Cgroup::new(), Cgroup::new()) else {
        drop(writeln!(std::io::stderr(), "left out: the unified hierarchy of cgroups cannot be written here"));
        return;
    };
    let policy = format!(
        "default = {{ egress = \"drop\" }}\n[[rule]]\nname = \"allowed\"\nowner = {{ cgroup = \"{}\" }}\n\
         action = \"accept\"\n",
        allowed.name()
    );
    let dir = TempDir::new("cgroup");
    let netns = Netns::new(1500);
    let mut kopid = Kopid::start(&dir, &Settings::on_interface(netns.outside(), 1).policy(&policy));
    let mut client = Piped::client(&dir, &kopid, "bob", MAC, &as_user(BOB), &[]);
    drop(kopid.await_app("bob"));
    assert!(!kopid.log().contains("there is no cgroup"), "the cgroup is there:\n{}", kopid.log());
    let pid = client.process().pid();
    let peer = Peer::new(&netns);
    let mut buffer = vec![0; 2048];
    let mut number = 0;
    // The same flow all the time, so that what was judged before has to be judged again.
    let mut passes = || {
        number += 1;
        let ends = Ends { source: Ipv4Addr::new(10, 77, 0, 11), destination: Ipv4Addr::new(10, 77, 0, 1), id: number };
        let counted = kopid.counter("wire", "tx_packets") + kopid.drops("policy");
        client.send(&framed(Netns::MAC, MAC_BYTES, &ends.udp((5000, 5000), b"hello")));
        wait_until("it is judged", SOON, || kopid.counter("wire", "tx_packets") + kopid.drops("policy") > counted);
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(20) {
            if peer.next(&mut buffer).and_then(id_of) == Some(number) {
                return true;
            }
        }
        false
    };
    assert!(!passes(), "it is in no cgroup that may send");
    for (cgroup, expected) in [(&allowed, true), (&other, false), (&allowed, true), (&other, false)] {
        cgroup.take(pid);
        let moved = Instant::now();
        while passes() != expected {
            assert!(moved.elapsed() < Duration::from_secs(1), "a second after the move it is not {expected}");
        }
        let name = kopid.app("bob").expect("it is attached")["cgroup"].clone();
        assert_eq!(name, cgroup.name());
    }
    client.finish();
    assert!(kopid.stop().success());
}
