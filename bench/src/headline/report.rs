//! The page of the figure.

use std::fmt::{self, Write};
use std::fs;

use super::ablation::{Ablation, case};
use super::arms::{Arm, SETTINGS};
use super::cell::{Cell, Rate};
use super::trips::microseconds;
use super::{Results, victim};
use crate::machine::Machine;
use crate::policy::{FLOWS, texts};
use crate::probe::State;
use crate::qos::protection::{BUSY, IDLE, RATE};
use crate::report::{PAIRS, held};
use crate::rounds::{Experiment as _, Method, Samples};
use crate::stats::Spread;
use crate::throughput::Direction;

/// What a figure of a sample is.
type Figure = fn(&Rate) -> f64;

/// A ratio that the project promises, at least, in a state.
struct Goal {
    cell: (Direction, u16, bool),
    arms: (Arm, Arm),
    figure: Figure,
    what: &'static str,
    least: fn(State) -> Option<f64>,
}

const MPPS: Figure = |rate| rate.mpps;
const PER_CORE: Figure = Rate::per_core;
const PLAIN: (Arm, Arm) = (Arm::Kopi, Arm::Vhost);
/// What is said of both figures.
const IN_ALL: &str = "Mpps";
const A_CORE: &str = "Mpps a busy core";

/// A goal of rates, which may differ between cores that are near and far.
const fn goal(cell: (Direction, u16, bool), arms: (Arm, Arm), least: fn(State) -> Option<f64>) -> Goal {
    Goal { cell, arms, figure: MPPS, what: IN_ALL, least }
}

/// A goal of kopi with everything on, of rates a core.
const fn core_goal(direction: Direction) -> Goal {
    let arms = (Arm::Everything, Arm::Kernel);
    Goal { cell: (direction, 64, false), arms, figure: PER_CORE, what: A_CORE, least: |_| Some(5.0) }
}

const GOALS: [Goal; 10] = [
    goal((Direction::Tx, 1518, false), PLAIN, |state| by_state(state, 1.5, 1.5)),
    goal((Direction::Tx, 1518, true), PLAIN, |state| by_state(state, 1.1, 1.5)),
    goal((Direction::Rx, 1518, false), PLAIN, |state| by_state(state, 1.2, 0.8)),
    goal((Direction::Rx, 1518, true), PLAIN, |state| by_state(state, 1.2, 0.9)),
    goal((Direction::Tx, 64, false), (Arm::Everything, Arm::Vhost), |_| Some(1.0)),
    goal((Direction::Rx, 64, false), (Arm::Everything, Arm::Vhost), |_| Some(1.0)),
    goal((Direction::Tx, 64, false), (Arm::Everything, Arm::Ovs), |_| Some(2.0)),
    goal((Direction::Rx, 64, false), (Arm::Everything, Arm::Ovs), |_| Some(2.0)),
    core_goal(Direction::Tx),
    core_goal(Direction::Rx),
];

const fn by_state(state: State, near: f64, far: f64) -> Option<f64> {
    match state {
        State::Near => Some(near),
        State::Far => Some(far),
        State::Siblings => None,
    }
}

/// The best variant of an arm in a cell and a state.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Best {
    /// The contender's name.
    pub(super) name: &'static str,
    /// Million frames per second, in all and for each busy core.
    pub(super) mpps: Spread,
    pub(super) per_core: Spread,
    /// Busy cores.
    cores: Spread,
    /// What reached the wire, if the arm counts it.
    delivered: Option<Spread>,
}

/// The variant of `arm` with the highest median rate in `state`.
pub(super) fn best(samples: &Samples<Rate>, arm: Arm, state: State) -> Option<Best> {
    let of_arm = samples.samples.iter().filter(|sample| Arm::of(sample.contender, sample.family) == arm);
    let mut names: Vec<_> = of_arm.map(|sample| sample.contender).collect();
    names.sort_unstable();
    names.dedup();
    let best = names.into_iter().filter_map(|name| {
        let here = samples.samples.iter().filter(|sample| sample.contender == name && sample.state == state);
        Some(Best {
            name,
            mpps: samples.spread(name, state, MPPS)?,
            per_core: samples.spread(name, state, PER_CORE)?,
            cores: samples.spread(name, state, |rate| rate.cores)?,
            delivered: Spread::of(here.filter_map(|sample| sample.measured.delivered)),
        })
    });
    best.max_by(|a, b| a.mpps.median.total_cmp(&b.mpps.median))
}

/// A figure of one arm divided by that of another one, round by round.
fn ratio(samples: &Samples<Rate>, (ours, theirs): (Arm, Arm), state: State, figure: Figure) -> Option<Spread> {
    let [ours, theirs] = [best(samples, ours, state)?, best(samples, theirs, state)?];
    samples.ratio((ours.name, theirs.name), state, figure)
}

/// Writes the page.
///
/// # Errors
///
/// Never, for a `String` takes everything.
pub(crate) fn page(machine: &Machine, method: &Method, results: &Results) -> Result<String, fmt::Error> {
    let mut page = String::new();
    heading(&mut page, machine, method)?;
    if !results.cells.is_empty() {
        writeln!(page, "![Frames per second and busy core by arm](headline-{}.svg)\n", machine.date)?;
        goals(&mut page, results)?;
        arms(&mut page, method)?;
        for (cell, samples) in &results.cells {
            rates(&mut page, cell, samples)?;
        }
    }
    if let Some(found) = &results.ablation {
        ablation(&mut page, found)?;
    }
    if !results.victims.is_empty() {
        victims(&mut page, results)?;
    }
    Ok(page)
}

fn heading(page: &mut String, machine: &Machine, method: &Method) -> fmt::Result {
    let Machine { date, cpu, cpus, kernel, hypervisor, dpdk, ovs, commit, command_line } = machine;
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split_whitespace().take(3).collect::<Vec<_>>().join(", ");
    writeln!(
        page,
        "# The same load through the kernel, bypass, vhost, Open vSwitch and kopi, {date}\n\n| | |\n| --- | --- |"
    )?;
    writeln!(page, "| Machine | {cpu}, {cpus} processors, hypervisor: {hypervisor} |\n| Kernel | {kernel} |")?;
    writeln!(
        page,
        "| DPDK | {dpdk} |\n| Open vSwitch | {ovs} |\n| Commit | {commit} |\n| Command | `{command_line}` |"
    )?;
    writeln!(page, "| Load average at the end (1, 5, 15 minutes) | {load} |\n")?;
    writeln!(
        page,
        "{} rounds of every contender in turn, {:.2} s of warm-up and a window of {:.2} s each. Medians (smallest to largest, \
         samples). Ratios are taken within a round and a state of the cores: {}. A ratio of fewer than {PAIRS} pairs judges nothing.\n",
        method.rounds,
        method.warm_up.as_secs_f64(),
        method.window.as_secs_f64(),
        method.thresholds
    )
}

fn goals(page: &mut String, results: &Results) -> fmt::Result {
    writeln!(
        page,
        "## Goals\n\n| Cell | What | State | At least | Measured | Held |\n| --- | --- | --- | --- | --- | --- |"
    )?;
    for Goal { cell: (direction, frame_len, touched), arms, figure, what, least } in &GOALS {
        let wanted = |cell: &Cell| (cell.direction, cell.frame_len, cell.touched) == (*direction, *frame_len, *touched);
        let Some((cell, samples)) = results.cells.iter().find(|(cell, _)| wanted(cell)) else { continue };
        for state in State::ALL {
            let (Some(least), Some(found)) = (least(state), ratio(samples, *arms, state, *figure)) else { continue };
            let held = held(found, found.median >= least);
            let ((ours, _), (theirs, _)) = (arms.0.look(), arms.1.look());
            let (label, found) = (cell.label(), Spread::text(Some(found), 2));
            writeln!(page, "| {label} | {what}: {ours} / {theirs} | {state} | {least:.1} | {found} | {held} |")?;
        }
    }
    writeln!(page)
}

fn arms(page: &mut String, method: &Method) -> fmt::Result {
    let wire = match &method.wire {
        Some(wire) => format!("`{}`, for all but the kernel", wire.device()),
        None => format!(
            "for TX one that takes everything (`net_null`), for RX one that copies {FLOWS} prepared frames in turn out of \
             memory (`net_pcap`), on the core of whoever owns it; the kernel has devices of its own"
        ),
    };
    writeln!(
        page,
        "## Rates\n\nUDP over IPv4, {FLOWS} flows whose frames take turns. The application sends prepared frames or receives \
         and counts. *Written*: it writes all of each payload; *read*: it sums all bytes of each frame; else it leaves the \
         payload alone. Wire: {wire}. *Cores*: processor time \
         of all processes of an arm, over the time that passed; for a kernel that sends, of the application's core.\n"
    )?;
    let lines = [
        "*kernel*: one UDP socket in a network namespace; 32 frames a system call to send, one to receive. nftables: a set of \
         9,999 addresses and ports to drop, a set of 10,000 addresses to accept with the connection's state, by the owner for \
         what is sent; htb with nine classes. What is sent ends in a `dummy` device, or `ifb`, which throws away likewise. What \
         is received comes through a veth pair from a packet socket on the other core; of that core, interrupts alone count, \
         which is where the kernel receives",
        "*raw bypass*: the application has the wire, and nothing is between",
        "*vhost*: testpmd forwards between the wire and vhost-user, unseen; the best of three kinds of rings",
        "*OVS, 1,000 rules*: Open vSwitch with DPDK; 1,000 rules by address and port that none of the load matches, before the \
         one that forwards; the best of two kinds of rings",
        "*kopi, no policy*: kopid with one worker",
        "*kopi, no policy, memory shared*: the same with `share_memory = true`, reading long frames out of the application's memory",
        "*kopi, everything on*: the same, with 10,000 rules, the last of which decides by a set of 10,000 addresses, the \
         connection's state and the owner; nine classes; and a capture of all ports with a filter",
    ];
    lines.iter().try_for_each(|line| writeln!(page, "- {line}."))?;
    writeln!(page)
}

fn rates(page: &mut String, cell: &Cell, samples: &Samples<Rate>) -> fmt::Result {
    writeln!(page, "### {}\n", cell.label())?;
    writeln!(page, "| State | Arm | Mpps | Cores | Mpps a core | / vhost | a core / kernel | Reached the wire |")?;
    writeln!(page, "| --- | --- | --- | --- | --- | --- | --- | --- |")?;
    for state in State::ALL {
        for arm in Arm::ALL {
            let Some(found) = best(samples, arm, state) else { continue };
            let (label, _) = arm.look();
            let name = if matches!(arm, Arm::Vhost | Arm::Ovs) {
                format!("{label} (`{}`)", found.name)
            } else {
                label.to_owned()
            };
            let against = |other: Arm, figure| Spread::text(ratio(samples, (arm, other), state, figure), 2);
            let delivered = found.delivered.map(|share| format!("{:.1} %", share.median * 100.0));
            writeln!(
                page,
                "| {state} | {name} | {} | {:.2} | {} | {} | {} | {} |",
                Spread::text(Some(found.mpps), 2),
                found.cores.median,
                Spread::text(Some(found.per_core), 2),
                against(Arm::Vhost, MPPS),
                against(Arm::Kernel, PER_CORE),
                delivered.unwrap_or_else(|| "-".to_owned()),
            )?;
        }
    }
    thrown_away(page, samples)
}

/// What is missing of an experiment, and why.
fn thrown_away<M>(page: &mut String, samples: &Samples<M>) -> fmt::Result {
    let Samples { changed, disturbed, skipped, .. } = samples;
    writeln!(
        page,
        "\nThrown away: {changed} samples during which the state changed, {disturbed} that were disturbed.\n"
    )?;
    for (name, why) in skipped {
        writeln!(page, "Left out: {name}: {}\n", why.lines().next().unwrap_or_default())?;
    }
    Ok(())
}

fn ablation(page: &mut String, found: &Ablation) -> fmt::Result {
    writeln!(page, "## What each function of kopi costs\n")?;
    writeln!(
        page,
        "The worker alone, 64 bytes, {FLOWS} flows in turn. *ns*: for which the worker was busy, for each frame that came to it; \
         *more*: than without a policy, within a round. *Instructions*: a frame, device included, as `kopi-bench-instructions` \
         counts them; its classes are one of each direction, but nine with everything on. RX in ns has the copy of the wire in \
         it.\n"
    )?;
    SETTINGS.iter().try_for_each(|(name, what)| writeln!(page, "- `{name}`: {what}"))?;
    if let Err(why) = &found.instructions {
        writeln!(page, "\nInstructions are left out: {why}")?;
    }
    writeln!(
        page,
        "\n| | Setting | Instructions | More | State | ns | More ns |\n| --- | --- | --- | --- | --- | --- | --- |"
    )?;
    for (direction, samples) in &found.times {
        let count = |name| found.instructions.as_ref().ok()?.get(&case(*direction, name)).copied();
        let text = |count: Option<f64>| count.map_or_else(|| "-".to_owned(), |count| format!("{count:.1}"));
        for (name, _) in SETTINGS {
            let instructions = count(name);
            let more = instructions.zip(count(texts::NONE)).map(|(count, none)| count - none);
            let (instructions, more) = (text(instructions), text(more));
            let mut rows = 0;
            for state in State::ALL {
                let Some(ns) = samples.spread(name, state, |rate| rate.worker_ns) else { continue };
                let [ours, none] = [name, texts::NONE].map(|name| samples.figures(name, state, |rate| rate.worker_ns));
                let partner = |round| none.iter().find(|&&(other, _)| other == round);
                let differences = ours.iter().filter_map(|&(round, ns)| Some(ns - partner(round)?.1));
                let (ns, difference) = (Spread::text(Some(ns), 1), Spread::text(Spread::of(differences), 1));
                writeln!(page, "| {direction} | {name} | {instructions} | {more} | {state} | {ns} | {difference} |")?;
                rows += 1;
            }
            if rows == 0 {
                writeln!(page, "| {direction} | {name} | {instructions} | {more} | - | - | - |")?;
            }
        }
    }
    found.times.iter().try_for_each(|(_, samples)| thrown_away(page, samples))
}

fn victims(page: &mut String, results: &Results) -> fmt::Result {
    writeln!(page, "## A victim's round trip while others flood\n")?;
    writeln!(
        page,
        "{RATE} frames of 64 bytes a second go round a wire of {}, in a class of the first priority, while four others, each \
         with a class, do nothing (`idle`) or send frames of 1518 bytes as fast as they may (`busy`). One thread has all \
         sockets, or all ports. kopi: the wire is `net_ring`, which gives back what it takes. Kernel: a veth pair with htb to a \
         namespace where a UDP echo polls on the other core.\n",
        victim::WIRE
    )?;
    writeln!(
        page,
        "| Arm | State | Others | p50 µs | p99 µs | p99.9 µs | Lost |\n| --- | --- | --- | --- | --- | --- | --- |"
    )?;
    for (arm, found) in &results.victims {
        let Ok(samples) = found else { continue };
        for state in State::ALL {
            for name in [IDLE, BUSY] {
                let of = |ns: fn(&crate::latency::Trips) -> u64| {
                    samples.spread(name, state, |trips| microseconds(ns(trips)))
                };
                let Some(p50) = of(|trips| trips.p50_ns) else { continue };
                let [p99, p999] = [of(|trips| trips.p99_ns), of(|trips| trips.p999_ns)];
                let [p50, p99, p999] = [Some(p50), p99, p999].map(|spread| Spread::text(spread, 1));
                let lost: u64 = samples
                    .samples
                    .iter()
                    .filter(|s| s.contender == name && s.state == state)
                    .map(|s| s.measured.lost)
                    .sum();
                writeln!(page, "| {arm} | {state} | {name} | {p50} | {p99} | {p999} | {lost} |")?;
            }
        }
    }
    writeln!(page)?;
    for (arm, found) in &results.victims {
        match found {
            Ok(samples) => thrown_away(page, samples)?,
            Err(why) => writeln!(page, "Left out: {arm}: {}\n", why.lines().next().unwrap_or_default())?,
        }
    }
    Ok(())
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::arms::EVERYTHING;
    use super::*;
    use crate::contender::Family;
    use crate::latency::Trips;
    use crate::rounds::Sample;
    use std::path::PathBuf;

    /// Five rounds of one cell in one state, in which vhost-packed is the better vhost, and one sample in another.
    pub(in super::super) fn results() -> Results {
        let sample = |contender, family, round, mpps, cores| Sample {
            contender,
            family,
            round,
            state: State::Near,
            measured: Rate::of(mpps, cores),
        };
        let round = |round| {
            [
                sample("kernel", Family::Kernel, round, 0.5, 1.0),
                sample("vhost-split", Family::Vhost, round, 8.0, 2.0),
                sample("vhost-packed", Family::Vhost, round, 10.0, 2.0),
                sample("ovs-packed", Family::Ovs, round, 4.0, 2.0),
                sample("kopi", Family::Kopi, round, 12.0, 2.0),
                sample(EVERYTHING, Family::Kopi, round, 9.0, 2.0),
            ]
        };
        let mut samples: Vec<_> = (0..5).flat_map(round).collect();
        samples.push(Sample { state: State::Far, ..sample("kopi", Family::Kopi, 0, 7.0, 2.0) });
        let skipped = vec![("raw", "no wire\nmore".to_owned())];
        let cell = Cell { direction: Direction::Tx, frame_len: 64, touched: false, file: PathBuf::new() };
        let samples = Samples { samples, changed: 1, disturbed: 2, skipped };
        Results { cells: vec![(cell, samples)], ..Results::default() }
    }

    fn written(results: &Results) -> String {
        page(&Machine::default(), &Method::default(), results).expect("a string takes everything")
    }

    #[test]
    fn everything_on_is_an_arm_of_its_own_and_a_broken_goal_is_said() {
        let page = written(&results());
        for line in [
            "| TX 64 B | Mpps: kopi, everything on / vhost | near | 1.0 | 0.90 (0.90 to 0.90, 5) | **no** |",
            "| TX 64 B | Mpps: kopi, everything on / OVS, 1,000 rules | near | 2.0 | 2.25 (2.25 to 2.25, 5) | yes |",
            "| TX 64 B | Mpps a busy core: kopi, everything on / kernel | near | 5.0 | 9.00 (9.00 to 9.00, 5) | yes |",
            "| near | vhost (`vhost-packed`) | 10.00 (10.00 to 10.00, 5) | 2.00 | 5.00 (5.00 to 5.00, 5) | 1.00 (1.00 to 1.00, 5) | 10.00 (10.00 to 10.00, 5) | - |",
            "| far | kopi, no policy | 7.00 (7.00 to 7.00, 1) | 2.00 | 3.50 (3.50 to 3.50, 1) | - | - | - |",
            "Left out: raw: no wire\n",
        ] {
            assert!(page.contains(line), "{line} is not in\n{page}");
        }
    }

    #[test]
    fn few_pairs_judge_nothing() {
        let mut few = results();
        few.cells[0].1.samples.retain(|sample| sample.round < 4);
        assert!(written(&few).contains("| 1.0 | 0.90 (0.90 to 0.90, 4) | too few pairs |"));
    }

    #[test]
    fn costs_are_differences_within_a_round() {
        let sample = |contender, round, worker_ns| {
            let measured = crate::policy::Rate { mpps: 1.0, worker_ns, dropped: 0.0, evicted: 0.0 };
            Sample { contender, family: Family::Kopi, round, state: State::Near, measured }
        };
        let samples = vec![
            sample(texts::NONE, 0, 40.0),
            sample(texts::ONE, 0, 44.0),
            sample(texts::NONE, 1, 80.0),
            sample(texts::ONE, 1, 85.0),
        ];
        let instructions = [(texts::NONE, 300.0), (texts::ONE, 310.5)];
        let instructions = instructions.map(|(name, count)| (case(Direction::Tx, name), count)).into();
        let times = vec![(Direction::Tx, Samples { samples, ..Samples::default() })];
        let ablation = Some(Ablation { times, instructions: Ok(instructions) });
        let page = written(&Results { ablation, ..Results::default() });
        let line = "| TX | one | 310.5 | 10.5 | near | 64.5 (44.0 to 85.0, 2) | 4.5 (4.0 to 5.0, 2) |";
        assert!(page.contains(line), "{page}");
        assert!(page.contains("| TX | everything | - | - | - | - | - |"), "{page}");
    }

    #[test]
    fn a_victim_has_a_line_for_each_load() {
        let trips = Trips { count: 9, lost: 1, p50_ns: 1500, p99_ns: 2500, p999_ns: 3500 };
        let sample =
            |contender| Sample { contender, family: Family::Kopi, round: 0, state: State::Far, measured: trips };
        let samples = Samples { samples: vec![sample(IDLE), sample(BUSY)], ..Samples::default() };
        let victims = vec![("kopi", Ok(samples)), ("kernel", Err("no nft".to_owned()))];
        let page = written(&Results { victims, ..Results::default() });
        assert!(
            page.contains(
                "| kopi | far | busy | 1.5 (1.5 to 1.5, 1) | 2.5 (2.5 to 2.5, 1) | 3.5 (3.5 to 3.5, 1) | 1 |"
            ),
            "{page}"
        );
        assert!(page.contains("Left out: kernel: no nft"), "{page}");
    }
}
