//! The configuration files of kopid: types, parsing, checking and error messages.
//!
//! Two files are read here: `kopid.toml`, what the daemon needs to start and what takes a restart to change, becomes a
//! [`Config`]; `policy.toml`, who may attach, send and receive what, becomes a [`Policy`] and can be reloaded. Either is
//! a value that is within its limits in every part, or [`Errors`]: every problem of the file in one run, each with its
//! place and what would be right.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`kopid`] | `kopid.toml`: its types, which serde reads |
//! | [`policy`] | `policy.toml`, in the same way; a file for each noun |
//! | [`report`] | diagnostics, and how they are shown |
//! | [`document`] | a file as a whole: its syntax, the tables at its top, and the places in them |
//! | `de` | serde's reader of one table, which goes on after an error |
//! | [`value`] | what a value may look like: whole numbers, choices, lists |
//! | [`check`] | the files as a start finds them on this machine: CPUs, interfaces, accounts, cgroups |
//! | [`source`] | a file's text, read without blocking, and the places in it |
//! | [`account`], [`cpu`], [`device`], [`host`], [`path`], [`size`], [`socket`] | the values that have a type of their own |
//! | `decimal` | fractions of their units |
//! | `packet_ring` | the sizes that `net_af_packet` leaves to whoever configures it |
//! | `schema` | the JSON schemas, from the same types |
#![forbid(unsafe_code)]

pub mod account;
pub mod check;
pub mod cpu;
mod de;
mod decimal;
pub mod device;
pub mod document;
pub mod host;
pub mod kopid;
mod packet_ring;
pub mod path;
pub mod policy;
pub mod report;
mod schema;
pub mod size;
pub mod socket;
pub mod source;
pub mod value;

pub use account::{Account, Mode};
pub use cpu::{Cores, online_cpus};
pub use device::Device;
pub use host::Host;
pub use kopid::{Config, Dataplane, Eal, HugePages, Idle, Level, Limits, Log, Memory, Wire};
pub use packet_ring::PacketRing;
pub use policy::Policy;
pub use report::{Diagnostic, Errors, Position, Severity};
pub use size::Size;
pub use socket::{Socket, SocketPath};
