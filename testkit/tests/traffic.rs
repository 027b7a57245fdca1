//! Sequence-numbered frames through the real daemon and driver: nothing is lost, changed or reordered within a flow.
#![expect(clippy::tests_outside_test_module, reason = "this whole file is a test")]
#![forbid(unsafe_code)]

use kopi_testkit::app::{AppOptions, Transfer};
use kopi_testkit::evil::{Client, small};
use kopi_testkit::wait::SOON;
use kopi_testkit::{App, Kopid, Netns, Peer, Settings, TempDir, wait_until};
use serde_json::Value;
use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

const A: &str = "02:00:00:00:00:0a";
const B: &str = "02:00:00:00:00:0b";
const B_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0xb];
const B_ADDRESS: &str = "10.77.0.11";
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

/// Returns how many frames went from one worker to another.
fn all_directions(workers: usize, queues: u16) -> u64 {
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
    let handed_over = kopid.handed_over();
    assert!(kopid.stop().success());
    handed_over
}

/// Frames of 64 to 1,514 bytes, in all directions, with one queue and one worker.
#[test]
fn one_queue_one_worker_loses_nothing() {
    assert_eq!(all_directions(1, 1), 0);
}

/// The same with four queues, which one worker serves.
#[test]
fn four_queues_one_worker_lose_nothing() {
    assert_eq!(all_directions(1, 4), 0);
}

/// The same with one queue and two workers. Each has a ring of the queue, so that they hand nothing to each other.
#[test]
fn one_queue_two_workers_lose_nothing() {
    assert_eq!(all_directions(2, 1), 0);
}

/// The same with three queues, of which each worker has a ring.
#[test]
fn three_queues_two_workers_lose_nothing() {
    assert_eq!(all_directions(2, 3), 0);
}

/// The same with four queues, of which each worker has a ring, too.
#[test]
fn four_queues_two_workers_lose_nothing() {
    assert_eq!(all_directions(2, 4), 0);
}

/// The same with so many queues that there are no rings for each worker: they hand frames to each other.
#[test]
fn nine_queues_two_workers_lose_nothing() {
    assert!(all_directions(2, 9) > 0);
}

/// Sends one datagram each from many ports of the wire's kernel to app B, so that both workers have some.
fn datagrams(sockets: &[UdpSocket]) -> u64 {
    sockets.iter().map(|socket| u64::from(socket.send(&[7; 100]).is_ok())).sum()
}

fn sockets(netns: &Netns) -> Vec<UdpSocket> {
    netns.enter(|| {
        let socket = || {
            let socket = UdpSocket::bind("0.0.0.0:0").expect("there are ports");
            socket.connect((B_ADDRESS, 7)).expect("there is a route");
            socket
        };
        (0..32).map(|_| socket()).collect()
    })
}

/// A client of an older version has one ring for each queue, which one worker fills for all.
#[test]
fn older_clients_have_their_frames_handed_over() {
    let dir = TempDir::new("older");
    let netns = Netns::new(1500);
    netns.neighbour(B_ADDRESS, B);
    let mut kopid = Kopid::start(&dir, &Settings::on_interface(netns.outside(), 2));
    let (_client, region) = Client::attach_old(&kopid.socket(), "older", B_MAC, &small());
    let mut ring = region.rx_consumer(0).expect("a region has a ring");
    let sockets = sockets(&netns);
    let (mut sent, mut received) = (0, 0);
    for _ in 0..20 {
        sent += datagrams(&sockets);
        wait_until("all datagrams come", SOON, || {
            while ring.poll().expect("kopid keeps to the contract") > 0 {
                received += u64::from(ring.next().expect("kopid keeps to the contract").is_some());
                ring.release();
            }
            received >= sent
        });
    }
    assert_eq!((sent, received), (640, 640));
    assert!(kopid.handed_over() > 0);
    assert!(kopid.stop().success());
}

/// kopid comes back with another number of workers while frames come: the application goes on with as many rings for its queue, and has
/// one queue throughout.
#[test]
fn number_of_workers_may_change() {
    let dir = TempDir::new("regrouped");
    let netns = Netns::new(1500);
    netns.neighbour(B_ADDRESS, B);
    let settings = |workers| Settings::on_interface(netns.outside(), workers);
    let mut kopid = Kopid::start(&dir, &settings(2));
    let mut echo = App::echo(&dir, &kopid, &app("echo", B, 1, 1500));
    let (sockets, done) = (sockets(&netns), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Relaxed) {
                datagrams(&sockets);
                std::thread::sleep(Duration::from_micros(500));
            }
        });
        let check = || {
            for workers in [2_usize, 1, 2, 1, 2] {
                if kopid.process().ended().is_some() {
                    kopid.restart_with(&settings(workers));
                }
                let row = kopid.await_app("echo");
                assert_eq!(row["queues"]["rx"], 1);
                // What it sends is what it has received.
                wait_until("frames pass", SOON, || kopid.counter("echo", "tx_packets") > 2000);
                let status = kopid.status();
                let flows: Vec<_> =
                    status["workers"].as_array().expect("workers").iter().map(|w| &w["flows"]).collect();
                assert_eq!(flows.len(), workers);
                assert!(flows.iter().all(|flows| flows.as_u64() > Some(0)), "{status}");
                assert_eq!(kopid.handed_over(), 0);
                assert!(kopid.stop().success());
                assert!(echo.process().ended().is_none());
            }
        };
        let checked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(check));
        done.store(true, Relaxed);
        if let Err(panic) = checked {
            std::panic::resume_unwind(panic);
        }
    });
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
