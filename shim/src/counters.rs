//! The counters that a port is made of: of its queues, and of the daemon's drops.
//!
//! Counters have one writer each, the core that polls the queue or the daemon, and are never set back: a reset notes where they
//! stand, and later answers are relative to that.

use kopi_ring::status::StatusPage;
use kopi_ring::{Counter, DropReason};

/// The counters of one queue. Written by the core that polls the queue, read by any thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(128))]
pub(crate) struct Counters<T = Counter> {
    /// Frames handed over.
    pub(crate) packets: T,
    /// Their bytes.
    pub(crate) bytes: T,
    /// Frames dropped here because they are shorter than an Ethernet header.
    pub(crate) runt: T,
    /// Frames dropped here because they are longer than the MTU allows.
    pub(crate) oversize: T,
    /// Frames dropped here because their segments do not add up.
    pub(crate) malformed: T,
    /// Frames thrown away because they came while the application had the link down.
    pub(crate) link_down: T,
    /// Times that no packet buffer could be had.
    pub(crate) no_mbuf: T,
    /// Frames handed over of which only the head was copied.
    pub(crate) by_reference: T,
}

/// Counters of one queue at one moment.
pub(crate) type CountersSnapshot = Counters<u64>;

impl<T> Counters<T> {
    /// What `each` makes of every counter and its counterpart in `other`.
    fn zip(&self, other: &Self, each: impl Fn(&T, &T) -> u64) -> CountersSnapshot {
        Counters {
            packets: each(&self.packets, &other.packets),
            bytes: each(&self.bytes, &other.bytes),
            by_reference: each(&self.by_reference, &other.by_reference),
            runt: each(&self.runt, &other.runt),
            oversize: each(&self.oversize, &other.oversize),
            malformed: each(&self.malformed, &other.malformed),
            link_down: each(&self.link_down, &other.link_down),
            no_mbuf: each(&self.no_mbuf, &other.no_mbuf),
        }
    }
}

impl Counters {
    /// The counts so far.
    pub(crate) fn snapshot(&self) -> CountersSnapshot {
        self.zip(self, |counter, _| counter.get())
    }
}

impl CountersSnapshot {
    pub(crate) fn since(self, base: Self) -> Self {
        self.zip(&base, |now, then| now.wrapping_sub(*then))
    }

    pub(crate) fn and(self, other: Self) -> Self {
        self.zip(&other, |a, b| a.wrapping_add(*b))
    }

    /// Packets dropped by the queue because something is wrong with them.
    pub(crate) const fn errors(&self) -> u64 {
        self.runt.wrapping_add(self.oversize).wrapping_add(self.malformed)
    }
}

/// Frames that daemons have dropped on behalf of the port, over all attachments.
#[derive(Debug, Default)]
pub(crate) struct Drops {
    page: Option<StatusPage>,
    /// By daemons of the past.
    carried: DropCounts,
    /// By this daemon, as last seen.
    seen: DropCounts,
}

/// Frames dropped, by [`DropReason::index`].
pub(crate) type DropCounts = [u64; DropReason::ALL.len()];

impl Drops {
    /// Reads from `page` from now on. The same daemon goes on counting there.
    pub(crate) fn watch(&mut self, page: StatusPage) {
        self.refresh();
        self.page = Some(page);
    }

    /// Stops reading the page, before the daemon takes the region apart. The daemon goes on counting on the next page.
    pub(crate) fn unwatch(&mut self) {
        self.refresh();
        self.page = None;
    }

    /// The daemon is gone, and may have taken the region apart; the next one starts from zero.
    pub(crate) fn carry(&mut self) {
        self.page = None;
        for (carried, seen) in self.carried.iter_mut().zip(&mut self.seen) {
            *carried = carried.wrapping_add(std::mem::take(seen));
        }
    }

    /// Reads the page. It is all zeros until the daemon first writes it, so zero is ignored.
    pub(crate) fn refresh(&mut self) {
        let Some(page) = &self.page else { return };
        for (reason, seen) in DropReason::ALL.iter().zip(&mut self.seen) {
            match page.drops(*reason) {
                0 => {}
                frames => *seen = frames,
            }
        }
    }

    /// Frames dropped so far.
    pub(crate) fn totals(&mut self) -> DropCounts {
        self.refresh();
        let mut totals = self.carried;
        totals.iter_mut().zip(&self.seen).for_each(|(total, seen)| *total = total.wrapping_add(*seen));
        totals
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kopi_ring::{Geometry, HugePages, Region};

    /// Drops are not forgotten when rings are made anew or the daemon goes away.
    #[test]
    fn drops_outlive_rings_and_daemons() {
        let mut drops = Drops::default();
        let geometry = Geometry::new(&[64], &[64], 256).unwrap();
        let regions = [(); 3].map(|()| Region::create(&geometry, HugePages::Off).unwrap());
        let reason = DropReason::NoListener;
        drops.watch(regions[0].status());
        regions[0].daemon_status().set_drops(reason, 4);
        drops.watch(regions[1].status());
        assert_eq!(drops.totals()[reason.index()], 4, "the same daemon goes on from 4, but has not written yet");
        regions[1].daemon_status().set_drops(reason, 6);
        assert_eq!(drops.totals()[reason.index()], 6);
        drops.unwatch();
        regions[1].daemon_status().set_drops(reason, 100);
        assert_eq!(drops.totals()[reason.index()], 6, "not read any more");
        drops.carry();
        drops.watch(regions[2].status());
        regions[2].daemon_status().set_drops(reason, 1);
        assert_eq!(drops.totals()[reason.index()], 7, "another daemon starts from zero");
    }
}
