//! Cells, rows and columns: what a table has, how it is sorted, and numbers in few digits.

use crate::text::{clean, size};
use crate::view::table::Align;
use serde_json::Value;
use std::cmp::Ordering;

/// A column.
#[derive(Debug)]
pub(crate) struct Column {
    /// Above it.
    pub(crate) title: &'static str,
    /// Its key in JSON.
    pub(crate) key: &'static str,
    /// Numbers keep right, and the highest stand first.
    pub(crate) align: Align,
}

impl Column {
    pub(crate) const fn text(title: &'static str, key: &'static str) -> Self {
        Self { title, key, align: Align::Left }
    }

    pub(crate) const fn number(title: &'static str, key: &'static str) -> Self {
        Self { title, key, align: Align::Right }
    }

    /// Whether it is sorted from the highest to the lowest unless reversed.
    pub(crate) fn descends(&self) -> bool {
        self.align == Align::Right
    }
}

/// What a cell is sorted by.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Sorted {
    /// Nothing is known: last in any order.
    Unknown,
    /// Text, by its characters.
    Text(String),
    /// A number, never NaN.
    Number(f64),
    /// A counter, which loses no digit.
    Count(u64),
}

/// One cell. Its text is safe on a terminal.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Cell {
    pub(crate) text: String,
    pub(crate) by: Sorted,
}

impl Cell {
    /// Text, which may come from a process.
    pub(crate) fn text(text: &str) -> Self {
        Self { text: clean(text), by: Sorted::Text(text.to_owned()) }
    }

    /// Text that there may be.
    pub(crate) fn option(text: Option<&str>) -> Self {
        text.map_or_else(|| Self::none("-"), Self::text)
    }

    /// Nothing, shown as `text`.
    pub(crate) fn none(text: &str) -> Self {
        Self { text: text.to_owned(), by: Sorted::Unknown }
    }

    /// A number that there may be, as `show` has it.
    pub(crate) fn number(number: Option<f64>, show: impl Fn(f64) -> String) -> Self {
        match number.filter(|number| number.is_finite()) {
            Some(number) => Self { text: show(number), by: Sorted::Number(number) },
            None => Self::none("-"),
        }
    }

    /// A counter.
    pub(crate) fn count(count: u64) -> Self {
        Self { text: count.to_string(), by: Sorted::Count(count) }
    }

    /// Bytes of memory.
    pub(crate) fn size(bytes: u64) -> Self {
        Self { text: size(bytes), by: Sorted::Count(bytes) }
    }

    /// As JSON, in the units of the key.
    pub(crate) fn json(&self) -> Value {
        match &self.by {
            Sorted::Unknown => Value::Null,
            Sorted::Text(text) => text.as_str().into(),
            Sorted::Number(number) => (*number).into(),
            Sorted::Count(count) => (*count).into(),
        }
    }
}

/// One row.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Row {
    pub(crate) cells: Vec<Cell>,
    /// Whose it is, if it is anybody's: name and number.
    pub(crate) user: Option<(String, Option<u32>)>,
}

impl Row {
    /// Whether a cell has `text` in it, whatever its case.
    pub(crate) fn has(&self, text: &str) -> bool {
        let text = text.to_lowercase();
        text.is_empty() || self.cells.iter().any(|cell| cell.text.to_lowercase().contains(&text))
    }

    /// Whether it is `user`'s, or nobody's.
    pub(crate) fn is_of(&self, user: &str) -> bool {
        let is = |(name, uid): &(String, Option<u32>)| {
            name == user || uid.is_some_and(|uid| user.parse().is_ok_and(|number: u32| number == uid))
        };
        user.is_empty() || self.user.as_ref().is_none_or(is)
    }
}

/// A table.
#[derive(Clone, Debug, Default)]
pub(crate) struct Table {
    pub(crate) columns: &'static [Column],
    pub(crate) rows: Vec<Row>,
    /// What is said if there are no rows.
    pub(crate) empty: &'static str,
}

/// Which column a table is sorted by, and which end stands first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Order {
    pub(crate) column: usize,
    pub(crate) descending: bool,
}

impl Table {
    /// The rows that pass, in this order; rows that are equal in it keep theirs.
    pub(crate) fn sorted(&self, order: Order, passes: impl Fn(&Row) -> bool) -> Vec<&Row> {
        let mut rows: Vec<&Row> = self.rows.iter().filter(|row| passes(row)).collect();
        rows.sort_by(|a, b| match (a.cells.get(order.column), b.cells.get(order.column)) {
            (Some(a), Some(b)) => compare(&a.by, &b.by, order.descending),
            _ => Ordering::Equal,
        });
        rows
    }
}

fn compare(a: &Sorted, b: &Sorted, descending: bool) -> Ordering {
    let ascending = match (a, b) {
        (Sorted::Unknown, Sorted::Unknown) => Ordering::Equal,
        (Sorted::Unknown, _) => return Ordering::Greater,
        (_, Sorted::Unknown) => return Ordering::Less,
        (Sorted::Text(a), Sorted::Text(b)) => a.cmp(b),
        (Sorted::Number(a), Sorted::Number(b)) => a.total_cmp(b),
        (Sorted::Count(a), Sorted::Count(b)) => a.cmp(b),
        // A column has one kind of cell.
        _ => Ordering::Equal,
    };
    if descending { ascending.reverse() } else { ascending }
}

/// How much a counter grew in a second. `None` if it began anew, or no time has passed.
pub(crate) fn per_second(old: u64, new: u64, seconds: f64) -> Option<f64> {
    #[expect(clippy::cast_precision_loss, reason = "what is lost lies far below what is shown")]
    let grown = new.checked_sub(old)? as f64;
    (seconds > 0.0).then(|| grown / seconds)
}

/// Bits of so many bytes.
pub(crate) fn bits(bytes: f64) -> f64 {
    bytes * 8.0
}

/// A number with three digits or four, and the letter of its unit (1000 to the n).
pub(crate) fn si(number: f64) -> String {
    const UNITS: [&str; 6] = ["k", "M", "G", "T", "P", "E"];
    // What rounds to 1000 is the next unit's.
    if number < 999.5 {
        return format!("{number:.0}");
    }
    let (mut scaled, mut unit) = (number / 1e3, 0);
    while scaled >= 999.5 && unit + 1 < UNITS.len() {
        (scaled, unit) = (scaled / 1e3, unit + 1);
    }
    let digits = if scaled < 9.995 { 2 } else { usize::from(scaled < 99.95) };
    format!("{scaled:.digits$}{}", UNITS.get(unit).unwrap_or(&""))
}

/// A share.
pub(crate) fn percent(percent: f64) -> String {
    format!("{percent:.1}")
}

/// A time from nanoseconds to seconds.
pub(crate) fn time(ns: f64) -> String {
    match ns {
        ..1e3 => format!("{ns:.0}ns"),
        ..1e6 => format!("{:.1}us", ns / 1e3),
        ..1e9 => format!("{:.1}ms", ns / 1e6),
        _ => format!("{:.1}s", ns / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Numbers have three digits and the unit that fits, also where rounding would make four of them.
    #[test]
    fn numbers_are_short() {
        let numbers = [0.0, 999.4, 999.5, 1234.0, 9_996.0, 99_960.0, 999_600.0, 1.5e6, 14.88e6, 1e11, 1.8e19];
        let texts = ["0", "999", "1.00k", "1.23k", "10.0k", "100k", "1.00M", "1.50M", "14.9M", "100G", "18.0E"];
        assert_eq!(numbers.map(si), texts);
        assert_eq!([999.0, 1500.0, 2e7, 1.5e9].map(time), ["999ns", "1.5us", "20.0ms", "1.5s"]);
    }

    /// A counter that went down, and no time between two looks, give no rate.
    #[test]
    fn no_nonsense_rates() {
        assert_eq!(per_second(100, 300, 2.0), Some(100.0));
        assert_eq!(per_second(300, 100, 2.0), None);
        assert_eq!(per_second(0, 5, 0.0), None);
    }

    proptest! {
        /// Whatever has no value stands last in both orders, and the rest is the other way round.
        #[test]
        fn unknown_is_last(numbers in prop::collection::vec(prop::option::of(0_u32..9), 0..12), descending: bool) {
            let row = |n: &Option<u32>| Row { cells: vec![Cell::number(n.map(f64::from), si)], user: None };
            let table = Table { columns: &[], rows: numbers.iter().map(row).collect(), empty: "" };
            let sorted = table.sorted(Order { column: 0, descending }, |_| true);
            let cells: Vec<&str> = sorted.iter().map(|row| &*row.cells[0].text).collect();
            let mut expected: Vec<u32> = numbers.iter().flatten().copied().collect();
            expected.sort_unstable();
            if descending {
                expected.reverse();
            }
            let unknown = numbers.len() - expected.len();
            let expected: Vec<String> =
                expected.iter().map(u32::to_string).chain(vec!["-".to_owned(); unknown]).collect();
            prop_assert_eq!(cells, expected);
        }
    }
}
