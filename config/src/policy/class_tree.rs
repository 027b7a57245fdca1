//! From classes that name their parents to a tree.

use std::collections::BTreeMap;

use super::class::Class;
use super::matches::Direction;
use super::rate::Rate;
use super::wire::Wire;
use crate::document::Place;
use crate::report::quoted;
use crate::value::nearest;

/// Most classes from the wire to a leaf, as the scheduler has it.
const DEPTH_MAX: usize = 8;
/// Most children that a message names.
const SHOWN: usize = 4;

/// A class as it stands in the file.
pub(super) struct Draft<'r> {
    /// `None` after an error in it was reported.
    pub(super) class: Option<Class>,
    pub(super) parent: Option<String>,
    pub(super) direction: Option<Direction>,
    pub(super) place: Place<'r>,
}

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
            table.fail(&path(), &format!("names the class {}, which there is not", quoted(name)), Some(help));
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
        table.fail(&path(), &what, Some(help));
        None
    }
}

/// Makes a tree of `drafts`, and lets `names` know what apps and rules may name. `None` after an error was reported.
pub(super) fn grow(drafts: Vec<Draft<'_>>, names: &mut ClassNames, wire: Wire) -> Option<Vec<Class>> {
    let parents: Vec<Option<Option<usize>>> = drafts.iter().map(|draft| find_parent(draft, names)).collect();
    let has_parents = parents.iter().all(Option::is_some);
    let parents: Vec<Option<usize>> = parents.into_iter().map(Option::flatten).collect();
    if !check_depth(&drafts, &parents) || !has_parents {
        return None;
    }
    let directions = directions(&drafts, &parents)?;
    names.notes = directions.iter().map(|direction| (*direction, Vec::new())).collect();
    for (draft, parent) in drafts.iter().zip(&parents) {
        if let (Some(class), Some(parent)) = (&draft.class, parent) {
            let (_, children) = &mut names.notes[*parent];
            if children.len() < SHOWN {
                children.push(class.name.clone());
            }
        }
    }
    warn_of_sums(&drafts, &parents, &directions, wire);
    let mut classes = Vec::with_capacity(drafts.len());
    for (index, Draft { class, place, .. }) in drafts.into_iter().enumerate() {
        let Some(mut class) = class else { continue };
        class.parent = parents[index];
        (class.direction, class.is_leaf) = (directions[index], names.notes[index].1.is_empty());
        if !class.is_leaf {
            class.warn_of_leaf_keys(&place);
        }
        classes.push(class);
    }
    Some(classes)
}

/// The parent of `draft`: `Some(None)` is the wire, `None` is after an error.
fn find_parent(draft: &Draft<'_>, names: &ClassNames) -> Option<Option<usize>> {
    match &draft.parent {
        None => Some(None),
        Some(name) => names.find(name, &draft.place, || "parent".to_owned()).map(Some),
    }
}

/// Whether each class comes to the wire within [`DEPTH_MAX`] steps. Reports each circle once, and each class that is too
/// deep.
fn check_depth(drafts: &[Draft<'_>], parents: &[Option<usize>]) -> bool {
    let circles = circles(parents);
    let report = |index: usize, what: &str| {
        let name = quoted(drafts[index].parent.as_deref().unwrap_or_default());
        let help = "leave `parent` out for a class under the wire".to_owned();
        drafts[index].place.fail("parent", &format!("is {name}, {what}"), Some(help));
    };
    let mut ok = true;
    for index in 0..drafts.len() {
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
fn directions(drafts: &[Draft<'_>], parents: &[Option<usize>]) -> Option<Vec<Direction>> {
    let mut failed = false;
    let top = |index: usize| std::iter::successors(Some(index), |at| parents[*at]).last().unwrap_or(index);
    let of = |(index, draft): (usize, &Draft<'_>)| {
        let direction = drafts[top(index)].direction.unwrap_or(Direction::Egress);
        if let Some(stated) = draft.direction.filter(|stated| *stated != direction) {
            failed = true;
            let (word, parent) = (direction.as_str(), quoted(draft.parent.as_deref().unwrap_or_default()));
            let what = format!("is \"{}\", and its parent {parent} is for {word}", stated.as_str());
            draft.place.fail("direction", &what, Some("leave it out: it is that of its parent".to_owned()));
        }
        direction
    };
    let directions = drafts.iter().enumerate().map(of).collect();
    (!failed).then_some(directions)
}

/// Warns where classes are promised more than there is above them.
fn warn_of_sums(drafts: &[Draft<'_>], parents: &[Option<usize>], directions: &[Direction], wire: Wire) {
    let mut sums: BTreeMap<Option<usize>, (u64, usize)> = BTreeMap::new();
    for (index, draft) in drafts.iter().enumerate() {
        let is_counted = parents[index].is_some() || directions[index] == Direction::Egress;
        if let Some(rate) = draft.class.as_ref().and_then(|class| class.rate).filter(|_| is_counted) {
            let (sum, last) = sums.entry(parents[index]).or_default();
            (*sum, *last) = (sum.saturating_add(rate.bits()), index);
        }
    }
    for (parent, (sum, last)) in sums {
        let above = parent.and_then(|parent| drafts[parent].class.as_ref());
        let (whose, rate) = match (parent, above) {
            (None, _) => ("[wire]".to_owned(), wire.rate),
            (Some(_), Some(class)) => (quoted(&class.name), class.rate.or(class.ceil)),
            (Some(_), None) => continue,
        };
        let Some(rate) = rate.filter(|rate| sum > rate.bits()) else { continue };
        let sum = Rate::from_bits(sum);
        let message = format!("the classes below {whose} are promised \"{sum}\", more than its \"{rate}\"");
        drafts[last].place.warning("rate", message, "together they get what there is, by priority and weight");
    }
}
