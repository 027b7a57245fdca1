//! The paper's figure: the same load through the kernel, raw bypass, vhost, Open vSwitch and kopi with everything on; what each
//! function of kopi costs; and a victim's round trip while others flood.

mod ablation;
mod arms;
mod busy;
mod cell;
mod plot;
mod report;
mod socket;
pub(crate) mod trips;
mod victim;

use crate::error::{BenchError, Result};
use crate::latency::Trips;
use crate::policy::{flows, write_pcap};
use crate::progress;
use crate::rounds::{self, Method, Samples};
use crate::setup::Setup;
use crate::throughput::Direction;
use ablation::Ablation;
use cell::{Cell, Rate};

pub(crate) use plot::plot;
pub(crate) use report::page;
pub(crate) use socket::{COMMAND as SOCKET_COMMAND, run as run_socket};

/// Parts of the benchmark, by the names that the command line knows.
const PARTS: [&str; 4] = ["tx", "rx", "ablation", "victim"];
/// Lengths of the frames.
const LENGTHS: [u16; 2] = [64, 1518];

/// What all parts gave.
#[derive(Debug, Default)]
pub(crate) struct Results {
    cells: Vec<(Cell, Samples<Rate>)>,
    ablation: Option<Ablation>,
    /// Round trips in kopi and in the kernel, or why there are none.
    victims: Vec<(&'static str, std::result::Result<Samples<Trips>, String>)>,
}

/// Shorter windows than of other benchmarks: there are more arms and cells.
pub(crate) fn method(quick: bool) -> Method {
    let full = if quick { Method::quick() } else { Method::default() };
    Method { warm_up: full.warm_up / 2, window: full.window / 2, ..full }
}

/// Runs the parts that are called for, or all.
///
/// # Errors
///
/// When a part is unknown or cannot be prepared, and on Ctrl-C. An arm that cannot run is left out.
pub(crate) fn measure(setup: &Setup, method: &Method, only: Option<&[String]>) -> Result<Results> {
    let unknown = only.and_then(|only| only.iter().find(|name| !PARTS.contains(&name.as_str())));
    if let Some(unknown) = unknown {
        return Err(BenchError::Failed(format!("no part {unknown}; there are {}", PARTS.join(", "))));
    }
    let wanted = |part: &str| only.is_none_or(|only| only.iter().any(|name| name == part));
    let mut results = Results::default();
    for (part, direction) in [("tx", Direction::Tx), ("rx", Direction::Rx)] {
        for cell in cells(setup, direction).into_iter().filter(|_| wanted(part)) {
            write_pcap(&cell.file, &flows(true, cell.frame_len), cell.frame_len)?;
            let contenders = arms::contenders(&cell);
            let contenders = contenders.map_err(|error| BenchError::Failed(format!("write a policy: {error}")))?;
            let samples = rounds::run(&cell, setup, &contenders, method)?;
            results.cells.push((cell, samples));
        }
    }
    if wanted("victim") {
        // The wire is a loop that kopid gives a rate.
        let method = Method { wire: None, ..method.clone() };
        results.victims.push(("kopi", reason(victim::kopi(setup, &method))?));
        results.victims.push(("kernel", reason(victim::kernel(setup, &method))?));
    }
    if wanted("ablation") {
        results.ablation = Some(ablation::measure(setup, method)?);
    }
    Ok(results)
}

/// Cells of a direction. All of a short frame that is sent is written in any case.
fn cells(setup: &Setup, direction: Direction) -> Vec<Cell> {
    let cell = |(frame_len, touched): (u16, bool)| {
        let file = setup.path(&format!("flows-{frame_len}.pcap"));
        Cell { direction, frame_len, touched, file }
    };
    let all = LENGTHS.into_iter().flat_map(|length| [(length, false), (length, true)]);
    all.filter(|&(length, touched)| !(touched && length == 64 && direction == Direction::Tx)).map(cell).collect()
}

/// Turns a failure into a reason; an interrupt stays an error.
fn reason<T>(tried: Result<T>) -> Result<std::result::Result<T, String>> {
    match tried {
        Err(BenchError::Interrupted) => Err(BenchError::Interrupted),
        Err(error) => {
            progress(&format!("left out: {error}"));
            Ok(Err(error.to_string()))
        }
        Ok(value) => Ok(Ok(value)),
    }
}
