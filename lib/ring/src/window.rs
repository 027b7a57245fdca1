//! The daemon's window onto memory that an application shares: its own packet buffers, to be read where they lie.
//!
//! A window is a range of addresses as long as the part of the client's address space that may ever be shared. What is shared is
//! mapped into it, read-only and at the same distances as there; a map of bits says which pages are. So whether a
//! reference is a good one takes a comparison and the look at a bit, whatever it says.
//!
//! The file behind it is the client's, who may write it, punch holes into it and cut it short. So [`Window::map`] takes files of
//! memory alone, with all their pages there, locks them, and watches them as those of regions are
//! ([`Region::watch_holes`](crate::Region::watch_holes)). Nothing here ever leaves an address unmapped: what is not shared
//! reads as zeros, should anybody look in spite of the bits. After the first hole nothing is [found](Window::punched) any more.
//!
//! [`map`](Window::map), [`unmap`](Window::unmap) and dropping a window take as long as its client likes. They belong to a thread
//! that works for that client's user alone. It is there, too, that a client's file ends, if nobody else has it: a page of each is
//! [kept](Keeper) until then, whatever becomes of the rest.

mod keeper;

use crate::layout::WindowLayout;
use crate::message::{Segment, Span};
use crate::pages::{self, Guard, PAGE};
use crate::region_error::{RegionError, system};
use keeper::Keeper;
use rustix::fs::Stat;
use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, ProtFlags};
use std::os::fd::OwnedFd;
use std::ptr::NonNull;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Where the window lies: at a multiple of the largest page, so that pages of every size can be mapped into it.
const ALIGNMENT: usize = pages::LARGEST_PAGE;
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
    /// Bytes in which references are looked up: all, or none after a hole.
    readable: &'static AtomicU64,
    /// A bit for each page that is shared. Set by the thread that has mapped it.
    shared: Box<[AtomicU64]>,
    /// What is mapped; or was, as far as it could not be unmapped.
    mapped: Mutex<Vec<Mapped>>,
    /// How many bytes that is, and how many segments.
    size: AtomicU64,
    segments: AtomicUsize,
    /// All of the reservation, the slack for alignment included.
    reserved: (NonNull<u8>, usize),
    guard: Option<Guard>,
}

/// A segment that is mapped.
#[derive(Debug)]
struct Mapped {
    span: Span,
    _keeper: Keeper,
    /// The kernel has refused to put zero pages in its place. What is there now may be anything, and nobody's: it is not touched again.
    lost: bool,
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
        let page = usize::try_from(layout.page()).unwrap_or(PAGE);
        let guard = Guard::over(base, whole, page, layout.size()).inspect_err(|_| {
            // SAFETY: reserved above, and nobody knows of it.
            let _unmapped = unsafe { rustix::mm::munmap(start.as_ptr().cast(), length) };
        })?;
        let words = (layout.size() >> layout.page().ilog2()).div_ceil(64);
        Ok(Self {
            base,
            layout,
            readable: guard.readable(),
            shared: (0..words).map(|_| AtomicU64::new(0)).collect(),
            mapped: Mutex::default(),
            size: AtomicU64::new(0),
            segments: AtomicUsize::new(0),
            reserved: (start, length),
            guard: Some(guard),
        })
    }

    /// What it is for.
    #[must_use]
    pub const fn layout(&self) -> WindowLayout {
        self.layout
    }

    /// Whether a thread of this process ran into a hole in what is shared. Nothing is found there any more.
    #[must_use]
    pub fn punched(&self) -> bool {
        self.guard.as_ref().is_some_and(Guard::punched)
    }

    /// Bytes that are mapped. Waits for nobody.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size.load(Relaxed)
    }

    /// Segments that are mapped. Waits for nobody.
    #[must_use]
    pub fn segments(&self) -> usize {
        self.segments.load(Relaxed)
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
        if mapped.iter().any(|other| overlap(other.span, span)) {
            return Err(RegionError::Mismatch("a segment lies where another one is"));
        }
        let page = self.check(fd, offset, span.length)?;
        // By this it is known that the file can be mapped, before anything in the window makes room for it.
        let _keeper = Keeper::new(fd, offset, page)?;
        let (start, length) = (self.at(span.at), bytes(span.length));
        // Pages that are not there are not taken out of a pool either, nor is that a reason to fail.
        let flags = MapFlags::SHARED | MapFlags::FIXED | MapFlags::NORESERVE;
        // SAFETY: the range is a part of our reservation, in which nothing is shared: no bit of it is set.
        let placed = unsafe { rustix::mm::mmap(start.cast(), length, ProtFlags::READ, flags, fd, offset) };
        let failed = match placed {
            Ok(_) => match self.fill(start, length) {
                Ok(()) => None,
                Err(error) => Some((error, self.clear(span).is_ok())),
            },
            // The kernel may have taken away what was there. What another thread was given at that place is not touched.
            Err(errno) => {
                let closed = put_zeros(start, length, MapFlags::FIXED_NOREPLACE);
                Some((system("mapping shared memory")(errno), closed.is_ok()))
            }
        };
        if let Some((error, is_free)) = failed {
            if !is_free {
                mapped.push(Mapped { span, _keeper, lost: true });
            }
            return Err(error);
        }
        mapped.push(Mapped { span, _keeper, lost: false });
        self.size.fetch_add(span.length, Relaxed);
        self.segments.fetch_add(1, Relaxed);
        drop(mapped);
        self.set_bits(span, true);
        Ok(())
    }

    /// Has nothing of `span` be referred to any more, and gives it back. What reads it at this very moment goes on reading what is
    /// there, or zeros.
    ///
    /// # Errors
    ///
    /// [`RegionError::Mismatch`] if it is not exactly some of the segments that are shared. [`RegionError::System`] if the kernel does
    /// not let go of them: they are not shared any more, but mapped and counted until the window goes.
    pub fn unmap(&self, span: Span) -> Result<(), RegionError> {
        let mut mapped = self.mapped();
        let within = |other: &Mapped| overlap(other.span, span);
        let whole = mapped.iter().filter(|other| within(other));
        let length = whole.clone().fold(0_u64, |sum, other| sum.saturating_add(other.span.length));
        let inside = whole.clone().all(|other| !other.lost && other.span.at >= span.at && end(other.span) <= end(span));
        if length != span.length || !inside || !self.layout.has(span.at, span.length) {
            return Err(RegionError::Mismatch("what is to be shared no longer is not what is shared"));
        }
        self.set_bits(span, false);
        if let Err(errno) = self.clear(span) {
            mapped.iter_mut().filter(|other| within(other)).for_each(|other| other.lost = true);
            return Err(system("unmapping shared memory")(errno));
        }
        let before = mapped.len();
        let (old, left) = std::mem::take(&mut *mapped).into_iter().partition(within);
        *mapped = left;
        self.size.fetch_sub(span.length, Relaxed);
        self.segments.fetch_sub(before.saturating_sub(mapped.len()), Relaxed);
        drop(mapped);
        // The last of a file may be as large as that.
        drop::<Vec<Mapped>>(old);
        Ok(())
    }

    /// Where `len` bytes at `at` lie, if they are shared.
    #[inline]
    pub(crate) fn find(&self, at: u64, len: usize) -> Option<*const u8> {
        let last = at.checked_add(len as u64)?.checked_sub(1)?;
        if last >= self.readable.load(Relaxed) {
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

    /// Looks whether `length` bytes at `offset` of the client's file are of memory, and returns the bytes of its pages.
    fn check(&self, fd: &OwnedFd, offset: u64, length: u64) -> Result<usize, RegionError> {
        // A file of any other kind may take as long as somebody likes to answer, and this question is one that no file system hears.
        // Nor is anything asked that waits for the lock of a file, which its owner may hold for ever.
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
        Ok(if self.is_huge() { bytes(page) } else { PAGE })
    }

    /// Has all pages of a mapping that is new in its place, and watched. None is made that is not there: it would be on our account.
    fn fill(&self, start: *mut u8, length: usize) -> Result<(), RegionError> {
        // A core dump must not carry an app's frames.
        // SAFETY: the range is the mapping just made.
        unsafe { rustix::mm::madvise(start.cast(), length, Advice::LinuxDontDump) }.map_err(system("madvise"))?;
        let base = NonNull::new(start).ok_or(RegionError::Mismatch("it was mapped at zero"))?;
        let watch = |bound| match pages::watch_range(base, length, bound) {
            Err(Errno::PERM) => Err(RegionError::Mismatch("what is to be shared cannot be written by its own process")),
            watched => watched.map_err(system("UFFDIO_REGISTER")),
        };
        // From here on a missing page is an error, and not made.
        watch(false)?;
        let mut locked = true;
        for at in (0..length).step_by(self.chunk()) {
            let (part, size) = (start.wrapping_add(at).cast(), self.chunk().min(length.saturating_sub(at)));
            // SAFETY: a part of the mapping just made; locking changes nothing about what it holds.
            locked = locked && unsafe { rustix::mm::mlock(part, size) }.is_ok();
            if locked {
                continue;
            }
            // SAFETY: likewise.
            match unsafe { rustix::mm::madvise(part, size, Advice::LinuxPopulateRead) } {
                Ok(()) if self.is_huge() => {}
                // It would leave memory while a worker reads it, which then waits for a disk.
                Ok(()) => return Err(RegionError::Mismatch("kopid may not lock what is to be shared: RLIMIT_MEMLOCK")),
                Err(Errno::FAULT) => {
                    return Err(RegionError::Mismatch("not all pages of what is to be shared are there"));
                }
                Err(errno) => return Err(system("neither mlock nor MADV_POPULATE_READ of shared memory")(errno)),
            }
        }
        watch(true)
    }

    /// Puts zero pages in the place of what is mapped. Nothing of it is shared any more.
    fn clear(&self, span: Span) -> Result<(), Errno> {
        let (start, length) = (self.at(span.at), bytes(span.length));
        for at in (0..length).step_by(self.chunk()) {
            let left = length.saturating_sub(at);
            let part = start.wrapping_add(at);
            let Err(errno) = put_zeros(part, self.chunk().min(left), MapFlags::FIXED) else { continue };
            // With all of the rest no mapping has to be cut in two, for which there may be none left; or nothing is there any more.
            let rest = |flags| put_zeros(part, left, flags);
            return rest(MapFlags::FIXED).or_else(|_| rest(MapFlags::FIXED_NOREPLACE)).map_err(|_| errno);
        }
        Ok(())
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

    fn mapped(&self) -> MutexGuard<'_, Vec<Mapped>> {
        self.mapped.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        let mut mapped = std::mem::take(&mut *self.mapped());
        for segment in mapped.iter_mut().filter(|segment| !segment.lost) {
            segment.lost = self.clear(segment.span).is_err();
        }
        // Before the addresses may be in use again.
        self.guard = None;
        mapped.retain(|segment| segment.lost);
        mapped.sort_unstable_by_key(|segment| segment.span.at);
        let (start, length) = self.reserved;
        let (mut from, end_of_all) = (start.as_ptr(), start.as_ptr().wrapping_add(length));
        let lost = mapped.iter().map(|segment| (self.at(segment.span.at), self.at(end(segment.span))));
        for (begin, end) in lost.chain([(end_of_all, end_of_all)]) {
            let length = begin.addr().saturating_sub(from.addr());
            if length > 0 {
                // SAFETY: a part of the reservation, which nobody uses any more, and in which nothing is lost.
                let unmapped = unsafe { rustix::mm::munmap(from.cast(), length) };
                debug_assert!(unmapped.is_ok(), "munmap: {unmapped:?}");
            }
            from = end;
        }
    }
}

/// Maps zero pages to be read at a part of a window, with these flags.
fn put_zeros(start: *mut u8, length: usize, flags: MapFlags) -> Result<(), Errno> {
    let flags = MapFlags::PRIVATE | MapFlags::NORESERVE | flags;
    // SAFETY: a part of our reservation, or one that the kernel takes only if nobody has it. Whoever reads it meanwhile reads what was
    // there, or zeros.
    unsafe { rustix::mm::mmap_anonymous(start.cast(), length, ProtFlags::READ, flags) }.map(|_| ())
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
