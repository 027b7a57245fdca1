//! The systems that are compared. Each takes frames between an application and the wire, with one core to do it.

mod captured;
mod echo;
mod kernel;
mod kopi;
mod ovs;
mod raw;
mod vhost;

use std::fmt;
use std::path::Path;

use serde_json::Value;

use crate::error::Result;
use crate::namespace::Namespace;
use crate::process::Process;
use crate::setup::{Setup, Wire};

pub(crate) use captured::Captured;
pub(crate) use echo::Echo;
pub(crate) use kernel::{CLASSES, Kernel};
pub(crate) use kopi::Kopi;
pub(crate) use ovs::Ovs;
pub(crate) use raw::Raw;
pub(crate) use vhost::Vhost;

/// A kind of system. Variants of one family compete for its best.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Family {
    /// kopid and its driver.
    Kopi,
    /// testpmd as a bare vhost-user back end: no interposition at all.
    Vhost,
    /// Open vSwitch with its DPDK datapath.
    Ovs,
    /// The application on the wire device itself: bypass, with no system between.
    Raw,
    /// The kernel's network stack.
    Kernel,
}

impl Family {
    /// Every family that serves any DPDK application, in the order of reports.
    pub(crate) const ALL: [Self; 4] = [Self::Kopi, Self::Vhost, Self::Ovs, Self::Raw];
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Kopi => "kopi",
            Self::Vhost => "vhost",
            Self::Ovs => "OVS",
            Self::Raw => "raw",
            Self::Kernel => "kernel",
        })
    }
}

/// A system that can be started for a wire.
pub(crate) trait Contender {
    /// Name of this variant, unique in the run and fit for a file name.
    fn name(&self) -> &'static str;

    /// What it is a variant of.
    fn family(&self) -> Family;

    /// What it needs and the machine lacks, in a sentence, if anything.
    fn missing(&self, setup: &Setup) -> Option<String>;

    /// Starts the system between `wire` and an application to come.
    ///
    /// # Errors
    ///
    /// When it does not come up.
    fn start(&self, setup: &Setup, wire: &Wire) -> Result<Box<dyn Service>>;
}

/// A running system.
pub(crate) trait Service {
    /// EAL arguments that give an application its port, `--no-pci` or its like included.
    fn app_devices(&self) -> Vec<String>;

    /// Where an application of sockets is to run. `None` if an application is one of DPDK.
    fn namespace(&self) -> Option<&Namespace> {
        None
    }

    /// The processes that poll, to be paused while another contender runs.
    fn processes(&self) -> Vec<&Process>;

    /// Frames sent to the wire so far, by the system's own count. `None` if it has no count of its own.
    ///
    /// # Errors
    ///
    /// When the system does not answer.
    fn wire_sent(&mut self) -> Result<Option<u64>>;

    /// Where kopid's control socket is. `None` for every other system.
    fn control(&self) -> Option<&Path> {
        None
    }

    /// The answer to a command of kopid's control socket. `None` from every other system.
    ///
    /// # Errors
    ///
    /// When kopid does not answer, or with an error.
    fn ask(&mut self, _command: &str) -> Result<Option<Value>> {
        Ok(None)
    }
}

/// How the application's virtio driver and the back end share their rings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Virtqueue {
    /// Split rings with vectorised receive.
    Split,
    /// Split rings used in order.
    SplitInOrder,
    /// Packed rings used in order, vectorised both ways.
    Packed,
}

impl Virtqueue {
    /// EAL arguments of an application whose port is a vhost-user socket.
    fn app_devices(self, socket: &str) -> Vec<String> {
        let options = match self {
            Self::Split => "mrg_rxbuf=0,in_order=0,vectorized=1",
            Self::SplitInOrder => "mrg_rxbuf=0,in_order=1",
            Self::Packed => "packed_vq=1,mrg_rxbuf=0,in_order=1,vectorized=1",
        };
        let device = format!("net_virtio_user0,path={socket},queues=1,queue_size=1024,{options}");
        ["--no-pci", "--vdev", &device].map(str::to_owned).into()
    }
}
