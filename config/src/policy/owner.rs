//! Whose frames a rule is for.

use crate::account::Account;

/// Whose frames a rule is for: the app whose port the frame leaves or reaches. Every list that is not empty has to have
/// an element that matches, and no element of a list under `not` may match.
///
/// An app without the property, such as one whose program could not be read, matches neither a property nor its negation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct OwnerMatch {
    /// What has to hold.
    pub is: Owners,
    /// What must not hold.
    pub not: Owners,
}

/// Properties of apps. Within a list, one that matches is enough.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Owners {
    /// Name of the port.
    pub apps: Vec<Glob>,
    /// User, by name or number: keys `user` and `uid`.
    pub users: Vec<Account>,
    /// Group, by name or number: keys `group` and `gid`.
    pub groups: Vec<Account>,
    /// What the process calls itself.
    pub comms: Vec<Glob>,
    /// Path of its program.
    pub exes: Vec<Glob>,
    /// Path of its cgroup: this one and those below it, as `meta cgroup` and `-m cgroup --path` have it.
    pub cgroups: Vec<CgroupPath>,
}

impl OwnerMatch {
    /// Whether it holds for every app.
    #[must_use]
    pub fn is_any(&self) -> bool {
        *self == Self::default()
    }
}

/// A pattern of names: `*` is any number of characters, `?` one, `[a-z]` one of them; everything else is itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Glob(String);

/// A path below the root of the cgroup hierarchy, with one slash at the start and none at the end.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CgroupPath(String);

impl Glob {
    /// The pattern `text`, whose brackets are closed.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let mut rest = text;
        while let Some((_, after)) = rest.split_once('[') {
            rest = after.split_once(']')?.1;
        }
        Some(Self(text.to_owned()))
    }

    /// The pattern as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl CgroupPath {
    /// The path `text`, if it begins with a slash and has no empty, `.` or `..` part.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let parts = text.strip_prefix('/')?;
        let parts = parts.strip_suffix('/').unwrap_or(parts);
        let ok = parts.is_empty() || parts.split('/').all(|part| !matches!(part, "" | "." | ".."));
        ok.then(|| Self(format!("/{parts}")))
    }

    /// Whether `path` is this one or below it.
    #[must_use]
    pub fn contains(&self, path: &str) -> bool {
        self.0 == "/" || path.strip_prefix(self.0.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// The path.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
