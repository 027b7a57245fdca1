//! How a port is set up.

use std::mem::MaybeUninit;
use std::ptr;

use dpdk_sys as sys;

use super::device::{max_mtu, raw_info};
use crate::error::{DpdkError, check};
use crate::pool::Pool;

/// Bytes that an Ethernet frame can have beyond its MTU: header and two VLAN tags.
const OVERHEAD: u32 = sys::RTE_ETHER_HDR_LEN + 2 * 4;

/// What DPDK gives a port that is not told otherwise.
const DEFAULT_MTU: u16 = 1500;

/// What a port is to be.
#[derive(Clone, Copy, Debug)]
pub struct PortConfig {
    /// Queues to receive from.
    pub rx_queues: u16,
    /// Queues to send through.
    pub tx_queues: u16,
    /// Frames that a receive queue holds; adjusted to what the device can do.
    pub rx_ring: u16,
    /// Frames that a transmit queue holds; adjusted to what the device can do.
    pub tx_ring: u16,
    /// Bytes of the largest payload of Ethernet; `None` for DPDK's 1,500.
    pub mtu: Option<u16>,
    /// Spread flows over the receive queues by a hash of addresses and ports, if the device can.
    pub rss: bool,
    /// Let the driver hear of link changes by interrupt, if the device can. Without, some update the link only when
    /// asked.
    pub lsc: bool,
    /// Have receive queues tell when frames come, if the device can.
    pub rx_interrupts: bool,
    /// Receive frames for every address.
    pub promiscuous: bool,
    /// The caller will send nothing but frames of one segment from the one pool given to [`Port::configure`]. Some
    /// drivers free them faster then.
    ///
    /// [`Port::configure`]: crate::Port::configure
    pub one_pool: bool,
    /// Have the device write the checksums of frames that [leave them to it](crate::Mbuf::leave_checksums), and check those of what it
    /// receives, if it can.
    pub checksums: bool,
}

impl Default for PortConfig {
    fn default() -> Self {
        Self {
            rx_queues: 1,
            tx_queues: 1,
            rx_ring: 1024,
            tx_ring: 1024,
            mtu: None,
            rss: false,
            lsc: false,
            rx_interrupts: false,
            promiscuous: false,
            one_pool: false,
            checksums: false,
        }
    }
}

/// Configures port `id`, which is stopped and ours, and its queues. Returns the pool that its driver relies on.
pub(super) fn apply(id: u16, config: &PortConfig, pools: &[Pool]) -> Result<Option<*mut sys::rte_mempool>, DpdkError> {
    let info = raw_info(id)?;
    check_queues(&info, config, pools)?;
    let mut conf = device_conf(&info, config, pools)?;
    let only = match pools {
        [pool] if config.one_pool && info.tx_offload_capa & sys::RTE_ETH_TX_OFFLOAD_MBUF_FAST_FREE != 0 => {
            conf.txmode.offloads |= sys::RTE_ETH_TX_OFFLOAD_MBUF_FAST_FREE;
            Some(pool.as_ptr())
        }
        _ => None,
    };
    // SAFETY: the port is ours and stopped; DPDK copies `conf`.
    let result = unsafe { sys::rte_eth_dev_configure(id, config.rx_queues, config.tx_queues, &raw const conf) };
    check("rte_eth_dev_configure", result)?;
    if let Some(mtu) = config.mtu {
        set_mtu(id, mtu)?;
    }
    set_up_queues(id, &info, &conf, config, pools)?;
    Ok(only)
}

/// Refuses counts that the device or the pools do not allow, each with the number that they do.
fn check_queues(info: &sys::rte_eth_dev_info, config: &PortConfig, pools: &[Pool]) -> Result<(), DpdkError> {
    for (kind, wanted, most) in
        [("receive", config.rx_queues, info.max_rx_queues), ("transmit", config.tx_queues, info.max_tx_queues)]
    {
        if wanted > most {
            return Err(DpdkError::Invalid(format!("{wanted} {kind} queues: the device has at most {most}")));
        }
    }
    if pools.len() != 1 && pools.len() != usize::from(config.rx_queues) {
        let (pools, queues) = (pools.len(), config.rx_queues);
        return Err(DpdkError::Invalid(format!(
            "{pools} pools for {queues} receive queues: give one for each, or one"
        )));
    }
    Ok(())
}

/// Everything that holds for all queues.
fn device_conf(
    info: &sys::rte_eth_dev_info,
    config: &PortConfig,
    pools: &[Pool],
) -> Result<sys::rte_eth_conf, DpdkError> {
    // SAFETY: a structure of C without references, for which DPDK defines all zeros as its defaults.
    let mut conf: sys::rte_eth_conf = unsafe { MaybeUninit::zeroed().assume_init() };
    if let Some(mtu) = config.mtu {
        let (min, max) = (info.min_mtu, max_mtu(info));
        if !(min..=max).contains(&mtu) {
            return Err(DpdkError::Invalid(format!("mtu {mtu}: the device takes {min} to {max}")));
        }
        conf.rxmode.mtu = u32::from(mtu);
    }
    let largest = u32::from(config.mtu.unwrap_or(DEFAULT_MTU)) + OVERHEAD;
    if let Some(room) = pools.iter().map(Pool::frame_max).find(|&room| u32::from(room) < largest) {
        return Err(DpdkError::Invalid(format!(
            "frames of {largest} bytes in buffers of {room}: the pool is too small"
        )));
    }
    let hashes = (sys::RTE_ETH_RSS_IP | sys::RTE_ETH_RSS_TCP | sys::RTE_ETH_RSS_UDP) & info.flow_type_rss_offloads;
    if config.rss && config.rx_queues > 1 && hashes != 0 {
        conf.rxmode.mq_mode = sys::RTE_ETH_MQ_RX_RSS;
        conf.rx_adv_conf.rss_conf.rss_hf = hashes;
    }
    if config.checksums {
        let wanted = sys::RTE_ETH_TX_OFFLOAD_IPV4_CKSUM | sys::RTE_ETH_TX_OFFLOAD_UDP_CKSUM;
        if info.tx_offload_capa & wanted != wanted {
            return Err(DpdkError::Invalid("the device writes no checksums of IPv4 and UDP".into()));
        }
        conf.txmode.offloads |= wanted;
        conf.rxmode.offloads |= sys::RTE_ETH_RX_OFFLOAD_CHECKSUM & info.rx_offload_capa;
    }
    // SAFETY: the driver's own word, valid as long as the port.
    let flags = unsafe { info.dev_flags.as_ref() }.copied().unwrap_or(0);
    if config.lsc && flags & sys::RTE_ETH_DEV_INTR_LSC != 0 {
        conf.intr_conf.set_lsc(1);
    }
    if config.rx_interrupts {
        conf.intr_conf.set_rxq(1);
    }
    Ok(conf)
}

/// Tells the driver the MTU. One without the function takes it from the configuration, or has none.
pub(super) fn set_mtu(id: u16, mtu: u16) -> Result<(), DpdkError> {
    // SAFETY: the port is ours.
    match check("rte_eth_dev_set_mtu", unsafe { sys::rte_eth_dev_set_mtu(id, mtu) }) {
        Err(DpdkError::Call { errno: libc::ENOTSUP, .. }) => Ok(()),
        other => other.map(drop),
    }
}

fn set_up_queues(
    id: u16,
    info: &sys::rte_eth_dev_info,
    conf: &sys::rte_eth_conf,
    config: &PortConfig,
    pools: &[Pool],
) -> Result<(), DpdkError> {
    let (mut rx_ring, mut tx_ring) = (config.rx_ring, config.tx_ring);
    // SAFETY: the port is ours; DPDK changes the two numbers.
    let result = unsafe { sys::rte_eth_dev_adjust_nb_rx_tx_desc(id, &raw mut rx_ring, &raw mut tx_ring) };
    check("rte_eth_dev_adjust_nb_rx_tx_desc", result)?;
    // SAFETY: the port is ours.
    let node = unsafe { sys::rte_eth_dev_socket_id(id) };
    // Any node is -1 both in the result and as the argument, which is unsigned.
    let node = u32::try_from(node).unwrap_or(sys::SOCKET_ID_ANY.cast_unsigned());
    let one_for_all = pools.len() == 1;
    for queue in 0..config.rx_queues {
        let Some(pool) = pools.get(if one_for_all { 0 } else { usize::from(queue) }) else { continue };
        // SAFETY: the port is ours and configured with this queue; null stands for the device's defaults; the pool
        // lives until EAL is closed, and so longer than the port.
        let result = unsafe { sys::rte_eth_rx_queue_setup(id, queue, rx_ring, node, ptr::null(), pool.as_ptr()) };
        check("rte_eth_rx_queue_setup", result)?;
    }
    let mut tx = info.default_txconf;
    tx.offloads = conf.txmode.offloads;
    for queue in 0..config.tx_queues {
        // SAFETY: the port is ours and configured with this queue; DPDK copies `tx`.
        let result = unsafe { sys::rte_eth_tx_queue_setup(id, queue, tx_ring, node, &raw const tx) };
        check("rte_eth_tx_queue_setup", result)?;
    }
    Ok(())
}
