//! Raw bindings to the installed DPDK: the public interface that kopi uses, and the driver interface for its shim; and
//! to the compiler of packet filters in libpcap.
//!
//! Nothing here is linked to these libraries: see `build.rs`. Names are DPDK's own, and its documentation holds.
//! DPDK's inline functions are called through ordinary ones whose names begin with `kopi_` in place of `rte_`
//! (`c/inlines.h`). What differs between the releases of DPDK ends in this crate:
//!
//! - [`rte_mbuf`] is written here, because its anonymous unions change from release to release while its layout does
//!   not; constant assertions compare every field with the installed headers;
//! - links are read and written as a [`kopi_link`];
//! - a driver states its packet types through [`supported_ptypes_callback!`], and names the result of its
//!   `rx_queue_count` by [`QueueCount`].

#![no_std]

mod bindings;
mod mbuf;
mod versions;

pub use bindings::*;
pub use mbuf::rte_mbuf;
pub use versions::{BUILT_ABI, BUILT_RELEASE, Output, QueueCount};
