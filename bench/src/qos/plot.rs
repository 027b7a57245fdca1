//! How near to its ceiling each shaper came, as SVG.

use std::fmt::{self, Write};

use super::report::ceiling_of;
use super::{Results, texts};
use crate::plot::begin;
use crate::stats::Spread;
use crate::throughput::approximate;

const BAR: f64 = 12.0;
const GAP: f64 = 10.0;
const TOP: f64 = 40.0;
const LABEL: f64 = 110.0;
/// Length of a bar that reaches its ceiling, in pixels.
const LENGTH: f64 = 400.0;
const WIDTH: f64 = LABEL + LENGTH + 120.0;
/// The shapers, with the colours of their bars.
const SHAPERS: [(&str, &str); 3] = [("kopi", "#2f6f4f"), ("tbf", "#4a6fa5"), ("htb", "#c9a227")];

/// Draws a group of bars for each length and ceiling: the part of the ceiling that was reached, in whatever state the
/// cores were. `None` if nothing was shaped.
///
/// # Errors
///
/// Never, for a `String` takes everything.
pub(crate) fn plot(results: &Results) -> Result<Option<String>, fmt::Error> {
    let groups = groups(results);
    if groups.is_empty() {
        return Ok(None);
    }
    let bars: usize = groups.iter().map(|(_, bars)| bars.len()).sum();
    let count = |n: usize| approximate(u64::try_from(n).unwrap_or(u64::MAX));
    let height = TOP + count(bars) * BAR + count(groups.len()) * GAP;
    let mut svg = begin("Part of the ceiling that was reached", WIDTH, height)?;
    let full = LABEL + LENGTH;
    writeln!(svg, "<path d=\"M{full:.0} {:.0}V{height:.0}\" stroke=\"#888888\"/>", TOP - 6.0)?;
    let mut y = TOP;
    for (label, bars) in &groups {
        writeln!(svg, "<text x=\"8\" y=\"{:.1}\">{label}</text>", y + BAR - 3.0)?;
        for &(name, colour, part) in bars {
            let length = LENGTH * part.min(1.05);
            writeln!(
                svg,
                "<rect x=\"{LABEL:.0}\" y=\"{y:.1}\" width=\"{length:.1}\" height=\"{:.1}\" fill=\"{colour}\"/>",
                BAR - 2.0
            )?;
            let (x, base) = (LABEL + length + 4.0, y + BAR - 3.0);
            writeln!(svg, "<text x=\"{x:.1}\" y=\"{base:.1}\" font-size=\"10\">{name} {part:.4}</text>")?;
            y += BAR;
        }
        y += GAP;
    }
    writeln!(svg, "</svg>")?;
    Ok(Some(svg))
}

/// What a bar says: who, in which colour, and the part of the ceiling.
type Bar = (&'static str, &'static str, f64);

fn groups(results: &Results) -> Vec<(String, Vec<Bar>)> {
    let kernel = results.tc.as_ref().and_then(|tc| tc.as_ref().ok()).map_or(&[][..], Vec::as_slice);
    let mut groups = Vec::new();
    for (length, samples) in &results.shaping {
        for (ceiling, rate) in texts::CEILINGS {
            let of_kopi = samples.samples.iter().filter(|sample| sample.contender == ceiling);
            let ours = Spread::of(of_kopi.map(|sample| sample.measured.total() / approximate(rate)));
            let bar = |(name, colour)| {
                let theirs = kernel.iter().find(|it| (it.shaper, it.length, it.ceiling) == (name, *length, ceiling));
                let part = match name {
                    "kopi" => ours.map(|ours| ours.median),
                    _ => theirs.map(|shaped| shaped.bits / approximate(ceiling_of(ceiling))),
                };
                part.map(|part| (name, colour, part))
            };
            groups.push((format!("{length} B, {ceiling}"), SHAPERS.into_iter().filter_map(bar).collect()));
        }
    }
    groups
}
