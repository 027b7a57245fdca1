//! Devices: how they are found, and what they are.

use std::ffi::{CStr, c_char};
use std::mem::MaybeUninit;

use dpdk_sys as sys;

use crate::error::{DpdkError, c_string, check};

/// What a device is and can do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortInfo {
    /// Name of the device: a PCI address, or the name of the virtual device.
    pub name: String,
    /// Name of its driver: `net_af_xdp`.
    pub driver: String,
    /// Receive queues at most.
    pub max_rx_queues: u16,
    /// Transmit queues at most.
    pub max_tx_queues: u16,
    /// Smallest MTU in bytes.
    pub min_mtu: u16,
    /// Largest MTU in bytes.
    pub max_mtu: u16,
    /// Sizes that a receive ring may have.
    pub rx_ring: RingLimits,
    /// Sizes that a transmit ring may have.
    pub tx_ring: RingLimits,
    /// Whether it can spread flows over its receive queues by address and port.
    pub rss: bool,
    /// Whether it reports link changes by interrupt.
    pub lsc: bool,
    /// NUMA node that it is attached to, if it has one.
    pub socket: Option<u16>,
}

/// Sizes that a ring of a device may have, in frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingLimits {
    /// Smallest.
    pub min: u16,
    /// Largest.
    pub max: u16,
    /// Every size is a multiple of this.
    pub align: u16,
}

/// DPDK's own description of port `id`.
pub(crate) fn raw_info(id: u16) -> Result<sys::rte_eth_dev_info, DpdkError> {
    let mut info = MaybeUninit::<sys::rte_eth_dev_info>::zeroed();
    // SAFETY: EAL is up, as every caller owns a port; DPDK writes to `info`.
    check("rte_eth_dev_info_get", unsafe { sys::rte_eth_dev_info_get(id, info.as_mut_ptr()) })?;
    // SAFETY: a structure of C without references, zeroed and then filled in.
    Ok(unsafe { info.assume_init() })
}

pub(super) fn info(id: u16) -> Result<PortInfo, DpdkError> {
    let raw = raw_info(id)?;
    // SAFETY: the driver's own word, valid as long as the port.
    let flags = unsafe { raw.dev_flags.as_ref() }.copied().unwrap_or(0);
    // SAFETY: EAL is up, as every caller owns a port.
    let node = unsafe { sys::rte_eth_dev_socket_id(id) };
    Ok(PortInfo {
        name: name(id)?,
        // SAFETY: the name in the driver's description, which stays as long as the driver.
        driver: unsafe { text(raw.driver_name) },
        max_rx_queues: raw.max_rx_queues,
        max_tx_queues: raw.max_tx_queues,
        min_mtu: raw.min_mtu,
        max_mtu: max_mtu(&raw),
        rx_ring: limits(&raw.rx_desc_lim),
        tx_ring: limits(&raw.tx_desc_lim),
        rss: raw.flow_type_rss_offloads & (sys::RTE_ETH_RSS_IP | sys::RTE_ETH_RSS_TCP | sys::RTE_ETH_RSS_UDP) != 0,
        lsc: flags & sys::RTE_ETH_DEV_INTR_LSC != 0,
        socket: u16::try_from(node).ok(),
    })
}

/// The largest MTU that DPDK lets a device have: its own limit, or what its largest frame leaves.
pub(super) fn max_mtu(raw: &sys::rte_eth_dev_info) -> u16 {
    if raw.max_mtu != u16::MAX {
        return raw.max_mtu;
    }
    let overhead = sys::RTE_ETHER_HDR_LEN + sys::RTE_ETHER_CRC_LEN;
    u16::try_from(raw.max_rx_pktlen.saturating_sub(overhead)).unwrap_or(u16::MAX)
}

fn limits(raw: &sys::rte_eth_desc_lim) -> RingLimits {
    RingLimits { min: raw.nb_min, max: raw.nb_max, align: raw.nb_align }
}

/// Name of port `id`.
fn name(id: u16) -> Result<String, DpdkError> {
    let mut name: [c_char; sys::RTE_ETH_NAME_MAX_LEN as usize] = [0; _];
    // SAFETY: EAL is up, as every caller owns a port; `name` has the size that DPDK demands.
    check("rte_eth_dev_get_name_by_port", unsafe { sys::rte_eth_dev_get_name_by_port(id, name.as_mut_ptr()) })?;
    // SAFETY: DPDK has written a string.
    Ok(unsafe { text(name.as_ptr()) })
}

/// Copies a string of C; null is the empty string.
///
/// # Safety
///
/// `raw` is null or a string.
pub(super) unsafe fn text(raw: *const c_char) -> String {
    if raw.is_null() {
        return String::new();
    }
    // SAFETY: the caller says so.
    unsafe { CStr::from_ptr(raw) }.to_string_lossy().into_owned()
}

pub(super) fn port_named(name: &str) -> Result<u16, DpdkError> {
    let c_name = c_string(name)?;
    let mut id = 0;
    // SAFETY: EAL is up, as every caller has a handle; DPDK writes to `id`.
    let result = unsafe { sys::rte_eth_dev_get_port_by_name(c_name.as_ptr(), &raw mut id) };
    check("rte_eth_dev_get_port_by_name", result).map_err(|_| DpdkError::NoSuchPort(name.to_owned()))?;
    Ok(id)
}

/// Plugs a device in. False if it was there already.
pub(super) fn plug(devargs: &str) -> Result<bool, DpdkError> {
    let c_devargs = c_string(devargs)?;
    if !ports_of(devargs)?.is_empty() {
        return Ok(false);
    }
    // SAFETY: EAL is up, as every caller has a handle; DPDK copies the string.
    match check("rte_dev_probe", unsafe { sys::rte_dev_probe(c_devargs.as_ptr()) }) {
        Err(DpdkError::Call { errno: libc::EEXIST, .. }) => Ok(false),
        other => other.map(|_| true),
    }
}

/// The ports of the device that `devargs` names.
pub(super) fn ports_of(devargs: &str) -> Result<Vec<u16>, DpdkError> {
    let c_devargs = c_string(devargs)?;
    let mut iterator = MaybeUninit::<sys::rte_dev_iterator>::zeroed();
    // SAFETY: EAL is up, as every caller has a handle; DPDK writes to `iterator` and copies the string.
    let result = unsafe { sys::rte_eth_iterator_init(iterator.as_mut_ptr(), c_devargs.as_ptr()) };
    check("rte_eth_iterator_init", result)?;
    let mut ports = Vec::new();
    loop {
        // SAFETY: the iterator was made above. It frees itself at the end, to which we always go.
        let id = unsafe { sys::rte_eth_iterator_next(iterator.as_mut_ptr()) };
        if u32::from(id) >= sys::RTE_MAX_ETHPORTS {
            return Ok(ports);
        }
        ports.push(id);
    }
}
