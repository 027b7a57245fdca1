//! Fault 31: files that nobody would write.

use crate::{EXAMPLES, assert_error, errors, policy};
use kopi_config::policy::Policy;
use std::fmt::Write as _;

/// Fault 31, duplicate keys and tables.
#[test]
fn duplicates_are_errors() {
    assert_error("[[rule]]\naction = \"drop\"\naction = \"drop\"\n", (3, 1), &["`action` is set twice"]);
    assert_error("[[rule]]\nmatch = { vlan = 1, vlan = 2 }\naction = \"drop\"\n", (2, 21), &["`vlan` is set twice"]);
    assert_error("[tracking]\n[tracking]\n", (2, 2), &["`tracking` is set twice"]);
}

/// Fault 31, truncated file: every prefix of an example is a right file or has an error with a place.
#[test]
fn truncated_files_are_judged() {
    let text = EXAMPLES[1].1;
    for end in 0..text.len() {
        if let Err(errors) = Policy::parse(&text.as_bytes()[..end], "policy.toml") {
            assert!(errors.diagnostics().iter().all(|error| error.position.is_some()), "{end}: {errors}");
        }
    }
}

/// Fault 31, a byte order mark, `\r\n`, NUL, not UTF-8, deep nesting.
#[test]
fn odd_bytes_are_judged() {
    let rule = "[[rule]]\r\nmatch = { vlan = 1 }\r\naction = \"drop\"\r\n";
    assert_eq!(policy(&format!("\u{feff}{rule}")).rules.len(), 1);
    assert_error(&format!("\u{feff}{rule}x = 1\r\n"), (4, 1), &["4 | x = 1\n   | ^\n"]);
    assert!(errors("[[rule]]\naction = \"dr\0op\"\n").to_string().contains("policy.toml:2:13"));
    assert!(errors(b"[[rule]]\naction = \"\xff\"\n").to_string().contains("byte 0xff is not UTF-8"));
    assert!(errors(format!("x = {}", "[".repeat(100_000))).to_string().contains("policy.toml:1:"));
    assert!(errors(format!("x = {}", "{a=".repeat(100_000))).to_string().contains("policy.toml:1:"));
    assert!(errors(format!("{}x = 1", "a.".repeat(100_000))).to_string().contains("policy.toml:1:"));
    assert!(errors(vec![b'#'; (16 << 20) + 1]).to_string().contains("larger than 16 MiB"));
}

/// Ten thousand names, each mistyped, do not make the search for the right one slow.
#[test]
fn mistakes_in_large_policies_are_found_fast() {
    let mut text = String::new();
    for n in 0..10_000 {
        writeln!(text, "[[set]]\nname = \"set-{n}\"\nports = {n}").unwrap();
        writeln!(text, "[[rule]]\nmatch.src_port = \"@sat-{n}\"\naction = \"drop\"").unwrap();
    }
    assert_eq!(errors(&text).count(), 10_000);
}
