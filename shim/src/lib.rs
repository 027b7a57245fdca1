//! `librte_net_kopi.so`: the poll-mode driver through which DPDK applications attach to `kopid`.
//!
//! `README.md` says how to use it. The modules, from the application's side to the daemon's:
//!
//! - `driver`: the constructor, the check of the ABI, probe and remove; `devargs`: what `--vdev` may say;
//! - `ops`: the ethdev operations, each a thin callback; `limits`: what the port can do; `stats`: its counters;
//! - `port`: what belongs to one port; `device`: access to ethdev's own structures;
//! - `rx`, `tx`: the burst functions, and the queues that they run on;
//! - `handoff`: how a queue gets its ring while the application may be polling;
//! - `interrupt`: how the application sleeps until there are frames;
//! - `control`: the thread that keeps the port attached; `session`: one connection to the daemon;
//! - `log`, `affinity`: small helpers.
//!
//! No panic may start here, it would end somebody else's process: callbacks answer with error codes instead.
#![cfg_attr(
    not(test),
    deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::expect_used, clippy::panic)
)]

mod affinity;
mod control;
mod devargs;
mod device;
mod driver;
mod handoff;
mod interrupt;
#[cfg(test)]
mod lab;
mod limits;
mod log;
mod ops;
mod port;
mod rx;
mod secondary;
mod session;
mod stats;
mod tx;

/// Unit tests are programs, and must have what applications bring along.
#[cfg(test)]
mod libraries {
    #[link(name = "rte_eal")]
    #[link(name = "rte_ethdev")]
    #[link(name = "rte_kvargs")]
    #[link(name = "rte_mbuf")]
    #[link(name = "rte_mempool")]
    #[link(name = "rte_net")]
    unsafe extern "C" {}
}
