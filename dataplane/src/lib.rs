//! kopid, the software SmartNIC: a poll-mode daemon between the apps' shared-memory rings and the wire.
//!
//! The dataplane, one worker for each core, sharing nothing:
//!
//! - [`worker`]: the loop, with what it moves frames between: [`worker::burst`], [`worker::flow_table`], [`worker::port`], [`worker::wire`],
//!   [`worker::handoff`];
//! - [`stages`]: what a burst passes: parse, policy, deliver, mirror, transmit;
//! - [`snapshot`]: all that workers judge frames by, replaced as a whole: [`fib`], [`policy_table`] with its [`policy_counters`],
//!   [`shared_address`]; [`ids`]: numbers of ports, and verdicts.
//!
//! The rest of the daemon, none of which a frame waits for:
//!
//! - [`control`]: attach and detach, ports, policy, reload, the operators' socket, logging;
//! - [`capture`]: capture sessions, a thread each;
//! - [`host`]: the kernel's own port on the wire, with a thread of its own.
#![forbid(unsafe_code)]

pub mod capture;
pub mod control;
pub mod fib;
pub mod flow_rules;
pub mod host;
pub mod ids;
pub mod policy_counters;
pub mod policy_table;
pub mod rss;
pub mod shared_address;
pub mod snapshot;
pub mod stages;
pub mod worker;
