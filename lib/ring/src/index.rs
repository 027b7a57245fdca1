//! The arithmetic of a single-producer single-consumer ring, apart from any memory.
//!
//! Two free-running 32-bit counters: `head` counts slots ever filled, `tail` slots ever emptied; both wrap at 2^32.
//! Slot `n & (size - 1)` belongs to the consumer while `tail <= n < head`, else to the producer. Each side publishes
//! its counter once per burst, keeps a copy of the other's, and looks at the shared one only when the copy is used up:
//! the fewer cache lines move between the two cores, the faster the ring.
//!
//! # Source
//!
//! The split of the indexes follows the avail and used rings of the virtio specification (OASIS virtio 1.2, 2.7); the
//! cached peer index is that of FastForward and MCRingBuffer (Lee et al., ANCS 2009).

use crate::PeerFault;

/// One index in shared memory. The trait lets a model checker stand in for shared memory.
pub trait SharedIndex {
    /// Reads the index with Acquire ordering.
    fn load(&self) -> u32;
    /// Writes the index with Release ordering.
    fn store(&self, value: u32);
}

/// The producer's private view of a ring.
#[derive(Debug)]
pub struct ProducerIndex {
    size: u32,
    /// Slots filled, published or not.
    head: u32,
    /// The consumer's counter when we last looked.
    tail: u32,
}

impl ProducerIndex {
    /// A view of an empty ring of `size` slots (a power of two) whose counters both stand at `start`.
    #[must_use]
    pub const fn new(size: u32, start: u32) -> Self {
        Self { size, head: start, tail: start }
    }

    /// Slots that may be filled now. The shared `tail` is read only when fewer than `want` are known to be free.
    ///
    /// # Errors
    ///
    /// [`PeerFault::TailJump`] if the consumer claims to have emptied slots that were never filled.
    #[inline]
    pub fn free(&mut self, want: u32, tail: &impl SharedIndex) -> Result<u32, PeerFault> {
        let filled = self.head.wrapping_sub(self.tail);
        let free = self.size.wrapping_sub(filled);
        if free >= want {
            return Ok(free);
        }
        let seen = tail.load();
        let moved = seen.wrapping_sub(self.tail);
        if moved > filled {
            return Err(PeerFault::TailJump { moved, filled });
        }
        self.tail = seen;
        Ok(free.wrapping_add(moved))
    }

    /// The position of the next slot to fill.
    #[inline]
    #[must_use]
    pub const fn head(&self) -> u32 {
        self.head
    }

    /// Slots that the consumer had not emptied when last looked at.
    #[inline]
    #[must_use]
    pub const fn filled(&self) -> u32 {
        self.head.wrapping_sub(self.tail)
    }

    /// Marks `slots` more as filled, without telling the consumer yet.
    #[inline]
    pub const fn advance(&mut self, slots: u32) {
        self.head = self.head.wrapping_add(slots);
    }

    /// Tells the consumer about all filled slots.
    #[inline]
    pub fn publish(&self, head: &impl SharedIndex) {
        head.store(self.head);
    }
}

/// The consumer's private view of a ring.
#[derive(Debug)]
pub struct ConsumerIndex {
    size: u32,
    /// Slots emptied, published or not.
    tail: u32,
    /// The producer's counter when we last looked.
    head: u32,
}

impl ConsumerIndex {
    /// A view of an empty ring of `size` slots (a power of two) whose counters both stand at `start`.
    #[must_use]
    pub const fn new(size: u32, start: u32) -> Self {
        Self { size, tail: start, head: start }
    }

    /// Slots that may be emptied now. The shared `head` is read only when fewer than `want` are known to be filled.
    ///
    /// # Errors
    ///
    /// [`PeerFault::HeadJump`] if the producer claims to have filled slots that were not free.
    #[inline]
    pub fn ready(&mut self, want: u32, head: &impl SharedIndex) -> Result<u32, PeerFault> {
        let ready = self.head.wrapping_sub(self.tail);
        if ready >= want {
            return Ok(ready);
        }
        let seen = head.load();
        let moved = seen.wrapping_sub(self.head);
        let room = self.size.wrapping_sub(ready);
        if moved > room {
            return Err(PeerFault::HeadJump { moved, room });
        }
        self.head = seen;
        Ok(ready.wrapping_add(moved))
    }

    /// Slots known to be filled without looking at shared memory.
    #[inline]
    #[must_use]
    pub const fn known(&self) -> u32 {
        self.head.wrapping_sub(self.tail)
    }

    /// The position of the next slot to empty.
    #[inline]
    #[must_use]
    pub const fn tail(&self) -> u32 {
        self.tail
    }

    /// Marks `slots` more as emptied, without telling the producer yet.
    #[inline]
    pub const fn advance(&mut self, slots: u32) {
        self.tail = self.tail.wrapping_add(slots);
    }

    /// Tells the producer about all emptied slots.
    #[inline]
    pub fn publish(&self, tail: &impl SharedIndex) {
        tail.store(self.tail);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::collections::VecDeque;

    impl SharedIndex for Cell<u32> {
        fn load(&self) -> u32 {
            self.get()
        }
        fn store(&self, value: u32) {
            self.set(value);
        }
    }

    const SIZE: u32 = 4;

    /// Plays every script of twelve pushes and pops against a `VecDeque`, starting on both sides of the index wrap.
    /// Twelve steps fill and empty a four-slot ring, and carry it round more than once.
    #[test]
    fn indexes_behave_like_a_bounded_queue() {
        for start in [0, u32::MAX - 3, u32::MAX] {
            for script in 0_u32..1 << 12 {
                let (head, tail) = (Cell::new(start), Cell::new(start));
                let mut producer = ProducerIndex::new(SIZE, start);
                let mut consumer = ConsumerIndex::new(SIZE, start);
                let mut model = VecDeque::new();
                for step in 0..12 {
                    if script >> step & 1 == 1 {
                        let free = producer.free(1, &tail).unwrap();
                        assert_eq!(free == 0, model.len() == SIZE as usize, "start {start} script {script:012b}");
                        if free > 0 {
                            model.push_back(producer.head());
                            producer.advance(1);
                            producer.publish(&head);
                        }
                    } else {
                        let ready = consumer.ready(1, &head).unwrap();
                        let got = (ready > 0).then(|| consumer.tail());
                        assert_eq!(got, model.pop_front(), "start {start} script {script:012b}");
                        if ready > 0 {
                            consumer.advance(1);
                            consumer.publish(&tail);
                        }
                    }
                }
            }
        }
    }

    /// A producer that moves its index past the free slots, or backwards, is caught at once and nothing moves.
    #[test]
    fn head_jump_is_a_peer_fault() {
        for jump in [5, 6, 1 << 31, u32::MAX] {
            let mut consumer = ConsumerIndex::new(SIZE, 7);
            let head = Cell::new(7_u32.wrapping_add(jump));
            assert_eq!(consumer.ready(1, &head), Err(PeerFault::HeadJump { moved: jump, room: SIZE }));
            assert_eq!((consumer.tail(), consumer.known()), (7, 0));
        }
    }

    /// A head that went forward and then back by one is a jump of 2^32 - 1.
    #[test]
    fn head_moving_backwards_is_a_peer_fault() {
        let mut consumer = ConsumerIndex::new(SIZE, 0);
        let head = Cell::new(2);
        assert_eq!(consumer.ready(1, &head), Ok(2));
        head.set(1);
        assert_eq!(consumer.ready(3, &head), Err(PeerFault::HeadJump { moved: u32::MAX, room: 2 }));
    }

    /// A consumer that empties slots that were never filled, or moves backwards, is caught.
    #[test]
    fn tail_jump_is_a_peer_fault() {
        for jump in [3, 4, 1 << 31, u32::MAX] {
            let mut producer = ProducerIndex::new(SIZE, 9);
            producer.advance(2);
            let tail = Cell::new(9_u32.wrapping_add(jump));
            assert_eq!(producer.free(4, &tail), Err(PeerFault::TailJump { moved: jump, filled: 2 }));
            assert_eq!(producer.filled(), 2);
        }
    }

    /// The shared counter of the peer is left alone while the cached copy is good enough.
    #[test]
    fn cached_indexes_save_the_shared_read() {
        struct Untouchable;
        impl SharedIndex for Untouchable {
            fn load(&self) -> u32 {
                panic!("read the shared counter")
            }
            fn store(&self, _: u32) {}
        }
        let mut producer = ProducerIndex::new(SIZE, 0);
        assert_eq!(producer.free(4, &Untouchable), Ok(4));
        let mut consumer = ConsumerIndex::new(SIZE, 0);
        assert_eq!(consumer.ready(1, &Cell::new(3)), Ok(3));
        assert_eq!(consumer.ready(3, &Untouchable), Ok(3));
    }
}
