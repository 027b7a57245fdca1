//! A child process with its log.

use crate::wait::{SOON, wait_for, wait_until};
use rustix::process::{Pid, Signal, kill_process};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Lines of the log that a failing test shows.
const TAIL: usize = 40;

/// Mappings that may be left of threads that have ended.
const THREAD_MAPPINGS: usize = 16;

/// What the allocator of a process may keep of memory that was given back, in KiB.
const ALLOCATOR_KIB: u64 = 1024;

/// A child process. It is killed with its value, and by the kernel if the thread that started it ends before.
#[derive(Debug)]
pub struct Process {
    child: Child,
    name: String,
    log: PathBuf,
    ended: Option<ExitStatus>,
}

/// How a child is started.
#[derive(Debug, Default, Clone)]
pub struct Launch {
    /// User and group that it runs as; root if `None`.
    pub user: Option<u32>,
    /// CPU that it is bound to, if any.
    pub cpu: Option<u16>,
    /// Network namespace that it runs in, if not ours.
    pub netns: Option<String>,
    /// Environment variables on top of ours.
    pub env: Vec<(String, String)>,
    /// Whether each line of its output is seen at once, even if it writes with C's buffers.
    pub unbuffered: bool,
    /// Capabilities that it has, whoever it is, such as `+net_raw,+setuid`; none but those of its user if empty.
    pub capabilities: &'static str,
    /// Words of a program before it that starts it, such as `unshare`.
    pub wrapper: Vec<String>,
}

impl Launch {
    /// The command that starts `program` this way. Every wrapper replaces itself, so the child has the program's pid.
    fn command(&self, program: &OsStr) -> Command {
        let mut words: Vec<String> = Vec::new();
        let mut say = |line: &str| words.extend(line.split(' ').map(str::to_owned));
        if let Some(name) = &self.netns {
            say(&format!("ip netns exec {name}"));
        }
        if let Some(cpu) = self.cpu {
            say(&format!("taskset -c {cpu}"));
        }
        say("setpriv --pdeathsig KILL");
        if let Some(uid) = self.user {
            say(&format!("--reuid {uid} --regid {uid} --clear-groups"));
        }
        if !self.capabilities.is_empty() {
            say(&format!("--inh-caps {0} --ambient-caps {0}", self.capabilities));
        }
        if self.unbuffered {
            say("stdbuf -oL");
        }
        words.extend(self.wrapper.iter().cloned());
        let (first, rest) = words.split_first().expect("there is setpriv");
        let mut command = Command::new(first);
        command.args(rest).arg(program);
        command.envs(self.env.iter().map(|(key, value)| (key, value)));
        command
    }
}

impl Process {
    /// Starts `program`, with both of its outputs at the end of file `log`, and its input open but silent.
    ///
    /// Call it on the thread of the test: the child dies with the thread that started it.
    #[must_use]
    pub fn start(launch: &Launch, program: impl AsRef<OsStr>, args: &[String], log: PathBuf) -> Self {
        let program = program.as_ref();
        let file = File::options().create(true).append(true).open(&log);
        let file = file.unwrap_or_else(|e| panic!("{}: {e}", log.display()));
        let mut command = launch.command(program);
        command.args(args).stdin(Stdio::piped());
        command.stdout(file.try_clone().expect("a file can be opened twice")).stderr(file);
        let name = Path::new(program).file_name().unwrap_or(program).to_string_lossy().into_owned();
        let child = command.spawn().unwrap_or_else(|e| panic!("{name}: {e}"));
        Self { child, name, log, ended: None }
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its standard input.
    pub fn input(&mut self) -> &mut ChildStdin {
        self.child.stdin.as_mut().expect("its input is a pipe")
    }

    /// Closes its standard input.
    pub fn close_input(&mut self) {
        drop(self.child.stdin.take());
    }

    /// What it has written so far.
    #[must_use]
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Sends it a signal. It may have ended already.
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("a child has a pid");
        // An error means that it is gone already.
        kill_process(pid, signal).unwrap_or(());
    }

    /// Whether every thread of it stands still after a SIGSTOP.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.pid())).into_iter().flatten().flatten();
        // "123 (name) T 1 …"
        let state = |stat: String| stat.rsplit(')').next().is_some_and(|rest| rest.starts_with(" T"));
        tasks.map(|task| fs::read_to_string(task.path().join("stat"))).all(|stat| stat.is_ok_and(state))
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().expect("a child can be waited for");
        }
        self.ended
    }

    /// Waits for its end.
    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        let what = format!("{} (pid {}) ends", self.name, self.pid());
        wait_for(&what, limit, || self.ended())
    }

    /// Waits until `text` is in what it wrote after the first `from` bytes. Panics if it ends before.
    pub fn expect(&mut self, from: usize, text: &str, limit: Duration) -> String {
        let what = format!("{} says `{text}`", self.name);
        wait_for(&what, limit, || {
            let over = self.ended();
            let said = self.log().get(from..).unwrap_or_default().to_owned();
            if said.contains(text) {
                return Some(said);
            }
            assert!(over.is_none(), "{} ended ({over:?}) before it said `{text}`:\n{said}", self.name);
            None
        })
    }

    /// Waits until `text` is in what it, or who has its output, wrote, whether it has ended or not.
    pub fn expect_more(&self, text: &str) -> String {
        let what = format!("{} or a child of it says `{text}`", self.name);
        wait_for(&what, SOON, || Some(self.log()).filter(|log| log.contains(text)))
    }

    /// What it uses when it rests: the least of each over a third of a second, since connections that were closed and
    /// rings that were given back are let go of within that time.
    #[must_use]
    pub fn usage(&self) -> Usage {
        let mut least = Usage::of(self.pid());
        let end = Instant::now() + Duration::from_millis(300);
        wait_until("a third of a second is over", SOON, || {
            let now = Usage::of(self.pid());
            least.anonymous_kib = least.anonymous_kib.min(now.anonymous_kib);
            least.rss_kib = least.rss_kib.min(now.rss_kib);
            least.huge_kib = least.huge_kib.min(now.huge_kib);
            least.fds = least.fds.min(now.fds);
            least.threads = least.threads.min(now.threads);
            least.mappings = least.mappings.min(now.mappings);
            Instant::now() >= end
        });
        least
    }

    /// Waits until it uses no more than `before`. What goes, goes some time after its cause: a user's thread when it has had
    /// nothing to do for a while, and a minute later if it leaves a socket alone, as a machine that is busy enough may make it do. A
    /// leak stays for ever.
    pub fn await_usage(&self, before: &Usage) {
        let end = Instant::now() + 5 * SOON;
        let mut now = self.usage();
        while !now.is_back_at(before) {
            assert!(Instant::now() < end, "{before:?} became {now:?}, and stays so");
            now = self.usage();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.ended().is_none() {
            drop(self.child.kill());
            drop(self.child.wait());
        }
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let tail = lines.get(lines.len().saturating_sub(TAIL)..).unwrap_or_default().join("\n");
            drop(writeln!(std::io::stderr(), "---- {} (pid {}) ----\n{tail}", self.name, self.pid()));
        }
    }
}

/// What a process uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Resident memory in KiB, without shared memory and files.
    pub anonymous_kib: u64,
    /// Resident memory in KiB, all of it.
    pub rss_kib: u64,
    /// Memory in huge pages in KiB. Not the machine's pool, of which others take and give at the same time.
    pub huge_kib: u64,
    /// Open file descriptors.
    pub fds: usize,
    /// Threads.
    pub threads: usize,
    /// Memory mappings.
    pub mappings: usize,
}

impl Usage {
    /// Processor time that process `pid` has used so far, all threads together.
    #[must_use]
    pub fn cpu_time(pid: u32) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process lives");
        // The name, in parentheses, may hold anything. User and system time are the 14th and 15th field, in ticks.
        let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
        let ticks: u64 = fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
        // USER_HZ is 100 wherever DPDK runs.
        Duration::from_millis(ticks * 10)
    }

    /// Whether nothing has grown since `before`: all the same but for a little memory of the allocator's.
    #[must_use]
    pub fn is_back_at(&self, before: &Self) -> bool {
        // Mappings beside each other may have become one; and the C library keeps some stacks and heaps of threads that have
        // ended.
        let counts = |usage: &Self| (usage.fds, usage.threads, usage.huge_kib);
        counts(self) == counts(before)
            && self.mappings <= before.mappings + THREAD_MAPPINGS
            && self.anonymous_kib < before.anonymous_kib + ALLOCATOR_KIB
    }

    /// What process `pid` uses now.
    #[must_use]
    pub fn of(pid: u32) -> Self {
        let count = |name: &str| fs::read_dir(format!("/proc/{pid}/{name}")).map_or(0, Iterator::count);
        let text = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
        let status = text("status");
        let field = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
            line.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(0)
        };
        Self {
            anonymous_kib: field("RssAnon:"),
            rss_kib: field("VmRSS:"),
            huge_kib: field("HugetlbPages:"),
            fds: count("fd"),
            threads: count("task"),
            mappings: text("maps").lines().count(),
        }
    }
}
