//! The command line.

use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;
use std::time::Duration;

/// Most bytes of a socket's path: `sun_path` without the NUL (unix(7), "Address format").
const SOCKET_PATH_MAX: usize = 107;
/// Shortest and longest time between two looks, in seconds.
const WATCH_SECONDS: std::ops::RangeInclusive<f64> = 0.1..=3600.0;

/// Shows what kopid does: its apps, their counters and every dropped frame.
///
/// Exit codes: 0 done, 1 failed, 2 usage, 3 kopid is not reachable, 4 refused.
#[derive(Debug, Parser)]
#[command(name = "kopictl", version)]
pub(crate) struct Arguments {
    /// kopid's control socket
    #[arg(
        long,
        global = true,
        value_name = "PATH",
        env = "KOPI_CONTROL",
        default_value = "/run/kopi/control.sock",
        value_parser = socket_path
    )]
    pub(crate) socket: PathBuf,
    /// Print kopid's answer as one line of JSON
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// What to show
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to show.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// The daemon, its wire and its workers
    Status,
    /// The attached applications: whose they are, and what they have sent and received
    Apps(Apps),
    /// Packets and bytes of every port
    Stats(Stats),
    /// Every reason for which frames were dropped, by port
    Drops,
}

/// Options of `apps`.
#[derive(Args, Debug)]
pub(crate) struct Apps {
    /// Also MTU, modes, memory, program and cgroup
    #[arg(long, short)]
    pub(crate) wide: bool,
}

/// Options of `stats`.
#[derive(Args, Debug)]
pub(crate) struct Stats {
    /// Look again every SECONDS (1 without a number) and show rates, until interrupted
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "1", value_parser = interval)]
    pub(crate) watch: Option<Duration>,
}

fn socket_path(text: &str) -> Result<PathBuf, String> {
    match text.len() {
        0 => Err("empty".into()),
        1..=SOCKET_PATH_MAX => Ok(text.into()),
        n => Err(format!("{n} bytes, a socket's path has {SOCKET_PATH_MAX} at most")),
    }
}

fn interval(text: &str) -> Result<Duration, String> {
    let (min, max) = (WATCH_SECONDS.start(), WATCH_SECONDS.end());
    let seconds = text.parse().ok().filter(|seconds| WATCH_SECONDS.contains(seconds));
    seconds.map(Duration::from_secs_f64).ok_or_else(|| format!("not a number of seconds from {min} to {max}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Arguments, clap::Error> {
        Arguments::try_parse_from(std::iter::once("kopictl").chain(line.split_whitespace()))
    }

    /// `--watch` works without a number, with one, and not with nonsense.
    #[test]
    fn watch_takes_an_optional_interval() {
        let watch = |line: &str| match parse(line).map(|arguments| arguments.command) {
            Ok(Command::Stats(stats)) => Ok(stats.watch),
            other => Err(format!("{other:?}")),
        };
        assert_eq!(watch("stats"), Ok(None));
        assert_eq!(watch("stats --watch"), Ok(Some(Duration::from_secs(1))));
        assert_eq!(watch("stats --watch 0.5 --json"), Ok(Some(Duration::from_millis(500))));
        for bad in ["0", "0.01", "-1", "nan", "inf", "4000", "soon"] {
            assert!(watch(&format!("stats --watch={bad}")).is_err(), "{bad}");
        }
    }

    /// `--socket` and `--json` stand before or after the command; a path that fits no socket is a usage error.
    #[test]
    fn global_options_stand_anywhere() {
        let before = parse("--json --socket /a/b apps -w").unwrap();
        let after = parse("apps --wide --socket /a/b --json").unwrap();
        assert_eq!(format!("{before:?}"), format!("{after:?}"));
        assert!(parse(&format!("--socket /{} apps", "x".repeat(106))).is_ok());
        assert!(parse(&format!("--socket /{} apps", "x".repeat(107))).is_err());
        assert!(parse("").is_err());
    }
}
