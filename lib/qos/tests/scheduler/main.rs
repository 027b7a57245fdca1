//! The scheduler, against what it promises: by the packet, by an oracle that looks at everything anew, and by the fluid
//! that packets are an approximation of.
#![expect(
    clippy::tests_outside_test_module,
    clippy::unwrap_used,
    reason = "the whole file is a test, which the lints do not see"
)]

mod adopt;
mod fluid;
mod limits;
mod oracle;
mod random;
mod shares;
mod sim;
