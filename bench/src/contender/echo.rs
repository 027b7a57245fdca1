//! The kernel for round trips: a veth pair between two namespaces, a UDP echo on the dataplane's core at the far end, and
//! classes at the near end, of which the first goes before the others.

use super::kernel::load_rules;
use super::{Contender, Family, Service};
use crate::error::Result;
use crate::headline::trips;
use crate::namespace::Namespace;
use crate::process::Process;
use crate::setup::{Setup, Wire, find_program};

/// How long the echo may take to start.
const START: std::time::Duration = std::time::Duration::from_secs(20);

/// Sockets at the near end of a pair whose wire has a rate.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Echo {
    /// What it is called, which is the rate as tc writes it.
    pub(crate) rate: &'static str,
    /// Bulk applications, each with a class and sockets from a port of its own.
    pub(crate) bulk: u16,
}

impl Contender for Echo {
    fn name(&self) -> &'static str {
        "kernel-echo"
    }

    fn family(&self) -> Family {
        Family::Kernel
    }

    fn missing(&self, _setup: &Setup) -> Option<String> {
        let absent = ["ip", "nft", "tc"].into_iter().find(|program| find_program(program).is_none())?;
        Some(format!("{absent} is not installed (Debian: iproute2, nftables)"))
    }

    fn start(&self, setup: &Setup, _wire: &Wire) -> Result<Box<dyn Service>> {
        let (near, far) = (Namespace::create("near")?, Namespace::create("far")?);
        let pair = ["ip", "link", "add", "near", "mtu", "2000", "type", "veth", "peer", "name", "far", "mtu", "2000"];
        near.run(&[&pair[..], &["netns", far.name()]].concat())?;
        for (space, name, address) in [(&near, "near", trips::NEAR), (&far, "far", trips::FAR)] {
            space.run(&["ip", "link", "set", name, "up"])?;
            space.run(&["ip", "address", "add", &format!("{address}/30"), "dev", name])?;
        }
        self.schedule(&near)?;
        load_rules(setup, &near, &self.rules())?;
        // Bulk frames end where they arrive, as kopi drops those that come back.
        let drop = format!("udp dport {} drop", trips::BULK_PORT);
        let chain = format!("chain early {{ type filter hook prerouting priority raw; {drop}\n}}");
        load_rules(setup, &far, &format!("table inet kopi {{ {chain}\n}}\n"))?;

        let (program, core) = (setup.program.display().to_string(), setup.dataplane_core.to_string());
        let words = far.arguments(&[&program, trips::ECHO_COMMAND, &core]);
        let mut echo = Process::spawn("the echo", "env", words, &[], &setup.interrupt)?;
        echo.expect(trips::READY, START)?;
        Ok(Box::new(Ends { echo, near, _far: far }))
    }
}

impl Echo {
    fn schedule(&self, near: &Namespace) -> Result<()> {
        let add = |words: &[&str]| near.run(&[&["tc"][..], words].concat()).map(drop);
        add(&["qdisc", "add", "dev", "near", "root", "handle", "1:", "htb", "default", "10"])?;
        let class = ["class", "add", "dev", "near", "parent"];
        add(&[&class[..], &["1:", "classid", "1:1", "htb", "rate", self.rate, "burst", "125kb", "cburst", "125kb"]]
            .concat())?;
        for app in 0..=self.bulk {
            let (id, prio) = (format!("1:{}", 10 + app), if app == 0 { "0" } else { "1" });
            let rest =
                ["1:1", "classid", &id, "htb", "rate", "10mbit", "ceil", self.rate, "prio", prio, "quantum", "1514"];
            add(&[&class[..], &rest].concat())?;
        }
        Ok(())
    }

    /// Owner and port give the class, as an app's entry does for kopi.
    fn rules(&self) -> String {
        let rule =
            |(app, ports): (u16, String)| format!("meta skuid 0 {ports} meta priority set 1:{} accept\n", 10 + app);
        let victim = (0, format!("udp dport {}", trips::PORT));
        let bulk = (1..=self.bulk).map(|app| (app, format!("udp sport {}", trips::BULK_PORT + app)));
        let rules: String = std::iter::once(victim).chain(bulk).map(rule).collect();
        format!(
            "table inet kopi {{ chain output {{ type filter hook output priority filter; policy drop;\n{rules}}}\n}}\n"
        )
    }
}

struct Ends {
    /// Dropped before the namespace in which it is.
    echo: Process,
    near: Namespace,
    _far: Namespace,
}

impl Service for Ends {
    /// None: what has sockets needs no devices.
    fn app_devices(&self) -> Vec<String> {
        Vec::new()
    }

    fn namespace(&self) -> Option<&Namespace> {
        Some(&self.near)
    }

    fn processes(&self) -> Vec<&Process> {
        vec![&self.echo]
    }

    fn wire_sent(&mut self) -> Result<Option<u64>> {
        Ok(None)
    }
}
