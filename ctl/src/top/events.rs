//! What comes to the screen: keys, signals, and looks at kopid. One thread asks kopid, so that one who is stopped stops no key.

use super::sample::{Sample, Source};
use super::screen::failed;
use crate::failure::Failure;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::AsFd;
use rustix::io::Errno;
use signal_hook::consts::{SIGCONT, SIGINT, SIGQUIT, SIGTERM, SIGTSTP, SIGWINCH};
use signal_hook::low_level::pipe;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

/// Signals that end the process, when the terminal is as it was. SIGHUP is left alone, which ends it at once: there is no terminal any
/// more, and crossterm reads the end of one for ever.
const ENDING: [i32; 3] = [SIGTERM, SIGINT, SIGQUIT];

/// Signals, and looks that were asked for. Whatever comes makes [`Events::wait`] return.
#[derive(Debug)]
pub(crate) struct Events {
    wake: UnixStream,
    flags: Vec<(i32, Arc<AtomicBool>)>,
    ask: Sender<()>,
    looks: Receiver<Result<Sample, Failure>>,
    is_asked: bool,
}

impl Events {
    /// Notes signals from now on, and asks `source` when told to.
    ///
    /// # Errors
    ///
    /// [`Failure::System`].
    pub(crate) fn new(source: Source) -> Result<Self, Failure> {
        Self::register(source).map_err(|error| Failure::System { what: "handle signals", error })
    }

    fn register(mut source: Source) -> io::Result<Self> {
        let (wake, waker) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        waker.set_nonblocking(true)?;
        let mut flags = Vec::new();
        for signal in ENDING.into_iter().chain([SIGTSTP, SIGCONT, SIGWINCH]) {
            let flag = Arc::new(AtomicBool::new(false));
            // In this order: who is woken finds the flag set.
            signal_hook::flag::register(signal, Arc::clone(&flag))?;
            pipe::register(signal, waker.try_clone()?)?;
            flags.push((signal, flag));
        }
        let (ask, asked) = channel();
        let (look, looks) = channel();
        std::thread::Builder::new().name("kopictl-ask".into()).spawn(move || {
            while asked.recv().is_ok() && look.send(source.sample()).is_ok() {
                // Full means that there is enough in it to wake up.
                drop((&waker).write(&[0]));
            }
        })?;
        Ok(Self { wake, flags, ask, looks, is_asked: false })
    }

    /// Waits until `until` for a key, a signal or a look, and returns whether there may be keys.
    ///
    /// # Errors
    ///
    /// [`Failure::System`].
    pub(crate) fn wait(&self, until: Instant) -> Result<bool, Failure> {
        let input = io::stdin();
        let mut fds = [PollFd::new(&input, PollFlags::IN), PollFd::from_borrowed_fd(self.wake.as_fd(), PollFlags::IN)];
        let left: Duration = until.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).unwrap_or(Timespec { tv_sec: 1, tv_nsec: 0 });
        match poll(&mut fds, Some(&left)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(failed(errno.into())),
        }
        let input = fds.first().map_or(PollFlags::empty(), PollFd::revents);
        if input.intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL) {
            return Err(failed(io::ErrorKind::BrokenPipe.into()));
        }
        // A new size is one of crossterm's events, too.
        let has_keys = !input.is_empty() || self.has_come(SIGWINCH);
        let mut bytes = [0; 64];
        while (&self.wake).read(&mut bytes).is_ok_and(|n| n > 0) {}
        Ok(has_keys)
    }

    /// A signal that ends the process, if one has come.
    pub(crate) fn ending(&self) -> Option<i32> {
        ENDING.into_iter().find(|signal| self.has_come(*signal))
    }

    /// Whether the process is to stop for now.
    pub(crate) fn is_to_stop(&self) -> bool {
        self.has_come(SIGTSTP)
    }

    /// Whether it goes on after it was stopped, by whatever signal.
    pub(crate) fn goes_on(&self) -> bool {
        self.has_come(SIGCONT)
    }

    fn has_come(&self, signal: i32) -> bool {
        self.flags.iter().any(|(other, flag)| *other == signal && flag.swap(false, Relaxed))
    }

    /// Asks for a look, unless one is under way.
    pub(crate) fn ask(&mut self) {
        // The thread lives as long as this.
        self.is_asked = self.is_asked || self.ask.send(()).is_ok();
    }

    /// A look that has come.
    pub(crate) fn look(&mut self) -> Option<Result<Sample, Failure>> {
        let look = self.looks.try_recv().ok()?;
        self.is_asked = false;
        Some(look)
    }
}
