//! What operators and kopid say to each other, as types, and how it goes over their socket.
//!
//! A line of JSON each way: a [`Request`], and an object with one array that is named after its command, or with an `error`. What is
//! not known of an answer is passed over, and what is missing has a default value: either side may be of another release.
//!
//! | module | what is in it |
//! | --- | --- |
//! | [`transport`] | lines with descriptors |
//! | [`request`] | what is asked: [`Request`], and the arguments of those commands that have any |
//! | [`status`], [`apps`], [`stats`], [`drops`], [`rules`], [`classes`], [`flows`] | what is answered: a row of each list |
//! | [`reload`], [`explain`], [`capture`], [`log`] | what is answered by commands that do something |
//!
//! ```
//! use kopi_api::request::{Flows, Request};
//! use kopi_api::transport::{Lines, send_all};
//! use rustix::net::RecvFlags;
//!
//! let (operator, kopid) = std::os::unix::net::UnixStream::pair()?;
//! let flows = Flows { app: Some("web".into()), ..Flows::default() };
//! send_all(&operator, Request::new("flows", &flows).line().as_bytes(), None)?;
//!
//! let mut lines = Lines::new(64 << 10);
//! lines.receive(&kopid, RecvFlags::empty())?;
//! let (line, _file) = lines.take().expect("a short line comes whole");
//! assert_eq!(line, br#"{"app":"web","command":"flows"}"#);
//! assert_eq!(Request::read(&line)?.command, "flows");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

pub mod apps;
pub mod capture;
pub mod classes;
pub mod drops;
pub mod explain;
pub mod flows;
pub mod log;
pub mod reload;
pub mod request;
pub mod rules;
pub mod stats;
pub mod status;
pub mod transport;

pub use apps::App;
pub use classes::Class;
pub use drops::Drops;
pub use explain::Explained;
pub use flows::Flow;
pub use log::Log;
pub use reload::Reloaded;
pub use request::Request;
pub use rules::Rule;
pub use stats::Port;
pub use status::Status;

use serde::Serialize;
use serde_json::json;

/// The line that answers `command` with `rows`.
#[must_use]
pub fn answer(command: &str, rows: &[impl Serialize]) -> String {
    format!("{}\n", json!({ command: rows }))
}

/// The line that says why there is no answer.
#[must_use]
pub fn refusal(error: &str) -> String {
    format!("{}\n", json!({ "error": error }))
}
