//! Frames between workers: one evaluates a frame, another one has the ring or the queue that it goes to.

use super::{Outputs, count_drop};
use crate::ids::{PortId, WIRE};
use crate::stages::mirror::{PacketRecord, View};
use crate::worker::handoff::{Handoff, Target};
use dpdk::{Batch, Mbuf};
use kopi_ring::DropReason;

impl Outputs {
    /// Has another worker take a frame of port `source`. If it does not, that is charged to the sender, who has sent too
    /// much there; and of the receiver for what comes from the wire, where there is nobody else to ask.
    pub(crate) fn hand_over(&mut self, worker: usize, handoff: Handoff, source: PortId, view: &View<'_>) {
        if handoff.target == Target::Wire {
            self.handed += u64::from(handoff.mbuf.len());
        }
        if let Err(Handoff { mbuf, target }) = self.send_over(worker, handoff) {
            let (blamed, out) = blamed(source, target);
            count_drop(&self.counters, blamed, DropReason::HandoffFull, 1);
            let record = PacketRecord::dropped(blamed, out, blamed, DropReason::HandoffFull);
            self.mirrors.mirror_late(record, &mbuf, 0, view);
        }
    }

    /// Puts a frame into the queue to another worker, and counts it.
    ///
    /// # Errors
    ///
    /// As for [`Mesh::send`](crate::worker::handoff::Mesh::send).
    #[inline]
    pub(crate) fn send_over(&mut self, worker: usize, handoff: Handoff) -> Result<(), Handoff> {
        self.mesh.send(worker, handoff)?;
        self.counters.handed_over.add(1);
        Ok(())
    }

    /// Delivers what other workers have evaluated, up to a burst from each, and returns how many frames moved.
    #[inline]
    pub fn serve_workers(&mut self, view: &View<'_>) -> usize {
        let mut moved = 0;
        for worker in self.mesh.senders() {
            for _ in 0..Batch::MAX {
                let Some(Handoff { mbuf, target }) = self.mesh.receive(worker) else { break };
                moved += 1;
                self.arrive(mbuf, target, view);
            }
            self.mesh.settle(worker);
        }
        if moved > 0 {
            self.flush();
        }
        moved
    }

    /// Sends what other workers have for the wire, as much as is their part of it. Frames for a busy wire wait where they are, and
    /// their sender stops draining its apps. Returns how many frames moved.
    pub fn serve_senders(&mut self, view: &View<'_>) -> usize {
        let mut moved = 0;
        for worker in self.mesh.senders() {
            while self.wire.is_clear() {
                let most = self.mesh.may_send(worker);
                if most == 0 {
                    break;
                }
                for _ in 0..most {
                    let Some(Handoff { mbuf, target }) = self.mesh.receive_for_wire(worker) else { break };
                    moved += 1;
                    self.arrive(mbuf, target, view);
                }
                self.flush();
            }
        }
        moved
    }

    /// Notes that an app here has sent a burst of `frames`, and that apps of `users` users have more.
    #[inline]
    pub fn note_sent(&mut self, frames: usize, users: usize) {
        if self.workers > 1 {
            // A burst is short, and users are no more than ports.
            let number = |n: usize| u32::from(u16::try_from(n).unwrap_or(u16::MAX));
            self.mesh.sent(number(frames), number(users));
        }
    }

    /// Notes that no app here has anything to send.
    #[inline]
    pub fn note_idle(&mut self) {
        if self.workers > 1 {
            self.mesh.idle();
        }
    }

    /// Gives a frame to its target, which is this worker's. It leaves with the next flush of the wire, or is shown to the app
    /// when rings are published.
    pub(crate) fn arrive(&mut self, mbuf: Mbuf, target: Target, view: &View<'_>) {
        match target {
            Target::Wire => {
                if let Some(counters) = self.counters.ports.first() {
                    self.wire.send(mbuf, counters);
                }
            }
            Target::App { id, generation, ring, notes } => {
                let outcome = if self.port_mut(id).is_some_and(|port| port.generation == generation) {
                    self.push(mbuf.data(), id, ring, notes)
                } else {
                    Err(self.refuse_for(id, DropReason::PortGone))
                };
                if let Err(reason) = outcome {
                    let queue = self.port_mut(id).map_or(ring, |port| port.queue_of(ring));
                    let queue = u8::try_from(queue).unwrap_or(u8::MAX);
                    self.mirrors.mirror_late(PacketRecord::dropped(id, false, id, reason), &mbuf, queue, view);
                }
                if let Err(mbuf) = self.completed.push(mbuf) {
                    self.completed.free_all();
                    drop(mbuf);
                }
            }
        }
    }
}

/// To whom a frame of port `source` is charged that another worker does not take, and whether as one that it has sent.
pub const fn blamed(source: PortId, target: Target) -> (PortId, bool) {
    match target {
        Target::App { id, .. } if source == WIRE || source == id => (id, false),
        Target::App { .. } | Target::Wire => (source, true),
    }
}
