//! The kernel: UDP sockets, policed by nftables by owner, address, port and the connection's state, and scheduled by htb.
//!
//! It lives in a network namespace of its own. What an application sends ends in a device that throws it away: `dummy`, or
//! `ifb`, which does the same with what it was not given by a redirection. What it receives comes by a veth pair, whose other
//! end a DPDK application on the dataplane's core feeds through a packet socket without a queue: the receive path of the kernel
//! runs on that core then, as below pktgen.

use std::fmt::{self, Write};
use std::fs;

use super::{Contender, Family, Service};
use crate::error::{BenchError, Doing, Result};
use crate::namespace::Namespace;
use crate::policy::{self, APP_MAC, DESTINATIONS, Job, Pump, destination, texts};
use crate::process::Process;
use crate::rounds::App as _;
use crate::setup::{Setup, Wire, find_program};
use crate::throughput::Direction;

/// Programs of nftables and iproute2.
const PROGRAMS: [&str; 3] = ["ip", "nft", "tc"];
/// The interface that applications use, and the other end of the pair, if it is one.
const NEAR: &str = "near";
const FAR: &str = "far";
/// The application's address for sending, and for receiving; the other one is the peer's.
const ADDRESSES: [&str; 2] = ["198.19.0.1/30", "198.19.0.2/30"];
/// All destinations.
const NETWORK: &str = "198.18.0.0/15";
/// Classes of the scheduler, of which the first is the load's.
pub(crate) const CLASSES: u32 = 9;

/// Sockets in a namespace, for one direction and frames of one length.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kernel {
    /// Which way the frames go.
    pub(crate) direction: Direction,
    /// Length of a frame in bytes, without the checksum.
    pub(crate) frame_len: u16,
}

impl Kernel {
    /// What it is called.
    pub(crate) const NAME: &str = "kernel";
}

impl Contender for Kernel {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn family(&self) -> Family {
        Family::Kernel
    }

    fn missing(&self, _setup: &Setup) -> Option<String> {
        let absent = PROGRAMS.into_iter().find(|program| find_program(program).is_none())?;
        Some(format!("{absent} is not installed (Debian: iproute2, nftables)"))
    }

    /// The kernel has devices of its own; the wire belongs to the others.
    fn start(&self, setup: &Setup, _wire: &Wire) -> Result<Box<dyn Service>> {
        let space = Namespace::create(Self::NAME)?;
        let sent = match self.direction {
            Direction::Tx => make_sink(&space)?,
            Direction::Rx => make_pair(&space)?,
        };
        schedule(&space)?;
        let rules = ruleset().map_err(|error| BenchError::Failed(format!("write rules: {error}")))?;
        load_rules(setup, &space, &rules)?;
        let sender = match self.direction {
            Direction::Tx => None,
            Direction::Rx => Some(feed(setup, &space, self.frame_len)?),
        };
        Ok(Box::new(Sockets { sender, space, sent }))
    }
}

/// Makes the device that throws away what is sent, and returns the name of its counter.
fn make_sink(space: &Namespace) -> Result<&'static str> {
    let add = |kind| space.run(&["ip", "link", "add", NEAR, "mtu", "2000", "type", kind]);
    let sent = match add("dummy") {
        Ok(_) => "tx_packets",
        // It counts what it is given before it throws it away.
        Err(_) => add("ifb").map(|_| "rx_packets")?,
    };
    let [address, _] = ADDRESSES;
    space.run(&["ip", "address", "add", address, "dev", NEAR])?;
    space.run(&["ip", "link", "set", NEAR, "up"])?;
    space.run(&["ip", "route", "add", NETWORK, "dev", NEAR])?;
    Ok(sent)
}

/// Makes the pair for receiving, and returns the name of a counter of what was sent.
fn make_pair(space: &Namespace) -> Result<&'static str> {
    space.run(&["ip", "link", "add", NEAR, "mtu", "2000", "type", "veth", "peer", "name", FAR])?;
    space.run(&["ip", "link", "set", FAR, "mtu", "2000", "up"])?;
    space.run(&["ip", "link", "set", NEAR, "address", APP_MAC, "up"])?;
    let [_, address] = ADDRESSES;
    space.run(&["ip", "address", "add", address, "dev", NEAR])?;
    space.run(&["ip", "route", "add", "local", NETWORK, "dev", "lo"])?;
    Ok("tx_packets")
}

/// Gives the interface a tree of classes that limits nothing.
fn schedule(space: &Namespace) -> Result<()> {
    space.run(&["tc", "qdisc", "add", "dev", NEAR, "root", "handle", "1:", "htb", "default", "2"])?;
    for class in 1..=CLASSES {
        let id = format!("1:{class:x}");
        let class = ["tc", "class", "add", "dev", NEAR, "parent", "1:", "classid", &id];
        let rate = ["htb", "rate", "100gbit", "burst", "10mb", "cburst", "10mb", "quantum", "1514"];
        space.run(&[&class[..], &rate].concat())?;
    }
    Ok(())
}

/// Has nftables take a ruleset.
pub(crate) fn load_rules(setup: &Setup, space: &Namespace, rules: &str) -> Result<()> {
    let path = setup.path(&format!("{}.nft", space.name()));
    fs::write(&path, rules).doing(|| format!("write {}", path.display()))?;
    space.run(&["nft", "-f", &path.display().to_string()]).map(drop)
}

/// kopi's large policy as an administrator of nftables would write it: what are 9,999 rules there is one lookup in a set
/// here. Owners are known for what is sent only: what is received has none until its socket has been found.
fn ruleset() -> std::result::Result<String, fmt::Error> {
    let mut text = "table inet kopi {\nset denied { type ipv4_addr . inet_service; elements = {\n".to_owned();
    for n in 1..texts::RULES {
        let (address, port) = texts::denied(n, 0);
        writeln!(text, "{address} . {port},")?;
    }
    text += "} }\nset many { type ipv4_addr; elements = {\n";
    for n in 0..DESTINATIONS {
        writeln!(text, "{},", texts::address(destination(n)))?;
    }
    text += "} }\n";
    for (hook, owner) in [("output", "meta skuid 0 meta priority set 1:1 "), ("input", "")] {
        writeln!(text, "chain {hook} {{ type filter hook {hook} priority filter; policy drop;")?;
        writeln!(text, "ip daddr . udp dport @denied drop")?;
        writeln!(text, "ip daddr @many ct state new,established {owner}accept\n}}")?;
    }
    text += "}\n";
    Ok(text)
}

/// Starts what stands for the wire, and has it send for longer than any run takes.
fn feed(setup: &Setup, space: &Namespace, frame_len: u16) -> Result<Pump> {
    const LONG: std::time::Duration = std::time::Duration::from_secs(86_400);
    let name = "kernel-wire";
    let core = setup.dataplane_core;
    let (program, core_word, length) = (setup.program.display().to_string(), core.to_string(), frame_len.to_string());
    let words = space.arguments(&[&program, policy::COMMAND, &core_word, &length, "--to-app", "--"]);
    let mut args: Vec<String> = words.into_iter().map(str::to_owned).collect();
    args.extend(setup.eal_args(name, core));
    args.extend(["--no-pci", "--vdev", &format!("net_af_packet0,iface={FAR},qdisc_bypass=1")].map(str::to_owned));
    let mut pump = Pump::spawn(setup, name, "env", &args)?;
    pump.begin(Job::Send, LONG)?;
    Ok(pump)
}

struct Sockets {
    /// Dropped before the namespace in which it is.
    sender: Option<Pump>,
    space: Namespace,
    /// The counter of what was sent.
    sent: &'static str,
}

impl Service for Sockets {
    /// None: what has sockets needs no devices.
    fn app_devices(&self) -> Vec<String> {
        Vec::new()
    }

    fn namespace(&self) -> Option<&Namespace> {
        Some(&self.space)
    }

    fn processes(&self) -> Vec<&Process> {
        self.sender.iter().map(|sender| sender.process()).collect()
    }

    fn wire_sent(&mut self) -> Result<Option<u64>> {
        let path = format!("/sys/class/net/{NEAR}/statistics/{}", self.sent);
        let text = self.space.run(&["cat", &path])?;
        Ok(text.trim().parse().ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rules_are_those_of_kopis_large_policy() {
        let text = ruleset().expect("a string takes everything");
        assert_eq!(text.matches(" . ").count(), usize::from(texts::RULES) - 1 + 3);
        assert!(text.contains("\n198.18.0.3 . 2,\n") && text.contains("\n198.18.0.2,\n"), "{}", &text[..200]);
        assert_eq!(text.matches("skuid").count(), 1);
    }
}
