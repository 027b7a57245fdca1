//! What happens to frames: `[[rule]]`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::app::App;
use super::class_selection::ClassSelection;
use super::matches::{Direction, Match, MatchEntry};
use super::owner::OwnerMatch;
use super::set::Names;
use super::{MAX_PASSING_RULES, MAX_RULES, shadow, strangers};
use crate::document::{Document, Entry, Place};
use crate::report::quoted;
use crate::value::{As, Choice, Many, Name, Truth, Word};

/// The end of a frame's walk through the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Decision {
    /// It goes on its way.
    Accept,
    /// It goes nowhere, and its sender is not told.
    Drop,
    /// It goes nowhere, and its sender is told: by a reset for TCP, by an ICMP error for other IP.
    Reject,
}

impl Decision {
    /// As it stands in a file.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Accept => "accept",
            Self::Drop => "drop",
            Self::Reject => "reject",
        }
    }
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
    /// The classes that matching frames are put into. One at least for [`Action::Class`].
    pub class: ClassSelection,
}

impl Rule {
    /// A rule that stands on no line of a file, does not log and has no class.
    #[must_use]
    pub const fn new(name: String, matches: Match, owner: OwnerMatch, action: Action) -> Self {
        Self {
            name,
            line: 0,
            matches,
            owner,
            action,
            log: false,
            class: ClassSelection { egress: None, ingress: None },
        }
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

impl Choice for Action {
    type Of = Self;
    const WORDS: &'static [(&'static str, Self)] = &[
        ("accept", Self::Decide(Decision::Accept)),
        ("drop", Self::Decide(Decision::Drop)),
        ("reject", Self::Decide(Decision::Reject)),
        ("log", Self::Log),
        ("count", Self::Count),
        ("class", Self::Class),
    ];
}

/// What happens to frames: the first rule that matches and decides counts.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("required" = ["action"]))]
pub(super) struct RuleEntry {
    /// The rule's name, which no other rule has; "rule-N" by its position if not stated.
    #[serde(with = "As::<Name<64>>")]
    name: Option<String>,
    /// What a frame has to be; everything that is stated has to hold.
    r#match: MatchEntry,
    /// Whose it is; of each key that is stated, one value has to hold.
    owner: OwnerMatch,
    /// What it does: "accept", "drop" and "reject" decide; after "log", "count" and "class" the next rule is asked.
    #[serde(deserialize_with = "As::<Word<Action>>::deserialize")]
    #[schemars(with = "As<Word<Action>>")]
    action: Option<Action>,
    /// Whether matching frames are logged, besides the action.
    #[serde(with = "As::<Truth>")]
    log: bool,
    /// Name of the class that matching frames are put into; of one for egress and one for ingress in a list.
    class: Many<Name<64>>,
}

impl Rule {
    /// Reads every `[[rule]]` of `document`. `apps` are all that can attach, if it is known.
    pub(super) fn read_all(document: &Document<'_>, names: &Names, apps: Option<&[App]>) -> Vec<Self> {
        let (mut rules, mut starts, mut taken) = (Vec::new(), Vec::new(), BTreeMap::new());
        let (mut passing, before) = (0, document.faults());
        for (index, entry) in document.tables::<RuleEntry>("rule").enumerate() {
            let place = entry.place.clone();
            if index == MAX_RULES {
                let help = "put addresses and ports that rules differ in into a [[set]]";
                place.error("action", format!("a policy has at most {MAX_RULES} rules"), help);
                // What comes after is not looked at: a file may hold many more.
                break;
            }
            let rule = Self::read(entry, index + 1, names);
            passing += usize::from(rule.action.decision().is_none());
            if passing == MAX_PASSING_RULES + 1 && rule.action.decision().is_none() {
                let message = format!("a policy has at most {MAX_PASSING_RULES} rules that only log, count or class");
                place.error("action", message, "`log = true` and `class` go with an action that decides");
            }
            if let Some(line) = taken.insert(rule.name.clone(), rule.line) {
                let message = format!("there is already a rule {}, on line {line}", quoted(&rule.name));
                place.error("name", message, "counters and messages tell rules by their names");
            }
            starts.push(place.span().start);
            rules.push(rule);
        }
        if document.faults() == before {
            shadow::warn(&rules, &starts, document);
            apps.into_iter().for_each(|apps| strangers::warn(&rules, &starts, apps, document));
        }
        rules
    }

    /// Makes a rule of `entry`, the one with the number `number` from 1.
    fn read(entry: Entry<'_, RuleEntry>, number: usize, names: &Names) -> Self {
        let Entry { value: RuleEntry { name, r#match, mut owner, action, log, class }, is_whole, place } = entry;
        let before = place.faults();
        // What the others name is looked up even where one is wrong, so that one run shows all.
        owner.complete(&place, names);
        let is_whole = is_whole && action.is_some();
        let action = action.unwrap_or(Action::Decide(Decision::Drop));
        let rule = Self {
            name: name.unwrap_or_else(|| format!("rule-{number}")),
            line: u32::try_from(place.line()).unwrap_or(u32::MAX),
            matches: Match::read(r#match, &place, names).unwrap_or_default(),
            owner,
            action,
            log: log || action == Action::Log,
            class: ClassSelection::read(&class.0, &place, names),
        };
        if is_whole && place.faults() == before {
            rule.check_class(&place);
            rule.warn(&place);
        }
        rule
    }

    /// Warns of a rule that lets frames pass for what a process can take on.
    fn warn(&self, table: &Place<'_>) {
        let OwnerMatch { is, not } = &self.owner;
        let (says, hints) = match self.action {
            Action::Decide(Decision::Accept) => ("accepts by", is.hints_alone()),
            // Everybody but one: who takes on what the one is known by is spared.
            Action::Decide(Decision::Drop | Decision::Reject) if is.is_empty() => ("spares by", not.hints_alone()),
            _ => return,
        };
        let Some(hints) = hints else { return };
        let message = format!("the rule {} {says} {hints}", quoted(&self.name));
        table.warning("owner", message, "state `user`, `cgroup` or `container` too");
    }

    /// Checks that a class is stated where there is one to put frames into, and only there, and that it goes their way.
    fn check_class(&self, table: &Place<'_>) {
        match (self.action, !self.class.is_empty()) {
            (Action::Class, false) => {
                let help = "write `class = \"...\"`, the name of a [[class]]";
                return table.fail("action", "is \"class\", and no `class` is stated", help);
            }
            (Action::Decide(Decision::Drop | Decision::Reject), true) => {
                let what = "is stated, and the rule's frames go nowhere";
                return table.fail("class", what, "leave it out");
            }
            _ => {}
        }
        let (word, other) = match self.matches.direction {
            Some(Direction::Egress) if self.class.ingress.is_some() => ("egress", "ingress"),
            Some(Direction::Ingress) if self.class.egress.is_some() => ("ingress", "egress"),
            _ => return,
        };
        let help = format!("name a class with `direction` = \"{word}\", or leave `match.direction` out");
        table.fail("class", &format!("names a class for {other}, and the rule is for {word}"), &help);
    }
}
