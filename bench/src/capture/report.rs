//! The page of the capture benchmark.

use std::fmt::{self, Write};

use super::Results;
use super::arms::{self, AGAIN, NONE};
use super::load::Cost;
use super::session::Told;
use crate::machine::Machine;
use crate::probe::State;
use crate::rounds::{Method, Samples};
use crate::stats::Spread;
use crate::throughput::approximate;

/// Ratios of throughput that the project promises, of a session to none, at least.
const GOALS: [(&str, f64); 4] = [(arms::PORT, 0.95), (arms::HOST, 0.95), (arms::FEW, 0.92), (arms::SAMPLE, 0.92)];

/// Writes the page.
///
/// # Errors
///
/// Never, for a `String` takes everything.
pub(crate) fn page(machine: &Machine, method: &Method, results: &Results) -> Result<String, fmt::Error> {
    let mut page = String::new();
    heading(&mut page, machine, method)?;
    promises(&mut page, results)?;
    for (label, samples) in &results.loads {
        costs(&mut page, label, samples)?;
    }
    results.skipped.iter().try_for_each(|(label, why)| writeln!(page, "Left out: {label}: {why}\n"))?;
    Ok(page)
}

fn heading(page: &mut String, machine: &Machine, method: &Method) -> fmt::Result {
    let Machine { date, cpu, cpus, kernel, hypervisor, dpdk, commit, command_line, .. } = machine;
    let wire = match &method.wire {
        Some(wire) => format!("`{}`", wire.device()),
        None => "a free one (`net_null`) for TX, frames from memory (`net_pcap`) for RX".to_owned(),
    };
    writeln!(page, "# What captures cost, {date}\n\n| | |\n| --- | --- |")?;
    writeln!(page, "| Machine | {cpu}, {cpus} processors, hypervisor: {hypervisor} |\n| Kernel | {kernel} |")?;
    writeln!(page, "| DPDK | {dpdk} |\n| Commit | {commit} |\n| Command | `{command_line}` |\n| Wire | {wire} |\n")?;
    writeln!(
        page,
        "One kopid with one worker, and one application, beside capture sessions of several kinds: {} rounds of every \
         kind in turn, {:.1} s of warm-up and a window of {:.1} s each, states of the machine and ratios as on the other \
         pages. All frames are of 64 bytes. Of 1,000 flows, no frame is of the same flow as the one before it.\n",
        method.rounds,
        method.warm_up.as_secs_f64(),
        method.window.as_secs_f64()
    )?;
    arms::ALL.iter().try_for_each(|arm| writeln!(page, "- `{}`: {}", arm.name, arm.what))?;
    writeln!(page)
}

fn promises(page: &mut String, results: &Results) -> fmt::Result {
    let mut rows = String::new();
    for (label, samples) in &results.loads {
        for state in State::ALL {
            if let Some(equal) = samples.ratio((AGAIN, NONE), state, mpps) {
                let equal = Spread::text(Some(equal), 3);
                writeln!(rows, "| {label}: {AGAIN} / {NONE} | {state} | not to be told from 1 | {equal} | - |")?;
            }
            for (name, least) in GOALS {
                let Some(ratio) = samples.ratio((name, NONE), state, mpps) else { continue };
                let (held, ratio) = (held(ratio.median >= least), Spread::text(Some(ratio), 3));
                writeln!(rows, "| {label}: {name} / {NONE} | {state} | at least {least:.2} | {ratio} | {held} |")?;
            }
        }
        let counted = samples.samples.iter().filter_map(|sample| sample.measured.missing);
        let (sent, missing) = counted.fold((0, 0), |(sent, missing), (s, m)| (sent + s, missing + m));
        if sent > 0 {
            let held = held(missing == 0);
            writeln!(
                rows,
                "| {label}: frames sent by the application, not by the wire | all | 0 | {missing} of {sent} | {held} |"
            )?;
        }
    }
    writeln!(
        page,
        "## Promises\n\n| What | State | Promise | Measured | Held |\n| --- | --- | --- | --- | --- |\n{rows}"
    )
}

fn held(held: bool) -> &'static str {
    if held { "yes" } else { "**no**" }
}

fn costs(page: &mut String, label: &str, samples: &Samples<Cost>) -> fmt::Result {
    writeln!(page, "## {label}\n")?;
    writeln!(
        page,
        "Medians (smallest to largest, samples); ratios within a round (pairs). *Worker*: nanoseconds for which the \
         worker was busy, for each frame that came to it. *Dropped*: frames of the traffic, of those that came. \
         *Captured*: million frames per second that the session wrote. *Lost*: frames that it wanted and did not write, \
         for its ring was full. Its thread shares the application's core where there are but two, and takes from the \
         application's rate; what the worker pays is the ratio of its nanoseconds.\n"
    )?;
    writeln!(page, "| State | Session | Mpps | / none | Worker ns | / none | Dropped | Captured | Lost |")?;
    writeln!(page, "| --- | --- | --- | --- | --- | --- | --- | --- | --- |")?;
    for state in State::ALL {
        for arm in &arms::ALL {
            let name = arm.name;
            let Some(rate) = samples.spread(name, state, mpps) else { continue };
            let against = |figure: fn(&Cost) -> f64| Spread::text(samples.ratio((name, NONE), state, figure), 3);
            let median = |figure: fn(&Cost) -> f64| samples.spread(name, state, figure).map_or(0.0, |s| s.median);
            let worker = |cost: &Cost| cost.worker_ns;
            let taken = match arm.session {
                Some(_) => format!("{:.3} | {:.1} %", median(captured), median(lost) * 100.0),
                None => "- | -".to_owned(),
            };
            writeln!(
                page,
                "| {state} | {name} | {} | {} | {} | {} | {:.2} % | {taken} |",
                Spread::text(Some(rate), 2),
                against(mpps),
                Spread::text(samples.spread(name, state, worker), 1),
                against(worker),
                median(|cost| cost.dropped) * 100.0,
            )?;
        }
    }
    let Samples { changed, disturbed, .. } = samples;
    writeln!(
        page,
        "\nThrown away: {changed} samples during which the state changed, {disturbed} that were disturbed.\n"
    )
}

fn mpps(cost: &Cost) -> f64 {
    cost.mpps
}

/// Million frames per second that the session wrote.
fn captured(cost: &Cost) -> f64 {
    cost.told.map_or(0.0, |Told { captured, seconds, .. }| approximate(captured) / seconds.max(f64::EPSILON) / 1e6)
}

/// What the session lost, as a share of what it wanted.
fn lost(cost: &Cost) -> f64 {
    cost.told.map_or(0.0, |Told { received, lost, .. }| approximate(lost) / approximate(received.max(1)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contender::Family;
    use crate::rounds::Sample;

    fn sample(contender: &'static str, mpps: f64, worker_ns: f64, told: Option<Told>) -> Sample<Cost> {
        let missing = Some((1000, u64::from(told.is_some())));
        let measured = Cost { mpps, worker_ns, dropped: 0.0, missing, told, share: 1.0 };
        Sample { contender, family: Family::Kopi, round: 0, state: State::Near, measured }
    }

    /// A promise that is broken is said to be, and a session's counts become rates and shares.
    #[test]
    fn a_broken_promise_is_said_to_be_broken() {
        let told = Told { received: 4_000_000, captured: 3_000_000, lost: 1_000_000, seconds: 2.0 };
        let samples = vec![
            sample(NONE, 20.0, 50.0, None),
            sample(AGAIN, 19.9, 50.0, None),
            sample(arms::PORT, 19.0, 52.0, None),
            sample(arms::SAMPLE, 18.0, 55.0, Some(told)),
        ];
        let loads = vec![("TX".to_owned(), Samples { samples, ..Samples::default() })];
        let results = Results { loads, skipped: Vec::new() };
        let page = page(&Machine::default(), &Method::default(), &results).expect("a string takes everything");
        for line in [
            "| TX: again / none | near | not to be told from 1 | 0.995 (0.995 to 0.995, 1) | - |",
            "| TX: port / none | near | at least 0.95 | 0.950 (0.950 to 0.950, 1) | yes |",
            "| TX: sample / none | near | at least 0.92 | 0.900 (0.900 to 0.900, 1) | **no** |",
            "| TX: frames sent by the application, not by the wire | all | 0 | 1 of 4000 | **no** |",
            "| 1.100 (1.100 to 1.100, 1) | 0.00 % | 1.500 | 25.0 % |",
        ] {
            assert!(page.contains(line), "{line} is not in\n{page}");
        }
    }
}
