//! The ethdev operations.
//!
//! ethdev calls them one at a time for each port. They change what is wanted of the daemon and wait for it for a second
//! at most ([`crate::control`]); without a daemon they succeed, and the next daemon gets the changes.

use crate::abi;
use crate::device::Device;
use crate::errno::code;
use crate::flow;
use crate::limits::{Limits, PTYPES};
use crate::log::{error, warning};
use crate::port::{Port, Queue};
use crate::port_state::{MAX_GROUPS, Refusal, Rings, Want};
use crate::rx::RxQueue;
use crate::stats::Totals;
use crate::sys;
use crate::tx::{self, TxQueue};
use kopi_ring::layout::MIN_RING;
use kopi_ring::message::Mac;
use std::ffi::{c_char, c_int};

/// Defines operations: `name(port, …) { … }` runs with the port, and a device that has none answers `ENODEV`.
macro_rules! operations {
    ($($(#[$doc:meta])* $vis:vis $name:ident($port:ident $(, $arg:ident: $ty:ty)*) $body:block)*) => {
        $($(#[$doc])*
        $vis unsafe extern "C" fn $name(dev: *mut sys::rte_eth_dev $(, $arg: $ty)*) -> c_int {
            // SAFETY: ethdev calls this with one of our ports.
            let found = unsafe { port(dev) };
            let Some($port) = found else { return code(libc::ENODEV) };
            $body
        })*
    };
}

mod configure;
mod counters;
mod queues;
mod rss;

/// The operations of the driver.
pub(crate) static OPS: Ops = Ops(table());

/// The table, which DPDK only reads.
pub(crate) struct Ops(pub(crate) sys::eth_dev_ops);

// SAFETY: nobody writes to it.
unsafe impl Sync for Ops {}

impl Ops {
    /// What goes into `rte_eth_dev`.
    pub(crate) const fn as_ptr(&self) -> *const sys::eth_dev_ops {
        &raw const self.0
    }
}

const fn table() -> sys::eth_dev_ops {
    // SAFETY: all members are optional functions, for which zero is none.
    let mut ops: sys::eth_dev_ops = unsafe { std::mem::zeroed() };
    ops.dev_configure = Some(configure);
    ops.dev_start = Some(start);
    ops.dev_stop = Some(stop);
    ops.dev_close = Some(close);
    ops.dev_reset = Some(reset);
    ops.link_update = Some(link_update);
    ops.dev_set_link_up = Some(set_link_up);
    ops.dev_set_link_down = Some(set_link_down);
    ops.rss_hash_update = Some(rss::hash_update);
    ops.rss_hash_conf_get = Some(rss::hash_conf_get);
    ops.reta_update = Some(rss::reta_update);
    ops.reta_query = Some(rss::reta_query);
    ops.promiscuous_enable = Some(promiscuous_enable);
    ops.promiscuous_disable = Some(promiscuous_disable);
    ops.allmulticast_enable = Some(allmulticast_enable);
    ops.allmulticast_disable = Some(allmulticast_disable);
    ops.mac_addr_add = Some(mac_addr_add);
    ops.mac_addr_remove = Some(mac_addr_remove);
    ops.mac_addr_set = Some(mac_addr_set);
    ops.set_mc_addr_list = Some(set_mc_addr_list);
    ops.mtu_set = Some(mtu_set);
    ops.stats_get = Some(counters::stats_get);
    ops.stats_reset = Some(counters::stats_reset);
    ops.xstats_get = Some(counters::xstats_get);
    ops.xstats_get_names = Some(counters::xstats_get_names);
    ops.xstats_reset = Some(counters::stats_reset);
    ops.dev_infos_get = Some(infos_get);
    ops.rxq_info_get = Some(queues::rxq_info_get);
    ops.txq_info_get = Some(queues::txq_info_get);
    ops.rx_burst_mode_get = Some(burst_mode_get);
    ops.tx_burst_mode_get = Some(burst_mode_get);
    ops.fw_version_get = Some(fw_version_get);
    ops.dev_supported_ptypes_get = Some(supported_ptypes_get);
    ops.vlan_offload_set = Some(queues::vlan_offload_set);
    ops.vlan_strip_queue_set = Some(queues::vlan_strip_queue_set);
    ops.read_clock = Some(queues::read_clock);
    ops.rx_queue_setup = Some(queues::rx_queue_setup);
    ops.rx_queue_release = Some(queues::queue_release::<RxQueue>);
    ops.rx_queue_intr_enable = Some(queues::rx_queue_intr_enable);
    ops.rx_queue_intr_disable = Some(queues::rx_queue_intr_disable);
    ops.tx_queue_setup = Some(queues::tx_queue_setup);
    ops.tx_done_cleanup = Some(tx::done_cleanup);
    ops.tx_queue_release = Some(queues::queue_release::<TxQueue>);
    ops.flow_ops_get = Some(flow::ops_get);
    ops
}

sys::supported_ptypes_callback!(supported_ptypes_get, PTYPES);

/// The port behind `dev`.
///
/// # Safety
///
/// `dev` comes from ethdev, for the length of an operation.
pub(crate) unsafe fn port<'a>(dev: *mut sys::rte_eth_dev) -> Option<&'a mut Port> {
    // SAFETY: by the caller's word.
    let device = unsafe { Device::new(dev) }?;
    // SAFETY: ethdev does not run two operations of one port at a time.
    unsafe { Port::of(device) }
}

/// Changes what is wanted; a refusal is logged and becomes `errno`.
fn change(port: &Port, errno: c_int, change: impl FnOnce(&mut Want)) -> c_int {
    match port.control.change(change) {
        Ok(()) => 0,
        Err(refusal) => refused(port, &refusal, errno),
    }
}

fn refused(port: &Port, refusal: &Refusal, errno: c_int) -> c_int {
    error!("port {}: {refusal}", port.device.port());
    code(errno)
}

operations! {
    /// ethdev has checked queues and offloads against [`infos_get`]. The port is stopped.
    configure(port) {
        let refused = configure::check(port);
        if refused != 0 {
            return refused;
        }
        match port.set_interrupts() {
            Ok(()) => 0,
            Err(problem) => {
                error!("port {}: no receive interrupts: {problem}", port.device.port());
                code(problem.raw_os_error().unwrap_or(libc::ENOMEM))
            }
        }
    }

    /// Makes rings for the queues that were set up. Without a daemon the port starts with its link down.
    start(port) {
        let device = port.device;
        device.set_scattered_rx(queues::scatters(port, device.mtu()));
        let mut state = port.control.state();
        // While there are no rings, so that no frame in the new ones counts as one that came with the link down.
        state.want.down = false;
        state.apply_link();
        state.restart_steering();
        drop(state);
        let rings = rings(port);
        let refusal = port.control.change(|want| {
            let generation = want.last_generation.wrapping_add(1);
            want.last_generation = generation;
            want.mtu = device.mtu();
            want.rings = Some(Rings { generation, ..rings });
        });
        if let Err(refusal) = refusal {
            port.reset_queues();
            return refused(port, &refusal, libc::EINVAL);
        }
        let state = port.control.state();
        state.limit_frames();
        drop(state);
        device.set_queue_states(true);
        port.control.update_link();
        0
    }
}

/// Ring sizes of all queues.
fn rings(port: &Port) -> Rings {
    let (tx, rx) = (ring_sizes::<TxQueue>(port), ring_sizes::<RxQueue>(port));
    let queues = (0..port.device.rx_queues()).filter_map(|q| port.queue::<RxQueue>(q));
    let hashed = queues.into_iter().any(|q| q.config().offloads & sys::RTE_ETH_RX_OFFLOAD_RSS_HASH != 0);
    Rings { generation: 0, tx, rx, sleeps: port.interrupts.is_some(), hashed }
}

/// The daemon makes at least one ring in each direction; one that no queue uses stays small.
fn ring_sizes<Q: Queue>(port: &Port) -> Vec<u32> {
    let size = |index| port.queue::<Q>(index).map_or(MIN_RING, |queue| queue.descriptors().into());
    (0..Q::array(port.device).len().max(1)).map(size).collect()
}

operations! {
    /// Drops the rings. ethdev has taken the burst functions away.
    stop(port) {
        // Without rings there is nothing that a daemon would refuse.
        let ret = change(port, libc::EIO, |want| want.rings = None);
        port.reset_queues();
        port.device.set_queue_states(false);
        port.control.update_link();
        ret
    }
}

/// Frees everything but the port itself, which ethdev releases.
unsafe extern "C" fn close(dev: *mut sys::rte_eth_dev) -> c_int {
    // SAFETY: ethdev calls this with one of our ports.
    if let Some(device) = unsafe { Device::new(dev) } {
        // SAFETY: ethdev closes only ports that are stopped, so no burst function uses it.
        unsafe { close_port(device) };
    }
    0
}

/// Ends the driver's part of a port, if there still is one.
///
/// # Safety
///
/// `device` is a port of this driver that no burst function uses now.
pub(crate) unsafe fn close_port(device: Device) {
    let port = device.private().cast::<Port>();
    if port.is_null() {
        return;
    }
    // SAFETY: the box that probe stored there, and nobody finds it any more after the next line.
    let port = unsafe { Box::from_raw(port) };
    // ethdev would free it as memory of its own.
    device.set_private(std::ptr::null_mut());
    port.close();
}

operations! {
    /// Makes the port as it was after probe, on a new connection. ethdev has stopped it.
    reset(port) {
        let device = port.device;
        port.release_queues();
        let mut state = port.control.state();
        let main = port.control.args().mac.or_else(|| state.welcome.as_ref().map(|welcome| welcome.mac));
        let main = main.unwrap_or_else(|| state.want.main_mac());
        let want = &mut state.want;
        *want = Want { last_generation: want.last_generation, ..Want::new(main) };
        state.forget_flows();
        Totals::reset(&mut state);
        let macs = state.want.unicast;
        drop(state);
        device.set_macs(&macs);
        device.clear_modes();
        port.control.reattach();
        0
    }

    link_update(port, _wait: c_int) {
        if port.control.update_link() { 0 } else { -1 }
    }

    /// A started port has its link up unless the application has taken it down.
    set_link_up(port) { set_link(port, true) }

    set_link_down(port) { set_link(port, false) }
}

/// Takes the link up or down. While it is down, the queues pass no frames in either direction. The rings stay; what comes through
/// them in the meantime is discarded and counted by the queue's next burst, be it while the link is down or later.
fn set_link(port: &Port, up: bool) -> c_int {
    if !port.device.is_started() {
        if up {
            error!("port {}: it is stopped; its link comes up when it is started", port.device.port());
            return code(libc::EINVAL);
        }
        return 0;
    }
    let ret = change(port, libc::EIO, |want| want.down = !up);
    port.control.state().apply_link();
    port.control.update_link();
    ret
}

/// Reads an address that ethdev passes.
///
/// # Safety
///
/// `address` is null or valid.
unsafe fn mac(address: *const sys::rte_ether_addr) -> Mac {
    // SAFETY: by the caller's word.
    unsafe { address.as_ref() }.map_or_else(Mac::default, |address| address.addr_bytes)
}

unsafe extern "C" fn mac_addr_remove(dev: *mut sys::rte_eth_dev, index: u32) {
    // SAFETY: ethdev calls this with one of our ports.
    let Some(port) = (unsafe { port(dev) }) else { return };
    // The operation has no answer; a refusal has been logged.
    let _ignored = change(port, libc::EIO, |want| want.set_mac(index as usize, Mac::default()));
}

operations! {
    promiscuous_enable(port) { change(port, libc::EPERM, |want| want.promiscuous = true) }

    promiscuous_disable(port) { change(port, libc::EPERM, |want| want.promiscuous = false) }

    allmulticast_enable(port) { change(port, libc::EPERM, |want| want.all_multicast = true) }

    allmulticast_disable(port) { change(port, libc::EPERM, |want| want.all_multicast = false) }

    mac_addr_set(port, address: *mut sys::rte_ether_addr) {
        // SAFETY: from ethdev.
        let mac = unsafe { mac(address) };
        change(port, libc::EADDRINUSE, |want| want.set_mac(0, mac))
    }

    /// `index` is a free place in ethdev's list, below the limit in [`infos_get`].
    mac_addr_add(port, address: *mut sys::rte_ether_addr, index: u32, _pool: u32) {
        // SAFETY: from ethdev.
        let mac = unsafe { mac(address) };
        change(port, libc::EADDRINUSE, |want| want.set_mac(index as usize, mac))
    }

    set_mc_addr_list(port, list: *mut sys::rte_ether_addr, count: u32) {
        if count as usize > MAX_GROUPS {
            error!("port {}: {count} multicast addresses, a port has up to {MAX_GROUPS}", port.device.port());
            return code(libc::ENOSPC);
        }
        let groups = if count == 0 || list.is_null() {
            Vec::new()
        } else {
            // SAFETY: from ethdev, which passes the application's array of `count` addresses on.
            let list = unsafe { std::slice::from_raw_parts(list, count as usize) };
            list.iter().map(|address| address.addr_bytes).collect()
        };
        change(port, libc::EPERM, |want| want.groups = groups)
    }

    /// ethdev has checked the bounds.
    mtu_set(port, mtu: u16) {
        if !queues::may_change_mtu(port, mtu) {
            return code(libc::EINVAL);
        }
        let ret = change(port, libc::EINVAL, |want| want.mtu = mtu);
        port.control.state().limit_frames();
        ret
    }
}

/// Copies as much of `text` as fits, with a terminating zero.
fn copy_text(to: &mut [c_char], text: &str) {
    let Some((last, room)) = to.split_last_mut() else { return };
    let bytes = text.bytes().map(|byte| c_char::from_ne_bytes([byte])).chain(std::iter::repeat(0));
    room.iter_mut().zip(bytes).for_each(|(to, byte)| *to = byte);
    *last = 0;
}

/// The text for the firmware version: the daemon's protocol, and the port's number there.
fn firmware(protocol: u16, port: u16) -> String {
    format!("kopid, protocol {protocol}, port {port}")
}

operations! {
    infos_get(port, info: *mut sys::rte_eth_dev_info) {
        // SAFETY: from ethdev.
        let Some(info) = (unsafe { info.as_mut() }) else { return code(libc::EINVAL) };
        if !abi::is_prepared(info) {
            error!("port {}: this DPDK describes ports in another way than {}", port.device.port(), abi::built());
            return code(libc::ENOTSUP);
        }
        Limits::of(&port.control.state(), port.control.args()).describe(info);
        0
    }

    burst_mode_get(_port, _queue: u16, mode: *mut sys::rte_eth_burst_mode) {
        // SAFETY: from ethdev.
        let Some(mode) = (unsafe { mode.as_mut() }) else { return code(libc::EINVAL) };
        copy_text(&mut mode.info, "Shared-memory ring");
        0
    }

    /// 0, or the bytes needed if there are too few. Tools give 32 (`ETHTOOL_FWVERS_LEN` of Linux).
    fw_version_get(port, to: *mut c_char, room: usize) {
        let state = port.control.state();
        let text = state.welcome.as_ref().map_or_else(
            || "no daemon seen".to_owned(),
            |welcome| firmware(state.protocol, welcome.port),
        );
        drop(state);
        let needed = text.len().saturating_add(1);
        if to.is_null() || room < needed {
            return c_int::try_from(needed).unwrap_or(0);
        }
        // SAFETY: from ethdev, which passes the application's buffer on.
        copy_text(unsafe { std::slice::from_raw_parts_mut(to, room) }, &text);
        0
    }
}

/// Stops a port that is being removed while it runs.
pub(crate) fn stop_for_removal(device: Device) {
    if !device.is_started() {
        return;
    }
    warning!("port {}: removed while it runs", device.port());
    // SAFETY: a port of ours; this takes the burst functions away and calls `stop`.
    let stopped = unsafe { sys::rte_eth_dev_stop(device.port()) };
    if stopped != 0 {
        error!("port {}: cannot be stopped ({stopped})", device.port());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tools that give 32 bytes, with the zero at the end, get all of it, whatever the numbers.
    #[test]
    fn firmware_fits_what_tools_give() {
        assert_eq!(firmware(2, 7), "kopid, protocol 2, port 7");
        assert!(firmware(99, u16::MAX).len() < 32);
    }
}
