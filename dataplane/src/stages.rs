//! The stages that a burst passes, in this order: parse, policy, deliver, mirror, transmit. Deliver has replicate and reply, transmit
//! has shape.
//!
//! A stage keeps its own state, works on a whole [burst](crate::worker::burst::Burst) and neither blocks nor allocates. [`worker`](crate::worker) calls
//! them one after the other.

pub mod deliver;
pub mod mirror;
pub mod parse;
pub mod policy;
pub mod replicate;
pub mod reply;
pub mod shape;
pub mod transmit;
