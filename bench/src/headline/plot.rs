//! The figure, as SVG: a panel for each state of the cores, a group for each cell, a bar for each arm.

use std::fmt::{self, Write};

use super::Results;
use super::arms::Arm;
use super::report::{Best, best};
use crate::plot::begin;
use crate::probe::State;
use crate::rounds::Experiment as _;
use crate::throughput::approximate;

const BAR: f64 = 13.0;
const GAP: f64 = 14.0;
const TOP: f64 = 64.0;
const LABEL: f64 = 120.0;
/// Longest bar, in pixels.
const LENGTH: f64 = 300.0;
/// Width of one state's panel: bar, and the text behind it.
const PANEL: f64 = LENGTH + 240.0;

/// Draws millions of frames per second and busy core: a bar to the median, a line from the smallest to the largest sample, and
/// both figures. The scale of a group is its own; raw bypass, which does nothing, is cut off at the edge. `None` without a rate.
///
/// # Errors
///
/// Never, for a `String` takes everything.
pub(crate) fn plot(results: &Results) -> Result<Option<String>, fmt::Error> {
    let states: Vec<State> = State::ALL.into_iter().filter(|&state| seen(results, state)).collect();
    if states.is_empty() {
        return Ok(None);
    }
    let count = |n: usize| approximate(u64::try_from(n).unwrap_or(u64::MAX));
    let group = BAR * count(Arm::ALL.len()) + GAP;
    let (width, height) = (LABEL + PANEL * count(states.len()), TOP + group * count(results.cells.len()) + 8.0);
    let mut svg = begin("Million frames per second and busy core, 1,000 flows", width, height)?;
    let mut y = TOP;
    for (cell, _) in &results.cells {
        writeln!(svg, "<text x=\"8\" y=\"{:.1}\">{}</text>", y + BAR, cell.label())?;
        y += group;
    }
    let mut left = LABEL;
    for state in states {
        writeln!(svg, "<text x=\"{left:.0}\" y=\"46\" font-weight=\"bold\">{state}</text>")?;
        for ((_, samples), nth) in results.cells.iter().zip(0..) {
            let found: Vec<_> = Arm::ALL.iter().map(|&arm| (arm, best(samples, arm, state))).collect();
            let scaled = found.iter().filter(|(arm, _)| *arm != Arm::Raw).filter_map(|(_, best)| best.as_ref());
            let scale = scaled.map(|best| best.per_core.max).fold(f64::MIN_POSITIVE, f64::max);
            for ((arm, best), row) in found.iter().zip(0..) {
                let top = TOP + group * f64::from(nth) + BAR * f64::from(row);
                best.as_ref().map_or(Ok(()), |best| bar(&mut svg, *arm, best, scale, (left, top)))?;
            }
        }
        left += PANEL;
    }
    writeln!(svg, "</svg>")?;
    Ok(Some(svg))
}

fn seen(results: &Results, state: State) -> bool {
    results.cells.iter().any(|(_, samples)| samples.samples.iter().any(|sample| sample.state == state))
}

fn bar(svg: &mut String, arm: Arm, best: &Best, scale: f64, (left, y): (f64, f64)) -> fmt::Result {
    let at = |rate: f64| LENGTH * (rate / scale).min(1.0);
    let (spread, (name, colour)) = (best.per_core, arm.look());
    let (length, height, middle) = (at(spread.median), BAR - 2.0, y + BAR / 2.0 - 1.0);
    writeln!(
        svg,
        "<rect x=\"{left:.1}\" y=\"{y:.1}\" width=\"{length:.1}\" height=\"{height:.1}\" fill=\"{colour}\"/>"
    )?;
    let (from, to) = (left + at(spread.min), left + at(spread.max));
    writeln!(svg, "<path d=\"M{from:.1} {middle:.1}H{to:.1}\" stroke=\"black\"/>")?;
    let (x, baseline) = (left + length.max(at(spread.max)) + 4.0, y + BAR - 4.0);
    let (per_core, mpps) = (spread.median, best.mpps.median);
    writeln!(
        svg,
        "<text x=\"{x:.1}\" y=\"{baseline:.1}\" font-size=\"10\">{per_core:.2} {name} ({mpps:.2} in all)</text>"
    )
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::results;
    use super::*;

    #[test]
    fn one_bar_for_each_arm_and_state_that_has_samples() {
        let svg = plot(&results()).expect("a string takes everything").expect("there are rates");
        assert_eq!(svg.matches("<path").count(), 6, "{svg}");
        assert!(svg.contains("0.50 kernel (0.50 in all)"), "{svg}");
        assert_eq!(plot(&Results::default()), Ok(None));
    }
}
