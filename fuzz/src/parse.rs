//! Any bytes as a frame.

#[path = "../../lib/packet/tests/support/mod.rs"]
mod support;

/// What the property tests of the parser demand: it agrees with itself and with `etherparse`.
pub(crate) fn check(frame: &[u8]) {
    support::check(frame);
}
