//! The app's side of the sleep on one RX ring.

use crate::index::SharedIndex;
use crate::layout::RingHeader;
use crate::mapping::Mapping;
use crate::need_wakeup::{self, barrier};
use std::ptr::NonNull;
use std::sync::Arc;

/// The interrupt of one RX ring. Separate from the ring's [`Consumer`](crate::Consumer): any thread of the app may use it.
#[derive(Debug)]
pub struct RxInterrupt {
    header: NonNull<RingHeader>,
    /// Keeps the memory mapped.
    _mapping: Arc<Mapping>,
}

// SAFETY: the pointer leads into the mapping, which is `Sync` and lives as long as the `Arc`.
unsafe impl Send for RxInterrupt {}
// SAFETY: as above; what it leads to are atomics.
unsafe impl Sync for RxInterrupt {}

impl RxInterrupt {
    pub(crate) const fn new(mapping: Arc<Mapping>, header: NonNull<RingHeader>) -> Self {
        Self { header, _mapping: mapping }
    }

    fn words(&self) -> &RingHeader {
        // SAFETY: the maker of `self` has checked that the ring lies inside the mapping, aligned, and we keep the mapping; a
        // `RingHeader` consists of atomics only, for which any bytes at any time are valid.
        unsafe { self.header.as_ref() }
    }

    /// Asks to be woken by the next frame, and returns whether the ring has frames already: then there may be no wake-up.
    ///
    /// Our own counter is read back from shared memory here, since it is private to the thread that polls. A daemon that has
    /// changed it could as well have kept the frames.
    #[must_use]
    pub fn enable(&self) -> bool {
        let words = self.words();
        need_wakeup::set(&words.need_wakeup);
        barrier();
        SharedIndex::load(&words.head) != SharedIndex::load(&words.tail)
    }

    /// Asks not to be woken any more.
    pub fn disable(&self) {
        need_wakeup::clear(&self.words().need_wakeup);
    }

    /// Returns whether the daemon has woken the app for this ring. True once for each time that the interrupt was enabled.
    #[must_use]
    pub fn take_wakeup(&self) -> bool {
        need_wakeup::take_wakeup(&self.words().need_wakeup)
    }
}
