//! The tokens that one limit of one class has left.

use std::sync::Arc;

use crate::bucket::{Bucket, Rate};
use crate::shared::SharedBucket;

/// A limit: a rate, and how far it may be exceeded for a moment.
#[derive(Clone, Debug)]
pub struct Limit {
    /// Bits per second, counted as the scheduler is charged: with the overhead of each frame.
    pub rate: Rate,
    /// Most bytes that pass at once, the last frame counted in full. [`Rate::burst`] if `None`.
    pub burst: Option<u64>,
    /// Where the tokens come from, if the limit is for several workers together. It has to have the same rate and burst;
    /// those here only say when it is worth to look again.
    pub shared: Option<Arc<SharedBucket>>,
}

impl Limit {
    /// A limit for one worker, with the burst that goes with its rate.
    #[must_use]
    pub const fn new(rate: Rate) -> Self {
        Self { rate, burst: None, shared: None }
    }

    /// The same with `burst` bytes.
    #[must_use]
    pub const fn with_burst(mut self, burst: u64) -> Self {
        self.burst = Some(burst);
        self
    }

    /// The same, with tokens from `bucket`.
    #[must_use]
    pub fn shared(mut self, bucket: Arc<SharedBucket>) -> Self {
        self.shared = Some(bucket);
        self
    }
}

/// A bucket that fills by time, or by chunks from a bucket that workers share.
#[derive(Debug)]
pub(crate) struct Meter {
    bucket: Bucket,
    /// Once out of tokens, as many are waited for, in bytes: what comes in [`SLACK`] of a second. Fewer would wake a class
    /// for every frame.
    granule: u32,
    shared: Option<Arc<SharedBucket>>,
}

/// A class that ran out of tokens waits a 65,536th of a second, 15 µs, longer than it has to, to be woken less often.
const SLACK: u64 = 1 << 16;

impl Meter {
    pub(crate) fn new(limit: &Limit, frame: u32, quantum: u32, hz: u64, now: u64) -> Self {
        let burst = limit.burst.unwrap_or_else(|| limit.rate.burst(frame));
        let bucket = match &limit.shared {
            None => Bucket::new(limit.rate, burst, frame, hz, now),
            Some(_) => Bucket::carried(hz),
        };
        // Half of the bucket at most: while the class waits for the granule, and to be served, no token may be lost.
        let granule = (limit.rate.bits() / 8 / SLACK).min(quantum.into()).min(burst.saturating_sub(frame.into()) / 2);
        Self { bucket, granule: u32::try_from(granule).unwrap_or(quantum), shared: limit.shared.clone() }
    }

    /// Counts what has come up to `now`, or draws a chunk if there is nothing left.
    #[inline]
    pub(crate) fn refill(&mut self, now: u64) {
        match &self.shared {
            None => self.bucket.refill(now),
            Some(shared) if !self.bucket.is_open() => {
                let want = shared.chunk().saturating_add(self.bucket.debt());
                self.bucket.add(shared.draw(want, now));
            }
            Some(_) => {}
        }
    }

    #[inline]
    pub(crate) const fn is_open(&self) -> bool {
        self.bucket.is_open()
    }

    /// Tokens in the units of [`Bucket`].
    #[inline]
    pub(crate) const fn tokens(&self) -> i128 {
        self.bucket.tokens()
    }

    #[inline]
    pub(crate) fn charge(&mut self, bytes: u64) {
        self.bucket.charge(bytes);
    }

    /// Takes `bytes` of a guarantee. What is then owed above what the bucket holds, or 64 KiB, is forgiven: so classes below
    /// this one that are promised more than it is do not put it into debt for good.
    #[inline]
    pub(crate) fn charge_guarantee(&mut self, bytes: u64) {
        self.bucket.charge_to(bytes, self.bucket.depth().max(1 << 16));
    }

    /// When it is worth to look again. `None` is never.
    pub(crate) fn ready_at(&self, now: u64) -> Option<u64> {
        match &self.shared {
            None => self.bucket.ready_at(self.granule.into()),
            Some(shared) => shared.ready_at(self.bucket.debt().saturating_add(self.granule.into()), now),
        }
    }

    /// Gives unused tokens back to the other workers, or leaves the debt to them.
    #[inline]
    pub(crate) fn release(&mut self) {
        if let Some(shared) = &self.shared {
            match (self.bucket.empty(), self.bucket.empty_debt()) {
                (0, 0) => {}
                (0, debt) => shared.owe(debt),
                (bytes, _) => shared.give_back(bytes),
            }
        }
    }

    /// Takes over the tokens of `old`, which is the limit that stood here before.
    pub(crate) fn adopt(&mut self, old: &mut Self, now: u64) {
        match (&self.shared, &old.shared) {
            (Some(new), Some(old_shared)) if Arc::ptr_eq(new, old_shared) => self.bucket = old.bucket.clone(),
            (None, None) => {
                old.refill(now);
                self.bucket.adopt(&old.bucket);
            }
            _ => old.release(),
        }
    }
}
