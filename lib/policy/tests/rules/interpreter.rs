//! What the rules mean, said as plainly as can be: one rule after the other, one field after the other.

use std::net::IpAddr;

use kopi_config::Account;
use kopi_config::policy::{
    Action, Addresses, Decision, Direction, Field, Match, OwnerMatch, Owners, Policy, Rule, Scalar, State,
};
use kopi_packet::Fragment;
use kopi_policy::{Cause, Evaluation, Owner};

use crate::frame::{Body, Frame, Ip, L4, Pair, mac};

/// A frame at the side of an app.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case<'a> {
    pub(crate) frame: &'a Frame,
    pub(crate) direction: Direction,
    pub(crate) state: State,
}

/// Evaluates a frame of an app without an entry.
pub(crate) fn evaluate(policy: &Policy, owner: &Owner<'_>, case: Case<'_>) -> Evaluation {
    let mut evaluation =
        Evaluation { decision: Decision::Drop, cause: Cause::Malformed, passing: 0, class: None, log: false };
    if case.frame.is_malformed() && policy.default.malformed == Decision::Drop {
        return evaluation;
    }
    let later = matches!(&case.frame.body, Body::Ip(ip) if ip.part == Fragment::Later);
    if later && policy.default.fragments == Decision::Drop {
        return Evaluation { cause: Cause::Fragment, ..evaluation };
    }
    let mut bit = 1;
    for (index, rule) in policy.rules.iter().enumerate() {
        let matches = owned(rule, owner) && holds(&rule.matches, case);
        if matches {
            evaluation.class =
                rule.class.of(case.direction).map(|class| u16::try_from(class).unwrap()).or(evaluation.class);
            evaluation.log |= rule.log || rule.action == Action::Log;
        }
        match rule.action {
            Action::Decide(decision) if matches => {
                let cause = Cause::Rule(u32::try_from(index).unwrap());
                return Evaluation { decision, cause, ..evaluation };
            }
            Action::Decide(_) => {}
            _ => {
                evaluation.passing |= if matches { bit } else { 0 };
                bit <<= 1;
            }
        }
    }
    let decision = match case.direction {
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

fn holds(rule: &Match, case: Case<'_>) -> bool {
    let Frame { dst_mac, src_mac, tags, body } = case.frame;
    let ethertype = match body {
        Body::Ip(ip) => Some(if ip.is_v6() { 0x86dd } else { 0x0800 }),
        Body::Arp { .. } => Some(0x0806),
        Body::Other { ethertype } => Some(*ethertype),
        Body::Length => None,
    };
    rule.direction.is_none_or(|direction| direction == case.direction)
        && rule.state.is_none_or(|states| states.contains(case.state))
        && within(rule.ethertype.as_ref(), ethertype)
        && within(rule.vlan.as_ref(), Some(tags.first().map_or(0, |tag| tag & 0xfff)))
        && within(rule.inner_vlan.as_ref(), Some(tags.get(1).map_or(0, |tag| tag & 0xfff)))
        && within(rule.dst_mac.as_ref(), Some(mac(*dst_mac).to_u64()))
        && within(rule.src_mac.as_ref(), Some(mac(*src_mac).to_u64()))
        && holds_for_ip(rule, if let Body::Ip(ip) = body { Some(ip) } else { None })
        && holds_for_arp(rule, body)
}

fn holds_for_ip(rule: &Match, ip: Option<&Ip>) -> bool {
    let (src, dst) = match ip.map(|ip| ip.addresses) {
        Some(Pair::V4(src, dst)) => (Some(IpAddr::from(src)), Some(IpAddr::from(dst))),
        Some(Pair::V6(src, dst)) => (Some(IpAddr::from(src)), Some(IpAddr::from(dst))),
        None => (None, None),
    };
    let v6 = ip.is_some_and(Ip::is_v6);
    let l4 = ip.filter(|ip| ip.part != Fragment::Later && !ip.short).map(|ip| &ip.l4);
    let (ports, flags) = match l4 {
        Some(&L4::Tcp { src, dst, flags }) => (Some((src, dst)), Some(flags)),
        Some(&L4::Udp { src, dst }) => (Some((src, dst)), None),
        _ => (None, None),
    };
    let icmp = match l4 {
        Some(L4::Icmp { kind, code, .. }) => Some(u16::from(*kind) << 8 | u16::from(*code)),
        _ => None,
    };
    among(rule.src.as_ref(), src)
        && among(rule.dst.as_ref(), dst)
        && within(rule.proto.as_ref(), ip.map(|ip| ip.l4.proto(v6)))
        && within(rule.dscp.as_ref(), ip.map(|ip| ip.dscp))
        && within(rule.src_port.as_ref(), ports.map(|(src, _)| src))
        && within(rule.dst_port.as_ref(), ports.map(|(_, dst)| dst))
        && within(rule.icmp.as_ref(), icmp.filter(|_| !v6))
        && within(rule.icmp6.as_ref(), icmp.filter(|_| v6))
        && rule.tcp_flags.is_none_or(|wanted| flags.is_some_and(|flags| flags & wanted.mask == wanted.value))
        && rule.fragment.is_none_or(|wanted| ip.is_some_and(|ip| (ip.part != Fragment::None) == wanted))
}

fn holds_for_arp(rule: &Match, body: &Body) -> bool {
    let arp = match body {
        Body::Arp { op, sender, src, dst } => {
            Some((*op, mac(*sender).to_u64(), IpAddr::from(*src), IpAddr::from(*dst)))
        }
        _ => None,
    };
    within(rule.arp_op.as_ref(), arp.map(|arp| arp.0))
        && within(rule.arp_src_mac.as_ref(), arp.map(|arp| arp.1))
        && among(rule.arp_src.as_ref(), arp.map(|arp| arp.2))
        && among(rule.arp_dst.as_ref(), arp.map(|arp| arp.3))
}

/// Whether the rule is for the owner. What is not known is nothing that is asked for, and under `not` it is enough to be
/// refused, not to be allowed.
fn owned(rule: &Rule, owner: &Owner<'_>) -> bool {
    let OwnerMatch { is, not, .. } = &rule.owner;
    let allows = matches!(rule.action, Action::Decide(Decision::Accept) | Action::Class);
    let has = stated(is, owner).into_iter().all(|answer| answer == Some(true));
    has && stated(not, owner).into_iter().all(|answer| answer == Some(false) || answer.is_none() && !allows)
}

/// For every list that is stated: whether one of it is the owner's, if that is known.
fn stated(lists: &Owners, owner: &Owner<'_>) -> Vec<Option<bool>> {
    let mut answers = Vec::new();
    let mut text = |globs: Vec<&str>, value: Option<&str>| {
        if !globs.is_empty() {
            // The patterns of this test are names, or a star alone.
            answers.push(value.map(|value| globs.iter().any(|glob| *glob == "*" || *glob == value)));
        }
    };
    text(lists.apps.iter().map(|glob| glob.as_str()).collect(), Some(owner.name));
    text(lists.comms.iter().map(|glob| glob.as_str()).collect(), owner.comm);
    text(lists.exes.iter().map(|glob| glob.as_str()).collect(), owner.exe);
    text(lists.labels.iter().map(|glob| glob.as_str()).collect(), owner.label);
    // The cgroups of this test have no others below them.
    text(lists.cgroups.iter().map(|cgroup| cgroup.as_str()).collect(), owner.cgroup);
    // One has a unit before it, and the system's begin with their first digits.
    let mut contained = |ids: Vec<&str>, value: Option<&str>| {
        let is = |id: &str, value: &str| match id {
            "*" => !value.is_empty() && !value.contains('/'),
            "u/*" => value.starts_with("u/"),
            id => value.starts_with(id),
        };
        if !ids.is_empty() {
            answers.push(value.map(|value| ids.iter().any(|id| is(id, value))));
        }
    };
    contained(lists.containers.iter().map(|id| id.as_str()).collect(), owner.container);
    contained(lists.pods.iter().map(|id| id.as_str()).collect(), owner.pod);
    if !lists.users.is_empty() {
        answers.push(owner.uid.map(|uid| lists.users.contains(&Account::Id(uid))));
    }
    if !lists.groups.is_empty() {
        let mine: Vec<u32> = owner.gid.into_iter().chain(owner.groups.unwrap_or_default().iter().copied()).collect();
        let known = owner.gid.is_some() && owner.groups.is_some();
        let one = mine.iter().any(|gid| lists.groups.contains(&Account::Id(*gid)));
        answers.push(if one { Some(true) } else { known.then_some(false) });
    }
    answers
}
