//! `librte_net_kopi.so`: the poll-mode driver through which DPDK applications attach to `kopid`.
//!
//! `docs/driver.md` says how to use it. The modules, from the application's side to the daemon's:
//!
//! - `driver`: the constructor, probe and remove; `abi`: the release of DPDK that runs; `sys`: its declarations;
//!   `pmd_info`: what tools of DPDK's read; `devargs`: the arguments of `--vdev`;
//!   `secondary`: what a secondary process has of a port;
//! - `ops`: the ethdev operations, each a thin callback; `limits`: what the port can do; `stats`: its statistics;
//! - `flow`: the operations on flow rules; `steering`: what RX queues do with frames for which one has held;
//! - `port`: what belongs to one port; `port_state`: what is wanted of it; `device`: access to ethdev's own structures;
//! - `rx`, `tx`: the burst functions, and the queues that they run on; `mbuf_cache`, `tx_publisher`: what a queue works with;
//! - `memory`: which memory of the application's is shared with the daemon; `memory_map`: and where that lies;
//!   `memory_left`: what the machine has; `held`: packets there that the daemon still reads;
//! - `lanes`: the rings of one RX queue, one for each worker; `ring_slot`: how a queue gets its ring while the application may be
//!   polling; `counters`: what queues count;
//! - `rx_interrupt`, `irq_thread`: how the application sleeps until there are frames;
//! - `control`: the thread that keeps the port attached; `session`: one connection to the daemon;
//! - `errno`, `event`, `log`, `thread`: small helpers, which use no other module.
//!
//! No panic may start here, it would end somebody else's process: callbacks answer with error codes instead.
#![cfg_attr(
    not(test),
    deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::expect_used, clippy::panic)
)]

mod abi;
mod control;
mod counters;
mod devargs;
mod device;
mod driver;
mod errno;
mod event;
mod flow;
mod held;
mod irq_thread;
mod lanes;
mod limits;
mod log;
mod mbuf_cache;
mod memory;
mod memory_left;
mod memory_map;
mod ops;
mod pmd_info;
mod port;
mod port_state;
mod ring_slot;
mod rss;
mod rx;
mod rx_interrupt;
mod secondary;
mod session;
mod stats;
mod steering;
mod sys;
#[cfg(test)]
mod tests;
mod thread;
mod tx;
mod tx_publisher;

/// Unit tests are programs, and must have what applications bring along.
#[cfg(test)]
mod libraries {
    #[link(name = "rte_eal")]
    #[link(name = "rte_ethdev")]
    #[link(name = "rte_mbuf")]
    #[link(name = "rte_mempool")]
    #[link(name = "rte_net")]
    unsafe extern "C" {}
}
