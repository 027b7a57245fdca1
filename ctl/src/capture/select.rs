//! Which frames, beside libpcap's expression: by owner, direction and what became of them.

use clap::{Args, ValueEnum};
use kopi_api::request::{self, Way, Which};

/// Selectors. Within one list one is enough; all stated lists have to hold.
#[derive(Args, Debug, Default)]
#[command(next_help_heading = "Owners and verdicts")]
pub(crate) struct Selectors {
    /// Only frames that the app or wire receives (in), or sends (out)
    #[arg(short = 'Q', long, value_enum, value_name = "DIRECTION")]
    pub(crate) direction: Option<Direction>,
    /// Only what was let through
    #[arg(long, conflicts_with = "dropped")]
    pub(crate) passed: bool,
    /// Only what was dropped, for whatever reason
    #[arg(long)]
    pub(crate) dropped: bool,
    #[command(flatten)]
    pub(crate) owner: Owner,
    /// Only what this rule has decided
    #[arg(long, value_name = "NAME")]
    pub(crate) rule: Vec<String>,
    /// Only what was dropped for this reason; `kopictl drops` has their names
    #[arg(long, value_name = "NAME")]
    pub(crate) reason: Vec<String>,
    /// Keep one of N
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) sample: Option<u64>,
}

/// Whose frames.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Owners and verdicts")]
pub(crate) struct Owner {
    /// Of apps with such a name
    #[arg(long, value_name = "GLOB")]
    pub(crate) app: Vec<String>,
    /// Of this user, by name or number
    #[arg(long, value_name = "USER")]
    pub(crate) user: Vec<String>,
    /// Of this group, by name or number
    #[arg(long, value_name = "GROUP")]
    pub(crate) group: Vec<String>,
    /// Of this process
    #[arg(long)]
    pub(crate) pid: Vec<u32>,
    /// Of processes that call themselves so
    #[arg(long, value_name = "GLOB")]
    pub(crate) comm: Vec<String>,
    /// Of processes that run such a program
    #[arg(long, value_name = "GLOB")]
    pub(crate) exe: Vec<String>,
    /// Of processes in this cgroup or below
    #[arg(long, value_name = "PATH")]
    pub(crate) cgroup: Vec<String>,
}

/// From the side of the app or wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Direction {
    /// Received
    In,
    /// Sent
    Out,
    /// Both
    Inout,
}

impl Selectors {
    /// The same in a request.
    pub(crate) fn request(&self) -> request::Capture {
        let Self { direction, passed, dropped, owner, rule, reason, sample } = self;
        let Owner { app, user, group, pid, comm, exe, cgroup } = owner.clone();
        request::Capture {
            direction: direction.map(|direction| match direction {
                Direction::In => Way::In,
                Direction::Out => Way::Out,
                Direction::Inout => Way::InOut,
            }),
            which: passed.then_some(Which::Passed).or_else(|| dropped.then_some(Which::Dropped)),
            rule: rule.clone(),
            reason: reason.clone(),
            sample: *sample,
            app,
            user,
            group,
            pid,
            comm,
            exe,
            cgroup,
            ..request::Capture::default()
        }
    }
}
