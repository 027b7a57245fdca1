//! A program under test: started, stopped, continued, and never left behind.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::error::{BenchError, Doing, Result};
use crate::interrupt::Interrupt;

/// How often output and exit are looked at while waiting.
const POLL: Duration = Duration::from_millis(10);
/// How long a program gets to end by itself after SIGTERM.
const GRACE: Duration = Duration::from_secs(3);
/// How much of a program's output an error message shows, in bytes.
const TAIL: usize = 1200;

/// How long the output of an ended program is waited for.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// A running child. Dropping it ends the child.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    child: Child,
    pid: Pid,
    stdin: ChildStdin,
    output: Arc<Mutex<String>>,
    reader: JoinHandle<()>,
    /// How much of `output` [`Process::expect`] has gone past, in bytes.
    seen: usize,
    interrupt: Interrupt,
}

impl Process {
    /// Starts `program` with a pipe on each of its standard streams.
    ///
    /// The child dies with us whatever kills us (`setpriv --pdeathsig`), is out of reach of the terminal's Ctrl-C (its
    /// own process group), and writes line by line though its output is a pipe (`stdbuf`).
    ///
    /// # Errors
    ///
    /// When the program cannot be started.
    pub(crate) fn spawn<S: AsRef<OsStr>>(
        name: &str,
        program: impl AsRef<OsStr>,
        args: impl IntoIterator<Item = S>,
        environment: &[(&str, &OsStr)],
        interrupt: &Interrupt,
    ) -> Result<Self> {
        let doing = || format!("start {name} ({})", program.as_ref().display());
        let (mut reader, writer) = io::pipe().doing(doing)?;
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "--", "stdbuf", "-oL"])
            .arg(program.as_ref())
            .args(args)
            .envs(environment.iter().copied())
            .stdin(Stdio::piped())
            .stdout(writer.try_clone().doing(doing)?)
            .stderr(writer)
            .process_group(0);
        let mut child = command.spawn().doing(doing)?;
        // The command holds the pipe's writing ends; without them the reader sees the child's end.
        drop(command);
        let pid = Pid::from_child(&child);
        let stdin = child.stdin.take().ok_or_else(|| BenchError::Failed(format!("{name} has no standard input")))?;

        let output = Arc::new(Mutex::new(String::new()));
        let sink = Arc::clone(&output);
        let reader = thread::spawn(move || {
            let mut chunk = [0; 4096];
            while let Ok(n @ 1..) = reader.read(&mut chunk) {
                let text = chunk.get(..n).map(String::from_utf8_lossy).unwrap_or_default();
                lock(&sink).push_str(&text);
            }
        });
        Ok(Self { name: name.to_owned(), child, pid, stdin, output, reader, seen: 0, interrupt: interrupt.clone() })
    }

    /// Writes one line to the program's standard input.
    ///
    /// # Errors
    ///
    /// When the program has closed it, which it does by ending.
    pub(crate) fn send_line(&mut self, line: &str) -> Result<()> {
        let sent = self.stdin.write_all(format!("{line}\n").as_bytes()).and_then(|()| self.stdin.flush());
        sent.map_err(|source| BenchError::Failed(format!("{} takes no input ({source}):\n{}", self.name, self.tail())))
    }

    /// Waits until the program has printed `marker`, and returns what it printed since the last call, marker included.
    ///
    /// # Errors
    ///
    /// When the program ends or `limit` passes first, and on Ctrl-C.
    pub(crate) fn expect(&mut self, marker: &str, limit: Duration) -> Result<String> {
        let start = Instant::now();
        loop {
            // Asked before the output is searched: what an ended program said last still counts.
            let alive = self.alive();
            if let Some(text) = self.take_through(marker) {
                return Ok(text);
            }
            alive?;
            if start.elapsed() > limit {
                let (program, marker, tail) = (self.name.clone(), marker.to_owned(), self.tail());
                return Err(BenchError::Silent { program, marker, limit, tail });
            }
            self.interrupt.sleep(POLL)?;
        }
    }

    /// Checks that the program has not ended.
    ///
    /// # Errors
    ///
    /// When it has, with what it said last.
    pub(crate) fn alive(&mut self) -> Result<()> {
        match self.child.try_wait().doing(|| format!("wait for {}", self.name))? {
            None => Ok(()),
            Some(status) => {
                // Its last words may still lie in the pipe; a child of its own may hold the pipe open for longer.
                let ended = Instant::now();
                while !self.reader.is_finished() && ended.elapsed() < LAST_WORDS {
                    thread::sleep(POLL);
                }
                Err(BenchError::Failed(format!("{} ended ({status}):\n{}", self.name, self.tail())))
            }
        }
    }

    /// Stops the program where it is: it uses no processor until [`Process::resume`].
    pub(crate) fn pause(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// Lets a paused program go on.
    pub(crate) fn resume(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    /// The processor time that the program has used so far, all its threads together.
    ///
    /// # Errors
    ///
    /// When the program has ended.
    pub(crate) fn processor_time(&self) -> Result<Duration> {
        time_in(&format!("/proc/{}/stat", self.pid.as_raw_nonzero()))
    }

    /// The same of its thread called `thread` alone.
    ///
    /// # Errors
    ///
    /// When there is no such thread.
    pub(crate) fn thread_time(&self, thread: &str) -> Result<Duration> {
        let (number, _) = self.thread(thread)?;
        time_in(&format!("/proc/{}/task/{number}/stat", self.pid.as_raw_nonzero()))
    }

    /// How often the kernel took the processor away from the program's thread called `thread`.
    ///
    /// # Errors
    ///
    /// When there is no such thread.
    pub(crate) fn preemptions(&self, thread: &str) -> Result<u64> {
        let (_, status) = self.thread(thread)?;
        let count = value_of(&status, "nonvoluntary_ctxt_switches").and_then(|count| count.parse().ok());
        count.ok_or_else(|| BenchError::Failed(format!("the kernel counts no preemptions of {thread}")))
    }

    /// Puts the program's thread called `thread` before all ordinary threads (`SCHED_FIFO`, sched(7)).
    ///
    /// # Errors
    ///
    /// When there is no such thread, or no right to do so.
    pub(crate) fn prefer(&self, thread: &str) -> Result<()> {
        let (number, _) = self.thread(thread)?;
        let chrt =
            Command::new("chrt").args(["--fifo", "--pid", "1", &number]).output().doing(|| "run chrt".to_owned())?;
        if chrt.status.success() {
            return Ok(());
        }
        Err(BenchError::Failed(format!("prefer {thread}: {}", String::from_utf8_lossy(&chrt.stderr))))
    }

    /// Number and `/proc` status of the program's thread called `thread`.
    fn thread(&self, thread: &str) -> Result<(String, String)> {
        let tasks = format!("/proc/{}/task", self.pid.as_raw_nonzero());
        let mut threads = fs::read_dir(&tasks).doing(|| format!("read {tasks}"))?.flatten();
        let found = threads.find_map(|task| {
            let status = fs::read_to_string(task.path().join("status")).ok()?;
            let is_it = value_of(&status, "Name") == Some(thread);
            is_it.then(|| (task.file_name().to_string_lossy().into_owned(), status))
        });
        found.ok_or_else(|| BenchError::Failed(format!("{} has no thread {thread}", self.name)))
    }

    /// The end of what the program has printed.
    pub(crate) fn tail(&self) -> String {
        let output = lock(&self.output);
        let start = output.floor_char_boundary(output.len().saturating_sub(TAIL));
        output.get(start..).unwrap_or_default().trim().to_owned()
    }

    fn take_through(&mut self, marker: &str) -> Option<String> {
        let output = lock(&self.output);
        let fresh = output.get(self.seen..)?;
        let end = fresh.find(marker)? + marker.len();
        self.seen += end;
        fresh.get(..end).map(str::to_owned)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        kill_process(self.pid, signal)
            .map_err(io::Error::from)
            .doing(|| format!("signal {}: it said last:\n{}", self.name, self.tail()))
    }

    /// Waits for the program to end by itself, and returns whether it did.
    pub(crate) fn ended_within(&mut self, limit: Duration) -> bool {
        let start = Instant::now();
        while start.elapsed() < limit {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return true;
            }
            thread::sleep(POLL);
        }
        false
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // `try_wait` keeps the pid ours until it has been waited for, so no signal can hit a stranger.
        if !matches!(self.child.try_wait(), Ok(None)) {
            return;
        }
        // A paused program cannot act on SIGTERM. Errors mean that it is gone already, which is what we want.
        let _told = self.signal(Signal::TERM).and_then(|()| self.resume());
        if !self.ended_within(GRACE) {
            let _killed = self.child.kill().and_then(|()| self.child.wait().map(drop));
        }
    }
}

fn lock(output: &Mutex<String>) -> MutexGuard<'_, String> {
    output.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the text of `/proc/PID/task/TID/status` says of `key` (proc_pid_status(5)).
fn value_of<'a>(status: &'a str, key: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')).map(str::trim)
}

/// User and system time that the file at `path` tells, see [`ticks_of`].
fn time_in(path: &str) -> Result<Duration> {
    let stat = fs::read_to_string(path).doing(|| format!("read {path}"))?;
    let ticks = ticks_of(&stat).ok_or_else(|| BenchError::Failed(format!("{path} is not understood: {stat}")))?;
    Ok(Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second()))
}

/// User and system time, in clock ticks, from the text of `/proc/PID/stat`.
///
/// # Source
///
/// proc_pid_stat(5): fields 14 and 15; the command name, field 2, may hold spaces and parentheses, so the fields are
/// counted from the last closing one.
fn ticks_of(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_found_behind_a_name_with_parentheses() {
        let stat = "42 (a) b (c)) R 1 2 3 4 5 6 7 8 9 10 700 11 0 0 20 0 3 0 99";
        assert_eq!(ticks_of(stat), Some(711));
        assert_eq!(ticks_of("42 (short) R 1 2"), None);
    }

    #[test]
    fn preemptions_are_those_of_a_thread() {
        let status = "Name:\tkopi-worker-0\nvoluntary_ctxt_switches:\t7\nnonvoluntary_ctxt_switches:\t12\n";
        assert_eq!(value_of(status, "Name"), Some("kopi-worker-0"));
        assert_eq!(value_of(status, "nonvoluntary_ctxt_switches"), Some("12"));
        let cat = Process::spawn("cat", "cat", [""; 0], &[], &Interrupt::default()).expect("cat starts");
        assert!(cat.preemptions("dog").is_err());
    }

    #[test]
    fn output_is_taken_up_to_each_marker_once() {
        let mut cat = Process::spawn("cat", "cat", [""; 0], &[], &Interrupt::default()).expect("cat starts");
        cat.send_line("one two").expect("cat reads");
        let limit = Duration::from_secs(20);
        assert_eq!(cat.expect("one", limit).expect("printed"), "one");
        assert_eq!(cat.expect("two", limit).expect("printed"), " two");
    }

    #[test]
    fn a_paused_program_is_ended_by_drop() {
        let cat = Process::spawn("cat", "cat", [""; 0], &[], &Interrupt::default()).expect("cat starts");
        cat.pause().expect("a live child takes signals");
        let path = format!("/proc/{}", cat.pid.as_raw_nonzero());
        drop(cat);
        assert!(!fs::exists(path).expect("/proc is readable"));
    }

    #[test]
    fn an_ended_program_shows_its_last_words() {
        let mut ls = Process::spawn("ls", "ls", ["/no/such/folder"], &[], &Interrupt::default()).expect("ls starts");
        let error = ls.expect("never", Duration::from_secs(20)).expect_err("ls ends without it");
        assert!(error.to_string().contains("/no/such/folder"), "{error}");
    }
}
