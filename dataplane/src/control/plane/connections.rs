//! Tracked connections: who has how many, and who has as many as it may have.

use super::ControlPlane;
use crate::control::app::App;
use crate::ids::PortId;
use crate::worker::port::User;

/// Tracked connections charged to an app.
#[derive(Clone, Copy, Debug)]
pub struct Tracked {
    /// Those of the app.
    pub own: u32,
    /// Those of all apps of its user.
    pub of_user: u32,
    /// Those of the app that found no room, since it is there.
    pub refused: u64,
}

/// Whose user's an app is, where something is shared out.
pub(super) fn user_of(app: &App, host: Option<PortId>) -> User {
    if Some(app.id) == host { User::Host } else { User::Id(app.account) }
}

impl ControlPlane {
    /// Says of each app once that it has as many connections as it may have.
    pub(super) fn log_limits(&mut self) {
        let limits = self.limits.connections;
        for app in self.ports.apps_mut() {
            let (_, limited) = self.connections.noted(app.id);
            if limited == 0 || std::mem::replace(&mut app.limit_logged, true) {
                continue;
            }
            let own = self.connections.in_zone(app.id) >= limits.per_app;
            let (whose, limit, key) = match own {
                true => ("it has", limits.per_app, "connections_per_app"),
                false => ("its user's apps have", limits.per_user, "connections_per_user"),
            };
            self.peer_log.warn_of(
                &app.identity,
                &format_args!(
                    "{}: {whose} {limit} connections, as many as [limits] {key} allows: new ones take the places of such as were \
                     not answered or have ended, or are not tracked",
                    app.name
                ),
            );
        }
    }

    /// What is tracked of an app's connections, and of all of its user's.
    #[must_use]
    pub fn tracked(&self, app: &App) -> Tracked {
        let user = self.numbers.find(user_of(app, self.ports.host()));
        Tracked {
            own: self.connections.in_zone(app.id),
            of_user: user.map_or(0, |user| self.connections.in_account(user)),
            refused: self.connections.noted(app.id).0,
        }
    }
}
