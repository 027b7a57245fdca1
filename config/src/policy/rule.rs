//! What happens to frames: `[[rule]]`.

use std::collections::BTreeMap;

use super::app::App;
use super::assigned::{Assigned, CLASS_FORM, ClassKey};
use super::match_keys::MATCH;
use super::matches::{Direction, Match};
use super::name::NameForm;
use super::owner::{OwnerMatch, RULE_KEYS, RULE_OWNER};
use super::set::Names;
use super::{MAX_PASSING_RULES, MAX_RULES, shadow, strangers};
use crate::form::{Choice, Truth};
use crate::report::quoted;
use crate::walk::{AnyKey, Document, Key, Need, Section, Table};

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
    /// The classes that matching frames are put into. One at least for [`Action::Class`].
    pub class: Assigned,
}

impl Rule {
    /// A rule that stands on no line of a file, does not log and has no class.
    #[must_use]
    pub const fn new(name: String, matches: Match, owner: OwnerMatch, action: Action) -> Self {
        Self { name, line: 0, matches, owner, action, log: false, class: Assigned { egress: None, ingress: None } }
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

impl Rule {
    /// Reads every `[[rule]]` of `document`. `apps` are all that can attach, if it is known.
    pub(super) fn read_all(document: &Document<'_>, names: &Names, apps: Option<&[App]>) -> Option<Vec<Self>> {
        let (mut rules, mut starts, mut taken) = (Vec::new(), Vec::new(), BTreeMap::new());
        let (mut failed, mut passing) = (false, 0);
        for (index, table) in document.tables(&RULE).enumerate() {
            if index == MAX_RULES {
                let help = "put addresses and ports that rules differ in into a [[set]]".to_owned();
                table.error(&ACTION, format!("a policy has at most {MAX_RULES} rules"), Some(help));
                // What comes after is not looked at: a file may hold many more.
                table.abandon();
                return None;
            }
            let Some(rule) = Self::read(&table, index + 1, names) else {
                failed = true;
                continue;
            };
            passing += usize::from(rule.action.decision().is_none());
            if passing == MAX_PASSING_RULES + 1 && rule.action.decision().is_none() {
                failed = true;
                let message = format!("a policy has at most {MAX_PASSING_RULES} rules that only log, count or class");
                table.error(
                    &ACTION,
                    message,
                    Some("`log = true` and `class` go with an action that decides".to_owned()),
                );
            }
            if let Some(line) = taken.insert(rule.name.clone(), rule.line) {
                failed = true;
                let message = format!("there is already a rule {}, on line {line}", quoted(&rule.name));
                table.error(&NAME, message, Some("counters and messages tell rules by their names".to_owned()));
            }
            starts.push(table.start());
            rules.push(rule);
        }
        if failed {
            return None;
        }
        shadow::warn(&rules, &starts, document);
        if let Some(apps) = apps {
            strangers::warn(&rules, &starts, apps, document);
        }
        Some(rules)
    }

    /// Reads one `[[rule]]`, the one with the number `number` from 1.
    pub(super) fn read(table: &Table<'_>, number: usize, names: &Names) -> Option<Self> {
        let name = table.optional(&NAME);
        let matches = match table.nested(&MATCH) {
            None => None,
            Some(None) => Some(Match::default()),
            Some(Some(matches)) => Match::read(&matches, names),
        };
        let owner = match table.nested(&RULE_OWNER) {
            None => None,
            Some(None) => Some(OwnerMatch::default()),
            Some(Some(owner)) => OwnerMatch::read(&owner, &RULE_KEYS, names),
        };
        let action = table.get(&ACTION);
        let log = table.optional(&LOG);
        let class = Assigned::read(table, &CLASS, names);
        let rule = Self {
            name: name?.unwrap_or_else(|| Self::default_name(number)),
            line: u32::try_from(table.line()).unwrap_or(u32::MAX),
            matches: matches?,
            owner: owner?,
            action: action?,
            log: log?.unwrap_or(false) || action? == Action::Log,
            class: class?,
        };
        rule.check_class(table)?;
        rule.warn(table);
        Some(rule)
    }

    /// The name of a rule that has none in the file.
    pub(super) fn default_name(number: usize) -> String {
        format!("rule-{number}")
    }

    /// Warns of a rule that lets frames pass for what a process can take on.
    fn warn(&self, table: &Table<'_>) {
        let OwnerMatch { is, not } = &self.owner;
        let (says, hints) = match self.action {
            Action::Decide(Decision::Accept) => ("accepts by", is.hints_alone()),
            // Everybody but one: who takes on what the one is known by is spared.
            Action::Decide(Decision::Drop | Decision::Reject) if is.is_empty() => ("spares by", not.hints_alone()),
            _ => return,
        };
        let Some(hints) = hints else { return };
        let message = format!("the rule {} {says} {hints}", quoted(&self.name));
        table.warning(&RULE_OWNER, message, Some("state `user` or `cgroup` too".to_owned()));
    }

    /// Checks that a class is stated where there is one to put frames into, and only there.
    fn check_class(&self, table: &Table<'_>) -> Option<()> {
        match (self.action, !self.class.is_empty()) {
            (Action::Class, false) => {
                let help = "write `class = \"...\"`, the name of a [[class]]".to_owned();
                table.error(
                    &ACTION,
                    "`action` in [[rule]] is \"class\", and no `class` is stated".to_owned(),
                    Some(help),
                );
                None
            }
            (Action::Decide(Decision::Drop | Decision::Reject), true) => {
                let message = "`class` in [[rule]] is stated, and the rule's frames go nowhere".to_owned();
                table.error(&CLASS, message, Some("leave it out".to_owned()));
                None
            }
            _ => self.check_direction(table),
        }
    }

    /// Checks that its frames go the way of its classes.
    fn check_direction(&self, table: &Table<'_>) -> Option<()> {
        let (word, other) = match self.matches.direction {
            Some(Direction::Egress) if self.class.ingress.is_some() => ("egress", "ingress"),
            Some(Direction::Ingress) if self.class.egress.is_some() => ("ingress", "egress"),
            _ => return Some(()),
        };
        let message = format!("`class` in [[rule]] names a class for {other}, and the rule is for {word}");
        table.error(
            &CLASS,
            message,
            Some(format!("name a class with `direction` = \"{word}\", or leave `match.direction` out")),
        );
        None
    }
}

pub(super) static RULE: Section = Section {
    name: "rule",
    doc: "what happens to frames: the first rule that matches and decides counts",
    keys: &[&NAME as &dyn AnyKey, &MATCH, &RULE_OWNER, &ACTION, &LOG, &CLASS],
};

pub(super) static NAME: Key<NameForm> = Key {
    name: "name",
    doc: "the rule's name, which no other rule has; \"rule-N\" by its position if not stated",
    form: NameForm { max: 64 },
    need: Need::Optional,
};

pub(super) static ACTION: Key<Choice<Action>> = Key {
    name: "action",
    doc: "what it does: the first three decide, after the others the next rule is asked",
    form: Choice {
        words: &[
            ("accept", Action::Decide(Decision::Accept)),
            ("drop", Action::Decide(Decision::Drop)),
            ("reject", Action::Decide(Decision::Reject)),
            ("log", Action::Log),
            ("count", Action::Count),
            ("class", Action::Class),
        ],
    },
    need: Need::Required,
};

static LOG: Key<Truth> = Key {
    name: "log",
    doc: "whether frames are logged, besides the action; false if not stated",
    form: Truth,
    need: Need::Optional,
};

static CLASS: ClassKey = Key {
    name: "class",
    doc: "name of the class that frames are put into; of one for egress and one for ingress in a list",
    form: CLASS_FORM,
    need: Need::Optional,
};
