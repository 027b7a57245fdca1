//! The two-sided protocol under a model checker: every interleaving and every value that the C11 memory model lets a
//! load see. Run with `RUSTFLAGS="--cfg loom" cargo test -p kopi-ring --test loom --release`.
//!
//! A slot is a plain cell here, so a side that touches a slot without an Acquire that pairs with the other's Release is
//! reported as a data race, whatever value it sees.
#![cfg(loom)]
#![expect(clippy::tests_outside_test_module, reason = "every function of an integration test is test code")]

use kopi_ring::index::{ConsumerIndex, ProducerIndex, SharedIndex};
use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use loom::sync::atomic::{AtomicU32, Ordering};
use loom::thread;

/// Slots filled or emptied between two publications.
const BURST: u32 = 2;

/// The orderings of a counter's load and store.
type Orderings = (Ordering, Ordering);

/// What the real counters have.
const REAL: Orderings = (Acquire, Release);

struct Shared(AtomicU32, Orderings);

impl SharedIndex for Shared {
    fn load(&self) -> u32 {
        self.0.load(self.1.0)
    }
    fn store(&self, value: u32) {
        self.0.store(value, self.1.1);
    }
}

struct Ring {
    head: Shared,
    tail: Shared,
    slots: Vec<UnsafeCell<u32>>,
}

// SAFETY: the protocol under test is what keeps the cells from being used by both sides at one time; loom checks it.
unsafe impl Sync for Ring {}
// SAFETY: the cells hold plain numbers.
unsafe impl Send for Ring {}

impl Ring {
    fn slot(&self, position: u32) -> &UnsafeCell<u32> {
        &self.slots[position as usize & (self.slots.len() - 1)]
    }
}

/// Fills slots with their positions, a burst at a time. Gives up the processor when the ring is full.
fn produce(ring: &Ring, size: u32, start: u32, total: u32) {
    let mut index = ProducerIndex::new(size, start);
    let mut left = total;
    while left > 0 {
        let free = index.free(BURST.min(left), &ring.tail).expect("an honest consumer");
        let burst = free.min(BURST).min(left);
        for _ in 0..burst {
            let position = index.head();
            ring.slot(position).with_mut(|slot| {
                // SAFETY: the index says that the slot is ours; loom reports it if that is not so.
                unsafe { *slot = position };
            });
            index.advance(1);
        }
        if burst > 0 {
            index.publish(&ring.head);
            left -= burst;
        } else {
            thread::yield_now();
        }
    }
}

/// Empties slots a burst at a time, and checks that each holds its position.
fn consume(ring: &Ring, size: u32, start: u32, total: u32) {
    let mut index = ConsumerIndex::new(size, start);
    let mut left = total;
    while left > 0 {
        let burst = index.ready(1, &ring.head).expect("an honest producer").min(BURST);
        for _ in 0..burst {
            let position = index.tail();
            // SAFETY: the index says that the slot is ours; loom reports it if that is not so.
            let found = ring.slot(position).with(|slot| unsafe { *slot });
            assert_eq!(found, position);
            index.advance(1);
        }
        if burst > 0 {
            index.publish(&ring.tail);
            left -= burst;
        } else {
            thread::yield_now();
        }
    }
}

/// Sends `total` frames through a ring of `size` slots whose counters begin at `start`.
fn check(size: u32, start: u32, total: u32, orderings: Orderings) {
    loom::model(move || {
        let ring = Arc::new(Ring {
            head: Shared(AtomicU32::new(start), orderings),
            tail: Shared(AtomicU32::new(start), orderings),
            slots: (0..size).map(|_| UnsafeCell::new(0)).collect(),
        });
        let producer = {
            let ring = Arc::clone(&ring);
            thread::spawn(move || produce(&ring, size, start, total))
        };
        consume(&ring, size, start, total);
        producer.join().expect("the producer does not panic");
    });
}

/// Two slots: every burst fills the ring, so each side waits for the other all the time.
#[test]
fn ring_of_two_slots_hands_over_every_frame() {
    check(2, 0, 4, REAL);
}

/// Two slots, with the counters passing from 2^32 - 1 to 0 under way.
#[test]
fn ring_of_two_slots_survives_the_wrap() {
    check(2, u32::MAX - 1, 4, REAL);
}

/// Four slots: two bursts are in the ring at one time, so a side may be ahead of what the other has published.
#[test]
fn ring_of_four_slots_hands_over_every_frame() {
    check(4, u32::MAX - 2, 6, REAL);
}

/// The test would see it if a counter were loaded with too weak an ordering.
#[test]
#[should_panic(expected = "Causality violation")]
fn relaxed_loads_are_found_out() {
    check(2, 0, 4, (Relaxed, Release));
}

/// The test would see it if a counter were stored with too weak an ordering.
#[test]
#[should_panic(expected = "Causality violation")]
fn relaxed_stores_are_found_out() {
    check(2, 0, 4, (Acquire, Relaxed));
}

/// The sleeping consumer: see `need_wakeup.rs`.
mod sleep {
    use super::*;
    use kopi_ring::need_wakeup::{self, NeedWakeup};
    use loom::sync::atomic::Ordering::{AcqRel, SeqCst};
    use loom::sync::atomic::fence;
    use loom::sync::{Condvar, Mutex};

    struct Word(AtomicU32);

    impl NeedWakeup for Word {
        fn load(&self) -> u32 {
            self.0.load(Relaxed)
        }
        fn store(&self, value: u32) {
            self.0.store(value, Release);
        }
        fn replace(&self, from: u32, to: u32) -> bool {
            self.0.compare_exchange(from, to, AcqRel, Acquire).is_ok()
        }
    }

    /// What a sleeping thread waits for: an eventfd, or a futex word that it has read before. It counts its wake-ups.
    struct Event(Mutex<u32>, Condvar);

    impl Event {
        fn new() -> Self {
            Self(Mutex::new(0), Condvar::new())
        }

        fn signal(&self) {
            *self.0.lock().expect("nobody panics") += 1;
            self.1.notify_one();
        }

        fn await_beyond(&self, seen: u32) -> u32 {
            let mut count = self.0.lock().expect("nobody panics");
            while *count == seen {
                count = self.1.wait(count).expect("nobody panics");
            }
            *count
        }
    }

    /// Which of the two barriers there are.
    #[derive(Clone, Copy)]
    struct Barriers {
        producer: bool,
        consumer: bool,
    }

    const BOTH: Barriers = Barriers { producer: true, consumer: true };

    /// What a producer and a sleeping consumer share.
    struct Sleep {
        head: Shared,
        need_wakeup: Word,
        event: Event,
    }

    impl Sleep {
        fn new() -> Arc<Self> {
            let head = Shared(AtomicU32::new(0), REAL);
            Arc::new(Self { head, need_wakeup: Word(AtomicU32::new(0)), event: Event::new() })
        }
    }

    /// Publishes frame after frame, and calls `wake` when the consumer sleeps.
    fn produce(sleep: &Sleep, total: u32, barrier: bool, wake: impl Fn()) {
        for head in 1..=total {
            sleep.head.store(head);
            if barrier {
                fence(SeqCst);
            }
            if need_wakeup::take(&sleep.need_wakeup) {
                wake();
            }
        }
    }

    /// Takes frames, and sleeps whenever there is none, until it has all.
    fn consume(sleep: &Sleep, total: u32, barrier: bool) {
        let mut wakeups = 0;
        loop {
            let tail = sleep.head.load();
            if tail == total {
                return;
            }
            need_wakeup::set(&sleep.need_wakeup);
            if barrier {
                fence(SeqCst);
            }
            if sleep.head.load() == tail {
                wakeups = sleep.event.await_beyond(wakeups);
            }
            need_wakeup::clear(&sleep.need_wakeup);
        }
    }

    fn check(total: u32, barriers: Barriers) {
        loom::model(move || {
            let sleep = Sleep::new();
            let producer = {
                let sleep = Arc::clone(&sleep);
                thread::spawn(move || produce(&sleep, total, barriers.producer, || sleep.event.signal()))
            };
            consume(&sleep, total, barriers.consumer);
            producer.join().expect("the producer does not panic");
        });
    }

    /// Whatever the interleaving, a sleeping consumer is woken by a frame that it has not seen: a lost wake-up would leave it
    /// waiting for ever, which loom reports.
    #[test]
    fn no_wake_up_is_lost() {
        check(2, BOTH);
    }

    /// The test would see it if the producer looked at `need_wakeup` before its frames can be seen.
    #[test]
    #[should_panic(expected = "deadlock")]
    fn missing_barrier_of_the_producer_is_found_out() {
        check(2, Barriers { producer: false, ..BOTH });
    }

    /// The test would see it if the consumer looked into the ring before its `need_wakeup` can be seen.
    #[test]
    #[should_panic(expected = "deadlock")]
    fn missing_barrier_of_the_consumer_is_found_out() {
        check(2, Barriers { consumer: false, ..BOTH });
    }

    /// The same with a third party, as in the driver: the producer wakes the futex, and the interrupt thread that waits for it
    /// looks for the `need_wakeup` that was taken and wakes the consumer.
    #[test]
    fn no_wake_up_is_lost_on_its_way_through_the_interrupt_thread() {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(3);
        model.check(|| {
            let sleep = Sleep::new();
            let futex = Arc::new((Event::new(), AtomicU32::new(0)));
            let producer = {
                let (sleep, futex) = (Arc::clone(&sleep), Arc::clone(&futex));
                thread::spawn(move || {
                    produce(&sleep, 1, true, || futex.0.signal());
                    futex.1.store(1, Release);
                    futex.0.signal();
                })
            };
            let interrupt_thread = {
                let (sleep, futex) = (Arc::clone(&sleep), Arc::clone(&futex));
                thread::spawn(move || {
                    let (mut seen, mut done) = (0, false);
                    while !done {
                        seen = futex.0.await_beyond(seen);
                        done = futex.1.load(Acquire) == 1;
                        if need_wakeup::take_wakeup(&sleep.need_wakeup) {
                            sleep.event.signal();
                        }
                    }
                })
            };
            consume(&sleep, 1, true);
            producer.join().expect("the producer does not panic");
            interrupt_thread.join().expect("the interrupt thread does not panic");
        });
    }
}
