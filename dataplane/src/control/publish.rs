//! The switch: apps, their ports and the workers that serve them, kept consistent by the control thread.

mod rings;
mod sharing;
mod terms;
mod tracked;

pub use rings::{Asked, Limits, Made, SetupError};
pub use tracked::Tracked;

use crate::capture::request::Request;
use crate::capture::roster::Roster;
use crate::capture::{Captures, Place};
use crate::control::budgets::Budgets;
use crate::control::classes::Classes;
use crate::control::helper::{Helper, Wake};
use crate::control::identity::Identity;
use crate::control::memory::{Machine, Memory};
use crate::control::peers::Peers;
use crate::control::policy::{ByAccount, Changed, Counted, Enforcement, Machine as Accounts, RuleStats};
use crate::control::ports::{self, App, Refusal, Registry, Reserved, Terms};
use crate::control::ratelimit::Throttle;
use crate::control::regions::{Grant, Regions};
use crate::control::reload::Reload;
use crate::control::users::{Numbers, Users};
use crate::control::workers::Dataplane;
use crate::fib::Fib;
use crate::host::host_sockets;
use crate::ids::PortId;
use crate::policy_counters::{CounterKey, PolicyCounters};
use crate::policy_table::{self, PolicyTable};
use crate::snapshot::Snapshot;
use crate::stages::policy::Event;
use crate::stages::shape::Shaper;
use crate::worker::command::Reply;
use crate::worker::flow_dump::{Given, Lists, Position};
use kopi_config::policy::{Decision, Direction};
use kopi_policy::{Cause, Connections, HostSockets, PortPolicy, Ruleset};
use kopi_ring::layout::{DEFAULT_SLOT, MAX_QUEUES};
use kopi_ring::message::{Hello, Link, Mac, Settings, Welcome};
use kopi_ring::{DropReason, PeerFault, Region};
use rustix::fd::BorrowedFd;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};
use terms::{is_same, subject_of, terms, terms_of_host};
use tracked::user_of;

/// Lines in the log in ten seconds about the apps of a user: their memory, and what the policy wants there.
const LOG_LINES: u32 = 20;
/// Time between two snapshots. Under each snapshot, every flow is evaluated anew at its next frame.
const SNAPSHOT_PERIOD: Duration = Duration::from_millis(5);
/// Seconds of which a user may save its changes, to make them at once.
const CHANGES_SAVED: u32 = 4;
/// Changes of names and cgroups of a user's processes that are followed at once, and then one in so much time.
const FOLLOWS: u32 = 4;
const FOLLOW: Duration = Duration::from_secs(2);

/// How long a name service may take before the log says so.
const HANGS: Duration = Duration::from_secs(10);

/// What is known about the wire.
#[derive(Clone, Debug)]
pub struct WireState {
    /// The device as configured.
    pub device: String,
    /// Name of its driver.
    pub driver: String,
    /// Its own MAC address.
    pub mac: Mac,
    /// Its MTU in bytes.
    pub mtu: u16,
    /// Its link.
    pub link: Link,
}

/// The switch. Its workers end with it.
#[derive(Debug)]
pub struct Switch {
    registry: Registry,
    dataplane: Dataplane,
    wire: WireState,
    limits: Limits,
    epoch: u32,
    /// Snapshots of the ports that the workers were given since their first one.
    snapshots: u64,
    /// The workers' snapshot of the ports is out of date.
    stale: bool,
    /// Users whose apps have made it so.
    changed_by: BTreeSet<u32>,
    /// When the workers were given their last one.
    published: Instant,
    /// Snapshots that users may cause.
    changes: Budgets,
    /// Changes of their processes that users may have followed.
    follows: Budgets,
    /// Regions that no app uses any more, but perhaps a worker still does.
    retired: Vec<(Region, Grant)>,
    /// The thread that makes and empties regions.
    regions: Regions,
    /// What they take.
    memory: Memory,
    /// What there is.
    machine: Machine,
    /// Who is one user.
    users: Arc<Users>,
    /// Who asks the name service, and whether it was said that nothing is heard from there.
    accounts: Helper<ByAccount, Changed>,
    hangs: bool,
    /// Who reads the kernel's lists.
    kernel_lists: Helper<String, HostSockets>,
    /// Which of those that have apps.
    numbers: Numbers,
    throttle: Throttle,
    policy: Enforcement,
    connections: Arc<Connections>,
    /// What is the kernel's of the address that apps share with it.
    kernel: Arc<HostSockets>,
    /// The interface of the kernel's port, if it has one.
    tap: String,
    /// What the policy wants in the log.
    notes: Throttle,
    lists: Lists,
    classes: Classes,
    /// The policy whose classes those are.
    shaped: Option<Arc<Ruleset>>,
    /// The threads that talk to apps.
    peers: Peers,
    /// After the workers, so that sessions have everything that those have shown.
    captures: Captures,
}

/// Threads that work for the control thread.
#[derive(Debug)]
pub struct Helpers {
    /// The capture sessions.
    pub captures: Captures,
    /// Who makes and empties regions.
    pub regions: Regions,
    /// Who talks to apps.
    pub peers: Peers,
    /// Who asks the name service.
    pub accounts: Helper<ByAccount, Changed>,
    /// Who reads what the kernel has.
    pub kernel_lists: Helper<String, HostSockets>,
}

impl Helpers {
    /// Starts all of them. `wake` is used when one has an answer that [`Switch::refresh`] and [`Switch::look_at_kernel`] take.
    ///
    /// # Errors
    ///
    /// The system's, if there is no file descriptor or thread to be had.
    pub fn start(captures: Captures, wake: &Wake) -> std::io::Result<Self> {
        Ok(Self {
            captures,
            regions: Regions::start()?,
            peers: Peers::new()?,
            accounts: Helper::start("kopi-accounts", wake.clone(), |known: ByAccount| known.changed(&Accounts))?,
            kernel_lists: Helper::start("kopi-kernel", wake.clone(), |tap: String| host_sockets::look(&tap))?,
        })
    }
}

/// Why an app may not stay after a change of the policy.
pub type Notice = (PortId, String);

impl Switch {
    /// A switch over running workers, without apps. `connections` is what the workers track.
    #[must_use]
    pub fn new(
        dataplane: Dataplane,
        wire: WireState,
        limits: Limits,
        policy: Enforcement,
        connections: Arc<Connections>,
        Helpers { captures, regions, peers, accounts, kernel_lists }: Helpers,
    ) -> Self {
        let hz = captures.hz();
        connections.set_limits(limits.connections);
        let classes = Classes::new(hz, dataplane.workers(), dataplane.ports(), wire.mtu);
        Self {
            registry: Registry::new(limits.apps),
            dataplane,
            wire,
            limits,
            epoch: 1,
            snapshots: 0,
            stale: false,
            changed_by: BTreeSet::new(),
            published: Instant::now(),
            changes: Budgets::new(limits.changes_per_user * CHANGES_SAVED, limits.changes_per_user),
            follows: Budgets::every(FOLLOWS, FOLLOW),
            retired: Vec::new(),
            regions,
            memory: Memory::new(limits.memory_total, limits.memory_per_user),
            machine: Machine::new(),
            users: Arc::new(Users::new()),
            accounts,
            hangs: false,
            kernel_lists,
            numbers: Numbers::default(),
            throttle: Throttle::new(LOG_LINES),
            policy,
            connections,
            kernel: Arc::default(),
            tap: String::new(),
            notes: Throttle::new(LOG_LINES),
            lists: Lists::default(),
            classes,
            shaped: None,
            peers,
            captures,
        }
    }

    /// The threads that talk to apps.
    #[must_use]
    pub const fn peers(&self) -> &Peers {
        &self.peers
    }

    /// The same, to be given connections.
    pub const fn peers_mut(&mut self) -> &mut Peers {
        &mut self.peers
    }

    /// The policy in force.
    #[must_use]
    pub const fn policy(&self) -> &Enforcement {
        &self.policy
    }

    /// What the rules have counted.
    #[must_use]
    pub fn counted(&self) -> Counted {
        let open = self.dataplane.policy_counters().cloned().collect();
        Counted { past: Arc::clone(self.policy.rule_stats()), open }
    }

    /// The connections that are tracked.
    #[must_use]
    pub fn connections(&self) -> &Arc<Connections> {
        &self.connections
    }

    /// Some flows, for user `account`, as soon as a worker has listed them.
    pub fn flows(&mut self, account: u32, position: Position) -> Receiver<Given> {
        let piece = self.lists.ask(account, position);
        self.lists.proceed(&mut self.dataplane);
        piece
    }

    /// Puts another policy in force, all or nothing. Returns the apps that may not stay as what they are: they will
    /// attach again, on the new terms, or hear why not.
    ///
    /// # Errors
    ///
    /// A text for people, and the policy in force stays.
    pub fn reload(&mut self, reload: &Reload, trial: Option<Duration>) -> Result<Vec<Notice>, String> {
        self.policy.replace(Arc::clone(&reload.ruleset), reload.turn, trial)?;
        Ok(self.apply_policy())
    }

    /// Confirms the policy in force; returns whether it was on trial.
    pub fn confirm(&mut self) -> bool {
        self.policy.confirm()
    }

    /// Called now and then; `now` is the TSC, of `hz` ticks a second. Looks what workers do, takes back a policy that was not
    /// confirmed, notices accounts that have changed, and lets connections go whose time is up. Returns as
    /// [`reload`](Self::reload).
    pub fn tick(&mut self, now: u64, hz: u64) -> Vec<Notice> {
        self.dataplane.look(now, hz);
        // Once round the table in ten seconds or so.
        self.connections.sweep(now, self.connections.buckets() / 100 + 1);
        self.classes.tick(&mut self.dataplane);
        while let Some(event) = self.dataplane.event() {
            self.log_event(&event);
        }
        self.log_limits();
        self.notes.tick();
        self.throttle.tick();
        if self.policy.expire() {
            log::warn!("the policy was not confirmed in time: the one before is in force again");
            return self.apply_policy();
        }
        Vec::new()
    }

    /// Called twice a second: has it looked whether names of users or groups stand for something else.
    pub fn look_at_accounts(&mut self) {
        let known = ByAccount { ruleset: self.policy.ruleset().cloned(), users: Arc::clone(&self.users) };
        if !self.accounts.ask(known) && !self.hangs && self.accounts.waits().is_some_and(|time| time >= HANGS) {
            self.hangs = true;
            log::warn!(
                "the name service does not answer: names of users and groups stand for what they stood for before"
            );
        }
    }

    /// Takes in what was found, and has the policy follow. To be called when the helpers' wake is used.
    pub fn refresh(&mut self) -> Vec<Notice> {
        let Some(Changed { ruleset, users }) = self.accounts.answer() else { return Vec::new() };
        if std::mem::take(&mut self.hangs) {
            log::info!("the name service answers again");
        }
        if let Some(users) = users {
            self.users = Arc::new(users);
        }
        if !ruleset.is_some_and(|(stale, fresh)| self.policy.refresh(&stale, fresh)) {
            return Vec::new();
        }
        log::info!("users or groups have changed: the policy follows");
        self.apply_policy()
    }

    /// Notes what has changed about an app's process. Each user has so many changes followed in a time: the others are for the
    /// next look.
    pub fn reidentify(&mut self, id: PortId, identity: Identity) -> Vec<Notice> {
        let Some(app) = self.registry.get_mut(id) else { return Vec::new() };
        if !self.follows.has(app.account) {
            return Vec::new();
        }
        self.follows.spend(app.account);
        app.identity = identity;
        // A process may call itself what it likes, as often as it likes: flows are evaluated anew only if it matters.
        let same = self.policy.ruleset().is_none_or(|ruleset| is_same(ruleset, app, &self.kernel));
        if !same {
            return self.apply_policy();
        }
        if !self.captures.is_empty() {
            let selections = self.captures.follow(&Arc::new(self.roster(self.epoch)));
            self.dataplane.select(&selections);
        }
        Vec::new()
    }

    /// Notes what the user `uid` is called.
    pub fn name(&mut self, uid: u32, name: Option<&str>) {
        let host = self.registry.host();
        for app in self.registry.apps_mut().filter(|app| Some(app.id) != host && app.identity.uid == uid) {
            app.identity.user = name.map(str::to_owned);
        }
    }

    fn apply_policy(&mut self) -> Vec<Notice> {
        let ruleset = self.policy.ruleset().cloned();
        if let Some(ruleset) = &ruleset {
            self.connections.set_tracking(&ruleset.policy().tracking);
        }
        self.stale = true;
        // Whoever may share its address from now on attaches after this.
        self.look_at_kernel();
        let mut notices = Vec::new();
        let (host, host_mac) = (self.registry.host(), self.host_mac());
        for app in self.registry.apps_mut() {
            if Some(app.id) == host {
                app.terms = terms_of_host(ruleset.as_deref());
                continue;
            }
            match terms(ruleset.as_deref(), &app.identity, &app.asked, host_mac) {
                Ok(terms) => {
                    let reserved: &dyn Reserved = ruleset.as_deref().map_or(&(), |ruleset| ruleset);
                    notices.extend(ports::conflict(app, &terms, reserved).map(|why| (app.id, why)));
                    app.terms = terms;
                }
                Err(refusal) => {
                    // What it was is of a policy that is no longer in force.
                    app.terms = Terms::default();
                    notices.push((app.id, refusal.to_string()));
                }
            }
        }
        notices
    }

    fn log_event(&mut self, event: &Event) {
        let Some(ruleset) = self.policy.ruleset() else { return };
        let CounterKey { port, direction, decision, cause, .. } = event.counter_key;
        let Some(app) = self.registry.get(port) else { return };
        let by = match cause {
            Cause::Rule(rule) => usize::try_from(rule).ok().and_then(|rule| ruleset.rules().get(rule)),
            _ => None,
        };
        let (way, what) = (way(direction), word(decision));
        let by = by.map_or("default", |rule| rule.name.as_str());
        let who = crate::control::attach::describe(&app.identity);
        self.notes.log_of(
            log::Level::Info,
            &app.identity,
            &format_args!("policy: {what} {way} {} of `{}`, {who}: {by}", event.key, app.name),
        );
    }

    /// The first snapshot of the ports, for workers that start.
    #[must_use]
    pub fn empty_snapshot(link: Link, mtu: u16) -> Arc<Snapshot> {
        Arc::new(Snapshot::new(1, Fib::new(link.up, mtu, &[])))
    }

    /// The wire.
    #[must_use]
    pub const fn wire(&self) -> &WireState {
        &self.wire
    }

    /// What an app may have.
    #[must_use]
    pub const fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The workers.
    #[must_use]
    pub const fn dataplane(&self) -> &Dataplane {
        &self.dataplane
    }

    /// The memory of rings.
    #[must_use]
    pub const fn memory(&self) -> &Memory {
        &self.memory
    }

    /// What becomes readable when [`take_regions`](Self::take_regions) has something to take.
    #[must_use]
    pub fn regions_event(&self) -> BorrowedFd<'_> {
        self.regions.event()
    }

    /// All apps, by port number.
    pub fn apps(&self) -> impl Iterator<Item = &App> {
        self.registry.apps()
    }

    /// One app.
    #[must_use]
    pub fn app(&self, id: PortId) -> Option<&App> {
        self.registry.get(id)
    }

    /// Gives a port to a process.
    ///
    /// # Errors
    ///
    /// [`Refusal`] if it cannot have one.
    pub fn admit(&mut self, hello: &Hello, identity: Identity) -> Result<Welcome, Refusal> {
        let ruleset = self.policy.ruleset().map(|ruleset| &**ruleset);
        let account = self.users.of(identity.uid);
        self.registry.check_account(account, self.limits.apps_per_user)?;
        let terms = terms(ruleset, &identity, &hello.name, self.host_mac())?;
        let queues = terms.queues.unwrap_or(u16::MAX);
        let dataplane = &self.dataplane;
        let reserved: &dyn Reserved = ruleset.map_or(&(), |ruleset| ruleset);
        let app = self
            .registry
            .admit(hello, (identity, account), terms, reserved, self.wire.mtu, |id| dataplane.totals(id))?;
        Ok(Welcome {
            port: app.id,
            name: app.name.clone(),
            mac: app.settings.macs.first().copied().unwrap_or_default(),
            max_mtu: self.wire.mtu,
            max_queues: self.limits.queues.min(u16::try_from(MAX_QUEUES).unwrap_or(u16::MAX)).min(queues),
            max_ring: self.limits.ring,
            slot_size: DEFAULT_SLOT,
            link: self.wire.link,
        })
    }

    /// Changes what a port receives and carries.
    ///
    /// # Errors
    ///
    /// [`Refusal`], and the earlier settings stay.
    pub fn change(&mut self, id: PortId, settings: Settings) -> Result<(), Refusal> {
        let reserved: &dyn Reserved = self.policy.ruleset().map_or(&(), |ruleset| &**ruleset);
        if self.registry.get(id).is_some_and(|app| app.settings == settings) {
            return Ok(());
        }
        self.registry.change(id, settings, reserved, self.wire.mtu)?;
        self.change_by(id);
        Ok(())
    }

    /// Notes that the snapshot is out of date because of what the app of port `id` has done.
    fn change_by(&mut self, id: PortId) {
        self.stale = true;
        self.changed_by.extend(self.registry.get(id).filter(|_| Some(id) != self.host()).map(|app| app.account));
    }

    /// Whether a user's apps may change something now, for which every flow is evaluated anew.
    #[must_use]
    pub fn may_change(&self, account: u32) -> bool {
        self.changes.has(account)
    }

    /// Which user `uid` is, as limits know it.
    #[must_use]
    pub fn account(&self, uid: u32) -> u32 {
        self.users.of(uid)
    }

    /// The same for any uid.
    #[must_use]
    pub fn users(&self) -> Arc<Users> {
        Arc::clone(&self.users)
    }

    /// Called ten times a second, `passed` after the last time: grants users what they may ask for.
    pub fn grant(&mut self, passed: Duration) {
        self.changes.grant(passed);
        self.follows.grant(passed);
    }

    /// Takes a port's rings away. The port stays.
    pub fn halt(&mut self, id: PortId) {
        let Some(app) = self.registry.get_mut(id) else { return };
        app.status = None;
        let grant = std::mem::take(&mut app.grant);
        if let Some(region) = app.region.take() {
            self.retire(region, grant);
            self.dataplane.detach(id);
            self.registry.await_return(id, self.dataplane.workers());
            self.change_by(id);
        }
    }

    /// Takes a port away altogether.
    pub fn remove(&mut self, id: PortId) -> Option<Box<App>> {
        self.halt(id);
        self.connections.forget_zone(id);
        let app = self.registry.remove(id)?;
        let (registry, host) = (&self.registry, self.registry.host());
        self.numbers.keep(|user| registry.apps().any(|app| user_of(app, host) == user));
        if let Some(pending) = &app.pending {
            self.memory.leave(pending.grant);
        }
        Some(app)
    }

    /// Notes the wire's link; returns whether it changed.
    pub fn set_link(&mut self, link: Link) -> bool {
        let changed = self.wire.link != link;
        self.stale |= self.wire.link.up != link.up;
        self.wire.link = link;
        changed
    }

    /// Gives the workers a new snapshot of the ports, if something has changed and the last one is some milliseconds old. Who
    /// has made the change pays for it.
    pub fn publish(&mut self) {
        if self.published.elapsed() >= SNAPSHOT_PERIOD {
            self.publish_now();
        }
    }

    /// How long it is until a snapshot that is due may be [published](Self::publish); `None` if none is due.
    #[must_use]
    pub fn until_published(&self) -> Option<Duration> {
        self.stale.then(|| SNAPSHOT_PERIOD.saturating_sub(self.published.elapsed()))
    }

    /// [Publishes](Self::publish) however old the last one is: for what apps cannot cause.
    pub fn publish_now(&mut self) {
        if !std::mem::take(&mut self.stale) {
            return;
        }
        self.published = Instant::now();
        std::mem::take(&mut self.changed_by).into_iter().for_each(|user| self.changes.spend(user));
        // 0 marks a flow that was never evaluated.
        self.epoch = self.epoch.wrapping_add(1).max(1);
        // Before the apps are looked at, since it says where their frames wait.
        let shapers = self.shapers();
        let members = self.registry.members();
        let snapshot = Snapshot::new(self.epoch, Fib::new(self.wire.link.up, self.wire.mtu, &members));
        let snapshot = snapshot.with_policies(self.filter()).with_shared_address(self.sharing());
        let selections = match self.captures.is_empty() {
            true => Vec::new(),
            false => self.captures.follow(&Arc::new(self.roster(self.epoch))),
        };
        self.dataplane.forward(&Arc::new(snapshot), &selections, shapers);
        self.snapshots += 1;
    }

    /// What each worker is to keep to with the next snapshot, if that is anything else than before.
    fn shapers(&mut self) -> Option<Vec<Option<Box<Shaper>>>> {
        let ruleset = self.policy.ruleset();
        let same = ruleset.map(Arc::as_ptr) == self.shaped.as_ref().map(Arc::as_ptr);
        if same {
            return None;
        }
        let had = !self.classes.is_empty();
        self.shaped = ruleset.cloned();
        let policy = self.shaped.as_ref().map(|ruleset| &**ruleset.policy());
        let shapers = self.classes.replace(policy, self.snapshots + 1, dpdk::tsc());
        (had || !self.classes.is_empty()).then_some(shapers)
    }

    /// The policy's classes.
    #[must_use]
    pub const fn classes(&self) -> &Classes {
        &self.classes
    }

    /// Who is behind each port, under the snapshot with the epoch `epoch`.
    fn roster(&self, epoch: u32) -> Roster {
        Roster::new(epoch, &self.wire, self.registry.apps(), self.policy.ruleset().cloned())
    }

    /// The capture sessions.
    #[must_use]
    pub const fn captures(&self) -> &Captures {
        &self.captures
    }

    /// Begins a capture that an operator of user `account` asks for.
    ///
    /// # Errors
    ///
    /// A text for people.
    pub fn capture(&mut self, account: u32, request: Arc<Request>) -> Result<Place, String> {
        // Those that have just ended or were refused leave their places.
        self.reap_captures();
        let roster = self.roster(self.epoch);
        self.captures.begin(account, request, &roster, &self.dataplane)
    }

    /// Gives captures what they wait for, and lets go of those that end; see [`Captures::reap`].
    pub fn reap_captures(&mut self) {
        let Self { captures, dataplane, wire, registry, policy, epoch, .. } = self;
        captures.reap(dataplane, || Roster::new(*epoch, wire, registry.apps(), policy.ruleset().cloned()));
    }

    /// What the rules know of an app.
    #[must_use]
    pub fn port_policy(&self, id: PortId) -> Option<PortPolicy> {
        let app = self.registry.get(id)?;
        let ruleset = self.policy.ruleset()?;
        Some(app.terms.port_policy.clone().unwrap_or_else(|| subject_of(ruleset, app, &self.kernel)))
    }

    /// The policy, with the apps as they are now.
    fn filter(&mut self) -> Option<PolicyTable> {
        let ruleset = self.policy.ruleset().cloned()?;
        let classes = &self.classes;
        let kernel = Arc::clone(&self.kernel);
        let members = self.registry.apps_mut().filter(|app| app.region.is_some()).map(|app| {
            let limit =
                app.terms.entry.and_then(|entry| ruleset.policy().apps.get(entry)).and_then(|entry| entry.flows);
            let port_policy = app.terms.port_policy.take().unwrap_or_else(|| subject_of(&ruleset, app, &kernel));
            app.terms.port_policy = Some(port_policy.clone());
            let backlog = classes.backlog(&ruleset, &port_policy);
            policy_table::PolicyPort {
                id: app.id,
                generation: app.generation,
                port_policy,
                flows: limit.unwrap_or(u32::MAX),
                backlog,
            }
        });
        let members = members.collect();
        Some(PolicyTable::new(ruleset, members))
    }

    /// Number of the snapshot that has everything that was changed so far.
    #[must_use]
    pub const fn next_snapshot(&self) -> u64 {
        self.snapshots + self.stale as u64
    }

    /// Snapshots that the workers were given since their first one.
    #[must_use]
    pub const fn snapshots(&self) -> u64 {
        self.snapshots
    }

    /// Whether all workers use snapshot `snapshot` or a later one.
    #[must_use]
    pub fn uses(&self, snapshot: u64) -> bool {
        self.dataplane.retired() >= snapshot
    }

    /// Takes in the workers' answers; returns the ports whose apps broke the contract.
    pub fn settle(&mut self) -> Vec<(PortId, PeerFault)> {
        let mut faults = Vec::new();
        while let Some(reply) = self.dataplane.reply() {
            match reply {
                Reply::Detached(id, _rings) => self.registry.returned(id),
                Reply::Fault(rings, fault) => {
                    // A fault of an app that is gone is of no interest any more.
                    if self.registry.get(rings.id).is_some_and(|app| app.generation == rings.generation) {
                        faults.push((rings.id, fault));
                    }
                }
                Reply::Retired(change) => {
                    enter(self.policy.rule_stats_mut(), &change.snapshot, &change.policy_counters)
                }
                Reply::Dumped(part) => self.lists.take(part, &self.registry),
                Reply::Replaced(_) | Reply::Selected(_) | Reply::Untapped(_) => {}
            }
        }
        self.lists.proceed(&mut self.dataplane);
        let registry = &self.registry;
        let is_there = |generation| registry.apps().any(|app| app.generation == generation);
        if self.policy.rule_stats().knows_others(is_there) {
            self.policy.rule_stats_mut().keep_apps(is_there);
        }
        // A client may hold on to the file of a region; its memory goes all the same.
        for (region, grant) in self.retired.extract_if(.., |(region, _)| region.is_idle()) {
            self.regions.empty(grant, region);
        }
        let punched = self.registry.apps().filter(|app| app.region.as_ref().is_some_and(Region::punched));
        faults.extend(punched.map(|app| (app.id, PeerFault::Page)));
        faults
    }

    /// Looks for regions that lack pages, whether anybody has touched the holes or not; returns the ports with such. Called ten
    /// times a second: what holes there are is known then even where the kernel does not tell of their touch.
    #[must_use]
    pub fn holes(&self) -> Vec<(PortId, PeerFault)> {
        let lacking = |app: &&App| app.region.as_ref().is_some_and(|region| !region.is_whole());
        self.registry.apps().filter(lacking).map(|app| (app.id, PeerFault::Page)).collect()
    }

    /// Whether answers of workers are outstanding that free a port number or memory, or are for operators.
    #[must_use]
    pub fn is_settling(&self) -> bool {
        self.stale || self.registry.is_settling() || !self.retired.is_empty() || self.lists.is_busy()
    }

    /// Shows every app its drop counters.
    pub fn show_drops(&self) {
        for app in self.registry.apps() {
            let Some(status) = &app.status else { continue };
            let totals = self.dataplane.totals(app.id).since(&app.base);
            for (reason, frames) in DropReason::ALL.iter().zip(totals.drops) {
                status.set_drops(*reason, frames);
            }
        }
    }
}

fn enter(rule_stats: &mut RuleStats, snapshot: &Snapshot, policy_counters: &PolicyCounters) {
    if let Some(filter) = snapshot.policies() {
        rule_stats.enter(policy_counters, filter);
    }
}

/// A direction, as operators read it.
#[must_use]
pub const fn way(direction: Direction) -> &'static str {
    match direction {
        Direction::Egress => "egress",
        Direction::Ingress => "ingress",
    }
}

/// A decision, as operators read it.
#[must_use]
pub const fn word(decision: Decision) -> &'static str {
    match decision {
        Decision::Accept => "accept",
        Decision::Drop => "drop",
        Decision::Reject => "reject",
    }
}
