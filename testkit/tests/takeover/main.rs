//! What an interface has is the kernel's port's after `kopictl takeover`, and its own again after `--undo`, as `ip -json` shows it: what
//! programs of all kinds configure, and what no program does.
#![expect(clippy::tests_outside_test_module, reason = "this whole file is a test")]
#![forbid(unsafe_code)]

mod random;
mod refused;
mod scene;
mod ways;
