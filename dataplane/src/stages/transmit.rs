//! The transmit stage: buffers leave the burst, to the wire, to other workers, into the queues of classes, or back to the pool.

use super::deliver::Fates;
use crate::ids::PortId;
use crate::stages::mirror::View;
use crate::worker::burst::Burst;
use crate::worker::handoff::Handoff;
use crate::worker::outputs::{Outputs, Route};
use dpdk::Batch;

/// Sends every frame of `burst`, from port `source`, along its route, and leaves the burst empty.
#[inline]
pub fn run(outputs: &mut Outputs, burst: &mut Burst, source: PortId, fates: &Fates, view: &View<'_>) {
    let whole = fates.to_wire == burst.batch.len() && outputs.wire.sends();
    if outputs.shaper.is_some() {
        outputs.send_shaped(burst, source, whole, view);
    } else if whole {
        if let Some(counters) = outputs.counters.ports.first() {
            outputs.wire.send_all(&mut burst.batch, burst.bytes, counters);
        }
    } else if fates.to_wire + fates.to_workers == 0 {
        burst.batch.free_all();
    } else {
        outputs.send_each(&mut burst.batch, source, view);
    }
    outputs.publish();
}

impl Outputs {
    fn send_each(&mut self, batch: &mut Batch, source: PortId, view: &View<'_>) {
        for (mbuf, route) in batch.drain().zip(self.routes) {
            match route {
                Route::Free => {
                    // It cannot be full: it holds at most one batch.
                    drop(self.completed.push(mbuf));
                }
                Route::Wire => {
                    if let Some(counters) = self.counters.ports.first() {
                        self.wire.send(mbuf, counters);
                    }
                }
                Route::Worker(worker, target) => self.hand_over(worker, Handoff { mbuf, target }, source, view),
                // Without classes nothing waits.
                Route::Queue(..) => drop(mbuf),
            }
        }
        self.completed.free_all();
        if let Some(counters) = self.counters.ports.first() {
            self.wire.flush(counters);
        }
    }
}
