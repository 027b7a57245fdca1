//! A bar chart of the rates, as SVG.

use std::fmt::{self, Write};

use crate::contender::Family;
use crate::probe::State;
use crate::report::Best;
use crate::throughput::CellResult;

const BAR: f64 = 14.0;
const GROUP_GAP: f64 = 12.0;
const TOP: f64 = 56.0;
const LABEL: f64 = 84.0;
/// Longest bar, in pixels.
const LENGTH: f64 = 300.0;
/// Width of one state's panel: bar, and the text behind it.
const PANEL: f64 = LENGTH + 130.0;

/// Draws one panel for each state that was seen, one group of bars for each cell, one bar for each family.
///
/// The scale of a panel is that of the systems compared; raw bypass, which is far above them, is cut off at the edge.
///
/// # Errors
///
/// Never, for a `String` takes everything.
pub(crate) fn svg(title: &str, cells: &[CellResult]) -> Result<String, fmt::Error> {
    let per_group = BAR * f64::from(u8::try_from(Family::ALL.len()).unwrap_or(u8::MAX)) + GROUP_GAP;
    let groups = f64::from(u32::try_from(cells.len()).unwrap_or(u32::MAX));
    let seen: Vec<State> = State::ALL.into_iter().filter(|&state| seen_in(cells, state)).collect();
    let states = f64::from(u32::try_from(seen.len().max(1)).unwrap_or(u32::MAX));
    let (width, height) = (LABEL + PANEL * states, TOP + groups * per_group + 12.0);
    let mut svg = begin(title, width, height)?;
    let mut left = LABEL;
    for state in seen {
        writeln!(svg, "<text x=\"{left:.0}\" y=\"40\" font-weight=\"bold\">{state}</text>")?;
        panel(&mut svg, cells, state, left, per_group)?;
        left += PANEL;
    }
    let mut y = TOP;
    for result in cells {
        writeln!(svg, "<text x=\"8\" y=\"{:.1}\">{}</text>", y + BAR * 1.5, result.cell)?;
        y += per_group;
    }
    writeln!(svg, "</svg>")?;
    Ok(svg)
}

/// The beginning of an image of this size in pixels, white, with its title.
pub(crate) fn begin(title: &str, width: f64, height: f64) -> Result<String, fmt::Error> {
    let mut svg = String::new();
    writeln!(
        svg,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" width=\"{width:.0}\" \
         height=\"{height:.0}\" font-family=\"sans-serif\" font-size=\"11\">"
    )?;
    writeln!(svg, "<rect width=\"100%\" height=\"100%\" fill=\"white\"/>")?;
    writeln!(svg, "<text x=\"8\" y=\"18\" font-size=\"14\">{}</text>", escape(title))?;
    Ok(svg)
}

fn seen_in(cells: &[CellResult], state: State) -> bool {
    cells.iter().any(|result| result.samples.samples.iter().any(|sample| sample.state == state))
}

fn panel(svg: &mut String, cells: &[CellResult], state: State, left: f64, per_group: f64) -> fmt::Result {
    let compared = Family::ALL.into_iter().filter(|&family| family != Family::Raw);
    let rates = compared.flat_map(|family| cells.iter().filter_map(move |result| result.best(family, state)));
    let scale = rates.map(|best| best.mpps.max).fold(1.0, f64::max);
    let mut top = TOP;
    for result in cells {
        let mut y = top;
        for family in Family::ALL {
            if let Some(best) = result.best(family, state) {
                bar(svg, family, &best, scale, (left, y))?;
            }
            y += BAR;
        }
        top += per_group;
    }
    Ok(())
}

/// One bar to the median, a line from the smallest to the largest sample, and the median in figures.
fn bar(svg: &mut String, family: Family, best: &Best, scale: f64, (left, y): (f64, f64)) -> fmt::Result {
    let at = |mpps: f64| LENGTH * (mpps / scale).min(1.0);
    let spread = best.mpps;
    let (length, middle) = (at(spread.median), y + BAR / 2.0);
    let height = BAR - 3.0;
    writeln!(
        svg,
        "<rect x=\"{left:.1}\" y=\"{y:.1}\" width=\"{length:.1}\" height=\"{height:.1}\" fill=\"{}\"/>",
        colour(family)
    )?;
    let (from, to) = (left + at(spread.min), left + at(spread.max));
    writeln!(svg, "<path d=\"M{from:.1} {middle:.1}H{to:.1}\" stroke=\"black\"/>")?;
    let (x, baseline) = (left + length.max(at(spread.max)) + 4.0, y + BAR - 4.0);
    let name = escape(best.name);
    writeln!(svg, "<text x=\"{x:.1}\" y=\"{baseline:.1}\" font-size=\"10\">{:.1} {name}</text>", spread.median)
}

fn colour(family: Family) -> &'static str {
    match family {
        Family::Kopi => "#2f6f4f",
        Family::Vhost => "#c9a227",
        Family::Ovs => "#4a6fa5",
        Family::Raw => "#bbbbbb",
        Family::Kernel => "#8c4a4a",
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rounds::{Sample, Samples};
    use crate::throughput::{Cell, Direction, Rate};

    #[test]
    fn one_bar_for_each_family_and_state_that_has_samples() {
        let measured = Rate { mpps: 1.0, delivered: None };
        let sample = |contender, family, state| Sample { contender, family, round: 0, state, measured };
        let samples = vec![
            sample("kopi", Family::Kopi, State::Near),
            sample("vhost-split", Family::Vhost, State::Near),
            sample("vhost-packed", Family::Vhost, State::Near),
            sample("kopi", Family::Kopi, State::Far),
        ];
        let cell = Cell { direction: Direction::Tx, frame_len: 64, touched: false };
        let cells = [CellResult { cell, samples: Samples { samples, ..Samples::default() } }];
        let svg = svg("a < b", &cells).expect("a string takes everything");
        assert_eq!(svg.matches("<path").count(), 3, "{svg}");
        assert!(svg.contains("a &lt; b"));
    }
}
