//! Screens as they are drawn.

use super::*;
use crate::top::model::Action;
use crate::top::tests::{options, tables};
use ratatui_core::backend::TestBackend;
use ratatui_core::terminal::Terminal;

fn screen(model: &mut Model, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, model, Theme { is_coloured: false })).unwrap();
    let cells = terminal.backend().buffer().content.chunks(usize::from(width));
    let line = |cells: &[ratatui_core::buffer::Cell]| {
        let text: String = cells.iter().map(ratatui_core::buffer::Cell::symbol).collect();
        text.trim_end().to_owned()
    };
    cells.map(line).collect::<Vec<_>>().join("\n")
}

fn model() -> Model {
    Model::new(&options(""), tables()).unwrap()
}

/// The first screen: the busiest app first, and a hostile name escaped.
#[test]
fn applications_are_shown() {
    let expected = "\
kopid 0.1.0, pid 20259, up 2 min 5 s, apps 2, flows 7, mbufs 8128 free of 8192
wire up: rx 0 pps 0bit/s, tx 1.00M pps 512Mbit/s
busy: cpu 0 3.1%
 1 apps   2 classes   3 workers   4 drops   2  every 1 s
NAME      PID  USER    COMM             RX-PPS  RX-BIT/S  TX-PPS  TX-BIT/S  DROPS/S  SHARE%v  PKTS
bob      4711  nobody  dpdk-testpmd          0         0   1.00M      512M        4    100.0  2001990
batch-2     ?  4242    evil\\u{1b}[2J x       0         0       0         0        0      0.0        0

h help  Tab next  <> sort  R reverse  / filter  u user  d delay  q quit";
    let shown = screen(&mut model(), 100, 9);
    // On so low a terminal there is no summary.
    assert!(!shown.contains("kopid 0.1.0"), "{shown}");
    let shown = screen(&mut model(), 103, 10);
    assert_words(&shown, expected);
}

fn assert_words(shown: &str, expected: &str) {
    let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(words(shown), words(expected), "\n{shown}");
}

/// Scrolled to the side, what was cut off comes.
#[test]
fn columns_come_from_the_side() {
    let mut model = model();
    assert!(!screen(&mut model, 60, 12).contains("STATE"));
    for _ in 0..10 {
        model.apply(Action::Side(1));
    }
    assert!(screen(&mut model, 60, 12).contains("STATE"));
}

/// Help, list and prompts stand in front; what is wrong with an answer is beside it.
#[test]
fn fronts_are_drawn() {
    let mut model = model();
    model.apply(Action::Help);
    assert!(screen(&mut model, 100, 24).contains("q, F10, Ctrl-C"));
    model.apply(Action::SortMenu);
    assert!(screen(&mut model, 100, 24).starts_with(" Sort by"));
    model.apply(Action::Ask(Question::Delay));
    model.apply(Action::Type('x'));
    model.apply(Action::Accept);
    let shown = screen(&mut model, 100, 24);
    assert!(shown.ends_with("Seconds between two looks: x_ not a number of seconds from 0.1 to 3600"), "{shown}");
}

/// A daemon that has gone is told of, above the last tables.
#[test]
fn a_lost_daemon_is_told() {
    let mut model = model();
    model.lost = Some("cannot reach kopid".into());
    let shown = screen(&mut model, 100, 24);
    assert!(shown.contains("cannot reach kopid") && shown.contains("dpdk-testpmd"), "{shown}");
    model.update(tables());
    assert!(!screen(&mut model, 100, 24).contains("cannot reach"));
}

/// Cells that are too long end in an ellipsis, and wide characters are two columns wide.
#[test]
fn cells_fit() {
    assert_eq!(fit("abc", 5, Align::Right), "  abc");
    assert_eq!(fit("abcdef", 4, Align::Left), "abc…");
    assert_eq!(fit("水水水", 4, Align::Left), "水… ");
    assert_eq!(fit("", 3, Align::Left), "   ");
}
