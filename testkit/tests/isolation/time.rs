//! Users share a worker's time, and a slow wire, whatever they send and however many apps they have.

use kopi_testkit::load::{Load, jain};
use kopi_testkit::machine::run;
use kopi_testkit::{Kopid, Netns, Settings, TempDir};
use std::time::Duration;

/// The honest user, and the other one.
const HONEST: u32 = 1001;
const OTHER: u32 = 1002;
/// How long is counted.
const WINDOW: Duration = Duration::from_millis(400);
/// How often a pair of measurements is made; the best of them counts, since whatever else runs on this machine only takes.
const PAIRS: usize = 4;

fn apps(n: u32, prefix: &str, uid: u32, rest: &str) -> Vec<String> {
    (0..n).map(|at| format!("{prefix}{at}:{uid}:{rest}")).collect()
}

/// Checks that the honest app `h`, which sends as much as it can, gets `part` of what it gets alone, while the apps of
/// the other user send.
fn keeps(settings: &Settings, honest: &str, others: &[String], part: f64) {
    let dir = TempDir::new("time");
    let kopid = Kopid::start(&dir, settings);
    let all = [&[format!("h:{HONEST}:{honest}")][..], others].concat();
    let mut load = Load::start(&dir, &kopid, &all);
    load.on("h");
    let mut seen = Vec::new();
    for _ in 0..PAIRS {
        let alone = Load::rates(&kopid, &["h"], WINDOW)[0];
        load.on("o");
        let beside = Load::rates(&kopid, &["h"], WINDOW)[0];
        load.off("o");
        seen.push((beside / alone, beside, alone));
        if beside >= part * alone {
            return;
        }
    }
    panic!("less than {part} of what it gets alone beside {}: {seen:?}", others[0]);
}

/// Of two users who both want all of a worker, each gets half of its time: 0.45 of the rate alone, or more.
const HALF: f64 = 0.45;

/// Row 6: rings in which nothing is cost next to nothing.
#[test]
fn idle_rings_cost_nothing() {
    let others = apps(62, "o", OTHER, "silent:queues=16:slots=64");
    keeps(&Settings::default(), "flood", &others, 0.9);
}

/// Row 7: frames that each begin a flow, long ones, and those that go to many take the time of who sends them.
#[test]
fn costly_frames_cost_their_sender() {
    keeps(&Settings::default(), "flood", &apps(1, "o", OTHER, "fresh"), HALF);
    keeps(&Settings::default(), "flood", &apps(1, "o", OTHER, "flood:size=1514"), HALF);
    let readers = apps(40, "r", OTHER, "silent:all=1:mtu=9000:slots=256");
    for broadcast in ["broadcast", "broadcast:mtu=9000:size=9000"] {
        let others = [apps(1, "o", OTHER, broadcast), readers.clone()].concat();
        keeps(&Settings { mtu: 9000, ..Settings::default() }, "flood", &others, HALF);
    }
}

/// A user with eight apps gets as much as a user with one.
#[test]
fn many_apps_are_one_user() {
    keeps(&Settings::default(), "flood", &apps(8, "o", OTHER, "flood"), HALF);
}

/// Row 8: what the wire brings is served as much as all apps together.
#[test]
fn the_wire_has_its_share() {
    let dir = TempDir::new("time");
    // A wire that brings frames for nobody as fast as they are taken.
    let kopid = Kopid::start(&dir, &Settings { wire: "net_null0,size=60".into(), ..Settings::default() });
    let mut load = Load::start(&dir, &kopid, &apps(40, "o", OTHER, "flood:slots=2048"));
    let wire = || {
        std::thread::sleep(Duration::from_millis(50));
        let before = kopid.counter("wire", "rx_packets");
        std::thread::sleep(WINDOW);
        kopid.counter("wire", "rx_packets") - before
    };
    let mut seen = Vec::new();
    for _ in 0..PAIRS {
        let alone = wire();
        load.on("o");
        let beside = wire();
        load.off("o");
        seen.push((alone, beside));
        if beside * 100 >= alone * 45 {
            return;
        }
    }
    panic!("less than half for the wire: {seen:?}");
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

/// What the classes of these tests are: one for everybody, with no limit of its own.
const CLASSES: &str = "default = { egress = \"accept\", ingress = \"accept\" }\n[[class]]\nname = \"all\"\n\
    [[rule]]\nname = \"all\"\nmatch = {}\naction = \"accept\"\nclass = \"all\"\n";
/// The same, where each app's rings are the queue of the class.
const CLASS_BY_APP: &str = "default = { egress = \"accept\", ingress = \"accept\" }\n[[class]]\nname = \"other\"\n\
    rate = \"1mbit\"\n";

/// Row 3: equal users have equal parts of a wire that is slower than they, whoever came first; with and without classes, and
/// whoever of the workers has the wire's queue.
#[test]
fn a_slow_wire_is_shared_equally() {
    for (workers, queues) in [(1, 1), (2, 1), (2, 2)] {
        for policy in [None, Some(CLASSES), Some(CLASS_BY_APP)] {
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
    assert_eq!((full("h"), full("x"), full("y")), (0, 0, 0), "the flood is on the account of its sender alone");
    assert!(full("o") > 0, "there was no flood");
}
