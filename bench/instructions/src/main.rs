//! Instructions per frame of kopid's worker and of the driver's burst functions, against their budgets.
//!
//! Time depends on the machine and on what else it does; instructions do not. They are counted by callgrind, which this
//! program starts with itself. Two processes, as EAL starts once in each:
//!
//! - [`worker`]: kopid's worker over a wire of DPDK's, with both ends of the apps' rings;
//! - [`driver`]: `librte_net_kopi.so`, with the daemon's ends of its rings.
#![forbid(unsafe_code)]

mod budgets;
mod callgrind;
mod driver;
mod error;
mod frames;
mod worker;

use budgets::Count;
use clap::{Parser, Subcommand};
use error::Failure;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// The parts that are run under callgrind, as the command line has them.
const WORKER: &str = "worker";
const DRIVER: &str = "driver";

/// Counts instructions per frame and compares them with their budgets.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    #[command(subcommand)]
    part: Option<Part>,
    /// The file of budgets
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../budgets.toml"))]
    budgets: PathBuf,
    /// Write what was counted into the file of budgets
    #[arg(long, conflicts_with = "only")]
    write: bool,
    /// Only the cases whose names have this in them, with all functions that differ
    #[arg(long)]
    only: Option<String>,
    /// The driver [default: librte_net_kopi.so in the folder of this program]
    #[arg(long)]
    driver: Option<PathBuf>,
}

/// What this program does under callgrind.
#[derive(Clone, Debug, Subcommand)]
enum Part {
    #[command(hide = true)]
    Worker {
        folder: PathBuf,
        /// Numbers of the cases
        cases: Vec<usize>,
    },
    #[command(hide = true)]
    Driver {
        folder: PathBuf,
        library: PathBuf,
        /// Numbers of the cases
        cases: Vec<usize>,
    },
}

/// Arguments of EAL for the process that counts the `part`'s instructions, with `more` of them.
fn eal_args(folder: &Path, part: &str, more: &[&str]) -> Vec<String> {
    let prefix = format!("--file-prefix={}", prefix(folder, part));
    let args = ["--no-huge", "-m", "128", "--no-pci", "--no-telemetry", "--no-shconf", "-l", "0", &prefix];
    args.iter().chain(more).map(|word| (*word).to_owned()).collect()
}

/// What EAL calls the folder that it makes and leaves behind.
fn prefix(folder: &Path, part: &str) -> String {
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    format!("{name}-{part}")
}

fn main() -> ExitCode {
    let args = Args::parse();
    let done = match &args.part {
        Some(Part::Worker { folder, cases }) => run_worker(folder, cases),
        Some(Part::Driver { folder, library, cases }) => run_driver(folder, library, cases),
        None => compare(&args),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(failure) => {
            let _told = writeln!(io::stderr(), "kopi-bench-instructions: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run_worker(folder: &Path, cases: &[usize]) -> Result<bool, Failure> {
    let (lab, all) = (worker::Lab::new(folder)?, worker::cases());
    for (number, case) in cases.iter().filter_map(|case| all.get(*case)).enumerate() {
        lab.run(number, case)?;
        callgrind::end_of_case(number);
    }
    Ok(true)
}

fn run_driver(folder: &Path, library: &Path, cases: &[usize]) -> Result<bool, Failure> {
    let (mut lab, all) = (driver::Lab::new(folder, library)?, driver::cases());
    for (number, case) in cases.iter().filter_map(|case| all.get(*case)).enumerate() {
        lab.run(case)?;
        callgrind::end_of_case(number);
    }
    Ok(true)
}

/// Counts all cases that are wanted, and says which are above their budgets. Whether none is.
fn compare(args: &Args) -> Result<bool, Failure> {
    let counts = count(args)?;
    if args.write {
        budgets::write(&args.budgets, &remarks(), &counts)?;
        return Ok(true);
    }
    let budgets = budgets::read(&args.budgets)?;
    let mut out = io::stdout().lock();
    let (mut above, mut below) = (0, 0);
    for (name, count) in &counts {
        let Some(budget) = budgets.get(name) else {
            above += 1;
            writeln!(out, "{:8.1}  has no budget  {name}", count.instructions)?;
            continue;
        };
        let part = count.instructions / budget.instructions * 100.0 - 100.0;
        let verdict = if count.exceeds(budget) { "  ABOVE ITS BUDGET" } else { "" };
        writeln!(out, "{:8.1} {:8.1} {part:+6.1} %  {name}{verdict}", count.instructions, budget.instructions)?;
        above += usize::from(count.exceeds(budget));
        below += usize::from(count.undercuts(budget));
        if count.exceeds(budget) || args.only.is_some() {
            for line in count.differences(budget) {
                writeln!(out, "          {line}")?;
            }
        }
    }
    if above > 0 {
        writeln!(out, "Too many instructions, by the budgets in {}. Cases: {above}.", args.budgets.display())?;
        writeln!(out, "Make them cheaper, or write new budgets with --write and say in the commit what they buy.")?;
        writeln!(out, "Counted with {}; the file says what its budgets were counted with.", remarks())?;
    }
    if below > 0 {
        writeln!(out, "Below their budgets by 2 % or more: {below} cases. Lower these with --write.")?;
    }
    Ok(above == 0)
}

/// The wanted cases with what was counted for each.
fn count(args: &Args) -> Result<Vec<(String, Count)>, Failure> {
    let beside = std::env::current_exe()?.with_file_name("librte_net_kopi.so");
    let library = args.driver.clone().unwrap_or(beside);
    if !library.exists() {
        return Err(Failure::Said(format!(
            "{} is not there: cargo build --release -p 'kopi-driver*'",
            library.display()
        )));
    }
    let wanted = |name: &str| args.only.as_ref().is_none_or(|part| name.contains(part.as_str()));
    let workers: Vec<_> = worker::cases().iter().map(|case| (case.name(), case.units())).collect();
    let drivers: Vec<_> = driver::cases().iter().map(|case| (case.name(), case.units())).collect();
    let folder = Folder::new()?;
    let run = |name: &str, first: &[&Path], cases: &[(String, usize)]| -> Result<Vec<(String, Count)>, Failure> {
        let numbers: Vec<_> = (0..).zip(cases).filter(|(_, (name, _))| wanted(name)).map(|(at, _)| at).collect();
        if numbers.is_empty() {
            return Ok(Vec::new());
        }
        let words = std::iter::once(name.to_owned()).chain(first.iter().map(|path| path.display().to_string()));
        let words: Vec<_> = words.chain(numbers.iter().map(usize::to_string)).collect();
        let counted = callgrind::count(&folder.0, name, &words, numbers.len())?;
        let named = cases.iter().filter(|(name, _)| wanted(name)).zip(counted);
        Ok(named.map(|((name, frames), counted)| (name.clone(), Count::new(&counted, *frames))).collect())
    };
    let (first, second) = std::thread::scope(|scope| {
        let driver = scope.spawn(|| run(DRIVER, &[&folder.0, &library], &drivers));
        let worker = run(WORKER, &[&folder.0], &workers);
        (worker, driver.join())
    });
    let second = second.map_err(|_| Failure::Said("counting the driver's instructions panicked".into()))?;
    let mut counts = first?;
    counts.extend(second?);
    if counts.is_empty() {
        return Err(Failure::Said("no case has such a name".into()));
    }
    Ok(counts)
}

/// What else the counts depend on.
fn remarks() -> String {
    let version = |program: &str, args: &[&str]| {
        let output = Command::new(program).args(args).output().ok()?;
        Some(String::from_utf8(output.stdout).ok()?.lines().next()?.to_owned())
    };
    let parts = [
        version("rustc", &["--version"]),
        version("pkg-config", &["--modversion", "libdpdk"]).map(|version| format!("DPDK {version}")),
        version("valgrind", &["--version"]),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// A folder for callgrind's files and a socket, which goes with its owner.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Result<Self, Failure> {
        let path = std::env::temp_dir().join(format!("kopi-instructions-{}", std::process::id()));
        std::fs::create_dir(&path).map_err(|error| Failure::File { path: path.clone(), error })?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _gone = std::fs::remove_dir_all(&self.0);
        for part in [WORKER, DRIVER] {
            for base in [std::env::var("XDG_RUNTIME_DIR").unwrap_or_default(), "/var/run".into()] {
                let _gone = std::fs::remove_dir_all(Path::new(&base).join("dpdk").join(prefix(&self.0, part)));
            }
        }
    }
}
