//! Standard output and standard error.

use crate::failure::Failure;
use std::io::{self, Write};

/// Prints a result.
///
/// # Errors
///
/// [`Failure::Output`].
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(Failure::Output)
}

/// Tells people what is no result.
///
/// # Errors
///
/// [`Failure::Output`].
pub(crate) fn complain(text: &str) -> Result<(), Failure> {
    io::stderr().write_all(text.as_bytes()).map_err(Failure::Output)
}

/// The same, for what matters less than going on: there may be nobody to tell.
pub(crate) fn mention(text: &str) {
    drop(io::stderr().write_all(text.as_bytes()));
}
