//! Sequence-numbered frames through the real daemon and driver: nothing is lost, changed or reordered within a flow.
#![expect(clippy::tests_outside_test_module, reason = "this whole file is a test")]
#![forbid(unsafe_code)]

use kopi_testkit::app::{AppOptions, Transfer};
use kopi_testkit::{App, Kopid, Netns, Peer, Settings, TempDir};
use serde_json::Value;
use std::time::Duration;

const A: &str = "02:00:00:00:00:0a";
const B: &str = "02:00:00:00:00:0b";
const B_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0xb];
const WIRE: &str = "02:77:00:00:00:01";
const LIMIT: Duration = Duration::from_secs(60);

fn app(name: &str, mac: &str, queues: u16, mtu: u16) -> AppOptions {
    AppOptions { queues, mtu, ..AppOptions::new(name, mac) }
}

fn app_to_wire(dir: &TempDir, kopid: &Kopid, netns: &Netns, queues: u16, mtu: u16, load: &Transfer) {
    let peer = Peer::new(netns);
    let received = std::thread::scope(|scope| {
        let heard = scope.spawn(|| peer.receive(load, LIMIT));
        let mut sender = App::send(dir, kopid, &app("sender", A, queues, mtu), load, WIRE);
        let received = heard.join().expect("the peer reports");
        assert_eq!(received.problem, None);
        sender.finish(LIMIT);
        received
    });
    assert_eq!((received.problem, received.frames), (None, load.count));
}

fn wire_to_app(dir: &TempDir, kopid: &Kopid, netns: &Netns, queues: u16, mtu: u16, load: &Transfer) {
    let peer = Peer::new(netns);
    let mut receiver = App::receive(dir, kopid, &app("receiver", B, queues, mtu), load);
    let sent = peer.send(load, B_MAC, LIMIT);
    let report = receiver.finish(LIMIT);
    assert_eq!((sent.problem, &report["received"]), (None, &Value::from(load.count)));
}

fn app_to_app(dir: &TempDir, kopid: &Kopid, queues: u16, mtu: u16, load: &Transfer) {
    let mut receiver = App::receive(dir, kopid, &app("receiver", B, queues, mtu), load);
    let mut sender = App::send(dir, kopid, &app("sender", A, queues, mtu), load, B);
    sender.finish(LIMIT);
    let report = receiver.finish(LIMIT);
    assert_eq!(report["received"], load.count);
}

/// No frame of a test was dropped for want of room or because nobody knew where it should go.
fn nothing_was_dropped(kopid: &Kopid) {
    let drops: Vec<Value> = kopid.ask("drops").into_iter().filter(|row| row["reason"] != "no_listener").collect();
    assert_eq!(drops, Vec::<Value>::new());
}

fn all_directions(workers: usize, queues: u16) {
    let dir = TempDir::new("traffic");
    let netns = Netns::new(1500);
    let mut kopid = Kopid::start(&dir, &Settings::on_interface(netns.outside(), workers));
    for lengths in [60..=64, 60..=1514] {
        let load = Transfer::new(20_000, lengths);
        app_to_wire(&dir, &kopid, &netns, queues, 1500, &load);
        wire_to_app(&dir, &kopid, &netns, queues, 1500, &load);
        app_to_app(&dir, &kopid, queues, 1500, &load);
        nothing_was_dropped(&kopid);
    }
    assert!(kopid.stop().success());
}

/// Frames of 64 to 1,514 bytes, in all directions, with one queue and one worker.
#[test]
fn one_queue_one_worker_loses_nothing() {
    all_directions(1, 1);
}

/// The same with four queues, which one worker serves.
#[test]
fn four_queues_one_worker_lose_nothing() {
    all_directions(1, 4);
}

/// The same with one queue and two workers, which hand frames to each other.
#[test]
fn one_queue_two_workers_lose_nothing() {
    all_directions(2, 1);
}

/// The same with four queues spread over two workers.
#[test]
fn four_queues_two_workers_lose_nothing() {
    all_directions(2, 4);
}

/// Jumbo frames of up to 9,000 bytes of payload, which take several slots each, in all directions.
#[test]
fn jumbo_frames_lose_nothing() {
    for (workers, queues) in [(1, 1), (2, 4)] {
        let dir = TempDir::new("jumbo");
        let netns = Netns::new(9000);
        let wire = format!("net_pcap0,rx_iface_in={0},tx_iface={0}", netns.outside());
        let settings = Settings { wire, mtu: 9000, workers, mbufs: 8192, ..Settings::default() };
        let mut kopid = Kopid::start(&dir, &settings);
        let load = Transfer { window: 64, ..Transfer::new(5000, 60..=9014) };
        app_to_wire(&dir, &kopid, &netns, queues, 9000, &load);
        wire_to_app(&dir, &kopid, &netns, queues, 9000, &load);
        app_to_app(&dir, &kopid, queues, 9000, &load);
        nothing_was_dropped(&kopid);
        assert!(kopid.stop().success());
    }
}
