//! The windows in which apps share memory, and what each takes until it is closed.
//!
//! What a window takes belongs to its user: addresses, memory, and mappings, of which Linux gives a process a number (`vm.max_map_count`)
//! that must never be used up: kopid could not even handle a hole any more. It is counted until the thread of the user has closed
//! the window, which may be long after its port has gone.

use crate::control::memory::Bytes;
use kopi_ring::layout::WindowLayout;
use kopi_ring::message::Segment;
use kopi_ring::{RegionError, Window};
use std::fs;
use std::sync::Arc;
use thiserror::Error;

/// Addresses that windows of all apps may take, and those of one user's: an eighth of what a process has where it has the least.
const ADDRESSES: u64 = 16 << 40;
const ADDRESSES_PER_USER: u64 = ADDRESSES / 2;
/// Mappings that a process may have unless the kernel says otherwise.
const MAPPINGS: usize = 65_530;

/// Why memory is not shared. The text goes to the app.
#[derive(Debug, Error)]
pub enum SharingRefusal {
    /// The administrator does not want it, or the kernel does not tell of holes.
    #[error(
        "kopid's configuration or policy does not let this application share memory, or its kernel has no userfaultfd \
         with the minor mode of Linux 5.14"
    )]
    NotWanted,
    /// There is a window already, or there are rings.
    #[error("a window is opened once, before there are rings")]
    Late,
    /// There is no window.
    #[error("there is no window for it")]
    NoWindow,
    /// Too many addresses.
    #[error("a window of {} asked for, and kopid has addresses for no more of them", Bytes(*asked))]
    Addresses {
        /// Bytes asked for.
        asked: u64,
    },
    /// Too much memory.
    #[error(
        "the applications of this user would share {} of memory, and [limits] memory_per_user allows {}: raise it in \
         kopid's configuration, or use less", Bytes(*asked), Bytes(*limit)
    )]
    Memory {
        /// Bytes that it would be.
        asked: u64,
        /// The limit.
        limit: u64,
    },
    /// Too many mappings.
    #[error(
        "{} would share memory in {asked} pieces, and kopid can map {limit}: use larger pages, `--single-file-segments` with \
         `-m`, or raise vm.max_map_count before kopid starts", if *all { "all applications" } else { "the applications of this user" }
    )]
    Segments {
        /// Pieces that it would be.
        asked: usize,
        /// The limit.
        limit: usize,
        /// Whether it is that of all apps.
        all: bool,
    },
    /// The window could not be had.
    #[error(transparent)]
    Window(#[from] RegionError),
}

/// What windows may take.
#[derive(Clone, Copy, Debug)]
pub struct WindowLimits {
    /// Bytes that the apps of one user may share.
    pub memory_per_user: u64,
    /// Segments of all apps, and of one user's.
    pub segments: usize,
    /// See `segments`.
    pub segments_per_user: usize,
}

impl WindowLimits {
    /// Limits where a process may have as many mappings as the kernel says. Half of them are for what is shared, and half of those
    /// for one user. A segment that has no neighbour takes three: its own, that of its file's page that is kept, and the gap behind it.
    #[must_use]
    pub fn new(memory_per_user: u64) -> Self {
        let said = fs::read_to_string("/proc/sys/vm/max_map_count").ok();
        let mappings = said.and_then(|text| text.trim().parse().ok()).unwrap_or(MAPPINGS);
        Self { memory_per_user, segments: mappings / 6, segments_per_user: mappings / 12 }
    }
}

/// All windows there are.
#[derive(Debug)]
pub struct Windows {
    limits: WindowLimits,
    all: Vec<OpenWindow>,
}

/// A window and what it takes.
#[derive(Debug)]
struct OpenWindow {
    account: u32,
    addresses: u64,
    /// Bytes that are shared, or about to be, and in how many segments.
    bytes: u64,
    segments: usize,
    state: State,
}

#[derive(Debug)]
enum State {
    /// An app has it.
    Used(Arc<Window>),
    /// No app has it any more, but perhaps a worker still does.
    Retired(Arc<Window>),
    /// The thread of its user closes it, as long as somebody else has this.
    Closing(Arc<()>),
}

impl OpenWindow {
    fn is_used_as(&self, window: &Arc<Window>) -> bool {
        matches!(&self.state, State::Used(own) if Arc::ptr_eq(own, window))
    }
}

impl Windows {
    /// None yet.
    #[must_use]
    pub const fn new(limits: WindowLimits) -> Self {
        Self { limits, all: Vec::new() }
    }

    /// Opens one for an app of user `account`, in which nothing is shared yet.
    ///
    /// # Errors
    ///
    /// [`SharingRefusal`].
    pub fn open(&mut self, account: u32, layout: WindowLayout) -> Result<Arc<Window>, SharingRefusal> {
        self.forget_closed();
        let asked = layout.size();
        let (of_user, of_all) = self.sums(account, |window| window.addresses);
        if of_all + asked > ADDRESSES || of_user + asked > ADDRESSES_PER_USER {
            return Err(SharingRefusal::Addresses { asked });
        }
        let window = Arc::new(Window::new(layout)?);
        let state = State::Used(Arc::clone(&window));
        self.all.push(OpenWindow { account, addresses: asked, bytes: 0, segments: 0, state });
        Ok(window)
    }

    /// Takes on segments that are about to be mapped.
    ///
    /// # Errors
    ///
    /// [`SharingRefusal`].
    pub fn share(&mut self, window: &Arc<Window>, segments: &[Segment]) -> Result<(), SharingRefusal> {
        self.forget_closed();
        let account = self.all.iter().find(|open| open.is_used_as(window)).map(|open| open.account);
        let account = account.ok_or(SharingRefusal::NoWindow)?;
        // A window has room for far less than the sum of lengths that lie.
        let more = segments.iter().fold(0_u64, |sum, segment| sum.saturating_add(segment.span.length));
        let (of_user, _) = self.sums(account, |window| window.bytes);
        let (asked, limit) = (of_user.saturating_add(more), self.limits.memory_per_user);
        if asked > limit {
            return Err(SharingRefusal::Memory { asked, limit });
        }
        let (of_user, of_all) = self.sums(account, |window| window.segments as u64);
        for (before, limit, all) in
            [(of_user, self.limits.segments_per_user, false), (of_all, self.limits.segments, true)]
        {
            let asked = usize::try_from(before).unwrap_or(usize::MAX).saturating_add(segments.len());
            if asked > limit {
                return Err(SharingRefusal::Segments { asked, limit, all });
            }
        }
        if let Some(open) = self.all.iter_mut().find(|open| open.is_used_as(window)) {
            open.bytes = open.bytes.saturating_add(more);
            open.segments += segments.len();
        }
        Ok(())
    }

    /// Notes what is shared there now that what its app asked for last was done, or could not be: what is there counts, not what it
    /// said.
    pub fn settle(&mut self, window: &Arc<Window>) {
        if let Some(open) = self.all.iter_mut().find(|open| open.is_used_as(window)) {
            (open.bytes, open.segments) = (window.size(), window.segments());
        }
    }

    /// Notes that no app uses a window any more.
    pub fn retire(&mut self, window: &Arc<Window>) {
        if let Some(open) = self.all.iter_mut().find(|open| open.is_used_as(window)) {
            open.state = State::Retired(Arc::clone(window));
        }
    }

    /// Has `close` close windows that no worker uses any more, by their users. Each is closed once what comes with it is dropped.
    pub fn close_idle(&mut self, mut close: impl FnMut(u32, Arc<Window>, Arc<()>)) {
        for open in &mut self.all {
            let State::Retired(window) = &open.state else { continue };
            if Arc::strong_count(window) == 1 {
                let closing = Arc::new(());
                let before = std::mem::replace(&mut open.state, State::Closing(Arc::clone(&closing)));
                if let State::Retired(window) = before {
                    close(open.account, window, closing);
                }
            }
        }
    }

    /// Whether workers may still use windows that no app has any more.
    #[must_use]
    pub fn awaits_workers(&self) -> bool {
        self.all.iter().any(|open| matches!(open.state, State::Retired(_)))
    }

    fn forget_closed(&mut self) {
        self.all.retain(|open| !matches!(&open.state, State::Closing(closing) if Arc::strong_count(closing) == 1));
    }

    /// Sums over the windows of a user, and over all.
    fn sums(&self, account: u32, of: impl Fn(&OpenWindow) -> u64) -> (u64, u64) {
        self.all.iter().fold((0, 0), |(user, all), open| {
            let more = of(open);
            (user + if open.account == account { more } else { 0 }, all + more)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kopi_ring::message::Span;
    use rustix::fd::OwnedFd;
    use rustix::fs::MemfdFlags;

    const PAGE: u64 = 4096;
    const LIMITS: WindowLimits = WindowLimits { memory_per_user: 100 * PAGE, segments: 12, segments_per_user: 8 };

    fn layout(pages: u64) -> WindowLayout {
        WindowLayout::new(PAGE, pages * PAGE).unwrap()
    }

    fn segments(pages: std::ops::Range<u64>) -> Vec<Segment> {
        pages.map(|at| Segment { span: Span { at: at * PAGE, length: PAGE }, offset: at * PAGE }).collect()
    }

    fn memory() -> OwnedFd {
        let file = rustix::fs::memfd_create("test", MemfdFlags::CLOEXEC).unwrap();
        rustix::fs::ftruncate(&file, 64 * PAGE).unwrap();
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, 64 * PAGE).unwrap();
        file
    }

    /// No user takes all mappings, nor do all together; what is let go of comes back, what was refused costs nothing, and the text says
    /// what to do.
    #[test]
    fn segments_are_limited() {
        let mut windows = Windows::new(LIMITS);
        let (one, other) = (windows.open(1, layout(64)).unwrap(), windows.open(2, layout(64)).unwrap());
        windows.share(&one, &segments(0..8)).unwrap();
        let refused = windows.share(&one, &segments(8..9)).unwrap_err();
        assert!(matches!(refused, SharingRefusal::Segments { asked: 9, limit: 8, all: false }), "{refused:?}");
        assert!(refused.to_string().contains("vm.max_map_count"), "{refused}");
        let refused = windows.share(&other, &segments(0..5)).unwrap_err();
        assert!(matches!(refused, SharingRefusal::Segments { asked: 13, limit: 12, all: true }), "{refused:?}");
        windows.share(&other, &segments(0..4)).unwrap();
        // Six of them were mapped, as it turns out.
        let file = memory();
        segments(0..6).iter().for_each(|segment| one.map(&file, segment).unwrap());
        windows.settle(&one);
        windows.share(&one, &segments(6..8)).unwrap();
        assert!(windows.share(&one, &segments(8..9)).is_err());
        one.unmap(Span { at: 0, length: 4 * PAGE }).unwrap();
        windows.settle(&one);
        windows.share(&one, &segments(0..6)).unwrap();
        let half = WindowLimits::new(1);
        assert!(half.segments > 2 * MAX_IN_ONE && half.segments_per_user <= half.segments / 2);
        // Two users, all of whose pieces lie apart, leave half of what there is.
        let most = fs::read_to_string("/proc/sys/vm/max_map_count").unwrap().trim().parse::<usize>().unwrap();
        assert!(2 * 3 * half.segments_per_user <= most / 2 && 3 * half.segments <= most / 2);
    }

    const MAX_IN_ONE: usize = kopi_ring::message::MAX_SEGMENTS;

    /// What a window takes counts until it is closed, and not only until its port goes: memory, segments and addresses.
    #[test]
    fn windows_count_until_they_are_closed() {
        let mut windows = Windows::new(LIMITS);
        let window = windows.open(1, layout(1 << 20)).unwrap();
        let addresses = window.layout().size();
        let file = memory();
        windows.share(&window, &segments(0..8)).unwrap();
        segments(0..8).iter().for_each(|segment| window.map(&file, segment).unwrap());
        windows.settle(&window);
        let sums = |windows: &Windows| (windows.sums(1, |open| open.addresses).0, windows.sums(1, |open| open.bytes).1);
        windows.retire(&window);
        assert!(windows.awaits_workers());
        windows.close_idle(|_, _, _| panic!("a worker has it"));
        drop(window);
        let mut closing = None;
        windows.close_idle(|account, window, token| closing = Some((account, window, token)));
        let Some((1, window, token)) = closing else { panic!("nobody has it") };
        assert!(!windows.awaits_workers());
        windows.close_idle(|_, _, _| panic!("it is closed once"));
        for _ in 0..2 {
            let next = windows.open(1, layout(1)).unwrap();
            assert!(matches!(windows.share(&next, &segments(0..1)), Err(SharingRefusal::Segments { .. })));
            assert!(sums(&windows).0 > addresses && sums(&windows).1 == 8 * PAGE);
        }
        drop(window);
        drop(token);
        let next = windows.open(1, layout(1)).unwrap();
        windows.share(&next, &segments(0..1)).unwrap();
        assert!(sums(&windows).0 < addresses);
        let long = vec![Segment { span: Span { at: 0, length: 100 * PAGE }, offset: 0 }];
        assert!(matches!(windows.share(&next, &long), Err(SharingRefusal::Memory { .. })));
        windows.retire(&next);
        windows.settle(&next);
        assert!(matches!(windows.share(&next, &segments(0..1)), Err(SharingRefusal::NoWindow)));
    }
}
