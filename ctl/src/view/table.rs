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

/// A column: its title, where its cells keep to, and what it says of a row.
pub(crate) type Column<T> = (&'static str, Align, fn(&T) -> String);

/// A table of rows `T`: a head, and a line for each of them. A long one is shown in blocks.
#[derive(Debug)]
pub(crate) struct Table<T> {
    columns: Vec<Column<T>>,
    /// Those of the blocks that were shown.
    widths: Vec<usize>,
}

impl<T> Table<T> {
    /// A table that was not shown yet.
    pub(crate) fn new(columns: &[Column<T>]) -> Self {
        Self { columns: columns.to_vec(), widths: vec![0; columns.len()] }
    }

    /// Some more rows as text, under the head if these are the first. Cells are made safe for a terminal. Columns are as wide as their
    /// widest cell, two spaces apart, and do not become narrower.
    pub(crate) fn block(&mut self, rows: &[T]) -> String {
        let is_first = self.widths.iter().all(|width| *width == 0);
        let head = self.columns.iter().map(|(title, ..)| (*title).to_owned()).collect::<Vec<_>>();
        let cells = rows.iter().map(|row| self.columns.iter().map(|(.., cell)| clean(&cell(row))).collect());
        let lines: Vec<Vec<String>> = is_first.then_some(head).into_iter().chain(cells).collect();
        for (at, width) in self.widths.iter_mut().enumerate() {
            let cells = lines.iter().filter_map(|line| line.get(at));
            *width = cells.map(|cell| cell.chars().count()).max().unwrap_or(0).max(*width);
        }
        let aligns: Vec<Align> = self.columns.iter().map(|(_, align, _)| *align).collect();
        padded(&lines, &self.widths, &aligns)
    }
}

/// Lines of cells that are safe for a terminal, in columns as wide as their widest cell.
pub(crate) fn align(lines: &[Vec<String>], aligns: &[Align]) -> String {
    let cells = |at: usize| lines.iter().filter_map(move |line| line.get(at));
    let wide = |at| cells(at).map(|cell: &String| cell.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..aligns.len()).map(wide).collect();
    padded(lines, &widths, aligns)
}

fn padded(lines: &[Vec<String>], widths: &[usize], aligns: &[Align]) -> String {
    let mut out = String::new();
    for line in lines {
        let cells = line.iter().zip(widths).zip(aligns);
        let cells = cells.map(|((cell, width), align)| match align {
            Align::Left => format!("{cell:<width$}"),
            Align::Right => format!("{cell:>width$}"),
        });
        out.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        out.push('\n');
    }
    out
}

/// A whole table of `rows`.
pub(crate) fn table<T>(columns: &[Column<T>], rows: &[T]) -> String {
    Table::new(columns).block(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    type Row = [&'static str; 3];

    /// Text keeps left, numbers keep right, and no line ends in blanks.
    #[test]
    fn columns_are_aligned() {
        let columns: [Column<Row>; 3] = [
            ("NAME", Align::Left, |row| row[0].into()),
            ("N", Align::Right, |row| row[1].into()),
            ("LAST", Align::Left, |row| row[2].into()),
        ];
        let rows = [["a", "1", "x"], ["a long\nname", "18446744073709551615", ""]];
        let expected = "\
NAME                             N  LAST
a                                1  x
a long\\nname  18446744073709551615
";
        assert_eq!(table(&columns, &rows), expected);
    }

    /// A table that is shown in blocks has one head, and what stands below each other is aligned.
    #[test]
    fn blocks_go_on_with_the_table() {
        let columns: [Column<Row>; 3] = [
            ("N", Align::Right, |row| row[0].into()),
            ("NAME", Align::Left, |row| row[1].into()),
            ("LAST", Align::Left, |row| row[2].into()),
        ];
        let mut table = Table::new(&columns);
        let mut text = String::new();
        for (number, name) in [("1", "a name"), ("22", "b"), ("333", "c")] {
            text += &table.block(&[[number, name, "x"]]);
        }
        assert_eq!(text + &table.block(&[]), "N  NAME    LAST\n1  a name  x\n22  b       x\n333  c       x\n");
        assert_eq!(Table::new(&columns[..1]).block(&[]), "N\n");
    }
}
