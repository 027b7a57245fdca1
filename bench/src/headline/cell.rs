//! Frames per second and busy core of one arm: 1,000 flows in turn, one way, one length, payload touched or not.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::busy::{self, Busy};
use super::socket;
use crate::contender::Service;
use crate::error::{BenchError, Result};
use crate::policy::{Job, Pump, Window};
use crate::process::Process;
use crate::rounds::{App as _, Experiment, Method, Pair};
use crate::setup::{Setup, Wire};
use crate::throughput::{Direction, approximate};

/// The cores are looked at so long before the end of a window, so that the look falls within.
const MARGIN: Duration = Duration::from_millis(100);

/// One point of comparison.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cell {
    /// Which way the frames go.
    pub(super) direction: Direction,
    /// Length of a frame in bytes, without the checksum.
    pub(super) frame_len: u16,
    /// Whether the application writes, or reads, all of each frame's payload.
    pub(super) touched: bool,
    /// What the wire gives, unless it is the user's.
    pub(super) file: PathBuf,
}

/// What one sample measures.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Rate {
    /// Million frames per second, by the application's count and clock.
    pub(super) mpps: f64,
    /// Cores that were busy with it.
    pub(super) cores: f64,
    /// For TX, what the wire has sent as a share of what the application has sent, where the system counts it.
    pub(super) delivered: Option<f64>,
    /// The least share of its core that was had by who polls.
    share: f64,
}

impl Rate {
    /// A rate without more.
    #[cfg(test)]
    pub(super) const fn of(mpps: f64, cores: f64) -> Self {
        Self { mpps, cores, delivered: None, share: 1.0 }
    }

    /// Million frames per second for each busy core.
    pub(super) fn per_core(&self) -> f64 {
        busy::per_core(self.mpps, self.cores)
    }
}

impl Cell {
    fn job(&self) -> Job {
        match (self.direction, self.touched) {
            (Direction::Tx, false) => Job::Send,
            (Direction::Tx, true) => Job::SendWritten,
            (Direction::Rx, false) => Job::Receive,
            (Direction::Rx, true) => Job::ReceiveRead,
        }
    }

    /// The cores that were busy with it in between, and the least share of its core that was had by who polls.
    ///
    /// DPDK's arms are busy for as long as their processes run. A kernel that sends does so on the application's core alone. A
    /// kernel that receives does so in interrupts on the core of what stands for the wire, of which nothing else counts, and in
    /// the application, which may sleep.
    fn cores(&self, is_kernel: bool, first: &Look, last: &Look) -> (f64, f64) {
        let elapsed = last.at.duration_since(first.at).as_secs_f64();
        let used = |last: Duration, first| last.saturating_sub(first).as_secs_f64();
        let services: Vec<f64> =
            last.services.iter().zip(&first.services).map(|(last, first)| used(*last, *first)).collect();
        let app = used(last.app, first.app);
        let least = services.iter().copied().fold(f64::INFINITY, f64::min);
        let (_, interrupts) = last.wire_side.since(first.wire_side);
        let (app_side, _) = last.app_side.since(first.app_side);
        let (cores, least) = match (is_kernel, self.direction) {
            (false, _) => (app + services.iter().sum::<f64>(), least.min(app)),
            (true, Direction::Tx) => (app_side, app),
            // Kernels differ in whether they charge interrupts to the process that they interrupt.
            (true, Direction::Rx) => (app + interrupts, (least + interrupts).min(elapsed)),
        };
        (cores / elapsed, least / elapsed)
    }
}

/// What is looked at before and after.
struct Look {
    at: Instant,
    /// The dataplane's core, which owns the wire, and the application's.
    wire_side: Busy,
    app_side: Busy,
    /// Processor time of the application, and of the arm's other processes.
    app: Duration,
    services: Vec<Duration>,
}

impl Look {
    fn now(setup: &Setup, pair: &Pair<Pump>) -> Result<Self> {
        let app = pair.app.process().processor_time()?;
        let services = pair.service.processes().into_iter().map(Process::processor_time).collect::<Result<_>>()?;
        let (wire_side, app_side) = (Busy::of(setup.dataplane_core)?, Busy::of(setup.app_core)?);
        Ok(Self { at: Instant::now(), wire_side, app_side, app, services })
    }
}

impl Experiment for Cell {
    type App = Pump;
    type Measured = Rate;

    fn label(&self) -> String {
        format!("{} {} B{}", self.direction, self.frame_len, self.direction.touch(self.touched))
    }

    fn wire(&self) -> Wire {
        match self.direction {
            Direction::Tx => Wire::new(format!("net_null0,size={},no-rx=1", self.frame_len)),
            Direction::Rx => Wire::new(format!("net_pcap0,rx_pcap={},infinite_rx=1", self.file.display())),
        }
    }

    fn start_app(&self, setup: &Setup, name: &str, service: &dyn Service) -> Result<Pump> {
        let Some(space) = service.namespace() else {
            return Pump::start(setup, name, self.frame_len, service);
        };
        let program = setup.program.display().to_string();
        let (core, length) = (setup.app_core.to_string(), self.frame_len.to_string());
        let words = space.arguments(&[&program, socket::COMMAND, &core, &length]);
        let args: Vec<String> = words.into_iter().map(str::to_owned).collect();
        Pump::spawn(setup, name, "env", &args)
    }

    fn measure(&self, setup: &Setup, method: &Method, pair: &mut Pair<Pump>) -> Result<Rate> {
        let sent = self.direction == Direction::Tx;
        // Both windows at once, so that one follows the other: what the wire gives does not wait.
        pair.app.begin(self.job(), method.warm_up)?;
        pair.app.begin(self.job(), method.window)?;
        pair.app.end(method.warm_up)?;
        // The wire's count is asked for outside of what is looked at: asking costs the system time.
        let wire_first = (Instant::now(), if sent { pair.service.wire_sent()? } else { None });
        let first = Look::now(setup, pair)?;
        let passed = wire_first.0.elapsed();
        setup.interrupt.sleep(method.window.saturating_sub(MARGIN + passed))?;
        let last = Look::now(setup, pair)?;
        let wire_last = (Instant::now(), if sent { pair.service.wire_sent()? } else { None });
        let window = pair.app.end(method.window)?;
        let (cores, share) = self.cores(pair.service.namespace().is_some(), &first, &last);
        let wire = wire_first.1.zip(wire_last.1).map(|(first, last)| last.saturating_sub(first));
        rate(window, wire, wire_last.0.duration_since(wire_first.0)).map(|rate| Rate { cores, share, ..rate })
    }

    fn share(&self, rate: &Rate) -> Option<f64> {
        Some(rate.share)
    }

    fn describe(&self, rate: &Rate) -> String {
        let share = rate.delivered.map(|share| format!(", {:.1} % reached the wire", share * 100.0));
        format!("{:.2} Mpps by {:.2} cores{}", rate.mpps, rate.cores, share.unwrap_or_default())
    }
}

/// The rate of a window, and the share of it that the `wire` counts in `elapsed`.
fn rate(window: Window, wire: Option<u64>, elapsed: Duration) -> Result<Rate> {
    if window.frames == 0 || window.nanoseconds == 0 {
        return Err(BenchError::Failed("no traffic went through".to_owned()));
    }
    let mpps = busy::mpps(window.frames, window.nanoseconds);
    let delivered = wire.map(|frames| approximate(frames) / elapsed.as_secs_f64() / (mpps * 1e6));
    Ok(Rate { mpps, cores: 0.0, delivered, share: 0.0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn cell(direction: Direction) -> Cell {
        Cell { direction, frame_len: 1518, touched: true, file: PathBuf::new() }
    }

    #[test]
    fn what_stands_for_the_wire_is_not_counted() {
        let (at, none) = (Instant::now(), Duration::ZERO);
        let part = |share: f64| SECOND.mul_f64(share);
        let idle = Busy::default();
        let first = Look { at, wire_side: idle, app_side: idle, app: none, services: vec![none] };
        let busy = |all, interrupts| Busy { all: part(all), interrupts: part(interrupts) };
        let last = Look {
            at: at + SECOND,
            wire_side: busy(1.0, 0.6),
            app_side: busy(0.8, 0.0),
            app: part(0.7),
            services: vec![part(0.9)],
        };
        let is = |(cores, share): (f64, f64), wanted: (f64, f64)| {
            assert!((cores - wanted.0).abs() < 1e-9 && (share - wanted.1).abs() < 1e-9, "{cores} {share}");
        };
        is(cell(Direction::Rx).cores(true, &first, &last), (1.3, 1.0));
        is(cell(Direction::Tx).cores(true, &first, &last), (0.8, 0.7));
        is(cell(Direction::Rx).cores(false, &first, &last), (1.6, 0.7));
        let raw = Look { services: Vec::new(), ..last };
        is(cell(Direction::Tx).cores(false, &first, &raw), (0.7, 0.7));
    }

    #[test]
    fn a_rate_has_what_reached_the_wire() {
        let window = Window { frames: 10_000_000, nanoseconds: 500_000_000 };
        let rate_of = |wire| rate(window, wire, SECOND).expect("there was traffic");
        assert_eq!(rate_of(Some(15_000_000)).delivered, Some(0.75));
        assert_eq!((rate_of(None).delivered, rate_of(None).mpps), (None, 20.0));
        assert!(rate(Window::default(), None, SECOND).is_err());
    }

    #[test]
    fn labels_and_jobs_say_what_is_touched() {
        assert_eq!(
            (cell(Direction::Rx).label(), cell(Direction::Rx).job()),
            ("RX 1518 B, read".to_owned(), Job::ReceiveRead)
        );
        assert_eq!(cell(Direction::Tx).label(), "TX 1518 B, written");
    }
}
