//! Taking over and giving back, on a model of a kernel in which any step may fail.

use super::*;
use std::collections::{BTreeMap, BTreeSet};

/// Addresses and routes of a machine, as the programs would change them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Machine {
    addresses: BTreeSet<(String, String)>,
    routes: BTreeMap<String, String>,
    cut: bool,
}

/// Runs programs on a machine. The step with the number `fails` fails.
struct Model {
    machine: Machine,
    steps: usize,
    fails: Option<usize>,
    tap_is_there: bool,
}

impl Model {
    fn ip_address(&mut self, what: &str, words: &[&str]) -> Result<(), String> {
        let at = words.iter().position(|word| *word == "dev").unwrap();
        let entry = (words[at + 1].to_owned(), words[0].to_owned());
        let done =
            if what == "add" { self.machine.addresses.insert(entry) } else { self.machine.addresses.remove(&entry) };
        let said = if what == "add" { "RTNETLINK answers: File exists" } else { "Cannot assign requested address" };
        if done { Ok(()) } else { Err(said.to_owned()) }
    }

    fn ip_route(&mut self, what: &str, words: &[&str]) -> Result<(), String> {
        let (interface, route) = (words[words.len() - 1].to_owned(), words[..words.len() - 2].join(" "));
        let there = self.machine.routes.get(&route) == Some(&interface);
        match what {
            "replace" => drop(self.machine.routes.insert(route, interface)),
            "del" if there => drop(self.machine.routes.remove(&route)),
            _ => return Err("RTNETLINK answers: No such process".to_owned()),
        }
        Ok(())
    }
}

impl Shell for Model {
    fn run(&mut self, program: &str, words: &[&str], input: &str) -> Result<String, String> {
        self.steps += 1;
        if self.fails == Some(self.steps) {
            return Err("it breaks here".to_owned());
        }
        let outcome = match (program, words) {
            ("ip", ["address", what, rest @ ..]) => self.ip_address(what, rest),
            ("ip", [_, "route", what, rest @ ..]) => self.ip_route(what, rest),
            ("ip", ["link", "show", "dev", "kopi0"]) if !self.tap_is_there => Err("does not exist".to_owned()),
            ("ip", ["link", ..]) => Ok(()),
            ("nft", _) => {
                self.machine.cut = input.contains("add chain");
                Ok(())
            }
            _ => Err(format!("there is no `{program}`")),
        };
        outcome.map(|()| String::new())
    }
}

fn state() -> State {
    serde_json::from_value(serde_json::json!({
        "version": 1, "interface": "eth1", "tap": "kopi0", "ipv6_off": null,
        "addresses": [
            { "family": "inet", "local": "10.0.0.1", "prefixlen": 24, "broadcast": "10.0.0.255", "scope": "global" },
            { "family": "inet6", "local": "2001:db8::1", "prefixlen": 64, "scope": "global" },
        ],
        "routes": [
            { "v6": false, "words": ["unicast", "default", "via", "10.0.0.254", "proto", "static"] },
            { "v6": true, "words": ["unicast", "2001:db8:9::/48", "via", "2001:db8::9"] },
        ],
    }))
    .unwrap()
}

/// The machine on which `interface` has all.
fn all_on(interface: &str, cut: bool) -> Machine {
    let state = state();
    Machine {
        addresses: state.addresses.iter().map(|a| (interface.to_owned(), a.words()[0].clone())).collect(),
        routes: state.routes.iter().map(|r| (r.words.join(" "), interface.to_owned())).collect(),
        cut,
    }
}

fn model(machine: Machine, fails: Option<usize>) -> Model {
    Model { machine, steps: 0, fails, tap_is_there: true }
}

/// Everything is on the kernel's port afterwards, a second time changes nothing, and giving back restores all.
#[test]
fn taking_over_can_be_repeated_and_undone() {
    let mut model = model(all_on("eth1", false), None);
    for _ in 0..2 {
        take(&state(), &mut model).unwrap();
        assert_eq!(model.machine, all_on("kopi0", true));
    }
    for _ in 0..2 {
        assert_eq!(give_back(&state(), &mut model), Vec::<String>::new());
        assert_eq!(model.machine, all_on("eth1", false));
    }
}

/// Whichever step fails, giving back what was moved until then restores all.
#[test]
fn every_failure_half_way_can_be_undone() {
    let mut steps = model(all_on("eth1", false), None);
    take(&state(), &mut steps).unwrap();
    for fails in 1..=steps.steps {
        let mut model = model(all_on("eth1", false), Some(fails));
        let taken = take(&state(), &mut model);
        if taken.is_ok() {
            // A step whose failure makes no difference.
            assert_eq!(model.machine, all_on("kopi0", true), "step {fails}");
        }
        assert_eq!(give_back(&state(), &mut model), Vec::<String>::new(), "step {fails}");
        assert_eq!(model.machine, all_on("eth1", false), "step {fails}");
    }
}

/// With the kernel's port gone, and all that was on it, everything comes back all the same.
#[test]
fn giving_back_needs_no_port() {
    let mut model = model(Machine { cut: true, ..Machine::default() }, None);
    model.tap_is_there = false;
    assert_eq!(give_back(&state(), &mut model), Vec::<String>::new());
    assert_eq!(model.machine, all_on("eth1", false));
}

/// A problem while giving back is told, and does not keep the rest from coming back.
#[test]
fn giving_back_goes_on_after_a_problem() {
    let mut model = model(all_on("kopi0", true), None);
    take(&state(), &mut model).unwrap();
    model.fails = Some(model.steps + 4);
    let problems = give_back(&state(), &mut model);
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert_eq!((model.machine.cut, model.machine.routes), (false, all_on("eth1", false).routes));
}

/// Names of tables are words of nftables', and differ where the interfaces do.
#[test]
fn tables_have_names_that_nftables_takes() {
    let names: BTreeSet<String> = ["eth1", "eth-1", "eth.1", "eth_1", "a@b"].into_iter().map(table_of).collect();
    assert_eq!(names.len(), 5);
    assert!(names.iter().all(|name| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')));
}
