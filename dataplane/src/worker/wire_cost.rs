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
    /// When it last took again, and what it had been given by then; not known while it is fast, since that says nothing.
    last: u64,
    given: Option<u64>,
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
        Self { longest, memory, since: None, last: 0, given: None, ticks: 0, bytes: 0, waits: 0, price: 0 }
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
        let ticks = now.wrapping_sub(since).min(self.longest);
        // It is less than before when frames were given up.
        let bytes = self.given.map_or(0, |before| given.saturating_sub(before));
        (self.since, self.last, self.given) = (None, now, Some(given));
        if bytes == 0 {
            return;
        }
        if self.waits == WAITS {
            (self.ticks, self.bytes, self.waits) = (self.ticks / 2, self.bytes / 2, self.waits / 2);
        }
        (self.ticks, self.bytes, self.waits) = (self.ticks + ticks, self.bytes + bytes, self.waits + 1);
        self.price = (self.ticks << FRACTION) / self.bytes.max(1);
    }

    /// Forgets what it cost, if it has taken everything for a while. Called now and then.
    #[inline]
    pub(super) fn forget(&mut self, now: u64) {
        if self.given.is_some() && self.since.is_none() && now.wrapping_sub(self.last) > self.memory {
            (self.given, self.ticks, self.bytes, self.waits, self.price) = (None, 0, 0, 0, 0);
        }
    }

    /// Ticks for the `bytes` bytes of a burst: no more than is believed of one wait, or the debt of who has met a wire that stood still
    /// for a moment would outlast it by far.
    #[inline]
    pub(super) fn of(&self, bytes: u64) -> u64 {
        (bytes.saturating_mul(self.price) >> FRACTION).min(self.longest)
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

    /// Frames that are given up, or nothing at all, between two waits make nobody pay.
    #[test]
    fn nothing_given_costs_nothing() {
        let mut cost = WireCost::new(HZ);
        for given in [5000, 5000, 3000] {
            cost.note(false, 0, given);
            cost.note(true, 100, given);
        }
        assert_eq!(cost.of(1000), 0);
    }

    /// A wire that stands still is not held against anybody for long, and one that has become fast costs nothing.
    #[test]
    fn prices_are_forgotten() {
        let mut cost = WireCost::new(HZ);
        let slow = |cost: &mut WireCost, begun: u64, given: u64, waits: u64| {
            // Of the first wait nobody knows for what it was.
            cost.note(false, begun, given);
            cost.note(true, begun + 1, given);
            cost.note(false, begun + 2, given + 1000);
            cost.note(true, begun + 2 + waits, given + 1000);
        };
        slow(&mut cost, 0, 1 << 40, 10 * HZ);
        assert_eq!(cost.of(1000), HZ / WAITS_PER_SECOND);
        assert_eq!(cost.of(u64::MAX), HZ / WAITS_PER_SECOND, "nor does a long burst pay more");
        cost.forget(10 * HZ + 3);
        assert!(cost.of(1000) > 0);
        cost.forget(11 * HZ);
        assert_eq!(cost.of(1000), 0);
        slow(&mut cost, 11 * HZ, 1 << 41, 5000);
        assert_eq!(cost.of(1000), 5000, "no average with what was forgotten");
    }
}
