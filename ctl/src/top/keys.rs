//! Which key means what: those of top(1), and where it has none, of htop(1).

use super::model::{Action, Front, Question};
use crate::arguments::Pane;
use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

/// What the help says, in the order of the screen.
pub(crate) const HELP: &[(&str, &str)] = &[
    ("1 2 3 4, Tab", "applications, classes, workers, drops"),
    ("< >", "sort by the column to the left or right"),
    ("F6", "choose the column to sort by"),
    ("R, I", "reverse the order"),
    ("P M N T", "sort applications by share, memory, pid, packets"),
    ("/, F4, \\", "show only rows with a text"),
    ("u", "show only applications of a user"),
    ("=", "show all again"),
    ("d, s", "change the delay"),
    ("Space", "refresh now"),
    ("arrows, PgUp, PgDn, Home, End", "scroll"),
    ("Ctrl-L", "draw the screen anew"),
    ("h, ?, F1", "this help"),
    ("q, F10, Ctrl-C", "quit"),
];

/// What `key` means while `front` is in front; `None` if nothing.
pub(crate) fn action(front: &Front, key: KeyEvent) -> Option<Action> {
    if key.modifiers.contains(KeyModifiers::CONTROL) {
        return match key.code {
            KeyCode::Char('c') => Some(Action::Quit),
            KeyCode::Char('z') => Some(Action::Suspend),
            KeyCode::Char('l') => Some(Action::Redraw),
            KeyCode::Char('h') => matches!(front, Front::Prompt { .. }).then_some(Action::Erase),
            _ => None,
        };
    }
    match front {
        Front::Prompt { .. } => in_prompt(key.code),
        Front::Columns(_) => in_list(key.code),
        // As in top, any key closes the help.
        Front::Help => Some(Action::Close),
        Front::Nothing => in_table(key.code),
    }
}

fn in_prompt(code: KeyCode) -> Option<Action> {
    match code {
        KeyCode::Char(c) => Some(Action::Type(c)),
        KeyCode::Backspace => Some(Action::Erase),
        KeyCode::Enter => Some(Action::Accept),
        KeyCode::Esc => Some(Action::Close),
        _ => None,
    }
}

fn in_list(code: KeyCode) -> Option<Action> {
    match code {
        KeyCode::Enter => Some(Action::Accept),
        KeyCode::Esc | KeyCode::F(6) | KeyCode::Char('q') => Some(Action::Close),
        _ => scrolling(code),
    }
}

fn scrolling(code: KeyCode) -> Option<Action> {
    Some(match code {
        KeyCode::Up => Action::Lines(-1),
        KeyCode::Down => Action::Lines(1),
        KeyCode::PageUp => Action::Pages(-1),
        KeyCode::PageDown => Action::Pages(1),
        KeyCode::Home => Action::Top,
        KeyCode::End => Action::Bottom,
        _ => return None,
    })
}

fn in_table(code: KeyCode) -> Option<Action> {
    Some(match code {
        KeyCode::Char('q') | KeyCode::F(10) => Action::Quit,
        KeyCode::Char('h' | '?') | KeyCode::F(1) => Action::Help,
        KeyCode::Char('1') => Action::Show(Pane::Apps),
        KeyCode::Char('2') => Action::Show(Pane::Classes),
        KeyCode::Char('3') => Action::Show(Pane::Workers),
        KeyCode::Char('4') => Action::Show(Pane::Drops),
        KeyCode::Tab => Action::Turn(1),
        KeyCode::BackTab => Action::Turn(-1),
        KeyCode::Left => Action::Side(-1),
        KeyCode::Right => Action::Side(1),
        KeyCode::Char('<' | ',') => Action::SortStep(-1),
        KeyCode::Char('>' | '.') => Action::SortStep(1),
        KeyCode::F(6) => Action::SortMenu,
        KeyCode::Char('R' | 'I') => Action::Reverse,
        KeyCode::Char('P') => Action::SortBy("share_percent"),
        KeyCode::Char('M') => Action::SortBy("memory_bytes"),
        KeyCode::Char('N') => Action::SortBy("pid"),
        KeyCode::Char('T') => Action::SortBy("packets"),
        KeyCode::Char('/' | '\\') | KeyCode::F(4) => Action::Ask(Question::Filter),
        KeyCode::Char('u') => Action::Ask(Question::User),
        KeyCode::Char('d' | 's') => Action::Ask(Question::Delay),
        KeyCode::Char('=') => Action::Unfilter,
        KeyCode::Char(' ') | KeyCode::Enter => Action::Refresh,
        _ => return scrolling(code),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meaning(front: &Front, code: KeyCode) -> Option<Action> {
        action(front, KeyEvent::new(code, KeyModifiers::NONE))
    }

    /// The keys that hands know from top and htop.
    #[test]
    fn keys_of_top_and_htop() {
        let of = |code| meaning(&Front::Nothing, code);
        assert_eq!([of(KeyCode::Char('q')), of(KeyCode::F(10))], [Some(Action::Quit), Some(Action::Quit)]);
        assert_eq!(of(KeyCode::Char('R')), Some(Action::Reverse));
        assert_eq!(of(KeyCode::Char('M')), Some(Action::SortBy("memory_bytes")));
        assert_eq!(of(KeyCode::F(6)), Some(Action::SortMenu));
        assert_eq!(of(KeyCode::Char('d')), of(KeyCode::Char('s')));
        assert_eq!(of(KeyCode::PageDown), Some(Action::Pages(1)));
        assert_eq!(of(KeyCode::Char('k')), None, "there is nobody to kill");
    }

    /// A prompt takes letters as letters; Ctrl-C quits from everywhere.
    #[test]
    fn prompts_take_letters() {
        let prompt = Front::Prompt { question: Question::Filter, text: String::new(), wrong: None };
        assert_eq!(meaning(&prompt, KeyCode::Char('q')), Some(Action::Type('q')));
        assert_eq!(meaning(&prompt, KeyCode::Esc), Some(Action::Close));
        assert_eq!(meaning(&Front::Help, KeyCode::Char('q')), Some(Action::Close));
        for front in [prompt, Front::Help, Front::Nothing, Front::Columns(1)] {
            let key = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
            assert_eq!(action(&front, key), Some(Action::Quit));
        }
    }
}
