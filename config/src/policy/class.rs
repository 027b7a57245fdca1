//! Who shares what, and how: `[[class]]`.

use std::time::Duration;

use super::class_tree::{self, Draft};
use super::mark::CodePointForm;
use super::matches::Direction;
use super::moment::MomentForm;
use super::name::NameForm;
use super::rate::{Rate, RateForm};
use super::set::Names;
use super::wire::{BURST_FORM, Wire};
use crate::form::{Choice, Int};
use crate::report::quoted;
use crate::size::{Size, SizeForm};
use crate::walk::{AnyKey, Document, Key, Need, Section, Table};

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
        for (index, table) in document.tables(&CLASS).enumerate() {
            if index == COUNT_MAX {
                let help = "give the same class to more apps and rules".to_owned();
                table.error(&NAME, format!("a policy has at most {COUNT_MAX} classes"), Some(help));
                // What comes after is not looked at: a file may hold many more.
                table.abandon();
                failed = true;
                break;
            }
            let name = table.get(&NAME);
            let parent = table.optional(&PARENT);
            let stated = table.optional(&DIRECTION);
            if let Some(name) = &name
                && names.classes.add(name, index).is_some()
            {
                failed = true;
                table.error(&NAME, format!("there is already a class {}", quoted(name)), None);
            }
            let class = Self::read(&table, name, wire);
            failed |= class.is_none() || parent.is_none() || stated.is_none();
            drafts.push(Draft { class, parent: parent.flatten(), direction: stated.flatten(), table });
        }
        // Names are known even where something else is wrong, so that apps and rules can be checked.
        let classes = class_tree::grow(drafts, &mut names.classes, wire);
        classes.filter(|_| !failed)
    }

    fn read(table: &Table<'_>, name: Option<String>, wire: Wire) -> Option<Self> {
        let (rate, ceil) = (table.optional(&RATE), table.optional(&CEIL));
        let (burst, cburst) = (table.optional(&BURST), table.optional(&CBURST));
        let (weight, priority, limit) = (table.get(&WEIGHT), table.get(&PRIORITY), table.get(&LIMIT));
        let (target, interval) = (table.get(&TARGET), table.get(&INTERVAL));
        let (dscp, vlan_priority) = (table.optional(&DSCP), table.optional(&VLAN_PRIORITY));
        let mut class = Self::new(name?);
        (class.rate, class.ceil, class.burst, class.cburst) = (rate?, ceil?, burst?, cburst?);
        (class.weight, class.priority, class.limit) = (weight?, priority?, limit?);
        (class.target, class.interval) = (target?, interval?);
        (class.dscp, class.vlan_priority) = (dscp?, vlan_priority?);
        class.check(table, wire)?;
        Some(class)
    }

    /// Checks what concerns several keys of the class.
    fn check(&self, table: &Table<'_>, wire: Wire) -> Option<()> {
        if let (Some(rate), Some(ceil)) = (self.rate, self.ceil)
            && ceil < rate
        {
            let message = format!("`ceil` in [[class]] must be at least `rate` = \"{rate}\", found \"{ceil}\"");
            table.error(&CEIL, message, Some("a class may borrow up to `ceil`, its rate counted".to_owned()));
            return None;
        }
        if self.interval < self.target {
            let message = "`interval` in [[class]] must be at least `target`".to_owned();
            table.error(
                &INTERVAL,
                message,
                Some("it is about the longest round trip, and 100ms by default".to_owned()),
            );
            return None;
        }
        let limits = [(&BURST, self.burst, self.rate, "rate"), (&CBURST, self.cburst, self.ceiling(), "ceil")];
        for (key, burst, rate, of) in limits {
            let Some(burst) = burst else { continue };
            let message = |what: &str| format!("`{}` in [[class]] is \"{burst}\", {what}", key.name);
            if rate.is_none() {
                table.warning(key, message(&format!("and there is no `{of}`")), Some("it has no effect".to_owned()));
            } else if burst.bytes() < wire.full_frame() {
                let frame = wire.full_frame();
                let help = format!("frames pass one by one, as with \"{frame}b\"");
                table.warning(key, message("which is less than a full frame"), Some(help));
            }
        }
        Some(())
    }

    /// Warns of what only a leaf can have, in a class that is none.
    pub(super) fn warn_of_leaf_keys(&self, table: &Table<'_>) {
        let has = [
            table.item(&LIMIT).map(|item| (item, "limit")),
            table.item(&TARGET).map(|item| (item, "target")),
            table.item(&INTERVAL).map(|item| (item, "interval")),
            table.item(&DSCP).map(|item| (item, "dscp")),
            table.item(&VLAN_PRIORITY).map(|item| (item, "vlan_priority")),
        ];
        for (item, key) in has.into_iter().flatten() {
            let message = format!("`{key}` in [[class]] has no effect: {} has classes below it", quoted(&self.name));
            table.warning_at(&item, message, Some("state it in these".to_owned()));
        }
    }
}

/// Most classes: they have indexes of 16 bits, counted from 1.
const COUNT_MAX: usize = 65_535;

pub(super) static CLASS: Section = Section {
    name: "class",
    doc: "traffic under a name, its share of the wire or of its parent, and how it waits",
    keys: &[
        &NAME as &dyn AnyKey,
        &PARENT,
        &DIRECTION,
        &RATE,
        &CEIL,
        &BURST,
        &CBURST,
        &WEIGHT,
        &PRIORITY,
        &LIMIT,
        &TARGET,
        &INTERVAL,
        &DSCP,
        &VLAN_PRIORITY,
    ],
};

const NAME_FORM: NameForm = NameForm { max: 64 };

const fn optional<F>(name: &'static str, doc: &'static str, form: F) -> Key<F> {
    Key { name, doc, form, need: Need::Optional }
}

const fn with_default<F>(name: &'static str, doc: &'static str, form: F, default: &'static str) -> Key<F> {
    Key { name, doc, form, need: Need::Default(default) }
}

pub(super) static NAME: Key<NameForm> =
    Key { name: "name", doc: "the class's name, which no other class has", form: NAME_FORM, need: Need::Required };
pub(super) static PARENT: Key<NameForm> =
    optional("parent", "name of the class that it is a part of; the wire if not stated", NAME_FORM);
pub(super) static DIRECTION: Key<Choice<Direction>> = optional(
    "direction",
    "which way its frames go, from the app's side; that of its parent, or egress, if not stated",
    Choice { words: &Direction::WORDS },
);
pub(super) static RATE: Key<RateForm> = optional("rate", "what it gets in any case, with the units of tc", RateForm);
static CEIL: Key<RateForm> =
    optional("ceil", "what it may borrow up to; its rate if only that is stated, else no limit", RateForm);
static BURST: Key<SizeForm> =
    optional("burst", "most bytes at once within `rate`; what it gives in a millisecond if not stated", BURST_FORM);
static CBURST: Key<SizeForm> =
    optional("cburst", "most bytes at once within `ceil`; what it gives in a millisecond if not stated", BURST_FORM);
static WEIGHT: Key<Int<u16>> =
    with_default("weight", "its share of what is left, against its siblings", Int::range(1, 1000), "1");
static PRIORITY: Key<Int<u8>> =
    with_default("priority", "who comes first among siblings: 0 before 7", Int::range(0, 7), "4");
static LIMIT: Key<Int<u32>> =
    with_default("limit", "most packets that wait, where kopid holds them", Int::range(1, 65_536), "1000");
static TARGET: Key<MomentForm> =
    with_default("target", "how long packets may wait, where kopid holds them (CoDel)", MomentForm, "\"5ms\"");
static INTERVAL: Key<MomentForm> = with_default(
    "interval",
    "for how long they may wait longer before one is dropped (CoDel)",
    MomentForm,
    "\"100ms\"",
);
static DSCP: Key<CodePointForm> =
    optional("dscp", "the differentiated services code point that its frames get", CodePointForm);
static VLAN_PRIORITY: Key<Int<u8>> =
    optional("vlan_priority", "the VLAN priority that its frames with a VLAN tag get", Int::range(0, 7));
