//! Matches and owners as text, in the grammar of the file: what is displayed reads back as the same.

use std::fmt::{self, Display};

use super::field::Union;
use super::matches::{Match, State, Visit};
use super::owner::{OwnerMatch, Owners};
use super::set::Set;
use super::values::Values;
use crate::account::Account;
use crate::value::Choice;

/// Most elements of a list that is shown to people.
const BRIEF_MAX: usize = 8;

impl Display for Match {
    /// Writes what stands behind `match =`, on one line, with every element of every list.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Writer::new(&[], usize::MAX).matches(self).fmt(f)
    }
}

impl Display for OwnerMatch {
    /// Writes what stands behind `owner =`, on one line, with every element of every list.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Writer::new(&[], usize::MAX).owner(self).fmt(f)
    }
}

impl Match {
    /// The match for people, on one line: long lists cut, and those of `sets` by their names that it shares.
    #[must_use]
    pub fn brief(&self, sets: &[Set]) -> String {
        Writer::new(sets, BRIEF_MAX).matches(self).to_string()
    }
}

/// The entries of a table and of its `not`, while they are put together.
struct Writer<'s> {
    sets: &'s [Set],
    /// Most elements of a list.
    most: usize,
    is: Vec<String>,
    not: Vec<String>,
}

impl<'s> Writer<'s> {
    const fn new(sets: &'s [Set], most: usize) -> Self {
        Self { sets, most, is: Vec::new(), not: Vec::new() }
    }

    fn matches(mut self, matches: &Match) -> Self {
        if let Some(direction) = matches.direction {
            self.is.push(format!("direction = \"{}\"", direction.as_str()));
        }
        matches.visit(&mut self);
        self.is.extend(matches.tcp_flags.map(|flags| format!("tcp_flags = \"{flags}\"")));
        if let Some(states) = matches.state {
            let words = State::WORDS.iter().filter(|(_, state)| states.contains(*state));
            self.is.push(list("state", &words.map(|(word, _)| format!("\"{word}\"")).collect::<Vec<_>>(), self.most));
        }
        self.is.extend(matches.fragment.map(|fragment| format!("fragment = {fragment}")));
        self
    }

    fn owner(mut self, owner: &OwnerMatch) -> Self {
        self.is = owners(&owner.is);
        self.not = owners(&owner.not);
        self
    }
}

impl Visit for Writer<'_> {
    /// Writes a key plainly, or under `not` if that is shorter and means the same.
    fn key<V: Values>(&mut self, name: &'static str, union: Option<&V::Union>) {
        let Some(union) = union else { return };
        let shared = |set: &Set| Some((V::of_set(set)?.shares(union)?, format!("\"@{}\"", set.name())));
        if let Some((negated, set)) = self.sets.iter().find_map(shared) {
            let entries = if negated { &mut self.not } else { &mut self.is };
            entries.push(list(name, &[set], self.most));
            return;
        }
        let rest = V::negated(union);
        let is_shorter = (1..union.size()).contains(&rest.size());
        if is_shorter && V::negated(&rest) == *union {
            self.not.push(list(name, &V::write(&rest), self.most));
        } else {
            self.is.push(list(name, &V::write(union), self.most));
        }
    }
}

impl Display for Writer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let not = (!self.not.is_empty()).then(|| format!("not = {{ {} }}", self.not.join(", ")));
        let entries: Vec<_> = self.is.iter().chain(&not).map(String::as_str).collect();
        if entries.is_empty() { f.write_str("{}") } else { write!(f, "{{ {} }}", entries.join(", ")) }
    }
}

fn owners(owners: &Owners) -> Vec<String> {
    let by_name = |accounts: &[Account], is_name: bool| {
        let chosen = accounts.iter().filter(|account| matches!(account, Account::Name(_)) == is_name);
        chosen.map(|account| if is_name { quote(&account.to_string()) } else { account.to_string() }).collect()
    };
    let lists: [(_, Vec<_>); 11] = [
        ("app", owners.apps.iter().map(|glob| quote(glob.as_str())).collect()),
        ("user", by_name(&owners.users, true)),
        ("uid", by_name(&owners.users, false)),
        ("group", by_name(&owners.groups, true)),
        ("gid", by_name(&owners.groups, false)),
        ("comm", owners.comms.iter().map(|glob| quote(glob.as_str())).collect()),
        ("exe", owners.exes.iter().map(|glob| quote(glob.as_str())).collect()),
        ("cgroup", owners.cgroups.iter().map(|path| quote(path.as_str())).collect()),
        ("container", owners.containers.iter().map(|id| quote(id.as_str())).collect()),
        ("pod", owners.pods.iter().map(|id| quote(id.as_str())).collect()),
        ("label", owners.labels.iter().map(|glob| quote(glob.as_str())).collect()),
    ];
    lists.iter().filter(|(_, values)| !values.is_empty()).map(|(key, values)| list(key, values, usize::MAX)).collect()
}

/// `key = value`, or a list, of which at most `most` elements are written.
fn list(key: &str, values: &[String], most: usize) -> String {
    match values {
        [value] => format!("{key} = {value}"),
        values if values.len() <= most => format!("{key} = [{}]", values.join(", ")),
        values => format!("{key} = [{}, ... {} more]", values[..most].join(", "), values.len() - most),
    }
}

/// A string of TOML.
fn quote(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}
