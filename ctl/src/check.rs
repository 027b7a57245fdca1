//! `kopictl check`: kopid's two files, read and judged as kopid would, without kopid.

use crate::failure::Failure;
use crate::text::clean_lines;
use kopi_config::policy::{self, NameRef};
use kopi_config::source::Source;
use kopi_config::{Config, Diagnostic, Errors, Policy, Severity, kopid, online_cpus};
use nix::unistd::{Group, User};
use serde_json::{Value, json};
use std::path::Path;

/// Where the unified hierarchy of cgroups is mounted (cgroups(7)).
const CGROUPS: &str = "/sys/fs/cgroup";

/// What was found in one file.
#[derive(Debug)]
pub(crate) struct Checked {
    file: String,
    /// Warnings alone, or errors and warnings.
    found: Result<Vec<Diagnostic>, Errors>,
}

impl Checked {
    fn new(path: &Path, found: Result<Vec<Diagnostic>, Errors>) -> Self {
        Self { file: path.display().to_string(), found }
    }

    /// Whether kopid would refuse the file.
    pub(crate) const fn is_refused(&self) -> bool {
        self.found.is_err()
    }

    fn diagnostics(&self) -> &[Diagnostic] {
        match &self.found {
            Ok(warnings) => warnings,
            Err(errors) => errors.diagnostics(),
        }
    }

    /// The problems, for people; empty without any.
    pub(crate) fn problems(&self) -> String {
        let text = match &self.found {
            Ok(warnings) => warnings.iter().map(Diagnostic::to_string).collect::<Vec<_>>().join("\n\n"),
            Err(errors) => errors.to_string(),
        };
        if text.is_empty() { text } else { format!("{}\n", clean_lines(&text)) }
    }

    /// The file's name, for people, with what became of it.
    pub(crate) fn summary(&self) -> String {
        format!("{}: {}\n", clean_lines(&self.file), if self.is_refused() { "refused" } else { "ok" })
    }
}

/// Checks the file at `path`: `kopid.toml` and the policy that it names, or a policy.
pub(crate) fn check(path: &Path) -> Vec<Checked> {
    match Source::read_up_to(path, policy::SIZE_MAX) {
        Err(errors) => vec![Checked::new(path, Err(errors))],
        Ok(source) if is_daemons(source.text()) => check_config(path),
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

fn check_config(path: &Path) -> Vec<Checked> {
    let config = Config::load(path).and_then(|config| {
        // Where the machine does not tell, kopid will say.
        match online_cpus() {
            Ok(online) => config.dataplane.cores.check_online(&online).map(|()| config),
            Err(_) => Ok(config),
        }
    });
    match config {
        Err(errors) => vec![Checked::new(path, Err(errors))],
        Ok(config) => {
            let policy = config.policy.as_deref().map(check_policy);
            std::iter::once(Checked::new(path, Ok(config.warnings))).chain(policy).collect()
        }
    }
}

fn check_policy(path: &Path) -> Checked {
    let warnings = Policy::read(path).map(|policy| {
        let mut warnings = [policy.check_names(&is_known), policy.warnings].concat();
        warnings.sort_by_key(|warning| warning.position);
        warnings
    });
    Checked::new(path, warnings)
}

/// Whether this machine has it. Where it cannot be asked, nothing is missing.
fn is_known(name: &NameRef) -> bool {
    match name {
        NameRef::User(name) => !matches!(User::from_name(name), Ok(None)),
        NameRef::Group(name) => !matches!(Group::from_name(name), Ok(None)),
        NameRef::Cgroup(path) => {
            let root = Path::new(CGROUPS);
            !root.is_dir() || root.join(path.as_str().trim_start_matches('/')).is_dir()
        }
    }
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
    if files.iter().any(Checked::is_refused) { Err(Failure::Checked) } else { Ok(()) }
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

    /// The machine's own accounts are known, and made-up ones are not.
    #[test]
    fn accounts_are_the_machines() {
        assert!(is_known(&NameRef::User("root".into())) && is_known(&NameRef::Group("root".into())));
        assert!(!is_known(&NameRef::User("no-such-user".into())) && !is_known(&NameRef::Group("no-such-group".into())));
    }
}
