//! Whose frames a rule is for.

use serde_json::{Value as Json, json};
use toml::de::DeValue;

use super::Mention;
use super::glob::{Glob, GlobForm};
use super::set::Names;
use crate::account::{Account, AccountForm};
use crate::form::{Int, OneOrMany};
use crate::walk::{AnyKey, Form, Item, Key, Need, Nested, Section, Table};

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
    /// Reads the table under `owner` of a rule, or of an app, which cannot name apps.
    pub(super) fn read(table: &Table<'_>, keys: &OwnerKeys, names: &Names) -> Option<Self> {
        let not = table.nested(keys.not);
        let is = Owners::read(table, keys, names);
        let not = match not? {
            None => Some(Owners::default()),
            Some(not) => Owners::read(&not, keys, names),
        };
        Some(Self { is: is?, not: not? })
    }
}

impl Owners {
    fn read(table: &Table<'_>, keys: &OwnerKeys, names: &Names) -> Option<Self> {
        let apps = keys.app.map_or(Some(None), |key| table.optional(key));
        let users = table.optional(&USER);
        let uids = table.optional(&UID);
        let groups = table.optional(&GROUP);
        let gids = table.optional(&GID);
        let comms = table.optional(&COMM);
        let exes = table.optional(&EXE);
        let cgroups = table.optional(&CGROUP);
        let labels = table.optional(&LABEL);
        let owners = Self {
            apps: apps?.unwrap_or_default(),
            users: accounts(users?, uids?),
            groups: accounts(groups?, gids?),
            comms: comms?.unwrap_or_default(),
            exes: exes?.unwrap_or_default(),
            cgroups: cgroups?.unwrap_or_default(),
            labels: labels?.unwrap_or_default(),
        };
        mention(table.item(&USER), &owners.users, names, |account| match account {
            Account::Name(name) => Some(Mention::User(name.clone())),
            Account::Id(_) => None,
        });
        mention(table.item(&GROUP), &owners.groups, names, |account| match account {
            Account::Name(name) => Some(Mention::Group(name.clone())),
            Account::Id(_) => None,
        });
        mention(table.item(&CGROUP), &owners.cgroups, names, |path| Some(Mention::Cgroup(path.clone())));
        Some(owners)
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
fn accounts(names: Option<Vec<Account>>, ids: Option<Vec<u32>>) -> Vec<Account> {
    names.into_iter().flatten().chain(ids.into_iter().flatten().map(Account::Id)).collect()
}

/// Notes each of `values`, the first of which are the elements of `item`, that only the machine knows.
fn mention<T>(item: Option<Item<'_>>, values: &[T], names: &Names, of: impl Fn(&T) -> Option<Mention>) {
    let Some(item) = item else { return };
    let mut values = values.iter();
    item.each(|element| {
        if let Some(mention) = values.next().and_then(&of) {
            names.mention(element, mention);
        }
    });
}

/// The form of a [`CgroupPath`].
#[derive(Clone, Copy, Debug)]
pub(super) struct CgroupForm;

impl Form for CgroupForm {
    type Value = CgroupPath;

    fn expected(&self) -> String {
        "a path from the root of the cgroups, such as \"/system.slice/bob.service\"".to_owned()
    }

    fn schema(&self) -> Json {
        json!({ "type": "string", "pattern": "^/", "maxLength": 4095 })
    }

    fn read(&self, item: &Item<'_>) -> Option<CgroupPath> {
        let DeValue::String(text) = item.value else { return item.refuse(self, None) };
        let path = CgroupPath::new(text).filter(|_| text.len() <= 4095 && !text.contains(char::is_control));
        let help = || match text.strip_prefix("/sys/fs/cgroup/") {
            Some(rest) => Some(format!("leave the mount point out: \"/{rest}\"")),
            None if !text.starts_with('/') => Some("it must begin with /".to_owned()),
            None => Some("it must have no empty part, and neither . nor ..".to_owned()),
        };
        match path {
            Some(path) if !text.starts_with("/sys/fs/cgroup") => Some(path),
            _ => item.refuse(self, help()),
        }
    }
}

/// The keys of an owner that are not the same everywhere.
pub(super) struct OwnerKeys {
    app: Option<&'static Key<OneOrMany<GlobForm>>>,
    not: &'static Key<Nested>,
}

/// The keys of a rule's owner.
pub(super) static RULE_KEYS: OwnerKeys = OwnerKeys { app: Some(&APP), not: &RULE_NOT };
/// The keys of an app's owner.
pub(super) static APP_KEYS: OwnerKeys = OwnerKeys { app: None, not: &APP_NOT };

const DOC: &str = "whose it is; of each key that is stated, one value has to hold";
const NOT_DOC: &str = "whose it is not; none of the values may hold";

/// `owner` of a rule.
pub(super) static RULE_OWNER: Key<Nested> =
    Key { name: "owner", doc: DOC, form: Nested(&RULE_SECTION), need: Need::Optional };
/// `owner` of an app.
pub(super) static APP_OWNER: Key<Nested> =
    Key { name: "owner", doc: DOC, form: Nested(&APP_SECTION), need: Need::Optional };

static RULE_SECTION: Section = Section {
    name: "rule.owner",
    doc: DOC,
    keys: &[&APP as &dyn AnyKey, &USER, &UID, &GROUP, &GID, &COMM, &EXE, &CGROUP, &LABEL, &RULE_NOT],
};
static APP_SECTION: Section = Section {
    name: "app.owner",
    doc: DOC,
    keys: &[&USER as &dyn AnyKey, &UID, &GROUP, &GID, &COMM, &EXE, &CGROUP, &LABEL, &APP_NOT],
};
static RULE_NOT: Key<Nested> = Key { name: "not", doc: NOT_DOC, form: Nested(&RULE_NOT_SECTION), need: Need::Optional };
static APP_NOT: Key<Nested> = Key { name: "not", doc: NOT_DOC, form: Nested(&APP_NOT_SECTION), need: Need::Optional };
static RULE_NOT_SECTION: Section = Section {
    name: "rule.owner.not",
    doc: NOT_DOC,
    keys: &[&APP as &dyn AnyKey, &USER, &UID, &GROUP, &GID, &COMM, &EXE, &CGROUP, &LABEL],
};
static APP_NOT_SECTION: Section = Section {
    name: "app.owner.not",
    doc: NOT_DOC,
    keys: &[&USER as &dyn AnyKey, &UID, &GROUP, &GID, &COMM, &EXE, &CGROUP, &LABEL],
};

/// A key that takes many values of `form`.
const fn values<F>(name: &'static str, doc: &'static str, form: F) -> Key<OneOrMany<F>> {
    Key { name, doc, form: OneOrMany { each: form }, need: Need::Optional }
}

const ID: Int<u32> = Int::range(0, u32::MAX - 1);

static APP: Key<OneOrMany<GlobForm>> = values("app", "name of the port, with `*`, `?` and `[a-z]`", GlobForm::Name);
static USER: Key<OneOrMany<AccountForm>> = values("user", "user, by name or number", AccountForm);
static UID: Key<OneOrMany<Int<u32>>> = values("uid", "user, by number", ID);
static GROUP: Key<OneOrMany<AccountForm>> = values("group", "group, by name or number", AccountForm);
static GID: Key<OneOrMany<Int<u32>>> = values("gid", "group, by number", ID);
static COMM: Key<OneOrMany<GlobForm>> =
    values("comm", "what the process calls itself, which proves nothing; with `*`, `?` and `[a-z]`", GlobForm::Comm);
static EXE: Key<OneOrMany<GlobForm>> =
    values("exe", "path of its program, which anybody may run, with `*`, `?` and `[a-z]`", GlobForm::Path);
static LABEL: Key<OneOrMany<GlobForm>> = values(
    "label",
    "what the security module (SELinux, AppArmor, Smack) called the process when it connected; with `*`, `?` and `[a-z]`",
    GlobForm::Label,
);
static CGROUP: Key<OneOrMany<CgroupForm>> = values("cgroup", "path of its cgroup, or of one above it", CgroupForm);
