//! The latency part of the results page.

use std::fmt::{self, Write};

use super::{Pace, TripResult, Trips};
use crate::contender::Family;
use crate::probe::State;
use crate::report::held;
use crate::rounds::{Experiment, Sample};
use crate::stats::{Spread, paired_ratios};

/// Which figure of a window.
type Figure = fn(&Trips) -> u64;

impl TripResult {
    fn of(&self, name: &str, state: State) -> impl Iterator<Item = &Sample<Trips>> {
        self.samples.samples.iter().filter(move |sample| sample.contender == name && sample.state == state)
    }

    fn figures(&self, name: &str, state: State, figure: Figure) -> Vec<(u32, f64)> {
        // Nanoseconds of a trip are far below 2^32; a longer one would have been lost.
        let number = |trips: &Trips| f64::from(u32::try_from(figure(trips)).unwrap_or(u32::MAX));
        self.of(name, state).map(|sample| (sample.round, number(&sample.measured))).collect()
    }

    fn contenders(&self) -> Vec<(&'static str, Family)> {
        let mut all: Vec<_> = self.samples.samples.iter().map(|sample| (sample.contender, sample.family)).collect();
        all.sort_by_key(|&(name, family)| (family, name));
        all.dedup();
        all
    }

    /// p50 of kopi divided by that of the vhost variant with the lowest, round by round.
    fn ratio(&self, state: State) -> Option<(&'static str, Spread)> {
        let median = |name| Spread::of(self.figures(name, state, |trips| trips.p50_ns).into_iter().map(|(_, ns)| ns));
        let vhost = self.contenders().into_iter().filter(|&(_, family)| family == Family::Vhost);
        let (name, _) =
            vhost.filter_map(|(name, _)| Some((name, median(name)?.median))).min_by(|a, b| a.1.total_cmp(&b.1))?;
        let ours = self.figures("kopi", state, |trips| trips.p50_ns);
        let theirs = self.figures(name, state, |trips| trips.p50_ns);
        Some((name, Spread::of(paired_ratios(&ours, &theirs))?))
    }
}

/// The largest ratio of kopi to vhost that the project promises.
const fn most(pace: Pace, state: State) -> f64 {
    match (pace, state) {
        (Pace::OneAtATime, State::Near) => 0.85,
        (Pace::OneAtATime, State::Far) => 0.7,
        _ => 1.0,
    }
}

/// Writes the latency part of the results page.
///
/// # Errors
///
/// Never, for a `String` takes everything.
pub(crate) fn report(page: &mut String, results: &[TripResult]) -> fmt::Result {
    if results.is_empty() {
        return Ok(());
    }
    writeln!(page, "## Round trips through a looped wire\n")?;
    writeln!(
        page,
        "A frame of 64 bytes goes from an application through the system to a wire that gives it back, and the same \
         way to the application. One at a time: the next leaves when the one before is back. Steady: at even distances, \
         timed from when a frame was due. Medians over the samples, in nanoseconds.\n"
    )?;
    writeln!(page, "| Pace | State | Variant | p50 | p99 | p99.9 | Trips | Lost | Samples |")?;
    writeln!(page, "| --- | --- | --- | --- | --- | --- | --- | --- | --- |")?;
    for result in results {
        for state in State::ALL {
            for (name, _) in result.contenders() {
                row(page, result, state, name)?;
            }
        }
    }
    writeln!(page)?;
    for result in results {
        for state in State::ALL {
            if let Some((name, Spread { median, min, max, count })) = result.ratio(state) {
                let most = most(result.pace, state);
                let held = held(Spread { median, min, max, count }, median <= most);
                let label = result.pace.label();
                writeln!(
                    page,
                    "- {label}, {state}: p50 of kopi / {name} is {median:.2} ({min:.2} to {max:.2}, {count} pairs); at most {most:.2}: {held}"
                )?;
            }
        }
        for (name, why) in &result.samples.skipped {
            writeln!(
                page,
                "- Left out of {}: {name}. {}",
                result.pace.label(),
                why.lines().next().unwrap_or_default()
            )?;
        }
    }
    writeln!(page)
}

fn row(page: &mut String, result: &TripResult, state: State, name: &str) -> fmt::Result {
    let figure = |figure| Spread::of(result.figures(name, state, figure).into_iter().map(|(_, ns)| ns));
    let all = (figure(|trips| trips.p50_ns), figure(|trips| trips.p99_ns), figure(|trips| trips.p999_ns));
    let (Some(p50), Some(p99), Some(p999)) = all else { return Ok(()) };
    let (trips, lost) = result
        .of(name, state)
        .fold((0, 0), |(trips, lost), sample| (trips + sample.measured.count, lost + sample.measured.lost));
    let (label, samples) = (result.pace.label(), p50.count);
    let figures = format!("{:.0} | {:.0} | {:.0}", p50.median, p99.median, p999.median);
    writeln!(page, "| {label} | {state} | {name} | {figures} | {trips} | {lost} | {samples} |")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::latency::Pace;
    use crate::rounds::Samples;

    #[test]
    fn kopi_is_compared_with_the_fastest_vhost_of_the_same_round_and_state() {
        let sample = |contender, family, round, p50_ns| {
            let measured = Trips { count: 1000, lost: 2, p50_ns, p99_ns: 2 * p50_ns, p999_ns: 3 * p50_ns };
            Sample { contender, family, round, state: State::Near, measured }
        };
        let samples = vec![
            sample("kopi", Family::Kopi, 0, 450),
            sample("vhost-split", Family::Vhost, 0, 900),
            sample("vhost-packed", Family::Vhost, 0, 500),
            sample("vhost-packed", Family::Vhost, 1, 700),
        ];
        let samples = Samples { samples, ..Samples::default() };
        let result = TripResult { pace: Pace::OneAtATime, samples };
        let (name, ratio) = result.ratio(State::Near).expect("both have near samples");
        assert_eq!((name, ratio.median, ratio.count), ("vhost-packed", 0.9, 1));
        assert_eq!(result.ratio(State::Far), None);

        let mut page = String::new();
        report(&mut page, &[result]).expect("a string takes everything");
        assert!(page.contains("| near | vhost-packed | 600 | 1200 | 1800 | 2000 | 4 | 2 |"), "{page}");
        assert!(page.contains("at most 0.85: too few pairs"), "{page}");
    }
}
