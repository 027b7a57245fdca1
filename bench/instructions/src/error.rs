//! What can go wrong.

use std::io;
use std::path::PathBuf;

/// Why instructions could not be counted, or are too many.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// Said already in words.
    #[error("{0}")]
    Said(String),
    /// The system, about a file or a program.
    #[error("{}: {error}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system answered.
        error: io::Error,
    },
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Dpdk(#[from] dpdk::DpdkError),
    #[error(transparent)]
    Region(#[from] kopi_ring::RegionError),
    #[error(transparent)]
    Geometry(#[from] kopi_ring::layout::GeometryError),
    #[error(transparent)]
    Fault(#[from] kopi_ring::PeerFault),
    #[error("{0}")]
    System(#[from] rustix::io::Errno),
}
