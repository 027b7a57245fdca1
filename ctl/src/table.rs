//! Aligned columns.

use crate::text::clean;

/// Which side of its column a cell keeps to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Align {
    /// Text.
    Left,
    /// Numbers.
    Right,
}

/// A table: a head and rows.
#[derive(Debug)]
pub(crate) struct Table {
    columns: Vec<(&'static str, Align)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table without rows.
    pub(crate) fn new(columns: &[(&'static str, Align)]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new() }
    }

    /// Adds a row with a cell for each column. Cells are made safe for a terminal.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().map(|cell| clean(&cell)).collect());
    }

    /// The table as text. Columns are as wide as their widest cell, two spaces apart.
    pub(crate) fn render(&self) -> String {
        let head = self.columns.iter().map(|(title, _)| (*title).to_owned()).collect::<Vec<_>>();
        let widths = (0..self.columns.len()).map(|at| {
            let cells = std::iter::once(&head).chain(&self.rows).filter_map(|row| row.get(at));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        });
        let widths: Vec<usize> = widths.collect();
        let mut out = String::new();
        for row in std::iter::once(&head).chain(&self.rows) {
            let cells = row.iter().zip(&widths).zip(&self.columns).map(|((cell, width), (_, align))| match align {
                Align::Left => format!("{cell:<width$}"),
                Align::Right => format!("{cell:>width$}"),
            });
            out.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
            out.push('\n');
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Text keeps left, numbers keep right, and no line ends in blanks.
    #[test]
    fn columns_are_aligned() {
        let mut table = Table::new(&[("NAME", Align::Left), ("N", Align::Right), ("LAST", Align::Left)]);
        table.row(["a".into(), "1".into(), "x".into()]);
        table.row(["a long\nname".into(), "18446744073709551615".into(), String::new()]);
        let expected = "\
NAME                             N  LAST
a                                1  x
a long\\nname  18446744073709551615
";
        assert_eq!(table.render(), expected);
    }
}
