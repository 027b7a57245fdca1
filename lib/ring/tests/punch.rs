//! Fault 42 on huge pages, without `userfaultfd`: an app punches a hole into its region while the pool is empty. A process of its own, as it
//! installs a signal handler and, for a moment, takes all free huge pages of the machine.
#![expect(clippy::tests_outside_test_module, clippy::unwrap_used, reason = "this whole file is a test")]

use kopi_ring::layout::Notes;
use kopi_ring::{Geometry, HugePages, PeerFault, Region};
use rustix::fs::{FallocateFlags, MemfdFlags};
use rustix::mm::{MapFlags, ProtFlags};
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::thread;

const HUGE_PAGE: usize = 2 << 20;

fn memfd(pages: usize) -> Option<OwnedFd> {
    let fd = rustix::fs::memfd_create(c"kopi-hoard", MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB).ok()?;
    rustix::fs::ftruncate(&fd, u64::try_from(pages * HUGE_PAGE).ok()?).ok()?;
    Some(fd)
}

/// Reserves every free huge page, without touching one, until dropped.
struct Hoard(Vec<(*mut std::ffi::c_void, usize)>);

impl Hoard {
    fn take() -> Self {
        let mut held = Self(Vec::new());
        let mut pages = 1 << 14;
        while pages > 0 {
            if held.reserve(pages) {
                continue;
            }
            pages /= 2;
        }
        held
    }

    fn reserve(&mut self, pages: usize) -> bool {
        let Some(fd) = memfd(pages) else { return false };
        let access = ProtFlags::READ | ProtFlags::WRITE;
        let size = pages * HUGE_PAGE;
        // SAFETY: a new mapping at an address of the kernel's choice. A shared mapping of huge pages reserves them.
        let mapped = unsafe { rustix::mm::mmap(std::ptr::null_mut(), size, access, MapFlags::SHARED, &fd, 0) };
        mapped.is_ok_and(|base| {
            self.0.push((base, size));
            true
        })
    }
}

impl Drop for Hoard {
    fn drop(&mut self) {
        for (base, size) in &self.0 {
            // SAFETY: a mapping of ours that nobody uses.
            unsafe { rustix::mm::munmap(*base, *size) }.unwrap();
        }
    }
}

/// The thread that runs into the hole goes on and reads zeros, the region says that it was punched, and another region
/// does not notice.
#[test]
fn fault_42_hole_in_a_huge_page_with_an_empty_pool() {
    let geometry = Geometry::new(&[512], &[512], 2048).unwrap();
    let (Ok(region), Ok(other)) =
        (Region::create(&geometry, HugePages::Require), Region::create(&geometry, HugePages::Require))
    else {
        let _shown = writeln!(std::io::stderr(), "skipped: this machine has no four free huge pages");
        return;
    };
    // Too late for these regions to be watched, as where the kernel refuses to.
    Region::watch_holes().unwrap();
    let mut producer = region.tx_producer(0).unwrap();
    let mut consumer = region.tx_consumer(0).unwrap();
    assert_eq!(producer.free(1), Ok(512));
    assert!((0..8).all(|_| producer.push(&[7; 60], Notes::NONE)));
    producer.publish();
    assert_eq!(consumer.poll(), Ok(8));
    assert!(!region.punched());

    // The app's doing, through the descriptor that it was given.
    let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    let size = u64::try_from(region.size()).unwrap();
    rustix::fs::fallocate(region.fd(), hole, 0, size).unwrap();
    let hoard = Hoard::take();
    let outcome = consumer.next();
    // A second worker that serves another queue of the same app.
    let elsewhere = thread::scope(|scope| {
        scope
            .spawn(|| {
                let mut producer = region.rx_producer(0).unwrap();
                producer.free(1).is_ok_and(|_| producer.push(&[8; 1518], Notes::NONE))
            })
            .join()
    });
    drop(hoard);

    assert_eq!(outcome, Err(PeerFault::Length { length: 0, slot_size: 2048 }));
    assert!(elsewhere.unwrap());
    assert!(region.punched());
    assert!(!other.punched());
    let mut producer = other.tx_producer(0).unwrap();
    let mut consumer = other.tx_consumer(0).unwrap();
    assert_eq!(producer.free(1), Ok(512));
    assert!(producer.push(&[9; 60], Notes::NONE));
    producer.publish();
    assert_eq!(consumer.poll(), Ok(1));
    assert_eq!(consumer.next().unwrap().unwrap().len(), 60);
}
