//! The safe face of DPDK that kopi uses.
//!
//! | module | what it has |
//! | --- | --- |
//! | [`eal`] | [`Eal`], which starts DPDK once per process; [`Handle`], [`ThreadGuard`], the time stamp counter |
//! | [`pool`] | [`Pool`], where packet buffers come from |
//! | [`mbuf`] | [`Mbuf`], one owned packet buffer |
//! | [`batch`] | [`Batch`], up to 32 of them, the unit that crosses every interface |
//! | [`port`] | [`Port`], one Ethernet device: found, configured, started, watched |
//! | [`queue`] | [`RxQueue`] and [`TxQueue`], what a worker polls |
//! | [`bpf`] | [`Bpf`], a packet filter in libpcap's language |
//! | [`interface`] | [`Interface`], an interface of the kernel's that a device sits on |
//! | [`packet_socket`] | [`PacketSocket`] and [`XdpSocket`], what the kernel lets pass and has lost of such a device's frames |
//! | [`tap_device`] | [`TapDevice`], an interface of the kernel's, which is not DPDK's |
//! | [`error`] | [`DpdkError`] |
//!
//! # What keeps this sound
//!
//! - Everything that refers to DPDK's memory holds a [`Handle`], except [`Mbuf`], which is a bare pointer. So
//!   [`Eal::close`] takes DPDK down only when no handle is left and every buffer is back in its pool; otherwise it
//!   leaves all as it is until the process ends. Pools live until then.
//! - A port is claimed by one [`Port`] at a time, and gives out each of its queues once. A queue is neither `Clone`
//!   nor `Sync`, so one thread at a time uses it; a port stops only when all its queues are dropped.
//! - Buffers come from pools of this crate, whose memory is written once at their creation, or from a driver.

pub mod batch;
pub mod bpf;
pub mod eal;
pub mod error;
pub mod interface;
pub mod mbuf;
pub mod packet_socket;
pub mod pool;
pub mod port;
pub mod queue;
pub mod tap_device;

pub use batch::Batch;
pub use bpf::{Bpf, BpfError};
pub use eal::{Eal, Handle, ThreadGuard, tsc};
pub use error::DpdkError;
pub use interface::{Carrier, Interface};
pub use mbuf::Mbuf;
pub use packet_socket::{PacketSocket, XdpSocket};
pub use pool::{Pool, PoolConfig};
pub use port::{Link, Port, PortConfig, PortInfo, Stats};
pub use queue::{Refused, RxQueue, TxQueue};
pub use tap_device::{TapConfig, TapDevice, TapError};
