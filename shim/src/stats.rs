//! The port's counters.
//!
//! Counters have one writer each, the core that polls the queue or the daemon, and are never set back: a reset notes
//! where they stand, and later answers are relative to that.

use crate::handoff::Counters;
use crate::port::State;
use kopi_ring::DropReason;
use kopi_ring::layout::MAX_QUEUES;
use kopi_ring::status::{DROP_COUNTERS, StatusPage};

/// Counters of one queue at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Snapshot {
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
    pub(crate) runt: u64,
    pub(crate) oversize: u64,
    pub(crate) malformed: u64,
    pub(crate) link_down: u64,
    pub(crate) no_mbuf: u64,
}

impl Snapshot {
    fn of(counters: &Counters) -> Self {
        Self {
            packets: counters.packets.get(),
            bytes: counters.bytes.get(),
            runt: counters.runt.get(),
            oversize: counters.oversize.get(),
            malformed: counters.malformed.get(),
            link_down: counters.link_down.get(),
            no_mbuf: counters.no_mbuf.get(),
        }
    }

    fn with(self, other: Self, each: impl Fn(u64, u64) -> u64) -> Self {
        Self {
            packets: each(self.packets, other.packets),
            bytes: each(self.bytes, other.bytes),
            runt: each(self.runt, other.runt),
            oversize: each(self.oversize, other.oversize),
            malformed: each(self.malformed, other.malformed),
            link_down: each(self.link_down, other.link_down),
            no_mbuf: each(self.no_mbuf, other.no_mbuf),
        }
    }

    fn since(self, base: Self) -> Self {
        self.with(base, u64::wrapping_sub)
    }

    fn and(self, other: Self) -> Self {
        self.with(other, u64::wrapping_add)
    }

    /// Packets dropped by the queue because something is wrong with them.
    pub(crate) const fn errors(&self) -> u64 {
        self.runt.wrapping_add(self.oversize).wrapping_add(self.malformed)
    }
}

/// Frames that daemons have dropped on behalf of the port, over all attachments.
#[derive(Debug)]
pub(crate) struct Drops {
    page: Option<StatusPage>,
    /// By daemons of the past.
    carried: [u64; DROP_COUNTERS],
    /// By this daemon, as last seen.
    seen: [u64; DROP_COUNTERS],
}

impl Default for Drops {
    fn default() -> Self {
        Self { page: None, carried: [0; DROP_COUNTERS], seen: [0; DROP_COUNTERS] }
    }
}

impl Drops {
    /// Reads from `page` from now on. The same daemon goes on counting there.
    pub(crate) fn watch(&mut self, page: StatusPage) {
        self.look();
        self.page = Some(page);
    }

    /// Lets go of the page, before the daemon takes the region apart. It goes on counting, on another page to come.
    pub(crate) fn unwatch(&mut self) {
        self.look();
        self.page = None;
    }

    /// This daemon is gone, and may have taken the region apart; the next one starts from zero.
    pub(crate) fn carry(&mut self) {
        self.page = None;
        for (carried, seen) in self.carried.iter_mut().zip(&mut self.seen) {
            *carried = carried.wrapping_add(std::mem::take(seen));
        }
    }

    /// Notes what the daemon says now. A page is all zeros until the daemon first writes it, so zero is no news.
    pub(crate) fn look(&mut self) {
        let Some(page) = &self.page else { return };
        for (reason, seen) in DropReason::ALL.iter().zip(&mut self.seen) {
            match page.drops(*reason) {
                0 => {}
                frames => *seen = frames,
            }
        }
    }

    /// Frames dropped so far, by [`DropReason::index`].
    fn totals(&mut self) -> [u64; DROP_COUNTERS] {
        self.look();
        let mut totals = self.carried;
        totals.iter_mut().zip(&self.seen).for_each(|(total, seen)| *total = total.wrapping_add(*seen));
        totals
    }
}

/// Where the counters stood when they were last reset.
#[derive(Debug)]
pub(crate) struct Base {
    rx: [Snapshot; MAX_QUEUES],
    tx: [Snapshot; MAX_QUEUES],
    drops: [u64; DROP_COUNTERS],
    reconnects: u64,
    peer_faults: u64,
}

impl Default for Base {
    fn default() -> Self {
        Self {
            rx: [Snapshot::default(); MAX_QUEUES],
            tx: [Snapshot::default(); MAX_QUEUES],
            drops: [0; DROP_COUNTERS],
            reconnects: 0,
            peer_faults: 0,
        }
    }
}

impl Base {
    /// RX queue `index` starts from zero.
    pub(crate) fn forget_rx(&mut self, index: u16) {
        if let Some(base) = self.rx.get_mut(usize::from(index)) {
            *base = Snapshot::default();
        }
    }

    /// TX queue `index` starts from zero.
    pub(crate) fn forget_tx(&mut self, index: u16) {
        if let Some(base) = self.tx.get_mut(usize::from(index)) {
            *base = Snapshot::default();
        }
    }
}

/// The counters of a port since the last reset.
#[derive(Debug)]
pub(crate) struct Totals {
    pub(crate) rx: [Snapshot; MAX_QUEUES],
    pub(crate) tx: [Snapshot; MAX_QUEUES],
    drops: [u64; DROP_COUNTERS],
    reconnects: u64,
    peer_faults: u64,
}

impl Totals {
    /// The counters of `state` now.
    pub(crate) fn of(state: &mut State) -> Self {
        let mut totals = Self::raw(state);
        let base = &state.base;
        totals.rx.iter_mut().zip(&base.rx).for_each(|(now, then)| *now = now.since(*then));
        totals.tx.iter_mut().zip(&base.tx).for_each(|(now, then)| *now = now.since(*then));
        totals.drops.iter_mut().zip(&base.drops).for_each(|(now, then)| *now = now.wrapping_sub(*then));
        totals.reconnects = totals.reconnects.wrapping_sub(base.reconnects);
        totals.peer_faults = totals.peer_faults.wrapping_sub(base.peer_faults);
        totals
    }

    fn raw(state: &mut State) -> Self {
        let mut rx = [Snapshot::default(); MAX_QUEUES];
        let mut tx = [Snapshot::default(); MAX_QUEUES];
        for (snapshot, handoff) in rx.iter_mut().zip(&state.rx) {
            *snapshot = handoff.as_ref().map(|h| Snapshot::of(h.counters())).unwrap_or_default();
        }
        for (snapshot, handoff) in tx.iter_mut().zip(&state.tx) {
            *snapshot = handoff.as_ref().map(|h| Snapshot::of(h.counters())).unwrap_or_default();
        }
        let drops = state.drops.totals();
        Self { rx, tx, drops, reconnects: state.reconnects, peer_faults: state.peer_faults }
    }

    /// Sets all counters of `state` back.
    pub(crate) fn reset(state: &mut State) {
        let Self { rx, tx, drops, reconnects, peer_faults } = Self::raw(state);
        state.base = Base { rx, tx, drops, reconnects, peer_faults };
    }

    /// All RX queues together.
    pub(crate) fn all_rx(&self) -> Snapshot {
        self.rx.iter().fold(Snapshot::default(), |sum, queue| sum.and(*queue))
    }

    /// All TX queues together.
    pub(crate) fn all_tx(&self) -> Snapshot {
        self.tx.iter().fold(Snapshot::default(), |sum, queue| sum.and(*queue))
    }

    /// Frames that the daemon dropped for `reason`.
    pub(crate) fn drops(&self, reason: DropReason) -> u64 {
        self.drops.get(reason.index()).copied().unwrap_or(0)
    }

    /// The extended statistics, in the order of [`names`].
    pub(crate) fn extended(&self) -> Vec<u64> {
        let (rx, tx) = (self.all_rx(), self.all_tx());
        let own = [rx.runt, rx.link_down, tx.runt, tx.oversize, tx.malformed, self.reconnects, self.peer_faults];
        DropReason::ALL.iter().map(|reason| self.drops(*reason)).chain(own).collect()
    }
}

/// The names of the extended statistics.
pub(crate) fn names() -> impl Iterator<Item = String> {
    let own = [
        "rx_kopi_runt",
        "rx_kopi_link_down",
        "tx_kopi_runt",
        "tx_kopi_oversize",
        "tx_kopi_malformed",
        "kopi_reconnects",
        "kopi_peer_faults",
    ];
    let drops = DropReason::ALL.iter().map(|reason| format!("kopi_drop_{}", reason.name()));
    drops.chain(own.into_iter().map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::devargs::Args;
    use crate::handoff::Handoff;
    use kopi_ring::{Geometry, HugePages, Region};
    use std::sync::Arc;

    /// Each extended statistic has a name that is unique and fits into ethdev's 64 bytes.
    #[test]
    fn names_match_values() {
        let mut state = State::new(&Args::default());
        let names: Vec<_> = names().collect();
        assert_eq!(names.len(), Totals::of(&mut state).extended().len());
        for (i, name) in names.iter().enumerate() {
            assert!(name.len() < 64 && !names[..i].contains(name), "{name}");
        }
    }

    /// A reset hides what was counted before, for queues and for the daemon's drops, and nothing that comes after.
    #[test]
    fn reset_starts_from_zero() {
        let mut state = State::new(&Args::default());
        let handoff = Arc::new(Handoff::new());
        state.rx[3] = Some(Arc::clone(&handoff));
        let region = Region::create(&Geometry::new(&[64], &[64], 256).unwrap(), HugePages::Off).unwrap();
        state.drops.watch(region.status());
        handoff.counters().packets.add(5);
        region.daemon_status().set_drops(DropReason::RxRingFull, 7);
        assert_eq!(Totals::of(&mut state).all_rx().packets, 5);
        assert_eq!(Totals::of(&mut state).drops(DropReason::RxRingFull), 7);
        Totals::reset(&mut state);
        assert_eq!(Totals::of(&mut state).all_rx(), Snapshot::default());
        assert!(Totals::of(&mut state).extended().iter().all(|v| *v == 0));
        handoff.counters().packets.add(2);
        assert_eq!(Totals::of(&mut state).rx[3].packets, 2);
    }

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
        assert_eq!(drops.totals()[reason.index()], 6, "not looked at any more");
        drops.carry();
        drops.watch(regions[2].status());
        regions[2].daemon_status().set_drops(reason, 1);
        assert_eq!(drops.totals()[reason.index()], 7, "another daemon starts from zero");
    }
}
