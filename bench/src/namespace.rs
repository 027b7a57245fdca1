//! A network namespace of the benchmark's own, in which the kernel's arms live.

use std::process::{Command, id};

use crate::error::{BenchError, Doing, Result};

/// A network namespace. Dropping it removes it with all interfaces in it; what cannot be removed is left to the next reboot.
#[derive(Debug)]
pub(crate) struct Namespace(String);

impl Namespace {
    /// Makes a namespace, `name` tells it from others of this run. Its loopback interface is up.
    ///
    /// # Errors
    ///
    /// When the system lacks `ip`, or the right to make a namespace.
    pub(crate) fn create(name: &str) -> Result<Self> {
        let space = Self(format!("kopi-bench-{}-{name}", id()));
        run(&["ip", "netns", "add", &space.0])?;
        space.run(&["ip", "link", "set", "lo", "up"])?;
        Ok(space)
    }

    /// What `ip` knows it by.
    pub(crate) fn name(&self) -> &str {
        &self.0
    }

    /// Runs a command in it, and returns what it printed.
    ///
    /// # Errors
    ///
    /// When it fails, with what it said.
    pub(crate) fn run(&self, words: &[&str]) -> Result<String> {
        run(&[&self.arguments(&[])[..], words].concat())
    }

    /// The words that run a command of `words` in it.
    pub(crate) fn arguments<'a>(&'a self, words: &[&'a str]) -> Vec<&'a str> {
        [&["ip", "netns", "exec", &self.0][..], words].concat()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _gone = run(&["ip", "netns", "delete", &self.0]);
    }
}

/// Runs a command to its end, and returns what it printed.
fn run(words: &[&str]) -> Result<String> {
    let Some((program, args)) = words.split_first() else { return Ok(String::new()) };
    let output = Command::new(program).args(args).output().doing(|| format!("run {program}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(BenchError::Failed(format!("{} failed: {}", words.join(" "), said.trim())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_has_the_command_and_what_it_said() {
        assert_eq!(run(&["echo", "yes"]).expect("it is there"), "yes\n");
        let error = run(&["ls", "/no/such/folder"]).expect_err("there is none").to_string();
        assert!(error.contains("ls /no/such/folder failed") && error.contains("cannot access"), "{error}");
        assert!(run(&["no-such-program"]).is_err());
    }
}
