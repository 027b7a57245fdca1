//! What the applications of the benchmarks have in common.

use std::io::{self, Write};

use core_affinity::CoreId;

use crate::error::{BenchError, Doing, Result};

/// Has this thread run on `core` and nowhere else.
///
/// # Errors
///
/// When there is no such core.
pub(crate) fn pin(core: usize) -> Result<()> {
    match core_affinity::set_for_current(CoreId { id: core }) {
        true => Ok(()),
        false => Err(BenchError::Failed(format!("cannot run on core {core}"))),
    }
}

/// Prints `text` to whoever has started this program, at once.
///
/// # Errors
///
/// When nobody listens any more.
pub(crate) fn say(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).doing(|| "answer".to_owned())
}
