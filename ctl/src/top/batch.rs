//! `top -b`: text or JSON, look by look, for scripts.

use super::cell::{Row, Table};
use super::model::Model;
use super::sample::Source;
use super::tables::Tables;
use crate::arguments::{Pane, TopOptions};
use crate::failure::Failure;
use crate::streams::print;
use crate::text::{as_json, clean};
use crate::view::table::{Align, align};
use serde_json::{Map, Value, json};
use std::time::Instant;

/// Prints look after look, the first one after one interval, so that it has rates.
///
/// # Errors
///
/// [`Failure`] if kopid does not answer, or nobody reads.
pub(crate) fn run(options: &TopOptions, mut source: Source, json: bool) -> Result<(), Failure> {
    let mut old = source.sample()?;
    let mut model = Model::new(options, Tables::new(None, &old)).map_err(Failure::Top)?;
    let mut next = Instant::now();
    for look in 0..options.iterations.unwrap_or(u32::MAX) {
        // A look that comes late does not make the following ones come early.
        next = (next + options.delay).max(Instant::now());
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
        let new = source.sample()?;
        model.update(Tables::new(Some(&old), &new));
        old = new;
        let gap = if look > 0 && !json { "\n" } else { "" };
        print(&if json {
            as_json(&objects(&model, options.pane))
        } else {
            format!("{gap}{}", text(&model, options.pane))
        })?;
    }
    Ok(())
}

/// The tables that are wanted.
fn panes(only: Option<Pane>) -> impl Iterator<Item = Pane> {
    Pane::ALL.into_iter().filter(move |pane| only.is_none_or(|only| only == *pane))
}

/// The summary, and a table after the other with a blank line before each.
pub(super) fn text(model: &Model, only: Option<Pane>) -> String {
    let summary: String = model.tables.summary.iter().map(|line| clean(line) + "\n").collect();
    panes(only).fold(summary, |out, pane| out + "\n" + &lines(model.table_of(pane), &model.rows_of(pane)))
}

fn lines(table: &Table, rows: &[&Row]) -> String {
    if table.rows.is_empty() {
        return format!("{}\n", table.empty);
    }
    let head = table.columns.iter().map(|column| column.title.to_owned()).collect();
    let cells = rows.iter().map(|row| row.cells.iter().map(|cell| cell.text.clone()).collect());
    let lines: Vec<Vec<String>> = std::iter::once(head).chain(cells).collect();
    let aligns: Vec<Align> = table.columns.iter().map(|column| column.align).collect();
    align(&lines, &aligns)
}

/// An object for each row, with the numbers that the text shortens.
pub(super) fn objects(model: &Model, only: Option<Pane>) -> Value {
    let object = |table: &Table, row: &&Row| -> Value {
        let values = table.columns.iter().zip(&row.cells).map(|(column, cell)| (column.key.to_owned(), cell.json()));
        Value::Object(values.collect::<Map<_, _>>())
    };
    let tables = panes(only).map(|pane| {
        let table = model.table_of(pane);
        let rows = model.rows_of(pane).iter().map(|row| object(table, row)).collect();
        (pane.name().to_owned(), Value::Array(rows))
    });
    json!({ "top": [Value::Object(tables.collect())] })
}
