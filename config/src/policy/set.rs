//! Named sets of addresses and ports, and everything else that has a name in a policy: `[[set]]`.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value as Json, json};

use super::NameRef;
use super::addresses::{AddressIn, Addresses};
use super::class_tree::ClassNames;
use super::field::Field;
use super::name::Name;
use super::number::Ports;
use super::values::{Negatable, Values, field};
use crate::document::{Document, Entry, Place};
use crate::report::{Diagnostic, quoted};
use crate::value::{As, Many, nearest};

/// Most ranges of addresses and ports that rules may hold of their own, by mixing and cutting sets. What a rule takes
/// from a set as it is costs nothing.
const RANGES_MAX: usize = 4_000_000;

/// Most names that the machine is asked for. Each keeps the line that it stands on.
const NAME_REFS_MAX: usize = 4096;

/// `[[set]]`: addresses, ports or both, under a name that rules use as `"@name"`.
#[derive(Clone, Debug)]
pub struct Set {
    name: String,
    pub(super) addresses: Option<Negatable<Addresses>>,
    pub(super) ports: Option<Negatable<Field<u16>>>,
    /// Whether an error was reported in it, so that what it seems to lack may be there.
    pub(super) is_broken: bool,
}

/// Addresses and ports under a name, for rules to use as "@name".
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SetEntry {
    /// The set's name, which no other set has.
    #[serde(with = "As::<Name<64>>")]
    name: String,
    /// IP addresses, blocks and ranges of them, of both families.
    #[serde(default)]
    addresses: Many<AddressIn<false, false>>,
    /// Ports, and ranges of them.
    #[serde(default)]
    ports: Many<Ports<false>>,
}

impl Set {
    /// Its name, unique.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its addresses, if it has some.
    #[must_use]
    pub fn addresses(&self) -> Option<&Addresses> {
        self.addresses.as_ref().map(|addresses| &addresses.is)
    }

    /// Its ports, if it has some.
    #[must_use]
    pub fn ports(&self) -> Option<&Field<u16>> {
        self.ports.as_ref().map(|ports| &ports.is)
    }
}

/// Everything that has a name in a policy, while its rules are read.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// The sets in the order of the file.
    sets: Vec<Set>,
    /// Names of sets with their index.
    by_name: BTreeMap<String, usize>,
    /// The classes.
    pub(super) classes: ClassNames,
    /// What only the machine knows: where it stands first.
    pub(super) name_refs: RefCell<BTreeMap<NameRef, Diagnostic>>,
    /// Ranges that rules hold of their own.
    ranges: Cell<usize>,
}

impl Names {
    /// Reads every `[[set]]` of `document`.
    pub(super) fn read(document: &Document<'_>) -> Self {
        let mut names = Self::default();
        document.tables("set").for_each(|entry| names.add(entry));
        names
    }

    fn add(&mut self, entry: Entry<'_, SetEntry>) {
        let (place, is_broken) = (entry.place, !entry.is_whole);
        let Some(SetEntry { name, addresses, ports }) = entry.value else { return };
        if !is_broken && addresses.0.is_empty() && ports.0.is_empty() {
            let help = "write `addresses = [...]` or `ports = [...]`".to_owned();
            place.error("name", format!("the set {} holds nothing", quoted(&name)), Some(help));
        }
        let addresses = (!addresses.0.is_empty()).then(|| AddressIn::<false, false>::union(addresses.0, &[]));
        let ports = (!ports.0.is_empty()).then(|| field(ports.0, &[]));
        if self.by_name.contains_key(&name) {
            let help = "put what belongs together into one list".to_owned();
            place.error("name", format!("there is already a set {}", quoted(&name)), Some(help));
            return;
        }
        self.by_name.insert(name.clone(), self.sets.len());
        let (addresses, ports) = (addresses.map(Negatable::new), ports.map(Negatable::new));
        self.sets.push(Set { name, addresses, ports, is_broken });
    }

    /// The set of that name.
    pub(super) fn set(&self, name: &str) -> Option<&Set> {
        self.by_name.get(name).and_then(|&index| self.sets.get(index))
    }

    /// Reports that `path` of `rule` names a set that there is not.
    pub(super) fn refuse_set<T>(&self, name: &str, rule: &Place<'_>, path: &str) -> Option<T> {
        let names: Vec<_> = self.sets.iter().map(Set::name).filter(|_| rule.is_shown()).collect();
        let help = match nearest(name, &names) {
            Some(near) => format!("did you mean \"@{near}\"?"),
            None => "write a [[set]] with this `name`".to_owned(),
        };
        rule.fail(path, &format!("names the set {}, which there is not", quoted(&format!("@{name}"))), Some(help));
        None
    }

    /// Counts `ranges` that `rule` has made of its own, and reports at `path` when there are too many.
    pub(super) fn limit_ranges(&self, ranges: usize, rule: &Place<'_>, path: impl Fn() -> String) -> Option<()> {
        let before = self.ranges.get();
        self.ranges.set(before.saturating_add(ranges));
        if before <= RANGES_MAX && self.ranges.get() > RANGES_MAX {
            let help = "put the mix into a set of its own: rules share sets".to_owned();
            let what = format!("makes more than {RANGES_MAX} ranges of all rules, sets not counted");
            rule.fail(&path(), &what, Some(help));
        }
        (self.ranges.get() <= RANGES_MAX).then_some(())
    }

    /// Notes that element `index` of `path` names something that only the machine knows.
    pub(super) fn note(&self, name: NameRef, table: &Place<'_>, path: impl Fn() -> String, index: usize) {
        let mut names = self.name_refs.borrow_mut();
        if names.len() < NAME_REFS_MAX {
            names.entry(name).or_insert_with(|| {
                let path = table.element(&path(), index);
                table.locate(&path, &path)
            });
        }
    }

    /// The sets in the order of the file.
    pub(super) fn into_sets(self) -> Vec<Set> {
        self.sets
    }
}

/// The schema of a reference to a set.
pub(super) fn reference_schema() -> Json {
    json!({ "type": "string", "pattern": "^@" })
}
