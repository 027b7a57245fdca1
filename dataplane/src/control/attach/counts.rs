//! What has become of those who connected, for those who count.

use crate::control::detach::DetachReason;
use std::collections::BTreeMap;

/// The reason of a connection that is refused because its user has asked for too much of late.
pub const TOO_MANY: &str = "too_many_requests";

/// What has become of those who connected, since the start.
#[derive(Clone, Debug, Default)]
pub struct AttachCounts {
    /// Ports that were given.
    pub attached: u64,
    /// Connections that were refused a port, by reason.
    pub refused: BTreeMap<&'static str, u64>,
    /// Ports that were taken back, by reason.
    pub detached: BTreeMap<&'static str, u64>,
}

impl AttachCounts {
    /// Notes the end of a connection, which had a port or not. One that goes by itself before it has a port is not refused.
    pub(super) fn note_end(&mut self, had_port: bool, reason: &DetachReason) {
        match (had_port, reason) {
            (true, _) => *self.detached.entry(reason.as_str()).or_default() += 1,
            (false, DetachReason::Ended) => {}
            (false, _) => *self.refused.entry(reason.as_str()).or_default() += 1,
        }
    }

    /// Notes a connection of a user who has asked for too much.
    pub(super) fn note_too_many(&mut self) {
        *self.refused.entry(TOO_MANY).or_default() += 1;
    }
}
