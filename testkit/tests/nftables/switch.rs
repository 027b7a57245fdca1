//! The side of kopi: applications of the users, each with the shim, and the same packets.

use crate::rules::{ADDRESSES, Action, DEFAULTS, Direction, MARK_PORT, Policy, USERS};
use crate::traffic::{Case, REMOTE, Step};
use kopi_testkit::app::AppOptions;
use kopi_testkit::frames::{Ends, ICMP, Mac, TCP, flags, framed, id_of};
use kopi_testkit::wait::SOON;
use kopi_testkit::{Kopid, Netns, Peer, Piped, Settings, TempDir, wait_for};
use std::collections::BTreeMap;

/// Packets that are under way at a time: fewer than the rings of the wire hold.
const BATCH: usize = 64;
/// The identification of packets that mark the end of a batch.
const MARK: u16 = 0xffff;

/// What happened to a packet.
pub(crate) type Outcomes = BTreeMap<u16, Action>;

pub(crate) struct Switch {
    // Before the daemon, so that they are not left waiting for it.
    apps: Vec<Piped>,
    peer: Peer,
    kopid: Kopid,
    _netns: Netns,
}

fn mac_of(user: usize) -> Mac {
    [2, 0, 0, 0, 0, ADDRESSES[user][3]]
}

fn ends(user: usize, direction: Direction, id: u16) -> Ends {
    let (app, remote) = (ADDRESSES[user].into(), REMOTE.into());
    match direction {
        Direction::Egress => Ends { source: app, destination: remote, id },
        Direction::Ingress => Ends { source: remote, destination: app, id },
    }
}

fn framed_for(user: usize, direction: Direction, packet: &[u8]) -> Vec<u8> {
    match direction {
        Direction::Egress => framed(Netns::MAC, mac_of(user), packet),
        Direction::Ingress => framed(mac_of(user), Netns::MAC, packet),
    }
}

/// A packet that every policy lets pass.
fn mark(user: usize, direction: Direction) -> Vec<u8> {
    framed_for(user, direction, &ends(user, direction, MARK).udp((MARK_PORT, MARK_PORT), b"mark"))
}

impl Switch {
    pub(crate) fn new(dir: &TempDir) -> Self {
        let netns = Netns::new(1500);
        netns.inside("sysctl", &["-qw", "net.ipv4.ip_forward=0"]);
        let kopid = Kopid::start(dir, &Settings::on_interface(netns.outside(), 1).policy(""));
        let apps = (0..USERS.len()).map(|user| {
            let mac = mac_of(user).map(|byte| format!("{byte:02x}")).join(":");
            let options = AppOptions { user: Some(USERS[user]), ..AppOptions::new(&format!("user-{user}"), &mac) };
            Piped::application(dir, &kopid, &options)
        });
        let apps = apps.collect();
        let peer = Peer::new(&netns);
        Self { apps, peer, kopid, _netns: netns }
    }

    /// What happens to each packet, and what each rule has counted.
    pub(crate) fn judge(&mut self, policy: &Policy, cases: &[Case]) -> (Outcomes, BTreeMap<String, u64>) {
        let before = self.counts();
        self.kopid.reload(&policy.toml()).unwrap_or_else(|error| panic!("{error}\n{}", policy.toml()));
        // From the answer on, every frame is judged by it.
        let mut outcomes = Outcomes::new();
        for round in 0..cases.iter().map(|case| case.steps.len()).max().unwrap_or(0) {
            let steps: Vec<_> = cases.iter().filter_map(|case| Some((case.user, case.steps.get(round)?))).collect();
            for batch in steps.chunks(BATCH) {
                self.play(batch, &mut outcomes);
            }
        }
        let mut counts = self.counts();
        // The defaults are the same ones in all policies, and count on.
        for name in DEFAULTS {
            let old = before.get(name).copied().unwrap_or(0);
            counts.entry(name.into()).and_modify(|count| *count -= old);
        }
        (outcomes, counts)
    }

    fn counts(&self) -> BTreeMap<String, u64> {
        let rows = self.kopid.ask("rules");
        let pair =
            |row: &serde_json::Value| (row["name"].as_str().unwrap_or_default().to_owned(), row["packets"].as_u64());
        rows.iter().map(pair).filter_map(|(name, count)| Some((name, count?))).collect()
    }

    fn play(&mut self, batch: &[(usize, &Step)], outcomes: &mut Outcomes) {
        for (user, step) in batch.iter().filter(|(_, step)| step.direction == Direction::Egress) {
            self.apps[*user].send(&framed_for(*user, step.direction, &step.packet));
        }
        let mut on_wire = self.until_marks_on_wire();
        for (user, step) in batch.iter().filter(|(_, step)| step.direction == Direction::Ingress) {
            self.peer.transmit(&framed_for(*user, step.direction, &step.packet));
        }
        // At the apps are the packets for them, and before these the answers to what they have sent.
        let at_apps: Vec<_> = (0..self.apps.len()).map(|user| self.until_mark_at(user)).collect();
        // And on the wire are the answers to what was sent to them.
        on_wire.extend(self.until_marks_on_wire());
        for (user, step) in batch {
            let sent = framed_for(*user, step.direction, &step.packet);
            let (there, here) = match step.direction {
                Direction::Egress => (&on_wire, &at_apps[*user]),
                Direction::Ingress => (&at_apps[*user], &on_wire),
            };
            let outcome = if there.contains(&sent) {
                Action::Accept
            } else if here.iter().any(|frame| is_answer(frame, &sent)) {
                Action::Reject
            } else {
                Action::Drop
            };
            outcomes.insert(step.id, outcome);
        }
    }

    fn until_marks_on_wire(&mut self) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        for user in 0..self.apps.len() {
            let mark = mark(user, Direction::Egress);
            self.apps[user].send(&mark);
            frames.extend(self.peer.collect(|frame| frame == mark));
        }
        frames
    }

    fn until_mark_at(&mut self, user: usize) -> Vec<Vec<u8>> {
        let mark = mark(user, Direction::Ingress);
        self.peer.transmit(&mark);
        let mut frames = Vec::new();
        wait_for("the mark reaches the app", SOON, || {
            frames.extend(self.apps[user].received());
            (frames.last() == Some(&mark)).then_some(())
        });
        frames.pop();
        frames
    }
}

/// Whether `frame` tells the sender of `sent` that it was rejected: a reset to its ports, or an ICMP error that quotes it.
fn is_answer(frame: &[u8], sent: &[u8]) -> bool {
    if frame.len() < 54 || frame[26..30] != sent[30..34] || frame[30..34] != sent[26..30] {
        return false;
    }
    match frame[23] {
        TCP => {
            let back = frame[34..36] == sent[36..38] && frame[36..38] == sent[34..36];
            sent[23] == TCP && back && frame[47] & flags::RST != 0
        }
        ICMP => frame[34..36] == [3, 3] && frame[46..48] == sent[18..20] && id_of(frame) != id_of(sent),
        _ => false,
    }
}
