//! Frames per second beside a session.

use std::path::PathBuf;
use std::time::Duration;

use super::arms::Arm;
use super::session::{Session, Told};
use crate::contender::Service;
use crate::error::{BenchError, Result};
use crate::policy::{Counts, FRAME_LEN, Job, Pump, Window};
use crate::rounds::{App, Experiment, Method, Pair, Watch};
use crate::setup::{Setup, Wire};
use crate::throughput::{Direction, approximate};

/// kopid is asked so long before the end of a window, so that the answer falls within.
const MARGIN: Duration = Duration::from_millis(100);
/// How long the load goes on behind the window: a session ends under load, as it begins.
const TAIL: Duration = Duration::from_millis(150);
/// How often, and for how long each, what lies in rings is waited for at the end.
const DRAIN: (u32, Duration) = (20, Duration::from_millis(5));
/// The worker's thread in kopid.
const WORKER: &str = "kopi-worker-0";

/// What passes through kopid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Load {
    /// The name that the command line knows.
    pub(super) part: &'static str,
    direction: Direction,
    /// Whether all frames are of one flow, or of a thousand that take turns.
    pub(super) one_flow: bool,
}

/// All loads.
pub(super) const LOADS: [Load; 4] = [
    Load { part: "tx", direction: Direction::Tx, one_flow: false },
    Load { part: "tx-one", direction: Direction::Tx, one_flow: true },
    Load { part: "rx", direction: Direction::Rx, one_flow: false },
    Load { part: "rx-one", direction: Direction::Rx, one_flow: true },
];

impl Load {
    fn job(self) -> Job {
        match (self.direction, self.one_flow) {
            (Direction::Tx, false) => Job::Send,
            (Direction::Tx, true) => Job::SendOne,
            (Direction::Rx, _) => Job::Receive,
        }
    }
}

/// A load beside a session.
#[derive(Clone, Debug)]
pub(super) struct Trial {
    pub(super) load: Load,
    pub(super) arm: Arm,
    /// What the wire gives, unless it is the user's.
    pub(super) file: PathBuf,
}

/// What one sample measures.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Cost {
    /// Million frames per second, by the application's count and clock.
    pub(super) mpps: f64,
    /// Nanoseconds for which the worker was busy, for each frame that came to it.
    pub(super) worker_ns: f64,
    /// Frames dropped, as a share of those that came.
    pub(super) dropped: f64,
    /// For TX, frames that the application has sent from before the session to after it, and how many of them the wire
    /// has not.
    pub(super) missing: Option<(u64, u64)>,
    /// What the session has counted.
    pub(super) told: Option<Told>,
    /// The least share of its core that was had by the worker, or by all else together.
    pub(super) share: f64,
}

impl Experiment for Trial {
    type App = Pump;
    type Measured = Cost;

    fn label(&self) -> String {
        format!("{}, {}", self.load.direction, if self.load.one_flow { "one flow" } else { "1,000 flows" })
    }

    fn wire(&self) -> Wire {
        match self.load.direction {
            Direction::Tx => Wire::new("net_null0,no-rx=1"),
            Direction::Rx => Wire::new(format!("net_pcap0,rx_pcap={},infinite_rx=1", self.file.display())),
        }
    }

    fn start_app(&self, setup: &Setup, name: &str, service: &dyn Service) -> Result<Pump> {
        Pump::start(setup, name, FRAME_LEN, service)
    }

    fn measure(&self, setup: &Setup, method: &Method, pair: &mut Pair<Pump>) -> Result<Cost> {
        let (job, times) = (self.load.job(), [method.warm_up, method.window, TAIL]);
        let first_sent = pair.service.wire_sent()?.unwrap_or_default();
        // All windows at once, so that one follows the other: what the wire gives does not wait.
        times.iter().try_for_each(|time| pair.app.begin(job, *time))?;
        let session = match (self.arm.session, pair.service.control()) {
            (Some((request, target)), Some(control)) => Some(Session::begin(control, request, target)?),
            _ => None,
        };
        let warm_up = pair.app.end(method.warm_up)?;
        let first = Counts::ask(pair.service.as_mut())?;
        let watch = Watch::begin(processor_times(pair)?);
        setup.interrupt.sleep(method.window.saturating_sub(MARGIN))?;
        let share = watch.end(&processor_times(pair)?);
        let last = Counts::ask(pair.service.as_mut())?;
        let window = pair.app.end(method.window)?;
        let told = session.map(|session| session.end(&setup.interrupt)).transpose()?;
        let tail = pair.app.end(TAIL)?;
        let missing = match self.load.direction {
            Direction::Tx => {
                let sent = [warm_up, window, tail].iter().map(|window| window.frames).sum();
                Some((sent, missing(setup, pair.service.as_mut(), first_sent, sent)?))
            }
            Direction::Rx => None,
        };
        cost(window, first, last).map(|cost| Cost { missing, told, share, ..cost })
    }

    fn share(&self, cost: &Cost) -> Option<f64> {
        Some(cost.share)
    }

    fn describe(&self, cost: &Cost) -> String {
        let Cost { mpps, worker_ns, dropped, missing, told, .. } = cost;
        let missing = missing.map(|(sent, missing)| format!(", {missing} of {sent} missing")).unwrap_or_default();
        let told = told.map(|told| format!(", {told:?}")).unwrap_or_default();
        let dropped = dropped * 100.0;
        format!("{mpps:.2} Mpps, {worker_ns:.1} ns of the worker each, {dropped:.2} % dropped{missing}{told}")
    }
}

/// The processor time of the worker, and of all else together: a session's thread runs where there is room, on two cores
/// beside the application.
fn processor_times(pair: &Pair<Pump>) -> Result<Vec<Duration>> {
    let (mut worker, mut others) = (Duration::ZERO, pair.app.process().processor_time()?);
    for process in pair.service.processes() {
        let alone = process.thread_time(WORKER)?;
        worker += alone;
        others += process.processor_time()?.saturating_sub(alone);
    }
    Ok(vec![worker, others])
}

/// How many of `sent` frames the wire has not sent since its count was `first`, when the rings are empty.
fn missing(setup: &Setup, service: &mut dyn Service, first: u64, sent: u64) -> Result<u64> {
    let (tries, pause) = DRAIN;
    let mut arrived = 0;
    for _ in 0..tries {
        arrived = service.wire_sent()?.unwrap_or_default().saturating_sub(first);
        if arrived == sent {
            break;
        }
        setup.interrupt.sleep(pause)?;
    }
    Ok(sent.abs_diff(arrived))
}

fn cost(window: Window, first: Counts, last: Counts) -> Result<Cost> {
    let came = last.came.saturating_sub(first.came);
    if window.frames == 0 || window.nanoseconds == 0 || came == 0 {
        return Err(BenchError::Failed("no traffic went through".to_owned()));
    }
    Ok(Cost {
        mpps: approximate(window.frames) / approximate(window.nanoseconds) * 1e3,
        worker_ns: (last.busy_seconds - first.busy_seconds) * 1e9 / approximate(came),
        dropped: approximate(last.drops.saturating_sub(first.drops)) / approximate(came),
        missing: None,
        told: None,
        share: 0.0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cost_is_of_what_came_in_between() {
        let first = Counts { busy_seconds: 1.0, came: 100, drops: 7, ..Counts::default() };
        let last = Counts { busy_seconds: 1.5, came: 10_000_100, drops: 1_000_007, ..first };
        let window = Window { frames: 10_000_000, nanoseconds: 500_000_000 };
        let Cost { mpps, worker_ns, dropped, .. } = cost(window, first, last).expect("there was traffic");
        assert!((mpps - 20.0).abs() < 1e-9 && (worker_ns - 50.0).abs() < 1e-9 && (dropped - 0.1).abs() < 1e-9);
        assert!(cost(window, first, first).is_err());
    }
}
