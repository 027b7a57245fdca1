//! kopid's side of a capture: what it says, and what it is told.

use super::signals::Signals;
use crate::client::{Client, Request, TIMEOUT};
use crate::failure::Failure;
use kopi_api::transport::Lines;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use serde_json::Value;
use std::time::{Duration, Instant};

/// Longest line that kopid may say, in bytes.
const LINE_MAX: usize = 1 << 20;

/// A running capture.
#[derive(Debug)]
pub(crate) struct Session {
    client: Client,
    /// What it says.
    lines: Lines,
}

/// What kopid says of a capture.
#[derive(Debug)]
pub(crate) struct Progress {
    pub(crate) row: kopi_api::capture::Session,
    /// All of it, as it came.
    pub(crate) whole: Value,
}

/// What can happen during a capture.
#[derive(Debug)]
pub(crate) enum Event {
    /// kopid has said this.
    Said(Progress),
    /// The user wants it to end.
    Stop,
    /// The user wants to know how far it is.
    Count,
    /// Nobody reads any more.
    Abandoned,
    /// It is time.
    Time,
}

/// What is watched beside kopid.
#[derive(Debug)]
pub(crate) struct Watched {
    pub(crate) signals: Signals,
    /// Writing ends, of which only is waited for that they have no reader.
    pub(crate) outputs: Vec<OwnedFd>,
}

impl Session {
    /// Begins the capture that `request` asks for.
    ///
    /// # Errors
    ///
    /// [`Failure::Refusal`] with kopid's reason if it refuses, or that there is no answer.
    pub(crate) fn start(mut client: Client, request: &Request) -> Result<(Self, Progress), Failure> {
        client.post(&request.line(), request.file())?;
        let mut session = Self { client, lines: Lines::new(LINE_MAX) };
        let deadline = Instant::now() + TIMEOUT;
        loop {
            if let Some(progress) = session.read()? {
                return Ok((session, progress));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(session.silent());
            }
            if session.recv(left)? == 0 {
                return Err(Failure::Closed);
            }
        }
    }

    /// Tells kopid to do `command`, with a file if it needs one. If it has gone, [`Self::next`] will say so, after what
    /// it said before.
    ///
    /// # Errors
    ///
    /// [`Failure`] if kopid does not listen, or the connection is broken.
    pub(crate) fn tell(&mut self, command: &str, file: Option<BorrowedFd<'_>>) -> Result<(), Failure> {
        match self.client.post(&kopi_api::Request::plain(command).line(), file) {
            Err(Failure::Closed) => Ok(()),
            told => told,
        }
    }

    /// That kopid does not answer.
    pub(crate) fn silent(&self) -> Failure {
        Failure::Silent(self.client.path().into())
    }

    /// Waits for what happens next, `until` then.
    ///
    /// # Errors
    ///
    /// [`Failure::Lost`] if kopid has gone; that it said something that is no answer.
    pub(crate) fn next(&mut self, watched: &Watched, until: Option<Instant>) -> Result<Event, Failure> {
        loop {
            if let Some(progress) = self.read()? {
                return Ok(Event::Said(progress));
            }
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            let sources = [self.client.as_fd(), watched.signals.stop(), watched.signals.count()];
            let mut polled: Vec<_> = sources.iter().map(|source| PollFd::new(source, PollFlags::IN)).collect();
            polled.extend(watched.outputs.iter().map(|output| PollFd::new(output, PollFlags::empty())));
            wait(&mut polled, left)?;
            let ready: Vec<bool> = polled.iter().map(|source| !source.revents().is_empty()).collect();
            let is_ready = |place: usize| ready.get(place) == Some(&true);
            if is_ready(0) {
                if self.recv(TIMEOUT)? == 0 {
                    return Err(Failure::Lost);
                }
            } else if is_ready(1) {
                watched.signals.took_stop();
                return Ok(Event::Stop);
            } else if is_ready(2) {
                watched.signals.took_count();
                return Ok(Event::Count);
            } else if ready.iter().skip(sources.len()).any(|ready| *ready) {
                return Ok(Event::Abandoned);
            } else if until.is_some_and(|until| until <= Instant::now()) {
                return Ok(Event::Time);
            }
        }
    }

    /// Takes what has come or comes in time, and returns how many bytes that are.
    fn recv(&mut self, timeout: Duration) -> Result<usize, Failure> {
        match self.client.recv(&mut self.lines, timeout) {
            // Gone is gone, whether it said good-bye or not.
            Err(Failure::Closed) => Ok(0),
            received => received,
        }
    }

    /// The next line, if it is there.
    fn read(&mut self) -> Result<Option<Progress>, Failure> {
        let Some((line, _)) = self.lines.take() else { return Ok(None) };
        let garbage = |error: serde_json::Error| Failure::Garbage(error.to_string());
        let whole: Value = serde_json::from_slice(&line).map_err(garbage)?;
        if let Some(error) = whole.get("error").and_then(Value::as_str) {
            return Err(Failure::Refusal(error.to_owned()));
        }
        let row = whole.get("capture").and_then(|rows| rows.get(0)).cloned().unwrap_or_default();
        Ok(Some(Progress { row: serde_json::from_value(row).map_err(garbage)?, whole }))
    }
}

/// Polls, and returns how many are ready. None is if a signal comes.
fn wait(polled: &mut [PollFd<'_>], left: Option<Duration>) -> Result<usize, Failure> {
    let left = left.and_then(|left| Timespec::try_from(left).ok());
    match poll(polled, left.as_ref()) {
        Ok(n) => Ok(n),
        Err(Errno::INTR) => Ok(0),
        Err(errno) => Err(Failure::System { what: "wait", error: errno.into() }),
    }
}
