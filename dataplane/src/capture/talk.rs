//! What a session and its client say to each other, on the connection that the session was asked for on.

use crate::control::connection::receive;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::SendFlags;
use serde_json::{Value, json};

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

/// How a session is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// It goes on.
    Running,
    /// It goes on, and the file has the size that was asked for.
    Full,
    /// It ends.
    Ended(Why),
}

/// What a session has counted.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Packets written, or about to be.
    pub captured: u64,
    /// Sightings that were wanted.
    pub received: u64,
    /// Those of them that were lost.
    pub dropped: u64,
    /// Sightings looked at.
    pub seen: u64,
    /// Bytes of the file.
    pub file_bytes: u64,
    /// Whether the disk was full.
    pub disk_full: bool,
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
pub struct Talk {
    id: u32,
    socket: OwnedFd,
    jit: bool,
    input: Vec<u8>,
    file: Option<OwnedFd>,
}

impl AsFd for Talk {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Talk {
    /// The connection of session `id`.
    #[must_use]
    pub const fn new(id: u32, socket: OwnedFd) -> Self {
        Self { id, socket, jit: true, input: Vec::new(), file: None }
    }

    /// Notes whether the filter runs as machine code.
    #[must_use]
    pub fn with_jit(self, jit: bool) -> Self {
        Self { jit, ..self }
    }

    /// Tells the client that there is no session, and why.
    pub fn refuse(&self, why: &str) {
        self.send(&json!({ "error": why }));
    }

    /// What the client has said next, if it has said anything. Does not wait.
    ///
    /// # Errors
    ///
    /// [`Why::Gone`] at its end, [`Why::Error`] if it says what nobody understands.
    pub fn hear(&mut self) -> Result<Option<Heard>, Why> {
        loop {
            if let Some(end) = self.input.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.input.drain(..=end).collect();
                return self.understand(&line).map(Some);
            }
            let mut bytes = [0; LINE];
            match receive(&self.socket, &mut bytes) {
                Ok((0, _)) => return Err(Why::Gone),
                Ok((n, file)) => {
                    self.input.extend_from_slice(bytes.get(..n).unwrap_or_default());
                    self.file = file.or_else(|| self.file.take());
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(None),
                Err(_) => return Err(Why::Gone),
            }
            if self.input.len() > LINE && !self.input.contains(&b'\n') {
                return Err(Why::Error(format!("a line of more than {LINE} bytes")));
            }
        }
    }

    fn understand(&mut self, line: &[u8]) -> Result<Heard, Why> {
        let value: Value =
            serde_json::from_slice(line).map_err(|error| Why::Error(format!("not a request: {error}")))?;
        match value.get("command").and_then(Value::as_str) {
            Some("counts") => Ok(Heard::Counts),
            Some("stop") => Ok(Heard::Stop),
            Some("rotate") => match self.file.take() {
                Some(file) => Ok(Heard::Rotate(file)),
                None => Err(Why::Error("`rotate` comes with a file".into())),
            },
            _ => Err(Why::Error("a capture session knows `counts`, `rotate` and `stop`".into())),
        }
    }

    /// Tells the client how the session is. A client that does not read misses it.
    pub fn say(&self, state: State, counts: &Counts) {
        let (word, why, error) = match &state {
            State::Running => ("running", None, None),
            State::Full => ("full", None, None),
            State::Ended(Why::Error(error)) => ("ended", Some("error"), Some(error)),
            State::Ended(why) => ("ended", Some(why.word()), None),
        };
        let line = json!({ "capture": [{
            "session": self.id,
            "state": word,
            "why": why,
            "error": error,
            "jit": self.jit,
            "captured": counts.captured,
            "received": counts.received,
            "dropped": counts.dropped,
            "seen": counts.seen,
            "file_bytes": counts.file_bytes,
            "disk_full": counts.disk_full,
        }] });
        self.send(&line);
    }

    fn send(&self, line: &Value) {
        let line = format!("{line}\n");
        match rustix::net::send(&self.socket, line.as_bytes(), SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Ok(n) if n == line.len() => {}
            outcome => log::debug!("a client of a capture session does not listen: {outcome:?}"),
        }
    }
}
