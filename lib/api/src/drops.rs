//! Reasons for which frames were dropped.

use serde::{Deserialize, Serialize};

/// A row of `drops`, in the order of the keys as they are sent: frames of one port dropped for one reason.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Drops {
    /// `wire` or the app's name.
    pub app: String,
    /// How many.
    pub packets: u64,
    /// Why.
    pub reason: String,
    /// The rule that said so, if any did.
    pub rule: Option<String>,
    /// Where.
    pub stage: String,
}
