//! A token bucket for several workers.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::bucket::{Rate, ceil_div};

/// A bucket from which several workers draw tokens, each for a class of its own scheduler, so that a limit holds for all
/// of them together.
///
/// A worker draws a *chunk* when it has used up its last one, and gives back what is left when its class has nothing to
/// send. The rate is not divided: a worker that needs more draws more often, and one alone may have all of it.
///
/// # What it costs in precision
///
/// What was drawn is spent later. So over any time `t` all workers together send at most
/// `rate * t + burst + workers * chunk` bytes, where the last part is what lay in the workers at the start of `t`. The
/// rate is kept exactly over a longer time, as each byte that is sent was drawn, or is owed and drawn before the next.
/// The other way round a worker may find nothing while others hold unused chunks: `workers * chunk` bytes at most, for as
/// long as their classes are active and held up by something else. A chunk is what the rate gives in 50 µs, within
/// 3,084 bytes (two full frames) and 64 KiB, and a quarter of the burst at most.
///
/// # How
///
/// One counter of bytes ever drawn, against the bytes that the rate has given since the start, which is computed from the
/// time whenever somebody draws. So nothing is ever rounded twice, and one compare-and-swap is a draw. Ordering is
/// relaxed: the counter orders nothing but itself. It may wrap, and a difference that lies within 2^40 bytes below zero is
/// taken for what it is: a debt, or a worker whose clock is a little behind.
#[derive(Debug)]
#[repr(align(64))]
pub struct SharedBucket {
    /// Bytes ever drawn or forfeited, modulo 2^64. Written by all workers.
    drawn: AtomicU64,
    limits: Limits,
}

/// The constants of a bucket, on a cache line that is never written to.
#[derive(Debug)]
#[repr(align(64))]
struct Limits {
    rate: u64,
    /// Ticks of a second, times eight.
    unit: u64,
    /// Most bytes that wait to be drawn.
    depth: u64,
    /// The tick of the start.
    start: u64,
    chunk: u64,
}

impl SharedBucket {
    /// A full bucket for frames of at most `frame` bytes, at tick `now` of a clock with `hz` ticks in a second.
    ///
    /// `burst` is in bytes. A frame that goes into debt at each worker counts to `workers * chunk`.
    #[must_use]
    pub fn new(rate: Rate, burst: u64, frame: u32, hz: u64, now: u64) -> Self {
        let depth = burst.saturating_sub(frame.into()).max(1);
        let chunk = (rate.bits() / 8 / 20_000).clamp(3084, 1 << 16).min((burst / 4).max(1));
        let limits = Limits { rate: rate.bits(), unit: 8 * hz, depth, start: now, chunk };
        Self { drawn: AtomicU64::new(0), limits }
    }

    /// Bytes that a worker draws at a time.
    #[must_use]
    pub const fn chunk(&self) -> u64 {
        self.limits.chunk
    }

    /// Takes at most `want` bytes, and returns how many it took.
    pub fn draw(&self, want: u64, now: u64) -> u64 {
        let mut drawn = self.drawn.load(Ordering::Relaxed);
        loop {
            let there = self.there(drawn, now);
            let got = there.min(want);
            if got == 0 {
                return 0;
            }
            // Bytes that came while the bucket was full are forfeited.
            let next = self.given(now).wrapping_sub(there).wrapping_add(got);
            match self.drawn.compare_exchange_weak(drawn, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return got,
                Err(seen) => drawn = seen,
            }
        }
    }

    /// Gives back `bytes` that were drawn and not used.
    pub fn give_back(&self, bytes: u64) {
        self.drawn.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Takes `bytes`, whether they are there or not: the debt of a worker that has nothing to send any more.
    pub fn owe(&self, bytes: u64) {
        self.drawn.fetch_add(bytes, Ordering::Relaxed);
    }

    /// The tick at which `bytes` can be drawn if nobody else draws; `None` if that never comes.
    pub fn ready_at(&self, bytes: u64, now: u64) -> Option<u64> {
        let drawn = self.drawn.load(Ordering::Relaxed);
        let want = bytes.clamp(1, self.limits.depth);
        let missing = match self.there(drawn, now) {
            0 => want + drawn.wrapping_sub(self.given(now)),
            there => want.saturating_sub(there),
        };
        if missing == 0 {
            return Some(now);
        }
        if self.limits.rate == 0 {
            return None;
        }
        let given = u128::from(self.limits.rate) * u128::from(now.saturating_sub(self.limits.start));
        let part = given % u128::from(self.limits.unit);
        let units = u128::from(missing) * u128::from(self.limits.unit) - part;
        Some(now.saturating_add(ceil_div(units, self.limits.rate)))
    }

    /// Bytes that the rate, and the full bucket at the start, have given up to `now`, modulo 2^64.
    fn given(&self, now: u64) -> u64 {
        let units = u128::from(self.limits.rate) * u128::from(now.saturating_sub(self.limits.start));
        let bytes = match u64::try_from(units) {
            Ok(units) => units / self.limits.unit,
            Err(_) => low_half(units / u128::from(self.limits.unit)),
        };
        bytes.wrapping_add(self.limits.depth)
    }

    /// Bytes that can be drawn at `now`, if `drawn` is what was drawn.
    fn there(&self, drawn: u64, now: u64) -> u64 {
        let there = self.given(now).wrapping_sub(drawn);
        if there > u64::MAX - (1 << 40) { 0 } else { there.min(self.limits.depth) }
    }
}

/// `number` modulo 2^64.
const fn low_half(number: u128) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = number.to_le_bytes();
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bucket::Bucket;
    use proptest::prelude::*;
    use std::thread;

    const HZ: u64 = 1_000_000_000;

    proptest! {
        /// Drawn by one, it gives what a bucket of one's own gives, byte for byte.
        #[test]
        fn one_worker_gets_what_a_bucket_gives(
            rate in prop_oneof![Just(1_u64), 1_000_000..20_000_000_000_u64, Just(u64::MAX)],
            draws in prop::collection::vec((prop_oneof![0..100_000_u64, Just(1 << 40)], 1..5_000_u64), 1..60),
        ) {
            let shared = SharedBucket::new(Rate::from_bits(rate), 20_000, 0, HZ, 7);
            let mut own = Bucket::new(Rate::from_bits(rate), 20_000, 0, HZ, 7);
            let mut now = 7;
            for (pause, want) in draws {
                now += pause;
                own.refill(now);
                // A bucket counts the start of a byte, the shared one only whole ones; and where it was full, the part of a byte
                // is another one.
                let got = shared.draw(want, now);
                let there = own.bytes();
                prop_assert!(got <= want && got <= there && got + 2 >= want.min(there), "{} of {} at {}", got, there, now);
                own.charge(got);
            }
        }

        /// `ready_at` names the first tick at which so many bytes can be drawn.
        #[test]
        fn ready_is_exact(rate in prop_oneof![1..1000_u64, 1_000_000..20_000_000_000_u64], spent in 1..20_000_u64, want in 1..20_000_u64, after in 0..1000_u64) {
            let shared = SharedBucket::new(Rate::from_bits(rate), 20_000, 0, HZ, 7);
            let now = 7 + after;
            prop_assert_eq!(shared.draw(spent, now), spent);
            let ready = shared.ready_at(want, now).unwrap();
            if ready > now {
                prop_assert!(shared.there(shared.drawn.load(Ordering::Relaxed), ready - 1) < want);
            }
            prop_assert_eq!(shared.draw(want, ready), want);
        }
    }

    /// Four threads that draw and give back at random never have more than the rate and the burst give.
    #[test]
    fn threads_never_draw_more_than_there_is() {
        const STEPS: u64 = 20_000;
        let shared = SharedBucket::new(Rate::from_bits(80_000_000), 10_000, 0, HZ, 0);
        let draws = |worker: u64| {
            let (mut kept, mut state) = (0, worker + 1);
            for now in 0..STEPS {
                state = state * 48_271 % 1_000_003;
                let got = shared.draw(state % 700, now * 1000);
                let back = got.min(state % 50);
                shared.give_back(back);
                kept += got - back;
            }
            kept
        };
        let kept: u64 = thread::scope(|scope| {
            let workers: Vec<_> = (0..4).map(|worker| scope.spawn(move || draws(worker))).collect();
            workers.into_iter().map(|worker| worker.join().unwrap()).sum()
        });
        // A byte in 100 ns, which is 10 in a step.
        assert!(kept <= 10_000 + 10 * (STEPS - 1), "{kept}");
        assert!(kept >= 10 * (STEPS - 1), "{kept}");
    }
}
