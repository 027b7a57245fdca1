//! The switch: apps, their ports and the workers that serve them, kept consistent by the control thread.

use crate::command::Reply;
use crate::dataplane::Dataplane;
use crate::forwarding::{Forwarding, PortId};
use crate::identity::Identity;
use crate::registry::{App, Refusal, Registry};
use crate::throttle::Throttle;
use kopi_ring::layout::{DEFAULT_SLOT, MAX_QUEUES};
use kopi_ring::message::{Hello, Link, Mac, Settings, Welcome};
use kopi_ring::{DropReason, Geometry, HugePages, PeerFault, Region, RegionError};
use std::sync::Arc;
use thiserror::Error;

/// Lines in the log in ten seconds about apps' memory.
const LOG_LINES: u32 = 20;

/// What is known about the wire.
#[derive(Clone, Debug)]
pub struct WireState {
    /// The device as configured.
    pub device: String,
    /// Name of its driver.
    pub driver: String,
    /// Its own MAC address.
    pub mac: Mac,
    /// Its MTU in bytes.
    pub mtu: u16,
    /// Its link.
    pub link: Link,
}

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

/// The switch. Its workers end with it.
#[derive(Debug)]
pub struct Switch {
    registry: Registry,
    dataplane: Dataplane,
    wire: WireState,
    limits: Limits,
    epoch: u32,
    /// Pictures of the ports that the workers were given since their first one.
    pictures: u64,
    /// The workers' picture of the ports is out of date.
    stale: bool,
    /// Regions that no app uses any more, but perhaps a worker still does.
    retired: Vec<Region>,
    throttle: Throttle,
}

impl Switch {
    /// A switch over running workers, without apps.
    #[must_use]
    pub fn new(dataplane: Dataplane, wire: WireState, limits: Limits) -> Self {
        Self {
            registry: Registry::new(limits.apps),
            dataplane,
            wire,
            limits,
            epoch: 1,
            pictures: 0,
            stale: false,
            retired: Vec::new(),
            throttle: Throttle::new(LOG_LINES),
        }
    }

    /// The first picture of the ports, for workers that start.
    #[must_use]
    pub fn empty_picture(link: Link, mtu: u16) -> Arc<Forwarding> {
        Arc::new(Forwarding::new(1, link.up, mtu, &[]))
    }

    /// The wire.
    #[must_use]
    pub const fn wire(&self) -> &WireState {
        &self.wire
    }

    /// The workers.
    #[must_use]
    pub const fn dataplane(&self) -> &Dataplane {
        &self.dataplane
    }

    /// All apps, by port number.
    pub fn apps(&self) -> impl Iterator<Item = &App> {
        self.registry.apps()
    }

    /// One app.
    #[must_use]
    pub fn app(&self, id: PortId) -> Option<&App> {
        self.registry.get(id)
    }

    /// Gives a port to a process.
    ///
    /// # Errors
    ///
    /// [`Refusal`] if it cannot have one.
    pub fn admit(&mut self, hello: &Hello, identity: Identity) -> Result<Welcome, Refusal> {
        let dataplane = &self.dataplane;
        let app = self.registry.admit(hello, identity, self.wire.mtu, |id| dataplane.totals(id))?;
        Ok(Welcome {
            port: app.id,
            name: app.name.clone(),
            mac: app.settings.macs.first().copied().unwrap_or_default(),
            max_mtu: self.wire.mtu,
            max_queues: self.limits.queues.min(u16::try_from(MAX_QUEUES).unwrap_or(u16::MAX)),
            max_ring: self.limits.ring,
            slot_size: DEFAULT_SLOT,
            link: self.wire.link,
        })
    }

    /// Makes rings for a port, in place of any it has, and has the workers serve them. They do once they
    /// [use](Self::uses) the [next picture](Self::next_picture).
    ///
    /// # Errors
    ///
    /// [`SetupError`], and the port keeps what it had.
    pub fn setup(&mut self, id: PortId, geometry: &Geometry) -> Result<(), SetupError> {
        self.check(geometry)?;
        let app = self.registry.get_mut(id).ok_or(SetupError::Gone)?;
        let region = Region::create(geometry, self.limits.huge_pages)?;
        if self.limits.huge_pages == HugePages::Auto && !region.huge() {
            self.throttle.warn(&format_args!(
                "{}: {} KiB of rings lie in 4 KiB pages, the huge-page pool has no room: `sysctl vm.nr_hugepages`",
                app.name,
                region.size() >> 10
            ));
        }
        self.dataplane.attach(&region, id, app.generation);
        self.stale = true;
        app.status = Some(region.daemon_status());
        self.retired.extend(app.region.replace(region));
        Ok(())
    }

    fn check(&self, geometry: &Geometry) -> Result<(), SetupError> {
        let Limits { queues, ring, memory, .. } = self.limits;
        for sizes in [geometry.tx(), geometry.rx()] {
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

    /// Changes what a port receives and carries.
    ///
    /// # Errors
    ///
    /// [`Refusal`], and the earlier settings stay.
    pub fn change(&mut self, id: PortId, settings: Settings) -> Result<(), Refusal> {
        self.registry.change(id, settings, self.wire.mtu)?;
        self.stale = true;
        Ok(())
    }

    /// Takes a port's rings away. The port stays.
    pub fn halt(&mut self, id: PortId) {
        let Some(app) = self.registry.get_mut(id) else { return };
        app.status = None;
        if let Some(region) = app.region.take() {
            self.retired.push(region);
            self.dataplane.detach(id);
            self.registry.await_return(id, self.dataplane.workers());
            self.stale = true;
        }
    }

    /// Takes a port away altogether.
    pub fn remove(&mut self, id: PortId) -> Option<Box<App>> {
        self.halt(id);
        self.registry.remove(id)
    }

    /// Notes the wire's link; returns whether it changed.
    pub fn set_link(&mut self, link: Link) -> bool {
        let changed = self.wire.link != link;
        self.stale |= self.wire.link.up != link.up;
        self.wire.link = link;
        changed
    }

    /// Gives the workers a new picture of the ports, if something has changed.
    pub fn publish(&mut self) {
        if !std::mem::take(&mut self.stale) {
            return;
        }
        // 0 marks a flow that was never judged.
        self.epoch = self.epoch.wrapping_add(1).max(1);
        let members = self.registry.members();
        let forwarding = Forwarding::new(self.epoch, self.wire.link.up, self.wire.mtu, &members);
        self.dataplane.forward(&Arc::new(forwarding));
        self.pictures += 1;
    }

    /// Number of the picture that has everything that was changed so far.
    #[must_use]
    pub const fn next_picture(&self) -> u64 {
        self.pictures + self.stale as u64
    }

    /// Whether all workers use picture `picture` or a later one.
    #[must_use]
    pub fn uses(&self, picture: u64) -> bool {
        self.dataplane.retired() >= picture
    }

    /// Takes in the workers' answers; returns the ports whose apps broke the contract.
    pub fn settle(&mut self) -> Vec<(PortId, PeerFault)> {
        let mut faults = Vec::new();
        while let Some(reply) = self.dataplane.reply() {
            match reply {
                Reply::Detached(id, _rings) => self.registry.returned(id),
                Reply::Fault(rings, fault) => {
                    // A fault of an app that is gone is of no interest any more.
                    if self.registry.get(rings.id).is_some_and(|app| app.generation == rings.generation) {
                        faults.push((rings.id, fault));
                    }
                }
                Reply::Replaced(_) | Reply::Retired(_) => {}
            }
        }
        // A client may hold on to the file of a region; its memory goes all the same.
        for region in self.retired.extract_if(.., |region| region.is_idle()) {
            if let Err(error) = region.discard() {
                log::warn!("{error}");
            }
        }
        let punched = self.registry.apps().filter(|app| app.region.as_ref().is_some_and(Region::punched));
        faults.extend(punched.map(|app| (app.id, PeerFault::Page)));
        faults
    }

    /// Whether answers of workers are outstanding that free a port number or memory.
    #[must_use]
    pub fn is_settling(&self) -> bool {
        self.registry.is_settling() || !self.retired.is_empty()
    }

    /// Shows every app its drop counters.
    pub fn show_drops(&self) {
        for app in self.registry.apps() {
            let Some(status) = &app.status else { continue };
            let totals = self.dataplane.totals(app.id).since(&app.base);
            for (reason, frames) in DropReason::ALL.iter().zip(totals.drops) {
                status.set_drops(*reason, frames);
            }
        }
    }
}
