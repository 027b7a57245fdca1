//! What the rules of a policy mean, said as plainly as can be: one rule after the other, one field after the other.

use std::net::IpAddr;

use kopi_config::policy::{Action, Addresses, Decision, Direction, Field, Match, Owners, Policy, Rule, Scalar};
use kopi_packet::{FlowKey, Fragment, MacAddr, Shape};
use kopi_policy::{Accounts, Cause, Evaluation, Owner, Packet, Selector};

/// Evaluates a frame of an app without an entry.
pub(super) fn evaluate(policy: &Policy, machine: &dyn Accounts, owner: &Owner<'_>, packet: &Packet<'_>) -> Evaluation {
    let mut evaluation =
        Evaluation { decision: Decision::Drop, cause: Cause::Malformed, passing: 0, class: None, log: false };
    if matches!(packet.key.shape(), Shape::Malformed(_) | Shape::Runt) && policy.default.malformed == Decision::Drop {
        return evaluation;
    }
    if packet.key.fragment() == Fragment::Later && policy.default.fragments == Decision::Drop {
        return Evaluation { cause: Cause::Fragment, ..evaluation };
    }
    let mut bit = 1;
    for (index, rule) in (0..).zip(&policy.rules) {
        let matches = owned(rule, machine, owner) && holds(&rule.matches, packet);
        if matches {
            let class = rule.class.of(packet.direction).map(|class| u16::try_from(class).expect("few classes"));
            evaluation.class = class.or(evaluation.class);
            evaluation.log |= rule.log || rule.action == Action::Log;
        }
        match rule.action {
            Action::Decide(decision) if matches => {
                return Evaluation { decision, cause: Cause::Rule(index), ..evaluation };
            }
            Action::Decide(_) => {}
            _ => {
                evaluation.passing |= if matches { bit } else { 0 };
                bit <<= 1;
            }
        }
    }
    let decision = match packet.direction {
        Direction::Egress => policy.default.egress,
        Direction::Ingress => policy.default.ingress,
    };
    Evaluation { decision, cause: Cause::Default, ..evaluation }
}

/// A field that is not stated holds; one that is stated does not hold for a frame without it.
fn within<T: Scalar>(field: Option<&Field<T>>, value: Option<T>) -> bool {
    let Some(field) = field else { return true };
    value.is_some_and(|value| field.ranges().iter().any(|range| range.contains(&value)))
}

fn among(addresses: Option<&Addresses>, value: Option<IpAddr>) -> bool {
    match (addresses, value) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(addresses), Some(IpAddr::V4(value))) => within(Some(&addresses.v4), Some(value.to_bits())),
        (Some(addresses), Some(IpAddr::V6(value))) => within(Some(&addresses.v6), Some(value.to_bits())),
    }
}

fn holds(rule: &Match, packet: &Packet<'_>) -> bool {
    let key = packet.key;
    rule.direction.is_none_or(|direction| direction == packet.direction)
        && rule.state.is_none_or(|states| states.contains(packet.state))
        && holds_for_link(rule, key)
        && holds_for_ip(rule, key)
        && holds_for_arp(rule, key)
}

fn holds_for_link(rule: &Match, key: &FlowKey) -> bool {
    let ethertype = (key.ethertype() != 0).then_some(key.ethertype());
    let frame = key.shape() != Shape::Runt;
    within(rule.ethertype.as_ref(), ethertype)
        && within(rule.vlan.as_ref(), Some(key.outer_vlan().map_or(0, |tag| tag.id())))
        && within(rule.inner_vlan.as_ref(), Some(key.inner_vlan().map_or(0, |tag| tag.id())))
        && within(rule.dst_mac.as_ref(), frame.then(|| key.dst_mac().to_u64()))
        && within(rule.src_mac.as_ref(), frame.then(|| key.src_mac().to_u64()))
}

fn holds_for_ip(rule: &Match, key: &FlowKey) -> bool {
    let ip = key.arp_operation().is_none() && key.src_addr().is_some();
    let addresses = if ip { (key.src_addr(), key.dst_addr()) } else { (None, None) };
    let v6 = key.src_addr().is_some_and(|address| address.is_ipv6());
    let ports = key.src_port().zip(key.dst_port());
    let flags = (key.proto() == 6 && ports.is_some()).then(|| key.tcp_flags());
    let icmp = key.icmp().map(|(kind, code)| u16::from(kind) << 8 | u16::from(code));
    among(rule.src.as_ref(), addresses.0)
        && among(rule.dst.as_ref(), addresses.1)
        && within(rule.proto.as_ref(), ip.then(|| key.proto()))
        && within(rule.dscp.as_ref(), ip.then(|| key.dscp()))
        && within(rule.src_port.as_ref(), ports.map(|(src, _)| src))
        && within(rule.dst_port.as_ref(), ports.map(|(_, dst)| dst))
        && within(rule.icmp.as_ref(), icmp.filter(|_| !v6))
        && within(rule.icmp6.as_ref(), icmp.filter(|_| v6))
        && rule.tcp_flags.is_none_or(|wanted| flags.is_some_and(|flags| flags & wanted.mask == wanted.value))
        && rule.fragment.is_none_or(|wanted| ip && (key.fragment() != Fragment::None) == wanted)
}

fn holds_for_arp(rule: &Match, key: &FlowKey) -> bool {
    let arp = key.arp_operation().is_some();
    let addresses = if arp { (key.src_addr(), key.dst_addr()) } else { (None, None) };
    within(rule.arp_op.as_ref(), key.arp_operation())
        && within(rule.arp_src_mac.as_ref(), key.arp_sender().map(MacAddr::to_u64))
        && among(rule.arp_src.as_ref(), addresses.0)
        && among(rule.arp_dst.as_ref(), addresses.1)
}

/// Whether the rule is for the owner. What is not known is nothing that is asked for, and under `not` it is enough to be
/// refused, not to be allowed.
fn owned(rule: &Rule, machine: &dyn Accounts, owner: &Owner<'_>) -> bool {
    let allows = matches!(rule.action, Action::Decide(Decision::Accept) | Action::Class);
    let has = |list: &[Owners]| {
        list.iter().any(|one| Selector::new(one, machine).is_ok_and(|selector| selector.holds(owner)))
    };
    stated(&rule.owner.is).iter().all(|(list, _)| has(list))
        && stated(&rule.owner.not).iter().all(|(list, known)| if known(owner) { !has(list) } else { !allows })
}

type Known = fn(&Owner<'_>) -> bool;

/// Every list that is stated: each of its elements by itself, and whether what it asks for is known of an owner.
fn stated(owners: &Owners) -> Vec<(Vec<Owners>, Known)> {
    fn each<T: Clone>(list: &[T], put: fn(&mut Owners, Vec<T>)) -> Vec<Owners> {
        let one = |element: &T| {
            let mut owners = Owners::default();
            put(&mut owners, vec![element.clone()]);
            owners
        };
        list.iter().map(one).collect()
    }
    let lists: [(Vec<Owners>, Known); 9] = [
        (each(&owners.apps, |owners, list| owners.apps = list), |_| true),
        (each(&owners.comms, |owners, list| owners.comms = list), |owner| owner.comm.is_some()),
        (each(&owners.exes, |owners, list| owners.exes = list), |owner| owner.exe.is_some()),
        (each(&owners.cgroups, |owners, list| owners.cgroups = list), |owner| owner.cgroup.is_some()),
        (each(&owners.containers, |owners, list| owners.containers = list), |owner| owner.container.is_some()),
        (each(&owners.pods, |owners, list| owners.pods = list), |owner| owner.pod.is_some()),
        (each(&owners.labels, |owners, list| owners.labels = list), |owner| owner.label.is_some()),
        (each(&owners.users, |owners, list| owners.users = list), |owner| owner.uid.is_some()),
        (each(&owners.groups, |owners, list| owners.groups = list), |owner| owner.groups.is_some()),
    ];
    lists.into_iter().filter(|(list, _)| !list.is_empty()).collect()
}
