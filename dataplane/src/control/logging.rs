//! The log: lines in a queue, and a thread that writes them to standard error, where systemd and container runtimes expect them
//! and add the time.
//!
//! The reader of standard error may stop reading, and a write then waits for as long as it likes. So once the daemon serves
//! anybody, nobody but this thread writes: a line that finds no room in the queue is counted, and the log says how many were left
//! out. Lines that peers can cause have half of the queue, and each user has a budget of them ([`crate::control::ratelimit`]). What DPDK and
//! other libraries write to standard error by themselves goes the same way, through a pipe that is always read.
//!
//! Until the daemon serves somebody lines are written at once, so that what is wrong with the configuration is said whatever comes
//! next. At the end the queue is waited for, not for long.

use log::{LevelFilter, Log, Metadata, Record};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use std::io::{BufRead, BufReader, Write};
use std::sync::OnceLock;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::{JoinHandle, park_timeout};
use std::time::{Duration, Instant};

/// The target of lines that peers can cause.
pub const PEER: &str = "peer";
/// Lines that wait to be written, and those of them that peers have caused.
const LINES: usize = 4096;
const PEER_LINES: u64 = 2048;
/// Longest line, in bytes. A peer has its say in some of them.
const LONGEST: usize = 8192;
/// Period of the checks whether the queue has been written.
const STEP: Duration = Duration::from_millis(1);

/// The log of this process, once it is started.
static LOG: OnceLock<Queue> = OnceLock::new();
/// The level that it was started with.
static CONFIGURED: OnceLock<LevelFilter> = OnceLock::new();

/// One line, without its end.
#[derive(Debug)]
struct Line {
    text: String,
    peer: bool,
}

/// What everybody who logs has of the thread.
#[derive(Debug)]
struct Queue {
    lines: SyncSender<Line>,
    /// Whether lines are still written at once, by who logs them.
    direct: AtomicBool,
    /// Lines that were put into the queue, and that have left it.
    put: AtomicU64,
    taken: AtomicU64,
    /// Lines of peers in the queue.
    peers: AtomicU64,
    /// Lines that found no room since that was last said.
    lost: AtomicU64,
}

/// What [`log`] has of it.
#[derive(Debug)]
struct Logger;

impl Log for Logger {
    fn enabled(&self, _metadata: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let level = record.level().as_str().to_lowercase();
        print(format!("kopid: {level}: {}", record.args()), record.target() == PEER);
    }

    fn flush(&self) {}
}

/// Starts the log with lines of `level` and above. Does nothing if it has been started.
///
/// # Errors
///
/// The system's, if there is no thread to be had.
pub fn start(level: LevelFilter) -> std::io::Result<()> {
    let (lines, queue) = sync_channel(LINES);
    let counters = || AtomicU64::new(0);
    let log = Queue {
        lines,
        direct: AtomicBool::new(true),
        put: counters(),
        taken: counters(),
        peers: counters(),
        lost: counters(),
    };
    if LOG.set(log).is_ok() {
        let stderr = rustix::io::fcntl_dupfd_cloexec(std::io::stderr(), 3)?;
        std::thread::Builder::new().name("kopi-log".to_owned()).spawn(move || run(&queue, &stderr))?;
        if log::set_logger(&Logger).is_ok() {
            CONFIGURED.get_or_init(|| level);
            log::set_max_level(level);
        }
    }
    Ok(())
}

/// The level that lines have to have now, and the one that the log was started with.
#[must_use]
pub fn levels() -> (LevelFilter, LevelFilter) {
    let now = log::max_level();
    (now, CONFIGURED.get().copied().unwrap_or(now))
}

/// Has lines of `level` and above written from now on, as `who` wants it.
pub fn set_level(level: LevelFilter, who: &str) {
    if level == log::max_level() {
        return;
    }
    // Whatever the levels, the log says why it says more or less from here on.
    log::set_max_level(LevelFilter::Info.max(level));
    log::info!("the log has lines of level {} and above now, by {who}", level.as_str().to_lowercase());
    log::set_max_level(level);
}

/// Says a line as it is: at once if the log was not started, or nobody is served yet.
pub fn print_line(text: String) {
    print(text, false);
}

fn print(text: String, peer: bool) {
    let queue = LOG.get().filter(|log| !log.direct.load(Acquire));
    match queue {
        Some(queue) => queue.push(text, peer),
        // With standard error gone there is nobody left to tell.
        None => drop(writeln!(std::io::stderr(), "{text}")),
    }
}

impl Queue {
    fn push(&self, mut text: String, peer: bool) {
        if text.len() > LONGEST {
            text.truncate(text.floor_char_boundary(LONGEST));
        }
        if peer && self.peers.fetch_add(1, AcqRel) >= PEER_LINES {
            self.peers.fetch_sub(1, AcqRel);
            self.lost.fetch_add(1, Relaxed);
            return;
        }
        self.put.fetch_add(1, AcqRel);
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) = self.lines.try_send(Line { text, peer }) {
            self.left(peer);
            self.lost.fetch_add(1, Relaxed);
        }
    }

    fn left(&self, peer: bool) {
        self.taken.fetch_add(1, AcqRel);
        if peer {
            self.peers.fetch_sub(1, AcqRel);
        }
    }
}

/// The thread.
fn run(queue: &Receiver<Line>, stderr: &OwnedFd) {
    for line in queue {
        write(stderr, &line.text);
        let Some(log) = LOG.get() else { return };
        let lost = log.lost.swap(0, Relaxed);
        if lost > 0 {
            write(stderr, &format!("kopid: warn: {lost} lines were left out, since nobody read the log"));
        }
        log.left(line.peer);
    }
}

/// Writes a line, and waits for who reads it as long as that takes.
fn write(stderr: &OwnedFd, text: &str) {
    let line = format!("{text}\n");
    let mut rest = line.as_bytes();
    while !rest.is_empty() {
        match rustix::io::write(stderr, rest) {
            Ok(n) => rest = rest.get(n..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => drop(poll(&mut [PollFd::new(stderr, PollFlags::OUT)], None)),
            // Nobody will ever read it.
            Err(_) => return,
        }
    }
}

/// As long as there is this, nobody waits for a line to be written, whoever writes it.
#[derive(Debug)]
pub struct Queued(Option<(JoinHandle<()>, OwnedFd)>);

impl Queued {
    /// Begins.
    ///
    /// # Errors
    ///
    /// The system's, if there is no file descriptor or thread to be had.
    pub fn begin() -> std::io::Result<Self> {
        let Some(log) = LOG.get() else { return Ok(Self(None)) };
        let stderr = rustix::io::fcntl_dupfd_cloexec(std::io::stderr(), 3)?;
        let (reader, writer) = std::io::pipe()?;
        let lines = BufReader::new(reader).split(b'\n').map_while(Result::ok);
        let pass_on = move || lines.for_each(|line| log.push(String::from_utf8_lossy(&line).into_owned(), false));
        let reader = std::thread::Builder::new().name("kopi-stderr".to_owned()).spawn(pass_on)?;
        std::panic::set_hook(Box::new(|panic| {
            log::error!("thread `{}`: {panic}", std::thread::current().name().unwrap_or("?"));
        }));
        rustix::stdio::dup2_stderr(&writer)?;
        log.direct.store(false, Release);
        Ok(Self(Some((reader, stderr))))
    }
}

impl Drop for Queued {
    /// Gives standard error back, so that the pipe ends. The log's own lines stay in the queue.
    fn drop(&mut self) {
        let Some((reader, stderr)) = self.0.take() else { return };
        drop(std::panic::take_hook());
        if let Err(errno) = rustix::stdio::dup2_stderr(&stderr) {
            log::debug!("standard error stays a pipe: {errno}");
            return;
        }
        // It never waits for anybody.
        drop(reader.join());
    }
}

/// Waits until all lines are written, at most for `timeout`.
pub fn finish(timeout: Duration) {
    let Some(log) = LOG.get() else { return };
    let begun = Instant::now();
    while log.taken.load(Acquire) != log.put.load(Acquire) && begun.elapsed() < timeout {
        park_timeout(STEP);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A log that nobody writes keeps nobody waiting, has room for kopid's own lines whatever peers cause, and counts the rest.
    #[test]
    fn lines_that_nobody_writes_are_counted() {
        let (lines, queue) = sync_channel(LINES);
        let counter = || AtomicU64::new(0);
        let (put, taken, peers, lost) = (counter(), counter(), counter(), counter());
        let log = Queue { lines, direct: AtomicBool::new(false), put, taken, peers, lost };
        (0..10_000).for_each(|number| log.push(format!("peer {number}"), true));
        assert_eq!(log.lost.load(Relaxed), 10_000 - PEER_LINES);
        log.push("kopid".repeat(LONGEST), false);
        assert_eq!(log.lost.load(Relaxed), 10_000 - PEER_LINES, "there is room for others");
        (0..10_000).for_each(|_| log.push(String::new(), false));
        assert_eq!(log.put.load(Relaxed) - log.taken.load(Relaxed), LINES as u64, "as many as the queue holds wait");
        let written: Vec<_> = queue.try_iter().collect();
        assert!(written[0].text == "peer 0" && written[0].peer);
        let own = written.iter().find(|line| !line.peer).unwrap();
        assert_eq!(own.text.len(), LONGEST);
    }
}
