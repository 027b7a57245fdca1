//! What is in a capture is what kopid has counted.

use crate::scene::{BOB, BOB_MAC, DAEMON, NOBODYS_MAC, STOPPED_MAC, Scene, datagram, send, text_of};
use crate::tools;
use kopi_testkit::app::{AppOptions, Transfer};
use kopi_testkit::capture::Session;
use kopi_testkit::frames::arp;
use kopi_testkit::wait::SOON;
use kopi_testkit::{App, Kopid, Netns, Piped, Recording, Testpmd, testpmd, wait_until};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs::File;
use std::net::Ipv4Addr;
use std::time::Duration;

const POLICY: &str = r#"
[[rule]]
name   = "no-dns"
match  = { direction = "egress", proto = "udp", dst_port = 53 }
action = "drop"

[[rule]]
name   = "no-web"
match  = { direction = "ingress", proto = ["tcp", "udp"], dst_port = 80 }
action = "reject"
"#;

const PINGED_MAC: &str = "02:00:00:00:00:0a";

/// Captures, by the names of their files.
const CAPTURES: [(&str, &str); 10] = [
    ("any", ""),
    ("bob-out", "-i bob -Q out"),
    ("bob-in", "-i bob -Q in --passed"),
    ("pinged-out", "-i pinged -Q out"),
    ("pinged-in", "-i pinged -Q in --passed"),
    ("stopped-in", "-i stopped -Q in --passed"),
    ("wire", "-i wire"),
    ("wire-in", "-i wire -Q in"),
    ("wire-out", "-i wire -Q out --passed"),
    ("dropped", "--dropped"),
];

/// Frames dropped, by port, reason and rule.
type Drops = BTreeMap<(String, String, String), u64>;

/// kopid's counters.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Books {
    /// By port, packets out of it and into it, from its own side.
    ports: BTreeMap<String, (u64, u64)>,
    drops: Drops,
}

impl Books {
    fn read(kopid: &Kopid) -> Self {
        let text = |row: &Value, key: &str| row[key].as_str().unwrap_or_default().to_owned();
        let number = |row: &Value, key: &str| row[key].as_u64().unwrap_or_else(|| panic!("no {key}: {row}"));
        let ports = kopid
            .ask("stats")
            .into_iter()
            .map(|row| (text(&row, "port"), (number(&row, "tx_packets"), number(&row, "rx_packets"))));
        let ports = ports.collect();
        let drops = kopid
            .ask("drops")
            .into_iter()
            .filter(|row| row["stage"] != "device")
            .map(|row| ((text(&row, "app"), text(&row, "reason"), text(&row, "rule")), number(&row, "packets")));
        Self { ports, drops: drops.collect() }
    }

    /// What has been counted since.
    fn since(&self, before: &Self) -> Self {
        let ports = self.ports.iter().map(|(port, (out, into))| {
            let (out_before, into_before) = before.ports.get(port).copied().unwrap_or_default();
            (port.clone(), (out - out_before, into - into_before))
        });
        let drops =
            self.drops.iter().map(|(key, count)| (key.clone(), count - before.drops.get(key).copied().unwrap_or(0)));
        Self { ports: ports.collect(), drops: drops.filter(|(_, count)| *count > 0).collect() }
    }
}

/// Frames dropped by what the packets say.
fn drops_of(recording: &Recording) -> Drops {
    let mut drops = Drops::new();
    for packet in &recording.packets {
        let port = recording.interfaces[packet.interface].name.clone();
        *drops.entry((port, packet.says("reason"), packet.says("rule"))).or_default() += 1;
    }
    drops
}

/// Frames of every fate, and waits until they have met it.
fn play(scene: &Scene, bob: &mut Piped) {
    let ip = |host| Ipv4Addr::new(10, 77, 0, host);
    scene.netns.neighbour("10.77.0.2", PINGED_MAC);
    assert_eq!(scene.netns.ping("10.77.0.2", 20), 20);
    send(bob, BOB_MAC, NOBODYS_MAC, 5000, 40);
    send(bob, BOB_MAC, NOBODYS_MAC, 53, 25);
    send(bob, BOB_MAC, STOPPED_MAC, 5000, 30);
    send(bob, BOB_MAC, [0xff; 6], 5000, 5);
    scene.arrive(BOB_MAC, 7000, 35);
    scene.arrive(BOB_MAC, 80, 15);
    scene.arrive(NOBODYS_MAC, 7000, 12);
    scene.arrive(STOPPED_MAC, 7000, 700);
    for _ in 0..5 {
        scene.peer.transmit(&arp(Netns::MAC, 1, (Netns::MAC, ip(1)), ([0; 6], ip(99))));
    }
    wait_until("bob has sent everything", SOON, || scene.kopid.counter("bob", "tx_packets") == 100);
    let mut last = None;
    wait_until("everything has met its fate", SOON, || {
        std::thread::sleep(Duration::from_millis(50));
        let now = Some(Books::read(&scene.kopid));
        let rests = now == last;
        last = now;
        rests
    });
}

/// Captures at apps and at the wire, in each direction, have as many packets as kopid has counted there; what was
/// dropped is there under the port, the reason and the rule that `kopictl drops` tells; all of it in files that tshark,
/// tcpdump and capinfos read, with statistics that kopictl's last words agree with.
#[test]
fn counts_are_those_of_kopid() {
    let mut scene = Scene::new("counts", POLICY);
    let mut bob = scene.app("bob", BOB_MAC, BOB, &[]);
    let mut stopped = scene.app("stopped", STOPPED_MAC, DAEMON, &[]);
    stopped.process().signal(Signal::STOP);
    let options = testpmd::Options::new("pinged", "icmpecho").mac(PINGED_MAC);
    let mut pinged = Testpmd::forwarding(&scene.dir, &scene.kopid, &options);
    // Or it gets what is nobody's.
    drop(pinged.ask("set promisc 0 off"));
    let mut captures = CAPTURES.map(|(name, args)| scene.capture(name, args));
    let before = Books::read(&scene.kopid);
    play(&scene, &mut bob);
    let books = Books::read(&scene.kopid).since(&before);
    let recordings: BTreeMap<&str, Recording> =
        CAPTURES.iter().zip(&mut captures).map(|((name, _), capture)| (*name, scene.stop(capture, name))).collect();

    let count = |name: &str| recordings[name].packets.len() as u64;
    for port in ["bob", "pinged"] {
        let (out, into) = books.ports[port];
        assert_eq!((count(&format!("{port}-out")), count(&format!("{port}-in"))), (out, into), "{port}: {books:?}");
    }
    assert_eq!((count("wire-out"), count("wire-in")), books.ports["wire"], "{books:?}");
    assert_eq!(count("wire"), count("wire-out") + count("wire-in"));
    assert_eq!(count("stopped-in"), books.ports["stopped"].1, "{books:?}");
    assert_eq!(drops_of(&recordings["dropped"]), books.drops);
    for (reason, rule) in [("policy", "no-dns"), ("rejected", "no-web"), ("unknown_unicast", ""), ("rx_ring_full", "")]
    {
        assert!(books.drops.keys().any(|(_, why, by)| (why.as_str(), by.as_str()) == (reason, rule)), "{books:?}");
    }
    let kept_out = recordings["dropped"].at("bob").filter(|packet| !packet.out).count();
    assert_eq!(recordings["any"].at("bob").count() as u64, count("bob-out") + count("bob-in") + kept_out as u64);
    for (name, recording) in &recordings {
        let file = scene.path(name);
        assert_eq!(tools::counts(&file), [recording.packets.len(); 3], "{name}");
        for (at, statistics) in recording.statistics.iter().enumerate() {
            assert_eq!(statistics.accepted, statistics.delivered, "{name}: {at}: {statistics:?}");
        }
    }
    owners_are_told(&scene, &recordings["any"], bob.process().pid(), &text_of(BOB_MAC));
    stopped.process().signal(Signal::CONT);
    pinged.quit();
    bob.finish();
    assert!(scene.kopid.stop().success());
}

/// What a capture of everything says of ports and owners.
fn owners_are_told(scene: &Scene, any: &Recording, bob: u32, mac: &str) {
    let names: Vec<&str> = any.interfaces.iter().map(|interface| interface.name.as_str()).collect();
    assert_eq!(names, ["wire", "bob", "stopped", "pinged"]);
    assert!(any.section.application.starts_with("kopid "), "{:?}", any.section);
    let [wire, of_bob, of_stopped, of_pinged] = &any.interfaces[..] else { unreachable!("there are four") };
    assert!(wire.description.contains(scene.netns.outside()), "{wire:?}");
    assert_eq!(of_bob.mac.map(text_of).as_deref(), Some(mac));
    assert!(of_bob.description.starts_with(&format!("uid {BOB}, pid {bob}, /")), "{of_bob:?}");
    assert!(of_stopped.description.starts_with("user daemon (1), pid "), "{of_stopped:?}");
    assert!(of_pinged.description.ends_with("/dpdk-testpmd"), "{of_pinged:?}");

    let one = |wanted: &[u8], out: bool| {
        let packet = any.packets.iter().find(|packet| packet.data == wanted && packet.out == out);
        packet.unwrap_or_else(|| panic!("no packet {wanted:02x?}")).comment.clone()
    };
    let owner = format!("app=bob pid={bob} uid={BOB} comm=kopi-client");
    let sent = |port| datagram((BOB_MAC, 11), (NOBODYS_MAC, 1), port, 3);
    let got = |mac, port| datagram((Netns::MAC, 1), (mac, 11), port, 3);
    assert_eq!(one(&sent(5000), true), format!("{owner} verdict=accept queue=0"));
    assert_eq!(one(&sent(53), true), format!("{owner} verdict=drop reason=policy rule=no-dns queue=0"));
    assert_eq!(one(&got(BOB_MAC, 7000), false), format!("{owner} verdict=accept queue=0"));
    assert_eq!(one(&got(BOB_MAC, 80), false), format!("{owner} verdict=reject reason=rejected rule=no-web queue=0"));
    assert_eq!(one(&got(NOBODYS_MAC, 7000), false), "verdict=drop reason=unknown_unicast queue=0");
    let pinged = any.at("pinged").next().expect("it was pinged");
    assert_eq!((pinged.says("user").as_str(), pinged.says("comm").as_str()), ("root", "dpdk-testpmd"));

    let fields =
        ["frame.interface_name", "frame.interface_description", "frame.packet_flags_direction", "frame.comment"];
    let rows = tools::tshark(&scene.path("any"), &fields);
    for (row, packet) in rows.iter().zip(&any.packets) {
        let interface = &any.interfaces[packet.interface];
        let direction = if packet.out { "0x00000002" } else { "0x00000001" };
        assert_eq!(*row, [&interface.name, &interface.description, direction, &packet.comment]);
    }
    let ours = any.statistics.iter();
    let ours = ours.map(|s| [s.received, s.accepted, s.dropped, s.delivered]).collect::<Vec<_>>();
    let theirs = tools::statistics(&scene.path("any"));
    for (at, theirs) in theirs.iter().enumerate() {
        assert_eq!(*theirs, ours.iter().map(|row| row[at]).collect::<Vec<_>>());
    }
}

/// Of what DPDK applications send to each other as fast as they can, a session with enough memory misses nothing: it has
/// as many packets as the applications have counted.
#[test]
fn nothing_is_missed_of_a_stream() {
    const TO: &str = "02:00:00:00:00:0b";
    let mut scene = Scene::new("stream", "");
    let load = Transfer::new(20_000, 60..=1514);
    let mut receiver = App::receive(&scene.dir, &scene.kopid, &AppOptions::new("receiver", TO), &load);
    let mut out = scene.capture("out", "-i sender -Q out -B 131072");
    let mut into = scene.capture("in", "-i receiver -Q in --passed -s 96 -B 65536");
    let mut sender = App::send(&scene.dir, &scene.kopid, &AppOptions::new("sender", "02:00:00:00:00:0a"), &load, TO);
    let sent = sender.finish(Duration::from_secs(60));
    let received = receiver.finish(Duration::from_secs(60));
    let (out, into) = (scene.stop(&mut out, "out"), scene.stop(&mut into, "in"));
    assert_eq!(out.packets.len() as u64, sent["stats"]["tx"].as_u64().expect("a number"));
    assert_eq!(into.packets.len() as u64, received["stats"]["rx"].as_u64().expect("a number"));
    assert_eq!((out.sums().dropped, into.sums().dropped), (0, 0));
    for (packet, short) in out.packets.iter().zip(&into.packets) {
        assert_eq!((packet.len, &packet.data[..packet.data.len().min(96)]), (short.len, &short.data[..]));
    }
    assert!(scene.kopid.stop().success());
}

/// A capture that has begun misses nothing: what is sent as soon as kopid says so is in it.
#[test]
fn nothing_is_missed_at_the_beginning() {
    let mut scene = Scene::new("beginning", "");
    let null = File::options().write(true).open("/dev/null").expect("there is one");
    for round in 0..50 {
        let session = Session::start(&scene.kopid, &json!({ "interfaces": ["wire"], "buffer": 1 << 16 }), &null);
        scene.arrive(NOBODYS_MAC, 7000, 1);
        assert_eq!(session.stop()["captured"], 1, "round {round}");
    }
    assert!(scene.kopid.stop().success());
}
