//! kopid: what its command line asks for.
#![forbid(unsafe_code)]

mod arguments;

use arguments::Arguments;
use clap::Parser;
use kopi_config::Config;
use kopi_config::check::check_config;
use kopi_dataplane::control::{daemon, logging};
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

/// Timeout for the reader of the log at the end.
const LOG_TIMEOUT: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            logging::print_line(format!("kopid: {error}"));
            logging::finish(LOG_TIMEOUT);
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), Box<dyn std::error::Error>> {
    if arguments.version {
        return Ok(io::stdout().write_all(version().as_bytes())?);
    }
    if arguments.check {
        return check(&arguments.config);
    }
    let config = Config::load(&arguments.config)?;
    logging::start(config.log.level.as_str().parse().unwrap_or(log::LevelFilter::Info))?;
    for warning in &config.warnings {
        log::warn!("{warning}");
    }
    daemon::run(&config)?;
    logging::finish(LOG_TIMEOUT);
    Ok(())
}

/// Says what is wrong with the configuration at `path` and the policy that it names, as a start would find it.
fn check(path: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let (config, files) = check_config(path);
    let mut refused = Vec::new();
    for file in files {
        match file.found {
            Ok(warnings) => warnings.iter().try_for_each(|warning| writeln!(io::stderr(), "{warning}"))?,
            Err(errors) => refused.push(errors.to_string()),
        }
    }
    match config {
        Some(config) => daemon::try_eal(&config)?,
        None => return Err(refused.join("\n\n").into()),
    }
    Ok(writeln!(io::stdout(), "{}: ok", path.display())?)
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
