//! Named sets of addresses and ports: `[[set]]`.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use serde_json::{Value as Json, json};
use toml::de::DeValue;

use super::Mention;
use super::addresses::{AddressForm, Addresses};
use super::class_tree::ClassNames;
use super::field::Field;
use super::name::NameForm;
use super::number::PortForm;
use super::values::{Negatable, Values, ValuesKey};
use crate::form::OneOrMany;
use crate::report::{Diagnostic, quoted};
use crate::walk::{AnyKey, Document, Item, Key, Need, Section, Table, nearest};

/// Most ranges of addresses and ports that rules may hold of their own, by mixing and cutting sets. What a rule takes
/// from a set as it is costs nothing.
const RANGES_MAX: usize = 4_000_000;

/// Most names that the machine is asked for. Each keeps the line that it stands on.
const MENTIONS_MAX: usize = 4096;

/// `[[set]]`: addresses, ports or both, under a name that rules use as `"@name"`.
#[derive(Clone, Debug)]
pub struct Set {
    name: String,
    pub(super) addresses: Option<Negatable<Addresses>>,
    pub(super) ports: Option<Negatable<Field<u16>>>,
    /// Whether an error was reported in it, so that what it seems to lack may be there.
    pub(super) is_broken: bool,
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
    pub(super) mentions: RefCell<BTreeMap<Mention, Diagnostic>>,
    /// Ranges that rules hold of their own.
    ranges: Cell<usize>,
    /// Whether an error was reported in a set.
    failed: bool,
}

impl Names {
    /// Reads every `[[set]]` of `document`.
    pub(super) fn read(document: &Document<'_>) -> Self {
        let mut names = Self::default();
        for table in document.tables(&SET) {
            names.add(&table);
        }
        names
    }

    fn add(&mut self, table: &Table<'_>) {
        let name = table.get(&NAME);
        let addresses = table.optional(&ADDRESSES);
        let ports = table.optional(&PORTS);
        let Some(name) = name else {
            self.failed = true;
            return;
        };
        let is_broken = addresses.is_none() || ports.is_none();
        let (addresses, ports) = (addresses.flatten(), ports.flatten());
        if !is_broken && addresses.is_none() && ports.is_none() {
            let help = "write `addresses = [...]` or `ports = [...]`".to_owned();
            self.failed = true;
            table.error(&NAME, format!("the set {} holds nothing", quoted(&name)), Some(help));
        }
        let addresses = addresses.map(|parts| Negatable::new(ADDRESSES.form.each.union(parts, &[])));
        let ports = ports.map(|parts| Negatable::new(PORTS.form.each.union(parts, &[])));
        if self.by_name.contains_key(&name) {
            let help = "put what belongs together into one list".to_owned();
            self.failed = true;
            table.error(&NAME, format!("there is already a set {}", quoted(&name)), Some(help));
            return;
        }
        self.failed |= is_broken;
        self.by_name.insert(name.clone(), self.sets.len());
        self.sets.push(Set { name, addresses, ports, is_broken });
    }

    /// The set of that name.
    pub(super) fn set(&self, name: &str) -> Option<&Set> {
        self.by_name.get(name).and_then(|&index| self.sets.get(index))
    }

    /// Reports that `item` names a set that there is not.
    pub(super) fn refuse_set<T>(&self, item: &Item<'_>, name: &str) -> Option<T> {
        let names: Vec<_> = self.sets.iter().map(Set::name).filter(|_| item.is_shown()).collect();
        let help = match nearest(name, &names) {
            Some(near) => format!("did you mean \"@{near}\"?"),
            None => "write a [[set]] with this `name`".to_owned(),
        };
        item.fail(&format!("names the set {}, which there is not", quoted(&format!("@{name}"))), Some(help))
    }

    /// Counts `ranges` that a rule has made of its own, and reports at `item` when there are too many.
    pub(super) fn spend(&self, item: &Item<'_>, ranges: usize) -> Option<()> {
        let before = self.ranges.get();
        self.ranges.set(before.saturating_add(ranges));
        if before <= RANGES_MAX && self.ranges.get() > RANGES_MAX {
            let help = "put the mix into a set of its own: rules share sets".to_owned();
            return item
                .fail(&format!("makes more than {RANGES_MAX} ranges of all rules, sets not counted"), Some(help));
        }
        (before <= RANGES_MAX).then_some(())
    }

    /// Notes that the value of `item` names something that only the machine knows.
    pub(super) fn mention(&self, item: &Item<'_>, mention: Mention) {
        let mut mentions = self.mentions.borrow_mut();
        if mentions.len() < MENTIONS_MAX {
            mentions.entry(mention).or_insert_with(|| {
                let mut place = item.source().error_at(item.span.clone(), String::new());
                place.key = Some(item.key());
                place
            });
        }
    }

    /// The sets in the order of the file, unless an error was reported in one.
    pub(super) fn into_sets(self) -> Option<Vec<Set>> {
        (!self.failed).then_some(self.sets)
    }

    /// The schema of a reference to a set.
    pub(super) fn reference_schema() -> Json {
        json!({ "type": "string", "pattern": "^@" })
    }
}

/// Whether the value of `item` is the name of a set.
pub(super) fn set_name<'v>(item: &Item<'v>) -> Option<&'v str> {
    match item.value {
        DeValue::String(text) => text.strip_prefix('@'),
        _ => None,
    }
}

pub(super) static SET: Section = Section {
    name: "set",
    doc: "addresses and ports under a name, for rules to use as \"@name\"",
    keys: &[&NAME as &dyn AnyKey, &ADDRESSES, &PORTS],
};

static NAME: Key<NameForm> = Key {
    name: "name",
    doc: "the set's name, which no other set has",
    form: NameForm { max: 64 },
    need: Need::Required,
};

static ADDRESSES: ValuesKey<AddressForm> = Key {
    name: "addresses",
    doc: "IP addresses, blocks and ranges of them, of both families",
    form: OneOrMany { each: AddressForm { sets: false, v4_only: false } },
    need: Need::Optional,
};

static PORTS: ValuesKey<PortForm> = Key {
    name: "ports",
    doc: "ports, and ranges of them",
    form: OneOrMany { each: PortForm { sets: false } },
    need: Need::Optional,
};
