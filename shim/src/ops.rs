//! The ethdev operations.
//!
//! ethdev calls them one at a time for each port. They change what is wanted of the daemon and wait for it for a second
//! at most ([`crate::control`]); without a daemon they succeed, and the daemon is told when it is back.

use crate::device::Device;
use crate::interrupt::{Interrupts, Relay};
use crate::limits::{Limits, PTYPES};
use crate::log::{error, warning};
use crate::port::{MAX_GROUPS, Port, Refusal, Rings, Want};
use crate::rx::{RxConfig, RxQueue};
use crate::stats::{Totals, names};
use crate::tx::{TxConfig, TxQueue};
use dpdk_sys as sys;
use kopi_ring::DropReason;
use kopi_ring::layout::{L2_OVERHEAD, MIN_RING};
use kopi_ring::message::Mac;
use std::ffi::{c_char, c_int, c_uint};

/// The operations of the driver.
pub(crate) static OPS: Ops = Ops(table());

/// The table, which DPDK only reads.
pub(crate) struct Ops(sys::eth_dev_ops);

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
    ops.promiscuous_enable = Some(promiscuous_enable);
    ops.promiscuous_disable = Some(promiscuous_disable);
    ops.allmulticast_enable = Some(allmulticast_enable);
    ops.allmulticast_disable = Some(allmulticast_disable);
    ops.mac_addr_add = Some(mac_addr_add);
    ops.mac_addr_remove = Some(mac_addr_remove);
    ops.mac_addr_set = Some(mac_addr_set);
    ops.set_mc_addr_list = Some(set_mc_addr_list);
    ops.mtu_set = Some(mtu_set);
    ops.stats_get = Some(stats_get);
    ops.stats_reset = Some(stats_reset);
    ops.xstats_get = Some(xstats_get);
    ops.xstats_get_names = Some(xstats_get_names);
    ops.xstats_reset = Some(stats_reset);
    ops.dev_infos_get = Some(infos_get);
    ops.rxq_info_get = Some(rxq_info_get);
    ops.txq_info_get = Some(txq_info_get);
    ops.rx_burst_mode_get = Some(burst_mode_get);
    ops.tx_burst_mode_get = Some(burst_mode_get);
    ops.fw_version_get = Some(fw_version_get);
    ops.dev_supported_ptypes_get = Some(supported_ptypes_get);
    ops.rx_queue_setup = Some(rx_queue_setup);
    ops.rx_queue_release = Some(rx_queue_release);
    ops.rx_queue_intr_enable = Some(rx_queue_intr_enable);
    ops.rx_queue_intr_disable = Some(rx_queue_intr_disable);
    ops.tx_queue_setup = Some(tx_queue_setup);
    ops.tx_queue_release = Some(tx_queue_release);
    ops
}

sys::supported_ptypes_callback!(supported_ptypes_get, PTYPES);

/// An errno as ethdev wants it: negative.
pub(crate) const fn code(errno: c_int) -> c_int {
    errno.wrapping_neg()
}

/// One of ethdev's small unsigned constants as an answer.
pub(crate) fn status(status: u32) -> c_int {
    c_int::try_from(status).unwrap_or(0)
}

/// The port behind `dev`.
///
/// # Safety
///
/// `dev` comes from ethdev, for the length of an operation.
unsafe fn port<'a>(dev: *mut sys::rte_eth_dev) -> Option<&'a mut Port> {
    // SAFETY: by the caller's word.
    let device = unsafe { Device::new(dev) }?;
    // SAFETY: ethdev does not run two operations of one port at a time.
    unsafe { Port::of(device) }
}

/// Defines an operation: `|port| …` runs with the port, and a device that has none answers `ENODEV`.
macro_rules! operation {
    ($(#[$doc:meta])* $name:ident($port:ident $(, $arg:ident: $ty:ty)*) $body:block) => {
        $(#[$doc])*
        unsafe extern "C" fn $name(dev: *mut sys::rte_eth_dev $(, $arg: $ty)*) -> c_int {
            // SAFETY: ethdev calls this with one of our ports.
            let found = unsafe { port(dev) };
            let Some($port) = found else { return code(libc::ENODEV) };
            $body
        }
    };
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

operation! {
    /// ethdev has checked everything against [`infos_get`]. The port is stopped.
    configure(port) {
        match port.set_interrupts() {
            Ok(()) => 0,
            Err(problem) => {
                error!("port {}: no receive interrupts: {problem}", port.device.port());
                code(problem.raw_os_error().unwrap_or(libc::ENOMEM))
            }
        }
    }
}

operation! {
    /// Makes rings for the queues that were set up. Without a daemon the port starts with its link down.
    start(port) {
        let device = port.device;
        if !fits(port, device.mtu()) {
            return code(libc::EINVAL);
        }
        let scattered = (0..device.rx_queues())
            .filter_map(|q| port.rx_queue(q))
            .any(|q| u32::from(q.config().room) < frame_for(device.mtu()));
        device.set_scattered_rx(scattered);
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
        port.control.state().limit_frames();
        device.set_queue_states(true);
        port.control.show_link();
        0
    }
}

/// Ring sizes of all queues. The daemon makes at least one ring in each direction; one that no queue uses stays small.
fn rings(port: &Port) -> Rings {
    let device = port.device;
    let rx = (0..device.rx_queues()).map(|q| port.rx_queue(q).map_or(MIN_RING, |q| q.config().descriptors.into()));
    let tx = (0..device.tx_queues()).map(|q| port.tx_queue(q).map_or(MIN_RING, |q| q.config().descriptors.into()));
    let (mut rx, mut tx): (Vec<u32>, Vec<u32>) = (rx.collect(), tx.collect());
    for sizes in [&mut rx, &mut tx] {
        if sizes.is_empty() {
            sizes.push(MIN_RING);
        }
    }
    Rings { generation: 0, tx, rx, sleeps: port.interrupts.is_some() }
}

/// The longest frame for an MTU, in bytes.
fn frame_for(mtu: u16) -> u32 {
    u32::from(mtu).saturating_add(L2_OVERHEAD.into())
}

/// Whether all RX queues can take frames of this MTU. Says so if not.
fn fits(port: &Port, mtu: u16) -> bool {
    let short = (0..port.device.rx_queues()).find_map(|index| {
        let config = port.rx_queue(index)?.config();
        (u32::from(config.room) < frame_for(mtu) && !config.scatter).then_some((index, config.room))
    });
    if let Some((index, room)) = short {
        too_small(port, index, room, mtu);
    }
    short.is_none()
}

fn too_small(port: &Port, index: u16, room: u16, mtu: u16) {
    error!(
        "port {}: RX queue {index}: buffers of {room} bytes are too small for frames of {} bytes (MTU {mtu}) without \
         the offload SCATTER",
        port.device.port(),
        frame_for(mtu)
    );
}

operation! {
    /// Lets go of the rings. ethdev has taken the burst functions away.
    stop(port) {
        // Without rings there is nothing that a daemon would refuse.
        let ret = change(port, libc::EIO, |want| want.rings = None);
        port.reset_queues();
        port.device.set_queue_states(false);
        port.control.show_link();
        ret
    }
}

/// Frees everything but the port itself, which ethdev releases.
unsafe extern "C" fn close(dev: *mut sys::rte_eth_dev) -> c_int {
    // SAFETY: ethdev calls this with one of our ports.
    unsafe { close_port(dev) };
    0
}

/// Ends the driver's part of a port, if there still is one.
///
/// # Safety
///
/// `dev` is a port of this driver that no burst function uses now.
pub(crate) unsafe fn close_port(dev: *mut sys::rte_eth_dev) {
    // SAFETY: by the caller's word.
    let Some(device) = (unsafe { Device::new(dev) }) else { return };
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

operation! {
    /// Makes the port as it was after probe, on a new connection. ethdev has stopped it.
    reset(port) {
        let device = port.device;
        for index in 0..device.rx_queues() {
            port.release_rx_queue(index);
        }
        for index in 0..device.tx_queues() {
            port.release_tx_queue(index);
        }
        let mut state = port.control.state();
        let main = port.control.args().mac.or_else(|| state.welcome.as_ref().map(|welcome| welcome.mac));
        let main = main.unwrap_or_else(|| state.want.main_mac());
        let want = &mut state.want;
        *want = Want { last_generation: want.last_generation, ..Want::new(main) };
        Totals::reset(&mut state);
        let macs = state.want.unicast;
        drop(state);
        device.set_macs(&macs);
        device.clear_modes();
        port.control.reattach();
        0
    }
}

operation! {
    link_update(port, _wait: c_int) {
        if port.control.show_link() { 0 } else { -1 }
    }
}

operation! {
    promiscuous_enable(port) { change(port, libc::EPERM, |want| want.promiscuous = true) }
}

operation! {
    promiscuous_disable(port) { change(port, libc::EPERM, |want| want.promiscuous = false) }
}

operation! {
    allmulticast_enable(port) { change(port, libc::EPERM, |want| want.all_multicast = true) }
}

operation! {
    allmulticast_disable(port) { change(port, libc::EPERM, |want| want.all_multicast = false) }
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

operation! {
    mac_addr_set(port, address: *mut sys::rte_ether_addr) {
        // SAFETY: from ethdev.
        let mac = unsafe { mac(address) };
        change(port, libc::EADDRINUSE, |want| want.set_mac(0, mac))
    }
}

operation! {
    /// `index` is a free place in ethdev's list, below the limit in [`infos_get`].
    mac_addr_add(port, address: *mut sys::rte_ether_addr, index: u32, _pool: u32) {
        // SAFETY: from ethdev.
        let mac = unsafe { mac(address) };
        change(port, libc::EADDRINUSE, |want| want.set_mac(index as usize, mac))
    }
}

unsafe extern "C" fn mac_addr_remove(dev: *mut sys::rte_eth_dev, index: u32) {
    // SAFETY: ethdev calls this with one of our ports.
    let Some(port) = (unsafe { port(dev) }) else { return };
    // The operation has no answer; a refusal has been logged.
    let _ignored = change(port, libc::EIO, |want| want.set_mac(index as usize, Mac::default()));
}

operation! {
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
}

operation! {
    /// ethdev has checked the bounds.
    mtu_set(port, mtu: u16) {
        if !fits(port, mtu) {
            return code(libc::EINVAL);
        }
        let ret = change(port, libc::EINVAL, |want| want.mtu = mtu);
        port.control.state().limit_frames();
        ret
    }
}

operation! {
    stats_get(port, stats: *mut sys::rte_eth_stats) {
        // SAFETY: from ethdev.
        let Some(stats) = (unsafe { stats.as_mut() }) else { return code(libc::EINVAL) };
        let totals = Totals::of(&mut port.control.state());
        let (rx, tx) = (totals.all_rx(), totals.all_tx());
        stats.ipackets = rx.packets;
        stats.ibytes = rx.bytes;
        stats.ierrors = rx.errors();
        stats.rx_nombuf = rx.no_mbuf;
        stats.imissed = totals.drops(DropReason::RxRingFull);
        stats.opackets = tx.packets;
        stats.obytes = tx.bytes;
        stats.oerrors = tx.errors();
        let queues = stats.q_ipackets.iter_mut().zip(&mut stats.q_ibytes).zip(&mut stats.q_errors);
        for (((packets, bytes), errors), queue) in queues.zip(&totals.rx) {
            (*packets, *bytes, *errors) = (queue.packets, queue.bytes, queue.errors());
        }
        for ((packets, bytes), queue) in stats.q_opackets.iter_mut().zip(&mut stats.q_obytes).zip(&totals.tx) {
            (*packets, *bytes) = (queue.packets, queue.bytes);
        }
        0
    }
}

operation! {
    /// All counters of the driver, those of the extended statistics too.
    stats_reset(port) {
        Totals::reset(&mut port.control.state());
        0
    }
}

operation! {
    /// The number of values, which are written if there is room for all.
    xstats_get(port, to: *mut sys::rte_eth_xstat, room: c_uint) {
        let values = Totals::of(&mut port.control.state()).extended();
        if !to.is_null() && room as usize >= values.len() {
            for (id, value) in values.iter().enumerate() {
                let stat = sys::rte_eth_xstat { id: id as u64, value: *value };
                // SAFETY: the array has room for all values.
                unsafe { to.wrapping_add(id).write(stat) };
            }
        }
        c_int::try_from(values.len()).unwrap_or(0)
    }
}

operation! {
    /// The number of names, which are written if there is room for all.
    xstats_get_names(_port, to: *mut sys::rte_eth_xstat_name, room: c_uint) {
        let count = names().count();
        if !to.is_null() && room as usize >= count {
            for (id, name) in names().enumerate() {
                // SAFETY: the array has room for all names.
                let stat = unsafe { &mut *to.wrapping_add(id) };
                copy_text(&mut stat.name, &name);
            }
        }
        c_int::try_from(count).unwrap_or(0)
    }
}

/// Copies as much of `text` as fits, with a terminating zero.
fn copy_text(to: &mut [c_char], text: &str) {
    let Some((last, room)) = to.split_last_mut() else { return };
    let bytes = text.bytes().map(|byte| c_char::from_ne_bytes([byte])).chain(std::iter::repeat(0));
    room.iter_mut().zip(bytes).for_each(|(to, byte)| *to = byte);
    *last = 0;
}

operation! {
    infos_get(port, info: *mut sys::rte_eth_dev_info) {
        // SAFETY: from ethdev.
        let Some(info) = (unsafe { info.as_mut() }) else { return code(libc::EINVAL) };
        Limits::of(&port.control.state(), port.control.args()).describe(info);
        0
    }
}

unsafe extern "C" fn rxq_info_get(dev: *mut sys::rte_eth_dev, index: u16, info: *mut sys::rte_eth_rxq_info) {
    // SAFETY: ethdev calls this with one of our ports.
    let Some(port) = (unsafe { port(dev) }) else { return };
    // SAFETY: from ethdev.
    let (Some(queue), Some(info)) = (port.rx_queue(index), unsafe { info.as_mut() }) else { return };
    let config = queue.config();
    info.mp = queue.pool();
    info.conf.offloads = config.offloads;
    info.conf.rx_drop_en = 1;
    info.scattered_rx = (u32::from(config.room) < frame_for(port.device.mtu())).into();
    info.nb_desc = config.descriptors;
    info.rx_buf_size = config.room;
}

unsafe extern "C" fn txq_info_get(dev: *mut sys::rte_eth_dev, index: u16, info: *mut sys::rte_eth_txq_info) {
    // SAFETY: ethdev calls this with one of our ports.
    let Some(port) = (unsafe { port(dev) }) else { return };
    // SAFETY: from ethdev.
    let (Some(queue), Some(info)) = (port.tx_queue(index), unsafe { info.as_mut() }) else { return };
    info.conf.offloads = queue.config().offloads;
    info.nb_desc = queue.config().descriptors;
}

operation! {
    burst_mode_get(_port, _queue: u16, mode: *mut sys::rte_eth_burst_mode) {
        // SAFETY: from ethdev.
        let Some(mode) = (unsafe { mode.as_mut() }) else { return code(libc::EINVAL) };
        copy_text(&mut mode.info, "Shared-memory ring");
        0
    }
}

operation! {
    /// 0, or the bytes needed if there are too few.
    fw_version_get(port, to: *mut c_char, room: usize) {
        let text = port.control.state().welcome.as_ref().map_or_else(
            || "no daemon seen".to_owned(),
            |welcome| format!("kopid, ring protocol {}, port {} ({})", kopi_ring::PROTOCOL, welcome.port, welcome.name),
        );
        let needed = text.len().saturating_add(1);
        if to.is_null() || room < needed {
            return c_int::try_from(needed).unwrap_or(0);
        }
        // SAFETY: from ethdev, which passes the application's buffer on.
        copy_text(unsafe { std::slice::from_raw_parts_mut(to, room) }, &text);
        0
    }
}

operation! {
    /// ethdev has checked the number of descriptors and the size of the buffers against [`infos_get`].
    rx_queue_setup(
        port,
        index: u16,
        descriptors: u16,
        _socket: c_uint,
        conf: *const sys::rte_eth_rxconf,
        pool: *mut sys::rte_mempool
    ) {
        let device = port.device;
        // SAFETY: from ethdev.
        let conf = unsafe { conf.as_ref() };
        if pool.is_null() || conf.is_some_and(|conf| conf.rx_nseg > 0) {
            error!("port {}: RX queue {index}: one pool for a queue, please", device.port());
            return code(libc::ENOTSUP);
        }
        if conf.is_some_and(|conf| conf.rx_deferred_start != 0) {
            error!("port {}: RX queue {index}: queues cannot be started one by one", device.port());
            return code(libc::ENOTSUP);
        }
        let offloads = device.rx_offloads() | conf.map_or(0, |conf| conf.offloads);
        let headroom = u16::try_from(sys::RTE_PKTMBUF_HEADROOM).unwrap_or(0);
        // SAFETY: ethdev has checked that this is a pool of packet buffers.
        let room = unsafe { sys::kopi_pktmbuf_data_room_size(pool) }.saturating_sub(headroom);
        let scatter = offloads & sys::RTE_ETH_RX_OFFLOAD_SCATTER != 0;
        if u32::from(room) < frame_for(device.mtu()) && !scatter {
            too_small(port, index, room, device.mtu());
            return code(libc::EINVAL);
        }
        let descriptors = Limits::of(&port.control.state(), port.control.args()).ring_for(descriptors);
        let config = RxConfig { descriptors, room, scatter, offloads };
        port.release_rx_queue(index);
        // SAFETY: the room is that of this pool, which by ethdev's rules outlives the queue.
        let mut queue = unsafe { RxQueue::new(pool, device.port(), config) };
        queue.set_relay(port.interrupts.as_ref().map(Interrupts::relay));
        port.set_rx_queue(index, Box::new(queue));
        0
    }
}

/// RX queue `index` of `dev`, and what wakes the application for it.
///
/// # Safety
///
/// `dev` comes from ethdev, for the length of an operation. Other than the rest of them, this one may be in several threads,
/// one for each queue.
unsafe fn sleeping_queue<'a>(dev: *mut sys::rte_eth_dev, index: u16) -> Option<(&'a RxQueue, &'a Relay)> {
    // SAFETY: by the caller's word.
    let device = unsafe { Device::new(dev) }?;
    let queue = device.rx_queue(index).cast::<RxQueue>();
    // SAFETY: null or the queue that was stored there. What is read of it does not change while it is in use.
    let queue = unsafe { queue.as_ref() }?;
    queue.relay().map(|relay| (queue, &**relay))
}

/// The application is about to sleep until queue `index` has a frame.
unsafe extern "C" fn rx_queue_intr_enable(dev: *mut sys::rte_eth_dev, index: u16) -> c_int {
    // SAFETY: ethdev calls this with one of our ports.
    let found = unsafe { sleeping_queue(dev, index) };
    if found.is_some_and(|(queue, relay)| relay.enable(index, queue.shared())) { 0 } else { code(libc::ENOTSUP) }
}

/// The application is awake.
unsafe extern "C" fn rx_queue_intr_disable(dev: *mut sys::rte_eth_dev, index: u16) -> c_int {
    // SAFETY: ethdev calls this with one of our ports.
    let found = unsafe { sleeping_queue(dev, index) };
    if found.is_some_and(|(_, relay)| relay.disable(index)) { 0 } else { code(libc::ENOTSUP) }
}

unsafe extern "C" fn rx_queue_release(dev: *mut sys::rte_eth_dev, index: u16) {
    // SAFETY: ethdev calls this with one of our ports.
    if let Some(port) = unsafe { port(dev) } {
        port.release_rx_queue(index);
    }
}

operation! {
    /// ethdev has checked the number of descriptors against [`infos_get`].
    tx_queue_setup(
        port,
        index: u16,
        descriptors: u16,
        _socket: c_uint,
        conf: *const sys::rte_eth_txconf
    ) {
        let device = port.device;
        // SAFETY: from ethdev.
        let conf = unsafe { conf.as_ref() };
        if conf.is_some_and(|conf| conf.tx_deferred_start != 0) {
            error!("port {}: TX queue {index}: queues cannot be started one by one", device.port());
            return code(libc::ENOTSUP);
        }
        let offloads = device.tx_offloads() | conf.map_or(0, |conf| conf.offloads);
        let descriptors = Limits::of(&port.control.state(), port.control.args()).ring_for(descriptors);
        port.release_tx_queue(index);
        port.set_tx_queue(index, Box::new(TxQueue::new(TxConfig { descriptors, offloads })));
        port.control.state().limit_frames();
        0
    }
}

unsafe extern "C" fn tx_queue_release(dev: *mut sys::rte_eth_dev, index: u16) {
    // SAFETY: ethdev calls this with one of our ports.
    if let Some(port) = unsafe { port(dev) } {
        port.release_tx_queue(index);
    }
}

/// Stops a port that is being removed while it runs.
///
/// # Safety
///
/// `dev` is a port of this driver.
pub(crate) unsafe fn stop_for_removal(dev: *mut sys::rte_eth_dev) {
    // SAFETY: by the caller's word.
    let Some(device) = (unsafe { Device::new(dev) }) else { return };
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
