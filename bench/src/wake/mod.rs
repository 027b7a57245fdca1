//! What it takes to wake an application, what an idle kopid uses, and what its sleep costs under load.

mod app;
mod report;

use std::time::Duration;

use serde_json::Value;

use crate::contender::{Contender, Kopi, Service};
use crate::error::{BenchError, Result};
use crate::probe;
use crate::process::Process;
use crate::progress;
use crate::rounds::{self, Method, Samples};
use crate::setup::{Setup, Wire};
use crate::throughput::{Cell, Direction, Rate};

pub(crate) use app::{COMMAND, run};
pub(crate) use report::page;

const START: Duration = Duration::from_secs(20);
/// Frames, and datagrams, of a window.
const CALLS: u64 = 500;
/// The pause after each, in microseconds: longer than a worker stays awake.
const PAUSE_US: u64 = 1000;
/// Both idle modes.
const MODES: [Kopi; 2] = [Kopi::PLAIN, Kopi::ADAPTIVE];

/// How long it took to wake somebody up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Calls {
    /// How often.
    pub(crate) count: u64,
    /// Half of the times it took no longer, in nanoseconds.
    pub(crate) p50_ns: u64,
    /// 99 of 100 times it took no longer.
    pub(crate) p99_ns: u64,
}

/// A window: the receive interrupt, and a UDP socket of the kernel's in turn with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wakes {
    /// Through kopid.
    pub(crate) kopi: Calls,
    /// Through the kernel.
    pub(crate) udp: Calls,
}

impl Wakes {
    fn parse(line: &str) -> Option<Self> {
        let answer: Value = serde_json::from_str(line).ok()?;
        let calls = |key: &str| {
            let calls = answer.get(key)?;
            let number = |key: &str| calls.get(key)?.as_u64();
            Some(Calls { count: number("count")?, p50_ns: number("p50_ns")?, p99_ns: number("p99_ns")? })
        };
        Some(Self { kopi: calls("kopi")?, udp: calls("udp")? })
    }
}

/// What one round gave for one idle mode.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Round {
    /// The mode's name.
    pub(crate) mode: &'static str,
    /// One-way latency between the cores before it, in nanoseconds.
    pub(crate) one_way_ns: f64,
    /// How long wake-ups took.
    pub(crate) wakes: Wakes,
    /// Share of a core that kopid used while nothing happened.
    pub(crate) idle_share: f64,
}

/// Everything that was measured.
#[derive(Debug)]
pub(crate) struct Results {
    /// Wake-ups and idleness.
    pub(crate) rounds: Vec<Round>,
    /// 64-byte frames at full load, for each direction.
    pub(crate) load: Vec<(Direction, Samples<Rate>)>,
}

/// Measures both modes in turn.
///
/// # Errors
///
/// When a program does not start or breaks, and on Ctrl-C.
pub(crate) fn measure(setup: &Setup, method: &Method, only: Option<&[String]>) -> Result<Results> {
    let wanted = |part: &str| only.is_none_or(|only| only.iter().any(|name| name == part));
    let mut results = Results { rounds: Vec::new(), load: Vec::new() };
    for round in 0..if wanted("wakes") { method.rounds } else { 0 } {
        for mode in &MODES {
            let one = one(setup, method, mode)?;
            progress(&format!("round {round}, {}: {:?}, idle {:.2} %", one.mode, one.wakes, one.idle_share * 100.0));
            results.rounds.push(one);
        }
    }
    for direction in [Direction::Tx, Direction::Rx] {
        if wanted("load") {
            let modes: Vec<Box<dyn Contender>> = vec![Box::new(Kopi::PLAIN), Box::new(Kopi::ADAPTIVE)];
            let cell = Cell { direction, frame_len: 64, touched: false };
            results.load.push((direction, rounds::run(&cell, setup, &modes, method)?));
        }
    }
    Ok(results)
}

fn one(setup: &Setup, method: &Method, mode: &Kopi) -> Result<Round> {
    let one_way_ns = probe::one_way_ns(setup.dataplane_core, setup.app_core)?;
    let service = mode.start(setup, &Wire::new("net_null0,no-rx=1"))?;
    let mut app = start_app(setup, &*service)?;
    let used = || service.processes().into_iter().map(Process::processor_time).sum::<Result<Duration>>();
    setup.interrupt.sleep(method.warm_up)?;
    let before = used()?;
    setup.interrupt.sleep(method.window)?;
    let idle_share = (used()?.saturating_sub(before)).as_secs_f64() / method.window.as_secs_f64();
    app.send_line(&format!("{CALLS} {PAUSE_US}"))?;
    app.expect(app::ANSWER, START)?;
    let line = app.expect("\n", START)?;
    let wakes = Wakes::parse(&line).ok_or_else(|| BenchError::Failed(format!("no answer: {line}")))?;
    Ok(Round { mode: mode.name, one_way_ns, wakes, idle_share })
}

/// The application, with two ports of the service's.
fn start_app(setup: &Setup, service: &dyn Service) -> Result<Process> {
    let mut args = vec![COMMAND.to_owned(), setup.app_core.to_string(), "--".to_owned()];
    args.extend(setup.eal_args("wake", setup.app_core));
    let devices = service.app_devices();
    let second = devices.last().map(|device| device.replacen("net_kopi0", "net_kopi1", 1)).unwrap_or_default();
    args.extend(devices);
    args.extend(["--vdev".to_owned(), second]);
    let mut process = Process::spawn("wake", &setup.program, &args, &[], &setup.interrupt)?;
    process.expect(app::READY, START)?;
    Ok(process)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_applications_answer_is_read() {
        let kopi = Calls { count: 9, p50_ns: 500, p99_ns: 900 };
        let wakes = Wakes { kopi, udp: Calls { p50_ns: 400, ..kopi } };
        assert_eq!(Wakes::parse(&app::answer(wakes)), Some(wakes));
        assert_eq!(Wakes::parse("{\"kopi\": 1}"), None);
    }
}
