//! The sealed memfd that holds an app's rings.
//!
//! The daemon creates and owns it, and passes it to the client. Seals prevent truncating and growing. Once the client has
//! mapped it, [`Region::seal`] prevents holes (`fallocate` with `PUNCH_HOLE`, `MADV_REMOVE`) and new mappings that can be written.
//! Where that seal is missing, `pages.rs` handles the effects of holes, after [`Region::watch_holes`].

mod builder;
mod discarded;

pub use builder::RegionBuilder;
pub use discarded::DiscardedRegion;

use crate::copy::{CopyRoutine, CopyRoutines};
use crate::layout::{MAGIC, RingSpan};
use crate::mapping::Mapping;
use crate::pages::{self, Guard, HUGE_PAGE, HoleWatch};
use crate::region_error::{RegionError, system};
use crate::ring_memory::RingMemory;
use crate::rx_interrupt::RxInterrupt;
use crate::status::{DaemonStatus, StatusPage};
use crate::wake_futex::WakeFutex;
use crate::{Consumer, Geometry, Layout, OLDEST_PROTOCOL, PROTOCOL, Producer};
use rustix::fs::SealFlags;
use rustix::mm::MapFlags;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{Acquire, Relaxed};

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

/// A mapped region. Rings made from it keep the mapping alive.
#[derive(Debug)]
pub struct Region {
    mapping: Arc<Mapping>,
    layout: Layout,
    geometry: Geometry,
    fd: OwnedFd,
    huge: bool,
    copies: CopyRoutines,
}

impl Region {
    /// Creates, seals, maps and fills in a region for `geometry`, at once. The daemon's side.
    ///
    /// # Errors
    ///
    /// [`RegionError::System`] if memory or file descriptors are short.
    pub fn create(geometry: &Geometry, huge_pages: HugePages) -> Result<Self, RegionError> {
        let mut builder = RegionBuilder::new(geometry, huge_pages)?;
        while !builder.fill(usize::MAX)? {}
        builder.finish(PROTOCOL)
    }

    /// Maps the region that the daemon sent. The client's side: everything the daemon sent is checked.
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
        // They do not differ in how a region looks.
        if !(u32::from(OLDEST_PROTOCOL)..=u32::from(PROTOCOL)).contains(&header.version.load(Relaxed)) {
            return Err(RegionError::Mismatch("its version is none that this side speaks"));
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
        // Advice, which is as harmless as it is: anything else is none.
        let copies = CopyRoutines::by_cpuid();
        let tx = CopyRoutine::from_code(header.tx_copy.load(Relaxed)).unwrap_or(copies.tx);
        Ok(Self { mapping, layout, geometry: geometry.clone(), fd, huge, copies: CopyRoutines { tx, ..copies } })
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
        self.layout.tx.get(queue).map(|span| Producer::new(self.memory(span), self.copies.tx))
    }

    /// The emptying end of TX ring `queue`, for the daemon. Each end must be made once.
    #[must_use]
    pub fn tx_consumer(&self, queue: usize) -> Option<Consumer> {
        self.layout.tx.get(queue).map(|span| Consumer::new(self.memory(span), false))
    }

    /// The filling end of RX ring `queue`, for the daemon. Each end must be made once.
    #[must_use]
    pub fn rx_producer(&self, queue: usize) -> Option<Producer> {
        self.layout.rx.get(queue).map(|span| Producer::new(self.memory(span), self.copies.rx))
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

    /// Seals it, so that nobody can make holes in it, nor map it so that it can be written: neither the client nor this
    /// process, whose mapping stays as it is. For the daemon, when the client has mapped it. A sealed region may be sealed again.
    ///
    /// # Errors
    ///
    /// [`RegionError::System`] if the kernel does not know the seal (before Linux 5.1) or the region can get no more seals. It is as
    /// before then.
    pub fn seal(&self) -> Result<(), RegionError> {
        Self::seal_file(&self.fd)
    }

    /// The same for the file of a region alone. Waits for the file's lock, which the client may hold as long as it likes.
    ///
    /// # Errors
    ///
    /// As for [`seal`](Self::seal).
    pub fn seal_file(fd: &OwnedFd) -> Result<(), RegionError> {
        if is_sealed(fd) {
            return Ok(());
        }
        rustix::fs::fcntl_add_seals(fd, SealFlags::FUTURE_WRITE | SealFlags::SEAL).map_err(system("F_ADD_SEALS"))
    }

    /// Sees to it that nobody can seal it any more, and returns whether it [is sealed](Self::seal), by whomever: what it is now it
    /// stays. For the daemon, which cannot empty a sealed region. Before a client has the file.
    #[must_use]
    pub fn settle(&self) -> bool {
        // It fails where there is that seal already.
        let _settled = rustix::fs::fcntl_add_seals(&self.fd, SealFlags::SEAL);
        is_sealed(&self.fd)
    }

    /// Whether a page of it was punched out and a thread of this process ran into the hole.
    #[must_use]
    pub fn punched(&self) -> bool {
        self.mapping.guard.as_ref().is_some_and(Guard::punched)
    }

    /// Whether none of its pages is missing, even if no thread has touched the hole yet. For the daemon, where
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

    /// Gives the region's memory back to the system, even if the client keeps its file: that is empty from then on. For a
    /// region that was replaced or whose app is gone, once it [is idle](Self::is_idle). See [`DiscardedRegion`] for doing it bit by bit,
    /// and for one that is sealed, whose memory goes when the client lets go of it.
    ///
    /// # Errors
    ///
    /// [`RegionError::System`] if the kernel refuses; then the memory goes when the client lets go of it.
    pub fn discard(self) -> Result<(), RegionError> {
        let mut discarded = DiscardedRegion::new(self);
        while !discarded.free(usize::MAX)? {}
        Ok(())
    }

    /// Makes this process survive holes in its regions, and notice them: [`punched`](Self::punched) says in which region one was
    /// touched. Call it once, at start, before any region is made.
    ///
    /// # Errors
    ///
    /// [`RegionError::System`] if the kernel refuses a signal handler or an eventfd.
    pub fn watch_holes() -> Result<HoleWatch, RegionError> {
        pages::watch()
    }

    /// Whether holes in regions are seen at [the first touch](HoleWatch::Touch).
    #[must_use]
    pub fn tells_of_touches() -> bool {
        pages::tells_of_touches()
    }

    /// Whether the kernel tells of the touch of a hole that was filled again before it was touched, too (Linux 5.14), after
    /// [`watch_holes`](Self::watch_holes).
    #[must_use]
    pub fn tells_of_filled_holes() -> bool {
        pages::tells_of_filled_holes()
    }

    /// A descriptor that becomes readable when a thread has run into a hole, until [`hush_holes`](Self::hush_holes). `None` before
    /// [`watch_holes`](Self::watch_holes).
    #[must_use]
    pub fn hole_event() -> Option<BorrowedFd<'static>> {
        pages::event()
    }

    /// Makes [`hole_event`](Self::hole_event) quiet until the next hole.
    pub fn hush_holes() {
        pages::hush();
    }

    fn memory(&self, span: &RingSpan) -> RingMemory {
        RingMemory::new(Arc::clone(&self.mapping), span)
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

/// Asks for no lock.
fn is_sealed(fd: &OwnedFd) -> bool {
    rustix::fs::fcntl_get_seals(fd).is_ok_and(|seals| seals.contains(SealFlags::FUTURE_WRITE))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{FallocateFlags, MemfdFlags};
    use rustix::io::Errno;

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

    /// Each end copies as the daemon has found best; a client that is told nothing, or nonsense, asks its processor.
    #[test]
    fn both_sides_copy_as_the_daemon_says() {
        for routine in CopyRoutine::ALL {
            let routines = CopyRoutines { tx: routine, rx: CopyRoutine::LongString };
            let mut builder = RegionBuilder::new(&geometry(), HugePages::Off).unwrap().copies(routines);
            while !builder.fill(usize::MAX).unwrap() {}
            let daemon = builder.finish(PROTOCOL).unwrap();
            let open = || Region::open(daemon.fd().try_clone_to_owned().unwrap(), &geometry()).unwrap();
            assert_eq!((daemon.copies, open().copies.tx), (routines, routine));
            for nonsense in [0, 4, u32::MAX] {
                daemon.mapping.header().tx_copy.store(nonsense, Relaxed);
                assert_eq!(open().copies.tx, CopyRoutine::by_cpuid());
            }
        }
    }

    /// The client refuses a region that is not the one of the daemon's message.
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

    /// No holder of the file can truncate or grow it, or take the right to write from the daemon.
    #[test]
    fn region_cannot_be_resized() {
        let daemon = Region::create(&geometry(), HugePages::Off).unwrap();
        for size in [0, 4096, 1 << 30] {
            assert_eq!(rustix::fs::ftruncate(daemon.fd(), size), Err(Errno::PERM));
        }
        // As long as the daemon has it mapped.
        assert_eq!(rustix::fs::fcntl_add_seals(daemon.fd(), SealFlags::WRITE), Err(Errno::BUSY));
    }

    /// A client that has mapped a sealed region can make no hole in it by any way, nor map it anew to write, in pages of both
    /// sizes; the rings go on. A region that was never given seals beyond its first can still be punched.
    #[test]
    fn sealed_region_has_no_holes() {
        let geometry = Geometry::new(&[512], &[512], 2048).unwrap();
        // Without free huge pages there is nothing to look at.
        let huge = Region::create(&geometry, HugePages::Require);
        for daemon in Region::create(&geometry, HugePages::Off).into_iter().chain(huge) {
            let client = Region::open(daemon.fd().try_clone_to_owned().unwrap(), &geometry).unwrap();
            let page = if daemon.huge() { HUGE_PAGE } else { pages::PAGE };
            let punch = || {
                let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                rustix::fs::fallocate(client.fd(), hole, 0, page as u64)
            };
            let remove = || {
                // SAFETY: the range is a part of the client's mapping, and nobody refers to what is in it.
                unsafe {
                    rustix::mm::madvise(client.mapping.base.as_ptr().cast(), page, rustix::mm::Advice::LinuxRemove)
                }
            };
            daemon.seal().unwrap();
            assert_eq!((punch(), remove()), (Err(Errno::PERM), Err(Errno::PERM)));
            assert_eq!(rustix::fs::ftruncate(client.fd(), 0), Err(Errno::PERM));
            let again = Region::open(daemon.fd().try_clone_to_owned().unwrap(), &geometry);
            assert!(matches!(again, Err(RegionError::System { call: "mmap", errno: Errno::PERM })), "{again:?}");
            daemon.seal().unwrap();
            assert!(daemon.settle() && daemon.is_whole());
            let mut producer = client.tx_producer(0).unwrap();
            assert_eq!(producer.free(1), Ok(512));
            assert!(producer.push(&[7; 60], crate::layout::Notes::NONE));
            producer.publish();
            assert_eq!(daemon.tx_consumer(0).unwrap().poll(), Ok(1));
        }
    }

    /// What a client of an older version has can be sealed as well, until it was settled: then nobody can.
    #[test]
    fn region_of_an_older_version_can_be_sealed() {
        let finish = || {
            let mut builder = RegionBuilder::new(&geometry(), HugePages::Off).unwrap();
            while !builder.fill(usize::MAX).unwrap() {}
            builder.finish(OLDEST_PROTOCOL).unwrap()
        };
        let daemon = finish();
        assert!(Region::open(daemon.fd().try_clone_to_owned().unwrap(), &geometry()).is_ok());
        assert!(daemon.seal().is_ok() && daemon.settle());
        let daemon = finish();
        assert!(!daemon.settle());
        assert!(matches!(daemon.seal(), Err(RegionError::System { errno: Errno::PERM, .. })));
    }

    /// The memory of a sealed region is unmapped bit by bit, and goes with the file's last holder.
    #[test]
    fn sealed_region_is_let_go_of() {
        let geometry = Geometry::new(&[512], &[512], 2048).unwrap();
        let daemon = Region::create(&geometry, HugePages::Off).unwrap();
        let kept = daemon.fd().try_clone_to_owned().unwrap();
        let size = daemon.size();
        daemon.seal().unwrap();
        assert!(matches!(Region::create(&geometry, HugePages::Off).unwrap().discard(), Ok(())));
        let mut discarded = DiscardedRegion::new(daemon);
        let mut steps = 1;
        while !discarded.unmap(pages::PAGE).unwrap() {
            steps += 1;
        }
        assert_eq!(steps, size.div_ceil(HUGE_PAGE));
        drop(discarded);
        assert!(rustix::fs::fstat(&kept).unwrap().st_blocks > 0, "whoever keeps the file keeps the memory");
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
        assert!(!daemon.settle());
        assert!(rustix::fs::fstat(&kept).unwrap().st_blocks > 0);
        let ring = daemon.tx_consumer(0).unwrap();
        assert!(!daemon.is_idle());
        drop(ring);
        assert!(daemon.is_idle());
        daemon.discard().unwrap();
        assert_eq!(rustix::fs::fstat(&kept).unwrap().st_blocks, 0);
    }
}
