//! Nodes that wait for a tick.

use crate::heap::{self, Entry, NOWHERE};

/// For each node at most one tick, the earliest first.
#[derive(Debug)]
pub(crate) struct Alarms {
    /// `entries[..waiting]` is a heap.
    entries: Vec<Entry>,
    waiting: usize,
    /// Where each node stands in it.
    places: Vec<u32>,
}

impl Alarms {
    /// No alarms, for so many nodes.
    pub(crate) fn new(nodes: usize) -> Self {
        Self { entries: vec![Entry::default(); nodes], waiting: 0, places: vec![NOWHERE; nodes] }
    }

    /// The earliest tick, and whose it is.
    #[inline]
    pub(crate) fn first(&self) -> Option<(u64, u32)> {
        (self.waiting > 0).then(|| (self.entries[0].key, self.entries[0].id))
    }

    #[inline]
    pub(crate) fn has(&self, at: u32) -> bool {
        self.places[at as usize] != NOWHERE
    }

    /// Lets node `at` be looked at again at `tick`, later than `now`, or never.
    pub(crate) fn set(&mut self, at: u32, tick: Option<u64>, now: u64) {
        let Some(tick) = tick else { return self.clear(at) };
        // Keys wrap: what lies further ahead is looked at early, and put off again.
        let key = now.saturating_add(tick.saturating_sub(now).clamp(1, 1 << 62));
        match self.places[at as usize] {
            NOWHERE => {
                self.waiting += 1;
                heap::insert(&mut self.entries[..self.waiting], &mut self.places, Entry { key, id: at });
            }
            stands => heap::change(&mut self.entries[..self.waiting], &mut self.places, stands as usize, key),
        }
    }

    /// Node `at` waits for nothing any more.
    pub(crate) fn clear(&mut self, at: u32) {
        let stands = self.places[at as usize];
        if stands != NOWHERE {
            heap::remove(&mut self.entries[..self.waiting], &mut self.places, stands as usize);
            self.waiting -= 1;
        }
    }
}
