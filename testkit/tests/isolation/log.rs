//! An app causes lines in the log, and nobody reads the log. Others are named in it all the same, and kopid goes on.

use kopi_testkit::evil::Client;
use kopi_testkit::{Kopid, Settings, TempDir, machine, wait_until};
use rustix::process::{Pid, Signal, Uid, kill_process};
use rustix::thread::set_thread_res_uid;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// What no wait of kopid's comes near.
const LIMIT: Duration = Duration::from_secs(10);

/// Breaks the protocol `times` times as user `uid`, and waits for each refusal.
fn fail_as(uid: u32, socket: &Path, times: u32) {
    let socket = socket.to_owned();
    let other = std::thread::spawn(move || {
        let user = Uid::from_raw(uid);
        set_thread_res_uid(user, user, user).expect("as root");
        for _ in 0..times {
            let client = Client::connect(&socket);
            assert!(client.send_raw(b"x", 0));
            assert!(client.refusal().contains("message ends early"), "no refusal");
        }
    });
    other.join().expect("it is refused each time");
}

/// Row 14: what one user does wrong is named once in a while, and what another one does is named beside it; the log says whose
/// lines it leaves out.
#[test]
fn users_have_lines_of_their_own() {
    let dir = TempDir::new("log-users");
    let kopid = Kopid::start(&dir, &Settings::default());
    let begun = Instant::now();
    fail_as(4001, &kopid.socket(), 300);
    fail_as(4002, &kopid.socket(), 1);
    let named = |uid: u32| kopid.log().lines().filter(|line| line.contains(&format!("user {uid})"))).count();
    // One more may have begun before, and one have ended after.
    let periods = usize::try_from(begun.elapsed().as_secs() / 10).expect("few") + 2;
    wait_until("both are named", LIMIT, || named(4001) >= 20 && named(4002) == 1);
    assert!(named(4001) <= 20 * periods, "{} lines about one user", named(4001));
    wait_until("the log says what it leaves out", 3 * LIMIT, || {
        kopid.log().lines().any(|line| line.contains("lines about user 4001 were left out"))
    });
    assert!(!kopid.log().contains("user 4002 were left out"));
}

/// A kopid whose standard error is a pipe. It is killed with its value.
struct Piped(Child);

impl Drop for Piped {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Row 14: whoever reads standard error and stops, stops nobody: not apps, not operators, not the end of kopid.
#[test]
fn a_log_that_nobody_reads_stops_nobody() {
    let dir = TempDir::new("log-stuck");
    let mut kopid = Kopid::start(&dir, &Settings::default());
    assert!(kopid.stop().success());
    let mut command = Command::new(machine::built("kopid"));
    command.arg("--config").arg(dir.join("kopid.toml")).env("RUNTIME_DIRECTORY", dir.path()).stderr(Stdio::piped());
    let mut stuck = Piped(command.spawn().expect("kopid can be run"));
    let pipe = stuck.0.stderr.take().expect("it is piped");
    rustix::pipe::fcntl_setpipe_size(&pipe, 4096).expect("a pipe");
    wait_until("kopid is there", 2 * LIMIT, || kopid.exchange(&serde_json::json!({ "command": "status" })).is_some());
    // Five times what the pipe holds.
    (0..10).for_each(|user| fail_as(5000 + user, &kopid.socket(), 20));
    let begun = Instant::now();
    assert!(kopid.exchange(&serde_json::json!({ "command": "apps" })).is_some());
    drop(Client::attach(&kopid.socket(), "late", [2, 0, 0, 0, 9, 1], &kopi_testkit::evil::small()));
    assert!(begun.elapsed() < LIMIT, "it took {:?}", begun.elapsed());
    let pid = i32::try_from(stuck.0.id()).ok().and_then(Pid::from_raw).expect("a process");
    let begun = Instant::now();
    kill_process(pid, Signal::TERM).expect("it runs");
    wait_until("kopid ends", LIMIT, || matches!(stuck.0.try_wait(), Ok(Some(_))));
    assert!(begun.elapsed() < LIMIT);
    drop(pipe);
}
