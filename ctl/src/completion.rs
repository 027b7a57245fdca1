//! Completions for shells. The shell's script, which a package installs, runs kopictl with `COMPLETE` in its environment and the
//! words so far; names of applications, rules and classes are asked of kopid, for a moment and no longer.

use crate::arguments::{Arguments, SOCKET, socket_path};
use crate::client::{Client, Request};
use clap::{Command, CommandFactory};
use clap_complete::engine::{ArgValueCompleter, CompletionCandidate};
use clap_complete::env::CompleteEnv;
use serde_json::Value;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::Duration;

/// How long kopid may take. Whoever presses a key waits for it.
const TIMEOUT: Duration = Duration::from_millis(300);
/// Most names that are offered.
const NAMES: usize = 500;
/// The interfaces of `capture` that are no apps.
const INTERFACES: [&str; 2] = ["any", "wire"];

/// The command line with what completes its names. Also for those who make manual pages.
#[must_use]
pub fn command_line() -> Command {
    let name = |command: Command, argument: &'static str, list: &'static str| {
        command.mut_arg(argument, |arg| arg.add(ArgValueCompleter::new(move |word: &OsStr| names(word, list, &[]))))
    };
    Arguments::command()
        .mut_subcommand("classes", |classes| name(classes, "names", "classes"))
        .mut_subcommand("rules", |rules| name(rules, "names", "rules"))
        .mut_subcommand("flows", |flows| name(flows, "app", "apps"))
        .mut_subcommand("explain", |explain| name(explain, "app", "apps"))
        .mut_subcommand("capture", |capture| {
            let capture = name(name(capture, "app", "apps"), "rule", "rules");
            let ports = |word: &OsStr| names(word, "apps", &INTERFACES);
            capture.mut_arg("interfaces", |arg| arg.add(ArgValueCompleter::new(ports)))
        })
}

/// Answers a shell that wants completions, and ends. Returns if there is none.
pub(crate) fn answer_shell() {
    CompleteEnv::with_factory(command_line).bin("kopictl").completer("kopictl").complete();
}

/// Names that begin with `word`: `others`, and those of the rows that kopid answers `list` with. Without an answer in time, no more.
fn names(word: &OsStr, list: &str, others: &[&str]) -> Vec<CompletionCandidate> {
    let Some(word) = word.to_str() else { return Vec::new() };
    let rows: Vec<Value> = Client::connect_within(&socket(std::env::args_os()), TIMEOUT)
        .and_then(|mut kopid| kopid.rows(&Request::plain(list)))
        .unwrap_or_default();
    let names = rows.iter().filter_map(|row| row["name"].as_str()).filter(|name| is_plain(name));
    let names = others.iter().copied().chain(names).filter(|name| name.starts_with(word));
    names.take(NAMES).map(CompletionCandidate::new).collect()
}

/// Whether a name is one word of a shell, and nothing but that: processes choose their own names.
fn is_plain(name: &str) -> bool {
    !name.starts_with('-') && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-:@+".contains(&byte))
}

/// The socket that the words of a command line name, or else the environment.
fn socket(words: impl Iterator<Item = OsString>) -> PathBuf {
    let words: Vec<_> = words.filter_map(|word| word.into_string().ok()).collect();
    let given = words.iter().enumerate().find_map(|(at, word)| match word.strip_prefix("--socket") {
        // bash makes a word of `=`.
        Some("") => words[at + 1..].iter().find(|word| *word != "=").cloned(),
        Some(rest) => rest.strip_prefix('=').map(str::to_owned),
        None => None,
    });
    let given = given.or_else(|| std::env::var("KOPI_CONTROL").ok());
    given.and_then(|path| socket_path(&path).ok()).unwrap_or_else(|| SOCKET.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every completer hangs on an argument that there is, and the command line is one that clap takes.
    #[test]
    fn command_line_is_sound() {
        command_line().debug_assert();
    }

    /// The socket is the one that the command line names, however a shell cuts it into words.
    #[test]
    fn socket_is_that_of_the_command_line() {
        let socket = |line: &str| socket(line.split(' ').map(OsString::from));
        assert_eq!(socket("kopictl --socket /a/b flows --app"), PathBuf::from("/a/b"));
        assert_eq!(socket("kopictl flows --socket=/a/b --app"), PathBuf::from("/a/b"));
        assert_eq!(socket("kopictl flows --socket = /a/b --app"), PathBuf::from("/a/b"));
        assert_ne!(socket("kopictl flows --socket"), PathBuf::new());
    }

    /// No name that a process chose is more than a word for a shell.
    #[test]
    fn names_for_shells_are_plain_words() {
        assert!(["web", "kopi-seq_1.2", "a:b@c"].iter().all(|name| is_plain(name)));
        assert!(!["$(id)", "a b", "`id`", "a;b", "-w", "*", "é", "a\u{1b}b", "~"].iter().any(|name| is_plain(name)));
    }
}
