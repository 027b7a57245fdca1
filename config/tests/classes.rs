//! `[[class]]` and `[wire]`: the tree, its shares, and what every fault says.
#![expect(clippy::tests_outside_test_module, reason = "this whole file is a test")]

use std::fmt::Write as _;
use std::time::Duration;

use kopi_config::policy::{Class, ClassSelection, Direction, Policy, Rate, WireLimit};
use kopi_config::{Position, Severity, Size};

fn policy(text: &str) -> Policy {
    Policy::parse(text, "policy.toml").unwrap_or_else(|errors| panic!("{text}\n{errors}"))
}

/// Checks that the only error of `text` stands at `line` and `column` and says all of `parts`.
fn assert_error(text: &str, (line, column): (usize, usize), parts: &[&str]) {
    let errors = Policy::parse(text, "policy.toml").map(|_| ()).expect_err(text);
    assert_eq!(errors.count(), 1, "{text}\n{errors}");
    let error = &errors.diagnostics()[0];
    assert_eq!(error.position, Some(Position { line, column }), "{error}");
    for part in parts {
        assert!(error.to_string().contains(part), "no {part:?} in:\n{error}");
    }
}

/// A tree of five lines: `users` with `bob` and `charlie` below it, and `in` for ingress.
const TREE: &str = "[[class]]\nname = \"bob\"\nparent = \"users\"\n\
                    [[class]]\nname = \"users\"\n\
                    [[class]]\nname = \"charlie\"\nparent = \"users\"\n\
                    [[class]]\nname = \"in\"\ndirection = \"ingress\"\n";
const TREE_LINES: usize = 11;

/// Every key has its meaning.
#[test]
fn classes_are_read() {
    let policy = policy(
        "[wire]
         rate = \"10gbit\"
         burst = \"32kb\"
         overhead = 20
         [[class]]
         name = \"gold\"
         parent = \"users\"
         rate = \"1gbit\"
         ceil = \"2gbit\"
         burst = \"64kb\"
         cburst = 3000
         weight = 3
         priority = 0
         limit = 200
         target = \"2ms\"
         interval = \"50ms\"
         dscp = \"ef\"
         vlan_priority = 5
         [[class]]
         name = \"users\"
         direction = \"ingress\"",
    );
    let mut wire = WireLimit::default();
    (wire.rate, wire.burst, wire.overhead) = (Some(Rate::from_bits(10_000_000_000)), Some(Size::new(32_768)), 20);
    assert_eq!(policy.wire, wire);
    let mut gold = Class::new("gold".to_owned());
    (gold.parent, gold.direction) = (Some(1), Direction::Ingress);
    (gold.rate, gold.ceil) = (Some(Rate::from_bits(1_000_000_000)), Some(Rate::from_bits(2_000_000_000)));
    (gold.burst, gold.cburst) = (Some(Size::new(65_536)), Some(Size::new(3000)));
    (gold.weight, gold.priority, gold.limit) = (3, 0, 200);
    (gold.target, gold.interval) = (Duration::from_millis(2), Duration::from_millis(50));
    (gold.dscp, gold.vlan_priority) = (Some(46), Some(5));
    let mut users = Class::new("users".to_owned());
    (users.direction, users.is_leaf) = (Direction::Ingress, false);
    assert_eq!(policy.classes, [gold, users]);
}

/// What is not stated is what [`Class::new`] and [`WireLimit::default`] say.
#[test]
fn nothing_stated_is_the_default() {
    let policy = policy("[[class]]\nname = \"a\"\n");
    assert_eq!(policy.classes, [Class::new("a".to_owned())]);
    assert_eq!(policy.wire, WireLimit::default());
    assert_eq!(policy.classes[0].ceiling(), None);
}

/// A rate alone is a ceiling too; a ceiling alone promises nothing.
#[test]
fn a_rate_alone_is_a_ceiling() {
    let of = |lines: &str| policy(&format!("[[class]]\nname = \"a\"\n{lines}")).classes.remove(0);
    let mbit = |mbit: u64| Some(Rate::from_bits(mbit * 1_000_000));
    let class = of("rate = \"5mbit\"");
    assert_eq!((class.rate, class.ceiling()), (mbit(5), mbit(5)));
    let class = of("rate = \"5mbit\"\nceil = \"7mbit\"");
    assert_eq!((class.rate, class.ceiling()), (mbit(5), mbit(7)));
    let class = of("ceil = \"7mbit\"");
    assert_eq!((class.rate, class.ceiling()), (None, mbit(7)));
}

/// Apps and rules name one class, or one for each direction.
#[test]
fn classes_are_assigned_by_direction() {
    let text = format!(
        "{TREE}
         [[app]]\nname = \"a\"\nclass = [\"in\", \"bob\"]
         [[app]]\nname = \"b\"\nclass = \"in\"
         [[rule]]\nmatch.dscp = \"af41\"\naction = \"class\"\nclass = \"charlie\"
         [[rule]]\nmatch.direction = \"ingress\"\naction = \"accept\"\nclass = \"in\"
         [[rule]]\naction = \"accept\"\nclass = [\"charlie\", \"in\"]"
    );
    let policy = policy(&text);
    let both = |egress, ingress| ClassSelection { egress, ingress };
    assert_eq!((policy.apps[0].class, policy.apps[1].class), (both(Some(0), Some(3)), both(None, Some(3))));
    let of_rules: Vec<_> = policy.rules.iter().map(|rule| rule.class).collect();
    assert_eq!(of_rules, [both(Some(2), None), both(None, Some(3)), both(Some(2), Some(3))]);
    assert_eq!(both(Some(1), None).of(Direction::Egress), Some(1));
    assert!(both(None, None).is_empty() && !both(None, Some(0)).is_empty());
    assert_eq!(policy.warnings, []);
}

/// Wrong values, each at its place: what was found and what would be right.
#[test]
fn wrong_values_say_what_would_be_right() {
    for (line, column, parts) in [
        ("rate = 0", 8, ["a rate from \"8bit\" to \"10tbit\"", "found the whole number `0`"]),
        ("rate = \"1bit\"", 8, ["a rate from \"8bit\" to \"10tbit\"", "found the string"]),
        ("ceil = \"11tbit\"", 8, ["a rate from \"8bit\" to \"10tbit\"", "found the string"]),
        ("burst = 0", 9, ["a size from \"1b\" to \"4gb\"", "found the whole number `0`"]),
        ("cburst = \"64kbit\"", 10, ["a size from \"1b\"", "the units are b, kb"]),
        ("weight = 1001", 10, ["a whole number from 1 to 1000", "the most is 1000"]),
        ("priority = 8", 12, ["a whole number from 0 to 7", "the most is 7"]),
        ("limit = 0", 9, ["a whole number from 1 to 65536", "the least is 1"]),
        ("target = 5", 10, ["a time from \"1us\" to \"10s\"", "say of which unit: \"5ms\""]),
        ("target = \"5m\"", 10, ["with the unit us, ms or s", "found the string"]),
        ("interval = \"1ms\"", 12, ["`interval` in [[class]] must be at least `target`", "100ms by default"]),
        ("dscp = 64", 8, ["a code point from 0 to 63", "found the whole number `64`"]),
        ("dscp = \"af44\"", 8, ["or a word such as \"ef\"", "did you mean \"af41\"?"]),
        ("dscp = \"8-10\"", 8, ["a code point", "state a single number or name"]),
        ("vlan_priority = 8", 17, ["a whole number from 0 to 7", ""]),
        ("direction = \"in\"", 13, ["must be \"egress\" or \"ingress\"", ""]),
        ("parent = \"none\"", 10, ["names the class `none`, which there is not", ""]),
        ("parent = \"d\"", 10, ["names the class `d`", "did you mean \"c\"?"]),
        ("rate = \"2mbit\"\nceil = \"1mbit\"", 8, ["at least `rate` = \"2mbit\"", "found \"1mbit\""]),
    ] {
        let text = format!("[[class]]\nname = \"c\"\n{line}\n");
        assert_error(&text, (2 + line.lines().count(), column), &parts);
    }
    assert_error("[wire]\noverhead = 2000\n", (2, 12), &["`overhead` in [wire] must be a whole number from 0 to 1000"]);
}

/// Circles, and trees that are too deep, are errors, once each.
#[test]
fn the_tree_has_a_root() {
    let class = |name: &str, parent: &str| format!("[[class]]\nname = \"{name}\"\nparent = \"{parent}\"\n");
    assert_error(&class("a", "a"), (3, 10), &["`parent` in [[class]] is `a`, which is below this class itself"]);
    let circle = class("a", "b") + &class("b", "c") + &class("c", "a") + &class("d", "a");
    assert_error(&circle, (3, 10), &["is `b`, which is below this class itself", "leave `parent` out"]);
    let chain = |levels: usize| {
        let more: String = (2..=levels).map(|level| class(&format!("c{level}"), &format!("c{}", level - 1))).collect();
        "[[class]]\nname = \"c1\"\n".to_owned() + &more
    };
    assert_eq!(policy(&chain(8)).classes[7].parent, Some(6));
    assert_error(
        &chain(9),
        (26, 10),
        &["`parent` in [[class]] is `c8`, and the class is more than 8 levels below the wire"],
    );
}

/// A class goes the way of its parent.
#[test]
fn directions_are_inherited() {
    let text = format!("{TREE}[[class]]\nname = \"x\"\nparent = \"in\"\n");
    assert_eq!(policy(&text).classes[4].direction, Direction::Ingress);
    assert_error(
        &format!("{text}direction = \"egress\"\n"),
        (TREE_LINES + 4, 13),
        &["`direction` in [[class]] is \"egress\", and its parent `in` is for ingress", "leave it out"],
    );
}

/// What apps and rules may not name.
#[test]
fn assignments_are_checked() {
    for (lines, column, parts) in [
        (
            "[[app]]\nname = \"a\"\nclass = \"users\"",
            9,
            ["names the class `users`, which has classes below it: `bob`, `charlie`", "name one of these"],
        ),
        (
            "[[app]]\nname = \"a\"\nclass = [\"bob\", \"charlie\"]",
            17,
            ["`class[1]` in [[app]] is `charlie`, a second class for egress", "at most one"],
        ),
        (
            "[[app]]\nname = \"a\"\nclass = [\"bob\", \"bop\"]",
            17,
            ["names the class `bop`, which there is not", "did you mean \"bob\"?"],
        ),
        (
            "[[rule]]\naction = \"class\"\nclass = [\"users\", \"in\"]",
            10,
            ["`class[0]` in [[rule]] names the class `users`", "`bob`"],
        ),
        (
            "[[rule]]\naction = \"accept\"\nmatch.direction = \"egress\"\nclass = \"in\"",
            9,
            ["names a class for ingress, and the rule is for egress", "`direction` = \"egress\""],
        ),
        (
            "[[rule]]\naction = \"accept\"\nmatch.direction = \"ingress\"\nclass = [\"in\", \"bob\"]",
            9,
            ["names a class for egress, and the rule is for ingress", "leave `match.direction` out"],
        ),
        ("[[rule]]\naction = \"reject\"\nclass = [\"in\", \"bob\"]", 9, ["the rule's frames go nowhere", ""]),
    ] {
        assert_error(&format!("{TREE}{lines}\n"), (TREE_LINES + lines.lines().count(), column), &parts);
    }
}

/// What is allowed and probably not meant is a warning at its place.
#[test]
fn odd_shares_are_warnings() {
    let class = |name: &str, lines: &str| format!("[[class]]\nname = \"{name}\"\n{lines}\n");
    let below = |name: &str, rate: &str| class(name, &format!("parent = \"p\"\nrate = \"{rate}\""));
    for (text, (line, column), part) in [
        (class("a", "burst = \"64kb\""), (3, 9), "`burst` in [[class]] is \"64kb\", and there is no `rate`"),
        (class("a", "cburst = \"64kb\""), (3, 10), "`cburst` in [[class]] is \"64kb\", and there is no `ceil`"),
        (class("a", "ceil = \"1gbit\"\ncburst = 1537"), (4, 10), "is \"1537b\", which is less than a full frame"),
        (class("a", "rate = \"1gbit\"\nburst = 60"), (4, 9), "is \"60b\", which is less than a full frame"),
        ("[wire]\nburst = \"64kb\"\n".to_owned(), (2, 9), "`burst` in [wire] is \"64kb\", and there is no `rate`"),
        (
            class("p", "limit = 5") + &class("c", "parent = \"p\""),
            (3, 9),
            "`limit` in [[class]] has no effect: `p` has",
        ),
        (class("p", "dscp = 5") + &class("c", "parent = \"p\""), (3, 8), "`dscp` in [[class]] has no effect: `p` has"),
        (
            class("p", "rate = \"2mbit\"") + &below("a", "1mbit") + &below("b", "1.5mbit"),
            (11, 8),
            "the classes below `p` are promised \"2500kbit\", more than its \"2mbit\"",
        ),
        (
            class("p", "ceil = \"1mbit\"") + &below("a", "2mbit"),
            (7, 8),
            "the classes below `p` are promised \"2mbit\", more than its \"1mbit\"",
        ),
        (
            "[wire]\nrate = \"1gbit\"\n".to_owned() + &class("a", "rate = \"2gbit\""),
            (5, 8),
            "the classes below [wire] are promised \"2gbit\", more than its \"1gbit\"",
        ),
    ] {
        let warnings = policy(&text).warnings;
        assert_eq!(warnings.len(), 1, "{text}\n{warnings:?}");
        assert_eq!(warnings[0].severity, Severity::Warning);
        assert_eq!(warnings[0].position, Some(Position { line, column }), "{}", warnings[0]);
        assert!(warnings[0].message.contains(part), "{}", warnings[0]);
    }
}

/// What adds up is none.
#[test]
fn right_shares_are_no_warnings() {
    let text = "[wire]\nrate = \"1gbit\"\nburst = \"64kb\"
        [[class]]\nname = \"p\"\nrate = \"1gbit\"\nburst = 1538
        [[class]]\nname = \"a\"\nparent = \"p\"\nrate = \"400mbit\"\ncburst = \"2kb\"
        [[class]]\nname = \"b\"\nparent = \"p\"\nrate = \"600mbit\"\nlimit = 7\ndscp = \"cs1\"
        [[class]]\nname = \"in\"\ndirection = \"ingress\"\nrate = \"9gbit\"
        [[class]]\nname = \"w\"\nweight = 3";
    assert_eq!(policy(text).warnings, []);
}

/// As many classes as have an index, and not one more.
#[test]
fn as_many_classes_as_have_an_index() {
    let mut text = String::new();
    for n in 0..65_535 {
        writeln!(text, "[[class]]\nname = \"class-{n}\"").expect("a string grows");
    }
    assert_eq!(policy(&text).classes.len(), 65_535);
    let line = text.lines().count() + 2;
    text += "[[class]]\nname = \"one\"\nweight = 3\n[[class]]\n";
    assert_error(&text, (line, 8), &["a policy has at most 65535 classes"]);
}
