//! Who owns a port, and how it ends.

use std::sync::atomic::{AtomicBool, Ordering};

use dpdk_sys as sys;

use crate::eal::Handle;
use crate::error::DpdkError;

/// One flag for every port that DPDK can have: set while a [`Shared`] for it exists.
static TAKEN: [AtomicBool; sys::RTE_MAX_ETHPORTS as usize] =
    [const { AtomicBool::new(false) }; sys::RTE_MAX_ETHPORTS as usize];

/// What a port and its queues have in common. When the last of them goes, the port is stopped and closed.
#[derive(Debug)]
pub(crate) struct Shared {
    id: u16,
    /// Whether to take the device away as well.
    unplug: bool,
    started: AtomicBool,
    _handle: Handle,
}

impl Shared {
    /// Takes port `id`, which exists.
    pub(super) fn claim(handle: Handle, id: u16, unplug: bool) -> Result<Self, DpdkError> {
        let taken = TAKEN.get(usize::from(id)).ok_or_else(|| DpdkError::NoSuchPort(id.to_string()))?;
        if taken.swap(true, Ordering::AcqRel) {
            return Err(DpdkError::PortTaken(id));
        }
        Ok(Self { id, unplug, started: AtomicBool::new(false), _handle: handle })
    }

    /// Notes whether the port runs, for the end.
    pub(super) fn set_started(&self, started: bool) {
        self.started.store(started, Ordering::Release);
    }

    #[inline]
    pub(crate) fn id(&self) -> u16 {
        self.id
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let device = super::device::raw_info(self.id).map(|info| info.device);
        // Nobody is left to tell of a failure, and there is nothing else to try; DPDK logs what goes wrong.
        if self.started.load(Ordering::Acquire) {
            // SAFETY: the port is ours, and no thread is in one of its burst functions.
            unsafe { sys::rte_eth_dev_stop(self.id) };
        }
        // SAFETY: the port is ours, and it is stopped.
        unsafe { sys::rte_eth_dev_close(self.id) };
        if let (true, Ok(device)) = (self.unplug, device) {
            // SAFETY: the device of this port, which we plugged in, and which has no other port.
            unsafe { sys::rte_dev_remove(device) };
        }
        if let Some(taken) = TAKEN.get(usize::from(self.id)) {
            taken.store(false, Ordering::Release);
        }
    }
}
