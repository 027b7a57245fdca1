//! Runs this program under callgrind, and reads what it has counted.
//!
//! callgrind counts instructions while the functions `counted…` run, and writes a part after each call of
//! [`end_of_case`]. valgrind presents the same processor everywhere, so libraries that choose their code by the
//! processor choose the same.

use crate::error::Failure;
use std::collections::BTreeMap;
use std::hint::black_box;
use std::path::Path;
use std::process::{Command, Stdio};

/// Instructions, by the function that they belong to.
pub(crate) type Functions = BTreeMap<String, u64>;

/// callgrind looks for this function by its name.
#[inline(never)]
pub(crate) fn end_of_case(case: usize) {
    black_box(case);
}

/// Counts the cases that `arguments` ask this program for, `parts` in number. Files go to `folder`, under `name`.
pub(crate) fn count(folder: &Path, name: &str, arguments: &[String], parts: usize) -> Result<Vec<Functions>, Failure> {
    let program = std::env::current_exe()?;
    let out = folder.join(name);
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--quiet", "--compress-strings=no", "--compress-pos=no", "--dump-line=no"])
        .args(["--toggle-collect=*::counted*", "--dump-after=*::end_of_case*"])
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(&program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| Failure::Said(format!("valgrind: {error}; ci/setup.sh installs it")))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(Failure::Said(format!("the {name} under valgrind: {}\n{said}", output.status)));
    }
    (1..=parts).map(|part| read(&out.with_extension(part.to_string()))).collect()
}

fn read(path: &Path) -> Result<Functions, Failure> {
    let text = std::fs::read_to_string(path).map_err(|error| Failure::File { path: path.to_owned(), error })?;
    let functions = parse(&text);
    if functions.is_empty() {
        return Err(Failure::Said(format!("{}: callgrind has counted nothing", path.display())));
    }
    Ok(functions)
}

/// Adds up what stands in a file of callgrind's, whose names and positions are not compressed. The format is described in
/// valgrind's manual, "Callgrind Format Specification".
fn parse(text: &str) -> Functions {
    let mut functions = Functions::new();
    let (mut object, mut function, mut inclusive) = ("", String::new(), false);
    for line in text.lines() {
        if let Some(path) = line.strip_prefix("ob=") {
            object = path;
        } else if let Some(name) = line.strip_prefix("fn=") {
            function = plain(name, object);
        } else if line.starts_with("calls=") {
            // The next line has the cost of what was called, which is counted there.
            inclusive = true;
        } else if line.starts_with(|c: char| c.is_ascii_digit()) {
            let cost = line.split_whitespace().nth(1).and_then(|cost| cost.parse::<u64>().ok());
            if let (false, Some(cost)) = (inclusive, cost) {
                *functions.entry(function.clone()).or_default() += cost;
            }
            inclusive = false;
        }
    }
    functions.retain(|_, cost| *cost > 0);
    functions
}

/// A function's name without what differs from one build to the next: the hash at its end, and the number of a cycle.
/// Functions of which only the address is known, as Debian's libraries have them, are all called after their library.
fn plain(name: &str, object: &str) -> String {
    let name = name.split('\'').next().unwrap_or(name);
    if name.starts_with("0x") {
        let library = object.rsplit('/').next().unwrap_or(object);
        return library.split_inclusive(".so").next().unwrap_or(library).to_owned();
    }
    match name.rsplit_once("::h") {
        Some((path, hash)) if hash.len() == 16 && hash.bytes().all(|c| c.is_ascii_hexdigit()) => path.to_owned(),
        _ => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Own costs are added up by name, over files, and costs of calls are left to what was called.
    #[test]
    fn a_file_of_callgrinds_is_added_up() {
        let text = "version: 1\nevents: Ir\n\nob=/lib/librte_net_null.so.23.0\nfl=???\nfn=0x0000000000004370\n0 7\n\
                    ob=/bin/x\nfl=a.rs\nfn=a::b::h0123456789abcdef\n0 5\ncfn=c\ncalls=2 0\n0 100\n0 3\n\
                    fn=c\n0 100\nfl=b.rs\nfn=a::b::h0123456789abcdef\nfe=c.rs\n0 4\ntotals: 112\n";
        assert_eq!(
            parse(text),
            Functions::from([("librte_net_null.so".into(), 7), ("a::b".into(), 12), ("c".into(), 100),])
        );
    }
}
