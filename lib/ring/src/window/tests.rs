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
    let holes = rustix::fs::memfd_create("holes", MemfdFlags::CLOEXEC).unwrap();
    rustix::fs::ftruncate(&holes, 4 * 4096).unwrap();
    rustix::io::pwrite(&holes, &[1; 4096], 0).unwrap();
    assert!(refused(&holes, segment(20, 2, 0)));
    window.map(&holes, &segment(20, 1, 0)).unwrap();
    // What is allocated and was never written counts as a hole.
    rustix::fs::fallocate(&holes, FallocateFlags::empty(), 0, 4 * 4096).unwrap();
    assert!(refused(&holes, segment(21, 3, 1)));
    rustix::io::pwrite(&holes, &[1; 3 * 4096], 4096).unwrap();
    window.map(&holes, &segment(21, 3, 1)).unwrap();
    let (pipe, _other) = rustix::pipe::pipe().unwrap();
    let device = OwnedFd::from(std::fs::File::open("/dev/zero").unwrap());
    let program = OwnedFd::from(std::fs::File::open("/proc/self/exe").unwrap());
    let folder = OwnedFd::from(std::fs::File::open("/").unwrap());
    for other in [pipe, device, program, folder] {
        assert!(refused(&other, segment(30, 1, 0)), "{other:?}");
    }
    assert_eq!(window.find(30 * 4096, 1), None);
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
