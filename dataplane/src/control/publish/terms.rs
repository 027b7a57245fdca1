//! What the policy says of an app: on which terms it may attach, and which of the rules are for it.

use crate::control::identity::Identity;
use crate::control::policy::owner_of;
use crate::control::ports::{App, HOST_NAME, Terms};
use crate::fib::is_group;
use kopi_config::policy::Address;
use kopi_packet::{LinkProtocols, MacAddr};
use kopi_policy::{HostSockets, PortPolicy, Refusal, Ruleset};
use kopi_ring::message::Mac;
use std::sync::Arc;

/// The terms on which `identity` may attach, having asked for the name `asked`. `host` is the address of the host's port.
pub(super) fn terms(
    ruleset: Option<&Ruleset>,
    identity: &Identity,
    asked: &str,
    host: Option<Mac>,
) -> Result<Terms, Refusal> {
    let Some(ruleset) = ruleset else { return Ok(Terms::default()) };
    let index = ruleset.admit(&identity.owner(), asked)?;
    let entry = index.and_then(|index| ruleset.policy().apps.get(index));
    let shared = entry.is_some_and(|entry| entry.address == Address::Shared);
    let own = entry.and_then(|entry| entry.mac).map(MacAddr::bytes);
    Ok(Terms {
        entry: index,
        name: entry.map(|entry| entry.name.clone()),
        mac: if shared { host } else { own },
        shared,
        queues: entry.and_then(|entry| entry.queues),
        link: entry.map_or(LinkProtocols::NONE, |entry| entry.allow.link),
        port_policy: None,
    })
}

/// The terms of the host's port: those of the entry with its name, whoever that is for. It is always admitted. The wire's
/// link is the kernel's: it runs what speaks to the switch, as it would with a card of its own.
pub(super) fn terms_of_host(ruleset: Option<&Ruleset>) -> Terms {
    let entry = ruleset.and_then(|ruleset| ruleset.policy().apps.iter().position(|app| app.name == HOST_NAME));
    Terms { entry, name: Some(HOST_NAME.to_owned()), link: LinkProtocols::ALL, ..Terms::default() }
}

pub(super) fn subject_of(ruleset: &Ruleset, app: &App, kernel: &Arc<HostSockets>) -> PortPolicy {
    let own = app.settings.macs.iter().filter(|mac| !is_group(mac));
    let macs: Vec<MacAddr> = own.map(|mac| MacAddr::new(*mac)).collect();
    ruleset.port_policy(&owner_of(app), app.terms.entry, &macs).with_host_sockets(kernel)
}

/// Whether the policy still says of an app what it said before.
pub(super) fn is_same(ruleset: &Ruleset, app: &App, kernel: &Arc<HostSockets>) -> bool {
    let terms = terms(Some(ruleset), &app.identity, &app.asked, None);
    let same = |before: &PortPolicy| before.is_same(&subject_of(ruleset, app, kernel));
    terms.is_ok_and(|terms| terms.entry == app.terms.entry) && app.terms.port_policy.as_ref().is_none_or(same)
}
