//! One target under libFuzzer: that which `KOPI_FUZZ_TARGET` names.
#![no_main]

use std::sync::LazyLock;

use kopi_fuzz::{TARGETS, Target};
use libfuzzer_sys::fuzz_target;

static TARGET: LazyLock<&Target> = LazyLock::new(|| {
    let name = std::env::var("KOPI_FUZZ_TARGET").unwrap_or_default();
    TARGETS.iter().find(|target| target.name == name).unwrap_or_else(|| {
        let names: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
        panic!("KOPI_FUZZ_TARGET is {name:?}; there are {}", names.join(", "))
    })
});

fuzz_target!(|bytes: &[u8]| (TARGET.check)(bytes));
