//! What differs between the releases of DPDK, and which one this was built for.

use crate::{RTE_VER_MONTH, RTE_VER_YEAR, eth_rx_queue_count_t};

/// Year and month of the DPDK that this was built for, such as (22, 11).
///
/// The driver interface is only known to be the same between two libraries whose year and month agree: compare with
/// the running library's `rte_version`, which says "DPDK 22.11.11".
pub const BUILT_RELEASE: (u32, u32) = (RTE_VER_YEAR, RTE_VER_MONTH);

/// Number of the ABI that this was built for: the 23 of `librte_eal.so.23` and of `pmds-23.0`.
pub const BUILT_ABI: &str = env!("KOPI_DPDK_ABI");

/// What a callback returns.
pub trait Output {
    /// The type that it returns.
    type Value;
}

impl<Argument, Value> Output for Option<unsafe extern "C" fn(Argument) -> Value> {
    type Value = Value;
}

/// What `rx_queue_count` of `rte_eth_dev` returns: unsigned in DPDK 22.11, signed in later releases.
pub type QueueCount = <eth_rx_queue_count_t as Output>::Value;

/// Defines a function for `dev_supported_ptypes_get` of `eth_dev_ops`, under the release's own signature.
///
/// `supported_ptypes_callback!(name, LIST)` takes the name of the function and a `static` array of `u32` whose last
/// element is `RTE_PTYPE_UNKNOWN`, which older releases take as the end of the list.
#[cfg(not(ptypes_with_count))]
#[macro_export]
macro_rules! supported_ptypes_callback {
    ($name:ident, $list:path) => {
        unsafe extern "C" fn $name(_dev: *mut $crate::rte_eth_dev) -> *const u32 {
            $list.as_ptr()
        }
    };
}

/// Defines a function for `dev_supported_ptypes_get` of `eth_dev_ops`, under the release's own signature.
///
/// `supported_ptypes_callback!(name, LIST)` takes the name of the function and a `static` array of `u32` whose last
/// element is `RTE_PTYPE_UNKNOWN`, which older releases take as the end of the list.
#[cfg(ptypes_with_count)]
#[macro_export]
macro_rules! supported_ptypes_callback {
    ($name:ident, $list:path) => {
        unsafe extern "C" fn $name(_dev: *mut $crate::rte_eth_dev, count: *mut usize) -> *const u32 {
            // SAFETY: ethdev passes a pointer to a local variable of its own.
            unsafe { count.write($list.len() - 1) };
            $list.as_ptr()
        }
    };
}
