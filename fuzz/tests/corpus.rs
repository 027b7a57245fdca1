//! Replays the corpora, so that every input that ever mattered is tried on every run.
#![expect(clippy::tests_outside_test_module, reason = "the whole file is a test, which the lints do not see")]

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use kopi_fuzz::TARGETS;

fn corpus(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name)
}

/// What must hold for the bytes of somebody else holds for every input of every corpus, and there is a corpus for each target.
#[test]
fn every_input_of_every_corpus_passes() {
    let mut failed = Vec::new();
    for target in TARGETS {
        let mut inputs: Vec<_> =
            fs::read_dir(corpus(target.name)).unwrap().map(|entry| entry.unwrap().path()).collect();
        inputs.sort();
        assert!(!inputs.is_empty(), "{} has no corpus", target.name);
        for input in inputs {
            let bytes = fs::read(&input).unwrap();
            if catch_unwind(AssertUnwindSafe(|| (target.check)(&bytes))).is_err() {
                failed.push(input);
            }
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
}

/// No corpus is that of a target which is no more.
#[test]
fn every_corpus_has_a_target() {
    for entry in fs::read_dir(corpus("")).unwrap() {
        let name = entry.unwrap().file_name();
        assert!(TARGETS.iter().any(|target| *target.name == *name), "{name:?}");
    }
}
