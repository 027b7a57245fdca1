//! `policy.toml` from the outside: what is accepted, and what every fault says.
#![expect(clippy::tests_outside_test_module, reason = "this whole file is a test")]

mod errors;
mod odd;
mod reading;
mod warnings;

use kopi_config::policy::{Match, OwnerMatch, Policy, Rule};
use kopi_config::{Errors, Position};
use std::net::IpAddr;

fn policy(text: &str) -> Policy {
    Policy::parse(text, "policy.toml").unwrap_or_else(|errors| panic!("{text}\n{errors}"))
}

fn errors(text: impl AsRef<[u8]>) -> Errors {
    let shown = String::from_utf8_lossy(text.as_ref()).into_owned();
    Policy::parse(text, "policy.toml").map(|_| ()).expect_err(&shown)
}

/// Checks that the only error of `text` stands at `line` and `column` and says all of `parts`.
fn assert_error(text: &str, (line, column): (usize, usize), parts: &[&str]) {
    let errors = errors(text);
    assert_eq!(errors.count(), 1, "{errors}");
    let error = &errors.diagnostics()[0];
    assert_eq!(error.position, Some(Position { line, column }), "{error}");
    for part in parts {
        assert!(error.to_string().contains(part), "no {part:?} in:\n{error}");
    }
}

/// The one rule of a file, with this match.
fn rule(matches: &str) -> Rule {
    policy(&format!("{SETS}[[rule]]\nmatch = {matches}\naction = \"drop\"\n")).rules.remove(0)
}

fn matches(text: &str) -> Match {
    rule(text).matches
}

fn owner(text: &str) -> OwnerMatch {
    policy(&format!("[[rule]]\nowner = {text}\naction = \"drop\"\n")).rules.remove(0).owner
}

/// Sets for tests: seven lines.
const SETS: &str = "[[set]]
name = \"lan\"
addresses = [\"10.0.0.0/8\", \"2001:db8::/32\"]
[[set]]
name = \"web\"
ports = [80, \"8000-8100\"]
\n";
const SETS_LINES: usize = 7;

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

const EXAMPLES: [(&str, &str); 3] = [
    ("policy-minimal.toml", include_str!("../../examples/policy-minimal.toml")),
    ("policy-paper.toml", include_str!("../../examples/policy-paper.toml")),
    ("policy-lockdown.toml", include_str!("../../examples/policy-lockdown.toml")),
];
