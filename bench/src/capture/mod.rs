//! What capture sessions cost: frames per second while nobody looks, and while sessions of several kinds do.
//!
//! All sessions are compared on one kopid with one application, which run throughout: a session begins before a sample
//! and ends after it, and nothing else differs.

mod arms;
mod load;
mod report;
mod session;

use crate::contender::Kopi;
use crate::error::{BenchError, Result};
use crate::policy::{self, FLOWS, FRAME_LEN};
use crate::progress;
use crate::rounds::{self, Experiment, Method, Samples};
use crate::setup::Setup;
use load::{Cost, LOADS, Trial};

pub(crate) use report::page;
pub(crate) use session::{Session, Target};

/// What all parts gave.
#[derive(Debug, Default)]
pub(crate) struct Results {
    loads: Vec<(String, Samples<Cost>)>,
    /// Parts that could not be measured, and why.
    skipped: Vec<(String, String)>,
}

/// Runs the parts that are called for, or all.
///
/// # Errors
///
/// When a part is unknown, when what is needed cannot be prepared, and on Ctrl-C.
pub(crate) fn measure(setup: &Setup, method: &Method, only: Option<&[String]>) -> Result<Results> {
    let unknown = only.and_then(|only| only.iter().find(|name| LOADS.iter().all(|load| load.part != **name)));
    if let Some(unknown) = unknown {
        let parts = LOADS.map(|load| load.part).join(", ");
        return Err(BenchError::Failed(format!("no part {unknown}; there are {parts}")));
    }
    let kopi = Kopi { mac: Some(policy::APP_MAC), ..Kopi::PLAIN };
    let mut results = Results::default();
    for load in LOADS.iter().filter(|load| only.is_none_or(|only| only.iter().any(|name| name == load.part))) {
        let file = setup.path(&format!("{}.pcap", load.part));
        let mut frames = policy::flows(true, FRAME_LEN);
        if load.one_flow {
            frames = frames.first().map_or_else(Vec::new, |frame| vec![*frame; usize::from(FLOWS)]);
        }
        policy::write_pcap(&file, &frames, FRAME_LEN)?;
        let trials = arms::ALL.map(|arm| (arm.name, Trial { load: *load, arm, file: file.clone() }));
        let label = trials.first().map(|(_, trial)| trial.label()).unwrap_or_default();
        match rounds::run_shared(&trials, setup, &kopi, method) {
            Ok(samples) => results.loads.push((label, samples)),
            Err(BenchError::Interrupted) => return Err(BenchError::Interrupted),
            Err(error) => {
                progress(&format!("{label} is left out: {error}"));
                results.skipped.push((label, error.to_string()));
            }
        }
    }
    Ok(results)
}
