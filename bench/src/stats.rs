//! Medians, spreads and paired ratios.

/// Middle and ends of a set of numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spread {
    /// The middle number, or the mean of the two in the middle.
    pub(crate) median: f64,
    /// The smallest number.
    pub(crate) min: f64,
    /// The largest number.
    pub(crate) max: f64,
    /// How many numbers there were.
    pub(crate) count: usize,
}

impl Spread {
    /// The spread of `numbers`, or `None` of none.
    pub(crate) fn of(numbers: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = numbers.into_iter().collect();
        sorted.sort_unstable_by(f64::total_cmp);
        let count = sorted.len();
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let (low, high) = (*sorted.get((count - 1) / 2)?, *sorted.get(count / 2)?);
        Some(Self { median: f64::midpoint(low, high), min, max, count })
    }

    /// The median with the ends and the count behind it, to so many digits behind the point; a dash for no numbers.
    pub(crate) fn text(spread: Option<Self>, digits: usize) -> String {
        spread.map_or_else(
            || "-".to_owned(),
            |Self { median, min, max, count }| format!("{median:.digits$} ({min:.digits$} to {max:.digits$}, {count})"),
        )
    }
}

/// Divides what `ours` measured in each round by what `theirs` measured in the same round.
///
/// Both are lists of (round, value). A round that one side lacks, or where theirs is zero, gives no ratio.
pub(crate) fn paired_ratios(ours: &[(u32, f64)], theirs: &[(u32, f64)]) -> Vec<f64> {
    let partner = |round| theirs.iter().find(|&&(other, value)| other == round && value > 0.0);
    ours.iter().filter_map(|&(round, value)| partner(round).map(|&(_, other)| value / other)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spread_of_odd_even_and_no_numbers() {
        assert_eq!(Spread::of([3.0, 1.0, 2.0]), Some(Spread { median: 2.0, min: 1.0, max: 3.0, count: 3 }));
        assert_eq!(Spread::of([4.0, 1.0, 2.0, 3.0]), Some(Spread { median: 2.5, min: 1.0, max: 4.0, count: 4 }));
        assert_eq!(Spread::of([]), None);
    }

    #[test]
    fn only_rounds_that_both_sides_have_are_paired() {
        let ours = [(0, 30.0), (1, 10.0), (3, 8.0), (4, 5.0)];
        let theirs = [(4, 0.0), (3, 4.0), (2, 1.0), (0, 20.0)];
        assert_eq!(paired_ratios(&ours, &theirs), [1.5, 2.0]);
        assert!(paired_ratios(&ours, &[]).is_empty());
    }
}
