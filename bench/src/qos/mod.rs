//! What classes do and what they cost: how well a ceiling is kept to, how a wire is shared, and frames per second with and
//! without classes.
//!
//! kopid is compared with itself under another policy, by the same method as with other systems.

pub(crate) mod app;
mod frames;
mod load;
mod plot;
pub(crate) mod protection;
mod report;
mod tc;
mod texts;
mod unused;

use crate::contender::Contender;
use crate::error::{BenchError, Result};
use crate::latency::Trips;
use crate::rounds::{self, Method, Samples};
use crate::setup::Setup;
use load::{Load, Sent};

pub(crate) use app::{COMMAND, Work, run};
pub(crate) use load::Senders;
pub(crate) use plot::plot;
pub(crate) use report::page;
pub(crate) use tc::{COMMAND as SOCKET_COMMAND, run_sender};

/// Parts of the benchmark, by the names that the command line knows.
const PARTS: [&str; 6] = ["cost", "shaping", "workers", "sharing", "unused", "protection"];
/// Frames of equal apps, whose lengths must not matter.
const LENGTHS: [u16; texts::APPS] = [64, 128, 256, 512, 700, 1000, 1300, 1518];
/// Frames of the app that is shaped.
const SHAPED: [u16; 2] = [64, 1518];
/// Frames of the apps with weights.
const WEIGHED: [u16; texts::WEIGHTS.len()] = [1518, 256, 700];

/// What all parts gave.
#[derive(Debug, Default)]
pub(crate) struct Results {
    cost: Option<Samples<Sent>>,
    /// By length of the frames.
    shaping: Vec<(u16, Samples<Sent>)>,
    /// The same, shared by workers.
    workers: Option<Samples<Sent>>,
    /// What the kernel did, or why there is nothing.
    tc: Option<std::result::Result<Vec<tc::Shaped>, String>>,
    weights: Option<Samples<Sent>>,
    equals: Option<Samples<Sent>>,
    unused: Option<Samples<unused::Handover>>,
    /// By rate of the wire.
    protection: Vec<(&'static str, Samples<Trips>)>,
}

/// Runs the parts that are called for, or all.
///
/// # Errors
///
/// When a part is unknown or cannot be run, and on Ctrl-C.
pub(crate) fn measure(setup: &Setup, method: &Method, only: Option<&[String]>) -> Result<Results> {
    if method.wire.is_some() {
        return Err(BenchError::Failed("the QoS benchmark brings its own wires".to_owned()));
    }
    let unknown = only.and_then(|only| only.iter().find(|name| !PARTS.contains(&name.as_str())));
    if let Some(unknown) = unknown {
        return Err(BenchError::Failed(format!("no part {unknown}; there are {}", PARTS.join(", "))));
    }
    let wanted = |part: &str| only.is_none_or(|only| only.iter().any(|name| name == part));
    let run = |label: &str, lengths: &[u16], contenders: &[Box<dyn Contender>]| {
        let load = Load { label: label.to_owned(), lengths: lengths.to_vec(), crowded: false };
        rounds::run(&load, setup, contenders, method)
    };
    let text = |error| BenchError::Failed(format!("write a policy: {error}"));

    let mut results = Results::default();
    if wanted("cost") {
        results.cost = Some(run("cost", &[64; texts::APPS], &texts::costs().map_err(text)?)?);
    }
    if wanted("shaping") {
        for length in SHAPED {
            let samples = run(&format!("shaping {length} B"), &[length], &texts::ceilings())?;
            results.shaping.push((length, samples));
        }
        results.tc = Some(match tc::measure(setup, method, &SHAPED) {
            Err(BenchError::Interrupted) => return Err(BenchError::Interrupted),
            measured => measured.map_err(|error| error.to_string()),
        });
    }
    if wanted("workers") {
        let crowded = setup.worker_cores(texts::WORKERS).contains(&setup.app_core);
        let label = format!("shaping by {} workers", texts::WORKERS);
        let load = Load { label, lengths: vec![SHAPED[1]; texts::WORKERS], crowded };
        results.workers = Some(rounds::run(&load, setup, &texts::shared_ceilings(), method)?);
    }
    if wanted("sharing") {
        results.weights = Some(run("sharing 1:2:4", &WEIGHED, &texts::weights())?);
        results.equals = Some(run("sharing, 8 equal apps", &LENGTHS, &texts::equals().map_err(text)?)?);
    }
    if wanted("unused") {
        results.unused = Some(rounds::run(&unused::Unused, setup, &texts::pair(), method)?);
    }
    if wanted("protection") {
        for wire in protection::WIRES {
            let samples =
                rounds::run_shared(&protection::experiments(wire), setup, &protection::contender(wire), method)?;
            results.protection.push((wire, samples));
        }
    }
    Ok(results)
}
