//! The same rules in nftables, on a host with raw sockets, and in kopi, on applications with the shim, give the same
//! verdicts for the same packets.
//!
//! Every conversation of the matrix is played packet by packet on both sides. Of each packet nftables tells which rule
//! decided; of kopi it is seen whether the packet arrives and whether its sender is told otherwise, and the counters of
//! the rules have to agree.
#![expect(clippy::tests_outside_test_module, reason = "this whole file is a test")]
#![forbid(unsafe_code)]

mod kernel;
mod rules;
mod switch;
mod traffic;

use kernel::{Host, Verdicts};
use kopi_testkit::TempDir;
use rules::{Action, Policy};
use std::collections::{BTreeMap, BTreeSet};
use switch::{Outcomes, Switch};
use traffic::{Case, Step};

/// The conversations as far as both sides track them alike.
///
/// Linux moves a connection on as soon as it sees a packet of it, even if the rules drop that then; kopi only with what it
/// lets pass. So a conversation ends here with the first packet of a connection that is refused.
fn comparable(cases: Vec<Case>, kernel: &mut Verdicts) -> Vec<Case> {
    let accepted = |step: &Step| kernel.get(&step.id).is_some_and(|(_, action)| *action == Action::Accept);
    let shortened = cases.into_iter().map(|mut case| {
        let begun = case.steps.iter().position(accepted).unwrap_or(case.steps.len());
        let refused = |step: &Step| step.moves && !accepted(step);
        let end = case.steps.iter().skip(begun).position(refused).map_or(case.steps.len(), |at| begun + at + 1);
        case.steps.truncate(end);
        case
    });
    let shortened: Vec<Case> = shortened.collect();
    let left: BTreeSet<u16> = shortened.iter().flat_map(|case| &case.steps).map(|step| step.id).collect();
    kernel.retain(|id, _| left.contains(id));
    shortened
}

/// What differs between the two sides, in words.
fn differences(policy: &Policy, cases: &[Case], kernel: &Verdicts, kopi: &Outcomes) -> Vec<String> {
    let mut lines = Vec::new();
    for case in cases {
        for (number, step) in (1..).zip(&case.steps) {
            let Some((rule, expected)) = kernel.get(&step.id) else {
                lines.push(format!("{}: {}, packet {number}: the kernel has not judged it", policy.name, case.name));
                continue;
            };
            let expected = match expected {
                // Nobody is told of a reset or an error that goes nowhere.
                Action::Reject if step.silent => Action::Drop,
                action => *action,
            };
            let found = kopi.get(&step.id);
            if found != Some(&expected) {
                let (name, case) = (&policy.name, &case.name);
                let way = format!("{:?}", step.direction).to_lowercase();
                lines.push(format!(
                    "{name}: {case}, packet {number} ({way}): nftables {expected:?} by {rule}, kopi {found:?}"
                ));
            }
        }
    }
    lines
}

/// Rules whose counters do not agree.
fn miscounts(policy: &Policy, kernel: &Verdicts, kopi: &BTreeMap<String, u64>) -> Vec<String> {
    let mut lines = Vec::new();
    for (name, _) in policy.deciders() {
        let decided = kernel.values().filter(|(rule, _)| rule == name).count() as u64;
        let counted = kopi.get(name).copied().unwrap_or(0);
        if decided != counted {
            lines.push(format!("{}: rule {name} has counted {decided} in nftables and {counted} in kopi", policy.name));
        }
    }
    lines
}

#[test]
fn verdicts_are_those_of_nftables() {
    let dir = TempDir::new("nftables");
    let mut host = Host::new(&dir);
    let mut switch = Switch::new(&dir);
    let policies =
        [rules::paper(), rules::locked(), rules::random(1), rules::random(2), rules::random(3), rules::random(4)];
    let mut lines = Vec::new();
    let mut packets = 0;
    for (run, policy) in (0..).zip(&policies) {
        let cases = traffic::matrix(run);
        let mut kernel = host.judge(&dir, policy, &cases);
        let cases = comparable(cases, &mut kernel);
        let (kopi, counts) = switch.judge(policy, &cases);
        lines.extend(differences(policy, &cases, &kernel, &kopi));
        lines.extend(miscounts(policy, &kernel, &counts));
        packets += kernel.len();
    }
    assert!(packets > 10_000, "only {packets} packets were compared");
    assert!(lines.is_empty(), "of {packets} packets, these differ:\n{}", lines.join("\n"));
}
