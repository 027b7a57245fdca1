//! What is done with files that are complete: -z.

use crate::streams::mention;
use crate::text::clean;
use std::ffi::OsString;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Runs a command for each file.
#[derive(Debug)]
pub(crate) struct Finished {
    command: Option<OsString>,
    running: Vec<Child>,
}

impl Finished {
    /// Runs `command`, if there is one.
    pub(crate) const fn new(command: Option<OsString>) -> Self {
        Self { command, running: Vec::new() }
    }

    /// Has the command run beside the capture, with the file's name as its argument.
    pub(crate) fn run(&mut self, file: &Path) {
        let Some(command) = &self.command else { return };
        // Those that have ended meanwhile.
        self.running.retain_mut(|child| matches!(child.try_wait(), Ok(None)));
        match Command::new(command).arg(file).stdin(Stdio::null()).spawn() {
            Ok(child) => self.running.push(child),
            // The file is there all the same, and the capture goes on.
            Err(error) => {
                let command = clean(&command.to_string_lossy());
                mention(&format!("kopictl: cannot run {command} for {}: {error}\n", clean(&file.to_string_lossy())));
            }
        }
    }

    /// Waits for those that still run.
    pub(crate) fn wait(&mut self) {
        for mut child in self.running.drain(..) {
            drop(child.wait());
        }
    }
}
