//! How a sleeping app is woken: one futex word in its region, for all of its RX rings.
//!
//! The daemon adds one to the word and wakes a thread that waits on it. It never writes to a file descriptor that the app holds
//! too, because the app could make that block. What the app does when it is woken, such as writing to its own eventfd, is its
//! own business.

use crate::layout::HEADER_SIZE;
use crate::mapping::Mapping;
use rustix::event::Timespec;
use rustix::thread::futex;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{AcqRel, Acquire};
use std::time::Duration;

/// Offset of the futex word in a region.
pub const WAKE_FUTEX_OFFSET: usize = 2048;

const _: () = assert!(WAKE_FUTEX_OFFSET.saturating_add(128) <= HEADER_SIZE && WAKE_FUTEX_OFFSET.is_multiple_of(128));

/// The futex by which the app of one region is woken.
#[derive(Clone, Debug)]
pub struct WakeFutex(Arc<Mapping>);

impl WakeFutex {
    pub(crate) const fn new(mapping: Arc<Mapping>) -> Self {
        Self(mapping)
    }

    fn word(&self) -> &AtomicU32 {
        #[expect(clippy::cast_ptr_alignment, reason = "the mapping is page-aligned and the offset a multiple of 128")]
        let at = self.0.at(WAKE_FUTEX_OFFSET).cast::<u32>();
        // SAFETY: the word lies inside the header page, which every mapping has, aligned, and lives as long as `self`.
        unsafe { AtomicU32::from_ptr(at) }
    }

    /// Wakes a thread that waits: one system call.
    pub fn wake(&self) {
        self.word().fetch_add(1, AcqRel);
        // It fails only for a page that the app has punched out, and then the app harms itself alone.
        let _woken = futex::wake(self.word(), futex::Flags::empty(), 1);
    }

    /// Wake-ups so far, modulo 2^32. Read this first, then the `need_wakeup` words, and then [wait](Self::wait).
    #[must_use]
    pub fn count(&self) -> u32 {
        self.word().load(Acquire)
    }

    /// Waits until there was a wake-up since the count was `count`, for `timeout` at most. May return early. The peer can write
    /// the word and so hide a wake-up: a thread that does not trust the peer needs a timeout.
    pub fn wait(&self, count: u32, timeout: Option<Duration>) {
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        // Whatever the reason for its return, the caller looks again.
        let _outcome = futex::wait(self.word(), futex::Flags::empty(), count, timeout.as_ref());
    }
}
