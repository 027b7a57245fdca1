//! What happens to what no rule decides: `default`.

use super::rule::Decision;
use crate::form::Choice;
use crate::walk::{AnyKey, Key, Need, Section, Table};

/// `default`: what happens to what no rule decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Defaults {
    /// Frames from apps. Accepted if not stated.
    pub egress: Decision,
    /// Frames to apps. Accepted if not stated.
    pub ingress: Decision,
    /// Processes that no `[[app]]` matches: whether they may attach. They may if not stated.
    pub attach: bool,
    /// Later fragments of IP packets whose first fragment was not seen. `Accept` or `Drop`; dropped if not stated.
    pub fragments: Decision,
    /// Frames that cannot be parsed to their end. `Accept` means that the rules decide by what could be read; dropped
    /// if not stated.
    pub malformed: Decision,
    /// Whether there are as many ICMP errors about rejected frames as Linux would send, and not one for each. So it is if not
    /// stated.
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

impl Defaults {
    pub(super) fn read(table: &Table<'_>) -> Option<Self> {
        let egress = table.get(&EGRESS);
        let ingress = table.get(&INGRESS);
        let attach = table.get(&ATTACH);
        let fragments = table.get(&FRAGMENTS);
        let malformed = table.get(&MALFORMED);
        let answers = table.get(&ANSWERS);
        Some(Self {
            egress: egress?,
            ingress: ingress?,
            attach: attach?,
            fragments: fragments?,
            malformed: malformed?,
            limits_answers: answers?,
        })
    }
}

pub(super) static DEFAULT: Section = Section {
    name: "default",
    doc: "what happens to what no rule decides",
    keys: &[&EGRESS as &dyn AnyKey, &INGRESS, &ATTACH, &FRAGMENTS, &MALFORMED, &ANSWERS],
};

const DECISIONS: Choice<Decision> =
    Choice { words: &[("accept", Decision::Accept), ("drop", Decision::Drop), ("reject", Decision::Reject)] };
const SILENT: Choice<Decision> = Choice { words: &[("accept", Decision::Accept), ("drop", Decision::Drop)] };

static EGRESS: Key<Choice<Decision>> =
    Key { name: "egress", doc: "frames from apps", form: DECISIONS, need: Need::Default("\"accept\"") };
static INGRESS: Key<Choice<Decision>> =
    Key { name: "ingress", doc: "frames to apps", form: DECISIONS, need: Need::Default("\"accept\"") };
static ATTACH: Key<Choice<bool>> = Key {
    name: "attach",
    doc: "processes that no [[app]] is for",
    form: Choice { words: &[("accept", true), ("refuse", false)] },
    need: Need::Default("\"accept\""),
};
static FRAGMENTS: Key<Choice<Decision>> = Key {
    name: "fragments",
    doc: "later fragments of IP packets whose first fragment was not seen",
    form: SILENT,
    need: Need::Default("\"drop\""),
};
static MALFORMED: Key<Choice<Decision>> = Key {
    name: "malformed",
    doc: "frames that cannot be parsed to their end; if accepted, the rules decide by what could be read",
    form: SILENT,
    need: Need::Default("\"drop\""),
};
static ANSWERS: Key<Choice<bool>> = Key {
    name: "answers",
    doc: "ICMP errors about rejected frames: as many as Linux would send, or one for each",
    form: Choice { words: &[("limited", true), ("all", false)] },
    need: Need::Default("\"limited\""),
};
