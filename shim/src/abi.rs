//! The release of DPDK that runs, and whether the driver was built for it.

use dpdk_sys as sys;
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
    let abi = match release {
        (Some(year), Some(month)) if month >= 11 => year.saturating_add(1).to_string(),
        (Some(year), Some(_)) => year.to_string(),
        _ => "unknown".to_owned(),
    };
    Err(format!(
        "net_kopi: built for DPDK {year}.{month:02} (ABI {built}), this application runs DPDK {number} (ABI {abi}): \
         driver not registered; use the librte_net_kopi.so built for it",
        built = sys::BUILT_ABI,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert!(line.contains(&format!("runs DPDK {}.11.0 (ABI {})", year + 1, year + 2)), "{line}");
        assert!(!line.contains('\n'));
        for version in ["", "DPDK", "DPDK x.y", "DPDK 22", "DPDK 1.8.0"] {
            assert!(check(version).is_err(), "{version}");
        }
    }
}
