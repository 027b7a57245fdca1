//! The policies that are compared. Each lets all of the load pass by a rule, and nothing else.

use std::fmt::{self, Write};

use super::frames::{DESTINATIONS, destination};
use crate::contender::{Contender, Kopi};

/// Rules of the large policy.
pub(crate) const RULES: u16 = 10_000;
/// Without any policy.
pub(crate) const NONE: &str = "none";
/// One rule, without state.
pub(crate) const ONE: &str = "one";
/// One rule that asks for the connection's state.
pub(crate) const STATE: &str = "state";
/// [`RULES`] rules, and a set of [`DESTINATIONS`] addresses.
pub(crate) const MANY: &str = "many";
/// The same, and the rule that decides asks for the connection's state.
pub(super) const MANY_STATE: &str = "many-state";
/// Every one of them, with what it is.
pub(super) const ALL: [(&str, &str); 5] = [
    (NONE, "no policy"),
    (ONE, "one rule, of protocol and network"),
    (STATE, "one rule, of the connection's state"),
    (MANY, "10,000 rules, the last of which decides, by a set of 10,000 addresses"),
    (MANY_STATE, "the same, with the connection's state in the last"),
];

const HEAD: &str = "default = { egress = \"drop\", ingress = \"drop\" }\n";

/// kopid under the policy called `name`.
///
/// # Errors
///
/// Never, for a `String` takes everything.
pub(crate) fn contender(name: &'static str) -> Result<Box<dyn Contender>, fmt::Error> {
    let policy = match name {
        ONE => Some(format!("{HEAD}{}", rule("proto = [\"udp\", \"tcp\"], dst = \"198.18.0.0/15\""))),
        STATE => Some(format!("{HEAD}{}", rule("state = [\"new\", \"established\"]"))),
        MANY => Some(many(0, "")?),
        MANY_STATE => Some(many(0, ", state = [\"new\", \"established\"]")?),
        _ => None,
    };
    Ok(Box::new(Kopi { name, policy, mac: Some(super::frames::APP_MAC), ..Kopi::PLAIN }))
}

fn rule(matches: &str) -> String {
    format!("[[rule]]\nname = \"benchmark\"\nmatch = {{ {matches} }}\naction = \"accept\"\n")
}

/// An address of the benchmarking network (RFC 2544), by its second half.
pub(crate) fn address(half: u16) -> String {
    let [c, d] = half.to_be_bytes();
    format!("198.18.{c}.{d}")
}

/// The address and the port of the large policy's rule of number `n`.
pub(crate) fn denied(n: u16, edition: u16) -> (String, u16) {
    (address(destination(n) + 1), 1 + (n + edition) % 60_000)
}

/// A policy of [`RULES`] rules. All but the last are each about one address between those of the load, and a port.
/// `edition` changes all ports, and so all these rules. `more` goes into the last rule.
///
/// # Errors
///
/// Never, for a `String` takes everything.
pub(crate) fn many(edition: u16, more: &str) -> Result<String, fmt::Error> {
    let mut text = format!("{HEAD}[[set]]\nname = \"many\"\naddresses = [\n");
    for n in 0..DESTINATIONS {
        writeln!(text, "  \"{}\",", address(destination(n)))?;
    }
    text.push_str("]\n");
    for n in 1..RULES {
        let (between, port) = denied(n, edition);
        writeln!(text, "[[rule]]\nname = \"rule-{n}\"")?;
        writeln!(text, "match = {{ proto = \"udp\", dst = \"{between}\", dst_port = {port} }}\naction = \"drop\"")?;
    }
    text.push_str(&rule(&format!("dst = \"@many\"{more}")));
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_large_policy_is_as_large_as_it_says() {
        let text = many(1, "").expect("a string takes everything");
        assert_eq!(text.matches("[[rule]]").count(), usize::from(RULES));
        assert_eq!(text.matches("\",\n").count(), usize::from(DESTINATIONS));
        assert_ne!(text, many(2, "").expect("a string takes everything"));
    }
}
