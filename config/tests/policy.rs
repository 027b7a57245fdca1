//! `policy.toml` from the outside: what is accepted, and what every fault says.
#![expect(clippy::tests_outside_test_module, reason = "this whole file is a test")]

use kopi_config::policy::Policy;

/// The shipped examples are right, without a warning, and name their schema.
#[test]
fn examples_are_right() {
    let mut seen = 0;
    for entry in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/examples")).unwrap() {
        let path = entry.unwrap().path();
        if !path.file_name().unwrap().to_str().unwrap().starts_with("policy") {
            continue;
        }
        let policy = Policy::read(&path).unwrap_or_else(|errors| panic!("{errors}"));
        assert_eq!(policy.warnings, []);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("#:schema ../schema/policy.schema.json\n"), "{path:?} names no schema");
        for rule in &policy.rules {
            println!("{} {} {} {}", rule.name, rule.matches, rule.owner, rule.matches.brief(&policy.sets));
        }
        seen += 1;
    }
    assert_eq!(seen, 3);
}
