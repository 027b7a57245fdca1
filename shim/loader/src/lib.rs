//! `librte_net_kopi.so`: what users give to `-d`. It has no symbol of DPDK's, so it loads in every application; it finds the release
//! that runs, and opens the driver for that release, `librte_net_kopi-YY.MM.so`, in the folder in which it lies itself, also where it
//! is found by a link.
//!
//! The burst functions are the driver's own: once an application runs, nothing of this is on the way of a packet.
//!
//! No panic may start here, it would end somebody else's process.
#![cfg_attr(
    not(test),
    deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::expect_used, clippy::panic)
)]

mod choice;
mod objects;
#[path = "../../src/pmd_info.rs"]
mod pmd_info;

use std::ffi::{CString, c_int};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// Runs when the library is loaded; not in the unit tests, which are a program without DPDK.
#[used]
#[cfg_attr(not(test), unsafe(link_section = ".init_array"))]
static CONSTRUCTOR: extern "C" fn() = construct;

extern "C" fn construct() {
    if let Err(text) = load() {
        let line = format!("net_kopi: {text}: driver not loaded\n");
        // DPDK's log may be of any release, or not be there yet.
        let _written = rustix::io::write(rustix::stdio::stderr(), line.as_bytes());
    }
}

/// Loads the driver for the DPDK of this process.
///
/// # Errors
///
/// One line for the user.
fn load() -> Result<(), String> {
    let version = objects::dpdk_version().ok_or(
        "there is no DPDK in this process, or a program that has it linked in does not export it (-Wl,--export-dynamic)",
    )?;
    let own = objects::path_of(construct as *const ()).ok_or("this library does not know where it lies")?;
    // EAL follows links in a path, but not where it is given a name alone, which the system looks up.
    let own = own.canonicalize().unwrap_or(own);
    let driver = choice::driver_for(&version, &own)?;
    open(&driver)
}

/// Opens the driver, which registers itself.
fn open(driver: &Path) -> Result<(), String> {
    let path = CString::new(driver.as_os_str().as_bytes()).map_err(|_| "a path has a zero in it".to_owned())?;
    objects::open(&path, NOW).map(|_open_for_ever| ())
}

/// All symbols are found at once, or the library is refused, as EAL does with its own plugins.
const NOW: c_int = libc::RTLD_NOW;
