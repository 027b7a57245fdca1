//! The command line, and the run that it asks for.

use std::env;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use clap::{Parser, Subcommand};

use crate::app::pin;
use crate::contender::{Contender, Kopi, Ovs, Raw, Vhost, Virtqueue};
use crate::error::{BenchError, Doing, Result};
use crate::interrupt::Interrupt;
use crate::latency::{Pace, TripResult, app};
use crate::machine::Machine;
use crate::probe::{self, Thresholds};
use crate::rounds::{self, Method};
use crate::setup::{Folder, HugePages, Setup, Wire, find_program};
use crate::throughput::{Cell, CellResult, Direction};
use crate::{capture, compare as builds, headline, plot, policy, progress, qos, report, wake};

/// Frames above this length, in bytes, are also measured with payload that the application touches.
const LONG: u16 = 1024;
/// Huge pages of 2 MiB for all contenders of a cell at once.
const HUGE_PAGES: u64 = 700;

/// Runs kopi side by side with vhost-user forwarding, Open vSwitch and raw bypass.
#[derive(Debug, Parser)]
#[command(version)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,

    /// Fewer rounds, shorter windows, frames of 64 and 1518 bytes only
    #[arg(long, global = true)]
    quick: bool,
    /// Rounds of every contender in turn [default: 5, quick: 2]
    #[arg(long, global = true)]
    rounds: Option<u32>,
    /// Seconds over which a rate is taken [default: 2, quick: 1; half of it for `headline`]
    #[arg(long, global = true)]
    window: Option<f64>,
    /// Seconds before the window [default: 1, quick: 0.5; half of it for `headline`]
    #[arg(long, global = true)]
    warm_up: Option<f64>,
    /// Frame lengths in bytes, without the checksum [default: 64,512,1518, quick: 64,1518]
    #[arg(long, global = true, value_delimiter = ',', value_parser = clap::value_parser!(u16).range(64..=9000))]
    sizes: Option<Vec<u16>>,
    /// Round trips per second at a steady pace
    #[arg(long, global = true, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    trips_per_second: u32,
    /// Only these contenders, by name; for `policy`, only these of its parts: tx, rx, flood, million, reload; for `capture`: tx,
    /// tx-one, rx, rx-one; for `qos`: cost, shaping, workers, sharing, unused, protection; for `wake`: wakes, load; for
    /// `headline`: tx, rx, ablation, victim
    #[arg(long, global = true, value_delimiter = ',')]
    only: Option<Vec<String>>,
    /// Core of the dataplane (kernel CPU number)
    #[arg(long, global = true, default_value_t = 0)]
    dataplane_core: usize,
    /// Core of the application
    #[arg(long, global = true, default_value_t = 1)]
    app_core: usize,
    /// One-way latencies between the cores, in nanoseconds: below the first they are threads of one core if they slow each
    /// other down, below the second they are near, from the third on the machine is disturbed
    #[arg(long, global = true, default_value = "25,80,300")]
    thresholds: Thresholds,
    /// A wire of yours instead of the virtual ones: a PCI address bound to vfio-pci, or device arguments
    #[arg(long, global = true)]
    wire: Option<String>,
    /// Folder of kopid, kopictl and librte_net_kopi.so [default: the folder of this program]
    #[arg(long, global = true)]
    kopi: Option<PathBuf>,
    /// The unmodified DPDK application
    #[arg(long, global = true, default_value = "dpdk-testpmd")]
    testpmd: String,
    /// Do not build kopi first
    #[arg(long, global = true)]
    no_build: bool,
    /// Folder of the results page
    #[arg(long, global = true)]
    output: Option<PathBuf>,
}

#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
enum What {
    /// Throughput and latency
    All,
    /// Frames per second, both directions
    Throughput,
    /// Round trips through a looped wire
    Latency,
    /// The application of the latency benchmark, which starts it by itself
    #[command(hide = true, name = app::COMMAND)]
    LatencyApp {
        /// Core to run on
        core: usize,
        /// Arguments for EAL
        #[arg(last = true)]
        eal: Vec<String>,
    },
    /// What a policy costs, and how long a reload of it holds up frames
    Policy,
    /// The application of the policy benchmark, which starts it by itself
    #[command(hide = true, name = policy::COMMAND)]
    PolicyApp {
        /// Core to run on
        core: usize,
        /// Length of the frames, in bytes without the checksum
        #[arg(value_parser = clap::value_parser!(u16).range(64..=1518))]
        length: u16,
        /// Send frames to the application instead of from it
        #[arg(long)]
        to_app: bool,
        /// Receive frames to whatever address
        #[arg(long)]
        promiscuous: bool,
        /// Arguments for EAL
        #[arg(last = true)]
        eal: Vec<String>,
    },
    /// How well classes shape and share, and what they cost
    Qos,
    /// The application of the QoS benchmark, which starts it by itself
    #[command(hide = true, name = qos::COMMAND)]
    QosApp {
        /// Core to run on
        core: usize,
        /// What to do
        work: qos::Work,
        /// Length of the frames of each port, in bytes without the checksum
        #[arg(value_delimiter = ',', value_parser = clap::value_parser!(u16).range(64..=1518))]
        lengths: Vec<u16>,
        /// Arguments for EAL
        #[arg(last = true)]
        eal: Vec<String>,
    },
    /// The sender of the QoS benchmark beside the kernel's shapers, which starts it by itself
    #[command(hide = true, name = qos::SOCKET_COMMAND)]
    QosSocket {
        /// Core to run on
        core: usize,
        /// Length of the frames, in bytes without the checksum
        #[arg(value_parser = clap::value_parser!(u16).range(64..=1518))]
        length: u16,
    },
    /// What capture sessions cost
    Capture,
    /// Wake-ups beside those of the kernel, an idle kopid, and what its sleep costs under load
    Wake,
    /// The application of the wake-up benchmark, which starts it by itself
    #[command(hide = true, name = wake::COMMAND)]
    WakeApp {
        /// Core to run on
        core: usize,
        /// Arguments for EAL
        #[arg(last = true)]
        eal: Vec<String>,
    },
    /// The same load through the kernel, raw bypass, vhost, Open vSwitch with rules and kopi with everything on
    Headline,
    /// The application of the kernel's arm of `headline`, which starts it by itself
    #[command(hide = true, name = headline::SOCKET_COMMAND)]
    HeadlineSocket {
        /// Core to run on
        core: usize,
        /// Length of the frames, in bytes without the checksum
        #[arg(value_parser = clap::value_parser!(u16).range(64..=1518))]
        length: u16,
    },
    /// The victim of `headline` in the kernel, which starts it by itself
    #[command(hide = true, name = headline::trips::COMMAND)]
    HeadlineTrips {
        /// Core to run on
        core: usize,
        /// Length of the frames of each bulk socket, in bytes without the checksum
        #[arg(value_delimiter = ',', value_parser = clap::value_parser!(u16).range(64..=1518))]
        lengths: Vec<u16>,
    },
    /// What answers it
    #[command(hide = true, name = headline::trips::ECHO_COMMAND)]
    HeadlineEcho {
        /// Core to run on
        core: usize,
    },
    /// Two builds of kopi side by side: throughput and round trips, and their ratios
    Compare {
        /// Folder of the first kopid and librte_net_kopi.so
        a: PathBuf,
        /// Folder of the second
        b: PathBuf,
    },
    /// Only the latency between the two cores, ten times
    Probe,
}

/// Does what the command line asks for.
///
/// # Errors
///
/// When the machine lacks something without which no contender can run, and on Ctrl-C.
pub(crate) fn run(args: &Args) -> Result<()> {
    match &args.what {
        What::LatencyApp { core, eal } => app::run(*core, eal),
        What::PolicyApp { core, length, to_app, promiscuous, eal } => {
            policy::run(*core, *length, *to_app, *promiscuous, eal)
        }
        What::QosApp { core, work, lengths, eal } => qos::run(*core, *work, lengths, eal),
        What::QosSocket { core, length } => qos::run_sender(*core, *length),
        What::Policy => measure_cost(args, "policy", policy::measure, policy::page, |_| Ok(None)),
        What::Capture => measure_cost(args, "capture", capture::measure, capture::page, |_| Ok(None)),
        What::Qos => measure_cost(args, "qos", qos::measure, qos::page, qos::plot),
        What::WakeApp { core, eal } => wake::run(*core, eal),
        What::Wake => measure_cost(args, "wake", wake::measure, wake::page, |_| Ok(None)),
        What::HeadlineSocket { core, length } => headline::run_socket(*core, *length),
        What::HeadlineTrips { core, lengths } => headline::trips::run(*core, lengths),
        What::HeadlineEcho { core } => headline::trips::run_echo(*core),
        What::Headline => measure_cost(args, "headline", headline::measure, headline::page, headline::plot),
        What::Compare { a, b } => compare_builds(args, [a, b]),
        What::Probe => show_probe(args, &interrupt()?),
        What::All => compare(args, interrupt()?, &args.cells(), &args.paces()),
        What::Throughput => compare(args, interrupt()?, &args.cells(), &[]),
        What::Latency => compare(args, interrupt()?, &[], &args.paces()),
    }
}

fn interrupt() -> Result<Interrupt> {
    Interrupt::from_signals().doing(|| "set up signals".to_owned())
}

/// Measures all that is asked for and writes the results page.
fn compare(args: &Args, interrupt: Interrupt, cells: &[Cell], paces: &[Pace]) -> Result<()> {
    if args.kopi.is_none() && !args.no_build {
        build_kopi();
    }
    let setup = args.setup(interrupt)?;
    let method = args.method();
    let contenders = args.contenders()?;
    let _pages = HugePages::reserve(HUGE_PAGES)?;

    let mut rates = Vec::new();
    for &cell in cells {
        let contenders: Vec<_> = contenders.iter().filter(|contender| cell.wants(contender.name())).collect();
        rates.push(CellResult { cell, samples: rounds::run(&cell, &setup, &contenders, &method)? });
    }
    let mut trips = Vec::new();
    for &pace in paces {
        // Frames of trips are short.
        let contenders: Vec<_> = contenders.iter().filter(|contender| contender.name() != Kopi::SHARED.name).collect();
        trips.push(TripResult { pace, samples: rounds::run(&pace, &setup, &contenders, &method)? });
    }
    args.write(&method, &rates, &trips)
}

/// Measures what something costs kopid alone and writes its page, whose name begins with `stem`, and its plot if there is
/// one.
fn measure_cost<R>(
    args: &Args,
    stem: &str,
    measure: impl FnOnce(&Setup, &Method, Option<&[String]>) -> Result<R>,
    page: impl FnOnce(&Machine, &Method, &R) -> std::result::Result<String, fmt::Error>,
    plot: impl FnOnce(&R) -> std::result::Result<Option<String>, fmt::Error>,
) -> Result<()> {
    let setup = args.setup_alone(interrupt()?)?;
    let method = args.method();
    let _pages = HugePages::reserve(HUGE_PAGES)?;
    let results = measure(&setup, &method, args.only.as_deref())?;
    let machine = Machine::look();
    let written = |error: fmt::Error| BenchError::Failed(format!("write the page: {error}"));
    let name = format!("{stem}-{}", machine.date);
    if let Some(svg) = plot(&results).map_err(written)? {
        args.write_file(&format!("{name}.svg"), &svg)?;
    }
    args.write_file(&format!("{name}.md"), &page(&machine, &method, &results).map_err(written)?)
}

/// Measures two builds and writes their page.
fn compare_builds(args: &Args, folders: [&PathBuf; 2]) -> Result<()> {
    let setup = args.setup(interrupt()?)?;
    let method = args.method();
    let _pages = HugePages::reserve(HUGE_PAGES)?;
    let folders = folders.map(PathBuf::as_path);
    let results = builds::measure(&setup, &method, folders, &args.cells_of(&[64, 1518]), &[Pace::OneAtATime])?;
    let machine = Machine::look();
    let page = builds::page(&machine, &method, &results);
    let page = page.map_err(|error| BenchError::Failed(format!("write the page: {error}")))?;
    args.write_file(&format!("compare-{}.md", machine.date), &page)
}

impl Args {
    fn setup(&self, interrupt: Interrupt) -> Result<Setup> {
        let testpmd = find_program(&self.testpmd);
        let testpmd = testpmd.ok_or_else(|| BenchError::Failed(format!("{} is not installed", self.testpmd)))?;
        let beside = || env::current_exe().ok()?.parent().map(Path::to_path_buf);
        let kopi = self.kopi.clone().or_else(beside).unwrap_or_default();
        Ok(Setup {
            dataplane_core: self.dataplane_core,
            app_core: self.app_core,
            folder: Folder::create()?,
            program: env::current_exe().doing(|| "find this program".to_owned())?,
            testpmd,
            kopi,
            interrupt,
        })
    }

    /// For kopid alone, which is built first. This program and what it starts stay off the worker's core, but for those who
    /// choose it.
    fn setup_alone(&self, interrupt: Interrupt) -> Result<Setup> {
        if self.kopi.is_none() && !self.no_build {
            build_kopi();
        }
        let setup = self.setup(interrupt)?;
        pin(setup.app_core)?;
        Ok(setup)
    }

    /// Writes a results file under this name.
    fn write_file(&self, name: &str, text: &str) -> Result<()> {
        let path = self.folder()?.join(name);
        fs::write(&path, text).doing(|| format!("write {}", path.display()))?;
        progress(&format!("results: {}", path.display()));
        Ok(())
    }

    fn method(&self) -> Method {
        let full = match (&self.what, self.quick) {
            (What::Headline, quick) => headline::method(quick),
            (_, true) => Method::quick(),
            (_, false) => Method::default(),
        };
        let seconds =
            |given: Option<f64>, default| given.map_or(default, |s| Duration::from_secs_f64(s.clamp(0.0, 3600.0)));
        Method {
            rounds: self.rounds.unwrap_or(full.rounds),
            warm_up: seconds(self.warm_up, full.warm_up),
            window: seconds(self.window, full.window),
            thresholds: self.thresholds,
            wire: self.wire.as_ref().map(Wire::new),
            anew: matches!(self.what, What::Compare { .. }),
        }
    }

    fn cells(&self) -> Vec<Cell> {
        self.cells_of(if self.quick { &[64, 1518] } else { &[64, 512, 1518] })
    }

    /// Both directions of each length that is asked for, or else of these; of the longest ones also with payload that is touched.
    fn cells_of(&self, default: &[u16]) -> Vec<Cell> {
        let sizes = self.sizes.as_deref().unwrap_or(default);
        let both = [Direction::Tx, Direction::Rx].into_iter();
        let all = both.flat_map(|direction| {
            let cell = move |(&frame_len, touched)| Cell { direction, frame_len, touched };
            sizes.iter().flat_map(|frame_len| [(frame_len, false), (frame_len, true)]).map(cell)
        });
        // Of a short frame, the payload is in the same line as what every application touches.
        all.filter(|cell| !cell.touched || cell.frame_len > LONG).collect()
    }

    fn paces(&self) -> Vec<Pace> {
        vec![Pace::OneAtATime, Pace::Steady(self.trips_per_second)]
    }

    fn contenders(&self) -> Result<Vec<Box<dyn Contender>>> {
        let mut all: Vec<Box<dyn Contender>> = vec![Box::new(Kopi::PLAIN), Box::new(Kopi::SHARED)];
        for virtqueue in [Virtqueue::Split, Virtqueue::SplitInOrder, Virtqueue::Packed] {
            all.push(Box::new(Vhost(virtqueue)));
        }
        for virtqueue in [Virtqueue::SplitInOrder, Virtqueue::Packed] {
            all.push(Box::new(Ovs { virtqueue, rules: 0 }));
        }
        all.push(Box::new(Raw));
        let Some(only) = &self.only else { return Ok(all) };
        let names: Vec<_> = all.iter().map(|contender| contender.name()).collect();
        if let Some(unknown) = only.iter().find(|name| !names.contains(&name.as_str())) {
            return Err(BenchError::Failed(format!("no contender {unknown}; there are {}", names.join(", "))));
        }
        all.retain(|contender| only.iter().any(|name| name == contender.name()));
        Ok(all)
    }

    /// Where results pages go.
    fn folder(&self) -> Result<PathBuf> {
        let folder = self.output.clone().unwrap_or_else(|| Path::new(crate::FOLDER).join("results"));
        fs::create_dir_all(&folder).doing(|| format!("create {}", folder.display()))?;
        Ok(folder)
    }

    /// Writes the results page and its plot, named after the day and the kind of machine.
    fn write(&self, method: &Method, rates: &[CellResult], trips: &[TripResult]) -> Result<()> {
        let machine = Machine::look();
        let folder = self.folder()?;
        let stem = format!("{}-{}", machine.date, machine.kind());
        let text = |error| BenchError::Failed(format!("write the page: {error}"));

        let picture = format!("{stem}.svg");
        let plot = (!rates.is_empty()).then_some(picture.as_str());
        if plot.is_some() {
            let title = format!("Mpps, {}, {}", machine.cpu, machine.date);
            let drawn = plot::svg(&title, rates).map_err(text)?;
            fs::write(folder.join(&picture), drawn).doing(|| format!("write {picture}"))?;
        }
        let written = report::page(&machine, method, rates, trips, plot).map_err(text)?;
        let page = folder.join(format!("{stem}.md"));
        fs::write(&page, written).doing(|| format!("write {}", page.display()))?;
        progress(&format!("results: {}", page.display()));
        Ok(())
    }
}

/// Builds kopi beside this program, so that one command is enough. A failure only leaves kopi out of the run.
fn build_kopi() {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .args(["build", "--release", "--workspace", "--manifest-path"])
        .arg(Path::new(crate::FOLDER).join("../Cargo.toml"));
    progress("building kopi");
    if !cargo.status().is_ok_and(|status| status.success()) {
        progress("kopi could not be built; what is there already is used");
    }
}

fn show_probe(args: &Args, interrupt: &Interrupt) -> Result<()> {
    for _ in 0..10 {
        let found = probe::look(args.dataplane_core, args.app_core, &args.thresholds)?;
        let state = found.state.map_or_else(|| "disturbed".to_owned(), |state| state.to_string());
        progress(&format!("{:.0} ns, {state}", found.one_way_ns));
        interrupt.sleep(Duration::from_millis(500))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Args::command().debug_assert();
    }

    #[test]
    fn an_unknown_contender_is_refused_with_the_known_ones() {
        let args = Args::parse_from(["kopi-bench", "all", "--only", "raw,vhist"]);
        let error = args.contenders().err().expect("vhist is no contender").to_string();
        assert!(error.contains("vhist") && error.contains("vhost-packed"), "{error}");
        let args = Args::parse_from(["kopi-bench", "all", "--only", "raw,kopi"]);
        assert_eq!(args.contenders().expect("both exist").len(), 2);
    }
}
