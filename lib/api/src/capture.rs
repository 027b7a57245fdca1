//! What kopid says of a capture session, on the connection that it was asked for on.
//!
//! The client says `counts`, `stop`, or `rotate` with the next file.

use serde::{Deserialize, Serialize};

/// The one row of `capture`.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Session {
    /// Its number.
    pub session: u32,
    /// Whether it goes on.
    pub state: State,
    /// Why it has ended: `stopped`, `count`, `bytes`, `seconds`, `reader` or `error`.
    pub why: Option<String>,
    /// What went wrong.
    pub error: Option<String>,
    /// Of earlier versions: false if the filter could not be made machine code, which cost more time. Null now.
    pub jit: Option<bool>,
    /// Packets written, or about to be.
    pub captured: u64,
    /// Records that were wanted.
    pub received: u64,
    /// Those of them that were lost.
    pub dropped: u64,
    /// Frames looked at, at each capture point that they pass.
    pub seen: u64,
    /// Bytes of the file.
    pub file_bytes: u64,
    /// Whether the disk was full.
    pub disk_full: bool,
}

/// How a session is.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It goes on.
    #[default]
    Running,
    /// It goes on, and the file has the size that was asked for.
    Full,
    /// It ends.
    Ended,
}
