//! A policy that was put in force.

use serde::{Deserialize, Serialize};

/// The one row of `reload`.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Reloaded {
    /// What the policy's file is called; empty for one that was kept.
    pub file: String,
    /// How many rules it has.
    pub rules: usize,
    /// Texts of several lines.
    pub warnings: Vec<String>,
    /// Time after which the policy of before comes back, unless this one is kept.
    pub confirm_seconds: Option<u64>,
}
