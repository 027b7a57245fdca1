//! Other MAC addresses behind the kernel's port: those that are named are the port's, too, and no others.

use super::{FAR_IP, HOME_IP, is_reached, settings};
use kopi_testkit::home::TAP;
use kopi_testkit::machine;
use kopi_testkit::netns::INSIDE;
use kopi_testkit::wait::SOON;
use kopi_testkit::{Home, Kopid, Netns, Settings, TempDir, wait_until};

/// The address of a virtual router (RFC 9568, 7.3), and one of nobody's.
const VIRTUAL: &str = "00:00:5e:00:01:07";
const OTHER: &str = "02:00:00:00:77:77";
const VIRTUAL_IP: &str = "10.77.0.7";

fn start(home: &Home, dir: &TempDir, macs: &str) -> Kopid {
    let host = format!("tap = \"{TAP}\"\n{macs}");
    let kopid = Kopid::start_as(dir, &Settings { host: Some(host), ..settings(home) }, &home.launch());
    home.await_carrier();
    assert!(home.takeover(dir, &kopid, &[]).status.success());
    // Each device answers, and asks, for its own addresses.
    home.inside("sysctl", &["-qw", "net.ipv4.conf.all.arp_ignore=1", "net.ipv4.conf.all.arp_announce=2"]);
    home.inside("ip", &["link", "add", "vrrp", "link", TAP, "address", VIRTUAL, "type", "macvlan", "mode", "bridge"]);
    home.inside("ip", &["address", "add", &format!("{VIRTUAL_IP}/32"), "dev", "vrrp"]);
    home.inside("ip", &["link", "set", "vrrp", "up"]);
    kopid
}

/// A virtual router's address that is named is found and reached, as the port itself is.
#[test]
fn named_address_is_the_ports() {
    let dir = TempDir::new("host-macs");
    let far = Netns::new(1500);
    let home = Home::new(&far);
    let mut kopid = start(&home, &dir, &format!("macs = [\"{VIRTUAL}\"]\n"));
    wait_until("it is reached", SOON, || far.ping(VIRTUAL_IP, 1) == 1);
    assert!(far.inside("ip", &["neigh", "show", VIRTUAL_IP]).contains(VIRTUAL));
    assert!(is_reached(&far) && kopid.drops("foreign_mac") == 0);
    assert!(kopid.stop().success());
}

/// Without, nothing of it passes: the drop has a name, and the log says what to do. So it is if the interface's own address is changed.
#[test]
fn other_address_is_refused_by_name() {
    let dir = TempDir::new("host-no-macs");
    let far = Netns::new(1500);
    let home = Home::new(&far);
    let mut kopid = start(&home, &dir, "");
    assert_eq!(far.ping(VIRTUAL_IP, 1), 0);
    wait_until("it is counted and told", SOON, || {
        kopid.drops("foreign_mac") > 0 && kopid.log().contains(&format!("frames from {VIRTUAL} come by `{TAP}`"))
    });
    wait_until("the port is reached", SOON, || is_reached(&far));
    let own = home.inside("cat", &[&format!("/sys/class/net/{TAP}/address")]);
    home.inside("ip", &["link", "set", TAP, "address", OTHER]);
    wait_until("it is told", SOON, || {
        let _reached = is_reached(&far);
        drop(
            home.enter(|| {
                std::net::UdpSocket::bind("0.0.0.0:0").and_then(|socket| socket.send_to(&[1], "10.77.0.1:9"))
            }),
        );
        kopid.log().contains(&format!("frames from {OTHER} come by"))
    });
    assert_eq!(kopid.log().matches("`foreign_mac`").count(), 2, "each of them once");
    home.inside("ip", &["link", "set", TAP, "address", own.trim()]);
    wait_until("it is reached again", SOON, || is_reached(&far));
    assert!(kopid.stop().success());
}

/// A station behind a bridge that the kernel's port is part of, with an address of its own.
const STATION: &str = "02:00:00:00:77:08";
const STATION_IP: &str = "10.77.0.8";

/// A kopid whose kernel's port is part of a bridge, with the kernel's address on the bridge; and a station behind another port of it.
fn bridged(home: &Home, dir: &TempDir, macs: &str) -> (Kopid, Netns) {
    let host = format!("tap = \"{TAP}\"\n{macs}");
    let kopid = Kopid::start_as(dir, &Settings { host: Some(host), ..settings(home) }, &home.launch());
    home.await_carrier();
    assert!(home.takeover(dir, &kopid, &[]).status.success());
    let station = Netns::new(1500);
    station.inside("ip", &["address", "flush", "dev", INSIDE]);
    station.inside("ip", &["link", "set", INSIDE, "address", STATION]);
    station.inside("ip", &["address", "add", &format!("{STATION_IP}/24"), "dev", INSIDE]);
    machine::run("ip", &["link", "set", station.outside(), "netns", home.name()]);
    let own = home.inside("cat", &[&format!("/sys/class/net/{TAP}/address")]);
    home.inside("ip", &["link", "add", "br0", "address", own.trim(), "type", "bridge", "forward_delay", "0"]);
    home.inside("ip", &["address", "flush", "dev", TAP]);
    home.inside("ip", &["address", "add", &format!("{HOME_IP}/24"), "dev", "br0"]);
    for interface in [TAP, station.outside()] {
        home.inside("ip", &["link", "set", interface, "master", "br0"]);
        home.inside("ip", &["link", "set", interface, "up"]);
    }
    home.inside("ip", &["link", "set", "br0", "up"]);
    (kopid, station)
}

/// A station on a bridge over the kernel's port is found and reached from the wire, and reaches it, if its address is named; and so is
/// the kernel, which has its own address on the bridge.
#[test]
fn named_station_on_a_bridge_is_reached() {
    let dir = TempDir::new("host-bridge");
    let far = Netns::new(1500);
    let home = Home::new(&far);
    let (mut kopid, station) = bridged(&home, &dir, &format!("macs = [\"{STATION}\"]\n"));
    wait_until("the station is reached", SOON, || far.ping(STATION_IP, 1) == 1);
    assert!(far.inside("ip", &["neigh", "show", STATION_IP]).contains(STATION));
    wait_until("the kernel is reached", SOON, || is_reached(&far));
    wait_until("the station reaches the wire", SOON, || station.ping(FAR_IP, 1) == 1);
    assert_eq!((far.ping(STATION_IP, 20), far.ping(HOME_IP, 20), station.ping(FAR_IP, 20)), (20, 20, 20));
    assert_eq!(kopid.drops("foreign_mac"), 0);
    assert!(kopid.stop().success());
}

/// One that is not named is not reached and does not reach the wire, by a drop with a name and one line in the log; the kernel is.
#[test]
fn other_station_on_a_bridge_is_refused_by_name() {
    let dir = TempDir::new("host-no-bridge");
    let far = Netns::new(1500);
    let home = Home::new(&far);
    let (mut kopid, station) = bridged(&home, &dir, "");
    wait_until("the kernel is reached", SOON, || is_reached(&far));
    assert_eq!((far.ping(STATION_IP, 1), station.ping(FAR_IP, 1)), (0, 0));
    wait_until("it is counted and told", SOON, || {
        kopid.drops("foreign_mac") > 0 && kopid.log().contains(&format!("frames from {STATION} come by `{TAP}`"))
    });
    assert_eq!(kopid.log().matches("`foreign_mac`").count(), 1, "once: {}", kopid.log());
    wait_until("the station and the kernel reach each other", SOON, || station.ping(HOME_IP, 1) == 1);
    assert!(kopid.stop().success());
}
