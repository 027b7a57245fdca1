//! Any bytes as one of the two files of the operator.

use kopi_config::{Config, Diagnostic, Errors, Policy};

/// Anything as `kopid.toml`.
pub(crate) fn check_kopid(bytes: &[u8]) {
    let parsed = Config::parse(bytes, "fuzz.toml").map(|config| format!("{config:?}"));
    check(bytes, parsed.as_deref(), |bytes| Config::parse(bytes, "fuzz.toml").map(|config| format!("{config:?}")));
}

/// Anything as `policy.toml`.
pub(crate) fn check_policy(bytes: &[u8]) {
    let parse = |bytes: &[u8]| Policy::parse(bytes, "fuzz.toml");
    let parsed = parse(bytes);
    if let Ok(policy) = &parsed {
        policy.warnings.iter().for_each(|warning| check_diagnostic(bytes, warning));
        policy.check_names(&|_| false).iter().for_each(|warning| check_diagnostic(bytes, warning));
    }
    let parsed = parsed.map(|policy| format!("{policy:?}"));
    check(bytes, parsed.as_deref(), |bytes| parse(bytes).map(|policy| format!("{policy:?}")));
}

/// A file is taken whole, and then a comment behind it changes nothing; or it is refused with at least one error, each at a
/// place in it, and no error is worse than text on a terminal.
fn check(bytes: &[u8], parsed: Result<&str, &Errors>, parse: impl Fn(&[u8]) -> Result<String, Errors>) {
    match parsed {
        Ok(value) => {
            let commented = [bytes, b"\n# A comment.\n"].concat();
            assert_eq!(parse(&commented).as_deref(), Ok(value));
        }
        Err(errors) => {
            assert!(errors.count() > 0 && !errors.diagnostics().is_empty());
            errors.diagnostics().iter().for_each(|error| check_diagnostic(bytes, error));
            check_text(&errors.to_string());
        }
    }
}

fn check_diagnostic(bytes: &[u8], diagnostic: &Diagnostic) {
    let lines = bytes.split(|byte| *byte == b'\n').count();
    if let Some(position) = diagnostic.position {
        assert!((1..=lines).contains(&position.line) && position.column >= 1, "{position:?} of {lines} lines");
    }
    check_text(&diagnostic.to_string());
}

/// No text of the file's reaches a terminal as anything but text.
fn check_text(text: &str) {
    assert!(!text.is_empty() && !text.contains(|c: char| c.is_control() && c != '\n'), "{text:?}");
}
