//! A token bucket in whole numbers.

/// A rate in bits per second. Zero is a rate as well: nothing, ever.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rate(u64);

impl Rate {
    /// `bits` bits per second.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// Bits per second.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// The burst, in bytes, of a limit that states none: what the rate gives in a millisecond, and two frames of `frame`
    /// bytes at least.
    ///
    /// A worker that comes round late by less than a millisecond so loses nothing of the rate, and the burst is no more than
    /// a hundredth of a per cent of what the rate gives in ten seconds, as long as it is above 25 Mbit/s; below that, two
    /// frames.
    #[must_use]
    pub fn burst(self, frame: u32) -> u64 {
        (self.0 / 8 / 1000).max(2 * u64::from(frame))
    }
}

/// Tokens that come at a rate and are spent by the byte.
///
/// A frame may go while there are tokens, be it one, and takes its whole length: so nobody has to know the length of the
/// next frame, and what it takes too much is a debt, paid before the next one goes. The debt is less than a frame, and the
/// bucket holds a frame less than its burst to make up for it. In any time `t` therefore at most `rate * t + burst` bytes
/// pass, the frame that goes into debt counted. A burst that is not longer than a frame holds a single token, and
/// lets frames pass one by one.
///
/// Tokens are counted in bits, divided by the ticks of a second, so nothing is ever rounded: a bucket neither gains nor loses
/// in a year. For every rate, burst and number of ticks the sums fit in 128 bits. A clock that steps back is taken to
/// stand still until it has caught up.
///
/// # Source
///
/// tc-tbf(8) for the words. That a frame may go on any token at all is how Linux' `sch_htb` has it, and the surplus of "surplus
/// round robin" (Adiseshu, Parulkar, Varghese, SIGCOMM 1996).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// Tokens now, or a debt if negative, in units of which a byte has `unit`.
    tokens: i128,
    /// Units of a byte: eight bits times the ticks of a second.
    unit: u64,
    /// Units that come with each tick, which is the rate in bits per second.
    rate: u64,
    /// Most tokens, in bytes.
    depth: u64,
    /// The tick up to which tokens have been counted.
    last: u64,
}

/// Most ticks of a second, above any clock there is: it keeps the sums in 128 bits.
const HZ_MAX: u64 = 1 << 40;

impl Bucket {
    /// A full bucket for frames of at most `frame` bytes, at tick `now` of a clock with `hz` ticks in a second.
    ///
    /// `burst` is in bytes. It is up to the caller whether both count headers, preamble and gap.
    ///
    /// # Panics
    ///
    /// If `hz` is zero or more than 2^40.
    #[must_use]
    pub fn new(rate: Rate, burst: u64, frame: u32, hz: u64, now: u64) -> Self {
        assert!((1..=HZ_MAX).contains(&hz), "a clock of {hz} ticks in a second");
        let unit = 8 * hz;
        let depth = burst.saturating_sub(frame.into()).max(1);
        Self { tokens: i128::from(depth) * i128::from(unit), unit, rate: rate.0, depth, last: now }
    }

    /// An empty bucket without a rate, for tokens that are brought by [`Bucket::add`].
    pub(crate) fn carried(hz: u64) -> Self {
        let mut bucket = Self::new(Rate(0), 0, 0, hz, 0);
        bucket.tokens = 0;
        bucket
    }

    /// Counts the tokens that have come up to `now`.
    #[inline]
    pub fn refill(&mut self, now: u64) {
        if now <= self.last {
            return;
        }
        let gain = u128::from(self.rate) * u128::from(now - self.last);
        self.last = now;
        let full = i128::from(self.depth) * i128::from(self.unit);
        // Never negative: tokens are at most what the bucket holds, but for those of `add`, which have no rate.
        let room = u128::try_from(full - self.tokens).unwrap_or(0);
        match i128::try_from(gain) {
            Ok(gain_units) if gain < room => self.tokens += gain_units,
            _ if self.rate != 0 => self.tokens = full,
            _ => {}
        }
    }

    /// Whether a frame may go.
    #[inline]
    #[must_use]
    pub const fn is_open(&self) -> bool {
        self.tokens > 0
    }

    /// Bytes that may go, a part of one counted as one; zero while there is a debt.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        bytes_of(self.tokens, self.unit)
    }

    /// Takes `bytes`, whether they are there or not. [`Bucket::refill`] has to come first: what a full bucket could not take is
    /// not made up for later.
    #[inline]
    pub fn charge(&mut self, bytes: u64) {
        self.tokens -= i128::from(bytes) * i128::from(self.unit);
    }

    /// Takes `bytes`, and forgives what the debt is then above `most` bytes.
    #[inline]
    pub(crate) fn charge_to(&mut self, bytes: u64, most: u64) {
        let floor = -(i128::from(most) * i128::from(self.unit));
        self.charge(bytes);
        self.tokens = self.tokens.max(floor);
    }

    /// The first tick at which `bytes` may go, or the bucket is full, or any frame may go if `bytes` is zero: the tick up to
    /// which it was refilled if they may already. `None` if that never comes.
    ///
    /// A tick that would lie beyond the end of the clock is its end.
    #[must_use]
    pub fn ready_at(&self, bytes: u64) -> Option<u64> {
        let want = i128::from(bytes.min(self.depth)) * i128::from(self.unit);
        match u128::try_from(want.max(1) - self.tokens) {
            Err(_) | Ok(0) => Some(self.last),
            Ok(_) if self.rate == 0 => None,
            Ok(missing) => Some(self.last.saturating_add(ceil_div(missing, self.rate))),
        }
    }

    /// Brings `bytes` from elsewhere.
    pub(crate) fn add(&mut self, bytes: u64) {
        self.tokens += i128::from(bytes) * i128::from(self.unit);
    }

    /// The debt in bytes, rounded up.
    pub(crate) fn debt(&self) -> u64 {
        bytes_of(-self.tokens, self.unit)
    }

    /// Takes the whole bytes out, and returns how many there were.
    pub(crate) fn empty(&mut self) -> u64 {
        let bytes = u64::try_from(self.tokens / i128::from(self.unit)).unwrap_or(0);
        self.charge(bytes);
        bytes
    }

    /// Pays the whole bytes of the debt, and returns how many there were.
    pub(crate) fn empty_debt(&mut self) -> u64 {
        let bytes = u64::try_from(-self.tokens / i128::from(self.unit)).unwrap_or(0);
        self.add(bytes);
        bytes
    }

    /// Tokens in units, to compare buckets of one clock with each other.
    #[inline]
    pub(crate) const fn tokens(&self) -> i128 {
        self.tokens
    }

    /// Most tokens, in bytes.
    pub(crate) const fn depth(&self) -> u64 {
        self.depth
    }

    /// Takes over the tokens, or the debt, of `other`, a bucket of the same clock, as far as there is room.
    pub(crate) fn adopt(&mut self, other: &Self) {
        debug_assert_eq!(self.unit, other.unit, "buckets of two clocks");
        self.tokens = other.tokens.min(i128::from(self.depth) * i128::from(self.unit));
        self.last = self.last.max(other.last);
    }
}

/// `tokens` in bytes of `unit`, rounded up, at least zero.
#[inline]
pub(crate) fn bytes_of(tokens: i128, unit: u64) -> u64 {
    u128::try_from(tokens).map_or(0, |tokens| ceil_div(tokens, unit))
}

/// `a / b`, rounded up, at most `u64::MAX`.
#[inline]
pub(crate) fn ceil_div(a: u128, b: u64) -> u64 {
    // A division of 64 bits takes a fraction of the time.
    match u64::try_from(a) {
        Ok(a) => a.div_ceil(b),
        Err(_) => u64::try_from(a.div_ceil(b.into())).unwrap_or(u64::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FRAME: u32 = 1542;

    /// One frame: how many ticks after the last step, its length, and whether it waits until the bucket lets it pass.
    type Arrival = (u64, u32, bool);

    fn arrivals() -> impl Strategy<Value = Vec<Arrival>> {
        let pause = prop_oneof![0..50_u64, 0..100_000_u64, Just(1 << 33)];
        prop::collection::vec((pause, 64..=FRAME, any::<bool>()), 1..60)
    }

    fn rates() -> impl Strategy<Value = u64> {
        prop_oneof![Just(1), 1..1000_u64, 1_000_000..20_000_000_000_u64, Just(10_000_000_000_000), Just(u64::MAX)]
    }

    /// Sends what the bucket lets pass, and returns when and how long it was.
    fn play(bucket: &mut Bucket, arrivals: &[Arrival]) -> Vec<(u64, u32)> {
        let (mut now, mut sent) = (0_u64, Vec::new());
        for &(pause, length, waits) in arrivals {
            now = now.saturating_add(pause);
            bucket.refill(now);
            if waits && let Some(ready) = bucket.ready_at(0).filter(|ready| *ready < 1 << 62) {
                now = now.max(ready);
                bucket.refill(now);
                assert!(bucket.is_open(), "not open at {now}, when it said it would be");
            }
            if bucket.is_open() {
                bucket.charge(length.into());
                sent.push((now, length));
            }
        }
        sent
    }

    /// Tokens in units at `now` by the definition: least, over all windows that end now, of what it then held at most, what
    /// came since and what went since.
    fn tokens(sent: &[(u64, u32)], (rate, depth, hz): (u64, u64, u64), now: u64) -> i128 {
        let unit = 8 * i128::from(hz);
        let full = i128::from(depth) * unit;
        let mut least = full;
        let mut went = 0;
        for &(at, length) in sent.iter().rev() {
            went += i128::from(length) * unit;
            let came = i128::try_from(u128::from(rate) * u128::from(now - at)).unwrap_or(i128::MAX / 2);
            least = least.min(full + came - went);
        }
        least.min(full)
    }

    proptest! {
        /// At every step the bucket holds exactly what its definition over all windows says, and no window ever carries
        /// more than `rate * t + burst`.
        #[test]
        fn bucket_is_its_definition(
            arrivals in arrivals(), rate in rates(), burst in 1600..100_000_u64, hz in prop_oneof![Just(1_000), Just(2_999_999_999_u64)],
        ) {
            let mut bucket = Bucket::new(Rate(rate), burst, FRAME, hz, 0);
            let mut steps = Vec::new();
            for end in 1..=arrivals.len() {
                let mut again = Bucket::new(Rate(rate), burst, FRAME, hz, 0);
                steps = play(&mut again, &arrivals[..end]);
                prop_assert_eq!(again.tokens, tokens(&steps, (rate, burst - u64::from(FRAME), hz), again.last));
            }
            prop_assert_eq!(&play(&mut bucket, &arrivals), &steps);
            for (i, &(from, _)) in steps.iter().enumerate() {
                let mut bytes = 0_u128;
                for &(to, length) in &steps[i..] {
                    bytes += u128::from(length);
                    let came = u128::from(rate) * u128::from(to - from);
                    prop_assert!((bytes.saturating_sub(burst.into())) * 8 * u128::from(hz) <= came, "{} bytes in {}", bytes, to - from);
                }
            }
        }

        /// Who always has a frame to send, and sends it at the tick that `ready_at` says, is late by less than a tick for each
        /// frame, and nobody could have sent a tick earlier.
        #[test]
        fn backlogged_reaches_the_rate(rate in rates(), lengths in prop::collection::vec(64..=FRAME, 1..200), hz in 1_000..4_000_000_000_u64) {
            let mut bucket = Bucket::new(Rate(rate), FRAME.into(), FRAME, hz, 0);
            let (mut now, mut bytes, mut frames) = (0, 0_u128, 0_u128);
            for &length in &lengths {
                let ready = bucket.ready_at(0).unwrap();
                if ready > now {
                    bucket.refill(ready - 1);
                    prop_assert!(!bucket.is_open(), "open before it said");
                }
                now = now.max(ready);
                bucket.refill(now);
                prop_assert!(bucket.is_open());
                let came = u128::from(rate) * u128::from(now) / (8 * u128::from(hz));
                prop_assert!(bytes <= came + 1, "{} of {}", bytes, came);
                let due = (bytes * 8 * u128::from(hz)).div_ceil(u128::from(rate));
                prop_assert!(u128::from(now) <= due + frames, "{} bytes at {}, not at {}", bytes, now, due);
                frames += 1;
                bucket.charge(length.into());
                bytes += u128::from(length);
            }
        }

        /// `ready_at` names the first tick at which so many bytes are there.
        #[test]
        fn ready_is_exact(rate in rates(), spent in 0..200_000_u64, want in 0..100_000_u64, hz in 1_000..4_000_000_000_u64) {
            let mut bucket = Bucket::new(Rate(rate), 64_000, FRAME, hz, 5);
            bucket.charge(spent);
            let ready = bucket.ready_at(want).unwrap();
            let mut at = bucket.clone();
            at.refill(ready);
            prop_assert!(at.is_open() && at.bytes() >= want.min(bucket.depth));
            if ready > 5 {
                let mut before = bucket.clone();
                before.refill(ready - 1);
                prop_assert!(before.tokens < i128::from(want.min(bucket.depth)).max(1) * i128::from(bucket.unit));
            }
        }
    }

    /// Ten minutes of suspension fill it to the burst and no further, whatever the rate; a step back of the clock gives and
    /// takes nothing.
    #[test]
    fn suspension_and_a_clock_that_steps_back() {
        let hz = 3_000_000_000;
        for rate in [1, 1_000_000, 10_000_000_000_000, u64::MAX] {
            let mut bucket = Bucket::new(Rate(rate), 64_000, FRAME, hz, 1 << 40);
            bucket.charge(64_000);
            bucket.refill((1 << 40) + 600 * hz);
            let given = (600 * u128::from(rate) / 8).min(64_000);
            let most = 64_000 - u128::from(FRAME);
            let have = bucket.bytes();
            assert_eq!(u128::from(have), (most + given).saturating_sub(64_000).min(most), "{rate}");
            bucket.refill(0);
            assert_eq!(bucket.bytes(), have, "{rate}");
            bucket.refill((1 << 40) + 600 * hz);
            assert_eq!(bucket.bytes(), have, "{rate}");
        }
    }

    /// The extremes of every number are counted without overflow.
    #[test]
    fn extremes_do_not_overflow() {
        for (rate, burst, hz) in [(u64::MAX, u64::MAX, HZ_MAX), (u64::MAX, 0, 1), (1, u64::MAX, HZ_MAX), (0, 0, 1)] {
            let mut bucket = Bucket::new(Rate(rate), burst, u32::MAX, hz, 0);
            bucket.charge(u64::MAX);
            assert_eq!(bucket.ready_at(u64::MAX).is_none(), rate == 0);
            bucket.refill(u64::MAX);
            assert_eq!(bucket.is_open(), rate == u64::MAX, "{rate} {burst} {hz}");
            for _ in 0..3 {
                bucket.charge(u64::MAX);
            }
            assert_eq!(bucket.ready_at(0).is_none(), rate == 0);
        }
    }

    /// A bucket runs for a year in uneven steps and has given exactly what the rate gives in a year.
    #[test]
    fn a_year_without_drift() {
        let (rate, hz) = (333_333_337_u64, 2_999_999_999_u64);
        let mut bucket = Bucket::new(Rate(rate), 1 << 40, 0, hz, 0);
        bucket.charge(1 << 40);
        let (mut now, mut bytes, mut step) = (0, 0, 1);
        while now < hz * 365 * 86_400 {
            step = step * 7 % 1_000_003;
            now += step * 30_000_017;
            bucket.refill(now);
            bytes += u128::from(bucket.empty());
        }
        assert_eq!(bytes, u128::from(rate) * u128::from(now) / (8 * u128::from(hz)));
    }
}
