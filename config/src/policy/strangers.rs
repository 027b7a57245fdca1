//! Rules for applications that never attach, under `attach = "refuse"`: their names are those of `[[app]]`.

use std::collections::{BTreeMap, BTreeSet};

use super::app::App;
use super::glob::Glob;
use super::rule::Rule;
use crate::document::Document;
use crate::report::quoted;

/// Most names that patterns are compared with, in all. What is behind that is not warned of.
const COMPARISONS_MAX: usize = 500_000;

/// Warns of each rule that is for names alone that no port has. `starts` has the place of each rule, and `apps` are all that attach.
pub(super) fn warn(rules: &[Rule], starts: &[usize], apps: &[App], document: &Document<'_>) {
    let mut names = Names::new(apps);
    for (rule, start) in rules.iter().zip(starts) {
        let globs = &rule.owner.is.apps;
        if globs.is_empty() || globs.iter().any(|glob| names.has(glob)) {
            continue;
        }
        let list = globs.iter().map(|glob| quoted(glob.as_str())).collect::<Vec<_>>().join(", ");
        let message = format!("the rule {} is for an app that never attaches: {list}", quoted(&rule.name));
        let help = "with `attach = \"refuse\"` only what an [[app]] is for attaches, under its name: add one, or correct the name";
        document.warning(*start, "rule", message, help);
    }
}

/// The names that ports can have.
struct Names<'a> {
    names: BTreeSet<&'a str>,
    known: BTreeMap<&'a str, bool>,
    left: usize,
}

impl<'a> Names<'a> {
    fn new(apps: &'a [App]) -> Self {
        let admitted = apps.iter().filter(|app| app.admit).map(|app| app.name.as_str());
        let names = admitted.chain([App::HOST]).collect();
        Self { names, known: BTreeMap::new(), left: COMPARISONS_MAX }
    }

    /// Whether a port can have a name of the pattern. If that takes too long to find out, it can.
    fn has(&mut self, glob: &'a Glob) -> bool {
        let text = glob.as_str();
        if let Some(known) = self.known.get(text) {
            return *known;
        }
        let numbered =
            text.trim_end_matches(|c: char| c.is_ascii_digit()).strip_suffix('-').filter(|_| !text.ends_with('-'));
        let literal = self.names.contains(text) || numbered.is_some_and(|name| self.names.contains(name));
        let found = literal || self.compare(glob);
        self.known.insert(text, found);
        found
    }

    fn compare(&mut self, glob: &Glob) -> bool {
        if !glob.as_str().contains(['*', '?', '[']) {
            return false;
        }
        self.left = self.left.saturating_sub(self.names.len());
        // A second port of an entry has a number behind the name.
        let one = |name: &str| glob.matches(name) || [2, 10, 100].iter().any(|n| glob.matches(&format!("{name}-{n}")));
        self.left == 0 || self.names.iter().any(|name| one(name))
    }
}
