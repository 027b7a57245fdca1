//! `kopictl top`: applications, classes, workers and drops, live.
//!
//! - [`sample`]: one look at kopid; [`tables`]: what two of them say, with rates; [`cell`]: what a table is made of;
//! - [`model`]: which table, in what order, which rows; [`keys`]: what keys mean to it; [`view`]: how it is drawn;
//! - [`screen`] and [`backend`]: the terminal; [`events`]: keys, signals and answers;
//! - [`batch`]: the same as text or JSON.

mod backend;
mod batch;
mod cell;
mod events;
mod keys;
mod model;
mod sample;
mod screen;
mod tables;
mod view;

use crate::arguments::TopOptions;
use crate::failure::Failure;
use crossterm::event::{self, Event, KeyEventKind};
use events::Events;
use model::{Effect, Model};
use sample::{Sample, Source};
use screen::{Screen, failed};
use signal_hook::low_level::emulate_default_handler;
use std::io::{self, IsTerminal};
use std::path::Path;
use std::time::{Duration, Instant};
use tables::Tables;
use view::Theme;

/// How long to leave a terminal alone that says it has keys and gives none.
const NO_KEY_PAUSE: Duration = Duration::from_millis(20);

/// Runs until it is told to end.
///
/// # Errors
///
/// [`Failure`] if kopid cannot be asked at first, or there is no terminal.
pub(crate) fn run(options: &TopOptions, socket: &Path, json: bool) -> Result<(), Failure> {
    let source = Source::new(socket.to_owned());
    if options.batch {
        return batch::run(options, source, json);
    }
    if json {
        return Err(Failure::Top("--json is for -b".into()));
    }
    let is_dumb = std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
    if !io::stdin().is_terminal() || !io::stdout().is_terminal() || is_dumb {
        return Err(Failure::Top("this is no terminal: kopictl top -b -n 1 prints text".into()));
    }
    live(options, source)
}

fn live(options: &TopOptions, mut source: Source) -> Result<(), Failure> {
    // Before the terminal is taken: who may not ask is told so where it can be read.
    let first = source.sample()?;
    let model = Model::new(options, Tables::new(None, &first)).map_err(Failure::Top)?;
    let theme = Theme { is_coloured: std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()) };
    let events = Events::new(source)?;
    let live = Live { screen: Screen::new()?, events, model, theme, last: Some(first), looks: 1, next: Instant::now() };
    match live.run(options.iterations)? {
        // The terminal is given back by now: end as who sent the signal expects.
        Some(signal) => emulate_default_handler(signal).map_err(failed),
        None => Ok(()),
    }
}

/// A screen at work.
struct Live {
    screen: Screen,
    events: Events,
    model: Model,
    theme: Theme,
    /// The last look, unless kopid has gone since.
    last: Option<Sample>,
    looks: u32,
    /// When kopid is to be asked next.
    next: Instant,
}

impl Live {
    /// Runs until it is told to end; returns the signal, if one did.
    fn run(mut self, iterations: Option<u32>) -> Result<Option<i32>, Failure> {
        self.next = Instant::now() + self.model.delay;
        loop {
            let Self { screen, model, theme, .. } = &mut self;
            screen.draw(|frame| view::draw(frame, model, *theme))?;
            let may_have_keys = self.events.wait(self.next)?;
            if let Some(signal) = self.events.ending() {
                return Ok(Some(signal));
            }
            if self.events.is_to_stop() {
                self.screen.suspend()?;
            } else if self.events.goes_on() {
                self.screen.take()?;
            }
            if may_have_keys && !self.take_keys()? {
                return Ok(None);
            }
            if let Some(look) = self.events.look() {
                self.take(look);
            }
            // The look at the start has no rates and is none of these.
            if iterations.is_some_and(|iterations| self.looks > iterations) {
                return Ok(None);
            }
            if Instant::now() >= self.next {
                self.ask();
            }
        }
    }

    fn ask(&mut self) {
        self.events.ask();
        self.next = Instant::now() + self.model.delay;
    }

    fn take(&mut self, look: Result<Sample, Failure>) {
        self.looks += 1;
        match look {
            Ok(new) => {
                self.model.update(Tables::new(self.last.as_ref(), &new));
                self.last = Some(new);
            }
            Err(failure) => {
                self.last = None;
                self.model.lost = Some(failure.to_string());
            }
        }
    }

    /// Does what was typed, and returns whether to go on.
    fn take_keys(&mut self) -> Result<bool, Failure> {
        if !event::poll(Duration::ZERO).map_err(failed)? {
            // crossterm waits for edges, and loses that of a key that comes together with a new size: until the next key, what is
            // polled here is readable and there is nothing to read.
            std::thread::sleep(NO_KEY_PAUSE);
        }
        while event::poll(Duration::ZERO).map_err(failed)? {
            let Event::Key(key) = event::read().map_err(failed)? else { continue };
            if key.kind == KeyEventKind::Release {
                continue;
            }
            let Some(action) = keys::action(&self.model.front, key) else { continue };
            match self.model.apply(action) {
                Effect::Nothing => {}
                Effect::Quit => return Ok(false),
                Effect::Suspend => self.screen.suspend()?,
                Effect::Redraw => self.screen.redraw()?,
                Effect::Refresh => self.ask(),
            }
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests;
