//! Operations on queues: set-up, information, receive interrupts.

use super::port;
use crate::abi;
use crate::device::Device;
use crate::errno::code;
use crate::irq_thread::IrqThread;
use crate::limits::{Limits, frame_for};
use crate::log::{error, warning};
use crate::port::{Port, Queue};
use crate::rx::offloads::{self, Timestamp};
use crate::rx::{RxConfig, RxQueue};
use crate::rx_interrupt::RxInterrupts;
use crate::sys;
use crate::tx::{TxConfig, TxQueue};
use std::ffi::{c_int, c_uint};
use std::sync::Arc;

/// The RX queues whose buffers cannot take the longest frame of this MTU: each with its number.
fn short_queues(port: &Port, mtu: u16) -> impl Iterator<Item = (u16, &RxConfig)> {
    let queues = (0..port.device.rx_queues()).filter_map(|index| Some((index, port.queue::<RxQueue>(index)?.config())));
    queues.filter(move |(_, config)| u32::from(config.room) < frame_for(mtu))
}

/// Whether received packets will have several segments on a port that starts with this MTU. Where that was not asked for, it is said, as
/// drivers of cards chain buffers, too, and applications may or may not know of it.
pub(super) fn scatters(port: &Port, mtu: u16) -> bool {
    if let Some((index, config)) = short_queues(port, mtu).find(|(_, config)| !config.scatter()) {
        warning!(
            "port {}: RX queue {index}: buffers of {} bytes are too small for frames of {} bytes (MTU {mtu}): such frames come in \
             several, though not asked for (SCATTER)",
            port.device.port(),
            config.room,
            frame_for(mtu)
        );
    }
    short_queues(port, mtu).next().is_some()
}

/// Whether a port may get this MTU. One that is started does not begin to chain buffers unless asked to: the application may have looked
/// whether it does. Logs an error if not.
pub(super) fn may_change_mtu(port: &Port, mtu: u16) -> bool {
    if !port.device.is_started() || port.device.scattered_rx() {
        return true;
    }
    let Some((index, config)) = short_queues(port, mtu).find(|(_, config)| !config.scatter()) else { return true };
    error!(
        "port {}: RX queue {index}: buffers of {} bytes are too small for frames of {} bytes (MTU {mtu}): stop the port before, or ask \
         for the offload SCATTER",
        port.device.port(),
        config.room,
        frame_for(mtu)
    );
    false
}

operations! {
    /// ethdev has checked the number of descriptors and the size of the buffers against [`infos_get`](super::infos_get).
    pub(super) rx_queue_setup(
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
        // SAFETY: ethdev has checked that this is a pool of packet buffers.
        if !unsafe { sys::kopi_pktmbuf_pool_known(pool) } {
            error!("port {}: RX queue {index}: this DPDK keeps its pools in another way than {}", device.port(), abi::built());
            return code(libc::ENOTSUP);
        }
        let offloads = device.rx_offloads() | conf.map_or(0, |conf| conf.offloads);
        let headroom = u16::try_from(sys::RTE_PKTMBUF_HEADROOM).unwrap_or(0);
        // SAFETY: ethdev has checked that this is a pool of packet buffers.
        let room = unsafe { sys::kopi_pktmbuf_data_room_size(pool) }.saturating_sub(headroom);
        let descriptors = Limits::of(&port.control.state(), port.control.args()).ring_for(descriptors);
        let stamped = offloads & sys::RTE_ETH_RX_OFFLOAD_TIMESTAMP != 0;
        let timestamp = match stamped.then(Timestamp::register).transpose() {
            Ok(timestamp) => timestamp,
            Err(errno) => {
                error!("port {}: RX queue {index}: no room for timestamps in mbufs", device.port());
                return code(errno);
            }
        };
        let config = RxConfig { descriptors, room, offloads, timestamp };
        port.release_queue::<RxQueue>(index);
        // SAFETY: the room is that of this pool, which by ethdev's rules outlives the queue.
        let mut queue = unsafe { RxQueue::new(pool, device.port(), config) };
        queue.set_irq_thread(port.interrupts.as_ref().map(RxInterrupts::irq_thread));
        queue.set_steering(Arc::clone(&port.control.state().steering), index);
        port.set_queue(index, queue);
        0
    }
}

operations! {
    /// ethdev has checked what is asked for against [`infos_get`](super::infos_get), and written it into the port's offloads. The port
    /// may run.
    pub(super) vlan_offload_set(port, mask: c_int) {
        if mask & sys::RTE_ETH_VLAN_STRIP_MASK.cast_signed() != 0 {
            let strip = port.device.rx_offloads() & sys::RTE_ETH_RX_OFFLOAD_VLAN_STRIP != 0;
            let queues = (0..port.device.rx_queues()).filter_map(|index| port.queue::<RxQueue>(index));
            queues.for_each(|queue| queue.shared().set_strip(strip));
        }
        0
    }

    /// The clock of timestamps.
    pub(super) read_clock(_port, clock: *mut u64) {
        // SAFETY: from ethdev, which passes the application's place on.
        let Some(clock) = (unsafe { clock.as_mut() }) else { return code(libc::EINVAL) };
        *clock = offloads::clock();
        0
    }
}

/// The same for one queue. ethdev has checked that there is one.
pub(super) unsafe extern "C" fn vlan_strip_queue_set(dev: *mut sys::rte_eth_dev, index: u16, on: c_int) {
    // SAFETY: ethdev calls this with one of our ports.
    if let Some(queue) = unsafe { port(dev) }.and_then(|port| port.queue::<RxQueue>(index)) {
        queue.shared().set_strip(on != 0);
    }
}

/// RX queue `index` of `dev`, and what wakes the application for it.
///
/// # Safety
///
/// `dev` comes from ethdev, for the length of an operation. Unlike the others, this operation may run in several threads at a time,
/// one for each queue.
unsafe fn interrupt_queue<'a>(dev: *mut sys::rte_eth_dev, index: u16) -> Option<(&'a RxQueue, &'a IrqThread)> {
    // SAFETY: by the caller's word.
    let device = unsafe { Device::new(dev) }?;
    let queue = device.rx_array().get(index).cast::<RxQueue>();
    // SAFETY: null or the queue that was stored there. What is read of it does not change while it is in use.
    let queue = unsafe { queue.as_ref() }?;
    queue.irq_thread().map(|irq_thread| (queue, &**irq_thread))
}

/// The application is about to sleep until queue `index` has a frame.
pub(super) unsafe extern "C" fn rx_queue_intr_enable(dev: *mut sys::rte_eth_dev, index: u16) -> c_int {
    // SAFETY: ethdev calls this with one of our ports.
    let found = unsafe { interrupt_queue(dev, index) };
    if found.is_some_and(|(queue, irq_thread)| irq_thread.enable(index, queue.shared())) {
        0
    } else {
        code(libc::ENOTSUP)
    }
}

/// The application is awake.
pub(super) unsafe extern "C" fn rx_queue_intr_disable(dev: *mut sys::rte_eth_dev, index: u16) -> c_int {
    // SAFETY: ethdev calls this with one of our ports.
    let found = unsafe { interrupt_queue(dev, index) };
    if found.is_some_and(|(_, irq_thread)| irq_thread.disable(index)) { 0 } else { code(libc::ENOTSUP) }
}

pub(super) unsafe extern "C" fn queue_release<Q: Queue>(dev: *mut sys::rte_eth_dev, index: u16) {
    // SAFETY: ethdev calls this with one of our ports.
    if let Some(port) = unsafe { port(dev) } {
        port.release_queue::<Q>(index);
    }
}

operations! {
    /// ethdev has checked the number of descriptors against [`infos_get`](super::infos_get).
    pub(super) tx_queue_setup(
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
        let descriptors = Limits::of(&port.control.state(), port.control.args()).tx_ring_for(descriptors, offloads);
        port.release_queue::<TxQueue>(index);
        port.set_queue(index, TxQueue::new(TxConfig { descriptors, offloads }));
        port.control.state().limit_frames();
        0
    }
}

pub(super) unsafe extern "C" fn rxq_info_get(dev: *mut sys::rte_eth_dev, index: u16, info: *mut sys::rte_eth_rxq_info) {
    // SAFETY: ethdev calls this with one of our ports.
    let Some(port) = (unsafe { port(dev) }) else { return };
    // SAFETY: from ethdev.
    let (Some(queue), Some(info)) = (port.queue::<RxQueue>(index), unsafe { info.as_mut() }) else { return };
    let config = queue.config();
    info.mp = queue.pool();
    info.conf.offloads = queue.offloads();
    info.conf.rx_drop_en = 1;
    info.scattered_rx = (u32::from(config.room) < frame_for(port.device.mtu())).into();
    info.nb_desc = config.descriptors;
    info.rx_buf_size = config.room;
}

pub(super) unsafe extern "C" fn txq_info_get(dev: *mut sys::rte_eth_dev, index: u16, info: *mut sys::rte_eth_txq_info) {
    // SAFETY: ethdev calls this with one of our ports.
    let Some(port) = (unsafe { port(dev) }) else { return };
    // SAFETY: from ethdev.
    let (Some(queue), Some(info)) = (port.queue::<TxQueue>(index), unsafe { info.as_mut() }) else { return };
    info.conf.offloads = queue.config().offloads;
    info.nb_desc = queue.config().descriptors;
}
