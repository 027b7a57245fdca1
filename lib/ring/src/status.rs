//! The page in which the daemon publishes the state of a port to its app.
//!
//! It lies in the header page of the region, from byte 1,024 on. Only the daemon writes it, and it never reads it back.

use crate::DropReason;
use crate::mapping::Mapping;
use std::mem::offset_of;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

/// Offset of the status in a region.
pub const STATUS_OFFSET: usize = 1024;
/// Counters that there is room for.
pub const DROP_COUNTERS: usize = 64;

/// The status as it lies in memory.
#[derive(Debug)]
#[repr(C)]
struct Status {
    /// Frames dropped on behalf of this port, by [`DropReason::index`].
    drops: [AtomicU64; DROP_COUNTERS],
}

const _: () = {
    assert!(offset_of!(Status, drops) == 0);
    assert!(STATUS_OFFSET.saturating_add(size_of::<Status>()) <= crate::layout::HEADER_SIZE);
};

/// The daemon's side: writes only.
#[derive(Debug)]
pub struct DaemonStatus(Arc<Mapping>);

/// The client's side: reads only.
#[derive(Debug)]
pub struct StatusPage(Arc<Mapping>);

fn status(mapping: &Mapping) -> &Status {
    #[expect(clippy::cast_ptr_alignment, reason = "the mapping is page-aligned and the offset a multiple of 64")]
    let at = mapping.at(STATUS_OFFSET).cast::<Status>();
    // SAFETY: the status lies inside the header page, which every mapping has, aligned; it consists of atomics only,
    // for which any bytes at any time are valid.
    unsafe { &*at }
}

impl DaemonStatus {
    pub(crate) const fn new(mapping: Arc<Mapping>) -> Self {
        Self(mapping)
    }

    /// Publishes how many frames were dropped for `reason`.
    pub fn set_drops(&self, reason: DropReason, frames: u64) {
        if let Some(counter) = status(&self.0).drops.get(reason.index()) {
            counter.store(frames, Relaxed);
        }
    }
}

impl StatusPage {
    pub(crate) const fn new(mapping: Arc<Mapping>) -> Self {
        Self(mapping)
    }

    /// Frames that the daemon dropped on behalf of this port for `reason`. At most a tenth of a second old.
    #[must_use]
    pub fn drops(&self, reason: DropReason) -> u64 {
        status(&self.0).drops.get(reason.index()).map_or(0, |counter| counter.load(Relaxed))
    }
}
