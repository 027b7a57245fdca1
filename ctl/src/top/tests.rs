//! Looks at kopid that were recorded, and what two of them say.

use super::*;
use crate::arguments::{Arguments, Command};
use clap::Parser;
use sample::Answer;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Answers as kopid gave them.
const RECORDED: &str = include_str!("../../tests/recorded.json");

pub(super) fn options(line: &str) -> TopOptions {
    let words = ["kopictl", "top"].into_iter().chain(line.split_whitespace());
    match Arguments::try_parse_from(words).map(|arguments| arguments.command) {
        Ok(Command::Top(options)) => options,
        other => panic!("{other:?}"),
    }
}

fn answer<T: DeserializeOwned>(name: &str, at: Instant) -> Answer<T> {
    let recorded: Value = serde_json::from_str(RECORDED).unwrap();
    Answer { rows: recorded.get(name).map_or_else(Vec::new, |rows| serde_json::from_value(rows.clone()).unwrap()), at }
}

pub(super) fn sample() -> Sample {
    let at = Instant::now();
    Sample {
        status: answer("status", at),
        ports: answer("stats", at),
        apps: answer("apps", at),
        classes: answer("classes", at),
        drops: answer("drops", at),
    }
}

/// Two looks, two seconds apart.
pub(super) fn two() -> (Sample, Sample) {
    let old = sample();
    let mut new = old.clone();
    let later = Duration::from_secs(2);
    for at in [&mut new.status.at, &mut new.ports.at, &mut new.apps.at, &mut new.classes.at, &mut new.drops.at] {
        *at += later;
    }
    let bob = &mut new.apps.rows[0];
    (bob.tx_packets, bob.tx_bytes, bob.drops) = (bob.tx_packets + 2_000_000, bob.tx_bytes + 128_000_000, bob.drops + 8);
    new.ports.rows[0].tx_packets += 2_000_000;
    new.ports.rows[0].tx_bytes += 128_000_000;
    new.drops.rows[1].packets += 8;
    (old, new)
}

pub(super) fn tables() -> Tables {
    let (old, new) = two();
    Tables::new(Some(&old), &new)
}

fn cell(tables: &Tables, table: usize, row: usize, key: &str) -> String {
    let table = &tables.tables[table];
    let column = table.columns.iter().position(|column| column.key == key).unwrap();
    table.rows[row].cells[column].text.clone()
}

/// Rates are differences over the time between two looks; an app that is alone has all of the traffic.
#[test]
fn rates_are_differences_over_time() {
    let tables = tables();
    let app = |key| cell(&tables, 0, 0, key);
    assert_eq!(app("tx_packets_per_second"), "1.00M");
    assert_eq!(app("tx_bits_per_second"), "512M");
    assert_eq!(app("rx_packets_per_second"), "0");
    assert_eq!(app("drops_per_second"), "4");
    assert_eq!(app("share_percent"), "100.0");
    assert_eq!(cell(&tables, 3, 1, "drops_per_second"), "4");
    assert_eq!(tables.summary[1], "wire up: rx 0 pps 0bit/s, tx 1.00M pps 512Mbit/s");
}

/// An app that has attached anew, and a daemon that has started anew, have no rates yet, whatever their counters say.
#[test]
fn restarts_give_no_nonsense() {
    let (old, mut new) = two();
    new.apps.rows[0].tx_packets = 3;
    assert_eq!(cell(&Tables::new(Some(&old), &new), 0, 0, "tx_packets_per_second"), "-");
    let (old, mut new) = two();
    new.status.rows[0].pid += 1;
    let tables = Tables::new(Some(&old), &new);
    for (table, key) in [(0, "tx_packets_per_second"), (2, "turns_per_second"), (3, "drops_per_second")] {
        assert_eq!(cell(&tables, table, 0, key), "-", "{key}");
    }
    assert_eq!(tables.summary[1], "wire up: rx - pps -bit/s, tx - pps -bit/s");
}

/// A class has its share of what its siblings get.
#[test]
fn classes_share_their_parent() {
    let mut new = sample();
    let class = |name: &str, parent: Option<&str>, rate| kopi_api::Class {
        name: name.into(),
        parent: parent.map(str::to_owned),
        direction: "egress".into(),
        bits_per_second: rate,
        ..kopi_api::Class::default()
    };
    new.classes.rows = vec![class("a", None, 400), class("b", Some("a"), 300), class("c", Some("a"), 100)];
    let tables = Tables::new(None, &new);
    assert_eq!([0, 1, 2].map(|row| cell(&tables, 1, row, "share_percent")), ["100.0", "75.0", "25.0"]);
}

/// Text for scripts has all tables or the one that is wanted; JSON has every digit.
#[test]
fn batch_is_text_or_json() {
    let model = Model::new(&options("-b -p drops"), tables()).unwrap();
    let expected = "\
kopid 0.1.0, pid 20259, up 2 min 5 s, apps 2, flows 7, mbufs 8128 free of 8192
wire up: rx 0 pps 0bit/s, tx 1.00M pps 512Mbit/s
busy: cpu 0 3.1%

APP   STAGE    REASON           RULE     DROPS/S  DROPS
bob   deliver  rx_ring_full     -              4     18
wire  forward  unknown_unicast  -              0      3
bob   filter   denied           no-smtp        0      1
";
    assert_eq!(batch::text(&model, Some(crate::arguments::Pane::Drops)), expected);
    let all = batch::text(&model, None);
    assert!(all.contains("\nthe policy has no classes\n") || all.contains("\nCLASS "), "{all}");
    let json = batch::objects(&model, None);
    assert_eq!(json["top"][0]["apps"][0]["tx_bits_per_second"], 512_000_000.0);
    assert_eq!(json["top"][0]["drops"][0]["drops"], 18);
    assert_eq!(json["top"][0]["apps"][1]["pid"], Value::Null);
}
