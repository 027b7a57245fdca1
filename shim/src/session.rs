//! One connection to the daemon.

use crate::rss::RssKey;
use kopi_ring::message::{Envelope, Hello, Link, MAPPED, Message, RSS, RSS_KEY_SIZE, Rss, Setup, Welcome};
use kopi_ring::socket::{self, ReceiveError};
use kopi_ring::{Doorbell, OLDEST_PROTOCOL, PROTOCOL, Region, RegionError};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags};
use rustix::io::Errno;
use rustix::net::{SocketAddrUnix, SocketFlags};
use std::path::Path;
use std::time::{Duration, Instant};
use thiserror::Error;

/// How long the daemon may take for an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);
/// How long it may take to make a region, all pages of which it has to clear, or to map memory that is shared.
const SETUP_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection on which the daemon has given us a port.
#[derive(Debug)]
pub(crate) struct Session {
    socket: OwnedFd,
    /// The version of the protocol that is spoken here.
    protocol: u16,
    /// The version of the message received last.
    received: u16,
    sequence: u32,
    slot_size: u32,
    link: Link,
    shares: bool,
    workers: u16,
    rss_key: RssKey,
}

/// Why a request was not granted.
#[derive(Debug, Error)]
pub(crate) enum RequestError {
    /// The daemon refused, and the connection is as good as before.
    #[error("{0}")]
    Refused(String),
    /// The connection is of no more use.
    #[error("{0}")]
    Lost(#[from] Lost),
}

/// Why a connection cannot be used, or not be made.
#[derive(Debug, Error)]
pub(crate) enum Lost {
    /// No daemon listens there.
    #[error("no daemon listens ({0})")]
    Absent(Errno),
    /// The socket was mounted by itself, and the daemon that made it is gone: the next one makes another.
    #[error(
        "no daemon listens, and none will: this socket is mounted by itself, and a daemon that starts makes a new one; \
             mount the folder that it lies in"
    )]
    Stale,
    /// The kernel does not let us connect.
    #[error("cannot connect: {0}")]
    Connect(Errno),
    #[error("{0}")]
    Receive(#[from] ReceiveError),
    #[error("cannot send: {0}")]
    Send(Errno),
    #[error("no answer from the daemon in time")]
    Silent,
    #[error("the daemon's answer does not fit the request")]
    Answer,
    /// The daemon has detached the port, for this reason.
    #[error("the daemon ends the connection: {0}")]
    Detached(String),
    #[error("the daemon broke the contract: {0}")]
    Fault(&'static str),
    #[error("{0}")]
    Region(#[from] RegionError),
    #[error("polling failed: {0}")]
    Poll(Errno),
    #[error("the port is being reset")]
    Reset,
    #[error("the port is being closed")]
    Stopping,
}

/// Whether `path` itself is where something is mounted, as in a container that was given a socket and not its folder.
fn is_mount(path: &Path) -> bool {
    let flags = AtFlags::SYMLINK_NOFOLLOW;
    rustix::fs::statx(CWD, path, flags, StatxFlags::empty())
        .is_ok_and(|found| found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

impl Session {
    /// Connects and asks for a port, and returns it with the daemon's answer. Ends early when `stop` becomes readable. A daemon
    /// that refuses in an older version is asked once more, in that one.
    ///
    /// # Errors
    ///
    /// [`RequestError::Refused`] if the daemon does not give us one, [`RequestError::Lost`] if there is no daemon, or
    /// none that answers.
    pub(crate) fn open(path: &Path, hello: Hello, stop: BorrowedFd<'_>) -> Result<(Self, Welcome), RequestError> {
        let mut session = Self::connect(path, PROTOCOL)?;
        let mut answer = session.request(Message::Hello(hello.clone()), &[], ANSWER_TIMEOUT, stop);
        let older = (OLDEST_PROTOCOL..PROTOCOL).contains(&session.received);
        if older && matches!(answer, Err(RequestError::Refused(_))) {
            session = Self::connect(path, session.received)?;
            answer = session.request(Message::Hello(hello), &[], ANSWER_TIMEOUT, stop);
        }
        match answer? {
            (Message::Welcome(welcome), fds) if fds.is_empty() => {
                session.link = welcome.link;
                session.slot_size = welcome.slot_size;
                session.shares = welcome.shares;
                session.workers = welcome.workers;
                session.rss_key = welcome.rss_key;
                Ok((session, welcome))
            }
            _ => Err(Lost::Answer.into()),
        }
    }

    /// A connection for version `protocol`, on which nothing was said yet.
    fn connect(path: &Path, protocol: u16) -> Result<Self, Lost> {
        // A socket that does not block: `connect` would wait for as long as a hanging daemon's backlog is full.
        let socket = socket::new_socket(SocketFlags::CLOEXEC | SocketFlags::NONBLOCK).map_err(Lost::Connect)?;
        let address = SocketAddrUnix::new(path).map_err(Lost::Connect)?;
        rustix::net::connect(&socket, &address).map_err(|errno| match errno {
            Errno::CONNREFUSED if is_mount(path) => Lost::Stale,
            Errno::NOENT | Errno::CONNREFUSED | Errno::AGAIN => Lost::Absent(errno),
            other => Lost::Connect(other),
        })?;
        let link = Link::default();
        Ok(Self {
            socket,
            protocol,
            received: protocol,
            sequence: 0,
            slot_size: 0,
            link,
            shares: false,
            workers: 1,
            rss_key: [0; RSS_KEY_SIZE],
        })
    }

    /// The version of the protocol that is spoken here.
    pub(crate) const fn protocol(&self) -> u16 {
        self.protocol
    }

    /// Bytes of a slot, as the daemon wants them.
    pub(crate) const fn slot_size(&self) -> u32 {
        self.slot_size
    }

    /// Whether the daemon reads memory of the application's where that lies.
    pub(crate) const fn shares(&self) -> bool {
        self.shares
    }

    /// Threads of the daemon that receive from the wire, if it gains by lanes.
    pub(crate) const fn workers(&self) -> u16 {
        self.workers
    }

    /// The daemon's key of the RSS hash, if the daemon lets the application choose another.
    pub(crate) fn rss_key(&self) -> Option<RssKey> {
        (self.protocol >= RSS).then_some(self.rss_key)
    }

    /// The wire's link, as last received.
    pub(crate) const fn link(&self) -> Link {
        self.link
    }

    /// Asks for rings, maps them, and says so, and before that how frames are to be spread over them, if there is a choice. With them
    /// comes what wakes the daemon, if it sleeps at times.
    ///
    /// # Errors
    ///
    /// [`RequestError`]; a region that is not as agreed ends the connection.
    pub(crate) fn setup(
        &mut self,
        setup: Setup,
        rss: Option<Rss>,
        stop: BorrowedFd<'_>,
    ) -> Result<(Region, Option<Doorbell>), RequestError> {
        let geometry = setup.geometry.clone();
        let (Message::Ready(made), fds) = self.request(Message::Setup(setup), &[], SETUP_TIMEOUT, stop)? else {
            return Err(Lost::Answer.into());
        };
        let mut fds = fds.into_iter();
        match fds.next() {
            Some(region) if made == geometry => {
                let region = Region::open(region, &made).map_err(Lost::Region)?;
                let doorbell = fds.next().map(Doorbell::from);
                if let Some(rss) = rss {
                    // From the first frame on.
                    self.confirm(Message::Rss(rss), stop)?;
                }
                if self.protocol >= MAPPED {
                    self.confirm(Message::Mapped, stop)?;
                }
                Ok((region, doorbell))
            }
            _ => Err(Lost::Answer.into()),
        }
    }

    /// Sends a request that the daemon has only to agree to. It may wait for what the user's other applications have changed.
    ///
    /// # Errors
    ///
    /// [`RequestError`].
    pub(crate) fn confirm(&mut self, message: Message, stop: BorrowedFd<'_>) -> Result<(), RequestError> {
        self.confirm_with(message, &[], SETUP_TIMEOUT, stop)
    }

    /// The same for a message about the application's memory, with the files of that.
    ///
    /// # Errors
    ///
    /// [`RequestError`].
    pub(crate) fn share(
        &mut self,
        message: Message,
        files: &[BorrowedFd<'_>],
        stop: BorrowedFd<'_>,
    ) -> Result<(), RequestError> {
        self.confirm_with(message, files, SETUP_TIMEOUT, stop)
    }

    fn confirm_with(
        &mut self,
        message: Message,
        files: &[BorrowedFd<'_>],
        timeout: Duration,
        stop: BorrowedFd<'_>,
    ) -> Result<(), RequestError> {
        match self.request(message, files, timeout, stop)? {
            (Message::Done, fds) if fds.is_empty() => Ok(()),
            _ => Err(Lost::Answer.into()),
        }
    }

    /// Sends a request and waits for its answer. Messages about the link that come before it are taken in.
    fn request(
        &mut self,
        message: Message,
        files: &[BorrowedFd<'_>],
        timeout: Duration,
        stop: BorrowedFd<'_>,
    ) -> Result<(Message, Vec<OwnedFd>), RequestError> {
        self.sequence = self.sequence.wrapping_add(1).max(1);
        let envelope = Envelope { protocol: self.protocol, sequence: self.sequence, message };
        socket::send(&self.socket, &envelope, files).map_err(Lost::Send)?;
        let begin = Instant::now();
        loop {
            let left = timeout.saturating_sub(begin.elapsed());
            match wait(&[self.socket.as_fd(), stop], left).map_err(Lost::Poll)? {
                [_, true] => return Err(Lost::Stopping.into()),
                [false, _] if left.is_zero() => return Err(Lost::Silent.into()),
                [false, _] => {}
                [true, _] => {
                    let (answer, fds) = match socket::receive(&self.socket) {
                        Ok(got) => got,
                        Err(ReceiveError::WouldBlock) => continue,
                        Err(other) => return Err(Lost::Receive(other).into()),
                    };
                    self.received = answer.protocol;
                    match answer.message {
                        Message::Link(link) if fds.is_empty() => self.link = link,
                        Message::Refused(text) => return Err(RequestError::Refused(text)),
                        _ if answer.protocol != self.protocol => return Err(Lost::Answer.into()),
                        other if answer.sequence == self.sequence => return Ok((other, fds)),
                        _ => return Err(Lost::Answer.into()),
                    }
                }
            }
        }
    }

    /// Waits for a message from the daemon, for `wake` or for `stop`, for `timeout` at most, and takes in what the daemon sends about
    /// the link.
    ///
    /// # Errors
    ///
    /// [`Lost`] if the daemon is gone or sends anything else.
    pub(crate) fn recv(&mut self, wake: BorrowedFd<'_>, stop: BorrowedFd<'_>, timeout: Duration) -> Result<(), Lost> {
        let [ready, ..] = wait(&[self.socket.as_fd(), wake, stop], timeout).map_err(Lost::Poll)?;
        if !ready {
            return Ok(());
        }
        match socket::receive(&self.socket) {
            Ok((Envelope { message: Message::Link(link), .. }, fds)) if fds.is_empty() => {
                self.link = link;
                Ok(())
            }
            Ok((Envelope { message: Message::Refused(text), .. }, fds)) if fds.is_empty() => Err(Lost::Detached(text)),
            Ok(_) => Err(Lost::Answer),
            Err(ReceiveError::WouldBlock) => Ok(()),
            Err(other) => Err(other.into()),
        }
    }
}

/// Waits until some of `fds` are readable or hung up, for `timeout` at most, and returns which.
///
/// # Errors
///
/// The kernel's, if it is short of memory.
pub(crate) fn wait<const N: usize>(fds: &[BorrowedFd<'_>; N], timeout: Duration) -> Result<[bool; N], Errno> {
    let mut polled = fds.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
    let timeout =
        Timespec { tv_sec: timeout.as_secs().try_into().unwrap_or(i64::MAX), tv_nsec: timeout.subsec_nanos().into() };
    match poll(&mut polled, Some(&timeout)) {
        Ok(_) => Ok(polled.map(|fd| !fd.revents().is_empty())),
        Err(Errno::INTR) => Ok([false; N]),
        Err(errno) => Err(errno),
    }
}
