//! Time to compile a policy, memory that took at most, time to work out the policy of an app, and time to evaluate the
//! first packet of a flow, over the number of rules:
//! `cargo bench -p kopi-policy --bench evaluate`.
//!
//! The keys are of as many flows, in random order. The median of many short rounds is printed, and the best one beside
//! it; a round visits the same keys as the one before, so what it looks at may lie in the second-level cache.
#![expect(clippy::print_stdout, reason = "a benchmark prints its result")]

use std::fs;
use std::hint::black_box;
use std::process::Command;
use std::sync::{Arc, LazyLock};
use std::time::Instant;

use kopi_config::Account;
use kopi_config::policy::{
    Action, Addresses, Decision, Direction, Field, Match, OwnerMatch, Policy, Rule, State, States, Union,
};
use kopi_packet::{FlowKey, parse};
use kopi_policy::{Owner, Packet, Ruleset};

const KEYS: usize = 4096;
const ROUNDS: usize = 300;

type Policies = (&'static str, &'static [u32], fn(u32) -> Rule);

const POLICIES: [Policies; 6] = [
    ("a destination each", &[1, 10, 100, 1_000, 10_000, 100_000], to),
    ("source, destination", &[10, 1_000, 10_000, 100_000], |n| if n % 2 == 0 { from(n) } else { to(n) }),
    ("port, owner, state", &[10, 1_000, 10_000, 100_000], services),
    ("all but one each", &[10, 1_000, 10_000, 100_000], all_but),
    ("wide ranges", &[10, 1_000, 10_000], wide),
    ("a set of 10,000", &[1, 100, 10_000], with_set),
];

fn main() {
    let mut words = std::env::args().skip(1).filter(|word| word != "--bench");
    if let (Some(policy), Some(count)) = (words.next(), words.next()) {
        let policy = policy.parse().ok().and_then(|at: usize| POLICIES.get(at));
        if let (Some((name, _, rule)), Ok(count)) = (policy, count.parse::<u32>()) {
            run(name, (0..count).map(rule).collect());
        }
        return;
    }
    println!("{:24} {:>7} {:>11} {:>9} {:>11}   ns per evaluation", "", "", "", "", "");
    println!("policy                     rules  compile ms        MB   attach us     median     best");
    for (at, (_, counts, _)) in POLICIES.iter().enumerate() {
        for count in *counts {
            // Memory is only seen in a process that has freed none before.
            let program = std::env::current_exe().expect("the benchmark runs from a file");
            let status = Command::new(program).args([at.to_string(), count.to_string()]).status();
            assert!(status.is_ok_and(|status| status.success()), "a part of the benchmark failed");
        }
    }
}

fn run(name: &str, rules: Vec<Rule>) {
    let count = rules.len();
    let mut policy = Policy::default();
    policy.rules = rules;
    let policy = Arc::new(policy);
    let before = resident();
    let start = Instant::now();
    let ruleset = Ruleset::new(policy, &()).expect("as many rules as may be");
    let compiled = start.elapsed().as_secs_f64() * 1e3;
    let memory = resident() - before;
    let owner = Owner { uid: Some(1003), gid: Some(100), groups: Some(&[]), ..Owner::unknown("app") };
    let start = Instant::now();
    let port_policy = ruleset.port_policy(&owner, None, &[]);
    let attach = start.elapsed().as_secs_f64() * 1e6;
    let keys = keys();
    let mut times: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            for key in &keys {
                let packet = Packet::new(Direction::Egress, black_box(key), State::New);
                black_box(ruleset.evaluate(&port_policy, &packet));
            }
            start.elapsed().as_secs_f64() * 1e9 / f64::from(u32::try_from(KEYS).unwrap_or(1))
        })
        .collect();
    times.sort_by(f64::total_cmp);
    println!(
        "{name:24} {count:7} {compiled:11.2} {memory:9.2} {attach:11.1}   {:8.1} {:8.1}",
        times[ROUNDS / 2],
        times[0]
    );
}

/// Megabytes that the process occupies.
fn resident() -> f64 {
    let text = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = text.split_ascii_whitespace().nth(1).and_then(|pages| pages.parse::<u32>().ok());
    f64::from(pages.unwrap_or(0)) * 4096.0 / 1e6
}

/// TCP from and to random addresses and ports, the same in every run.
fn keys() -> Vec<FlowKey> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = || {
        // Xorshift (Marsaglia, 2003).
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let key = |_| {
        let mut frame = [0_u8; 64];
        frame[..14].copy_from_slice(&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0]);
        frame[14..26].copy_from_slice(&[0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0]);
        let bytes = random().to_be_bytes();
        frame[26..30].copy_from_slice(&[10, bytes[0] & 1, bytes[1], bytes[2]]);
        frame[30..34].copy_from_slice(&[10, bytes[3] & 1, bytes[4], bytes[5]]);
        frame[34..38].copy_from_slice(&[0x9c, bytes[6], bytes[7] & 0x3f, bytes[6]]);
        parse(&frame, 1).1
    };
    (0..KEYS).map(key).collect()
}

fn drop_it() -> Action {
    Action::Decide(Decision::Drop)
}

fn rule(matches: Match, action: Action) -> Rule {
    Rule::new(String::new(), matches, OwnerMatch::default(), action)
}

fn v4(field: Field<u32>) -> Option<Addresses> {
    Some(Addresses { v4: field, v6: Field::default() })
}

fn one(number: u32) -> Field<u32> {
    let address = 0x0a00_0000 + number;
    Field::new([address..=address])
}

fn to(number: u32) -> Rule {
    let mut matches = Match::default();
    matches.dst = v4(one(number));
    rule(matches, drop_it())
}

fn from(number: u32) -> Rule {
    let mut matches = Match::default();
    matches.src = v4(one(number));
    rule(matches, drop_it())
}

/// One port for one of 256 users, or what is established to an address.
fn services(number: u32) -> Rule {
    let mut matches = Match::default();
    matches.proto = Some(Field::new([6..=6]));
    let port = u16::try_from(number % 0x4000).unwrap_or(0);
    matches.dst_port = Some(Field::new([port..=port]));
    matches.state = Some(States::of([if number.is_multiple_of(3) { State::New } else { State::Established }]));
    let mut rule = rule(matches, Action::Decide(Decision::Accept));
    rule.owner.is.users = vec![Account::Id(1000 + number % 256)];
    rule
}

/// Everything but one address, at one port: so the addresses of the rules overlap as far as they can.
fn all_but(number: u32) -> Rule {
    let mut matches = Match::default();
    matches.dst = v4(one(number).negated());
    matches.proto = Some(Field::new([17..=17]));
    rule(matches, drop_it())
}

/// Ranges that begin and end anywhere.
fn wide(number: u32) -> Rule {
    let mut matches = Match::default();
    let (a, b) = (number.wrapping_mul(0x9e37_79b1), number.wrapping_mul(0x85eb_ca6b));
    matches.dst = v4(Field::new([a.min(b)..=a.max(b)]));
    matches.proto = Some(Field::new([17..=17]));
    rule(matches, drop_it())
}

fn with_set(number: u32) -> Rule {
    static SET: LazyLock<Field<u32>> =
        LazyLock::new(|| Field::new((0..10_000_u32).map(|n| 0x0a00_0000 + n * 4..=0x0a00_0000 + n * 4)));
    let mut matches = Match::default();
    matches.dst = v4(SET.clone());
    let port = u16::try_from(number).unwrap_or(0);
    matches.dst_port = Some(Field::new([port..=port]));
    rule(matches, drop_it())
}
