//! The shared-memory contract between `librte_net_kopi.so` (the client) and `kopid` (the daemon).
//!
//! `PROTOCOL.md` beside this crate's `Cargo.toml` says in one page what another client would have to do.
//!
//! - [`layout`]: where everything lies in a region; sizes, limits, offsets.
//! - [`index`]: the arithmetic of a single-producer single-consumer ring, apart from any memory.
//! - [`need_wakeup`]: how a consumer sleeps and is woken, apart from any memory.
//! - [`Producer`], [`Consumer`]: the two ends of a ring over mapped memory.
//! - [`WakeFutex`], [`RxInterrupt`]: how an app is woken; [`Doorbell`]: how the daemon is.
//! - [`Region`]: the sealed memfd that holds an app's rings, and what to do when its pages vanish.
//! - [`Window`]: memory of the app's own that the daemon may read; see [`Descriptor::reference`](layout::Descriptor::reference).
//! - [`Counter`]: a counter with one writer.
//! - [`status`]: the page in which the daemon publishes the state of a port.
//! - [`message`], [`socket`]: the attach protocol.
//! - [`DropReason`], [`PeerFault`]: what may go wrong, by name.
//!
//! Both sides treat each other as hostile: a shared field is read once into a local, the local is checked, and only
//! the local is used. References to memory that the peer may write are to atomics, or to structures of nothing but
//! atomics, padding included; slots are only ever reached by raw pointers ([`Producer::push`], [`Consumer::copy`]).
//!
//! ```
//! use kopi_ring::layout::Notes;
//! use kopi_ring::{Geometry, HugePages, Region};
//!
//! // One queue in each direction, of 64 slots of 2,048 bytes; the daemon makes it, the client maps it.
//! let region = Region::create(&Geometry::new(&[64], &[64], 2048)?, HugePages::Off)?;
//! let mut app = region.tx_producer(0).expect("a TX ring");
//! let mut daemon = region.tx_consumer(0).expect("a TX ring");
//!
//! assert!(app.free(1)? > 0 && app.push(b"a frame", Notes::NONE));
//! app.publish();
//! daemon.poll()?;
//! let frame = daemon.next()?.expect("one was published");
//! let mut copy = [0; 7];
//! daemon.copy(&frame, &mut copy);
//! daemon.release();
//! assert_eq!(&copy, b"a frame");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![cfg_attr(
    not(test),
    deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::expect_used, clippy::panic)
)]

mod consumer;
mod copy;
mod copy_sum;
mod counter;
mod doorbell;
mod equal;
mod fault;
mod huge;
pub mod index;
pub mod layout;
mod mapping;
pub mod message;
pub mod need_wakeup;
mod pages;
mod producer;
mod reason;
mod region;
mod region_error;
mod ring_memory;
mod rx_interrupt;
pub mod socket;
pub mod status;
mod wake_futex;
mod window;

pub use consumer::{Consumer, Frame};
pub use copy::{CopyRoutine, CopyRoutines, prefetch};
pub use copy_sum::SumRoutine;
pub use counter::Counter;
pub use doorbell::Doorbell;
pub use equal::equal;
pub use fault::PeerFault;
pub use huge::prefer_huge_pages;
pub use layout::{Geometry, Layout};
pub use pages::HoleWatch;
pub use producer::{Producer, Slots};
pub use reason::DropReason;
pub use region::{DiscardedRegion, HugePages, Region, RegionBuilder};
pub use region_error::RegionError;
pub use rx_interrupt::RxInterrupt;
pub use wake_futex::{WAKE_FUTEX_OFFSET, WakeFutex};
pub use window::Window;

/// Version of the whole contract: messages, region layout and ring semantics. On a connection, both sides speak the same one.
pub const PROTOCOL: u16 = 3;

/// The oldest version that is spoken, too, with peers that know no later one. Its messages are those of [`PROTOCOL`] but
/// [`Mapped`](message::Message::Mapped), its region the same.
pub const OLDEST_PROTOCOL: u16 = 2;
