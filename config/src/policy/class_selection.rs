//! Which class frames are put into: `class` of apps and rules.

use super::matches::Direction;
use super::set::Names;
use crate::document::Place;
use crate::report::quoted;

/// The class that frames are put into, by their direction: indexes into [`Policy::classes`](super::Policy::classes).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ClassSelection {
    /// That of frames from the app.
    pub egress: Option<usize>,
    /// That of frames to it.
    pub ingress: Option<usize>,
}

impl ClassSelection {
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

    /// The classes called `classes` under `class` of `table`, without those that are refused.
    pub(super) fn read(classes: &[String], table: &Place<'_>, names: &Names) -> Self {
        let mut selection = Self::default();
        for (index, name) in classes.iter().enumerate() {
            let path = || table.element("class", index);
            let Some((class, direction)) = names.classes.find_leaf(name, table, path) else { continue };
            let place = match direction {
                Direction::Egress => &mut selection.egress,
                Direction::Ingress => &mut selection.ingress,
            };
            if place.replace(class).is_some() {
                let what = format!("is {}, a second class for {}", quoted(name), direction.as_str());
                table.fail(&path(), &what, "state at most one class for egress and one for ingress");
            }
        }
        selection
    }
}
