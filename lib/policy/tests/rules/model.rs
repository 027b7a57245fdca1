//! Compiled rules against the interpreter, over random policies and frames.

use std::sync::Arc;

use kopi_config::Account;
use kopi_config::policy::{
    Action, Addresses, CgroupPath, Class, ClassSelection, ContainerId, Decision, Direction, Field, Glob, Match,
    OwnerMatch, Owners, Policy, Rule, Scalar, State, States, TcpFlags, Union,
};
use kopi_packet::Fragment;
use kopi_policy::{Cause, Owner, Packet, Ruleset};
use proptest::collection::vec;
use proptest::option::weighted;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use crate::frame::{Body, Frame, Ip, L4, Pair, mac};
use crate::interpreter::{self, Case};

/// Values of a field: a few of the small numbers that frames have, or all others.
fn field<T: Scalar + std::fmt::Debug>(values: impl Strategy<Value = T>) -> impl Strategy<Value = Field<T>> {
    let range = (values, any::<bool>());
    (vec(range, 0..4), weighted(0.3, Just(()))).prop_map(|(values, negated)| {
        let up = |value: T| value.after().unwrap_or(value);
        let field = Field::new(values.into_iter().map(|(value, wide)| value..=if wide { up(value) } else { value }));
        if negated.is_some() { field.negated() } else { field }
    })
}

fn addresses() -> impl Strategy<Value = Addresses> {
    let v4 = field((0_u8..6).prop_map(|n| u32::from_be_bytes([10, 0, 0, n])));
    let v6 = field((0_u8..6).prop_map(|n| 0xfd00 << 112 | u128::from(n)));
    (v4, v6).prop_map(|(v4, v6)| Addresses { v4, v6 })
}

fn decision() -> impl Strategy<Value = Decision> {
    prop_oneof![Just(Decision::Accept), Just(Decision::Drop), Just(Decision::Reject)]
}

fn direction() -> impl Strategy<Value = Direction> {
    prop_oneof![Just(Direction::Egress), Just(Direction::Ingress)]
}

const STATES: [State; 5] = [State::New, State::Established, State::Related, State::Invalid, State::Untracked];

fn state() -> impl Strategy<Value = State> {
    proptest::sample::select(&STATES[..])
}

fn macs() -> impl Strategy<Value = Field<u64>> {
    field((0_u8..4).prop_map(|n| mac(n).to_u64()))
}

/// How often a rule states a field that every frame has, and one that few frames have.
const OFTEN: f64 = 0.2;
const SELDOM: f64 = 0.08;

fn link_match() -> impl Strategy<Value = Match> {
    let ethertype = field(proptest::sample::select(&[0x0800_u16, 0x0806, 0x86dd, 0x88cc][..]));
    let vlan = || weighted(SELDOM, field(0_u16..4));
    let mac = || weighted(SELDOM, macs());
    let link = (weighted(OFTEN, direction()), weighted(SELDOM, ethertype), vlan(), vlan(), mac(), mac());
    let states = weighted(OFTEN, vec(state(), 0..3).prop_map(States::of));
    let arp = || weighted(SELDOM, addresses());
    let arp = (weighted(SELDOM, field(0_u16..3)), arp(), arp(), mac());
    (link, states, arp).prop_map(|(link, states, arp)| {
        let mut m = Match::default();
        (m.direction, m.ethertype, m.vlan, m.inner_vlan, m.src_mac, m.dst_mac) = link;
        m.state = states;
        (m.arp_op, m.arp_src, m.arp_dst, m.arp_src_mac) = arp;
        m
    })
}

fn matches() -> impl Strategy<Value = Match> {
    let proto = field(proptest::sample::select(&[6_u8, 17, 1, 58, 47][..]));
    let icmp = || weighted(SELDOM, field((0_u16..3).prop_map(|n| n << 8 | n)));
    let address = || weighted(OFTEN, addresses());
    let port = || weighted(SELDOM, field(0_u16..5));
    let ip = (weighted(OFTEN, proto), address(), address(), port(), port(), icmp(), icmp());
    let flags =
        weighted(SELDOM, (0_u8..32, any::<u8>()).prop_map(|(mask, value)| TcpFlags { mask, value: value & mask }));
    let dscp = weighted(SELDOM, field(proptest::sample::select(&DSCPS[..])));
    (link_match(), ip, flags, weighted(SELDOM, any::<bool>()), dscp).prop_map(|(mut m, ip, flags, fragment, dscp)| {
        (m.proto, m.src, m.dst, m.src_port, m.dst_port, m.icmp, m.icmp6) = ip;
        (m.tcp_flags, m.fragment, m.dscp) = (flags, fragment, dscp);
        m
    })
}

const CONTAINER: &str = "3f2a0c1b2d3e4f5061728394a5b6c7d8e9fa0b1c2d3e4f5061728394a5b6c7d8";
const POD: &str = "2c48913c-b29f-11e7-9350-020968147796";

fn owners() -> impl Strategy<Value = Owners> {
    let globs = |texts: &'static [&'static str]| {
        weighted(0.15, proptest::sample::subsequence(texts, 1..=2)).prop_map(Option::unwrap_or_default)
    };
    let ids = |ids: &'static [u32]| {
        let some = weighted(0.2, proptest::sample::subsequence(ids, 1..=2)).prop_map(Option::unwrap_or_default);
        some.prop_map(|ids| ids.into_iter().map(Account::Id).collect::<Vec<_>>())
    };
    let texts = (globs(&["a", "b", "*"]), globs(&["sh", "vi"]), globs(&["/bin/sh", "/bin/vi"]), globs(&["/x", "/y"]));
    // A container by its first digits, any one, and one of somebody's; pods likewise.
    let containers = (globs(&["3f2a0c1b2d3e", "*", "u/*"]), globs(&[POD, "*"]));
    let texts = (texts, globs(&["web_t", "db_t"]), containers);
    (texts, ids(&[1000, 1001]), ids(&[100, 7, 8])).prop_map(
        |(((apps, comms, exes, cgroups), labels, (containers, pods)), users, groups)| {
            let glob = |texts: Vec<&str>| texts.into_iter().map(|text| Glob::new(text).unwrap()).collect();
            let mut owners = Owners::default();
            (owners.apps, owners.comms, owners.exes) = (glob(apps), glob(comms), glob(exes));
            owners.labels = glob(labels);
            owners.cgroups = cgroups.into_iter().map(|text| CgroupPath::new(text).unwrap()).collect();
            let id = |texts: Vec<&str>| texts.into_iter().map(|text| ContainerId::new(text).unwrap()).collect();
            (owners.containers, owners.pods) = (id(containers), id(pods));
            (owners.users, owners.groups) = (users, groups);
            owners
        },
    )
}

fn owner_match() -> impl Strategy<Value = OwnerMatch> {
    (weighted(0.3, owners()), weighted(0.3, owners())).prop_map(|(is, not)| {
        let mut owner = OwnerMatch::default();
        (owner.is, owner.not) = (is.unwrap_or_default(), not.unwrap_or_default());
        owner
    })
}

/// A rule, and how many rules that match nothing stand behind it: so the rules lie in several blocks.
fn rule() -> impl Strategy<Value = (Rule, usize)> {
    let action = prop_oneof![
        6 => decision().prop_map(Action::Decide), 1 => Just(Action::Log), 1 => Just(Action::Count), 1 => Just(Action::Class)
    ];
    let gap = prop_oneof![9 => Just(0), 1 => 0_usize..700];
    let class = || weighted(0.2, 0_usize..3);
    let classes = (class(), class()).prop_map(|(egress, ingress)| ClassSelection { egress, ingress });
    let rule = (matches(), owner_match(), action, weighted(0.2, Just(())), classes);
    (rule, gap).prop_map(|((matches, owner, action, log, class), gap)| {
        let mut rule = Rule::new(String::new(), matches, owner, action);
        rule.log = log.is_some();
        rule.class = class;
        if action == Action::Class && class.is_empty() {
            rule.class.egress = Some(0);
        }
        (rule, gap)
    })
}

fn policy() -> impl Strategy<Value = Policy> {
    let malformed = || prop_oneof![Just(Decision::Accept), Just(Decision::Drop)];
    let default = (decision(), decision(), malformed(), malformed());
    (vec(rule(), 0..30), default).prop_map(|(rules, default)| {
        let mut policy = Policy::default();
        let d = &mut policy.default;
        (d.egress, d.ingress, d.malformed, d.fragments) = default;
        policy.classes = (0..3).map(|n| Class::new(format!("class-{n}"))).collect();
        let mut nothing = Match::default();
        nothing.proto = Some(Field::new([250..=250]));
        let dead = Rule::new(String::new(), nothing, OwnerMatch::default(), Action::Decide(Decision::Drop));
        for (rule, gap) in rules {
            policy.rules.push(rule);
            policy.rules.extend(std::iter::repeat_n(dead.clone(), gap));
        }
        policy
    })
}

const DSCPS: [u8; 4] = [0, 10, 46, 63];

fn ip() -> impl Strategy<Value = Ip> {
    let l4 = prop_oneof![
        (0_u16..5, 0_u16..5, any::<u8>()).prop_map(|(src, dst, flags)| L4::Tcp { src, dst, flags }),
        (0_u16..5, 0_u16..5).prop_map(|(src, dst)| L4::Udp { src, dst }),
        (0_u8..3, 0_u8..3).prop_map(|(kind, code)| L4::Icmp { kind, code, rest: vec![0; 8] }),
        proptest::sample::select(&[47_u8, 1, 58, 50][..]).prop_map(L4::Other),
    ];
    let v4 = (0_u8..6, 0_u8..6).prop_map(|(a, b)| Pair::V4([10, 0, 0, a], [10, 0, 0, b]));
    let v6 = (0_u8..6, 0_u8..6).prop_map(|(a, b)| {
        let address = |n: u8| (0xfd00_u128 << 112 | u128::from(n)).to_be_bytes();
        Pair::V6(address(a), address(b))
    });
    let part = prop_oneof![8 => Just(Fragment::None), 1 => Just(Fragment::First), 1 => Just(Fragment::Later)];
    let short = prop_oneof![9 => Just(false), 1 => Just(true)];
    let dscp = proptest::sample::select(&DSCPS[..]);
    (prop_oneof![v4, v6], dscp, part, l4, short).prop_map(|(addresses, dscp, part, l4, short)| {
        // Type and protocol would be of the other family, which is malformed or means something else.
        let l4 = match (l4, &addresses) {
            (L4::Other(1), Pair::V4(..)) | (L4::Other(58), Pair::V6(..)) => L4::Other(47),
            (l4, _) => l4,
        };
        Ip { addresses, dscp, part, l4, short }
    })
}

pub(crate) fn frame() -> impl Strategy<Value = Frame> {
    let arp = (0_u16..3, 0_u8..4, 0_u8..6, 0_u8..6).prop_map(|(op, sender, a, b)| Body::Arp {
        op,
        sender,
        src: [10, 0, 0, a],
        dst: [10, 0, 0, b],
    });
    let other = prop_oneof![Just(Body::Other { ethertype: 0x88cc }), Just(Body::Length)];
    let body = prop_oneof![6 => ip().prop_map(Body::Ip), 2 => arp, 1 => other];
    (0_u8..4, 0_u8..4, vec(0_u16..4, 0..=2), body).prop_map(|(dst_mac, src_mac, tags, body)| Frame {
        dst_mac,
        src_mac,
        tags,
        body,
    })
}

fn some_owners() -> [Owner<'static>; 4] {
    let bob = Owner { name: "b", uid: Some(1001), gid: Some(101), ..Owner::default() };
    let alice = Owner { name: "a", uid: Some(1000), gid: Some(100), groups: Some(&[7, 9]), ..Owner::default() };
    let alice = Owner { comm: Some("sh"), exe: Some("/bin/sh"), cgroup: Some("/x"), label: Some("web_t"), ..alice };
    let vi = Owner { exe: None, comm: Some("vi"), groups: Some(&[]), ..alice };
    let vi = Owner { container: Some(CONTAINER), pod: Some(POD), ..vi };
    let alice = Owner { container: Some(""), pod: Some(""), ..alice };
    let bob = Owner { container: Some("u/aaaaaaaaaaaa"), ..bob };
    [alice, vi, bob, Owner::unknown("b")]
}

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, rng_seed: RngSeed::Fixed(1), ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config(400))]

    /// The compiled rules evaluate every frame of every owner as the interpreter does: decision, cause, rules passed,
    /// class and log. Two frames of one flow are evaluated alike, and so is one with other flags that no rule looks at.
    #[test]
    fn compiled_rules_are_the_rules(policy in policy(), cases in vec((frame(), direction(), state(), any::<u8>()), 20)) {
        let ruleset = Ruleset::new(Arc::new(policy), &()).unwrap();
        let policy = ruleset.policy();
        for owner in some_owners() {
            let port_policy = ruleset.port_policy(&owner, None, &[]);
            for (frame, direction, state, noise) in &cases {
                let expected = interpreter::evaluate(policy, &owner, Case { frame, direction: *direction, state: *state });
                let key = frame.key(*noise, 0xff);
                let evaluation = ruleset.evaluate(&port_policy, &Packet::new(*direction, &key, *state));
                prop_assert_eq!(evaluation, expected, "{:?} {:?} {:?}", owner, frame, key);
                let masked = frame.key(noise.wrapping_add(1), ruleset.tcp_flags_mask());
                prop_assert_eq!(evaluation, ruleset.evaluate(&port_policy, &Packet::new(*direction, &masked, *state)));
                if !ruleset.uses_state() {
                    let other = Packet::new(*direction, &masked, State::Invalid);
                    prop_assert_eq!(evaluation, ruleset.evaluate(&port_policy, &other));
                }
            }
        }
    }

    /// A trace is the evaluation itself, and the rules that it says did not match do not match alone either.
    #[test]
    fn trace_says_what_evaluate_does(policy in policy(), frame in frame(), direction in direction(), state in state()) {
        let ruleset = Ruleset::new(Arc::new(policy), &()).unwrap();
        let owner = some_owners()[0];
        let port_policy = ruleset.port_policy(&owner, None, &[]);
        let key = frame.key(0, 0xff);
        let packet = Packet::new(direction, &key, state);
        let trace = ruleset.trace(&port_policy, &packet, 5);
        prop_assert_eq!(trace.evaluation, ruleset.evaluate(&port_policy, &packet));
        prop_assert_eq!(trace.passed.len(), trace.evaluation.passing.count_ones() as usize);
        prop_assert_eq!(trace.rule.is_some(), matches!(trace.evaluation.cause, Cause::Rule(_)));
        prop_assert!(trace.missed.len() <= 5);
        for miss in &trace.missed {
            prop_assert!(!miss.fields.is_empty());
            let mut alone = Policy::default();
            (alone.default, alone.rules) = (ruleset.policy().default, vec![miss.rule.clone()]);
            let evaluation = interpreter::evaluate(&alone, &owner, Case { frame: &frame, direction, state });
            prop_assert!(evaluation.cause == Cause::Default && evaluation.passing == 0, "{:?}", miss);
        }
    }
}
