//! The results page, in Markdown.

use std::fmt::{self, Write};

use crate::contender::{Family, Kopi};
use crate::latency;
use crate::machine::Machine;
use crate::probe::State;
use crate::rounds::Method;
use crate::stats::{Spread, paired_ratios};
use crate::throughput::{Cell, CellResult, Direction};

/// What a promise is made for: a direction, a length, whether payload is touched, and the family that kopi is compared with.
type What = (Direction, u16, bool, Family);

/// The least ratio of kopi to another family that the project promises, where the cores are near and where they are far.
const GOALS: [(What, [f64; 2]); 10] = [
    ((Direction::Tx, 64, false, Family::Vhost), [1.8, 2.5]),
    ((Direction::Tx, 64, false, Family::Ovs), [2.0, 2.0]),
    ((Direction::Rx, 64, false, Family::Vhost), [1.4, 1.1]),
    ((Direction::Rx, 64, false, Family::Ovs), [1.2, 1.2]),
    ((Direction::Tx, 1518, false, Family::Vhost), [1.5, 1.5]),
    ((Direction::Tx, 1518, true, Family::Vhost), [1.1, 1.5]),
    ((Direction::Tx, 1518, false, Family::Ovs), [1.0, 1.0]),
    ((Direction::Rx, 1518, false, Family::Vhost), [1.2, 0.8]),
    ((Direction::Rx, 1518, true, Family::Vhost), [1.2, 0.9]),
    ((Direction::Rx, 1518, false, Family::Ovs), [1.0, 1.0]),
];
/// Pairs without which a ratio is not judged.
pub(crate) const PAIRS: usize = 5;

/// The best variant of a family in one cell and state.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Best {
    /// The variant's name.
    pub(crate) name: &'static str,
    /// Its rates, in million frames per second.
    pub(crate) mpps: Spread,
}

impl CellResult {
    /// The variant of `family` with the highest median in `state`.
    pub(crate) fn best(&self, family: Family, state: State) -> Option<Best> {
        let all = self.contenders().into_iter().filter(|&(_, of)| of == family);
        // kopi stands for itself as it is by default, if that was measured.
        let default = Kopi::PLAIN.name;
        let fixed = family == Family::Kopi && self.spread(default, state).is_some();
        let all = all.filter(|&(name, _)| !fixed || name == default);
        let best = all.filter_map(|(name, _)| Some(Best { name, mpps: self.spread(name, state)? }));
        best.max_by(|a, b| a.mpps.median.total_cmp(&b.mpps.median))
    }

    /// kopi's rate divided by that of the best variant of `family`, round by round.
    fn ratio(&self, family: Family, state: State) -> Option<Spread> {
        let ours = self.best(Family::Kopi, state)?;
        let theirs = self.best(family, state)?;
        Spread::of(paired_ratios(&self.rates(ours.name, state), &self.rates(theirs.name, state)))
    }

    fn spread(&self, name: &str, state: State) -> Option<Spread> {
        Spread::of(self.rates(name, state).into_iter().map(|(_, mpps)| mpps))
    }

    fn rates(&self, name: &str, state: State) -> Vec<(u32, f64)> {
        let samples = self.samples.samples.iter().filter(|sample| sample.contender == name && sample.state == state);
        samples.map(|sample| (sample.round, sample.measured.mpps)).collect()
    }

    /// Every contender that has a sample, by family and name.
    fn contenders(&self) -> Vec<(&'static str, Family)> {
        let mut all: Vec<_> = self.samples.samples.iter().map(|sample| (sample.contender, sample.family)).collect();
        all.sort_by_key(|&(name, family)| (family, name));
        all.dedup();
        all
    }

    fn delivered(&self, name: &str) -> Option<Spread> {
        Spread::of(
            self.samples
                .samples
                .iter()
                .filter(|sample| sample.contender == name)
                .filter_map(|sample| sample.measured.delivered),
        )
    }
}

/// Writes the page.
///
/// # Errors
///
/// Never, for a `String` takes everything.
pub(crate) fn page(
    machine: &Machine,
    method: &Method,
    cells: &[CellResult],
    trips: &[latency::TripResult],
    plot: Option<&str>,
) -> Result<String, fmt::Error> {
    let mut page = String::new();
    heading(&mut page, machine, method)?;
    if let Some(plot) = plot {
        writeln!(page, "![Frames per second by contender]({plot})\n")?;
    }
    if !cells.is_empty() {
        goals(&mut page, cells)?;
        for state in State::ALL {
            throughput(&mut page, cells, state)?;
        }
        variants(&mut page, cells)?;
    }
    latency::report(&mut page, trips)?;
    Ok(page)
}

fn heading(page: &mut String, machine: &Machine, method: &Method) -> fmt::Result {
    let Machine { date, cpu, cpus, kernel, hypervisor, dpdk, ovs, commit, command_line } = machine;
    let wire = match &method.wire {
        Some(wire) => format!("`{}`", wire.device()),
        None => "a free one (`net_null`) for throughput, a loop (`net_ring`) for latency".to_owned(),
    };
    writeln!(page, "# Side by side, {date}\n")?;
    writeln!(page, "| | |\n| --- | --- |")?;
    writeln!(page, "| Machine | {cpu}, {cpus} processors, hypervisor: {hypervisor} |\n| Kernel | {kernel} |")?;
    writeln!(page, "| DPDK | {dpdk} |\n| Open vSwitch | {ovs} |\n| Commit | {commit} |")?;
    writeln!(page, "| Command | `{command_line}` |\n| Wire | {wire} |\n")?;
    writeln!(
        page,
        "{} rounds of every contender in turn, {:.1} s of warm-up and a window of {:.1} s each. One core for the \
         dataplane, another for the application: an unmodified dpdk-testpmd, which leaves payload alone, or, where frames are \
         *written* or *read*, one of this crate that sends one flow or receives, and writes all payload or sums all bytes. \
         *kopi-shared* has `share_memory = true`: kopid reads long frames out of the application's memory. The one-way \
         latency of a cache line between the two cores tells the machine's state: {}. A sample holds if the state was the same before and \
         after it, and if nobody else ran on the cores. Ratios are taken within a round and a state, against the best \
         variant of the other family.\n",
        method.rounds,
        method.warm_up.as_secs_f64(),
        method.window.as_secs_f64(),
        method.thresholds
    )
}

fn goals(page: &mut String, cells: &[CellResult]) -> fmt::Result {
    let mut rows = String::new();
    for ((direction, frame_len, touched, family), least) in GOALS {
        let wanted = |cell: &Cell| *cell == Cell { direction, frame_len, touched };
        let Some(result) = cells.iter().find(|result| wanted(&result.cell)) else { continue };
        for (state, least) in [State::Near, State::Far].into_iter().zip(least) {
            let Some(ratio) = result.ratio(family, state) else { continue };
            let held = held(ratio, ratio.median >= least);
            let cell = result.cell;
            writeln!(rows, "| {cell} | {family} | {state} | {least:.1} | {} | {held} |", ratio_text(Some(ratio)))?;
        }
    }
    if rows.is_empty() {
        return Ok(());
    }
    writeln!(page, "## Promises\n\n| Cell | Against | State | At least | Measured | Held |")?;
    writeln!(page, "| --- | --- | --- | --- | --- | --- |\n{rows}")
}

/// What is said of a promise, by whether its ratio is good enough.
pub(crate) const fn held(ratio: Spread, enough: bool) -> &'static str {
    match (ratio.count >= PAIRS, enough) {
        (false, _) => "too few pairs",
        (true, true) => "yes",
        (true, false) => "**no**",
    }
}

fn throughput(page: &mut String, cells: &[CellResult], state: State) -> fmt::Result {
    if !cells.iter().any(|result| result.samples.samples.iter().any(|sample| sample.state == state)) {
        return writeln!(page, "No sample of throughput was taken in the {state} state.\n");
    }
    writeln!(page, "## Throughput, {state} state\n")?;
    writeln!(page, "Median Mpps (number of samples), the best variant of each family.\n")?;
    writeln!(page, "| Cell | kopi | vhost | OVS | raw | kopi / vhost | kopi / OVS |")?;
    writeln!(page, "| --- | --- | --- | --- | --- | --- | --- |")?;
    for result in cells {
        write!(page, "| {} |", result.cell)?;
        for family in Family::ALL {
            match result.best(family, state) {
                Some(Best { mpps, .. }) => write!(page, " {:.2} ({}) |", mpps.median, mpps.count)?,
                None => write!(page, " - |")?,
            }
        }
        let ratio = |family| ratio_text(result.ratio(family, state));
        writeln!(page, " {} | {} |", ratio(Family::Vhost), ratio(Family::Ovs))?;
    }
    writeln!(page)
}

fn ratio_text(ratio: Option<Spread>) -> String {
    let text = |ratio: Spread| {
        let Spread { median, min, max, count } = ratio;
        format!("{median:.2} ({min:.2} to {max:.2}, {count} pairs)")
    };
    ratio.map_or_else(|| "-".to_owned(), text)
}

/// Every variant apart, with its spread, and what was left out.
fn variants(page: &mut String, cells: &[CellResult]) -> fmt::Result {
    writeln!(
        page,
        "## Every variant\n\nMpps as median (smallest to largest, samples). On the wire: the share of the frames sent by"
    )?;
    writeln!(
        page,
        "the application that the system says it has sent to the wire, where it counts them; asking takes time, so"
    )?;
    writeln!(page, "it is right to about 1 %.\n")?;
    writeln!(page, "| Cell | Variant | Near | Far | Siblings | On the wire |\n| --- | --- | --- | --- | --- | --- |")?;
    for result in cells {
        for (name, _) in result.contenders() {
            write!(page, "| {} | {name} |", result.cell)?;
            for state in State::ALL {
                match result.spread(name, state) {
                    Some(Spread { median, min, max, count }) => {
                        write!(page, " {median:.2} ({min:.2} to {max:.2}, {count}) |")?;
                    }
                    None => write!(page, " - |")?,
                }
            }
            match result.delivered(name) {
                Some(share) => writeln!(page, " {:.1} % |", share.median * 100.0)?,
                None => writeln!(page, " - |")?,
            }
        }
    }
    let (changed, disturbed) =
        cells.iter().fold((0, 0), |(c, d), result| (c + result.samples.changed, d + result.samples.disturbed));
    writeln!(
        page,
        "\nThrown away: {changed} samples during which the state changed, {disturbed} during which another"
    )?;
    writeln!(page, "process ran on the cores.\n")?;
    for result in cells {
        for (name, why) in &result.samples.skipped {
            writeln!(page, "- Left out of {}: {name}. {}", result.cell, why.lines().next().unwrap_or_default())?;
        }
    }
    writeln!(page)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rounds::{Sample, Samples};
    use crate::throughput::Rate;

    fn result() -> CellResult {
        let sample = |contender, family, round, state, mpps| {
            let measured = Rate { mpps, delivered: None };
            Sample { contender, family, round, state, measured }
        };
        let samples = vec![
            sample("kopi", Family::Kopi, 0, State::Near, 30.0),
            sample("vhost-split", Family::Vhost, 0, State::Near, 10.0),
            sample("vhost-packed", Family::Vhost, 0, State::Near, 15.0),
            sample("kopi", Family::Kopi, 1, State::Far, 12.0),
            sample("vhost-packed", Family::Vhost, 1, State::Near, 16.0),
        ];
        let skipped = vec![("ovs-packed", "not installed".to_owned())];
        let cell = Cell { direction: Direction::Tx, frame_len: 64, touched: false };
        CellResult { cell, samples: Samples { samples, changed: 2, disturbed: 1, skipped } }
    }

    #[test]
    fn the_best_variant_is_that_with_the_highest_median_in_the_state() {
        let best = result().best(Family::Vhost, State::Near).expect("vhost has near samples");
        assert_eq!((best.name, best.mpps.median), ("vhost-packed", 15.5));
        assert_eq!(result().best(Family::Vhost, State::Far), None);
    }

    #[test]
    fn ratios_never_cross_rounds_or_states() {
        let near = result().ratio(Family::Vhost, State::Near).expect("round 0 has both");
        assert_eq!((near.median, near.count), (2.0, 1));
        assert_eq!(result().ratio(Family::Vhost, State::Far), None);
    }

    #[test]
    fn a_promise_that_is_held_and_what_was_left_out_are_on_the_page() {
        let method = Method::default();
        let page = page(&Machine::default(), &method, &[result()], &[], None).expect("a string takes everything");
        assert!(
            page.contains("| TX 64 B | vhost | near | 1.8 | 2.00 (2.00 to 2.00, 1 pairs) | too few pairs |"),
            "{page}"
        );
        let spread = |count| Spread { median: 2.0, min: 2.0, max: 2.0, count };
        assert_eq!([held(spread(PAIRS), true), held(spread(PAIRS), false)], ["yes", "**no**"]);
        assert!(page.contains("ovs-packed. not installed"), "{page}");
    }
}
