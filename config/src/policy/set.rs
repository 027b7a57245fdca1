//! Named sets of addresses and ports, and everything else that has a name in a policy: `[[set]]`.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use serde_json::Value as Json;

use super::NameRef;
use super::addresses::{AddressIn, AddressPart, Addresses};
use super::class_tree::ClassNames;
use super::field::Field;
use super::number::{Numbers, SetPort};
use super::values::{Negatable, Part, Values};
use crate::document::{Document, Entry, Place};
use crate::report::{Diagnostic, quoted};
use crate::value::{As, Many, Name, nearest, pattern, table};

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

table! {
    /// Addresses and ports under a name, for rules to use as "@name".
    #[schemars(extend("required" = ["name"]))]
    pub(super) struct SetEntry {
        /// The set's name, which no other set has.
        name: String = String::new(), "As::<Name<64>>";
        /// IP addresses, blocks and ranges of them, of both families.
        addresses: Vec<AddressPart> = Vec::new(), "Many::<AddressIn<false, false>>";
        /// Ports, and ranges of them.
        ports: Vec<Part<u16>> = Vec::new(), "Many::<Numbers<SetPort>>";
    }
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
        let SetEntry { name, addresses, ports } = entry.value;
        if !is_broken && !name.is_empty() && addresses.is_empty() && ports.is_empty() {
            let help = "write `addresses = [...]` or `ports = [...]`";
            place.error("name", format!("the set {} holds nothing", quoted(&name)), help);
        }
        if self.by_name.contains_key(&name) {
            let help = "put what belongs together into one list";
            place.error("name", format!("there is already a set {}", quoted(&name)), help);
        } else if !name.is_empty() {
            self.by_name.insert(name.clone(), self.sets.len());
            let addresses = (!addresses.is_empty()).then(|| AddressIn::<false, false>::union(addresses, &[]));
            let ports = (!ports.is_empty()).then(|| Numbers::<SetPort>::union(ports, &[]));
            let (addresses, ports) = (addresses.map(Negatable::new), ports.map(Negatable::new));
            self.sets.push(Set { name, addresses, ports, is_broken });
        }
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
        rule.fail(path, &format!("names the set {}, which there is not", quoted(&format!("@{name}"))), &help);
        None
    }

    /// Counts `ranges` that `rule` has made of its own, and reports at `path` when there are too many.
    pub(super) fn limit_ranges(&self, ranges: usize, rule: &Place<'_>, path: impl Fn() -> String) -> Option<()> {
        let before = self.ranges.get();
        self.ranges.set(before.saturating_add(ranges));
        if before <= RANGES_MAX && self.ranges.get() > RANGES_MAX {
            let what = format!("makes more than {RANGES_MAX} ranges of all rules, sets not counted");
            rule.fail(&path(), &what, "put the mix into a set of its own: rules share sets");
        }
        (self.ranges.get() <= RANGES_MAX).then_some(())
    }

    /// Notes that element `index` of `path` names something that only the machine knows.
    pub(super) fn note(&self, name: NameRef, table: &Place<'_>, path: impl Fn() -> String, index: usize) {
        let mut names = self.name_refs.borrow_mut();
        if names.len() < NAME_REFS_MAX {
            names.entry(name).or_insert_with(|| table.locate(&table.element(&path(), index)));
        }
    }

    /// The sets in the order of the file.
    pub(super) fn into_sets(self) -> Vec<Set> {
        self.sets
    }
}

/// The schema of a reference to a set.
pub(super) fn reference_schema() -> Json {
    pattern("^@")
}
