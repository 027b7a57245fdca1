//! How connections are tracked: `[tracking]`.

use schemars::JsonSchema;
use serde::Deserialize;

use super::time::Seconds;
use crate::value::{As, Truth};

/// `[tracking]`: how connections are tracked, and how long they are remembered while idle, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Tracking {
    /// Whether a TCP segment has to fit the window. It need not if not stated.
    #[serde(with = "As::<Truth>")]
    pub tcp_window: bool,
    /// Whether a connection may be picked up in its middle. It may if not stated, as in Linux.
    #[serde(with = "As::<Truth>")]
    pub tcp_loose: bool,
    /// SYN seen, not answered: 120 if not stated.
    #[serde(with = "As::<Seconds>")]
    pub tcp_syn: u32,
    /// Established: 432,000 (five days) if not stated.
    #[serde(with = "As::<Seconds>")]
    pub tcp_established: u32,
    /// Being closed by one side or both: 120 if not stated.
    #[serde(with = "As::<Seconds>")]
    pub tcp_closing: u32,
    /// Closed by a reset: 10 if not stated.
    #[serde(with = "As::<Seconds>")]
    pub tcp_closed: u32,
    /// UDP with packets one way only: 30 if not stated.
    #[serde(with = "As::<Seconds>")]
    pub udp: u32,
    /// UDP with packets both ways: 120 if not stated.
    #[serde(with = "As::<Seconds>")]
    pub udp_stream: u32,
    /// ICMP echo: 30 if not stated.
    #[serde(with = "As::<Seconds>")]
    pub icmp: u32,
    /// Every other protocol: 600 if not stated.
    #[serde(with = "As::<Seconds>")]
    pub other: u32,
}

impl Default for Tracking {
    fn default() -> Self {
        Self {
            tcp_window: false,
            tcp_loose: true,
            tcp_syn: 120,
            tcp_established: 432_000,
            tcp_closing: 120,
            tcp_closed: 10,
            udp: 30,
            udp_stream: 120,
            icmp: 30,
            other: 600,
        }
    }
}
