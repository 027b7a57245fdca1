//! Keys that take many values: their elements, what these make together, and the sets among them.

use std::hash::{DefaultHasher, Hash};
use std::ops::RangeInclusive;
use std::sync::OnceLock;

use super::field::{Field, Scalar};
use super::set::Set;
use crate::value::Form;

/// One element of a field, as it stands in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part<T: 'static> {
    /// A number, or a range of them.
    Range(RangeInclusive<T>),
    /// A word that stands for several numbers.
    Word(&'static [T]),
    /// The name of a set, without its `@`.
    Set(String),
}

impl<T: Scalar> Part<T> {
    fn ranges(self) -> impl Iterator<Item = RangeInclusive<T>> {
        let (range, word): (_, &'static [T]) = match self {
            Self::Range(range) => (Some(range), &[]),
            Self::Word(numbers) => (None, numbers),
            Self::Set(_) => (None, &[]),
        };
        range.into_iter().chain(word.iter().map(|&number| number..=number))
    }
}

/// The union of `parts` and `sets`.
pub(super) fn field<T: Scalar>(parts: Vec<Part<T>>, sets: &[&Field<T>]) -> Field<T> {
    let of_sets = sets.iter().flat_map(|set| set.ranges().iter().cloned());
    Field::new(parts.into_iter().flat_map(Part::ranges).chain(of_sets))
}

/// What a key can match, as a set: [`Field`], or [`Addresses`](super::Addresses).
pub(super) trait Union: Clone + PartialEq {
    /// What is in both.
    fn and(&self, other: &Self) -> Self;
    /// What is not in it.
    fn negated(&self) -> Self;
    /// Whether everything in `other` is in it too.
    fn covers(&self, other: &Self) -> bool;
    /// How many ranges it has.
    fn size(&self) -> usize;
    /// Whether `self` and `other` are copies of one.
    fn is_shared_with(&self, other: &Self) -> bool;
    /// Hashes the number of ranges, and the first and the last: that costs the same for every set.
    fn hash_ends(&self, hasher: &mut DefaultHasher);
}

impl<T: Scalar + Hash> Union for Field<T> {
    fn and(&self, other: &Self) -> Self {
        Self::and(self, other)
    }

    fn negated(&self) -> Self {
        Self::negated(self)
    }

    fn covers(&self, other: &Self) -> bool {
        Self::covers(self, other)
    }

    fn size(&self) -> usize {
        self.ranges().len()
    }

    fn is_shared_with(&self, other: &Self) -> bool {
        Self::is_shared_with(self, other)
    }

    fn hash_ends(&self, hasher: &mut DefaultHasher) {
        let ranges = self.ranges();
        (ranges.len(), ranges.first(), ranges.last()).hash(hasher);
    }
}

/// The form of one element of a key that takes many, what they make together, and the way back to text.
pub(super) trait Values: Form {
    /// What the elements make together.
    type Union: Union;

    /// Everything that a frame can have.
    fn universe() -> Self::Union;

    /// What is in one of `parts` or `sets`. Names of sets among the parts count for nothing.
    fn union(parts: Vec<Self::Value>, sets: &[&Self::Union]) -> Self::Union;

    /// Everything that a frame can have and `union` does not.
    fn negated(union: &Self::Union) -> Self::Union {
        Self::universe().and(&union.negated())
    }

    /// The elements that make `union`, each as TOML.
    fn write(union: &Self::Union) -> Vec<String>;

    /// The name of the set that an element is.
    fn set_name(_part: &Self::Value) -> Option<&str> {
        None
    }

    /// What a set holds for this key, if anything.
    fn of_set(_set: &Set) -> Option<&Negatable<Self::Union>> {
        None
    }
}

/// What a set holds, and everything else, once a rule has asked for that.
#[derive(Clone, Debug)]
pub(super) struct Negatable<U> {
    pub(super) is: U,
    not: OnceLock<U>,
}

impl<U: Union> Negatable<U> {
    /// `is`, with the negation not known yet.
    pub(super) const fn new(is: U) -> Self {
        Self { is, not: OnceLock::new() }
    }

    /// Everything else, made by `negate` at the first time.
    pub(super) fn not(&self, negate: impl FnOnce(&U) -> U) -> &U {
        self.not.get_or_init(|| negate(&self.is))
    }

    /// Whether `union` is a copy of what the set holds: `Some(false)`, or of everything else: `Some(true)`.
    pub(super) fn shares(&self, union: &U) -> Option<bool> {
        let is_negation = self.not.get().is_some_and(|not| not.is_shared_with(union));
        (is_negation || self.is.is_shared_with(union)).then_some(is_negation)
    }
}
