//! Who may send and receive what: compiled rules and tracked connections.
//!
//! Nothing here knows of DPDK, so it builds and is tested anywhere. The dataplane asks it once for the first packet of a
//! flow, and keeps the answer in its flow table.
//!
//! A policy becomes a [`Ruleset`]. It says by which entry a process may attach ([`Ruleset::admit`]), works out what is
//! the same for all frames of an attached app (a [`PortPolicy`]), and evaluates frames ([`Ruleset::evaluate`]).
//!
//! [`Connections`] knows which frames belong together, and says the state by which rules evaluate a frame. [`Fragments`]
//! keeps what was decided about a first fragment for the later ones.
#![forbid(unsafe_code)]

mod admission;
mod bits;
mod connection;
mod fields;
mod fragment;
mod frame;
mod host_sockets;
mod owner;
mod plane;
mod port_security;
mod ruleset;
mod tcp;
mod trace;

pub use admission::Refusal;
pub use connection::{
    Connection, Connections, CtLookup, CtVersion, Holder, Limit, Limits, Ref, Sort, Stats, TOUCH_SHIFT, Tuple, ZONES,
};
pub use fragment::{Followed, FragmentKey, Fragments, HOLD_SECONDS};
pub use frame::{Cause, Evaluation, Packet, Violation};
pub use host_sockets::HostSockets;
pub use owner::{Accounts, Owner, Selector};
pub use ruleset::{PortPolicy, RuleId, Ruleset, TooMany};
pub use trace::{Miss, Trace};
