//! `kopictl check`: kopid's two files, read and judged as kopid would, without kopid.

use crate::failure::Failure;
use crate::text::clean_lines;
use kopi_config::check::{Checked, check_config, check_policy};
use kopi_config::source::Source;
use kopi_config::{Diagnostic, Severity, kopid, policy};
use serde_json::{Value, json};
use std::path::Path;

/// Whether kopid would refuse the file.
const fn is_refused(file: &Checked) -> bool {
    file.found.is_err()
}

/// The problems of a file, for people; empty without any.
pub(crate) fn problems(file: &Checked) -> String {
    let text = match &file.found {
        Ok(warnings) => warnings.iter().map(Diagnostic::to_string).collect::<Vec<_>>().join("\n\n"),
        Err(errors) => errors.to_string(),
    };
    if text.is_empty() { text } else { format!("{}\n", clean_lines(&text)) }
}

/// A file's name, for people, with what became of it.
pub(crate) fn summary(file: &Checked) -> String {
    let name = file.file.display().to_string();
    format!("{}: {}\n", clean_lines(&name), if is_refused(file) { "refused" } else { "ok" })
}

/// Checks the file at `path`: `kopid.toml` and the policy that it names, or a policy.
pub(crate) fn check(path: &Path) -> Vec<Checked> {
    match Source::read_up_to(path, policy::SIZE_MAX) {
        Err(errors) => vec![Checked { file: path.to_owned(), found: Err(errors) }],
        Ok(source) if is_daemons(source.text()) => check_config(path).1,
        Ok(_) => vec![check_policy(path)],
    }
}

/// Whether a file is `kopid.toml`: by a table that only that one has, or by the wire's device, since both files have a
/// `[wire]`. So its syntax may be broken elsewhere.
fn is_daemons(text: &str) -> bool {
    let of_policy = |name: &str| policy::LAYOUT.tables.contains(&name);
    let tables = || kopid::LAYOUT.tables.iter().copied().filter(|name| !of_policy(name));
    text.lines().any(|line| {
        let name = line.trim_start().strip_prefix('[').and_then(|rest| rest.split(']').next());
        let device = line.trim_start().strip_prefix("device").is_some_and(|rest| rest.trim_start().starts_with('='));
        device || name.is_some_and(|name| tables().any(|table| table == name.trim()))
    })
}

/// The problems of all files as `--json` shows them.
pub(crate) fn as_json(files: &[Checked]) -> Value {
    let rows = files.iter().flat_map(|file| file.diagnostics()).map(|problem| {
        let severity = match problem.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        json!({
            "file": problem.file,
            "line": problem.position.map(|position| position.line),
            "column": problem.position.map(|position| position.column),
            "severity": severity,
            "key": problem.key,
            "message": problem.message,
            "help": problem.help,
        })
    });
    json!({ "check": rows.collect::<Vec<_>>() })
}

/// What is left to say by the exit code.
pub(crate) fn outcome(files: &[Checked]) -> Result<(), Failure> {
    if files.iter().any(is_refused) { Err(Failure::Checked) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The two files are told apart by their tables, whatever else is wrong in them.
    #[test]
    fn files_are_told_apart_by_their_tables() {
        for text in ["[wire]\ndevice = 1", "x = [\n  [ dataplane ] # cores", "default = 1\n\t[log]\n"] {
            assert!(is_daemons(text), "{text}");
        }
        for text in [
            "",
            "[[rule]]\nname = \"[wire]\"\n",
            "[default]\negress = \"drop\"",
            "[[app]]\n[app.wire]",
            "wire",
            "[wire]\nrate = 1",
        ] {
            assert!(!is_daemons(text), "{text}");
        }
    }
}
