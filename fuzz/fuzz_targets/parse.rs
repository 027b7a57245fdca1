//! Any bytes as a frame: the parser must not panic, must agree with itself, and must agree with `etherparse`.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../packet/tests/support/mod.rs"]
mod support;

fuzz_target!(|frame: &[u8]| support::check(frame));
