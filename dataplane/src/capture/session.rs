//! A capture session's thread: from the rings of the workers to the file of the client.
//!
//! It has the client's connection to itself, and may be kept waiting by a slow disk; nothing waits for it.

use super::output::{Broken, Output, Progress};
use super::request::Request;
use super::roster::Roster;
use super::stream::{EpochNames, Stream, Sums};
use super::talk::{Heard, Talk, Why};
use crate::capture::clock::Clock;
use crate::stages::mirror::{Head, Line, PortCounts};
use kopi_api::capture::{Session as Told, State};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

/// Bytes of blocks that are put together before they are written.
const CHUNK: usize = 256 << 10;
/// Records taken before the client is listened to again.
const RECORDS: usize = 4096;
/// Shortest and longest pause when there is nothing to do, in milliseconds: a ring holds what comes in the meantime.
const PAUSE_MS: std::ops::RangeInclusive<i64> = 1..=10;
/// How long a full disk is left alone before it is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// How long workers are waited for, until they look for the session, and at its end until they have let go of it.
const FAREWELL: Duration = Duration::from_secs(1);
/// How often is looked for that at the beginning.
const STEP: Duration = Duration::from_micros(100);
/// How long a reader that does not read is waited for at the end.
const LINGER: Duration = Duration::from_secs(2);
/// The same when kopid ends, and whoever has stopped it waits for that.
const LINGER_AT_END: Duration = Duration::from_millis(250);

/// How a session tells the control thread that its taps are to be taken away.
#[derive(Debug)]
pub struct Bell {
    /// An eventfd that the control thread watches.
    pub wake: Arc<OwnedFd>,
    /// The session wants no more frames.
    pub ending: AtomicBool,
}

impl Bell {
    fn ring(&self) {
        self.ending.store(true, Relaxed);
        self.wake();
    }

    /// Has the control thread look at the session.
    pub fn wake(&self) {
        if let Err(errno) = rustix::io::write(&*self.wake, &1_u64.to_ne_bytes()) {
            // The control thread looks by itself, a little later.
            log::debug!("the control thread is not woken: {errno}");
        }
    }
}

/// What a session is made of.
#[derive(Debug)]
pub struct Parts {
    /// What is asked.
    pub request: Arc<Request>,
    /// The client's connection, which is the session's own from now on.
    pub talk: Talk,
    /// Where to write to.
    pub output: Output,
    /// From each worker.
    pub rings: Vec<rtrb::Consumer<Line>>,
    /// How many workers look for it already.
    pub begun: Arc<AtomicUsize>,
    /// What each worker's tap counts.
    pub counts: Vec<Arc<[PortCounts]>>,
    /// Who is behind each port now.
    pub roster: Arc<Roster>,
    /// The same, whenever it changes.
    pub snapshots: Receiver<EpochNames>,
    /// Ticks of the TSC in a second.
    pub hz: u64,
    /// How to be let go of.
    pub bell: Arc<Bell>,
}

/// A session that runs.
#[derive(Debug)]
pub struct Session {
    request: Arc<Request>,
    talk: Talk,
    output: Output,
    rings: Vec<rtrb::Consumer<Line>>,
    begun: Arc<AtomicUsize>,
    counts: Vec<Arc<[PortCounts]>>,
    snapshots: Receiver<EpochNames>,
    clock: Clock,
    bell: Arc<Bell>,
    stream: Stream,
    /// Blocks that are not written yet, from `sent` on.
    blocks: Vec<u8>,
    sent: usize,
    /// Packets that may still come.
    left: u64,
    /// Bytes written to files that are closed.
    closed_bytes: u64,
    deadline: Option<Instant>,
    /// When a full disk is tried again.
    retry: Option<Instant>,
    disk_full: bool,
    /// Whether the client knows that the file has its size.
    told_full: bool,
    pause_ms: i64,
    /// How long a reader that does not read is waited for at the end.
    linger: Duration,
    /// The last TSC, and its time: all frames of a burst have the same.
    moment: (u64, u64),
}

impl Session {
    /// A session that has written nothing yet.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let Parts { request, talk, output, rings, begun, counts, roster, snapshots, hz, bell } = parts;
        let clock = Clock::new(hz);
        let now = clock.ns(dpdk::tsc());
        let stream = Stream::new(Arc::clone(&request), counts.clone(), roster, now);
        Self {
            talk,
            output,
            rings,
            begun,
            counts,
            snapshots,
            clock,
            bell,
            stream,
            blocks: Vec::with_capacity(CHUNK * 2),
            sent: 0,
            left: request.wanted.count.unwrap_or(u64::MAX),
            closed_bytes: 0,
            deadline: request.wanted.seconds.and_then(|time| Instant::now().checked_add(Duration::from_secs_f64(time))),
            retry: None,
            disk_full: false,
            told_full: false,
            pause_ms: *PAUSE_MS.start(),
            linger: LINGER,
            moment: (0, 0),
            request,
        }
    }

    /// Works until the client, a limit or kopid ends it.
    pub fn run(mut self) {
        self.await_workers();
        self.say(State::Running, None);
        self.stream.prepare(&mut self.blocks);
        let why = loop {
            match self.turn() {
                Ok(moved) => self.rest(moved),
                Err(why) => break why,
            }
        };
        self.finish(why);
    }

    /// Waits until every worker looks for the session, so that it misses nothing of what comes once its client knows of it.
    fn await_workers(&self) {
        let begun = Instant::now();
        while self.begun.load(Relaxed) < self.rings.len() && begun.elapsed() < FAREWELL {
            std::thread::park_timeout(STEP);
        }
    }

    /// Looks once at everything. Returns how many records it has taken.
    fn turn(&mut self) -> Result<usize, Why> {
        self.hear()?;
        self.learn();
        let moved = self.take();
        if moved == 0 || self.blocks.len() >= CHUNK {
            self.write()?;
        }
        let full = |limit: Option<u64>, bytes: u64| limit.is_some_and(|limit| bytes >= limit);
        let bytes = self.output.written() + (self.blocks.len() - self.sent) as u64;
        if !self.told_full && full(self.request.wanted.file_bytes, bytes) {
            self.told_full = true;
            self.say(State::Full, None);
        }
        if self.left == 0 {
            return Err(Why::Count);
        }
        if full(self.request.wanted.bytes, self.closed_bytes + bytes) {
            return Err(Why::Bytes);
        }
        if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Err(Why::Seconds);
        }
        if self.output.is_abandoned() {
            return Err(Why::Reader);
        }
        if moved == 0 && self.is_let_go() {
            self.linger = LINGER_AT_END;
            return Err(Why::Error("kopid has ended".into()));
        }
        self.clock.follow();
        Ok(moved)
    }

    /// Whether no worker knows of the session any more.
    fn is_let_go(&self) -> bool {
        self.rings.iter().all(rtrb::Consumer::is_abandoned)
    }

    fn hear(&mut self) -> Result<(), Why> {
        while let Some(heard) = self.talk.hear()? {
            match heard {
                Heard::Counts => self.say(State::Running, None),
                Heard::Stop => return Err(Why::Stopped),
                Heard::Rotate(file) => match Output::new(file) {
                    Ok(output) => {
                        self.rotate(output)?;
                        self.say(State::Running, None);
                    }
                    Err(error) => return Err(Why::Error(error)),
                },
            }
        }
        Ok(())
    }

    fn learn(&mut self) {
        while let Ok(snapshot) = self.snapshots.try_recv() {
            self.stream.learn(snapshot);
        }
    }

    /// Takes records out of the rings, oldest first.
    fn take(&mut self) -> usize {
        if self.retry.is_some_and(|retry| Instant::now() < retry) {
            return 0;
        }
        let (mut taken, room) = (0, self.room());
        while taken < RECORDS && self.blocks.len() < room && self.left > 0 {
            let Some((at, head)) = self.oldest() else { break };
            if !self.stream.knows(head.epoch) {
                self.learn();
            }
            if self.moment.0 != head.tsc {
                self.moment = (head.tsc, self.clock.ns(head.tsc));
            }
            let snap = self.request.snap();
            let Some(ring) = self.rings.get_mut(at) else { break };
            let Ok(chunk) = ring.read_chunk(head.lines(snap)) else { break };
            let (first, second) = chunk.as_slices();
            self.stream.packet(&head, self.moment.1, head.data(snap, [first, second]), &mut self.blocks);
            chunk.commit_all();
            self.left -= 1;
            taken += 1;
        }
        taken
    }

    /// Bytes that may be put together: a chunk, or what is missing to a limit.
    fn room(&self) -> usize {
        let written = self.output.written() - self.sent as u64;
        let to_end = self.request.wanted.bytes.map(|limit| limit.saturating_sub(self.closed_bytes + written));
        let to_full =
            self.request.wanted.file_bytes.filter(|_| !self.told_full).map(|limit| limit.saturating_sub(written));
        let least = to_end.into_iter().chain(to_full).min().and_then(|bytes| usize::try_from(bytes).ok());
        least.map_or(CHUNK, |bytes| bytes.min(CHUNK))
    }

    /// The ring with the oldest record, and that record's head.
    fn oldest(&mut self) -> Option<(usize, Head)> {
        let heads =
            self.rings.iter_mut().enumerate().filter_map(|(at, ring)| Some((at, Head::read(ring.peek().ok()?))));
        heads.min_by_key(|(_, head)| head.tsc)
    }

    /// Writes what is put together, as far as the reader has room.
    fn write(&mut self) -> Result<(), Why> {
        let Some(bytes) = self.blocks.get(self.sent..).filter(|bytes| !bytes.is_empty()) else { return Ok(()) };
        match self.output.write(bytes) {
            Ok(Progress::Written) => {
                self.written();
                self.retry = None;
                Ok(())
            }
            Ok(Progress::Partly(n)) => {
                self.sent += n;
                Ok(())
            }
            Ok(Progress::Full) => {
                // Until there is room, the ring is left to fill up, and workers count what is lost.
                self.give_up();
                Ok(())
            }
            Err(broken) => Err(why(broken)),
        }
    }

    fn written(&mut self) {
        self.blocks.clear();
        self.sent = 0;
        self.stream.commit();
    }

    fn give_up(&mut self) {
        self.disk_full = true;
        self.retry = Instant::now().checked_add(RETRY);
        // What was given up was not captured.
        self.left = self.left.saturating_add(self.stream.pending());
        self.stream.give_up();
        self.blocks.clear();
        self.sent = 0;
    }

    /// Closes the file, and goes on with `output`.
    fn rotate(&mut self, output: Output) -> Result<(), Why> {
        self.close()?;
        self.closed_bytes += self.output.written();
        self.output = output;
        self.told_full = false;
        self.retry = None;
        self.stream.begin_anew(self.clock.ns(dpdk::tsc()));
        self.stream.prepare(&mut self.blocks);
        Ok(())
    }

    /// Writes the statistics, and what lies before them.
    fn close(&mut self) -> Result<(), Why> {
        if self.output.is_file() {
            self.write()?;
        }
        self.stream.prepare(&mut self.blocks);
        self.stream.end(self.clock.ns(dpdk::tsc()), &mut self.blocks);
        let begun = Instant::now();
        loop {
            let bytes = self.blocks.get(self.sent..).unwrap_or_default();
            match self.output.write_last(bytes).map_err(why)? {
                Progress::Written => {
                    self.written();
                    return Ok(());
                }
                Progress::Full => {
                    self.give_up();
                    return Ok(());
                }
                Progress::Partly(n) => {
                    self.sent += n;
                    if begun.elapsed() >= self.linger {
                        // A reader that is asleep does not keep us.
                        self.stream.give_up();
                        self.blocks.clear();
                        self.sent = 0;
                        return Ok(());
                    }
                    self.rest(0);
                }
            }
        }
    }

    /// Waits for something to do, after a turn in which `moved` records were taken.
    fn rest(&mut self, moved: usize) {
        let blocked = self.sent < self.blocks.len() && !self.output.is_file();
        if moved > 0 && !blocked {
            self.pause_ms = *PAUSE_MS.start();
            return;
        }
        let wants = if blocked { PollFlags::OUT } else { PollFlags::empty() };
        let mut fds = [PollFd::new(&self.talk, PollFlags::IN), PollFd::new(&self.output, wants)];
        let watched = if self.output.is_file() { 1 } else { 2 };
        let pause = Timespec { tv_sec: 0, tv_nsec: self.pause_ms * 1_000_000 };
        if let Err(errno) = poll(&mut fds[..watched], Some(&pause)) {
            log::debug!("a capture session does not rest: {errno}");
        }
        self.pause_ms = (self.pause_ms * 2).min(*PAUSE_MS.end());
    }

    /// Ends the session: takes in what workers have seen until they let go, if that is wanted, and tells the client.
    fn finish(mut self, why: Why) {
        self.bell.ring();
        let mut why = why;
        if matches!(why, Why::Stopped | Why::Gone | Why::Seconds | Why::Error(_)) {
            why = self.drain().err().unwrap_or(why);
            self.forsake();
        }
        let lost = matches!(why, Why::Reader);
        if !lost && let Err(broken) = self.close() {
            why = broken;
        }
        self.say(State::Ended, Some(why));
    }

    fn drain(&mut self) -> Result<(), Why> {
        let begun = Instant::now();
        while begun.elapsed() < FAREWELL && self.left > 0 {
            self.learn();
            // In this order, so that nothing comes after the last look.
            let let_go = self.is_let_go();
            let moved = self.take();
            self.write()?;
            if let_go && moved == 0 {
                break;
            }
            self.rest(moved);
        }
        Ok(())
    }

    /// Counts as lost what workers have seen and nobody can write: the disk is full, or the reader does not read.
    fn forsake(&mut self) {
        while let Some((at, head)) = self.oldest() {
            let Some(ring) = self.rings.get_mut(at) else { return };
            let Ok(chunk) = ring.read_chunk(head.lines(self.request.snap())) else { return };
            chunk.commit_all();
            self.stream.lose(&head);
        }
    }

    fn say(&mut self, state: State, why: Option<Why>) {
        let sums = Sums::of(&self.counts, None);
        let counts = Told {
            captured: self.stream.delivered() + self.stream.pending(),
            received: sums.received,
            dropped: sums.lost + self.stream.given_up(),
            seen: sums.seen,
            file_bytes: self.output.written(),
            disk_full: self.disk_full,
            ..Told::default()
        };
        self.talk.say(state, why, counts);
    }
}

fn why(broken: Broken) -> Why {
    match broken {
        Broken::Reader => Why::Reader,
        Broken::System(errno) => Why::Error(format!("cannot write: {errno}")),
    }
}
