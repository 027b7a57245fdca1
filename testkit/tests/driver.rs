//! The driver in an unmodified testpmd, faults 24 to 29: errors that name their cause, and a life that no death of
//! either side ends badly.
#![expect(clippy::tests_outside_test_module, reason = "this whole file is a test")]
#![forbid(unsafe_code)]

use kopi_testkit::app::AppOptions;
use kopi_testkit::testpmd::{EalArguments, Options};
use kopi_testkit::wait::SOON;
use kopi_testkit::{App, Kopid, Memory, Netns, Peer, Settings, TempDir, Testpmd, machine, wait_until};
use rustix::process::Signal;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

const A: &str = "02:00:00:00:00:0a";
const A_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0xa];

/// A frame from the kernel's end of the wire to `to`.
fn frame(to: [u8; 6], length: usize) -> Vec<u8> {
    let mut frame = vec![0; length];
    frame[0..6].copy_from_slice(&to);
    frame[6..12].copy_from_slice(&Netns::MAC);
    frame[12..14].copy_from_slice(&[0x88, 0xb5]);
    frame
}

/// Fault 24: under a DPDK of another release one line says which drivers there are, and none is loaded.
#[test]
fn fault_24_other_dpdk_is_refused_in_one_line() {
    let dir = TempDir::new("abi");
    let kopid = Kopid::start(&dir, &Settings::default());
    let (source, library) = (dir.join("other.c"), dir.join("other.so"));
    fs::write(&source, "const char *rte_version(void) { return \"DPDK 29.11.3\"; }\n").expect("the folder is ours");
    let (from, to) = (source.display().to_string(), library.display().to_string());
    machine::run("gcc", &["-shared", "-fPIC", "-o", &to, &from]);

    let mut options = Options::new("other", "io");
    // Through the wrappers, which are no DPDK programs and do not mind.
    options.env.push(("LD_PRELOAD".into(), to));
    let mut testpmd = Testpmd::launch(&dir, &kopid, &options);
    assert!(!testpmd.process().wait(SOON).success());
    let log = testpmd.process().log();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("net_kopi: this application runs DPDK")).collect();
    assert_eq!(lines.len(), 1, "{log}");
    let says = |text: &str| lines[0].contains(text);
    assert!(says("29.11.3") && says("drivers for: 22.11, ") && says("driver not loaded"), "{}", lines[0]);
    assert!(kopid.ask("apps").is_empty());
}

/// Fault 25: device arguments that make no sense are refused, and the line names the key.
#[test]
fn fault_25_bad_device_arguments_are_named() {
    let dir = TempDir::new("devargs");
    let kopid = Kopid::start(&dir, &Settings::default());
    let long = format!("socket=/{}", "x".repeat(107));
    let socket = kopid.socket().display().to_string();
    let good = format!("socket={socket}");
    let cases = [
        (format!("{good},colour=red"), "`colour`"),
        (format!("{good},queues=0"), "queues:"),
        (format!("{good},queues=65"), "queues:"),
        (format!("{good},mac=02:00:00:00:00"), "mac:"),
        (format!("{good},mac=01:00:00:00:00:01"), "mac:"),
        (format!("{good},name=a/b"), "name:"),
        (format!("{good},{good}"), "`socket`"),
        (long, "socket:"),
    ];
    for (devargs, expected) in cases {
        let mut eal = EalArguments::new(&dir, &kopid, Memory::NoHuge, "name=bad", None);
        eal.args.pop();
        eal.args.push(format!("--vdev=net_kopi0,{devargs}"));
        let mut testpmd = Testpmd::launch_with(&dir, eal, &Options::new("bad", "io"));
        // Testpmd goes on to its prompt without a port.
        let log = testpmd.process().expect(0, "testpmd> ", SOON);
        let line = log.lines().find(|line| line.contains("net_kopi") && line.contains(expected));
        assert!(line.is_some() && log.contains("No probed ethernet devices"), "{devargs}:\n{log}");
    }
    assert!(kopid.ask("apps").is_empty());
}

/// Fault 25: what kopid refuses at the first attach is refused to the application, with kopid's words.
#[test]
fn fault_25_refusal_of_the_daemon_is_passed_on() {
    let dir = TempDir::new("refused");
    let kopid = Kopid::start(&dir, &Settings::default());
    let first = Testpmd::start(&dir, &kopid, &Options::new("taken", "io"));
    let mut second = Testpmd::launch(&dir, &kopid, &Options::new("taken", "io"));
    let log = second.process().expect(0, "No probed ethernet devices", SOON);
    assert!(log.contains("net_kopi0") && log.contains("`taken`"), "{log}");
    first.quit();
}

/// Fault 25: without a daemon the port is there with its link down, and comes up when a daemon does.
#[test]
fn fault_25_absent_daemon_is_a_link_that_is_down() {
    let dir = TempDir::new("absent");
    let mut kopid = Kopid::start(&dir, &Settings::default());
    assert!(kopid.stop().success());
    let mut testpmd = Testpmd::start(&dir, &kopid, &Options::new("early", "io").mac(A).with("--disable-link-check"));
    assert!(testpmd.ask("show port info 0").contains("Link status: down"));
    testpmd.tell("start", "packet forwarding");
    kopid.restart();
    let row = kopid.await_app("early");
    assert_eq!(row["mac"], A);
    wait_until("the link is up", SOON, || testpmd.ask("show port info 0").contains("Link status: up"));
    testpmd.quit();
}

/// Fault 26: an application that is killed in the middle of TX and RX leaves nothing behind, a hundred times, and its
/// name and address are free at once.
#[test]
fn fault_26_killed_application_leaves_nothing() {
    const ROUNDS: u32 = 100;
    let dir = TempDir::new("killed");
    let netns = Netns::new(1500);
    let mut kopid = Kopid::start(&dir, &Settings::on_interface(netns.outside(), 1));
    let peer = Peer::new(&netns);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (frame, mut buffer) = (frame(A_MAC, 200), vec![0; 2048]);
            while !stop.load(Relaxed) {
                (0..64).for_each(|_| peer.transmit(&frame));
                while peer.next(&mut buffer).is_some() {}
            }
        });
        let _stop = StopAtEnd(&stop);
        let options = AppOptions { memory: Memory::InMemory, ..AppOptions::new("victim", A) };
        let mut before = None;
        for round in 0..ROUNDS {
            let mut app = App::echo(&dir, &kopid, &options);
            let begun = Instant::now();
            wait_until("frames go both ways", SOON, || {
                kopid.app("victim").is_some_and(|row| row["tx_packets"].as_u64().is_some_and(|n| n > 0))
            });
            app.process().signal(Signal::KILL);
            app.process().wait(SOON);
            kopid.await_no_app("victim");
            // The first rounds warm up caches and tables.
            if round == 4 {
                before = Some(kopid.process().usage());
            }
            assert!(begun.elapsed() < Duration::from_secs(10), "round {round} took {:?}", begun.elapsed());
        }
        let before = before.expect("there were more than four rounds");
        kopid.process().await_usage(&before);
    });
    // With the wire quiet, every buffer is back that is not in a cache or lent to the wire.
    let quiet = kopid.status()["mbufs"]["free"].as_u64();
    assert!(quiet.is_some_and(|free| free >= 16384 - 2048), "{quiet:?} of 16384 buffers are free");
    assert!(kopid.stop().success());
}

/// Fault 27: kopid is killed under traffic. The application sees its link go down, does not notice otherwise, and has
/// traffic again within a second of kopid's restart.
#[test]
fn fault_27_killed_daemon_is_a_link_flap() {
    let dir = TempDir::new("flap");
    let netns = Netns::new(1500);
    let mut kopid = Kopid::start(&dir, &Settings::on_interface(netns.outside(), 1));
    let mut testpmd = Testpmd::forwarding(&dir, &kopid, &Options::new("steady", "macswap").mac(A));
    let pid = testpmd.process().pid();
    let peer = Peer::new(&netns);
    let (frame, mut buffer) = (frame(A_MAC, 200), vec![0; 2048]);
    let mut echoed = || {
        peer.transmit(&frame);
        peer.next(&mut buffer).is_some_and(|got| got.len() == 200 && got[6..12] == A_MAC)
    };
    let mut worst = Duration::ZERO;
    for round in 0..5 {
        wait_until("frames come back", SOON, &mut echoed);
        let answered = (0..200).filter(|_| echoed()).count();
        assert!(answered > 0, "round {round}");
        kopid.kill();
        wait_until("the link is down", SOON, || testpmd.ask("show port info 0").contains("Link status: down"));
        kopid.restart();
        let ready = Instant::now();
        wait_until("frames come back", SOON, &mut echoed);
        worst = worst.max(ready.elapsed());
        wait_until("the link is up", SOON, || testpmd.ask("show port info 0").contains("Link status: up"));
        let row = kopid.await_app("steady");
        assert_eq!((&row["pid"], &row["mac"]), (&pid.into(), &A.into()), "round {round}");
    }
    assert!(worst < Duration::from_secs(1), "traffic came back {worst:?} after kopid was ready");
    let xstats = testpmd.xstats();
    assert!(xstats.iter().any(|(name, value)| name.contains("reconnect") && *value >= 5), "{xstats:?}");
    testpmd.quit();
}

/// Fault 27: what was set before kopid died is set again after it came back.
#[test]
fn fault_27_settings_survive_the_daemon() {
    let dir = TempDir::new("restored");
    let netns = Netns::new(1500);
    let mut kopid = Kopid::start(&dir, &Settings::on_interface(netns.outside(), 1));
    let mut testpmd = Testpmd::forwarding(&dir, &kopid, &Options::new("steady", "rxonly").mac(A));
    testpmd.ask("set promisc 0 off");
    testpmd.ask("set allmulti 0 on");
    testpmd.ask("mac_addr add 0 02:00:00:00:00:77");
    let check = |kopid: &Kopid| {
        wait_until("the settings are what testpmd asked for", SOON, || {
            let row = kopid.await_app("steady");
            row["promiscuous"] == false
                && row["all_multicast"] == true
                && row["macs"].as_array().is_some_and(|macs| macs.iter().any(|mac| mac == "02:00:00:00:00:77"))
        });
    };
    check(&kopid);
    kopid.kill();
    kopid.restart();
    check(&kopid);
    testpmd.quit();
}

/// Fault 29: every operation of ethdev, while frames arrive all the time, does what its documentation says.
#[test]
fn fault_29_operations_work_under_load() {
    let dir = TempDir::new("operations");
    let netns = Netns::new(1500);
    let kopid = Kopid::start(&dir, &Settings::on_interface(netns.outside(), 1));
    let mut testpmd = Testpmd::forwarding(&dir, &kopid, &Options::new("busy", "macswap").mac(A));
    let (peer, stop) = (Peer::new(&netns), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let _stop = StopAtEnd(&stop);
        scope.spawn(|| {
            let mut buffer = vec![0; 2048];
            let frames = [frame(A_MAC, 100), frame([2, 0, 0, 0, 0, 0x77], 100), frame([3, 0, 0, 0, 0, 1], 100)];
            while !stop.load(Relaxed) {
                frames.iter().cycle().take(64).for_each(|frame| peer.transmit(frame));
                while peer.next(&mut buffer).is_some() {}
            }
        });
        receives(&mut testpmd);
        stop_start_reset(&kopid, &mut testpmd);
        addresses_and_modes(&kopid, &mut testpmd);
        mtu(&kopid, &mut testpmd);
        detach(&kopid, testpmd);
    });
}

/// Ends the traffic of a test, also when it fails.
struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

fn receives(testpmd: &mut Testpmd) {
    let before = testpmd.stat("RX-packets");
    wait_until("frames arrive", SOON, || testpmd.stat("RX-packets") > before + 100);
    let sent = testpmd.stat("TX-packets");
    wait_until("frames leave", SOON, || testpmd.stat("TX-packets") > sent + 100);
}

fn stop_start_reset(kopid: &Kopid, testpmd: &mut Testpmd) {
    testpmd.tell("stop", "Accumulated forward statistics");
    for _ in 0..10 {
        testpmd.ask("port stop 0");
        assert_eq!(kopid.app("busy").expect("a stopped port stays attached")["state"], "stopped");
        testpmd.ask("port start 0");
        drop(kopid.await_app("busy"));
    }
    testpmd.ask("port stop 0");
    testpmd.ask("port reset 0");
    testpmd.ask("port start 0");
    drop(kopid.await_app("busy"));
    testpmd.tell("start", "packet forwarding");
    receives(testpmd);
    testpmd.ask("clear port stats 0");
    testpmd.ask("clear port xstats 0");
    receives(testpmd);
}

fn addresses_and_modes(kopid: &Kopid, testpmd: &mut Testpmd) {
    let row = |key: &str| kopid.await_app("busy")[key].clone();
    for (mode, key) in [("promisc", "promiscuous"), ("allmulti", "all_multicast")] {
        for state in ["on", "off", "on", "off"] {
            testpmd.ask(&format!("set {mode} 0 {state}"));
            assert_eq!(row(key), state == "on", "{mode} {state}");
        }
    }
    // Traffic for 02:…:77 is unknown until the address is added, and unknown again after it is removed.
    let unknown = || kopid.drops("unknown_unicast");
    let before = unknown();
    wait_until("its frames are dropped", SOON, || unknown() > before);
    testpmd.ask("mac_addr add 0 02:00:00:00:00:77");
    assert_eq!(row("macs").as_array().map(Vec::len), Some(2));
    testpmd.ask("mac_addr remove 0 02:00:00:00:00:77");
    let before = unknown();
    wait_until("its frames are dropped again", SOON, || unknown() > before);
    testpmd.ask("mac_addr set 0 02:00:00:00:00:88");
    assert_eq!(row("mac"), "02:00:00:00:00:88");
    testpmd.ask(&format!("mac_addr set 0 {A}"));
    receives(testpmd);
}

fn mtu(kopid: &Kopid, testpmd: &mut Testpmd) {
    testpmd.tell("stop", "Accumulated forward statistics");
    for (mtu, allowed) in [(1000, true), (68, true), (1500, true), (1501, false), (9000, false), (67, false)] {
        testpmd.ask("port stop 0");
        testpmd.ask(&format!("port config mtu 0 {mtu}"));
        testpmd.ask("port start 0");
        let now = kopid.await_app("busy")["mtu"].clone();
        assert_eq!(now == mtu, allowed, "mtu {mtu}: {now}");
    }
    testpmd.tell("start", "packet forwarding");
    receives(testpmd);
}

fn detach(kopid: &Kopid, mut testpmd: Testpmd) {
    testpmd.tell("stop", "Accumulated forward statistics");
    testpmd.ask("port stop 0");
    testpmd.tell("port detach 0", "is detached");
    kopid.await_no_app("busy");
    // Plugged in again while everything else runs on.
    let socket = kopid.socket().display().to_string();
    testpmd.tell(&format!("port attach net_kopi1,socket={socket},name=again"), "is attached");
    testpmd.ask("port start 0");
    drop(kopid.await_app("again"));
    testpmd.ask("port stop 0");
    testpmd.tell("port close 0", "Done");
    kopid.await_no_app("again");
    testpmd.quit();
}
