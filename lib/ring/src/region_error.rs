//! Why a region cannot be had.

use rustix::io::Errno;
use thiserror::Error;

/// Most regions at one time; more than the daemon's limit on apps, as a closing region overlaps with its successor.
pub(crate) const MAX_REGIONS: usize = 4096;

/// Why a region could not be made or used.
#[derive(Debug, Error)]
pub enum RegionError {
    /// A system call failed.
    #[error("{call}: {errno}")]
    System {
        /// The call, or what it was for.
        call: &'static str,
        /// The kernel's answer.
        errno: Errno,
    },
    /// The file is not as the daemon's message describes it.
    #[error("the shared region is unusable: {0}")]
    Mismatch(&'static str),
    /// As many regions as there may be at one time exist already.
    #[error("more than {MAX_REGIONS} regions at one time")]
    TooMany,
}

/// For `map_err`: the failure of the system call `call`.
pub(crate) fn system(call: &'static str) -> impl Fn(Errno) -> RegionError {
    move |errno| RegionError::System { call, errno }
}
