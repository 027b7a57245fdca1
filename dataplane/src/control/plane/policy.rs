//! The policy in force, as apps have it: on what terms each may attach, which rules are for it, and what follows when the policy, its
//! users or a process change.

use super::ControlPlane;
use crate::control::app::{App, AttachGrant};
use crate::control::detach::DetachReason;
use crate::control::identity::Identity;
use crate::control::policy::{ByAccount, Changed, Counted, owner_of};
use crate::control::ports::{self, HOST_NAME};
use crate::control::reload::Reload;
use crate::fib::is_group;
use crate::ids::PortId;
use crate::policy_counters::CounterKey;
use crate::stages::policy::Event;
use kopi_config::policy::Address;
use kopi_packet::{LinkProtocols, MacAddr};
use kopi_policy::{Cause, HostSockets, PortPolicy, Refusal, Ruleset};
use kopi_ring::message::Mac;
use std::sync::Arc;
use std::time::Duration;

/// Timeout for the name service, after which the log says so.
const NAME_SERVICE_TIMEOUT: Duration = Duration::from_secs(10);

impl ControlPlane {
    /// Puts another policy in force, all or nothing. Returns the apps that may not stay as what they are: they will
    /// attach again, on the new terms, or are told why not.
    ///
    /// # Errors
    ///
    /// A text for people, and the policy in force stays.
    pub fn reload(
        &mut self,
        reload: &Reload,
        confirm_within: Option<Duration>,
    ) -> Result<Vec<(PortId, DetachReason)>, String> {
        self.policy.replace(Arc::clone(&reload.ruleset), reload.turn, confirm_within)?;
        Ok(self.apply_policy())
    }

    /// Confirms the policy in force; returns whether it was waiting for that.
    pub fn confirm(&mut self) -> bool {
        self.policy.confirm()
    }

    /// What the rules have counted.
    #[must_use]
    pub fn counted(&self) -> Counted {
        let open = self.dataplane.policy_counters().cloned().collect();
        Counted { past: Arc::clone(self.policy.rule_stats()), open }
    }

    /// Called twice a second: has it looked whether names of users or groups stand for something else.
    pub fn check_accounts(&mut self) {
        let known = ByAccount { ruleset: self.policy.ruleset().cloned(), users: Arc::clone(&self.users) };
        if !self.accounts.ask(known)
            && !self.name_service_hangs
            && self.accounts.waits().is_some_and(|time| time >= NAME_SERVICE_TIMEOUT)
        {
            self.name_service_hangs = true;
            log::warn!(
                "the name service does not answer: names of users and groups stand for what they stood for before"
            );
        }
    }

    /// Takes in what was found, and has the policy follow. To be called when the helpers' wake is used.
    pub fn refresh(&mut self) -> Vec<(PortId, DetachReason)> {
        let Some(Changed { ruleset, users }) = self.accounts.answer() else { return Vec::new() };
        if std::mem::take(&mut self.name_service_hangs) {
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
    pub fn reidentify(&mut self, id: PortId, identity: Identity) -> Vec<(PortId, DetachReason)> {
        let Some(app) = self.ports.get_mut(id) else { return Vec::new() };
        if !self.follows.has(app.account) {
            return Vec::new();
        }
        self.follows.spend(app.account);
        app.identity = identity;
        // A process may call itself what it likes, as often as it likes: flows are evaluated anew only if it matters.
        let same = self.policy.ruleset().is_none_or(|ruleset| is_same(ruleset, app, &self.host_sockets));
        if !same {
            return self.apply_policy();
        }
        if !self.captures.is_empty() {
            let selections = self.captures.follow(&Arc::new(self.port_names(self.epoch)));
            self.dataplane.select(&selections);
        }
        Vec::new()
    }

    /// Notes what the user `uid` is called.
    pub fn name(&mut self, uid: u32, name: Option<&str>) {
        let host = self.ports.host();
        for app in self.ports.apps_mut().filter(|app| Some(app.id) != host && app.identity.uid == uid) {
            app.identity.user = name.map(str::to_owned);
        }
    }

    pub(super) fn apply_policy(&mut self) -> Vec<(PortId, DetachReason)> {
        let ruleset = self.policy.ruleset().cloned();
        if let Some(ruleset) = &ruleset {
            self.connections.set_tracking(&ruleset.policy().tracking);
        }
        self.stale = true;
        // An app that may share the host's address from now on attaches after this.
        self.read_host_sockets();
        let mut detached = Vec::new();
        let (host, host_mac) = (self.ports.host(), self.host_mac());
        for app in self.ports.apps_mut() {
            if Some(app.id) == host {
                app.grant = host_grant(ruleset.as_deref());
                continue;
            }
            match attach_grant(ruleset.as_deref(), &app.identity, &app.asked, host_mac) {
                Ok(grant) => {
                    detached.extend(
                        ports::conflict(app, &grant, ruleset.as_deref()).map(|why| (app.id, DetachReason::Policy(why))),
                    );
                    // What it has sent lies there; attached anew, it sends copies.
                    if app.window.is_some() && grant.keeps_memory {
                        detached.push((app.id, DetachReason::Policy("it may not share memory any more".into())));
                    }
                    app.grant = grant;
                }
                Err(refusal) => {
                    // What it was is of a policy that is no longer in force.
                    app.grant = AttachGrant::default();
                    detached.push((app.id, DetachReason::Policy(refusal.to_string())));
                }
            }
        }
        detached
    }

    /// What the rules know of an app.
    #[must_use]
    pub fn port_policy(&self, id: PortId) -> Option<PortPolicy> {
        let app = self.ports.get(id)?;
        let ruleset = self.policy.ruleset()?;
        Some(app.grant.port_policy.clone().unwrap_or_else(|| port_policy_of(ruleset, app, &self.host_sockets)))
    }

    pub(super) fn log_event(&mut self, event: &Event) {
        let Some(ruleset) = self.policy.ruleset() else { return };
        let CounterKey { port, direction, decision, cause, .. } = event.counter_key;
        let Some(app) = self.ports.get(port) else { return };
        let by = match cause {
            Cause::Rule(rule) => usize::try_from(rule).ok().and_then(|rule| ruleset.rules().get(rule)),
            _ => None,
        };
        let (way, what) = (direction.as_str(), decision.as_str());
        let by = by.map_or("default", |rule| rule.name.as_str());
        self.policy_log.log_of(
            log::Level::Info,
            &app.identity,
            &format_args!("policy: {what} {way} {} of `{}`, {}: {by}", event.key, app.name, app.identity),
        );
    }
}

/// What the policy grants to `identity`, having asked for the name `asked`. `host` is the address of the host's port.
pub(super) fn attach_grant(
    ruleset: Option<&Ruleset>,
    identity: &Identity,
    asked: &str,
    host: Option<Mac>,
) -> Result<AttachGrant, Refusal> {
    let Some(ruleset) = ruleset else { return Ok(AttachGrant::default()) };
    let index = ruleset.admit(&identity.owner(), asked)?;
    let entry = index.and_then(|index| ruleset.policy().apps.get(index));
    let shared = entry.is_some_and(|entry| entry.address == Address::Shared);
    let own = entry.and_then(|entry| entry.mac).map(MacAddr::bytes);
    Ok(AttachGrant {
        entry: index,
        name: entry.map(|entry| entry.name.clone()),
        mac: if shared { host } else { own },
        shared,
        queues: entry.and_then(|entry| entry.queues),
        keeps_memory: entry.is_some_and(|entry| !entry.share_memory),
        link: entry.map_or(LinkProtocols::NONE, |entry| entry.allow.link),
        port_policy: None,
    })
}

/// The grant of the host's port: what the entry with its name says, whoever that is for. It is always admitted. The wire's
/// link is the kernel's: it runs what speaks to the switch, as it would with a NIC of its own.
pub(super) fn host_grant(ruleset: Option<&Ruleset>) -> AttachGrant {
    let entry = ruleset.and_then(|ruleset| ruleset.policy().apps.iter().position(|app| app.name == HOST_NAME));
    AttachGrant { entry, name: Some(HOST_NAME.to_owned()), link: LinkProtocols::ALL, ..AttachGrant::default() }
}

pub(super) fn port_policy_of(ruleset: &Ruleset, app: &App, host_sockets: &Arc<HostSockets>) -> PortPolicy {
    let own = app.settings.macs.iter().filter(|mac| !is_group(mac));
    let macs: Vec<MacAddr> = own.map(|mac| MacAddr::new(*mac)).collect();
    ruleset.port_policy(&owner_of(app), app.grant.entry, &macs).with_host_sockets(host_sockets)
}

/// Whether the policy still says of an app what it said before.
fn is_same(ruleset: &Ruleset, app: &App, host_sockets: &Arc<HostSockets>) -> bool {
    let grant = attach_grant(Some(ruleset), &app.identity, &app.asked, None);
    let same = |before: &PortPolicy| before.is_same(&port_policy_of(ruleset, app, host_sockets));
    grant.is_ok_and(|grant| grant.entry == app.grant.entry) && app.grant.port_policy.as_ref().is_none_or(same)
}
