//! The model without a terminal: options, keys in any order, and tables that change below it.

use super::*;
use crate::arguments::{Arguments, Command};
use crate::top::tests::{options, sample, tables};
use crate::top::view::{Theme, draw};
use clap::Parser;
use proptest::prelude::*;
use ratatui_core::backend::TestBackend;
use ratatui_core::terminal::Terminal;

fn names(model: &Model) -> Vec<String> {
    model.rows().iter().map(|row| row.cells[0].text.clone()).collect()
}

/// `-o` names a column by title or key, in both orders; one that is not there is refused with those that are.
#[test]
fn columns_are_chosen_by_name() {
    let model = |line: &str| Model::new(&options(line), tables());
    assert_eq!(names(&model("-o name").unwrap()), ["batch-2", "bob"]);
    assert_eq!(names(&model("-o PKTS").unwrap()), ["bob", "batch-2"]);
    assert_eq!(names(&model("-o +packets").unwrap()), ["batch-2", "bob"]);
    let wrong = model("-p workers -o name").unwrap_err();
    assert!(wrong.starts_with("`name` is no column of workers: it has WORKER, CPU, BUSY%"), "{wrong}");
}

/// Filters look into every cell; the user is a name or a number.
#[test]
fn rows_are_filtered() {
    let model = |line: &str| names(&Model::new(&options(line), tables()).unwrap());
    assert_eq!(model("-f TESTPMD"), ["bob"]);
    assert_eq!(model("-u nobody"), ["bob"]);
    assert_eq!(model("-u 4242"), ["batch-2"]);
    assert!(model("-u bob").is_empty());
}

/// A prompt changes what it asks for when it is accepted; a delay that is none is told, and asked for again.
#[test]
fn prompts_are_accepted_or_not() {
    let mut model = Model::new(&options(""), tables()).unwrap();
    let typed = |model: &mut Model, question, text: &str| {
        model.apply(Action::Ask(question));
        for c in text.chars() {
            model.apply(Action::Type(c));
        }
        model.apply(Action::Accept)
    };
    typed(&mut model, Question::Filter, "bob");
    assert_eq!(names(&model), ["bob"]);
    assert_eq!(typed(&mut model, Question::Delay, "0.5"), Effect::Refresh);
    assert_eq!(model.delay, Duration::from_millis(500));
    assert_eq!(typed(&mut model, Question::Delay, "soon"), Effect::Nothing);
    assert!(matches!(&model.front, Front::Prompt { wrong: Some(_), .. }));
    model.apply(Action::Close);
    model.apply(Action::Unfilter);
    assert_eq!((names(&model).len(), model.delay), (2, Duration::from_millis(500)));
}

/// Wherever Tab starts, four of them come back.
#[test]
fn tab_goes_round() {
    for pane in Pane::ALL {
        assert_eq!((0..4).fold(pane, |pane, _| turned(pane, 1)), pane);
        assert_eq!(turned(turned(pane, 1), -1), pane);
    }
}

/// The command line has top's letters.
#[test]
fn options_are_those_of_top() {
    let Ok(Arguments { command: Command::Top(options), .. }) =
        Arguments::try_parse_from(["kopictl", "top", "-b", "-n1", "-d", "0.2", "-u", "bob"])
    else {
        panic!("these are good options");
    };
    assert_eq!((options.batch, options.iterations, options.delay), (true, Some(1), Duration::from_millis(200)));
    for bad in ["-n0", "-d0", "-dx", "-pnone"] {
        assert!(Arguments::try_parse_from(["kopictl", "top", bad]).is_err(), "{bad}");
    }
}

fn actions() -> impl Strategy<Value = Action> {
    let question = prop_oneof![Just(Question::Filter), Just(Question::User), Just(Question::Delay)];
    let step = || prop_oneof![-3_isize..4, Just(isize::MIN), Just(isize::MAX)];
    prop_oneof![
        (0_usize..4).prop_map(|at| Action::Show(Pane::ALL[at])),
        (-9_isize..9).prop_map(Action::Turn),
        step().prop_map(Action::Lines),
        (-3_isize..4).prop_map(Action::Pages),
        (-3_isize..4).prop_map(Action::Side),
        step().prop_map(Action::SortStep),
        Just(Action::SortBy("pid")),
        question.prop_map(Action::Ask),
        any::<char>().prop_map(Action::Type),
        Just(Action::Accept),
        Just(Action::Close),
        Just(Action::Help),
        Just(Action::SortMenu),
        Just(Action::Reverse),
        Just(Action::Top),
        Just(Action::Bottom),
        Just(Action::Erase),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is typed, on a terminal of whatever size, and whatever comes and goes in the tables: everything can be drawn, the
    /// column that is sorted by is one of the table, and no page begins behind the last row.
    #[test]
    fn any_keys_on_any_terminal(
        steps in prop::collection::vec((actions(), 0_u16..120, 0_u16..40, 0_usize..60), 1..24),
    ) {
        let mut model = Model::new(&options(""), tables()).unwrap();
        let mut old = sample();
        for (action, width, height, apps) in steps {
            model.apply(action);
            let mut new = sample();
            let app = new.apps.rows[0].clone();
            new.apps.rows = (0..apps).map(|n| kopi_api::App { name: format!("app-{n}"), ..app.clone() }).collect();
            model.update(Tables::new(Some(&old), &new));
            old = new;
            let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
            terminal.draw(|frame| draw(frame, &mut model, Theme { is_coloured: apps % 2 == 0 })).unwrap();
            let look = model.look();
            prop_assert!(look.order.column < model.table().columns.len());
            prop_assert!(look.above == 0 || look.above + model.page() <= model.rows().len());
        }
    }
}
