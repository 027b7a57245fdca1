//! What traffic is called: `[[class]]`.

use super::name::NameForm;
use super::rate::{Rate, RateForm};
use super::set::Names;
use crate::form::Int;
use crate::report::quoted;
use crate::walk::{AnyKey, Document, Key, Need, Section, Table};

/// `[[class]]`: a name for traffic, and its share of the wire.
///
/// The shares are read and not kept to yet.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Class {
    /// Its name, unique.
    pub name: String,
    /// What it gets in any case.
    pub rate: Option<Rate>,
    /// What it may borrow up to, at least its rate.
    pub ceil: Option<Rate>,
    /// Its share of what is left, in proportion to those of the others.
    pub weight: Option<u16>,
}

impl Class {
    /// A class of that name, with nothing said of its share.
    #[must_use]
    pub const fn new(name: String) -> Self {
        Self { name, rate: None, ceil: None, weight: None }
    }

    /// Reads every `[[class]]` of `document`, and gives their indexes to `names`.
    pub(super) fn read_all(document: &Document<'_>, names: &mut Names) -> Option<Vec<Self>> {
        let mut classes = Vec::new();
        let mut failed = false;
        for (index, table) in document.tables(&CLASS).enumerate() {
            if index == COUNT_MAX {
                let help = "give the same class to more apps and rules".to_owned();
                table.error(&NAME, format!("a policy has at most {COUNT_MAX} classes"), Some(help));
            }
            let name = table.get(&NAME);
            if let Some(name) = &name
                && names.classes.insert(name.clone(), index).is_some()
            {
                failed = true;
                table.error(&NAME, format!("there is already a class {}", quoted(name)), None);
            }
            let class = Self::read(&table, name);
            failed |= class.is_none() || index >= COUNT_MAX;
            classes.extend(class);
        }
        (!failed).then_some(classes)
    }

    fn read(table: &Table<'_>, name: Option<String>) -> Option<Self> {
        let rate = table.optional(&RATE);
        let ceil = table.optional(&CEIL);
        let weight = table.optional(&WEIGHT);
        let class = Self { name: name?, rate: rate?, ceil: ceil?, weight: weight? };
        if let (Some(rate), Some(ceil)) = (class.rate, class.ceil)
            && ceil < rate
        {
            let message = format!("`ceil` in [[class]] must be at least `rate` = \"{rate}\", found \"{ceil}\"");
            table.error(&CEIL, message, Some("a class may borrow up to `ceil`, its rate counted".to_owned()));
            return None;
        }
        class.warn(table);
        Some(class)
    }

    /// Warns of what `table` asks for and does not get.
    fn warn(&self, table: &Table<'_>) {
        if self.rate.is_some() || self.ceil.is_some() || self.weight.is_some() {
            let message = format!("the class {} only counts: this version does not shape traffic", quoted(&self.name));
            table.warning(&NAME, message, Some("`rate`, `ceil` and `weight` are read and have no effect".to_owned()));
        }
    }
}

/// Most classes.
const COUNT_MAX: usize = 1024;

pub(super) static CLASS: Section = Section {
    name: "class",
    doc: "a name for traffic, and its share of the wire",
    keys: &[&NAME as &dyn AnyKey, &RATE, &CEIL, &WEIGHT],
};

static NAME: Key<NameForm> = Key {
    name: "name",
    doc: "the class's name, which no other class has",
    form: NameForm { max: 64 },
    need: Need::Required,
};

static RATE: Key<RateForm> =
    Key { name: "rate", doc: "what it gets in any case, with the units of tc", form: RateForm, need: Need::Optional };

static CEIL: Key<RateForm> =
    Key { name: "ceil", doc: "what it may borrow up to, with the units of tc", form: RateForm, need: Need::Optional };

static WEIGHT: Key<Int<u16>> =
    Key { name: "weight", doc: "its share of what is left", form: Int::range(1, 1000), need: Need::Optional };
