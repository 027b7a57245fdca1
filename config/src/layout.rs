//! What a file may hold: its tables, how often each may stand in it, and how messages name the places in them.

use std::fmt;

use crate::walk::AnyKey;

/// One table of a file.
#[expect(missing_debug_implementations, reason = "a table of keys of different forms has nothing to show")]
pub struct Section {
    /// As it stands between the brackets: `wire`, or `rule.match` for a table inside a table. Empty for the keys before
    /// the first table of the file.
    pub name: &'static str,
    /// What it is about, in one line.
    pub doc: &'static str,
    /// Every key that it may have.
    pub keys: &'static [&'static dyn AnyKey],
}

/// A whole file.
#[expect(missing_debug_implementations, reason = "see `Section`")]
pub struct Layout {
    /// The keys before the first table.
    pub top: &'static Section,
    /// Every table that it may have once: `[name]`.
    pub sections: &'static [&'static Section],
    /// Every table that it may have many times: `[[name]]`.
    pub lists: &'static [&'static Section],
}

impl Layout {
    /// The tables of the file.
    pub(crate) fn places(&self) -> impl Iterator<Item = Place> {
        let one = self.sections.iter().map(|section| Place::one(section));
        one.chain(self.lists.iter().map(|section| Place::many(section)))
    }

    /// The names that may stand at the top of the file.
    pub(crate) fn names(&self) -> Vec<&'static str> {
        self.top.keys.iter().map(|key| key.name()).chain(self.places().map(|place| place.section.name)).collect()
    }

    /// The names that may stand at the top of the file, as a message lists them.
    pub(crate) fn list(&self) -> String {
        let keys = self.top.keys.iter().map(|key| format!("`{}`", key.name()));
        keys.chain(self.places().map(|place| place.to_string())).collect::<Vec<_>>().join(", ")
    }
}

/// A section, and how often it may stand in the file. Its `Display` is the header of the outermost table around it.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    pub(crate) section: &'static Section,
    pub(crate) many: bool,
}

impl Place {
    pub(crate) const fn one(section: &'static Section) -> Self {
        Self { section, many: false }
    }

    pub(crate) const fn many(section: &'static Section) -> Self {
        Self { section, many: true }
    }

    /// `name` as it is written from the outermost table on: `match.dst_port`.
    pub(crate) fn path(self, name: &str) -> String {
        match self.section.name.split_once('.') {
            Some((_, inner)) => format!("{inner}.{name}"),
            None => name.to_owned(),
        }
    }

    /// `name` with all of its tables: `rule.match.dst_port`.
    pub(crate) fn key(self, name: &str) -> String {
        match self.section.name {
            "" => name.to_owned(),
            section => format!("{section}.{name}"),
        }
    }

    /// Where a key of the section stands, as a message says it.
    pub(crate) fn home(self) -> String {
        match self.section.name {
            "" => "at the top of the file".to_owned(),
            _ => format!("in {self}"),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.section.name.split_once('.').map_or(self.section.name, |(outer, _)| outer);
        if self.many { write!(f, "[[{name}]]") } else { write!(f, "[{name}]") }
    }
}
