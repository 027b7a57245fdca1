//! How a sleeping app is woken: a futex word in its region, for all of its RX rings.
//!
//! The daemon counts the word up and wakes whoever waits on it. It never writes to a file descriptor that an app holds too: the
//! app could make that block. What the app's side does when it is woken, such as to write to its own eventfd, is the
//! app's business.

use crate::alarm::{self, barrier};
use crate::index::Counter;
use crate::layout::{HEADER_SIZE, RingHeader};
use crate::region::Mapping;
use rustix::event::Timespec;
use rustix::thread::futex;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{AcqRel, Acquire};
use std::time::Duration;

/// Offset of the bell in a region.
pub const BELL_OFFSET: usize = 2048;

const _: () = assert!(BELL_OFFSET.saturating_add(128) <= HEADER_SIZE && BELL_OFFSET.is_multiple_of(128));

/// The bell of one region.
#[derive(Clone, Debug)]
pub struct Bell(Arc<Mapping>);

impl Bell {
    pub(crate) const fn new(mapping: Arc<Mapping>) -> Self {
        Self(mapping)
    }

    fn word(&self) -> &AtomicU32 {
        #[expect(clippy::cast_ptr_alignment, reason = "the mapping is page-aligned and the offset a multiple of 128")]
        let at = self.0.at(BELL_OFFSET).cast::<u32>();
        // SAFETY: the word lies inside the header page, which every mapping has, aligned, and lives as long as `self`.
        unsafe { AtomicU32::from_ptr(at) }
    }

    /// Wakes whoever waits: one system call.
    pub fn ring(&self) {
        self.word().fetch_add(1, AcqRel);
        // It fails only for a page that the app has punched out, and then the app harms itself alone.
        let _woken = futex::wake(self.word(), futex::Flags::empty(), 1);
    }

    /// How often it was rung, modulo 2^32. Look at this first, then at the alarms, and then [wait](Self::wait).
    #[must_use]
    pub fn count(&self) -> u32 {
        self.word().load(Acquire)
    }

    /// Waits until it has been rung since it stood at `count`, at most for `patience`. May return early. A peer that writes
    /// the word can have the call missed, so whoever cannot trust it needs a limit.
    pub fn wait(&self, count: u32, patience: Option<Duration>) {
        let timeout = patience.and_then(|patience| Timespec::try_from(patience).ok());
        // Whatever the reason for its return, the caller looks again.
        let _outcome = futex::wait(self.word(), futex::Flags::empty(), count, timeout.as_ref());
    }
}

/// The sleeping side of one RX ring, apart from its [`Consumer`](crate::Consumer): any thread of the app may use it.
#[derive(Debug)]
pub struct Sleeper {
    header: NonNull<RingHeader>,
    /// Keeps the memory mapped.
    _mapping: Arc<Mapping>,
}

// SAFETY: the pointer leads into the mapping, which is `Sync` and lives as long as the `Arc`.
unsafe impl Send for Sleeper {}
// SAFETY: as above; what it leads to are atomics.
unsafe impl Sync for Sleeper {}

impl Sleeper {
    pub(crate) const fn new(mapping: Arc<Mapping>, header: NonNull<RingHeader>) -> Self {
        Self { header, _mapping: mapping }
    }

    fn words(&self) -> &RingHeader {
        // SAFETY: whoever made it has checked that the ring lies inside the mapping, aligned, and we keep the mapping; a
        // `RingHeader` consists of atomics only, for which any bytes at any time are valid.
        unsafe { self.header.as_ref() }
    }

    /// Sets the alarm, and tells whether there is something in the ring already: then there may be no call.
    ///
    /// Our own counter is read back from shared memory here, since it is private to the thread that polls. A daemon that has
    /// changed it could as well have kept the frames.
    #[must_use]
    pub fn set(&self) -> bool {
        let words = self.words();
        alarm::set(&words.alarm);
        barrier();
        Counter::load(&words.head) != Counter::load(&words.tail)
    }

    /// Clears the alarm.
    pub fn clear(&self) {
        alarm::clear(&self.words().alarm);
    }

    /// Whether the daemon has rung for this ring. Yes once for each time that the alarm was set.
    #[must_use]
    pub fn answer(&self) -> bool {
        alarm::answer(&self.words().alarm)
    }
}
