//! Whose a frame is that comes for an address which an app has together with the host.

use super::*;
use crate::policy_table::PolicyTable;
use crate::shared_address::{SharedAddress, Sharer};
use kopi_config::policy::Listen;
use kopi_packet::LinkProtocols;
use kopi_packet::describe::frame_between;
use kopi_policy::HostSockets;
use std::collections::BTreeSet;

/// An app and another that share the host's address, one with an address of its own, and the host.
const WEB: PortId = 1;
const BATCH: PortId = 2;
const OWN: PortId = 3;
const HOST: PortId = 4;
const HOST_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x44];
const OWN_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x33];
const FAR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x99];

const POLICY: &str = "[[app]]\nname = \"web\"\naddress = \"shared\"\nlisten = [\"tcp/8080\", \"udp/7000\"]\n\
                      [[app]]\nname = \"batch\"\naddress = \"shared\"\n";

fn between(from: [u8; 6], to: [u8; 6], text: &str) -> Vec<u8> {
    frame_between(text, MacAddr::new(from), MacAddr::new(to)).unwrap()
}

/// One worker, and the apps.
struct Fixture {
    policy_stage: PolicyStage,
    table: FlowTable,
    snapshot: Snapshot,
    now: u64,
}

impl Fixture {
    fn new() -> Self {
        let policy = Policy::parse(POLICY, "test").unwrap();
        let ruleset = Arc::new(Ruleset::new(Arc::new(policy.clone()), &()).unwrap());
        assert!(ruleset.uses_state(), "whose a frame is depends on connections");
        let addresses = BTreeSet::from(["10.0.0.2".parse().unwrap()]);
        let ssh = Listen { proto: 6, port: 22 };
        let kernel = Arc::new(HostSockets::new(addresses, 32768..=60999, Vec::new(), [ssh]));
        let ports =
            [(WEB, HOST_MAC, Some(0)), (BATCH, HOST_MAC, Some(1)), (OWN, OWN_MAC, None), (HOST, HOST_MAC, None)];
        let members = ports.map(|(id, mac, _)| {
            let settings = Settings { mtu: 1500, macs: vec![mac], all_multicast: id == HOST, ..Settings::default() };
            FibPort { id, settings, link: LinkProtocols::NONE }
        });
        let port_policies = ports.map(|(id, mac, entry)| {
            let port_policy =
                ruleset.port_policy(&Owner::unknown("x"), entry, &[MacAddr::new(mac)]).with_host_sockets(&kernel);
            PolicyPort { id, generation: id.into(), port_policy, flows: u32::MAX, backlog: Backlog::AppRing(0) }
        });
        let sharers =
            [Sharer { id: WEB, listen: policy.apps[0].listen.clone() }, Sharer { id: BATCH, listen: Vec::new() }];
        let sharing = SharedAddress::new(HOST, HOST_MAC, &sharers);
        let filter = PolicyTable::new(ruleset, port_policies.into());
        let snapshot =
            Snapshot::new(1, Fib::new(true, 1500, &members)).with_policies(Some(filter)).with_shared_address(sharing);
        let connections = Arc::new(Connections::new(CONNECTIONS, seed(), &Tracking::default(), HZ));
        let (events, _) = rtrb::RingBuffer::new(EVENTS);
        let policy_stage = PolicyStage::new(connections, Arc::new(PolicyCounters::new(2)), seed(), HZ, events);
        Self { policy_stage, table: FlowTable::new(1024, 8, seed()), snapshot, now: 1 }
    }

    /// What becomes of a frame from `source`, through the flow table as in a worker.
    fn frame(&mut self, source: PortId, to: [u8; 6], text: &str) -> Verdict {
        let from = match source {
            WIRE => FAR_MAC,
            OWN => OWN_MAC,
            _ => HOST_MAC,
        };
        let frame = between(from, to, text);
        self.bytes(source, &frame)
    }

    fn bytes(&mut self, source: PortId, frame: &[u8]) -> Verdict {
        let (headers, mut key) = kopi_packet::parse(frame, source);
        let alone = self.snapshot.policies().unwrap().watch().complete(&mut key, frame, &headers);
        let hash = self.table.hash(&key);
        let flow = self.table.flow(&key, hash, u32::MAX, self.now).unwrap();
        let _holds = self.policy_stage.lookup(flow, frame, &key, alone, &self.snapshot, self.now);
        flow.count(1, 60, self.now);
        self.now += 1000;
        flow.verdict
    }

    fn arrives(&mut self, text: &str) -> Verdict {
        self.frame(WIRE, HOST_MAC, text)
    }

    fn leaves(&mut self, source: PortId, text: &str) -> Verdict {
        self.frame(source, FAR_MAC, text)
    }
}

const NOT_LEASED: DropReason = DropReason::PortNotLeased;

/// What arrives goes to the holder of the port's lease; else to the host, whose ports are nobody else's.
#[test]
fn leased_ports_are_the_apps_and_the_rest_is_the_hosts() {
    let mut fixture = Fixture::new();
    for (text, id) in [
        ("tcp 10.0.0.9:1000 > 10.0.0.2:8080", WEB),
        ("udp 10.0.0.9:1000 > 10.0.0.2:7000", WEB),
        ("udp 10.0.0.9:1000 > 10.0.0.2:8080", HOST),
        ("tcp 10.0.0.9:1000 > 10.0.0.2:22", HOST),
        ("tcp 10.0.0.9:1000 > 10.0.0.2:61000", HOST),
        ("icmp 10.0.0.9 > 10.0.0.2 type 8 code 0 id 5", HOST),
        ("arp request 10.0.0.9 > 10.0.0.2", HOST),
    ] {
        for source in [WIRE, OWN] {
            let text = if source == OWN { text.replace("10.0.0.9", "10.0.0.8") } else { text.to_owned() };
            for _ in 0..2 {
                assert_eq!(fixture.frame(source, HOST_MAC, &text), Verdict::App(id), "{text}");
            }
        }
    }
    assert_eq!(fixture.arrives("arp reply 10.0.0.9 > 10.0.0.2"), Verdict::Promiscuous);
    assert_eq!(fixture.snapshot.takers(&HOST_MAC), [HOST, WEB, BATCH]);
}

/// Answers go to whoever began, be it an app or the host, and go on doing so whoever else sends.
#[test]
fn answers_go_to_who_began() {
    let mut fixture = Fixture::new();
    for (source, port) in [(WEB, 61_000), (BATCH, 61_001), (HOST, 40_000)] {
        for proto in ["udp", "tcp"] {
            assert_eq!(fixture.leaves(source, &format!("{proto} 10.0.0.2:{port} > 10.0.0.9:53")), Verdict::Wire);
        }
    }
    for _ in 0..3 {
        for (source, port) in [(WEB, 61_000), (BATCH, 61_001), (HOST, 40_000)] {
            assert_eq!(fixture.arrives(&format!("udp 10.0.0.9:53 > 10.0.0.2:{port}")), Verdict::App(source));
        }
        assert_eq!(fixture.arrives("udp 10.0.0.8:53 > 10.0.0.2:61000"), Verdict::App(HOST), "another sender");
    }
}

/// An app begins nothing from a port of the kernel's, of another's lease, or from another address; nor the kernel from a lease.
#[test]
fn nobody_takes_the_others_port() {
    let mut fixture = Fixture::new();
    let refused = Verdict::Drop(NOT_LEASED);
    for (source, text, verdict) in [
        (WEB, "tcp 10.0.0.2:22 > 10.0.0.9:1000", refused),
        (WEB, "udp 10.0.0.2:40000 > 10.0.0.9:53", refused),
        (BATCH, "tcp 10.0.0.2:8080 > 10.0.0.9:1000", refused),
        (HOST, "tcp 10.0.0.2:8080 > 10.0.0.9:1000", refused),
        (HOST, "udp 10.0.0.2:7000 > 10.0.0.9:1000", refused),
        (WEB, "udp 10.0.0.3:61000 > 10.0.0.9:53", Verdict::Drop(DropReason::Spoofed)),
        (WEB, "tcp 10.0.0.2:8080 > 10.0.0.9:1000", Verdict::Wire),
        (WEB, "udp 10.0.0.2:61000 > 10.0.0.9:53", Verdict::Wire),
        (HOST, "tcp 10.0.0.2:22 > 10.0.0.9:1000", Verdict::Wire),
    ] {
        assert_eq!(fixture.leaves(source, text), verdict, "{source}: {text}");
    }
    assert_eq!(fixture.frame(WEB, HOST_MAC, "udp 10.0.0.2:61000 > 10.0.0.2:53"), Verdict::Drop(DropReason::SamePort));
}

/// A flow that one of them has begun is closed to the others, and what was only sent at a port is not begun.
#[test]
fn flows_that_were_begun_are_not_taken() {
    let mut fixture = Fixture::new();
    let flow = "udp 10.0.0.2:61000 > 10.0.0.9:53";
    // The remote sends first: the host gets it, and does not answer.
    assert_eq!(fixture.arrives("udp 10.0.0.9:53 > 10.0.0.2:61000"), Verdict::App(HOST));
    assert_eq!(fixture.leaves(WEB, flow), Verdict::Wire);
    for _ in 0..2 {
        assert_eq!(fixture.arrives("udp 10.0.0.9:53 > 10.0.0.2:61000"), Verdict::App(WEB), "at once");
    }
    assert_eq!(fixture.leaves(BATCH, flow), Verdict::Drop(NOT_LEASED));
    assert_eq!(fixture.leaves(HOST, flow), Verdict::Drop(NOT_LEASED));
    // What the host has answered stays its own.
    assert_eq!(fixture.arrives("udp 10.0.0.9:53 > 10.0.0.2:61009"), Verdict::App(HOST));
    assert_eq!(fixture.leaves(HOST, "udp 10.0.0.2:61009 > 10.0.0.9:53"), Verdict::Wire);
    assert_eq!(fixture.leaves(WEB, "udp 10.0.0.2:61009 > 10.0.0.9:53"), Verdict::Drop(NOT_LEASED));
    assert_eq!(fixture.arrives("udp 10.0.0.9:53 > 10.0.0.2:61009"), Verdict::App(HOST));
}

/// ICMP errors go to whom they are about, and fragments where their first one went.
#[test]
fn errors_and_fragments_follow_their_flow() {
    let mut fixture = Fixture::new();
    assert_eq!(fixture.leaves(WEB, "udp 10.0.0.2:61000 > 10.0.0.9:53"), Verdict::Wire);
    assert_eq!(fixture.leaves(HOST, "udp 10.0.0.2:40000 > 10.0.0.9:53"), Verdict::Wire);
    for (port, id) in [(61_000_u16, WEB), (40_000, HOST), (62_000, HOST)] {
        let quoted = between(HOST_MAC, FAR_MAC, &format!("udp 10.0.0.2:{port} > 10.0.0.9:53"));
        let (headers, _) = kopi_packet::parse(&quoted, WEB);
        let mut error = [0; kopi_packet::reply::MAX_LEN];
        let length = kopi_packet::reply::unreachable(&quoted, &headers, &mut error).unwrap();
        assert_eq!(fixture.bytes(WIRE, &error[..length]), Verdict::App(id), "{port}");
    }
    let mut first = between(FAR_MAC, HOST_MAC, "udp 10.0.0.9:53 > 10.0.0.2:61000");
    first[14 + 6] = 0x20;
    let mut later = first.clone();
    later[14 + 6..14 + 8].copy_from_slice(&[0, 1]);
    for part in [&mut first, &mut later] {
        let (headers, _) = kopi_packet::parse(part, WIRE);
        kopi_packet::checksum::complete(part, &headers);
    }
    assert!(matches!(fixture.bytes(WIRE, &later), Verdict::Refuse(HOST, DropReason::Fragment)), "not before the first");
    assert_eq!(fixture.bytes(WIRE, &first), Verdict::App(WEB));
    assert_eq!(fixture.bytes(WIRE, &later), Verdict::App(WEB));
}
