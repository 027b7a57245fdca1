//! The control plane: apps, their ports and the workers that serve them, kept consistent by the control thread.
//!
//! - `policy`: what the policy in force says of each app, and what follows when either changes;
//! - `rings`: how rings come into being and go;
//! - `rss`: how frames are spread over queues;
//! - `sharing`: memory that apps share;
//! - `publish`: builds the workers' snapshots, hands them out, and retires them;
//! - `host_port`: the host's port, and apps that share its address;
//! - `connections`: tracked connections of apps and users.

mod connections;
mod host_port;
mod policy;
mod publish;
mod rings;
mod rss;
mod sharing;

pub use connections::Tracked;
pub use rings::{Asked, Made, SetupError};
pub use rss::{RssRefusal, TooManyFlowRules};

use crate::capture::port_names::PortNames;
use crate::capture::request::Request;
use crate::capture::{Captures, PendingCapture};
use crate::control::app::App;
use crate::control::budgets::Budgets;
use crate::control::classes::Classes;
use crate::control::detach::DetachReason;
use crate::control::flow_dumps::{FlowDumps, Given};
use crate::control::helper::{Helper, Wake};
use crate::control::hole_search::HoleSearch;
use crate::control::identity::Identity;
use crate::control::kept_regions::KeptRegions;
use crate::control::limits::Limits;
use crate::control::memory::{MachineMemory, Memory};
use crate::control::peers::Peers;
use crate::control::policy::{ByAccount, Changed, Enforcement, Machine as Accounts};
use crate::control::ports::{PortTable, Refusal};
use crate::control::ratelimit::RatelimitedLog;
use crate::control::regions::Regions;
use crate::control::users::{UserNumbers, Users};
use crate::control::windows::{WindowLimits, Windows};
use crate::control::wire_device::WireState;
use crate::control::workers::Dataplane;
use crate::host::host_sockets;
use crate::ids::PortId;
use crate::worker::flow_dump::Position;
use connections::user_of;
use kopi_policy::{Connections, HostSockets, Ruleset};
use kopi_ring::layout::{DEFAULT_SLOT, MAX_QUEUES};
use kopi_ring::message::{Hello, Link, Settings, Welcome};
use kopi_ring::{DropReason, PeerFault, Region};
use policy::attach_grant;
use rings::Retired;
use rss::UsualRss;
use rustix::fd::BorrowedFd;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

/// Lines in the log in ten seconds about the apps of a user: their memory, and what the policy wants there.
const LOG_LINES: u32 = 20;
/// Seconds of which a user may save its changes, to make them at once.
const CHANGES_SAVED: u32 = 4;
/// Changes of names and cgroups of a user's processes that are followed at once, and then one in so much time.
const FOLLOWS: u32 = 4;
const FOLLOW: Duration = Duration::from_secs(2);

/// All that the control thread keeps. Its workers end with it.
#[derive(Debug)]
pub struct ControlPlane {
    ports: PortTable,
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
    /// Users whose apps have changed flow rules, of which workers learn with the next snapshot, and in a tenth of a second at most.
    rules_changed_by: BTreeSet<u32>,
    /// When the workers were given their last one.
    published: Instant,
    /// Snapshots that users may cause.
    changes: Budgets,
    /// Changes of their processes that users may have followed.
    follows: Budgets,
    retired: Vec<Retired>,
    /// How frames are spread over queues of apps that choose nothing.
    usual_rss: UsualRss,
    /// Where apps share memory.
    windows: Windows,
    /// Sealed regions that we have let go of, and others have not.
    kept: KeptRegions,
    /// How holes in others are found.
    hole_search: HoleSearch,
    /// The thread that makes and empties regions.
    regions: Regions,
    /// What they take.
    memory: Memory,
    /// What there is.
    machine: MachineMemory,
    /// The uids that are one user.
    users: Arc<Users>,
    /// The thread that asks the name service, and whether the log says already that this does not answer.
    accounts: Helper<ByAccount, Changed>,
    name_service_hangs: bool,
    /// The thread that reads the kernel's lists of sockets.
    host_sockets_reader: Helper<String, HostSockets>,
    /// Which of those that have apps.
    numbers: UserNumbers,
    peer_log: RatelimitedLog,
    policy: Enforcement,
    connections: Arc<Connections>,
    /// What is the kernel's of the address that apps share with it.
    host_sockets: Arc<HostSockets>,
    /// The interface of the host port, if there is one.
    tap: String,
    /// What the policy wants in the log.
    policy_log: RatelimitedLog,
    flow_dumps: FlowDumps,
    classes: Classes,
    /// The policy whose classes those are.
    shaped: Option<Arc<Ruleset>>,
    /// The threads that serve apps' sockets.
    peers: Peers,
    /// After the workers, so that sessions have everything that those have shown.
    captures: Captures,
}

impl ControlPlane {
    /// A control plane over running workers, without apps, which starts the threads that work for it. `connections` is what the workers
    /// track. `wake` is used when a thread has an answer that [`refresh`](Self::refresh) or
    /// [`take_host_sockets`](Self::take_host_sockets) takes.
    ///
    /// # Errors
    ///
    /// The system's, if there is no file descriptor or thread to be had, or nothing to make a key for hashes from.
    pub fn new(
        dataplane: Dataplane,
        wire: WireState,
        limits: Limits,
        policy: Enforcement,
        connections: Arc<Connections>,
        captures: Captures,
        wake: &Wake,
    ) -> std::io::Result<Self> {
        let hz = captures.hz();
        connections.set_limits(limits.connections);
        let regions = Regions::start(dataplane.copies().routines)?;
        let classes = Classes::new(hz, dataplane.workers(), dataplane.ports(), wire.mtu);
        Ok(Self {
            ports: PortTable::new(limits.apps),
            dataplane,
            wire,
            limits,
            epoch: 1,
            snapshots: 0,
            stale: false,
            changed_by: BTreeSet::new(),
            rules_changed_by: BTreeSet::new(),
            published: Instant::now(),
            changes: Budgets::new(limits.changes_per_user * CHANGES_SAVED, limits.changes_per_user),
            follows: Budgets::every(FOLLOWS, FOLLOW),
            retired: Vec::new(),
            usual_rss: UsualRss::of_host()?,
            windows: Windows::new(WindowLimits::new(limits.memory_per_user)),
            kept: KeptRegions::new(),
            hole_search: HoleSearch::default(),
            regions,
            memory: Memory::new(limits.memory_total, limits.memory_per_user),
            machine: MachineMemory::new(),
            users: Arc::new(Users::new()),
            accounts: Helper::start("kopi-accounts", wake.clone(), |known: ByAccount| known.changed(&Accounts))?,
            name_service_hangs: false,
            host_sockets_reader: Helper::start("kopi-kernel", wake.clone(), |tap: String| host_sockets::read(&tap))?,
            numbers: UserNumbers::default(),
            peer_log: RatelimitedLog::new(LOG_LINES),
            policy,
            connections,
            host_sockets: Arc::default(),
            tap: String::new(),
            policy_log: RatelimitedLog::new(LOG_LINES),
            flow_dumps: FlowDumps::default(),
            classes,
            shaped: None,
            peers: Peers::new()?,
            captures,
        })
    }

    /// The threads that serve apps' sockets.
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

    /// The connections that are tracked.
    #[must_use]
    pub fn connections(&self) -> &Arc<Connections> {
        &self.connections
    }

    /// Some flows, for user `account`, as soon as a worker has dumped them.
    pub fn flows(&mut self, account: u32, position: Position) -> Receiver<Given> {
        let piece = self.flow_dumps.ask(account, position);
        self.flow_dumps.proceed(&mut self.dataplane);
        piece
    }

    /// Called now and then; `now` is the TSC, of `hz` ticks a second. Looks what workers do, takes back a policy that was not
    /// confirmed, notices accounts that have changed, and lets connections go whose time is up. Returns as
    /// [`reload`](Self::reload).
    pub fn tick(&mut self, now: u64, hz: u64) -> Vec<(PortId, DetachReason)> {
        self.dataplane.look(now, hz);
        // Once round the table in ten seconds or so.
        self.connections.sweep(now, self.connections.buckets() / 100 + 1);
        self.classes.tick(&mut self.dataplane);
        while let Some(event) = self.dataplane.event() {
            self.log_event(&event);
        }
        self.log_limits();
        self.policy_log.tick();
        self.peer_log.tick();
        if self.policy.expire() {
            log::warn!("the policy was not confirmed in time: the one before is in force again");
            return self.apply_policy();
        }
        Vec::new()
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

    /// The thread that makes and empties regions.
    #[must_use]
    pub const fn regions(&self) -> &Regions {
        &self.regions
    }

    /// What is readable when sealed regions are gone, for [`take_regions`](Self::take_regions).
    #[must_use]
    pub fn region_ends(&self) -> Option<BorrowedFd<'_>> {
        self.kept.event()
    }

    /// All apps, by port number.
    pub fn apps(&self) -> impl Iterator<Item = &App> {
        self.ports.apps()
    }

    /// One app.
    #[must_use]
    pub fn app(&self, id: PortId) -> Option<&App> {
        self.ports.get(id)
    }

    /// Gives a port to a process that speaks version `protocol`.
    ///
    /// # Errors
    ///
    /// [`Refusal`] if it cannot have one.
    pub fn admit(&mut self, hello: &Hello, identity: Identity, protocol: u16) -> Result<Welcome, Refusal> {
        let ruleset = self.policy.ruleset().map(|ruleset| &**ruleset);
        let account = self.users.of(identity.uid);
        self.ports.check_account(account, self.limits.apps_per_user)?;
        let grant = attach_grant(ruleset, &identity, &hello.name, self.host_mac())?;
        let queues = grant.queues.unwrap_or(u16::MAX);
        let dataplane = &self.dataplane;
        let app =
            self.ports.admit(hello, (identity, account), grant, ruleset, self.wire.mtu, |id| dataplane.totals(id))?;
        app.protocol = protocol;
        let shares = sharing::may_share(&self.limits, app);
        Ok(Welcome {
            port: app.id,
            name: app.name.clone(),
            mac: app.settings.macs.first().copied().unwrap_or_default(),
            max_mtu: self.wire.mtu,
            max_queues: self.limits.queues.min(u16::try_from(MAX_QUEUES).unwrap_or(u16::MAX)).min(queues),
            max_ring: self.limits.ring,
            slot_size: DEFAULT_SLOT,
            link: self.wire.link,
            shares,
            workers: self.dataplane.lanes(),
            rss_key: self.usual_rss.key(),
        })
    }

    /// Changes what a port receives and carries.
    ///
    /// # Errors
    ///
    /// [`Refusal`], and the earlier settings stay.
    pub fn change(&mut self, id: PortId, settings: Settings) -> Result<(), Refusal> {
        if self.ports.get(id).is_some_and(|app| app.settings == settings) {
            return Ok(());
        }
        self.ports.change(id, settings, self.policy.ruleset().map(|ruleset| &**ruleset), self.wire.mtu)?;
        self.change_by(id);
        Ok(())
    }

    /// Notes that the snapshot is out of date because of what the app of port `id` has done.
    fn change_by(&mut self, id: PortId) {
        self.stale = true;
        self.changed_by.extend(self.ports.get(id).filter(|_| Some(id) != self.host()).map(|app| app.account));
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
        self.publish_rules();
        self.follows.grant(passed);
    }

    /// Takes a port's rings away. The port stays.
    pub fn halt(&mut self, id: PortId) {
        let Some(app) = self.ports.get_mut(id) else { return };
        app.status = None;
        let (account, charge, watch) = (app.account, std::mem::take(&mut app.charge), app.watch.take());
        app.sealed = false;
        let served = app.waiting.take().is_none();
        if let Some(region) = app.region.take() {
            self.retire(region, charge, watch);
            if served {
                self.dataplane.detach(id);
                self.ports.await_return(id, self.dataplane.workers());
                self.change_by(id);
            } else {
                // Workers need not be told, but making rings costs kopid as much.
                self.changes.spend(account);
            }
        }
    }

    /// Takes a port away altogether.
    pub fn remove(&mut self, id: PortId) -> Option<Box<App>> {
        self.halt(id);
        self.connections.forget_zone(id);
        let mut app = self.ports.remove(id)?;
        self.retire_window(&mut app);
        let (ports, host) = (&self.ports, self.ports.host());
        self.numbers.keep(|user| ports.apps().any(|app| user_of(app, host) == user));
        if let Some(pending) = &app.pending {
            self.memory.leave(pending.charge);
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

    /// The policy's classes.
    #[must_use]
    pub const fn classes(&self) -> &Classes {
        &self.classes
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
    pub fn capture(&mut self, account: u32, request: Arc<Request>) -> Result<PendingCapture, String> {
        // Those that have just ended or were refused leave their places.
        self.handle_captures();
        let names = self.port_names(self.epoch);
        self.captures.begin(account, request, &names, &self.dataplane)
    }

    /// Gives captures what they wait for, and lets go of those that end; see [`Captures::handle_events`].
    pub fn handle_captures(&mut self) {
        let Self { captures, dataplane, wire, ports, policy, epoch, .. } = self;
        captures.handle_events(dataplane, || PortNames::new(*epoch, wire, ports.apps(), policy.ruleset().cloned()));
    }

    /// Looks for unsealed regions that lack pages, whether anybody has touched the holes or not; returns the ports with such. Called
    /// ten times a second: what holes there are is known then even where the kernel does not tell of their touch.
    #[must_use]
    pub fn holes(&mut self) -> Vec<(PortId, PeerFault)> {
        let Self { ports, hole_search, dataplane, .. } = self;
        let unsealed: Vec<_> = ports.apps().filter(|app| !app.sealed && app.region.is_some()).collect();
        if unsealed.is_empty() {
            return Vec::new();
        }
        let lacking = |app: &&&App| app.region.as_ref().is_some_and(|region| !region.is_whole());
        let look = || unsealed.iter().filter(lacking).map(|app| (app.id, PeerFault::Page)).collect();
        if Region::tells_of_touches() { look() } else { hole_search.search(dataplane.page_faults(), look) }
    }

    /// Shows every app its drop counters.
    pub fn show_drops(&self) {
        for app in self.ports.apps() {
            let Some(status) = &app.status else { continue };
            let totals = self.dataplane.totals(app.id).since(&app.base);
            for (reason, frames) in DropReason::ALL.iter().zip(totals.drops) {
                status.set_drops(*reason, frames);
            }
        }
    }
}
