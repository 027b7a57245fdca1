//! A capture from its start to its end.

use super::output::Files;
use super::session::{Event, Progress, Session, Watched};
use crate::client::TIMEOUT;
use crate::failure::Failure;
use crate::streams::mention;
use crate::text::counted;
use jiff::ZonedDateTime;
use kopi_api::capture::State;
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
    /// End of the current file's period.
    period_ends: Option<Instant>,
    /// When to look at the counts.
    tick: Option<Instant>,
    /// When to give up waiting for the end, once it was told to stop.
    stopping: Option<Instant>,
    /// What went wrong on this side.
    failed: Option<Failure>,
    abandoned: bool,
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
        Self {
            session,
            watched,
            files,
            asked: VecDeque::new(),
            period_ends: period.map(|period| now + period),
            tick: ticks.then_some(now + TICK),
            stopping: None,
            failed: None,
            abandoned: false,
        }
    }

    /// Does what is to be done until kopid has ended the capture.
    ///
    /// # Errors
    ///
    /// [`Failure`] if kopid is gone or silent, or a file cannot be opened.
    pub(crate) fn until_end(mut self) -> Result<Ended, Failure> {
        loop {
            let until = [self.period_ends, self.tick, self.stopping].into_iter().flatten().min();
            match self.session.next(&self.watched, until)? {
                Event::Said(progress) => match progress.row.state {
                    State::Ended => {
                        if let Some(files) = self.files.take() {
                            files.end();
                        }
                        return match self.failed {
                            Some(failure) => Err(failure),
                            None => Ok(Ended { progress, abandoned: self.abandoned }),
                        };
                    }
                    State::Full => self.full()?,
                    State::Running => self.answered(&progress.row),
                },
                Event::Stop => self.stop()?,
                Event::Count => self.ask(Asked::Counts)?,
                Event::Abandoned => {
                    // It stays so, and there is nothing more to wait for.
                    self.watched.outputs.clear();
                    self.abandoned = true;
                    self.stop()?;
                }
                Event::Time => self.time()?,
            }
        }
    }

    fn stop(&mut self) -> Result<(), Failure> {
        if self.stopping.is_some() {
            return Ok(());
        }
        (self.period_ends, self.tick) = (None, None);
        self.stopping = Some(Instant::now() + TIMEOUT);
        self.session.tell("stop", None)
    }

    fn ask(&mut self, what: Asked) -> Result<(), Failure> {
        if self.stopping.is_some() || self.asked.contains(&what) {
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
        let now = Instant::now();
        let is_due = |time: Option<Instant>| time.is_some_and(|time| time <= now);
        if is_due(self.stopping) {
            return Err(self.session.silent());
        }
        if is_due(self.tick) {
            self.tick = Some(now + TICK);
            self.ask(Asked::Tick)?;
        }
        if is_due(self.period_ends) {
            self.period_over()?;
        }
        Ok(())
    }

    fn period_over(&mut self) -> Result<(), Failure> {
        let Some(files) = &mut self.files else { return Ok(()) };
        // Periods are counted from the start, so one that ends late does not move the following ones.
        self.period_ends = self.period_ends.zip(files.rotation.period).map(|(end, period)| end + period);
        match files.rotation.over(&ZonedDateTime::now()) {
            Ok(true) => self.rotate(),
            Ok(false) => self.stop(),
            Err(reason) => self.give_up(Failure::Usage(reason)),
        }
    }

    fn rotate(&mut self) -> Result<(), Failure> {
        if self.stopping.is_some() {
            return Ok(());
        }
        match self.files.as_mut().map(|files| files.next()) {
            Some(Ok(file)) => {
                self.asked.push_back(Asked::Rotate);
                self.session.tell("rotate", Some(file.as_fd()))
            }
            Some(Err(failure)) => self.give_up(failure),
            None => Ok(()),
        }
    }

    /// Ends the capture in good order before it is said what was wrong.
    fn give_up(&mut self, failure: Failure) -> Result<(), Failure> {
        self.failed = Some(failure);
        self.stop()
    }
}
