//! Answers of the driver's callbacks, as ethdev wants them.

use std::ffi::c_int;

/// An errno as ethdev wants it: negative.
pub(crate) const fn code(errno: c_int) -> c_int {
    errno.wrapping_neg()
}

/// One of ethdev's small unsigned constants as an answer.
pub(crate) fn status(status: u32) -> c_int {
    c_int::try_from(status).unwrap_or(0)
}
