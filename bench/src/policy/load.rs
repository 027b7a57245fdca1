//! Frames per second under a policy.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::time::Duration;

use super::app::{self, Job, Window};
use super::counts::Counts;
use super::frames::FRAME_LEN;
use crate::contender::Service;
use crate::error::{BenchError, Result};
use crate::process::Process;
use crate::rounds::{App, Experiment, Method, Pair};
use crate::setup::{Setup, Wire};
use crate::throughput::approximate;

/// How long the application may take to start, and to answer beyond its window.
const PATIENCE: Duration = Duration::from_secs(20);
/// kopid is asked so long before the end of a window, so that the answer falls within.
const MARGIN: Duration = Duration::from_millis(100);

/// What passes through kopid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Load {
    /// The frames of all flows in turn, from the application.
    Tx,
    /// The same to the application, from the wire, which reads them from this file again and again.
    Rx(PathBuf),
    /// The same from the application, of a million flows.
    Million,
    /// SYNs from the application, nearly every one of a flow of its own.
    Flood,
}

/// What one sample measures.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Rate {
    /// Million frames per second, by the application's count and clock.
    pub(crate) mpps: f64,
    /// Nanoseconds for which the worker was busy, for each frame that came to it.
    pub(crate) worker_ns: f64,
    /// Frames dropped, as a share of those that came.
    pub(crate) dropped: f64,
    /// Flows pushed out of the flow table, for each frame that came.
    pub(crate) evicted: f64,
}

/// The application of [`app`], in a process of its own.
#[derive(Debug)]
pub(crate) struct Pump {
    process: Process,
}

impl Pump {
    /// Starts the application, called `name`, on the service's port, with frames of `length` bytes.
    ///
    /// # Errors
    ///
    /// When it does not come up.
    pub(crate) fn start(setup: &Setup, name: &str, length: u16, service: &dyn Service) -> Result<Self> {
        Self::start_with(setup, name, length, service, &[])
    }

    /// The same, with frames to whatever address received, as testpmd does.
    ///
    /// # Errors
    ///
    /// When it does not come up.
    pub(crate) fn start_promiscuous(setup: &Setup, name: &str, length: u16, service: &dyn Service) -> Result<Self> {
        Self::start_with(setup, name, length, service, &["--promiscuous"])
    }

    fn start_with(setup: &Setup, name: &str, length: u16, service: &dyn Service, options: &[&str]) -> Result<Self> {
        let (core, length) = (setup.app_core.to_string(), length.to_string());
        let words = [&[app::COMMAND, &core, &length][..], options, &["--"]].concat();
        let mut args: Vec<String> = words.into_iter().map(str::to_owned).collect();
        args.extend(setup.eal_args(name, setup.app_core));
        args.extend(service.app_devices());
        Self::spawn(setup, name, &setup.program, &args)
    }

    /// Starts whatever takes the application's lines and gives its answers.
    ///
    /// # Errors
    ///
    /// When it does not come up.
    pub(crate) fn spawn(setup: &Setup, name: &str, program: impl AsRef<OsStr>, args: &[String]) -> Result<Self> {
        let mut process = Process::spawn(name, program, args, &[], &setup.interrupt)?;
        process.expect(app::READY, PATIENCE)?;
        Ok(Self { process })
    }

    /// Tells it to do `job` for `time`.
    ///
    /// # Errors
    ///
    /// When it has ended.
    pub(crate) fn begin(&mut self, job: Job, time: Duration) -> Result<()> {
        self.process.send_line(&format!("{} {}", job.word(), time.as_millis()))
    }

    /// Waits for the end of a window of `time`.
    ///
    /// # Errors
    ///
    /// When it does not answer.
    pub(crate) fn end(&mut self, time: Duration) -> Result<Window> {
        self.process.expect(app::ANSWER, time + PATIENCE)?;
        let line = self.process.expect("\n", PATIENCE)?;
        Window::parse(&line).ok_or_else(|| BenchError::Failed(format!("the application said {line}")))
    }
}

impl App for Pump {
    fn process(&self) -> &Process {
        &self.process
    }
}

impl Experiment for Load {
    type App = Pump;
    type Measured = Rate;

    fn label(&self) -> String {
        match self {
            Self::Tx => "TX, 1,000 flows",
            Self::Rx(_) => "RX, 1,000 flows",
            Self::Million => "TX, a million flows",
            Self::Flood => "TX, SYN flood",
        }
        .to_owned()
    }

    fn wire(&self) -> Wire {
        match self {
            Self::Tx | Self::Million | Self::Flood => Wire::new("net_null0,no-rx=1"),
            Self::Rx(file) => Wire::new(format!("net_pcap0,rx_pcap={},infinite_rx=1", file.display())),
        }
    }

    fn start_app(&self, setup: &Setup, name: &str, service: &dyn Service) -> Result<Pump> {
        Pump::start(setup, name, FRAME_LEN, service)
    }

    fn measure(&self, setup: &Setup, method: &Method, pair: &mut Pair<Pump>) -> Result<Rate> {
        let job = match self {
            Self::Tx => Job::Send,
            Self::Rx(_) => Job::Receive,
            Self::Million => Job::SendMillion,
            Self::Flood => Job::Flood,
        };
        // Both windows at once, so that one follows the other: what the wire gives does not wait.
        pair.app.begin(job, method.warm_up)?;
        pair.app.begin(job, method.window)?;
        pair.app.end(method.warm_up)?;
        let first = Counts::ask(pair.service.as_mut())?;
        setup.interrupt.sleep(method.window.saturating_sub(MARGIN))?;
        let last = Counts::ask(pair.service.as_mut())?;
        let window = pair.app.end(method.window)?;
        rate(window, first, last)
    }

    fn describe(&self, rate: &Rate) -> String {
        let Rate { mpps, worker_ns, dropped, .. } = rate;
        format!("{mpps:.2} Mpps, {worker_ns:.1} ns of the worker each, {:.2} % dropped", dropped * 100.0)
    }
}

fn rate(window: Window, first: Counts, last: Counts) -> Result<Rate> {
    let came = last.came.saturating_sub(first.came);
    if window.frames == 0 || window.nanoseconds == 0 || came == 0 {
        return Err(BenchError::Failed("no traffic went through".to_owned()));
    }
    let share = |of: u64| approximate(of) / approximate(came);
    Ok(Rate {
        mpps: approximate(window.frames) / approximate(window.nanoseconds) * 1e3,
        worker_ns: (last.busy_seconds - first.busy_seconds) * 1e9 / approximate(came),
        dropped: share(last.drops.saturating_sub(first.drops)),
        evicted: share(last.evictions.saturating_sub(first.evictions)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_of_what_came_in_between() {
        let first = Counts { busy_seconds: 1.0, came: 100, drops: 7, ..Counts::default() };
        let last = Counts { busy_seconds: 1.5, came: 10_000_100, drops: 1_000_007, ..first };
        let window = Window { frames: 10_000_000, nanoseconds: 500_000_000 };
        let Rate { mpps, worker_ns, dropped, .. } = rate(window, first, last).expect("there was traffic");
        assert!((mpps - 20.0).abs() < 1e-9 && (worker_ns - 50.0).abs() < 1e-9 && (dropped - 0.1).abs() < 1e-9);
        assert!(rate(window, first, first).is_err());
    }
}
