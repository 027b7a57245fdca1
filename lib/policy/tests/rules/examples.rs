//! The example policies that are shipped do what they are meant for.

use std::path::Path;
use std::sync::Arc;

use kopi_config::policy::{Decision, Direction, Direction::Egress, Direction::Ingress, Policy, State};
use kopi_packet::{Fragment, MacAddr};
use kopi_policy::{Accounts, Cause, Evaluation, Owner, Packet, PortPolicy, Ruleset, Violation};

use crate::frame::{Body, Frame, Ip, L4, Pair};

/// Bob is user 1001, charlie 1002, `metrics` 1003, everybody else 33.
struct Machine;

impl Accounts for Machine {
    fn user(&self, name: &str) -> Option<u32> {
        Some(match name {
            "bob" => 1001,
            "charlie" => 1002,
            "metrics" => 1003,
            _ => 33,
        })
    }

    fn group(&self, _: &str) -> Option<u32> {
        Some(100)
    }
}

fn ruleset(name: &str) -> Ruleset {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config/examples").join(name);
    Ruleset::new(Arc::new(Policy::read(path).unwrap()), &Machine).unwrap()
}

/// An attached app, as it came in by the entry for it.
struct Client<'a> {
    ruleset: &'a Ruleset,
    port_policy: PortPolicy,
}

impl<'a> Client<'a> {
    fn new(ruleset: &'a Ruleset, name: &'a str, uid: u32, exe: &'a str) -> Self {
        let owner = Owner { uid: Some(uid), gid: Some(uid), groups: Some(&[]), exe: Some(exe), ..Owner::unknown(name) };
        let entry = ruleset.admit(&owner, name).unwrap();
        let macs: Vec<MacAddr> = entry.and_then(|entry| ruleset.policy().apps[entry].mac).into_iter().collect();
        Self { ruleset, port_policy: ruleset.port_policy(&owner, entry, &macs) }
    }

    fn evaluate(&self, direction: Direction, state: State, number: u8, src: [u8; 4], l4: L4) -> Evaluation {
        let ip = Ip { addresses: Pair::V4(src, [10, 0, 0, 99]), dscp: 0, part: Fragment::None, l4, short: false };
        let frame = Frame { dst_mac: 0x63, src_mac: number, tags: vec![], body: Body::Ip(ip) };
        let key = frame.key(0, 0xff);
        self.ruleset.evaluate(&self.port_policy, &Packet::new(direction, &key, state))
    }
}

const POSTGRES: &str = "/usr/lib/postgresql/15/bin/postgres";

/// Bob's postgres has tcp/5432 and charlie's mysqld tcp/3306, and neither the other's; another program of bob's does not
/// come in at all.
#[test]
fn paper_partitions_the_ports() {
    let ruleset = ruleset("policy-paper.toml");
    let tcp = |src, dst| L4::Tcp { src, dst, flags: 2 };
    let bob = Client::new(&ruleset, "bob-postgres", 1001, POSTGRES);
    let charlie = Client::new(&ruleset, "charlie-mysqld", 1002, "/usr/sbin/mysqld");
    for (client, number, own, other) in [(&bob, 11, 5432, 3306), (&charlie, 12, 3306, 5432)] {
        let from = [10, 0, 0, number];
        for (port, decision) in [(own, Decision::Accept), (other, Decision::Drop)] {
            let reached = client.evaluate(Ingress, State::New, 0x63, [10, 0, 0, 9], tcp(999, port));
            let answers = client.evaluate(Egress, State::Established, number, from, tcp(port, 999));
            assert_eq!((reached.decision, answers.decision), (decision, decision), "{number} {port}");
        }
        let spoofs = client.evaluate(Egress, State::New, number, [10, 0, 0, 77], tcp(own, 999));
        assert_eq!(spoofs.cause, Cause::PortSecurity(Violation::Ip));
        assert_eq!(spoofs.class, bob_or_charlie(&ruleset, number));
    }
    let other =
        Owner { uid: Some(1001), gid: Some(1001), groups: Some(&[]), exe: Some("/bin/nc"), ..Owner::unknown("") };
    assert!(ruleset.admit(&other, "").is_err());
}

fn bob_or_charlie(ruleset: &Ruleset, number: u8) -> Option<u16> {
    let name = if number == 11 { "bob" } else { "charlie" };
    let class = ruleset.policy().classes.iter().position(|class| class.name == name)?;
    u16::try_from(class).ok()
}

/// On the locked-down host a rule has to allow what passes, and what is established passes.
#[test]
fn lockdown_passes_what_is_listed() {
    let ruleset = ruleset("policy-lockdown.toml");
    let web = Client::new(&ruleset, "web", 33, "/usr/sbin/nginx");
    let rule = |evaluation: Evaluation| match evaluation.cause {
        Cause::Rule(index) => (evaluation.decision, ruleset.rules()[index as usize].name.as_str()),
        cause => panic!("{cause:?}"),
    };
    let tcp = |dst, flags| L4::Tcp { src: 999, dst, flags };
    let client = [10, 0, 0, 9];
    let reached = |state, l4| web.evaluate(Ingress, state, 0x63, client, l4);
    assert_eq!(rule(reached(State::New, tcp(443, 2))), (Decision::Accept, "web"));
    assert_eq!(rule(reached(State::Established, tcp(443, 16))), (Decision::Accept, "established"));
    assert_eq!(reached(State::New, tcp(443, 16)).cause, Cause::Default);
    assert_eq!(reached(State::New, tcp(22, 2)).cause, Cause::PortSecurity(Violation::Listen));
    let ping = L4::Icmp { kind: 8, code: 0, rest: vec![0; 8] };
    assert_eq!(rule(reached(State::New, ping)), (Decision::Accept, "ping"));
    assert_eq!(ruleset.tcp_flags_mask(), 0b1_0111);
}
