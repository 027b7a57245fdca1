//! What traffic is counted under: `[[class]]`.

/// `[[class]]`: a name that traffic is counted under. Its rate and its share come with the scheduler.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Class {
    /// Its name, unique.
    pub name: String,
}

impl Class {
    /// A class of that name.
    #[must_use]
    pub const fn new(name: String) -> Self {
        Self { name }
    }
}
