//! A capture session's thread: from the filter of a request, and the rings of the workers, to the file of the client.
//!
//! It is that of the client's connection. It may be kept waiting by a slow name service or disk, and nothing waits for it.

use super::connection::{Connection, Heard, Why};
use super::output::{Broken, Output, Progress};
use super::port_names::PortNames;
use super::request::Request;
use super::writer::{EpochNames, Sums, Writer};
use crate::capture::clock::Clock;
use crate::control::mailbox::MailSender;
use crate::stages::mirror::{Cell, PortCounts, RecordHeader};
use dpdk::Bpf;
use kopi_api::capture::{Session as Told, State};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::process::setpriority_process;
use std::ffi::CString;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

/// Niceness of a session's thread: beside an application that polls on the same CPU it gets a tenth of it. Capture is the
/// guest there, and says what it has lost.
const NICE: i32 = 10;
/// Bytes of blocks that are put together before they are written.
const CHUNK: usize = 256 << 10;
/// Records taken before the client is listened to again.
const RECORDS: usize = 4096;
/// Shortest and longest pause when there is nothing to do, in milliseconds: a ring holds what comes in the meantime.
const PAUSE_MS: std::ops::RangeInclusive<i64> = 1..=10;
/// How long a full disk is left alone before it is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// How long workers are waited for, until they look for the session, and at its end until they have let go of it.
const WORKERS_TIMEOUT: Duration = Duration::from_secs(1);
/// How often is looked for that at the beginning.
const STEP: Duration = Duration::from_micros(100);
/// How long a reader that does not read is waited for at the end.
const READER_TIMEOUT: Duration = Duration::from_secs(2);
/// The same when kopid ends, and whoever has stopped it waits for that.
const READER_TIMEOUT_AT_END: Duration = Duration::from_millis(250);

/// A filter; `None` for one that lets everything pass.
pub(super) type Filter = Option<Arc<Bpf>>;

/// What a session says to the control thread.
#[derive(Debug)]
pub(super) enum Event {
    /// Its filter is this. It waits for [`Start`].
    Compiled(Filter),
    /// It wants no more frames.
    Finishing,
    /// It is gone.
    Ended,
}

/// A session's way to the control thread. Dropped, it says that the session has ended.
#[derive(Debug)]
pub(super) struct Reporter {
    pub(super) id: u32,
    pub(super) events: MailSender<(u32, Event)>,
    /// Frames that sessions could not write.
    pub(super) unwritten: Arc<AtomicU64>,
}

impl Reporter {
    fn report(&self, event: Event) {
        self.events.send((self.id, event));
    }
}

impl Drop for Reporter {
    fn drop(&mut self) {
        self.report(Event::Ended);
    }
}

/// What a session begins with.
#[derive(Debug)]
pub(super) struct Start {
    /// From each worker.
    pub(super) rings: Vec<rtrb::Consumer<Cell>>,
    /// How many workers look for it already.
    pub(super) in_use: Arc<AtomicUsize>,
    /// What each worker's mirror counts.
    pub(super) counts: Vec<Arc<[PortCounts]>>,
    /// Who is behind each port now.
    pub(super) names: Arc<PortNames>,
    /// The same, whenever it changes.
    pub(super) changes: Receiver<EpochNames>,
}

/// A capture that has not begun: its filter is to be compiled.
#[derive(Debug)]
pub struct PendingCapture {
    pub(super) request: Arc<Request>,
    pub(super) start: Receiver<Start>,
    /// Ticks of the TSC in a second.
    pub(super) hz: u64,
    pub(super) reporter: Reporter,
}

impl PendingCapture {
    /// Compiles the filter, waits for the mirrors, and is a session from then on, which writes to `output` and whose client is at the
    /// other end of `socket`. A filter that cannot be compiled ends it.
    pub fn run(self, output: Output, socket: OwnedFd) {
        let Self { request, start, hz, reporter } = self;
        settle(reporter.id);
        let connection = Connection::new(reporter.id, socket);
        let filter = match request.compile() {
            Ok(filter) => filter,
            Err(why) => return connection.refuse(&why),
        };
        reporter.report(Event::Compiled(filter));
        // Without an answer kopid ends.
        let Ok(start) = start.recv() else { return };
        Session::new(request, connection, output, start, hz, &reporter).run();
    }
}

/// Makes this thread that of session `id`.
fn settle(id: u32) {
    if let Err(errno) = setpriority_process(None, NICE) {
        log::debug!("a capture session runs with the same priority as others: {errno}");
    }
    let name = CString::new(format!("kopi-capture-{id}")).unwrap_or_default();
    if let Err(errno) = rustix::thread::set_name(&name) {
        log::debug!("a capture session has no name: {errno}");
    }
}

/// A session that runs.
#[derive(Debug)]
struct Session<'a> {
    request: Arc<Request>,
    connection: Connection,
    output: Output,
    rings: Vec<rtrb::Consumer<Cell>>,
    counts: Vec<Arc<[PortCounts]>>,
    changes: Receiver<EpochNames>,
    clock: Clock,
    reporter: &'a Reporter,
    writer: Writer,
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
    /// Packets given up that the control thread knows of.
    told_given_up: u64,
    pause_ms: i64,
    /// How long a reader that does not read is waited for at the end.
    reader_timeout: Duration,
    /// The last TSC, and its time: all frames of a burst have the same.
    moment: (u64, u64),
}

impl<'a> Session<'a> {
    /// A session that has written nothing yet, and that every worker looks for: it misses nothing of what comes once its client
    /// knows of it.
    fn new(
        request: Arc<Request>,
        connection: Connection,
        output: Output,
        start: Start,
        hz: u64,
        reporter: &'a Reporter,
    ) -> Self {
        let Start { rings, in_use, counts, names, changes } = start;
        let clock = Clock::new(hz);
        let now = clock.ns(dpdk::tsc());
        let begun = Instant::now();
        let deadline = request.wanted.seconds.and_then(|time| begun.checked_add(Duration::from_secs_f64(time)));
        while in_use.load(Relaxed) < rings.len() && begun.elapsed() < WORKERS_TIMEOUT {
            std::thread::park_timeout(STEP);
        }
        Self {
            connection,
            output,
            rings,
            writer: Writer::new(Arc::clone(&request), counts.clone(), names, now),
            counts,
            changes,
            clock,
            reporter,
            blocks: Vec::with_capacity(CHUNK * 2),
            sent: 0,
            left: request.wanted.count.unwrap_or(u64::MAX),
            closed_bytes: 0,
            deadline,
            retry: None,
            disk_full: false,
            told_full: false,
            told_given_up: 0,
            pause_ms: *PAUSE_MS.start(),
            reader_timeout: READER_TIMEOUT,
            moment: (0, 0),
            request,
        }
    }

    /// Works until the client, a limit or kopid ends it.
    fn run(mut self) {
        self.send(State::Running, None);
        self.writer.prepare(&mut self.blocks);
        let why = loop {
            match self.poll_once() {
                Ok(moved) => self.wait(moved),
                Err(why) => break why,
            }
        };
        self.finish(why);
    }

    /// Looks once at everything. Returns how many records it has taken.
    fn poll_once(&mut self) -> Result<usize, Why> {
        self.handle_commands()?;
        self.tell_losses();
        self.learn();
        let moved = self.take();
        if moved == 0 || self.blocks.len() >= CHUNK {
            self.write()?;
        }
        let full = |limit: Option<u64>, bytes: u64| limit.is_some_and(|limit| bytes >= limit);
        let bytes = self.output.written() + (self.blocks.len() - self.sent) as u64;
        if !self.told_full && full(self.request.wanted.file_bytes, bytes) {
            self.told_full = true;
            self.send(State::Full, None);
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
            self.reader_timeout = READER_TIMEOUT_AT_END;
            return Err(Why::Error("kopid has ended".into()));
        }
        self.clock.follow();
        Ok(moved)
    }

    /// Whether no worker knows of the session any more.
    fn is_let_go(&self) -> bool {
        self.rings.iter().all(rtrb::Consumer::is_abandoned)
    }

    fn handle_commands(&mut self) -> Result<(), Why> {
        while let Some(heard) = self.connection.recv()? {
            match heard {
                Heard::Counts => self.send(State::Running, None),
                Heard::Stop => return Err(Why::Stopped),
                Heard::Rotate(file) => match Output::new(file) {
                    Ok(output) => {
                        self.rotate(output)?;
                        self.send(State::Running, None);
                    }
                    Err(error) => return Err(Why::Error(error)),
                },
            }
        }
        Ok(())
    }

    fn learn(&mut self) {
        while let Ok(snapshot) = self.changes.try_recv() {
            self.writer.learn(snapshot);
        }
    }

    /// Takes records out of the rings, oldest first.
    fn take(&mut self) -> usize {
        if self.retry.is_some_and(|retry| Instant::now() < retry) {
            return 0;
        }
        let (mut taken, room) = (0, self.room());
        while taken < RECORDS && self.blocks.len() < room && self.left > 0 {
            let Some((at, header)) = self.oldest() else { break };
            if !self.writer.knows(header.epoch) {
                self.learn();
            }
            if self.moment.0 != header.tsc {
                self.moment = (header.tsc, self.clock.ns(header.tsc));
            }
            let snap = self.request.snap();
            let Some(ring) = self.rings.get_mut(at) else { break };
            let Ok(chunk) = ring.read_chunk(header.cells(snap)) else { break };
            let (first, second) = chunk.as_slices();
            self.writer.packet(&header, self.moment.1, header.data(snap, [first, second]), &mut self.blocks);
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

    /// The ring with the oldest record, and that record's header.
    fn oldest(&mut self) -> Option<(usize, RecordHeader)> {
        let headers = self
            .rings
            .iter_mut()
            .enumerate()
            .filter_map(|(at, ring)| Some((at, RecordHeader::read(ring.peek().ok()?))));
        headers.min_by_key(|(_, header)| header.tsc)
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
        self.writer.commit();
    }

    fn give_up(&mut self) {
        self.disk_full = true;
        self.retry = Instant::now().checked_add(RETRY);
        // What was given up was not captured.
        self.left = self.left.saturating_add(self.writer.pending());
        self.writer.give_up();
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
        self.writer.begin_anew(self.clock.ns(dpdk::tsc()));
        self.writer.prepare(&mut self.blocks);
        Ok(())
    }

    /// Writes the statistics, and what lies before them.
    fn close(&mut self) -> Result<(), Why> {
        if self.output.is_file() {
            self.write()?;
        }
        self.writer.prepare(&mut self.blocks);
        self.writer.end(self.clock.ns(dpdk::tsc()), &mut self.blocks);
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
                    if begun.elapsed() >= self.reader_timeout {
                        // A reader that is asleep does not keep us.
                        self.writer.give_up();
                        self.blocks.clear();
                        self.sent = 0;
                        return Ok(());
                    }
                    self.wait(0);
                }
            }
        }
    }

    /// Waits for something to do, after a turn in which `moved` records were taken.
    fn wait(&mut self, moved: usize) {
        let blocked = self.sent < self.blocks.len() && !self.output.is_file();
        if moved > 0 && !blocked {
            self.pause_ms = *PAUSE_MS.start();
            return;
        }
        let wants = if blocked { PollFlags::OUT } else { PollFlags::empty() };
        let mut fds = [PollFd::new(&self.connection, PollFlags::IN), PollFd::new(&self.output, wants)];
        let watched = if self.output.is_file() { 1 } else { 2 };
        let pause = Timespec { tv_sec: 0, tv_nsec: self.pause_ms * 1_000_000 };
        if let Err(errno) = poll(&mut fds[..watched], Some(&pause)) {
            log::debug!("a capture session does not rest: {errno}");
        }
        self.pause_ms = (self.pause_ms * 2).min(*PAUSE_MS.end());
    }

    /// Ends the session: takes in what workers have seen until they let go, if that is wanted, and tells the client.
    fn finish(mut self, why: Why) {
        self.reporter.report(Event::Finishing);
        let mut why = why;
        if matches!(why, Why::Stopped | Why::Gone | Why::Seconds | Why::Error(_)) {
            why = self.drain().err().unwrap_or(why);
            self.discard();
        }
        let lost = matches!(why, Why::Reader);
        if !lost && let Err(broken) = self.close() {
            why = broken;
        }
        self.send(State::Ended, Some(why));
    }

    fn drain(&mut self) -> Result<(), Why> {
        let begun = Instant::now();
        while begun.elapsed() < WORKERS_TIMEOUT && self.left > 0 {
            self.learn();
            // In this order, so that nothing comes after the last look.
            let let_go = self.is_let_go();
            let moved = self.take();
            self.write()?;
            if let_go && moved == 0 {
                break;
            }
            self.wait(moved);
        }
        Ok(())
    }

    /// Counts as lost what workers have seen and nobody can write: the disk is full, or the reader does not read.
    fn discard(&mut self) {
        while let Some((at, header)) = self.oldest() {
            let Some(ring) = self.rings.get_mut(at) else { return };
            let Ok(chunk) = ring.read_chunk(header.cells(self.request.snap())) else { return };
            chunk.commit_all();
            self.writer.lose(&header);
        }
    }

    /// Tells the control thread how many packets were given up.
    fn tell_losses(&mut self) {
        let given_up = self.writer.given_up();
        let before = std::mem::replace(&mut self.told_given_up, given_up);
        if given_up > before {
            self.reporter.unwritten.fetch_add(given_up - before, Relaxed);
        }
    }

    fn send(&mut self, state: State, why: Option<Why>) {
        self.tell_losses();
        let sums = Sums::of(&self.counts, None);
        let counts = Told {
            captured: self.writer.delivered() + self.writer.pending(),
            received: sums.received,
            dropped: sums.lost + self.writer.given_up(),
            seen: sums.seen,
            file_bytes: self.output.written(),
            disk_full: self.disk_full,
            ..Told::default()
        };
        self.connection.say(state, why, counts);
    }
}

fn why(broken: Broken) -> Why {
    match broken {
        Broken::Reader => Why::Reader,
        Broken::System(errno) => Why::Error(format!("cannot write: {errno}")),
    }
}
