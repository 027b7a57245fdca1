//! Faults 38 and 39: the kernel's interface goes, is full, cannot be made; kopid is stopped and told to end.

use super::{FAR_IP, HOME_IP, host_row, is_reached, pin_far_end, settings};
use kopi_testkit::home::TAP;
use kopi_testkit::testpmd::Options;
use kopi_testkit::wait::SOON;
use kopi_testkit::{Home, Kopid, Netns, Settings, TempDir, Testpmd, wait_until};
use rustix::process::Signal;
use std::net::UdpSocket;
use std::time::{Duration, Instant};

/// How long the daemon stands still.
const STOPPED: Duration = Duration::from_secs(30);

/// Fault 38: an interface that is deleted is reported and made again; one that is set down loses its own frames alone; its link
/// is the wire's.
#[test]
fn interface_may_go_down_and_away() {
    let dir = TempDir::new("host-faults");
    let far = Netns::new(1500);
    let home = Home::new(&far);
    let mut kopid = home.kopid(&dir, &settings(&home));
    let echo = Testpmd::forwarding(&dir, &kopid, &Options::new("echo", "icmpecho").mac("02:00:00:00:00:0a"));
    let mac = host_row(&kopid)["mac"].as_str().expect("it has an address").to_owned();
    far.neighbour("10.77.0.10", "02:00:00:00:00:0a");
    far.neighbour(HOME_IP, &mac);
    assert!(is_reached(&far));

    home.inside("ip", &["link", "set", TAP, "down"]);
    assert!(!is_reached(&far));
    wait_until("its frames are counted", SOON, || kopid.drops("tap_down") > 0);
    assert_eq!(far.ping("10.77.0.10", 10), 10, "the app is reached all the same");
    home.inside("ip", &["link", "set", TAP, "up"]);
    wait_until("it is reached again", SOON, || is_reached(&far));

    home.inside("ip", &["link", "del", TAP]);
    assert_eq!(far.ping("10.77.0.10", 10), 10, "the app is reached all the same");
    wait_until("it is reported", SOON, || kopid.log().contains("`kopi0` was deleted"));
    wait_until("it is made again", SOON, || kopid.log().contains("`kopi0` is there again"));
    home.await_carrier();
    assert!(!is_reached(&far), "its addresses are gone");
    assert!(home.takeover(&dir, &kopid, &[]).status.success(), "and come back with another takeover");
    wait_until("it is reached again", SOON, || is_reached(&far));

    far.inside("ip", &["link", "set", kopi_testkit::netns::INSIDE, "down"]);
    let carrier = || home.inside("ip", &["link", "show", TAP]).contains("LOWER_UP");
    wait_until("its link is down", SOON, || !carrier());
    far.inside("ip", &["link", "set", kopi_testkit::netns::INSIDE, "up"]);
    wait_until("its link is up", SOON, carrier);
    far.neighbour("10.77.0.10", "02:00:00:00:00:0a");
    wait_until("all is as before", SOON, || is_reached(&far) && far.ping("10.77.0.10", 1) == 1);
    echo.quit();
    assert!(kopid.stop().success());
    let links = home.inside("ip", &["link", "show"]);
    assert!(!links.contains(TAP), "it goes with kopid: {links}");
}

/// Fault 38: what the kernel sends while its rings are full is lost for it alone, and told; afterwards all is as before.
#[test]
fn full_interface_is_told() {
    let slow = "[[class]]\nname = \"slow\"\nceil = \"1mbit\"\n[[app]]\nname = \"host\"\nclass = \"slow\"\n";
    let dir = TempDir::new("host-full");
    let far = Netns::new(1500);
    let home = Home::new(&far);
    let mut kopid = home.kopid(&dir, &settings(&home).policy(slow));
    let echo = Testpmd::forwarding(&dir, &kopid, &Options::new("echo", "icmpecho").mac("02:00:00:00:00:0a"));
    far.neighbour("10.77.0.10", "02:00:00:00:00:0a");
    pin_far_end(&home, &far);
    wait_until("it is reached", SOON, || is_reached(&far));
    let socket = home.enter(|| UdpSocket::bind("0.0.0.0:0").expect("a port is free"));
    wait_until("its queue is full", SOON, || {
        for _ in 0..1000 {
            // Whether the kernel says that it has no room is its own business.
            drop(socket.send_to(&[0; 1400], (FAR_IP, 9)));
        }
        kopid.drops("tap_queue_full") > 0
    });
    assert_eq!(far.ping("10.77.0.10", 10), 10, "the app is reached all the same");
    kopid.reload("default = { egress = \"accept\" }\n").expect("it is a policy");
    wait_until("it is reached again", SOON, || is_reached(&far));
    let lost = kopid.drops("tap_queue_full");
    assert_eq!(far.ping(HOME_IP, 20), 20);
    assert_eq!(kopid.drops("tap_queue_full"), lost);
    echo.quit();
    assert!(kopid.stop().success());
}

/// Fault 39: a daemon that was stopped for half a minute and goes on has stalled nothing for good, neither the kernel nor an app.
/// SIGHUP is a reload meanwhile, SIGINT and SIGTERM end it, and its interface with it.
#[test]
fn stopped_daemon_goes_on() {
    let dir = TempDir::new("host-stop");
    let far = Netns::new(1500);
    let home = Home::new(&far);
    let mut kopid = home.kopid(&dir, &settings(&home).policy("default = { egress = \"accept\" }\n"));
    let echo = Testpmd::forwarding(&dir, &kopid, &Options::new("echo", "icmpecho").mac("02:00:00:00:00:0a"));
    far.neighbour("10.77.0.10", "02:00:00:00:00:0a");
    pin_far_end(&home, &far);
    wait_until("it is reached", SOON, || is_reached(&far));
    far.neighbour(HOME_IP, host_row(&kopid)["mac"].as_str().expect("it has an address"));
    kopid.process().signal(Signal::STOP);
    wait_until("it stands still", SOON, || kopid.process().is_stopped());
    let stopped = Instant::now();
    while stopped.elapsed() < STOPPED {
        assert_eq!(far.ping(HOME_IP, 50), 0);
    }
    let rule = "[[rule]]\nname = \"pings\"\nmatch = { direction = \"ingress\", proto = \"icmp\" }\n\
                owner = { app = \"host\" }\naction = \"count\"\n";
    std::fs::write(kopid.policy(), rule).expect("the policy can be written");
    kopid.process().signal(Signal::HUP);
    kopid.process().signal(Signal::CONT);
    wait_until("the policy is read again", SOON, || kopid.log().contains("(SIGHUP) has put"));
    for ip in [HOME_IP, "10.77.0.10"] {
        wait_until("it is reached again", SOON, || far.ping(ip, 1) == 1);
        assert_eq!(far.ping(ip, 50), 50, "{ip}");
    }
    let pings = kopid.rule("pings");
    assert!(pings >= 50, "the policy was read again: {pings}");
    echo.quit();
    for signal in [Signal::INT, Signal::TERM] {
        kopid.process().signal(signal);
        assert!(kopid.process().wait(SOON).success(), "{signal:?}");
        assert!(!home.inside("ip", &["link", "show"]).contains(TAP), "{signal:?}");
        kopid.restart();
        home.await_carrier();
    }
    assert!(kopid.stop().success());
}

/// An interface that there is already, and a missing right, are errors that name the key and what would help.
#[test]
fn interface_that_cannot_be_made_is_an_error() {
    let dir = TempDir::new("host-refused");
    let far = Netns::new(1500);
    let home = Home::new(&far);
    home.inside("ip", &["link", "add", TAP, "type", "veth", "peer", "name", "other"]);
    let enter = ["ip", "netns", "exec", home.name()];
    let with = settings(&home).host(TAP);
    let refused = Kopid::start_refused_by(&dir, &with, &enter);
    let said = String::from_utf8_lossy(&refused.stderr);
    for part in ["`tap` in [host]", "`kopi0`", "already"] {
        assert!(!refused.status.success() && said.contains(part), "no {part} in: {said}");
    }
    home.inside("ip", &["link", "del", TAP]);
    let without = [&enter[..], &["setpriv", "--bounding-set", "-net_admin"][..]].concat();
    let null = Settings::default().host(TAP);
    let refused = Kopid::start_refused_by(&dir, &null, &without);
    let said = String::from_utf8_lossy(&refused.stderr);
    for part in ["`tap` in [host]", "CAP_NET_ADMIN"] {
        assert!(!refused.status.success() && said.contains(part), "no {part} in: {said}");
    }
    assert!(!home.inside("ip", &["link", "show"]).contains(TAP), "nothing is left behind");
}
