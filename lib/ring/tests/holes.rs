//! Holes that an app punches into its region are noticed at the first touch, in pages of both sizes. A program of its own, as
//! it installs a signal handler.
#![expect(clippy::tests_outside_test_module, clippy::unwrap_used, reason = "this whole file is a test")]

use kopi_ring::layout::{Notes, WindowLayout};
use kopi_ring::message::{Segment, Span};
use kopi_ring::{Consumer, Geometry, HoleWatch, HugePages, PeerFault, Producer, Region, Window};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{FallocateFlags, MemfdFlags, inotify};
use std::io::Write as _;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::{Arc, OnceLock};

/// Regions in pages of each size that this machine has, watched. Empty where the kernel does not watch.
fn regions(geometry: &Geometry) -> Vec<Region> {
    static WATCH: OnceLock<HoleWatch> = OnceLock::new();
    let watch = *WATCH.get_or_init(|| Region::watch_holes().unwrap());
    if watch != HoleWatch::Touch {
        let _shown = writeln!(std::io::stderr(), "skipped: {watch:?}");
        return Vec::new();
    }
    let ordinary = Region::create(geometry, HugePages::Off).unwrap();
    // Without free huge pages there is nothing to look at.
    [ordinary].into_iter().chain(Region::create(geometry, HugePages::Require)).collect()
}

fn punch(region: &Region, at: usize, length: usize) {
    let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    rustix::fs::fallocate(region.fd(), hole, at as u64, length as u64).unwrap();
}

fn is_heard() -> bool {
    let event = Region::hole_event().unwrap();
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    rustix::event::poll(&mut [PollFd::new(&event, PollFlags::IN)], Some(&now)).unwrap() == 1
}

/// Both ends of the first TX ring, with eight frames in it of which the consumer knows.
fn filled(region: &Region) -> (Producer, Consumer) {
    let (mut producer, mut consumer) = (region.tx_producer(0).unwrap(), region.tx_consumer(0).unwrap());
    assert!(producer.free(8).is_ok_and(|free| free >= 8));
    assert!((0..8).all(|_| producer.push(&[7; 60], Notes::NONE)));
    producer.publish();
    assert_eq!(consumer.poll(), Ok(8));
    (producer, consumer)
}

/// A hole reads as zeros, the region reports it, and a waiting thread is woken. A region whose holes were not touched reports none.
#[test]
fn hole_is_noticed_at_the_first_touch() {
    for region in regions(&Geometry::new(&[512], &[512], 2048).unwrap()) {
        let (_producer, mut consumer) = filled(&region);
        assert!(region.is_whole() && !region.punched());
        punch(&region, 0, region.size());
        assert!(!region.is_whole() && !region.punched());
        assert_eq!(consumer.next(), Err(PeerFault::Length { length: 0, slot_size: 2048 }));
        assert!(region.punched());
        assert!(is_heard());
    }
}

/// An app gains nothing by filling a hole before anybody touches it: its pages have lost their places in our page table.
#[test]
fn hole_that_was_filled_again_is_noticed() {
    for region in regions(&Geometry::new(&[512], &[512], 2048).unwrap()) {
        let (_producer, mut consumer) = filled(&region);
        punch(&region, 0, region.size());
        rustix::fs::fallocate(region.fd(), FallocateFlags::empty(), 0, region.size() as u64).unwrap();
        assert!(region.is_whole());
        let _ended = consumer.next();
        assert!(region.punched());
    }
}

/// However many holes there are, the process goes on, and a region beside it is not touched.
#[test]
fn a_thousand_holes_are_outlived() {
    let geometry = Geometry::new(&[4096], &[4096], 2048).unwrap();
    for (region, other) in regions(&geometry).into_iter().zip(regions(&geometry)) {
        let mut producer = region.rx_producer(0).unwrap();
        punch(&region, 0, region.size());
        for _ in 0..4096 {
            assert!(producer.free(1).is_ok_and(|free| free > 0) && producer.push(&[9; 1514], Notes::NONE));
        }
        assert!(region.punched());
        let (_producer, mut consumer) = filled(&other);
        assert_eq!(consumer.next().unwrap().unwrap().len(), 60);
        assert!(!other.punched());
    }
}

/// The watch on a file, by the event `IN_DELETE_SELF` of `inotify(7)`: whether it is gone.
struct FileWatch(OwnedFd);

impl FileWatch {
    fn new(file: &OwnedFd) -> Self {
        let watch = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK).unwrap();
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        inotify::add_watch(&watch, path, inotify::WatchFlags::DELETE_SELF).unwrap();
        Self(watch)
    }

    fn is_gone(&self) -> bool {
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        rustix::event::poll(&mut [PollFd::new(&self.0, PollFlags::IN)], Some(&now)).unwrap() == 1
    }
}

/// Bytes of `name` that this process has mapped to be read.
fn mapped(name: &str) -> usize {
    let length = |line: &str| {
        let (range, rest) = line.split_once(' ')?;
        let (start, end) = range.split_once('-')?;
        let number = |hex| usize::from_str_radix(hex, 16).ok();
        (rest.starts_with("r--s") && rest.contains(name)).then_some(number(end)? - number(start)?)
    };
    std::fs::read_to_string("/proc/self/maps").unwrap().lines().filter_map(length).sum()
}

/// However many holes an app makes in what it shares, a thread that runs into one replaces that page alone, finds nothing in the window
/// any more, and never is the one that ends the app's file.
#[test]
fn holes_in_shared_memory_cost_a_page_and_never_the_file() {
    const PAGES: usize = 200;
    let length = PAGES as u64 * 4096;
    let regions = regions(&Geometry::new(&[512], &[64], 2048).unwrap());
    for region in regions.into_iter().filter(|region| !region.huge()) {
        let memory = rustix::fs::memfd_create("few-holes", MemfdFlags::CLOEXEC).unwrap();
        assert_eq!(rustix::io::pwrite(&memory, &[1; PAGES * 4096], 0), Ok(PAGES * 4096));
        let watch = FileWatch::new(&memory);
        let window = Arc::new(Window::new(WindowLayout::new(4096, length).unwrap()).unwrap());
        let span = Span { at: 0, length };
        window.map(&memory, &Segment { span, offset: 0 }).unwrap();
        let mut consumer = region.tx_consumer(0).unwrap().sharing(Some(Arc::clone(&window)));
        let mut producer = region.tx_producer(0).unwrap();
        assert!(producer.free(512).is_ok_and(|free| free == 512));
        assert!((0..PAGES as u64).all(|page| producer.push_reference(&[7; 128], 1000, page * 4096)));
        producer.publish();
        let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        rustix::fs::fallocate(&memory, hole, 0, length).unwrap();
        drop(memory);
        consumer.poll().unwrap();
        let mut room = [0xee; 1000];
        let mut place = Some(&mut room[..]);
        assert_eq!(consumer.take_references(100, 14..=1522, |len| place.take()?.get_mut(..len.into())), 1);
        assert!(window.punched());
        for _ in 0..100 {
            assert_eq!(consumer.take_references(100, 14..=1522, |len| panic!("{len}")), 0);
            assert_eq!(consumer.next(), Err(PeerFault::Page));
        }
        assert_eq!(mapped("few-holes"), (PAGES - 1) * 4096);
        assert!(!watch.is_gone());
        drop(consumer);
        window.unmap(span).unwrap();
        assert!(watch.is_gone());
    }
}

/// The last page that is left of a file that is closed: it is kept until the window lets go of it.
#[test]
fn file_outlives_its_last_page() {
    for region in regions(&Geometry::new(&[64], &[64], 2048).unwrap()) {
        let (flags, page) = match region.huge() {
            true => (MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB, 2 << 20),
            false => (MemfdFlags::empty(), 4096),
        };
        let memory = rustix::fs::memfd_create("last-page", MemfdFlags::CLOEXEC | flags).unwrap();
        rustix::fs::ftruncate(&memory, page).unwrap();
        rustix::fs::fallocate(&memory, FallocateFlags::empty(), 0, page).unwrap();
        let watch = FileWatch::new(&memory);
        let window = Arc::new(Window::new(WindowLayout::new(page, page).unwrap()).unwrap());
        window.map(&memory, &Segment { span: Span { at: 0, length: page }, offset: 0 }).unwrap();
        rustix::fs::ftruncate(&memory, 0).unwrap();
        drop(memory);
        let (mut consumer, mut producer) =
            (region.tx_consumer(0).unwrap().sharing(Some(Arc::clone(&window))), region.tx_producer(0).unwrap());
        assert!(producer.free(1).is_ok_and(|free| free > 0) && producer.push_reference(&[7; 128], 1000, 0));
        producer.publish();
        consumer.poll().unwrap();
        let mut room = [0xee; 1000];
        let mut place = Some(&mut room[..]);
        assert_eq!(consumer.take_references(1, 14..=1522, |len| place.take()?.get_mut(..len.into())), 1);
        assert!(window.punched() && mapped("last-page") == 0 && !watch.is_gone());
        drop((consumer, window));
        assert!(watch.is_gone());
    }
}

/// A hole in memory that an app shares reads as zeros, the window says so, and the rest of the process goes on; in pages of both
/// sizes, and whether the app punches it or cuts the file short.
#[test]
fn hole_in_shared_memory_is_noticed() {
    let geometry = Geometry::new(&[64], &[64], 2048).unwrap();
    let regions = [(); 2].map(|()| regions(&geometry)).into_iter().flatten().collect::<Vec<_>>();
    let (small, huge): (Vec<_>, Vec<_>) = regions.into_iter().partition(|region| !region.huge());
    for (region, cut) in small.into_iter().zip([false, true]).chain(huge.into_iter().zip([false, true])) {
        let (flags, page) = match region.huge() {
            true => (MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB, 2 << 20),
            false => (MemfdFlags::empty(), 4096),
        };
        let memory = rustix::fs::memfd_create("shared", MemfdFlags::CLOEXEC | flags).unwrap();
        rustix::fs::ftruncate(&memory, 4 * page).unwrap();
        rustix::fs::fallocate(&memory, FallocateFlags::empty(), 0, 4 * page).unwrap();
        let window = Arc::new(Window::new(WindowLayout::new(page, 64 * page).unwrap()).unwrap());
        window.map(&memory, &Segment { span: Span { at: 8 * page, length: 4 * page }, offset: 0 }).unwrap();
        let mut consumer = region.tx_consumer(0).unwrap().sharing(Some(Arc::clone(&window)));
        let mut producer = region.tx_producer(0).unwrap();
        assert!(producer.free(8).is_ok_and(|free| free >= 8));
        assert!(
            producer.push_reference(&[7; 128], 1000, 9 * page) && producer.push_reference(&[7; 128], 1000, 10 * page)
        );
        producer.publish();
        assert_eq!(consumer.poll(), Ok(2));
        if cut {
            rustix::fs::ftruncate(&memory, page).unwrap();
        } else {
            let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            rustix::fs::fallocate(&memory, hole, page, 3 * page).unwrap();
        }
        assert!(!window.punched());
        let mut rooms = [[0xee; 1000]; 2];
        let mut places = rooms.iter_mut();
        assert_eq!(consumer.take_references(2, 14..=1522, |len| places.next()?.get_mut(..len.into())), 1);
        assert_eq!((&rooms[0][..128], &rooms[0][128..]), (&[7; 128][..], &[0; 872][..]));
        assert_eq!(consumer.next(), Err(PeerFault::Page), "nothing more is read after a hole");
        assert!(window.punched() && is_heard());
        // What is left is given back as ever.
        window.unmap(Span { at: 8 * page, length: 4 * page }).unwrap();
    }
}
