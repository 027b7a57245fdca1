//! Eventfds that one thread signals and another waits for.

use rustix::event::{EventfdFlags, eventfd};
use rustix::fd::OwnedFd;
use rustix::io::Errno;

/// A new eventfd that is not readable, does not block and is closed on exec.
///
/// # Errors
///
/// The kernel's, when file descriptors or memory are short.
pub(crate) fn new() -> Result<OwnedFd, Errno> {
    eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
}

/// Makes `event` readable.
pub(crate) fn signal(event: &OwnedFd) {
    // Fails only when it is readable anyway.
    let _written = rustix::io::write(event, &1_u64.to_ne_bytes());
}

/// Makes `event` unreadable.
pub(crate) fn drain(event: &OwnedFd) {
    // Fails only when it was unreadable anyway.
    let _read = rustix::io::read(event, &mut [0_u8; 8]);
}
