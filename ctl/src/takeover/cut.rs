//! Keeps what arrives at the interface from the kernel's stack, by `nft` or `tc`.

use std::io::Write;
use std::process::{Command, Stdio};

/// What runs these programs.
pub(crate) trait Shell {
    /// Runs `program` with `words`, and `input` on its standard input; returns what it says.
    ///
    /// # Errors
    ///
    /// What it says of its failure, with what was run.
    fn run(&mut self, program: &str, words: &[&str], input: &str) -> Result<String, String>;
}

/// The system itself.
#[derive(Debug)]
pub(crate) struct System;

impl Shell for System {
    fn run(&mut self, program: &str, words: &[&str], input: &str) -> Result<String, String> {
        let shown = || format!("{program} {}", words.join(" "));
        let mut command = Command::new(program);
        // What is read of them is in no language but theirs.
        command.args(words).env("LC_ALL", "C");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| format!("`{}`: {error}", shown()))?;
        if let Some(mut pipe) = child.stdin.take() {
            // A program that does not read it says why.
            drop(pipe.write_all(input.as_bytes()));
        }
        let output = child.wait_with_output().map_err(|error| format!("`{}`: {error}", shown()))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(format!("`{}`: {}", shown(), said.trim().lines().next().unwrap_or("it failed")))
    }
}

/// Keeps what arrives at the interface from the kernel's stack. Packet sockets see it before, and XDP takes it before, so
/// kopid gets it all; without this, a wire of `net_af_packet` would give the kernel every frame twice, once past the policy.
///
/// # Errors
///
/// What the programs say.
pub(crate) fn cut(interface: &str, shell: &mut dyn Shell) -> Result<(), String> {
    let table = table_of(interface);
    let script = format!(
        "add table netdev {table}\ndelete table netdev {table}\nadd table netdev {table}\n\
         add chain netdev {table} cut {{ type filter hook ingress device \"{interface}\" priority -500; policy drop; }}\n"
    );
    let Err(error) = shell.run("nft", &["-f", "-"], &script) else { return Ok(()) };
    // A kernel or a machine without nftables may have the older way.
    let filter = ["filter", "replace", "dev", interface, "ingress", "protocol", "all", "prio", "1", "handle", "1"];
    let filter = [&filter[..], &["matchall", "action", "drop"]].concat();
    let queued = shell.run("tc", &["qdisc", "add", "dev", interface, "clsact"], "");
    if queued.is_err_and(|said| !said.contains("File exists") && !said.contains("Exclusivity")) {
        return Err(format!("what arrives cannot be kept from the kernel: {error}"));
    }
    shell.run("tc", &filter, "").map(drop).map_err(|_| format!("what arrives cannot be kept from the kernel: {error}"))
}

/// Undoes [`cut`], in whichever way it was done.
///
/// # Errors
///
/// What the programs say.
pub(crate) fn uncut(interface: &str, shell: &mut dyn Shell) -> Result<(), String> {
    let table = table_of(interface);
    let removed = shell.run("nft", &["-f", "-"], &format!("add table netdev {table}\ndelete table netdev {table}\n"));
    // That one alone: others may have filters of the same priority.
    let filter =
        ["filter", "del", "dev", interface, "ingress", "protocol", "all", "prio", "1", "handle", "1", "matchall"];
    if shell.run("tc", &filter, "").is_ok() { Ok(()) } else { removed.map(drop) }
}

/// A name of nftables for the interface.
pub(super) fn table_of(interface: &str) -> String {
    let word = |c: char| if c.is_ascii_alphanumeric() { c.to_string() } else { format!("_{:x}_", u32::from(c)) };
    format!("kopi_takeover_{}", interface.chars().map(word).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// Names of tables are words of nftables', and differ where the interfaces do.
    #[test]
    fn tables_have_names_that_nftables_takes() {
        let names: BTreeSet<String> = ["eth1", "eth-1", "eth.1", "eth_1", "a@b"].into_iter().map(table_of).collect();
        assert_eq!(names.len(), 5);
        assert!(names.iter().all(|name| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')));
    }
}
