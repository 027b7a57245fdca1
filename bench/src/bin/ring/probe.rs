//! One-way latency of a cache line between the two cores.

use crate::pair::Cores;
use std::hint::spin_loop;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::thread;
use std::time::Instant;

/// Round trips in one batch.
const TRIPS: u32 = 4_000;
/// Batches, the first of which warms up.
const BATCHES: u32 = 6;

/// Alone on its pair of cache lines.
#[repr(align(128))]
struct Turn(AtomicU32);

impl Turn {
    fn wait_for(&self, value: u32) {
        while self.0.load(Acquire) != value {
            spin_loop();
        }
    }
}

/// The median of a few batches of round trips, halved, in nanoseconds.
///
/// # Panics
///
/// If the echoing thread does, which it cannot.
pub(crate) fn one_way_ns(cores: Cores) -> f64 {
    let turn = Turn(AtomicU32::new(0));
    let last = TRIPS.saturating_mul(BATCHES);
    let mut batches: Vec<f64> = thread::scope(|scope| {
        scope.spawn(|| {
            Cores::pin(cores.producer);
            for trip in 0..last {
                turn.wait_for(2 * trip + 1);
                turn.0.store(2 * trip + 2, Release);
            }
        });
        let asking = scope.spawn(|| {
            Cores::pin(cores.consumer);
            let batch = |index: u32| {
                let start = Instant::now();
                for trip in index * TRIPS..(index + 1) * TRIPS {
                    turn.0.store(2 * trip + 1, Release);
                    turn.wait_for(2 * trip + 2);
                }
                start.elapsed().as_secs_f64() * 1e9 / f64::from(TRIPS) / 2.0
            };
            (0..BATCHES).map(batch).skip(1).collect()
        });
        asking.join().expect("the asking thread does not panic")
    });
    batches.sort_unstable_by(f64::total_cmp);
    batches.get(batches.len() / 2).copied().unwrap_or(f64::INFINITY)
}
