//! What a session and its client say to each other, on the connection that the session was asked for on.

use kopi_api::capture::{Session as Told, State};
use kopi_api::transport::{Lines, TransportError, send};
use kopi_api::{Request, refusal};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};

/// Bytes of a line of the client's, at most.
const LINE: usize = 4096;

/// Why a session ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// The client said so.
    Stopped,
    /// The client is gone.
    Gone,
    /// It has as many packets as were asked for.
    Count,
    /// The same, of bytes.
    Bytes,
    /// Its time is up.
    Seconds,
    /// Nobody reads what it writes.
    Reader,
    /// Something went wrong.
    Error(String),
}

impl Why {
    const fn word(&self) -> &'static str {
        match self {
            Self::Stopped | Self::Gone => "stopped",
            Self::Count => "count",
            Self::Bytes => "bytes",
            Self::Seconds => "seconds",
            Self::Reader => "reader",
            Self::Error(_) => "error",
        }
    }
}

/// What a client says.
#[derive(Debug)]
pub enum Heard {
    /// It wants to know the counts.
    Counts,
    /// Go on with this file.
    Rotate(OwnedFd),
    /// End.
    Stop,
}

/// The connection with the client.
#[derive(Debug)]
pub struct Connection {
    id: u32,
    socket: OwnedFd,
    lines: Lines,
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Connection {
    /// The connection of session `id`.
    #[must_use]
    pub const fn new(id: u32, socket: OwnedFd) -> Self {
        Self { id, socket, lines: Lines::new(LINE) }
    }

    /// Tells the client that there is no session, and why.
    pub fn refuse(&self, why: &str) {
        self.send(&refusal(why));
    }

    /// What the client has said next, if it has said anything. Does not wait.
    ///
    /// # Errors
    ///
    /// [`Why::Gone`] at its end, [`Why::Error`] if it says what nobody understands.
    pub(super) fn recv(&mut self) -> Result<Option<Heard>, Why> {
        loop {
            if let Some((line, file)) = self.lines.take() {
                return understand(&line, file).map(Some);
            }
            match self.lines.receive(&self.socket, RecvFlags::DONTWAIT) {
                Ok(1..) => {}
                Err(TransportError::System(Errno::AGAIN)) => return Ok(None),
                Err(error @ TransportError::TooLong(_)) => return Err(Why::Error(error.to_string())),
                Ok(0) | Err(TransportError::System(_)) => return Err(Why::Gone),
            }
        }
    }

    /// Tells the client how the session is, why it has ended if it has, and what it has counted. A client that does not read misses it.
    pub fn say(&self, state: State, why: Option<Why>, counts: Told) {
        let word = why.as_ref().map(|why| why.word().to_owned());
        let error = if let Some(Why::Error(error)) = why { Some(error) } else { None };
        let row = Told { session: self.id, state, why: word, error, ..counts };
        self.send(&kopi_api::answer("capture", &[row]));
    }

    fn send(&self, line: &str) {
        match send(&self.socket, line.as_bytes(), None, SendFlags::DONTWAIT) {
            Ok(n) if n == line.len() => {}
            outcome => log::debug!("a client of a capture session does not listen: {outcome:?}"),
        }
    }
}

fn understand(line: &[u8], file: Option<OwnedFd>) -> Result<Heard, Why> {
    let request = Request::read(line).map_err(Why::Error)?;
    match (request.command.as_str(), file) {
        ("counts", _) => Ok(Heard::Counts),
        ("stop", _) => Ok(Heard::Stop),
        ("rotate", Some(file)) => Ok(Heard::Rotate(file)),
        ("rotate", None) => Err(Why::Error("`rotate` comes with a file".into())),
        _ => Err(Why::Error("a capture session knows `counts`, `rotate` and `stop`".into())),
    }
}
