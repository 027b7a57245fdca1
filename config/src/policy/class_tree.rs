//! From classes that name their parents to a tree.

use std::collections::BTreeMap;

use super::class::Class;
use super::matches::Direction;
use super::wire::WireLimit;
use crate::amount::Rate;
use crate::document::{Entry, Place};
use crate::report::quoted;
use crate::value::nearest;

/// Most classes from the wire to a leaf, as the scheduler has it.
const DEPTH_MAX: usize = 8;
/// Most children that a message names.
const SHOWN: usize = 4;

/// The classes by their names, as apps and rules ask for them.
#[derive(Debug, Default)]
pub(super) struct ClassNames {
    indexes: BTreeMap<String, usize>,
    /// For each class its direction, and the names of the first few of its children.
    notes: Vec<(Direction, Vec<String>)>,
}

impl ClassNames {
    /// Notes that class `index` has this name; the one that has it already, if there is one.
    pub(super) fn add(&mut self, name: &str, index: usize) -> Option<usize> {
        self.indexes.insert(name.to_owned(), index)
    }

    /// The index of the class `name`, as `path` of `table` has it.
    fn find(&self, name: &str, table: &Place<'_>, path: impl Fn() -> String) -> Option<usize> {
        self.indexes.get(name).copied().or_else(|| {
            let names: Vec<_> = self.indexes.keys().map(String::as_str).filter(|_| table.is_shown()).collect();
            let help = match nearest(name, &names) {
                Some(near) => format!("did you mean \"{near}\"?"),
                None => "write a [[class]] with this `name`".to_owned(),
            };
            table.fail(&path(), &format!("names the class {}, which there is not", quoted(name)), &help);
            None
        })
    }

    /// The class `name`, into which frames can be put, and which way they go.
    pub(super) fn find_leaf(
        &self,
        name: &str,
        table: &Place<'_>,
        path: impl Fn() -> String,
    ) -> Option<(usize, Direction)> {
        let index = self.find(name, table, &path)?;
        // Without notes, an error was reported among the classes.
        let (direction, children) = self.notes.get(index)?;
        if children.is_empty() {
            return Some((index, *direction));
        }
        let names: Vec<_> = children.iter().map(|child| quoted(child)).collect();
        let help = format!("name one of these, or a class of its own below {}", quoted(name));
        let what = format!("names the class {}, which has classes below it: {}", quoted(name), names.join(", "));
        table.fail(&path(), &what, &help);
        None
    }
}

/// Makes a tree of `entries`, and lets `names` know what apps and rules may name.
pub(super) fn grow(entries: Vec<Entry<'_, Class>>, names: &mut ClassNames, wire: WireLimit) -> Vec<Class> {
    let find = |entry: &Entry<'_, Class>| match &entry.value.parent_name {
        None => Some(None),
        Some(name) => names.find(name, &entry.place, || "parent".to_owned()).map(Some),
    };
    let found: Vec<Option<Option<usize>>> = entries.iter().map(find).collect();
    let parents: Vec<Option<usize>> = found.iter().map(|parent| parent.flatten()).collect();
    if !check_depth(&entries, &parents) || found.contains(&None) {
        return Vec::new();
    }
    let Some(directions) = directions(&entries, &parents) else { return Vec::new() };
    names.notes = directions.iter().map(|direction| (*direction, Vec::new())).collect();
    for (entry, parent) in entries.iter().zip(&parents) {
        let children = parent.map(|parent| &mut names.notes[parent].1).filter(|children| children.len() < SHOWN);
        children.into_iter().for_each(|children| children.push(entry.value.name.clone()));
    }
    warn_of_sums(&entries, &parents, &directions, wire);
    let complete = |(index, Entry { value: mut class, place, .. }): (usize, Entry<'_, Class>)| {
        class.parent = parents[index];
        (class.parent_name, class.stated_direction) = (None, None);
        (class.direction, class.is_leaf) = (directions[index], names.notes[index].1.is_empty());
        if !class.is_leaf {
            class.warn_of_leaf_keys(&place);
        }
        class
    };
    entries.into_iter().enumerate().map(complete).collect()
}

/// Whether each class comes to the wire within [`DEPTH_MAX`] steps. Reports each circle once, and each class that is too
/// deep.
fn check_depth(entries: &[Entry<'_, Class>], parents: &[Option<usize>]) -> bool {
    let circles = circles(parents);
    let report = |index: usize, what: &str| {
        let name = quoted(entries[index].value.parent_name.as_deref().unwrap_or_default());
        let help = "leave `parent` out for a class under the wire";
        entries[index].place.fail("parent", &format!("is {name}, {what}"), help);
    };
    let mut ok = true;
    for index in 0..entries.len() {
        let mut way = std::iter::successors(Some(index), |at| parents[*at]).take(DEPTH_MAX);
        if circles[index] == Some(index) {
            report(index, "which is below this class itself");
        } else if !way.any(|at| circles[at].is_some() || parents[at].is_none()) {
            report(index, &format!("and the class is more than {DEPTH_MAX} levels below the wire"));
        } else if circles[index].is_none() {
            continue;
        }
        ok = false;
    }
    ok
}

/// For each class that is below itself, the first one of its circle.
fn circles(parents: &[Option<usize>]) -> Vec<Option<usize>> {
    let mut circles = vec![None; parents.len()];
    // By which class each one was come to first.
    let mut seen = vec![None; parents.len()];
    for start in 0..parents.len() {
        let mut at = Some(start);
        while let Some(class) = at.filter(|class| seen[*class].is_none()) {
            seen[class] = Some(start);
            at = parents[class];
        }
        if let Some(back) = at.filter(|class| seen[*class] == Some(start)) {
            let around = || std::iter::successors(parents[back], |at| parents[*at].filter(|_| *at != back));
            let first = around().min();
            around().for_each(|class| circles[class] = first);
        }
    }
    circles
}

/// The direction of each class, which is that of the one under the wire that it belongs to.
fn directions(entries: &[Entry<'_, Class>], parents: &[Option<usize>]) -> Option<Vec<Direction>> {
    let mut failed = false;
    let top = |index: usize| std::iter::successors(Some(index), |at| parents[*at]).last().unwrap_or(index);
    let of = |(index, entry): (usize, &Entry<'_, Class>)| {
        let direction = entries[top(index)].value.stated_direction.unwrap_or(Direction::Egress);
        if let Some(stated) = entry.value.stated_direction.filter(|stated| *stated != direction) {
            failed = true;
            let (word, parent) = (direction.as_str(), quoted(entry.value.parent_name.as_deref().unwrap_or_default()));
            let what = format!("is \"{}\", and its parent {parent} is for {word}", stated.as_str());
            entry.place.fail("direction", &what, "leave it out: it is that of its parent");
        }
        direction
    };
    let directions = entries.iter().enumerate().map(of).collect();
    (!failed).then_some(directions)
}

/// Warns where classes are promised more than there is above them.
fn warn_of_sums(entries: &[Entry<'_, Class>], parents: &[Option<usize>], directions: &[Direction], wire: WireLimit) {
    let mut sums: BTreeMap<Option<usize>, (u64, usize)> = BTreeMap::new();
    for (index, entry) in entries.iter().enumerate() {
        let is_counted = parents[index].is_some() || directions[index] == Direction::Egress;
        if let Some(rate) = entry.value.rate.filter(|_| is_counted) {
            let (sum, last) = sums.entry(parents[index]).or_default();
            (*sum, *last) = (sum.saturating_add(rate.bits()), index);
        }
    }
    for (parent, (sum, last)) in sums {
        let (whose, rate) = match parent.map(|parent| &entries[parent].value) {
            None => ("[wire]".to_owned(), wire.rate),
            Some(class) => (quoted(&class.name), class.rate.or(class.ceil)),
        };
        let Some(rate) = rate.filter(|rate| sum > rate.bits()) else { continue };
        let sum = Rate::from_bits(sum);
        let message = format!("the classes below {whose} are promised \"{sum}\", more than its \"{rate}\"");
        entries[last].place.warning("rate", message, "together they get what there is, by priority and weight");
    }
}
