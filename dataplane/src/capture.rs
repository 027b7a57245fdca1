//! Capture for operators: what passes which port, with the process behind every frame.
//!
//! - [`request`]: what an operator asks for; [`roster`]: who is behind each port;
//! - [`draft`]: a capture whose filter is compiled; [`session`]: from the workers' rings to the client's file, on the thread of the operator's connection; [`talk`]: its client;
//! - [`stream`]: the blocks of pcapng; [`output`]: files, pipes and sockets that never keep anybody waiting.
//!
//! The control thread starts a session, gives each worker a [tap](crate::stages::mirror), and tells both whenever ports change. The
//! session ends by itself; then its taps are taken back.

pub mod clock;
pub mod draft;
pub mod output;
pub mod request;
pub mod roster;
pub mod session;
pub mod stream;
pub mod talk;

use crate::control::workers::Dataplane;
use crate::stages::mirror::{Line, PortCounts, SESSIONS, Selection, Tap};
pub use draft::Place;
use draft::{Filter, Here, Start};
use request::Request;
use roster::Roster;
use rustix::event::{EventfdFlags, eventfd};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use session::Bell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};
use stream::EpochNames;

/// Bytes of all rings of all sessions.
const MEMORY: usize = 1 << 30;
/// Snapshots that a session may not have heard of yet. What comes beyond is told by a later one.
const UNHEARD: usize = 64;
/// How long sessions are waited for when kopid ends.
const FAREWELL: Duration = Duration::from_secs(3);

/// All capture sessions.
#[derive(Debug)]
pub struct Captures {
    hz: u64,
    sessions: Vec<Running>,
    next: u32,
    wake: Arc<OwnedFd>,
}

/// The control thread's end of a session.
#[derive(Debug)]
struct Running {
    id: u32,
    /// Whose it is: the user, as limits know it.
    account: u32,
    request: Arc<Request>,
    bell: Arc<Bell>,
    /// Its thread is done with it.
    gone: Arc<AtomicBool>,
    /// How many rings it has, and bytes of each.
    rings: (usize, usize),
    stage: Stage,
}

/// How far a session is.
#[derive(Debug)]
enum Stage {
    /// Its filter is being compiled.
    Draft { compiled: Receiver<Filter>, start: SyncSender<Start> },
    /// Workers show it what they see.
    Tapped {
        /// What each worker's tap counts.
        counts: Vec<Arc<[PortCounts]>>,
        snapshots: SyncSender<EpochNames>,
    },
    /// Workers show it nothing any more.
    Over,
}

impl Captures {
    /// No sessions yet, over a TSC of `hz` ticks a second.
    ///
    /// # Errors
    ///
    /// The kernel's, when file descriptors are short.
    pub fn new(hz: u64) -> Result<Self, Errno> {
        let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        Ok(Self { hz, sessions: Vec::new(), next: 1, wake })
    }

    /// Ticks of the TSC in a second.
    #[must_use]
    pub const fn hz(&self) -> u64 {
        self.hz
    }

    /// Becomes readable when a session has something to say to the control thread.
    #[must_use]
    pub fn wake(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
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

    /// Begins a session of user `account` for what `request` asks. Its thread is the one that gets the place.
    ///
    /// # Errors
    ///
    /// A text for people, and there is no session.
    pub fn begin(
        &mut self,
        account: u32,
        request: Arc<Request>,
        roster: &Roster,
        dataplane: &Dataplane,
    ) -> Result<Place, String> {
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
        request.check(roster)?;
        let taken = self.sessions.iter().map(Running::memory).sum();
        let room = share(MEMORY, taken, own.map(Running::memory).sum());
        let rings = (dataplane.workers(), request.buffer(dataplane.workers(), room)?);
        let (compiled, filter) = sync_channel(1);
        let (start, started) = sync_channel(1);
        let bell = Arc::new(Bell { wake: Arc::clone(&self.wake), ending: AtomicBool::new(false) });
        let gone = Arc::new(AtomicBool::new(false));
        let (id, stage) = (self.next, Stage::Draft { compiled: filter, start });
        self.next = id.wrapping_add(1).max(1);
        let here = Here { gone: Arc::clone(&gone), bell: Arc::clone(&bell) };
        let place = Place {
            id,
            request: Arc::clone(&request),
            compiled,
            start: started,
            hz: self.hz,
            bell: Arc::clone(&bell),
            here,
        };
        self.sessions.push(Running { id, account, request, bell, gone, rings, stage });
        Ok(place)
    }

    /// Tells every session who is behind each port, and returns what workers are to show them now. They may not know of it
    /// yet, so that sessions know where the counts of an app begin.
    pub fn follow(&self, roster: &Arc<Roster>) -> Vec<Arc<Selection>> {
        let selection = |session: &Running| {
            let Stage::Tapped { counts, snapshots } = &session.stage else { return None };
            if snapshots.try_send(EpochNames::new(Arc::clone(roster), counts)).is_err() {
                // It does not keep up, or has ended. It will hear of the next one.
                log::debug!("capture {} missed a change of ports", session.id);
            }
            Some(Arc::new(session.request.selection(session.id, roster)))
        };
        self.sessions.iter().filter_map(selection).collect()
    }

    /// Gives taps to sessions whose filter is ready, takes those of sessions that end, and forgets what has ended. To be
    /// called when [`wake`](Self::wake) is readable, and now and then. `roster` says who is behind each port now.
    pub fn reap(&mut self, dataplane: &mut Dataplane, roster: impl Fn() -> Roster) {
        let mut bytes = [0; 8];
        // It only says that there may be something to do.
        if let Err(errno @ (Errno::BADF | Errno::IO)) = rustix::io::read(&*self.wake, &mut bytes) {
            log::debug!("the captures' eventfd: {errno}");
        }
        for session in &mut self.sessions {
            match &session.stage {
                Stage::Draft { compiled, .. } => {
                    if let Ok(filter) = compiled.try_recv() {
                        session.begin(filter, roster(), dataplane);
                    }
                }
                Stage::Tapped { .. } if session.bell.ending.load(Relaxed) || session.gone.load(Relaxed) => {
                    session.stage = Stage::Over;
                    dataplane.untap(session.id);
                }
                Stage::Tapped { .. } | Stage::Over => {}
            }
        }
        // Those that have ended since then are let go of next time.
        let over = |session: &Running| session.gone.load(Relaxed) && !matches!(session.stage, Stage::Tapped { .. });
        self.sessions.retain(|session| !over(session));
    }
}

/// What a user who has `own` may take of what `total` is there and `taken` is given away: never more in all than is left for others. So
/// one alone gets half of it, and there is something for whoever comes next (A. Choudhury, E. Hahne, "Dynamic Queue Length Thresholds for
/// Shared-Memory Packet Switches", 1998).
const fn share(total: usize, taken: usize, own: usize) -> usize {
    total.saturating_sub(taken).saturating_sub(own).div_ceil(2)
}

impl Running {
    /// Bytes of its rings.
    const fn memory(&self) -> usize {
        self.rings.0 * self.rings.1
    }

    /// Gives the session its taps, for frames that pass `filter`.
    fn begin(&mut self, filter: Filter, roster: Roster, dataplane: &mut Dataplane) {
        let roster = Arc::new(roster);
        let selection = Arc::new(self.request.selection(self.id, &roster));
        let (mut taps, mut rings, mut counts) = (Vec::new(), Vec::new(), Vec::new());
        let begun = Arc::new(AtomicUsize::new(0));
        for _ in 0..dataplane.workers() {
            let (producer, consumer) = ring(self.rings.1);
            let count: Arc<[PortCounts]> = (0..dataplane.ports()).map(|_| PortCounts::default()).collect();
            let tap = Tap::new(Arc::clone(&selection), producer, Arc::clone(&count));
            let tap = tap.telling(Arc::clone(&begun));
            taps.push(Box::new(match &filter {
                Some(filter) => tap.filtered(Arc::clone(filter)),
                None => tap,
            }));
            rings.push(consumer);
            counts.push(count);
        }
        let (snapshots, news) = sync_channel(UNHEARD);
        let start = Start { rings, begun, counts: counts.clone(), roster, snapshots: news };
        let stage = Stage::Tapped { counts, snapshots };
        if let Stage::Draft { start: waits, .. } = std::mem::replace(&mut self.stage, stage)
            && waits.send(start).is_ok()
        {
            dataplane.tap(taps);
        }
    }
}

impl Drop for Captures {
    /// Waits until all files are complete, or until it is clear that a disk or a client keeps them from it. Workers have let
    /// go of their taps already.
    fn drop(&mut self) {
        let begun = Instant::now();
        while begun.elapsed() < FAREWELL && self.sessions.iter().any(|session| !session.gone.load(Relaxed)) {
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }
}

/// A ring of `bytes` bytes whose memory is there already: no worker is to wait for a page.
fn ring(bytes: usize) -> (rtrb::Producer<Line>, rtrb::Consumer<Line>) {
    let lines = bytes / size_of::<Line>();
    let (mut producer, mut consumer) = rtrb::RingBuffer::new(lines);
    if let Ok(chunk) = producer.write_chunk_uninit(lines) {
        chunk.fill_from_iter(std::iter::repeat_n(Line::EMPTY, lines));
    }
    if let Ok(chunk) = consumer.read_chunk(lines) {
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
