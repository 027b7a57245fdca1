//! Two builds of kopi side by side.

use std::fmt::{self, Write};
use std::path::{Path, PathBuf};

use crate::contender::{Contender, Kopi};
use crate::error::{BenchError, Doing, Result};
use crate::latency::{Pace, TripResult, Trips};
use crate::machine::Machine;
use crate::probe::State;
use crate::rounds::{self, Experiment, Method, Samples};
use crate::setup::Setup;
use crate::stats::Spread;
use crate::throughput::{Cell, CellResult};

/// What the builds are called.
const NAMES: [&str; 2] = ["A", "B"];

/// Everything that was measured.
#[derive(Debug)]
pub(crate) struct Results {
    folders: [PathBuf; 2],
    rates: Vec<CellResult>,
    trips: Vec<TripResult>,
}

/// Measures the builds in `folders` in turn.
///
/// # Errors
///
/// When a folder lacks a program, a build does not start or breaks, and on Ctrl-C.
pub(crate) fn measure(
    setup: &Setup,
    method: &Method,
    folders: [&Path; 2],
    cells: &[Cell],
    paces: &[Pace],
) -> Result<Results> {
    let [a, b] = folders.map(|folder| folder.canonicalize().doing(|| format!("find {}", folder.display())));
    let folders = [a?, b?];
    let build = |(name, folder): (&'static str, &PathBuf)| -> Box<dyn Contender> {
        Box::new(Kopi { name, folder: Some(folder.clone()), ..Kopi::PLAIN })
    };
    let builds: Vec<_> = NAMES.into_iter().zip(&folders).map(build).collect();
    for (build, folder) in builds.iter().zip(&folders) {
        if let Some(why) = build.missing(setup) {
            return Err(BenchError::Failed(format!("{}: {why}", folder.display())));
        }
    }
    let mut results = Results { folders, rates: Vec::new(), trips: Vec::new() };
    for &cell in cells {
        results.rates.push(CellResult { cell, samples: both(rounds::run(&cell, setup, &builds, method)?)? });
    }
    for &pace in paces {
        results.trips.push(TripResult { pace, samples: both(rounds::run(&pace, setup, &builds, method)?)? });
    }
    Ok(results)
}

/// Nothing is compared with a build that does not run.
fn both<M>(samples: Samples<M>) -> Result<Samples<M>> {
    match samples.skipped.first() {
        Some((name, why)) => Err(BenchError::Failed(format!("build {name}: {why}"))),
        None => Ok(samples),
    }
}

/// Writes the page.
///
/// # Errors
///
/// Never, for a `String` takes everything.
pub(crate) fn page(machine: &Machine, method: &Method, results: &Results) -> std::result::Result<String, fmt::Error> {
    let mut page = String::new();
    let Machine { date, cpu, cpus, kernel, hypervisor, dpdk, command_line, .. } = machine;
    let [a, b] = results.folders.each_ref().map(|folder| folder.display());
    writeln!(page, "# Two builds, {date}\n\n| | |\n| --- | --- |")?;
    writeln!(page, "| Machine | {cpu}, {cpus} processors, hypervisor: {hypervisor} |\n| Kernel | {kernel} |")?;
    writeln!(page, "| DPDK | {dpdk} |\n| A | `{a}` |\n| B | `{b}` |\n| Command | `{command_line}` |\n")?;
    writeln!(
        page,
        "{} rounds of both in turn, each started anew for each sample, {:.1} s of warm-up and a window of {:.1} s. Medians (least to most, samples). Ratios are \
         taken within a round and a state of the cores: {}.\n",
        method.rounds,
        method.warm_up.as_secs_f64(),
        method.window.as_secs_f64(),
        method.thresholds
    )?;
    if !results.rates.is_empty() {
        writeln!(page, "## Throughput\n\nMpps; above 1, B is faster.\n")?;
        writeln!(page, "| Cell | State | A | B | B / A |\n| --- | --- | --- | --- | --- |")?;
        for CellResult { cell, samples } in &results.rates {
            rows(&mut page, &cell.to_string(), samples, 2, |rate| rate.mpps)?;
        }
        writeln!(page)?;
    }
    if !results.trips.is_empty() {
        writeln!(page, "## Round trips\n\nNanoseconds; below 1, B is faster.\n")?;
        writeln!(page, "| Pace | State | A | B | B / A |\n| --- | --- | --- | --- | --- |")?;
        let number = |ns: u64| f64::from(u32::try_from(ns).unwrap_or(u32::MAX));
        for TripResult { pace, samples } in &results.trips {
            rows(&mut page, &format!("{}, p50", pace.label()), samples, 0, |trips: &Trips| number(trips.p50_ns))?;
            rows(&mut page, &format!("{}, p99", pace.label()), samples, 0, |trips: &Trips| number(trips.p99_ns))?;
        }
        writeln!(page)?;
    }
    let rates = results.rates.iter().map(|result| (result.samples.changed, result.samples.disturbed));
    let trips = results.trips.iter().map(|result| (result.samples.changed, result.samples.disturbed));
    let (changed, disturbed) =
        rates.chain(trips).fold((0, 0), |(c, d), (changed, disturbed)| (c + changed, d + disturbed));
    writeln!(
        page,
        "Thrown away: {changed} samples during which the state changed, {disturbed} during which another process ran on the \
         cores."
    )?;
    Ok(page)
}

/// A line of the table for each state that was met.
fn rows<M>(
    page: &mut String,
    what: &str,
    samples: &Samples<M>,
    digits: usize,
    figure: impl Fn(&M) -> f64 + Copy,
) -> fmt::Result {
    let [a, b] = NAMES;
    for state in State::ALL {
        let [of_a, of_b] = NAMES.map(|name| samples.spread(name, state, figure));
        if of_a.is_none() && of_b.is_none() {
            continue;
        }
        let ratio = Spread::text(samples.ratio((b, a), state, figure), 3);
        let [of_a, of_b] = [of_a, of_b].map(|spread| Spread::text(spread, digits));
        writeln!(page, "| {what} | {state} | {of_a} | {of_b} | {ratio} |")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contender::Family;
    use crate::rounds::Sample;
    use crate::throughput::{Direction, Rate};

    /// Ratios are those of the second build to the first, of the same round and state.
    #[test]
    fn the_page_has_a_line_for_each_cell_and_state() {
        let sample = |contender, round, state, mpps| {
            let measured = Rate { mpps, delivered: None };
            Sample { contender, family: Family::Kopi, round, state, measured }
        };
        let samples = vec![
            sample("A", 0, State::Near, 20.0),
            sample("B", 0, State::Near, 25.0),
            sample("A", 1, State::Far, 10.0),
            sample("B", 1, State::Near, 24.0),
        ];
        let samples = Samples { samples, ..Samples::default() };
        let cell = Cell { direction: Direction::Tx, frame_len: 64, touched: false };
        let folders = ["/old", "/new"].map(PathBuf::from);
        let results = Results { folders, rates: vec![CellResult { cell, samples }], trips: Vec::new() };
        let page = page(&Machine::default(), &Method::default(), &results).expect("a string takes everything");
        assert!(
            page.contains(
                "| TX 64 B | near | 20.00 (20.00 to 20.00, 1) | 24.50 (24.00 to 25.00, 2) | 1.250 (1.250 to 1.250, 1) |"
            ),
            "{page}"
        );
        assert!(page.contains("| TX 64 B | far | 10.00 (10.00 to 10.00, 1) | - | - |"), "{page}");
        assert!(page.contains("| A | `/old` |"), "{page}");
    }
}
