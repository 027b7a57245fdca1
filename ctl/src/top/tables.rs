//! The four tables and the summary, made of two looks at kopid. Rates are differences of counters over the time between.

use super::cell::{Cell, Column, Row, Table, bits, per_second, percent, si, time};
use super::sample::{Answer, Sample};
use crate::text::span;
use kopi_api::status::Worker;
use kopi_api::{App, Class, Drops, Port, Status};
use std::collections::HashMap;
use std::hash::Hash;

/// Everything that a screen shows of kopid.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tables {
    /// Lines about the daemon, its wire and its workers.
    pub(crate) summary: Vec<String>,
    /// In the order of [`Pane::ALL`](crate::arguments::Pane::ALL).
    pub(crate) tables: [Table; 4],
}

impl Tables {
    /// What `new` says, with rates since `old`, if that was there and is of the same daemon.
    pub(crate) fn new(old: Option<&Sample>, new: &Sample) -> Self {
        let old = old.filter(|old| new.goes_on_from(old));
        Self {
            summary: summary(old, new),
            tables: [apps(old, new), classes(old, new), workers(old, new), drops(old, new)],
        }
    }
}

/// The rows of a look that have a counterpart in the one before, and the seconds between.
struct Before<'a, K, T> {
    rows: HashMap<K, &'a T>,
    seconds: f64,
}

impl<'a, K: Hash + Eq, T> Before<'a, K, T> {
    fn new(old: Option<&'a Answer<T>>, new: &Answer<T>, key: impl Fn(&'a T) -> K) -> Self {
        let seconds = old.map_or(0.0, |old| new.at.saturating_duration_since(old.at).as_secs_f64());
        Self { rows: old.into_iter().flat_map(|old| &old.rows).map(|row| (key(row), row)).collect(), seconds }
    }

    /// How much `counter` of `row` grew in a second. `None` of a row that is new, and of a counter that began anew.
    fn rate(&self, key: &K, row: &T, counter: impl Fn(&T) -> u64) -> Option<f64> {
        let old = self.rows.get(key)?;
        per_second(counter(old), counter(row), self.seconds)
    }
}

const APPS: &[Column] = &[
    Column::text("NAME", "name"),
    Column::number("PID", "pid"),
    Column::text("USER", "user"),
    Column::text("COMM", "comm"),
    Column::number("RX-PPS", "rx_packets_per_second"),
    Column::number("RX-BIT/S", "rx_bits_per_second"),
    Column::number("TX-PPS", "tx_packets_per_second"),
    Column::number("TX-BIT/S", "tx_bits_per_second"),
    Column::number("DROPS/S", "drops_per_second"),
    Column::number("SHARE%", "share_percent"),
    Column::number("PKTS", "packets"),
    Column::number("DROPS", "drops"),
    Column::number("MEM", "memory_bytes"),
    Column::text("STATE", "state"),
];

fn apps(old: Option<&Sample>, new: &Sample) -> Table {
    let key = |app: &App| (app.port, app.pid, app.name.clone());
    let before = Before::new(old.map(|old| &old.apps), &new.apps, key);
    let rate = |app: &App, counter: fn(&App) -> u64| before.rate(&key(app), app, counter);
    let both = |app: &App| Some(rate(app, |app| app.rx_bytes)? + rate(app, |app| app.tx_bytes)?);
    let all: f64 = new.apps.rows.iter().filter_map(both).sum();
    let row = |app: &App| Row {
        cells: vec![
            Cell::text(&app.name),
            u64::try_from(app.pid).ok().filter(|pid| *pid > 0).map_or_else(|| Cell::none("?"), Cell::count),
            Cell::text(&user(app)),
            Cell::text(&app.comm),
            Cell::number(rate(app, |app| app.rx_packets), si),
            Cell::number(rate(app, |app| app.rx_bytes).map(bits), si),
            Cell::number(rate(app, |app| app.tx_packets), si),
            Cell::number(rate(app, |app| app.tx_bytes).map(bits), si),
            Cell::number(rate(app, |app| app.drops), si),
            Cell::number(both(app).filter(|_| all > 0.0).map(|bytes| bytes / all * 100.0), percent),
            Cell::count(app.rx_packets.saturating_add(app.tx_packets)),
            Cell::count(app.drops),
            Cell::size(app.memory),
            Cell::text(&app.state),
        ],
        user: Some((user(app), app.uid)),
    };
    Table { columns: APPS, rows: new.apps.rows.iter().map(row).collect(), empty: "no apps are attached" }
}

fn user(app: &App) -> String {
    let number = || app.uid.map_or_else(|| "-".into(), |uid| uid.to_string());
    app.user.clone().unwrap_or_else(number)
}

const CLASSES: &[Column] = &[
    Column::text("CLASS", "name"),
    Column::text("PARENT", "parent"),
    Column::text("DIR", "direction"),
    Column::text("RATE", "rate"),
    Column::text("CEIL", "ceil"),
    Column::number("BIT/S", "bits_per_second"),
    Column::number("SHARE%", "share_percent"),
    Column::number("PPS", "packets_per_second"),
    Column::number("DROPS/S", "drops_per_second"),
    Column::number("BACKLOG", "backlog_packets"),
    Column::number("P50", "delay_p50_ns"),
    Column::number("P99", "delay_p99_ns"),
    Column::number("PKTS", "packets"),
    Column::number("DROPS", "drops"),
];

fn classes(old: Option<&Sample>, new: &Sample) -> Table {
    let key = |class: &Class| (class.direction.clone(), class.name.clone());
    let before = Before::new(old.map(|old| &old.classes), &new.classes, key);
    // A class's share is that of its parent; of the roots, which have none, that of all roots of the direction.
    let mut of_parent: HashMap<(&str, Option<&str>), f64> = HashMap::new();
    for class in &new.classes.rows {
        *of_parent.entry((&class.direction, class.parent.as_deref())).or_default() += si_of(class.bits_per_second);
    }
    let share = |class: &Class| {
        let all = of_parent.get(&(&*class.direction, class.parent.as_deref())).copied().unwrap_or_default();
        (all > 0.0).then(|| si_of(class.bits_per_second) / all * 100.0)
    };
    let row = |class: &Class| Row {
        cells: vec![
            Cell::text(&class.name),
            Cell::option(class.parent.as_deref()),
            Cell::text(&class.direction),
            Cell::option(class.rate.as_deref()),
            Cell::option(class.ceil.as_deref()),
            Cell::number(Some(si_of(class.bits_per_second)), si),
            Cell::number(share(class), percent),
            Cell::number(before.rate(&key(class), class, |class| class.packets), si),
            Cell::number(before.rate(&key(class), class, |class| class.dropped), si),
            Cell::count(class.backlog_packets),
            Cell::number(class.delay_p50_ns.map(si_of), time),
            Cell::number(class.delay_p99_ns.map(si_of), time),
            Cell::count(class.packets),
            Cell::count(class.dropped),
        ],
        user: None,
    };
    Table { columns: CLASSES, rows: new.classes.rows.iter().map(row).collect(), empty: "the policy has no classes" }
}

/// Shown with three digits, so it needs no more than the 53 bits of a float.
#[expect(clippy::cast_precision_loss, reason = "what is lost lies far below what is shown")]
const fn si_of(count: u64) -> f64 {
    count as f64
}

const WORKERS: &[Column] = &[
    Column::number("WORKER", "worker"),
    Column::number("CPU", "cpu"),
    Column::number("BUSY%", "busy_percent"),
    Column::number("ASLEEP%", "asleep_percent"),
    Column::number("LONGEST", "longest_turn_ns"),
    Column::number("TURNS/S", "turns_per_second"),
    Column::number("BUSY/S", "busy_turns_per_second"),
    Column::number("SLEEPS/S", "sleeps_per_second"),
    Column::number("FLOWS", "flows"),
    Column::number("MISSES/S", "flow_misses_per_second"),
    Column::number("EVICT/S", "flow_evictions_per_second"),
    Column::number("HANDED/S", "handed_over_per_second"),
];

fn workers(old: Option<&Sample>, new: &Sample) -> Table {
    let of = |sample: &Sample| Answer {
        rows: sample.status.rows.iter().flat_map(|status| status.workers.clone()).enumerate().collect::<Vec<_>>(),
        at: sample.status.at,
    };
    let (old, new) = (old.map(of), of(new));
    let before = Before::new(old.as_ref(), &new, |(number, _)| *number);
    let row = |row: &(usize, Worker)| {
        let (number, worker) = row;
        let rate = |counter: fn(&Worker) -> u64| Cell::number(before.rate(number, row, |(_, w)| counter(w)), si);
        Row {
            cells: vec![
                Cell::count(*number as u64),
                Cell::count(worker.cpu.into()),
                Cell::number(Some(worker.busy * 100.0), percent),
                Cell::number(Some(worker.asleep * 100.0), percent),
                Cell::number(Some(si_of(worker.longest_turn_ns)), time),
                rate(|worker| worker.turns),
                rate(|worker| worker.busy_turns),
                rate(|worker| worker.sleeps),
                Cell::count(worker.flows),
                rate(|worker| worker.flow_misses),
                rate(|worker| worker.flow_evictions),
                rate(|worker| worker.handed_over),
            ],
            user: None,
        }
    };
    Table { columns: WORKERS, rows: new.rows.iter().map(row).collect(), empty: "kopid has no workers" }
}

const DROPS: &[Column] = &[
    Column::text("APP", "app"),
    Column::text("STAGE", "stage"),
    Column::text("REASON", "reason"),
    Column::text("RULE", "rule"),
    Column::number("DROPS/S", "drops_per_second"),
    Column::number("DROPS", "drops"),
];

fn drops(old: Option<&Sample>, new: &Sample) -> Table {
    let key = |row: &Drops| (row.app.clone(), row.stage.clone(), row.reason.clone(), row.rule.clone());
    let before = Before::new(old.map(|old| &old.drops), &new.drops, key);
    let row = |row: &Drops| Row {
        cells: vec![
            Cell::text(&row.app),
            Cell::text(&row.stage),
            Cell::text(&row.reason),
            Cell::option(row.rule.as_deref()),
            Cell::number(before.rate(&key(row), row, |row| row.packets), si),
            Cell::count(row.packets),
        ],
        user: None,
    };
    Table { columns: DROPS, rows: new.drops.rows.iter().map(row).collect(), empty: "no frame was dropped" }
}

fn summary(old: Option<&Sample>, new: &Sample) -> Vec<String> {
    new.status.rows.first().map(|status| vec![daemon(status), wire(status, old, new), load(status)]).unwrap_or_default()
}

fn daemon(status: &Status) -> String {
    let Status { version, pid, uptime_seconds, apps, flows, mbufs, .. } = status;
    let up = span(*uptime_seconds);
    format!(
        "kopid {version}, pid {pid}, up {up}, apps {apps}, flows {flows}, mbufs {} free of {}",
        mbufs.free, mbufs.total
    )
}

fn wire(status: &Status, old: Option<&Sample>, new: &Sample) -> String {
    let before = Before::new(old.map(|old| &old.ports), &new.ports, |port| &*port.port);
    let port = new.ports.rows.iter().find(|port| port.port == "wire");
    let rate = |counter: fn(&Port) -> u64| port.and_then(|port| before.rate(&"wire", port, counter));
    let shown = |rate: Option<f64>| rate.map_or_else(|| "-".into(), si);
    format!(
        "wire {}: rx {} pps {}bit/s, tx {} pps {}bit/s",
        status.wire.link,
        shown(rate(|port| port.rx_packets)),
        shown(rate(|port| port.rx_bytes).map(bits)),
        shown(rate(|port| port.tx_packets)),
        shown(rate(|port| port.tx_bytes).map(bits)),
    )
}

fn load(status: &Status) -> String {
    let worker = |worker: &Worker| format!("cpu {} {}%", worker.cpu, percent(worker.busy * 100.0));
    format!("busy: {}", status.workers.iter().map(worker).collect::<Vec<_>>().join(", "))
}
