//! One connection to kopid's control socket: a line of JSON out, a line of JSON back.

mod list;
mod request;

pub(crate) use list::for_each_row;
pub(crate) use request::Request;

use crate::failure::Failure;
use kopi_api::transport::{Lines, TransportError, send_all};
use rustix::fd::{AsFd, BorrowedFd};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, RecvFlags, SocketAddrUnix, SocketFlags, SocketType};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::io::ErrorKind;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long kopid may take to accept and to take a request, and between two pieces of a long answer.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(5);
/// Longest answer in bytes: some hundred times what kopid says about as many apps as it can have.
const ANSWER_MAX: usize = 64 << 20;

/// A connection.
#[derive(Debug)]
pub(crate) struct Client {
    stream: UnixStream,
    path: PathBuf,
    /// How long kopid may take to accept, to take a request, and between two pieces of a long answer.
    timeout: Duration,
}

impl Client {
    /// Connects to the socket at `path`.
    ///
    /// # Errors
    ///
    /// [`Failure::Unreachable`] or [`Failure::Refused`], with a hint.
    pub(crate) fn connect(path: &Path) -> Result<Self, Failure> {
        Self::connect_within(path, TIMEOUT)
    }

    /// The same for who does not wait as long.
    ///
    /// # Errors
    ///
    /// Those of [`Self::connect`].
    pub(crate) fn connect_within(path: &Path, timeout: Duration) -> Result<Self, Failure> {
        match open(path, timeout) {
            Ok(stream) => Ok(Self { stream, path: path.into(), timeout }),
            Err(Errno::ACCESS | Errno::PERM) => Err(Failure::refused(path)),
            Err(errno) => Err(Failure::Unreachable {
                path: path.into(),
                reason: std::io::Error::from(errno).to_string(),
                hint: match errno {
                    Errno::PROTOTYPE => "this looks like the apps' socket; name the [control] one with --socket",
                    Errno::AGAIN => "too many wait for it already: is it stopped?",
                    _ => "is kopid running, and is this the [control] path of its configuration? See --socket",
                },
            }),
        }
    }

    /// Asks, and returns the whole answer: an object with an array of the command's name.
    ///
    /// # Errors
    ///
    /// [`Failure`] if there is no answer in time, it is none of kopid's, or it says that something failed.
    pub(crate) fn ask(&mut self, request: &Request) -> Result<Value, Failure> {
        let deadline = Instant::now() + request.timeout.min(self.longest());
        self.post(&request.line(), request.file())?;
        let mut lines = Lines::new(ANSWER_MAX);
        let line = loop {
            if let Some((line, _)) = lines.take() {
                break line;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Failure::Silent(self.path.clone()));
            }
            if self.recv(&mut lines, left)? == 0 {
                return Err(Failure::Closed);
            }
        };
        if !lines.is_empty() {
            return Err(Failure::Garbage("it goes on after its end".into()));
        }
        let command = request.command();
        let answer: Value = serde_json::from_slice(&line).map_err(|error| Failure::Garbage(error.to_string()))?;
        if let Some(error) = answer.get("error").and_then(Value::as_str) {
            return Err(Failure::said(error));
        }
        if !answer.get(command).is_some_and(Value::is_array) {
            return Err(Failure::Garbage(format!("it has no list `{command}`")));
        }
        Ok(answer)
    }

    /// The same, of which only the rows matter.
    pub(crate) fn rows<T: DeserializeOwned>(&mut self, request: &Request) -> Result<Vec<T>, Failure> {
        rows(self.ask(request)?, request)
    }

    /// Sends a line, and a file descriptor with it, if there is one. What comes back is taken with [`Self::receive`].
    ///
    /// # Errors
    ///
    /// [`Failure`] if it is not taken in time, or the connection is broken.
    pub(crate) fn post(&mut self, line: &str, file: Option<BorrowedFd<'_>>) -> Result<(), Failure> {
        self.stream.set_write_timeout(Some(self.timeout)).map_err(Failure::Connection)?;
        send_all(&self.stream, line.as_bytes(), file).map_err(|errno| self.broken(errno.into()))
    }

    /// Takes what has come, of an answer or of several, and returns how many bytes that are: 0 at the end.
    ///
    /// # Errors
    ///
    /// [`Failure`] if nothing comes in time, or the connection is broken.
    pub(crate) fn receive(&mut self, chunk: &mut [u8]) -> Result<usize, Failure> {
        self.stream.set_read_timeout(Some(self.timeout)).map_err(Failure::Connection)?;
        match rustix::io::retry_on_intr(|| rustix::io::read(&self.stream, &mut *chunk)) {
            Ok(n) => Ok(n),
            Err(errno) => Err(self.broken(errno.into())),
        }
    }

    /// The socket that is asked.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Waits for some of `lines`, for `timeout` at most, and returns how many bytes that are: 0 at the end.
    ///
    /// # Errors
    ///
    /// [`Failure`] if nothing comes in time, the line is too long, or the connection is broken.
    pub(crate) fn recv(&self, lines: &mut Lines, timeout: Duration) -> Result<usize, Failure> {
        self.stream.set_read_timeout(Some(timeout)).map_err(Failure::Connection)?;
        lines.receive(&self.stream, RecvFlags::empty()).map_err(|error| match error {
            TransportError::TooLong(max) => Failure::TooLong(max),
            TransportError::System(errno) => self.broken(errno.into()),
        })
    }

    /// How long a whole answer may take: that is the request's business, unless whoever asks does not wait.
    fn longest(&self) -> Duration {
        if self.timeout < TIMEOUT { self.timeout } else { Duration::MAX }
    }

    fn broken(&self, error: std::io::Error) -> Failure {
        match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => Failure::Silent(self.path.clone()),
            ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => Failure::Closed,
            _ => Failure::Connection(error),
        }
    }
}

/// The rows of an `answer` to `request`.
pub(crate) fn rows<T: DeserializeOwned>(mut answer: Value, request: &Request) -> Result<Vec<T>, Failure> {
    serde_json::from_value(answer[request.command()].take()).map_err(Failure::foreign)
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

/// A daemon that is stopped may have a full backlog, so that connecting blocks: the timeout ends that too (socket(7),
/// `SO_SNDTIMEO`). The standard library connects without one.
fn open(path: &Path, timeout: Duration) -> Result<UnixStream, Errno> {
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    set_socket_timeout(&socket, Timeout::Send, Some(timeout))?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket.into())
}
