//! Taking over and giving back, on a model of a kernel in which any step may fail.

use super::super::form::{GroupKey, NHA_ID, NHA_OIF, flags, group_key};
use super::super::message::INET;
use super::super::state::{Row, VERSION};
use super::*;
use nix::libc::{RTA_DST, RTA_GATEWAY, RTA_OIF};
use std::collections::{BTreeMap, BTreeSet};

/// Numbers of the interfaces of the machine: the one that is taken over, the kernel's port, and another one.
const ETH: u32 = 3;
const TAP: u32 = 7;
const OTHER: u32 = 9;

/// What a machine has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Machine {
    addresses: BTreeSet<Message>,
    groups: BTreeMap<GroupKey, Vec<Message>>,
    nexthops: BTreeMap<u32, Message>,
    neighbours: BTreeSet<Message>,
    ipv6_off: bool,
    cut: bool,
}

/// Makes changes, of which the one with the number `fails` fails.
struct Model {
    machine: Machine,
    steps: usize,
    fails: Option<usize>,
    tap_is_there: bool,
}

impl Model {
    fn step(&mut self) -> Result<(), Fault> {
        self.steps += 1;
        if self.fails == Some(self.steps) { Err(Fault::text("it breaks here")) } else { Ok(()) }
    }
}

impl Kernel for Model {
    fn dump(&mut self, like: &Message) -> Result<Vec<Message>, Fault> {
        let name = |index: u32, name: &str| {
            let link = Message::empty(Kind::Link, &[0]).with_header(4, &index.to_ne_bytes());
            link.with(3, &[name.as_bytes(), &[0]].concat())
        };
        let all = &self.machine;
        Ok(match like.kind() {
            Kind::Link => {
                let tap = self.tap_is_there.then(|| name(TAP, "kopi0"));
                tap.into_iter().chain([name(ETH, "eth1"), name(OTHER, "eth2")]).collect()
            }
            Kind::Address => all.addresses.iter().cloned().collect(),
            Kind::Route => all.groups.values().flatten().cloned().collect(),
            Kind::Nexthop => all.nexthops.values().cloned().collect(),
            Kind::Neighbour if like.byte(10) == 0 => all.neighbours.iter().cloned().collect(),
            Kind::Neighbour | Kind::Rule => Vec::new(),
        })
    }

    fn change(&mut self, act: Act, message: &Message) -> Result<(), Fault> {
        self.step()?;
        let all = &mut self.machine;
        let new = canonical(message);
        match message.kind() {
            Kind::Link | Kind::Rule => {}
            Kind::Address => {
                let key = (message.word(4), address_key(message));
                all.addresses.retain(|address| (address.word(4), address_key(address)) != key);
                if act != Act::Delete {
                    all.addresses.insert(new);
                }
            }
            Kind::Route => {
                let group = all.groups.entry(group_key(message)).or_default();
                match act {
                    Act::Delete if !group.contains(&new) => return Err(Errno::SRCH.into()),
                    Act::Delete => group.retain(|route| *route != new),
                    Act::Append if group.contains(&new) => return Err(Errno::EXIST.into()),
                    Act::Replace if !group.is_empty() => group[0] = new,
                    Act::Append | Act::Replace => group.push(new),
                }
                all.groups.retain(|_, group| !group.is_empty());
            }
            Kind::Nexthop => drop(all.nexthops.insert(message.number(NHA_ID).unwrap(), new)),
            Kind::Neighbour if act == Act::Delete => {
                if !all.neighbours.remove(&new) {
                    return Err(Errno::NOENT.into());
                }
            }
            Kind::Neighbour => drop(all.neighbours.insert(new)),
        }
        Ok(())
    }

    fn ipv6_off(&mut self, _: &str) -> Option<bool> {
        Some(self.machine.ipv6_off)
    }

    fn switch_ipv6(&mut self, interface: &str, off: bool) -> Result<(), Fault> {
        self.step()?;
        if interface == "eth1" {
            self.machine.ipv6_off = off;
        }
        Ok(())
    }
}

/// The ingress of the interface, a part of the same machine.
struct Nft<'a>(&'a std::cell::RefCell<(bool, Option<usize>)>);

impl Shell for Nft<'_> {
    fn run(&mut self, program: &str, _: &[&str], input: &str) -> Result<String, String> {
        let mut state = self.0.borrow_mut();
        if program != "nft" {
            return Err("there is no `tc`".to_owned());
        }
        if state.1 == Some(0) {
            return Err("it breaks here".to_owned());
        }
        state.0 = input.contains("add chain");
        Ok(String::new())
    }
}

fn address(index: u32, local: &[u8], length: u8) -> Message {
    let family = if local.len() == 4 { INET } else { INET6 };
    let address = Message::empty(Kind::Address, &[family, length]).with_header(4, &index.to_ne_bytes());
    canonical(&address.with(IFA_LOCAL, local).with(IFA_ADDRESS, local))
}

fn route(index: u32, to: [u8; 4], via: Option<[u8; 4]>) -> Message {
    let route = Message::empty(Kind::Route, &[INET, 16, 0, 0, 254, 4, 0, 1]).with(RTA_DST, &to);
    let route = route.with(RTA_OIF, &index.to_ne_bytes());
    canonical(&via.map_or_else(|| route.clone(), |via| route.with(RTA_GATEWAY, &via)))
}

fn nexthop(index: u32) -> Message {
    let id = Message::empty(Kind::Nexthop, &[INET]).with(NHA_ID, &5_u32.to_ne_bytes());
    canonical(&id.with(NHA_OIF, &index.to_ne_bytes()))
}

fn neighbour(index: u32) -> Message {
    let header = Message::empty(Kind::Neighbour, &[INET]).with_header(4, &index.to_ne_bytes());
    canonical(&header.with_header(8, &[0x80, 0]).with(1, &[10, 0, 0, 9]))
}

/// Everything of the machine on the interface with this number, in the order in which the kernel goes by it.
fn all_on(index: u32, cut: bool) -> Machine {
    let mut machine = Machine { ipv6_off: cut, cut, ..Machine::default() };
    machine.addresses =
        [(&[10, 0, 0, 1][..], 24), (&[0x20; 16][..], 64)].map(|(of, len)| address(index, of, len)).into();
    machine.nexthops.insert(5, nexthop(index));
    machine.neighbours.insert(neighbour(index));
    let routes = [
        route(index, [10, 5, 0, 0], Some([10, 0, 0, 254])),
        // The same network by three ways, of which one is not ours.
        route(index, [10, 6, 0, 0], None),
        route(OTHER, [10, 6, 0, 0], None),
        route(index, [10, 6, 0, 0], Some([10, 0, 0, 7])),
    ];
    for route in routes {
        machine.groups.entry(group_key(&route)).or_default().push(route);
    }
    machine
}

pub(crate) fn state() -> State {
    let machine = all_on(ETH, false);
    let names = [(ETH, "eth1"), (OTHER, "eth2"), (TAP, "kopi0")].map(|(index, name)| (index, name.to_owned()));
    let rows = machine.groups.into_values().flatten();
    State {
        version: VERSION,
        taken: 100,
        interface: Link { name: "eth1".to_owned(), index: ETH },
        tap: "kopi0".to_owned(),
        ipv6_off: Some(false),
        links: names.into(),
        addresses: machine.addresses.into_iter().collect(),
        nexthops: machine.nexthops.into_values().collect(),
        neighbours: machine.neighbours.into_iter().collect(),
        rows: rows.map(|message| Row { ours: !form::interfaces(&message).contains(&OTHER), message }).collect(),
    }
}

fn model(machine: Machine, fails: Option<usize>) -> Model {
    Model { machine, steps: 0, fails, tap_is_there: true }
}

/// Runs a step of the whole, with an ingress that is the machine's.
fn with<T>(model: &mut Model, nft_fails: bool, work: impl FnOnce(&mut Tools<'_>) -> T) -> T {
    let ingress = std::cell::RefCell::new((model.machine.cut, nft_fails.then_some(0)));
    let outcome = work(&mut Tools { kernel: model, shell: &mut Nft(&ingress), now: 100 });
    model.machine.cut = ingress.borrow().0;
    outcome
}

/// What is on the port meanwhile: neighbours of the interface may stay on it.
fn check_taken(model: &Model) {
    let mut wanted = all_on(TAP, true);
    wanted.neighbours.insert(neighbour(ETH));
    assert_eq!(model.machine, wanted);
}

/// Everything is on the kernel's port afterwards, a second time changes nothing, and giving back restores all, in its order.
#[test]
fn taking_over_can_be_repeated_and_undone() {
    let mut model = model(all_on(ETH, false), None);
    for _ in 0..2 {
        with(&mut model, false, |tools| take(&state(), tools)).unwrap();
        check_taken(&model);
    }
    for _ in 0..2 {
        assert_eq!(with(&mut model, false, |tools| give_back(&state(), tools)), Vec::<String>::new());
        assert_eq!(model.machine, all_on(ETH, false));
    }
}

/// Whichever step fails, giving back what was moved until then restores all.
#[test]
fn every_failure_half_way_can_be_undone() {
    let mut whole = model(all_on(ETH, false), None);
    with(&mut whole, false, |tools| take(&state(), tools)).unwrap();
    assert!(whole.steps > 10, "{}", whole.steps);
    for fails in 1..=whole.steps + 1 {
        let nft = fails > whole.steps;
        let mut model = model(all_on(ETH, false), Some(fails));
        if with(&mut model, nft, |tools| take(&state(), tools)).is_ok() {
            // A step that was done a second time.
            check_taken(&model);
        }
        assert_eq!(with(&mut model, false, |tools| give_back(&state(), tools)), Vec::<String>::new(), "step {fails}");
        assert_eq!(model.machine, all_on(ETH, false), "step {fails}");
    }
}

/// With the kernel's port gone, and all that was on it, everything comes back all the same.
#[test]
fn giving_back_needs_no_port() {
    let left = route(OTHER, [10, 6, 0, 0], None);
    let groups = [(group_key(&left), vec![left])].into();
    let mut model = model(Machine { cut: true, ipv6_off: true, groups, ..Machine::default() }, None);
    model.tap_is_there = false;
    assert_eq!(with(&mut model, false, |tools| give_back(&state(), tools)), Vec::<String>::new());
    assert_eq!(model.machine, all_on(ETH, false));
}

/// A problem while giving back is told, and does not keep the rest from coming back.
#[test]
fn giving_back_goes_on_after_a_problem() {
    let mut model = model(all_on(ETH, false), None);
    with(&mut model, false, |tools| take(&state(), tools)).unwrap();
    let begun = model.steps;
    // The second one is that the interface is set up, the third the first address.
    model.fails = Some(begun + 3);
    let problems = with(&mut model, false, |tools| give_back(&state(), tools));
    assert_eq!(problems.len(), 1, "{problems:?}");
    let wanted = all_on(ETH, false);
    assert_eq!((&model.machine.groups, model.machine.cut), (&wanted.groups, false));
    assert_eq!(with(&mut model, false, |tools| give_back(&state(), tools)), Vec::<String>::new());
    assert_eq!(model.machine, wanted);
}

/// Time that has passed is not given back, what has ended is not made again, and what never ends stays so.
#[test]
fn lifetimes_go_on() {
    let with_times = |preferred: u32, valid: u32| {
        let times = [preferred.to_ne_bytes(), valid.to_ne_bytes(), [0; 4], [0; 4]].concat();
        address(ETH, &[10, 0, 0, 1], 24).with(IFA_CACHEINFO, &times)
    };
    let times = |address: Option<Message>| address.and_then(|of| Some(of.get(IFA_CACHEINFO)?.to_vec()));
    let forever = u32::MAX;
    for (before, after) in [
        ((100, 200), Some((40, 140))),
        ((50, 200), Some((0, 140))),
        ((0, forever), Some((0, forever))),
        ((forever, forever), Some((forever, forever))),
        ((10, 60), None),
    ] {
        let wanted = after.map(|(preferred, valid)| with_times(preferred, valid));
        assert_eq!(times(aged(&with_times(before.0, before.1), 60)), times(wanted), "{before:?}");
    }
    assert_eq!(flags(&with_times(0, 1)) & IFA_F_NODAD, 0);
}
