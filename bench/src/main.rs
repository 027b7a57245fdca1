//! Runs kopi side by side with other ways to join an application to a wire, and writes a results page.
//!
//! - [`contender`]: the systems, one file each
//! - [`throughput`], [`latency`], [`policy`], [`capture`], [`qos`], [`wake`]: what is measured; [`compare`]: of two builds;
//!   [`headline`]: everything at once
//! - [`rounds`]: how samples are taken
//! - [`probe`]: the latency between two cores, by which samples are filed
//! - [`process`], [`testpmd`], [`setup`], [`namespace`], [`interrupt`]: programs under test and their surroundings
//! - [`stats`], [`report`], [`plot`], [`machine`]: from samples to the page

#![forbid(unsafe_code)]

mod app;
mod capture;
mod cli;
mod compare;
mod contender;
mod error;
mod headline;
mod interrupt;
mod latency;
mod machine;
mod namespace;
mod plot;
mod policy;
mod probe;
mod process;
mod qos;
mod report;
mod rounds;
mod setup;
mod stats;
mod testpmd;
mod throughput;
mod wake;

use std::process::ExitCode;

use clap::Parser;

/// This crate's folder, where results go by default.
const FOLDER: &str = env!("CARGO_MANIFEST_DIR");

/// Says on standard error how far the run is.
#[expect(clippy::print_stderr, reason = "progress of a command-line tool")]
fn progress(text: &str) {
    eprintln!("{text}");
}

fn main() -> ExitCode {
    match cli::run(&cli::Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            progress(&format!("kopi-bench: {error}"));
            ExitCode::FAILURE
        }
    }
}
