//! An application sends and receives, in every mode of memory.

use crate::daemon::{Behaviour, Daemon};
use crate::testpmd::{Folder, Testpmd};

fn device(folder: &Folder) -> String {
    format!("net_kopi0,socket={}", folder.socket().display())
}

/// Frames that testpmd sends reach the daemon, come back, and are counted alike on both sides.
fn sends_and_receives(eal: &[&str], own: &[&str], frame: u64) {
    let folder = Folder::new();
    let daemon = Daemon::start(&folder.socket(), Behaviour::default());
    let mut app = Testpmd::start(&folder, &device(&folder), eal, own).ready();
    app.command("set fwd flowgen");
    app.command("start");
    app.wait_for("echo", |app| app.xstat("rx_good_packets") > 10_000);
    app.command("stop");
    let (sent, bytes) = (app.xstat("tx_good_packets"), app.xstat("tx_good_bytes"));
    assert!(sent > 10_000);
    if frame > 0 {
        assert_eq!(bytes, sent * frame);
    }
    app.wait_for("last frame", |_| daemon.frames() == sent);
    for error in ["rx_errors", "tx_errors", "kopi_peer_faults", "kopi_reconnects"] {
        assert_eq!(app.xstat(error), 0, "{error}");
    }
    app.quit();
}

/// Fault 30, one by one.
#[test]
fn no_huge_pages() {
    sends_and_receives(&["--no-huge", "-m", "256"], &[], 60);
}

/// Fault 30.
#[test]
fn in_memory() {
    sends_and_receives(&["--in-memory"], &[], 60);
}
