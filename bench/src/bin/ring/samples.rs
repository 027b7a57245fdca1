//! Samples, the file that keeps them, and the table that they make.

use crate::pair::Found;
use crate::questions::{Question, Variant};
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;

/// Where the two processors are to each other at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// So close that they can only be two threads of one core, which then share its execution units, too.
    Siblings,
    /// They share a cache.
    Near,
    /// They do not.
    Far,
}

impl State {
    const ALL: [Self; 3] = [Self::Near, Self::Far, Self::Siblings];

    const fn name(self) -> &'static str {
        match self {
            Self::Siblings => "siblings",
            Self::Near => "near",
            Self::Far => "far",
        }
    }

    /// The state that a latency of so many nanoseconds shows.
    fn of(one_way: f64, near_below: f64) -> Self {
        if one_way < SIBLINGS_BELOW {
            Self::Siblings
        } else if one_way < near_below {
            Self::Near
        } else {
            Self::Far
        }
    }
}

/// Longest wait for a processor, in milliseconds, with which a sample still counts.
const MAX_WAITED_MS: f64 = 2.0;
/// Nanoseconds. No two cores that are apart were seen to be closer than 30.
const SIBLINGS_BELOW: f64 = 22.0;

/// Nanoseconds per frame of one variant, and the latency between the cores around it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Sample {
    key: String,
    probes: [f64; 2],
    found: Found,
}

/// Question, pages, length and variant: what samples are filed under.
fn key(question: Question, variant: &Variant, pages: &str) -> String {
    format!("{question},{pages},{},{}", variant.len, variant.name)
}

impl Sample {
    pub(crate) fn new(question: Question, variant: &Variant, pages: &str, probes: [f64; 2], found: Found) -> Self {
        Self { key: key(question, variant, pages), probes, found }
    }

    fn parse(line: &str) -> Option<Self> {
        let mut parts = line.rsplitn(5, ',');
        let mut number = || parts.next()?.parse::<f64>().ok();
        let (waited_ms, nanoseconds, after, before) = (number()?, number()?, number()?, number()?);
        let found = Found { nanoseconds, waited_ms };
        Some(Self { key: parts.next()?.to_owned(), probes: [before, after], found })
    }

    /// The state that both probes saw; `None` if it changed meanwhile, or if somebody else had one of the processors.
    fn state(&self, near_below: f64) -> Option<State> {
        let [before, after] = self.probes.map(|probe| State::of(probe, near_below));
        (before == after && self.found.waited_ms < MAX_WAITED_MS).then_some(before)
    }
}

/// All samples, and where they are kept.
#[derive(Debug)]
pub(crate) struct Samples {
    all: Vec<(State, Sample)>,
    /// What discarded samples would have been filed under.
    discarded: Vec<String>,
    file: Option<File>,
}

impl Samples {
    /// Reads the samples of earlier runs from `path`, and keeps new ones there.
    pub(crate) fn load(path: Option<&Path>, near_below: f64) -> io::Result<Self> {
        let mut samples = Self { all: Vec::new(), discarded: Vec::new(), file: None };
        if let Some(path) = path {
            let file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
            for line in BufReader::new(&file).lines() {
                if let Some(sample) = Sample::parse(&line?) {
                    samples.file_under_state(sample, near_below);
                }
            }
            samples.file = Some(file);
        }
        Ok(samples)
    }

    pub(crate) fn add(&mut self, sample: Sample, near_below: f64) -> io::Result<()> {
        if let Some(file) = &mut self.file {
            let [before, after] = sample.probes;
            writeln!(
                file,
                "{},{before:.1},{after:.1},{:.3},{:.3}",
                sample.key, sample.found.nanoseconds, sample.found.waited_ms
            )?;
        }
        self.file_under_state(sample, near_below);
        Ok(())
    }

    fn file_under_state(&mut self, sample: Sample, near_below: f64) {
        match sample.state(near_below) {
            Some(state) => self.all.push((state, sample)),
            None => self.discarded.push(sample.key),
        }
    }

    fn of(&self, key: &str, wanted: State) -> Vec<f64> {
        let mine = self.all.iter().filter(|(state, sample)| *state == wanted && sample.key == key);
        let mut sorted: Vec<f64> = mine.map(|(_, sample)| sample.found.nanoseconds).collect();
        sorted.sort_unstable_by(f64::total_cmp);
        sorted
    }

    /// Whether every variant has `wanted` samples near and far. A state that does not occur keeps the run going until
    /// its time is up, as it may come back.
    pub(crate) fn enough(&self, question: Question, variants: &[Variant], pages: &str, wanted: usize) -> bool {
        let enough = |key: &str| [State::Near, State::Far].iter().all(|state| self.of(key, *state).len() >= wanted);
        variants.iter().all(|variant| enough(&key(question, variant, pages)))
    }

    /// A table in Markdown, with columns for each state that occurred: nanoseconds per frame and the ratio to the first variant of its length.
    pub(crate) fn table(&self, question: Question, variants: &[Variant], pages: &str) -> String {
        let mut out = format!("### {question} ({pages} pages)\n\n| bytes | variant |");
        let occurs = |state: &State| variants.iter().any(|v| !self.of(&key(question, v, pages), *state).is_empty());
        let states: Vec<State> = State::ALL.into_iter().filter(occurs).collect();
        states.iter().for_each(|state| out.push_str(&format!(" {} ns | quartiles | ratio | n |", state.name())));
        out.push_str("\n| --: | --- |");
        states.iter().for_each(|_| out.push_str(" --: | --- | --: | --: |"));
        out.push('\n');
        for variant in variants {
            let first = variants.iter().find(|other| other.len == variant.len).unwrap_or(variant);
            out.push_str(&format!("| {} | {} |", variant.len, variant.name));
            for &state in &states {
                let mine = self.of(&key(question, variant, pages), state);
                let base = self.of(&key(question, first, pages), state);
                let [low, median, high] = [1, 2, 3].map(|quarter| quantile(&mine, quarter));
                let text = |number: Option<f64>| number.map(|n| format!("{n:.1}")).unwrap_or_default();
                let ratio = median.zip(quantile(&base, 2)).map(|(m, b)| format!("{:.2}", m / b)).unwrap_or_default();
                let quartiles =
                    if mine.is_empty() { String::new() } else { format!("{} to {}", text(low), text(high)) };
                out.push_str(&format!(" {} | {quartiles} | {ratio} | {} |", text(median), mine.len()));
            }
            out.push('\n');
        }
        let of_question = |key: &&String| variants.iter().any(|variant| **key == self::key(question, variant, pages));
        let discarded = self.discarded.iter().filter(of_question).count();
        out.push_str(&format!("\n{discarded} samples discarded: the state changed, or something else ran.\n"));
        out
    }
}

/// The `quarter`-th quartile of sorted numbers.
fn quantile(sorted: &[f64], quarter: usize) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    sorted.get(last * quarter / 4).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(probes: [f64; 2]) -> Sample {
        Sample { key: "form,4k,64,split".into(), probes, found: Found { nanoseconds: 20.5, waited_ms: 0.25 } }
    }

    /// A sample between two different states counts for neither.
    #[test]
    fn samples_across_a_change_are_discarded() {
        assert_eq!(sample([30.0, 79.9]).state(80.0), Some(State::Near));
        assert_eq!(sample([160.0, 80.0]).state(80.0), Some(State::Far));
        assert_eq!(sample([30.0, 160.0]).state(80.0), None);
    }

    /// What is written to the file is what the next run reads.
    #[test]
    fn lines_come_back() {
        assert_eq!(Sample::parse("form,4k,64,split,30.0,31.0,20.500,0.250"), Some(sample([30.0, 31.0])));
        assert_eq!(Sample::parse("form,4k"), None);
    }

    #[test]
    fn quartiles_of_few_numbers() {
        assert_eq!(quantile(&[], 2), None);
        assert_eq!(quantile(&[1.0], 3), Some(1.0));
        assert_eq!(quantile(&[1.0, 2.0, 3.0, 4.0, 5.0], 1), Some(2.0));
    }
}
