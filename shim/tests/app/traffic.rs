//! An application sends and receives, in every mode of memory, and frames of every size.

use crate::daemon::{Behaviour, Daemon};
use crate::testpmd::{Folder, Testpmd};

/// Frames that testpmd sends reach the daemon, come back, and are counted alike on both sides.
fn sends_and_receives(eal: &[&str]) {
    let folder = Folder::new();
    let daemon = Daemon::start(&folder.socket(), Behaviour::default());
    let mut app = Testpmd::start(&folder, &folder.device(), eal, &[]).ready();
    app.command("set fwd flowgen");
    app.command("start");
    app.wait_for("echo", |app| app.xstat("rx_good_packets") > 10_000);
    app.command("stop");
    let (sent, bytes) = (app.xstat("tx_good_packets"), app.xstat("tx_good_bytes"));
    assert_eq!(bytes, sent * 60, "flowgen's frames have 60 bytes");
    app.wait_for("last frame", |_| daemon.frames() == sent);
    for error in ["rx_errors", "tx_errors", "kopi_peer_faults", "kopi_reconnects"] {
        assert_eq!(app.xstat(error), 0, "{error}");
    }
    app.quit();
}

/// Fault 30.
#[test]
fn no_huge_pages() {
    sends_and_receives(&["--no-huge", "-m", "256"]);
}

/// Fault 30.
#[test]
fn in_memory() {
    sends_and_receives(&["--in-memory"]);
}

/// Fault 30. EAL takes the folder of huge pages from a mount, which the test makes.
#[test]
fn legacy_memory() {
    let Some(huge) = HugeFolder::mount("legacy") else { return };
    sends_and_receives(&["--legacy-mem", "-m", "256", "--huge-dir", huge.path()]);
}

/// Fault 30.
#[test]
fn single_file_segments() {
    let Some(huge) = HugeFolder::mount("single") else { return };
    sends_and_receives(&["--single-file-segments", "-m", "256", "--huge-dir", huge.path()]);
}

/// A mount of hugetlbfs, for as long as it lives.
pub(crate) struct HugeFolder(String);

impl HugeFolder {
    /// `None` where the test may not mount.
    pub(crate) fn mount(name: &str) -> Option<Self> {
        let path = format!("/run/kopi-shim-test-{name}-{}", std::process::id());
        std::fs::create_dir_all(&path).unwrap();
        let mounted = std::process::Command::new("mount").args(["-t", "hugetlbfs", "nodev", &path]).status().unwrap();
        if mounted.success() {
            return Some(Self(path));
        }
        let _gone = std::fs::remove_dir(&path);
        None
    }

    pub(crate) fn path(&self) -> &str {
        &self.0
    }
}

impl Drop for HugeFolder {
    fn drop(&mut self) {
        let _status = std::process::Command::new("umount").arg(&self.0).status();
        let _gone = std::fs::remove_dir(&self.0);
    }
}

const TXONLY: &[&str] = &["--forward-mode=txonly", "--tx-offloads=0x8000"];

/// Packets of several segments leave as one frame each.
#[test]
fn segments_are_joined() {
    let folder = Folder::new();
    let daemon = Daemon::start(&folder.socket(), Behaviour { echo: false, ..Behaviour::default() });
    let mut app = Testpmd::start(&folder, &folder.device(), &["--in-memory"], TXONLY).ready();
    app.command("set txpkts 64,128,1300");
    app.command("start");
    app.wait_for("traffic", |_| daemon.frames() > 10_000);
    app.command("stop");
    let sent = app.xstat("tx_good_packets");
    app.wait_for("last frame", |_| daemon.frames() == sent);
    assert_eq!(app.xstat("tx_good_bytes"), sent * 1492);
    assert_eq!(daemon.bytes(), sent * 1492);
    app.quit();
}

/// Frames longer than a buffer come in several, with buffers of external memory just as well, and where nobody has asked for that.
#[test]
fn long_frames_are_scattered() {
    let in_buffers: &[&[&str]] =
        &[&["--rx-offloads=0x2000"], &["--rx-offloads=0x2000", "--mp-alloc=xbuf"], &["--rx-offloads=0xe"]];
    for own in in_buffers {
        let folder = Folder::new();
        let _daemon =
            Daemon::start(&folder.socket(), Behaviour { echo: false, flood: Some(9000), ..Behaviour::default() });
        let scatter = ["--mbuf-size=1024", "--max-pkt-len=9022", "--forward-mode=rxonly"];
        let own: Vec<_> = scatter.iter().chain(*own).copied().collect();
        let mut app = Testpmd::start(&folder, &folder.device(), &["--in-memory"], &own).ready();
        app.command("start");
        app.wait_for("traffic", |app| app.xstat("rx_good_packets") > 10_000);
        app.command("stop");
        assert_eq!(app.xstat("rx_good_bytes"), app.xstat("rx_good_packets") * 9000);
        assert_eq!(app.xstat("rx_errors"), 0);
        assert!(app.command("show rxq info 0 0").contains("RX scattered packets: on"));
        app.quit();
    }
}

/// Sixteen queues in each direction all carry frames, and are counted one by one.
#[test]
fn all_queues_carry_frames() {
    let folder = Folder::new();
    let _daemon = Daemon::start(&folder.socket(), Behaviour { flood: Some(64), ..Behaviour::default() });
    let own = ["--rxq=16", "--txq=16", "--rxd=100", "--txd=64", "--nb-cores=1"];
    let mut app = Testpmd::start(&folder, &folder.device(), &["--in-memory"], &own).ready();
    app.command("start");
    for queue in 0..16 {
        app.wait_for("traffic", |app| {
            app.xstat(&format!("rx_q{queue}_packets")) > 100 && app.xstat(&format!("tx_q{queue}_packets")) > 100
        });
    }
    app.command("stop");
    assert!(app.command("show rxq info 0 3").contains("Number of RXDs: 128"), "rounded up");
    assert!(app.command("show txq info 0 3").contains("Number of TXDs: 64"));
    app.quit();
}
