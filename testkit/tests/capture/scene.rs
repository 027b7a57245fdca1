//! A wire, the daemon on it, and apps of several users.

use kopi_testkit::frames::{Ends, Mac, framed};
use kopi_testkit::process::Launch;
use kopi_testkit::wait::SOON;
use kopi_testkit::{Capture, Kopid, Netns, Peer, Piped, Recording, Settings, TempDir, wait_until};
use std::net::Ipv4Addr;
use std::path::PathBuf;

/// A user without an account, and one that every Debian has.
pub(crate) const BOB: u32 = 64201;
pub(crate) const DAEMON: u32 = 1;

/// Their apps.
pub(crate) const BOB_MAC: Mac = [2, 0, 0, 0, 0, 0xb];
pub(crate) const CAROL_MAC: Mac = [2, 0, 0, 0, 0, 0xc];
pub(crate) const STOPPED_MAC: Mac = [2, 0, 0, 0, 0, 0xd];
pub(crate) const NOBODYS_MAC: Mac = [2, 0, 0, 0, 0, 0xee];

/// All of it. What lives on something else goes first.
#[derive(Debug)]
pub(crate) struct Scene {
    pub(crate) kopid: Kopid,
    pub(crate) peer: Peer,
    pub(crate) netns: Netns,
    pub(crate) dir: TempDir,
}

impl Scene {
    /// With this policy.
    pub(crate) fn new(label: &str, policy: &str) -> Self {
        let dir = TempDir::new(label);
        let netns = Netns::new(1500);
        let kopid = Kopid::start(&dir, &Settings::on_interface(netns.outside(), 1).policy(policy));
        Self { kopid, peer: Peer::new(&netns), netns, dir }
    }

    /// An app of user `uid` that sends and receives what the test tells it to.
    pub(crate) fn app(&self, name: &str, mac: Mac, uid: u32, args: &[&str]) -> Piped {
        let how = Launch { user: Some(uid), ..Launch::default() };
        let mut app = Piped::client(&self.dir, &self.kopid, name, &text_of(mac), &how, args);
        drop(self.kopid.await_app(name));
        assert_eq!(app.answer(), None);
        app
    }

    /// A file of the test's.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The real kopictl, which captures into the file `name` with these further arguments.
    pub(crate) fn capture(&self, name: &str, args: &str) -> Capture {
        Capture::start(&self.dir, &self.kopid, &format!("-w {} {args}", self.path(name).display()))
    }

    /// Ends a capture, and returns what is in its file `name`, which agrees with what kopictl says.
    pub(crate) fn stop(&self, capture: &mut Capture, name: &str) -> Recording {
        let sums = capture.stop();
        let recording = Recording::load(&self.path(name));
        assert_eq!(recording.sums(), sums, "{name}: {:?}", recording.statistics);
        recording
    }

    /// Numbered datagrams from the wire to `mac`.
    pub(crate) fn arrive(&self, mac: Mac, port: u16, count: u16) {
        self.transmit((0..count).map(|id| datagram((Netns::MAC, 1), (mac, 11), port, id)));
    }

    /// Frames from the wire, and waits until kopid has seen all of them.
    pub(crate) fn transmit(&self, frames: impl Iterator<Item = Vec<u8>>) {
        let seen = || self.kopid.counter("wire", "rx_packets");
        let before = seen();
        let mut sent = 0;
        for frame in frames {
            self.peer.transmit(&frame);
            sent += 1;
            // The wire's own ring does not hold many more.
            if sent % 128 == 0 {
                wait_until("kopid has seen some", SOON, || seen() >= before + sent);
            }
        }
        wait_until("kopid has seen all", SOON, || seen() >= before + sent);
    }
}

/// Has an app send numbered datagrams to `to`.
pub(crate) fn send(app: &mut Piped, mac: Mac, to: Mac, port: u16, count: u16) {
    for id in 0..count {
        app.send(&datagram((mac, 11), (to, 1), port, id));
    }
}

/// A datagram between two hosts of the net 10.77.0.0/24, told from others by its identification.
pub(crate) fn datagram(from: (Mac, u8), to: (Mac, u8), port: u16, id: u16) -> Vec<u8> {
    let ip = |host| Ipv4Addr::new(10, 77, 0, host);
    let ends = Ends { source: ip(from.1), destination: ip(to.1), id };
    framed(to.0, from.0, &ends.udp((4000, port), b"a datagram of the test's"))
}

/// A MAC address as people write it.
pub(crate) fn text_of(mac: Mac) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}
