//! Raw bindings to the installed DPDK, as far as kopid uses it; and to the compiler of packet filters in libpcap.
//!
//! Nothing here is linked to these libraries: see `build.rs`. Names are DPDK's own, and its documentation holds.
//! DPDK's inline functions are called through ordinary ones whose names begin with `kopi_` in place of `rte_`
//! (`c/inlines.h`). What differs between the releases of DPDK ends in this crate:
//!
//! - [`rte_mbuf`] is written here, because its anonymous unions change from release to release while its layout does
//!   not; constant assertions compare every field with the installed headers;
//! - links are read as a [`kopi_link`].

#![no_std]

mod bindings;
mod mbuf;

pub use bindings::*;
pub use mbuf::rte_mbuf;

/// Year and month of the DPDK that this was built for, such as (22, 11).
pub const BUILT_RELEASE: (u32, u32) = (RTE_VER_YEAR, RTE_VER_MONTH);

/// Number of the ABI that this was built for: the 23 of `librte_eal.so.23` and of `pmds-23.0`.
pub const BUILT_ABI: &str = env!("KOPI_DPDK_ABI");
