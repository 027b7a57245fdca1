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
//! | [`check`] | the files as a start finds them on this machine: CPUs, interfaces, accounts, cgroups |
//! | `report` | diagnostics, and how they are shown |
//! | `source` | a file's text, read without blocking, and the places in it |
//! | `document` | a file as a whole: its syntax, the tables at its top, and the places in them |
//! | `de` | serde's reader of one table, which goes on after an error |
//! | `value` | what a value may look like: whole numbers, choices, lists; what a key of a table is |
//! | `schema` | the JSON schemas, from the same types |
//! | `account`, `amount`, `cpu`, `device`, `metrics`, `path` | the values that have a type of their own |
//! | `packet_ring` | the sizes that `net_af_packet` leaves to whoever configures it |
#![forbid(unsafe_code)]

mod account;
mod amount;
pub mod check;
mod cpu;
mod de;
mod device;
mod document;
pub mod kopid;
mod metrics;
mod packet_ring;
mod path;
pub mod policy;
mod report;
mod schema;
mod source;
mod value;

pub use account::{Account, Mode};
pub use amount::Size;
pub use cpu::{online_cpus, parse_cpu_list};
pub use device::Device;
pub use kopid::{Config, Dataplane, Eal, Host, HugePages, Idle, Level, Limits, Log, Memory, Metrics, Socket, Wire};
pub use metrics::Endpoint;
pub use packet_ring::PacketRing;
pub use policy::Policy;
pub use report::{Diagnostic, Errors, Position, Severity};

/// The JSON schemas of the two files, by the names that they have without ".schema.json".
#[must_use]
pub fn schemas() -> [(&'static str, &'static serde_json::Value); 2] {
    [("kopid", &kopid::SCHEMA), ("policy", &policy::SCHEMA)]
}
