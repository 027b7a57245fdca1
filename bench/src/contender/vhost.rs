//! Bare vhost-user forwarding: one testpmd moves frames between a vhost-user socket and the wire, unseen.

use super::{Contender, Family, Service, Virtqueue};
use crate::error::Result;
use crate::process::Process;
use crate::setup::{Setup, Wire};
use crate::testpmd::{Role, Testpmd};

/// testpmd with `net_vhost` in `io` mode.
#[derive(Debug)]
pub(crate) struct Vhost(pub(crate) Virtqueue);

impl Contender for Vhost {
    fn name(&self) -> &'static str {
        match self.0 {
            Virtqueue::Split => "vhost-split",
            Virtqueue::SplitInOrder => "vhost-split-in-order",
            Virtqueue::Packed => "vhost-packed",
        }
    }

    fn family(&self) -> Family {
        Family::Vhost
    }

    fn missing(&self, _setup: &Setup) -> Option<String> {
        None
    }

    fn start(&self, setup: &Setup, wire: &Wire) -> Result<Box<dyn Service>> {
        let name = self.name();
        let socket = setup.path(&format!("{name}.sock")).display().to_string();
        let mut devices = wire.eal_args();
        devices.extend(["--vdev".to_owned(), format!("net_vhost0,iface={socket}")]);
        let core = setup.dataplane_core;
        let mut testpmd = Testpmd::start(setup, &Role { name, core, devices, mode: "io", frame_len: 64 })?;
        testpmd.forward()?;
        Ok(Box::new(Forwarder { testpmd, socket, virtqueue: self.0 }))
    }
}

struct Forwarder {
    testpmd: Testpmd,
    socket: String,
    virtqueue: Virtqueue,
}

impl Forwarder {
    /// The wire: PCI devices are probed before virtual ones, and those in the order of the command line.
    const WIRE_PORT: u16 = 0;
}

impl Service for Forwarder {
    fn app_devices(&self) -> Vec<String> {
        self.virtqueue.app_devices(&self.socket)
    }

    fn processes(&self) -> Vec<&Process> {
        vec![self.testpmd.process()]
    }

    fn wire_sent(&mut self) -> Result<Option<u64>> {
        Ok(Some(self.testpmd.port_stats(Self::WIRE_PORT)?.tx_packets))
    }
}
