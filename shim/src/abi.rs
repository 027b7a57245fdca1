//! The release of DPDK that runs, and whether the driver was built for it.

use crate::device::Device;
use crate::sys;
use std::ffi::CStr;

/// The version that `rte_version` reports, such as "DPDK 22.11.11".
pub(crate) fn running_version() -> String {
    // SAFETY: takes nothing, and returns a C string that lives for ever.
    let version = unsafe { sys::rte_version() };
    if version.is_null() {
        return String::new();
    }
    // SAFETY: as above.
    unsafe { CStr::from_ptr(version) }.to_string_lossy().into_owned()
}

/// The release that this was built for, such as "DPDK 22.11".
pub(crate) fn built() -> String {
    let (year, month) = sys::BUILT_RELEASE;
    format!("DPDK {year}.{month:02}")
}

/// Checks that the driver was built for the release `running`, as `rte_version` reports it. The structures of the driver
/// interface are the same within one release only.
///
/// # Errors
///
/// One line for the user that names both releases.
pub(crate) fn check(running: &str) -> Result<(), String> {
    let number = running.strip_prefix("DPDK ").unwrap_or(running);
    let mut parts = number.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    let release = (parts.next().and_then(Result::ok), parts.next().and_then(Result::ok));
    let (year, month) = sys::BUILT_RELEASE;
    if release == (Some(year), Some(month)) {
        return Ok(());
    }
    Err(format!(
        "net_kopi: built for {}, this application runs DPDK {number}: driver not registered; load librte_net_kopi.so, \
         which chooses the driver for it",
        built()
    ))
}

/// Checks that ethdev keeps a new port of this name as the driver was built to believe: known fields have the values that ethdev has
/// just given them.
///
/// # Errors
///
/// One line for the user.
pub(crate) fn check_port(device: Device, name: &CStr) -> Result<(), String> {
    if device.is_new(name) {
        return Ok(());
    }
    Err(format!("this application's {} keeps its ports in another way than {}: no port", running_version(), built()))
}

/// Whether ethdev has prepared `info` where the driver was built to believe that it lies.
pub(crate) fn is_prepared(info: &sys::rte_eth_dev_info) -> bool {
    // rte_eth_dev_info_get gives the bounds of Ethernet, 64 bytes less header and checksum, and limits that are none.
    (info.min_mtu, info.max_mtu) == (46, u16::MAX)
        && [info.rx_desc_lim, info.tx_desc_lim].iter().all(|limit| {
            (limit.nb_max, limit.nb_min, limit.nb_align, limit.nb_mtu_seg_max) == (u16::MAX, 0, 1, u16::MAX)
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::zeroed;

    /// Fault 24: a port, and a description of one, that do not have ethdev's own values where they are looked for, are refused.
    #[test]
    fn unknown_layouts_are_refused() {
        // SAFETY: numbers and pointers, for which zero is a value.
        let mut info: sys::rte_eth_dev_info = unsafe { zeroed() };
        assert!(!is_prepared(&info));
        (info.min_mtu, info.max_mtu) = (46, u16::MAX);
        let limit = sys::rte_eth_desc_lim {
            nb_max: u16::MAX,
            nb_min: 0,
            nb_align: 1,
            nb_seg_max: u16::MAX,
            nb_mtu_seg_max: u16::MAX,
        };
        info.rx_desc_lim = limit;
        assert!(!is_prepared(&info));
        info.tx_desc_lim = limit;
        assert!(is_prepared(&info));

        // SAFETY: likewise.
        let mut data: Box<sys::rte_eth_dev_data> = unsafe { Box::new(zeroed()) };
        // SAFETY: likewise, and functions that may be missing.
        let mut dev: sys::rte_eth_dev = unsafe { zeroed() };
        dev.data = &raw mut *data;
        // SAFETY: it has all that is looked at.
        let device = unsafe { Device::new(&raw mut dev) }.unwrap();
        assert!(check_port(device, c"net_kopi0").is_err());
        data.name[..9].copy_from_slice(&b"net_kopi0".map(u8::cast_signed));
        (data.mtu, data.backer_port_id) = (1500, 32);
        assert_eq!(check_port(device, c"net_kopi0"), Ok(()));
        data.backer_port_id = 0;
        let line = check_port(device, c"net_kopi0").unwrap_err();
        assert!(!line.contains('\n') && line.contains(&built()), "{line}");
    }

    /// Fault 24: only the very release that this was built for is accepted; the line names both.
    #[test]
    fn another_release_is_refused_in_one_line() {
        let (year, month) = sys::BUILT_RELEASE;
        for version in [format!("DPDK {year}.{month:02}.0"), format!("DPDK {year}.{month}.11-rc1")] {
            assert_eq!(check(&version), Ok(()), "{version}");
        }
        let later = format!("DPDK {}.11.0", year + 1);
        let line = check(&later).unwrap_err();
        assert!(line.contains(&format!("built for DPDK {year}.{month}")), "{line}");
        assert!(line.contains(&format!("runs DPDK {}.11.0", year + 1)), "{line}");
        assert!(!line.contains('\n'));
        for version in ["", "DPDK", "DPDK x.y", "DPDK 22", "DPDK 1.8.0"] {
            assert!(check(version).is_err(), "{version}");
        }
    }
}
