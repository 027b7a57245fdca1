//! What a policy costs: frames per second under policies of several kinds, and the pauses that reloads make.
//!
//! kopid is compared with itself under another policy, by the same method as with other systems.

mod app;
mod counts;
mod frames;
mod load;
mod million;
mod reload;
mod report;
pub(crate) mod texts;

use crate::contender::Contender;
use crate::error::{BenchError, Result};
use crate::rounds::{self, Method, Samples};
use crate::setup::Setup;
use million::Million;
use reload::Reloads;

pub(crate) use app::{ANSWER, COMMAND, Job, READY, Window, parse, run};
pub(crate) use counts::Counts;
pub(crate) use frames::{APP_MAC, DESTINATIONS, FLOWS, FRAME_LEN, destination, flows, write_pcap};
pub(crate) use load::{Load, Pump, Rate};
pub(crate) use report::page;

/// Parts of the benchmark, by the names that the command line knows.
const PARTS: [&str; 5] = ["tx", "rx", "flood", "million", "reload"];

/// What all parts gave.
#[derive(Debug, Default)]
pub(crate) struct Results {
    loads: Vec<(Load, Samples<Rate>)>,
    millions: Vec<Million>,
    reloads: Option<Reloads>,
}

/// Runs the parts that are called for, or all.
///
/// # Errors
///
/// When a part is unknown or cannot be run, and on Ctrl-C.
pub(crate) fn measure(setup: &Setup, method: &Method, only: Option<&[String]>) -> Result<Results> {
    if method.wire.is_some() {
        return Err(BenchError::Failed("the policy benchmark brings its own wires".to_owned()));
    }
    let unknown = only.and_then(|only| only.iter().find(|name| !PARTS.contains(&name.as_str())));
    if let Some(unknown) = unknown {
        return Err(BenchError::Failed(format!("no part {unknown}; there are {}", PARTS.join(", "))));
    }
    let wanted = |part: &str| only.is_none_or(|only| only.iter().any(|name| name == part));

    let capture = setup.path("flows.pcap");
    write_pcap(&capture, &flows(true, FRAME_LEN), FRAME_LEN)?;
    let mut contenders: Vec<Box<dyn Contender>> = Vec::new();
    for (name, _) in texts::ALL {
        contenders.push(texts::contender(name).map_err(|error| BenchError::Failed(format!("{name}: {error}")))?);
    }
    let mut results = Results::default();
    for (part, load) in [("tx", Load::Tx), ("rx", Load::Rx(capture)), ("flood", Load::Flood)] {
        if wanted(part) {
            let samples = rounds::run(&load, setup, &contenders, method)?;
            results.loads.push((load, samples));
        }
    }
    if wanted("million") {
        results.millions = million::measure(setup, method)?;
    }
    if wanted("reload") {
        results.reloads = Some(reload::measure(setup, &method.thresholds)?);
    }
    Ok(results)
}
