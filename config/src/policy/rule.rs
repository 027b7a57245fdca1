//! What happens to frames: `[[rule]]`.

use super::matches::Match;
use super::owner::OwnerMatch;

/// The end of a frame's walk through the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Decision {
    /// It goes on its way.
    Accept,
    /// It goes nowhere, and its sender is not told.
    Drop,
    /// It goes nowhere, and its sender is told: by a reset for TCP, by an ICMP error for other IP.
    Reject,
}

/// `[[rule]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rule {
    /// Its name, unique.
    pub name: String,
    /// Line of the file, from 1.
    pub line: u32,
    /// Which frames it is for.
    pub matches: Match,
    /// Whose frames it is for.
    pub owner: OwnerMatch,
    /// What it does.
    pub action: Action,
    /// Whether matching frames are logged, besides the action. Always for [`Action::Log`].
    pub log: bool,
    /// Class that matching frames are put into: index into [`Policy::classes`]. Always for [`Action::Class`].
    pub class: Option<usize>,
}

impl Rule {
    /// A rule that stands on no line of a file, does not log and has no class.
    #[must_use]
    pub const fn new(name: String, matches: Match, owner: OwnerMatch, action: Action) -> Self {
        Self { name, line: 0, matches, owner, action, log: false, class: None }
    }
}

/// What a rule does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// It decides.
    Decide(Decision),
    /// It logs, and the next rule is asked.
    Log,
    /// It counts, and the next rule is asked.
    Count,
    /// It puts the frame into its class, and the next rule is asked.
    Class,
}

impl Action {
    /// The end of the walk, unless the next rule is asked.
    #[must_use]
    pub const fn decision(self) -> Option<Decision> {
        match self {
            Self::Decide(decision) => Some(decision),
            Self::Log | Self::Count | Self::Class => None,
        }
    }
}
