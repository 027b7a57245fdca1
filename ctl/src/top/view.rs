//! Draws the model: lines of summary, tabs, the table, and what is in front of it.

use super::cell::Column;
use super::keys::HELP;
use super::model::{Front, Model, Question};
use crate::arguments::Pane;
use crate::text::clean;
use crate::view::table::Align;
use ratatui_core::buffer::Buffer;
use ratatui_core::layout::Rect;
use ratatui_core::style::{Color, Modifier, Style};
use ratatui_core::terminal::Frame;
use ratatui_core::text::{Line, Span};

/// Widest cell of text: names are shorter, unless they are escaped.
const CELL_MAX: usize = 32;
/// Lines of a terminal that is too small for the summary.
const SMALL: u16 = 10;

/// How things look: by colours, if they are wanted, and always also without them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Theme {
    pub(crate) is_coloured: bool,
}

impl Theme {
    fn style(self, modifier: Modifier, colour: Color) -> Style {
        let style = Style::new().add_modifier(modifier);
        if self.is_coloured { style.fg(colour) } else { style }
    }

    fn bar(self) -> Style {
        self.style(Modifier::REVERSED, Color::Reset)
    }

    fn sorted(self) -> Style {
        self.style(Modifier::REVERSED | Modifier::BOLD, Color::Cyan)
    }

    fn alarm(self) -> Style {
        self.style(Modifier::REVERSED | Modifier::BOLD, Color::Red)
    }

    fn key(self) -> Style {
        self.style(Modifier::BOLD, Color::Cyan)
    }
}

/// Draws everything, and tells the model how many rows fit.
pub(crate) fn draw(frame: &mut Frame<'_>, model: &mut Model, theme: Theme) {
    let area = frame.area();
    let mut lines: Vec<Line<'static>> = Vec::new();
    if area.height >= SMALL {
        lines.extend(model.tables.summary.iter().map(|line| Line::raw(clean(line))));
    }
    if let Some(lost) = &model.lost {
        lines.push(Line::styled(clean(lost), theme.alarm()));
    }
    if area.height > 2 {
        lines.push(tabs(model, theme));
    }
    let above = u16::try_from(lines.len()).unwrap_or(u16::MAX).saturating_add(1);
    let below = u16::from(area.height > above + 1);
    model.set_page(usize::from(area.height.saturating_sub(above + below)));
    lines.extend(table(model, theme, usize::from(area.width)));
    let screen = frame.buffer_mut();
    write(screen, Rect { height: area.height - below, ..area }, &lines);
    if below > 0 {
        write(screen, Rect { y: area.bottom() - 1, height: 1, ..area }, &[footer(model, theme)]);
    }
    match &model.front {
        Front::Help => list(screen, &help(theme)),
        Front::Columns(chosen) => list(screen, &columns(model.table().columns, *chosen, area.height, theme)),
        Front::Nothing | Front::Prompt { .. } => {}
    }
}

fn tabs(model: &Model, theme: Theme) -> Line<'static> {
    let mut spans = Vec::new();
    for (pane, key) in Pane::ALL.into_iter().zip(1..) {
        let style = if pane == model.pane { theme.sorted() } else { Style::new() };
        spans.extend([Span::styled(format!(" {key} {} ", pane.name()), style), Span::raw(" ")]);
    }
    let (shown, all) = (model.rows().len(), model.table().rows.len());
    spans.push(Span::raw(if shown == all { format!(" {all}") } else { format!(" {shown} of {all}") }));
    for (what, text) in [("filter", &model.filter), ("user", &model.user)] {
        if !text.is_empty() {
            spans.push(Span::styled(format!("  {what} {}", clean(text)), theme.key()));
        }
    }
    spans.push(Span::raw(format!("  every {} s", model.delay.as_secs_f64())));
    Line::from(spans)
}

/// The head and the rows that fit, scrolled to the side by whole characters.
fn table(model: &Model, theme: Theme, width: usize) -> Vec<Line<'static>> {
    let table = model.table();
    let look = model.look();
    let rows = model.rows();
    let shown: Vec<_> = rows.iter().skip(look.above).take(model.page()).collect();
    let titles = table.columns.iter().enumerate().map(|(at, column)| {
        let mark = if look.order.descending { "v" } else { "^" };
        format!("{}{}", column.title, if at == look.order.column { mark } else { "" })
    });
    let titles: Vec<String> = titles.collect();
    let widths = titles.iter().enumerate().map(|(at, title)| {
        // Of all rows, so that columns do not jump about when one scrolls.
        let cells = rows.iter().filter_map(|row| row.cells.get(at)).map(|cell| wide(&cell.text));
        cells.max().unwrap_or(0).min(CELL_MAX).max(title.len())
    });
    let widths: Vec<usize> = widths.collect();
    let mut head = Vec::new();
    for (at, ((title, width), column)) in titles.iter().zip(&widths).zip(table.columns).enumerate() {
        let style = if at == look.order.column { theme.sorted() } else { theme.bar() };
        head.extend([Span::styled(fit(title, *width, column.align), style), Span::styled("  ", theme.bar())]);
    }
    let used: usize = widths.iter().map(|width| width + 2).sum();
    head.push(Span::styled(" ".repeat((width + model.left).saturating_sub(used)), theme.bar()));
    let mut lines = vec![cut(head, model.left)];
    for row in &shown {
        let cells = row.cells.iter().zip(&widths).zip(table.columns);
        let text: Vec<String> = cells.map(|((cell, width), column)| fit(&cell.text, *width, column.align)).collect();
        lines.push(cut(vec![Span::raw(text.join("  "))], model.left));
    }
    if shown.is_empty() {
        lines.push(Line::raw(if table.rows.is_empty() {
            table.empty
        } else {
            "no row passes the filters: = shows all"
        }));
    }
    lines
}

/// Columns of the terminal that `text` takes.
fn wide(text: &str) -> usize {
    Span::raw(text).width()
}

/// `text` in `width` columns.
fn fit(text: &str, width: usize, align: Align) -> String {
    let mut text = text.to_owned();
    if wide(&text) > width {
        while wide(&text) >= width && text.pop().is_some() {}
        text.push('…');
    }
    let blanks = " ".repeat(width.saturating_sub(wide(&text)));
    match align {
        Align::Left => text + &blanks,
        Align::Right => blanks + &text,
    }
}

/// The line without its first `left` characters.
fn cut(spans: Vec<Span<'static>>, mut left: usize) -> Line<'static> {
    let rest = spans.into_iter().filter_map(|span| {
        let count = span.content.chars().count();
        let cut = left.min(count);
        left -= cut;
        (cut < count).then(|| Span::styled(span.content.chars().skip(cut).collect::<String>(), span.style))
    });
    Line::from(rest.collect::<Vec<_>>())
}

fn footer(model: &Model, theme: Theme) -> Line<'static> {
    if let Front::Prompt { question, text, wrong } = &model.front {
        let asked = match question {
            Question::Filter => "Only rows with",
            Question::User => "Only apps of user",
            Question::Delay => "Seconds between two looks",
        };
        let text = Span::raw(format!(" {}_ ", clean(text)));
        let wrong = wrong.as_ref().map(|wrong| Span::styled(wrong.clone(), theme.alarm()));
        return [Some(Span::styled(format!("{asked}:"), theme.key())), Some(text), wrong]
            .into_iter()
            .flatten()
            .collect();
    }
    let keys = [
        ("h", "help"),
        ("Tab", "next"),
        ("<>", "sort"),
        ("R", "reverse"),
        ("/", "filter"),
        ("u", "user"),
        ("d", "delay"),
        ("q", "quit"),
    ];
    let spans = keys.iter().flat_map(|(key, what)| [Span::styled(*key, theme.key()), Span::raw(format!(" {what}  "))]);
    Line::from(spans.collect::<Vec<_>>())
}

fn help(theme: Theme) -> Vec<Line<'static>> {
    let line = |(keys, what): &(&'static str, &'static str)| {
        Line::from(vec![Span::styled(format!(" {keys:<30} "), theme.key()), Span::raw(format!("{what} "))])
    };
    let title = Line::styled(" kopictl top: any key goes back ", theme.bar());
    std::iter::once(title).chain(HELP.iter().map(line)).collect()
}

/// The columns to choose from; those around the chosen one, if not all fit.
fn columns(columns: &[Column], chosen: usize, height: u16, theme: Theme) -> Vec<Line<'static>> {
    let room = usize::from(height).saturating_sub(1).max(1);
    let first = (chosen + 1).saturating_sub(room);
    let line = |(at, column): (usize, &Column)| {
        let style = if at == chosen { theme.sorted() } else { Style::new() };
        Line::styled(format!(" {:<10} ", column.title), style)
    };
    let title = Line::styled(" Sort by     ", theme.bar());
    std::iter::once(title).chain(columns.iter().enumerate().skip(first).take(room).map(line)).collect()
}

/// Draws `lines` over the left end of the screen.
fn list(screen: &mut Buffer, lines: &[Line<'static>]) {
    let width = lines.iter().map(Line::width).max().unwrap_or(0);
    let area = screen.area;
    let area = Rect {
        width: u16::try_from(width).unwrap_or(u16::MAX).min(area.width),
        height: u16::try_from(lines.len()).unwrap_or(u16::MAX).min(area.height),
        ..area
    };
    for position in area.positions() {
        if let Some(cell) = screen.cell_mut(position) {
            cell.reset();
        }
    }
    write(screen, area, lines);
}

/// Writes as many of `lines` into `area` as there is room for.
fn write(screen: &mut Buffer, area: Rect, lines: &[Line<'_>]) {
    if area.is_empty() {
        return;
    }
    for (row, line) in area.rows().zip(lines) {
        screen.set_line(row.x, row.y, line, row.width);
    }
}

#[cfg(test)]
mod tests;
