//! Options of `top`, after those of top(1).

use clap::Args;
use std::time::Duration;

/// Shortest and longest time between two looks, in seconds.
const DELAY_SECONDS: std::ops::RangeInclusive<f64> = 0.1..=3600.0;

/// Options of `top`.
#[derive(Args, Clone, Debug)]
pub(crate) struct TopOptions {
    /// Print text and read no keys, for scripts. What is shown first is of the first interval
    #[arg(short, long)]
    pub(crate) batch: bool,
    /// End after COUNT looks
    #[arg(short = 'n', long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) iterations: Option<u32>,
    /// Time between two looks, which rates are over
    #[arg(short, long, value_name = "SECONDS", default_value = "1", value_parser = delay)]
    pub(crate) delay: Duration,
    /// Show only this table: apps, classes, workers or drops (without -b: at first)
    #[arg(short, long, value_name = "TABLE")]
    pub(crate) pane: Option<Pane>,
    /// Sort by this column of the table that -p names, else of apps; + before it for the lowest first
    #[arg(short = 'o', long, value_name = "[+]COLUMN", allow_hyphen_values = true)]
    pub(crate) sort: Option<String>,
    /// Show only rows that have this text in a cell
    #[arg(short, long, value_name = "TEXT", default_value = "")]
    pub(crate) filter: String,
    /// Show only applications of USER, a name or a number
    #[arg(short, long, value_name = "USER", default_value = "")]
    pub(crate) user: String,
}

/// A table of `top`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Pane {
    /// Attached applications.
    Apps,
    /// Classes of the policy.
    Classes,
    /// Threads of the dataplane.
    Workers,
    /// Reasons for which frames were dropped.
    Drops,
}

impl Pane {
    /// All, in the order of their keys.
    pub(crate) const ALL: [Self; 4] = [Self::Apps, Self::Classes, Self::Workers, Self::Drops];

    /// Its name on the command line, on the screen and in JSON.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Apps => "apps",
            Self::Classes => "classes",
            Self::Workers => "workers",
            Self::Drops => "drops",
        }
    }
}

/// A number of seconds.
pub(crate) fn delay(text: &str) -> Result<Duration, String> {
    let (min, max) = (DELAY_SECONDS.start(), DELAY_SECONDS.end());
    let seconds = text.parse().ok().filter(|seconds| DELAY_SECONDS.contains(seconds));
    seconds.map(Duration::from_secs_f64).ok_or_else(|| format!("not a number of seconds from {min} to {max}"))
}
