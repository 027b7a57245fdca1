//! The pages of the daemon's regions: they are all there from the start, and a page that an app takes away is noticed.
//!
//! Until a region is sealed for good ([`Region::seal`](crate::Region::seal)), an app may punch holes into it (`fallocate` with
//! `PUNCH_HOLE`, `MADV_REMOVE`). The
//! kernel would fill a hole again at the next touch, at the cost of the thread that touches it: a worker. So every mapping of the
//! daemon's is registered with a `userfaultfd` that has `UFFD_FEATURE_SIGBUS` (Linux 4.14, `userfaultfd(2)`): then the
//! touch of a missing page is a SIGBUS, and no page is cleared for it. Where the mapping is locked, or in huge pages, so that
//! a page hardly ever loses its place in the page table for an honest cause, that is watched as well
//! (`UFFDIO_REGISTER_MODE_MINOR`, Linux 5.13 and 5.14): then filling a hole again before it is touched gains nothing.
//!
//! Two waits are left, neither of which can be interrupted. A thread that touches a page while the range is being punched waits in the
//! fault until the puncher is through (`shmem_falloc_wait`, `hugetlb_fault_mutex_table`): 60 to 156 ms were measured with
//! 256 MiB to 1 GiB, and 13.4 s where the puncher was `SCHED_IDLE` on a busy core. And the handler below calls `mmap`, which waits for whoever
//! holds the lock of the process's mappings: 4.1 s were measured while another thread mapped a file whose `i_mmap_rwsem` was
//! taken. A region can be punched only until it is sealed; for memory that apps share nothing ends it, so who may share
//! any is to be trusted.
//!
//! The SIGBUS handler puts private zero pages in the place of what was punched, marks the region, writes to an eventfd,
//! and the thread goes on. The control thread then detaches the app.

use crate::region_error::{MAX_REGIONS, RegionError, system};
use rustix::event::EventfdFlags;
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use rustix::fs::{FallocateFlags, Mode, OFlags};
use rustix::io::Errno;
use rustix::ioctl::{Opcode, opcode};
use rustix::mm::{Advice, UserfaultfdFlags};
use std::ptr::NonNull;
use std::sync::OnceLock;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, AtomicUsize};

/// Bytes of the huge pages used.
pub(crate) const HUGE_PAGE: usize = 2 << 20;
/// Bytes of an ordinary page.
pub(crate) const PAGE: usize = 4096;
/// Bytes that are unmapped by one system call: while it runs, other threads cannot change mappings.
const CHUNK: usize = 4 << 20;
/// Holes of a region that are filled one by one. A few are touched before the control thread learns of the first. With
/// more, the whole region is replaced: that takes milliseconds with a large one, and ends it.
const SINGLE_HOLES: u32 = 64;
/// The same of all regions together. Each hole takes two mappings more, of which Linux gives a process 65,530 (`vm.max_map_count`).
const SINGLE_HOLES_OF_ALL: u32 = 4096;
/// Bytes of the largest pages there are. Where memory lies in those, a smaller range of it cannot be replaced.
pub(crate) const LARGEST_PAGE: usize = 1 << 30;

/// `UFFD_API` and the `ioctl`s of `linux/userfaultfd.h`.
const API: u64 = 0xaa;
const UFFDIO_API: Opcode = opcode::read_write::<Api>(0xaa, 0x3f);
const UFFDIO_REGISTER: Opcode = opcode::read_write::<Register>(0xaa, 0);
const USERFAULTFD_IOC_NEW: Opcode = opcode::none(0xaa, 0);
const MODE_MISSING: u64 = 1 << 0;
const MODE_MINOR: u64 = 1 << 2;
const FEATURE_MISSING_HUGETLBFS: u64 = 1 << 4;
const FEATURE_MISSING_SHMEM: u64 = 1 << 5;
const FEATURE_SIGBUS: u64 = 1 << 7;
const FEATURE_MINOR_HUGETLBFS: u64 = 1 << 9;
const FEATURE_MINOR_SHMEM: u64 = 1 << 10;
/// `UFFD_USER_MODE_ONLY` (Linux 5.11): faults of the kernel's are not handled, for which no privilege is needed.
const USER_MODE_ONLY: u32 = 1;

/// `struct uffdio_api`.
#[repr(C)]
struct Api {
    api: u64,
    features: u64,
    ioctls: u64,
}

/// `struct uffdio_register`.
#[repr(C)]
struct Register {
    start: u64,
    length: u64,
    mode: u64,
    ioctls: u64,
}

/// How holes in regions are noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HoleWatch {
    /// At the first touch, by `userfaultfd`.
    Touch,
    /// By [`Region::is_whole`](crate::Region::is_whole), which has to be called now and then, more often while workers have page faults: the kernel, or a filter of system
    /// calls, refuses `userfaultfd`, for this reason.
    Asking(Errno),
}

/// The process's `userfaultfd`. It watches until it is closed, so it never is.
#[derive(Debug)]
struct Userfault {
    fd: OwnedFd,
    /// Whether pages that only lost their place in the page table can be watched, too.
    minor: bool,
}

static USERFAULT: OnceLock<Result<Userfault, Errno>> = OnceLock::new();

impl Userfault {
    /// A new one: by the system call, or by the device, which a filter of system calls leaves alone.
    fn new() -> Result<Self, Errno> {
        let minor = FEATURE_MINOR_HUGETLBFS | FEATURE_MINOR_SHMEM;
        let basic = FEATURE_SIGBUS | FEATURE_MISSING_HUGETLBFS | FEATURE_MISSING_SHMEM;
        // A descriptor can be asked once: one that refuses has to be made anew.
        match Self::open().and_then(|fd| enable(fd, basic | minor)) {
            Ok(fd) => Ok(Self { fd, minor: true }),
            Err(Errno::INVAL) => Ok(Self { fd: enable(Self::open()?, basic)?, minor: false }),
            Err(errno) => Err(errno),
        }
    }

    fn open() -> Result<OwnedFd, Errno> {
        let flags = UserfaultfdFlags::CLOEXEC | UserfaultfdFlags::NONBLOCK;
        let call = |flags| {
            // SAFETY: the descriptor changes nothing about memory before ranges are registered with it.
            unsafe { rustix::mm::userfaultfd(flags) }
        };
        let called = call(flags | UserfaultfdFlags::from_bits_retain(USER_MODE_ONLY)).or_else(|_| call(flags));
        called.or_else(|errno| Self::by_device().map_err(|_| errno))
    }

    /// By `/dev/userfaultfd` (Linux 6.1).
    fn by_device() -> Result<OwnedFd, Errno> {
        let device = rustix::fs::open(c"/dev/userfaultfd", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
        let flags = libc::O_CLOEXEC | libc::O_NONBLOCK;
        // SAFETY: this `ioctl` takes flags and returns a new descriptor or -1.
        let fd = unsafe { libc::ioctl(device.as_raw_fd(), libc::Ioctl::from(USERFAULTFD_IOC_NEW), flags) };
        if fd < 0 {
            return Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::NOSYS));
        }
        // SAFETY: the descriptor is new, and nobody else's.
        Ok(unsafe { rustix::fd::FromRawFd::from_raw_fd(fd) })
    }

    /// Has the range raise SIGBUS where it is touched and a page is missing, or with `minor` where it is not mapped.
    fn watch(&self, base: NonNull<u8>, size: usize, minor: bool) -> Result<(), Errno> {
        let mode = if minor && self.minor { MODE_MISSING | MODE_MINOR } else { MODE_MISSING };
        let mut register = Register { start: base.as_ptr().addr() as u64, length: size as u64, mode, ioctls: 0 };
        // SAFETY: `Register` is laid out as the kernel's structure for this opcode.
        let request = unsafe { rustix::ioctl::Updater::<UFFDIO_REGISTER, Register>::new(&mut register) };
        // SAFETY: the range is a mapping of ours; the kernel reads and writes `register` alone, and what changes for
        // threads that touch the range is a SIGBUS where a page is missing, which has a handler.
        unsafe { rustix::ioctl::ioctl(&self.fd, request) }
    }
}

/// Agrees on `features`.
fn enable(fd: OwnedFd, features: u64) -> Result<OwnedFd, Errno> {
    let mut api = Api { api: API, features, ioctls: 0 };
    // SAFETY: `Api` is laid out as the kernel's structure for this opcode.
    let request = unsafe { rustix::ioctl::Updater::<UFFDIO_API, Api>::new(&mut api) };
    // SAFETY: the kernel reads and writes `api` alone.
    unsafe { rustix::ioctl::ioctl(&fd, request) }?;
    Ok(fd)
}

/// Installs the SIGBUS handler and gets a `userfaultfd`. Once, at start.
///
/// # Errors
///
/// [`RegionError::System`] if the kernel refuses the handler or an eventfd.
pub(crate) fn watch() -> Result<HoleWatch, RegionError> {
    let event = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(system("eventfd"))?;
    let event = EVENT.get_or_init(|| event);
    EVENT_FD.store(event.as_raw_fd(), Release);
    install_sigbus_handler()?;
    Ok(match USERFAULT.get_or_init(Userfault::new) {
        Ok(_) => HoleWatch::Touch,
        Err(errno) => HoleWatch::Asking(*errno),
    })
}

/// Whether the kernel tells of the touch of a hole, after [`watch`].
pub(crate) fn tells_of_touches() -> bool {
    matches!(USERFAULT.get(), Some(Ok(_)))
}

/// Whether it also tells of the touch of one that was filled again.
pub(crate) fn tells_of_filled_holes() -> bool {
    matches!(USERFAULT.get(), Some(Ok(Userfault { minor: true, .. })))
}

/// The descriptor that is readable once a thread has run into a hole, until [`hush`]. `None` before [`watch`].
pub(crate) fn event() -> Option<BorrowedFd<'static>> {
    EVENT.get().map(AsFd::as_fd)
}

/// Makes [`event`] quiet until the next hole.
pub(crate) fn hush() {
    let mut count = [0; 8];
    // An error says that it is quiet already.
    let _quiet = EVENT.get().map(|event| rustix::io::read(event, &mut count));
}

/// How a mapping gets its pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Filling {
    /// By locking them in memory.
    Lock,
    /// By `MADV_POPULATE_WRITE` (Linux 5.14), where locking is not allowed.
    Populate,
    /// By allocating them in the file, for a mapping that is made afterwards.
    Allocate,
}

impl Filling {
    /// Fills a part of the mapping of `fd` at `base`. A way that does not work is replaced by the next one, for good.
    ///
    /// # Errors
    ///
    /// The kernel's, if a page cannot be had.
    pub(crate) fn fill(&mut self, fd: &OwnedFd, base: NonNull<u8>, at: usize, length: usize) -> Result<(), Errno> {
        let start = base.as_ptr().wrapping_add(at).cast();
        if *self == Self::Lock {
            // SAFETY: the range is a part of our own mapping; locking changes nothing about what it holds.
            match unsafe { rustix::mm::mlock(start, length) } {
                Ok(()) => return Ok(()),
                // Whether it was the right or the memory that is missing shows now.
                Err(_) => *self = Self::Populate,
            }
        }
        if *self == Self::Populate {
            // SAFETY: the range is a part of our own mapping.
            match unsafe { rustix::mm::madvise(start, length, Advice::LinuxPopulateWrite) } {
                Err(Errno::INVAL) => *self = Self::Allocate,
                outcome => return outcome,
            }
        }
        rustix::fs::fallocate(fd, FallocateFlags::empty(), at as u64, length as u64)
    }
}

/// Lets go of a mapping, bit by bit.
pub(crate) fn unmap(base: NonNull<u8>, size: usize) {
    for at in (0..size).step_by(CHUNK) {
        let (start, length) = (base.as_ptr().wrapping_add(at), CHUNK.min(size.saturating_sub(at)));
        // SAFETY: the range is a part of our own mapping, and nobody uses it any more.
        let unmapped = unsafe { rustix::mm::munmap(start.cast(), length) };
        debug_assert!(unmapped.is_ok(), "munmap: {unmapped:?}");
    }
}

/// Has the touch of a missing page in the range raise SIGBUS, where the kernel can; with `bound`, that of a page that is not in the
/// page table, too.
///
/// # Errors
///
/// The kernel's: `EPERM` if the range is of a file that is open for reading alone.
pub(crate) fn watch_range(base: NonNull<u8>, size: usize, bound: bool) -> Result<(), Errno> {
    match USERFAULT.get() {
        Some(Ok(userfault)) => userfault.watch(base, size, bound),
        _ => Ok(()),
    }
}

/// A mapping under guard. Its pages are watched as long as it lives.
#[derive(Debug)]
pub(crate) struct Guard {
    guarded: &'static Guarded,
}

impl Guard {
    /// Guards a mapping whose pages are all there, in pages of `page` bytes. With `bound` they have no honest cause to leave
    /// the page table.
    ///
    /// # Errors
    ///
    /// [`RegionError`] if there are too many, or the kernel has no memory for it.
    pub(crate) fn new(base: NonNull<u8>, size: usize, page: usize, bound: bool) -> Result<Self, RegionError> {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let guard = Self::reserve(base, size, page, (access, SINGLE_HOLES), 0)?;
        watch_range(base, size, bound).map_err(system("UFFDIO_REGISTER"))?;
        Ok(guard)
    }

    /// Guards a range into which memory is mapped to be read, each part of which is [watched](watch_range) from then on. Its first
    /// `readable` bytes [may be read](Self::readable) until there is a hole. Holes are always filled one by one: memory in the
    /// range may be large, and who runs into a hole is no thread to let go of it.
    ///
    /// # Errors
    ///
    /// [`RegionError`] if there are too many.
    pub(crate) fn over(base: NonNull<u8>, size: usize, page: usize, readable: u64) -> Result<Self, RegionError> {
        Self::reserve(base, size, page, (libc::PROT_READ, u32::MAX), readable)
    }

    fn reserve(
        base: NonNull<u8>,
        size: usize,
        page: usize,
        (access, single): (i32, u32),
        readable: u64,
    ) -> Result<Self, RegionError> {
        for guarded in &GUARDED {
            if guarded.base.compare_exchange(0, RESERVED, AcqRel, Relaxed).is_ok() {
                guarded.punched.store(false, Relaxed);
                guarded.holes.store(0, Relaxed);
                guarded.single.store(single, Relaxed);
                guarded.page.store(page, Relaxed);
                guarded.size.store(size, Relaxed);
                guarded.access.store(access, Relaxed);
                guarded.readable.store(readable, Relaxed);
                guarded.base.store(base.as_ptr().addr(), Release);
                return Ok(Self { guarded });
            }
        }
        Err(RegionError::TooMany)
    }

    /// Whether a thread of this process ran into a hole.
    pub(crate) fn punched(&self) -> bool {
        self.guarded.punched.load(Acquire)
    }

    /// How much may be read: none any more once there was a hole.
    pub(crate) const fn readable(&self) -> &'static AtomicU64 {
        &self.guarded.readable
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.guarded.base.store(0, Release);
        let single = self.guarded.holes.load(Relaxed).min(SINGLE_HOLES);
        HOLES_OF_ALL.fetch_sub(single, Relaxed);
    }
}

/// One guarded region. Written by the thread that makes it, read by the signal handler.
#[derive(Debug)]
struct Guarded {
    base: AtomicUsize,
    size: AtomicUsize,
    page: AtomicUsize,
    /// What may be done with it: `PROT_*`.
    access: AtomicI32,
    /// Holes that were run into, and how many are filled one by one.
    holes: AtomicU32,
    single: AtomicU32,
    punched: AtomicBool,
    /// Bytes that may be read, of a window.
    readable: AtomicU64,
}

/// A `Guarded` that is being filled in.
const RESERVED: usize = 1;

static GUARDED: [Guarded; MAX_REGIONS] = [const {
    Guarded {
        base: AtomicUsize::new(0),
        size: AtomicUsize::new(0),
        page: AtomicUsize::new(PAGE),
        access: AtomicI32::new(0),
        holes: AtomicU32::new(0),
        single: AtomicU32::new(0),
        punched: AtomicBool::new(false),
        readable: AtomicU64::new(0),
    }
}; MAX_REGIONS];

/// Holes that were filled one by one in what is guarded now, at most so many of each.
static HOLES_OF_ALL: AtomicU32 = AtomicU32::new(0);
static EVENT: OnceLock<OwnedFd> = OnceLock::new();
/// The number of `EVENT`, for the signal handler.
static EVENT_FD: AtomicI32 = AtomicI32::new(-1);

impl Guarded {
    /// What to replace for a hole at `address`, which lies inside: its page, or everything if there were many before. If that cannot be
    /// replaced by itself, what comes next.
    fn damage(&self, address: usize) -> [(usize, usize); 3] {
        let (base, size, page) = (self.base.load(Relaxed), self.size.load(Relaxed), self.page.load(Relaxed));
        let around = |page: usize| (address & !page.wrapping_sub(1), page);
        let whole = (base, size);
        let (holes, single) = (self.holes.fetch_add(1, Relaxed), self.single.load(Relaxed));
        let of_all = if holes < SINGLE_HOLES { HOLES_OF_ALL.fetch_add(1, Relaxed) } else { 0 };
        if holes < single && (of_all < SINGLE_HOLES_OF_ALL || single == u32::MAX) {
            let larger = if single == u32::MAX && page > PAGE { around(LARGEST_PAGE) } else { whole };
            [around(page), larger, whole]
        } else {
            [whole; 3]
        }
    }
}

fn install_sigbus_handler() -> Result<(), RegionError> {
    // SAFETY: all zeros is a valid `sigaction`: no flags, empty mask, default handler.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) = on_sigbus;
    action.sa_sigaction = handler as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_NODEFER;
    // SAFETY: `action` is fully initialised, and the handler only does what signal handlers may.
    let done = unsafe { libc::sigaction(libc::SIGBUS, &raw const action, std::ptr::null_mut()) };
    if done != 0 {
        return Err(RegionError::System { call: "sigaction", errno: Errno::INVAL });
    }
    Ok(())
}

/// Puts private zero pages where a region was punched, or lets any other SIGBUS take its default course.
extern "C" fn on_sigbus(_signal: libc::c_int, info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    // SAFETY: the kernel passes a valid `siginfo_t` to an SA_SIGINFO handler.
    let info = unsafe { &*info };
    // SAFETY: SIGBUS carries the faulting address.
    let address = unsafe { info.si_addr() }.addr();
    let hit = GUARDED.iter().find(|g| {
        let base = g.base.load(Acquire);
        base > RESERVED && address.wrapping_sub(base) < g.size.load(Relaxed)
    });
    if let Some(guarded) = hit {
        // Before anybody can read what comes in the place of it.
        guarded.readable.store(0, Release);
        guarded.punched.store(true, Release);
        let access = guarded.access.load(Relaxed);
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED | libc::MAP_NORESERVE;
        let replaced = guarded.damage(address).into_iter().any(|(start, length)| {
            let at = std::ptr::without_provenance_mut::<libc::c_void>(start);
            // SAFETY: the range is of a region of ours which the faulting thread holds mapped. Readers see zeros from now on,
            // which is as good as anything the peer could have written; `mmap` is a bare system call.
            let mapped = unsafe { libc::mmap(at, length, access, flags, -1, 0) };
            mapped == at
        });
        let one = 1_u64.to_ne_bytes();
        let event = EVENT_FD.load(Acquire);
        // SAFETY: writing to an eventfd of ours, which does not block, is allowed in a handler. An error says that it is
        // readable already, or that there is none.
        unsafe { libc::write(event, one.as_ptr().cast(), one.len()) };
        if replaced {
            return;
        }
    }
    // SAFETY: resetting a signal to its default is allowed in a handler; the fault then repeats and ends the process.
    unsafe { libc::signal(libc::SIGBUS, libc::SIG_DFL) };
}
