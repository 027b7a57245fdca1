//! The rings alone: what one frame costs between two cores, by the size of the ring.
//!
//! A producer copies frames from private buffers into the ring, a consumer copies them out into private buffers, in
//! bursts of 32, each on its own core. One sample is 0.1 s of that; the cache-line latency between the cores is
//! probed before and after it, and a sample is kept only if both probes found the same state and nothing else ran on the
//! two processors meanwhile. Samples of all variants
//! of a question take turns, so that a change of the machine's state or clock meets all alike. Samples can be kept in
//! a file and added to by later runs.
#![forbid(unsafe_code)]

mod pair;
mod probe;
mod questions;
mod samples;

use clap::Parser;
use kopi_ring::layout::MIN_RING;
use kopi_ring::{Geometry, HugePages, Region};
use pair::Cores;
use questions::Question;
use samples::{Sample, Samples};
use std::error::Error;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// The cost of a frame between two cores, by the size of the ring.
#[derive(Debug, Parser)]
#[command(name = "kopi-bench-ring", version)]
struct Options {
    /// Processor of the filling side.
    #[arg(long, default_value_t = 1)]
    producer: usize,
    /// Processor of the emptying side.
    #[arg(long, default_value_t = 0)]
    consumer: usize,
    /// Ask only these questions; all of them without this option.
    #[arg(long, value_enum, value_delimiter = ',')]
    question: Vec<Question>,
    /// Samples wanted of each variant in each state of the machine that occurs.
    #[arg(long, default_value_t = 10)]
    samples: usize,
    /// Seconds after which to stop, whatever was got.
    #[arg(long, default_value_t = 50)]
    seconds: u64,
    /// Milliseconds of one sample.
    #[arg(long, default_value_t = 100)]
    sample_ms: u64,
    /// A latency between the cores below this many nanoseconds counts as near.
    #[arg(long, default_value_t = 80.0)]
    near_below: f64,
    /// Use ordinary pages.
    #[arg(long)]
    no_huge: bool,
    /// A file of samples to add to, and to report from.
    #[arg(long)]
    keep: Option<PathBuf>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse();
    let cores = Cores { producer: options.producer, consumer: options.consumer };
    cores.check()?;
    let pages = if options.no_huge { HugePages::Off } else { HugePages::Auto };
    let mut samples = Samples::load(options.keep.as_deref(), options.near_below)?;
    let questions = if options.question.is_empty() { Question::all() } else { options.question.clone() };
    let region = Region::create(&Geometry::new(&[MIN_RING], &[MIN_RING], 2048)?, pages)?;
    let pages = if region.huge() { "huge" } else { "4k" };
    let deadline = Instant::now() + Duration::from_secs(options.seconds);
    let time = Duration::from_millis(options.sample_ms);
    for question in questions {
        let variants = question.variants();
        let mut before = probe::one_way_ns(cores);
        while Instant::now() < deadline && !samples.enough(question, &variants, pages, options.samples) {
            for variant in &variants {
                let found = variant.measure(cores, options.no_huge, time)?;
                let after = probe::one_way_ns(cores);
                samples.add(Sample::new(question, variant, pages, [before, after], found), options.near_below)?;
                before = after;
            }
        }
        writeln!(std::io::stdout(), "{}", samples.table(question, &variants, pages))?;
    }
    Ok(())
}
