//! One burst of frames on its way through the stages.

use crate::ids::Verdict;
use crate::policy_counters::CounterId;
use crate::worker::flow_table::{Hash, Hooks, Place};
use dpdk::{Batch, Mbuf};
use kopi_config::policy::Direction;
use kopi_packet::FlowKey;
use kopi_ring::DropReason;
use kopi_ring::layout::Notes;
use std::ops::Range;

/// Up to [`Batch::MAX`] frames from one port, with what each stage found out about them.
#[derive(Debug)]
pub struct Burst {
    /// The frames. What lies here is private to kopid: it is what is evaluated, and what is sent.
    pub batch: Batch,
    /// Of the first frame of each run of one flow; see [`head`](Self::head).
    pub(crate) keys: [FlowKey; Batch::MAX],
    /// Bytes of each frame; of all together; of the longest; whether some frame has fewer than a header of Ethernet.
    pub(crate) lens: [u32; Batch::MAX],
    pub(crate) bytes: u64,
    pub(crate) longest: u32,
    pub(crate) runts: bool,
    /// Of the keys, at the same places.
    pub(crate) hashes: [Hash; Batch::MAX],
    /// Where the flow of each run is, at the place of its first frame.
    pub(crate) places: [Place; Batch::MAX],
    pub(crate) notes: [Notes; Batch::MAX],
    pub(crate) verdicts: [Verdict; Batch::MAX],
    /// Whether it came by the wire.
    pub(crate) from_wire: bool,
    /// Whether somebody will look at the frames, who wants to know their queues.
    pub mirrored: bool,
    /// Whether what counts each frame, and its classes, are wanted: the burst is `mirrored` or `classed`.
    pub noted: bool,
    /// What counts each frame at the sender's and at the receiver's side. Only known if the burst is `noted`.
    pub(crate) counter_ids: [[CounterId; 2]; Batch::MAX],
    /// The app's TX queue that each frame came by.
    queues: [u8; Batch::MAX],
    /// Whether classes are kept to.
    pub classed: bool,
    /// The class of each frame at the sender's and at the receiver's side, counted from 1; 0 for none.
    pub(crate) classes: [[u16; 2]; Batch::MAX],
    /// Bit *i* is set if frame *i* is of the same flow as the one before it. Frames of a flow come in runs, whose
    /// members need no hash and no lookup of their own.
    pub(crate) follows: u32,
    /// Bit *i* is set if the verdict of frame *i* may be another one than that of the frame before it.
    pub(crate) turns: u64,
    /// Bit *i* is set if frame *i* is to be evaluated by itself, whatever is known of its flow. Such a frame is a run of
    /// its own.
    pub(crate) alone: u32,
}

impl Burst {
    /// An empty burst.
    #[must_use]
    pub fn new() -> Self {
        let key = FlowKey::default();
        Self {
            batch: Batch::new(),
            from_wire: false,
            keys: [key; Batch::MAX],
            lens: [0; Batch::MAX],
            bytes: 0,
            longest: 0,
            runts: false,
            hashes: [Hash::default(); Batch::MAX],
            places: [Place::default(); Batch::MAX],
            notes: [Notes::NONE; Batch::MAX],
            follows: 0,
            turns: 0,
            alone: 0,
            verdicts: [Verdict::Drop(DropReason::PortGone); Batch::MAX],
            mirrored: false,
            noted: false,
            counter_ids: [[0; 2]; Batch::MAX],
            queues: [0; Batch::MAX],
            classed: false,
            classes: [[0; 2]; Batch::MAX],
        }
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
        match range.len() {
            1 => self.lens.get(range.start).copied().unwrap_or(0).into(),
            len if len == self.batch.len() => self.bytes,
            _ => self.lens.get(range).unwrap_or_default().iter().map(|len| u64::from(*len)).sum(),
        }
    }

    /// The frames of a range, with what the app is told about each.
    #[inline]
    pub fn frames(&self, range: Range<usize>) -> impl Iterator<Item = (&[u8], Notes)> {
        let notes = self.notes.get(range.clone()).unwrap_or_default();
        self.batch.get(range).unwrap_or_default().iter().map(Mbuf::data).zip(notes.iter().copied())
    }

    /// The bytes of frame `at`.
    #[inline]
    #[must_use]
    pub fn frame(&self, at: usize) -> &[u8] {
        self.batch.get(at).map_or(&[], Mbuf::data)
    }

    /// The verdict of frame `start`, and where the run of frames with that verdict ends; `None` past the last frame.
    #[inline]
    #[must_use]
    pub fn run(&self, start: usize) -> Option<(Verdict, usize)> {
        let verdicts = self.verdicts.get(..self.batch.len())?;
        let first = *verdicts.get(start)?;
        let mut end = start;
        loop {
            end += 1 + (self.turns >> (end + 1)).trailing_zeros() as usize;
            match verdicts.get(end) {
                Some(verdict) if *verdict == first => {}
                Some(_) => return Some((first, end)),
                None => return Some((first, verdicts.len())),
            }
        }
    }

    /// Gives a range of frames that is not empty their verdict, and what an app is told about them. Returns how many these are, and their
    /// bytes.
    #[inline]
    pub(crate) fn decide(&mut self, range: Range<usize>, verdict: Verdict, notes: Notes) -> (u16, u32) {
        let start = range.start % Batch::MAX;
        (self.verdicts[start], self.notes[start]) = (verdict, notes);
        // In mixed traffic a run is one frame, which is not worth a loop's preparations.
        if range.end == start + 1 {
            return (1, self.lens[start]);
        }
        fill(&mut self.verdicts, range.clone(), verdict);
        fill(&mut self.notes, range.clone(), notes);
        let frames = u16::try_from(range.len()).unwrap_or(0);
        (frames, u32::try_from(self.bytes(range)).unwrap_or(u32::MAX))
    }

    /// Notes what counts a range of frames that is not empty, and their classes.
    pub(crate) fn note_hooks(&mut self, range: Range<usize>, hooks: &Hooks) {
        fill(&mut self.counter_ids, range.clone(), hooks.counter_ids);
        fill(&mut self.classes, range, hooks.classes);
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

    /// The app's TX queue that frame `at` came by. Only known if the burst is `mirrored`.
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

    /// What counts frame `at` at the sender's side (0) or the receiver's (1). Only known if the burst is `mirrored`.
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

    /// The hash of the flow key of frame `at`.
    #[inline]
    #[must_use]
    pub fn hash(&self, at: usize) -> Hash {
        self.hashes.get(self.head(at)).copied().unwrap_or_default()
    }

    /// Bit *i* is set if frame *i* is not of the same flow as the one before it, or one of them is to be evaluated by itself.
    #[inline]
    #[must_use]
    pub const fn flow_starts(&self) -> u32 {
        !self.follows
    }

    /// Bit *i* is set if a run begins with frame *i*.
    #[inline]
    #[must_use]
    pub(crate) fn firsts(&self) -> u32 {
        let frames = u32::try_from(self.batch.len()).unwrap_or(0);
        !self.follows & 1_u32.checked_shl(frames).unwrap_or(0).wrapping_sub(1)
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

/// Writes `value` to a range of `places` that is not empty. A range of one, as that of a run in mixed traffic, is not worth a loop's
/// preparations.
#[inline]
pub(crate) fn fill<T: Copy>(places: &mut [T], range: Range<usize>, value: T) {
    let (start, more) = (range.start, range.end != range.start + 1);
    if let Some(place) = places.get_mut(start) {
        *place = value;
    }
    if more {
        places.get_mut(range).unwrap_or_default().fill(value);
    }
}

impl Default for Burst {
    fn default() -> Self {
        Self::new()
    }
}
