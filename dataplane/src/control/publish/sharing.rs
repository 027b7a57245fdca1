//! The host's port, and the apps that have its address together with it.

use super::Switch;
use super::terms::terms_of_host;
use crate::control::ports::{App, Refusal};
use crate::ids::PortId;
use crate::shared_address::{SharedAddress, Sharer};
use kopi_config::policy::Address;
use kopi_ring::message::Mac;
use std::sync::Arc;

impl Switch {
    /// Gives the host its port, whose interface is called `tap`; returns its number and its address.
    ///
    /// # Errors
    ///
    /// [`Refusal`] if it cannot have one.
    pub fn admit_host(&mut self, tap: &str, macs: &[Mac]) -> Result<(PortId, Mac), Refusal> {
        tap.clone_into(&mut self.tap);
        let terms = terms_of_host(self.policy.ruleset().map(|ruleset| &**ruleset));
        let host = self.registry.admit_host(self.wire.mac, macs, self.wire.mtu, terms)?;
        Ok((host.id, host.settings.macs.first().copied().unwrap_or_default()))
    }

    /// The host's port.
    #[must_use]
    pub const fn host(&self) -> Option<PortId> {
        self.registry.host()
    }

    /// The running apps that have their address together with the host.
    pub(super) fn sharing(&self) -> Option<SharedAddress> {
        let (host, mac) = self.registry.host().zip(self.host_mac())?;
        let entry = |app: &App| self.policy.ruleset()?.policy().apps.get(app.terms.entry?);
        let sharers = self.registry.apps().filter(|app| app.terms.shared && app.region.is_some());
        let sharers = sharers
            .map(|app| Sharer { id: app.id, listen: entry(app).map(|entry| entry.listen.clone()).unwrap_or_default() });
        SharedAddress::new(host, mac, &sharers.collect::<Vec<_>>())
    }

    /// The address of the host's port.
    pub(super) fn host_mac(&self) -> Option<Mac> {
        let host = self.registry.get(self.registry.host()?)?;
        host.settings.macs.first().copied()
    }

    /// Called twice a second, and when it matters: has it looked what is the kernel's, if apps may share its address.
    pub fn look_at_kernel(&mut self) {
        let apps = self.policy.ruleset().map(|ruleset| &ruleset.policy().apps);
        let shares = apps.is_some_and(|apps| apps.iter().any(|app| app.address == Address::Shared));
        if shares && self.registry.host().is_some() {
            // If the last look is not over, this one is left out.
            let _asked = self.kernel_lists.ask(self.tap.clone());
        }
    }

    /// Takes in what was found. To be called when the helpers' wake is used.
    pub fn take_kernel(&mut self) {
        let Some(kernel) = self.kernel_lists.answer().filter(|kernel| *kernel != *self.kernel) else { return };
        self.kernel = Arc::new(kernel);
        self.warn_of_ports();
        for app in self.registry.apps_mut().filter(|app| app.terms.shared) {
            app.terms.port_policy = None;
            self.stale = true;
        }
    }

    /// Tells of ports that an app has leased and the kernel uses or may choose: there nobody reaches the kernel.
    fn warn_of_ports(&mut self) {
        let Some(ruleset) = self.policy.ruleset() else { return };
        for app in self.registry.apps().filter(|app| app.terms.shared) {
            let entry = app.terms.entry.and_then(|entry| ruleset.policy().apps.get(entry));
            for listen in entry.iter().flat_map(|entry| &entry.listen).filter(|listen| self.kernel.has_port(**listen)) {
                let why = match self.kernel.chooses(listen.port) {
                    true => "the kernel may choose it for any socket: add it to net.ipv4.ip_local_reserved_ports",
                    false => "a socket of the kernel has it, too, which nobody reaches from now on",
                };
                self.throttle.warn_of(
                    &app.identity,
                    &format_args!("`{}` has the port {listen} of the host, and {why}", app.name),
                );
            }
        }
    }
}
