//! What goes wrong at the edges: other releases of DPDK, bad arguments, absent, refusing and hostile daemons.

use crate::daemon::{Behaviour, Daemon};
use crate::testpmd::{Folder, Testpmd};
use std::process::Command;

const MEMORY: &[&str] = &["--in-memory"];

/// Fault 24: under another release of DPDK the driver is not there, and one line on standard error says why.
#[test]
fn another_dpdk_is_refused_in_one_line() {
    let folder = Folder::new();
    let (source, library) = (folder.path("fake.c"), folder.path("fake.so"));
    std::fs::write(&source, "const char *rte_version(void) { return \"DPDK 23.11.0\"; }\n").unwrap();
    let built = Command::new("gcc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).status().unwrap();
    assert!(built.success());
    let preload = library.to_str().unwrap();
    let app = Testpmd::start_with(&folder, &[&folder.device()], MEMORY, &[], &[("LD_PRELOAD", preload)]);
    let said = app.fail();
    let ours: Vec<_> = said.lines().filter(|line| line.contains("net_kopi: ")).collect();
    assert_eq!(ours.len(), 1, "{said}");
    assert!(ours[0].contains("built for DPDK 22.11, this application runs DPDK 23.11.0"), "{}", ours[0]);
}

/// Fault 25: wrong arguments give no port, and the message names the key.
#[test]
fn wrong_arguments_are_named() {
    let long = format!("socket=/{}", "x".repeat(120));
    let cases = [
        ("sokcet=/x", "unknown key `sokcet`; the keys are socket, name, queues and mac"),
        ("queues=0", "queues: `0`"),
        ("queues=17", "queues: `17`"),
        ("mac=nonsense", "mac: `nonsense`"),
        ("name=a/b", "name: `a/b`"),
        (long.as_str(), "socket: the path is 121 bytes long"),
    ];
    for (arguments, expected) in cases {
        let folder = Folder::new();
        let device = format!("net_kopi0,{arguments}");
        let mut app = Testpmd::start(&folder, &device, MEMORY, &[]).ready();
        assert!(app.output().contains(expected), "{arguments}: {}", app.output());
        assert!(!app.command("show port summary all").contains("net_kopi"), "{arguments}");
        app.quit();
    }
}

/// Fault 25: without a daemon there is a port whose link is down, and it comes up with the daemon.
#[test]
fn absent_daemon_is_awaited() {
    let folder = Folder::new();
    let mut app = Testpmd::start(&folder, &folder.device(), MEMORY, &["--disable-link-check"]).ready();
    let said = app.output();
    assert!(said.contains(&format!("{}: no daemon listens", folder.socket().display())), "{said}");
    assert!(app.command("show port info 0").contains("Link status: down"));
    app.command("start");
    let daemon = Daemon::start(&folder.socket(), Behaviour { flood: Some(64), ..Behaviour::default() });
    app.wait_for("traffic", |app| app.xstat("rx_good_packets") > 1000);
    let asked = daemon.hello().unwrap().mac;
    assert_eq!(asked[0] & 3, 2, "a locally administered unicast address: {asked:x?}");
    assert_eq!(daemon.settings().unwrap().macs, [asked]);
    app.quit();
}

/// A daemon that refuses gives no port, and its words reach the user.
#[test]
fn refused_attach_gives_no_port() {
    let folder = Folder::new();
    let behaviour = Behaviour { refuse: Some("no app matches this process".into()), ..Behaviour::default() };
    let _daemon = Daemon::start(&folder.socket(), behaviour);
    let mut app = Testpmd::start(&folder, &folder.device(), MEMORY, &[]).ready();
    assert!(app.output().contains("no app matches this process"), "{}", app.output());
    assert!(!app.command("show port summary all").contains("net_kopi"));
    app.quit();
}

/// The device arguments reach the daemon.
#[test]
fn arguments_reach_the_daemon() {
    let folder = Folder::new();
    let daemon = Daemon::start(&folder.socket(), Behaviour::default());
    let device = format!("{},name=db-1,queues=3,mac=02:00:00:00:00:2a", folder.device());
    let mut app = Testpmd::start(&folder, &device, MEMORY, &[]).ready();
    let hello = daemon.hello().unwrap();
    assert_eq!((hello.name.as_str(), hello.queues, hello.mac), ("db-1", 3, [2, 0, 0, 0, 0, 0x2a]));
    assert!(hello.driver.starts_with("net_kopi ") && hello.driver.contains("DPDK "), "{}", hello.driver);
    assert!(app.command("show port info 0").contains("Max possible RX queues: 3"));
    app.quit();
}

/// A second port of the same process is a second app.
#[test]
fn two_ports_in_one_process() {
    let (folder, other) = (Folder::new(), Folder::new());
    let flood = Behaviour { flood: Some(64), ..Behaviour::default() };
    let daemons = [Daemon::start(&folder.socket(), flood.clone()), Daemon::start(&other.socket(), flood)];
    let second = format!("net_kopi1,socket={}", other.socket().display());
    let mut app = Testpmd::start_with(&folder, &[&folder.device(), &second], MEMORY, &[], &[]).ready();
    app.command("start");
    app.wait_for("traffic", |_| daemons.iter().all(|daemon| daemon.frames() > 1000));
    app.quit();
}

/// Fault 14: the daemon writes garbage over the whole region while frames flow. The application lives, the link goes
/// down, the fault is counted, and with a sane daemon traffic flows again.
#[test]
fn garbage_from_the_daemon_is_survived() {
    let folder = Folder::new();
    let mut daemon = Daemon::start(&folder.socket(), Behaviour { flood: Some(64), ..Behaviour::default() });
    let mut app = Testpmd::start(&folder, &folder.device(), MEMORY, &["--rxq=4", "--txq=4"]).ready();
    app.command("start");
    for round in 1..=3 {
        app.wait_for("traffic", |_| daemon.frames() > 1000);
        daemon.scribble();
        app.wait_for("fault", |app| app.xstat("kopi_peer_faults") >= round);
        app.wait_for("words", |app| app.output().contains("the daemon broke the contract"));
        drop(daemon);
        daemon = Daemon::start(&folder.socket(), Behaviour { flood: Some(64), ..Behaviour::default() });
    }
    app.wait_for("traffic", |_| daemon.frames() > 1000);
    app.quit();
}

/// Fault 30: a secondary process gets no port of its own, and a message says why.
#[test]
fn secondary_process_is_refused() {
    let folder = Folder::new();
    let _daemon = Daemon::start(&folder.socket(), Behaviour::default());
    let primary = Testpmd::start(&folder, &folder.device(), &["--no-huge", "-m", "128"], &[]);
    // Without huge pages there are no secondary processes, so this one needs a mount of them.
    drop(primary);
    let Some(huge) = crate::traffic::HugeFolder::mount("secondary") else { return };
    let memory = ["-m", "256", "--huge-dir", huge.path()];
    let primary = Testpmd::start(&folder, &folder.device(), &memory, &[]).ready();
    let mut command = Command::new("timeout");
    command.args(["-s", "KILL", "10", "dpdk-testpmd", "-l", "0", "--no-pci", "--proc-type=secondary", "--file-prefix"]);
    command.arg(primary.prefix()).arg("-d").arg(folder.driver()).args(["--huge-dir", huge.path()]);
    command.args(["--vdev", "net_kopi9", "--", "-i", "--num-procs=2", "--proc-id=1"]);
    let output = command.stdin(std::process::Stdio::null()).output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("the primary process has no such port"), "{said}");
    primary.quit();
}
