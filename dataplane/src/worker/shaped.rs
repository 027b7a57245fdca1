//! A worker's turn under classes: who is served is for the scheduler to say.

use super::{Share, Worker};
use crate::filter::Filter;
use crate::forwarding::PortId;
use crate::shaper::{Sample, Source, Turn};
use kopi_config::policy::Direction;
use kopi_packet::mark::Mark;
use kopi_ring::PeerFault;

/// Bursts that leave in one turn, so that the wire and the other workers get their turn, too.
const BURSTS: usize = 8;

impl Worker {
    /// One turn of the apps, under classes. Returns how many frames moved.
    pub(super) fn serve_shaped(&mut self, now: u64) -> usize {
        let (mut moved, mut at) = (0, 0);
        while let Some(id) = self.served.get(at).copied() {
            match self.look_at(id, now) {
                Ok(n) => {
                    moved += n;
                    at += 1;
                }
                Err(fault) => self.expel(id, fault, now),
            }
        }
        moved + self.serve_lane(Direction::Egress, now) + self.serve_lane(Direction::Ingress, now)
    }

    /// Lets the scheduler know of an app that has something to send, or has its frames wait in the queues of their classes.
    fn look_at(&mut self, id: PortId, now: u64) -> Result<usize, PeerFault> {
        let source = self.forwarding.filter().map_or(Source::Ring(0), |filter| filter.source(id));
        self.delivery.source = source;
        let Source::Ring(leaf) = source else {
            self.delivery.mark = Mark::NONE;
            return self.serve_app(id, Share::ALL, now);
        };
        let Some(lane) = self.delivery.lane(Direction::Egress) else {
            return self.serve_app(id, Share::ALL, now);
        };
        if !lane.is_active(leaf) && self.delivery.has_frames(id)? {
            self.delivery.lane(Direction::Egress).into_iter().for_each(|lane| lane.activate(leaf, now));
        }
        Ok(0)
    }

    /// Serves one direction's classes as the scheduler says.
    fn serve_lane(&mut self, direction: Direction, now: u64) -> usize {
        let mut moved = 0;
        for _ in 0..BURSTS {
            if direction == Direction::Egress && !self.delivery.takes_burst() {
                break;
            }
            let Some(turn) = self.delivery.lane(direction).map(|lane| lane.next(now)) else { break };
            let n = match turn {
                Turn::Nobody => break,
                Turn::Queue { leaf, bytes } => {
                    let view = self.delivery.view(&self.forwarding, &self.gate, now);
                    let (n, sample) = self.delivery.serve_queue(direction, leaf, bytes, &view);
                    self.note(sample);
                    n
                }
                Turn::Ring { leaf, port, bytes } => self.serve_ring(leaf, port, bytes, now),
            };
            if n == 0 {
                break;
            }
            moved += n;
        }
        moved
    }

    /// Takes a burst from the rings of an app, whose turn it is.
    fn serve_ring(&mut self, leaf: u32, id: PortId, bytes: u32, now: u64) -> usize {
        let Some(lane) = self.delivery.lane(Direction::Egress) else { return 0 };
        let share = Share { bytes: bytes.into(), overhead: lane.overhead() };
        self.delivery.mark = lane.mark(leaf);
        self.delivery.source = Source::Ring(leaf);
        self.delivery.sent = (0, 0);
        let (n, fault) = match self.serve_app(id, share, now) {
            Ok(n) => (n, None),
            Err(fault) => (0, Some(fault)),
        };
        if let Some(fault) = fault {
            self.expel(id, fault, now);
        }
        let sent = self.delivery.sent;
        let more = self.delivery.leaf_has_frames(leaf);
        let sample = self.delivery.lane(Direction::Egress).and_then(|lane| lane.sent(leaf, sent, more, now));
        self.note(sample);
        n
    }

    /// Tells the control thread how long something has waited. If it does not keep up, it does without.
    #[inline]
    fn note(&mut self, sample: Option<Sample>) {
        if let Some(sample) = sample {
            let _lost = self.samples.push(sample);
        }
    }

    /// Says which apps' rings belong to which class, by the picture in force.
    #[cold]
    pub(super) fn link(&mut self) {
        let filter: Option<&Filter> = self.forwarding.filter();
        let Some(lane) = self.delivery.lane(Direction::Egress) else { return };
        for id in &self.served {
            match filter.map_or_else(|| Source::Ring(lane.unclassed()), |filter| filter.source(*id)) {
                Source::Ring(leaf) => lane.link(*id, leaf),
                Source::Split(_) => lane.unlink(*id),
            }
        }
    }
}
