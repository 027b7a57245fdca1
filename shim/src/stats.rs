//! The statistics of a port, as applications read and reset them.

use crate::counters::{CountersSnapshot, DropCounts};
use crate::port_state::{PortState, SharingState, Slots};
use kopi_ring::DropReason;
use kopi_ring::layout::MAX_QUEUES;

/// The counters of a port: as they are, as they were at the last reset, or since then.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    pub(crate) rx: [CountersSnapshot; MAX_QUEUES],
    pub(crate) tx: [CountersSnapshot; MAX_QUEUES],
    drops: DropCounts,
    /// As it is, and never since the last reset.
    sharing: SharingState,
    /// Frames that were dropped for flow rules that count them.
    flow_dropped: u64,
    reconnects: u64,
    peer_faults: u64,
}

impl Totals {
    /// The counters of `state` since the last reset.
    pub(crate) fn of(state: &mut PortState) -> Self {
        let mut totals = Self::raw(state);
        let base = &state.base;
        totals.rx.iter_mut().zip(&base.rx).for_each(|(now, then)| *now = now.since(*then));
        totals.tx.iter_mut().zip(&base.tx).for_each(|(now, then)| *now = now.since(*then));
        totals.drops.iter_mut().zip(&base.drops).for_each(|(now, then)| *now = now.wrapping_sub(*then));
        totals.flow_dropped = totals.flow_dropped.wrapping_sub(base.flow_dropped);
        totals.reconnects = totals.reconnects.wrapping_sub(base.reconnects);
        totals.peer_faults = totals.peer_faults.wrapping_sub(base.peer_faults);
        totals
    }

    fn raw(state: &mut PortState) -> Self {
        let PortState { sharing, reconnects, peer_faults, .. } = *state;
        Self {
            rx: snapshots(&state.rx),
            tx: snapshots(&state.tx),
            drops: state.drops.totals(),
            sharing,
            flow_dropped: state.steering.dropped(),
            reconnects,
            peer_faults,
        }
    }

    /// Sets all counters of `state` back.
    pub(crate) fn reset(state: &mut PortState) {
        state.base = Self::raw(state);
    }

    /// All RX queues together.
    pub(crate) fn all_rx(&self) -> CountersSnapshot {
        self.rx.iter().fold(CountersSnapshot::default(), |sum, queue| sum.and(*queue))
    }

    /// All TX queues together.
    pub(crate) fn all_tx(&self) -> CountersSnapshot {
        self.tx.iter().fold(CountersSnapshot::default(), |sum, queue| sum.and(*queue))
    }

    /// Frames that the daemon dropped for `reason`.
    pub(crate) fn drops(&self, reason: DropReason) -> u64 {
        self.drops.get(reason.index()).copied().unwrap_or(0)
    }

    /// The extended statistics, in the order of [`names`].
    pub(crate) fn extended(&self) -> Vec<u64> {
        let drops = DropReason::ALL.iter().map(|reason| self.drops(*reason));
        drops.chain(EXTENDED.iter().map(|(_, value)| value(self))).collect()
    }
}

fn snapshots<E>(slots: &Slots<E>) -> [CountersSnapshot; MAX_QUEUES] {
    slots.each_ref().map(|slot| slot.as_ref().map(|slot| slot.counters().snapshot()).unwrap_or_default())
}

/// An extended statistic: its name and its value.
type Statistic = (&'static str, fn(&Totals) -> u64);

/// The extended statistics beside drops.
const EXTENDED: [Statistic; 12] = [
    ("rx_kopi_runt", |totals| totals.all_rx().runt),
    ("rx_kopi_link_down", |totals| totals.all_rx().link_down),
    ("rx_kopi_flow_dropped", |totals| totals.flow_dropped),
    ("tx_kopi_by_reference_packets", |totals| totals.all_tx().by_reference),
    ("tx_kopi_copied_packets", |totals| totals.all_tx().packets.wrapping_sub(totals.all_tx().by_reference)),
    ("tx_kopi_shared_bytes", |totals| totals.sharing.bytes),
    ("tx_kopi_copy_reason", |totals| totals.sharing.copy_reason as u64),
    ("tx_kopi_runt", |totals| totals.all_tx().runt),
    ("tx_kopi_oversize", |totals| totals.all_tx().oversize),
    ("tx_kopi_malformed", |totals| totals.all_tx().malformed),
    ("kopi_reconnects", |totals| totals.reconnects),
    ("kopi_peer_faults", |totals| totals.peer_faults),
];

/// The names of the extended statistics.
pub(crate) fn names() -> impl Iterator<Item = String> {
    let drops = DropReason::ALL.iter().map(|reason| format!("kopi_drop_{}", reason.name()));
    drops.chain(EXTENDED.iter().map(|(name, _)| (*name).to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::devargs::Args;
    use crate::ring_slot::RingSlot;
    use kopi_ring::{Geometry, HugePages, Region};
    use std::sync::Arc;

    /// Each extended statistic has a name that is unique and fits into ethdev's 64 bytes.
    #[test]
    fn names_match_values() {
        let mut state = PortState::new(&Args::default());
        let names: Vec<_> = names().collect();
        assert_eq!(names.len(), Totals::of(&mut state).extended().len());
        for (i, name) in names.iter().enumerate() {
            assert!(name.len() < 64 && !names[..i].contains(name), "{name}");
        }
    }

    /// A reset hides what was counted before, for queues and for the daemon's drops, and nothing that comes after.
    #[test]
    fn reset_starts_from_zero() {
        let mut state = PortState::new(&Args::default());
        let slot = Arc::new(RingSlot::new());
        state.rx[3] = Some(Arc::clone(&slot));
        let region = Region::create(&Geometry::new(&[64], &[64], 256).unwrap(), HugePages::Off).unwrap();
        state.drops.watch(region.status());
        slot.counters().packets.add(5);
        region.daemon_status().set_drops(DropReason::RxRingFull, 7);
        assert_eq!(Totals::of(&mut state).all_rx().packets, 5);
        assert_eq!(Totals::of(&mut state).drops(DropReason::RxRingFull), 7);
        Totals::reset(&mut state);
        assert_eq!(Totals::of(&mut state).all_rx(), CountersSnapshot::default());
        assert!(Totals::of(&mut state).extended().iter().all(|v| *v == 0));
        slot.counters().packets.add(2);
        assert_eq!(Totals::of(&mut state).rx[3].packets, 2);
    }
}
