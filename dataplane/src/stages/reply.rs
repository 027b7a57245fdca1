//! Answers to frames that were rejected: a reset for TCP, an ICMP error for other IP.

use crate::ids::{PortId, WIRE};
use crate::stages::mirror::{PacketRecord, View};
use crate::worker::handoff::{Handoff, Target};
use crate::worker::outputs::Outputs;
use crate::worker::port::worker_of;
use dpdk::Mbuf;
use kopi_packet::{checksum, proto, reply};
use kopi_ring::layout::Notes;

impl Outputs {
    /// Tells the sender of a frame from port `source` that app `by` rejected it, as iptables' REJECT does. The answer counts as
    /// a copy: a frame that came into being here.
    ///
    /// A frame with a wrong checksum has none: whoever is named as its sender need not be. Nor has one beyond the limits of ICMP
    /// errors, if the policy keeps to them: it is `limited`.
    #[cold]
    pub(crate) fn answer(&mut self, frame: &[u8], (source, by): (PortId, PortId), limited: bool, view: &View<'_>) {
        let (headers, key) = kopi_packet::parse(frame, source);
        let mut bytes = [0; reply::MAX_LEN];
        let reset = reply::tcp_reset(frame, &headers, &mut bytes);
        let len = reset.or_else(|| {
            let wanted = key.proto() != proto::TCP;
            wanted.then(|| reply::unreachable(frame, &headers, &mut bytes)).flatten()
        });
        let Some(answer) = len.and_then(|len| bytes.get(..len)) else { return };
        let charged = if source == WIRE { by } else { source };
        let mut within = || key.src_addr().is_some_and(|to| self.answers.allows(to, charged, view.now));
        if !checksum::is_intact(frame, &headers) || (limited && reset.is_none() && !within()) {
            self.counters.answers_withheld.add(1);
            return;
        }
        let Some(mbuf) = self.pool.take().and_then(|mut mbuf| mbuf.fill(answer).then_some(mbuf)) else { return };
        if source == WIRE {
            self.mirrors.mirror_one(PacketRecord::passed(WIRE, true, by), 0, &mbuf, view.queues[1], view);
            self.answer_wire(mbuf);
        } else {
            // Into the first queue: nothing is known of the flow that the answer belongs to.
            self.answer_app(mbuf, source, view);
        }
    }

    fn answer_app(&mut self, mbuf: Mbuf, id: PortId, view: &View<'_>) {
        let Some(port) = self.port_mut(id) else { return };
        let (generation, ring) = (port.generation, port.ring_of(0));
        let owner = worker_of(id, ring, self.workers);
        if owner == self.index {
            self.count_copies(id, 1);
            let outcome = self.push(mbuf.data(), id, ring, Notes::NONE);
            self.show(id, outcome, 0, &mbuf, 0, view);
        } else {
            self.show(id, Ok(()), 0, &mbuf, 0, view);
            let target = Target::App { id, generation, ring, notes: Notes::NONE };
            let sent = self.send_over(owner, Handoff { mbuf, target }).is_ok();
            self.count_copies(id, sent.into());
        }
    }

    fn answer_wire(&mut self, mbuf: Mbuf) {
        let sent = match self.counters.ports.first() {
            Some(counters) if self.wire.sends() => {
                self.wire.send(mbuf, counters);
                self.wire.flush(counters);
                true
            }
            _ => self.send_over(self.sender, Handoff { mbuf, target: Target::Wire }).is_ok(),
        };
        self.count_copies(WIRE, sent.into());
    }
}
