//! The workers' snapshots: built aside, handed out, and retired when all workers use a later one.

use super::ControlPlane;
use super::policy::port_policy_of;
use crate::capture::port_names::PortNames;
use crate::control::app::App;
use crate::fib::Fib;
use crate::ids::PortId;
use crate::policy_table::{PolicyPort, PolicyTable};
use crate::snapshot::Snapshot;
use crate::worker::command::Reply;
use crate::worker::sched_tree::Shaper;
use kopi_ring::message::Link;
use kopi_ring::{PeerFault, Region};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Time between two snapshots. Under each snapshot, every flow is evaluated anew at its next frame.
const SNAPSHOT_PERIOD: Duration = Duration::from_millis(5);

impl ControlPlane {
    /// The first snapshot of the ports, for workers that start.
    #[must_use]
    pub fn empty_snapshot(link: Link, mtu: u16) -> Arc<Snapshot> {
        Arc::new(Snapshot::new(1, Fib::new(link.up, mtu, &[])))
    }

    /// Gives the workers a new snapshot of the ports, if something has changed and the last one is some milliseconds old. Who
    /// has made the change pays for it.
    pub fn publish(&mut self) {
        if self.published.elapsed() >= SNAPSHOT_PERIOD {
            self.publish_now();
        }
    }

    /// The time until a snapshot that is due may be [published](Self::publish); `None` if none is due.
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
        self.rules_changed_by.clear();
        // 0 marks a flow that was never evaluated.
        self.epoch = self.epoch.wrapping_add(1).max(1);
        // Before the apps are looked at, since it says where their frames wait.
        let shapers = self.shapers();
        let members = self.ports.members();
        let snapshot = Snapshot::new(self.epoch, Fib::new(self.wire.link.up, self.wire.mtu, &members));
        let snapshot = snapshot.with_rss(self.rss_table());
        let snapshot = snapshot.with_policies(self.policy_table()).with_shared_address(self.shared_address());
        let selections = match self.captures.is_empty() {
            true => Vec::new(),
            false => self.captures.follow(&Arc::new(self.port_names(self.epoch))),
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

    /// The policy, with the apps as they are now.
    fn policy_table(&mut self) -> Option<PolicyTable> {
        let ruleset = self.policy.ruleset().cloned()?;
        let classes = &self.classes;
        let host_sockets = Arc::clone(&self.host_sockets);
        let members = self.ports.apps_mut().filter(|app| app.is_served()).map(|app| {
            let limit =
                app.grant.entry.and_then(|entry| ruleset.policy().apps.get(entry)).and_then(|entry| entry.flows);
            let port_policy =
                app.grant.port_policy.take().unwrap_or_else(|| port_policy_of(&ruleset, app, &host_sockets));
            app.grant.port_policy = Some(port_policy.clone());
            let backlog = classes.backlog(&ruleset, &port_policy);
            PolicyPort {
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

    /// The processes behind all ports, under the snapshot with the epoch `epoch`.
    pub(super) fn port_names(&self, epoch: u32) -> PortNames {
        PortNames::new(epoch, &self.wire, self.ports.apps(), self.policy.ruleset().cloned())
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
    pub fn handle_replies(&mut self) -> Vec<(PortId, PeerFault)> {
        let mut faults = Vec::new();
        while let Some(reply) = self.dataplane.reply() {
            match reply {
                Reply::Detached(id, _rings) => self.ports.returned(id),
                Reply::Fault(rings, fault) => {
                    // A fault of an app that is gone is of no interest any more.
                    if self.ports.get(rings.id).is_some_and(|app| app.generation == rings.generation) {
                        faults.push((rings.id, fault));
                    }
                }
                Reply::Retired(change) => {
                    if let Some(table) = change.snapshot.policies() {
                        self.policy.rule_stats_mut().enter(&change.policy_counters, table);
                    }
                }
                Reply::Dumped(part) => self.flow_dumps.take(part, &self.ports),
                Reply::Selected(_) | Reply::Unmirrored(_) => {}
            }
        }
        self.flow_dumps.proceed(&mut self.dataplane);
        let ports = &self.ports;
        let is_there = |generation| ports.apps().any(|app| app.generation == generation);
        if self.policy.rule_stats().knows_others(is_there) {
            self.policy.rule_stats_mut().keep_apps(is_there);
        }
        self.let_go();
        self.close_windows();
        let window = |app: &App| app.window.as_ref().is_some_and(|window| window.punched());
        let region = |app: &App| app.region.as_ref().is_some_and(Region::punched);
        let punched = self.ports.apps().filter(|app| region(app) || window(app));
        faults.extend(punched.map(|app| (app.id, PeerFault::Page)));
        faults
    }

    /// Whether answers of workers are outstanding that free a port number or memory, or are for operators.
    #[must_use]
    pub fn awaits_replies(&self) -> bool {
        self.stale
            || self.ports.awaits_replies()
            || !self.retired.is_empty()
            || self.windows.awaits_workers()
            || self.flow_dumps.is_busy()
    }
}
