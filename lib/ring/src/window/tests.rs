use super::*;
use rustix::fs::{FallocateFlags, MemfdFlags};

const PAGES: u64 = 256;

fn window() -> Window {
    Window::new(WindowLayout::new(4096, PAGES * 4096).unwrap()).unwrap()
}

/// A file of `pages` pages, each filled with its number.
fn file(pages: u8) -> OwnedFd {
    let fd = rustix::fs::memfd_create("test", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
    for page in 0..pages {
        assert_eq!(rustix::io::pwrite(&fd, &[page; 4096], u64::from(page) * 4096), Ok(4096));
    }
    fd
}

const fn segment(at: u64, length: u64, offset: u64) -> Segment {
    Segment { span: Span { at: at * 4096, length: length * 4096 }, offset: offset * 4096 }
}

fn read(window: &Window, at: u64, len: usize) -> Option<Vec<u8>> {
    let from = window.find(at, len)?;
    let mut bytes = vec![0xee; len];
    // SAFETY: the window has so many bytes there, and `bytes` is ours.
    unsafe { crate::copy::copy_out(bytes.as_mut_ptr(), from, len) };
    Some(bytes)
}

/// A write into `file` that hangs, and holds the file's lock, until this is dropped: its source is a page that nobody provides.
struct HangingWrite {
    userfault: Option<OwnedFd>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl HangingWrite {
    /// `None` if the kernel lets nobody hang like that.
    fn into(file: &OwnedFd) -> Option<Self> {
        let flags = rustix::mm::UserfaultfdFlags::CLOEXEC;
        // SAFETY: the descriptor changes nothing about memory before ranges are registered with it.
        let userfault = unsafe { rustix::mm::userfaultfd(flags) }.ok()?;
        // SAFETY: a new mapping at an address of the kernel's choice.
        let source = unsafe {
            rustix::mm::mmap_anonymous(
                std::ptr::null_mut(),
                4096,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE,
            )
        };
        let source = source.ok()?.addr();
        // `UFFDIO_API` and `UFFDIO_REGISTER` of `linux/userfaultfd.h`, for pages that are missing.
        for (request, mut words) in [(0xc018_aa3f_u32, [0xaa, 0, 0, 0]), (0xc020_aa00, [source as u64, 4096, 1, 0])] {
            // SAFETY: as many bytes as the request says, which the kernel reads and writes.
            let done = unsafe {
                libc::ioctl(std::os::fd::AsRawFd::as_raw_fd(&userfault), libc::Ioctl::from(request), words.as_mut_ptr())
            };
            assert_eq!(done, 0);
        }
        let file = file.try_clone().unwrap();
        let write = move || {
            let fd = std::os::fd::AsRawFd::as_raw_fd(&file);
            // SAFETY: the source is mapped, and stays.
            unsafe { libc::pwrite(fd, std::ptr::without_provenance(source), 1, 0) };
        };
        Some(Self { userfault: Some(userfault), thread: Some(std::thread::spawn(write)) })
    }
}

impl Drop for HangingWrite {
    fn drop(&mut self) {
        self.userfault = None;
        drop(self.thread.take().map(std::thread::JoinHandle::join));
    }
}

/// Does something on a thread, and returns whether it is done in time.
fn is_done_within(seconds: f32, work: impl FnOnce() + Send + 'static) -> bool {
    let (done, end) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        work();
        let _heard = done.send(());
    });
    end.recv_timeout(std::time::Duration::from_secs_f32(seconds)).is_ok()
}

/// A client that holds the lock of its file for ever keeps nobody from mapping it, reading it, and letting go of it.
#[test]
fn nobody_waits_for_the_lock_of_a_file() {
    let (window, file) = (window(), file(4));
    let Some(_hanging) = HangingWrite::into(&file) else { return };
    let other = file.try_clone().unwrap();
    let seek = |fd: OwnedFd| move || assert!(rustix::fs::seek(&fd, rustix::fs::SeekFrom::Hole(0)).is_ok());
    let waits = |fd: OwnedFd| !is_done_within(0.2, seek(fd));
    while !waits(other.try_clone().unwrap()) {}
    assert!(is_done_within(20.0, move || {
        window.map(&file, &segment(10, 2, 1)).unwrap();
        assert_eq!(read(&window, 10 * 4096, 4096), Some(vec![1; 4096]));
        window.unmap(segment(10, 2, 1).span).unwrap();
        drop(window);
    }));
}

/// What is shared is found where the client says that it is, to its last byte, and nothing beside it.
#[test]
fn shared_pages_are_found_and_no_others() {
    let (window, file) = (window(), file(4));
    assert_eq!(window.find(0, 1), None);
    window.map(&file, &segment(10, 2, 1)).unwrap();
    window.map(&file, &segment(12, 1, 3)).unwrap();
    assert_eq!(read(&window, 10 * 4096, 4096), Some(vec![1; 4096]));
    let mut over = vec![2; 3];
    over.extend([3; 4]);
    assert_eq!(read(&window, 12 * 4096 - 3, 7), Some(over), "over the end of a segment into the next one");
    for (at, len) in
        [(10 * 4096 - 1, 1), (10 * 4096 - 1, 2), (13 * 4096 - 1, 2), (13 * 4096, 1), (0, 9000), (10 * 4096, 0)]
    {
        assert_eq!(window.find(at, len), None, "{at} {len}");
    }
    for at in [PAGES * 4096 - 1, PAGES * 4096, u64::MAX - 10, u64::MAX] {
        assert_eq!(window.find(at, 20), None, "{at}");
    }
    assert_eq!(window.size(), 3 * 4096);
}

/// What is shared no longer is not found, its memory is let go of, and the place can be used again.
#[test]
fn unmapped_pages_are_gone() {
    let (window, file) = (window(), file(4));
    for round in 0..3 {
        window.map(&file, &segment(0, 4, 0)).unwrap();
        window.map(&file, &segment(4, 1, 1)).unwrap();
        assert_eq!(read(&window, 4 * 4096, 1), Some(vec![1]), "round {round}");
        for wrong in [segment(0, 3, 0), segment(1, 4, 0), segment(0, 6, 0), segment(8, 1, 0)] {
            assert!(matches!(window.unmap(wrong.span), Err(RegionError::Mismatch(_))), "{wrong:?}");
        }
        assert!(window.find(0, 4096).is_some());
        window.unmap(Span { at: 0, length: 5 * 4096 }).unwrap();
        assert_eq!((window.find(0, 1), window.find(4 * 4096, 1), window.size()), (None, None, 0));
    }
    window.map(&file, &segment(0, 4, 0)).unwrap();
    drop(window);
}

/// Whether missing pages are errors, and not made, in this process.
fn tells_of_holes() -> bool {
    static WATCH: std::sync::OnceLock<pages::HoleWatch> = std::sync::OnceLock::new();
    *WATCH.get_or_init(|| pages::watch().unwrap()) == pages::HoleWatch::Touch
}

/// Whatever a client says of its file, only memory that is all there is mapped, at a place that is free.
#[test]
fn only_whole_memory_is_shared() {
    let (window, memory) = (window(), file(4));
    window.map(&memory, &segment(2, 1, 0)).unwrap();
    let refused = |fd: &OwnedFd, segment| matches!(window.map(fd, &segment), Err(RegionError::Mismatch(_)));
    for wrong in [
        segment(2, 1, 1),
        segment(1, 2, 0),
        segment(0, 4, 0),
        segment(PAGES, 1, 0),
        segment(PAGES - 1, 2, 0),
        segment(20, 5, 0),
        segment(20, 1, 4),
        segment(20, 0, 0),
        Segment { span: Span { at: 1, length: 4096 }, offset: 0 },
        Segment { span: Span { at: 20 * 4096, length: 4096 }, offset: 12 },
        Segment { span: Span { at: u64::MAX - 4095, length: 8192 }, offset: 0 },
        Segment { span: Span { at: 20 * 4096, length: 4096 }, offset: u64::MAX - 4095 },
    ] {
        assert!(refused(&memory, wrong), "{wrong:?}");
    }
    let (pipe, _other) = rustix::pipe::pipe().unwrap();
    let device = OwnedFd::from(std::fs::File::open("/dev/zero").unwrap());
    let program = OwnedFd::from(std::fs::File::open("/proc/self/exe").unwrap());
    let folder = OwnedFd::from(std::fs::File::open("/").unwrap());
    for other in [pipe, device, program, folder] {
        assert!(refused(&other, segment(30, 1, 0)), "{other:?}");
    }
    assert_eq!(window.find(30 * 4096, 1), None);
}

/// What is not there is not made on our account: it is an error, and nothing of it is shared.
#[test]
fn holes_are_not_filled() {
    if !tells_of_holes() {
        return;
    }
    let window = window();
    let holes = rustix::fs::memfd_create("holes", MemfdFlags::CLOEXEC).unwrap();
    rustix::fs::ftruncate(&holes, 4 * 4096).unwrap();
    rustix::io::pwrite(&holes, &[1; 4096], 0).unwrap();
    let blocks = || rustix::fs::fstat(&holes).unwrap().st_blocks;
    for wrong in [segment(20, 2, 0), segment(20, 3, 1)] {
        let refused = window.map(&holes, &wrong);
        assert!(matches!(refused, Err(RegionError::Mismatch(why)) if why.contains("all pages")), "{refused:?}");
        assert_eq!((blocks(), window.find(20 * 4096, 1), window.segments()), (8, None, 0));
    }
    window.map(&holes, &segment(20, 1, 0)).unwrap();
    // What was never written is there if it was allocated.
    rustix::fs::fallocate(&holes, FallocateFlags::empty(), 0, 4 * 4096).unwrap();
    window.map(&holes, &segment(21, 3, 1)).unwrap();
    assert_eq!((window.size(), window.segments()), (4 * 4096, 2));
}

/// A place in the address space that belongs to somebody else by now is not touched again, neither by a segment nor by the window's end;
/// one that belongs to nobody is taken back.
#[test]
fn gaps_are_closed_if_nobody_is_there() {
    let (window, file) = (window(), file(4));
    window.map(&file, &segment(0, 4, 0)).unwrap();
    window.map(&file, &segment(8, 4, 0)).unwrap();
    let unmap = |at: u64, pages: usize| {
        // SAFETY: a part of the window, which nobody reads.
        unsafe { rustix::mm::munmap(window.at(at * 4096).cast(), pages * 4096) }.unwrap();
    };
    // As the kernel leaves it where it fails in the middle.
    unmap(0, 4);
    assert_eq!(put_zeros(window.at(0), 4 * 4096, MapFlags::FIXED_NOREPLACE), Ok(()));
    unmap(8, 4);
    let other = window.at(9 * 4096);
    let flags = MapFlags::PRIVATE | MapFlags::FIXED_NOREPLACE;
    // SAFETY: nothing is mapped there.
    let theirs = unsafe { rustix::mm::mmap_anonymous(other.cast(), 4096, ProtFlags::READ | ProtFlags::WRITE, flags) };
    assert_eq!(theirs, Ok(other.cast()));
    // SAFETY: the page just mapped.
    unsafe { other.write_volatile(7) };
    assert_eq!(put_zeros(window.at(8 * 4096), 4 * 4096, MapFlags::FIXED_NOREPLACE), Err(Errno::EXIST));
    window.mapped().iter_mut().filter(|mapped| mapped.span.at > 0).for_each(|mapped| mapped.lost = true);
    assert!(window.unmap(segment(8, 4, 0).span).is_err() && window.map(&file, &segment(9, 1, 0)).is_err());
    assert_eq!(window.size(), 8 * 4096, "it counts until the window goes");
    drop(window);
    // SAFETY: as above; it is still there.
    assert_eq!(unsafe { other.read_volatile() }, 7);
    // SAFETY: ours, and nobody else's.
    unsafe { rustix::mm::munmap(other.cast(), 4096) }.unwrap();
}

/// Small pages are not taken for huge ones: a hole in them would be no page of the window.
#[test]
fn pages_are_of_the_windows_size() {
    let window = Window::new(WindowLayout::new(2 << 20, 64 << 20).unwrap()).unwrap();
    let small = file(4);
    rustix::fs::fallocate(&small, FallocateFlags::empty(), 0, 4 << 20).unwrap();
    let segment = Segment { span: Span { at: 0, length: 2 << 20 }, offset: 0 };
    assert!(matches!(window.map(&small, &segment), Err(RegionError::Mismatch(_))));
}
