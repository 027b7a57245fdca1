//! What the wire's time costs: ticks for a byte that is given to it, while it is slower than what is sent.
//!
//! A device takes frames into a queue of its own, so a burst waits for the frames of others that are before it, and the time that it
//! waits for says nothing about itself. But over some bursts, the time that the wire took no more, divided by the bytes that it was
//! given, is what a byte of anybody's costs. Whoever sends long frames to a slow wire pays for them so, and users share it by time.

/// The most that is believed of one wait, as a fraction of a second: enough for a burst of full frames at 10 Mbit/s. A wire that
/// stands still for longer is nobody's doing.
const WAITS_PER_SECOND: u64 = 20;
/// After this time without a wait, as a fraction of a second, the wire is not slow any more.
const FORGETS_PER_SECOND: u64 = 10;
/// Waits that are added up before all of them count half.
const WAITS: u32 = 64;
/// Fractions of a tick are kept in so many bits.
const FRACTION: u32 = 8;

/// The price of a byte on the wire.
#[derive(Debug)]
pub(super) struct WireCost {
    longest: u64,
    memory: u64,
    /// Since when the wire takes no more.
    since: Option<u64>,
    /// When it last took again, and what it had been given by then.
    last: u64,
    given: u64,
    /// Of the last waits: ticks, bytes between them, and how many there were.
    ticks: u64,
    bytes: u64,
    waits: u32,
    /// Ticks of a byte, with their fraction.
    price: u64,
}

impl WireCost {
    /// Of a clock with `hz` ticks a second. Nothing costs anything at first.
    pub(super) const fn new(hz: u64) -> Self {
        let (longest, memory) = (hz / WAITS_PER_SECOND, hz / FORGETS_PER_SECOND);
        Self { longest, memory, since: None, last: 0, given: 0, ticks: 0, bytes: 0, waits: 0, price: 0 }
    }

    /// Whether the wire took frames when that was last [noted](Self::note).
    #[inline]
    pub(super) const fn takes(&self) -> bool {
        self.since.is_none()
    }

    /// Notes that at `now` the wire takes frames, or does not any more, having been given `given` bytes in all.
    #[cold]
    pub(super) fn note(&mut self, takes: bool, now: u64, given: u64) {
        let Some(since) = self.since else {
            self.since = (!takes).then_some(now);
            return;
        };
        if !takes {
            return;
        }
        let (ticks, bytes) = (now.wrapping_sub(since).min(self.longest), given.wrapping_sub(self.given));
        if self.waits == WAITS {
            (self.ticks, self.bytes, self.waits) = (self.ticks / 2, self.bytes / 2, self.waits / 2);
        }
        (self.ticks, self.bytes, self.waits) = (self.ticks + ticks, self.bytes + bytes, self.waits + 1);
        self.price = (self.ticks << FRACTION) / self.bytes.max(1);
        (self.since, self.last, self.given) = (None, now, given);
    }

    /// Forgets what it cost, if it has taken everything for a while. Called now and then.
    #[inline]
    pub(super) fn forget(&mut self, now: u64) {
        if self.price > 0 && self.since.is_none() && now.wrapping_sub(self.last) > self.memory {
            (self.ticks, self.bytes, self.waits, self.price) = (0, 0, 0, 0);
        }
    }

    /// Ticks for `bytes` bytes.
    #[inline]
    pub(super) const fn of(&self, bytes: u64) -> u64 {
        (bytes * self.price) >> FRACTION
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HZ: u64 = 1_000_000;

    /// A byte costs what it takes the wire to send it, however long the frames of each burst are, and whoever waits for them.
    #[test]
    fn bytes_cost_their_time() {
        let mut cost = WireCost::new(HZ);
        let (mut now, mut given) = (0, 0);
        // Two ticks for a byte; each burst waits for the one before it.
        for burst in 0..100 {
            let waits = if burst % 2 == 0 { 3000 } else { 200 };
            given += if burst % 2 == 0 { 100 } else { 1500 };
            cost.note(false, now, given);
            assert!(!cost.takes());
            now += waits;
            cost.note(true, now, given);
            assert!(cost.takes());
        }
        let thousand = cost.of(1000);
        assert!((1600..2400).contains(&thousand), "{thousand}");
    }

    /// A wire that stands still is not held against anybody for long, and one that has become fast costs nothing.
    #[test]
    fn prices_are_forgotten() {
        let mut cost = WireCost::new(HZ);
        cost.note(false, 0, 1000);
        cost.note(true, 10 * HZ, 1000);
        assert!(cost.of(1000) <= HZ / WAITS_PER_SECOND);
        cost.forget(10 * HZ + 1);
        assert!(cost.of(1000) > 0);
        cost.forget(11 * HZ);
        assert_eq!(cost.of(1000), 0);
        cost.note(false, 11 * HZ, 2000);
        cost.note(true, 11 * HZ + 5000, 2000);
        assert_eq!(cost.of(1000), 5000, "no average with what was forgotten");
    }
}
