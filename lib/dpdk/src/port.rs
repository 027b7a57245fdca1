//! Ethernet devices: found, configured, started, watched.

mod claim;
mod config;
mod device;
mod stats;

use std::cell::Cell;
use std::marker::PhantomData;
use std::sync::Arc;

use dpdk_sys as sys;

pub use config::PortConfig;
pub use device::{PortInfo, RingLimits};
pub use stats::{Link, Stats};

pub(crate) use claim::Shared;

use crate::eal::Handle;
use crate::error::{DpdkError, check};
use crate::pool::Pool;
use crate::queue::{RxQueue, TxQueue};

/// One Ethernet device, claimed: the side of it that a control thread has. Stops and closes when this and all of its
/// queues are dropped; a device that [`Port::by_devargs`] plugged in is unplugged again.
///
/// DPDK allows one thread at a time to control a port, so this is `Send` but not `Sync`.
#[derive(Debug)]
pub struct Port {
    shared: Arc<Shared>,
    state: State,
    not_sync: PhantomData<Cell<()>>,
}

/// How far a port is. Only a configured port knows its queues.
#[derive(Clone, Copy, Debug)]
enum State {
    Closed,
    Configured(Queues),
    Started(Queues),
}

#[derive(Clone, Copy, Debug)]
struct Queues {
    rx: u16,
    tx: u16,
    promiscuous: bool,
    /// Bytes that a frame can have in every buffer of the pools.
    room: u16,
    only: Option<*mut sys::rte_mempool>,
}

// SAFETY: the pointer to the pool is only compared; DPDK lets any one thread at a time control a port.
unsafe impl Send for Port {}

impl Port {
    /// Ports that EAL and the plugs made, taken or not.
    #[must_use]
    pub fn count(_: &Handle) -> u16 {
        // SAFETY: EAL is up as long as a handle exists.
        unsafe { sys::rte_eth_dev_count_avail() }
    }

    /// Claims the port of the device that `devargs` names, and plugs the device in if it is not yet.
    ///
    /// `devargs` is what DPDK's `-a` and `--vdev` take: `0000:3b:00.0`, `net_af_xdp0,iface=eth1`. Of a device with
    /// several ports it is the first.
    ///
    /// # Errors
    ///
    /// [`DpdkError::Call`] if no driver takes the device, [`DpdkError::NoSuchPort`] if it has no port, [`DpdkError::PortTaken`].
    pub fn by_devargs(handle: &Handle, devargs: &str) -> Result<Self, DpdkError> {
        let plugged = device::plug(devargs)?;
        let ports = device::ports_of(devargs)?;
        let &id = ports.first().ok_or_else(|| DpdkError::NoSuchPort(devargs.to_owned()))?;
        // A device with more ports may serve other owners, so it is not ours to take away.
        Self::claim(handle, id, plugged && ports.len() == 1)
    }

    /// Claims the port of this name, such as `net_kopi0` of `--vdev net_kopi0`.
    ///
    /// # Errors
    ///
    /// [`DpdkError::NoSuchPort`], [`DpdkError::PortTaken`].
    pub fn by_name(handle: &Handle, name: &str) -> Result<Self, DpdkError> {
        Self::claim(handle, device::port_named(name)?, false)
    }

    /// Claims the port of this number.
    ///
    /// # Errors
    ///
    /// [`DpdkError::NoSuchPort`], [`DpdkError::PortTaken`].
    pub fn by_id(handle: &Handle, id: u16) -> Result<Self, DpdkError> {
        Self::claim(handle, id, false)
    }

    fn claim(handle: &Handle, id: u16, unplug: bool) -> Result<Self, DpdkError> {
        // SAFETY: EAL is up as long as a handle exists; every number may be asked for.
        if unsafe { sys::rte_eth_dev_is_valid_port(id) } == 0 {
            return Err(DpdkError::NoSuchPort(id.to_string()));
        }
        let shared = Arc::new(Shared::claim(handle.clone(), id, unplug)?);
        Ok(Self { shared, state: State::Closed, not_sync: PhantomData })
    }

    /// Number of the port in DPDK.
    #[must_use]
    pub fn id(&self) -> u16 {
        self.shared.id()
    }

    /// What the device is and can do.
    ///
    /// # Errors
    ///
    /// [`DpdkError::Call`] if its driver does not say.
    pub fn info(&self) -> Result<PortInfo, DpdkError> {
        device::info(self.id())
    }

    /// Sets the port up. `pools` has one pool for each receive queue, or one for all.
    ///
    /// Ring sizes are adjusted to what the device can do. RSS over IP addresses and TCP and UDP ports is turned on
    /// where asked for and possible.
    ///
    /// # Errors
    ///
    /// - [`DpdkError::Invalid`] names the setting that the device or the pools cannot fulfil;
    /// - [`DpdkError::WrongState`] if the port is started;
    /// - [`DpdkError::Call`] if the driver refuses.
    pub fn configure(&mut self, config: &PortConfig, pools: &[Pool]) -> Result<(), DpdkError> {
        if matches!(self.state, State::Started(_)) {
            return Err(self.wrong_state("started"));
        }
        // A failure half way leaves a port that cannot be started.
        self.state = State::Closed;
        let only = config::apply(self.id(), config, pools)?;
        let PortConfig { rx_queues, tx_queues, promiscuous, .. } = *config;
        let room = pools.iter().map(Pool::frame_max).min().unwrap_or(0);
        self.state = State::Configured(Queues { rx: rx_queues, tx: tx_queues, promiscuous, room, only });
        Ok(())
    }

    /// Starts a configured port and gives out its queues, in order of their numbers.
    ///
    /// # Errors
    ///
    /// [`DpdkError::WrongState`] if it is not configured or already started, [`DpdkError::Call`] if the driver refuses.
    pub fn start(&mut self) -> Result<(Vec<RxQueue>, Vec<TxQueue>), DpdkError> {
        let queues = match self.state {
            State::Configured(queues) => queues,
            State::Closed => return Err(self.wrong_state("not configured")),
            State::Started(_) => return Err(self.wrong_state("already started")),
        };
        // SAFETY: the port is ours and its queues are set up.
        check("rte_eth_dev_start", unsafe { sys::rte_eth_dev_start(self.id()) })?;
        self.state = State::Started(queues);
        self.shared.set_started(true);
        if queues.promiscuous {
            match self.set_promiscuous(true) {
                // A device without that mode, such as a ring, receives everything anyway.
                Err(DpdkError::Call { errno: libc::ENOTSUP, .. }) => {}
                Err(error) => {
                    self.stop()?;
                    return Err(error);
                }
                Ok(()) => {}
            }
        }
        // SAFETY: the port is started with these queues and pools; `stop` demands that all of these handles are gone.
        let rx = (0..queues.rx).map(|queue| unsafe { RxQueue::new(Arc::clone(&self.shared), queue, queues.room) });
        // SAFETY: as above.
        let tx = (0..queues.tx).map(|queue| unsafe { TxQueue::new(Arc::clone(&self.shared), queue, queues.only) });
        Ok((rx.collect(), tx.collect()))
    }

    /// Stops the port. It may be started again.
    ///
    /// # Errors
    ///
    /// [`DpdkError::QueuesInUse`] as long as one of its queues exists, [`DpdkError::Call`] if the driver refuses.
    pub fn stop(&mut self) -> Result<(), DpdkError> {
        let State::Started(queues) = self.state else { return Ok(()) };
        self.check_queues_gone()?;
        // SAFETY: the port is ours, and no thread is in one of its burst functions.
        check("rte_eth_dev_stop", unsafe { sys::rte_eth_dev_stop(self.id()) })?;
        self.state = State::Configured(queues);
        self.shared.set_started(false);
        Ok(())
    }

    /// Brings the device back to where it was when it was found. It must be configured anew.
    ///
    /// # Errors
    ///
    /// [`DpdkError::QueuesInUse`] as long as one of its queues exists, [`DpdkError::Call`] if the driver cannot do it.
    pub fn reset(&mut self) -> Result<(), DpdkError> {
        self.stop()?;
        self.state = State::Closed;
        // SAFETY: the port is ours, and stopped.
        check("rte_eth_dev_reset", unsafe { sys::rte_eth_dev_reset(self.id()) }).map(drop)
    }

    fn check_queues_gone(&mut self) -> Result<(), DpdkError> {
        let id = self.id();
        Arc::get_mut(&mut self.shared).map(drop).ok_or(DpdkError::QueuesInUse(id))
    }

    fn wrong_state(&self, state: &'static str) -> DpdkError {
        DpdkError::WrongState { port: self.id(), state }
    }
}
