//! Flow rules of a receiver, behind the policy.

use super::*;
use crate::flow_rules::FlowRules;
use crate::rss::{Rss, RssTable};
use kopi_packet::describe::frame_between;
use kopi_packet::{AddressPattern, FlowPattern, IpPattern, Masked, PortsPattern, Toeplitz, TransportPattern};
use kopi_ring::layout::Notes;
use kopi_ring::message::{FlowAction, FlowRule};

/// Nothing but UDP to port 99 is dropped by the policy.
const POLICY: &str = r#"
[default]
egress = "accept"
ingress = "accept"

[[app]]
name = "one"

[[rule]]
name = "no-99"
match = { proto = "udp", dst_port = 99 }
action = "drop"
"#;

/// A rule for UDP to this port.
fn udp_to(slot: u16, port: u16) -> FlowRule {
    let ports = PortsPattern { src: Masked::default(), dst: Masked::new(port, 0xffff) };
    let addresses = AddressPattern::V4 { src: Masked::default(), dst: Masked::default() };
    let ip = IpPattern { addresses, transport: TransportPattern::Udp(ports) };
    let pattern = FlowPattern { ip: Some(ip), ..FlowPattern::default() };
    FlowRule { slot, priority: 0, pattern, action: FlowAction::Pass, queue: None, told: false }
}

/// The second app's RSS, with `rules`.
fn spread(rules: &[FlowRule]) -> RssTable {
    let usual = Rss::usual(Arc::new(Toeplitz::new([6; 40])), 4);
    let own = usual.clone().with_rules(Arc::new(FlowRules::new(rules, 4)));
    RssTable::new(Arc::new(usual), [(2, Arc::new(own))])
}

/// What the policy lets through is dropped or sent to a queue by the receiver's rules, for as long as they are there. What it does not
/// let through stays where it is.
#[test]
fn rules_come_after_the_policy() {
    let policy = Policy::parse(POLICY, "test").unwrap();
    let rules = [
        FlowRule { action: FlowAction::Drop, ..udp_to(0, 53) },
        FlowRule { queue: Some(3), told: true, ..udp_to(7, 80) },
        FlowRule { queue: Some(1), ..udp_to(8, 99) },
    ];
    let mut cached = Cached::new();
    let with = |epoch, rules: &[FlowRule]| snapshot(epoch, &policy).with_rss(spread(rules));
    let mut fate = |snapshot: &Snapshot, port: u16| {
        let [from, to] = [MACS[0], MACS[1]].map(MacAddr::new);
        let frame = frame_between(&format!("udp 10.0.0.1:1 > 10.0.0.2:{port}"), from, to).unwrap();
        let verdict = cached.evaluate(&frame, 1, snapshot, 1).verdict;
        let key = kopi_packet::parse(&frame, 1).1;
        let hash = cached.flows.hash(&key);
        (verdict, cached.flows.flow(&key, hash, u32::MAX, 1).unwrap().notes())
    };
    let (ruled, bare) = (with(1, &rules), with(2, &[]));
    for snapshot in [&ruled, &ruled] {
        assert_eq!(fate(snapshot, 53).0, Verdict::Refuse(2, DropReason::FlowRule));
        assert_eq!(fate(snapshot, 80), (Verdict::App(2), Notes::steered(0x211, 7, 3)));
        assert_eq!(fate(snapshot, 99).0, Verdict::Drop(DropReason::Policy));
        let (verdict, notes) = fate(snapshot, 100);
        assert_eq!((verdict, notes.is_steered()), (Verdict::App(2), false));
    }
    for port in [53, 80] {
        let (verdict, notes) = fate(&bare, port);
        assert_eq!((verdict, notes.is_steered(), notes.hash() == 0), (Verdict::App(2), false, false));
    }
}

/// Frames that are evaluated one by one have their receiver's rules looked through once under a snapshot, also if one drops them.
#[test]
fn rules_are_looked_through_once_a_flow() {
    let policy = Policy::parse(POLICY, "test").unwrap();
    let mut cached = Cached::new();
    let with = |rules: &[FlowRule]| snapshot(1, &policy).with_rss(spread(rules));
    let frame = frame_between("udp 10.0.0.1:1 > 10.0.0.2:53", MacAddr::new(MACS[0]), MacAddr::new(MACS[1])).unwrap();
    let key = kopi_packet::parse(&frame, 1).1;
    let hash = cached.flows.hash(&key);
    // Of one epoch, so that a second look would be seen.
    for snapshot in [with(&[FlowRule { action: FlowAction::Drop, ..udp_to(0, 53) }]), with(&[])] {
        let flow = cached.flows.flow(&key, hash, u32::MAX, 1).unwrap();
        cached.policy_stage.evaluate(flow, &frame, &key, &snapshot, 1);
        assert_eq!(flow.verdict, Verdict::Refuse(2, DropReason::FlowRule));
    }
}
