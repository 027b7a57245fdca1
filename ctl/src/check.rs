//! `kopictl check`: kopid's two files, read and judged as kopid would, without kopid.

use crate::failure::Failure;
use crate::text::clean_lines;
use kopi_config::check::Checked;
use kopi_config::{Diagnostic, Severity};
use serde_json::{Value, json};

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
