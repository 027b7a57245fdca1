//! The memory of a region, as this process has mapped it.

use crate::layout::{HEADER_SIZE, Header};
use crate::pages::{self, Guard};
use crate::region_error::{RegionError, system};
use rustix::mm::{MapFlags, ProtFlags};
use std::os::fd::OwnedFd;
use std::ptr::NonNull;

/// A shared mapping, unmapped when the last user is gone.
#[derive(Debug)]
pub(crate) struct Mapping {
    pub(crate) base: NonNull<u8>,
    pub(crate) size: usize,
    /// What watches its pages, for the daemon.
    pub(crate) guard: Option<Guard>,
}

// SAFETY: the mapping is plain memory, reached only through atomics and the copies of `copy.rs`.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `size` bytes of `fd`, with `flags` besides `MAP_SHARED`.
    pub(crate) fn new(fd: &OwnedFd, size: usize, flags: MapFlags) -> Result<Self, RegionError> {
        if size < HEADER_SIZE {
            return Err(RegionError::Mismatch("it has no header"));
        }
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory of ours.
        let base = unsafe { rustix::mm::mmap(std::ptr::null_mut(), size, access, MapFlags::SHARED | flags, fd, 0) }
            .map_err(system("mmap"))?;
        let base = NonNull::new(base.cast()).ok_or(RegionError::Mismatch("it was mapped at zero"))?;
        let mapping = Self { base, size, guard: None };
        // SAFETY: the range is the mapping just made. A core dump must not carry an app's frames.
        unsafe { rustix::mm::madvise(base.as_ptr().cast(), size, rustix::mm::Advice::LinuxDontDump) }
            .map_err(system("madvise"))?;
        Ok(mapping)
    }

    /// The header at the start of the region.
    pub(crate) fn header(&self) -> &Header {
        // SAFETY: the mapping is longer than a header, page-aligned and lives as long as `self`; a `Header` consists of
        // atomics only, for which any bytes at any time are valid.
        unsafe { self.base.cast().as_ref() }
    }

    /// The address `offset` bytes into the region.
    ///
    /// # Panics
    ///
    /// If `offset` is outside: our own arithmetic went wrong.
    pub(crate) fn at(&self, offset: usize) -> *mut u8 {
        assert!(offset < self.size, "offset {offset} in a region of {} bytes", self.size);
        self.base.as_ptr().wrapping_add(offset)
    }
}

impl Mapping {
    /// Unmaps the last `bytes` of it, or all that there is if it is less. Whoever has the mapping for itself alone has no
    /// address in it either.
    pub(crate) fn shrink(&mut self, bytes: usize) {
        // First, since the addresses may be in use again a moment later.
        self.guard = None;
        let left = self.size.saturating_sub(bytes);
        let end = self.base.as_ptr().wrapping_add(left);
        if let Some(end) = NonNull::new(end) {
            pages::unmap(end, self.size.saturating_sub(left));
        }
        self.size = left;
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        self.shrink(self.size);
    }
}
