//! The rings of one RX queue.
//!
//! A worker of kopid's only fills rings of its own. Where there are several workers, a queue has a ring for each of them, its lanes:
//! so no frame goes from one worker to another, whichever queue it is for. A burst takes frames from all lanes. Those of one flow
//! come through one lane, in their order.

use kopi_ring::layout::MAX_QUEUES;
use kopi_ring::{Consumer, Region};

/// Slots of a lane, unless its queue has fewer: as many bursts as a worker may come with before the application polls.
const LEAST: u32 = 256;

/// A queue's ends of its rings. They are of one region, so they come and go together.
#[derive(Debug)]
pub(crate) struct Lanes {
    /// The first one, mostly the only one.
    pub(crate) first: Consumer,
    others: Box<[Consumer]>,
    /// The lane that the next burst begins with.
    next: usize,
}

impl Lanes {
    /// A queue's ends of its rings in `region`, if it has the queue.
    pub(crate) fn of(region: &Region, queue: usize) -> Option<Self> {
        let lanes = usize::from(region.geometry().lanes());
        let begin = queue.saturating_mul(lanes);
        let first = region.rx_consumer(begin)?;
        let others = (1..lanes).map_while(|lane| region.rx_consumer(begin.saturating_add(lane))).collect();
        Some(Self { first, others, next: 0 })
    }

    /// Whether there is only the first one.
    pub(crate) const fn is_single(&self) -> bool {
        self.others.is_empty()
    }

    /// All of them, by lane.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Consumer> {
        std::iter::once(&self.first).chain(&self.others)
    }

    /// The same, to be emptied.
    pub(crate) fn all_mut(&mut self) -> impl Iterator<Item = &mut Consumer> {
        std::iter::once(&mut self.first).chain(&mut self.others)
    }

    /// Whether no frame has come through any of them.
    #[inline]
    pub(crate) fn is_empty(&mut self) -> bool {
        self.all_mut().all(|ring| matches!(ring.poll(), Ok(0)))
    }

    /// Where a burst begins, and how many lanes it has to look at: with another one each time, so that however much comes through
    /// one of them, none is left out for long.
    pub(crate) const fn turn(&mut self) -> (usize, usize) {
        let begin = self.next;
        self.next = if begin == self.others.len() { 0 } else { begin.saturating_add(1) };
        (begin, self.others.len().saturating_add(1))
    }

    /// Lane `at`, if there is one.
    #[inline]
    pub(crate) fn lane(&mut self, at: usize) -> Option<&mut Consumer> {
        match at.checked_sub(1) {
            None => Some(&mut self.first),
            Some(other) => self.others.get_mut(other),
        }
    }
}

/// Lanes of each of `queues` RX queues, with a daemon of which `workers` receive from the wire. One where that many rings are more
/// than there can be.
pub(crate) fn count(queues: usize, workers: u16) -> u16 {
    let each = usize::from(workers);
    if each < 2 || queues.saturating_mul(each) > MAX_QUEUES { 1 } else { workers }
}

/// Slots of each of `lanes` lanes of a queue with `descriptors`, a power of two: as many together, if that leaves each of them enough.
pub(crate) fn size(descriptors: u32, lanes: u16) -> u32 {
    let part = descriptors.div_ceil(u32::from(lanes).max(1)).next_power_of_two();
    part.max(descriptors.min(LEAST))
}

#[cfg(test)]
mod tests {
    use super::*;
    use kopi_ring::{Geometry, HugePages};

    /// A queue has a lane for each worker, and rings are never more than there can be.
    #[test]
    fn lanes_are_for_few_rings() {
        for (queues, workers, lanes) in [
            (1, 0, 1),
            (1, 1, 1),
            (5, 1, 1),
            (1, 2, 2),
            (2, 2, 2),
            (8, 2, 2),
            (3, 2, 2),
            (7, 2, 2),
            (9, 2, 1),
            (1, 4, 4),
            (2, 4, 4),
            (4, 4, 4),
            (5, 4, 1),
            (1, 16, 16),
            (1, 17, 1),
            (1, u16::MAX, 1),
        ] {
            assert_eq!(count(queues, workers), lanes, "{queues} queues, {workers} workers");
            assert!(queues * usize::from(count(queues, workers)) <= MAX_QUEUES);
        }
    }

    /// Lanes have as many slots together as the ring would have, and not too few each.
    #[test]
    fn lanes_share_the_slots() {
        for (descriptors, lanes, slots) in [
            (1024, 1, 1024),
            (1024, 2, 512),
            (1024, 3, 512),
            (1024, 4, 256),
            (1024, 16, 256),
            (8192, 16, 512),
            (256, 2, 256),
            (64, 16, 64),
            (128, 2, 128),
        ] {
            assert_eq!(size(descriptors, lanes), slots, "{descriptors} slots, {lanes} lanes");
        }
    }

    /// Each queue has its own rings, each burst sees all of them, and each is the first one in its turn.
    #[test]
    fn bursts_begin_with_each_lane_in_turn() {
        let geometry = Geometry::new(&[64], &[64, 128, 256, 512, 1024, 2048], 256).unwrap().with_lanes(3).unwrap();
        let region = Region::create(&geometry, HugePages::Off).unwrap();
        assert!(Lanes::of(&region, 2).is_none());
        for (queue, sizes) in [(0, [64, 128, 256]), (1, [512, 1024, 2048])] {
            let mut lanes = Lanes::of(&region, queue).unwrap();
            assert!(!lanes.is_single());
            assert_eq!(lanes.all().map(Consumer::size).collect::<Vec<_>>(), sizes);
            for begin in [0, 1, 2, 0, 1, 2, 0] {
                assert_eq!(lanes.turn(), (begin, 3));
            }
            let by_number = (0..5).map_while(|at| lanes.lane(at).map(|ring| ring.size()));
            assert_eq!(by_number.collect::<Vec<_>>(), sizes);
        }
    }
}
