//! What ratatui draws, written to a terminal by crossterm: the few attributes that `top` uses.

use crossterm::cursor::{Hide, MoveTo, Show};
use crossterm::style::{Attribute, Color, Print, SetAttribute, SetForegroundColor};
use crossterm::terminal::{Clear, ClearType};
use crossterm::{execute, queue};
use ratatui_core::backend::{Backend, ClearType as Region, WindowSize};
use ratatui_core::buffer::Cell;
use ratatui_core::layout::{Position, Size};
use ratatui_core::style::{Color as Colour, Modifier};
use std::io::{self, BufWriter, Stdout, Write};

/// Standard output as a screen.
#[derive(Debug)]
pub(crate) struct Terminal {
    out: BufWriter<Stdout>,
}

impl Terminal {
    pub(crate) fn new() -> Self {
        Self { out: BufWriter::with_capacity(1 << 16, io::stdout()) }
    }

    /// From here on, text looks like this.
    fn set_style(&mut self, modifier: Modifier, colour: Colour) -> io::Result<()> {
        queue!(self.out, SetAttribute(Attribute::Reset))?;
        if modifier.contains(Modifier::BOLD) {
            queue!(self.out, SetAttribute(Attribute::Bold))?;
        }
        if modifier.contains(Modifier::REVERSED) {
            queue!(self.out, SetAttribute(Attribute::Reverse))?;
        }
        match colour {
            Colour::Cyan => queue!(self.out, SetForegroundColor(Color::DarkCyan)),
            Colour::Red => queue!(self.out, SetForegroundColor(Color::DarkRed)),
            _ => Ok(()),
        }
    }
}

impl Backend for Terminal {
    type Error = io::Error;

    fn draw<'a, I: Iterator<Item = (u16, u16, &'a Cell)>>(&mut self, content: I) -> io::Result<()> {
        let (mut next, mut style) = (None, None);
        for (x, y, cell) in content {
            if next != Some((x, y)) {
                queue!(self.out, MoveTo(x, y))?;
            }
            // Wide characters move the cursor by two: then it is placed anew.
            next = (cell.symbol().len() == 1).then_some((x + 1, y));
            if style != Some((cell.modifier, cell.fg)) {
                style = Some((cell.modifier, cell.fg));
                self.set_style(cell.modifier, cell.fg)?;
            }
            queue!(self.out, Print(cell.symbol()))?;
        }
        queue!(self.out, SetAttribute(Attribute::Reset))
    }

    fn hide_cursor(&mut self) -> io::Result<()> {
        execute!(self.out, Hide)
    }

    fn show_cursor(&mut self) -> io::Result<()> {
        execute!(self.out, Show)
    }

    fn get_cursor_position(&mut self) -> io::Result<Position> {
        // Asking a terminal takes it time to answer, and nobody here needs to know.
        Ok(Position::ORIGIN)
    }

    fn set_cursor_position<P: Into<Position>>(&mut self, position: P) -> io::Result<()> {
        let Position { x, y } = position.into();
        execute!(self.out, MoveTo(x, y))
    }

    fn clear(&mut self) -> io::Result<()> {
        execute!(self.out, Clear(ClearType::All))
    }

    fn clear_region(&mut self, _region: Region) -> io::Result<()> {
        self.clear()
    }

    fn size(&self) -> io::Result<Size> {
        crossterm::terminal::size().map(|(width, height)| Size { width, height })
    }

    fn window_size(&mut self) -> io::Result<WindowSize> {
        Ok(WindowSize { columns_rows: self.size()?, pixels: Size::ZERO })
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
