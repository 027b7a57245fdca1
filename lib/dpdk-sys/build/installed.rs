//! The DPDK that pkg-config finds. Part of two build scripts: that of `dpdk-sys`, and that of the driver.

use std::env;
use std::process::Command;

/// Year and month of a version such as "22.11.11", "24.11.0-rc1" or "24-11".
pub(crate) fn release(version: &str) -> (u32, u32) {
    let mut parts = version.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    match (parts.next(), parts.next()) {
        (Some(Ok(year)), Some(Ok(month))) => (year, month),
        _ => panic!("\"{version}\" is no version of DPDK's, which are of the form YEAR.MONTH"),
    }
}

/// The number of a release's ABI: a new one begins with each November release and carries the number of the following year.
pub(crate) const fn abi((year, month): (u32, u32)) -> u32 {
    if month >= 11 { year + 1 } else { year }
}

/// What `pkg-config --cflags` says, whole: `-include rte_config.h` and `-march` are part of DPDK's interface, and the
/// pkg-config crate drops them.
pub(crate) fn c_flags() -> Vec<String> {
    let pkg_config = env::var("PKG_CONFIG").unwrap_or_else(|_| "pkg-config".into());
    let output = Command::new(pkg_config).args(["--cflags", "libdpdk"]).output();
    let output = output.unwrap_or_else(|error| panic!("cannot run pkg-config: {error}: run ci/setup.sh"));
    assert!(output.status.success(), "pkg-config --cflags libdpdk failed: run ci/setup.sh");
    String::from_utf8_lossy(&output.stdout).split_whitespace().map(str::to_owned).collect()
}
