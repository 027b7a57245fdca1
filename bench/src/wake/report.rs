//! The page of the wake-up benchmark.

use std::fmt::{self, Write};

use super::{CALLS, PAUSE_US, Results, Round};
use crate::contender::Kopi;
use crate::machine::Machine;
use crate::probe::State;
use crate::rounds::Method;
use crate::stats::{Spread, paired_ratios};

/// How much longer than a UDP socket's the median of a wake-up may take, in nanoseconds.
const ABOVE_UDP_NS: f64 = 15_000.0;
/// The most that an idle kopid may use of a core.
const IDLE: f64 = 0.02;
/// The least throughput of a worker that may sleep, as a part of one that polls.
const LOAD: f64 = 0.98;

/// Writes the page.
///
/// # Errors
///
/// Never, for a `String` takes everything.
pub(crate) fn page(machine: &Machine, method: &Method, results: &Results) -> Result<String, fmt::Error> {
    let mut page = String::new();
    let Machine { date, cpu, cpus, kernel, hypervisor, dpdk, commit, command_line, .. } = machine;
    writeln!(page, "# Sleep and wake-up, {date}\n\n| | |\n| --- | --- |")?;
    writeln!(page, "| Machine | {cpu}, {cpus} processors, hypervisor: {hypervisor} |\n| Kernel | {kernel} |")?;
    writeln!(page, "| DPDK | {dpdk} |\n| Commit | {commit} |\n| Command | `{command_line}` |\n")?;
    if !results.rounds.is_empty() {
        wakes(&mut page, method, &results.rounds)?;
    }
    load(&mut page, results)?;
    Ok(page)
}

fn wakes(page: &mut String, method: &Method, rounds: &[Round]) -> fmt::Result {
    writeln!(
        page,
        "## Wake-ups\n\nAn application sleeps in poll(2) for the receive interrupt of a port and for a UDP socket of the \
         kernel's. Another thread on its core sends {CALLS} frames through kopid, from another port, and as many datagrams, in \
         turn, {PAUSE_US} µs apart: from right before it sends until poll has returned. With `idle = \"adaptive\"` the worker \
         sleeps then, too, so this is the latency of the first packet after idleness. *Idle*: what kopid used of a core in \
         {:.1} s in which nothing happened, over a wire that it has to look at every two milliseconds. {} rounds of both modes in \
         turn; medians over the rounds with the least and the most, in microseconds.\n",
        method.window.as_secs_f64(),
        method.rounds
    )?;
    writeln!(page, "| Worker | kopi p50 | kopi p99 | UDP p50 | UDP p99 | p50 above UDP | Idle | Cores apart, ns |")?;
    writeln!(page, "| --- | --- | --- | --- | --- | --- | --- | --- |")?;
    for mode in [Kopi::PLAIN.name, Kopi::ADAPTIVE.name] {
        let of_mode = || rounds.iter().filter(|round| round.mode == mode);
        let figure = |figure: fn(&Round) -> f64| Spread::of(of_mode().map(figure)).map(text).unwrap_or_default();
        let above = |round: &Round| micros(round.wakes.kopi.p50_ns) - micros(round.wakes.udp.p50_ns);
        writeln!(
            page,
            "| {mode} | {} | {} | {} | {} | {} | {} % | {} |",
            figure(|round| micros(round.wakes.kopi.p50_ns)),
            figure(|round| micros(round.wakes.kopi.p99_ns)),
            figure(|round| micros(round.wakes.udp.p50_ns)),
            figure(|round| micros(round.wakes.udp.p99_ns)),
            figure(above),
            figure(|round| round.idle_share * 100.0),
            figure(|round| round.one_way_ns),
        )?;
    }
    let median = |mode: &str, figure: fn(&Round) -> f64| {
        Spread::of(rounds.iter().filter(|round| round.mode == mode).map(figure)).map(|spread| spread.median)
    };
    let above = median(Kopi::PLAIN.name, |round| micros(round.wakes.kopi.p50_ns) - micros(round.wakes.udp.p50_ns));
    if let (Some(above), Some(idle)) = (above, median(Kopi::ADAPTIVE.name, |round| round.idle_share)) {
        writeln!(
            page,
            "\n- p50 at most {:.0} µs above UDP: {}",
            ABOVE_UDP_NS / 1000.0,
            held(above * 1000.0 <= ABOVE_UDP_NS)
        )?;
        writeln!(page, "- an idle kopid below {:.0} % of a core: {}", IDLE * 100.0, held(idle < IDLE))?;
    }
    writeln!(page)
}

fn load(page: &mut String, results: &Results) -> fmt::Result {
    for (direction, samples) in &results.load {
        writeln!(
            page,
            "## Full load, 64 bytes, {direction:?}\n\n| State | poll, Mpps | adaptive, Mpps | adaptive / poll | Pairs | |"
        )?;
        writeln!(page, "| --- | --- | --- | --- | --- | --- |")?;
        for state in State::ALL {
            let of = |name: &str| -> Vec<(u32, f64)> {
                let all = samples.samples.iter().filter(|sample| sample.contender == name && sample.state == state);
                all.map(|sample| (sample.round, sample.measured.mpps)).collect()
            };
            let (poll, adaptive) = (of(Kopi::PLAIN.name), of(Kopi::ADAPTIVE.name));
            let Some(ratio) = Spread::of(paired_ratios(&adaptive, &poll)) else { continue };
            let mpps = |all: &[(u32, f64)]| Spread::of(all.iter().map(|(_, mpps)| *mpps)).map(text).unwrap_or_default();
            let (verdict, pairs) = (held(ratio.median >= LOAD), ratio.count);
            writeln!(
                page,
                "| {state} | {} | {} | {} | {pairs} | {verdict} |",
                mpps(&poll),
                mpps(&adaptive),
                text(ratio)
            )?;
        }
        writeln!(page, "\nThrown away: {} changed, {} disturbed.\n", samples.changed, samples.disturbed)?;
        samples.skipped.iter().try_for_each(|(name, why)| writeln!(page, "Left out: {name}: {why}\n"))?;
    }
    Ok(())
}

fn micros(ns: u64) -> f64 {
    f64::from(u32::try_from(ns).unwrap_or(u32::MAX)) / 1000.0
}

fn text(spread: Spread) -> String {
    format!("{:.2} ({:.2} to {:.2})", spread.median, spread.min, spread.max)
}

const fn held(held: bool) -> &'static str {
    if held { "held" } else { "**not held**" }
}
