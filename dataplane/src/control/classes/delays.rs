//! How long packets of a class have waited since the start, for those who read it now and then and subtract.

/// Longest delay of each bucket but the last, in nanoseconds: 10 us to 1 s.
pub const DELAY_BOUNDS: [u64; 11] = [
    10_000,
    25_000,
    100_000,
    250_000,
    1_000_000,
    2_500_000,
    10_000_000,
    25_000_000,
    100_000_000,
    250_000_000,
    1_000_000_000,
];

/// Samples by how long they have waited.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DelayCounts {
    /// Samples of each bucket; the last has those beyond all bounds.
    pub buckets: [u64; DELAY_BOUNDS.len() + 1],
    /// Their delays together, in nanoseconds.
    pub sum_ns: u64,
}

impl DelayCounts {
    /// Counts a sample.
    pub fn note(&mut self, ns: u64) {
        let at = DELAY_BOUNDS.partition_point(|bound| *bound < ns);
        if let Some(bucket) = self.buckets.get_mut(at) {
            *bucket += 1;
        }
        self.sum_ns = self.sum_ns.saturating_add(ns);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A bucket has what is no longer than its bound, as Prometheus' `le` says, and the last all the rest.
    #[test]
    fn buckets_hold_what_is_not_longer() {
        let mut counts = DelayCounts::default();
        [1, 10_000, 10_001, 1_000_000_000, 1_000_000_001, u64::MAX].into_iter().for_each(|ns| counts.note(ns));
        assert_eq!(counts.buckets, [2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2]);
        assert_eq!(counts.sum_ns, u64::MAX);
    }
}
