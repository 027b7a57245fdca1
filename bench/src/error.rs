//! What can stop a benchmark.

use std::io;
use std::time::Duration;

/// Why a step of the benchmark could not be done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BenchError {
    /// The operating system refused something.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: String,
        /// What the system answered.
        source: io::Error,
    },
    /// DPDK refused something.
    #[error(transparent)]
    Dpdk(#[from] dpdk::DpdkError),
    /// A program under test ended, or said something that makes going on pointless.
    #[error("{0}")]
    Failed(String),
    /// A program under test did not say what was expected of it in time.
    #[error("{program} did not print {marker:?} within {limit:?}; it said last:\n{tail}")]
    Silent {
        /// The program's name in this run.
        program: String,
        /// What was waited for.
        marker: String,
        /// How long it was waited for.
        limit: Duration,
        /// The end of the program's output.
        tail: String,
    },
    /// The user pressed Ctrl-C, or the run was told to end.
    #[error("interrupted")]
    Interrupted,
}

/// Result of a step of the benchmark.
pub(crate) type Result<T> = std::result::Result<T, BenchError>;

/// Adds to an I/O error what was being done.
pub(crate) trait Doing<T> {
    /// Turns the I/O error into [`BenchError::Io`], naming what was being done.
    fn doing(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T> Doing<T> for io::Result<T> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| BenchError::Io { what: what(), source })
    }
}
