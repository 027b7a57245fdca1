//! The file of budgets: for each case its instructions, and the functions that they belong to.

use crate::callgrind::Functions;
use crate::error::Failure;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

/// How far a case may be above its budget: the part of a hundred that a compiler's mood makes up.
const TOLERANCE: f64 = 1.02;
/// Functions of fewer instructions are not told apart.
const LEAST: f64 = 0.5;
/// What those are called together.
const REST: &str = "others";

const HEAD: &str = "\
# Instructions per frame of kopid's worker and of the driver's burst functions, as callgrind counts them, and of which
# functions they are; per call or turn where there are no frames. ci/test.sh fails when a case is more than 2 % above
# its budget. bench/README.md says what is counted. A change that earns lower budgets writes them:
#
#     cargo build --release -p 'kopi-driver*' -p kopi-bench-instructions
#     target/release/kopi-bench-instructions --write
#
";

/// One case.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Count {
    /// Instructions per frame.
    pub(crate) instructions: f64,
    /// The same, by function.
    pub(crate) functions: BTreeMap<String, f64>,
}

/// All cases, by name.
pub(crate) type Budgets = BTreeMap<String, Count>;

impl Count {
    /// What callgrind has counted for so many frames.
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    pub(crate) fn new(counted: &Functions, frames: usize) -> Self {
        let per_frame = |cost: u64| tenths(cost as f64 / frames as f64);
        let instructions = per_frame(counted.values().sum());
        let mut functions = BTreeMap::new();
        let mut rest = 0;
        for (name, cost) in counted {
            if per_frame(*cost) < LEAST {
                rest += cost;
            } else {
                functions.insert(name.clone(), per_frame(*cost));
            }
        }
        if per_frame(rest) > 0.0 {
            functions.insert(REST.to_owned(), per_frame(rest));
        }
        Self { instructions, functions }
    }

    /// Whether this is more than `budget` allows.
    pub(crate) fn exceeds(&self, budget: &Self) -> bool {
        self.instructions > budget.instructions * TOLERANCE
    }

    /// Whether so much was won that the budget should say so.
    pub(crate) fn undercuts(&self, budget: &Self) -> bool {
        self.instructions * TOLERANCE < budget.instructions
    }

    /// The functions that differ from `budget`, those that grew most first, a line each.
    pub(crate) fn differences(&self, budget: &Self) -> Vec<String> {
        let names =
            self.functions.keys().chain(budget.functions.keys().filter(|name| !self.functions.contains_key(*name)));
        let of = |count: &Self, name: &str| count.functions.get(name).copied().unwrap_or(0.0);
        let mut changes: Vec<_> = names.map(|name| (of(self, name) - of(budget, name), name)).collect();
        changes.retain(|(change, _)| change.abs() >= LEAST);
        changes.sort_by(|(a, _), (b, _)| b.total_cmp(a));
        let line = |(change, name): (f64, &String)| {
            format!("{change:+8.1}  {:7.1} -> {:7.1}  {name}", of(budget, name), of(self, name))
        };
        changes.into_iter().map(line).collect()
    }
}

/// Rounded to a tenth, as it stands in the file.
fn tenths(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

/// Reads the file.
pub(crate) fn read(path: &Path) -> Result<Budgets, Failure> {
    let text = std::fs::read_to_string(path).map_err(|error| Failure::File { path: path.to_owned(), error })?;
    toml::from_str(&text).map_err(|error| Failure::Said(format!("{}: {error}", path.display())))
}

/// Writes `counts` to the file, in their order. `remarks` say what they were counted with.
pub(crate) fn write(path: &Path, remarks: &str, counts: &[(String, Count)]) -> Result<(), Failure> {
    let text = text(remarks, counts).map_err(|error| Failure::Said(error.to_string()))?;
    std::fs::write(path, text).map_err(|error| Failure::File { path: path.to_owned(), error })
}

fn text(remarks: &str, counts: &[(String, Count)]) -> Result<String, std::fmt::Error> {
    let mut text = format!("{HEAD}# {remarks}\n");
    for (name, count) in counts {
        write!(text, "\n[\"{name}\"]\ninstructions = {:.1}\n[\"{name}\".functions]\n", count.instructions)?;
        let mut functions: Vec<_> = count.functions.iter().collect();
        functions.sort_by(|(_, a), (_, b)| b.total_cmp(a));
        for (function, instructions) in functions {
            writeln!(text, "{function:?} = {instructions:.1}")?;
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(functions: &[(&str, u64)]) -> Count {
        Count::new(&functions.iter().map(|(name, cost)| ((*name).to_owned(), *cost)).collect(), 10)
    }

    /// What is written is read again, whatever functions are called.
    #[test]
    fn written_budgets_are_read_again() {
        let counts = [
            ("worker, TX".to_owned(), count(&[("<a::B as c::D>::e", 1000), ("\"f\"", 50), ("g", 3)])),
            ("driver".to_owned(), count(&[("h", 7)])),
        ];
        let read: Budgets = toml::from_str(&text("rustc", &counts).unwrap()).unwrap();
        assert_eq!(read, BTreeMap::from(counts));
    }

    /// Up to two parts of a hundred are let pass, and what grew is named.
    #[test]
    fn a_case_above_its_budget_names_the_functions_that_grew() {
        let budget = count(&[("a", 600), ("b", 400), ("gone", 10)]);
        assert!(!count(&[("a", 620), ("b", 400)]).exceeds(&budget));
        let more = count(&[("a", 590), ("b", 450), ("new", 90)]);
        assert!(more.exceeds(&budget) && !more.undercuts(&budget));
        let named: Vec<_> = more.differences(&budget);
        let named: Vec<_> = named.iter().filter_map(|line| line.split_whitespace().last()).collect();
        assert_eq!(named, ["new", "b", "a", "gone"]);
        assert!(count(&[("a", 600), ("b", 300)]).undercuts(&budget));
    }
}
