//! Whose frames a rule is for: `owner`.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value as Json, json};

use super::NameRef;
use super::glob::{Comm, Glob, GlobOf, Label, PortName, Program};
use super::set::Names;
use crate::account::Account;
use crate::document::Place;
use crate::value::{Fault, Form, Int, Many, Raw};

/// Whose frames a rule is for: the app whose port the frame leaves or reaches. Every list that is not empty has to have
/// an element that matches, and no element of a list under `not` may match.
///
/// What is not known of an app, such as the program of a process that may not be looked at, is nothing that is asked for.
/// Under `not` it counts against the app: what accepts, admits or gives a class does not match, everything else does.
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
    /// What the security module called the process when it connected.
    pub labels: Vec<Glob>,
}

impl OwnerMatch {
    /// Whether it holds for every app.
    #[must_use]
    pub fn is_any(&self) -> bool {
        self.is.is_empty() && self.not.is_empty()
    }
}

/// A path below the root of the cgroup hierarchy, with one slash at the start and none at the end.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CgroupPath(String);

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

impl OwnerMatch {
    /// What the table under `owner` of `table` says.
    pub(super) fn read(entry: impl Into<Statement>, table: &Place<'_>, names: &Names) -> Self {
        let Statement { is, not } = entry.into();
        is.note_names(table, "owner", names);
        not.note_names(table, "owner.not", names);
        Self { is, not }
    }
}

/// What a table says, and what its `not` says.
pub(super) struct Statement {
    is: Owners,
    not: Owners,
}

impl Owners {
    /// Notes each name that only the machine knows. Those of users and groups stand before the numbers.
    fn note_names(&self, table: &Place<'_>, path: &str, names: &Names) {
        for (index, account) in self.users.iter().enumerate() {
            if let Account::Name(name) = account {
                names.note(NameRef::User(name.clone()), table, || format!("{path}.user"), index);
            }
        }
        for (index, account) in self.groups.iter().enumerate() {
            if let Account::Name(name) = account {
                names.note(NameRef::Group(name.clone()), table, || format!("{path}.group"), index);
            }
        }
        for (index, cgroup) in self.cgroups.iter().enumerate() {
            names.note(NameRef::Cgroup(cgroup.clone()), table, || format!("{path}.cgroup"), index);
        }
    }

    /// Whether nothing is stated.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let Self { apps, users, groups, comms, exes, cgroups, labels } = self;
        let names = apps.is_empty() && users.is_empty() && groups.is_empty();
        names && comms.is_empty() && exes.is_empty() && cgroups.is_empty() && labels.is_empty()
    }

    /// The keys that are stated, if they are nothing but what a process can take on: what it calls itself, and the program
    /// that it runs, into which anybody who may run it can load code of his own. `None` if there is more, or nothing.
    pub(super) fn hints_alone(&self) -> Option<&'static str> {
        let Self { apps, users, groups, comms, exes, cgroups, labels } = self;
        let accounts = !(users.is_empty() && groups.is_empty());
        let more = accounts || !(apps.is_empty() && cgroups.is_empty() && labels.is_empty());
        match (more, comms.is_empty(), exes.is_empty()) {
            (true, ..) | (_, true, true) => None,
            (_, false, true) => Some("`comm` alone, which any process can choose"),
            (_, true, false) => Some("`exe` alone, which any process can run and load code into"),
            (_, false, false) => Some("`comm` and `exe` alone, which any process can take on"),
        }
    }
}

/// Names before numbers, whatever their order in the file.
fn accounts(names: Vec<Account>, ids: Vec<u32>) -> Vec<Account> {
    names.into_iter().chain(ids.into_iter().map(Account::Id)).collect()
}

/// A path of cgroups.
impl Form for CgroupPath {
    type Value = Self;

    fn expected() -> String {
        "a path from the root of the cgroups, such as \"/system.slice/bob.service\"".to_owned()
    }

    fn schema() -> Json {
        json!({ "type": "string", "pattern": "^/", "maxLength": 4095 })
    }

    fn read(raw: Raw<'_>) -> Result<Self, Fault> {
        let Raw::Text(text) = raw else { return Err(Fault::default()) };
        let path = Self::new(text).filter(|_| text.len() <= 4095 && !text.contains(char::is_control));
        match (path, text.strip_prefix("/sys/fs/cgroup/")) {
            (Some(path), None) if text != "/sys/fs/cgroup" => Ok(path),
            (_, Some(rest)) => Err(Fault::hint(format!("leave the mount point out: \"/{rest}\""))),
            _ if !text.starts_with('/') => Err(Fault::hint("it must begin with /")),
            _ => Err(Fault::hint("it must have no empty part, and neither . nor ..")),
        }
    }
}

/// A user or a group by number.
type Id = Int<u32, 0, 4_294_967_294>;

/// Declares tables of owners: what they have besides the keys that all have, and how that is taken.
macro_rules! owners {
    ($($(#[$doc:meta])* $name:ident {
        $($(#[$app_doc:meta])* $app:ident: $apps:ty,)? $(; $(#[$not_doc:meta])* $not:ident: $nots:ty,)?
    })*) => { $(
        $(#[$doc])*
        #[derive(Default, Deserialize, JsonSchema)]
        #[serde(deny_unknown_fields, default)]
        pub(super) struct $name {
            $($(#[$app_doc])* $app: $apps,)?
            /// User, by name or number.
            user: Many<Account>,
            /// User, by number.
            uid: Many<Id>,
            /// Group, by name or number.
            group: Many<Account>,
            /// Group, by number.
            gid: Many<Id>,
            /// What the process calls itself, which proves nothing; with `*`, `?` and `[a-z]`.
            comm: Many<GlobOf<Comm>>,
            /// Path of its program, which anybody may run, with `*`, `?` and `[a-z]`.
            exe: Many<GlobOf<Program>>,
            /// Path of its cgroup, or of one above it.
            cgroup: Many<CgroupPath>,
            /// What the security module (SELinux, AppArmor, Smack) called the process when it connected; with `*`, `?` and
            /// `[a-z]`.
            label: Many<GlobOf<Label>>,
            $($(#[$not_doc])* $not: $nots,)?
        }

        impl From<$name> for Owners {
            fn from(entry: $name) -> Self {
                Self {
                    $(apps: entry.$app.0,)?
                    users: accounts(entry.user.0, entry.uid.0),
                    groups: accounts(entry.group.0, entry.gid.0),
                    comms: entry.comm.0,
                    exes: entry.exe.0,
                    cgroups: entry.cgroup.0,
                    labels: entry.label.0,
                    ..Self::default()
                }
            }
        }
    )* };
}
owners! {
    /// Whose it is; of each key that is stated, one value has to hold.
    RuleOwner {
        /// Name of the port, with `*`, `?` and `[a-z]`.
        app: Many<GlobOf<PortName>>,
        ;
        /// Whose it is not; none of the values may hold.
        not: RuleOwnerNot,
    }
    /// Whose it is not; none of the values may hold.
    RuleOwnerNot {
        /// Name of the port, with `*`, `?` and `[a-z]`.
        app: Many<GlobOf<PortName>>,
    }
    /// Whose it is; of each key that is stated, one value has to hold.
    AppOwner {
        ;
        /// Whose it is not; none of the values may hold.
        not: AppOwnerNot,
    }
    /// Whose it is not; none of the values may hold.
    AppOwnerNot {}
}

impl From<RuleOwner> for Statement {
    fn from(mut entry: RuleOwner) -> Self {
        Self { not: std::mem::take(&mut entry.not).into(), is: entry.into() }
    }
}

impl From<AppOwner> for Statement {
    fn from(mut entry: AppOwner) -> Self {
        Self { not: std::mem::take(&mut entry.not).into(), is: entry.into() }
    }
}
