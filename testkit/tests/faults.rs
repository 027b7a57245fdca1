//! Odd frames, and a machine that fails: faults 17, 38 and 40.
#![expect(clippy::tests_outside_test_module, reason = "this whole file is a test")]
#![forbid(unsafe_code)]

use kopi_ring::layout::Notes;
use kopi_testkit::app::{AppOptions, Transfer};
use kopi_testkit::evil::{Client, Random, small};
use kopi_testkit::wait::SOON;
use kopi_testkit::{App, Kopid, Netns, Peer, Settings, TempDir, Testpmd, machine, testpmd, wait_until};
use std::fs;
use std::time::Duration;

const A: &str = "02:00:00:00:00:0a";
const B: &str = "02:00:00:00:00:0b";
const EVIL: [u8; 6] = [2, 0, 0, 0, 0xee, 1];

/// An Ethernet frame to the kernel's end of the wire with this type and payload.
fn frame(ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = [&Netns::MAC[..], &EVIL[..], &ethertype.to_be_bytes()].concat();
    frame.extend_from_slice(payload);
    frame
}

/// An IPv4 header with `options` bytes of options, in front of `payload`.
fn ipv4(options: usize, fragment: u16, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let words = u8::try_from(5 + options / 4).expect("at most 15 words");
    let total = u16::try_from(20 + options + payload.len()).expect("short");
    let mut packet = vec![0x40 | words, 0];
    packet.extend(total.to_be_bytes());
    packet.extend([0, 1]);
    packet.extend(fragment.to_be_bytes());
    packet.extend([64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    packet.extend(vec![1; options]);
    packet.extend_from_slice(payload);
    frame(0x0800, &packet)
}

/// An IPv6 packet of extension headers `next`, each 8 bytes, in front of nothing.
fn ipv6(extensions: usize, kind: u8, option: &[u8]) -> Vec<u8> {
    let length = u16::try_from(extensions * 8).expect("short");
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend(length.to_be_bytes());
    packet.extend([kind, 64]);
    packet.extend([0xfd; 32]);
    for _ in 0..extensions {
        let mut extension = vec![kind, 0];
        extension.extend_from_slice(option);
        extension.resize(8, 0);
        packet.extend(extension);
    }
    frame(0x86dd, &packet)
}

/// Every odd frame of fault 17 that is at least an Ethernet header long.
fn oddities() -> Vec<Vec<u8>> {
    let vlans = |n: usize| {
        let mut payload = [0x00, 0x01, 0x81, 0x00].repeat(n);
        payload.extend([0x00, 0x01, 0x08, 0x00]);
        payload.extend([0x45; 40]);
        frame(0x8100, &payload)
    };
    let udp = [0x12, 0x34, 0x56, 0x78, 0, 8, 0, 0];
    let mut odd =
        vec![frame(0, &[]), frame(0xffff, &[]), frame(0x0806, &[0; 4]), vlans(1), vlans(2), vlans(5), vlans(300)];
    odd.extend([0, 4, 40].map(|options| ipv4(options, 0, 17, &udp)));
    // A first fragment too small for its ports, and one that overlaps it (RFC 1858).
    odd.push(ipv4(0, 0x2000, 6, &[0x12]));
    odd.push(ipv4(0, 1, 6, &udp));
    odd.extend([1, 8, 100].map(|n| ipv6(n, 60, &[1, 4])));
    odd.extend([1, 100].map(|n| ipv6(n, 43, &[])));
    // The jumbo payload option (RFC 2675), and a fragment header.
    odd.push(ipv6(1, 0, &[0xc2, 4, 0, 1, 0, 0]));
    odd.push(ipv6(1, 44, &[0, 1]));
    let whole: Vec<Vec<u8>> = odd.clone();
    // Truncated everywhere.
    for frame in whole.iter().filter(|frame| frame.len() < 200) {
        odd.extend((14..frame.len()).map(|end| frame[..end].to_vec()));
    }
    odd
}

/// Fault 17: odd frames from an app and from the wire go where their address says, or are dropped with a reason. Nobody
/// panics, and traffic goes on.
#[test]
fn fault_17_odd_frames_are_switched_or_dropped() {
    let dir = TempDir::new("odd");
    let netns = Netns::new(1500);
    let mut kopid = Kopid::start(&dir, &Settings::on_interface(netns.outside(), 1));
    let (_client, region) = Client::attach(&kopid.socket(), "odd", EVIL, &small());
    let mut producer = region.tx_producer(0).expect("a ring");
    let mut push = |frame: &[u8]| {
        wait_until("there is room", SOON, || producer.free(1).is_ok_and(|free| free > 0));
        assert!(producer.push(frame, Notes::NONE));
        producer.publish();
    };
    let odd = oddities();
    odd.iter().for_each(|frame| push(frame));
    let sent = u64::try_from(odd.len()).expect("few");
    wait_until("all of them are on the wire", SOON, || kopid.counter("wire", "tx_packets") == sent);
    for length in 1..14 {
        push(&vec![0; length]);
    }
    wait_until("what is shorter than a header is a runt", SOON, || kopid.drops("runt") == 13);
    // An MTU of 1,500 allows 1,522 bytes: header and two VLAN tags.
    for length in [1522, 1523, 1600, 2048] {
        push(&vec![0x02; length]);
    }
    wait_until("what is longer than the MTU allows is oversize", SOON, || kopid.drops("oversize") == 3);

    let peer = Peer::new(&netns);
    let to_app = odd.iter().map(|frame| [&EVIL[..], &Netns::MAC[..], &frame[12..]].concat());
    let mut buffer = vec![0; 2048];
    to_app.for_each(|frame| peer.transmit(&frame));
    while peer.next(&mut buffer).is_some() {}
    let mut random = Random::new(17);
    for _ in 0..5000 {
        let length = usize::try_from(14 + random.below(1500)).expect("small");
        random.fill(&mut buffer[..length]);
        buffer[..6].copy_from_slice(&EVIL);
        peer.transmit(&buffer[..length]);
        push(&[&Netns::MAC[..], &EVIL[..], &buffer[12..length]].concat());
    }
    wait_until("all of them are on the wire", SOON, || kopid.counter("wire", "tx_packets") >= sent + 5000);
    assert!(kopid.process().ended().is_none());
    assert!(kopid.stop().success());
}

/// Fault 38: the wire's link goes and comes; kopid and its apps say so, and traffic goes on afterwards.
#[test]
fn fault_38_wire_link_flaps() {
    let dir = TempDir::new("link");
    let netns = Netns::new(1500);
    let mut kopid = Kopid::start(&dir, &Settings::on_interface(netns.outside(), 1));
    let mut app = Testpmd::forwarding(&dir, &kopid, &testpmd::Options::new("pinged", "icmpecho").mac(A));
    netns.neighbour("10.77.0.2", A);
    wait_until("the app answers", SOON, || netns.ping("10.77.0.2", 5) == 5);
    for _ in 0..3 {
        netns.inside("ip", &["link", "set", "wire0", "down"]);
        wait_until("kopid says so", SOON, || kopid.status()["wire"]["link"] == "down");
        wait_until("the app sees it", SOON, || app.ask("show port info 0").contains("Link status: down"));
        netns.inside("ip", &["link", "set", "wire0", "up"]);
        wait_until("kopid says so", SOON, || kopid.status()["wire"]["link"] == "up");
        wait_until("the app sees it", SOON, || app.ask("show port info 0").contains("Link status: up"));
        netns.neighbour("10.77.0.2", A);
        wait_until("the app can be reached again", SOON, || netns.ping("10.77.0.2", 1) == 1);
    }
    app.quit();
    assert!(kopid.stop().success());
}

/// Fault 38: the wire's device goes for good. kopid says so, and apps go on talking to each other.
#[test]
fn fault_38_wire_device_is_removed() {
    let dir = TempDir::new("removed");
    let netns = Netns::new(1500);
    let mut kopid = Kopid::start(&dir, &Settings::on_interface(netns.outside(), 1));
    machine::run("ip", &["link", "del", netns.outside()]);
    wait_until("kopid says so", SOON, || kopid.status()["wire"]["link"] == "down");
    let load = Transfer::new(10_000, 60..=1514);
    let mut receiver = App::receive(&dir, &kopid, &AppOptions::new("receiver", B), &load);
    let mut sender = App::send(&dir, &kopid, &AppOptions::new("sender", A), &load, B);
    sender.finish(Duration::from_secs(60));
    receiver.finish(Duration::from_secs(60));
    assert!(kopid.stop().success());
}

/// CPU time of a process's first thread, in ticks of a hundredth of a second.
fn ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/task/{pid}/stat")).expect("the process lives");
    let fields: Vec<&str> = stat.rsplit(')').next().expect("a name in brackets").split_whitespace().collect();
    fields[11..13].iter().filter_map(|field| field.parse::<u64>().ok()).sum()
}

/// Fault 40: out of file descriptors, kopid backs off instead of spinning, serves those it has, and recovers.
#[test]
fn fault_40_out_of_descriptors_is_survived() {
    let dir = TempDir::new("emfile");
    let mut kopid = Kopid::start(&dir, &Settings { huge_pages: "off", ..Settings::default() });
    let load = Transfer::new(100_000, 60..=1514);
    let mut receiver = App::receive(&dir, &kopid, &AppOptions::new("receiver", B), &load);
    let mut sender = App::send(&dir, &kopid, &AppOptions::new("sender", A), &load, B);
    let pid = kopid.process().pid();
    let open = kopid.process().usage().fds;
    // From fewer than it has open already to enough for a connection and a half: each takes two.
    for allowed in open - 2..open + 4 {
        let limit = format!("--nofile={allowed}:");
        machine::run("prlimit", &["--pid", &pid.to_string(), &limit]);
        let crowd: Vec<_> = (0..20).filter_map(|_| Client::try_connect(&kopid.socket()).ok()).collect();
        let before = ticks(pid);
        let moment = std::time::Instant::now();
        wait_until("a second is over", SOON, || moment.elapsed() > Duration::from_secs(1));
        let spent = ticks(pid) - before;
        assert!(
            spent < 30,
            "with {allowed} descriptors allowed, the control thread ran {spent} ticks of a second's 100"
        );
        drop(crowd);
    }
    machine::run("prlimit", &["--pid", &pid.to_string(), "--nofile=1024:"]);
    drop(Client::attach(&kopid.socket(), "late", EVIL, &small()));
    sender.finish(Duration::from_secs(60));
    receiver.finish(Duration::from_secs(60));
    kopid.await_log("cannot accept");
    kopid.await_no_connections();
    assert!(kopid.stop().success());
}
