//! The other end of a virtual wire leaves checksums to its card, as kernels do unless they are told otherwise.

use super::traffic::{connect, listen, pattern, transfer};
use super::{FAR_IP, HOME_IP, settings};
use kopi_testkit::netns::INSIDE;
use kopi_testkit::wait::SOON;
use kopi_testkit::{Home, Netns, Settings, TempDir};
use std::net::UdpSocket;

/// TCP and UDP arrive all the same, over wires of both drivers that a kernel has: kopid finishes what no card will, and says so.
#[test]
fn checksums_that_are_left_to_a_card_are_finished() {
    for driver in ["net_af_xdp0", "net_af_packet0"] {
        let dir = TempDir::new("host-checksums");
        let far = Netns::new(1500);
        far.inside("ethtool", &["-K", INSIDE, "tx", "on"]);
        // `net_af_xdp` has one of the near end's queues.
        far.inside("ethtool", &["-L", INSIDE, "tx", "1"]);
        let home = Home::new(&far);
        let wire = format!("{driver},iface={}", home.interface());
        let mut kopid = home.kopid(&dir, &Settings { wire, ..settings(&home) });
        let sent = pattern(300_000);
        let there = transfer((|| home.enter(listen), HOME_IP), |at| far.enter(|| connect(at)), &sent);
        assert!(there == sent, "TCP, {driver}");
        let back = transfer((|| far.enter(listen), FAR_IP), |at| home.enter(|| connect(at)), &sent);
        assert!(back == sent, "TCP from home, {driver}");
        let to = home.enter(|| UdpSocket::bind("0.0.0.0:0").expect("a port is free"));
        let from = far.enter(|| UdpSocket::bind("0.0.0.0:0").expect("a port is free"));
        to.set_read_timeout(Some(SOON)).expect("a time limit");
        let port = to.local_addr().expect("it is bound").port();
        from.send_to(b"hello", (HOME_IP, port)).expect("it is sent");
        let mut room = [0; 16];
        assert_eq!(to.recv(&mut room).expect("it arrives"), 5, "UDP, {driver}");
        kopid.await_log("frames with unfinished checksums come by the wire");
        assert!(kopid.status()["wire"]["checksums_finished"].as_u64().is_some_and(|frames| frames > 10), "{driver}");
        assert!(kopid.stop().success());
    }
}
