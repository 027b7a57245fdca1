//! The log's level.

use serde::{Deserialize, Serialize};

/// The one row of `log`.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Log {
    /// The least important lines that are written now.
    pub level: String,
    /// Those of the configuration, which the next start has.
    pub configured: String,
}
