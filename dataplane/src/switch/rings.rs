//! The rings of a port: how many and how large they may be, and how they come into being.

use super::Switch;
use crate::app_waker::Reach;
use crate::forwarding::PortId;
use crate::port::User;
use kopi_ring::message::Setup;
use kopi_ring::{Doorbell, Geometry, HugePages, Region, RegionError};
use std::sync::Arc;
use thiserror::Error;

/// What an app may have.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Apps at one time.
    pub apps: usize,
    /// Queues in each direction.
    pub queues: u16,
    /// Slots in a ring.
    pub ring: u32,
    /// Bytes of shared memory.
    pub memory: u64,
    /// Where that memory comes from.
    pub huge_pages: HugePages,
}

/// Why rings were refused. The text goes to the app.
#[derive(Debug, Error)]
pub enum SetupError {
    /// More queues than the configuration allows.
    #[error("{asked} queues asked for, [limits] queues allows {limit}")]
    Queues {
        /// Queues asked for, in one direction.
        asked: usize,
        /// The limit.
        limit: u16,
    },
    /// More queues than the policy allows this app.
    #[error("{asked} queues asked for, the policy allows this app {limit}")]
    PolicyQueues {
        /// Queues asked for, in one direction.
        asked: usize,
        /// The limit.
        limit: u16,
    },
    /// A ring larger than the configuration allows.
    #[error("ring of {asked} slots asked for, [limits] ring_size allows {limit}")]
    Ring {
        /// Slots asked for.
        asked: u32,
        /// The limit.
        limit: u32,
    },
    /// More memory than the configuration allows.
    #[error("{asked} bytes of rings asked for, [limits] memory allows {limit}")]
    Memory {
        /// Bytes asked for.
        asked: usize,
        /// The limit.
        limit: u64,
    },
    /// The memory could not be had.
    #[error(transparent)]
    Region(#[from] RegionError),
    /// The port went away.
    #[error("no such port")]
    Gone,
}

/// Who has the other side of rings.
#[derive(Debug)]
enum Side {
    /// An app, which sleeps at times or does not.
    App { sleeps: bool },
    /// The host's thread, which this wakes.
    Host(Doorbell),
}

impl Switch {
    /// Makes rings for a port, in place of any it has, and has the workers serve them. They do once they
    /// [use](Self::uses) the [next picture](Self::next_picture).
    ///
    /// # Errors
    ///
    /// [`SetupError`], and the port keeps what it had.
    pub fn setup(&mut self, id: PortId, setup: &Setup) -> Result<(), SetupError> {
        self.make_rings(id, &setup.geometry, Side::App { sleeps: setup.sleeps })
    }

    /// The same for the host's port, whose thread is woken by `doorbell`.
    ///
    /// # Errors
    ///
    /// [`SetupError`], and the port keeps what it had.
    pub fn setup_host(&mut self, id: PortId, geometry: &Geometry, doorbell: Doorbell) -> Result<(), SetupError> {
        self.make_rings(id, geometry, Side::Host(doorbell))
    }

    fn make_rings(&mut self, id: PortId, geometry: &Geometry, side: Side) -> Result<(), SetupError> {
        let app = self.registry.get(id).ok_or(SetupError::Gone)?;
        self.check(geometry, app.terms.queues)?;
        let app = self.registry.get_mut(id).ok_or(SetupError::Gone)?;
        let region = Region::create(geometry, self.limits.huge_pages)?;
        let no_doorbell = |errno| RegionError::System { call: "making a doorbell", errno };
        let (ours, theirs) = match self.dataplane.sleeps() {
            true => Doorbell::pair().map(|(ours, theirs)| (Some(ours), Some(theirs))).map_err(no_doorbell)?,
            false => (None, None),
        };
        if let Some(ours) = &ours {
            self.dataplane.listen(id, ours).map_err(no_doorbell)?;
        }
        if !std::mem::replace(&mut app.started, true) {
            // Until all workers had heard that the one before was gone, they may have begun connections for its number. An
            // app is told that it is admitted when they have, so there are none from now on.
            self.connections.forget_zone(id);
        }
        if self.limits.huge_pages == HugePages::Auto && !region.huge() {
            let size = region.size() >> 10;
            self.throttle.warn_of(&app.identity, &format_args!(
                "{}: {size} KiB of rings lie in 4 KiB pages, the huge-page pool has no room: `sysctl vm.nr_hugepages`",
                app.name
            ));
        }
        let port = (id, app.generation);
        match side {
            Side::App { sleeps } => {
                let uid = app.identity.uid;
                let doorbell = ours.map(|ours| self.peers.quieting(uid, ours));
                let reach = Reach { user: self.peers.user(uid), bell: sleeps.then(|| region.bell()), doorbell };
                self.dataplane.attach(&region, port, User::Id(uid), reach);
            }
            Side::Host(call) => {
                self.dataplane.attach_host(&region, port, Arc::new(call), ours.map(Arc::new).as_ref());
            }
        }
        self.stale = true;
        app.doorbell = theirs;
        app.status = Some(region.daemon_status());
        self.retired.extend(app.region.replace(region));
        if app.terms.shared {
            // Its first frame is judged by what is the kernel's now.
            self.look_at_kernel();
        }
        Ok(())
    }

    fn check(&self, geometry: &Geometry, own: Option<u16>) -> Result<(), SetupError> {
        let Limits { queues, ring, memory, .. } = self.limits;
        let policy = own.filter(|own| *own < queues);
        for sizes in [geometry.tx(), geometry.rx()] {
            if let Some(limit) = policy.filter(|limit| sizes.len() > usize::from(*limit)) {
                return Err(SetupError::PolicyQueues { asked: sizes.len(), limit });
            }
            if sizes.len() > usize::from(queues) {
                return Err(SetupError::Queues { asked: sizes.len(), limit: queues });
            }
            if let Some(asked) = sizes.iter().copied().find(|size| *size > ring) {
                return Err(SetupError::Ring { asked, limit: ring });
            }
        }
        let asked = geometry.layout().size;
        if asked as u64 > memory { Err(SetupError::Memory { asked, limit: memory }) } else { Ok(()) }
    }

    /// The client's end of the doorbell of the rings last made for a port, if there is one. Once.
    pub fn take_doorbell(&mut self, id: PortId) -> Option<Doorbell> {
        self.registry.get_mut(id).and_then(|app| app.doorbell.take())
    }
}
