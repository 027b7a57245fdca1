//! Memory that applications share: which may, and how it comes into being and goes.
//!
//! What takes time with an application's files is done by [the thread of its user](crate::control::peers), and how much there may be
//! is for [`crate::control::windows`] to say. Here are the decisions.

use super::ControlPlane;
use crate::control::app::App;
use crate::control::limits::Limits;
use crate::control::peers::UserThread;
use crate::control::windows::SharingRefusal;
use crate::ids::PortId;
use kopi_ring::layout::WindowLayout;
use kopi_ring::message::{SHARING, Segment};
use kopi_ring::{Region, Window};
use std::sync::Arc;

/// Whether an app may share memory. Not where holes in it would cost a worker a page fault each, of which nobody knows: be it
/// that the kernel does not tell of them, or only of those that are still holes when they are touched.
pub(super) fn may_share(limits: &Limits, app: &App) -> bool {
    limits.share_memory && Region::tells_of_filled_holes() && app.protocol >= SHARING && !app.grant.keeps_memory
}

impl ControlPlane {
    /// Opens a window for a port, in which nothing is shared yet. The next rings know of it.
    ///
    /// # Errors
    ///
    /// [`SharingRefusal`].
    pub fn open_window(&mut self, id: PortId, layout: WindowLayout) -> Result<(), SharingRefusal> {
        let app = self.ports.get_mut(id).filter(|app| may_share(&self.limits, app)).ok_or(SharingRefusal::NotWanted)?;
        if app.window.is_some() || app.region.is_some() || app.pending.is_some() {
            return Err(SharingRefusal::Late);
        }
        app.window = Some(self.windows.open(app.account, layout)?);
        Ok(())
    }

    /// Lets a port share `segments`, and returns the window that they are to be mapped into.
    ///
    /// # Errors
    ///
    /// [`SharingRefusal`].
    pub fn share(&mut self, id: PortId, segments: &[Segment]) -> Result<Arc<Window>, SharingRefusal> {
        let app = self.ports.get(id).filter(|app| may_share(&self.limits, app)).ok_or(SharingRefusal::NotWanted)?;
        let window = app.window.clone().ok_or(SharingRefusal::NoWindow)?;
        self.windows.share(&window, segments)?;
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

    /// Notes what a port shares now that what it asked for last was done, or could not be.
    pub fn shared(&mut self, id: PortId) {
        if let Some(window) = self.ports.get(id).and_then(|app| app.window.as_ref()) {
            self.windows.settle(window);
        }
    }

    /// Notes that no app uses a window any more. Its user's thread closes it when no worker does either.
    pub(super) fn retire_window(&mut self, app: &mut App) {
        if let Some(window) = app.window.take() {
            self.windows.retire(&window);
        }
    }

    /// Has windows closed that no worker uses any more.
    pub(super) fn close_windows(&mut self) {
        let Self { windows, peers, .. } = self;
        windows.close_idle(|account, window, closing| {
            UserThread::close_window(&peers.user(account), window, closing);
        });
    }
}
