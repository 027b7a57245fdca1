//! kopid: the command line.
#![forbid(unsafe_code)]

use clap::Parser;
use kopi_config::{Config, Policy};
use kopi_dataplane::policy::Machine;
use kopi_dataplane::{daemon, logging};
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// How long whoever reads the log is waited for at the end.
const FAREWELL: Duration = Duration::from_secs(1);

/// The software SmartNIC: owns the wire, gives every attached DPDK application its own port.
#[derive(Debug, Parser)]
#[command(name = "kopid", disable_version_flag = true)]
struct Arguments {
    /// The daemon's configuration
    #[arg(long, value_name = "FILE", default_value = "/etc/kopi/kopid.toml")]
    config: PathBuf,
    /// Check the configuration and do nothing else
    #[arg(long)]
    check: bool,
    /// Show the versions of kopi, DPDK and the ring protocol
    #[arg(long, short = 'V')]
    version: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            logging::say(format!("kopid: {error}"));
            logging::finish(FAREWELL);
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), Box<dyn std::error::Error>> {
    if arguments.version {
        return Ok(io::stdout().write_all(version().as_bytes())?);
    }
    let config = Config::load(&arguments.config)?;
    if arguments.check {
        let policy = config.policy.as_ref().map(Policy::read).transpose()?;
        let warnings = policy.iter().flat_map(|policy| [policy.warnings.clone(), Machine::warnings(policy)]).flatten();
        for warning in config.warnings.iter().cloned().chain(warnings) {
            writeln!(io::stderr(), "{warning}")?;
        }
        daemon::check(&config)?;
        return Ok(writeln!(io::stdout(), "{}: ok", arguments.config.display())?);
    }
    logging::start(config.log.level.as_str().parse().unwrap_or(log::LevelFilter::Info))?;
    for warning in &config.warnings {
        log::warn!("{warning}");
    }
    daemon::run(&config)?;
    logging::finish(FAREWELL);
    Ok(())
}

fn version() -> String {
    format!(
        "kopi {}\nDPDK built {} (ABI {}), running {}\nring protocol {}\n",
        env!("CARGO_PKG_VERSION"),
        dpdk::eal::built_version(),
        dpdk::eal::abi(),
        dpdk::eal::version(),
        kopi_ring::PROTOCOL
    )
}
