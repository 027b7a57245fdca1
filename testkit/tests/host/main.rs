//! The kernel's own port: its traffic passes kopid as that of any app does, and whatever becomes of its interface, nobody
//! else notices.
#![expect(clippy::tests_outside_test_module, reason = "this whole file is a test")]
#![forbid(unsafe_code)]

mod addresses;
mod checksums;
mod examples;
mod faults;
mod nobody;
mod takeover;
mod traffic;

use kopi_testkit::{Home, Kopid, Netns, Settings};
use serde_json::Value;

const HOME_IP: &str = "10.77.0.2";
const FAR_IP: &str = "10.77.0.1";

fn settings(home: &Home) -> Settings {
    Settings::on_interface(home.interface(), 1)
}

/// Tells the kernel at home where the far end is. testpmd's `icmpecho` answers whatever address ARP asks for, so its own might be taken
/// for that.
fn pin_far_end(home: &Home, far: &Netns) {
    let mac = far.inside("cat", &[&format!("/sys/class/net/{}/address", kopi_testkit::netns::INSIDE)]);
    home.inside("ip", &["neigh", "replace", FAR_IP, "lladdr", mac.trim(), "dev", kopi_testkit::home::TAP]);
}

/// Whether the far end reaches the kernel at home.
fn is_reached(far: &Netns) -> bool {
    far.ping(HOME_IP, 1) == 1
}

/// The row of `apps` for the kernel's port.
fn host_row(kopid: &Kopid) -> Value {
    kopid.app("host").expect("the kernel has a port")
}

/// The number `key` of a row.
fn number(row: &Value, key: &str) -> u64 {
    row[key].as_u64().unwrap_or_else(|| panic!("no {key} in {row}"))
}
