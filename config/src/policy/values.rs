//! Keys that take many values: their elements, what these make together, and the sets among them.

use std::ops::RangeInclusive;
use std::sync::OnceLock;

use super::field::{Field, Scalar, Union};
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
    fn set_name(part: &Self::Value) -> Option<&str>;

    /// What a set holds for this key, if anything.
    fn of_set(set: &Set) -> Option<&Negatable<Self::Union>>;
}

/// What a set holds of numbers, if sets may stand for them.
pub(super) type OfSet<T> = Option<fn(&Set) -> Option<&Negatable<Field<T>>>>;

/// Values of a key that is one number.
pub(super) trait Ranges: Form<Value = Part<Self::Of>> {
    /// What ranges are made of.
    type Of: Scalar + 'static;
    /// The largest. The least is zero.
    const MAX: Self::Of;
    /// What a set holds for this key, if sets may stand for it.
    const OF_SET: OfSet<Self::Of> = None;

    /// The elements that make `field`, each as TOML.
    fn write(field: &Field<Self::Of>) -> Vec<String>;
}

impl<R: Ranges> Values for R {
    type Union = Field<R::Of>;

    fn universe() -> Self::Union {
        Field::new([R::Of::MIN..=R::MAX])
    }

    fn union(parts: Vec<Part<R::Of>>, sets: &[&Self::Union]) -> Self::Union {
        let of_sets = sets.iter().flat_map(|set| set.ranges().iter().cloned());
        Field::new(parts.into_iter().flat_map(Part::ranges).chain(of_sets))
    }

    fn write(field: &Self::Union) -> Vec<String> {
        <R as Ranges>::write(field)
    }

    fn set_name(part: &Part<R::Of>) -> Option<&str> {
        if let Part::Set(name) = part { Some(name) } else { None }
    }

    fn of_set(set: &Set) -> Option<&Negatable<Self::Union>> {
        R::OF_SET.and_then(|of_set| of_set(set))
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
