//! Which memory of the application the daemon may read, and where that lies in the window that both sides count by.

use kopi_ring::layout::WindowLayout;
use kopi_ring::message::Span;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

/// A range of addresses in which EAL has memory of one kind, or may get some later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct List {
    /// Its first address.
    pub(crate) start: usize,
    /// Its bytes.
    pub(crate) length: usize,
    /// Bytes of its pages.
    pub(crate) page: u64,
}

/// EAL's ranges of addresses one behind the other in a window, with a bit for each page that the daemon reads. The control thread
/// sets them; EAL's callback, too, takes them back.
#[derive(Debug)]
pub(crate) struct MemoryMap {
    /// With the place of each in the window.
    lists: Box<[(List, u64)]>,
    layout: WindowLayout,
    shared: Box<[AtomicU64]>,
}

impl MemoryMap {
    /// A map of `lists`, nothing of which is shared. `None` if no window can hold any of them: those that do not fit are left out.
    pub(crate) fn new(lists: &[List]) -> Option<Self> {
        let page = lists.iter().map(|list| list.page).min()?;
        let mut placed = Vec::new();
        let mut layout = None;
        let mut end = 0_u64;
        for list in lists {
            // Pages of every size lie where those can be mapped.
            let Some(at) = end.checked_next_multiple_of(list.page) else { continue };
            let Some(next) = at.checked_add(list.length as u64) else { continue };
            if let Ok(longer) = WindowLayout::new(page, next) {
                placed.push((*list, at));
                layout = Some(longer);
                end = next;
            }
        }
        let layout = layout?;
        let words = (layout.size() >> layout.page().ilog2()).div_ceil(64);
        let shared = (0..words).map(|_| AtomicU64::new(0)).collect();
        Some(Self { lists: placed.into(), layout, shared })
    }

    /// The window.
    pub(crate) const fn layout(&self) -> WindowLayout {
        self.layout
    }

    /// The part of the window that a range of addresses has, whether or not it is shared, if it lies in one list.
    pub(crate) fn span(&self, start: usize, length: usize) -> Option<Span> {
        let (list, at) = self.lists.iter().find(|(list, _)| list.has(start, length))?;
        let inside = start.wrapping_sub(list.start) as u64;
        Some(Span { at: at.wrapping_add(inside), length: length as u64 })
    }

    /// The first address of a part of the window.
    pub(crate) fn address(&self, span: Span) -> Option<usize> {
        let within =
            |(list, at): &&(List, u64)| span.at.checked_sub(*at).is_some_and(|inside| inside < list.length as u64);
        let (list, at) = self.lists.iter().find(within)?;
        usize::try_from(span.at.wrapping_sub(*at)).ok().and_then(|inside| list.start.checked_add(inside))
    }

    /// Where in the window `len` bytes at `start` lie, if the daemon reads them. `last` is the list in which the bytes before were found,
    /// and where these are looked for first.
    #[inline]
    pub(crate) fn find(&self, start: *const u8, len: usize, last: &mut usize) -> Option<u64> {
        let start = start.addr();
        let (list, at) = match self.lists.get(*last) {
            Some(found) if found.0.has(start, len) => found,
            _ => self.search(start, len, last)?,
        };
        let at = at.wrapping_add(start.wrapping_sub(list.start) as u64);
        let bits = self.layout.page().ilog2();
        let (mut page, end) = (at >> bits, at.wrapping_add(len as u64).wrapping_sub(1) >> bits);
        loop {
            let word = self.shared.get(usize::try_from(page >> 6).ok()?)?.load(Relaxed);
            if word >> (page & 63) & 1 == 0 {
                return None;
            }
            if page == end {
                return Some(at);
            }
            page = page.wrapping_add(1);
        }
    }

    #[cold]
    fn search(&self, start: usize, len: usize, last: &mut usize) -> Option<&(List, u64)> {
        *last = self.lists.iter().position(|(list, _)| list.has(start, len))?;
        self.lists.get(*last)
    }

    /// Notes that the daemon reads the pages of `span` from now on, or is not to any more.
    pub(crate) fn set(&self, span: Span, shared: bool) {
        let bits = self.layout.page().ilog2();
        for page in span.at >> bits..span.at.saturating_add(span.length) >> bits {
            let Some(word) = usize::try_from(page >> 6).ok().and_then(|at| self.shared.get(at)) else { return };
            let bit = 1_u64 << (page & 63);
            // Relaxed: who has a packet in new memory got it by way of EAL's locks.
            if shared {
                word.fetch_or(bit, Relaxed);
            } else {
                word.fetch_and(!bit, Relaxed);
            }
        }
    }
}

impl List {
    const fn has(&self, start: usize, length: usize) -> bool {
        let inside = start.wrapping_sub(self.start);
        inside < self.length && length <= self.length.wrapping_sub(inside) && length > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: usize = 2 << 20;

    fn find(map: &MemoryMap, start: usize, len: usize) -> Option<u64> {
        map.find(std::ptr::without_provenance(start), len, &mut 0)
    }

    /// Addresses are found where the window has them, if all of their pages are shared, whichever list was looked at before.
    #[test]
    fn shared_addresses_have_a_place() {
        let lists = [
            List { start: 1 << 32, length: 8 * PAGE, page: PAGE as u64 },
            List { start: 1 << 40, length: 2 << 30, page: 1 << 30 },
        ];
        let map = MemoryMap::new(&lists).unwrap();
        assert_eq!((map.layout().page(), map.layout().size()), (PAGE as u64, 3 << 30));
        assert_eq!(find(&map, 1 << 32, 100), None);
        let span = map.span((1 << 32) + PAGE, 2 * PAGE).unwrap();
        assert_eq!((span.at, map.address(span)), (PAGE as u64, Some((1 << 32) + PAGE)));
        map.set(span, true);
        let second = map.span((1 << 40) + (1 << 30), 1 << 30).unwrap();
        assert_eq!((second.at, map.address(second)), (2 << 30, Some((1 << 40) + (1 << 30))));
        map.set(second, true);
        let mut last = 0;
        for _ in 0..2 {
            for (start, len, at) in [
                ((1 << 32) + PAGE, 100, Some(PAGE as u64)),
                ((1 << 32) + 2 * PAGE - 50, 100, Some(2 * PAGE as u64 - 50)),
                ((1 << 32) + 3 * PAGE - 100, 100, Some(3 * PAGE as u64 - 100)),
                ((1 << 32) + 3 * PAGE - 99, 100, None),
                ((1 << 32) + PAGE - 1, 100, None),
                ((1 << 40) + (1 << 30) + 5, 100, Some((2 << 30) + 5)),
                ((1 << 40) + (2 << 30) - 99, 100, None),
                ((1 << 40) + (1 << 30) - 1, 1, None),
                (0, 100, None),
                (usize::MAX - 5, 100, None),
            ] {
                assert_eq!(map.find(std::ptr::without_provenance(start), len, &mut last), at, "{start:#x} {len}");
            }
        }
        map.set(span, false);
        assert_eq!(find(&map, (1 << 32) + PAGE, 100), None);
    }

    /// What no window can hold is left out, and the rest is there.
    #[test]
    fn lists_that_do_not_fit_are_left_out() {
        let small = List { start: 1 << 32, length: 64 << 20, page: 4096 };
        let large = List { start: 1 << 40, length: 1 << 39, page: 4096 };
        assert!(MemoryMap::new(&[]).is_none() && MemoryMap::new(&[large]).is_none());
        let map = MemoryMap::new(&[large, small]).unwrap();
        assert_eq!((map.span(1 << 40, 4096), map.span(1 << 32, 4096)), (None, Some(Span { at: 0, length: 4096 })));
    }
}
