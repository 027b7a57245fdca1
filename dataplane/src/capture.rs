//! Capture for operators: what passes which port, with the process behind every frame.
//!
//! A session is one state machine on two threads: the operator's connection has its thread, which compiles the filter and writes the
//! file, and the control thread alone can give workers mirrors. Each tells the other by a channel when it is its turn.
//!
//! ```text
//! control thread                              thread of the session
//! begin ------------- PendingCapture ------>  compiles the filter
//! Compiling  <------- Event::Compiled ------
//!   gives mirrors --- Start --------------->  Session: writes what workers see
//! Running  ---------- EpochNames ---------->
//!            <------- Event::Finishing -----  ends, for whatever reason
//!   takes mirrors                             drains the rings, completes the file
//! Finishing  <------- Event::Ended ---------  is gone, however it has ended
//! ```
//!
//! - [`request`]: what an operator asks for; [`port_names`]: who is behind each port;
//! - [`session`]: the session's thread; [`connection`]: its client;
//! - [`writer`]: the blocks of pcapng; [`output`]: files, pipes and sockets that never keep anybody waiting.

pub mod clock;
pub mod connection;
pub mod output;
pub mod port_names;
pub mod request;
pub mod session;
pub mod writer;

use crate::control::mailbox::{MailSender, Mailbox};
use crate::control::workers::Dataplane;
use crate::stages::mirror::{Cell, Mirror, PortCounts, SESSIONS, Selection};
use port_names::PortNames;
use request::Request;
use rustix::fd::{AsFd, BorrowedFd};
pub use session::PendingCapture;
use session::{Event, Filter, Reporter, Start};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::{Duration, Instant};
use writer::{EpochNames, Sums};

/// Bytes of all rings of all sessions.
const MEMORY: usize = 1 << 30;
/// Snapshots that a session may not have heard of yet. What comes beyond is told by a later one.
const UNHEARD: usize = 64;
/// How long sessions are waited for when kopid ends.
const END_TIMEOUT: Duration = Duration::from_secs(3);

/// All capture sessions.
#[derive(Debug)]
pub struct Captures {
    hz: u64,
    sessions: Vec<Entry>,
    next: u32,
    /// What sessions say, by their numbers.
    events: Mailbox<(u32, Event)>,
    to_events: MailSender<(u32, Event)>,
    /// What the workers have counted for sessions that they show no more.
    past: Sums,
    /// Sessions that have begun.
    begun: u64,
    /// Frames that sessions could not write. Their threads add to it.
    unwritten: Arc<AtomicU64>,
}

/// What all sessions have had since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CaptureTotals {
    /// Sessions that have begun.
    pub begun: u64,
    /// Frames that were wanted.
    pub wanted: u64,
    /// Those of them that found no room in a ring.
    pub ring_full: u64,
    /// Those of them that could not be written: a full disk, or a reader that does not read.
    pub unwritten: u64,
}

/// The control thread's end of a session.
#[derive(Debug)]
struct Entry {
    id: u32,
    /// Whose it is: the user, as limits know it.
    account: u32,
    request: Arc<Request>,
    /// How many rings it has, and bytes of each.
    rings: (usize, usize),
    state: State,
}

/// How far a session is. It is forgotten when it has ended.
#[derive(Debug)]
enum State {
    /// Its filter is being compiled.
    Compiling { start: SyncSender<Start> },
    /// Workers have mirrors for it.
    Running {
        /// What each worker's mirror counts.
        counts: Vec<Arc<[PortCounts]>>,
        names: SyncSender<EpochNames>,
    },
    /// Workers have none any more; it completes its file.
    Finishing,
}

impl Captures {
    /// No sessions yet, over a TSC of `hz` ticks a second.
    ///
    /// # Errors
    ///
    /// The kernel's, when file descriptors are short.
    pub fn new(hz: u64) -> std::io::Result<Self> {
        let (to_events, events) = Mailbox::new()?;
        let (past, unwritten) = (Sums::default(), Arc::default());
        Ok(Self { hz, sessions: Vec::new(), next: 1, events, to_events, past, begun: 0, unwritten })
    }

    /// What all sessions have had since the start.
    #[must_use]
    pub fn totals(&self) -> CaptureTotals {
        let sums = self.sessions.iter().map(Entry::sums).fold(self.past, Sums::plus);
        let unwritten = self.unwritten.load(Relaxed);
        CaptureTotals { begun: self.begun, wanted: sums.received, ring_full: sums.lost, unwritten }
    }

    /// Ticks of the TSC in a second.
    #[must_use]
    pub const fn hz(&self) -> u64 {
        self.hz
    }

    /// Becomes readable when a session has something to say to the control thread.
    #[must_use]
    pub fn wake(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }

    /// How many sessions there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// Begins a session of user `account` for what `request` asks. Its thread is the one that gets what is returned.
    ///
    /// # Errors
    ///
    /// A text for people, and there is no session.
    pub fn begin(
        &mut self,
        account: u32,
        request: Arc<Request>,
        names: &PortNames,
        dataplane: &Dataplane,
    ) -> Result<PendingCapture, String> {
        let own = self.sessions.iter().filter(|session| session.account == account);
        let places = share(SESSIONS, self.sessions.len(), own.clone().count());
        if places == 0 {
            return Err(format!(
                "there are {} captures already, {} of them this user's, and the {} places that are left are for others: end one",
                self.sessions.len(),
                own.count(),
                SESSIONS - self.sessions.len()
            ));
        }
        request.check(names)?;
        let taken = self.sessions.iter().map(Entry::memory).sum();
        let room = share(MEMORY, taken, own.map(Entry::memory).sum());
        let rings = (dataplane.workers(), request.buffer(dataplane.workers(), room)?);
        let id = self.next;
        self.next = id.wrapping_add(1).max(1);
        let (start, started) = sync_channel(1);
        let state = State::Compiling { start };
        self.sessions.push(Entry { id, account, request: Arc::clone(&request), rings, state });
        self.begun += 1;
        let reporter = Reporter { id, events: self.to_events.clone(), unwritten: Arc::clone(&self.unwritten) };
        Ok(PendingCapture { request, start: started, hz: self.hz, reporter })
    }

    /// Tells every session who is behind each port, and returns what workers are to show them now. They may not know of it
    /// yet, so that sessions know where the counts of an app begin.
    pub fn follow(&self, names: &Arc<PortNames>) -> Vec<Arc<Selection>> {
        let selection = |session: &Entry| {
            let State::Running { counts, names: to_session } = &session.state else { return None };
            if to_session.try_send(EpochNames::new(Arc::clone(names), counts)).is_err() {
                // It does not keep up, or has ended. It will hear of the next one.
                log::debug!("capture {} missed a change of ports", session.id);
            }
            Some(Arc::new(session.request.selection(session.id, names)))
        };
        self.sessions.iter().filter_map(selection).collect()
    }

    /// Does what sessions have asked for. To be called when [`wake`](Self::wake) is readable, and now and then. `names` says who is
    /// behind each port now.
    pub fn handle_events(&mut self, dataplane: &mut Dataplane, names: impl Fn() -> PortNames) {
        while let Some((id, event)) = self.events.receive() {
            let Some(at) = self.sessions.iter().position(|session| session.id == id) else { continue };
            let session = &mut self.sessions[at];
            match event {
                Event::Compiled(filter) => session.start(filter, names(), dataplane),
                Event::Finishing => self.past = self.past.plus(session.finish(dataplane)),
                Event::Ended => {
                    self.past = self.past.plus(session.finish(dataplane));
                    self.sessions.remove(at);
                }
            }
        }
    }
}

/// What a user who has `own` may take of what `total` is there and `taken` is given away: never more in all than is left for others. So
/// one alone gets half of it, and there is something for whoever comes next (A. Choudhury, E. Hahne, "Dynamic Queue Length Thresholds for
/// Shared-Memory Packet Switches", 1998).
const fn share(total: usize, taken: usize, own: usize) -> usize {
    total.saturating_sub(taken).saturating_sub(own).div_ceil(2)
}

impl Entry {
    /// Bytes of its rings.
    const fn memory(&self) -> usize {
        self.rings.0 * self.rings.1
    }

    /// Gives the session its mirrors, for frames that pass `filter`.
    fn start(&mut self, filter: Filter, names: PortNames, dataplane: &mut Dataplane) {
        let names = Arc::new(names);
        let selection = Arc::new(self.request.selection(self.id, &names));
        let (mut mirrors, mut rings, mut counts) = (Vec::new(), Vec::new(), Vec::new());
        let in_use = Arc::new(AtomicUsize::new(0));
        for _ in 0..dataplane.workers() {
            let (producer, consumer) = ring(self.rings.1);
            let count: Arc<[PortCounts]> = (0..dataplane.ports()).map(|_| PortCounts::default()).collect();
            let mirror = Mirror::new(Arc::clone(&selection), producer, Arc::clone(&count));
            let mirror = mirror.counted_in(Arc::clone(&in_use));
            mirrors.push(Box::new(match &filter {
                Some(filter) => mirror.filtered(Arc::clone(filter)),
                None => mirror,
            }));
            rings.push(consumer);
            counts.push(count);
        }
        let (to_session, changes) = sync_channel(UNHEARD);
        let start = Start { rings, in_use, counts: counts.clone(), names, changes };
        let state = State::Running { counts, names: to_session };
        if let State::Compiling { start: waits } = std::mem::replace(&mut self.state, state)
            && waits.send(start).is_ok()
        {
            dataplane.mirror(mirrors);
        }
    }

    /// What its mirrors have counted, while it has any.
    fn sums(&self) -> Sums {
        if let State::Running { counts, .. } = &self.state { Sums::of(counts, None) } else { Sums::default() }
    }

    /// Takes the mirrors back, if it has any, and returns what they have counted.
    fn finish(&mut self, dataplane: &mut Dataplane) -> Sums {
        let sums = self.sums();
        if let State::Running { .. } = std::mem::replace(&mut self.state, State::Finishing) {
            dataplane.unmirror(self.id);
        }
        sums
    }
}

impl Drop for Captures {
    /// Waits until all files are complete, or until it is clear that a disk or a client keeps them from it. Workers have let
    /// go of their mirrors already.
    fn drop(&mut self) {
        let deadline = Instant::now() + END_TIMEOUT;
        // Those that wait for mirrors get none.
        self.sessions.retain(|session| !matches!(session.state, State::Compiling { .. }));
        while !self.sessions.is_empty() {
            match self.events.receive_within(deadline.saturating_duration_since(Instant::now())) {
                Some((id, Event::Ended)) => self.sessions.retain(|session| session.id != id),
                Some(_) => {}
                None => return,
            }
        }
    }
}

/// A ring of `bytes` bytes whose memory is there already: no worker is to wait for a page.
fn ring(bytes: usize) -> (rtrb::Producer<Cell>, rtrb::Consumer<Cell>) {
    let cells = bytes / size_of::<Cell>();
    let (mut producer, mut consumer) = rtrb::RingBuffer::new(cells);
    if let Ok(chunk) = producer.write_chunk_uninit(cells) {
        chunk.fill_from_iter(std::iter::repeat_n(Cell::EMPTY, cells));
    }
    if let Ok(chunk) = consumer.read_chunk(cells) {
        chunk.commit_all();
    }
    (producer, consumer)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whoever takes one after the other, however many users there are, has no more than is left for others; and whoever comes next gets
    /// something, as long as anything is left.
    #[test]
    fn users_leave_something_to_others() {
        let mut taken = 0;
        let counts = (0..6).map(|_| {
            let own = (0..).find(|own| share(SESSIONS, taken + own, *own) == 0).unwrap();
            taken += own;
            own
        });
        assert_eq!(counts.collect::<Vec<_>>(), [16, 8, 4, 2, 1, 1]);
        assert_eq!((share(100, 0, 0), share(100, 50, 50), share(100, 40, 30), share(100, 200, 0)), (50, 0, 15, 0));
    }
}
