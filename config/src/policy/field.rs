//! Values of one field of a frame.

use std::hash::Hash;
use std::ops::RangeInclusive;
use std::sync::Arc;

use rustc_hash::FxHasher;

/// Values of one field: a frame matches if its value is in one of the ranges.
///
/// A negation in the file is resolved here into the ranges that are left. The ranges are shared between copies: a set of
/// ten thousand addresses may be used by ten thousand rules.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Field<T> {
    ranges: Arc<[RangeInclusive<T>]>,
}

/// A type that ranges can be made of.
pub trait Scalar: Copy + Ord + Hash {
    /// The least value.
    const MIN: Self;
    /// The greatest value.
    const MAX: Self;
    /// The next greater value, unless there is none.
    fn after(self) -> Option<Self>;
    /// The next smaller value, unless there is none.
    fn before(self) -> Option<Self>;
}

macro_rules! scalars {
    ($($t:ty)*) => { $(
        impl Scalar for $t {
            const MIN: Self = Self::MIN;
            const MAX: Self = Self::MAX;
            fn after(self) -> Option<Self> {
                self.checked_add(1)
            }
            fn before(self) -> Option<Self> {
                self.checked_sub(1)
            }
        }
    )* };
}
scalars!(u8 u16 u32 u64 u128);

impl<T: Scalar> Field<T> {
    /// The union of `ranges`: sorted, neither overlapping nor touching.
    #[must_use]
    pub fn new(ranges: impl IntoIterator<Item = RangeInclusive<T>>) -> Self {
        let mut sorted: Vec<_> = ranges.into_iter().filter(|r| r.start() <= r.end()).collect();
        sorted.sort_unstable_by_key(|r| *r.start());
        let mut merged: Vec<RangeInclusive<T>> = Vec::with_capacity(sorted.len());
        for range in sorted {
            match merged.last_mut() {
                Some(last) if last.end().after().is_none_or(|next| *range.start() <= next) => {
                    if range.end() > last.end() {
                        *last = *last.start()..=*range.end();
                    }
                }
                _ => merged.push(range),
            }
        }
        Self { ranges: merged.into() }
    }

    /// The ranges: sorted, neither overlapping nor touching.
    #[must_use]
    pub fn ranges(&self) -> &[RangeInclusive<T>] {
        &self.ranges
    }

    /// Whether there is no range, so that nothing matches.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Whether `value` is in one of the ranges.
    #[must_use]
    pub fn contains(&self, value: T) -> bool {
        let at = self.ranges.partition_point(|range| *range.end() < value);
        self.ranges.get(at).is_some_and(|range| *range.start() <= value)
    }
}

/// What a key can match, as a set: [`Field`], or [`Addresses`](super::Addresses).
pub trait Union: Clone + PartialEq {
    /// What is in both.
    #[must_use]
    fn and(&self, other: &Self) -> Self;
    /// What is not in it.
    #[must_use]
    fn negated(&self) -> Self;
    /// Whether everything in `other` is in it too.
    fn covers(&self, other: &Self) -> bool;
    /// How many ranges it has.
    fn size(&self) -> usize;
    /// Whether `self` and `other` are copies of one, which is a cheaper question than whether they are equal.
    fn is_shared_with(&self, other: &Self) -> bool;
    /// Hashes the number of ranges, and the first and the last: that costs the same for every set.
    fn hash_ends(&self, hasher: &mut FxHasher);
}

impl<T: Scalar> Union for Field<T> {
    fn and(&self, other: &Self) -> Self {
        let mut ranges = Vec::new();
        let (mut left, mut right) = (self.ranges.iter().peekable(), other.ranges.iter().peekable());
        while let (Some(a), Some(b)) = (left.peek(), right.peek()) {
            let (start, end) = (*a.start().max(b.start()), *a.end().min(b.end()));
            if start <= end {
                ranges.push(start..=end);
            }
            // The one that ends first can meet nothing more.
            if a.end() < b.end() {
                left.next()
            } else {
                right.next()
            };
        }
        Self { ranges: ranges.into() }
    }

    fn negated(&self) -> Self {
        let mut next = Some(T::MIN);
        let mut ranges = Vec::with_capacity(self.ranges.len() + 1);
        for range in self.ranges() {
            if let (Some(start), Some(end)) = (next, range.start().before())
                && start <= end
            {
                ranges.push(start..=end);
            }
            next = range.end().after();
        }
        ranges.extend(next.map(|start| start..=T::MAX));
        Self { ranges: ranges.into() }
    }

    fn covers(&self, other: &Self) -> bool {
        self.is_shared_with(other)
            || other.ranges.iter().all(|range| {
                let at = self.ranges.partition_point(|own| own.end() < range.end());
                self.ranges.get(at).is_some_and(|own| own.start() <= range.start())
            })
    }

    fn size(&self) -> usize {
        self.ranges.len()
    }

    fn is_shared_with(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.ranges, &other.ranges)
    }

    fn hash_ends(&self, hasher: &mut FxHasher) {
        (self.ranges.len(), self.ranges.first(), self.ranges.last()).hash(hasher);
    }
}
