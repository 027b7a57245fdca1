//! What a running port says, and the settings that may change while it runs.

use std::mem::MaybeUninit;
use std::ptr;

use dpdk_sys as sys;

use super::{Port, config, device};
use crate::error::{DpdkError, check};

/// The physical link of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Whether frames can pass.
    pub up: bool,
    /// Megabits per second; `None` if the device does not know.
    pub speed_mbps: Option<u32>,
    /// Whether both directions work at once.
    pub full_duplex: bool,
}

/// The basic counters of a port, since its start or since they were reset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Frames received.
    pub rx_packets: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Frames that the device dropped because no buffer was set out for them.
    pub rx_missed: u64,
    /// Frames with errors.
    pub rx_errors: u64,
    /// Times that the driver found the pool empty.
    pub rx_no_mbuf: u64,
    /// Frames sent.
    pub tx_packets: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Frames that were not sent although the driver had taken them.
    pub tx_errors: u64,
}

impl Port {
    /// The state of the link, as far as the driver knows without waiting for the device.
    ///
    /// # Errors
    ///
    /// [`DpdkError::Call`] if the driver cannot tell.
    pub fn link(&self) -> Result<Link, DpdkError> {
        let mut raw = sys::kopi_link { speed_mbps: 0, full_duplex: false, autoneg: false, up: false };
        // SAFETY: the port is ours; `raw` is written to.
        check("rte_eth_link_get_nowait", unsafe { sys::kopi_eth_link_get(self.id(), &raw mut raw) })?;
        let known = raw.speed_mbps != sys::RTE_ETH_SPEED_NUM_NONE && raw.speed_mbps != sys::RTE_ETH_SPEED_NUM_UNKNOWN;
        Ok(Link { up: raw.up, speed_mbps: known.then_some(raw.speed_mbps), full_duplex: raw.full_duplex })
    }

    /// The basic counters.
    ///
    /// # Errors
    ///
    /// [`DpdkError::Call`] if the driver has none.
    pub fn stats(&self) -> Result<Stats, DpdkError> {
        let mut raw = MaybeUninit::<sys::rte_eth_stats>::zeroed();
        // SAFETY: the port is ours; `raw` is written to.
        check("rte_eth_stats_get", unsafe { sys::rte_eth_stats_get(self.id(), raw.as_mut_ptr()) })?;
        // SAFETY: a structure of numbers, zeroed and then filled in.
        let raw = unsafe { raw.assume_init() };
        Ok(Stats {
            rx_packets: raw.ipackets,
            rx_bytes: raw.ibytes,
            rx_missed: raw.imissed,
            rx_errors: raw.ierrors,
            rx_no_mbuf: raw.rx_nombuf,
            tx_packets: raw.opackets,
            tx_bytes: raw.obytes,
            tx_errors: raw.oerrors,
        })
    }

    /// Sets the basic counters to zero.
    ///
    /// # Errors
    ///
    /// [`DpdkError::Call`] if the driver cannot do it.
    pub fn reset_stats(&self) -> Result<(), DpdkError> {
        // SAFETY: the port is ours.
        check("rte_eth_stats_reset", unsafe { sys::rte_eth_stats_reset(self.id()) }).map(drop)
    }

    /// All counters that the driver has, with their names.
    ///
    /// # Errors
    ///
    /// [`DpdkError::Call`] if the driver does not give them.
    pub fn xstats(&self) -> Result<Vec<(String, u64)>, DpdkError> {
        // SAFETY: the port is ours; with no room, DPDK only tells the number.
        let count = check("rte_eth_xstats_get", unsafe { sys::rte_eth_xstats_get(self.id(), ptr::null_mut(), 0) })?;
        let size = usize::try_from(count).unwrap_or(usize::MAX);
        // SAFETY: numbers.
        let mut values: Vec<sys::rte_eth_xstat> = vec![unsafe { MaybeUninit::zeroed().assume_init() }; size];
        // SAFETY: characters.
        let mut names: Vec<sys::rte_eth_xstat_name> = vec![unsafe { MaybeUninit::zeroed().assume_init() }; size];
        // SAFETY: the port is ours; `values` has `count` places.
        let got = unsafe { sys::rte_eth_xstats_get(self.id(), values.as_mut_ptr(), count) };
        let got = check("rte_eth_xstats_get", got)?;
        // SAFETY: the port is ours; `names` has `count` places.
        let named = unsafe { sys::rte_eth_xstats_get_names(self.id(), names.as_mut_ptr(), count) };
        check("rte_eth_xstats_get_names", named)?;
        // With more counters than room, which can come with a change in between, DPDK writes none: so none are given.
        let got = if got > count { 0 } else { usize::try_from(got).unwrap_or(0) };
        let named = |value: &sys::rte_eth_xstat| {
            let name = names.get(usize::try_from(value.id).ok()?)?;
            // SAFETY: DPDK has written a string, or it is all zeros.
            Some((unsafe { device::text(name.name.as_ptr()) }, value.value))
        };
        Ok(values.iter().take(got).filter_map(named).collect())
    }

    /// One counter by its name; `None` if the driver has none of that name.
    ///
    /// # Errors
    ///
    /// [`DpdkError::Call`] if the driver does not give them.
    pub fn xstat(&self, name: &str) -> Result<Option<u64>, DpdkError> {
        Ok(self.xstats()?.into_iter().find(|(known, _)| known == name).map(|(_, value)| value))
    }

    /// The address of the port.
    ///
    /// # Errors
    ///
    /// [`DpdkError::Call`] if the driver does not say.
    pub fn mac(&self) -> Result<[u8; 6], DpdkError> {
        let mut mac = sys::rte_ether_addr { addr_bytes: [0; 6] };
        // SAFETY: the port is ours; `mac` is written to.
        check("rte_eth_macaddr_get", unsafe { sys::rte_eth_macaddr_get(self.id(), &raw mut mac) })?;
        Ok(mac.addr_bytes)
    }

    /// Changes the address of the port.
    ///
    /// # Errors
    ///
    /// [`DpdkError::Call`] if the address is not that of one station, or if the driver cannot do it.
    pub fn set_mac(&mut self, mac: [u8; 6]) -> Result<(), DpdkError> {
        let mut mac = sys::rte_ether_addr { addr_bytes: mac };
        // SAFETY: the port is ours; DPDK copies the address.
        let result = unsafe { sys::rte_eth_dev_default_mac_addr_set(self.id(), &raw mut mac) };
        check("rte_eth_dev_default_mac_addr_set", result).map(drop)
    }

    /// Bytes of the largest payload of Ethernet.
    ///
    /// # Errors
    ///
    /// [`DpdkError::Call`] if the device was removed.
    pub fn mtu(&self) -> Result<u16, DpdkError> {
        let mut mtu = 0;
        // SAFETY: the port is ours; `mtu` is written to.
        check("rte_eth_dev_get_mtu", unsafe { sys::rte_eth_dev_get_mtu(self.id(), &raw mut mtu) })?;
        Ok(mtu)
    }

    /// Changes the MTU. Many drivers want a stopped port. One that cannot do it leaves all as it is.
    ///
    /// # Errors
    ///
    /// [`DpdkError::Call`] if the driver refuses.
    pub fn set_mtu(&mut self, mtu: u16) -> Result<(), DpdkError> {
        config::set_mtu(self.id(), mtu)
    }

    /// Whether the port receives frames for every address.
    #[must_use]
    pub fn promiscuous(&self) -> bool {
        // SAFETY: the port is ours.
        unsafe { sys::rte_eth_promiscuous_get(self.id()) == 1 }
    }

    /// Turns the reception of frames for every address on or off.
    ///
    /// # Errors
    ///
    /// [`DpdkError::Call`] if the driver cannot do it.
    pub fn set_promiscuous(&mut self, on: bool) -> Result<(), DpdkError> {
        if on {
            // SAFETY: the port is ours.
            check("rte_eth_promiscuous_enable", unsafe { sys::rte_eth_promiscuous_enable(self.id()) }).map(drop)
        } else {
            // SAFETY: the port is ours.
            check("rte_eth_promiscuous_disable", unsafe { sys::rte_eth_promiscuous_disable(self.id()) }).map(drop)
        }
    }
}
