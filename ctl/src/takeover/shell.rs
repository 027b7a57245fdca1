//! The programs by which the kernel is told what is to become of what arrives: `nft` and `tc`.

use std::io::Write;
use std::process::{Command, Stdio};

/// Who runs them.
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
