//! The threads that serve the sockets of applications: one for each user.
//!
//! An application decides how long a system call takes on an object that it holds too. Reading from a
//! socket, writing to it and closing it wake everybody who polls its other end, and one `poll(2)` may do so a million times; a
//! descriptor that comes with a message may be a connection that lingers when it is closed. Non-blocking sockets are no help:
//! nothing here blocks, it just takes long.
//!
//! The same holds for what is read of a process ([`crate::control::identity`]).
//!
//! So neither the control thread nor a worker makes such a call. The sockets and doorbells of all applications of one user belong
//! to one thread, and whoever makes it slow keeps nobody waiting but itself. What is to be done on them are jobs in a queue,
//! and what was received comes back as [`PeerEvent`]s. The queue is bounded: a user whose thread does not keep up loses its connections.
//!
//! While the kernel wakes a million waiters, it does nothing else on that CPU. So a job that took long is followed by a pause
//! fifty times as long, unless so much waits that its file descriptors become a burden to others; and a socket on which calls
//! take very long is left alone for a minute, even by closing it. Its application loses its port.

mod user_loop;

use crate::control::helper::Wake;
use crate::control::identity::{Accepted, Identity, IdentityError};
use crate::control::mailbox::{MailSender, Mailbox};
use crate::control::regions::Ending;
use kopi_ring::message::{Envelope, Message, Segment, Span};
use kopi_ring::socket::ReceiveError;
use kopi_ring::{Doorbell, PROTOCOL, RegionError, WakeFutex, Window};
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::time::{ClockId, clock_gettime};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
use std::sync::mpsc::{Sender, channel};
use std::thread::park_timeout;
use std::time::{Duration, Instant};
use user_loop::UserLoop;

/// Jobs of a user whose connections are not accepted as fast as they come any more.
const BEHIND: usize = 64;
/// Jobs of one user that may wait. Closing something is always taken on.
const BACKLOG: usize = 4096;
/// A user with more jobs than this gets no pauses: what waits are file descriptors, too.
const HURRY: usize = 1024;
/// CPU time that no honest job takes. A send and a receive take some ten microseconds.
const LONG: Duration = Duration::from_millis(1);
/// Pauses after a job that took long, in times of it; and their limit.
const PAUSE: u32 = 50;
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// CPU time of a call that is put up with once: after the second, its socket is not touched any more, for some time. A machine that
/// is itself a guest may lose as much to others, now and then.
const VERY_LONG: Duration = Duration::from_millis(20);
const SHUN_TIME: Duration = Duration::from_secs(60);
/// CPU time from which on a call of the [waker](crate::control::app_waker) counts. It takes some five microseconds.
const LONG_CALL: Duration = Duration::from_micros(100);
/// How much of that others put up with in a period, before the user's calls are left to its own thread.
const LONG_CALLS: Duration = Duration::from_millis(1);
const PERIOD: Duration = Duration::from_secs(10);
/// Time for which a user counts as slow after the last job that took long.
const SLOW: Duration = Duration::from_secs(60);
/// Bytes of a thread's stack: messages are two kilobytes long.
const STACK: usize = 128 << 10;
/// The number of the event that announces new jobs to a thread. Connections count from 1.
const JOBS: u64 = 0;
/// Events taken at one time.
const EVENTS: usize = 32;

/// An event on a connection, sent by its user's thread.
#[derive(Debug)]
pub struct PeerEvent {
    /// [`PeerConnection::serial`].
    pub serial: u64,
    /// What has happened.
    pub kind: PeerEventKind,
}

/// What has happened to a connection.
#[derive(Debug)]
pub enum PeerEventKind {
    /// This came, after it was [listened](PeerConnection::listen) for; or the reason why nothing more will come.
    Received(Result<Envelope, ReceiveError>),
    /// A message was not taken.
    Unsent(Errno),
    /// This is the process that connected it, and what becomes readable when it ends.
    Attested(Result<Box<(Identity, Option<OwnedFd>)>, IdentityError>),
    /// The process has changed its name or its cgroup.
    Changed(Box<Identity>),
    /// Memory was [mapped](PeerConnection::map) or [unmapped](PeerConnection::unmap), or the reason for which it was not.
    Shared(Result<(), String>),
    /// Its region was sealed, or could not be.
    Sealed(Result<(), RegionError>),
    /// A system call on it took so much time of a CPU. Nothing more will come.
    Slow(Duration),
}

/// The threads of all users, for the control thread.
#[derive(Debug)]
pub struct Peers {
    users: BTreeMap<u32, Arc<UserThread>>,
    /// Users who count as slow until then, and have no thread. This outlives their threads, or they would only have to come back to
    /// be as good as others. Each has cost a millisecond of a CPU within a minute, so there are not many.
    slow: BTreeMap<u32, Instant>,
    /// For those without a thread of their own: the owner is not known, or no thread could be made.
    anybody: Arc<UserThread>,
    events: Mailbox<PeerEvent>,
    sender: MailSender<PeerEvent>,
    next: u64,
}

/// The thread of one user. It ends when nobody has this any more, after what was to be done before.
#[derive(Debug)]
pub struct UserThread {
    jobs: Sender<Job>,
    shared: Arc<Shared>,
}

/// What a user's thread has in common with others.
#[derive(Debug)]
struct Shared {
    wake: Wake,
    /// Jobs that are not done.
    backlog: AtomicUsize,
    begun: Instant,
    /// Milliseconds from `begun` until when the user counts as slow.
    slow_until: AtomicU64,
    /// Those until when the thread has something that is not to be touched, not even by ending.
    shuns_until: AtomicU64,
    /// Nanoseconds of long calls in this period, and its number. Written by the waker alone.
    calls: AtomicU64,
    period: AtomicU64,
}

/// A connection with an application. It is closed when this is dropped, behind what was sent before.
#[derive(Debug)]
pub struct PeerConnection {
    user: Arc<UserThread>,
    serial: u64,
    looking: Arc<AtomicBool>,
}

/// The daemon's end of a doorbell, whose worker side is quieted on its user's thread. It is closed when this is dropped.
#[derive(Debug)]
pub struct QuietDoorbell {
    user: Arc<UserThread>,
    serial: u64,
    asked: Arc<AtomicBool>,
}

#[derive(Debug)]
enum Job {
    /// Has this from now on.
    Open(u64, Object),
    Send(u64, Envelope, Vec<OwnedFd>),
    /// Receives the next message, when there is one.
    Listen(u64),
    /// Takes out what was rung.
    Quiet(u64, Arc<AtomicBool>),
    /// Wakes a sleeping application.
    Call(WakeFutex, Arc<AtomicBool>),
    /// Finds out who has connected a socket that was accepted then.
    Attest(u64, Accepted),
    /// Looks whether a process, with a handle on it, is as it was.
    Look(u64, Box<Identity>, Arc<OwnedFd>, Arc<AtomicBool>),
    /// Says something to an operator, and closes the connection.
    RefuseOperator(OwnedFd, String),
    /// Lets file descriptors come with messages.
    Pass(u64),
    /// Maps what came with the last message.
    Map(u64, Arc<Window>, Vec<Segment>),
    Unmap(u64, Arc<Window>, Vec<Span>),
    CloseWindow(Arc<Window>, Arc<()>),
    /// Seals a region, by its file.
    Seal(u64, OwnedFd),
    EndRegion(Ending),
    Close(u64),
    End,
}

/// What an application has the other end of.
#[derive(Debug)]
enum Object {
    Socket(OwnedFd),
    Doorbell(Doorbell),
}

impl Peers {
    /// No applications yet.
    ///
    /// # Errors
    ///
    /// The system's, if there is no file descriptor or thread to be had.
    pub fn new() -> std::io::Result<Self> {
        let (sender, events) = Mailbox::new()?;
        let anybody = Arc::new(UserThread::start("kopi-user".to_owned(), sender.clone(), None)?);
        Ok(Self { users: BTreeMap::new(), slow: BTreeMap::new(), anybody, events, sender, next: JOBS + 1 })
    }

    /// What connections tell of.
    #[must_use]
    pub const fn events(&self) -> &Mailbox<PeerEvent> {
        &self.events
    }

    /// The thread of user `uid`.
    pub fn user(&mut self, uid: u32) -> Arc<UserThread> {
        if let Some(user) = self.users.get(&uid) {
            return Arc::clone(user);
        }
        let slow_until = self.slow.get(&uid).copied();
        match UserThread::start(format!("kopi-user-{uid}"), self.sender.clone(), slow_until) {
            Ok(user) => {
                self.slow.remove(&uid);
                Arc::clone(self.users.entry(uid).or_insert_with(|| Arc::new(user)))
            }
            Err(error) => {
                log::debug!("user {uid} has no thread of its own: {error}");
                Arc::clone(&self.anybody)
            }
        }
    }

    /// Takes over `socket`, at whose other end is a process of user `uid`; `None` if that is not known.
    pub fn connect(&mut self, uid: Option<u32>, socket: OwnedFd) -> PeerConnection {
        let (user, serial) = (self.user_if_known(uid), self.serial());
        user.take_on(Job::Open(serial, Object::Socket(socket)));
        PeerConnection { user, serial, looking: Arc::default() }
    }

    /// Says `text` to the operator at the other end of `socket`, who is of user `uid`, and closes it.
    pub fn refuse_operator(&mut self, uid: Option<u32>, socket: OwnedFd, text: String) {
        self.user_if_known(uid).take_on(Job::RefuseOperator(socket, text));
    }

    /// Whether much waits to be done for user `uid`.
    pub fn is_behind(&mut self, uid: Option<u32>) -> bool {
        self.user_if_known(uid).backlog() >= BEHIND
    }

    fn user_if_known(&mut self, uid: Option<u32>) -> Arc<UserThread> {
        match uid {
            Some(uid) => self.user(uid),
            None => Arc::clone(&self.anybody),
        }
    }

    /// Takes over the daemon's end of a doorbell that an application of user `uid` rings.
    pub fn quieting(&mut self, uid: u32, doorbell: Doorbell) -> QuietDoorbell {
        let (user, serial) = (self.user(uid), self.serial());
        user.take_on(Job::Open(serial, Object::Doorbell(doorbell)));
        QuietDoorbell { user, serial, asked: Arc::default() }
    }

    fn serial(&mut self) -> u64 {
        let serial = self.next;
        self.next += 1;
        serial
    }

    /// Ends the threads of users who have nothing here any more. To be called now and then.
    pub fn sweep(&mut self) {
        let Self { users, slow, .. } = self;
        let now = Instant::now();
        slow.retain(|_, until| *until > now);
        users.retain(|uid, user| {
            let shuns = user.shared.is_before(&user.shared.shuns_until);
            let stays = Arc::strong_count(user) > 1 || user.backlog() > 0 || shuns;
            if !stays && user.is_slow() {
                slow.insert(*uid, user.shared.slow_until());
            }
            stays
        });
    }

    /// Waits until everything that was sent has been taken, at most for `timeout`.
    pub fn flush(&self, timeout: Duration) {
        let begun = Instant::now();
        while self.users.values().any(|user| user.backlog() > 0) && begun.elapsed() < timeout {
            park_timeout(Duration::from_micros(200));
        }
    }
}

impl UserThread {
    fn start(name: String, sender: MailSender<PeerEvent>, slow_until: Option<Instant>) -> std::io::Result<Self> {
        let wake = Wake::new()?;
        let begun = Instant::now();
        let slow_for = slow_until.map_or(Duration::ZERO, |until| until.saturating_duration_since(begun));
        let shared = Arc::new(Shared {
            wake,
            backlog: AtomicUsize::new(0),
            begun,
            slow_until: AtomicU64::new(milliseconds(slow_for)),
            shuns_until: AtomicU64::new(0),
            calls: AtomicU64::new(0),
            period: AtomicU64::new(0),
        });
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &shared.wake, EventData::new_u64(JOBS), EventFlags::IN | EventFlags::ET)?;
        let (jobs, queue) = channel();
        let mut thread = UserLoop {
            epoll,
            jobs: queue,
            shared: Arc::clone(&shared),
            events: sender,
            objects: BTreeMap::new(),
            files: BTreeMap::new(),
            suspects: BTreeSet::new(),
            shunned: Vec::new(),
        };
        // It inherits the control thread's CPUs: those without a worker, if there are any.
        std::thread::Builder::new().name(name).stack_size(STACK).spawn(move || thread.run())?;
        Ok(Self { jobs, shared })
    }

    /// Jobs that are not done yet.
    #[must_use]
    pub fn backlog(&self) -> usize {
        self.shared.backlog.load(Acquire)
    }

    /// Whether so much is to be done for this user that nothing more should be begun.
    #[must_use]
    pub fn is_swamped(&self) -> bool {
        self.backlog() >= BACKLOG
    }

    /// Whether what was done for this user has taken long lately.
    #[must_use]
    pub fn is_slow(&self) -> bool {
        self.shared.is_before(&self.shared.slow_until)
    }

    /// Notes that a call, for which others had to wait, took `time` of a CPU.
    pub fn note_call(&self, time: Duration) {
        if time >= LONG_CALL {
            self.shared.note_call(time);
        }
    }

    /// Wakes the app at `futex` on this user's thread, unless the thread is about to do so anyway; `asked` says whether it is.
    pub fn call(&self, futex: &WakeFutex, asked: &Arc<AtomicBool>) {
        let _waits = self.ask_once(asked, |asked| Job::Call(futex.clone(), asked));
    }

    /// Takes a job on, unless it waits already or too much does; returns whether it was.
    fn ask_once(&self, asked: &Arc<AtomicBool>, job: impl FnOnce(Arc<AtomicBool>) -> Job) -> bool {
        let taken = !self.is_swamped() && !asked.swap(true, AcqRel);
        if taken {
            self.take_on(job(Arc::clone(asked)));
        }
        taken
    }

    /// Closes a window that nobody else uses, and drops `closing` when it is closed.
    pub fn close_window(&self, window: Arc<Window>, closing: Arc<()>) {
        self.take_on(Job::CloseWindow(window, closing));
    }

    /// Sees to the end of a region that its client has had.
    pub fn end_region(&self, ending: Ending) {
        self.take_on(Job::EndRegion(ending));
    }

    fn take_on(&self, job: Job) {
        self.shared.backlog.fetch_add(1, AcqRel);
        // The thread ends only after this value.
        if self.jobs.send(job).is_ok() {
            self.shared.wake.wake();
        }
    }
}

impl Drop for UserThread {
    fn drop(&mut self) {
        self.take_on(Job::End);
    }
}

impl Shared {
    /// Whether `until`, in milliseconds from the beginning, is to come.
    fn is_before(&self, until: &AtomicU64) -> bool {
        until.load(Relaxed) > milliseconds(self.begun.elapsed())
    }

    /// Until when the user counts as slow.
    fn slow_until(&self) -> Instant {
        self.begun + Duration::from_millis(self.slow_until.load(Relaxed))
    }

    /// Sets `until` to the time in `span` from now.
    fn extend(&self, until: &AtomicU64, span: Duration) {
        until.store(milliseconds(self.begun.elapsed() + span), Relaxed);
    }

    #[cold]
    fn note_call(&self, time: Duration) {
        let period = self.begun.elapsed().as_secs() / PERIOD.as_secs();
        if self.period.swap(period, Relaxed) != period {
            self.calls.store(0, Relaxed);
        }
        let time = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX / 2);
        let sum = self.calls.load(Relaxed).saturating_add(time);
        self.calls.store(sum, Relaxed);
        if u128::from(sum) >= LONG_CALLS.as_nanos() {
            self.note_time(LONG);
        }
    }

    fn note_time(&self, time: Duration) {
        if time >= LONG {
            self.extend(&self.slow_until, SLOW);
        }
    }
}

impl PeerConnection {
    /// Distinguishes its events from those of other connections.
    #[must_use]
    pub const fn serial(&self) -> u64 {
        self.serial
    }

    /// The thread that serves it.
    #[must_use]
    pub const fn user(&self) -> &Arc<UserThread> {
        &self.user
    }

    /// Sends a message with the file descriptors `fds`. If the peer does not take it, there will be an [event](PeerEventKind::Unsent).
    ///
    /// # Errors
    ///
    /// A text for people, if too much waits to be done for this user.
    pub fn send(&self, envelope: Envelope, fds: Vec<OwnedFd>) -> Result<(), String> {
        if self.user.is_swamped() {
            return Err(format!("does not take its messages: {BACKLOG} jobs of its user's wait"));
        }
        self.user.take_on(Job::Send(self.serial, envelope, fds));
        Ok(())
    }

    /// Says no, which every version understands. The peer may be gone or not listening, which changes nothing: it is let go of
    /// anyway.
    pub fn refuse(&self, sequence: u32, why: &str) {
        let refusal = Envelope { protocol: PROTOCOL, sequence, message: Message::Refused(why.into()) };
        if let Err(reason) = self.send(refusal, Vec::new()) {
            log::debug!("a refusal was not sent: {reason}");
        }
    }

    /// Identifies the process that has connected it, which comes as an [event](PeerEventKind::Attested). It was accepted at `accepted`.
    pub fn attest(&self, accepted: Accepted) {
        self.user.take_on(Job::Attest(self.serial, accepted));
    }

    /// Reads again what the process behind `handle` is; what has changed comes as an [event](PeerEventKind::Changed). Not if
    /// it waits for that already, or too much waits to be done for this user: then it returns false.
    pub fn look(&self, identity: &Identity, handle: &Arc<OwnedFd>) -> bool {
        let job = |asked| Job::Look(self.serial, Box::new(identity.clone()), Arc::clone(handle), asked);
        self.user.ask_once(&self.looking, job)
    }

    /// Lets the peer send file descriptors, for memory that it shares. Before, the kernel refuses them if it can.
    pub fn pass_descriptors(&self) {
        self.user.take_on(Job::Pass(self.serial));
    }

    /// Maps the files that came with the message received last; the outcome comes as an [event](PeerEventKind::Shared).
    pub fn map(&self, window: Arc<Window>, segments: Vec<Segment>) {
        self.user.take_on(Job::Map(self.serial, window, segments));
    }

    /// Takes memory out of a window again; the outcome comes as an [event](PeerEventKind::Shared).
    pub fn unmap(&self, window: Arc<Window>, spans: Vec<Span>) {
        self.user.take_on(Job::Unmap(self.serial, window, spans));
    }

    /// Seals a region, by its file; the outcome comes as an [event](PeerEventKind::Sealed).
    pub fn seal(&self, file: OwnedFd) {
        self.user.take_on(Job::Seal(self.serial, file));
    }

    /// Receives the next message as an [event](PeerEventKind::Received). Until then nothing is read, and the connection's end is not
    /// noticed.
    pub fn listen(&self) {
        self.user.take_on(Job::Listen(self.serial));
    }
}

impl Drop for PeerConnection {
    fn drop(&mut self) {
        self.user.take_on(Job::Close(self.serial));
    }
}

impl QuietDoorbell {
    /// Has what was rung taken out.
    pub fn quiet(&self) {
        self.user.ask_once(&self.asked, |asked| Job::Quiet(self.serial, asked));
    }
}

impl Drop for QuietDoorbell {
    fn drop(&mut self) {
        self.user.take_on(Job::Close(self.serial));
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// CPU time that this thread has used.
#[must_use]
pub fn thread_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}

#[cfg(test)]
mod tests;
