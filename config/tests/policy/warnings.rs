//! What is right and may not be meant.

use crate::{SETS, errors, policy};
use kopi_config::policy::NameRef;
use kopi_config::{Diagnostic, Position, Severity};

/// The only warning of `text`.
fn warning(text: &str) -> Diagnostic {
    let mut warnings = policy(text).warnings;
    assert_eq!(warnings.len(), 1, "{text}: {warnings:?}");
    assert_eq!(warnings[0].severity, Severity::Warning);
    warnings.remove(0)
}

/// What lets somebody pass for what he calls himself, or for what he runs, is a warning.
#[test]
fn trust_in_hints_is_a_warning() {
    for (text, at, part) in [
        ("[[rule]]\nowner = { comm = \"x\" }\naction = \"accept\"\n", (2, 9), "`rule-1` accepts by `comm` alone"),
        ("[[rule]]\nowner.not.comm = \"x\"\naction = \"drop\"\n", (2, 1), "`rule-1` spares by `comm` alone"),
        ("[[app]]\nname = \"a\"\nowner = { comm = \"x\" }\n", (3, 9), "`a` is admitted by `comm` alone"),
        ("[[rule]]\nowner = { exe = \"/x\" }\naction = \"accept\"\n", (2, 9), "`rule-1` accepts by `exe` alone"),
        ("[[rule]]\nowner.not.exe = \"/x\"\naction = \"reject\"\n", (2, 1), "`rule-1` spares by `exe` alone"),
        ("[[app]]\nname = \"a\"\nowner = { exe = \"/x\" }\n", (3, 9), "`a` is admitted by `exe` alone"),
        (
            "[[app]]\nname = \"a\"\nowner = { exe = \"/x\", comm = \"x\" }\n",
            (3, 9),
            "`a` is admitted by `comm` and `exe` alone",
        ),
    ] {
        let warning = warning(text);
        assert!(warning.message.contains(part), "{warning}");
        assert_eq!(warning.position, Some(Position { line: at.0, column: at.1 }), "{warning}");
    }
    for text in [
        "[[rule]]\nowner = { comm = \"x\", user = \"bob\" }\naction = \"accept\"\n",
        "[[rule]]\nowner = { comm = \"x\" }\naction = \"drop\"\n",
        "[[rule]]\nowner = { not = { comm = \"x\", uid = 1 } }\naction = \"drop\"\n",
        "[[app]]\nname = \"a\"\nowner = { comm = \"x\" }\nadmit = false\n",
        "[[app]]\nname = \"a\"\nowner = { exe = \"/x\", uid = 1 }\n",
        "[[rule]]\nowner = { exe = \"/x\", cgroup = \"/x\" }\naction = \"accept\"\n",
        "[[rule]]\nowner = { exe = \"/x\" }\naction = \"drop\"\n",
    ] {
        assert_eq!(policy(text).warnings, [], "{text}");
    }
}

/// With `attach = "refuse"`, a rule for a name that no port can have is a warning; what may be somebody's is none.
#[test]
fn rules_for_nobody_are_warnings() {
    let text = |attach: &str, names: &str| {
        format!(
            "[default]\nattach = \"{attach}\"\n[[app]]\nname = \"web\"\nowner = {{ user = \"w\" }}\n[[app]]\nname = \"old\"\nadmit = false\n\
             [[rule]]\nname = \"r\"\nowner = {{ app = {names} }}\naction = \"drop\"\n"
        )
    };
    for names in ["\"wbe\"", "[\"wbe\", \"x*\"]", "\"old\"", "\"web2\"", "\"web-\"", "\"[ab]web\""] {
        let warning = warning(&text("refuse", names));
        assert!(warning.message.starts_with("the rule `r` is for an app that never attaches: "), "{warning}");
        assert_eq!(warning.position.map(|at| at.line), Some(9), "{warning}");
        assert_eq!(policy(&text("accept", names)).warnings, []);
    }
    for names in [
        "\"web\"",
        "\"web-2\"",
        "\"web-17\"",
        "\"w*\"",
        "\"web-?\"",
        "\"web-[0-9][0-9]\"",
        "\"host\"",
        "[\"wbe\", \"web\"]",
    ] {
        assert_eq!(policy(&text("refuse", names)).warnings, [], "{names}");
    }
}

/// A rule that never has its turn is a warning, once for each rule that takes it away.
#[test]
fn shadowed_rules_are_warnings() {
    let two = |a: &str, b: &str| {
        format!("{SETS}[[rule]]\nname = \"a\"\n{a}\n[[rule]]\nname = \"b\"\n{b}\naction = \"drop\"\n")
    };
    let accept = "action = \"accept\"";
    for (a, b) in [
        ("", ""),
        ("", "match = { src = \"10.0.0.1\" }"),
        ("match.src = \"10.0.0.0/8\"", "match = { src = \"10.0.0.1\", dst_port = 80 }"),
        ("match.src = \"@lan\"", "match = { src = \"@lan\", proto = \"udp\" }"),
        ("match.dst_port = \"@web\"", "match = { dst_port = [80, \"8000-8001\"] }"),
        ("match.state = [\"new\", \"invalid\"]", "match = { state = \"new\" }"),
        ("match.src_port = 1\nowner.user = \"bob\"", "match = { src_port = 1, dst_port = 2 }\nowner.user = \"bob\""),
        (
            "match = { src = \"10.0.0.1\", dst = \"10.0.0.2\", proto = \"tcp\" }\nowner.uid = 1",
            "match = { src = \"10.0.0.1\", dst = \"10.0.0.2\", proto = 6 }\nowner.uid = 1",
        ),
    ] {
        let warning = warning(&two(&format!("{a}\n{accept}"), b));
        assert!(warning.message.starts_with("the rule `b` never matches: `a` on line 8 comes first"), "{warning}");
    }
    for (a, b) in [
        ("match.src = \"10.0.0.0/8\"", "match = { src = \"11.0.0.1\" }"),
        ("match.src = \"10.0.0.0/8\"", ""),
        ("match.src = \"10.0.0.0/8\"", "match.dst = \"10.0.0.0/8\""),
        ("owner.user = \"bob\"", ""),
        ("owner.user = \"bob\"", "owner.user = \"eve\""),
        ("match.state = \"new\"", "match = { state = [\"new\", \"invalid\"] }"),
    ] {
        assert_eq!(policy(&two(&format!("{a}\n{accept}"), b)).warnings, [], "{a} {b}");
    }
    // What passes on takes nothing away.
    assert_eq!(policy(&two("action = \"count\"", "")).warnings, []);
    let many = format!("{}{}", two(accept, ""), "[[rule]]\naction = \"drop\"\n".repeat(7));
    assert!(warning(&many).help.unwrap().contains("as it does for 7 more rules below"));
}

/// Many warnings leave room for the error.
#[test]
fn warnings_hide_no_error() {
    let text = "[[rule]]\nowner = { comm = \"x\" }\naction = \"accept\"\n".repeat(200);
    let errors = errors(format!("{text}[[rule]]\naction = \"x\"\n"));
    assert_eq!(errors.count(), 1);
    assert!(errors.to_string().contains("policy.toml:602:10"), "{errors}");
}

/// Fault 33: users, groups and cgroups that the machine does not have are warnings, at their first place.
#[test]
fn unknown_names_are_warnings() {
    let policy = policy(
        "[[app]]\nname = \"a\"\nowner = { user = [\"bob\", \"eve\"], group = \"wheel\" }\n\
         [[rule]]\nowner = { user = \"eve\", uid = 1, not = { cgroup = \"/x\" } }\naction = \"drop\"\n",
    );
    assert_eq!(policy.warnings, []);
    let warnings = policy.check_names(&|name| *name == NameRef::User("bob".to_owned()));
    let shown: Vec<_> = warnings.iter().map(|w| (w.message.as_str(), w.position.unwrap(), w.severity)).collect();
    let at = |line, column| Position { line, column };
    assert_eq!(
        shown,
        [
            ("there is no user `eve`", at(3, 26), Severity::Warning),
            ("there is no group `wheel`", at(3, 42), Severity::Warning),
            ("there is no cgroup `/x`", at(5, 51), Severity::Warning),
        ]
    );
    assert!(warnings[0].to_string().contains("3 | owner = { user = [\"bob\", \"eve\"]"), "{}", warnings[0]);
    assert_eq!(policy.check_names(&|_| true), []);
}
