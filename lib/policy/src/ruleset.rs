//! A policy, compiled.

use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use kopi_config::policy::{ClassSelection, Decision, Direction, MAX_PASSING_RULES, MAX_RULES, Policy, Rule};
use kopi_packet::{Fragment, MacAddr, Shape};
use thiserror::Error;

use crate::admission::{Entries, Refusal};
use crate::bits::{Block, Ones, Pool, Set, intersect};
use crate::fields::{self, Fields, MAX_VIEWS};
use crate::frame::{Cause, Evaluation, Packet};
use crate::host_sockets::HostSockets;
use crate::owner::{Accounts, Names, Owner, OwnerParts};
use crate::port_security::{PortSecurity, PortSecurityTable};

/// A policy as the dataplane asks it: who may attach, and what is to be done with a frame.
///
/// It never changes; another policy is another ruleset.
#[derive(Debug)]
pub struct Ruleset {
    policy: Arc<Policy>,
    names: Names,
    entries: Entries,
    port_security: PortSecurityTable,
    owners: OwnerParts,
    fields: Fields,
    pool: Box<[Block]>,
    /// Rules that decide.
    decisive: Set,
    /// Rules that go on, ascending.
    passing: Vec<u32>,
    /// Rules that give frames a class, ascending.
    classing: Vec<u32>,
    ids: Vec<RuleId>,
    tcp_flags_mask: u8,
    uses_state: bool,
}

/// What a rule is known by from one ruleset to the next: what it says, where it has no name of its own its place aside.
///
/// Counters that are kept by it live on as long as the rule is in the policy, wherever it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RuleId(u64);

/// Why a policy cannot be compiled. None that was read from a file is like that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum TooMany {
    /// More rules than [`MAX_RULES`].
    #[error("{0} rules, of {MAX_RULES} at most")]
    Rules(usize),
    /// More rules that go on than [`MAX_PASSING_RULES`].
    #[error("{0} rules that log, count or classify, of {MAX_PASSING_RULES} at most")]
    PassingRules(usize),
}

/// One attached app under one ruleset, with all that can be worked out before its first frame.
///
/// It belongs to the ruleset that made it. Evaluated by another, frames get a verdict that means nothing.
#[derive(Clone, Debug)]
pub struct PortPolicy {
    pub(crate) rules: Set,
    security: PortSecurity,
    class: ClassSelection,
}

impl PortPolicy {
    /// The same with the sockets of `host`, for an app that shares the host's address. No other app is changed. Without them, such
    /// an app may use no address and no port of the host.
    #[must_use]
    pub fn with_host_sockets(self, host: &Arc<HostSockets>) -> Self {
        Self { security: self.security.with_host_sockets(host), ..self }
    }

    /// Whether every frame of the one is evaluated as it would be for the other. Both have to be of one ruleset.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.rules == other.rules && self.security.is_same(&other.security) && self.class == other.class
    }
}

// One object is used by all workers.
const _: () = {
    const fn shared<T: Send + Sync>() {}
    shared::<Ruleset>();
    shared::<PortPolicy>();
};

impl Ruleset {
    /// Compiles `policy`, in which names stand for what `accounts` says.
    ///
    /// # Errors
    ///
    /// [`TooMany`] if the policy has more rules than there is room for.
    pub fn new(policy: Arc<Policy>, accounts: &dyn Accounts) -> Result<Self, TooMany> {
        let rules = &policy.rules;
        let passing = (0..).zip(rules).filter(|(_, rule)| rule.action.decision().is_none());
        let passing: Vec<u32> = passing.map(|(index, _)| index).collect();
        if rules.len() > MAX_RULES {
            return Err(TooMany::Rules(rules.len()));
        }
        let classing = (0..).zip(rules).filter(|(_, rule)| !rule.class.is_empty());
        let classing: Vec<u32> = classing.map(|(index, _)| index).collect();
        if passing.len() > MAX_PASSING_RULES {
            return Err(TooMany::PassingRules(passing.len()));
        }
        let mut pool = Pool::default();
        let names = Names::resolve(&policy, accounts);
        let port_security = PortSecurityTable::of(&policy);
        Ok(Self {
            entries: Entries::compile(&policy.apps, policy.default.attach, &names),
            owners: OwnerParts::compile(rules, &names),
            fields: Fields::compile(rules, &mut pool),
            pool: pool.finish(),
            decisive: Set::of(rules.len(), |rule| rules[rule].action.decision().is_some()),
            passing,
            classing,
            ids: ids(&policy),
            tcp_flags_mask: fields::tcp_flags_mask(rules),
            uses_state: fields::uses_state(rules) || port_security.lists_ports(),
            names,
            port_security,
            policy,
        })
    }

    /// The policy that it was compiled from.
    #[must_use]
    pub const fn policy(&self) -> &Arc<Policy> {
        &self.policy
    }

    /// The rules, in the order of the file: [`Cause::Rule`] is an index into them.
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.policy.rules
    }

    /// What each rule is known by, in the same order.
    #[must_use]
    pub fn ids(&self) -> &[RuleId] {
        &self.ids
    }

    /// The class of an app's frames that go this way, where no rule gives one.
    #[must_use]
    pub fn class_of(&self, port_policy: &PortPolicy, direction: Direction) -> Option<u16> {
        class(port_policy.class, direction)
    }

    /// Whether rules may give frames of an app that go this way another class.
    #[must_use]
    pub fn has_class_rules(&self, port_policy: &PortPolicy, direction: Direction) -> bool {
        let gives = |rule: &Rule| {
            let way = rule.matches.direction.is_none_or(|way| way == direction);
            way && rule.class.of(direction).is_some()
        };
        let mut rules = self.classing.iter().map(|rule| *rule as usize);
        rules.any(|index| port_policy.rules.contains(index) && gives(&self.policy.rules[index]))
    }

    /// The rules that go on to the next one: bit `i` of [`Evaluation::passing`] is for the rule with the index
    /// `passing_rules()[i]`.
    #[must_use]
    pub fn passing_rules(&self) -> &[u32] {
        &self.passing
    }

    /// Flags of TCP that at least one rule looks at.
    #[must_use]
    pub const fn tcp_flags_mask(&self) -> u8 {
        self.tcp_flags_mask
    }

    /// Whether the state of a connection may make a difference.
    #[must_use]
    pub const fn uses_state(&self) -> bool {
        self.uses_state
    }

    /// Whether names of users or groups stand for something else by now, so that the policy should be compiled anew.
    #[must_use]
    pub fn is_stale(&self, accounts: &dyn Accounts) -> bool {
        self.names.changed(accounts)
    }

    /// The `[[app]]` by which a process may attach, as an index into [`Policy::apps`], or `None` if it may without one.
    /// `asked` is the name that it wants for its port, or empty.
    ///
    /// The first entry counts that is for the owner and has that name, if one was asked for; one that does not admit
    /// counts for any name. Whom an entry is for cannot evade it by another name.
    ///
    /// # Errors
    ///
    /// [`Refusal`] if it may not, in words for whoever runs the process.
    pub fn admit(&self, owner: &Owner<'_>, asked: &str) -> Result<Option<usize>, Refusal> {
        self.entries.admit(&self.policy.apps, owner, asked)
    }

    /// Whether an `[[app]]` has the name `name`, so that it must not be made up for a process that asks for none.
    #[must_use]
    pub fn names_app(&self, name: &str) -> bool {
        self.policy.apps.iter().any(|app| app.name == name)
    }

    /// Works out what is the same for every frame of an app. `owner.name` is the name of its port, `entry` what
    /// [`admit`](Self::admit) said, `macs` the unicast addresses of its port. To be done again when any of them changes.
    #[must_use]
    pub fn port_policy(&self, owner: &Owner<'_>, entry: Option<usize>, macs: &[MacAddr]) -> PortPolicy {
        let entry = entry.and_then(|index| Some((index, self.policy.apps.get(index)?)));
        PortPolicy {
            rules: self.owners.rules_of(owner),
            security: self.port_security.port(entry, macs),
            class: entry.map_or_else(ClassSelection::default, |(_, app)| app.class),
        }
    }

    /// Evaluates a frame: whether it can be read, whether what it uses is the app's own, then by the rules.
    ///
    /// The evaluation depends on nothing but the port's policy, the direction, the key and the state, except in neighbour
    /// discovery. So it may be kept for all frames that have these in common. Never allocates.
    #[must_use]
    pub fn evaluate(&self, port_policy: &PortPolicy, packet: &Packet<'_>) -> Evaluation {
        let later = packet.key.fragment() == Fragment::Later;
        match self.precondition(port_policy, packet) {
            Some(evaluation) => evaluation,
            None if later && self.policy.default.fragments != Decision::Accept => {
                refused(port_policy, packet, self.policy.default.fragments, Cause::Fragment)
            }
            None => self.by_rules(port_policy, packet),
        }
    }

    /// Evaluates a fragment that is not the first one, and shares the fate of the first unless it has faults of its own.
    #[must_use]
    pub fn evaluate_fragment(&self, port_policy: &PortPolicy, packet: &Packet<'_>, first: &Evaluation) -> Evaluation {
        self.precondition(port_policy, packet).unwrap_or(*first)
    }

    /// What is said of a frame before the rules are asked.
    #[inline]
    fn precondition(&self, port_policy: &PortPolicy, packet: &Packet<'_>) -> Option<Evaluation> {
        let unread = matches!(packet.key.shape(), Shape::Malformed(_) | Shape::Runt);
        let malformed = self.policy.default.malformed;
        if unread && malformed != Decision::Accept {
            return Some(refused(port_policy, packet, malformed, Cause::Malformed));
        }
        let violation = port_policy.security.violation(packet)?;
        Some(refused(port_policy, packet, Decision::Drop, Cause::PortSecurity(violation)))
    }

    fn by_rules(&self, port_policy: &PortPolicy, packet: &Packet<'_>) -> Evaluation {
        let mut passing = 0;
        let mut decided = None;
        self.matching(port_policy, packet, |at, block| {
            let mut decisive = block;
            decisive.and(&self.decisive.blocks()[at]);
            let first = decisive.first();
            for rule in block.bits().take_while(|bit| first.is_none_or(|first| *bit < first)) {
                let rule = at * Block::RULES + rule;
                passing |=
                    self.passing.binary_search_by(|other| (*other as usize).cmp(&rule)).map_or(0, |bit| 1 << bit);
            }
            decided = first.map(|bit| at * Block::RULES + bit);
            decided.is_some()
        });
        self.evaluation(port_policy, packet.direction, decided, passing)
    }

    /// Gives `found` the blocks of rules that are for the frame, in order, until it says that it has enough.
    #[inline]
    fn matching(&self, port_policy: &PortPolicy, packet: &Packet<'_>, mut found: impl FnMut(usize, Block) -> bool) {
        let owner = port_policy.rules.view();
        let mut views = [owner; MAX_VIEWS];
        let mut count = 0;
        self.fields.look_up(packet, |view| {
            views[count] = view;
            count += 1;
        });
        // Last, since most rules are for any owner.
        views[count] = owner;
        let _enough = intersect(&views[..=count], &self.pool).any(|(at, block)| found(at, block));
    }

    fn evaluation(
        &self,
        port_policy: &PortPolicy,
        direction: Direction,
        decided: Option<usize>,
        passing: u64,
    ) -> Evaluation {
        let default = match direction {
            Direction::Egress => self.policy.default.egress,
            Direction::Ingress => self.policy.default.ingress,
        };
        let rules = &self.policy.rules;
        let (mut log, mut of_passed) = (false, None);
        for bit in Ones(passing) {
            let rule = &rules[self.passing[bit] as usize];
            log |= asks_for_log(rule);
            of_passed = class(rule.class, direction).or(of_passed);
        }
        let rule = decided.map(|index| &rules[index]);
        Evaluation {
            decision: rule.and_then(|rule| rule.action.decision()).unwrap_or(default),
            cause: decided.and_then(|index| u32::try_from(index).ok()).map_or(Cause::Default, Cause::Rule),
            passing,
            class: rule
                .and_then(|rule| class(rule.class, direction))
                .or(of_passed)
                .or_else(|| class(port_policy.class, direction)),
            log: log || rule.is_some_and(asks_for_log),
        }
    }
}

/// The evaluation of a frame that no rule was asked about.
fn refused(port_policy: &PortPolicy, packet: &Packet<'_>, decision: Decision, cause: Cause) -> Evaluation {
    Evaluation { decision, cause, passing: 0, class: class(port_policy.class, packet.direction), log: false }
}

fn asks_for_log(rule: &Rule) -> bool {
    rule.log || rule.action == kopi_config::policy::Action::Log
}

/// The class of frames that go this way, as the dataplane numbers it.
fn class(selection: ClassSelection, direction: Direction) -> Option<u16> {
    u16::try_from(selection.of(direction)?).ok()
}

/// What the rules are known by. Rules that say the same are told apart by their order.
fn ids(policy: &Policy) -> Vec<RuleId> {
    let mut seen: HashMap<u64, u32> = HashMap::new();
    let id = |rule: &Rule| {
        // Always the same within one build of the program, and ids live no longer than that.
        let mut hasher = DefaultHasher::new();
        own_name(&rule.name).hash(&mut hasher);
        let class = |index: Option<usize>| policy.classes.get(index?).map(|class| &class.name);
        let classes = (class(rule.class.egress), class(rule.class.ingress));
        (&rule.matches, &rule.owner, rule.action, rule.log, classes).hash(&mut hasher);
        let occurrence = seen.entry(hasher.finish()).or_default();
        occurrence.hash(&mut hasher);
        *occurrence += 1;
        RuleId(hasher.finish())
    };
    policy.rules.iter().map(id).collect()
}

/// The name of a rule, unless it is only the number of its place.
fn own_name(name: &str) -> Option<&str> {
    let number = name.strip_prefix("rule-").unwrap_or("");
    let automatic = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    (!automatic).then_some(name)
}
