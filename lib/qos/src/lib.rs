//! Scheduling, shaping and queueing of traffic classes.
//!
//! Nothing here knows of DPDK, of rings or of threads: time is a number of ticks that is given, packets are lengths. So
//! it is tested against exact models, and measured without a wire. After construction nothing allocates.
//!
//! A [`Bucket`] holds the tokens of one limit, exactly; a [`SharedBucket`] those of a limit that several workers keep to
//! together. A [`Scheduler`] says which class of a tree is next, of those that have packets, and how many bytes it may
//! send. Packets wait in an app's ring, or in a [`Queue`] of flows, each kept short by [`Codel`].
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
