//! One burst of frames on its way through the stages.

use crate::ids::{PortId, Verdict};
use crate::policy_counters::CounterId;
use crate::policy_table::Inspection;
use crate::snapshot::Snapshot;
use crate::stages::policy::PolicyStage;
use crate::worker::flow_table::{FlowTable, Hash};
use dpdk::{Batch, Mbuf};
use kopi_config::policy::Direction;
use kopi_packet::FlowKey;
use kopi_ring::DropReason;
use kopi_ring::layout::{MIN_FRAME, Notes};
use std::ops::Range;

/// Up to [`Batch::MAX`] frames from one port, with what each stage found out about them.
#[derive(Debug)]
pub struct Burst {
    /// The frames. What lies here is private to kopid: it is what is evaluated, and what is sent.
    pub batch: Batch,
    /// Of the first frame of each run of one flow; see [`head`](Self::head).
    keys: [FlowKey; Batch::MAX],
    /// Bytes of each frame; of all together; of the shortest and of the longest.
    lens: [u32; Batch::MAX],
    bytes: u64,
    shortest: u32,
    longest: u32,
    hashes: [Hash; Batch::MAX],
    notes: [Notes; Batch::MAX],
    verdicts: [Verdict; Batch::MAX],
    /// Whether somebody will look at the frames, who wants to know their queues.
    pub tapped: bool,
    /// What counts each frame at the sender's and at the receiver's side. Only known if the burst is `tapped`.
    counter_ids: [[CounterId; 2]; Batch::MAX],
    /// The app's TX queue that each frame came by.
    queues: [u8; Batch::MAX],
    /// Whether classes are kept to, and so the next is wanted.
    pub classed: bool,
    /// The class of each frame at the sender's and at the receiver's side, counted from 1; 0 for none.
    classes: [[u16; 2]; Batch::MAX],
    /// Bit *i* is set if frame *i* is of the same flow as the one before it. Frames of a flow come in runs, whose
    /// members need no hash and no lookup of their own.
    follows: u32,
    /// Bit *i* is set if the verdict of frame *i* may be another one than that of the frame before it, as far as
    /// [`run`](Self::run) has gone.
    turns: u64,
    /// Bit *i* is set if frame *i* is to be evaluated by itself, whatever is known of its flow. Such a frame is a run of
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
            lens: [0; Batch::MAX],
            bytes: 0,
            shortest: 0,
            longest: 0,
            hashes: [Hash::default(); Batch::MAX],
            notes: [Notes::NONE; Batch::MAX],
            follows: 0,
            turns: 0,
            alone: 0,
            verdicts: [Verdict::Drop(DropReason::PortGone); Batch::MAX],
            tapped: false,
            counter_ids: [[0; 2]; Batch::MAX],
            queues: [0; Batch::MAX],
            classed: false,
            classes: [[0; 2]; Batch::MAX],
        }
    }

    /// Classifies every frame, from port `source`: flow key and its hash. Returns the bytes of all frames.
    pub fn parse(&mut self, source: PortId, flows: &FlowTable, watch: Option<Inspection>) -> u64 {
        let mut bytes = 0;
        let (mut shortest, mut longest) = (u32::MAX, 0);
        let (mut follows, mut alone) = (0_u32, 0_u32);
        let mut hash = Hash::default();
        // The first frame of the run, as far as others need no more than to be compared with it: by what the short way reads,
        // or by how they begin.
        let (mut first, mut beginning, mut head): (&[u8], &[u8], usize) = (&[], &[], 0);
        let found = self.hashes.iter_mut().zip(&mut self.lens);
        for (at, (mbuf, (to_hash, to_len))) in self.batch.iter().zip(found).enumerate() {
            let frame = mbuf.data();
            bytes += frame.len() as u64;
            *to_len = mbuf.len();
            if kopi_packet::is_alike(frame, first) || kopi_packet::begins_alike(frame, beginning) {
                follows |= 1 << at;
            } else {
                shortest = shortest.min(mbuf.len());
                longest = longest.max(mbuf.len());
                let Some(key) = self.keys.get_mut(at) else { break };
                let (likeness, by_itself) = classify(frame, source, watch, key);
                alone |= u32::from(by_itself) << at;
                first = if likeness == Likeness::Short { frame } else { &[] };
                beginning = if likeness == Likeness::Beginning { frame } else { &[] };
                let key = self.keys.get(at);
                if at > 0 && key == self.keys.get(head) {
                    follows |= 1 << at;
                } else if let Some(key) = key {
                    hash = flows.hash(key);
                }
                head = at;
            }
            *to_hash = hash;
        }
        self.alone = alone;
        self.follows = follows & !(alone | alone << 1);
        (self.bytes, self.shortest, self.longest) = (bytes, shortest, longest);
        bytes
    }

    /// Bytes of the longest frame.
    #[inline]
    #[must_use]
    pub const fn longest(&self) -> u32 {
        self.longest
    }

    /// Bytes of all frames of a range.
    #[inline]
    #[must_use]
    pub fn bytes(&self, range: Range<usize>) -> u64 {
        if range.len() == self.batch.len() {
            return self.bytes;
        }
        sum(self.lens.get(range).unwrap_or_default())
    }

    /// The frames of a range, with what the app is told about each.
    #[inline]
    pub fn frames(&self, range: Range<usize>) -> impl Iterator<Item = (&[u8], Notes)> {
        let notes = self.notes.get(range.clone()).unwrap_or_default();
        self.batch.get(range).unwrap_or_default().iter().map(Mbuf::data).zip(notes.iter().copied())
    }

    /// Finds every frame's verdict, in the flow table or else by asking the policy stage, and counts it to its flow.
    pub fn evaluate(
        &mut self,
        source: PortId,
        flows: &mut FlowTable,
        policy_stage: &mut PolicyStage,
        snapshot: &Snapshot,
        now: u64,
    ) {
        let max_frame = u32::from(snapshot.fib().max_frame(source));
        let limit = snapshot.policies().map_or(u32::MAX, |filter| filter.flow_limit(source));
        // Lengths are no part of the key. Mostly all are right; if not, each is looked at.
        let lengths_fit = self.shortest >= MIN_FRAME && self.longest <= max_frame;
        let n = self.batch.len();
        let (mut start, mut head) = (0, 0);
        while let (true, Some(hash)) = (start < n, self.hashes.get(start)) {
            if u64::from(self.follows) >> start & 1 == 0 {
                head = start;
            }
            let Some(key) = self.keys.get(head) else { return };
            let mut end = n.min(start + 1 + (u64::from(self.follows) >> (start + 1)).trailing_ones() as usize);
            let Some(flow) = flows.flow(key, *hash, limit, now) else {
                fill(&mut self.verdicts, start..end, Verdict::Drop(DropReason::FlowLimit));
                fill(&mut self.counter_ids, start..end, [0; 2]);
                fill(&mut self.classes, start..end, [0; 2]);
                fill(&mut self.notes, start..end, Notes::NONE);
                start = end;
                continue;
            };
            let alone = self.alone >> start & 1 != 0;
            let frame = || self.batch.get(start).map_or(&[][..], Mbuf::data);
            if !policy_stage.lookup(flow, frame, key, alone, snapshot, now) {
                // What follows has to be looked at by itself.
                end = start + 1;
            }
            let (packets, bytes) = if lengths_fit {
                fill(&mut self.verdicts, start..end, flow.verdict);
                let bytes = match end - start {
                    1 => u64::from(self.lens.get(start).copied().unwrap_or(0)),
                    len if len == n => self.bytes,
                    _ => sum(self.lens.get(start..end).unwrap_or_default()),
                };
                ((end - start) as u64, bytes)
            } else {
                let verdicts = self.verdicts.get_mut(start..end).unwrap_or_default();
                judge_each(verdicts, self.lens.get(start..end).unwrap_or_default(), flow.verdict, max_frame)
            };
            fill(&mut self.notes, start..end, flow.notes());
            flow.count(packets, bytes, now);
            policy_stage.count(&flow.hooks, packets, bytes);
            if self.tapped {
                fill(&mut self.counter_ids, start..end, flow.hooks.counter_ids);
            }
            if self.classed {
                fill(&mut self.classes, start..end, flow.hooks.classes);
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

    /// What counts frame `at` at the sender's side (0) or the receiver's (1). Only known if the burst is `tapped`.
    #[must_use]
    pub fn counter_id(&self, at: usize, side: usize) -> CounterId {
        self.counter_ids.get(at).and_then(|sides| sides.get(side)).copied().unwrap_or(0)
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
        self.notes(at).hash()
    }

    /// The hash of the flow key of frame `at`.
    #[inline]
    #[must_use]
    pub fn hash(&self, at: usize) -> Hash {
        self.hashes.get(at).copied().unwrap_or_default()
    }

    /// Bit *i* is set if frame *i* is not of the same flow as the one before it, or one of them is to be evaluated by itself.
    #[inline]
    #[must_use]
    pub const fn flow_starts(&self) -> u32 {
        !self.follows
    }

    /// The first frame of the run that frame `at` is in.
    #[inline]
    const fn head(&self, at: usize) -> usize {
        // Frame 0 follows none.
        let firsts = !self.follows & u32::MAX >> (31 - (at & 31));
        31 - (firsts | 1).leading_zeros() as usize
    }

    /// The destination address of frame `at`.
    #[must_use]
    pub fn destination(&self, at: usize) -> kopi_ring::message::Mac {
        self.keys.get(self.head(at)).map_or([0; 6], |key| key.dst_mac().bytes())
    }

    /// The flow key of frame `at`.
    #[must_use]
    pub fn key(&self, at: usize) -> FlowKey {
        self.keys.get(self.head(at)).copied().unwrap_or_default()
    }
}

/// By what other frames are known to have the key of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Likeness {
    /// By nothing less than to be parsed.
    None,
    /// By what [`kopi_packet::is_alike`] compares.
    Short,
    /// By what [`kopi_packet::begins_alike`] compares.
    Beginning,
}

/// Finds the `key` of a frame. Returns by what others are known to have it, and whether the frame is to be evaluated by itself.
#[inline]
fn classify(frame: &[u8], source: PortId, watch: Option<Inspection>, key: &mut FlowKey) -> (Likeness, bool) {
    // Each way on its own: where they met, headers and key would be copied, which stalls right behind the parser's stores.
    let Some((headers, found)) = kopi_packet::parse_short(frame, source) else {
        return classify_long(frame, source, watch, key);
    };
    *key = found;
    match watch {
        // What is looked at beyond the key is not compared.
        Some(watch) if watch.has_more(key) => (Likeness::None, watch.complete(key, frame, &headers)),
        _ => (Likeness::Short, false),
    }
}

/// The same for a frame that is parsed the general way.
#[inline(never)]
fn classify_long(frame: &[u8], source: PortId, watch: Option<Inspection>, key: &mut FlowKey) -> (Likeness, bool) {
    let (headers, found) = kopi_packet::parse_long(frame, source);
    *key = found;
    match watch {
        Some(watch) if watch.has_more(key) => (Likeness::None, watch.complete(key, frame, &headers)),
        _ if kopi_packet::ends_early(&headers) => (Likeness::Beginning, false),
        _ => (Likeness::None, false),
    }
}

fn sum(lens: &[u32]) -> u64 {
    lens.iter().map(|len| u64::from(*len)).sum()
}

/// Writes `value` to a range of `places` that is not empty. A range of one, as that of a run in mixed traffic, is not worth a loop's
/// preparations.
#[inline]
pub fn fill<T: Copy>(places: &mut [T], range: Range<usize>, value: T) {
    let (start, more) = (range.start, range.len() > 1);
    if let Some(place) = places.get_mut(start) {
        *place = value;
    }
    if more {
        places.get_mut(range).unwrap_or_default().fill(value);
    }
}

/// Gives the frames of a run the verdict of their flow, unless their lengths forbid it. Returns how many have it, and
/// their bytes.
#[inline]
fn judge_each(verdicts: &mut [Verdict], lens: &[u32], of_flow: Verdict, max_frame: u32) -> (u64, u64) {
    let (mut packets, mut bytes) = (0, 0);
    for (verdict, len) in verdicts.iter_mut().zip(lens) {
        *verdict = if *len < MIN_FRAME {
            Verdict::Drop(DropReason::Runt)
        } else if *len > max_frame {
            Verdict::Drop(DropReason::Oversize)
        } else {
            packets += 1;
            bytes += u64::from(*len);
            of_flow
        };
    }
    (packets, bytes)
}

impl Default for Burst {
    fn default() -> Self {
        Self::new()
    }
}
