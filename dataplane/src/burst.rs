//! One burst of frames on its way through the stages.

use crate::filter::Watch;
use crate::flow::{FlowTable, Hash};
use crate::forwarding::{Forwarding, PortId, Verdict};
use crate::gate::Gate;
use crate::ledger::TallyId;
use dpdk::{Batch, Mbuf};
use kopi_config::policy::Direction;
use kopi_packet::{FlowKey, Fragment, Shape};
use kopi_ring::DropReason;
use kopi_ring::layout::{MIN_FRAME, Notes};

/// Up to [`Batch::MAX`] frames from one port, with what each stage found out about them.
#[derive(Debug)]
pub struct Burst {
    /// The frames. What lies here is private to kopid: it is what is judged, and what is sent.
    pub batch: Batch,
    keys: [FlowKey; Batch::MAX],
    hashes: [Hash; Batch::MAX],
    notes: [Notes; Batch::MAX],
    verdicts: [Verdict; Batch::MAX],
    /// Whether somebody will look at the frames, who wants to know their queues.
    pub tapped: bool,
    /// What counts each frame at the sender's and at the receiver's side.
    tallies: [[TallyId; 2]; Batch::MAX],
    /// The app's TX queue that each frame came by.
    queues: [u8; Batch::MAX],
    /// Whether classes are kept to, and so the next is wanted.
    pub classed: bool,
    /// The class of each frame at the sender's and at the receiver's side, counted from 1; 0 for none.
    classes: [[u16; 2]; Batch::MAX],
    /// Bit *i* is set if frame *i* is of the same flow as the one before it. Frames of a flow come in trains, whose
    /// members need no hash and no lookup of their own.
    follows: u32,
    /// Bit *i* is set if the verdict of frame *i* may be another one than that of the frame before it, as far as
    /// [`run`](Self::run) has gone.
    turns: u64,
    /// Bit *i* is set if frame *i* is to be judged by itself, whatever is known of its flow. Such a frame is a train of
    /// its own.
    alone: u32,
}

impl Burst {
    /// An empty burst.
    #[must_use]
    pub fn new() -> Self {
        let key = FlowKey::default();
        Self {
            batch: Batch::new(),
            keys: [key; Batch::MAX],
            hashes: [Hash::default(); Batch::MAX],
            notes: [Notes::NONE; Batch::MAX],
            follows: 0,
            turns: 0,
            alone: 0,
            verdicts: [Verdict::Drop(DropReason::PortGone); Batch::MAX],
            tapped: false,
            tallies: [[0; 2]; Batch::MAX],
            queues: [0; Batch::MAX],
            classed: false,
            classes: [[0; 2]; Batch::MAX],
        }
    }

    /// Classifies every frame, from port `source`: flow key and hash. Returns the bytes of all frames.
    pub fn parse(&mut self, source: PortId, flows: &FlowTable, watch: Option<Watch>) -> u64 {
        let mut bytes = 0;
        let (mut follows, mut alone) = (0, 0);
        let mut last = Classified { key: FlowKey::default(), hash: Hash::default(), notes: Notes::NONE };
        let found = self.keys.iter_mut().zip(&mut self.hashes).zip(&mut self.notes);
        for (at, (mbuf, ((key, hash), notes))) in self.batch.iter().zip(found).enumerate() {
            let frame = mbuf.data();
            bytes += frame.len() as u64;
            let headers;
            (headers, *key) = kopi_packet::parse(frame, source);
            if let Some(watch) = watch {
                alone |= u32::from(watch.complete(key, frame, &headers)) << at;
            }
            if at > 0 && *key == last.key {
                follows |= 1 << at;
            } else {
                last.hash = flows.hash(key);
                last.notes = Notes::new(packet_type(key), last.hash.rss());
                last.key = *key;
            }
            *hash = last.hash;
            *notes = last.notes;
        }
        self.alone = alone;
        self.follows = follows & !(alone | alone << 1);
        bytes
    }

    /// Finds every frame's verdict, in the flow table or else by asking `gate`, and counts it to its flow.
    pub fn judge(&mut self, source: PortId, flows: &mut FlowTable, gate: &mut Gate, forwarding: &Forwarding, now: u64) {
        let max_frame = u32::from(forwarding.max_frame(source));
        let limit = forwarding.filter().map_or(u32::MAX, |filter| filter.flow_limit(source));
        let n = self.batch.len();
        let mut start = 0;
        while let (true, Some(key), Some(hash)) = (start < n, self.keys.get(start), self.hashes.get(start)) {
            let mut end = n.min(start + 1 + (u64::from(self.follows) >> (start + 1)).trailing_ones() as usize);
            let Some(flow) = flows.flow(key, *hash, limit, now) else {
                let train = self.verdicts.get_mut(start..end).unwrap_or_default();
                train.fill(Verdict::Drop(DropReason::FlowLimit));
                self.tallies.get_mut(start..end).unwrap_or_default().fill([0; 2]);
                self.classes.get_mut(start..end).unwrap_or_default().fill([0; 2]);
                start = end;
                continue;
            };
            let alone = self.alone >> start & 1 != 0;
            let frame = || self.batch.get(start).map_or(&[][..], Mbuf::data);
            if !gate.settle(flow, frame, key, alone, forwarding, now) {
                // What follows has to be looked at by itself.
                end = start + 1;
            }
            let found = self.verdicts.iter_mut().zip(&mut self.tallies);
            let mut train = self.batch.iter().zip(found).take(end).skip(start);
            let (mut packets, mut bytes) = (0, 0);
            for (mbuf, (verdict, tallies)) in &mut train {
                let len = mbuf.len();
                *tallies = flow.points.tallies;
                // Lengths are no part of the key, so they are judged for each frame.
                *verdict = if len < MIN_FRAME {
                    Verdict::Drop(DropReason::Runt)
                } else if len > max_frame {
                    Verdict::Drop(DropReason::Oversize)
                } else {
                    packets += 1;
                    bytes += u64::from(len);
                    flow.verdict
                };
            }
            flow.count(packets, bytes, now);
            gate.count(&flow.points, packets, bytes);
            if self.classed {
                self.classes.get_mut(start..end).unwrap_or_default().fill(flow.classes);
            }
            start = end;
        }
    }

    /// The verdict of frame `start`, and where the run of frames with that verdict ends; `None` past the last frame.
    #[inline]
    pub fn run(&mut self, start: usize) -> Option<(Verdict, usize)> {
        if start == 0 {
            self.turns = 0;
        }
        let verdicts = self.verdicts.get(start..self.batch.len())?;
        let first = *verdicts.first()?;
        let end = start + verdicts.iter().take_while(|verdict| **verdict == first).count();
        self.turns |= 1 << end;
        Some((first, end))
    }

    /// The same for a burst whose runs were all looked for, and some frames of which were perhaps amended since then.
    #[inline]
    #[must_use]
    pub fn run_again(&self, start: usize) -> Option<(Verdict, usize)> {
        let verdict = self.verdicts.get(start..self.batch.len())?.first()?;
        let more = (self.turns >> (start + 1)).trailing_zeros();
        Some((*verdict, self.batch.len().min(start + 1 + more as usize)))
    }

    /// Notes that frame `at` met another end than its verdict said.
    pub fn amend(&mut self, at: usize, verdict: Verdict) {
        if let Some(slot) = self.verdicts.get_mut(at) {
            *slot = verdict;
            self.turns |= 0b11 << at;
        }
    }

    /// Notes that the frames from `first` on came by the app's TX queue `queue`.
    pub fn note_queue(&mut self, first: usize, queue: u8) {
        self.queues.get_mut(first..self.batch.len()).unwrap_or_default().fill(queue);
    }

    /// The app's TX queue that frame `at` came by. Only known if the burst is `tapped`.
    #[must_use]
    pub fn queue(&self, at: usize) -> u8 {
        self.queues.get(at).copied().unwrap_or(0)
    }

    /// The class of frame `at` in this direction, counted from 1; 0 for none. Only known if the burst is `classed`.
    #[inline]
    #[must_use]
    pub fn class(&self, at: usize, direction: Direction) -> u16 {
        self.classes.get(at).map_or(0, |classes| classes[usize::from(direction == Direction::Ingress)])
    }

    /// What counts frame `at` at the sender's side (0) or the receiver's (1).
    #[must_use]
    pub fn tally(&self, at: usize, side: usize) -> TallyId {
        self.tallies.get(at).and_then(|sides| sides.get(side)).copied().unwrap_or(0)
    }

    /// What the app is told about frame `at`.
    #[inline]
    #[must_use]
    pub fn notes(&self, at: usize) -> Notes {
        self.notes.get(at).copied().unwrap_or(Notes::NONE)
    }

    /// The hash that spreads frame `at` over an app's queues.
    #[inline]
    #[must_use]
    pub fn rss(&self, at: usize) -> u32 {
        self.hashes.get(at).map_or(0, |hash| hash.rss())
    }

    /// The hash of the flow key of frame `at`.
    #[inline]
    #[must_use]
    pub fn hash(&self, at: usize) -> Hash {
        self.hashes.get(at).copied().unwrap_or_default()
    }

    /// Bit *i* is set if frame *i* is not of the same flow as the one before it, or one of them is to be judged by itself.
    #[inline]
    #[must_use]
    pub const fn trains(&self) -> u32 {
        !self.follows
    }

    /// The destination address of frame `at`.
    #[must_use]
    pub fn destination(&self, at: usize) -> kopi_ring::message::Mac {
        self.keys.get(at).map_or([0; 6], |key| key.dst_mac().bytes())
    }

    /// The flow key of frame `at`.
    #[must_use]
    pub fn key(&self, at: usize) -> FlowKey {
        self.keys.get(at).copied().unwrap_or_default()
    }
}

/// What was found out about the frame before.
struct Classified {
    key: FlowKey,
    hash: Hash,
    notes: Notes,
}

impl Default for Burst {
    fn default() -> Self {
        Self::new()
    }
}

/// The L2, L3 and L4 nibbles of `RTE_PTYPE_*` (DPDK, `rte_mbuf_ptype.h`) for a frame.
#[inline]
fn packet_type(key: &FlowKey) -> u16 {
    const UNTAGGED_OR_TAGGED: [u16; 3] = [0x1, 0x6, 0x7];
    let l2 = UNTAGGED_OR_TAGGED.get(usize::from(key.vlans())).copied().unwrap_or(0x1);
    let l3 = match (key.shape(), key.has_options()) {
        (Shape::Arp, _) => return 0x3,
        (Shape::Ipv4, false) => 0x10,
        (Shape::Ipv4, true) => 0x30,
        (Shape::Ipv6, false) => 0x40,
        (Shape::Ipv6, true) => 0xc0,
        (Shape::Runt | Shape::Other | Shape::Malformed(_), _) => return l2,
    };
    let l4 = match (key.fragment(), key.proto()) {
        (Fragment::First | Fragment::Later, _) => 0x300,
        (Fragment::None, 6) => 0x100,
        (Fragment::None, 17) => 0x200,
        (Fragment::None, 132) => 0x400,
        (Fragment::None, 1 | 58) => 0x500,
        _ => 0,
    };
    l2 | l3 | l4
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ptype(frame: &[u8]) -> u16 {
        packet_type(&kopi_packet::parse(frame, 1).1)
    }

    /// Packet types are those that DPDK's own software parser would give.
    #[test]
    fn packet_types_follow_the_headers() {
        let mut frame = [0_u8; 64];
        assert_eq!(ptype(&frame), 0x1);
        frame[12..14].copy_from_slice(&[8, 0]);
        frame[14..24].copy_from_slice(&[0x45, 0, 0, 50, 0, 0, 0, 0, 64, 17]);
        frame[38..40].copy_from_slice(&[0, 30]);
        assert_eq!(ptype(&frame), 0x211);
        frame[23] = 6;
        frame[46] = 0x50;
        assert_eq!(ptype(&frame), 0x111);
        frame[20] = 0x20;
        assert_eq!(ptype(&frame), 0x311);
    }
}
