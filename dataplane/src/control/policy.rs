//! The policy in force, on the control thread: read, compiled, replaced while traffic goes on, and taken back.

use crate::control::app::App;
use crate::control::container::Containment;
use crate::control::users::Users;
use crate::ids::Generation;
use crate::policy_counters::{CounterKey, PolicyCounters};
use crate::policy_table::PolicyTable;
use crate::snapshot::Snapshot;
use kopi_config::check;
use kopi_config::policy::{Decision, Direction, Policy};
use kopi_policy::{Accounts, Cause, Owner, RuleId, Ruleset, Violation};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The machine's users and groups.
#[derive(Clone, Copy, Debug)]
pub struct Machine;

impl Accounts for Machine {
    fn user(&self, name: &str) -> Option<u32> {
        check::user(name)
    }

    fn group(&self, name: &str) -> Option<u32> {
        check::group(name)
    }
}

/// The policy in force.
#[derive(Debug, Default)]
pub struct Enforcement {
    /// The configured file, which a reload reads.
    path: Option<PathBuf>,
    ruleset: Option<Arc<Ruleset>>,
    /// What comes back unless the present policy is confirmed in time.
    unconfirmed: Option<Unconfirmed>,
    /// When it was asked for; see [`Reload::turn`](crate::control::reload::Reload::turn).
    turn: u64,
    /// Shared with those who sum up what was counted, and copied if it changes meanwhile.
    rule_stats: Arc<RuleStats>,
    reloads: ReloadCounts,
}

/// What has become of policies that were to take the place of the one in force, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReloadCounts {
    /// Those that came into force.
    pub done: u64,
    /// Those that did not.
    pub failed: u64,
    /// Those that were taken back because nobody confirmed them.
    pub taken_back: u64,
}

#[derive(Debug)]
struct Unconfirmed {
    before: Option<Arc<Ruleset>>,
    until: Instant,
}

impl Enforcement {
    /// The policy `policy`, if there is one, from the configured file.
    ///
    /// # Errors
    ///
    /// A text for people, if it cannot be compiled.
    pub fn new(path: Option<PathBuf>, policy: Option<Policy>) -> Result<Self, String> {
        let ruleset = policy.map(compile).transpose()?;
        Ok(Self { path, ruleset, ..Self::default() })
    }

    /// The configured file.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// The compiled rules.
    #[must_use]
    pub const fn ruleset(&self) -> Option<&Arc<Ruleset>> {
        self.ruleset.as_ref()
    }

    /// Puts `ruleset` in force, which was asked for at `turn`. Unless it is confirmed within `confirm_within`, the one that was confirmed last
    /// comes back.
    ///
    /// # Errors
    ///
    /// A text for people, and the policy in force stays.
    pub fn replace(
        &mut self,
        ruleset: Arc<Ruleset>,
        turn: u64,
        confirm_within: Option<Duration>,
    ) -> Result<(), String> {
        if turn < self.turn {
            self.reloads.failed += 1;
            return Err(
                "a policy that was asked for later is in force already: reload again if this one is to take its place"
                    .into(),
            );
        }
        self.turn = turn;
        self.reloads.done += 1;
        let before = self.ruleset.replace(ruleset);
        let confirmed = self.unconfirmed.take().map_or(before, |unconfirmed| unconfirmed.before);
        self.unconfirmed = confirm_within.map(|time| Unconfirmed { before: confirmed, until: Instant::now() + time });
        self.keep_rules();
        Ok(())
    }

    /// Forgets what was counted for rules that are not in force, nor come back if the one in force is not confirmed.
    fn keep_rules(&mut self) {
        let before = self.unconfirmed.as_ref().and_then(|unconfirmed| unconfirmed.before.as_deref());
        let rulesets = [self.ruleset.as_deref(), before];
        let known = rulesets.into_iter().flatten().flat_map(Ruleset::ids).copied().collect();
        self.rule_stats_mut().keep_rules(&known);
    }

    /// Confirms the policy in force; returns whether it was waiting for that.
    pub fn confirm(&mut self) -> bool {
        self.unconfirmed.take().is_some()
    }

    /// Seconds in which the policy in force may still be confirmed.
    #[must_use]
    pub fn confirm_seconds(&self) -> Option<u64> {
        self.unconfirmed
            .as_ref()
            .map(|unconfirmed| unconfirmed.until.saturating_duration_since(Instant::now()).as_secs())
    }

    /// Takes the policy in force back if it was not confirmed in time; returns whether it did.
    pub fn expire(&mut self) -> bool {
        let Some(unconfirmed) = self.unconfirmed.take_if(|unconfirmed| Instant::now() >= unconfirmed.until) else {
            return false;
        };
        self.ruleset = unconfirmed.before;
        self.reloads.taken_back += 1;
        self.keep_rules();
        true
    }

    /// Takes `fresh` for `stale`, the same policy with names of users and groups that stand for something else by now; returns
    /// whether it did: not if another policy has come into force.
    pub fn refresh(&mut self, stale: &Arc<Ruleset>, fresh: Arc<Ruleset>) -> bool {
        let same = self.ruleset.as_ref().is_some_and(|ruleset| Arc::ptr_eq(ruleset, stale));
        if same {
            self.ruleset = Some(fresh);
        }
        same
    }

    /// What has become of policies that were to take its place. Those that could not be read are
    /// [counted elsewhere](crate::control::reload::PolicySource::failed).
    #[must_use]
    pub const fn reloads(&self) -> ReloadCounts {
        self.reloads
    }

    /// The same, to be added to.
    pub fn rule_stats_mut(&mut self) -> &mut RuleStats {
        Arc::make_mut(&mut self.rule_stats)
    }

    /// What was counted under snapshots that are no longer used.
    #[must_use]
    pub const fn rule_stats(&self) -> &Arc<RuleStats> {
        &self.rule_stats
    }
}

/// What depends on the machine's users and groups, as it was known last.
#[derive(Clone, Debug)]
pub struct ByAccount {
    /// The compiled rules.
    pub ruleset: Option<Arc<Ruleset>>,
    /// The uids that are one user.
    pub users: Arc<Users>,
}

/// What is to take its place, as far as it has changed.
#[derive(Debug)]
pub struct Changed {
    /// Rules, and what they take the place of.
    pub ruleset: Option<(Arc<Ruleset>, Arc<Ruleset>)>,
    /// The uids that are one user.
    pub users: Option<Users>,
}

impl ByAccount {
    /// Looks what `accounts` say by now. May wait for a name service.
    #[must_use]
    pub fn changed(self, accounts: &dyn Accounts) -> Changed {
        let stale = self.ruleset.filter(|ruleset| ruleset.is_stale(accounts));
        // It has been compiled before, so it can be.
        let fresh = stale.and_then(|stale| {
            let fresh = Ruleset::new(Arc::clone(stale.policy()), accounts).ok()?;
            Some((stale, Arc::new(fresh)))
        });
        Changed { ruleset: fresh, users: self.users.changed() }
    }
}

pub(crate) fn compile(policy: Policy) -> Result<Arc<Ruleset>, String> {
    Ruleset::new(Arc::new(policy), &Machine).map(Arc::new).map_err(|error| error.to_string())
}

/// An app as the rules see it.
#[must_use]
pub fn owner_of(app: &App) -> Owner<'_> {
    Owner { name: &app.name, ..app.identity.owner() }
}

impl crate::control::identity::Identity {
    /// The process as rules see it, without a port.
    #[must_use]
    pub fn owner(&self) -> Owner<'_> {
        let (container, pod) = match &self.containment {
            Containment::Unknown => (None, None),
            // In none, and that is known.
            Containment::Outside => (Some(""), Some("")),
            Containment::In(of) => (Some(of.id.as_str()), Some(of.pod.as_deref().unwrap_or_default())),
        };
        Owner {
            name: "",
            uid: self.known_uid(),
            gid: self.known_gid(),
            groups: self.groups.as_deref(),
            comm: (self.pid != 0).then_some(&self.comm),
            exe: self.exe.as_deref(),
            cgroup: self.cgroup.as_deref(),
            container,
            pod,
            label: self.label.as_deref(),
        }
    }
}

/// What decided about frames, as it is known across reloads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Decider {
    /// The rule that is known by this.
    Rule(RuleId),
    /// The default of the direction.
    Default(Direction),
    /// Port security.
    PortSecurity(Violation),
    /// It could not be parsed.
    Malformed,
    /// It was a fragment without its first.
    Fragment,
}

impl Decider {
    /// What decided this, by the rules of then. A rule that there is not decides nothing.
    fn of(key: &CounterKey, ruleset: &Ruleset) -> Option<Self> {
        Some(match key.cause {
            Cause::Rule(rule) => Self::Rule(*ruleset.ids().get(usize::try_from(rule).ok()?)?),
            Cause::Default => Self::Default(key.direction),
            Cause::PortSecurity(violation) => Self::PortSecurity(violation),
            Cause::Malformed => Self::Malformed,
            Cause::Fragment => Self::Fragment,
        })
    }
}

/// Packets and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    /// Packets.
    pub packets: u64,
    /// Bytes, FCS not counted.
    pub bytes: u64,
}

/// What the rules have counted.
#[derive(Clone, Debug, Default)]
pub struct RuleStats {
    rules: BTreeMap<RuleId, Sum>,
    defaults: BTreeMap<Direction, Sum>,
    refused: BTreeMap<(Generation, Decider), u64>,
}

impl RuleStats {
    /// Adds what stands in policy counters of a snapshot with `filter`.
    pub fn enter(&mut self, policy_counters: &PolicyCounters, filter: &PolicyTable) {
        for (key, packets, bytes) in policy_counters.entries() {
            self.enter_one(&key, Sum { packets, bytes }, filter);
        }
    }

    fn enter_one(&mut self, key: &CounterKey, sum: Sum, filter: &PolicyTable) {
        let ruleset = filter.ruleset();
        rules_of(key, ruleset).for_each(|rule| self.rules.entry(rule).or_default().add(sum));
        if let Cause::Default = key.cause {
            self.defaults.entry(key.direction).or_default().add(sum);
        }
        if key.decision != Decision::Accept
            && let Some(decider) = Decider::of(key, ruleset)
        {
            *self.refused.entry((filter.generation(key.port), decider)).or_default() += sum.packets;
        }
    }

    /// What the rule has seen.
    #[must_use]
    pub fn rule(&self, id: RuleId) -> Sum {
        self.rules.get(&id).copied().unwrap_or_default()
    }

    /// What no rule decided.
    #[must_use]
    pub fn default(&self, direction: Direction) -> Sum {
        self.defaults.get(&direction).copied().unwrap_or_default()
    }

    /// Whether something is known of an app that is not there any more.
    #[must_use]
    pub fn knows_others(&self, is_there: impl Fn(Generation) -> bool) -> bool {
        self.refused.keys().any(|(generation, _)| !is_there(*generation))
    }

    /// Forgets apps that are not there any more.
    pub fn keep_apps(&mut self, is_there: impl Fn(Generation) -> bool) {
        self.refused.retain(|(generation, _), _| is_there(*generation));
    }

    /// Forgets all rules but `known`.
    fn keep_rules(&mut self, known: &BTreeSet<RuleId>) {
        self.rules.retain(|rule, _| known.contains(rule));
        self.refused.retain(|(_, decider), _| !matches!(decider, Decider::Rule(rule) if !known.contains(rule)));
    }
}

/// The rules that have seen frames with this counter key.
fn rules_of(key: &CounterKey, ruleset: &Ruleset) -> impl Iterator<Item = RuleId> {
    let id = |rule: u32| usize::try_from(rule).ok().and_then(|rule| ruleset.ids().get(rule)).copied();
    let passed = ruleset.passing_rules().iter().enumerate();
    let passed = passed.filter(|(bit, _)| key.passing >> bit & 1 == 1).map(|(_, rule)| *rule);
    let decided = if let Cause::Rule(rule) = key.cause { Some(rule) } else { None };
    passed.chain(decided).filter_map(id)
}

/// What has been counted up to a moment, to be summed up wherever there is time for it.
#[derive(Debug)]
pub struct Counted {
    /// Under snapshots that are no longer used.
    pub past: Arc<RuleStats>,
    /// Under the others, with what each worker has counted.
    pub open: Vec<(Arc<Snapshot>, Arc<PolicyCounters>)>,
}

impl Counted {
    /// Counters of snapshots in use, with packets and bytes.
    fn entries(&self) -> impl Iterator<Item = (&PolicyTable, CounterKey, Sum)> {
        let open =
            self.open.iter().filter_map(|(snapshot, policy_counters)| Some((snapshot.policies()?, policy_counters)));
        open.flat_map(|(filter, policy_counters)| {
            policy_counters.entries().map(move |(key, packets, bytes)| (filter, key, Sum { packets, bytes }))
        })
    }

    /// What these rules have seen.
    #[must_use]
    pub fn rules(&self, ids: &[RuleId]) -> BTreeMap<RuleId, Sum> {
        let mut sums: BTreeMap<_, _> = ids.iter().map(|id| (*id, self.past.rule(*id))).collect();
        for (filter, key, sum) in self.entries() {
            for rule in rules_of(&key, filter.ruleset()) {
                if let Some(known) = sums.get_mut(&rule) {
                    known.add(sum);
                }
            }
        }
        sums
    }

    /// What each of the rules `shown` has seen, in their order, and all others together.
    #[must_use]
    pub fn first_rules(&self, shown: &[RuleId]) -> (Vec<Sum>, Sum) {
        let places: BTreeMap<RuleId, usize> = shown.iter().copied().zip(0..).collect();
        let (mut sums, mut others) = (vec![Sum::default(); shown.len()], Sum::default());
        let mut add = |rule, sum| match places.get(&rule).and_then(|at| sums.get_mut(*at)) {
            Some(known) => known.add(sum),
            None => others.add(sum),
        };
        self.past.rules.iter().for_each(|(rule, sum)| add(*rule, *sum));
        for (filter, key, sum) in self.entries() {
            rules_of(&key, filter.ruleset()).for_each(|rule| add(rule, sum));
        }
        (sums, others)
    }

    /// What no rule decided.
    #[must_use]
    pub fn default(&self, direction: Direction) -> Sum {
        let mut total = self.past.default(direction);
        let of_default = |key: &CounterKey| key.cause == Cause::Default && key.direction == direction;
        self.entries().filter(|(_, key, _)| of_default(key)).for_each(|(.., sum)| total.add(sum));
        total
    }

    /// Frames dropped or rejected at the side of these apps, by what decided it.
    #[must_use]
    pub fn refused(&self, apps: &BTreeSet<Generation>) -> BTreeMap<(Generation, Decider), u64> {
        let past = self.past.refused.iter().filter(|((app, _), _)| apps.contains(app));
        let mut refused: BTreeMap<_, _> = past.map(|(of, packets)| (*of, *packets)).collect();
        for (filter, key, sum) in self.entries().filter(|(_, key, _)| key.decision != Decision::Accept) {
            let app = filter.generation(key.port);
            if apps.contains(&app)
                && let Some(decider) = Decider::of(&key, filter.ruleset())
            {
                *refused.entry((app, decider)).or_default() += sum.packets;
            }
        }
        refused
    }
}

impl Sum {
    const fn add(&mut self, more: Self) {
        self.packets += more.packets;
        self.bytes += more.bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rules that are not among those asked for are summed up, and none is left out.
    #[test]
    fn other_rules_are_summed_up() {
        let rule =
            |port: u16| format!("[[rule]]\nmatch = {{ proto = \"tcp\", dst_port = {port} }}\naction = \"drop\"\n");
        let text: String = (1..=5).map(rule).collect();
        let ruleset = compile(Policy::parse(text, "test").unwrap()).unwrap();
        let mut past: RuleStats = Default::default();
        for (id, n) in ruleset.ids().iter().zip(1..) {
            past.rules.insert(*id, Sum { packets: n, bytes: 100 * n });
        }
        let counted = Counted { past: Arc::new(past), open: Vec::new() };
        let sums = |shown: usize| {
            let (sums, others) = counted.first_rules(&ruleset.ids()[..shown]);
            (sums.iter().map(|sum| sum.packets).collect::<Vec<_>>(), others.packets, others.bytes)
        };
        assert_eq!(sums(2), (vec![1, 2], 12, 1200));
        assert_eq!(sums(0), (vec![], 15, 1500));
        assert_eq!(sums(5), (vec![1, 2, 3, 4, 5], 0, 0));
    }

    /// Counters of a rule stay while it is in force or may come back, and go with it.
    #[test]
    fn counters_outlive_a_commit_that_is_not_confirmed() {
        let policy = |port: u16| {
            let text = format!("[[rule]]\nmatch = {{ proto = \"tcp\", dst_port = {port} }}\naction = \"drop\"\n");
            Policy::parse(text, "test").unwrap()
        };
        let mut enforcement = Enforcement::new(None, Some(policy(1))).unwrap();
        let rule = enforcement.ruleset().unwrap().ids()[0];
        let sum = Sum { packets: 3, bytes: 180 };
        enforcement.rule_stats_mut().rules.insert(rule, sum);
        enforcement.rule_stats_mut().refused.insert((1, Decider::Rule(rule)), 3);
        let two = || compile(policy(2)).unwrap();
        enforcement.replace(two(), 7, Some(Duration::ZERO)).unwrap();
        assert_eq!(enforcement.rule_stats().rule(rule), sum, "not confirmed yet");
        assert!(enforcement.expire());
        assert_eq!(
            (enforcement.rule_stats().rule(rule), enforcement.rule_stats().refused.len()),
            (sum, 1),
            "taken back"
        );
        assert!(enforcement.replace(two(), 6, None).unwrap_err().contains("asked for later"));
        enforcement.replace(two(), 8, None).unwrap();
        assert_eq!((enforcement.rule_stats().rule(rule), enforcement.rule_stats().refused.len()), (Sum::default(), 0));
    }
}
