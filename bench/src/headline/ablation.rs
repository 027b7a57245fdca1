//! What each function of kopi costs by itself: instructions a frame as callgrind counts them, and nanoseconds.

use std::collections::BTreeMap;
use std::process::Command;

use super::arms::{self, CAPTURE_ALONE, CLASSES_ALONE, EVERYTHING};
use crate::error::{BenchError, Doing, Result};
use crate::policy::{FLOWS, FRAME_LEN, Load, Rate, flows, texts, write_pcap};
use crate::progress;
use crate::rounds::{self, Method, Samples};
use crate::setup::{Setup, is_file};
use crate::throughput::Direction;

/// The program that counts instructions, in this one's folder.
const COUNTER: &str = "kopi-bench-instructions";

/// What the worker costs under each setting of [`arms::SETTINGS`], by direction.
#[derive(Debug)]
pub(super) struct Ablation {
    /// Nanoseconds.
    pub(super) times: Vec<(Direction, Samples<Rate>)>,
    /// Instructions a frame, by the names of cases; or why there are none.
    pub(super) instructions: std::result::Result<BTreeMap<String, f64>, String>,
}

/// Measures all settings. Wires are the benchmark's own: nothing but kopid is compared with anything.
///
/// # Errors
///
/// When a wire cannot be prepared, and on Ctrl-C.
pub(super) fn measure(setup: &Setup, method: &Method) -> Result<Ablation> {
    progress("counting instructions");
    let instructions = count(setup).map_err(|error| error.to_string());
    let method = Method { wire: None, ..method.clone() };
    let file = setup.path("ablation.pcap");
    write_pcap(&file, &flows(true, FRAME_LEN), FRAME_LEN)?;
    let settings = arms::settings().map_err(|error| BenchError::Failed(format!("write a policy: {error}")))?;
    let mut times = Vec::new();
    for (direction, load) in [(Direction::Tx, Load::Tx), (Direction::Rx, Load::Rx(file))] {
        times.push((direction, rounds::run(&load, setup, &settings, &method)?));
    }
    Ok(Ablation { times, instructions })
}

/// Counts the instructions of all cases that may be wanted.
fn count(setup: &Setup) -> Result<BTreeMap<String, f64>> {
    let program = setup.program.with_file_name(COUNTER);
    if !is_file(&program) {
        return Err(BenchError::Failed(format!(
            "{COUNTER} is not there; `cargo build --release --workspace` makes it"
        )));
    }
    // It ends with an error where a case is above its budget, which does not matter here.
    let output = Command::new(&program).args(["--only", &flows_word()]).output().doing(|| format!("run {COUNTER}"))?;
    let counts = parse(&String::from_utf8_lossy(&output.stdout));
    if counts.is_empty() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(BenchError::Failed(format!("{COUNTER} counted nothing: {}", said.trim())));
    }
    Ok(counts)
}

/// The name of the case of a setting.
pub(super) fn case(direction: Direction, setting: &str) -> String {
    let what = match setting {
        texts::ONE => ", a rule",
        texts::MANY => ", 10,000 rules",
        texts::STATE => ", a rule of state",
        CLASSES_ALONE => ", classes",
        CAPTURE_ALONE => ", a capture that matches nothing",
        EVERYTHING => ", everything",
        _ => "",
    };
    format!("worker, {direction}, {}{what}", flows_word())
}

/// How the cases say that there are [`FLOWS`].
fn flows_word() -> String {
    format!("{},{:03} flows", FLOWS / 1000, FLOWS % 1000)
}

/// What the counter prints: a line for each case, which begins with the count and has the name in it, and lines of functions.
fn parse(text: &str) -> BTreeMap<String, f64> {
    let case = |line: &str| {
        let count = line.split_whitespace().next()?.parse().ok()?;
        let name = line.get(line.find("worker, ")?..)?.split("  ").next()?;
        Some((name.to_owned(), count))
    };
    text.lines().filter_map(case).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_read_by_case() {
        let text = "   333.9    340.0   -1.8 %  worker, TX, 1,000 flows\n\
                    \x20          12.0 more  kopi_dataplane::worker::Worker::run_stages\n\
                    \x20  421.5  has no budget  worker, TX, 1,000 flows, everything\n\
                    \x20  500.0    340.0  +47.1 %  worker, TX, 1,000 flows, classes  ABOVE ITS BUDGET\n\
                    Too many instructions, by the budgets in bench/budgets.toml. Cases: 1.\n";
        let counts = parse(text);
        assert_eq!(counts.len(), 3, "{counts:?}");
        assert_eq!(counts.get(&case(Direction::Tx, texts::NONE)), Some(&333.9));
        assert_eq!(counts.get(&case(Direction::Tx, EVERYTHING)), Some(&421.5));
        assert_eq!(counts.get(&case(Direction::Tx, CLASSES_ALONE)), Some(&500.0));
    }

    /// A setting without a case of its own would have the count of no policy.
    #[test]
    fn each_setting_has_a_case_of_its_own() {
        let mut names: Vec<_> = arms::SETTINGS.iter().map(|(name, _)| case(Direction::Rx, name)).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), arms::SETTINGS.len());
    }
}
