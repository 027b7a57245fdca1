//! Who shares what, and how: `[[class]]`.

use std::time::Duration;

use super::class_tree;
use super::matches::Direction;
use super::number::CodePoint;
use super::set::Names;
use super::time::Moment;
use super::wire::{Burst, WireLimit};
use crate::amount::{AnyRate, Rate, Size};
use crate::document::{Document, Place};
use crate::report::quoted;
use crate::value::{As, Int, Name, Word, table};

table! {
    /// Traffic under a name, its share of the wire or of its parent, and how it waits.
    #[schemars(extend("required" = ["name"]))]
    pub struct Class {
        /// The class's name, which no other class has.
        pub name: String = String::new(), "As::<Name<64>>";
        /// Name of the class that it is a part of; the wire if not stated.
        #[serde(rename = "parent")]
        pub(super) parent_name: Option<String> = None, "As::<Name<64>>";
        /// The parent as an index into [`Policy::classes`](super::Policy::classes); the wire if `None`.
        #[serde(skip)]
        pub parent: Option<usize> = None;
        /// Which way its frames go, from the app's side; that of its parent, or egress, if not stated.
        #[serde(rename = "direction")]
        pub(super) stated_direction: Option<Direction> = None, "As::<Word<Direction>>";
        /// Which way its frames go.
        #[serde(skip)]
        pub direction: Direction = Direction::Egress;
        /// Whether it has no classes below it. Only then frames can be put into it.
        #[serde(skip)]
        pub is_leaf: bool = true;
        /// What it gets in any case, with the units of tc.
        pub rate: Option<Rate> = None, "As::<AnyRate>";
        /// What it may borrow up to; its rate if only that is stated, else no limit.
        pub ceil: Option<Rate> = None, "As::<AnyRate>";
        /// Most bytes at once within `rate`; what it gives in a millisecond if not stated.
        pub burst: Option<Size> = None, "As::<Burst>";
        /// Most bytes at once within `ceil`; what it gives in a millisecond if not stated.
        pub cburst: Option<Size> = None, "As::<Burst>";
        /// Its share of what is left, against its siblings.
        pub weight: u16 = 1, "As::<Int<u16, 1, 1000>>";
        /// Who comes first among siblings: 0 before 7.
        pub priority: u8 = 4, "As::<Int<u8, 0, 7>>";
        /// Most packets that wait, where kopid holds them.
        pub limit: u32 = 1000, "As::<Int<u32, 1, 65_536>>";
        /// How long packets may wait, where kopid holds them (CoDel).
        #[schemars(extend("default" = "5ms"))]
        pub target: Duration = Duration::from_millis(5), "As::<Moment>";
        /// For how long they may wait longer before one is dropped (CoDel).
        #[schemars(extend("default" = "100ms"))]
        pub interval: Duration = Duration::from_millis(100), "As::<Moment>";
        /// The differentiated services code point that its frames get.
        pub dscp: Option<u8> = None, "As::<CodePoint>";
        /// The VLAN priority that its frames with a VLAN tag get.
        pub vlan_priority: Option<u8> = None, "As::<Int<u8, 0, 7>>";
    }
}

/// Most classes: they have indexes of 16 bits, counted from 1.
const COUNT_MAX: usize = 65_535;

impl Class {
    /// A leaf of that name under the wire, for egress, with everything else as if it were not stated.
    #[must_use]
    pub fn new(name: String) -> Self {
        Self { name, ..Self::default() }
    }

    /// What it never exceeds: `ceil`, or its rate if it states a rate alone, as tc-htb(8) has it. Without either there is
    /// no limit but that of its parent.
    #[must_use]
    pub fn ceiling(&self) -> Option<Rate> {
        self.ceil.or(self.rate)
    }

    /// Reads every `[[class]]` of `document`, and lets `names` know them.
    pub(super) fn read_all(document: &Document<'_>, names: &mut Names, wire: WireLimit) -> Vec<Self> {
        let mut entries = Vec::new();
        for (index, entry) in document.tables::<Self>("class").enumerate() {
            let (class, place) = (&entry.value, &entry.place);
            if index == COUNT_MAX {
                let help = "give the same class to more apps and rules";
                place.error("name", format!("a policy has at most {COUNT_MAX} classes"), help);
                // What comes after is not looked at: a file may hold many more.
                break;
            }
            // Names are known even where something else is wrong, so that apps and rules can be checked.
            if !class.name.is_empty() && names.classes.add(&class.name, index).is_some() {
                place.error("name", format!("there is already a class {}", quoted(&class.name)), "");
            }
            if entry.is_whole {
                class.check(place, wire);
            }
            entries.push(entry);
        }
        class_tree::grow(entries, &mut names.classes, wire)
    }

    /// Checks what concerns several keys of the class.
    fn check(&self, table: &Place<'_>, wire: WireLimit) {
        if let (Some(rate), Some(ceil)) = (self.rate, self.ceil)
            && ceil < rate
        {
            let what = format!("must be at least `rate` = \"{rate}\", found \"{ceil}\"");
            table.fail("ceil", &what, "a class may borrow up to `ceil`, its rate counted");
        }
        if self.interval < self.target {
            let help = "it is about the longest round trip, and 100ms by default";
            table.fail("interval", "must be at least `target`", help);
        }
        let limits = [("burst", self.burst, self.rate, "rate"), ("cburst", self.cburst, self.ceiling(), "ceil")];
        for (key, burst, rate, of) in limits {
            let Some(burst) = burst else { continue };
            let message = |what: &str| format!("`{key}` in [[class]] is \"{burst}\", {what}");
            if rate.is_none() {
                table.warning(key, message(&format!("and there is no `{of}`")), "it has no effect");
            } else if burst.bytes() < wire.full_frame() {
                let help = format!("frames pass one by one, as with \"{}b\"", wire.full_frame());
                table.warning(key, message("which is less than a full frame"), &help);
            }
        }
    }

    /// Warns of what only a leaf can have, in a class that is none.
    pub(super) fn warn_of_leaf_keys(&self, table: &Place<'_>) {
        for key in ["limit", "target", "interval", "dscp", "vlan_priority"] {
            if table.states(key) {
                let name = quoted(&self.name);
                let message = format!("`{key}` in [[class]] has no effect: {name} has classes below it");
                table.warning(key, message, "state it in these");
            }
        }
    }
}
