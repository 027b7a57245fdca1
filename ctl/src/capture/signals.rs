//! Signals, as something to poll.

use crate::failure::Failure;
use rustix::fd::{AsFd, BorrowedFd};
use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::{flag, low_level::pipe};
use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// SIGINT and SIGTERM, which stop a capture, and SIGUSR1, which asks for its counts. SIGUSR2, by which tcpdump writes what it has
/// gathered, does nothing: here that is written at once.
#[derive(Debug)]
pub(crate) struct Signals {
    stop: UnixStream,
    count: UnixStream,
}

impl Signals {
    /// From now on, the first signal to stop is only noted. The second one ends the process as if nothing were done here.
    ///
    /// # Errors
    ///
    /// [`Failure::System`].
    pub(crate) fn new() -> Result<Self, Failure> {
        Self::register().map_err(|error| Failure::System { what: "handle signals", error })
    }

    fn register() -> io::Result<Self> {
        let (stop, stop_writer) = UnixStream::pair()?;
        let (count, count_writer) = UnixStream::pair()?;
        stop.set_nonblocking(true)?;
        count.set_nonblocking(true)?;
        let stopped = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            // In this order: what a signal does depends on whether there was one before it.
            flag::register_conditional_default(signal, Arc::clone(&stopped))?;
            flag::register(signal, Arc::clone(&stopped))?;
            pipe::register(signal, stop_writer.try_clone()?)?;
        }
        pipe::register(SIGUSR1, count_writer)?;
        flag::register(SIGUSR2, Arc::default())?;
        Ok(Self { stop, count })
    }

    /// Readable once it was told to stop.
    pub(super) fn stop(&self) -> BorrowedFd<'_> {
        self.stop.as_fd()
    }

    /// Readable when counts are wanted.
    pub(super) fn count(&self) -> BorrowedFd<'_> {
        self.count.as_fd()
    }

    /// Forgets what has come.
    pub(super) fn took_stop(&self) {
        drain(&self.stop);
    }

    /// Forgets what has come.
    pub(super) fn took_count(&self) {
        drain(&self.count);
    }
}

fn drain(mut stream: &UnixStream) {
    let mut bytes = [0; 64];
    while stream.read(&mut bytes).is_ok_and(|n| n > 0) {}
}
