//! What happens to what no rule decides: `default`.

use schemars::JsonSchema;
use serde::Deserialize;

use super::rule::Decision;
use crate::value::{As, Choice, Word};

/// `default`: what happens to what no rule decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Defaults {
    /// Frames from apps. Accepted if not stated.
    pub egress: Decision,
    /// Frames to apps. Accepted if not stated.
    pub ingress: Decision,
    /// Processes that no `[[app]]` matches: whether they may attach. They may if not stated.
    #[serde(with = "As::<Word<Attach>>")]
    #[schemars(extend("default" = "accept"))]
    pub attach: bool,
    /// Later fragments of IP packets whose first fragment was not seen: accepted or dropped. Dropped if not stated.
    #[serde(with = "As::<Word<Silent>>")]
    pub fragments: Decision,
    /// Frames that cannot be parsed to their end. If accepted, the rules decide by what could be read. Dropped if not
    /// stated.
    #[serde(with = "As::<Word<Silent>>")]
    pub malformed: Decision,
    /// ICMP errors about rejected frames: whether there are as many as Linux would send, and not one for each. So it is
    /// if not stated.
    #[serde(rename = "answers", with = "As::<Word<Answers>>")]
    #[schemars(extend("default" = "limited"))]
    pub limits_answers: bool,
}

impl Default for Defaults {
    fn default() -> Self {
        Self {
            egress: Decision::Accept,
            ingress: Decision::Accept,
            attach: true,
            fragments: Decision::Drop,
            malformed: Decision::Drop,
            limits_answers: true,
        }
    }
}

struct Attach;

impl Choice for Attach {
    type Of = bool;
    const WORDS: &'static [(&'static str, bool)] = &[("accept", true), ("refuse", false)];
}

/// What happens to frames whose sender cannot be told.
struct Silent;

impl Choice for Silent {
    type Of = Decision;
    const WORDS: &'static [(&'static str, Decision)] = &[("accept", Decision::Accept), ("drop", Decision::Drop)];
}

struct Answers;

impl Choice for Answers {
    type Of = bool;
    const WORDS: &'static [(&'static str, bool)] = &[("limited", true), ("all", false)];
}
