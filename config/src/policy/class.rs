//! Who shares what, and how: `[[class]]`.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use super::class_tree::{self, Draft};
use super::matches::Direction;
use super::name::Name;
use super::number::CodePoint;
use super::rate::Rate;
use super::set::Names;
use super::time::Moment;
use super::wire::{Burst, Wire};
use crate::document::{Document, Place};
use crate::report::quoted;
use crate::size::Size;
use crate::value::{As, Int, Word};

/// `[[class]]`: traffic under a name, its share of the wire or of its parent, and how it waits.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Class {
    /// Its name, unique.
    pub name: String,
    /// The class that it is a part of, as an index into [`Policy::classes`](super::Policy::classes); the wire if `None`.
    pub parent: Option<usize>,
    /// Which way its frames go. That of its parent, or egress, if not stated.
    pub direction: Direction,
    /// Whether it has no classes below it. Only then frames can be put into it.
    pub is_leaf: bool,
    /// What it gets in any case.
    pub rate: Option<Rate>,
    /// What it may borrow up to, at least its rate: see [`Class::ceiling`].
    pub ceil: Option<Rate>,
    /// Most bytes at once within its rate, overhead counted.
    pub burst: Option<Size>,
    /// Most bytes at once within its ceiling, overhead counted.
    pub cburst: Option<Size>,
    /// Its share of what is left, in proportion to those of its siblings of the same priority. 1 if not stated.
    pub weight: u16,
    /// Who comes first among its siblings: 0 before 7. 4 if not stated.
    pub priority: u8,
    /// Most packets that wait, where kopid holds them. 1,000 if not stated.
    pub limit: u32,
    /// How long packets may wait, where kopid holds them (CoDel). 5 ms if not stated.
    pub target: Duration,
    /// For how long they may wait longer before one is dropped (CoDel). 100 ms if not stated.
    pub interval: Duration,
    /// The differentiated services code point that its frames get.
    pub dscp: Option<u8>,
    /// The VLAN priority that its frames with a VLAN tag get.
    pub vlan_priority: Option<u8>,
}

impl Class {
    /// A leaf of that name under the wire, for egress, with everything else as if it were not stated.
    #[must_use]
    pub const fn new(name: String) -> Self {
        let (parent, rate, ceil, burst, cburst) = (None, None, None, None, None);
        let (target, interval) = (Duration::from_millis(5), Duration::from_millis(100));
        let (weight, priority, limit, dscp, vlan_priority) = (1, 4, 1000, None, None);
        let direction = Direction::Egress;
        Self {
            name,
            parent,
            direction,
            is_leaf: true,
            rate,
            ceil,
            burst,
            cburst,
            weight,
            priority,
            limit,
            target,
            interval,
            dscp,
            vlan_priority,
        }
    }

    /// What it never exceeds: `ceil`, or its rate if it states a rate alone, as tc-htb(8) has it. Without either there is
    /// no limit but that of its parent.
    #[must_use]
    pub fn ceiling(&self) -> Option<Rate> {
        self.ceil.or(self.rate)
    }

    /// Reads every `[[class]]` of `document`, and lets `names` know them.
    pub(super) fn read_all(document: &Document<'_>, names: &mut Names, wire: Wire) -> Option<Vec<Self>> {
        let (mut drafts, mut failed) = (Vec::new(), false);
        for (index, entry) in document.tables::<ClassEntry>("class").enumerate() {
            let (place, is_whole) = (entry.place, entry.is_whole);
            if index == COUNT_MAX {
                let help = "give the same class to more apps and rules".to_owned();
                place.error("name", format!("a policy has at most {COUNT_MAX} classes"), Some(help));
                // What comes after is not looked at: a file may hold many more.
                failed = true;
                break;
            }
            let entry = entry.value;
            if let Some(ClassEntry { name, .. }) = &entry
                && names.classes.add(name, index).is_some()
            {
                failed = true;
                place.error("name", format!("there is already a class {}", quoted(name)), None);
            }
            let (parent, direction) =
                entry.as_ref().map_or((None, None), |entry| (entry.parent.clone(), entry.direction));
            let class = entry.filter(|_| is_whole).map(Self::from).filter(|class| class.check(&place, wire).is_some());
            failed |= class.is_none();
            drafts.push(Draft { class, parent, direction, place });
        }
        // Names are known even where something else is wrong, so that apps and rules can be checked.
        let classes = class_tree::grow(drafts, &mut names.classes, wire);
        classes.filter(|_| !failed)
    }

    /// Checks what concerns several keys of the class.
    fn check(&self, table: &Place<'_>, wire: Wire) -> Option<()> {
        if let (Some(rate), Some(ceil)) = (self.rate, self.ceil)
            && ceil < rate
        {
            let what = format!("must be at least `rate` = \"{rate}\", found \"{ceil}\"");
            table.fail("ceil", &what, Some("a class may borrow up to `ceil`, its rate counted".to_owned()));
            return None;
        }
        if self.interval < self.target {
            let help = "it is about the longest round trip, and 100ms by default".to_owned();
            table.fail("interval", "must be at least `target`", Some(help));
            return None;
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
        Some(())
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

/// Most classes: they have indexes of 16 bits, counted from 1.
const COUNT_MAX: usize = 65_535;

/// Traffic under a name, its share of the wire or of its parent, and how it waits.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ClassEntry {
    /// The class's name, which no other class has.
    #[serde(with = "As::<Name<64>>")]
    name: String,
    /// Name of the class that it is a part of; the wire if not stated.
    #[serde(default, with = "As::<Name<64>>")]
    parent: Option<String>,
    /// Which way its frames go, from the app's side; that of its parent, or egress, if not stated.
    #[serde(default, with = "As::<Word<Direction>>")]
    direction: Option<Direction>,
    /// What it gets in any case, with the units of tc.
    #[serde(default, with = "As::<Rate>")]
    rate: Option<Rate>,
    /// What it may borrow up to; its rate if only that is stated, else no limit.
    #[serde(default, with = "As::<Rate>")]
    ceil: Option<Rate>,
    /// Most bytes at once within `rate`; what it gives in a millisecond if not stated.
    #[serde(default, with = "As::<Burst>")]
    burst: Option<Size>,
    /// Most bytes at once within `ceil`; what it gives in a millisecond if not stated.
    #[serde(default, with = "As::<Burst>")]
    cburst: Option<Size>,
    /// Its share of what is left, against its siblings.
    #[serde(default, with = "As::<Int<u16, 1, 1000>>")]
    #[schemars(extend("default" = 1))]
    weight: Option<u16>,
    /// Who comes first among siblings: 0 before 7.
    #[serde(default, with = "As::<Int<u8, 0, 7>>")]
    #[schemars(extend("default" = 4))]
    priority: Option<u8>,
    /// Most packets that wait, where kopid holds them.
    #[serde(default, with = "As::<Int<u32, 1, 65_536>>")]
    #[schemars(extend("default" = 1000))]
    limit: Option<u32>,
    /// How long packets may wait, where kopid holds them (CoDel).
    #[serde(default, with = "As::<Moment>")]
    #[schemars(extend("default" = "5ms"))]
    target: Option<Duration>,
    /// For how long they may wait longer before one is dropped (CoDel).
    #[serde(default, with = "As::<Moment>")]
    #[schemars(extend("default" = "100ms"))]
    interval: Option<Duration>,
    /// The differentiated services code point that its frames get.
    #[serde(default, with = "As::<CodePoint>")]
    dscp: Option<u8>,
    /// The VLAN priority that its frames with a VLAN tag get.
    #[serde(default, with = "As::<Int<u8, 0, 7>>")]
    vlan_priority: Option<u8>,
}

impl From<ClassEntry> for Class {
    fn from(entry: ClassEntry) -> Self {
        let ClassEntry { name, rate, ceil, burst, cburst, dscp, vlan_priority, .. } = entry;
        let class = Self::new(name);
        Self {
            weight: entry.weight.unwrap_or(class.weight),
            priority: entry.priority.unwrap_or(class.priority),
            limit: entry.limit.unwrap_or(class.limit),
            target: entry.target.unwrap_or(class.target),
            interval: entry.interval.unwrap_or(class.interval),
            rate,
            ceil,
            burst,
            cburst,
            dscp,
            vlan_priority,
            ..class
        }
    }
}
