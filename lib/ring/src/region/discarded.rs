//! How the memory of a region goes back to the system.

use super::builder::RegionBuilder;
use super::{Region, whole_pages};
use crate::mapping::Mapping;
use crate::region_error::{RegionError, system};
use rustix::fs::FallocateFlags;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// A region that is not used any more. Its memory goes back to the system bit by bit, since that takes time.
#[derive(Debug)]
pub struct DiscardedRegion {
    mapping: Arc<Mapping>,
    fd: OwnedFd,
    /// Bytes that have gone back, or are not mapped any more.
    freed: usize,
}

impl DiscardedRegion {
    /// Takes over a region that [is idle](Region::is_idle).
    #[must_use]
    pub fn new(region: Region) -> Self {
        let Region { mapping, fd, .. } = region;
        Self { mapping, fd, freed: 0 }
    }

    /// Gives `bytes` more back, rounded up to whole pages, even if the client keeps its file. Returns whether none is left.
    ///
    /// # Errors
    ///
    /// [`RegionError::System`] if the kernel refuses; then the memory goes when the client lets go of it.
    pub fn free(&mut self, bytes: usize) -> Result<bool, RegionError> {
        let size = self.mapping.size;
        let length = whole_pages(bytes).min(size.saturating_sub(self.freed));
        if length > 0 {
            let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            rustix::fs::fallocate(&self.fd, hole, self.freed as u64, length as u64)
                .map_err(system("emptying a region"))?;
            self.freed = self.freed.saturating_add(length);
        }
        Ok(self.freed >= size)
    }

    /// Unmaps `bytes` more, rounded up to whole pages, and returns whether none is left. For a [sealed](Region::seal) region, which
    /// cannot be emptied: its memory goes when the last who holds it has closed its file and unmapped it. To drop
    /// this closes it here, which takes as long as to free all of its memory, if nobody else holds it.
    ///
    /// # Errors
    ///
    /// [`RegionError::Mismatch`] if it is still in use.
    pub fn unmap(&mut self, bytes: usize) -> Result<bool, RegionError> {
        let mapping = Arc::get_mut(&mut self.mapping).ok_or(RegionError::Mismatch("it is still in use"))?;
        mapping.shrink(whole_pages(bytes));
        Ok(mapping.size == 0)
    }
}

impl From<RegionBuilder> for DiscardedRegion {
    /// Takes over a region that is not wanted any more before it was finished.
    fn from(builder: RegionBuilder) -> Self {
        let RegionBuilder { mapping, fd, .. } = builder;
        Self { mapping: Arc::new(mapping), fd, freed: 0 }
    }
}
