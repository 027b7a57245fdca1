//! What holds of the source text itself.
#![expect(clippy::tests_outside_test_module, reason = "this whole file is a test")]
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// A public type can be found, and told from others, by its name alone: no crate has two of one name.
#[test]
fn no_crate_has_two_public_types_of_one_name() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let crates = crates_below(&root);
    assert!(crates.len() >= 14, "{crates:?}");
    // The drivers for each release have the sources of kopi-shim.
    let sources = crates.iter().map(|folder| folder.join("src")).filter(|sources| sources.is_dir());
    let twice: Vec<String> = sources.flat_map(|sources| doubles(&sources)).collect();
    assert!(twice.is_empty(), "{}", twice.join("\n"));
}

/// Folders with a package in them.
fn crates_below(folder: &Path) -> Vec<PathBuf> {
    let manifest = fs::read_to_string(folder.join("Cargo.toml")).unwrap_or_default();
    let own = manifest.contains("[package]").then(|| folder.to_owned());
    let below = entries(folder).into_iter().filter(|entry| entry.is_dir()).flat_map(|entry| crates_below(&entry));
    own.into_iter().chain(below).collect()
}

/// What is in a folder, but for hidden and built things.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let all = fs::read_dir(folder).expect("a folder of the repository").map(|entry| entry.expect("an entry").path());
    let hidden = |path: &PathBuf| path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
    all.filter(|path| !hidden(path) && !path.ends_with("target")).collect()
}

/// Names that more than one public type below `folder` has, with the lines that define them.
fn doubles(folder: &Path) -> Vec<String> {
    let mut found = BTreeMap::<String, Vec<String>>::new();
    for file in sources(folder) {
        let text = fs::read_to_string(&file).expect("a source file");
        for (number, line) in (1..).zip(text.lines()) {
            if let Some(name) = public_type(line) {
                found.entry(name.to_owned()).or_default().push(format!("{}:{number}", file.display()));
            }
        }
    }
    let twice = found.into_iter().filter(|(_, places)| places.len() > 1);
    twice.map(|(name, places)| format!("`{name}`: {}", places.join(", "))).collect()
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let (folders, files): (Vec<_>, Vec<_>) = entries(folder).into_iter().partition(|entry| entry.is_dir());
    let below = folders.iter().flat_map(|folder| sources(folder));
    files.into_iter().filter(|file| file.extension().is_some_and(|ext| ext == "rs")).chain(below).collect()
}

/// The name of the public type that a line begins to define.
fn public_type(line: &str) -> Option<&str> {
    let item = line.trim_start().strip_prefix("pub ")?;
    let item = item.strip_prefix("unsafe ").unwrap_or(item);
    let (kind, rest) = item.split_once(' ')?;
    let is_type = matches!(kind, "struct" | "enum" | "union" | "trait" | "type");
    is_type.then(|| rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or(rest))
}

#[test]
fn definitions_of_types_are_recognized() {
    let lines =
        ["pub struct A;", "    pub enum B<'a> {", "pub unsafe trait C: D {", "pub type E = F;", "pub union G {"];
    assert_eq!(lines.map(public_type), ["A", "B", "C", "E", "G"].map(Some));
    let others = ["pub fn struct_of() {", "struct H;", "pub(crate) struct I;", "/// pub struct J", "pub use k::L;"];
    assert_eq!(others.map(public_type), [None; 5]);
}
