//! Users share a slow wire, whoever came first and however many apps they have. How they share a worker's time is a test of
//! `kopi-dataplane`.

use kopi_testkit::load::{Load, jain};
use kopi_testkit::machine::{cpus, run};
use kopi_testkit::{Kopid, Netns, Settings, TempDir};
use std::time::Duration;

/// The honest user, and the other one.
const HONEST: u32 = 1001;
const OTHER: u32 = 1002;

pub(crate) fn apps(n: u32, prefix: &str, uid: u32, rest: &str) -> Vec<String> {
    (0..n).map(|at| format!("{prefix}{at}:{uid}:{rest}")).collect()
}

/// A wire that is far slower than what apps send.
struct SlowWire {
    netns: Netns,
    dir: TempDir,
    kopid: Kopid,
}

impl SlowWire {
    fn new(workers: usize, queues: usize, policy: Option<&str>) -> Self {
        let netns = Netns::new(1500);
        // The limit is beyond what kopid's rings hold, so nothing is lost there and the wire pushes back.
        let shape = ["qdisc", "replace", "dev", netns.outside(), "root", "tbf"];
        run("tc", &[&shape[..], &["rate", "100mbit", "burst", "16kb", "limit", "64mb"]].concat());
        let dir = TempDir::new("time");
        let wire = format!("net_af_packet0,iface={},qpairs={queues},qdisc_bypass=0", netns.outside());
        let settings = Settings { wire, workers, policy: policy.map(str::to_owned), ..Settings::default() };
        let kopid = Kopid::start(&dir, &settings);
        Self { netns, dir, kopid }
    }
}

/// Classes under which each app's rings are the queue of what has none.
const CLASS_BY_APP: &str = "default = { egress = \"accept\", ingress = \"accept\" }\n[[class]]\nname = \"other\"\n\
    rate = \"1mbit\"\n";

/// Row 3: equal users have equal parts of a wire that is slower than they, whoever came first; with and without classes, and
/// whoever of the workers has the wire's queue.
#[test]
fn a_slow_wire_is_shared_equally() {
    for (workers, queues) in [(1, 1), (2, 1), (2, 2)] {
        for policy in [None, Some(CLASS_BY_APP)] {
            let wire = SlowWire::new(workers, queues, policy);
            let names = ["a0", "a1", "a2", "a3"];
            let apps: Vec<String> =
                (HONEST..).zip(names).map(|(uid, name)| format!("{name}:{uid}:flood:size=1000")).collect();
            let mut load = Load::start(&wire.dir, &wire.kopid, &apps);
            load.on("a");
            let rates = Load::rates(&wire.kopid, &names, Duration::from_secs(2));
            let index = jain(&rates);
            assert!(index >= 0.95, "{workers} workers, {queues} queues, {policy:?}: {index} of {rates:?}");
            drop(load);
            drop(wire.netns);
        }
    }
}

/// The same by user: eight apps of one have as much of it as one of another.
#[test]
fn a_slow_wire_is_shared_by_user() {
    for policy in [None, Some(CLASS_BY_APP)] {
        let wire = SlowWire::new(1, 1, policy);
        let all = [vec![format!("h:{HONEST}:flood:size=1000")], apps(8, "o", OTHER, "flood:size=1000")].concat();
        let mut load = Load::start(&wire.dir, &wire.kopid, &all);
        load.on("h");
        load.on("o");
        let rates =
            Load::rates(&wire.kopid, &["h", "o0", "o1", "o2", "o3", "o4", "o5", "o6", "o7"], Duration::from_secs(2));
        let total: f64 = rates.iter().sum();
        assert!((0.45..0.55).contains(&(rates[0] / total)), "{policy:?}: {rates:?}");
        assert!(jain(&rates[1..]) >= 0.95, "{policy:?}: {rates:?}");
    }
}

/// Row 9: who floods a port of another worker loses frames, and those of others to that worker arrive.
#[test]
fn a_flood_to_another_worker_costs_its_sender() {
    let dir = TempDir::new("time");
    let kopid = Kopid::start(&dir, &Settings { workers: 2, ..Settings::default() });
    // Port p is served by worker p modulo 2: the senders by one, both receivers by the other.
    let apps = [
        format!("h:{HONEST}:pace:rate=300:to=1"),
        format!("x:{HONEST}:silent"),
        format!("o:{OTHER}:flood:to=3"),
        format!("y:{OTHER}:silent"),
    ];
    let mut load = Load::start(&dir, &kopid, &apps);
    load.on("h");
    load.on("o");
    let rates = Load::rates(&kopid, &["h", "o"], Duration::from_secs(2));
    load.off("o");
    load.off("h");
    assert!(rates[0] > 0.0 && rates[1] > 5.0 * rates[0], "{rates:?}");
    let full = |app: &str| kopid.app_drops(app, "handoff_full");
    assert_eq!((full("h"), full("x"), full("y")), (0, 0, 0), "the flood is charged to its sender alone");
}

/// Nothing of kopid's takes a worker's CPU from it, whatever it does for others: no thread of its own but the worker runs there.
#[test]
fn workers_have_their_cpus_for_themselves() {
    let dir = TempDir::new("time");
    let mut kopid = Kopid::start(&dir, &Settings::default());
    let load = Load::start(&dir, &kopid, &apps(2, "a", HONEST, "silent"));
    let worker = cpus()[0].to_string();
    let mut seen = Vec::new();
    for task in std::fs::read_dir(format!("/proc/{}/task", kopid.process().pid())).expect("kopid runs").flatten() {
        let read = |file: &str| std::fs::read_to_string(task.path().join(file)).unwrap_or_default();
        let (name, status) = (read("comm").trim().to_owned(), read("status"));
        let allowed =
            status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap_or_default().trim();
        if name.starts_with("kopi") {
            let first = allowed.split(['-', ',']).next() == Some(&worker);
            assert_eq!(first, name.starts_with("kopi-worker"), "`{name}` may run on {allowed}");
            seen.push(name);
        }
    }
    let has = |name: &str| seen.iter().any(|seen| seen == name);
    assert!(has("kopid") && has("kopi-worker-0") && has("kopi-region") && has("kopi-user-1001"), "{seen:?}");
    drop(load);
}
