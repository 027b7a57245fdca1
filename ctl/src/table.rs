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

/// A table: a head and rows. A long one is shown in blocks.
#[derive(Debug)]
pub(crate) struct Table {
    columns: Vec<(&'static str, Align)>,
    rows: Vec<Vec<String>>,
    /// Those of the blocks that were shown.
    widths: Vec<usize>,
}

impl Table {
    /// A table without rows.
    pub(crate) fn new(columns: &[(&'static str, Align)]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new(), widths: vec![0; columns.len()] }
    }

    /// Adds a row with a cell for each column. Cells are made safe for a terminal.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().map(|cell| clean(&cell)).collect());
    }

    /// The table as text. Columns are as wide as their widest cell, two spaces apart.
    pub(crate) fn render(mut self) -> String {
        self.block()
    }

    /// The rows since the last block as text, under the head if this is the first one. Columns do not become narrower.
    pub(crate) fn block(&mut self) -> String {
        let is_first = self.widths.iter().all(|width| *width == 0);
        let head = self.columns.iter().map(|(title, _)| (*title).to_owned()).collect::<Vec<_>>();
        let rows: Vec<_> = is_first.then_some(head).into_iter().chain(self.rows.drain(..)).collect();
        for (at, width) in self.widths.iter_mut().enumerate() {
            let cells = rows.iter().filter_map(|row| row.get(at));
            *width = cells.map(|cell| cell.chars().count()).max().unwrap_or(0).max(*width);
        }
        let mut out = String::new();
        for row in &rows {
            let cells =
                row.iter().zip(&self.widths).zip(&self.columns).map(|((cell, width), (_, align))| match align {
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

    /// A table that is shown in blocks has one head, and what stands below each other is aligned.
    #[test]
    fn blocks_go_on_with_the_table() {
        let mut table = Table::new(&[("N", Align::Right), ("NAME", Align::Left), ("LAST", Align::Left)]);
        let mut text = String::new();
        for (number, name) in [("1", "a name"), ("22", "b"), ("333", "c")] {
            table.row([number.into(), name.into(), "x".into()]);
            text += &table.block();
        }
        assert_eq!(text + &table.block(), "N  NAME    LAST\n1  a name  x\n22  b       x\n333  c       x\n");
        assert_eq!(Table::new(&[("N", Align::Right)]).block(), "N\n");
    }
}
