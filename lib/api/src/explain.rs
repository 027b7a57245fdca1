//! What would become of a packet.

use serde::{Deserialize, Serialize};

/// The one row of `explain`.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Explained {
    /// The app at whose side it is judged.
    pub app: String,
    /// The packet as kopid has understood it.
    pub packet: String,
    /// `egress` or `ingress`.
    pub direction: String,
    /// What connection tracking says of it.
    pub state: String,
    /// `accept`, `drop` or `reject`.
    pub decision: String,
    /// `rule`, `default`, or the name of what was wrong with the packet.
    pub cause: String,
    /// The rule that decided.
    pub rule: Option<String>,
    /// Its line in the policy's file.
    pub line: Option<u32>,
    /// The class that the packet is put into.
    pub class: Option<String>,
    /// Rules that matched and went on to the next one.
    pub passed: Vec<String>,
    /// Rules that came close.
    pub missed: Vec<Missed>,
    /// What is looked at behind the headers of such a frame, too. Older daemons do not tell.
    #[serde(default)]
    pub payload: Option<String>,
}

/// A rule that did not match.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Missed {
    /// Its name.
    pub rule: String,
    /// What of it did not hold.
    pub fields: Vec<String>,
}
