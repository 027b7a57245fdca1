//! DPDK as the driver knows it: what `c/dpdk.h` and `c/functions.h` declare for one release, under DPDK's names. The functions of
//! `c/inlines.h`, which begin with `kopi_` in place of `rte_`, stand for DPDK's inline ones.
//!
//! What differs between the releases ends here: the fields in `c/dpdk.h`, and callbacks whose parameters are not the same in all of
//! them, [`supported_ptypes_callback!`] and [`stats_callback!`].

pub(crate) use bindings::*;

/// Year and month of the DPDK that this was built for, such as (22, 11).
///
/// The driver interface is only known to be the same between two libraries whose year and month agree: compare with
/// the running library's `rte_version`, which says "DPDK 22.11.11".
pub(crate) const BUILT_RELEASE: (u32, u32) = (number(env!("KOPI_DPDK_YEAR")), number(env!("KOPI_DPDK_MONTH")));

/// Number of the ABI that this was built for: the 23 of `librte_eal.so.23` and of `pmds-23.0`.
pub(crate) const BUILT_ABI: &str = env!("KOPI_DPDK_ABI");

/// What `rx_queue_count` of `rte_eth_dev` returns: unsigned before DPDK 25.11, and never negative here.
pub(crate) type QueueCount = core::ffi::c_int;

const fn number(digits: &str) -> u32 {
    match u32::from_str_radix(digits, 10) {
        Ok(number) => number,
        Err(_) => 0,
    }
}

const _: () = assert!(BUILT_RELEASE.0 > 0 && BUILT_RELEASE.1 > 0, "build.rs gives numbers");

/// Defines a function for `dev_supported_ptypes_get` of `eth_dev_ops`, under the release's own signature.
///
/// `supported_ptypes_callback!(name, LIST)` takes the name of the function and a `static` array of `u32` whose last
/// element is `RTE_PTYPE_UNKNOWN`, which older releases take as the end of the list.
#[cfg(not(ptypes_with_count))]
macro_rules! supported_ptypes_callback {
    ($name:ident, $list:path) => {
        unsafe extern "C" fn $name(_dev: *mut $crate::sys::rte_eth_dev) -> *const u32 {
            $list.as_ptr()
        }
    };
}

/// Defines a function for `dev_supported_ptypes_get` of `eth_dev_ops`, under the release's own signature.
///
/// `supported_ptypes_callback!(name, LIST)` takes the name of the function and a `static` array of `u32` whose last
/// element is `RTE_PTYPE_UNKNOWN`, which older releases take as the end of the list.
#[cfg(ptypes_with_count)]
macro_rules! supported_ptypes_callback {
    ($name:ident, $list:path) => {
        unsafe extern "C" fn $name(_dev: *mut $crate::sys::rte_eth_dev, count: *mut usize) -> *const u32 {
            // SAFETY: ethdev passes a pointer to a local variable of its own.
            unsafe { count.write($list.len().saturating_sub(1)) };
            $list.as_ptr()
        }
    };
}

/// Where the counters of queues are: in `rte_eth_stats` itself before DPDK 25.11, then apart from it.
#[cfg(not(queue_stats_apart))]
pub(crate) type QueueStats = rte_eth_stats;

/// Where the counters of queues are: in `rte_eth_stats` itself before DPDK 25.11, then apart from it.
#[cfg(queue_stats_apart)]
pub(crate) type QueueStats = eth_queue_stats;

/// Defines a function for `stats_get` of `eth_dev_ops`, under the release's own signature: `stats_callback!(name, inner)` calls
/// `inner(device, port, queues)`, of which the last two may lead to the same structure, and the last may be null.
#[cfg(not(queue_stats_apart))]
macro_rules! stats_callback {
    ($vis:vis $name:ident, $inner:path) => {
        $vis unsafe extern "C" fn $name(
            dev: *mut $crate::sys::rte_eth_dev,
            stats: *mut $crate::sys::rte_eth_stats,
        ) -> core::ffi::c_int {
            // SAFETY: from ethdev.
            unsafe { $inner(dev, stats, stats) }
        }
    };
}

/// Defines a function for `stats_get` of `eth_dev_ops`, under the release's own signature: `stats_callback!(name, inner)` calls
/// `inner(device, port, queues)`, of which the last two may lead to the same structure, and the last may be null.
#[cfg(queue_stats_apart)]
macro_rules! stats_callback {
    ($vis:vis $name:ident, $inner:path) => {
        $vis unsafe extern "C" fn $name(
            dev: *mut $crate::sys::rte_eth_dev,
            stats: *mut $crate::sys::rte_eth_stats,
            queues: *mut $crate::sys::eth_queue_stats,
        ) -> core::ffi::c_int {
            // SAFETY: from ethdev.
            unsafe { $inner(dev, stats, queues) }
        }
    };
}

pub(crate) use {stats_callback, supported_ptypes_callback};

/// Whether the hash that `conf` asks for is Toeplitz', the only one before DPDK 23.11.
#[cfg(not(rss_algorithms))]
pub(crate) const fn asks_toeplitz(_conf: &rte_eth_rss_conf) -> bool {
    true
}

/// Whether the hash that `conf` asks for is Toeplitz', the only one before DPDK 23.11.
#[cfg(rss_algorithms)]
pub(crate) const fn asks_toeplitz(conf: &rte_eth_rss_conf) -> bool {
    matches!(conf.algorithm.cast_unsigned(), RTE_ETH_HASH_FUNCTION_DEFAULT | RTE_ETH_HASH_FUNCTION_TOEPLITZ)
}

/// Says in `conf` that the hash is Toeplitz', which goes without saying before DPDK 23.11.
#[cfg(not(rss_algorithms))]
pub(crate) const fn set_toeplitz(_conf: &mut rte_eth_rss_conf) {}

/// Says in `conf` that the hash is Toeplitz', which goes without saying before DPDK 23.11.
#[cfg(rss_algorithms)]
pub(crate) const fn set_toeplitz(conf: &mut rte_eth_rss_conf) {
    conf.algorithm = RTE_ETH_HASH_FUNCTION_TOEPLITZ.cast_signed();
}

/// Says in `info` that the hash is Toeplitz', which goes without saying before DPDK 23.11.
#[cfg(not(rss_algorithms))]
pub(crate) const fn describe_toeplitz(_info: &mut rte_eth_dev_info) {}

/// Says in `info` that the hash is Toeplitz', which goes without saying before DPDK 23.11.
#[cfg(rss_algorithms)]
pub(crate) const fn describe_toeplitz(info: &mut rte_eth_dev_info) {
    info.rss_algo_capa = 1 << RTE_ETH_HASH_FUNCTION_DEFAULT | 1 << RTE_ETH_HASH_FUNCTION_TOEPLITZ;
}

/// What the unit tests need besides: `c/tests.c`, and EAL.
#[cfg(test)]
mod tests {
    use super::{rte_mbuf, rte_mbuf_ext_shared_info, rte_mempool};
    use std::ffi::{c_char, c_int, c_uint, c_void};

    unsafe extern "C" {
        pub(crate) fn kopi_pktmbuf_alloc(pool: *mut rte_mempool) -> *mut rte_mbuf;
        pub(crate) fn kopi_pktmbuf_chain(head: *mut rte_mbuf, tail: *mut rte_mbuf) -> c_int;
        pub(crate) fn kopi_pktmbuf_attach(indirect: *mut rte_mbuf, direct: *mut rte_mbuf);
        pub(crate) fn kopi_pktmbuf_attach_extbuf(
            mbuf: *mut rte_mbuf,
            address: *mut c_void,
            iova: u64,
            length: u16,
            shared: *mut rte_mbuf_ext_shared_info,
        );
        pub(crate) fn kopi_mbuf_refcnt_read(mbuf: *const rte_mbuf) -> u16;
        pub(crate) fn kopi_mbuf_refcnt_update(mbuf: *mut rte_mbuf, delta: i16) -> u16;
        pub(crate) fn rte_eal_init(count: c_int, words: *mut *mut c_char) -> c_int;
        pub(crate) fn rte_pktmbuf_pool_create(
            name: *const c_char,
            n: c_uint,
            cache: c_uint,
            private: u16,
            room: u16,
            socket: c_int,
        ) -> *mut rte_mempool;
        pub(crate) fn rte_mempool_in_use_count(pool: *const rte_mempool) -> c_uint;
        pub(crate) fn rte_mempool_free(pool: *mut rte_mempool);
    }
}
#[cfg(test)]
pub(crate) use tests::*;

/// What bindgen makes of `c/inlines.h`.
#[expect(
    clippy::all,
    clippy::pedantic,
    clippy::restriction,
    nonstandard_style,
    unreachable_pub,
    unused_qualifications,
    dead_code,
    reason = "generated code under C names; DPDK documents them"
)]
mod bindings {
    include!(concat!(env!("OUT_DIR"), "/dpdk.rs"));
}
