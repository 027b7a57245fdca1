//! Wires on an interface of the kernel's: what the driver does not do by itself, kopid does, or says so.
#![expect(clippy::tests_outside_test_module, reason = "this whole file is a test")]
#![forbid(unsafe_code)]

use kopi_testkit::app::{AppOptions, Transfer};
use kopi_testkit::frames::Mac;
use kopi_testkit::netns::INSIDE;
use kopi_testkit::process::Launch;
use kopi_testkit::testpmd;
use kopi_testkit::wait::{SOON, wait_until};
use kopi_testkit::{App, Home, Kopid, Netns, Peer, Settings, TempDir, Testpmd};
use rustix::process::Signal;
use std::time::Duration;

const APP: Mac = [2, 0, 0, 0, 0, 0xb];

fn on(wire: String) -> Settings {
    Settings { wire, ..Settings::default() }
}

/// A frame of 60 bytes for nobody.
fn frame() -> [u8; 60] {
    let mut frame = [0; 60];
    frame[..6].copy_from_slice(&APP);
    frame[6..12].copy_from_slice(&Netns::MAC);
    frame[12..14].copy_from_slice(&[0x88, 0xb5]);
    frame
}

/// What device counters say of the wire.
fn missed(kopid: &Kopid) -> u64 {
    let rows = kopid.ask("stats");
    rows.iter().find_map(|row| row["device"]["rx_missed"].as_u64()).expect("the wire has a device")
}

/// What the kernel loses of the wire's frames while nobody takes them is counted: with what arrives, it is all that was sent.
#[test]
fn frames_that_the_kernel_loses_are_counted() {
    const SENT: u64 = 9000;
    for driver in ["net_af_packet0", "net_af_xdp0"] {
        let (dir, netns) = (TempDir::new("wires-lost"), Netns::new(1500));
        netns.inside("ethtool", &["-L", INSIDE, "tx", "1"]);
        let mut kopid = Kopid::start(&dir, &on(format!("{driver},iface={}", netns.outside())));
        let peer = Peer::new(&netns);
        kopid.process().signal(Signal::STOP);
        (0..SENT).for_each(|_| peer.transmit(&frame()));
        kopid.process().signal(Signal::CONT);
        let all = || kopid.counter("wire", "rx_packets") + missed(&kopid);
        wait_until("every frame is counted", SOON, || all() >= SENT);
        assert_eq!(all(), SENT, "{driver}");
        assert!(missed(&kopid) > 0, "{driver}");
        assert_eq!(kopid.drops("rx_missed"), missed(&kopid), "{driver}");
        assert!(kopid.stop().success());
    }
}

/// What this kernel itself sends on the wire's interface does not come back as received.
#[test]
fn own_frames_do_not_come_back() {
    let (dir, netns) = (TempDir::new("wires-own"), Netns::new(1500));
    let kopid = Kopid::start(&dir, &Settings::on_interface(netns.outside(), 1));
    let (own, far) = (Peer::outside(&netns), Peer::new(&netns));
    (0..100).for_each(|_| own.transmit(&frame()));
    far.transmit(&frame());
    wait_until("the other end's frame arrives", SOON, || kopid.counter("wire", "rx_packets") > 0);
    assert_eq!(kopid.counter("wire", "rx_packets"), 1);
}

/// Long frames pass through packet sockets, whichever part of the ring's sizes is written, on an interface whose MTU was smaller.
#[test]
fn rings_of_packet_sockets_fit_the_mtu() {
    for arguments in ["", ",framesz=16384", ",framesz=9600", ",blocksz=65536"] {
        let (dir, netns) = (TempDir::new("wires-mtu"), Netns::new(1500));
        netns.inside("ip", &["link", "set", INSIDE, "mtu", "9000"]);
        let wire = format!("net_af_packet0,iface={}{arguments}", netns.outside());
        let mut kopid = Kopid::start(&dir, &Settings { mtu: 9000, mbufs: 8192, ..on(wire) });
        kopid.await_log("the kernel puts IPv4 fragments together");
        let load = Transfer { window: 64, ..Transfer::new(2500, 60..=9014) };
        let options = AppOptions { mtu: 9000, ..AppOptions::new("receiver", "02:00:00:00:00:0b") };
        let peer = Peer::new(&netns);
        let mut receiver = App::receive(&dir, &kopid, &options, &load);
        let sent = peer.send(&load, APP, Duration::from_secs(60));
        assert_eq!((sent.problem, &receiver.finish(SOON)["received"]), (None, &load.count.into()), "{arguments}");
        assert!(kopid.stop().success());
    }
    let (dir, netns) = (TempDir::new("wires-ring"), Netns::new(1500));
    let wire = format!("net_af_packet0,iface={},framesz=9216,blocksz=12288", netns.outside());
    let refused = Kopid::start_refused(&dir, &Settings { mtu: 9000, ..on(wire) });
    let error = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(error.contains("blocksz=12288 is not a multiple of framesz=9216"), "{error}");
}

/// kopid in a network namespace whose `/sys` is another one's knows the link, at its start and later, also of an interface that gets
/// another name, and says why it is down.
#[test]
fn the_link_is_known_without_a_sys_of_its_own() {
    let (dir, netns) = (TempDir::new("wires-sys"), Netns::new(1500));
    let home = Home::new(&netns);
    let wire = format!("net_af_packet0,iface={}", home.interface());
    let within = format!("--net=/run/netns/{}", home.name());
    let how = Launch { wrapper: vec!["nsenter".into(), within], ..Launch::default() };
    home.inside("ip", &["link", "set", home.interface(), "down"]);
    let kopid = Kopid::start_as(&dir, &on(wire), &how);
    let is = |link: &str| kopid.status()["wire"]["link"] == link;
    assert!(is("down"));
    kopid.await_log(&format!("the wire's link is down: the interface `{}` is set down", home.interface()));
    home.inside("ip", &["link", "set", home.interface(), "name", "wire1"]);
    home.inside("ip", &["link", "set", "wire1", "up"]);
    wait_until("the link is up", SOON, || is("up"));
    netns.inside("ip", &["link", "set", INSIDE, "down"]);
    kopid.await_log("the wire's link is down: the interface `wire1` has no carrier");
    netns.inside("ip", &["link", "set", INSIDE, "up"]);
    wait_until("the link is up again", SOON, || is("up"));
    // It was down before it went, and whoever reads the log is told of both.
    home.inside("ip", &["link", "set", "wire1", "down"]);
    kopid.await_log("the wire's link is down: the interface `wire1` is set down");
    home.inside("ip", &["link", "del", "wire1"]);
    kopid.await_log("is not there any more");
    assert!(is("down"));
}

/// A kopid that has sent on `net_af_xdp` ends without a warning: buffers in the driver's rings, those of sent frames included, are known
/// to stay there.
#[test]
fn buffers_in_the_rings_of_af_xdp_are_no_loss() {
    let (dir, netns) = (TempDir::new("wires-kept"), Netns::new(1500));
    netns.inside("ethtool", &["-L", INSIDE, "tx", "1"]);
    let settings = Settings { log: "debug", ..on(format!("net_af_xdp0,iface={}", netns.outside())) };
    let mut kopid = Kopid::start(&dir, &settings);
    let echo = Testpmd::forwarding(&dir, &kopid, &testpmd::Options::new("echo", "icmpecho").mac("02:00:00:00:00:0b"));
    netns.neighbour("10.77.0.11", "02:00:00:00:00:0b");
    wait_until("it is reached", SOON, || netns.ping("10.77.0.11", 1) == 1);
    assert_eq!(netns.ping("10.77.0.11", 50), 50);
    echo.quit();
    assert!(kopid.stop().success());
    let log = kopid.log();
    let kept =
        log.split("has kept ").nth(1).and_then(|rest| rest.split(' ').next()).and_then(|n| n.parse::<u32>().ok());
    assert!(kept.is_some_and(|kept| kept > 2048), "no buffer of a sent frame is in a ring: {log}");
    assert!(!log.contains("DPDK was not taken down"), "{log}");
}
