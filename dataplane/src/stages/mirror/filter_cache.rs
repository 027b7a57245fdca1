//! What a filter has said about flows, so that it need not be asked about each of their frames.

use crate::worker::burst::Burst;
use crate::worker::flow_table::Hash;
use dpdk::{Bpf, Layout, Mbuf};
use kopi_packet::{FlowKey, Fragment, Shape};
use std::ops::Range;
use std::sync::Arc;

/// Sets of the memory. Flows beyond that many are asked about more often, at most once for each frame.
const SETS: usize = 8192;
/// The bits of a word that say which frames of a flow pass; the others are those of its hash. A free place is 0.
const ANSWER: u64 = 0b11;
/// It depends on more than the flow, so each frame is to be asked about.
const SOME: u64 = 1;
/// All of them pass.
const ALL: u64 = 2;
/// No frame of it passes.
const NONE: u64 = 3;

/// A filter, and what it has said.
///
/// Flows are told apart by 62 bits of a hash under a secret seed. Two that share them would share their answer, which is
/// to be expected once among 10^18 pairs.
#[derive(Debug)]
pub(crate) struct FilterCache {
    filter: Arc<Bpf>,
    /// Sets of two words, the newer one first.
    sets: Box<[[u64; 2]]>,
}

impl FilterCache {
    /// Nothing is known yet of what `filter` says. Allocates all that is needed.
    #[must_use]
    pub(crate) fn new(filter: Arc<Bpf>) -> Self {
        Self { filter, sets: vec![[0; 2]; SETS].into() }
    }

    /// Which of the frames `run` of a burst pass, a bit each.
    #[inline]
    pub(crate) fn sift(&mut self, burst: &Burst, run: Range<usize>) -> u32 {
        let Self { filter, sets } = self;
        let (mut passing, mut open) = (0, 0);
        // Frames of one flow in a row share an answer, and `run` may begin in the middle of them.
        let mut starts = bits(run.clone()) & (burst.flow_starts() | 1 << run.start);
        while starts != 0 {
            let at = starts.trailing_zeros() as usize;
            starts &= starts - 1;
            let hash = burst.hash(at);
            let set = &mut sets[place(hash)];
            // This is nearly always so: people look for needles.
            if set[0] == hash.bits() | NONE {
                continue;
            }
            let frames = bits(at..run.end.min(starts.trailing_zeros() as usize));
            match known(set, hash).unwrap_or_else(|| learn(filter, set, burst, at)) {
                ALL => passing |= frames,
                SOME => open |= frames,
                _ => {}
            }
        }
        if open == 0 { passing } else { passing | ask(filter, burst, open) }
    }

    /// Whether this frame passes, whatever is known of its flow.
    #[inline]
    #[must_use]
    pub(crate) fn matches(&self, mbuf: &Mbuf) -> bool {
        self.filter.matches(mbuf)
    }
}

const fn place(hash: Hash) -> usize {
    (hash.bits() >> 24) as usize & (SETS - 1)
}

/// What is known of a flow.
#[inline]
fn known(set: &[u64; 2], hash: Hash) -> Option<u64> {
    set.iter().map(|word| word ^ (hash.bits() & !ANSWER)).find(|answer| (1..=ANSWER).contains(answer))
}

/// Asks about the flow that frame `at` of a burst is of.
#[cold]
fn learn(filter: &Bpf, set: &mut [u64; 2], burst: &Burst, at: usize) -> u64 {
    let Some(mbuf) = burst.batch.get(at) else { return NONE };
    let decided = layout(&burst.key(at)).and_then(|layout| filter.decides(mbuf, layout));
    let answer = match decided {
        Some(true) => ALL,
        Some(false) => NONE,
        None => SOME,
    };
    *set = [burst.hash(at).bits() & !ANSWER | answer, set[0]];
    answer
}

/// What the key says of how a frame is laid out.
fn layout(key: &FlowKey) -> Option<Layout> {
    let plain = key.vlans() == 0 && !key.is_snap() && !key.has_options() && key.fragment() == Fragment::None;
    Some(match key.shape() {
        Shape::Runt => return None,
        Shape::Ipv4 if plain => Layout::Ipv4,
        Shape::Ipv6 if plain => Layout::Ipv6,
        Shape::Arp if plain => Layout::Arp,
        _ => Layout::Ethernet,
    })
}

/// Those of the frames `open` that pass.
fn ask(filter: &Bpf, burst: &Burst, open: u32) -> u32 {
    let mut passing = 0;
    let mut left = open;
    while left != 0 {
        let at = left.trailing_zeros();
        left &= left - 1;
        let passes = burst.batch.get(at as usize).is_some_and(|mbuf| filter.matches(mbuf));
        passing |= u32::from(passes) << at;
    }
    passing
}

/// The bits of the frames `run`.
#[expect(clippy::cast_possible_truncation, reason = "a burst has at most 32 frames")]
const fn bits(run: Range<usize>) -> u32 {
    ((1 << run.end) - (1_u64 << run.start)) as u32
}
