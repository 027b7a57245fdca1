//! Access to ethdev's own structures.

use crate::rss::RssKey;
use crate::sys;
use kopi_ring::message::{Mac, RSS_KEY_SIZE};
use std::ffi::{CStr, c_char, c_void};
use std::ptr::NonNull;
use thiserror::Error;

/// An ethdev port of this driver. It is valid from probe until it is closed, and must not be used after that.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Device {
    dev: NonNull<sys::rte_eth_dev>,
    data: NonNull<sys::rte_eth_dev_data>,
}

// SAFETY: the structures lie in memory that all threads share, and the accessors say who may call them.
unsafe impl Send for Device {}
// SAFETY: as above.
unsafe impl Sync for Device {}

/// The configuration that the application requests, as far as ethdev cannot check it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Requested {
    /// RX queues.
    pub(crate) rx_queues: u16,
    /// One of `rte_eth_rx_mq_mode` and of `rte_eth_tx_mq_mode`.
    pub(crate) rx_mode: u32,
    pub(crate) tx_mode: u32,
    /// The key for the RSS hash, if there is one.
    pub(crate) rss_key: Result<Option<RssKey>, RssProblem>,
    /// The fields that the RSS hash is to be over.
    pub(crate) rss_types: u64,
    /// Whether the port is to send to itself.
    pub(crate) loopback: bool,
    /// Whether the speed is to be one of a few.
    pub(crate) fixed_speed: bool,
}

/// What is wrong with the RSS hash that an application asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum RssProblem {
    /// The key is too short or too long.
    #[error("a key of {0} bytes for the RSS hash, this port has one of {RSS_KEY_SIZE}")]
    Key(u8),
    /// The hash is another one than there is.
    #[error("the RSS hash is Toeplitz', not the one asked for")]
    Algorithm,
}

/// The key in `conf`, if there is one.
///
/// # Errors
///
/// [`RssProblem`] if the port cannot have it.
///
/// # Safety
///
/// A key that is not null has as many bytes as its length says.
pub(crate) unsafe fn rss_key(conf: &sys::rte_eth_rss_conf) -> Result<Option<RssKey>, RssProblem> {
    if !sys::asks_toeplitz(conf) {
        return Err(RssProblem::Algorithm);
    }
    match conf.rss_key_len.into() {
        _ if conf.rss_key.is_null() => Ok(None),
        // Before DPDK 23.11 the length was for a driver of keys of two lengths alone, and all others took 40 bytes.
        0 | RSS_KEY_SIZE => {
            // SAFETY: by the caller's word.
            Ok(Some(unsafe { conf.rss_key.cast::<RssKey>().read() }))
        }
        _ => Err(RssProblem::Key(conf.rss_key_len)),
    }
}

/// Reads a field of `rte_eth_dev_data`.
macro_rules! read {
    ($self:ident, $($field:tt)+) => {
        // SAFETY: the port is valid, as a `Device` promises, and ethdev changes the field in no other thread while it
        // is in one of the driver's operations.
        unsafe { (*$self.data.as_ptr()).$($field)+ }
    };
}

/// Writes a field of `rte_eth_dev_data`.
macro_rules! write {
    ($self:ident, $field:ident = $value:expr) => {
        // SAFETY: the port is valid, as a `Device` promises, and ethdev touches the field in no other thread while it
        // is in one of the driver's operations.
        unsafe { (*$self.data.as_ptr()).$field = $value }
    };
}

impl Device {
    /// The port behind a pointer that ethdev hands to an operation.
    ///
    /// # Safety
    ///
    /// `dev` is null or a valid port, and stays one while the result is in use.
    pub(crate) unsafe fn new(dev: *mut sys::rte_eth_dev) -> Option<Self> {
        let dev = NonNull::new(dev)?;
        // SAFETY: valid, by the caller's word.
        let data = NonNull::new(unsafe { (*dev.as_ptr()).data })?;
        Some(Self { dev, data })
    }

    /// The structure itself.
    pub(crate) const fn raw(self) -> *mut sys::rte_eth_dev {
        self.dev.as_ptr()
    }

    /// Whether the port looks as ethdev leaves one that it has just made (`rte_eth_dev_allocate`).
    pub(crate) fn is_new(self, name: &CStr) -> bool {
        let own = read!(self, name).map(c_char::cast_unsigned);
        CStr::from_bytes_until_nul(&own).is_ok_and(|own| own == name)
            && u32::from(read!(self, mtu)) == sys::RTE_ETHER_MTU
            && u32::from(read!(self, backer_port_id)) == sys::RTE_MAX_ETHPORTS
            && u32::from(self.port()) < sys::RTE_MAX_ETHPORTS
            && self.private().is_null()
    }

    /// The port's number.
    pub(crate) fn port(self) -> u16 {
        read!(self, port_id)
    }

    /// What the driver has stored for itself.
    pub(crate) fn private(self) -> *mut c_void {
        read!(self, dev_private)
    }

    /// Stores what the driver wants to find again.
    pub(crate) fn set_private(self, private: *mut c_void) {
        write!(self, dev_private = private);
    }

    /// The MTU.
    pub(crate) fn mtu(self) -> u16 {
        read!(self, mtu)
    }

    /// Queues configured.
    pub(crate) fn rx_queues(self) -> u16 {
        read!(self, nb_rx_queues)
    }

    /// Queues configured.
    pub(crate) fn tx_queues(self) -> u16 {
        read!(self, nb_tx_queues)
    }

    /// RX offloads of the whole port.
    pub(crate) fn rx_offloads(self) -> u64 {
        read!(self, dev_conf.rxmode.offloads)
    }

    /// TX offloads of the whole port.
    pub(crate) fn tx_offloads(self) -> u64 {
        read!(self, dev_conf.txmode.offloads)
    }

    /// What the application requests of the port beyond queues and offloads.
    pub(crate) fn requested(self) -> Requested {
        let conf = self.conf();
        let rss = &conf.rx_adv_conf.rss_conf;
        Requested {
            rx_queues: self.rx_queues(),
            rx_mode: conf.rxmode.mq_mode,
            tx_mode: conf.txmode.mq_mode,
            // SAFETY: ethdev has copied the application's structure, whose key is valid during the operation.
            rss_key: unsafe { rss_key(rss) },
            rss_types: rss.rss_hf,
            loopback: conf.lpbk_mode != 0,
            fixed_speed: conf.link_speeds & sys::RTE_ETH_LINK_SPEED_FIXED != 0,
        }
    }

    /// Whether the application wants receive interrupts.
    pub(crate) fn wants_interrupts(self) -> bool {
        self.conf().intr_conf.rxq() != 0
    }

    fn conf(&self) -> &sys::rte_eth_conf {
        // SAFETY: valid, as a `Device` promises; ethdev changes the configuration in no other thread now.
        unsafe { &(*self.data.as_ptr()).dev_conf }
    }

    /// Gives ethdev the receive interrupts, or null for none.
    pub(crate) fn set_interrupts(self, handle: *mut sys::rte_intr_handle) {
        let dev = self.dev.as_ptr();
        // SAFETY: valid, as a `Device` promises, and ethdev touches the field only where the application calls for it.
        unsafe { (*dev).intr_handle = handle };
    }

    /// Whether the port runs.
    pub(crate) fn is_started(self) -> bool {
        // SAFETY: valid, as a `Device` promises.
        let data = unsafe { self.data.as_ref() };
        data.dev_started() != 0
    }

    /// The driver's RX queues.
    pub(crate) fn rx_array(self) -> QueueArray {
        QueueArray { at: read!(self, rx_queues), len: self.rx_queues() }
    }

    /// The driver's TX queues.
    pub(crate) fn tx_array(self) -> QueueArray {
        QueueArray { at: read!(self, tx_queues), len: self.tx_queues() }
    }

    /// Sets the state of all queues.
    pub(crate) fn set_queue_states(self, running: bool) {
        let state = if running { sys::RTE_ETH_QUEUE_STATE_STARTED } else { sys::RTE_ETH_QUEUE_STATE_STOPPED };
        let state = u8::try_from(state).unwrap_or(0);
        let data = self.data.as_ptr();
        // SAFETY: valid, as a `Device` promises; only operations of the driver write here, and ethdev serialises them.
        let rx = unsafe { &mut (*data).rx_queue_state };
        rx.iter_mut().take(self.rx_queues().into()).for_each(|s| *s = state);
        // SAFETY: as above.
        let tx = unsafe { &mut (*data).tx_queue_state };
        tx.iter_mut().take(self.tx_queues().into()).for_each(|s| *s = state);
    }

    /// Whether received packets may have several segments, as set last.
    pub(crate) fn scattered_rx(self) -> bool {
        // SAFETY: valid, as a `Device` promises.
        let data = unsafe { self.data.as_ref() };
        data.scattered_rx() != 0
    }

    /// Sets whether received packets may have several segments.
    pub(crate) fn set_scattered_rx(self, scattered: bool) {
        let data = self.data.as_ptr();
        // SAFETY: valid, as a `Device` promises; only operations of the driver write here, and ethdev serialises them.
        let data = unsafe { &mut *data };
        data.set_scattered_rx(scattered.into());
    }

    /// Switches off what the user has switched on: after a reset the port is as after its creation.
    pub(crate) fn clear_modes(self) {
        let data = self.data.as_ptr();
        // SAFETY: valid, as a `Device` promises; ethdev serialises operations of the driver.
        let data = unsafe { &mut *data };
        data.set_promiscuous(0);
        data.set_all_multicast(0);
        let first = data.mac_pool_sel.first().copied().unwrap_or(0);
        data.mac_pool_sel = [0; sys::RTE_ETH_NUM_RECEIVE_MAC_ADDR as usize];
        if let Some(select) = data.mac_pool_sel.first_mut() {
            *select = first;
        }
    }

    /// Copies the port's unicast addresses to where applications look for them.
    pub(crate) fn set_macs(self, macs: &[Mac]) {
        let at = read!(self, mac_addrs);
        if at.is_null() {
            return;
        }
        for (index, mac) in macs.iter().enumerate() {
            let address = sys::rte_ether_addr { addr_bytes: *mac };
            // SAFETY: the array was made for as many addresses as the driver keeps.
            unsafe { at.wrapping_add(index).write(address) };
        }
    }

    /// Gives the port an array for `count` unicast addresses; ethdev frees it. Whether there was memory for it.
    pub(crate) fn allocate_macs(self, count: usize) -> bool {
        let bytes = count.saturating_mul(size_of::<sys::rte_ether_addr>());
        // SAFETY: the name is a C string.
        let at = unsafe { sys::rte_zmalloc(c"net_kopi".as_ptr(), bytes, 0) };
        write!(self, mac_addrs = at.cast());
        !at.is_null()
    }

    /// Sets what the port does beyond the usual (`RTE_ETH_DEV_*`).
    pub(crate) fn add_flags(self, flags: u32) {
        let before = read!(self, dev_flags);
        write!(self, dev_flags = before | flags);
    }

    /// Sets the link that applications see, and returns whether it went up or down by that.
    pub(crate) fn set_link(self, up: bool, speed_mbps: u32) -> bool {
        // 0 is the daemon's word for an unknown speed, and ethdev's for none.
        let unknown = if up { sys::RTE_ETH_SPEED_NUM_UNKNOWN } else { 0 };
        let speed_mbps = if speed_mbps == 0 || !up { unknown } else { speed_mbps };
        let link = sys::kopi_link { speed_mbps, full_duplex: true, autoneg: false, up };
        // SAFETY: the port is valid, as a `Device` promises; the link is one atomic word.
        unsafe { sys::kopi_eth_linkstatus_set(self.raw(), &raw const link) == 0 }
    }

    /// Calls the application's callbacks for a change of the link.
    pub(crate) fn announce_link(self) {
        let event = sys::RTE_ETH_EVENT_INTR_LSC;
        // SAFETY: the port is valid, as a `Device` promises; no lock of ours is held, so callbacks may call us.
        unsafe { sys::rte_eth_dev_callback_process(self.raw(), event, std::ptr::null_mut()) };
    }
}

/// The array in which ethdev keeps the driver's queues of one direction. It is valid as long as the port is not configured anew.
#[derive(Clone, Copy, Debug)]
pub(crate) struct QueueArray {
    at: *mut *mut c_void,
    len: u16,
}

impl QueueArray {
    /// Queues configured.
    pub(crate) const fn len(self) -> u16 {
        self.len
    }

    /// Queue `index`, or null.
    pub(crate) fn get(self, index: u16) -> *mut c_void {
        // SAFETY: inside the array of ethdev, which stays until the port is configured anew; nobody keeps one of these as long.
        self.place(index).map_or(std::ptr::null_mut(), |place| unsafe { place.read() })
    }

    /// Puts `queue` in the place of queue `index`, which is returned, if there is one.
    pub(crate) fn replace(self, index: u16, queue: *mut c_void) -> *mut c_void {
        // SAFETY: as in `get`.
        self.place(index).map_or(std::ptr::null_mut(), |place| unsafe { place.replace(queue) })
    }

    fn place(self, index: u16) -> Option<*mut *mut c_void> {
        (!self.at.is_null() && index < self.len).then(|| self.at.wrapping_add(index.into()))
    }
}
