//! Who may attach, what names stand for, and what a rule is known by.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::sync::Arc;

use kopi_config::Account;
use kopi_config::policy::{
    Action, App, CgroupPath, Class, Decision, Direction, Field, Glob, Match, OwnerMatch, Policy, Rule, State,
};
use kopi_policy::{Accounts, Cause, Owner, Packet, Refusal, Ruleset, TooMany};

use crate::frame::{Body, Frame};

/// A machine with bob, and one group.
struct Machine {
    bob: Cell<Option<u32>>,
}

impl Accounts for Machine {
    fn user(&self, name: &str) -> Option<u32> {
        if name == "bob" { self.bob.get() } else { None }
    }

    fn group(&self, name: &str) -> Option<u32> {
        (name == "db").then_some(50)
    }
}

fn machine() -> Machine {
    Machine { bob: Cell::new(Some(1001)) }
}

fn user(name: &str) -> OwnerMatch {
    let mut owner = OwnerMatch::default();
    owner.is.users = vec![Account::Name(name.to_owned())];
    owner
}

fn not(owner: OwnerMatch) -> OwnerMatch {
    let mut negated = OwnerMatch::default();
    negated.not = owner.is;
    negated
}

fn app(name: &str, owner: OwnerMatch, admit: bool) -> App {
    let mut app = App::new(name.to_owned(), owner);
    app.admit = admit;
    app
}

fn bob() -> Owner<'static> {
    Owner { uid: Some(1001), gid: Some(100), groups: Some(&[]), ..Owner::unknown("") }
}

fn ruleset(policy: Policy) -> Ruleset {
    Ruleset::new(Arc::new(policy), &machine()).unwrap()
}

/// The entry of the kernel's port admits nobody, and keeps its name from everybody.
#[test]
fn entry_of_the_host_admits_nobody() {
    let mut policy = Policy::default();
    policy.apps = vec![app(App::HOST, OwnerMatch::default(), true)];
    for (attach, expected) in [(true, Ok(None)), (false, Err(Refusal::NoEntry))] {
        policy.default.attach = attach;
        let ruleset = ruleset(policy.clone());
        assert_eq!(ruleset.admit(&bob(), ""), expected);
        assert_eq!(ruleset.admit(&bob(), "x"), expected);
        assert_eq!(ruleset.admit(&bob(), App::HOST), Err(Refusal::NameOfOther { asked: App::HOST.into() }));
    }
}

/// The first entry for the owner counts, or the one with the name that is asked for; no name is had that is another's,
/// and no port security evaded by another name.
#[test]
fn first_entry_for_the_owner_admits() {
    let mut policy = Policy::default();
    policy.apps = vec![
        app("bob-1", user("bob"), true),
        app("bob-2", user("bob"), true),
        app("carol", user("carol"), true),
        app("nobody", not(user("bob")), false),
    ];
    let ruleset = ruleset(policy);
    let carol = Owner { uid: Some(1002), ..bob() };
    assert_eq!(ruleset.admit(&bob(), ""), Ok(Some(0)));
    assert_eq!(ruleset.admit(&bob(), "bob-2"), Ok(Some(1)));
    assert_eq!(ruleset.admit(&bob(), "carol"), Err(Refusal::NameOfOther { asked: "carol".into() }));
    let other = Refusal::OtherName { asked: "x".into(), entry: "bob-1".into() };
    assert_eq!(ruleset.admit(&bob(), "x"), Err(other));
    // There is no user carol on the machine, so the entry is for nobody.
    for asked in ["", "x", "carol", "bob-1", "nobody"] {
        assert_eq!(ruleset.admit(&carol, asked), Err(Refusal::NotAdmitted { entry: "nobody".into() }), "{asked}");
    }
    // An entry that takes something away is for those who cannot show that it is not for them.
    assert!(ruleset.admit(&Owner::unknown(""), "").is_err());
}

/// Whom no entry is for may attach or not, as the default says.
#[test]
fn others_attach_as_the_default_says() {
    for attach in [true, false] {
        let mut policy = Policy::default();
        policy.default.attach = attach;
        policy.apps = vec![app("bob", user("bob"), true)];
        let ruleset = ruleset(policy);
        let expected = if attach { Ok(None) } else { Err(Refusal::NoEntry) };
        for owner in [Owner::unknown("bob"), Owner { uid: Some(7), ..bob() }] {
            assert_eq!(ruleset.admit(&owner, ""), expected);
            assert_eq!(ruleset.admit(&owner, "x"), expected);
            assert_eq!(ruleset.admit(&owner, "bob"), Err(Refusal::NameOfOther { asked: "bob".into() }));
        }
    }
}

/// Fault 22: whoever is not known gets nothing that is for owners, and is spared nothing that is for all but one.
#[test]
fn unknown_owner_is_not_allowed_by_owner() {
    let unknown = Owner::unknown("app");
    let exe = |path: &str| {
        let mut owner = OwnerMatch::default();
        owner.is.exes = vec![Glob::new(path).unwrap()];
        owner
    };
    let cgroup = |path: &str| {
        let mut owner = OwnerMatch::default();
        owner.is.cgroups = vec![CgroupPath::new(path).unwrap()];
        owner
    };
    let group = || {
        let mut owner = OwnerMatch::default();
        owner.is.groups = vec![Account::Name("db".into())];
        owner
    };
    for owner in [user("bob"), user("carol"), exe("/bin/*"), cgroup("/"), group()] {
        for (owner, decision, matches) in [
            (owner.clone(), Decision::Accept, false),
            (owner.clone(), Decision::Drop, false),
            (not(owner.clone()), Decision::Accept, false),
            (not(owner.clone()), Decision::Drop, true),
        ] {
            let mut policy = Policy::default();
            policy.rules = vec![Rule::new("r".into(), Match::default(), owner.clone(), Action::Decide(decision))];
            let ruleset = ruleset(policy);
            let key = Frame { dst_mac: 1, src_mac: 2, tags: vec![], body: Body::Length }.key(0, 0);
            let port_policy = ruleset.port_policy(&unknown, None, &[]);
            let cause = ruleset.evaluate(&port_policy, &Packet::new(Direction::Egress, &key, State::Untracked)).cause;
            assert_eq!(cause == Cause::Rule(0), matches, "{owner:?} {decision:?}");
        }
    }
}

/// Supplementary groups count, patterns match, and a cgroup holds those below it.
#[test]
fn properties_of_owners_match() {
    let check = |owner: &Owner<'_>, change: &dyn Fn(&mut OwnerMatch)| {
        let mut wanted = OwnerMatch::default();
        change(&mut wanted);
        let mut policy = Policy::default();
        policy.apps = vec![app("x", wanted, true)];
        ruleset(policy).admit(owner, "") == Ok(Some(0))
    };
    let owner = Owner { groups: Some(&[50]), exe: Some("/usr/lib/pg/bin/postgres"), ..bob() };
    let owner = Owner { comm: Some("postgres"), cgroup: Some("/a/b"), ..owner };
    assert!(check(&owner, &|o| o.is.groups = vec![Account::Name("db".into())]));
    assert!(check(&owner, &|o| o.is.groups = vec![Account::Id(100)]));
    assert!(!check(&owner, &|o| o.is.groups = vec![Account::Id(51)]));
    assert!(!check(&owner, &|o| o.not.groups = vec![Account::Id(51), Account::Id(50)]));
    assert!(check(&owner, &|o| o.not.groups = vec![Account::Id(51)]));
    assert!(!check(&Owner { groups: None, ..owner }, &|o| o.not.groups = vec![Account::Id(51)]));
    for (pattern, matches) in [
        ("/usr/lib/*/bin/postgres", true),
        ("*", true),
        ("/usr/lib/pg/bin/postgre?", true),
        ("/usr/lib/pg/bin/[m-p]ostgres", true),
        ("/usr/lib/pg/bin/[a-o]ostgres", false),
        ("/usr/lib/pg/bin", false),
        ("*postgres*x", false),
        ("", false),
    ] {
        assert_eq!(check(&owner, &|o| o.is.exes = vec![Glob::new(pattern).unwrap()]), matches, "{pattern}");
    }
    for (path, matches) in [("/a", true), ("/a/b", true), ("/", true), ("/a/b/c", false), ("/a/bb", false)] {
        assert_eq!(check(&owner, &|o| o.is.cgroups = vec![CgroupPath::new(path).unwrap()]), matches, "{path}");
    }
}

/// A user who is added, removed or renumbered makes the ruleset stale, nothing else does.
#[test]
fn changed_names_make_a_ruleset_stale() {
    let mut policy = Policy::default();
    policy.apps = vec![app("bob", user("bob"), true), app("carol", not(user("carol")), true)];
    let machine = machine();
    let ruleset = Ruleset::new(Arc::new(policy), &machine).unwrap();
    assert!(!ruleset.is_stale(&machine));
    for bob in [None, Some(1002)] {
        machine.bob.set(bob);
        assert!(ruleset.is_stale(&machine));
    }
    machine.bob.set(Some(1001));
    assert!(!ruleset.is_stale(&machine));
}

/// Rules keep their ids when others come, go or change places, and get another when they say something else.
#[test]
fn unchanged_rules_keep_their_ids() {
    let rule = |name: &str, port: u16| {
        let mut matches = Match::default();
        matches.dst_port = Some(Field::new([port..=port]));
        Rule::new(name.to_owned(), matches, OwnerMatch::default(), Action::Count)
    };
    let ids = |rules: Vec<Rule>| {
        let mut policy = Policy::default();
        policy.classes = vec![Class::new("a".into()), Class::new("b".into())];
        policy.rules = rules;
        ruleset(policy).ids().to_vec()
    };
    let before = ids(vec![rule("a", 1), rule("rule-2", 2), rule("rule-3", 2)]);
    assert_eq!(before.iter().collect::<BTreeSet<_>>().len(), 3);
    let after = ids(vec![rule("new", 9), rule("rule-2", 2), rule("a", 1), rule("rule-4", 2)]);
    assert_eq!(after[1..], [before[1], before[0], before[2]]);
    let mut other = rule("a", 1);
    other.log = true;
    let mut classes = [rule("a", 1), rule("a", 1)];
    (classes[0].class.egress, classes[1].class.egress) = (Some(0), Some(1));
    let [a, b] = classes;
    let changed = [ids(vec![rule("a", 2)]), ids(vec![rule("b", 1)]), ids(vec![other]), ids(vec![a]), ids(vec![b])];
    let changed: BTreeSet<_> = changed.concat().into_iter().chain([before[0]]).collect();
    assert_eq!(changed.len(), 6);
}

/// The room for rules that go on is that of a word.
#[test]
fn too_many_rules_are_an_error() {
    let rule = |action| Rule::new(String::new(), Match::default(), OwnerMatch::default(), action);
    let compile = |rules| {
        let mut policy = Policy::default();
        policy.rules = rules;
        Ruleset::new(Arc::new(policy), &()).map(|ruleset| ruleset.passing_rules().len())
    };
    assert_eq!(compile(vec![rule(Action::Log); 64]), Ok(64));
    assert_eq!(compile(vec![rule(Action::Log); 65]), Err(TooMany::PassingRules(65)));
    let all = vec![rule(Action::Decide(Decision::Drop)); 100_001];
    assert_eq!(compile(all), Err(TooMany::Rules(100_001)));
}
