//! Scheduling, shaping and queueing of traffic classes.
//!
//! Nothing here knows of DPDK, of rings or of threads: time is a number of ticks that is given, packets are lengths. So
//! it is tested against exact models, and measured without a wire. After construction nothing allocates.
//!
//! A [`Bucket`] holds the tokens of one limit, exactly; a [`SharedBucket`] those of a limit that several workers keep to
//! together. A [`Scheduler`] says which class of a tree is next, of those that have packets, and how many bytes it may
//! send. Packets wait in an app's ring, or in a [`Queue`] of flows, each kept short by [`Codel`].
//!
//! ```
//! use kopi_qos::{ClassSpec, Options, Pick, Scheduler};
//!
//! let heavy = ClassSpec { weight: 3, ..ClassSpec::new(1) };
//! let light = ClassSpec { weight: 1, ..ClassSpec::new(2) };
//! let mut scheduler = Scheduler::new(&[heavy, light], &Options::new(1_000_000_000), 0)?;
//! (0..2).for_each(|leaf| scheduler.activate(leaf, 0));
//! let mut sent = [0_u64; 2];
//! for now in 0..4000 {
//!     let Pick::Serve { leaf, .. } = scheduler.pick(now) else { break };
//!     scheduler.charge(leaf, 1518, 1, true, now);
//!     sent[leaf as usize] += 1;
//! }
//! assert_eq!(sent, [3000, 1000]);
//! # Ok::<(), kopi_qos::SpecError>(())
//! ```
#![forbid(unsafe_code)]

mod adopt;
mod bucket;
mod codel;
mod heap;
mod meter;
mod packet_store;
mod queue;
mod scheduler;
mod shared;
mod spec;
mod timers;
mod tree;

pub use bucket::{Bucket, Rate};
pub use codel::{Codel, CodelConfig};
pub use meter::Limit;
pub use packet_store::PacketStore;
pub use queue::{Cause, Popped, Pushed, Queue, QueueConfig};
pub use scheduler::{GUARD, Pick, Scheduler};
pub use shared::SharedBucket;
pub use spec::{CLASSES_MAX, ClassSpec, DEPTH_MAX, Options, PRIORITIES, SpecError, WEIGHT_MAX};
