//! The page of the QoS benchmark.

use std::fmt::{self, Write};

use super::load::Sent;
use super::protection::{AGAIN, BULK, BUSY, IDLE, RATE};
use super::tc::Shaped;
use super::unused::Handover;
use super::{LENGTHS, Results, SHAPED, WEIGHED, texts};
use crate::latency::Trips;
use crate::machine::Machine;
use crate::probe::State;
use crate::rounds::{Method, Samples};
use crate::stats::Spread;
use crate::throughput::approximate;

/// Ratios of 64-byte throughput that the project promises, at least.
const COSTS: [(&str, &str, f64); 2] = [(texts::EIGHT, texts::ENTRIES, 0.90), (texts::MANY, texts::EIGHT, 0.97)];
/// How far a rate may be from its ceiling, as a part of it.
const SHAPING: f64 = 0.01;
/// How far a share may be from its weight, as a part of it.
const SHARING: f64 = 0.02;
/// The least index of fairness, and the least part of the wire's rate that is used.
const FAIRNESS: f64 = 0.99;

/// How soon an unused share is taken, and given back, in milliseconds.
const UNUSED: f64 = 10.0;
/// How much longer the p99 of a protected class may be beside others, in nanoseconds.
const PROTECTION: f64 = 20_000.0;

/// Writes the page.
///
/// # Errors
///
/// Never, for a `String` takes everything.
pub(crate) fn page(machine: &Machine, method: &Method, results: &Results) -> Result<String, fmt::Error> {
    let mut page = String::new();
    heading(&mut page, machine, method)?;
    if let Some(samples) = &results.cost {
        cost(&mut page, samples)?;
    }
    if !results.shaping.is_empty() {
        shaping(&mut page, &machine.date, &results.shaping)?;
        if let Some(kernel) = &results.tc {
            beside(&mut page, kernel)?;
        }
    }
    if let Some(samples) = &results.workers {
        workers(&mut page, samples)?;
    }
    sharing(&mut page, results)?;
    if let Some(samples) = &results.unused {
        unused(&mut page, samples)?;
    }
    protection(&mut page, &results.protection)?;
    let shaped = results.shaping.iter().map(|(_, samples)| samples);
    let unused = results.unused.iter().map(|samples| (samples.changed, samples.disturbed));
    let all = shaped.chain(&results.cost).chain(&results.workers).chain(&results.weights).chain(&results.equals);
    let trips = results.protection.iter().map(|(_, samples)| (samples.changed, samples.disturbed));
    let thrown = all.clone().map(|samples| (samples.changed, samples.disturbed)).chain(unused).chain(trips);
    let (changed, disturbed) = thrown.fold((0, 0), |(c, d), (changed, disturbed)| (c + changed, d + disturbed));
    writeln!(page, "Thrown away: {changed} samples during which the state changed, {disturbed} that were disturbed.")?;
    let mut skipped = all.flat_map(|samples| &samples.skipped);
    skipped.try_for_each(|(name, why)| writeln!(page, "\nLeft out: {name}: {why}"))?;
    Ok(page)
}

fn heading(page: &mut String, machine: &Machine, method: &Method) -> fmt::Result {
    let Machine { date, cpu, cpus, kernel, hypervisor, dpdk, commit, command_line, .. } = machine;
    writeln!(page, "# Classes, {date}\n\n| | |\n| --- | --- |")?;
    writeln!(page, "| Machine | {cpu}, {cpus} processors, hypervisor: {hypervisor} |\n| Kernel | {kernel} |")?;
    writeln!(page, "| DPDK | {dpdk} |\n| Commit | {commit} |\n| Command | `{command_line}` |\n")?;
    writeln!(
        page,
        "kopid with one worker where nothing else is said, {} rounds of every policy in turn, {:.1} s of warm-up and a window of {:.1} s each, states \
         of the machine and ratios as on the other pages. All apps are ports of one process, which sends from them in turn \
         as fast as kopid takes. Rates are by the application's count and clock, with 24 bytes of overhead for each \
         frame.\n",
        method.rounds,
        method.warm_up.as_secs_f64(),
        method.window.as_secs_f64()
    )
}

fn cost(page: &mut String, samples: &Samples<Sent>) -> fmt::Result {
    writeln!(page, "## Cost: {} apps, 64 bytes\n", texts::APPS)?;
    texts::COSTS.iter().try_for_each(|(name, what)| writeln!(page, "- `{name}`: {what}"))?;
    writeln!(page, "\n| What | State | Promise | Measured | Held |\n| --- | --- | --- | --- | --- |")?;
    for (ours, theirs, least) in COSTS {
        for state in State::ALL {
            let Some(ratio) = samples.ratio((ours, theirs), state, |sent| sent.mpps) else { continue };
            let (held, ratio) = (held(ratio.median >= least), spread(ratio, 3));
            writeln!(page, "| {ours} / {theirs} | {state} | at least {least:.2} | {ratio} | {held} |")?;
        }
    }
    writeln!(page, "\n| State | Policy | Mpps | Worker ns | / {} |\n| --- | --- | --- | --- | --- |", texts::NONE)?;
    let none = || "-".to_owned();
    for state in State::ALL {
        for (name, _) in texts::COSTS {
            let Some(mpps) = samples.spread(name, state, |sent| sent.mpps) else { continue };
            let worker = samples.spread(name, state, |sent| sent.worker_ns).map_or_else(none, |ns| spread(ns, 1));
            let against =
                samples.ratio((name, texts::NONE), state, |sent| sent.mpps).map_or_else(none, |ratio| spread(ratio, 3));
            writeln!(page, "| {state} | {name} | {} | {worker} | {against} |", spread(mpps, 2))?;
        }
    }
    writeln!(page)
}

fn shaping(page: &mut String, date: &str, shaping: &[(u16, Samples<Sent>)]) -> fmt::Result {
    writeln!(page, "## Shaping: one app, within {:.0} % of its ceiling\n", SHAPING * 100.0)?;
    writeln!(
        page,
        "Where the worker or the application is slower than the ceiling, there is nothing to shape. The \
         [plot](qos-{date}.svg) has the kernel's shapers as well.\n"
    )?;
    ceilings(page, shaping.iter().map(|(length, samples)| (*length, samples)))
}

fn workers(page: &mut String, samples: &Samples<Sent>) -> fmt::Result {
    writeln!(page, "## Shaping by {} workers: a class of {} apps, one at each\n", texts::WORKERS, texts::WORKERS)?;
    writeln!(
        page,
        "Where there are but two cores, the second worker and the application share one, which does not matter as long as \
         their turns are shorter than what lies in rings.\n"
    )?;
    ceilings(page, std::iter::once((SHAPED[1], samples)))
}

/// What was reached of each ceiling with frames of each length.
fn ceilings<'a>(page: &mut String, shaping: impl Iterator<Item = (u16, &'a Samples<Sent>)>) -> fmt::Result {
    writeln!(
        page,
        "| Bytes | Ceiling | State | Mbit/s | Of the ceiling | Held |\n| --- | --- | --- | --- | --- | --- |"
    )?;
    for (length, samples) in shaping {
        for (name, ceiling) in texts::CEILINGS {
            for state in State::ALL {
                let Some(mbit) = samples.spread(name, state, |sent| sent.total() / 1e6) else { continue };
                let part = mbit.median * 1e6 / approximate(ceiling);
                let kept = (mbit.max.max(mbit.median) * 1e6 / approximate(ceiling) - 1.0) <= SHAPING;
                let held = held(kept && part >= 1.0 - SHAPING);
                writeln!(page, "| {length} | {name} | {state} | {} | {part:.4} | {held} |", spread(mbit, 3))?;
            }
        }
    }
    writeln!(page)
}

fn beside(page: &mut String, kernel: &Result<Vec<Shaped>, String>) -> fmt::Result {
    writeln!(page, "### Beside: the kernel's shapers\n")?;
    let shaped = match kernel {
        Ok(shaped) => shaped,
        Err(why) => return writeln!(page, "Left out: {why}\n"),
    };
    writeln!(
        page,
        "One UDP socket over a veth interface with `tc`, one window each, the same bursts, rates without overhead, as these \
         shapers count. Far below the ceiling, it is the socket that is slower.\n"
    )?;
    writeln!(page, "| Shaper | Bytes | Ceiling | Mbit/s | Of the ceiling |\n| --- | --- | --- | --- | --- |")?;
    for Shaped { shaper, length, ceiling, bits } in shaped {
        let part = bits / approximate(ceiling_of(ceiling));
        writeln!(page, "| {shaper} | {length} | {ceiling} | {:.3} | {part:.4} |", bits / 1e6)?;
    }
    writeln!(page)
}

/// Bits per second of one of [`texts::CEILINGS`].
pub(super) fn ceiling_of(name: &str) -> u64 {
    texts::CEILINGS.iter().find(|(ceiling, _)| *ceiling == name).map_or(1, |&(_, rate)| rate)
}

fn sharing(page: &mut String, results: &Results) -> fmt::Result {
    let (Some(weights), Some(equals)) = (&results.weights, &results.equals) else { return Ok(()) };
    writeln!(page, "## SharedAddress a wire of 1 Gbit/s\n")?;
    writeln!(
        page,
        "Weights 1, 2 and 4 with frames of {WEIGHED:?} bytes; eight equals with frames of {LENGTHS:?} bytes.\n"
    )?;
    writeln!(page, "| What | State | Promise | Measured | Held |\n| --- | --- | --- | --- | --- |")?;
    let used = |sent: &Sent| sent.total() / approximate(texts::WIRE);
    for state in State::ALL {
        let rows = [
            (
                "1:2:4: farthest from its share",
                1.0 - SHARING,
                weights.spread("1:2:4", state, |s| 1.0 - s.deviation(&texts::WEIGHTS)),
            ),
            ("1:2:4: part of the wire", FAIRNESS, weights.spread("1:2:4", state, used)),
            ("equal: Jain's index", FAIRNESS, equals.spread("equal", state, Sent::fairness)),
            ("equal: part of the wire", FAIRNESS, equals.spread("equal", state, used)),
        ];
        for (what, least, measured) in rows {
            let Some(measured) = measured else { continue };
            let (held, measured) = (held(measured.median >= least), spread(measured, 4));
            writeln!(page, "| {what} | {state} | at least {least:.2} | {measured} | {held} |")?;
        }
    }
    writeln!(page)
}

fn unused(page: &mut String, samples: &Samples<Handover>) -> fmt::Result {
    writeln!(page, "## Unused shares\n")?;
    writeln!(
        page,
        "Two equal apps saturate the same wire with frames of 64 bytes. One falls silent, and later begins again. How long \
         after its last frame the other one has the wire, and how long after its next one that is back at its half; rates are \
         those of a millisecond.\n"
    )?;
    writeln!(page, "| What | State | Promise | Measured, ms | Held |\n| --- | --- | --- | --- | --- |")?;
    for state in State::ALL {
        let of = |figure: fn(&Handover) -> u64| {
            samples.spread(texts::PAIR, state, |handover| approximate(figure(handover)) / 1000.0)
        };
        for (what, took) in [("taken", of(|h| h.taken_us)), ("given back", of(|h| h.back_us))] {
            let Some(took) = took else { continue };
            let (held, took) = (held(took.median <= UNUSED), spread(took, 1));
            writeln!(page, "| {what} | {state} | at most {UNUSED:.0} | {took} | {held} |")?;
        }
    }
    writeln!(page)
}

fn protection(page: &mut String, wires: &[(&str, Samples<Trips>)]) -> fmt::Result {
    if wires.is_empty() {
        return Ok(());
    }
    writeln!(page, "## Protection: trips of a priority class beside {} bulk apps\n", BULK.len())?;
    writeln!(
        page,
        "{RATE} frames of 64 bytes per second go to a wire that gives them back, while the bulk apps do nothing (`idle`, \
         and `again`) and while they saturate the wire with frames of 1518 bytes (`busy`). p99 beside them may be {:.0} µs \
         above that of `idle`.\n",
        PROTECTION / 1000.0
    )?;
    writeln!(page, "| Wire | State | Bulk | p50 µs | p99 µs | p99.9 µs | Lost | p99 above idle, µs | Held |")?;
    writeln!(page, "| --- | --- | --- | --- | --- | --- | --- | --- | --- |")?;
    for (wire, samples) in wires {
        for state in State::ALL {
            let idle = samples.spread(IDLE, state, |trips| approximate(trips.p99_ns));
            for name in [IDLE, AGAIN, BUSY] {
                let of = |figure: fn(&Trips) -> u64| samples.spread(name, state, |trips| approximate(figure(trips)));
                let (Some(p50), Some(p99), Some(p999)) = (of(|t| t.p50_ns), of(|t| t.p99_ns), of(|t| t.p999_ns)) else {
                    continue;
                };
                let lost = of(|t| t.lost).map_or(0.0, |lost| lost.max);
                let above = idle.map(|idle| p99.median - idle.median);
                let above_us = above.map_or_else(|| "-".to_owned(), |above| format!("{:.1}", above / 1000.0));
                let kept = if name == BUSY { above.map_or("-", |above| held(above <= PROTECTION)) } else { "-" };
                let [p50, p99, p999] = [p50, p99, p999].map(microseconds);
                writeln!(
                    page,
                    "| {wire} | {state} | {name} | {p50} | {p99} | {p999} | {lost} | {above_us} | {kept} |"
                )?;
            }
        }
    }
    writeln!(page)
}

fn microseconds(of: Spread) -> String {
    let Spread { median, min, max, count } = of;
    spread(Spread { median: median / 1000.0, min: min / 1000.0, max: max / 1000.0, count }, 1)
}

fn held(held: bool) -> &'static str {
    if held { "yes" } else { "**no**" }
}

fn spread(spread: Spread, digits: usize) -> String {
    let Spread { median, min, max, count } = spread;
    format!("{median:.digits$} ({min:.digits$} to {max:.digits$}, {count})")
}

#[cfg(test)]
mod tests {
    use super::super::plot;
    use super::*;
    use crate::contender::Family;
    use crate::rounds::Sample;

    fn samples(of: &[(&'static str, f64, &[f64])]) -> Samples<Sent> {
        let sample = |&(contender, mpps, bits): &(&'static str, f64, &[f64])| {
            let measured = Sent { bits: bits.into(), mpps, worker_ns: 40.0, dropped: 0 };
            Sample { contender, family: Family::Kopi, round: 0, state: State::Near, measured }
        };
        Samples { samples: of.iter().map(sample).collect(), ..Samples::default() }
    }

    fn handovers(of: &[(u64, u64)]) -> Samples<Handover> {
        let sample = |&(taken_us, back_us): &(u64, u64)| Sample {
            contender: texts::PAIR,
            family: Family::Kopi,
            round: 0,
            state: State::Near,
            measured: Handover { taken_us, back_us },
        };
        Samples { samples: of.iter().map(sample).collect(), ..Samples::default() }
    }

    fn trips(of: &[(&'static str, u64)]) -> Samples<Trips> {
        let sample = |&(contender, p99_ns): &(&'static str, u64)| {
            let measured = Trips { count: 9, lost: 0, p50_ns: 1000, p99_ns, p999_ns: 30_000 };
            Sample { contender, family: Family::Kopi, round: 0, state: State::Near, measured }
        };
        Samples { samples: of.iter().map(sample).collect(), ..Samples::default() }
    }

    #[test]
    fn a_broken_promise_is_said_to_be_broken() {
        let cost = [(texts::ENTRIES, 20.0, &[][..]), (texts::EIGHT, 17.0, &[]), (texts::MANY, 16.9, &[])];
        let results = Results {
            cost: Some(samples(&cost)),
            shaping: vec![(64, samples(&[("1mbit", 0.0, &[995_000.0]), ("10mbit", 0.0, &[10_200_000.0])]))],
            workers: Some(samples(&[("100mbit", 0.0, &[50_300_000.0, 50_300_000.0])])),
            tc: Some(Ok(vec![Shaped { shaper: "tbf", length: 64, ceiling: "1mbit", bits: 990_000.0 }])),
            weights: Some(samples(&[("1:2:4", 0.0, &[1.5e8, 2.8e8, 5.7e8])])),
            equals: Some(samples(&[("equal", 0.0, &[5e8, 5e8])])),
            unused: Some(handovers(&[(300, 11_000)])),
            protection: vec![("1gbit", trips(&[(IDLE, 2000), (BUSY, 23_000)]))],
        };
        let svg = plot(&results).expect("a string takes everything").expect("something was shaped");
        assert!(svg.contains(">kopi 0.9950<") && svg.contains(">tbf 0.9900<"), "{svg}");
        let page = page(&Machine::default(), &Method::default(), &results).expect("a string takes everything");
        for line in [
            "| eight / entries | near | at least 0.90 | 0.850 (0.850 to 0.850, 1) | **no** |",
            "| many / eight | near | at least 0.97 | 0.994 (0.994 to 0.994, 1) | yes |",
            "| taken | near | at most 10 | 0.3 (0.3 to 0.3, 1) | yes |",
            "| given back | near | at most 10 | 11.0 (11.0 to 11.0, 1) | **no** |",
            "| 64 | 1mbit | near | 0.995 (0.995 to 0.995, 1) | 0.9950 | yes |",
            "| 1518 | 100mbit | near | 100.600 (100.600 to 100.600, 1) | 1.0060 | yes |",
            "| tbf | 64 | 1mbit | 0.990 | 0.9900 |",
            "| 64 | 10mbit | near | 10.200 (10.200 to 10.200, 1) | 1.0200 | **no** |",
            "| 1:2:4: farthest from its share | near | at least 0.98 | 0.9500 (0.9500 to 0.9500, 1) | **no** |",
            "| 23.0 (23.0 to 23.0, 1) | 30.0 (30.0 to 30.0, 1) | 0 | 21.0 | **no** |",
            "| equal: Jain's index | near | at least 0.99 | 1.0000 (1.0000 to 1.0000, 1) | yes |",
        ] {
            assert!(page.contains(line), "{line} is not in\n{page}");
        }
    }
}
