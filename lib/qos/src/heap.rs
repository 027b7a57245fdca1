//! A heap of numbers by keys, in a slice, that says where each number stands.
//!
//! Four children each: that is one cache line, and half the levels of two. Keys are compared as a counter that may wrap: the
//! earlier one is less than 2^63 behind.
//!
//! # Source
//!
//! D. B. Johnson, "Priority queues with update and finding minimum spanning trees", 1975, for d children.

/// A number and its key.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Entry {
    pub(crate) key: u64,
    pub(crate) id: u32,
}

/// Where a number stands that is in no heap.
pub(crate) const NOWHERE: u32 = u32::MAX;

const CHILDREN: usize = 4;

/// Whether `a` is before `b`, as counters that may wrap.
#[inline]
pub(crate) const fn before(a: u64, b: u64) -> bool {
    a.wrapping_sub(b) > u64::MAX / 2
}

/// Puts `entry` at the end of `heap`, which is one longer than before, and moves it up.
///
/// `places` gets the place of each number, by number.
#[inline]
pub(crate) fn insert(heap: &mut [Entry], places: &mut [u32], entry: Entry) {
    let last = heap.len() - 1;
    up(heap, places, last, entry);
}

/// Takes out what stands at `at`. The heap is then one shorter: its last entry is no part of it any more.
#[inline]
pub(crate) fn remove(heap: &mut [Entry], places: &mut [u32], at: usize) {
    places[heap[at].id as usize] = NOWHERE;
    let last = heap.len() - 1;
    let entry = heap[last];
    if at < last {
        sift(&mut heap[..last], places, at, entry);
    }
}

/// Gives what stands at `at` another key.
#[inline]
pub(crate) fn change(heap: &mut [Entry], places: &mut [u32], at: usize, key: u64) {
    let entry = Entry { key, ..heap[at] };
    sift(heap, places, at, entry);
}

/// Puts `entry` where `at` was, or wherever it belongs.
fn sift(heap: &mut [Entry], places: &mut [u32], at: usize, entry: Entry) {
    if at > 0 && before(entry.key, heap[(at - 1) / CHILDREN].key) {
        up(heap, places, at, entry);
    } else {
        down(heap, places, at, entry);
    }
}

fn up(heap: &mut [Entry], places: &mut [u32], mut at: usize, entry: Entry) {
    while at > 0 {
        let parent = (at - 1) / CHILDREN;
        if !before(entry.key, heap[parent].key) {
            break;
        }
        put(heap, places, at, heap[parent]);
        at = parent;
    }
    put(heap, places, at, entry);
}

fn down(heap: &mut [Entry], places: &mut [u32], mut at: usize, entry: Entry) {
    loop {
        let first = at * CHILDREN + 1;
        let Some(children) = heap.get(first..heap.len().min(first + CHILDREN)) else { break };
        let Some((&head, rest)) = children.split_first() else { break };
        let (mut least, mut child) = (head, first);
        for (offset, &other) in rest.iter().enumerate() {
            if before(other.key, least.key) {
                (least, child) = (other, first + 1 + offset);
            }
        }
        if !before(least.key, entry.key) {
            break;
        }
        put(heap, places, at, least);
        at = child;
    }
    put(heap, places, at, entry);
}

#[inline]
#[expect(clippy::cast_possible_truncation, reason = "a heap has fewer than 2^32 entries, as many as there are nodes")]
fn put(heap: &mut [Entry], places: &mut [u32], at: usize, entry: Entry) {
    heap[at] = entry;
    places[entry.id as usize] = at as u32;
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        /// Whatever is inserted, removed and changed: the first is always the least, and each number is where `places` says.
        #[test]
        fn heap_is_a_sorted_map(
            start in prop_oneof![Just(0_u64), Just(u64::MAX - 500), Just(u64::MAX / 2)],
            steps in prop::collection::vec((0..40_u32, 0..1000_u64, 0..3_u8), 0..300),
        ) {
            let mut memory = vec![Entry::default(); 40];
            let mut places = vec![NOWHERE; 40];
            let mut model = BTreeMap::new();
            for (id, offset, step) in steps {
                let key = start.wrapping_add(offset);
                let len = model.len();
                let at = places[id as usize] as usize;
                prop_assert_eq!(at == NOWHERE as usize, !model.contains_key(&id));
                match (at == NOWHERE as usize, step) {
                    (true, _) => insert(&mut memory[..=len], &mut places, Entry { key, id }),
                    (false, 0) => remove(&mut memory[..len], &mut places, at),
                    (false, _) => change(&mut memory[..len], &mut places, at, key),
                }
                if at != NOWHERE as usize && step == 0 {
                    model.remove(&id);
                } else {
                    model.insert(id, offset);
                }
                if let Some(least) = model.values().min() {
                    prop_assert_eq!(memory[0].key, start.wrapping_add(*least));
                }
                for (&id, &offset) in &model {
                    let entry = memory[places[id as usize] as usize];
                    prop_assert_eq!((entry.id, entry.key), (id, start.wrapping_add(offset)));
                }
            }
        }
    }
}
