//! The physical port as one worker sees it.

use crate::worker::counters::{PortCounters, WorkerCounters};
use dpdk::{Batch, Mbuf, Refused, RxQueue, TxQueue};
use kopi_ring::DropReason;
use std::sync::Arc;

/// One worker's share of the wire. A wire with fewer queues than there are workers leaves some without.
#[derive(Debug)]
pub struct Wire {
    rx: Option<RxQueue>,
    tx: Option<TxQueue>,
    /// Frames that the wire has not taken yet, oldest first.
    backlog: Batch,
    /// Where it is counted, if checksums are finished that were left to a card.
    finishing: Option<Arc<WorkerCounters>>,
}

impl Wire {
    /// A share with these queues.
    #[must_use]
    pub const fn new(rx: Option<RxQueue>, tx: Option<TxQueue>) -> Self {
        Self { rx, tx, backlog: Batch::new(), finishing: None }
    }

    /// The same, which finishes the checksums of received frames that were left to a card, if there is somebody to count them: on a
    /// virtual wire there is no card that would.
    #[must_use]
    pub fn finishing(self, counters: Option<Arc<WorkerCounters>>) -> Self {
        Self { finishing: counters, ..self }
    }

    /// Whether this worker can send by itself.
    #[inline]
    #[must_use]
    pub const fn sends(&self) -> bool {
        self.tx.is_some()
    }

    /// Adds received frames to `batch`, and returns how many. Those that the driver gave, but that are no frames, are counted.
    #[inline]
    pub fn receive(&mut self, batch: &mut Batch, counters: Option<&PortCounters>) -> u16 {
        let Some(rx) = &mut self.rx else { return 0 };
        let n = rx.receive(batch);
        if let (Some(refused), Some(counters)) = (rx.take_refused(), counters) {
            note_refused(refused, counters);
        }
        if let Some(counters) = self.finishing.as_deref().filter(|_| n > 0) {
            finish(batch, n.into(), counters);
        }
        n
    }

    /// Has the device signal that frames have come, or not any more, if it wants to be told.
    pub fn set_interrupt(&mut self, on: bool) {
        if let Some(rx) = &mut self.rx {
            rx.set_interrupt(on);
        }
    }

    /// Whether everything handed in was taken: only then may apps' rings be drained, so that a busy wire pushes back
    /// on the apps instead of losing their frames.
    #[inline]
    #[must_use]
    pub fn is_clear(&self) -> bool {
        self.backlog.is_empty()
    }

    /// Sends a whole batch of so many `bytes`, and leaves it empty.
    #[inline]
    pub fn send_all(&mut self, batch: &mut Batch, bytes: u64, counters: &PortCounters) {
        if let (Some(tx), true) = (&mut self.tx, self.backlog.is_empty()) {
            send_from(tx, batch, bytes, counters);
            // What the device does not take now waits.
            if !batch.is_empty() {
                std::mem::swap(&mut self.backlog, batch);
            }
        } else {
            for mbuf in batch.drain() {
                self.send(mbuf, counters);
            }
            self.flush(counters);
        }
    }

    /// Queues one frame; it leaves with the next [`flush`](Self::flush).
    pub fn send(&mut self, mbuf: Mbuf, counters: &PortCounters) {
        if self.backlog.is_full() {
            self.flush(counters);
        }
        if self.backlog.push(mbuf).is_err() {
            counters.drop(DropReason::WireTxFull, 1);
        }
    }

    /// Gives the driver what is waiting.
    #[inline]
    pub fn flush(&mut self, counters: &PortCounters) {
        let Some(tx) = self.tx.as_mut().filter(|_| !self.backlog.is_empty()) else { return };
        let bytes = bytes(&self.backlog);
        send_from(tx, &mut self.backlog, bytes, counters);
    }

    /// Frames that the wire has not taken yet.
    #[must_use]
    pub const fn waiting(&self) -> &Batch {
        &self.backlog
    }

    /// Drops what is waiting, when there is no more hope for it.
    pub fn give_up(&mut self, counters: &PortCounters, reason: DropReason) {
        counters.drop(reason, self.backlog.len() as u64);
        self.backlog.free_all();
    }
}

/// Finishes the checksums of the last `n` frames that were left to a card.
#[inline(never)]
fn finish(batch: &mut Batch, n: usize, counters: &WorkerCounters) {
    let first = batch.len() - n;
    let finished = batch.iter_mut().skip(first).filter_map(|mbuf| {
        let frame = mbuf.data_mut();
        let (headers, _) = kopi_packet::parse(frame, 0);
        kopi_packet::checksum::finish(frame, &headers).then_some(())
    });
    let finished = finished.count() as u64;
    if finished > 0 {
        counters.checksums_finished.add(finished);
    }
}

#[cold]
fn note_refused(refused: Refused, counters: &PortCounters) {
    let Refused { malformed, oversize, oversize_bytes } = refused;
    counters.rx_packets.add(u64::from(malformed) + u64::from(oversize));
    counters.rx_bytes.add(oversize_bytes);
    counters.drop(DropReason::Malformed, malformed.into());
    counters.drop(DropReason::Oversize, oversize.into());
}

/// Sends as much of `batch`, which has so many bytes `before`, as the device takes.
#[inline]
fn send_from(tx: &mut TxQueue, batch: &mut Batch, before: u64, counters: &PortCounters) {
    counters.tx_packets.add(tx.send(batch).into());
    counters.tx_bytes.add(before.wrapping_sub(bytes(batch)));
}

#[inline]
fn bytes(batch: &Batch) -> u64 {
    batch.iter().map(|mbuf| u64::from(mbuf.len())).sum()
}
