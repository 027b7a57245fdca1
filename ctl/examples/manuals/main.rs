//! Writes the manual pages and the completions of shells into a folder, for packages:
//!
//! ```sh
//! cargo run -p kopi-ctl --example manuals -- FOLDER
//! ```
//!
//! `FOLDER/man/man5`, `FOLDER/man/man8`; `FOLDER/completions/bash/kopictl`, `…/zsh/_kopictl`, `…/fish/kopictl.fish`. Options come from
//! the programs' own command lines, the rest from the documents in `docs`: [`pages`] says what of them is in which page, and
//! [`markdown`] makes roff of it.
#![forbid(unsafe_code)]

#[path = "../../../dataplane/src/arguments.rs"]
mod arguments;
mod markdown;
mod pages;

use clap_complete::env::{Bash, EnvCompleter, Fish, Zsh};
use std::error::Error;
use std::fs;
use std::path::Path;

/// The shells, with what their scripts are called.
const SHELLS: [(&dyn EnvCompleter, &str); 3] =
    [(&Bash, "bash/kopictl"), (&Zsh, "zsh/_kopictl"), (&Fish, "fish/kopictl.fish")];

fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::args_os().nth(1).ok_or("usage: manuals FOLDER")?;
    let folder = Path::new(&folder);
    for page in pages::all()? {
        let section = folder.join(format!("man/man{}", page.section));
        fs::create_dir_all(&section)?;
        fs::write(section.join(page.file()), page.text)?;
    }
    for (shell, name) in SHELLS {
        let file = folder.join("completions").join(name);
        fs::create_dir_all(file.parent().unwrap_or(folder))?;
        fs::write(file, completions(shell)?)?;
    }
    Ok(())
}

/// The script that has `shell` ask kopictl.
fn completions(shell: &dyn EnvCompleter) -> Result<Vec<u8>, std::io::Error> {
    let mut script = Vec::new();
    shell.write_registration("COMPLETE", "kopictl", "kopictl", "kopictl", &mut script)?;
    Ok(script)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::process::{Command, Stdio};

    /// Gives `text` to a program that checks it. `None` if there is no such program here.
    fn checked(program: &str, arguments: &[&str], text: &[u8]) -> Option<(bool, String)> {
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().ok()?;
        child.stdin.take().unwrap().write_all(text).unwrap();
        let output = child.wait_with_output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        Some((output.status.success(), String::from_utf8_lossy(&said).into_owned()))
    }

    /// mandoc has nothing to say about any page. CI has mandoc; elsewhere this checks nothing.
    #[test]
    fn pages_pass_mandoc() {
        for page in pages::all().unwrap() {
            if let Some((good, said)) = checked("mandoc", &["-Tlint", "-Wwarning"], page.text.as_bytes()) {
                assert!(good, "{}\n{said}", page.file());
            }
        }
    }

    /// The scripts are none that their shells stumble over, where there are these shells.
    #[test]
    fn scripts_are_read_by_their_shells() {
        for ((shell, name), program) in SHELLS.into_iter().zip(["bash", "zsh", "fish"]) {
            let script = completions(shell).unwrap();
            assert!(String::from_utf8_lossy(&script).contains("COMPLETE="), "{name}");
            if let Some((good, said)) = checked(program, &["-n"], &script) {
                assert!(good, "{name}: {said}");
            }
        }
    }
}
