//! The rings of a port: how many and how large they may be, and how they come into being.

use super::ControlPlane;
use super::connections::user_of;
use crate::control::app::{App, Pending};
use crate::control::app_waker::Reach;
use crate::control::detach::DetachReason;
use crate::control::kept_regions::{Left, Watch};
use crate::control::limits::Limits;
use crate::control::memory::{MemoryRefusal, Room, free_huge_memory};
use crate::control::peers::UserThread;
use crate::control::regions::{Charge, Done};
use crate::ids::PortId;
use crate::worker::port::User;
use kopi_ring::message::{RSS, Setup};
use kopi_ring::{Doorbell, Geometry, HugePages, PeerFault, Region, RegionError};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use std::sync::Arc;
use thiserror::Error;

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
    /// Rings of a queue's that no worker would fill.
    #[error("{asked} RX rings for each queue asked for, there is 1 for each queue{}", or_workers(*.most))]
    Lanes {
        /// How many it asked for.
        asked: u16,
        /// How many there can be instead of 1.
        most: u16,
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
    /// More memory than users, or all of them, may have.
    #[error(transparent)]
    Room(#[from] MemoryRefusal),
    /// The memory could not be had.
    #[error(transparent)]
    Region(#[from] RegionError),
    /// The kernel had no file descriptor.
    #[error("kopid has no file descriptor left: {0}")]
    System(#[source] std::io::Error),
    /// The port went away.
    #[error("no such port")]
    Gone,
    /// There is nothing that could be mapped.
    #[error("this port has no rings that could be mapped: ask for some first")]
    NoRings,
}

/// How many RX rings a queue may have besides 1, as the end of a sentence.
fn or_workers(most: u16) -> String {
    if most > 1 { format!(", or {most}, one for each worker") } else { String::new() }
}

/// The owner of the other side of rings.
#[derive(Debug)]
enum Side {
    /// An app, which sleeps at times or does not.
    App { sleeps: bool },
    /// The host's thread, which this wakes.
    Host(Doorbell),
}

/// Bytes that kopid does not take for rings, however much there is.
const SPARE: u64 = 64 << 20;
/// Bytes of a huge page.
const HUGE_PAGE: u64 = 2 << 20;
/// Bytes of an ordinary page.
const PAGE: u64 = 4096;

/// A region that no app uses any more, but perhaps a worker still does.
#[derive(Debug)]
pub(super) struct Retired {
    region: Region,
    charge: Charge,
    watch: Option<Watch>,
}

/// What becomes of a request for rings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// They are being made: see [`ControlPlane::take_regions`].
    Making,
    /// They have to be asked for again when memory that is no longer in use has been given back.
    Later,
}

/// What has come of rings that were being made.
pub type Made = (PortId, Result<(), SetupError>);

impl ControlPlane {
    /// Has rings made for a port, in place of any it has, if there may be so many.
    ///
    /// # Errors
    ///
    /// [`SetupError`], and the port keeps what it had.
    pub fn setup(&mut self, id: PortId, setup: &Setup) -> Result<Asked, SetupError> {
        // A process may have let go of rings right before it asks for others.
        self.release_gone();
        let app = self.ports.get(id).ok_or(SetupError::Gone)?;
        self.check(&setup.geometry, app.grant.queues)?;
        let page = if self.limits.huge_pages == HugePages::Off { PAGE } else { HUGE_PAGE };
        let bytes = (setup.geometry.layout().size as u64).next_multiple_of(page);
        let (charge, before) = (Charge { user: app.account, bytes }, app.charge.bytes);
        if self.memory.room(charge, before)? == Room::Later {
            if before > 0 {
                // There is no room for both.
                self.halt(id);
            }
            return Ok(Asked::Later);
        }
        self.check_machine(bytes)?;
        let protocol = app.protocol;
        let making = self.regions.make(charge, setup.geometry.clone(), self.limits.huge_pages, protocol);
        self.memory.take(charge);
        let app = self.ports.get_mut(id).ok_or(SetupError::Gone)?;
        app.pending = Some(Pending { making, charge, sleeps: setup.sleeps });
        Ok(Asked::Making)
    }

    /// Takes in what has become of regions. Returns the ports whose rings are ready, for their apps to map them, or cannot be had.
    /// Rings that they had before are out of use when workers [use](Self::uses) the [next snapshot](Self::next_snapshot).
    #[must_use]
    pub fn take_regions(&mut self) -> Vec<Made> {
        let mut made = Vec::new();
        self.release_gone();
        while let Some(done) = self.regions.done().receive() {
            match done {
                Done::Freed(charge, watch) => {
                    watch.into_iter().for_each(|watch| self.kept.forget(watch));
                    self.memory.give_back(charge);
                }
                Done::LetGo(watch) => match self.kept.let_go(watch) {
                    Some(Left::Nothing(charge)) => self.memory.give_back(charge),
                    Some(Left::All(charge)) => self.memory.keep(charge),
                    None => {}
                },
                Done::Made { serial, charge, outcome } => {
                    let waits = |app: &App| app.pending.as_ref().is_some_and(|p| p.making.serial() == serial);
                    let app = self.ports.apps_mut().find(|app| waits(app));
                    let pending = app.and_then(|app| app.pending.take().map(|pending| (app.id, pending)));
                    if pending.is_some() && outcome.is_err() {
                        self.memory.leave(charge);
                    }
                    match (pending, outcome) {
                        (Some((id, pending)), Ok(region)) => {
                            made.push((id, self.install(id, region, charge, Side::App { sleeps: pending.sleeps })));
                        }
                        (None, Ok(region)) => self.regions.empty(charge, region),
                        (pending, Err(error)) => {
                            self.memory.give_back(charge);
                            made.extend(pending.map(|(id, _)| (id, Err(error.into()))));
                        }
                    }
                }
            }
        }
        made
    }

    /// Notes the memory of sealed regions that nobody holds any more.
    fn release_gone(&mut self) {
        self.kept.gone().into_iter().for_each(|charge| self.memory.release(charge));
    }

    /// Gives the host's port rings, whose thread is woken by `doorbell`. At once, since it is at the start.
    ///
    /// # Errors
    ///
    /// [`SetupError`], and the port keeps what it had.
    pub fn setup_host(&mut self, id: PortId, geometry: &Geometry, doorbell: Doorbell) -> Result<(), SetupError> {
        let app = self.ports.get(id).ok_or(SetupError::Gone)?;
        self.check(geometry, app.grant.queues)?;
        let region = Region::create(geometry, self.limits.huge_pages)?;
        self.install(id, region, Charge::default(), Side::Host(doorbell))
    }

    /// Gives a port the rings of `region`, in place of any it has. Those of an app are [served](Self::serve) later: as long as it can
    /// make holes, who touches a page waits in the kernel for as long as it takes to make them.
    fn install(&mut self, id: PortId, region: Region, charge: Charge, side: Side) -> Result<(), SetupError> {
        let no_doorbell = |errno| RegionError::System { call: "making a doorbell", errno };
        let host = self.ports.host();
        if self.ports.get(id).is_none() {
            self.retire(region, charge, None);
            return Err(SetupError::Gone);
        }
        let pair = match self.dataplane.sleeps() {
            true => Doorbell::pair().map(|(ours, theirs)| (Some(ours), Some(theirs))),
            false => Ok((None, None)),
        };
        let listened = pair.and_then(|(ours, theirs)| {
            ours.as_ref().map_or(Ok(()), |ours| self.dataplane.listen(id, ours)).map(|()| (ours, theirs))
        });
        let (ours, theirs) = match listened {
            Ok(pair) => pair,
            Err(errno) => {
                self.retire(region, charge, None);
                return Err(no_doorbell(errno).into());
            }
        };
        self.halt(id);
        let app = self.ports.get_mut(id).ok_or(SetupError::Gone)?;
        if !std::mem::replace(&mut app.started, true) {
            // Until all workers had been told that the one before was gone, they may have begun connections for its number. An
            // app is told that it is admitted when they have, so there are none from now on.
            let is_unused = |number| self.connections.in_account(number) == 0;
            self.connections.open_zone(id, self.numbers.of(user_of(app, host), is_unused));
        }
        // Before the app has it, which could seal it itself: what is sealed without a watch would never be known to be gone.
        let watch = match &side {
            Side::App { .. } => match self.kept.watch(&region) {
                Ok(watch) => Some(watch),
                Err(errno) => {
                    let _unsealed = region.settle();
                    self.peer_log.warn_of(&app.identity, &format_args!(
                        "{}: its rings are not sealed against holes, no watch on their file can be had ({errno}): `sysctl \
                         fs.inotify.max_user_watches fs.inotify.max_user_instances`", app.name
                    ));
                    None
                }
            },
            Side::Host(_) => None,
        };
        if self.limits.huge_pages == HugePages::Auto && !region.huge() {
            let size = region.size() >> 10;
            self.peer_log.warn_of(&app.identity, &format_args!(
                "{}: {size} KiB of rings lie in 4 KiB pages, the huge-page pool has no room: `sysctl vm.nr_hugepages`",
                app.name
            ));
        }
        match side {
            Side::App { sleeps } => {
                let uid = app.account;
                let doorbell = ours.map(|ours| self.peers.quieting(uid, ours));
                let futex = sleeps.then(|| region.wake_futex());
                app.waiting = Some(Reach { user: self.peers.user(uid), futex, doorbell });
            }
            Side::Host(call) => {
                let port = (id, app.generation);
                self.dataplane.attach_host(&region, port, Arc::new(call), ours.map(Arc::new).as_ref());
                app.status = Some(region.daemon_status());
                // The host's thread is ours and makes no holes.
                app.sealed = true;
                self.stale = true;
            }
        }
        app.rss = Some(self.usual_rss.of_queues(region.geometry().rx_queues()));
        app.chosen_rss = None;
        app.compiled_rules = None;
        app.doorbell = theirs;
        app.watch = watch;
        app.charge = charge;
        app.region = Some(region);
        Ok(())
    }

    /// Has the workers serve the rings of an app that has mapped them, which they do once they [use](Self::uses) the [next
    /// snapshot](Self::next_snapshot). Nothing happens if they do already.
    pub fn serve(&mut self, id: PortId) {
        let Some(app) = self.ports.get_mut(id) else { return };
        let (Some(region), Some(reach)) = (&app.region, app.waiting.take()) else { return };
        let port = (id, app.generation);
        let (user, chooses) = (User::Id(app.account), app.protocol >= RSS);
        self.dataplane.attach((region, app.window.as_ref()), port, user, reach, chooses);
        // Not before: whoever writes there touches a page, too.
        app.status = Some(region.daemon_status());
        let shared = app.grant.shared;
        self.change_by(id);
        if shared {
            // What is known may be half a second old.
            self.read_host_sockets();
        }
    }

    /// Notes that no app uses a region any more. It is emptied when no worker does either.
    pub(super) fn retire(&mut self, region: Region, charge: Charge, watch: Option<Watch>) {
        self.memory.leave(charge);
        self.retired.push(Retired { region, charge, watch });
    }

    /// Has the thread of its user see to the end of each retired region that no worker uses any more. A client may hold on to the file
    /// of one: it is emptied all the same, or, if it is sealed, charged to its user until it is gone.
    pub(super) fn let_go(&mut self) {
        for Retired { region, charge, watch } in self.retired.extract_if(.., |retired| retired.region.is_idle()) {
            watch.into_iter().for_each(|watch| self.kept.keep(watch, charge));
            UserThread::end_region(&self.peers.user(charge.user), self.regions.ending(charge, region, watch));
        }
    }

    /// The file of a port's rings, whose app has mapped them, to be [sealed](Region::seal_file) by the thread of its user; `None` if
    /// they are not to be, and are [served](Self::serve) as they are.
    ///
    /// # Errors
    ///
    /// [`SetupError::NoRings`] if it has none; [`SetupError::System`] if there is no file descriptor to be had.
    pub fn to_seal(&self, id: PortId) -> Result<Option<OwnedFd>, SetupError> {
        let app = self.ports.get(id).ok_or(SetupError::Gone)?;
        let region = app.region.as_ref().ok_or(SetupError::NoRings)?;
        // Who has no watch could not tell when a sealed region is gone.
        let file = app.watch.map(|_| region.fd().try_clone_to_owned());
        file.transpose().map_err(SetupError::System)
    }

    /// Notes that a port's rings were sealed, and has them [served](Self::serve). Where the kernel knows no such seal they are served
    /// all the same, and holes are looked for.
    ///
    /// # Errors
    ///
    /// Why the app has to go: it has made a hole before, or has seen to it that its rings cannot be sealed.
    pub fn sealed(&mut self, id: PortId, outcome: Result<(), RegionError>) -> Result<(), DetachReason> {
        let Some(app) = self.ports.get_mut(id) else { return Ok(()) };
        let Some(region) = &app.region else { return Ok(()) };
        match outcome {
            Ok(()) if region.is_whole() => app.sealed = true,
            Ok(()) => return Err(PeerFault::Page.into()),
            // The kernel looks for seals that it does not know first.
            Err(error @ RegionError::System { errno: Errno::INVAL, .. }) => self.peer_log.warn_of(
                &app.identity,
                &format_args!(
                    "{}: its rings are not sealed against holes ({error}): the kernel is older than Linux 5.1",
                    app.name
                ),
            ),
            Err(error) => {
                let why =
                    format!("its rings cannot be sealed against holes ({error}): it has sealed their file itself");
                return Err(DetachReason::Refused(why));
            }
        }
        self.serve(id);
        Ok(())
    }

    /// Whether the machine, and kopid's control groups, have `bytes` more. Huge pages are no part of what they have.
    fn check_machine(&self, bytes: u64) -> Result<(), MemoryRefusal> {
        let pool = match self.limits.huge_pages {
            HugePages::Off => 0,
            HugePages::Auto => free_huge_memory(),
            HugePages::Require => return Ok(()),
        };
        let pending = self.ports.apps().filter_map(|app| app.pending.as_ref()).map(|pending| pending.charge.bytes);
        let pending = pending.sum::<u64>();
        let left = self.machine.left().saturating_sub(SPARE + pending);
        if bytes + pending > pool && bytes > left {
            return Err(MemoryRefusal::Machine { asked: bytes, left });
        }
        Ok(())
    }

    fn check(&self, geometry: &Geometry, own: Option<u16>) -> Result<(), SetupError> {
        let Limits { queues, ring, memory, .. } = self.limits;
        let policy = own.filter(|own| *own < queues);
        let (lanes, most) = (geometry.lanes(), self.dataplane.lanes());
        if lanes != 1 && lanes != most {
            return Err(SetupError::Lanes { asked: lanes, most });
        }
        for (asked, sizes) in [(geometry.tx().len(), geometry.tx()), (geometry.rx_queues(), geometry.rx())] {
            if let Some(limit) = policy.filter(|limit| asked > usize::from(*limit)) {
                return Err(SetupError::PolicyQueues { asked, limit });
            }
            if asked > usize::from(queues) {
                return Err(SetupError::Queues { asked, limit: queues });
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
        self.ports.get_mut(id).and_then(|app| app.doorbell.take())
    }
}
