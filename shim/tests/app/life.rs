//! A port's life: start, stop, close, reset, removal, settings and statistics, under load.

use crate::daemon::{Behaviour, Daemon, RSS_KEY};
use crate::testpmd::{Folder, Testpmd};
use kopi_ring::message::{RETA_SIZE, RSS_KEY_SIZE, Rss, Settings};
use kopi_ring::{OLDEST_PROTOCOL, PROTOCOL};
use std::time::Duration;

fn flooding() -> Behaviour {
    Behaviour { flood: Some(64), ..Behaviour::default() }
}

fn loaded(folder: &Folder) -> Testpmd {
    let mut app = Testpmd::start(folder, &folder.device(), &["--in-memory"], &[]).ready();
    app.command("start");
    flows(&mut app);
    app
}

/// Waits until frames arrive.
fn flows(app: &mut Testpmd) {
    let before = app.xstat("rx_good_packets");
    app.wait_for("traffic", |app| app.xstat("rx_good_packets") > before + 1000);
}

/// Fault 29: a port is started and stopped many times while the daemon floods it.
#[test]
fn starts_and_stops_under_load() {
    let folder = Folder::new();
    let daemon = Daemon::start(&folder.socket(), flooding());
    let mut app = loaded(&folder);
    for _ in 0..10 {
        app.command("stop");
        assert!(app.command("port stop 0").contains("Done"));
        assert!(app.command("show port info 0").contains("Link status: down"));
        assert!(app.command("port start 0").contains("Done"));
        assert!(app.command("show port info 0").contains("Link status: up"));
        app.command("start");
        flows(&mut app);
    }
    assert_eq!(app.xstat("kopi_peer_faults"), 0);
    assert_eq!(daemon.setups(), 11);
    app.quit();
    assert_eq!(daemon.stops(), 11);
}

/// Daemons with different numbers of workers come one after the other, also one that has no memory for lanes: each gets as many lanes
/// as it has workers, where those are not too many rings, and traffic flows through all queues.
#[test]
fn each_daemon_gets_the_lanes_that_it_fills() {
    for (queues, lanes) in [(1, [1, 2, 4, 1, 16]), (2, [1, 2, 4, 1, 1]), (3, [1, 2, 4, 1, 1])] {
        let folder = Folder::new();
        let mut daemon = Some(Daemon::start(&folder.socket(), flooding()));
        let queue_args = [format!("--rxq={queues}"), format!("--txq={queues}")];
        let mut app =
            Testpmd::start(&folder, &folder.device(), &["--in-memory"], &queue_args.each_ref().map(String::as_str));
        app = app.ready();
        app.command("start");
        for ((workers, poor), lanes) in
            [(1, false), (2, false), (4, false), (4, true), (16, false)].into_iter().zip(lanes)
        {
            drop(daemon.take());
            let behaviour = Behaviour { workers, poor, ..flooding() };
            daemon = Some(Daemon::start(&folder.socket(), behaviour));
            flows(&mut app);
            assert_eq!(daemon.as_ref().map(Daemon::lanes), Some(lanes), "{workers} workers, {queues} queues");
        }
        assert_eq!(app.xstat("kopi_peer_faults"), 0);
        app.quit();
    }
}

/// A daemon that speaks only an older version of the protocol is served in that one; one of our own is told of each mapped region.
#[test]
fn each_daemon_is_spoken_to_in_its_version() {
    for (protocol, mapped) in [(OLDEST_PROTOCOL, 0), (PROTOCOL, 1)] {
        let folder = Folder::new();
        let daemon = Daemon::start(&folder.socket(), Behaviour { protocol, ..flooding() });
        let mut app = loaded(&folder);
        assert!(
            app.command("show port info 0").contains(&format!("Firmware-version: kopid, protocol {protocol}, port 1"))
        );
        assert_eq!((daemon.hellos(), daemon.setups(), daemon.mapped()), (1, 1, mapped));
        // Nobody asks for a hash, so there is none.
        let rss = (protocol == PROTOCOL).then_some(Rss { key: RSS_KEY, types: 0, table: [0; RETA_SIZE] });
        assert_eq!(daemon.rss(), rss);
        app.quit();
    }
}

/// Fault 29: a port is reset, and configured and started anew.
#[test]
fn resets() {
    let folder = Folder::new();
    let daemon = Daemon::start(&folder.socket(), flooding());
    let mut app = loaded(&folder);
    app.command("set promisc 0 on");
    app.command("stop");
    app.command("port stop 0");
    app.command("port reset 0");
    assert_eq!(app.xstat("rx_good_packets"), 0);
    app.command("port start 0");
    app.command("start");
    flows(&mut app);
    assert_eq!(daemon.hellos(), 2);
    app.quit();
}

/// Fault 29: a port is closed, its device detached and attached again.
#[test]
fn detaches_and_attaches() {
    let folder = Folder::new();
    let daemon = Daemon::start(&folder.socket(), flooding());
    let mut app = loaded(&folder);
    for round in 1..=3 {
        app.command("stop");
        app.command("port stop 0");
        if round == 2 {
            app.command("port close 0");
        }
        assert!(app.command("device detach net_kopi0").contains("is detached"));
        app.wait_for("end of the connection", |_| !daemon.serves());
        assert!(app.command(&format!("port attach {}", folder.device())).contains("is attached"));
        app.command("port start 0");
        app.command("start");
        flows(&mut app);
    }
    app.quit();
}

/// Fault 29: what an application sets reaches the daemon, and can be read back.
#[test]
fn settings_reach_the_daemon() {
    let folder = Folder::new();
    let daemon = Daemon::start(&folder.socket(), flooding());
    let mut app = loaded(&folder);
    let expect = |daemon: &Daemon, check: &dyn Fn(&Settings) -> bool| {
        let settings = daemon.settings().unwrap();
        assert!(check(&settings), "{settings:?}");
    };
    app.command("set promisc 0 off");
    expect(&daemon, &|s| !s.promiscuous && s.mtu == 1500 && s.macs == [[2, 0, 0, 0, 0, 0x77]]);
    app.command("set promisc 0 on");
    expect(&daemon, &|s| s.promiscuous);
    app.command("set allmulti 0 on");
    expect(&daemon, &|s| s.all_multicast);
    app.command("mac_addr add 0 02:00:00:00:00:05");
    expect(&daemon, &|s| s.macs == [[2, 0, 0, 0, 0, 0x77], [2, 0, 0, 0, 0, 5]]);
    app.command("mac_addr set 0 02:00:00:00:00:06");
    expect(&daemon, &|s| s.macs == [[2, 0, 0, 0, 0, 6], [2, 0, 0, 0, 0, 5]]);
    app.command("mcast_addr add 0 01:00:5e:00:00:01");
    expect(&daemon, &|s| s.macs.last() == Some(&[1, 0, 0x5e, 0, 0, 1]));
    app.command("mac_addr remove 0 02:00:00:00:00:05");
    expect(&daemon, &|s| s.macs == [[2, 0, 0, 0, 0, 6], [1, 0, 0x5e, 0, 0, 1]]);
    app.command("stop");
    app.command("port config mtu 0 1400");
    expect(&daemon, &|s| s.mtu == 1400);
    assert!(app.command("show port info 0").contains("MTU: 1400"));
    app.command("port config mtu 0 9500");
    expect(&daemon, &|s| s.mtu == 1400);
    // Its buffers take 2,048 bytes, and a port that is started does not begin to chain them.
    app.command("port config mtu 0 2100");
    expect(&daemon, &|s| s.mtu == 1400);
    app.command("start");
    flows(&mut app);
    app.quit();
}

/// How frames are spread reaches each daemon that knows of it, and can be read back; an older one is not told, and the
/// application is.
#[test]
fn rss_reaches_the_daemon() {
    const TCP_AND_UDP: u64 = 1 << 4 | 1 << 10 | 1 << 16 | 1 << 5 | 1 << 11 | 1 << 17;
    let folder = Folder::new();
    let mut daemon = Daemon::start(&folder.socket(), flooding());
    let queues = ["--rxq=4", "--txq=4", "--rss-udp"];
    let mut app = Testpmd::start(&folder, &folder.device(), &["--in-memory"], &queues).ready();
    app.command("start");
    flows(&mut app);
    let info = app.command("show port info 0");
    assert!(info.contains("Hash key size in bytes: 40") && info.contains("Redirection table size: 128"), "{info}");
    let mut rss = daemon.rss().unwrap();
    let in_turn = std::array::from_fn(|at| u8::try_from(at % 4).unwrap());
    assert_eq!((rss.key, rss.table), (RSS_KEY, in_turn));
    assert_eq!(rss.types & (1 << 5 | 1 << 4), 1 << 5, "{rss:x?}");
    app.command(&format!("port config 0 rss-hash-key ipv4 {}", "7b".repeat(RSS_KEY_SIZE)));
    // With a key, testpmd asks for the type that is named, and no other.
    (rss.key, rss.types) = ([0x7b; RSS_KEY_SIZE], 1 << 2);
    assert_eq!(daemon.rss().unwrap(), rss);
    app.command("port config 0 rss reta (1,3),(77,0)");
    (rss.table[1], rss.table[77]) = (3, 0);
    assert_eq!(daemon.rss().unwrap(), rss);
    app.command("port config all rss tcp");
    rss.types = daemon.rss().unwrap().types;
    assert_eq!(rss.types & TCP_AND_UDP, 1 << 4 | 1 << 10 | 1 << 16);
    assert_eq!(daemon.rss().unwrap(), rss);
    app.command("port config 0 rss reta (5,4)");
    assert_eq!(daemon.rss().unwrap(), rss, "there is no queue 4");

    drop(daemon);
    daemon = Daemon::start(&folder.socket(), flooding());
    app.wait_for("rings", |_| daemon.setups() == 1);
    flows(&mut app);
    assert_eq!(daemon.rss().unwrap(), rss, "the next daemon learns of all of it");
    app.command("stop");
    app.command("port stop 0");
    app.command("port start 0");
    app.command("start");
    flows(&mut app);
    assert_eq!(daemon.rss().unwrap(), rss, "it stays over stop and start");

    drop(daemon);
    daemon = Daemon::start(&folder.socket(), Behaviour { protocol: OLDEST_PROTOCOL, ..flooding() });
    app.wait_for("rings", |_| daemon.setups() == 1);
    flows(&mut app);
    assert_eq!(daemon.rss(), None);
    assert!(app.output().contains("too old to spread frames as the application has chosen"));
    app.command("port config 0 rss reta (1,2)");
    app.wait_for("refusal", |app| app.output().contains("too old to spread frames as the application chooses"));
    app.quit();
}

/// A setting that the daemon refuses is refused to the application, with the daemon's words, and changes nothing.
#[test]
fn refusals_reach_the_application() {
    let folder = Folder::new();
    let daemon = Daemon::start(&folder.socket(), flooding());
    let mut app = loaded(&folder);
    daemon.refuse_settings(Some("that address is taken"));
    let events = app.link_events();
    app.command("mac_addr set 0 02:00:00:00:00:06");
    let words = "refused by the daemon: that address is taken";
    app.wait_for("words", |app| app.output().contains(words));
    assert_eq!(app.output().matches(words).count(), 1, "{}", app.output());
    assert_eq!(app.link_events(), events, "what was agreed before still holds");
    daemon.refuse_settings(None);
    assert!(app.command("show port info 0").contains("02:00:00:00:00:77"));
    app.command("set allmulti 0 on");
    assert_eq!(daemon.settings().unwrap().macs, [[2, 0, 0, 0, 0, 0x77]]);
    flows(&mut app);
    app.quit();
}

/// Statistics start from zero at a reset, in every form, and go on.
#[test]
fn statistics_are_reset() {
    let folder = Folder::new();
    let _daemon = Daemon::start(&folder.socket(), flooding());
    let mut app = loaded(&folder);
    assert_eq!(app.xstat("kopi_drop_rx_ring_full"), 3, "the daemon says so");
    assert_eq!(app.xstat("rx_missed_errors"), 3);
    app.command("stop");
    app.command("clear port xstats 0");
    for name in ["rx_good_packets", "tx_good_bytes", "rx_q0_packets", "kopi_drop_rx_ring_full", "rx_missed_errors"] {
        assert_eq!(app.xstat(name), 0, "{name}");
    }
    app.command("start");
    flows(&mut app);
    app.quit();
}

/// The link of the wire is the port's, and each change calls the application once.
#[test]
fn link_changes_are_announced() {
    let folder = Folder::new();
    let daemon = Daemon::start(&folder.socket(), flooding());
    let mut app = loaded(&folder);
    let before = app.link_events();
    for (round, up) in [false, true, false, true].into_iter().enumerate() {
        daemon.set_link(up);
        app.wait_for("event", |app| app.link_events() == before + round + 1);
        let wanted = if up { "Link status: up" } else { "Link status: down" };
        app.wait_for("link", |app| app.command("show port info 0").contains(wanted));
        assert_eq!(app.link_events(), before + round + 1);
    }
    assert!(app.command("show port info 0").contains("Link speed: 10 Gbps"));
    app.quit();
}

/// What the application can ask about queues and limits has an answer that is true.
#[test]
fn questions_are_answered() {
    let folder = Folder::new();
    let _daemon = Daemon::start(&folder.socket(), flooding());
    let mut app = loaded(&folder);
    app.command("stop");
    let info = app.command("show port info 0");
    for line in [
        "Maximum number of MAC addresses: 64",
        "Max possible RX queues: 16",
        "Max possible number of RXDs per queue: 8192",
        "Min possible number of TXDs per queue: 64",
        "Maximum configurable length of RX packet: 9022",
        "Max segment number per packet: 65535",
    ] {
        assert!(info.contains(line), "{line} in {info}");
    }
    assert!(app.command("show port 0 ptypes").contains("L4_UDP"));
    assert!(app.command("show port 0 rxq 0 desc 0 status").contains("DONE"), "the daemon has filled the ring");
    assert!(app.command("show port 0 txq 0 desc 0 status").contains("DONE"), "free");
    assert!(!app.command("show port 0 rxq 0 desc 1024 status").contains("Desc status"), "beyond the ring");
    assert!(app.command("show rxq info 0 0").contains("Shared-memory ring"));
    assert!(app.command("show device info net_kopi0").contains("net_kopi"));
    app.quit();
}

/// Fault 27, with a daemon that dies between two frames: the link goes down, nothing crashes, and with the next daemon
/// traffic and settings are there again without the application doing anything.
#[test]
fn outlives_the_daemon() {
    let folder = Folder::new();
    let mut daemon = Daemon::start(&folder.socket(), flooding());
    let mut app = loaded(&folder);
    app.command("set promisc 0 off");
    app.command("mac_addr add 0 02:00:00:00:00:05");
    for round in 1..=5 {
        let events = app.link_events();
        drop(daemon);
        app.wait_for("event", |app| app.link_events() == events + 1);
        assert!(app.command("show port info 0").contains("Link status: down"));
        // What is asked of the port meanwhile is done when there is a daemon.
        app.command(if round % 2 == 1 { "set allmulti 0 on" } else { "set allmulti 0 off" });
        std::thread::sleep(Duration::from_millis(300));
        daemon = Daemon::start(&folder.socket(), flooding());
        let since = std::time::Instant::now();
        app.wait_for("link", |app| app.command("show port info 0").contains("Link status: up"));
        // Well within a second on an idle machine; tests share theirs.
        assert!(since.elapsed() < Duration::from_secs(3), "{:?}", since.elapsed());
        flows(&mut app);
        let settings = daemon.settings().unwrap();
        assert_eq!((settings.promiscuous, settings.all_multicast), (false, round % 2 == 1));
        assert_eq!(settings.macs, [[2, 0, 0, 0, 0, 0x77], [2, 0, 0, 0, 0, 5]]);
        assert_eq!(daemon.hello().unwrap().mac, [2, 0, 0, 0, 0, 0x77]);
        assert_eq!(app.xstat("kopi_reconnects"), round);
    }
    app.quit();
}

/// A daemon that hangs delays an operation by a second at most, and does not fail it.
#[test]
fn hanging_daemon_does_not_hang_the_application() {
    let folder = Folder::new();
    let daemon = Daemon::start(&folder.socket(), flooding());
    let mut app = loaded(&folder);
    daemon.mute();
    for command in ["set allmulti 0 on", "stop", "port stop 0", "port start 0", "port stop 0", "port close 0"] {
        let since = std::time::Instant::now();
        app.command(command);
        assert!(since.elapsed() < Duration::from_millis(2500), "{command}: {:?}", since.elapsed());
    }
    app.quit();
}
