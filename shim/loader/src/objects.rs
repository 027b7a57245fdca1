//! The program and the libraries of this process: where DPDK is among them, and how a driver finds it there.

use std::ffi::{CStr, CString, OsStr, c_char, c_int, c_void};
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

/// `rte_version`.
type Version = unsafe extern "C" fn() -> *const c_char;

/// One symbol of each library of DPDK's that a driver needs. Where DPDK is one library, or linked into a plugin, all are in that.
const SYMBOLS: [&CStr; 6] = [
    c"rte_version",
    c"rte_log",
    c"rte_mempool_ops_table",
    c"rte_pktmbuf_free_bulk",
    c"rte_eth_dev_allocate",
    c"rte_vdev_register",
];

/// What `rte_version` reports, such as "DPDK 24.11.8", if there is a DPDK in this process. From then on a library that is opened finds
/// its symbols.
///
/// Most applications have DPDK in the program, or in libraries that come with it, and every library finds it there. Some, such as VPP,
/// have it in a plugin that was opened for itself alone: that one's symbols are made known to all.
pub(crate) fn dpdk_version() -> Option<String> {
    // SAFETY: a look-up in the libraries that are loaded.
    let mut found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, SYMBOLS[0].as_ptr()) };
    if found.is_null() {
        for name in names() {
            let has = SYMBOLS.map(|symbol| own_symbol(&name, symbol));
            if has.iter().any(|symbol| !symbol.is_null()) {
                let [version, ..] = has;
                found = if found.is_null() { version } else { found };
                // It is loaded already. Whether it can be made known shows when the driver is opened.
                let _known = open(&name, libc::RTLD_NOW | libc::RTLD_NOLOAD | libc::RTLD_GLOBAL);
            }
        }
    }
    // SAFETY: null, or the function of this name, which has had this signature since it exists.
    let version = unsafe { std::mem::transmute::<*mut c_void, Option<Version>>(found) }?;
    // SAFETY: takes nothing, and returns a C string that lives for ever.
    let text = unsafe { version() };
    // SAFETY: as above.
    (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned())
}

/// The file that the code at `address` comes from.
pub(crate) fn path_of(address: *const ()) -> Option<PathBuf> {
    let name = object_at(address.cast())?;
    Some(PathBuf::from(OsStr::from_bytes(name.to_bytes())))
}

/// Opens a library, which stays open.
///
/// # Errors
///
/// The system's text.
pub(crate) fn open(path: &CStr, flags: c_int) -> Result<*mut c_void, String> {
    // SAFETY: the constructors that run are those of a library that the caller wants.
    let handle = unsafe { libc::dlopen(path.as_ptr(), flags) };
    if !handle.is_null() {
        return Ok(handle);
    }
    // SAFETY: no arguments; the text lives until the next call of its kind in this thread.
    let text = unsafe { libc::dlerror() };
    if text.is_null() {
        return Err(format!("{} is not loaded", path.to_string_lossy()));
    }
    // SAFETY: a C string.
    Err(unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned())
}

/// The symbol of this name that the library `name` itself has, or null.
fn own_symbol(name: &CStr, symbol: &CStr) -> *mut c_void {
    let Ok(handle) = open(name, libc::RTLD_LAZY | libc::RTLD_NOLOAD) else { return std::ptr::null_mut() };
    // SAFETY: an open library.
    let found = unsafe { libc::dlsym(handle, symbol.as_ptr()) };
    // SAFETY: opened above, and loaded besides.
    unsafe { libc::dlclose(handle) };
    // What it depends on is searched, too.
    let own = !found.is_null() && object_at(found).is_some_and(|own| own.as_c_str() == name);
    if own { found } else { std::ptr::null_mut() }
}

/// The name of the object that has something at `address`.
fn object_at(address: *const c_void) -> Option<CString> {
    let mut info = MaybeUninit::<libc::Dl_info>::zeroed();
    // SAFETY: any address is allowed, and there is room for the answer.
    let found = unsafe { libc::dladdr(address, info.as_mut_ptr()) };
    // SAFETY: filled in, or zeros, which are a valid value.
    let info = unsafe { info.assume_init() };
    if found == 0 || info.dli_fname.is_null() {
        return None;
    }
    // SAFETY: a C string, which lives as long as the object is loaded.
    Some(unsafe { CStr::from_ptr(info.dli_fname) }.to_owned())
}

/// The names of all libraries of this process.
fn names() -> Vec<CString> {
    let mut names: Vec<CString> = Vec::new();
    // SAFETY: the callback is called during this call alone, with `names`.
    unsafe { libc::dl_iterate_phdr(Some(add_name), (&raw mut names).cast()) };
    names
}

unsafe extern "C" fn add_name(info: *mut libc::dl_phdr_info, _size: usize, names: *mut c_void) -> c_int {
    // SAFETY: what was given to the walk, which nobody else uses meanwhile.
    let names = unsafe { &mut *names.cast::<Vec<CString>>() };
    // SAFETY: valid during the call.
    let name = unsafe { (*info).dlpi_name };
    if !name.is_null() {
        // SAFETY: a C string.
        let name = unsafe { CStr::from_ptr(name) };
        // The program itself has no name.
        if !name.is_empty() {
            names.push(name.to_owned());
        }
    }
    0
}
