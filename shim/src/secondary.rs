//! What a secondary process has of a port: its place in ethdev.
//!
//! DPDK plugs a port in and out in all processes of a group or in none, so a secondary process has to know it. Rings, threads and
//! counters are the primary's, in memory that only it has. So here a port reports what it is and whether its link is up, it passes
//! no frames, and everything else is refused by ethdev.

use crate::abi;
use crate::device::Device;
use crate::errno::code;
use crate::limits::Limits;
use crate::ops::Ops;
use crate::sys;
use std::ffi::{CStr, c_int};

static OPS: Ops = Ops(table());

const fn table() -> sys::eth_dev_ops {
    // SAFETY: all members are optional functions, for which zero is none.
    let mut ops: sys::eth_dev_ops = unsafe { std::mem::zeroed() };
    ops.dev_close = Some(close);
    ops.dev_infos_get = Some(infos_get);
    ops.link_update = Some(link_update);
    ops
}

/// Makes the port `name` of the primary process known in this one.
///
/// # Safety
///
/// `vdev` is the device of that name, which is being probed in a secondary process.
pub(crate) unsafe fn attach(vdev: *mut sys::rte_vdev_device, name: &CStr) -> Result<(), (c_int, String)> {
    // SAFETY: the name is a C string.
    let dev = unsafe { sys::rte_eth_dev_attach_secondary(name.as_ptr()) };
    // SAFETY: null, or the port's place in this process, which nobody else uses yet.
    let Some(entry) = (unsafe { dev.as_mut() }) else {
        let text = "the primary process has no such port, and secondary processes have none of their own";
        return Err((libc::ENODEV, text.into()));
    };
    entry.dev_ops = OPS.as_ptr();
    // SAFETY: a device of the bus.
    entry.device = unsafe { sys::kopi_vdev_to_device(vdev) };
    entry.rx_pkt_burst = Some(sys::rte_eth_pkt_burst_dummy);
    entry.tx_pkt_burst = Some(sys::rte_eth_pkt_burst_dummy);
    // SAFETY: the port is complete.
    unsafe { sys::rte_eth_dev_probing_finish(dev) };
    Ok(())
}

/// There is nothing of ours to be freed.
unsafe extern "C" fn close(_dev: *mut sys::rte_eth_dev) -> c_int {
    0
}

/// The primary process keeps the link where ethdev finds it.
unsafe extern "C" fn link_update(_dev: *mut sys::rte_eth_dev, _wait: c_int) -> c_int {
    0
}

unsafe extern "C" fn infos_get(dev: *mut sys::rte_eth_dev, info: *mut sys::rte_eth_dev_info) -> c_int {
    // SAFETY: ethdev calls this with one of our ports.
    let device = unsafe { Device::new(dev) };
    // SAFETY: from ethdev.
    let (Some(device), Some(info)) = (device, unsafe { info.as_mut() }) else { return code(libc::EINVAL) };
    if !abi::is_prepared(info) {
        return code(libc::ENOTSUP);
    }
    let queues = device.rx_queues().max(device.tx_queues()).max(1);
    Limits::of_queues(queues).describe(info);
    0
}
