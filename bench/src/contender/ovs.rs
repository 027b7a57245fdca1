//! Open vSwitch with its DPDK datapath: a vhost-user port, the wire, one poll-mode thread, one flow each way.
//!
//! It runs in the private folder, beside any Open vSwitch that the host may have.

use std::ffi::OsStr;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use super::{Contender, Family, Service, Virtqueue};
use crate::error::{BenchError, Doing, Result};
use crate::policy::texts;
use crate::process::Process;
use crate::setup::{Setup, Wire, find_program, is_file};

/// Where Debian installs the variant that is linked with DPDK.
const DEBIAN_VSWITCHD: &str = "/usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk";
const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";
const START: Duration = Duration::from_secs(20);
/// How long the switch may take to remove its interfaces.
const CLEANUP: Duration = Duration::from_secs(5);
/// Also the name of a kernel interface, so no common one.
const BRIDGE: &str = "kopi-bench";
/// The bridge numbers its ports in the order in which they are added.
const APP_PORT: u32 = 1;
const WIRE_PORT: u32 = 2;

/// `ovs-vswitchd` with a userspace bridge.
#[derive(Debug)]
pub(crate) struct Ovs {
    /// How the application's rings are shared.
    pub(crate) virtqueue: Virtqueue,
    /// Rules that each frame passes before the one that forwards it.
    pub(crate) rules: u16,
}

impl Contender for Ovs {
    fn name(&self) -> &'static str {
        match self.virtqueue {
            Virtqueue::Split => "ovs-split",
            Virtqueue::SplitInOrder => "ovs-split-in-order",
            Virtqueue::Packed => "ovs-packed",
        }
    }

    fn family(&self) -> Family {
        Family::Ovs
    }

    fn missing(&self, _setup: &Setup) -> Option<String> {
        let complete = vswitchd().is_some() && find_program("ovsdb-server").is_some() && is_file(SCHEMA.as_ref());
        (!complete).then(|| "Open vSwitch with DPDK is not installed (Debian: openvswitch-switch-dpdk)".to_owned())
    }

    fn start(&self, setup: &Setup, wire: &Wire) -> Result<Box<dyn Service>> {
        let vswitchd = vswitchd().ok_or_else(|| BenchError::Failed("ovs-vswitchd is gone".to_owned()))?;
        let folder = setup.path(self.name());
        // The folder of this contender's last run.
        if folder.exists() {
            fs::remove_dir_all(&folder).doing(|| format!("clear {}", folder.display()))?;
        }
        fs::create_dir(&folder).doing(|| format!("create {}", folder.display()))?;
        let tools = Tools { folder };
        let database = tools.file("conf.db");
        tools.run("ovsdb-tool", &["create", &database, SCHEMA])?;

        let environment = tools.environment();
        let interrupt = &setup.interrupt;
        let remote = format!("--remote=punix:{}", tools.file("db.sock"));
        let control = |name: &str| format!("--unixctl={}", tools.file(name));
        let args = [&database, &remote, &control("db.ctl"), "--no-chdir", "-vconsole:info"].map(str::to_owned);
        let mut ovsdb = Process::spawn("ovsdb-server", "ovsdb-server", args, &environment, interrupt)?;
        ovsdb.expect("ovsdb-server (Open vSwitch)", START)?;
        self.configure(setup, &tools, wire)?;

        let vswitchd = vswitchd.display().to_string();
        let mut args = vec![vswitchd, tools.remote(), control("vswitchd.ctl")];
        args.extend(["--no-chdir", "-vconsole:info"].map(str::to_owned));
        // The switch makes kernel interfaces of fixed names for its bridge and its datapath. In a network namespace of
        // its own they meet neither those of another switch nor the host's. Only a wire of the user's may need the
        // host's namespace, as `net_af_xdp` does.
        let program = if wire.is_virtual() { "unshare" } else { "env" };
        if wire.is_virtual() {
            args.insert(0, "--net".to_owned());
        }
        let mut vswitchd = Process::spawn(self.name(), program, args, &environment, interrupt)?;
        vswitchd.expect("DPDK Enabled - initialized", START)?;
        tools.add_ports(wire, self.rules)?;
        Ok(Box::new(Switch { vswitchd, _ovsdb: ovsdb, tools, virtqueue: self.virtqueue }))
    }
}

impl Ovs {
    /// What must stand in the database before `ovs-vswitchd` starts: the datapath's core and EAL's arguments.
    fn configure(&self, setup: &Setup, tools: &Tools, wire: &Wire) -> Result<()> {
        let mask = format!("0x{:x}", 1_u128 << setup.dataplane_core);
        let mut extra = vec!["--in-memory".to_owned(), "--no-telemetry".to_owned()];
        extra.extend(["--file-prefix".to_owned(), setup.prefix(self.name())]);
        // A virtual device is made by the port's own devargs; EAL probes only what it is told to.
        extra.push(if wire.is_pci() { format!("-a {}", wire.device()) } else { "--no-pci".to_owned() });
        tools.vsctl(&["--no-wait", "init"])?;
        tools.vsctl(&[
            "--no-wait",
            "set",
            "Open_vSwitch",
            ".",
            "other_config:dpdk-init=true",
            &format!("other_config:dpdk-lcore-mask={mask}"),
            &format!("other_config:pmd-cpu-mask={mask}"),
            // Enough for both ports, and room for the other contenders.
            "other_config:dpdk-socket-limit=160",
            "other_config:vhost-sock-dir=.",
            &format!("other_config:dpdk-extra={}", extra.join(" ")),
        ])
    }
}

/// Open vSwitch's command-line tools, pointed at this instance.
#[derive(Debug)]
struct Tools {
    folder: PathBuf,
}

impl Tools {
    fn file(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    fn remote(&self) -> String {
        format!("unix:{}", self.file("db.sock"))
    }

    fn environment(&self) -> [(&'static str, &OsStr); 4] {
        ["OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR", "OVS_SYSCONFDIR"].map(|name| (name, self.folder.as_os_str()))
    }

    /// Runs one tool to its end and returns what it printed.
    fn run(&self, program: &str, args: &[&str]) -> Result<String> {
        let mut command = Command::new(program);
        let output = command.args(args).envs(self.environment()).output().doing(|| format!("run {program}"))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(BenchError::Failed(format!("{program} {} failed: {}", args.join(" "), said.trim())))
    }

    fn vsctl(&self, args: &[&str]) -> Result<()> {
        let database = format!("--db={}", self.remote());
        let mut all = vec!["--timeout=15", &database];
        all.extend(args);
        self.run("ovs-vsctl", &all).map(drop)
    }

    fn ofctl(&self, command: &str, argument: &str) -> Result<String> {
        self.run(
            "ovs-ofctl",
            &["--timeout=15", command, &format!("unix:{}", self.file(&format!("{BRIDGE}.mgmt"))), argument],
        )
    }

    fn add_ports(&self, wire: &Wire, rules: u16) -> Result<()> {
        self.vsctl(&["add-br", BRIDGE, "--", "set", "bridge", BRIDGE, "datapath_type=netdev", "fail-mode=secure"])?;
        self.vsctl(&["add-port", BRIDGE, "app", "--", "set", "Interface", "app", "type=dpdkvhostuser"])?;
        // Quoted, for a bare comma would end the value.
        let devargs = format!("options:dpdk-devargs=\"{}\"", wire.device());
        // The poll-mode thread sends through its own queue, which is not the first, and each queue of a ring gives back
        // only what it took itself.
        let queues = if wire.device().starts_with("net_ring") { "options:n_rxq=2" } else { "options:n_rxq=1" };
        self.vsctl(&["add-port", BRIDGE, "wire", "--", "set", "Interface", "wire", "type=dpdk", &devargs, queues])?;
        for (from, to) in [(APP_PORT, WIRE_PORT), (WIRE_PORT, APP_PORT)] {
            self.ofctl("add-flow", &format!("in_port={from},actions=output:{to}"))?;
        }
        if rules > 0 {
            let path = self.file("rules");
            fs::write(&path, drops(rules)).doing(|| format!("write {path}"))?;
            self.ofctl("add-flows", &path)?;
        }
        Ok(())
    }
}

struct Switch {
    vswitchd: Process,
    _ovsdb: Process,
    tools: Tools,
    virtqueue: Virtqueue,
}

impl Drop for Switch {
    fn drop(&mut self) {
        // The switch's kernel interfaces outlive it unless it is told to take them along. Without an answer it is ended
        // all the same, by its process.
        let control = self.tools.file("vswitchd.ctl");
        let told = self.tools.run("ovs-appctl", &["--timeout=5", "--target", &control, "exit", "--cleanup"]);
        if told.is_ok() {
            self.vswitchd.ended_within(CLEANUP);
        }
    }
}

impl Service for Switch {
    fn app_devices(&self) -> Vec<String> {
        self.virtqueue.app_devices(&self.tools.file("app"))
    }

    fn processes(&self) -> Vec<&Process> {
        vec![&self.vswitchd]
    }

    fn wire_sent(&mut self) -> Result<Option<u64>> {
        let text = self.tools.ofctl("dump-ports", &WIRE_PORT.to_string())?;
        Ok(sent_packets(&text))
    }
}

fn vswitchd() -> Option<PathBuf> {
    find_program(DEBIAN_VSWITCHD).or_else(|| find_program("ovs-vswitchd"))
}

/// Rules that drop what none of the load is: the first of those in kopi's large policy.
fn drops(rules: u16) -> String {
    let rule = |n| {
        let (address, port) = texts::denied(n, 0);
        format!("priority=40000,udp,nw_dst={address},tp_dst={port},actions=drop\n")
    };
    (1..=rules).map(rule).collect()
}

/// The number of frames sent, from what `ovs-ofctl dump-ports` prints for one port.
fn sent_packets(text: &str) -> Option<u64> {
    let (_, rest) = text.split_once("tx pkts=")?;
    rest.split(',').next()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rule_is_a_line() {
        assert_eq!(drops(1), "priority=40000,udp,nw_dst=198.18.0.3,tp_dst=2,actions=drop\n");
        assert_eq!(drops(1000).lines().count(), 1000);
    }

    #[test]
    fn the_switchs_count_is_read() {
        let text = "OFPST_PORT reply (xid=0x4): 1 ports\n  port  2: rx pkts=7, bytes=0, drop=0\n           \
                    tx pkts=16829216, bytes=0, drop=0, errs=0, coll=?\n";
        assert_eq!(sent_packets(text), Some(16_829_216));
        assert_eq!(sent_packets("tx pkts=?, bytes=?"), None);
        assert_eq!(sent_packets(""), None);
    }
}
