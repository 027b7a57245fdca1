//! The application's memory, as EAL has it, and how it is shared with the daemon.
//!
//! EAL's memory lies in ranges of addresses that never change, as lists of segments that come and go, and are files. The control
//! thread gives the daemon those files, a few at a time; where EAL adds or frees memory, its callback says so. A page that is
//! being freed counts as not shared from that moment on, so no packet in what is put there later is looked for in what was there
//! before.

use crate::event;
use crate::memory_left::memory_left;
use crate::memory_map::{List, MemoryMap};
use crate::sys;
use kopi_ring::message::{MAX_SEGMENTS, Segment, Span};
use rustix::fd::{BorrowedFd, OwnedFd};
use std::collections::BTreeMap;
use std::ffi::{CString, c_int, c_void};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bytes in one message: what the daemon maps in a few dozen milliseconds, even in small pages.
const AT_ONCE: usize = 256 << 20;
/// Bytes of a segment in small pages, so that several of those make up a message.
const PIECE: usize = 64 << 20;
/// Pages up to this size may not be there yet: EAL reserves no memory for them.
const SMALL: u64 = 4096;
/// `MADV_POPULATE_WRITE` (Linux 5.14).
const POPULATE_WRITE: c_int = 23;

/// What EAL's callback tells the control thread.
#[derive(Debug, Default)]
struct News {
    /// The map of this connection.
    map: Option<Arc<MemoryMap>>,
    /// Memory that was freed and that the daemon may still have.
    freed: Vec<Span>,
    /// Whether there is memory that was not looked at.
    fresh: bool,
}

/// Notices what EAL adds and frees, from when it is made until it is dropped.
#[derive(Debug)]
pub(crate) struct MemoryWatch {
    shared: Arc<Shared>,
    name: CString,
    /// Whether EAL calls. Where it does not, its memory never changes.
    watches: bool,
}

#[derive(Debug)]
struct Shared {
    news: Mutex<News>,
    /// What wakes the control thread.
    wake: OwnedFd,
}

impl Shared {
    fn news(&self) -> MutexGuard<'_, News> {
        self.news.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MemoryWatch {
    /// Watches for port `port`, whose control thread `wake` wakes.
    pub(crate) fn new(port: u16, wake: OwnedFd) -> Self {
        let shared = Arc::new(Shared { news: Mutex::default(), wake });
        let name = CString::new(format!("net_kopi_{port}")).unwrap_or_default();
        let argument = Arc::as_ptr(&shared).cast_mut().cast();
        // SAFETY: EAL copies the name; what the argument leads to stays until the callback is taken back.
        let refused = unsafe { sys::rte_mem_event_callback_register(name.as_ptr(), Some(on_event), argument) };
        Self { shared, name, watches: refused == 0 }
    }

    /// Begins to share on a new connection: what the daemon of the last one had is of no interest any more. `None` if EAL has no memory of
    /// its own that any window could hold.
    pub(crate) fn begin(&self) -> Option<Sharing> {
        let lists = lists();
        let map = MemoryMap::new(&lists).map(Arc::new);
        *self.shared.news() = News { map: map.clone(), freed: Vec::new(), fresh: true };
        Some(Sharing {
            map: map?,
            shared: Arc::clone(&self.shared),
            given: BTreeMap::new(),
            pending: None,
            unfit: None,
            stays: !self.watches,
            ended: false,
            can_fill: can_fill(&lists),
        })
    }
}

#[cfg(test)]
impl MemoryWatch {
    /// What happens when EAL calls.
    pub(crate) fn pretend(&self, event: sys::rte_mem_event, start: usize, length: usize) {
        let argument = Arc::as_ptr(&self.shared).cast_mut().cast();
        // SAFETY: what is registered.
        unsafe { on_event(event, std::ptr::without_provenance(start), length, argument) };
    }
}

impl Drop for MemoryWatch {
    fn drop(&mut self) {
        if self.watches {
            let argument = Arc::as_ptr(&self.shared).cast_mut().cast();
            // SAFETY: the callback registered under this name with this argument; afterwards none of its calls is under way.
            unsafe { sys::rte_mem_event_callback_unregister(self.name.as_ptr(), argument) };
        }
    }
}

/// EAL has added memory, or is about to free some. It holds its locks.
unsafe extern "C" fn on_event(event: sys::rte_mem_event, start: *const c_void, length: usize, argument: *mut c_void) {
    // SAFETY: what was registered, which stays until the callback is taken back.
    let shared = unsafe { &*argument.cast::<Shared>() };
    let mut news = shared.news();
    if event == sys::RTE_MEM_EVENT_FREE {
        if let Some(map) = &news.map
            && let Some(span) = map.span(start.addr(), length)
        {
            map.set(span, false);
            news.freed.push(span);
        }
    } else {
        news.fresh = true;
    }
    drop(news);
    event::signal(&shared.wake);
}

/// What one daemon has been given.
#[derive(Debug)]
pub(crate) struct Sharing {
    map: Arc<MemoryMap>,
    shared: Arc<Shared>,
    /// The lengths of the segments that it has, by their places.
    given: BTreeMap<u64, u64>,
    /// What it is being asked to do.
    pending: Option<Step>,
    /// Why some memory is not shared.
    unfit: Option<&'static str>,
    /// Whether memory is never freed.
    stays: bool,
    /// Whether no more is to be shared than is.
    ended: bool,
    /// Whether all pages may be filled that are not there yet.
    can_fill: bool,
}

/// What the daemon is to be told next.
#[derive(Debug)]
pub(crate) enum Step {
    /// It is to give these back.
    Unshare(Vec<Span>),
    /// It gets these, each with its file.
    Share(Vec<(Segment, OwnedFd)>),
}

impl Sharing {
    /// Has nothing count as shared any more. What the queues hold stays with them until it was read.
    pub(crate) fn end(self) {
        let mut news = self.shared.news();
        self.given.iter().for_each(|(at, length)| self.map.set(Span { at: *at, length: *length }, false));
        *news = News::default();
    }

    /// Which memory the daemon reads.
    pub(crate) const fn map(&self) -> &Arc<MemoryMap> {
        &self.map
    }

    /// Bytes that the daemon has.
    pub(crate) fn bytes(&self) -> u64 {
        self.given.values().fold(0, |sum: u64, length| sum.saturating_add(*length))
    }

    /// Why some memory is not shared, if any is not.
    pub(crate) const fn unfit(&self) -> Option<&'static str> {
        self.unfit
    }

    /// What the daemon is to be told next, if anything. It has to be [done](Self::done) before the next call.
    pub(crate) fn next(&mut self) -> Option<&Step> {
        let freed = std::mem::take(&mut self.shared.news().freed);
        let mut old: Vec<Span> = Vec::new();
        for span in freed {
            // A segment of ours may be longer than what was freed: it goes as a whole, and what is left of it comes again.
            let touched = self.given.range(..span.at.saturating_add(span.length)).rev();
            let touched = touched.take_while(|(at, length)| at.saturating_add(**length) > span.at);
            old.extend(touched.map(|(at, length)| Span { at: *at, length: *length }));
        }
        old.sort_unstable_by_key(|span| span.at);
        old.dedup();
        if let Some((later, now)) =
            old.split_at_checked(MAX_SEGMENTS).map(|(now, later)| (later.to_vec(), now.to_vec()))
        {
            self.shared.news().freed.extend(later);
            old = now;
        }
        if !old.is_empty() {
            old.iter().for_each(|span| self.map.set(*span, false));
            self.shared.news().fresh = true;
            self.pending = Some(Step::Unshare(old));
            return self.pending.as_ref();
        }
        if !std::mem::take(&mut self.shared.news().fresh) || self.ended {
            return None;
        }
        let segments = self.scan();
        if segments.is_empty() {
            return None;
        }
        self.pending = Some(Step::Share(segments));
        self.pending.as_ref()
    }

    /// The daemon does not take what it was to be told. Returns whether it goes on with what it has: no more of the memory is shared, and
    /// what is freed is taken back still.
    pub(crate) fn refused(&mut self) -> bool {
        self.ended = true;
        matches!(self.pending.take(), Some(Step::Share(_))) && !self.given.is_empty()
    }

    /// The daemon has done it.
    pub(crate) fn done(&mut self) {
        match self.pending.take() {
            Some(Step::Unshare(spans)) => self.given.retain(|at, _| spans.iter().all(|span| span.at != *at)),
            Some(Step::Share(segments)) => {
                // Under the lock, so that nothing counts as shared that is being freed.
                let mut news = self.shared.news();
                for (Segment { span, .. }, _) in &segments {
                    self.given.insert(span.at, span.length);
                    let gone = news.freed.iter().any(|freed| {
                        freed.at < span.at.saturating_add(span.length)
                            && span.at < freed.at.saturating_add(freed.length)
                    });
                    if !gone {
                        self.map.set(*span, true);
                    }
                }
                news.fresh = true;
            }
            None => {}
        }
    }

    /// Some segments that the daemon does not have yet, with their files.
    fn scan(&mut self) -> Vec<(Segment, OwnedFd)> {
        let mut scan = Scan {
            map: &self.map,
            given: &self.given,
            found: Vec::new(),
            bytes: 0,
            last: None,
            unfit: None,
            stays: self.stays,
        };
        // SAFETY: the callback is called during this call alone, with `scan`.
        unsafe { sys::rte_memseg_walk(Some(on_segment), (&raw mut scan).cast()) };
        let Scan { mut found, unfit, .. } = scan;
        self.unfit = unfit;
        if self.map.layout().page() <= SMALL {
            let Self { map, unfit, can_fill, .. } = self;
            let fill = |span| if *can_fill { populate(map, span) } else { Err(SHORT) };
            found.retain(|(segment, _)| fill(segment.span).map_err(|why| *unfit = Some(why)).is_ok());
        }
        found
    }
}

/// A walk over all segments.
struct Scan<'a> {
    map: &'a MemoryMap,
    given: &'a BTreeMap<u64, u64>,
    found: Vec<(Segment, OwnedFd)>,
    bytes: usize,
    /// EAL's number of the file of the last one, if what lies behind it may be added to it: what may be freed by itself has to be let
    /// go of by itself, or packets beside it would be lost.
    last: Option<c_int>,
    unfit: Option<&'static str>,
    /// Whether memory is never freed.
    stays: bool,
}

/// Calls `scan.add` with a segment. EAL holds its locks.
unsafe extern "C" fn on_segment(
    list: *const sys::rte_memseg_list,
    segment: *const sys::rte_memseg,
    scan: *mut c_void,
) -> c_int {
    // SAFETY: what was given to the walk, which nobody else uses meanwhile.
    let scan = unsafe { &mut *scan.cast::<Scan<'_>>() };
    let mut memory = NO_MEMORY;
    // SAFETY: valid during the walk.
    unsafe { sys::kopi_memseg_get(list, segment, &raw mut memory) };
    if memory.external {
        return 0;
    }
    let Some(span) = scan.map.span(memory.start.addr(), memory.length) else { return 0 };
    let before = scan.given.range(..=span.at).next_back();
    if before.is_some_and(|(at, length)| span.at < at.saturating_add(*length)) {
        return 0;
    }
    // SAFETY: a segment that is there, under EAL's lock.
    let fd = unsafe { sys::rte_memseg_get_fd_thread_unsafe(segment) };
    let mut offset = 0;
    // SAFETY: likewise.
    let placed = unsafe { sys::rte_memseg_get_fd_offset_thread_unsafe(segment, &raw mut offset) };
    if fd < 0 || placed != 0 {
        scan.unfit = Some("EAL has no files of it");
        return 0;
    }
    let grows = memory.page <= SMALL;
    let stays = scan.stays || memory.fixed;
    let last = scan.found.last_mut().map(|(last, _)| last);
    if let Some(last) = last
        && stays
        && scan.last == Some(fd)
        && last.span.at.saturating_add(last.span.length) == span.at
        && last.offset.saturating_add(last.span.length) == offset as u64
        && (!grows || last.span.length < PIECE as u64)
    {
        last.span.length = last.span.length.saturating_add(span.length);
    } else {
        if scan.found.len() >= MAX_SEGMENTS || scan.bytes >= AT_ONCE {
            return 1;
        }
        // SAFETY: EAL's own descriptor, which stays open while it holds its lock.
        let Ok(own) = rustix::io::fcntl_dupfd_cloexec(unsafe { BorrowedFd::borrow_raw(fd) }, 0) else {
            scan.unfit = Some("there are no file descriptors left");
            return 1;
        };
        scan.found.push((Segment { span, offset: offset as u64 }, own));
        scan.last = stays.then_some(fd);
    }
    scan.bytes = scan.bytes.saturating_add(memory.length);
    0
}

/// Whether memory in small pages may be filled, none of which need be there yet. An application may have asked for more than it ever
/// uses, and would be killed.
fn can_fill(lists: &[List]) -> bool {
    let small = lists.iter().filter(|list| list.page <= SMALL);
    small.fold(0_u64, |sum, list| sum.saturating_add(list.length as u64)) <= memory_left() / 2
}

/// Why memory is not filled.
const SHORT: &str = "there is not memory enough to fill all its pages";

/// Has all pages of `span` be there, as the daemon wants them: on our account.
fn populate(map: &MemoryMap, span: Span) -> Result<(), &'static str> {
    let (start, length) = map.address(span).zip(usize::try_from(span.length).ok()).ok_or(SHORT)?;
    let start = std::ptr::with_exposed_provenance_mut(start);
    // SAFETY: memory of EAL's, which stays as it is, but for pages that were never written: they become zeros, as they read now.
    let done = unsafe { libc::madvise(start, length, POPULATE_WRITE) };
    match std::io::Error::last_os_error().raw_os_error() {
        _ if done == 0 => Ok(()),
        Some(libc::EINVAL) => Err("this kernel cannot fill its pages: MADV_POPULATE_WRITE is of Linux 5.14"),
        _ => Err(SHORT),
    }
}

/// No memory yet.
const NO_MEMORY: sys::kopi_memory =
    sys::kopi_memory { start: std::ptr::null_mut(), length: 0, page: 0, external: true, fixed: false };

/// The ranges in which EAL has its own memory.
fn lists() -> Vec<List> {
    let mut lists: Vec<List> = Vec::new();
    // SAFETY: the callback is called during this call alone, with `lists`.
    unsafe { sys::rte_memseg_list_walk(Some(on_list), (&raw mut lists).cast()) };
    lists
}

unsafe extern "C" fn on_list(list: *const sys::rte_memseg_list, lists: *mut c_void) -> c_int {
    // SAFETY: what was given to the walk, which nobody else uses meanwhile.
    let lists = unsafe { &mut *lists.cast::<Vec<List>>() };
    let mut memory = NO_MEMORY;
    // SAFETY: valid during the walk.
    unsafe { sys::kopi_memseg_list_get(list, &raw mut memory) };
    if !memory.external && memory.length > 0 && memory.page > 0 {
        lists.push(List { start: memory.start.addr(), length: memory.length, page: memory.page });
    }
    0
}
