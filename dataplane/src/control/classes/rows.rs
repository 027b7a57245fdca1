//! What is shown of classes, some at a time.
//!
//! There may be 65,535 of them, each with counters of every worker. So the control thread takes out what a few rows need, which is mostly
//! pointers, and the thread of the operator who asks sums up.

use super::spec::ShaperSpec;
use super::{ClassTotals, Delays};
use kopi_config::policy::Direction;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// What is shown of a class.
#[derive(Clone, Debug)]
pub struct ClassRow {
    /// Its name.
    pub name: String,
    /// The name of its parent; `None` for the wire.
    pub parent: Option<String>,
    /// Which way its frames go.
    pub direction: Direction,
    /// Its index in the policy; `None` for the class of what has none.
    pub index: Option<usize>,
    /// Whether it has none below it.
    pub is_leaf: bool,
    /// What was counted, for it and those below it.
    pub totals: ClassTotals,
    /// Bits per second over the last second, overhead not counted.
    pub bits_per_second: u64,
    /// Median and 99th percentile of how long packets have waited, in nanoseconds, over the last 10 to 20 seconds.
    pub delay_ns: Option<(u64, u64)>,
}

/// The trees of a policy that workers keep to no more, or not for long. What the first of its classes have counted is entered into what is past.
#[derive(Clone, Debug)]
pub(super) struct Draining {
    /// The snapshot that ends it.
    pub(super) snapshot: u64,
    pub(super) spec: Arc<ShaperSpec>,
    /// How many of its classes are entered.
    pub(super) entered: usize,
}

impl Draining {
    /// What is not entered yet of what the class known as `id` has counted.
    fn rest(&self, id: u64) -> Option<ClassTotals> {
        self.spec.counted(id).filter(|(at, _)| *at >= self.entered).map(|(_, totals)| totals)
    }
}

/// What some rows are made of.
#[derive(Debug)]
pub struct ClassPart {
    pub(super) spec: Arc<ShaperSpec>,
    pub(super) draining: Vec<Draining>,
    pub(super) past: Arc<BTreeMap<u64, ClassTotals>>,
    /// Which rows.
    pub(super) range: Range<usize>,
    /// Of each row.
    pub(super) delays: Vec<Option<(u64, u64)>>,
}

impl ClassPart {
    /// The rows. What is counted for a class is so for all above it.
    pub fn rows(&self) -> impl Iterator<Item = ClassRow> + '_ {
        let totals = |id, counted| {
            self.draining.iter().filter_map(|spec| spec.rest(id)).chain(self.past.get(&id).copied()).fold(
                counted,
                |mut sum: ClassTotals, totals| {
                    sum.join(&totals);
                    sum
                },
            )
        };
        let delays = self.delays.iter().copied().chain(std::iter::repeat(None));
        self.range
            .clone()
            .zip(delays)
            .filter_map(move |(at, delay)| Some(ClassRow { delay_ns: delay, ..self.spec.row(at, totals)? }))
    }
}

/// Median and 99th percentile of what is known of a class.
pub(super) fn quantiles(delays: &Delays) -> Option<(u64, u64)> {
    let mut both = delays.now.clone();
    let added = both.add(&delays.before);
    debug_assert!(added.is_ok(), "both have the same bounds");
    (!both.is_empty()).then(|| (both.value_at_quantile(0.5), both.value_at_quantile(0.99)))
}
