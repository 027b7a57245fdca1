//! What apps get of the wire when all of them send as fast as they may.

use std::ffi::OsStr;
use std::time::Duration;

use clap::ValueEnum as _;

use super::app::{self, Window, Work};
use crate::contender::Service;
use crate::error::{BenchError, Result};
use crate::policy::Counts;
use crate::process::Process;
use crate::rounds::{App, Experiment, Method, Pair};
use crate::setup::{Setup, Wire};
use crate::throughput::approximate;

/// How long the application may take to start, and to answer beyond its window.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
/// kopid is asked so long before the end of a window, so that the answer falls within.
const MARGIN: Duration = Duration::from_millis(100);
/// What a frame takes on the wire besides its own bytes, as kopid counts it by default.
pub(super) const OVERHEAD: f64 = 24.0;

/// A load: as many apps as there are lengths.
#[derive(Clone, Debug)]
pub(super) struct Load {
    /// What to call it.
    pub(super) label: String,
    /// Length of each app's frames in bytes, without the checksum.
    pub(super) lengths: Vec<u16>,
    /// Whether a worker may have the application's core, too.
    pub(super) crowded: bool,
}

/// What one sample measures.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Sent {
    /// Bits per second on the wire, with their overhead, by app.
    pub(super) bits: Vec<f64>,
    /// Million frames per second, of all apps.
    pub(super) mpps: f64,
    /// Nanoseconds for which the worker was busy, for each frame that came to it.
    pub(super) worker_ns: f64,
    /// Frames that were dropped, which none should be.
    pub(super) dropped: u64,
}

impl Sent {
    /// Bits per second of all apps.
    pub(super) fn total(&self) -> f64 {
        self.bits.iter().sum()
    }

    /// Jain's index of fairness (Jain, Chiu and Hawe 1984): 1 if all have the same.
    pub(super) fn fairness(&self) -> f64 {
        let squares: f64 = self.bits.iter().map(|bits| bits * bits).sum();
        let count = approximate(u64::try_from(self.bits.len()).unwrap_or(u64::MAX));
        self.total() * self.total() / (count * squares)
    }

    /// How far the app that is farthest from its share by `weights` is from it, as a part of that share.
    pub(super) fn deviation(&self, weights: &[u32]) -> f64 {
        let all: f64 = weights.iter().map(|&weight| f64::from(weight)).sum();
        let off = |(bits, &weight): (&f64, &u32)| (bits / (self.total() * f64::from(weight) / all) - 1.0).abs();
        self.bits.iter().zip(weights).map(off).fold(0.0, f64::max)
    }
}

/// The application of [`app`], in a process of its own.
#[derive(Debug)]
pub(crate) struct Senders {
    process: Process,
}

impl Senders {
    fn begin(&mut self, time: Duration) -> Result<()> {
        self.process.send_line(&time.as_millis().to_string())
    }

    fn end(&mut self, time: Duration) -> Result<Window> {
        let line = self.answer(time + PATIENCE)?;
        Window::parse(&line).ok_or_else(|| BenchError::Failed(format!("the application said {line}")))
    }

    fn answer(&mut self, limit: Duration) -> Result<String> {
        self.process.expect(app::ANSWER, limit)?;
        self.process.expect("\n", PATIENCE)
    }

    /// The answer to a line.
    ///
    /// # Errors
    ///
    /// When it does not come within `limit`.
    pub(super) fn ask(&mut self, line: &str, limit: Duration) -> Result<String> {
        self.process.send_line(line)?;
        self.answer(limit)
    }

    /// Starts it with ports for frames of `lengths`, besides those that its `work` needs.
    ///
    /// # Errors
    ///
    /// When it does not come up.
    pub(super) fn start(setup: &Setup, name: &str, service: &dyn Service, work: Work, lengths: &[u16]) -> Result<Self> {
        let ports = lengths.len() + usize::from(work == Work::Trips);
        let words: Vec<String> = lengths.iter().map(u16::to_string).collect();
        let work = work.to_possible_value().unwrap_or_default();
        let mut args: Vec<_> = [app::COMMAND, &setup.app_core.to_string(), work.get_name(), &words.join(","), "--"]
            .map(str::to_owned)
            .into();
        args.extend(setup.eal_args(name, setup.app_core));
        args.extend(devices(service.app_devices(), ports));
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
}

impl App for Senders {
    fn process(&self) -> &Process {
        &self.process
    }
}

impl Experiment for Load {
    type App = Senders;
    type Measured = Sent;

    fn label(&self) -> String {
        self.label.clone()
    }

    fn wire(&self) -> Wire {
        Wire::new("net_null0,no-rx=1")
    }

    fn start_app(&self, setup: &Setup, name: &str, service: &dyn Service) -> Result<Senders> {
        Senders::start(setup, name, service, Work::Count, &self.lengths)
    }

    fn measure(&self, setup: &Setup, method: &Method, pair: &mut Pair<Senders>) -> Result<Sent> {
        // Both windows at once, so that one follows the other: the rings stay full, and what kopid takes in the second is
        // what it sends.
        pair.app.begin(method.warm_up)?;
        pair.app.begin(method.window)?;
        pair.app.end(method.warm_up)?;
        let first = Counts::ask(pair.service.as_mut())?;
        setup.interrupt.sleep(method.window.saturating_sub(MARGIN))?;
        let last = Counts::ask(pair.service.as_mut())?;
        let window = pair.app.end(method.window)?;
        sent(&window, &self.lengths, first, last)
    }

    fn share(&self, _sent: &Sent) -> Option<f64> {
        // Nobody has a core to itself then, and nothing here is measured by how much there was of it.
        self.crowded.then_some(1.0)
    }

    fn describe(&self, sent: &Sent) -> String {
        let mbit = |bits: &f64| format!("{:.2}", bits / 1e6);
        let each: Vec<String> = sent.bits.iter().map(mbit).collect();
        let Sent { mpps, worker_ns, dropped, .. } = sent;
        format!("{mpps:.3} Mpps ({} Mbit/s), {worker_ns:.1} ns of the worker each, {dropped} dropped", each.join(", "))
    }
}

/// The arguments that give an application one port, made to give it `count` of them, named `app0` and so on.
fn devices(one: Vec<String>, count: usize) -> Vec<String> {
    let is_port = |word: &String| word.starts_with("net_kopi0,");
    let mut all = Vec::new();
    for word in one {
        match is_port(&word) {
            true => {
                let rest = word.trim_start_matches("net_kopi0,");
                let port = |number| [format!("net_kopi{number},{rest},name=app{number}"), "--vdev".to_owned()];
                all.extend((0..count).flat_map(port));
                all.pop();
            }
            false => all.push(word),
        }
    }
    all
}

fn sent(window: &Window, lengths: &[u16], first: Counts, last: Counts) -> Result<Sent> {
    let came = last.came.saturating_sub(first.came);
    if window.nanoseconds == 0 || came == 0 || window.frames.len() != lengths.len() {
        return Err(BenchError::Failed("no traffic went through".to_owned()));
    }
    let seconds = approximate(window.nanoseconds) / 1e9;
    let bits = |(&frames, &length): (&u64, &u16)| approximate(frames) * (f64::from(length) + OVERHEAD) * 8.0 / seconds;
    Ok(Sent {
        bits: window.frames.iter().zip(lengths).map(bits).collect(),
        mpps: approximate(window.frames.iter().sum()) / seconds / 1e6,
        worker_ns: (last.busy_seconds - first.busy_seconds) * 1e9 / approximate(came),
        dropped: last.drops.saturating_sub(first.drops),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(bits: &[f64]) -> Sent {
        Sent { bits: bits.into(), mpps: 0.0, worker_ns: 0.0, dropped: 0 }
    }

    #[test]
    fn each_port_has_a_name() {
        let one = ["--no-pci", "-d", "net_kopi.so", "--vdev", "net_kopi0,socket=s"].map(str::to_owned);
        let two = ["--no-pci", "-d", "net_kopi.so", "--vdev", "net_kopi0,socket=s,name=app0", "--vdev"];
        assert_eq!(devices(one.to_vec(), 2), [&two[..], &["net_kopi1,socket=s,name=app1"]].concat());
    }

    #[test]
    fn rates_count_the_overhead() {
        let first = Counts { came: 1, drops: 5, busy_seconds: 1.0, ..Counts::default() };
        let last = Counts { came: 1001, drops: 7, busy_seconds: 1.5, ..first };
        let window = Window { frames: vec![1000, 500], nanoseconds: 500_000_000 };
        let sent = sent(&window, &[76, 176], first, last).expect("there was traffic");
        assert_eq!((sent.bits, sent.dropped), (vec![1_600_000.0, 1_600_000.0], 2));
        assert!((sent.mpps - 0.003).abs() < 1e-9 && (sent.worker_ns - 500_000.0).abs() < 1e-3);
    }

    #[test]
    fn fairness_and_shares() {
        assert!((of(&[5.0, 5.0]).fairness() - 1.0).abs() < 1e-9);
        assert!((of(&[5.0, 0.0]).fairness() - 0.5).abs() < 1e-9);
        assert!(of(&[1.0, 2.0, 4.0]).deviation(&[1, 2, 4]) < 1e-9);
        assert!((of(&[2.0, 2.0]).deviation(&[1, 3]) - 1.0).abs() < 1e-9);
    }
}
