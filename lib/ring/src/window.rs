//! The daemon's window onto memory that an application shares: its own packet buffers, to be read where they lie.
//!
//! A window is a range of addresses as long as the part of the client's address space that may ever be shared. What is shared is
//! mapped into it, read-only and at the same distances as there; a map of bits says which pages are. So whether a
//! reference is a good one takes a comparison and the look at a bit, whatever it says.
//!
//! The file behind it is the client's, who may write it, punch holes into it and cut it short. So [`Window::map`] takes files of
//! memory alone, with all their pages there, locks them, and watches them as those of regions are
//! ([`Region::watch_holes`](crate::Region::watch_holes)). Nothing here ever leaves an address unmapped: what is not shared
//! reads as zeros, should anybody look in spite of the bits.
//!
//! [`map`](Window::map), [`unmap`](Window::unmap) and dropping a window take as long as its client likes. They belong to a thread
//! that works for that client's user alone.

use crate::layout::WindowLayout;
use crate::message::{Segment, Span};
use crate::pages::{self, Guard, PAGE};
use crate::region_error::{RegionError, system};
use rustix::fs::{SeekFrom, Stat};
use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, ProtFlags};
use std::os::fd::OwnedFd;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Where the window lies: at a multiple of the largest page, so that pages of every size can be mapped into it.
const ALIGNMENT: usize = 1 << 30;
/// Bytes that are filled or unmapped by one system call, where pages are small: while it runs, other threads cannot change mappings.
const CHUNK: usize = 2 << 20;
/// `f_type` of `statfs(2)`.
const TMPFS: i64 = 0x0102_1994;
const HUGETLBFS: i64 = 0x9584_58f6;

/// A window, unmapped when its last user is gone.
#[derive(Debug)]
pub struct Window {
    base: NonNull<u8>,
    layout: WindowLayout,
    /// A bit for each page that is shared. Set by the thread that has mapped it.
    shared: Box<[AtomicU64]>,
    /// What is mapped; or was, as far as it is to be unmapped still.
    mapped: Mutex<Vec<Span>>,
    /// How many bytes that is.
    size: AtomicU64,
    /// All of the reservation, the slack for alignment included.
    reserved: (NonNull<u8>, usize),
    guard: Option<Guard>,
}

// SAFETY: the memory is reached by the copies of `copy.rs` alone; what changes is atomic, or under a lock.
unsafe impl Send for Window {}
// SAFETY: as above.
unsafe impl Sync for Window {}

impl Window {
    /// Reserves addresses for a window. They take no memory.
    ///
    /// # Errors
    ///
    /// [`RegionError`] if there are too many regions and windows, or no addresses left.
    pub fn new(layout: WindowLayout) -> Result<Self, RegionError> {
        let size = bytes(layout.size());
        let whole = size.next_multiple_of(ALIGNMENT);
        let length = whole.saturating_add(ALIGNMENT);
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory of ours.
        let start = unsafe { rustix::mm::mmap_anonymous(std::ptr::null_mut(), length, ProtFlags::READ, flags) };
        let start = start.map_err(system("reserving addresses"))?.cast::<u8>();
        let slack = start.addr().next_multiple_of(ALIGNMENT).wrapping_sub(start.addr());
        let no_address = RegionError::Mismatch("it was mapped at zero");
        let (Some(start), Some(base)) = (NonNull::new(start), NonNull::new(start.wrapping_add(slack))) else {
            return Err(no_address);
        };
        let words = (layout.size() >> layout.page().ilog2()).div_ceil(64);
        let shared = (0..words).map(|_| AtomicU64::new(0)).collect();
        let mapped = Mutex::default();
        let size = AtomicU64::new(0);
        let mut window = Self { base, layout, shared, mapped, size, reserved: (start, length), guard: None };
        // A hole in huge pages takes all of them with it that a page of the largest size could reach over: no mapping of those can be
        // cut in two otherwise.
        let page = if window.is_huge() { ALIGNMENT } else { PAGE };
        window.guard = Some(Guard::over(base, whole, page)?);
        Ok(window)
    }

    /// What it is for.
    #[must_use]
    pub const fn layout(&self) -> WindowLayout {
        self.layout
    }

    /// Whether a thread of this process ran into a hole in what is shared.
    #[must_use]
    pub fn punched(&self) -> bool {
        self.guard.as_ref().is_some_and(Guard::punched)
    }

    /// Bytes that are mapped. Waits for nobody.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size.load(Relaxed)
    }

    /// Maps a part of the client's file `fd`, which is shared from then on. Nothing about the file is believed.
    ///
    /// # Errors
    ///
    /// [`RegionError::Mismatch`] if the place is not a free part of the window, or the file none of memory that is all there;
    /// [`RegionError::System`] if the kernel cannot. Nothing is shared then.
    pub fn map(&self, fd: &OwnedFd, segment: &Segment) -> Result<(), RegionError> {
        let Segment { span, offset } = *segment;
        let mut mapped = self.mapped();
        if !self.layout.has(span.at, span.length) {
            return Err(RegionError::Mismatch("a segment lies outside of the window"));
        }
        if mapped.iter().any(|other| overlap(*other, span)) {
            return Err(RegionError::Mismatch("a segment lies where another one is"));
        }
        self.check(fd, offset, span.length)?;
        let (start, length) = (self.at(span.at), bytes(span.length));
        // Pages that are not there are not taken out of a pool either, nor is that a reason to fail.
        let flags = MapFlags::SHARED | MapFlags::FIXED | MapFlags::NORESERVE;
        // SAFETY: the range is a part of our reservation, in which nothing is shared: no bit of it is set.
        let placed = unsafe { rustix::mm::mmap(start.cast(), length, ProtFlags::READ, flags, fd, offset) };
        if let Err(errno) = placed {
            // The kernel may have taken away what was there.
            self.clear(span);
            return Err(system("mapping shared memory")(errno));
        }
        if let Err(error) = self.fill(start, length) {
            self.clear(span);
            return Err(error);
        }
        mapped.push(span);
        self.size.fetch_add(span.length, Relaxed);
        drop(mapped);
        self.set_bits(span, true);
        Ok(())
    }

    /// Has nothing of `span` be referred to any more, and gives it back. What reads it at this very moment goes on reading what is
    /// there, or zeros.
    ///
    /// # Errors
    ///
    /// [`RegionError::Mismatch`] if it is not exactly some of the segments that are shared.
    pub fn unmap(&self, span: Span) -> Result<(), RegionError> {
        let mut mapped = self.mapped();
        let within = |other: &Span| overlap(*other, span);
        let whole = mapped.iter().filter(|other| within(other));
        let length = whole.clone().fold(0_u64, |sum, other| sum.saturating_add(other.length));
        let inside = whole.clone().all(|other| other.at >= span.at && end(*other) <= end(span));
        if length != span.length || !inside || !self.layout.has(span.at, span.length) {
            return Err(RegionError::Mismatch("what is to be shared no longer is not what is shared"));
        }
        mapped.retain(|other| !within(other));
        drop(mapped);
        self.set_bits(span, false);
        self.clear(span);
        self.size.fetch_sub(span.length, Relaxed);
        Ok(())
    }

    /// Where `len` bytes at `at` lie, if they are shared.
    #[inline]
    pub(crate) fn find(&self, at: u64, len: usize) -> Option<*const u8> {
        let last = at.checked_add(len as u64)?.checked_sub(1)?;
        if last >= self.layout.size() {
            return None;
        }
        let bits = self.layout.page().ilog2();
        let (mut page, last) = (at >> bits, last >> bits);
        loop {
            // Acquire pairs with `set_bits`: the page is mapped before its bit is set.
            let word = self.shared.get(bytes(page >> 6))?.load(Acquire);
            if word >> (page & 63) & 1 == 0 {
                return None;
            }
            if page == last {
                return Some(self.at(at).cast_const());
            }
            page = page.wrapping_add(1);
        }
    }

    /// Whether `length` bytes at `offset` of the client's file are of memory, and all there.
    fn check(&self, fd: &OwnedFd, offset: u64, length: u64) -> Result<(), RegionError> {
        // A file of any other kind may take as long as somebody likes to answer, and this question is one that no file system hears.
        rustix::fs::fcntl_get_seals(fd).map_err(|_| RegionError::Mismatch("what is to be shared is no memory"))?;
        let system_of = rustix::fs::fstatfs(fd).map_err(system("fstatfs"))?;
        #[expect(clippy::useless_conversion, reason = "its type differs between architectures")]
        let kind = i64::from(system_of.f_type);
        let page = u64::try_from(system_of.f_bsize).unwrap_or(0);
        let fits = if self.is_huge() {
            kind == HUGETLBFS
                && page >= self.layout.page()
                && length.checked_rem(page) == Some(0)
                && offset.checked_rem(page) == Some(0)
        } else {
            kind == TMPFS
        };
        if !fits {
            return Err(RegionError::Mismatch(
                "what is to be shared does not lie in pages as long as those of the window",
            ));
        }
        let Stat { st_size, .. } = rustix::fs::fstat(fd).map_err(system("fstat"))?;
        let end = offset.checked_add(length);
        if !offset.is_multiple_of(self.layout.page())
            || end.is_none_or(|end| u64::try_from(st_size).is_ok_and(|size| size < end))
        {
            return Err(RegionError::Mismatch("a segment lies outside of its file"));
        }
        // Filling a hole would be memory on our account. hugetlbfs cannot say, but there the pool is everybody's.
        let hole = rustix::fs::seek(fd, SeekFrom::Hole(offset)).map_err(system("lseek"))?;
        if !self.is_huge() && end.is_none_or(|end| hole < end) {
            return Err(RegionError::Mismatch("not all pages of what is to be shared are there"));
        }
        Ok(())
    }

    /// Gives a mapping that is new all its pages, and has them watched.
    fn fill(&self, start: *mut u8, length: usize) -> Result<(), RegionError> {
        // A core dump must not carry an app's frames.
        // SAFETY: the range is the mapping just made.
        unsafe { rustix::mm::madvise(start.cast(), length, Advice::LinuxDontDump) }.map_err(system("madvise"))?;
        let mut locked = true;
        for at in (0..length).step_by(self.chunk()) {
            let (part, size) = (start.wrapping_add(at).cast(), self.chunk().min(length.saturating_sub(at)));
            // SAFETY: a part of the mapping just made; locking changes nothing about what it holds.
            locked = locked && unsafe { rustix::mm::mlock(part, size) }.is_ok();
            if !locked {
                // SAFETY: likewise.
                let filled = unsafe { rustix::mm::madvise(part, size, Advice::LinuxPopulateRead) };
                filled.map_err(system("neither mlock nor MADV_POPULATE_READ of shared memory"))?;
            }
        }
        let start = NonNull::new(start).ok_or(RegionError::Mismatch("it was mapped at zero"))?;
        match pages::watch_range(start, length, locked || self.is_huge()) {
            Ok(()) => Ok(()),
            Err(Errno::PERM) => Err(RegionError::Mismatch("what is to be shared cannot be written by its own process")),
            Err(errno) => Err(system("UFFDIO_REGISTER")(errno)),
        }
    }

    /// Puts zero pages in the place of what is mapped. Nothing of it is shared any more.
    fn clear(&self, span: Span) {
        let (start, length) = (self.at(span.at), bytes(span.length));
        for at in (0..length).step_by(self.chunk()) {
            let (part, size) = (start.wrapping_add(at).cast(), self.chunk().min(length.saturating_sub(at)));
            let flags = MapFlags::PRIVATE | MapFlags::NORESERVE | MapFlags::FIXED;
            // SAFETY: a part of our reservation. Whoever reads it meanwhile reads what was there, or zeros.
            let cleared = unsafe { rustix::mm::mmap_anonymous(part, size, ProtFlags::READ, flags) };
            debug_assert!(cleared.is_ok(), "mmap: {cleared:?}");
        }
    }

    fn set_bits(&self, span: Span, shared: bool) {
        let bits = self.layout.page().ilog2();
        for page in span.at >> bits..end(span) >> bits {
            let Some(word) = self.shared.get(bytes(page >> 6)) else { return };
            let bit = 1_u64 << (page & 63);
            if shared {
                word.fetch_or(bit, Release);
            } else {
                word.fetch_and(!bit, Release);
            }
        }
    }

    const fn is_huge(&self) -> bool {
        self.layout.page() > PAGE as u64
    }

    /// Bytes that one system call fills or unmaps. Pages of the largest size cannot be cut in two.
    const fn chunk(&self) -> usize {
        if self.is_huge() { ALIGNMENT } else { CHUNK }
    }

    fn at(&self, at: u64) -> *mut u8 {
        self.base.as_ptr().wrapping_add(bytes(at))
    }

    fn mapped(&self) -> MutexGuard<'_, Vec<Span>> {
        self.mapped.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        let mapped = std::mem::take(&mut *self.mapped());
        mapped.into_iter().for_each(|span| self.clear(span));
        // Before the addresses may be in use again.
        self.guard = None;
        let (start, length) = self.reserved;
        // SAFETY: the whole reservation, which nobody uses any more.
        let unmapped = unsafe { rustix::mm::munmap(start.as_ptr().cast(), length) };
        debug_assert!(unmapped.is_ok(), "munmap: {unmapped:?}");
    }
}

const fn end(span: Span) -> u64 {
    span.at.saturating_add(span.length)
}

const fn overlap(a: Span, b: Span) -> bool {
    a.at < end(b) && b.at < end(a)
}

/// A number of bytes in this address space, which windows are far shorter than.
fn bytes(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests;
