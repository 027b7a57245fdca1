//! The command line.

mod capture;
mod support;
mod top;

pub(crate) use capture::{Capture, SNAP};
pub(crate) use support::{CONFIG, Doctor, Support};
pub(crate) use top::{Pane, TopOptions, delay};

use clap::{Args, Parser, Subcommand};
use kopi_api::request::{ConnectionState, Flows, LogLevel};
use kopi_packet::{MacAddr, describe};
use std::path::PathBuf;
use std::time::Duration;

/// Where kopid listens unless it is configured otherwise.
pub(crate) const SOCKET: &str = "/run/kopi/control.sock";
/// Most bytes of a socket's path: `sun_path` without the NUL (unix(7), "Address format").
const SOCKET_PATH_MAX: usize = 107;
/// Shortest and longest time between two looks, in seconds.
const WATCH_SECONDS: std::ops::RangeInclusive<f64> = 0.1..=3600.0;

/// Shows what kopid does, whose frames it moves, and by which rules; checks and reloads its policy.
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
        default_value = SOCKET,
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
    Apps {
        /// Also MTU, modes, memory, program, cgroup, container and pod
        #[arg(long, short)]
        wide: bool,
    },
    /// Packets and bytes of every port
    Stats {
        /// Look again every SECONDS (1 without a number) and show rates, until interrupted
        #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "1", value_parser = interval)]
        watch: Option<Duration>,
    },
    /// Every reason for which frames were dropped, by port and rule
    Drops,
    /// The rules of the policy, and what each has matched
    Rules {
        /// Only these
        #[arg(value_name = "NAME")]
        names: Vec<String>,
    },
    /// The classes of the policy: what each is to get, and what it gets
    Classes {
        /// Only these, and what they are below
        #[arg(value_name = "NAME")]
        names: Vec<String>,
        /// Look again every SECONDS (1 without a number), until interrupted
        #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "1", value_parser = interval)]
        watch: Option<Duration>,
    },
    /// Flows, with their state and the process behind them
    Flows(Flows),
    /// Packets, with the process behind each, as tcpdump shows them; to a file as pcapng
    Capture(Box<Capture>),
    /// Check kopid.toml, with the policy that it names, or a policy; asks no daemon
    Check {
        /// kopid.toml or policy.toml
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Describe ports for containers, as CDI for Podman, Docker, containerd and CRI-O; asks no daemon
    Cdi(Cdi),
    /// Put the configured policy in force anew, or FILE in its place: the whole of it or nothing
    Reload(Reload),
    /// Applications, classes, workers and drops, live; h shows the keys
    Top(TopOptions),
    /// Which rule would decide about a packet, and why
    Explain(Explain),
    /// Move the addresses and routes of the wire's interface to the kernel's port, or back
    Takeover(Takeover),
    /// Show the level of kopid's log, or set it until kopid ends
    Log {
        /// The least important lines that are written from now on
        #[arg(value_enum, value_name = "LEVEL")]
        level: Option<LogLevel>,
    },
    /// Show what of this machine keeps kopid from working, or from working well, and how to mend it
    Doctor(Doctor),
    /// Collect what helps with a fault into one archive, without secrets
    Support(Support),
}

/// Options of `takeover`.
#[derive(Args, Debug)]
pub(crate) struct Takeover {
    /// The interface that is kopid's wire
    #[arg(value_name = "IFACE")]
    pub(crate) interface: String,
    /// Move everything back. Needs no kopid
    #[arg(long)]
    pub(crate) undo: bool,
    /// The interface of the kernel's port; asks kopid without it
    #[arg(long, value_name = "NAME")]
    pub(crate) tap: Option<String>,
    /// Where what was moved is written down [default: /run/kopi/takeover-IFACE.json]
    #[arg(long, value_name = "FILE")]
    pub(crate) state: Option<PathBuf>,
}

/// Where Debian's EAL has the folders from which it loads drivers by itself.
#[cfg(target_arch = "x86_64")]
const DPDK: &str = "/usr/lib/x86_64-linux-gnu/dpdk";
#[cfg(not(target_arch = "x86_64"))]
const DPDK: &str = "/usr/lib/aarch64-linux-gnu/dpdk";

/// Options of `cdi`.
#[derive(Args, Debug)]
pub(crate) struct Cdi {
    /// Names of the ports; without one, those of every [[app]] of the policy
    #[arg(value_name = "NAME")]
    pub(crate) names: Vec<String>,
    /// kopid's file, which says where its sockets and its policy are
    #[arg(long, value_name = "FILE", default_value = "/etc/kopi/kopid.toml")]
    pub(crate) config: PathBuf,
    /// Where the drivers are on this machine
    #[arg(long, value_name = "FOLDER", default_value = "/usr/lib/kopi")]
    pub(crate) drivers: PathBuf,
    /// Where the containers' DPDK has its folders pmds-*; may be said several times
    #[arg(long, value_name = "FOLDER", default_value = DPDK)]
    pub(crate) dpdk: Vec<PathBuf>,
    /// Even if the operators' socket is in the folder that containers get
    #[arg(long)]
    pub(crate) with_control: bool,
}

/// Options of `reload`.
#[derive(Args, Debug)]
pub(crate) struct Reload {
    /// A policy in the place of the configured one, until the next reload. Opened with the rights of whoever runs this
    #[arg(value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Go back to the policy of before after SECONDS, unless it is kept until then
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub(crate) confirm: Option<u32>,
    /// Keep the policy of a reload with --confirm
    #[arg(long, conflicts_with_all = ["file", "confirm"])]
    pub(crate) keep: bool,
}

/// Options of `explain`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Explain {
    /// The app at whose side the packet is judged
    #[arg(long, value_name = "NAME")]
    pub(crate) app: String,
    /// The packet goes to the app, not from it
    #[arg(long)]
    pub(crate) ingress: bool,
    /// What connection tracking says of it: `ct_state` of `kopictl --json flows`
    #[arg(long, value_enum, default_value_t = ConnectionState::New)]
    pub(crate) state: ConnectionState,
    /// The packet, such as 'tcp 10.0.0.1:5432 > 10.0.0.2:999 flags syn dscp 46', or `packet` of `kopictl --json flows`
    #[arg(value_name = "PACKET", value_parser = packet)]
    pub(crate) packet: String,
}

/// A path that fits a socket.
pub(crate) fn socket_path(text: &str) -> Result<PathBuf, String> {
    match text.len() {
        0 => Err("empty".into()),
        1..=SOCKET_PATH_MAX => Ok(text.into()),
        n => Err(format!("{n} bytes, a socket's path has {SOCKET_PATH_MAX} at most")),
    }
}

/// A packet that is described so that kopid understands it.
fn packet(text: &str) -> Result<String, String> {
    let read = describe::key_between(text, MacAddr::ZERO, MacAddr::ZERO, 0);
    read.map(|_| text.to_owned()).map_err(|error| error.to_string())
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
            Ok(Command::Stats { watch }) => Ok(watch),
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
