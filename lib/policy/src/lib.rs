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
//!
//! ```
//! # use std::sync::Arc;
//! use kopi_config::policy::{Decision, Direction, Policy, State};
//! use kopi_packet::describe::frame_of;
//! use kopi_policy::{Cause, Owner, Packet, Ruleset};
//!
//! let text = "[[rule]]\nname = \"no-telnet\"\nmatch = { proto = \"tcp\", dst_port = 23 }\naction = \"drop\"\n";
//! let policy = Policy::parse(text, "policy.toml").expect("a policy");
//! let ruleset = Ruleset::new(Arc::new(policy), &()).expect("not too many rules");
//! let port = ruleset.port_policy(&Owner::unknown("web"), None, &[]);
//!
//! let frame = frame_of("tcp 10.0.0.1:4000 > 10.0.0.2:23").expect("a frame");
//! let (_, key) = kopi_packet::parse(&frame, 1);
//! let evaluation = ruleset.evaluate(&port, &Packet::new(Direction::Egress, &key, State::New));
//! assert_eq!((evaluation.decision, evaluation.cause), (Decision::Drop, Cause::Rule(0)));
//! ```
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
    Connection, Connections, CtLookup, CtVersion, Holder, Limits, Ref, Sort, Stats, TOUCH_SHIFT, Tuple, ZONES,
};
pub use fragment::{Followed, FragmentKey, Fragments, HOLD_SECONDS};
pub use frame::{Cause, Evaluation, Packet, Violation};
pub use host_sockets::HostSockets;
pub use owner::{Accounts, Owner, Selector};
pub use ruleset::{PortPolicy, RuleId, Ruleset, TooMany};
pub use trace::{Miss, Trace};
