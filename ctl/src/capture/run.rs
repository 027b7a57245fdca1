//! A capture from its start to its end.

use super::output::Files;
use super::session::{Event, Progress, Session, Watched};
use crate::client::TIMEOUT;
use crate::failure::Failure;
use crate::streams::mention;
use crate::text::counted;
use jiff::ZonedDateTime;
use rustix::fd::AsFd;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Time between two looks at the counts, if they are to be shown all the time.
const TICK: Duration = Duration::from_secs(1);

/// A running capture.
#[derive(Debug)]
pub(crate) struct Run {
    session: Session,
    watched: Watched,
    files: Option<Box<Files>>,
    /// What kopid has still to answer, in this order.
    asked: VecDeque<Asked>,
    state: State,
}

/// How far it is. It is over when kopid says so.
#[derive(Debug)]
enum State {
    Running {
        /// End of the current file's period.
        period_ends: Option<Instant>,
        /// When to look at the counts.
        tick: Option<Instant>,
    },
    /// kopid was told to stop, and is waited for until then.
    Stopping { until: Instant, why: Why },
}

/// Why kopid was told to stop.
#[derive(Debug)]
enum Why {
    /// It is what the user has asked for.
    Asked,
    /// Nobody reads it any more.
    Abandoned,
    /// This went wrong on this side.
    Failed(Failure),
}

/// What kopid was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Rotate,
    Tick,
    Counts,
}

/// How it ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) progress: Progress,
    /// Because nobody read it any more.
    pub(crate) abandoned: bool,
}

impl Run {
    /// Goes on with a capture that has begun, into `files` if it has files. `ticks` tells how far it is.
    pub(crate) fn new(session: Session, watched: Watched, files: Option<Box<Files>>, ticks: bool) -> Self {
        let now = Instant::now();
        let period = files.as_ref().and_then(|files| files.rotation.period);
        let state =
            State::Running { period_ends: period.map(|period| now + period), tick: ticks.then_some(now + TICK) };
        Self { session, watched, files, asked: VecDeque::new(), state }
    }

    /// Does what is to be done until kopid has ended the capture.
    ///
    /// # Errors
    ///
    /// [`Failure`] if kopid is gone or silent, or a file cannot be opened.
    pub(crate) fn until_end(mut self) -> Result<Ended, Failure> {
        loop {
            let until = match self.state {
                State::Running { period_ends, tick } => period_ends.into_iter().chain(tick).min(),
                State::Stopping { until, .. } => Some(until),
            };
            match self.session.next(&self.watched, until)? {
                Event::Said(progress) => match progress.row.state {
                    kopi_api::capture::State::Ended => return self.ended(progress),
                    kopi_api::capture::State::Full => self.full()?,
                    kopi_api::capture::State::Running => self.answered(&progress.row),
                },
                Event::Stop => self.stop(Why::Asked)?,
                Event::Count => self.ask(Asked::Counts)?,
                Event::Abandoned => {
                    // It stays so, and there is nothing more to wait for.
                    self.watched.outputs.clear();
                    self.stop(Why::Abandoned)?;
                }
                Event::Time => self.time()?,
            }
        }
    }

    fn ended(self, progress: Progress) -> Result<Ended, Failure> {
        if let Some(files) = self.files {
            files.end();
        }
        match self.state {
            State::Stopping { why: Why::Failed(failure), .. } => Err(failure),
            State::Stopping { why: Why::Abandoned, .. } => Ok(Ended { progress, abandoned: true }),
            _ => Ok(Ended { progress, abandoned: false }),
        }
    }

    /// Ends the capture in good order, and says afterwards what was wrong.
    fn stop(&mut self, reason: Why) -> Result<(), Failure> {
        match &mut self.state {
            State::Running { .. } => {
                self.state = State::Stopping { until: Instant::now() + TIMEOUT, why: reason };
                self.session.tell("stop", None)
            }
            State::Stopping { why: why @ Why::Asked, .. } => {
                *why = reason;
                Ok(())
            }
            State::Stopping { .. } => Ok(()),
        }
    }

    fn ask(&mut self, what: Asked) -> Result<(), Failure> {
        if matches!(self.state, State::Stopping { .. }) || self.asked.contains(&what) {
            return Ok(());
        }
        self.asked.push_back(what);
        self.session.tell("counts", None)
    }

    fn answered(&mut self, row: &kopi_api::capture::Session) {
        let kopi_api::capture::Session { captured, received, dropped, .. } = row;
        match self.asked.pop_front() {
            Some(Asked::Tick) => mention(&format!("Got {captured}\r")),
            Some(Asked::Counts) => mention(&format!(
                "kopictl: {} captured, {received} received by filter, {dropped} dropped by kopid\n",
                counted(*captured, "packet")
            )),
            Some(Asked::Rotate) => {
                if let Some(files) = &mut self.files {
                    files.replaced();
                }
            }
            None => {}
        }
    }

    /// The current file is full. Said of one that is being replaced already, it means nothing.
    fn full(&mut self) -> Result<(), Failure> {
        let Some(files) = self.files.as_mut().filter(|_| !self.asked.contains(&Asked::Rotate)) else { return Ok(()) };
        files.rotation.full();
        self.rotate()
    }

    /// Does what is due.
    fn time(&mut self) -> Result<(), Failure> {
        let State::Running { period_ends, tick } = &mut self.state else { return Err(self.session.silent()) };
        let now = Instant::now();
        let is_due = |time: Option<Instant>| time.is_some_and(|time| time <= now);
        let (ticks, over) = (is_due(*tick), is_due(*period_ends));
        if ticks {
            *tick = Some(now + TICK);
        }
        if over {
            // Periods are counted from the start, so one that ends late does not move the following ones.
            let period = self.files.as_ref().and_then(|files| files.rotation.period);
            *period_ends = period_ends.zip(period).map(|(end, period)| end + period);
        }
        if ticks {
            self.ask(Asked::Tick)?;
        }
        if over { self.period_over() } else { Ok(()) }
    }

    fn period_over(&mut self) -> Result<(), Failure> {
        let Some(files) = &mut self.files else { return Ok(()) };
        match files.rotation.over(&ZonedDateTime::now()) {
            Ok(true) => self.rotate(),
            Ok(false) => self.stop(Why::Asked),
            Err(reason) => self.stop(Why::Failed(Failure::Usage(reason))),
        }
    }

    fn rotate(&mut self) -> Result<(), Failure> {
        if matches!(self.state, State::Stopping { .. }) {
            return Ok(());
        }
        match self.files.as_mut().map(|files| files.next()) {
            Some(Ok(file)) => {
                self.asked.push_back(Asked::Rotate);
                self.session.tell("rotate", Some(file.as_fd()))
            }
            Some(Err(failure)) => self.stop(Why::Failed(failure)),
            None => Ok(()),
        }
    }
}
