//! The driver as DPDK sees it: registration, probe and remove.

use crate::abi;
use crate::control::Control;
use crate::devargs::Args;
use crate::device::Device;
use crate::errno::code;
use crate::log::{self, error, notice};
use crate::ops::{self, OPS};
use crate::port::Port;
use crate::port_state::{FirstAttempt, MAX_UNICAST};
use crate::sys;
use crate::{rx, secondary, thread, tx};
use kopi_ring::message::Mac;
use std::cell::UnsafeCell;
use std::ffi::{CStr, c_int, c_void};
use std::mem::MaybeUninit;
use std::sync::Arc;

/// Runs when the library is loaded.
#[used]
#[unsafe(link_section = ".init_array")]
static CONSTRUCTOR: extern "C" fn() = construct;

/// The driver's entry in the list of virtual drivers, in which DPDK links it by pointers of its own.
static DRIVER: Driver = Driver(UnsafeCell::new(MaybeUninit::zeroed()));

struct Driver(UnsafeCell<MaybeUninit<sys::rte_vdev_driver>>);

// SAFETY: the constructor fills it in before DPDK sees it; from then on only DPDK touches it.
unsafe impl Sync for Driver {}

/// `rte_vdev_register`.
type Register = unsafe extern "C" fn(*mut sys::rte_vdev_driver);

extern "C" fn construct() {
    if let Err(line) = abi::check(&abi::running_version()) {
        complain(&line);
        return;
    }
    let Some(register) = vdev_register() else {
        complain("net_kopi: DPDK's bus for virtual devices cannot be loaded: driver not registered");
        return;
    };
    thread::remember_processors();
    log::register();
    let driver = DRIVER.0.get().cast::<sys::rte_vdev_driver>();
    // SAFETY: nobody else knows the driver yet. All zeros is a valid start for every field.
    let entry = unsafe { &mut *driver };
    entry.driver.name = c"net_kopi".as_ptr();
    entry.probe = Some(probe);
    entry.remove = Some(remove);
    // SAFETY: the entry is complete and lives as long as the library.
    unsafe { register(driver) };
}

/// Finds `rte_vdev_register`. Applications are linked with the bus only if they use it themselves; EAL then loads it as
/// a plugin of its own, maybe after us.
fn vdev_register() -> Option<Register> {
    let name = c"rte_vdev_register";
    // SAFETY: a look-up in the libraries that are loaded.
    let mut found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
    if found.is_null() {
        let library = format!("librte_bus_vdev.so.{}\0", sys::BUILT_ABI);
        let library = CStr::from_bytes_with_nul(library.as_bytes()).ok()?;
        // SAFETY: one of DPDK's own libraries, of the release that runs.
        let handle = unsafe { libc::dlopen(library.as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL) };
        if handle.is_null() {
            return None;
        }
        // SAFETY: the library is open and stays so.
        found = unsafe { libc::dlsym(handle, name.as_ptr()) };
    }
    // SAFETY: null, or the function of this name, which has this signature since DPDK 17.11.
    unsafe { std::mem::transmute::<*mut c_void, Option<Register>>(found) }
}

/// One line on standard error: DPDK's log may be of another ABI, or not be there yet.
fn complain(line: &str) {
    let line = format!("{line}\n");
    let _written = rustix::io::write(rustix::stdio::stderr(), line.as_bytes());
}

/// Why there is no port: an errno, and a text for the user.
type Failure = (c_int, String);

/// Creates a port.
unsafe extern "C" fn probe(vdev: *mut sys::rte_vdev_device) -> c_int {
    // SAFETY: the bus calls this with one of its devices.
    let name = unsafe { sys::kopi_vdev_device_name(vdev) };
    // SAFETY: the name of a device is a C string.
    let name = unsafe { CStr::from_ptr(name) };
    // SAFETY: the bus calls this with the device of that name.
    match unsafe { make(vdev, name) } {
        Ok(()) => 0,
        Err((errno, text)) => {
            error!("{}: {text}", name.to_string_lossy());
            code(errno)
        }
    }
}

/// Makes the port `name`.
///
/// # Safety
///
/// `vdev` is the device of that name, which is being probed.
unsafe fn make(vdev: *mut sys::rte_vdev_device, name: &CStr) -> Result<(), Failure> {
    if is_secondary() {
        // SAFETY: by the caller's word, in a secondary process.
        return unsafe { secondary::attach(vdev, name) };
    }
    // SAFETY: a device of the bus.
    let args = unsafe { device_args(vdev) }.map_err(|text| (libc::EINVAL, text))?;
    // SAFETY: the name is a C string.
    let dev = unsafe { sys::rte_eth_dev_allocate(name.as_ptr()) };
    // SAFETY: null, or the port just made.
    let device = unsafe { Device::new(dev) };
    let device = device.ok_or_else(|| (libc::ENOMEM, "no port left, or no memory".to_owned()))?;
    if let Err(text) = abi::check_port(device, name) {
        // SAFETY: a port that nobody has seen yet.
        unsafe { sys::rte_eth_dev_release_port(dev) };
        return Err((libc::ENOTSUP, text));
    }
    // SAFETY: both are valid, and the port is nobody else's yet.
    unsafe { sys::kopi_eth_vdev_bind(dev, vdev) };
    let created = create(device, args);
    if created.is_ok() {
        // SAFETY: the port is complete.
        unsafe { sys::rte_eth_dev_probing_finish(dev) };
    } else {
        // SAFETY: nobody knows the port yet.
        unsafe { ops::close_port(device) };
        // SAFETY: a port that nobody has seen yet.
        unsafe { sys::rte_eth_dev_release_port(dev) };
    }
    created
}

/// Whether another process has the ports, and this one shares its memory.
fn is_secondary() -> bool {
    // SAFETY: takes nothing.
    unsafe { sys::rte_eal_process_type() != sys::RTE_PROC_PRIMARY }
}

/// Fills in a new port and attaches it.
fn create(device: Device, args: Args) -> Result<(), Failure> {
    let dev = device.raw();
    // SAFETY: the port is ours until probing has finished.
    let entry = unsafe { &mut *dev };
    entry.dev_ops = OPS.as_ptr();
    entry.rx_pkt_burst = Some(rx::burst);
    entry.tx_pkt_burst = Some(tx::burst);
    entry.rx_queue_count = Some(rx::count);
    entry.rx_descriptor_status = Some(rx::descriptor_status);
    entry.tx_descriptor_status = Some(tx::descriptor_status);
    device.add_flags(sys::RTE_ETH_DEV_INTR_LSC | sys::RTE_ETH_DEV_AUTOFILL_QUEUE_XSTATS);
    device.set_link(false, 0);
    if !device.allocate_macs(MAX_UNICAST) {
        return Err((libc::ENOMEM, "no memory".into()));
    }
    let control = Control::new(device, args).map_err(|errno| (errno.raw_os_error(), format!("eventfd: {errno}")))?;
    let control = Arc::new(control);
    let for_thread = Arc::clone(&control);
    let thread = thread::spawn("kopi-control", move || for_thread.run())
        .map_err(|error| (libc::EAGAIN, format!("no thread: {error}")))?;
    let port = Box::new(Port { device, control: Arc::clone(&control), thread: Some(thread), interrupts: None });
    device.set_private(Box::into_raw(port).cast());
    match control.wait_for_first_attempt() {
        FirstAttempt::Attached => {}
        FirstAttempt::Absent(text) => notice!("port {}: {text}; link down, will keep trying", device.port()),
        FirstAttempt::Failed(text) => return Err((libc::ECONNREFUSED, text)),
    }
    let mut state = control.state();
    if state.want.main_mac() == Mac::default() {
        let mut mac = Mac::default();
        // SAFETY: room for six bytes, which become a locally administered unicast address.
        unsafe { sys::rte_eth_random_addr(mac.as_mut_ptr()) };
        state.want.set_mac(0, mac);
    }
    device.set_macs(&state.want.unicast);
    Ok(())
}

/// Removes a port.
unsafe extern "C" fn remove(vdev: *mut sys::rte_vdev_device) -> c_int {
    // SAFETY: the bus calls this with one of its devices.
    let name = unsafe { sys::kopi_vdev_device_name(vdev) };
    // SAFETY: the name is a C string.
    let dev = unsafe { sys::rte_eth_dev_allocated(name) };
    // SAFETY: null, or a port of ours.
    let Some(device) = (unsafe { Device::new(dev) }) else {
        // Closed already.
        return 0;
    };
    // What the primary process has of a port stays.
    if !is_secondary() {
        ops::stop_for_removal(device);
        // SAFETY: it is stopped, so no burst function uses it.
        unsafe { ops::close_port(device) };
    }
    // SAFETY: a port that probe has made known here, and that is closed.
    unsafe { sys::rte_eth_dev_release_port(dev) }
}

/// Reads the arguments of a device.
///
/// # Safety
///
/// `vdev` is a device of the bus.
unsafe fn device_args(vdev: *const sys::rte_vdev_device) -> Result<Args, String> {
    // SAFETY: by the caller's word.
    let text = unsafe { sys::kopi_vdev_device_args(vdev) };
    if text.is_null() {
        return Ok(Args::default());
    }
    // SAFETY: a C string.
    let text = unsafe { CStr::from_ptr(text) };
    let text = text.to_str().map_err(|_| "a device argument is not UTF-8".to_owned())?;
    Args::parse(text)
}
