//! The ticks at which nodes have to be looked at again.

use crate::heap::{self, Entry, NOWHERE};

/// At most one timer for each node, the earliest first.
#[derive(Debug)]
pub(crate) struct Timers {
    /// `entries[..running]` is a heap.
    entries: Vec<Entry>,
    running: usize,
    /// Where each node stands in it.
    places: Vec<u32>,
}

impl Timers {
    /// Timers for so many nodes, none of them running.
    pub(crate) fn new(nodes: usize) -> Self {
        Self { entries: vec![Entry::default(); nodes], running: 0, places: vec![NOWHERE; nodes] }
    }

    /// The earliest tick, and its node.
    #[inline]
    pub(crate) fn first(&self) -> Option<(u64, u32)> {
        (self.running > 0).then(|| (self.entries[0].key, self.entries[0].id))
    }

    /// Whether the timer of node `at` runs.
    #[inline]
    pub(crate) fn has(&self, at: u32) -> bool {
        self.places[at as usize] != NOWHERE
    }

    /// Sets the timer of node `at` to `tick`, later than `now`, or stops it.
    pub(crate) fn set(&mut self, at: u32, tick: Option<u64>, now: u64) {
        let Some(tick) = tick else { return self.clear(at) };
        // Keys wrap: a timer further ahead runs out early, and is set again.
        let key = now.saturating_add(tick.saturating_sub(now).clamp(1, 1 << 62));
        match self.places[at as usize] {
            NOWHERE => {
                self.running += 1;
                heap::insert(&mut self.entries[..self.running], &mut self.places, Entry { key, id: at });
            }
            stands => heap::change(&mut self.entries[..self.running], &mut self.places, stands as usize, key),
        }
    }

    /// Stops the timer of node `at`, if it runs.
    pub(crate) fn clear(&mut self, at: u32) {
        let stands = self.places[at as usize];
        if stands != NOWHERE {
            heap::remove(&mut self.entries[..self.running], &mut self.places, stands as usize);
            self.running -= 1;
        }
    }
}
