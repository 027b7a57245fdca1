//! The side of Linux: a host with nftables in a namespace, on which processes of the users send raw packets.

use crate::rules::{ADDRESSES, Action, Direction, Policy, USERS};
use crate::traffic::{Case, REMOTE};
use kopi_testkit::frames::framed;
use kopi_testkit::process::Launch;
use kopi_testkit::wait::SOON;
use kopi_testkit::{Netns, Peer, Piped, TempDir, wait_until};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::net::Ipv4Addr;

/// The MAC address of the host on the wire.
const REMOTE_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x99];

/// What decided about a packet, and how.
pub(crate) type Verdicts = BTreeMap<u16, (String, Action)>;

pub(crate) struct Host {
    // Before the namespace, which they live in.
    users: Vec<Piped>,
    peer: Peer,
    netns: Netns,
}

impl Host {
    pub(crate) fn new(dir: &TempDir) -> Self {
        let netns = Netns::new(1500);
        for address in ADDRESSES {
            let address = format!("{}/24", Ipv4Addr::from(address));
            netns.inside("ip", &["address", "add", &address, "dev", "wire0"]);
        }
        netns.neighbour(&Ipv4Addr::from(REMOTE).to_string(), "02:00:00:00:00:99");
        netns.inside("sysctl", &["-qw", "net.ipv4.ip_forward=0", "net.ipv4.conf.all.rp_filter=0"]);
        let how = |uid| Launch {
            user: Some(uid),
            netns: Some(netns.name().to_owned()),
            capabilities: "+net_raw",
            ..Launch::default()
        };
        let users = USERS.map(|uid| Piped::raw(dir, &how(uid))).into();
        let peer = Peer::outside(&netns);
        Self { users, peer, netns }
    }

    fn nft(&self, args: &[&str]) -> Value {
        let text = self.netns.inside("nft", &[&["-j"], args].concat());
        serde_json::from_str(&text).unwrap_or(Value::Null)
    }

    /// Frames that have come so far: out of the users' sockets, and in from the wire.
    fn counted(&self) -> [u64; 2] {
        let listing = self.nft(&["list", "counters", "table", "inet", "kopi"]);
        let rows = listing["nftables"].as_array().cloned().unwrap_or_default();
        ["went_out", "came_in"].map(|name| {
            let row = rows.iter().find(|row| row["counter"]["name"] == name);
            row.and_then(|row| row["counter"]["packets"].as_u64()).unwrap_or(0)
        })
    }

    /// Judges the conversations: first the first packets of all, then the second ones.
    pub(crate) fn judge(&mut self, dir: &TempDir, policy: &Policy, cases: &[Case]) -> Verdicts {
        let file = dir.join("rules.nft");
        fs::write(&file, policy.nft()).expect("the folder can be written");
        self.netns.inside("nft", &["-f", &file.display().to_string()]);
        let mut sent = [0; 2];
        for round in 0..cases.iter().map(|case| case.steps.len()).max().unwrap_or(0) {
            for case in cases {
                let Some(step) = case.steps.get(round) else { continue };
                match step.direction {
                    Direction::Egress => self.users[case.user].send(&step.packet),
                    Direction::Ingress => self.peer.transmit(&framed(Netns::MAC, REMOTE_MAC, &step.packet)),
                }
                sent[usize::from(step.direction == Direction::Ingress)] += 1;
            }
            wait_until("the kernel has seen all packets of a round", SOON, || self.counted() == sent);
        }
        self.verdicts(policy)
    }

    fn verdicts(&self, policy: &Policy) -> Verdicts {
        let listing = self.nft(&["list", "table", "inet", "kopi"]);
        let rows = listing["nftables"].as_array().expect("a list").clone();
        let mut verdicts = Verdicts::new();
        for (number, (name, action)) in policy.deciders().enumerate() {
            let set = format!("r{number}");
            let row = rows.iter().find(|row| row["set"]["name"] == *set).expect("every decider has a set");
            for id in row["set"]["elem"].as_array().into_iter().flatten() {
                let id = u16::try_from(id.as_u64().expect("a number")).expect("16 bits");
                let other = verdicts.insert(id, (name.to_owned(), action));
                assert_eq!(other, None, "packet {id} was judged twice");
            }
        }
        verdicts
    }
}
