//! The texts, of figures that have something of everything.

use super::encode::Format;
use super::families::ALL;
use super::figures::{AppFigures, Figures, PortFigures};
use crate::capture::CaptureTotals;
use crate::control::attach::AttachCounts;
use crate::control::classes::{Classes, DelayCounts};
use crate::control::policy::{Counted, ReloadCounts, compile};
use crate::worker::counters::PortTotals;
use dpdk::Stats;
use kopi_api::Status;
use kopi_api::status::{Host, InForce, Worker};
use kopi_config::Policy;
use std::collections::BTreeSet;
use std::fmt::Write;
use std::sync::Arc;

/// Figures of a policy of so many rules and classes, of which so many are to be shown.
fn figures((rules, classes): (usize, usize), limits: (usize, usize)) -> Arc<Figures> {
    let mut text = String::new();
    for n in 0..classes {
        write!(text, "[[class]]\nname = \"class{n}\"\n").unwrap();
    }
    for n in 0..rules {
        write!(
            text,
            "[[rule]]\nname = \"r{n}\"\nmatch = {{ proto = \"udp\", dst_port = {} }}\naction = \"drop\"\n",
            n + 1
        )
        .unwrap();
    }
    let policy = Policy::parse(text, "test").unwrap();
    let mut shaped = Classes::new(1_000_000_000, 1, 2, 1500);
    drop(shaped.replace(Some(&policy), 1, 0));
    let (part, mut delays) = shaped.part_for_metrics(0, limits.1).unwrap();
    let mut counts = DelayCounts::default();
    counts.note(1_500_000_000);
    delays[0] = Some(counts);
    let wire = PortFigures { name: "wire".into(), totals: PortTotals::default(), app: None };
    let app = AppFigures { user: "eve".into(), running: true, memory: 4096, connections: 1, connections_refused: 0 };
    let totals = PortTotals { tx_bytes: 1 << 60, drops: [3; _], ..PortTotals::default() };
    // No name that an app may have needs escaping, but nobody has to know that here.
    let app = PortFigures { name: "a\"b\\\n".into(), totals, app: Some(app) };
    Arc::new(Figures {
        status: Status {
            workers: vec![Worker { busy_seconds: 0.5, ..Worker::default() }],
            policy: Some(InForce::default()),
            host: Some(Host::default()),
            ..Status::default()
        },
        ports: vec![wire, app],
        device: Stats { rx_missed: 7, ..Stats::default() },
        host_lost: vec![("tap_full", 1)],
        attaches: AttachCounts::default(),
        captures: CaptureTotals::default(),
        reloads: ReloadCounts::default(),
        rules: Some((compile(policy).unwrap(), Counted { past: Arc::default(), open: Vec::new() })),
        limits,
        class_count: shaped.count(),
        classes: vec![(part, delays)],
    })
}

/// Both texts have every metric that is declared, under its name, with help and the labels that it is declared with.
#[test]
fn texts_have_every_metric() {
    let figures = figures((2, 1), (1000, 1000));
    let open = Format::OpenMetrics.encode(&figures).unwrap();
    let plain = Format::Prometheus.encode(&figures).unwrap();
    for family in ALL {
        let name = family.full_name();
        let kind = family.kind_name();
        let bare = name.strip_suffix("_total").or_else(|| name.strip_suffix("_info")).unwrap_or(&name);
        assert!(open.contains(&format!("# TYPE {bare} {kind}\n")), "{name}: {open}");
        let kind = if kind == "info" { "gauge" } else { kind };
        assert!(plain.contains(&format!("# TYPE {name} {kind}\n")), "{name}: {plain}");
        assert!(plain.contains(&format!("# HELP {name} {}\n", family.help)), "{name}");
        let series = if kind == "histogram" { format!("{name}_count") } else { name.clone() };
        let has_labels = |line: &&str| family.labels.iter().all(|label| line.contains(&format!("{label}=\"")));
        for text in [&open, &plain] {
            let lines: Vec<_> = text.lines().filter(|line| name_of(line) == series).collect();
            assert!(!lines.is_empty() && lines.iter().all(has_labels), "{name}: {lines:?}");
        }
    }
    assert!(open.ends_with("\n# EOF\n") && !plain.contains("# EOF"));
}

fn name_of(line: &str) -> &str {
    line.split(['{', ' ']).next().unwrap_or_default()
}

/// Values come as they are: large ones to their last digit, texts escaped, delays in buckets that add up.
#[test]
fn values_are_right() {
    let text = Format::OpenMetrics.encode(&figures((2, 1), (1000, 1000))).unwrap();
    for line in [
        "kopi_port_transmit_bytes_total{port=\"a\\\"b\\\\\\n\"} 1152921504606846976",
        "kopi_drop_packets_total{port=\"wire\",stage=\"device\",reason=\"rx_missed\"} 7",
        "kopi_drop_packets_total{port=\"host\",stage=\"device\",reason=\"tap_full\"} 1",
        "kopi_port_info{port=\"a\\\"b\\\\\\n\",user=\"eve\"} 1",
        "kopi_worker_busy_seconds_total{cpu=\"0\"} 0.5",
        "kopi_class_delay_seconds_bucket{le=\"1.0\",class=\"class0\",direction=\"egress\"} 0",
        "kopi_class_delay_seconds_bucket{le=\"+Inf\",class=\"class0\",direction=\"egress\"} 1",
        "kopi_class_delay_seconds_sum{class=\"class0\",direction=\"egress\"} 1.5",
        "kopi_class_packets_total{class=\"(none)\",direction=\"egress\"} 0",
        "kopi_rule_packets_total{rule=\"r0\",action=\"drop\"} 0",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
}

/// A policy may be as long as it likes: what it has series of is bounded, each is there once, and the rest is summed up.
#[test]
fn series_are_bounded() {
    let figures = figures((3000, 40), (100, 10));
    let text = Format::OpenMetrics.encode(&figures).unwrap();
    let series = |name: &str| text.lines().filter(|line| name_of(line) == name).count();
    assert_eq!(series("kopi_rule_packets_total"), 100 + 1 + 2, "those, all others, and the defaults");
    assert!(text.contains("kopi_rule_bytes_total{rule=\"(others)\",action=\"\"} 0\n"));
    assert!(text.contains("\nkopi_rules 3000\n") && text.contains("\nkopi_classes 41\n"));
    assert_eq!(series("kopi_class_packets_total"), 10);
    let all: Vec<_> = text.lines().filter_map(|line| line.rsplit_once(' ')).map(|(series, _)| series).collect();
    assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len(), "a series comes twice");
}
