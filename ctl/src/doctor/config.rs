//! The configuration, and the policy that it names: what kopid would say of them.

use super::finding::Finding;
use super::root::Root;
use crate::arguments::CONFIG;
use kopi_api::Status;
use kopi_config::check::check_config;
use kopi_config::{Config, Severity};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

const CHECK: &str = "config";

/// The file that kopid has: the one that is `given`, the one of the running kopid, or the usual one.
pub(super) fn file_of(given: Option<&Path>, kopid: Option<&Status>, root: &Root) -> PathBuf {
    let running = || running_config(kopid?.pid, root);
    given.map(Path::to_owned).or_else(running).unwrap_or_else(|| CONFIG.into())
}

/// What the command line of a running kopid says. It may be in another pid namespace, where its number is none of ours.
fn running_config(pid: u32, root: &Root) -> Option<PathBuf> {
    let line = root.text(format!("/proc/{pid}/cmdline"))?;
    let mut words = line.split('\0');
    if Path::new(words.next()?).file_name()? != "kopid" {
        return None;
    }
    let words: Vec<_> = words.collect();
    let file = words.iter().enumerate().find_map(|(at, word)| match word.strip_prefix("--config")? {
        "" => words.get(at + 1).copied(),
        rest => rest.strip_prefix('='),
    })?;
    // A relative one is seen from kopid's folder.
    let folder = std::fs::read_link(root.path(format!("/proc/{pid}/cwd"))).unwrap_or_default();
    Some(folder.join(file))
}

/// Reads the file. `runs` is whether there is a kopid that needs it no more.
pub(super) fn check(file: &Path, runs: bool) -> (Option<Config>, Vec<Finding>) {
    let name = file.display();
    match std::fs::File::open(file).map_err(|error| error.kind()) {
        Err(ErrorKind::PermissionDenied) => {
            let found = Finding::warning(CHECK, format!("{name} may not be read by this user"), "sudo kopictl doctor");
            return (None, vec![found]);
        }
        Err(ErrorKind::NotFound) if runs => {
            let message = format!("there is no {name}; the running kopid has another configuration");
            return (None, vec![Finding::warning(CHECK, message, "kopictl doctor --config FILE")]);
        }
        Err(ErrorKind::NotFound) => {
            return (None, vec![Finding::error(CHECK, format!("there is no {name}"), "man kopid.toml")]);
        }
        _ => {}
    }
    let (config, files) = check_config(file);
    let remedy = format!("kopictl check {name}");
    let mut found = Vec::new();
    for file in &files {
        let problems = file.diagnostics().iter().map(|problem| {
            let at = problem.position.map(|at| format!("{}:{}:", at.line, at.column)).unwrap_or_default();
            let message = format!("{}:{at} {}", file.file.display(), problem.message);
            match problem.severity {
                Severity::Error => Finding::error(CHECK, message, &remedy),
                Severity::Warning => Finding::warning(CHECK, message, &remedy),
            }
        });
        let before = found.len();
        found.extend(problems);
        if found.len() == before {
            found.push(Finding::ok(CHECK, file.file.display().to_string()));
        }
    }
    // What is wrong with the machine is no reason to look no further.
    (config.or_else(|| Config::load(file).ok()), found)
}

#[cfg(test)]
mod tests {
    use super::super::finding::Severity::{Error, Warning};
    use super::super::root::Fake;
    use super::*;

    /// The configuration is that of the running kopid, unless one is given.
    #[test]
    fn file_is_that_of_the_running_kopid() {
        let root = Fake::new()
            .file("/proc/7/cmdline", "/usr/bin/kopid\0--config\0kopi/a.toml\0")
            .link("/proc/7/cwd", "/etc")
            .file("/proc/8/cmdline", "kopid\0--config=/b.toml\0")
            .file("/proc/9/cmdline", "vi\0--config=/b.toml\0");
        let of = |pid| file_of(None, Some(&Status { pid, ..Status::default() }), &root.root());
        assert_eq!(of(7), PathBuf::from("/etc/kopi/a.toml"));
        assert_eq!(of(8), PathBuf::from("/b.toml"));
        assert_eq!(of(9), PathBuf::from(CONFIG));
        assert_eq!(file_of(Some(Path::new("x")), None, &root.root()), PathBuf::from("x"));
    }

    /// Without a configuration kopid does not start; one that runs does not mind. Each problem has its place.
    #[test]
    fn problems_of_the_file_are_findings() {
        let root = Fake::new().file("/kopid.toml", "[wire]\ndevice = 3\n");
        let file = root.root().path("/kopid.toml");
        let (config, found) = check(&file, false);
        assert!(config.is_none() && found.iter().all(|finding| finding.severity == Error), "{found:?}");
        assert!(found.iter().any(|finding| finding.message.contains("kopid.toml:2:")), "{found:?}");
        let missing = root.root().path("/none.toml");
        assert_eq!(check(&missing, false).1[0].severity, Error);
        assert_eq!(check(&missing, true).1[0].severity, Warning);
    }
}
