//! What has a client's file outlive all that becomes of the window.

use crate::region_error::{RegionError, system};
use rustix::mm::{MapFlags, ProtFlags};
use std::os::fd::OwnedFd;
use std::ptr::NonNull;

/// A page of a client's file, mapped beside the window so that nobody can touch it. Who unmaps the last of a file that is closed
/// frees it, which takes a tenth of a second for each GiB: not the worker that runs into a hole, but the thread that drops this.
#[derive(Debug)]
pub(super) struct Keeper {
    at: NonNull<u8>,
    length: usize,
}

impl Keeper {
    /// Maps the page of `length` bytes at `offset`.
    pub(super) fn new(fd: &OwnedFd, offset: u64, length: usize) -> Result<Self, RegionError> {
        let flags = MapFlags::SHARED | MapFlags::NORESERVE;
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory of ours.
        let at = unsafe { rustix::mm::mmap(std::ptr::null_mut(), length, ProtFlags::empty(), flags, fd, offset) };
        let at = at.map_err(system("mapping shared memory"))?;
        let at = NonNull::new(at.cast()).ok_or(RegionError::Mismatch("it was mapped at zero"))?;
        Ok(Self { at, length })
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        // SAFETY: a mapping of ours, which nobody can use.
        let unmapped = unsafe { rustix::mm::munmap(self.at.as_ptr().cast(), self.length) };
        debug_assert!(unmapped.is_ok(), "munmap: {unmapped:?}");
    }
}
