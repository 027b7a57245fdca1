//! Round trips: application, system, looped wire, system, application.

pub(crate) mod app;
mod report;

use std::time::Duration;

use serde_json::Value;

use crate::contender::Service;
use crate::error::{BenchError, Result};
use crate::process::Process;
use crate::rounds::{App, Experiment, Method, Pair, Samples};
use crate::setup::{Setup, Wire};

pub(crate) use report::report;

const START: Duration = Duration::from_secs(20);

/// How the frames follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    /// The next frame leaves when the one before is back.
    OneAtATime,
    /// So many frames per second, at even distances, whatever has come back.
    Steady(u32),
}

/// The round trips of one window.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Trips {
    /// Frames that came back.
    pub(crate) count: u64,
    /// Frames that did not.
    pub(crate) lost: u64,
    /// Half of the trips took no longer, in nanoseconds.
    pub(crate) p50_ns: u64,
    /// 99 of 100 trips took no longer.
    pub(crate) p99_ns: u64,
    /// 999 of 1000 trips took no longer.
    pub(crate) p999_ns: u64,
}

impl Trips {
    /// Reads the application's answer.
    pub(crate) fn parse(line: &str) -> Option<Self> {
        let answer: Value = serde_json::from_str(line).ok()?;
        let number = |key: &str| answer.get(key)?.as_u64();
        Some(Self {
            count: number("count")?,
            lost: number("lost")?,
            p50_ns: number("p50_ns")?,
            p99_ns: number("p99_ns")?,
            p999_ns: number("p999_ns")?,
        })
    }
}

/// What one pace gave.
#[derive(Debug)]
pub(crate) struct TripResult {
    /// Which pace.
    pub(crate) pace: Pace,
    /// What was measured at it.
    pub(crate) samples: Samples<Trips>,
}

/// The application of [`app`], in a process of its own.
#[derive(Debug)]
pub(crate) struct Traveller {
    process: Process,
}

impl App for Traveller {
    fn process(&self) -> &Process {
        &self.process
    }
}

impl Experiment for Pace {
    type App = Traveller;
    type Measured = Trips;

    fn label(&self) -> String {
        match self {
            Self::OneAtATime => "round trip, one at a time".to_owned(),
            Self::Steady(rate) => format!("round trip, {rate} per second"),
        }
    }

    /// A wire that gives back what it takes.
    fn wire(&self) -> Wire {
        Wire::new("net_ring0")
    }

    fn start_app(&self, setup: &Setup, name: &str, service: &dyn Service) -> Result<Traveller> {
        let mut args = vec![app::COMMAND.to_owned(), setup.app_core.to_string(), "--".to_owned()];
        args.extend(setup.eal_args(name, setup.app_core));
        args.extend(service.app_devices());
        let mut process = Process::spawn(name, &setup.program, &args, &[], &setup.interrupt)?;
        process.expect(app::READY, START)?;
        Ok(Traveller { process })
    }

    fn measure(&self, _setup: &Setup, method: &Method, pair: &mut Pair<Traveller>) -> Result<Trips> {
        let rate = match self {
            Self::OneAtATime => 0,
            Self::Steady(rate) => *rate,
        };
        let (warm_up, window) = (method.warm_up.as_millis(), method.window.as_millis());
        let process = &mut pair.app.process;
        process.send_line(&format!("{rate} {warm_up} {window}"))?;
        let limit = method.warm_up + method.window + START;
        process.expect(app::ANSWER, limit)?;
        let line = process.expect("\n", limit)?;
        match Trips::parse(&line) {
            Some(Trips { count: 0, lost, .. }) => Err(BenchError::Failed(format!("none of {lost} frames came back"))),
            Some(trips) => Ok(trips),
            None => Err(BenchError::Failed(format!("the application's answer is not understood: {line}"))),
        }
    }

    fn describe(&self, trips: &Trips) -> String {
        let Trips { count, lost, p50_ns, p99_ns, p999_ns } = trips;
        format!("p50 {p50_ns} ns, p99 {p99_ns} ns, p99.9 {p999_ns} ns of {count} trips, {lost} lost")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_applications_answer_is_read() {
        let trips = Trips { count: 9, lost: 1, p50_ns: 500, p99_ns: 900, p999_ns: 1200 };
        assert_eq!(Trips::parse(&app::answer(trips)), Some(trips));
        assert_eq!(Trips::parse("{\"count\": 1}"), None);
        assert_eq!(Trips::parse(""), None);
    }
}
