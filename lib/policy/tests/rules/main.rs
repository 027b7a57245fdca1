//! The compiled rules, port security and admission, against what they are meant to be.
#![expect(
    clippy::tests_outside_test_module,
    clippy::unwrap_used,
    reason = "the whole file is a test, which the lints do not see"
)]

mod admission;
mod examples;
mod frame;
mod interpreter;
mod model;
mod port_security;
