//! What happens to what no rule decides: `default`.

use super::rule::Decision;
use crate::value::{As, Choice, Word, table};

table! {
    /// `default`: what happens to what no rule decides.
    #[derive(Copy)]
    pub struct Defaults {
        /// Frames from apps. Accepted if not stated.
        pub egress: Decision = Decision::Accept;
        /// Frames to apps. Accepted if not stated.
        pub ingress: Decision = Decision::Accept;
        /// Processes that no `[[app]]` matches: whether they may attach. They may if not stated.
        #[schemars(extend("default" = "accept"))]
        pub attach: bool = true, "As::<Word<Attach>>";
        /// Later fragments of IP packets whose first fragment was not seen: accepted or dropped. Dropped if not stated.
        pub fragments: Decision = Decision::Drop, "As::<Word<Silent>>";
        /// Frames that cannot be parsed to their end. If accepted, the rules decide by what could be read. Dropped if not
        /// stated.
        pub malformed: Decision = Decision::Drop, "As::<Word<Silent>>";
        /// ICMP errors about rejected frames: whether there are as many as Linux would send, and not one for each. So it
        /// is if not stated.
        #[serde(rename = "answers")]
        #[schemars(extend("default" = "limited"))]
        pub limits_answers: bool = true, "As::<Word<Answers>>";
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
