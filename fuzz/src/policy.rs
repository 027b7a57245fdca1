//! A policy from the input is compiled, and asked about frames from the input.

mod oracle;

use std::sync::Arc;

use kopi_config::policy::{Direction, Policy, State};
use kopi_packet::{MacAddr, dhcp, ndp, parse, tcp};
use kopi_policy::{Accounts, Cause, Owner, Packet, Ruleset};

/// What ends the policy and begins the frames.
const END: u8 = 0;
/// Longest frame that is cut out of the input.
const FRAME: usize = 80;
/// Rules of which the trace tells why they did not match.
const MISSES: usize = 5;

/// Users and groups by the lengths of their names; of some lengths there are none.
struct Machine;

impl Accounts for Machine {
    fn user(&self, name: &str) -> Option<u32> {
        u32::try_from(name.len()).ok().filter(|length| length % 3 != 0)
    }

    fn group(&self, name: &str) -> Option<u32> {
        u32::try_from(name.len()).ok().filter(|length| length % 3 != 1)
    }
}

/// The compiled policy decides as its rules say one after the other, and its trace says the same.
pub(crate) fn check(bytes: &[u8]) {
    let cut = bytes.iter().position(|byte| *byte == END).unwrap_or(bytes.len());
    let (text, frames) = bytes.split_at(cut);
    let Ok(policy) = Policy::parse(text, "fuzz.toml") else { return };
    let Ok(ruleset) = Ruleset::new(Arc::new(policy), &Machine) else { return };
    let owners = [
        Owner::unknown("app"),
        Owner {
            uid: Some(4),
            gid: Some(5),
            groups: Some(&[2, 6]),
            comm: Some("postgres"),
            exe: Some("/usr/bin/postgres"),
            cgroup: Some("/system.slice/db.service"),
            container: Some("db.service/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"),
            pod: Some(""),
            label: Some("system_u:system_r:db_t:s0"),
            ..Owner::unknown("db")
        },
    ];
    for owner in &owners {
        let entry = ruleset.admit(owner, owner.name).ok().flatten();
        let secured = ruleset.port_policy(owner, entry, &[MacAddr::new([2, 0, 0, 0, 0, 1])]);
        let plain = ruleset.port_policy(owner, None, &[]);
        for frame in frames.chunks(FRAME).chain([&[0; 60][..]]).take(4) {
            let (headers, key) = parse(frame, 1);
            let key = key.with_tcp_flags(tcp::flags_of(frame, &headers) & ruleset.tcp_flags_mask());
            let ndp = if ndp::is_ndp(&key) { ndp::message(frame, &headers) } else { None };
            let dhcp = if dhcp::is_for_server(&key) { dhcp::request(frame, &headers) } else { None };
            for (direction, state) in cases() {
                let packet = Packet { direction, key: &key, state, ndp, dhcp };
                let evaluation = ruleset.evaluate(&plain, &packet);
                // What is reserved for others may be used by nobody else, of which the rules say nothing.
                if !matches!(evaluation.cause, Cause::PortSecurity(_)) {
                    assert_eq!(
                        evaluation,
                        oracle::evaluate(ruleset.policy(), &Machine, owner, &packet),
                        "{key} {packet:?}"
                    );
                }
                let evaluation = ruleset.evaluate(&secured, &packet);
                let trace = ruleset.trace(&secured, &packet, MISSES);
                assert_eq!(trace.evaluation, evaluation, "{key} {packet:?}");
                assert_eq!(ruleset.evaluate_fragment(&secured, &packet, &evaluation), evaluation, "{key} {packet:?}");
            }
        }
    }
}

fn cases() -> impl Iterator<Item = (Direction, State)> {
    let states = [State::New, State::Established, State::Related, State::Invalid, State::Untracked];
    [Direction::Egress, Direction::Ingress].into_iter().flat_map(move |way| states.map(|state| (way, state)))
}
