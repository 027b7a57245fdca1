//! Other MAC addresses behind the kernel's port: those that are named are the port's, too, and no others.

use super::{is_reached, settings};
use kopi_testkit::home::TAP;
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
