//! The page of the policy benchmark.

use std::fmt::{self, Write};

use super::Results;
use super::load::{Load, Rate};
use super::million::{MILLION, Million, THOUSAND};
use super::reload::{Pause, Reload, Reloads};
use super::texts;
use crate::machine::Machine;
use crate::probe::State;
use crate::rounds::{Experiment, Method, Samples};
use crate::stats::Spread;

/// Ratios that the project promises under a steady load: of a policy, to another one, at least.
const GOALS: [(&str, &str, f64); 2] = [(texts::MANY, texts::ONE, 0.97), (texts::ONE, texts::NONE, 0.85)];
/// The least share of the rate of a thousand flows that the project promises for a million.
const OF_MILLION: f64 = 0.4;
/// The longest pause of a worker that the project promises, in microseconds.
const PAUSE_US: u64 = 50;
/// Upper ends of the histogram of pauses, in microseconds.
const PAUSES_US: [u64; 9] = [5, 10, 20, 50, 100, 200, 500, 1000, u64::MAX];

/// What a figure of a sample is.
type Figure = fn(&Rate) -> f64;

/// Writes the page.
///
/// # Errors
///
/// Never, for a `String` takes everything.
pub(crate) fn page(machine: &Machine, method: &Method, results: &Results) -> Result<String, fmt::Error> {
    let mut page = String::new();
    heading(&mut page, machine, method)?;
    promises(&mut page, results)?;
    for (load, samples) in &results.loads {
        rates(&mut page, load, samples)?;
    }
    if !results.millions.is_empty() {
        millions(&mut page, &results.millions)?;
    }
    if let Some(reloads) = &results.reloads {
        pauses(&mut page, reloads)?;
    }
    Ok(page)
}

fn heading(page: &mut String, machine: &Machine, method: &Method) -> fmt::Result {
    let Machine { date, cpu, cpus, kernel, hypervisor, dpdk, commit, command_line, .. } = machine;
    writeln!(page, "# What a policy costs, {date}\n\n| | |\n| --- | --- |")?;
    writeln!(page, "| Machine | {cpu}, {cpus} processors, hypervisor: {hypervisor} |\n| Kernel | {kernel} |")?;
    writeln!(page, "| DPDK | {dpdk} |\n| Commit | {commit} |\n| Command | `{command_line}` |\n")?;
    writeln!(
        page,
        "kopid with one worker against itself under another policy: {} rounds of every policy in turn, {:.1} s of \
         warm-up and a window of {:.1} s each, states of the machine and ratios as on the other pages. All frames are \
         of 64 bytes, all are accepted, by a rule if there is one. In the steady loads no frame is of the same flow as \
         the one before it.\n",
        method.rounds,
        method.warm_up.as_secs_f64(),
        method.window.as_secs_f64()
    )?;
    texts::ALL.iter().try_for_each(|(name, what)| writeln!(page, "- `{name}`: {what}"))?;
    writeln!(page)
}

fn promises(page: &mut String, results: &Results) -> fmt::Result {
    let mut rows = String::new();
    for (load, samples) in results.loads.iter().filter(|(load, _)| *load != Load::Flood) {
        for (ours, theirs, least) in GOALS {
            for state in State::ALL {
                let Some(ratio) = samples.ratio((ours, theirs), state, mpps) else { continue };
                let held = if ratio.median >= least { "yes" } else { "**no**" };
                let (label, ratio) = (load.label(), Spread::text(Some(ratio), 3));
                writeln!(rows, "| {label}: {ours} / {theirs} | {state} | at least {least:.2} | {ratio} | {held} |")?;
            }
        }
    }
    for Million { policy, samples, .. } in &results.millions {
        for state in State::ALL {
            let Some(ratio) = samples.ratio((MILLION, THOUSAND), state, mpps) else { continue };
            let held = if ratio.median >= OF_MILLION { "yes" } else { "**no**" };
            let ratio = Spread::text(Some(ratio), 3);
            writeln!(
                rows,
                "| TX, {policy}: a million flows / 1,000 | {state} | at least {OF_MILLION:.2} | {ratio} | {held} |"
            )?;
        }
    }
    if let Some(reloads) = &results.reloads {
        let held = |held: bool| if held { "yes" } else { "**no**" };
        let over = reloads.clean().filter(|each| each.reload.longest_ns > PAUSE_US * 1000).count();
        let longest = reloads.clean().map(|each| each.reload.longest_ns).max().unwrap_or_default();
        let (count, longest) = (reloads.clean().count(), microseconds(longest));
        writeln!(
            rows,
            "| Longest pause at a reload | - | at most {PAUSE_US} µs | {longest:.0} µs; {over} of {count} reloads over \
             {PAUSE_US} µs | {} |",
            held(over == 0 && count > 0)
        )?;
        let Reloads { sent, arrived, dropped, .. } = reloads;
        let whole = held(sent == arrived && *dropped == 0);
        writeln!(
            rows,
            "| Frames lost at reloads | - | 0 | {} of {sent}, {dropped} dropped | {whole} |",
            sent.abs_diff(*arrived)
        )?;
    }
    writeln!(
        page,
        "## Promises\n\n| What | State | Promise | Measured | Held |\n| --- | --- | --- | --- | --- |\n{rows}"
    )
}

fn rates(page: &mut String, load: &Load, samples: &Samples<Rate>) -> fmt::Result {
    writeln!(page, "## {}\n", load.label())?;
    writeln!(
        page,
        "Medians (smallest to largest, samples); ratios of Mpps within a round (pairs). *Worker*: nanoseconds for which \
         the worker was busy, for each frame that came to it. *Busy*: the share of its time that this makes; much less \
         than 100 % says that the application or the wire was the bottleneck.\n"
    )?;
    writeln!(page, "| State | Policy | Mpps | Worker ns | Busy | / none | / one | Dropped | Evicted flows |")?;
    writeln!(page, "| --- | --- | --- | --- | --- | --- | --- | --- | --- |")?;
    for state in State::ALL {
        for (name, _) in texts::ALL {
            let median = |figure: Figure| samples.spread(name, state, figure).map_or(0.0, |spread| spread.median);
            let Some(throughput) = samples.spread(name, state, mpps) else { continue };
            let worker = samples.spread(name, state, |rate| rate.worker_ns);
            // Dropped frames have cost the worker, too, but did not come to the application.
            let busy = median(|rate| rate.worker_ns * rate.mpps / (1.0 - rate.dropped)) / 10.0;
            let against = |other| Spread::text(samples.ratio((name, other), state, mpps), 3);
            writeln!(
                page,
                "| {state} | {name} | {} | {} | {busy:.0} % | {} | {} | {:.2} % | {:.0} % |",
                Spread::text(Some(throughput), 2),
                Spread::text(worker, 1),
                against(texts::NONE),
                against(texts::ONE),
                median(|rate| rate.dropped) * 100.0,
                median(|rate| rate.evicted) * 100.0,
            )?;
        }
    }
    let Samples { changed, disturbed, skipped, .. } = samples;
    writeln!(
        page,
        "\nThrown away: {changed} samples during which the state changed, {disturbed} that were disturbed."
    )?;
    skipped.iter().try_for_each(|(name, why)| writeln!(page, "\nLeft out: {name}: {why}"))?;
    writeln!(page)
}

fn millions(page: &mut String, millions: &[Million]) -> fmt::Result {
    writeln!(
        page,
        "## A million flows\n\nOne kopid for both loads, whose tables are as large as it makes them by itself on this machine. All \
         flows of a load take turns, so a frame's entry was last used a million frames ago. *Start*: from the start of kopid until it takes \
         applications.\n"
    )?;
    writeln!(page, "| State | Policy | Flows | Mpps | Worker ns | Evicted flows | Start, ms |")?;
    writeln!(page, "| --- | --- | --- | --- | --- | --- | --- |")?;
    for Million { policy, starts, samples } in millions {
        let starts = Spread::text(Spread::of(starts.iter().map(|start| start.as_secs_f64() * 1e3)), 0);
        for state in State::ALL {
            for name in [THOUSAND, MILLION] {
                let Some(rate) = samples.spread(name, state, mpps) else { continue };
                let worker = Spread::text(samples.spread(name, state, |rate| rate.worker_ns), 1);
                let evicted = samples.spread(name, state, |rate| rate.evicted).map_or(0.0, |spread| spread.median);
                let rate = Spread::text(Some(rate), 2);
                let evicted = evicted * 100.0;
                writeln!(page, "| {state} | {policy} | {name} | {rate} | {worker} | {evicted:.2} % | {starts} |")?;
            }
        }
    }
    writeln!(page)
}

fn pauses(page: &mut String, reloads: &Reloads) -> fmt::Result {
    let clean = reloads.clean().count();
    writeln!(
        page,
        "## Reloads\n\nThe policy `{}` was reloaded {} times, with 9,999 of its rules changed each time, while the \
         application sent as fast as it could. A worker's longest turn is the longest time for which it did not look at \
         a ring. It runs before all ordinary threads here (`SCHED_FIFO`), as on a core that is isolated for it. Interrupts \
         of the kernel and what the hypervisor took of its core count; the {} reloads during which the kernel ran \
         another thread there are left out. *Quiet*: as long before each reload, likewise. *Reload*: \
         from the order to 150 ms after its answer. kopid's control thread shares the application's core here, so the \
         load pauses while it compiles.\n",
        texts::MANY,
        reloads.each.len(),
        reloads.each.len() - clean
    )?;
    writeln!(page, "| Longest turn | Quiet | Reload |\n| --- | --- | --- |")?;
    let quiet = || reloads.each.iter().filter(|each| each.quiet.preemptions == 0);
    let mut from = 0;
    for to in PAUSES_US {
        let within = |pause: &Pause| (from * 1000..to.saturating_mul(1000)).contains(&pause.longest_ns);
        let quiet = quiet().filter(|each| within(&each.quiet)).count();
        let during = reloads.clean().filter(|each| within(&each.reload)).count();
        let upper = if to == u64::MAX { "more".to_owned() } else { format!("{to} µs") };
        writeln!(page, "| {from} to {upper} | {quiet} | {during} |")?;
        from = to;
    }
    writeln!(page, "\n| State | Reloads | Quiet, µs | Reload, µs | Time to the answer, ms |")?;
    writeln!(page, "| --- | --- | --- | --- | --- |")?;
    for state in State::ALL.map(Some).into_iter().chain([None]) {
        let in_state = |each: &&Reload| each.state == state;
        let microseconds = |pause: &Pause| microseconds(pause.longest_ns);
        let quiet = Spread::of(quiet().filter(in_state).map(|each| microseconds(&each.quiet)));
        let during = Spread::of(reloads.clean().filter(in_state).map(|each| microseconds(&each.reload)));
        let took = Spread::of(reloads.clean().filter(in_state).map(|each| each.took.as_secs_f64() * 1e3));
        if let Some(Spread { count, .. }) = during {
            let state = state.map_or_else(|| "changed".to_owned(), |state| state.to_string());
            let [quiet, during, took] = [quiet, during, took].map(|figure| Spread::text(figure, 1));
            writeln!(page, "| {state} | {count} | {quiet} | {during} | {took} |")?;
        }
    }
    writeln!(page)
}

fn mpps(rate: &Rate) -> f64 {
    rate.mpps
}

fn microseconds(ns: u64) -> f64 {
    std::time::Duration::from_nanos(ns).as_secs_f64() * 1e6
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contender::Family;
    use crate::rounds::Sample;

    fn sample(contender: &'static str, round: u32, mpps: f64) -> Sample<Rate> {
        let measured = Rate { mpps, worker_ns: 40.0, dropped: 0.0, evicted: 0.0 };
        Sample { contender, family: Family::Kopi, round, state: State::Near, measured }
    }

    #[test]
    fn a_broken_promise_is_said_to_be_broken() {
        let samples = vec![sample(texts::NONE, 0, 20.0), sample(texts::ONE, 0, 18.0), sample(texts::MANY, 0, 16.0)];
        let each = [(51_000, 0), (90_000, 1)].map(|(longest_ns, preemptions)| Reload {
            quiet: Pause { longest_ns: 900, preemptions: 0 },
            reload: Pause { longest_ns, preemptions },
            took: std::time::Duration::ZERO,
            state: None,
        });
        let results = Results {
            loads: vec![(Load::Tx, Samples { samples, ..Samples::default() })],
            millions: Vec::new(),
            reloads: Some(Reloads { each: each.into(), sent: 5, arrived: 4, dropped: 1 }),
        };
        let page = page(&Machine::default(), &Method::default(), &results).expect("a string takes everything");
        for line in [
            "| TX, 1,000 flows: many / one | near | at least 0.97 | 0.889 (0.889 to 0.889, 1) | **no** |",
            "| TX, 1,000 flows: one / none | near | at least 0.85 | 0.900 (0.900 to 0.900, 1) | yes |",
            "| Longest pause at a reload | - | at most 50 µs | 51 µs; 1 of 1 reloads over 50 µs | **no** |",
            "| Frames lost at reloads | - | 0 | 1 of 5, 1 dropped | **no** |",
            "| 50 to 100 µs | 0 | 1 |",
        ] {
            assert!(page.contains(line), "{line} is not in\n{page}");
        }
    }
}
