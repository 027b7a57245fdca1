//! Classes of the policy.

use serde::{Deserialize, Serialize};

/// A row of `classes`, in the order of the keys as they are sent: a class with what is below it.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Class {
    /// Bytes that wait.
    pub backlog_bytes: u64,
    /// Packets that wait.
    pub backlog_packets: u64,
    /// Over the last second.
    pub bits_per_second: u64,
    /// Bytes sent.
    pub bytes: u64,
    /// What it may borrow up to.
    pub ceil: Option<String>,
    /// Median of how long packets have waited, over the last 10 to 20 seconds.
    pub delay_p50_ns: Option<u64>,
    /// The same, 99th percentile.
    pub delay_p99_ns: Option<u64>,
    /// `egress` or `ingress`.
    pub direction: String,
    /// Packets dropped.
    pub dropped: u64,
    /// Those of them that CoDel has dropped.
    pub dropped_codel: u64,
    /// Those of them that found a full queue.
    pub dropped_full: u64,
    /// Whether it has none below it.
    pub leaf: bool,
    /// Its name.
    pub name: String,
    /// How often it had to wait for tokens.
    pub overlimits: u64,
    /// Packets sent.
    pub packets: u64,
    /// The class that it is a part of; `None` for the wire.
    pub parent: Option<String>,
    /// The lower, the sooner it borrows.
    pub priority: u8,
    /// What is guaranteed.
    pub rate: Option<String>,
    /// Its share of what is left.
    pub weight: u16,
}
