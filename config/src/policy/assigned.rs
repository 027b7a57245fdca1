//! Which class frames are put into: `class` of apps and rules.

use super::matches::Direction;
use super::name::NameForm;
use super::set::Names;
use crate::form::OneOrMany;
use crate::report::quoted;
use crate::walk::{Item, Key, Table};

/// The form of `class`: the name of a class, or of one for each direction.
pub(super) type ClassKey = Key<OneOrMany<NameForm>>;

/// What is under [`ClassKey`].
pub(super) const CLASS_FORM: OneOrMany<NameForm> = OneOrMany { each: NameForm { max: 64 } };

/// The class that frames are put into, by their direction: indexes into [`Policy::classes`](super::Policy::classes).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Assigned {
    /// That of frames from the app.
    pub egress: Option<usize>,
    /// That of frames to it.
    pub ingress: Option<usize>,
}

impl Assigned {
    /// The class of frames that go this way.
    #[must_use]
    pub const fn of(self, direction: Direction) -> Option<usize> {
        match direction {
            Direction::Egress => self.egress,
            Direction::Ingress => self.ingress,
        }
    }

    /// Whether no frame gets a class.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.egress.is_none() && self.ingress.is_none()
    }

    /// Reads `key` of `table`.
    pub(super) fn read(table: &Table<'_>, key: &'static ClassKey, names: &Names) -> Option<Self> {
        let mut assigned = Self::default();
        let Some(words) = table.optional(key)? else { return Some(assigned) };
        let item = table.item(key)?;
        let (mut words, mut failed) = (words.iter(), false);
        item.each(|element| {
            let Some(word) = words.next() else { return };
            failed |= assigned.add(element, word, names).is_none();
        });
        (!failed).then_some(assigned)
    }

    /// Adds the class that `item` names.
    fn add(&mut self, item: &Item<'_>, name: &str, names: &Names) -> Option<()> {
        let (index, direction) = names.classes.find_leaf(item, name)?;
        let place = match direction {
            Direction::Egress => &mut self.egress,
            Direction::Ingress => &mut self.ingress,
        };
        if place.replace(index).is_some() {
            let word = direction.word();
            let help = "state at most one class for egress and one for ingress".to_owned();
            return item.fail(&format!("is {}, a second class for {word}", quoted(name)), Some(help));
        }
        Some(())
    }
}
