//! Memory that applications share: which may, how much, and how it comes into being and goes.
//!
//! What takes time with an application's files is done by [the thread of its user](crate::control::peers). Here are the
//! decisions.

use super::ControlPlane;
use crate::control::app::App;
use crate::control::memory::Bytes;
use crate::control::peers::UserThread;
use crate::ids::PortId;
use kopi_ring::layout::WindowLayout;
use kopi_ring::message::Segment;
use kopi_ring::{RegionError, Window};
use std::sync::Arc;
use thiserror::Error;

/// Addresses that windows of all apps may take, and those of one user's: an eighth of what a process has where it has the least.
const ADDRESSES: u64 = 16 << 40;
const ADDRESSES_PER_USER: u64 = ADDRESSES / 2;

/// Why memory is not shared. The text goes to the app.
#[derive(Debug, Error)]
pub enum SharingRefusal {
    /// The administrator does not want it.
    #[error("kopid's configuration or policy does not let this application share memory")]
    NotWanted,
    /// There is a window already, or there are rings.
    #[error("a window is opened once, before there are rings")]
    Late,
    /// There is no window.
    #[error("there is no window for it")]
    NoWindow,
    /// Too many addresses.
    #[error("a window of {} asked for, and kopid has addresses for no more of them", Bytes(*asked))]
    Addresses {
        /// Bytes asked for.
        asked: u64,
    },
    /// Too much memory.
    #[error(
        "the applications of this user would share {} of memory, and [limits] memory_per_user allows {}: raise it in \
         kopid's configuration, or use less", Bytes(*asked), Bytes(*limit)
    )]
    Memory {
        /// Bytes that it would be.
        asked: u64,
        /// The limit.
        limit: u64,
    },
    /// The window could not be had.
    #[error(transparent)]
    Window(#[from] RegionError),
}

impl ControlPlane {
    /// Whether an app may share memory.
    pub(super) const fn may_share(&self, app: &App) -> bool {
        self.limits.share_memory && !app.grant.keeps_memory
    }

    /// Opens a window for a port, in which nothing is shared yet. The next rings know of it.
    ///
    /// # Errors
    ///
    /// [`SharingRefusal`].
    pub fn open_window(&mut self, id: PortId, layout: WindowLayout) -> Result<(), SharingRefusal> {
        let app = self.ports.get(id).filter(|app| self.may_share(app)).ok_or(SharingRefusal::NotWanted)?;
        if app.window.is_some() || app.region.is_some() || app.pending.is_some() {
            return Err(SharingRefusal::Late);
        }
        let taken = |all: bool| {
            let windows = self.ports.apps().filter(|other| all || other.account == app.account);
            windows.filter_map(|app| app.window.as_ref()).map(|window| window.layout().size()).sum::<u64>()
        };
        let asked = layout.size();
        if taken(true) + asked > ADDRESSES || taken(false) + asked > ADDRESSES_PER_USER {
            return Err(SharingRefusal::Addresses { asked });
        }
        let window = Arc::new(Window::new(layout)?);
        if let Some(app) = self.ports.get_mut(id) {
            app.window = Some(window);
        }
        Ok(())
    }

    /// Lets a port share `segments`, and returns the window that they are to be mapped into.
    ///
    /// # Errors
    ///
    /// [`SharingRefusal`].
    pub fn share(&mut self, id: PortId, segments: &[Segment]) -> Result<Arc<Window>, SharingRefusal> {
        let app = self.ports.get(id).filter(|app| self.may_share(app)).ok_or(SharingRefusal::NotWanted)?;
        let window = app.window.clone().ok_or(SharingRefusal::NoWindow)?;
        // A window has room for far less than the sum of lengths that lie.
        let more = segments.iter().fold(0_u64, |sum, segment| sum.saturating_add(segment.span.length));
        let shared = self.ports.apps().filter(|other| other.account == app.account).map(|app| app.shared).sum::<u64>();
        let (asked, limit) = (shared.saturating_add(more), self.limits.memory_per_user);
        if asked > limit {
            return Err(SharingRefusal::Memory { asked, limit });
        }
        if let Some(app) = self.ports.get_mut(id) {
            app.shared += more;
        }
        Ok(window)
    }

    /// The window out of which a port takes memory again.
    ///
    /// # Errors
    ///
    /// [`SharingRefusal::NoWindow`].
    pub fn unshare(&self, id: PortId) -> Result<Arc<Window>, SharingRefusal> {
        self.ports.get(id).and_then(|app| app.window.clone()).ok_or(SharingRefusal::NoWindow)
    }

    /// Notes what a port shares now that what it asked for last was done, or could not be: what is there counts, not what it said.
    pub fn shared(&mut self, id: PortId) {
        if let Some(app) = self.ports.get_mut(id) {
            app.shared = app.window.as_ref().map_or(0, |window| window.size());
        }
    }

    /// Notes that no app uses a window any more. Its user's thread closes it when no worker does either.
    pub(super) fn retire_window(&mut self, app: &mut App) {
        if let Some(window) = app.window.take() {
            self.windows.push((window, self.peers.user(app.account)));
        }
    }

    /// Has windows closed that no worker uses any more.
    pub(super) fn close_windows(&mut self) {
        for (window, user) in self.windows.extract_if(.., |(window, _)| Arc::strong_count(window) == 1) {
            UserThread::close_window(&user, window);
        }
    }
}
