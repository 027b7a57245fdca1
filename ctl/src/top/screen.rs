//! The terminal: taken, and given back however this ends.

use super::backend::Terminal as Backend;
use crate::failure::Failure;
use crossterm::cursor::Show;
use crossterm::execute;
use crossterm::terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode};
use ratatui_core::terminal::{Frame, Terminal};
use signal_hook::consts::SIGTSTP;
use signal_hook::low_level::emulate_default_handler;
use std::io;
use std::sync::Once;

/// A terminal in raw mode, on its alternate screen. Given back with its value, and before a panic is told.
#[derive(Debug)]
pub(crate) struct Screen {
    terminal: Terminal<Backend>,
}

impl Screen {
    /// Takes the terminal.
    ///
    /// # Errors
    ///
    /// [`Failure::System`].
    pub(crate) fn new() -> Result<Self, Failure> {
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            let told = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                give_back();
                told(panic);
            }));
        });
        let mut screen = Self { terminal: Terminal::new(Backend::new()).map_err(failed)? };
        screen.take()?;
        Ok(screen)
    }

    /// Takes the terminal, whatever a shell has made of it since.
    ///
    /// # Errors
    ///
    /// [`Failure::System`].
    pub(crate) fn take(&mut self) -> Result<(), Failure> {
        enable_raw_mode().map_err(failed)?;
        execute!(io::stdout(), EnterAlternateScreen).map_err(failed)?;
        self.terminal.hide_cursor().map_err(failed)?;
        self.redraw()
    }

    /// Whatever stands on the terminal is drawn anew next time.
    ///
    /// # Errors
    ///
    /// [`Failure::System`].
    pub(crate) fn redraw(&mut self) -> Result<(), Failure> {
        self.terminal.clear().map_err(failed)
    }

    /// Gives the terminal back until the process is told to go on.
    ///
    /// # Errors
    ///
    /// [`Failure::System`].
    pub(crate) fn suspend(&mut self) -> Result<(), Failure> {
        give_back();
        emulate_default_handler(SIGTSTP).map_err(failed)?;
        self.take()
    }

    /// Draws what has changed.
    ///
    /// # Errors
    ///
    /// [`Failure::System`].
    pub(crate) fn draw(&mut self, draw: impl FnOnce(&mut Frame<'_>)) -> Result<(), Failure> {
        self.terminal.draw(draw).map(drop).map_err(failed)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

/// What can be given back of a terminal that may be gone.
fn give_back() {
    drop(disable_raw_mode());
    drop(execute!(io::stdout(), LeaveAlternateScreen, Show));
}

pub(super) fn failed(error: io::Error) -> Failure {
    Failure::System { what: "use the terminal", error }
}
