//! The program `kopi-load`: apps of several users that load kopid, in one process.

use crate::kopid::Kopid;
use crate::machine::{app_cpu, own, unique};
use crate::process::{Launch, Process};
use crate::temp::TempDir;
use crate::wait::SOON;
use std::io::Write;
use std::time::{Duration, Instant};

/// How long rings are filled and emptied before anything is counted.
const SETTLE: Duration = Duration::from_millis(100);

/// Running apps. They are killed with the value.
#[derive(Debug)]
pub struct Load {
    process: Process,
}

impl Load {
    /// Attaches `apps`, written as the program's head says, and waits until all of them are there. All are off.
    #[must_use]
    pub fn start(dir: &TempDir, kopid: &Kopid, apps: &[String]) -> Self {
        let socket = ["--socket".to_owned(), kopid.socket().display().to_string()];
        let args = [&socket[..], apps].concat();
        let log = dir.join(&format!("load-{}.log", unique()));
        let how = Launch { cpu: Some(app_cpu()), ..Launch::default() };
        let mut process = Process::start(&how, own("kopi-load"), &args, log);
        process.expect(0, "ready", SOON);
        Self { process }
    }

    /// Has the apps whose names begin with `name` send.
    pub fn on(&mut self, name: &str) {
        self.order("on", name);
    }

    /// Has them stop.
    pub fn off(&mut self, name: &str) {
        self.order("off", name);
    }

    fn order(&mut self, what: &str, name: &str) {
        writeln!(self.process.input(), "{what} {name}").expect("the apps run");
    }

    /// Frames a second that kopid takes from each of `apps` and does not drop, for as long as `time`, once it has done so for
    /// a moment.
    #[must_use]
    pub fn rates(kopid: &Kopid, apps: &[&str], time: Duration) -> Vec<f64> {
        std::thread::sleep(SETTLE);
        let counts = || apps.iter().map(|app| kopid.passed(app)).collect::<Vec<_>>();
        let (before, begun) = (counts(), Instant::now());
        std::thread::sleep(time);
        let (after, seconds) = (counts(), begun.elapsed().as_secs_f64());
        #[expect(clippy::cast_precision_loss, reason = "counts of a test are small")]
        let rate = |(after, before): (u64, u64)| after.saturating_sub(before) as f64 / seconds;
        after.into_iter().zip(before).map(rate).collect()
    }
}

/// Jain's index of fairness: 1 if all are equal, 1/n if one has everything (R. Jain, D. Chiu, W. Hawe, DEC-TR-301, 1984).
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "there are few")]
pub fn jain(rates: &[f64]) -> f64 {
    let sum: f64 = rates.iter().sum();
    let squares: f64 = rates.iter().map(|rate| rate * rate).sum();
    sum * sum / (rates.len() as f64 * squares)
}
