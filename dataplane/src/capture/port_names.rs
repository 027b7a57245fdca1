//! Who was behind each port under one snapshot: what a frame's port number and rule number stand for.

use crate::control::app::App;
use crate::control::identity::Identity;
use crate::control::ports::WIRE_NAME;
use crate::control::wire_device::WireState;
use crate::ids::{Generation, PortId, WIRE};
use kopi_policy::{Owner, Ruleset};
use kopi_ring::message::Mac;
use std::sync::Arc;

/// One port.
#[derive(Clone, Debug)]
pub struct Member {
    /// Its number.
    pub id: PortId,
    /// Which use of the number; 0 for the wire.
    pub generation: Generation,
    /// Its name.
    pub name: String,
    /// Who is behind it; nobody in particular for the wire.
    pub identity: Option<Identity>,
    /// What to say of it: the process, or the device.
    pub description: String,
    /// Its own address.
    pub mac: Option<Mac>,
}

impl Member {
    /// An app's port.
    #[must_use]
    pub fn of_app(app: &App) -> Self {
        Self {
            id: app.id,
            generation: app.generation,
            name: app.name.clone(),
            identity: Some(app.identity.clone()),
            description: describe(&app.identity),
            mac: app.settings.macs.first().copied(),
        }
    }

    /// The wire.
    #[must_use]
    pub fn of_wire(wire: &WireState) -> Self {
        Self {
            id: WIRE,
            generation: 0,
            name: WIRE_NAME.to_owned(),
            identity: None,
            description: format!("{} ({})", wire.device, wire.driver),
            mac: Some(wire.mac),
        }
    }

    /// The process, as selectors see it.
    #[must_use]
    pub fn owner(&self) -> Owner<'_> {
        let of = self.identity.as_ref().map_or_else(|| Owner::unknown(""), Identity::owner);
        Owner { name: &self.name, ..of }
    }
}

/// `user bob (1001), pid 4711, /usr/bin/dpdk-testpmd`
fn describe(identity: &Identity) -> String {
    let Identity { pid, user, comm, exe, .. } = identity;
    let program = exe.as_ref().unwrap_or(comm);
    match (user, identity.known_uid()) {
        // The kernel is no process.
        (_, None) if *pid == 0 => program.clone(),
        (_, None) => format!("user unknown, pid {pid}, {program}"),
        (None, Some(uid)) => format!("uid {uid}, pid {pid}, {program}"),
        (Some(user), Some(uid)) => format!("user {user} ({uid}), pid {pid}, {program}"),
    }
}

/// All ports and rules under one snapshot. Immutable.
#[derive(Debug)]
pub struct PortNames {
    /// The snapshot's epoch.
    pub epoch: u32,
    /// The ports, by number.
    members: Vec<Option<Member>>,
    /// The policy, if there is one.
    pub ruleset: Option<Arc<Ruleset>>,
}

impl PortNames {
    /// Those under the snapshot with the epoch `epoch`.
    pub fn new<'a>(
        epoch: u32,
        wire: &WireState,
        apps: impl Iterator<Item = &'a App>,
        ruleset: Option<Arc<Ruleset>>,
    ) -> Self {
        let mut members = vec![Some(Member::of_wire(wire))];
        for app in apps {
            let at = usize::from(app.id);
            if members.len() <= at {
                members.resize(at + 1, None);
            }
            members[at] = Some(Member::of_app(app));
        }
        Self { epoch, members, ruleset }
    }

    /// The port with the number `id`.
    #[must_use]
    pub fn member(&self, id: PortId) -> Option<&Member> {
        self.members.get(usize::from(id)).and_then(Option::as_ref)
    }

    /// All ports.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().flatten()
    }

    /// One more than the highest number.
    #[must_use]
    pub const fn ports(&self) -> usize {
        self.members.len()
    }

    /// The name of the rule with the number `rule`.
    #[must_use]
    pub fn rule(&self, rule: u32) -> Option<&str> {
        let rules = self.ruleset.as_ref()?.rules();
        rules.get(usize::try_from(rule).ok()?).map(|rule| rule.name.as_str())
    }
}
