//! What ports have counted.

use serde::{Deserialize, Serialize};

/// A row of `stats`, in the order of the keys as they are sent. For an app TX is what it sent, for the wire what the wire sent.
///
/// Frames in, plus copies, equal frames out plus drops plus those under way: for an app TX is in and RX is out, for the wire the other
/// way round. What an app counted leaves with it, so this holds since the last one left.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Port {
    /// Frames made by copying a multicast frame of this port to more than one receiver.
    pub copies: u64,
    /// What the wire's device itself has counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<Device>,
    /// Frames that were dropped.
    pub drops: u64,
    /// `wire` or the app's name.
    pub port: String,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Frames received.
    pub rx_packets: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Frames sent.
    pub tx_packets: u64,
}

/// What a device has lost.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Device {
    /// Frames that were not valid.
    pub rx_errors: u64,
    /// Frames for which it had no room.
    pub rx_missed: u64,
    /// Frames for which there was no packet buffer.
    pub rx_no_mbuf: u64,
    /// Frames that it did not send.
    pub tx_errors: u64,
}
