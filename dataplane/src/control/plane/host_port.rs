//! The host's port, and the apps that have its address together with it.

use super::ControlPlane;
use super::policy::host_grant;
use crate::control::app::App;
use crate::control::ports::Refusal;
use crate::ids::PortId;
use crate::shared_address::{SharedAddress, Sharer};
use kopi_config::policy::Address;
use kopi_ring::message::Mac;
use std::sync::Arc;

impl ControlPlane {
    /// Gives the host its port, whose interface is called `tap`; returns its number and its address.
    ///
    /// # Errors
    ///
    /// [`Refusal`] if it cannot have one.
    pub fn admit_host(&mut self, tap: &str, macs: &[Mac]) -> Result<(PortId, Mac), Refusal> {
        tap.clone_into(&mut self.tap);
        let grant = host_grant(self.policy.ruleset().map(|ruleset| &**ruleset));
        let host = self.ports.admit_host(self.wire.mac, macs, self.wire.mtu, grant)?;
        Ok((host.id, host.settings.macs.first().copied().unwrap_or_default()))
    }

    /// The host's port.
    #[must_use]
    pub const fn host(&self) -> Option<PortId> {
        self.ports.host()
    }

    /// The running apps that have their address together with the host, for workers.
    pub(super) fn shared_address(&self) -> Option<SharedAddress> {
        let (host, mac) = self.ports.host().zip(self.host_mac())?;
        let entry = |app: &App| self.policy.ruleset()?.policy().apps.get(app.grant.entry?);
        let sharers = self.ports.apps().filter(|app| app.grant.shared && app.is_served());
        let sharers = sharers
            .map(|app| Sharer { id: app.id, listen: entry(app).map(|entry| entry.listen.clone()).unwrap_or_default() });
        SharedAddress::new(host, mac, &sharers.collect::<Vec<_>>())
    }

    /// The address of the host's port.
    pub(super) fn host_mac(&self) -> Option<Mac> {
        let host = self.ports.get(self.ports.host()?)?;
        host.settings.macs.first().copied()
    }

    /// Called twice a second, and when it matters: has it looked what is the kernel's, if apps may share its address.
    pub fn read_host_sockets(&mut self) {
        let apps = self.policy.ruleset().map(|ruleset| &ruleset.policy().apps);
        let shares = apps.is_some_and(|apps| apps.iter().any(|app| app.address == Address::Shared));
        if shares && self.ports.host().is_some() {
            // If the last look is not over, this one is left out.
            let _asked = self.host_sockets_reader.ask(self.tap.clone());
        }
    }

    /// Takes in what was found. To be called when the helpers' wake is used.
    pub fn take_host_sockets(&mut self) {
        let Some(host_sockets) =
            self.host_sockets_reader.answer().filter(|host_sockets| *host_sockets != *self.host_sockets)
        else {
            return;
        };
        self.host_sockets = Arc::new(host_sockets);
        self.warn_of_ports();
        for app in self.ports.apps_mut().filter(|app| app.grant.shared) {
            app.grant.port_policy = None;
            self.stale = true;
        }
    }

    /// Warns of ports that an app has of its own and the kernel uses or may choose: there nobody reaches the kernel.
    fn warn_of_ports(&mut self) {
        let Some(ruleset) = self.policy.ruleset() else { return };
        for app in self.ports.apps().filter(|app| app.grant.shared) {
            let entry = app.grant.entry.and_then(|entry| ruleset.policy().apps.get(entry));
            for listen in
                entry.iter().flat_map(|entry| &entry.listen).filter(|listen| self.host_sockets.has_port(**listen))
            {
                let why = match self.host_sockets.chooses(listen.port) {
                    true => "the kernel may choose it for any socket: add it to net.ipv4.ip_local_reserved_ports",
                    false => "a socket of the kernel has it, too, which nobody reaches from now on",
                };
                self.peer_log.warn_of(
                    &app.identity,
                    &format_args!("`{}` has the port {listen} of the host, and {why}", app.name),
                );
            }
        }
    }
}
