//! Whose frames a rule is for.

use std::collections::{BTreeMap, HashMap};

use kopi_config::Account;
use kopi_config::policy::{Action, CgroupPath, ContainerId, Decision, Glob, OwnerMatch, Owners, Policy, Rule};

use crate::bits::{Block, Set};

/// The process behind a port, as far as it is known.
///
/// What is `None` is not known: because the process is in another namespace, or /proc may not be read. It is nothing that
/// a policy asks for. Under `not`, it counts against the owner: a rule that accepts or gives a class does not match, nor
/// does an entry that admits; rules that drop, reject, log or count do match, and so do entries that do not admit. So a
/// process that nothing is known of is neither allowed by owner nor spared what all but one owner are refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Owner<'a> {
    /// Name of the port.
    pub name: &'a str,
    /// Effective user id.
    pub uid: Option<u32>,
    /// Effective group id.
    pub gid: Option<u32>,
    /// Supplementary groups.
    pub groups: Option<&'a [u32]>,
    /// What the process calls itself.
    pub comm: Option<&'a str>,
    /// Path of its program.
    pub exe: Option<&'a str>,
    /// Path of its cgroup.
    pub cgroup: Option<&'a str>,
    /// Id of its container, empty if it is in none.
    pub container: Option<&'a str>,
    /// UID of its pod, empty if it is in none.
    pub pod: Option<&'a str>,
    /// What the security module called it when it connected.
    pub label: Option<&'a str>,
}

impl<'a> Owner<'a> {
    /// A process of which nothing is known but the name of its port.
    #[must_use]
    pub const fn unknown(name: &'a str) -> Self {
        let (uid, gid, groups, comm, exe) = (None, None, None, None, None);
        Self { name, uid, gid, groups, comm, exe, cgroup: None, container: None, pod: None, label: None }
    }

    /// Whether it is of the group: its own or a supplementary one. Without knowing the latter it may be, too.
    fn is_of(&self, group: u32) -> Option<bool> {
        let supplementary = self.groups.map(|groups| groups.contains(&group));
        if self.gid == Some(group) { Some(true) } else { self.gid.and(supplementary) }
    }
}

/// Users and groups of the machine.
pub trait Accounts {
    /// The id of the user of that name.
    fn user(&self, name: &str) -> Option<u32>;
    /// The id of the group of that name.
    fn group(&self, name: &str) -> Option<u32>;
}

/// A machine where no name is known.
impl Accounts for () {
    fn user(&self, _: &str) -> Option<u32> {
        None
    }

    fn group(&self, _: &str) -> Option<u32> {
        None
    }
}

/// What the names of a policy stood for when it was compiled.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Names {
    users: BTreeMap<String, Option<u32>>,
    groups: BTreeMap<String, Option<u32>>,
}

impl Names {
    pub(crate) fn resolve(policy: &Policy, accounts: &dyn Accounts) -> Self {
        let mut names = Self::default();
        let rules = policy.rules.iter().map(|rule| &rule.owner);
        for owner in rules.chain(policy.apps.iter().map(|app| &app.owner)) {
            names.add(&owner.is, accounts);
            names.add(&owner.not, accounts);
        }
        names
    }

    fn add(&mut self, list: &Owners, accounts: &dyn Accounts) {
        for name in list.users.iter().filter_map(name) {
            self.users.entry(name.to_owned()).or_insert_with(|| accounts.user(name));
        }
        for name in list.groups.iter().filter_map(name) {
            self.groups.entry(name.to_owned()).or_insert_with(|| accounts.group(name));
        }
    }

    /// Whether a name stands for something else by now.
    pub(crate) fn changed(&self, accounts: &dyn Accounts) -> bool {
        self.users.iter().any(|(name, id)| accounts.user(name) != *id)
            || self.groups.iter().any(|(name, id)| accounts.group(name) != *id)
    }
}

fn name(account: &Account) -> Option<&str> {
    match account {
        Account::Name(name) => Some(name),
        Account::Id(_) => None,
    }
}

/// The ids of a list; names that stand for nobody are left out.
fn ids(list: &[Account], names: &BTreeMap<String, Option<u32>>) -> Option<Vec<u32>> {
    let id = |account: &Account| match account {
        Account::Id(id) => Some(*id),
        Account::Name(name) => names.get(name).copied().flatten(),
    };
    (!list.is_empty()).then(|| list.iter().filter_map(id).collect())
}

/// An [`OwnerMatch`] whose names are resolved.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Test {
    is: List,
    not: List,
    /// What a property under `not` counts for that is not known: whether it is taken for another.
    otherwise: bool,
}

/// Owners whose names are resolved. What is not stated is empty, or `None` where a list may be empty because its names
/// stand for nobody.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct List {
    apps: Vec<Glob>,
    users: Option<Vec<u32>>,
    groups: Option<Vec<u32>>,
    comms: Vec<Glob>,
    exes: Vec<Glob>,
    cgroups: Vec<CgroupPath>,
    containers: Vec<ContainerId>,
    pods: Vec<ContainerId>,
    labels: Vec<Glob>,
}

impl List {
    fn new(owners: &Owners, names: &Names) -> Self {
        Self {
            apps: owners.apps.clone(),
            users: ids(&owners.users, &names.users),
            groups: ids(&owners.groups, &names.groups),
            comms: owners.comms.clone(),
            exes: owners.exes.clone(),
            cgroups: owners.cgroups.clone(),
            containers: owners.containers.clone(),
            pods: owners.pods.clone(),
            labels: owners.labels.clone(),
        }
    }

    /// For every list that is stated, whether the owner has a property of it; `None` in it if that is not known.
    fn answers(&self, owner: &Owner<'_>) -> impl Iterator<Item = Option<bool>> {
        let globs = |globs: &[Glob], text: Option<&str>| {
            (!globs.is_empty()).then(|| text.map(|text| globs.iter().any(|glob| glob.matches(text))))
        };
        let groups = self.groups.as_ref().map(|groups| {
            let answers = || groups.iter().map(|group| owner.is_of(*group));
            // True if one is true, else unknown if one is unknown.
            if answers().any(|is| is == Some(true)) {
                Some(true)
            } else {
                answers().collect::<Option<Vec<_>>>().map(|_| false)
            }
        });
        let cgroups = (!self.cgroups.is_empty())
            .then(|| owner.cgroup.map(|path| self.cgroups.iter().any(|cgroup| cgroup.contains(path))));
        let contained = |ids: &[ContainerId], own: Option<&str>| {
            (!ids.is_empty()).then(|| own.map(|own| ids.iter().any(|id| id.matches(own))))
        };
        let containers = contained(&self.containers, owner.container);
        let pods = contained(&self.pods, owner.pod);
        let users = self.users.as_ref().map(|users| owner.uid.map(|uid| users.contains(&uid)));
        let comms = globs(&self.comms, owner.comm);
        let exes = globs(&self.exes, owner.exe);
        let labels = globs(&self.labels, owner.label);
        let apps = globs(&self.apps, Some(owner.name));
        [apps, users, groups, comms, exes, cgroups, containers, pods, labels].into_iter().flatten()
    }
}

impl Test {
    /// The test for something that is given to those who pass (`gives`), or taken from them.
    pub(crate) fn new(owner: &OwnerMatch, gives: bool, names: &Names) -> Self {
        Self { is: List::new(&owner.is, names), not: List::new(&owner.not, names), otherwise: !gives }
    }

    pub(crate) fn holds(&self, owner: &Owner<'_>) -> bool {
        let is = self.is.answers(owner).all(|answer| answer == Some(true));
        is && self.not.answers(owner).all(|answer| answer.map_or(self.otherwise, |is| !is))
    }
}

/// Owners that an operator asks for, beside the policy: every list that is not empty has to have an element that matches.
/// What is not known of a process is nothing that is asked for.
#[derive(Clone, Debug)]
pub struct Selector(List);

impl Selector {
    /// The owners that `owners` says, by the accounts that there are now.
    ///
    /// # Errors
    ///
    /// The name of a user or a group that there is not.
    pub fn new(owners: &Owners, accounts: &dyn Accounts) -> Result<Self, String> {
        let mut names = Names::default();
        names.add(owners, accounts);
        let missing = |names: &BTreeMap<String, Option<u32>>| {
            names.iter().find(|(_, id)| id.is_none()).map(|(name, _)| name.clone())
        };
        match missing(&names.users).or_else(|| missing(&names.groups)) {
            Some(name) => Err(name),
            None => Ok(Self(List::new(owners, &names))),
        }
    }

    /// Whether `owner` is one of them.
    #[must_use]
    pub fn holds(&self, owner: &Owner<'_>) -> bool {
        self.0.answers(owner).all(|answer| answer == Some(true))
    }
}

/// The owner parts of all rules.
#[derive(Debug)]
pub(crate) struct OwnerParts {
    /// Rules that are for every owner.
    any: Set,
    /// Every other test, and the rules that it stands in.
    tests: Vec<(Test, Vec<usize>)>,
}

impl OwnerParts {
    pub(crate) fn compile(rules: &[Rule], names: &Names) -> Self {
        let mut tests: HashMap<Test, Vec<usize>> = HashMap::new();
        for (index, rule) in rules.iter().enumerate().filter(|(_, rule)| !rule.owner.is_any()) {
            let gives = matches!(rule.action, Action::Decide(Decision::Accept) | Action::Class);
            tests.entry(Test::new(&rule.owner, gives, names)).or_default().push(index);
        }
        let any = Set::of(rules.len(), |rule| rules[rule].owner.is_any());
        Self { any, tests: tests.into_iter().collect() }
    }

    /// The rules that are for this owner.
    pub(crate) fn rules_of(&self, owner: &Owner<'_>) -> Set {
        let mut blocks = self.any.blocks().to_vec();
        for (_, rules) in self.tests.iter().filter(|(test, _)| test.holds(owner)) {
            for rule in rules {
                blocks[rule / Block::RULES].insert(rule % Block::RULES);
            }
        }
        Set::new(blocks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Bob;

    impl Accounts for Bob {
        fn user(&self, name: &str) -> Option<u32> {
            (name == "bob").then_some(1001)
        }

        fn group(&self, _: &str) -> Option<u32> {
            None
        }
    }

    /// All lists have to hold, in each one element is enough, and what is not known is never what is asked for.
    #[test]
    fn selectors_hold_for_those_asked_for() {
        let mut owners = Owners::default();
        let db = Owner { uid: Some(1001), comm: Some("postgres"), ..Owner::unknown("db") };
        let unknown = Owner::unknown("db");
        assert!(Selector::new(&owners, &Bob).is_ok_and(|all| all.holds(&db) && all.holds(&unknown)));
        owners.users = vec![Account::Id(7), Account::Name("bob".into())];
        assert!(Selector::new(&owners, &Bob).is_ok_and(|bob| bob.holds(&db) && !bob.holds(&unknown)));
        owners.comms = vec![Glob::new("nginx").unwrap(), Glob::new("post*").unwrap()];
        assert!(Selector::new(&owners, &Bob).is_ok_and(|bob| bob.holds(&db)));
        owners.comms.pop();
        assert!(Selector::new(&owners, &Bob).is_ok_and(|bob| !bob.holds(&db)));
        owners.groups = vec![Account::Name("nobody-s".into())];
        assert_eq!(Selector::new(&owners, &Bob).err(), Some("nobody-s".into()));
    }
}
