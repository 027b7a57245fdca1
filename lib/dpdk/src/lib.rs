//! The safe face of DPDK that kopi uses.
//!
//! | module | what it has |
//! | --- | --- |
//! | [`eal`] | [`Eal`], which starts DPDK once per process; [`Handle`], [`ThreadGuard`] |
//! | [`pool`] | [`Pool`], where packet buffers come from |
//! | [`mbuf`] | [`Mbuf`], one owned packet buffer |
//! | [`batch`] | [`Batch`], up to 32 of them, the unit that crosses every interface |
//! | [`port`] | [`Port`], one Ethernet device: found, configured, started, watched |
//! | [`queue`] | [`RxQueue`] and [`TxQueue`], what a worker polls |
//! | [`bpf`] | [`Bpf`], a packet filter in libpcap's language |
//! | [`interface`] | [`Interface`], an interface of the kernel's that a device sits on |
//! | [`packet_socket`] | [`PacketSocket`] and [`XdpSocket`], what the kernel lets pass and has lost of such a device's frames |
//! | [`tap_device`] | [`TapDevice`], an interface of the kernel's, which is not DPDK's |
//! | [`mod@tsc`] | [`tsc()`](tsc()), the time stamp counter, and what its ticks are in time |
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
//!
//! ```no_run
//! use dpdk::{Batch, Eal, Pool, PoolConfig, Port, PortConfig};
//!
//! let eal = Eal::init(&["--no-huge".into(), "-m".into(), "64".into()])?;
//! let config = PoolConfig { name: "frames", mbufs: 4095, cache: 256, frame_max: 1518, socket: None };
//! let pool = Pool::new(&eal, config)?;
//! let mut port = Port::by_devargs(&eal, "net_ring0")?;
//! port.configure(&PortConfig::default(), &[pool])?;
//! let (mut rx, mut tx) = port.start()?;
//! let mut batch = Batch::new();
//! while rx[0].receive(&mut batch) > 0 {
//!     tx[0].send(&mut batch);
//! }
//! # Ok::<(), dpdk::DpdkError>(())
//! ```

pub mod batch;
pub mod bpf;
pub mod eal;
pub mod error;
pub mod heap;
pub mod interface;
pub mod mbuf;
pub mod packet_socket;
pub mod pool;
pub mod port;
pub mod queue;
pub mod tap_device;
pub mod tsc;

pub use batch::Batch;
pub use bpf::{Bpf, BpfError, Layout};
pub use eal::{Eal, Handle, ThreadGuard};
pub use error::DpdkError;
pub use interface::{Carrier, Interface};
pub use mbuf::Mbuf;
pub use packet_socket::{PacketSocket, XdpSocket};
pub use pool::{Pool, PoolConfig};
pub use port::{Link, Port, PortConfig, PortInfo, Stats};
pub use queue::{Refused, RxQueue, TxQueue};
pub use tap_device::{TapConfig, TapDevice, TapError};
pub use tsc::tsc;
