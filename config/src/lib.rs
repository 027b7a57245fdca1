//! The configuration files of kopid: types, parsing, checking and error messages.
//!
//! One file is read here today, `kopid.toml`: what the daemon needs to start, and what takes a restart to change. It
//! becomes a [`Config`], whose values are all within their limits, or [`Errors`]: every problem of the file in one run,
//! each with its place and what would be right.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`kopid`] | `kopid.toml`: its types, and the table of its keys |
//! | [`report`] | diagnostics, and how they are shown |
//! | [`walk`] | from a parsed TOML table to values, by a table of keys |
//! | [`form`] | what a value may look like: whole numbers, choices, lists |
//! | [`source`] | a file's text, read without blocking, and the places in it |
//! | [`account`], [`cpu`], [`device`], [`size`], [`socket`] | the values that have a type of their own |
//! | [`schema`] | the JSON schema, from the same table of keys |
#![forbid(unsafe_code)]

pub mod account;
pub mod cpu;
pub mod device;
mod document;
pub mod file;
pub mod form;
pub mod kopid;
pub mod policy;
pub mod report;
pub mod schema;
pub mod size;
pub mod socket;
pub mod source;
pub mod walk;

pub use account::{Account, Mode};
pub use cpu::{Cores, online_cpus};
pub use device::Device;
pub use kopid::{Config, Dataplane, Eal, HugePages, Idle, Level, Limits, Log, Memory, Wire};
pub use report::{Diagnostic, Errors, Position, Severity};
pub use size::Size;
pub use socket::{Socket, SocketPath};
