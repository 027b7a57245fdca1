//! The sealed memfd that holds an app's rings.
//!
//! The daemon creates and owns it, and passes it to the client. Seals keep anybody from truncating or growing it. They
//! do not stop `fallocate(PUNCH_HOLE)`: after [`Region::watch_holes`], `pages.rs` sees to what that does.

use crate::layout::{HEADER_SIZE, Header, MAGIC, RingHeader, RingSpan};
use crate::pages::{self, Filling, Guard, HUGE_PAGE, HoleWatch, MAX_GUARDED, PAGE};
use crate::rx_interrupt::RxInterrupt;
use crate::status::{DaemonStatus, StatusPage};
use crate::wake_futex::WakeFutex;
use crate::{Consumer, Geometry, Layout, PROTOCOL, Producer};
use rustix::fs::{FallocateFlags, MemfdFlags, SealFlags};
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use thiserror::Error;

/// Whether regions lie in huge pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HugePages {
    /// Huge pages if the pool has enough, else ordinary ones.
    Auto,
    /// Ordinary pages.
    Off,
    /// Huge pages or an error.
    Require,
}

/// Why a region could not be made or used.
#[derive(Debug, Error)]
pub enum RegionError {
    /// A system call failed.
    #[error("{call}: {errno}")]
    System {
        /// What was tried.
        call: &'static str,
        /// The kernel's answer.
        errno: Errno,
    },
    /// The file is not what the daemon said it would be.
    #[error("the shared region is unusable: {0}")]
    Mismatch(&'static str),
    /// Too many regions at one time.
    #[error("more than {MAX_GUARDED} regions at one time")]
    TooMany,
}

pub(crate) fn system(call: &'static str) -> impl Fn(Errno) -> RegionError {
    move |errno| RegionError::System { call, errno }
}

/// A mapped region. Rings made from it keep the mapping alive.
#[derive(Debug)]
pub struct Region {
    mapping: Arc<Mapping>,
    layout: Layout,
    geometry: Geometry,
    fd: OwnedFd,
    huge: bool,
}

impl Region {
    /// Creates, seals, maps and fills in a region for `geometry`, at once. The daemon's side.
    ///
    /// # Errors
    ///
    /// [`RegionError::System`] if memory or file descriptors are short.
    pub fn create(geometry: &Geometry, huge_pages: HugePages) -> Result<Self, RegionError> {
        let mut draft = Draft::new(geometry, huge_pages)?;
        while !draft.fill(usize::MAX)? {}
        draft.finish()
    }

    /// Maps the region that the daemon sent. The client's side: everything the daemon said is checked.
    ///
    /// # Errors
    ///
    /// [`RegionError::Mismatch`] if the file is not sealed, too small, or its header does not say `geometry`.
    pub fn open(fd: OwnedFd, geometry: &Geometry) -> Result<Self, RegionError> {
        let seals = rustix::fs::fcntl_get_seals(&fd).map_err(system("reading the seals"))?;
        if !seals.contains(SealFlags::SHRINK) {
            return Err(RegionError::Mismatch("it is not sealed against shrinking"));
        }
        let layout = geometry.layout();
        let stat = rustix::fs::fstat(&fd).map_err(system("fstat"))?;
        let size = usize::try_from(stat.st_size).unwrap_or(0);
        if size < layout.size {
            return Err(RegionError::Mismatch("it is smaller than its rings"));
        }
        let huge = usize::try_from(stat.st_blksize).is_ok_and(|b| b >= HUGE_PAGE);
        let mapping = Arc::new(Mapping::new(&fd, size, MapFlags::POPULATE)?);
        let header = mapping.header();
        if header.magic.load(Acquire) != MAGIC {
            return Err(RegionError::Mismatch("its magic number is wrong"));
        }
        if header.version.load(Relaxed) != u32::from(PROTOCOL) {
            return Err(RegionError::Mismatch("its version is not the one agreed on"));
        }
        let same = |sizes: &[u32], from: &[AtomicU32]| sizes.iter().zip(from).all(|(s, f)| *s == f.load(Relaxed));
        let agrees = header.slot_size.load(Relaxed) == geometry.slot_size()
            && header.tx_rings.load(Relaxed) == count(geometry.tx())
            && header.rx_rings.load(Relaxed) == count(geometry.rx())
            && same(geometry.tx(), &header.tx_sizes)
            && same(geometry.rx(), &header.rx_sizes);
        if !agrees {
            return Err(RegionError::Mismatch("its header disagrees with the daemon's message"));
        }
        Ok(Self { mapping, layout, geometry: geometry.clone(), fd, huge })
    }

    /// The file, to be passed to the client.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// The sizes it was made for.
    #[must_use]
    pub const fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// Whether it lies in huge pages.
    #[must_use]
    pub const fn huge(&self) -> bool {
        self.huge
    }

    /// Bytes mapped.
    #[must_use]
    pub fn size(&self) -> usize {
        self.mapping.size
    }

    /// The filling end of TX ring `queue`, for the client. Each end must be made once.
    #[must_use]
    pub fn tx_producer(&self, queue: usize) -> Option<Producer> {
        self.layout.tx.get(queue).map(|span| Producer::new(self.memory(span)))
    }

    /// The emptying end of TX ring `queue`, for the daemon. Each end must be made once.
    #[must_use]
    pub fn tx_consumer(&self, queue: usize) -> Option<Consumer> {
        self.layout.tx.get(queue).map(|span| Consumer::new(self.memory(span), false))
    }

    /// The filling end of RX ring `queue`, for the daemon. Each end must be made once.
    #[must_use]
    pub fn rx_producer(&self, queue: usize) -> Option<Producer> {
        self.layout.rx.get(queue).map(|span| Producer::new(self.memory(span)))
    }

    /// The emptying end of RX ring `queue`, for the client. One may take frames; others may be made to
    /// [count](Consumer::filled) them as long as it has taken none.
    #[must_use]
    pub fn rx_consumer(&self, queue: usize) -> Option<Consumer> {
        self.layout.rx.get(queue).map(|span| Consumer::new(self.memory(span), true))
    }

    /// The interrupt of RX ring `queue`, for the client.
    #[must_use]
    pub fn rx_interrupt(&self, queue: usize) -> Option<RxInterrupt> {
        self.layout.rx.get(queue).map(|span| RxInterrupt::new(Arc::clone(&self.mapping), self.memory(span).header))
    }

    /// The futex by which the app is woken, for both sides.
    #[must_use]
    pub fn wake_futex(&self) -> WakeFutex {
        WakeFutex::new(Arc::clone(&self.mapping))
    }

    /// The writing side of the status page, for the daemon.
    #[must_use]
    pub fn daemon_status(&self) -> DaemonStatus {
        DaemonStatus::new(Arc::clone(&self.mapping))
    }

    /// The reading side of the status page, for the client.
    #[must_use]
    pub fn status(&self) -> StatusPage {
        StatusPage::new(Arc::clone(&self.mapping))
    }

    /// Whether a page of it was punched out and a thread of this process ran into the hole.
    #[must_use]
    pub fn punched(&self) -> bool {
        self.mapping.guard.as_ref().is_some_and(Guard::punched)
    }

    /// Whether none of its pages is missing, whoever took it and whether anybody has touched the hole. For the daemon, where
    /// holes are not seen [at the first touch](HoleWatch::Touch). Costs a system call.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        // A block is 512 bytes, whatever the page; see `stat(2)`.
        let has = |stat: rustix::fs::Stat| u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512);
        rustix::fs::fstat(&self.fd).is_ok_and(|stat| has(stat) >= self.mapping.size as u64)
    }

    /// Whether no ring end and no status page made from it is left in this process.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        Arc::strong_count(&self.mapping) == 1
    }

    /// Gives the region's memory back to the system, even if the client keeps its file: it is empty from then on. For a
    /// region that was replaced or whose app is gone, once it [is idle](Self::is_idle). See [`Rest`] for doing it bit by bit.
    ///
    /// # Errors
    ///
    /// [`RegionError::System`] if the kernel refuses; then the memory goes when the client lets go of it.
    pub fn discard(self) -> Result<(), RegionError> {
        let mut rest = Rest::new(self);
        while !rest.empty(usize::MAX)? {}
        Ok(())
    }

    /// Lets this process outlive holes in its regions, and has it notice them: [`punched`](Self::punched) says of which region
    /// one was touched. Call it once, at start, before any region is made.
    ///
    /// # Errors
    ///
    /// [`RegionError::System`] if the kernel refuses a signal handler or an eventfd.
    pub fn watch_holes() -> Result<HoleWatch, RegionError> {
        pages::watch()
    }

    /// What becomes readable when a thread has run into a hole, until [`hush_holes`](Self::hush_holes). `None` before
    /// [`watch_holes`](Self::watch_holes).
    #[must_use]
    pub fn hole_event() -> Option<BorrowedFd<'static>> {
        pages::event()
    }

    /// Makes [`hole_event`](Self::hole_event) quiet until the next hole.
    pub fn hush_holes() {
        pages::hush();
    }

    #[cfg(feature = "lab")]
    pub(crate) fn mapping(&self) -> Arc<Mapping> {
        Arc::clone(&self.mapping)
    }

    fn memory(&self, span: &RingSpan) -> RingMemory {
        RingMemory::new(Arc::clone(&self.mapping), span)
    }
}

/// A region that is being made. Its pages are got bit by bit, since clearing them takes time.
#[derive(Debug)]
pub struct Draft {
    mapping: Mapping,
    layout: Layout,
    geometry: Geometry,
    fd: OwnedFd,
    huge: bool,
    filling: Filling,
    /// Bytes that have their pages.
    filled: usize,
}

impl Draft {
    /// Creates, seals and maps a region for `geometry` that has no pages yet, but a right to them if they are huge ones.
    ///
    /// # Errors
    ///
    /// [`RegionError::System`] if address space, file descriptors, or all the huge pages that are required, are short.
    pub fn new(geometry: &Geometry, huge_pages: HugePages) -> Result<Self, RegionError> {
        match huge_pages {
            HugePages::Off => Self::allocate(geometry, false),
            HugePages::Require => Self::allocate(geometry, true),
            HugePages::Auto => Self::allocate(geometry, true).or_else(|_| Self::allocate(geometry, false)),
        }
    }

    fn allocate(geometry: &Geometry, huge: bool) -> Result<Self, RegionError> {
        let layout = geometry.layout();
        let (page, flags) =
            if huge { (HUGE_PAGE, MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB) } else { (PAGE, MemfdFlags::empty()) };
        let size = layout.size.next_multiple_of(page);
        let fd = rustix::fs::memfd_create(c"kopi-region", flags | MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)
            .map_err(system("memfd_create"))?;
        rustix::fs::ftruncate(&fd, u64::try_from(size).unwrap_or(u64::MAX)).map_err(system("ftruncate"))?;
        rustix::fs::fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)
            .map_err(system("sealing"))?;
        let mapping = Mapping::new(&fd, size, MapFlags::empty())?;
        Ok(Self { mapping, layout, geometry: geometry.clone(), fd, huge, filling: Filling::Lock, filled: 0 })
    }

    /// Bytes that it takes.
    #[must_use]
    pub const fn size(&self) -> usize {
        self.mapping.size
    }

    /// Bytes that have no pages yet.
    #[must_use]
    pub const fn missing(&self) -> usize {
        self.mapping.size.saturating_sub(self.filled)
    }

    /// Whether it lies in huge pages.
    #[must_use]
    pub const fn huge(&self) -> bool {
        self.huge
    }

    /// Gets pages for `bytes` more, rounded up to whole pages. Returns whether that was the rest of them.
    ///
    /// # Errors
    ///
    /// [`RegionError::System`] if memory is short.
    pub fn fill(&mut self, bytes: usize) -> Result<bool, RegionError> {
        let length = whole_pages(bytes).min(self.missing());
        if length > 0 {
            let filled = self.filling.fill(&self.fd, self.mapping.base, self.filled, length);
            filled.map_err(system("filling a region with pages"))?;
            self.filled = self.filled.saturating_add(length);
        }
        Ok(self.missing() == 0)
    }

    /// The region, whose pages are watched from now on and whose header says what it is.
    ///
    /// # Errors
    ///
    /// [`RegionError`] if it has not all its pages, or cannot be watched.
    pub fn finish(self) -> Result<Region, RegionError> {
        if self.missing() > 0 {
            return Err(RegionError::Mismatch("it has not all its pages"));
        }
        let Self { mut mapping, layout, geometry, fd, huge, filling, .. } = self;
        if filling == Filling::Allocate {
            mapping = Mapping::new(&fd, mapping.size, MapFlags::POPULATE)?;
        }
        let page = if huge { HUGE_PAGE } else { PAGE };
        mapping.guard = Some(Guard::new(mapping.base, mapping.size, page, huge || filling == Filling::Lock)?);
        let header = mapping.header();
        let write = |sizes: &[u32], to: &[AtomicU32]| sizes.iter().zip(to).for_each(|(s, t)| t.store(*s, Relaxed));
        write(geometry.tx(), &header.tx_sizes);
        write(geometry.rx(), &header.rx_sizes);
        header.slot_size.store(geometry.slot_size(), Relaxed);
        header.tx_rings.store(count(geometry.tx()), Relaxed);
        header.rx_rings.store(count(geometry.rx()), Relaxed);
        header.version.store(PROTOCOL.into(), Relaxed);
        header.magic.store(MAGIC, Release);
        Ok(Region { mapping: Arc::new(mapping), layout, geometry, fd, huge })
    }
}

/// What is left of a region that nobody uses any more, on its way back to the system, bit by bit.
#[derive(Debug)]
pub struct Rest {
    mapping: Arc<Mapping>,
    fd: OwnedFd,
    emptied: usize,
}

impl Rest {
    /// Of a region that [is idle](Region::is_idle).
    #[must_use]
    pub fn new(region: Region) -> Self {
        let Region { mapping, fd, .. } = region;
        Self { mapping, fd, emptied: 0 }
    }

    /// Gives `bytes` more back, rounded up to whole pages, even if the client keeps its file. Returns whether that was the rest
    /// of them.
    ///
    /// # Errors
    ///
    /// [`RegionError::System`] if the kernel refuses; then the memory goes when the client lets go of it.
    pub fn empty(&mut self, bytes: usize) -> Result<bool, RegionError> {
        let size = self.mapping.size;
        let length = whole_pages(bytes).min(size.saturating_sub(self.emptied));
        if length > 0 {
            let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            rustix::fs::fallocate(&self.fd, hole, self.emptied as u64, length as u64)
                .map_err(system("emptying a region"))?;
            self.emptied = self.emptied.saturating_add(length);
        }
        Ok(self.emptied >= size)
    }
}

/// Of a region that is not wanted any more before it was finished.
impl From<Draft> for Rest {
    fn from(draft: Draft) -> Self {
        let Draft { mapping, fd, .. } = draft;
        Self { mapping: Arc::new(mapping), fd, emptied: 0 }
    }
}

/// `bytes`, rounded up to whole pages of any size.
const fn whole_pages(bytes: usize) -> usize {
    match bytes.checked_next_multiple_of(HUGE_PAGE) {
        Some(0) => HUGE_PAGE,
        Some(whole) => whole,
        None => usize::MAX,
    }
}

fn count(sizes: &[u32]) -> u32 {
    u32::try_from(sizes.len()).unwrap_or(u32::MAX)
}

/// A shared mapping, unmapped when the last user is gone.
#[derive(Debug)]
pub(crate) struct Mapping {
    base: NonNull<u8>,
    size: usize,
    /// What watches its pages, for the daemon.
    guard: Option<Guard>,
}

// SAFETY: the mapping is plain memory, reached only through atomics and the copies of `copy.rs`.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    fn new(fd: &OwnedFd, size: usize, flags: MapFlags) -> Result<Self, RegionError> {
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
    fn header(&self) -> &Header {
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

impl Drop for Mapping {
    fn drop(&mut self) {
        // First, since its addresses may be somebody else's a moment later.
        self.guard = None;
        pages::unmap(self.base, self.size);
    }
}

/// One ring's memory, with its bounds.
#[derive(Debug)]
pub(crate) struct RingMemory {
    header: NonNull<RingHeader>,
    descriptors: *mut u64,
    data: *mut u8,
    stride: usize,
    pub(crate) mask: u32,
    pub(crate) slot_size: u32,
    /// Keeps the memory mapped.
    _mapping: Arc<Mapping>,
}

// SAFETY: the pointers lead into the mapping, which is `Sync` and lives as long as the `Arc`.
unsafe impl Send for RingMemory {}

impl RingMemory {
    #[cfg_attr(
        not(test),
        expect(clippy::expect_used, clippy::arithmetic_side_effects, reason = "set-up; bounded by Geometry")
    )]
    fn new(mapping: Arc<Mapping>, span: &RingSpan) -> Self {
        assert!(span.offset.is_multiple_of(128) && mapping.base.as_ptr().addr().is_multiple_of(PAGE));
        let last = mapping.at(span.offset + span.size() - 1);
        debug_assert!(!last.is_null());
        let header = NonNull::new(mapping.at(span.offset).cast()).expect("a mapping is not at zero");
        Self {
            header,
            descriptors: mapping.at(span.descriptors()).cast(),
            data: mapping.at(span.data()),
            stride: span.stride(),
            mask: span.slots - 1,
            slot_size: span.slot_size,
            _mapping: mapping,
        }
    }

    #[inline]
    pub(crate) fn counters(&self) -> &RingHeader {
        // SAFETY: `new` checked that the ring lies inside the mapping, aligned; a `RingHeader` consists of atomics only,
        // for which any bytes at any time are valid.
        unsafe { self.header.as_ref() }
    }

    /// The descriptor of ring position `position`.
    #[inline]
    pub(crate) fn descriptor(&self, position: u32) -> &std::sync::atomic::AtomicU64 {
        let at = self.descriptors.wrapping_add((position & self.mask) as usize);
        // SAFETY: the mask keeps the index inside the ring, which `new` checked to lie inside the mapping, aligned.
        unsafe { std::sync::atomic::AtomicU64::from_ptr(at) }
    }

    /// The address of the slot of ring position `position`, valid for `slot_size` bytes.
    #[inline]
    pub(crate) fn slot(&self, position: u32) -> *mut u8 {
        self.slots().at(position)
    }

    /// Where the slots lie, for who asks for many of them: a copy that need not be read again after each frame.
    #[inline]
    pub(crate) const fn slots(&self) -> SlotPlaces {
        SlotPlaces { data: self.data, stride: self.stride, mask: self.mask }
    }
}

/// Where the slots of a ring lie.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SlotPlaces {
    data: *mut u8,
    stride: usize,
    mask: u32,
}

impl SlotPlaces {
    /// The address of the slot of ring position `position`, valid for `slot_size` bytes.
    #[inline]
    pub(crate) const fn at(self, position: u32) -> *mut u8 {
        self.data.wrapping_add(((position & self.mask) as usize).wrapping_mul(self.stride))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn geometry() -> Geometry {
        Geometry::new(&[64], &[64, 128], 2048).unwrap()
    }

    /// Client and daemon map the same bytes, and the client accepts what the daemon made.
    #[test]
    fn client_opens_what_the_daemon_created() {
        let daemon = Region::create(&geometry(), HugePages::Off).unwrap();
        let client = Region::open(daemon.fd().try_clone_to_owned().unwrap(), &geometry()).unwrap();
        let mut producer = client.tx_producer(0).unwrap();
        let mut consumer = daemon.tx_consumer(0).unwrap();
        assert_eq!(producer.free(1), Ok(64));
        assert!(producer.push(&[7; 60], crate::layout::Notes::NONE));
        producer.publish();
        assert_eq!(consumer.poll(), Ok(1));
        let frame = consumer.next().unwrap().unwrap();
        let mut bytes = [0; 60];
        consumer.copy(&frame, &mut bytes);
        assert_eq!(bytes, [7; 60]);
    }

    /// The client refuses a region that is not what the daemon's message said.
    #[test]
    fn client_refuses_another_geometry() {
        let daemon = Region::create(&geometry(), HugePages::Off).unwrap();
        let other = Geometry::new(&[128], &[64, 64], 2048).unwrap();
        let opened = Region::open(daemon.fd().try_clone_to_owned().unwrap(), &other);
        assert!(matches!(opened, Err(RegionError::Mismatch(_))), "{opened:?}");
        let bigger = Geometry::new(&[8192], &[8192], 2048).unwrap();
        let opened = Region::open(daemon.fd().try_clone_to_owned().unwrap(), &bigger);
        assert!(matches!(opened, Err(RegionError::Mismatch(_))), "{opened:?}");
        let unsealed = rustix::fs::memfd_create(c"test", MemfdFlags::ALLOW_SEALING).unwrap();
        let opened = Region::open(unsealed, &geometry());
        assert!(matches!(opened, Err(RegionError::Mismatch(_))), "{opened:?}");
    }

    /// Nobody who holds the file can truncate or grow it, or undo that.
    #[test]
    fn region_cannot_be_resized() {
        let daemon = Region::create(&geometry(), HugePages::Off).unwrap();
        for size in [0, 4096, 1 << 30] {
            assert_eq!(rustix::fs::ftruncate(daemon.fd(), size), Err(Errno::PERM));
        }
        assert_eq!(rustix::fs::fcntl_add_seals(daemon.fd(), SealFlags::WRITE), Err(Errno::PERM));
    }

    /// Fault 42 on ordinary pages: a hole reads as zeros, which the consumer reports as a faulty descriptor.
    #[test]
    fn punched_descriptor_is_a_peer_fault() {
        let daemon = Region::create(&geometry(), HugePages::Off).unwrap();
        let mut producer = daemon.tx_producer(0).unwrap();
        let mut consumer = daemon.tx_consumer(0).unwrap();
        assert_eq!(producer.free(1), Ok(64));
        assert!(producer.push(&[7; 60], crate::layout::Notes::NONE));
        producer.publish();
        assert_eq!(consumer.poll(), Ok(1));
        let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        rustix::fs::fallocate(daemon.fd(), hole, 0, 1 << 20).unwrap();
        assert_eq!(consumer.next(), Err(crate::PeerFault::Length { length: 0, slot_size: 2048 }));
    }

    /// A client that keeps the file of a discarded region keeps no memory with it.
    #[test]
    fn discarded_region_holds_no_memory() {
        let daemon = Region::create(&geometry(), HugePages::Off).unwrap();
        let kept = daemon.fd().try_clone_to_owned().unwrap();
        assert!(rustix::fs::fstat(&kept).unwrap().st_blocks > 0);
        let ring = daemon.tx_consumer(0).unwrap();
        assert!(!daemon.is_idle());
        drop(ring);
        assert!(daemon.is_idle());
        daemon.discard().unwrap();
        assert_eq!(rustix::fs::fstat(&kept).unwrap().st_blocks, 0);
    }
}
