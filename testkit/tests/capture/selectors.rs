//! Whose packets, how many, and how much of them; and what changes during a session.

use crate::scene::{BOB, BOB_MAC, CAROL_MAC, DAEMON, NOBODYS_MAC, Scene, datagram, send};
use kopi_testkit::capture::Session;
use kopi_testkit::wait::SOON;
use kopi_testkit::{Capture, Netns, Recording, wait_until};
use serde_json::json;
use std::fs::File;
use std::time::{Duration, Instant};

const POLICY: &str = r#"
[[rule]]
name   = "no-dns"
match  = { direction = "egress", proto = "udp", dst_port = 53 }
action = "drop"

[[rule]]
name   = "web"
match  = { direction = "ingress", proto = "udp", dst_port = 80 }
action = "reject"
"#;

/// `postgres: 5` in hexadecimal.
const CAROLS_COMM: &str = "706f7374677265733a2035";

/// Each list of selectors takes the packets of those owners, rules and reasons, and no others; lists that are stated
/// together have to hold together.
#[test]
fn selectors_choose_by_owner_rule_and_reason() {
    let mut scene = Scene::new("selectors", POLICY);
    let mut bob = scene.app("bob", BOB_MAC, BOB, &[]);
    let mut carol = scene.app("carol", CAROL_MAC, DAEMON, &["--comm", CAROLS_COMM]);
    let (bobs, carols) = (bob.process().pid(), carol.process().pid());
    let cgroup = scene.kopid.app("carol").and_then(|app| app["cgroup"].as_str().map(str::to_owned));
    // bob: 40 out, 10 of them dropped, and 20 in. carol: 7 out and 16 in, 4 of them rejected, which is 4 answers on the wire.
    let wanted: Vec<(String, usize)> = [
        (String::new(), 60 + 23),
        (format!("--user {BOB}"), 60),
        ("--user daemon".into(), 23),
        (format!("--user daemon --user {BOB}"), 83),
        ("--group daemon".into(), 23),
        (format!("--pid {bobs}"), 60),
        (format!("--pid {bobs} --pid {carols}"), 83),
        ("--comm post*".into(), 23),
        ("--comm kopi-cl?ent".into(), 60),
        ("--comm nothing*".into(), 0),
        ("--app carol".into(), 23),
        ("--app b*".into(), 60),
        ("--exe */kopi-client".into(), 83),
        (format!("--user {BOB} --comm post*"), 0),
        ("--rule no-dns".into(), 10),
    ]
    .into_iter()
    .collect();
    let more: Vec<(String, usize)> = [
        ("--rule web".into(), 4),
        ("--rule no-dns --rule web".into(), 14),
        ("--reason policy".into(), 10),
        ("--reason rejected --reason policy".into(), 14),
        ("--dropped --user daemon".into(), 4),
        ("--passed --app bob".into(), 50),
        ("-i wire -Q out --app bob".into(), 30),
        ("-i wire -Q in --user daemon".into(), 16),
        ("-i bob -i carol -Q in".into(), 36),
        ("--sample 4 --app bob".into(), 15),
        ("--user daemon -Q out udp port 5000".into(), 7),
    ]
    .into_iter()
    .chain(cgroup.map(|path| (format!("--cgroup {path} --app carol"), 23)))
    .collect();
    for (list, round) in [(wanted, 1), (more, 2)] {
        let files: Vec<String> = (0..list.len()).map(|at| format!("{at}.pcapng")).collect();
        let mut captures: Vec<Capture> =
            list.iter().zip(&files).map(|((args, _), file)| scene.capture(file, args)).collect();
        send(&mut bob, BOB_MAC, NOBODYS_MAC, 5000, 30);
        send(&mut bob, BOB_MAC, NOBODYS_MAC, 53, 10);
        send(&mut carol, CAROL_MAC, NOBODYS_MAC, 5000, 7);
        scene.arrive(BOB_MAC, 7000, 20);
        scene.arrive(CAROL_MAC, 7000, 12);
        scene.arrive(CAROL_MAC, 80, 4);
        let counts = || ["bob", "carol"].map(|app| scene.kopid.counter(app, "tx_packets"));
        wait_until("all of it has been seen", SOON, || counts() == [40 * round, 7 * round]);
        for (((args, count), file), capture) in list.iter().zip(&files).zip(&mut captures) {
            let recording = scene.stop(capture, file);
            assert_eq!(recording.packets.len(), *count, "kopictl capture {args}");
        }
    }
    bob.finish();
    carol.finish();
    assert!(scene.kopid.stop().success());
}

/// Limits end a capture by itself, with exit code 0 and a whole file: packets, bytes, time. A snap length cuts packets and
/// leaves their lengths.
#[test]
fn limits_end_a_capture() {
    let mut scene = Scene::new("limits", "");
    let begun = Instant::now();
    let mut timed = scene.capture("timed", "--duration 0.7");
    let mut counted = scene.capture("counted", "-c 7");
    let mut short = scene.capture("short", "-s 50 -c 100");
    let mut sized = scene.capture("sized", "--bytes 10k");
    for _ in 0..40 {
        scene.arrive(BOB_MAC, 5000, 5);
    }
    for (capture, file) in
        [(&mut counted, "counted"), (&mut short, "short"), (&mut sized, "sized"), (&mut timed, "timed")]
    {
        let sums = capture.finish();
        let recording = Recording::load(&scene.path(file));
        assert_eq!(recording.packets.len() as u64, sums.captured, "{file}");
    }
    let load = |file: &str| Recording::load(&scene.path(file));
    assert_eq!(load("counted").packets.len(), 7);
    assert_eq!(load("timed").packets.len(), 200);
    assert!(begun.elapsed() >= Duration::from_millis(700), "{:?}", begun.elapsed());
    let whole = datagram((Netns::MAC, 1), (BOB_MAC, 11), 5000, 3);
    let short = load("short");
    assert_eq!(short.packets.len(), 100);
    assert_eq!((short.packets[3].len, &short.packets[3].data[..]), (66, &whole[..50]));
    let size = scene.path("sized").metadata().expect("it is there").len();
    assert!((10 << 10..11 << 10).contains(&size), "{size} bytes");
    assert!(scene.kopid.stop().success());
}

/// An app that comes during a session is an interface of its own, and so is one that leaves and comes again under the
/// same name: each with its own process, its own packets, and statistics that agree with them, however early it sends.
#[test]
fn apps_come_and_go_during_a_session() {
    let mut scene = Scene::new("come-and-go", "");
    let mut all = scene.capture("all", "-Q out");
    let mut named = scene.capture("named", "-i bob -i carol -Q out");
    let mut pids = Vec::new();
    for count in [3_u16, 5, 11] {
        let mut bob = scene.app("bob", BOB_MAC, BOB, &[]);
        pids.push(bob.process().pid().to_string());
        send(&mut bob, BOB_MAC, NOBODYS_MAC, 5000, count);
        wait_until("it has sent", SOON, || scene.kopid.counter("bob", "tx_packets") == u64::from(count));
        bob.finish();
        scene.kopid.await_no_app("bob");
        // The number of its port is used again.
        let mut carol = scene.app("carol", CAROL_MAC, DAEMON, &[]);
        send(&mut carol, CAROL_MAC, NOBODYS_MAC, 5000, 2 * count);
        wait_until("it has sent", SOON, || scene.kopid.counter("carol", "tx_packets") == u64::from(2 * count));
        carol.finish();
        scene.kopid.await_no_app("carol");
    }
    for (capture, file) in [(&mut all, "all"), (&mut named, "named")] {
        let recording = scene.stop(capture, file);
        let of = |name: &str| -> Vec<usize> {
            let mine = (0..recording.interfaces.len()).filter(|at| recording.interfaces[*at].name == name);
            mine.map(|at| recording.packets.iter().filter(|packet| packet.interface == at).count()).collect()
        };
        assert_eq!((of("bob"), of("carol")), (vec![3, 5, 11], vec![6, 10, 22]), "{file}: {:?}", recording.interfaces);
        let bobs = recording.interfaces.iter().filter(|interface| interface.name == "bob");
        for (interface, pid) in bobs.zip(&pids) {
            assert!(interface.description.contains(&format!("pid {pid},")), "{file}: {interface:?}");
        }
        for packet in recording.at("bob") {
            let interface = &recording.interfaces[packet.interface];
            assert!(interface.description.contains(&format!("pid {},", packet.says("pid"))), "{packet:?}");
        }
        for statistics in &recording.statistics {
            assert_eq!(statistics.accepted, statistics.delivered, "{file}: {statistics:?}");
        }
    }
    assert!(scene.kopid.stop().success());
}

/// A policy that changes during a session: each packet names the rule that decided it, which may have another number by
/// the time it is written; a session for a rule follows its name.
#[test]
fn rules_are_those_that_decided() {
    let rule = |name: &str, port: u16| {
        format!("[[rule]]\nname = \"{name}\"\nmatch = {{ dst_port = {port} }}\naction = \"drop\"\n")
    };
    let first = rule("first", 5000);
    let second = format!("{}{}{}", rule("other", 1), rule("second", 5000), rule("first", 6000));
    let mut scene = Scene::new("rules", &first);
    let mut bob = scene.app("bob", BOB_MAC, BOB, &[]);
    let file = |name: &str| File::create(scene.path(name)).expect("the folder can be written");
    let all = Session::start(&scene.kopid, &json!({ "interfaces": ["bob"] }), &file("all"));
    let named = Session::start(&scene.kopid, &json!({ "rule": ["first"] }), &file("named"));
    let mut sent = 0;
    for (policy, port, count) in [(&first, 5000, 20), (&second, 5000, 30), (&second, 6000, 5), (&first, 5000, 10)] {
        scene.kopid.reload(policy).expect("a right policy");
        send(&mut bob, BOB_MAC, NOBODYS_MAC, port, count);
        sent += u64::from(count);
        wait_until("it has sent", SOON, || scene.kopid.counter("bob", "tx_packets") == sent);
    }
    drop((all.stop(), named.stop()));
    let rules = |name: &str| -> Vec<String> {
        Recording::load(&scene.path(name)).packets.iter().map(|packet| packet.says("rule")).collect()
    };
    let expected = |parts: &[(&str, usize)]| -> Vec<String> {
        parts.iter().flat_map(|(name, count)| vec![(*name).to_owned(); *count]).collect()
    };
    assert_eq!(rules("all"), expected(&[("first", 20), ("second", 30), ("first", 15)]));
    assert_eq!(rules("named"), expected(&[("first", 35)]));
    bob.finish();
    assert!(scene.kopid.stop().success());
}
