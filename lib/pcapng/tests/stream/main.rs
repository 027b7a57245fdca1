//! What is written against what is read: by the crate itself, by another crate, and damaged on the way.
#![expect(clippy::tests_outside_test_module, reason = "the whole crate is tests, which the lint does not see")]

mod hostile;
mod model;
mod oracle;
mod round_trip;
