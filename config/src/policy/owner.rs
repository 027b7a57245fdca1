//! Whose frames a rule is for: `owner`.

use schemars::{JsonSchema, Schema};
use serde::Deserialize;
use serde_json::{Value as Json, json};

use super::NameRef;
use super::container::ContainerId;
use super::glob::{Comm, Glob, GlobOf, Label, PortName, Program};
use super::set::Names;
use crate::account::Account;
use crate::document::Place;
use crate::value::{Fault, Form, Int, Many, is_line, table};

/// Whose it is; of each key that is stated, one value has to hold.
///
/// For a rule, it is the app whose port the frame leaves or reaches. Every list that is not empty has to have an element
/// that matches, and no element of a list under `not` may match.
///
/// What is not known of an app, such as the program of a process that may not be looked at, is nothing that is asked for.
/// Under `not` it counts against the app: what accepts, admits or gives a class does not match, everything else does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(description = "Whose it is; of each key that is stated, one value has to hold.")]
#[non_exhaustive]
pub struct OwnerMatch {
    /// What has to hold.
    #[serde(rename = ".")]
    pub is: Owners,
    /// Whose it is not; none of the values may hold.
    pub not: Owners,
}

table! {
    /// Properties of apps. Within a list, one that matches is enough.
    #[derive(Hash)]
    pub struct Owners {
        /// Name of the port, with `*`, `?` and `[a-z]`.
        #[serde(rename = "app")]
        pub apps: Vec<Glob> = Vec::new(), "Many::<GlobOf<PortName>>";
        /// User, by name or number.
        #[serde(rename = "user")]
        pub users: Vec<Account> = Vec::new(), "Many::<Account>";
        /// User, by number.
        // Moved behind `users` once the table is read.
        uid: Vec<Account> = Vec::new(), "Many::<Id>";
        /// Group, by name or number.
        #[serde(rename = "group")]
        pub groups: Vec<Account> = Vec::new(), "Many::<Account>";
        /// Group, by number.
        gid: Vec<Account> = Vec::new(), "Many::<Id>";
        /// What the process calls itself, which proves nothing; with `*`, `?` and `[a-z]`.
        #[serde(rename = "comm")]
        pub comms: Vec<Glob> = Vec::new(), "Many::<GlobOf<Comm>>";
        /// Path of its program, which anybody may run, with `*`, `?` and `[a-z]`.
        #[serde(rename = "exe")]
        pub exes: Vec<Glob> = Vec::new(), "Many::<GlobOf<Program>>";
        /// Path of its cgroup, or of one above it.
        // As `meta cgroup` and `-m cgroup --path` have it.
        #[serde(rename = "cgroup")]
        pub cgroups: Vec<CgroupPath> = Vec::new(), "Many::<CgroupPath>";
        /// Container that it runs in: its id, 12 digits of it or more, or `*` for any.
        #[serde(rename = "container")]
        pub containers: Vec<ContainerId> = Vec::new(), "Many::<ContainerId>";
        /// Pod that its container is of: its UID in Kubernetes, Podman's id of it, or `*` for any.
        #[serde(rename = "pod")]
        pub pods: Vec<ContainerId> = Vec::new(), "Many::<ContainerId>";
        /// What the security module (SELinux, AppArmor, Smack) called the process when it connected; with `*`, `?` and
        /// `[a-z]`.
        #[serde(rename = "label")]
        pub labels: Vec<Glob> = Vec::new(), "Many::<GlobOf<Label>>";
    }
}

/// A user or a group by number.
struct Id;

impl Form for Id {
    type Value = Account;

    fn expected() -> String {
        Int::<u32, 0, 4_294_967_294>::expected()
    }

    fn schema() -> Json {
        Int::<u32, 0, 4_294_967_294>::schema()
    }

    fn text(text: &str) -> Result<Account, Fault> {
        Int::<u32, 0, 4_294_967_294>::text(text).map(Account::Id)
    }

    fn number(number: i128) -> Result<Account, Fault> {
        Int::<u32, 0, 4_294_967_294>::number(number).map(Account::Id)
    }
}

/// Leaves out of the schema what an `[[app]]` cannot say: the name is its own.
pub(super) fn without_app(schema: &mut Schema) {
    for table in ["/properties", "/properties/not/properties", "/properties/./properties"] {
        let properties = schema.pointer_mut(table).and_then(Json::as_object_mut);
        properties.map(|properties| properties.remove("app"));
    }
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
    /// Ends the reading of `owner` of `table`.
    pub(super) fn complete(&mut self, table: &Place<'_>, names: &Names) {
        for (owners, path) in [(&mut self.is, "owner"), (&mut self.not, "owner.not")] {
            owners.note_names(table, path, names);
            owners.users.append(&mut owners.uid);
            owners.groups.append(&mut owners.gid);
        }
    }
}

impl Owners {
    /// Notes each name that only the machine knows.
    fn note_names(&self, table: &Place<'_>, path: &str, names: &Names) {
        for (accounts, key, kind) in
            [(&self.users, "user", NameRef::User as fn(_) -> _), (&self.groups, "group", NameRef::Group)]
        {
            for (index, account) in accounts.iter().enumerate() {
                if let Account::Name(name) = account {
                    names.note(kind(name.clone()), table, || format!("{path}.{key}"), index);
                }
            }
        }
        for (index, cgroup) in self.cgroups.iter().enumerate() {
            names.note(NameRef::Cgroup(cgroup.clone()), table, || format!("{path}.cgroup"), index);
        }
    }

    /// Whether nothing is stated.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let Self { apps, users, uid, groups, gid, comms, exes, cgroups, containers, pods, labels } = self;
        let accounts = users.is_empty() && uid.is_empty() && groups.is_empty() && gid.is_empty();
        let names = apps.is_empty() && comms.is_empty() && exes.is_empty() && labels.is_empty();
        accounts && names && cgroups.is_empty() && containers.is_empty() && pods.is_empty()
    }

    /// The keys that are stated, if they are nothing but what a process can take on: what it calls itself, and the program
    /// that it runs, into which anybody who may run it can load code of his own. `None` if there is more, or nothing.
    pub(super) fn hints_alone(&self) -> Option<&'static str> {
        let Self { apps, users, groups, comms, exes, cgroups, containers, pods, labels, .. } = self;
        let accounts = !(users.is_empty() && groups.is_empty());
        let containers = containers.len() + pods.len();
        let more = accounts || containers > 0 || !(apps.is_empty() && cgroups.is_empty() && labels.is_empty());
        match (more, comms.is_empty(), exes.is_empty()) {
            (true, ..) | (_, true, true) => None,
            (_, false, true) => Some("`comm` alone, which any process can choose"),
            (_, true, false) => Some("`exe` alone, which any process can run and load code into"),
            (_, false, false) => Some("`comm` and `exe` alone, which any process can take on"),
        }
    }
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

    fn text(text: &str) -> Result<Self, Fault> {
        let path = Self::new(text).filter(|_| is_line(text, 4095));
        match (path, text.strip_prefix("/sys/fs/cgroup/")) {
            (Some(path), None) if text != "/sys/fs/cgroup" => Ok(path),
            (_, Some(rest)) => Err(Fault::hint(format!("leave the mount point out: \"/{rest}\""))),
            _ if !text.starts_with('/') => Err(Fault::hint("it must begin with /")),
            _ => Err(Fault::hint("it must have no empty part, and neither . nor ..")),
        }
    }
}
