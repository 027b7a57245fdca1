//! Rules of the policy.

use serde::{Deserialize, Serialize};

/// A row of `rules`, in the order of the keys as they are sent: a rule, or the default of a direction, and what it has matched.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Rule {
    /// What becomes of what it matches.
    pub action: String,
    /// Bytes of frames that it has matched.
    pub bytes: u64,
    /// The class that it assigns; with a comma between them if there is one for each direction.
    pub class: Option<String>,
    /// Its line in the policy's file.
    pub line: Option<u32>,
    /// Whether matches are logged.
    pub log: bool,
    /// As the policy has it, long lists cut.
    #[serde(rename = "match")]
    pub matches: Option<String>,
    /// Its name.
    pub name: String,
    /// Whom it is about, as the policy has it.
    pub owner: Option<String>,
    /// Frames that it has matched.
    pub packets: u64,
}
