//! What the screen is about: which table, in what order, which rows. Knows of no terminal, so all of it is tested.

use super::cell::{Order, Row, Table};
use super::tables::Tables;
use crate::arguments::{Pane, TopOptions, delay};
use std::time::Duration;

/// Columns that a step to the side moves by.
const SIDE_STEP: usize = 8;
/// Longest text of a prompt.
const PROMPT_MAX: usize = 64;

/// What somebody wants, by a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Quit,
    Suspend,
    /// Draw everything anew.
    Redraw,
    /// Ask kopid now.
    Refresh,
    Help,
    /// Close what is open.
    Close,
    Show(Pane),
    /// Show the table so many further on.
    Turn(isize),
    /// Scroll by lines.
    Lines(isize),
    /// Scroll by pages.
    Pages(isize),
    Top,
    Bottom,
    /// Scroll to the side.
    Side(isize),
    /// Sort by the column so many further to the right.
    SortStep(isize),
    /// Sort apps by the column of this key.
    SortBy(&'static str),
    /// Choose the column in a list.
    SortMenu,
    Reverse,
    Ask(Question),
    /// Forget filters.
    Unfilter,
    Type(char),
    Erase,
    Accept,
}

/// What a prompt asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Question {
    Filter,
    User,
    Delay,
}

/// What is in front of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Front {
    Nothing,
    Help,
    /// A list of columns, with the chosen one.
    Columns(usize),
    /// A question, what was typed, and what was wrong with it.
    Prompt {
        question: Question,
        text: String,
        wrong: Option<String>,
    },
}

/// What is to be done outside of the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    Nothing,
    Quit,
    Suspend,
    Redraw,
    Refresh,
}

/// How one table is looked at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Look {
    pub(crate) order: Order,
    /// Rows above the first one shown.
    pub(crate) above: usize,
}

/// The state of the screen.
#[derive(Debug)]
pub(crate) struct Model {
    pub(crate) tables: Tables,
    pub(crate) pane: Pane,
    looks: [Look; 4],
    pub(crate) front: Front,
    pub(crate) filter: String,
    pub(crate) user: String,
    pub(crate) delay: Duration,
    /// Columns of text to the left of what is shown.
    pub(crate) left: usize,
    /// Why there is no answer, if there is none.
    pub(crate) lost: Option<String>,
    /// Rows of a table that fit; the view says so.
    page: usize,
}

impl Model {
    /// The first screen, of tables that are there already: their columns have to be known.
    ///
    /// # Errors
    ///
    /// What is wrong with the options.
    pub(crate) fn new(options: &TopOptions, tables: Tables) -> Result<Self, String> {
        let look = |name: &str, table: &Table| {
            let column = position(table, name).unwrap_or(0);
            let descending = table.columns.get(column).is_some_and(super::cell::Column::descends);
            Look { order: Order { column, descending }, above: 0 }
        };
        let [apps, classes, workers, drops] = &tables.tables;
        let looks = [
            look("share_percent", apps),
            look("bits_per_second", classes),
            look("busy_percent", workers),
            look("drops_per_second", drops),
        ];
        let mut model = Self {
            pane: options.pane.unwrap_or(Pane::Apps),
            looks,
            tables,
            front: Front::Nothing,
            filter: options.filter.clone(),
            user: options.user.clone(),
            delay: options.delay,
            left: 0,
            lost: None,
            page: 1,
        };
        if let Some(sort) = &options.sort {
            model.sort_by_name(sort)?;
        }
        Ok(model)
    }

    fn sort_by_name(&mut self, sort: &str) -> Result<(), String> {
        let (name, ascending) = sort.strip_prefix('+').map_or((sort, false), |name| (name, true));
        let table = self.table();
        let Some(column) = position(table, name) else {
            let titles: Vec<&str> = table.columns.iter().map(|column| column.title).collect();
            return Err(format!("`{name}` is no column of {}: it has {}", self.pane.name(), titles.join(", ")));
        };
        let descending = !ascending && table.columns.get(column).is_some_and(super::cell::Column::descends);
        self.look_mut().order = Order { column, descending };
        Ok(())
    }

    /// The table that is shown.
    pub(crate) fn table(&self) -> &Table {
        self.table_of(self.pane)
    }

    /// Another table.
    pub(crate) fn table_of(&self, pane: Pane) -> &Table {
        let [apps, classes, workers, drops] = &self.tables.tables;
        match pane {
            Pane::Apps => apps,
            Pane::Classes => classes,
            Pane::Workers => workers,
            Pane::Drops => drops,
        }
    }

    /// How it is looked at.
    pub(crate) const fn look(&self) -> Look {
        self.look_of(self.pane)
    }

    const fn look_of(&self, pane: Pane) -> Look {
        let [apps, classes, workers, drops] = self.looks;
        match pane {
            Pane::Apps => apps,
            Pane::Classes => classes,
            Pane::Workers => workers,
            Pane::Drops => drops,
        }
    }

    const fn look_mut(&mut self) -> &mut Look {
        let [apps, classes, workers, drops] = &mut self.looks;
        match self.pane {
            Pane::Apps => apps,
            Pane::Classes => classes,
            Pane::Workers => workers,
            Pane::Drops => drops,
        }
    }

    /// The rows of the table that is shown, as they are sorted and filtered.
    pub(crate) fn rows(&self) -> Vec<&Row> {
        self.rows_of(self.pane)
    }

    /// The same of another table.
    pub(crate) fn rows_of(&self, pane: Pane) -> Vec<&Row> {
        let passes = |row: &Row| row.is_of(&self.user) && row.has(&self.filter);
        self.table_of(pane).sorted(self.look_of(pane).order, passes)
    }

    /// Takes what kopid says now.
    pub(crate) fn update(&mut self, tables: Tables) {
        self.tables = tables;
        self.lost = None;
        self.keep_in_table();
    }

    /// Takes the number of rows that fit.
    pub(crate) fn set_page(&mut self, rows: usize) {
        self.page = rows.max(1);
        self.keep_in_table();
    }

    /// Rows that fit.
    pub(crate) const fn page(&self) -> usize {
        self.page
    }

    /// Does what somebody wants.
    pub(crate) fn apply(&mut self, action: Action) -> Effect {
        match action {
            Action::Quit => return Effect::Quit,
            Action::Suspend => return Effect::Suspend,
            Action::Redraw => return Effect::Redraw,
            Action::Refresh => return Effect::Refresh,
            Action::Help => self.front = Front::Help,
            Action::Close => self.front = Front::Nothing,
            Action::Show(pane) => self.show(pane),
            Action::Turn(by) => self.show(turned(self.pane, by)),
            Action::Lines(by) => self.scroll(by),
            Action::Pages(by) => self.scroll(by.saturating_mul(self.page.cast_signed())),
            Action::Top => self.scroll(isize::MIN),
            Action::Bottom => self.scroll(isize::MAX),
            Action::Side(by) => self.left = self.left.saturating_add_signed(by * SIDE_STEP.cast_signed()).min(512),
            Action::SortStep(by) => {
                let column = self.look().order.column.saturating_add_signed(by);
                self.sort(column.min(self.table().columns.len().saturating_sub(1)));
            }
            Action::SortBy(key) => {
                self.show(Pane::Apps);
                if let Some(column) = position(self.table(), key) {
                    self.sort(column);
                }
            }
            Action::SortMenu => self.front = Front::Columns(self.look().order.column),
            Action::Reverse => self.look_mut().order.descending ^= true,
            Action::Ask(question) => self.ask(question),
            Action::Unfilter => {
                self.filter.clear();
                self.user.clear();
                self.keep_in_table();
            }
            Action::Type(c) => self.typed(c),
            Action::Erase => {
                if let Front::Prompt { text, wrong, .. } = &mut self.front {
                    text.pop();
                    *wrong = None;
                }
            }
            Action::Accept => return self.accept(),
        }
        Effect::Nothing
    }

    fn show(&mut self, pane: Pane) {
        self.pane = pane;
        self.left = 0;
        // A list of columns is of the table before.
        if let Front::Columns(_) = self.front {
            self.front = Front::Nothing;
        }
        self.keep_in_table();
    }

    fn sort(&mut self, column: usize) {
        let descending = self.table().columns.get(column).is_some_and(super::cell::Column::descends);
        *self.look_mut() = Look { order: Order { column, descending }, above: 0 };
    }

    /// Scrolls what is in front: the list of columns, or the table.
    fn scroll(&mut self, by: isize) {
        let columns = self.table().columns.len();
        match &mut self.front {
            Front::Columns(chosen) => *chosen = chosen.saturating_add_signed(by).min(columns.saturating_sub(1)),
            _ => {
                let look = self.look_mut();
                look.above = look.above.saturating_add_signed(by);
                self.keep_in_table();
            }
        }
    }

    /// The last page is full, if there are as many rows.
    fn keep_in_table(&mut self) {
        let most = self.rows().len().saturating_sub(self.page);
        let look = self.look_mut();
        look.above = look.above.min(most);
    }

    fn ask(&mut self, question: Question) {
        let text = match question {
            Question::Filter => self.filter.clone(),
            Question::User => self.user.clone(),
            Question::Delay => String::new(),
        };
        self.front = Front::Prompt { question, text, wrong: None };
    }

    fn typed(&mut self, c: char) {
        if let Front::Prompt { text, wrong, .. } = &mut self.front
            && !c.is_control()
            && text.chars().count() < PROMPT_MAX
        {
            text.push(c);
            *wrong = None;
        }
    }

    fn accept(&mut self) -> Effect {
        match std::mem::replace(&mut self.front, Front::Nothing) {
            Front::Columns(column) => self.sort(column),
            Front::Prompt { question: Question::Filter, text, .. } => self.filter = text,
            Front::Prompt { question: Question::User, text, .. } => self.user = text.trim().to_owned(),
            Front::Prompt { question: question @ Question::Delay, text, .. } => match delay(text.trim()) {
                Ok(delay) => {
                    self.delay = delay;
                    return Effect::Refresh;
                }
                Err(wrong) if !text.is_empty() => {
                    self.front = Front::Prompt { question, text, wrong: Some(wrong) };
                }
                Err(_) => {}
            },
            Front::Nothing | Front::Help => {}
        }
        self.keep_in_table();
        Effect::Nothing
    }
}

/// The column with this title or key.
fn position(table: &Table, name: &str) -> Option<usize> {
    let bare = |title: &str| title.trim_end_matches('%').to_owned();
    table.columns.iter().position(|column| {
        column.title.eq_ignore_ascii_case(name) || bare(column.title).eq_ignore_ascii_case(name) || column.key == name
    })
}

fn turned(pane: Pane, by: isize) -> Pane {
    let count = Pane::ALL.len().cast_signed();
    let at = Pane::ALL.iter().position(|other| *other == pane).unwrap_or(0).cast_signed();
    let at = (at + by % count + count) % count;
    Pane::ALL.get(at.cast_unsigned()).copied().unwrap_or(pane)
}

#[cfg(test)]
mod tests;
