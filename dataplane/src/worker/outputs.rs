//! All that one worker can deliver to: its share of the wire, the apps' RX rings, the queues to other workers, the classes.

pub(crate) mod wake;
mod workers;

pub use workers::blamed;

use crate::ids::Backlog;
use crate::ids::PortId;
use crate::policy_counters::{CounterId, PolicyCounters};
use crate::snapshot::Snapshot;
use crate::stages::mirror::{Mirrors, PacketRecord, View};
use crate::worker::counters::{PortCounters, WorkerCounters};
use crate::worker::handoff::{Mesh, Target};
use crate::worker::port::WorkerPort;
use crate::worker::reply_limit::ReplyLimit;
use crate::worker::sched_tree::{FrameStore, Shaper, Waiting};
use crate::worker::wake_requests::WakeRequests;
use crate::worker::wire::Wire;
use dpdk::{Batch, Mbuf, Pool};
use kopi_config::policy::Direction;
use kopi_packet::mark::Mark;
use kopi_ring::layout::Notes;
use kopi_ring::{DropReason, PeerFault};
use std::collections::VecDeque;
use std::sync::Arc;
use wake::will_kick;

/// Frames that wait in classes, at one worker.
const WAITING: usize = 8192;
/// Flows of these.
const WAITING_FLOWS: usize = 4096;
/// What happens to a frame's buffer once its copies are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// It is done with.
    Free,
    /// It goes on the wire.
    Wire,
    /// Another worker takes it.
    Worker(usize, Target),
    /// It waits in the queue of a leaf of the classes of ingress.
    Queue(u32, Target),
}

/// Everything that one worker can deliver to.
#[derive(Debug)]
pub struct Outputs {
    pub(crate) index: usize,
    /// The queues of the wire that it has, or another one has for it: RX and TX.
    pub(crate) queues: [u8; 2],
    /// Bytes for the wire that were handed to another worker.
    pub(crate) handed: u64,
    pub(crate) workers: usize,
    /// The worker's share of the wire.
    pub wire: Wire,
    /// What capture sessions want to see.
    pub mirrors: Mirrors,
    /// The classes, if the policy has any.
    pub shaper: Option<Box<Shaper>>,
    /// Where the frames of the burst that is delivered wait, if they go to the wire.
    pub backlog: Backlog,
    /// What those frames are marked with that need not wait.
    pub mark: Mark,
    /// Frames, and their bytes, of the last burst that went to the wire at once. Only known with classes.
    pub sent: (u32, u64),
    /// What waits in classes.
    pub(crate) store: FrameStore,
    /// What waited in classes that are no more.
    pub(crate) draining: VecDeque<Waiting>,
    /// What a queue has just given. Holds a batch at most.
    pub(crate) ready: Vec<Waiting>,
    /// The worker that sends for this one, if it has no TX queue.
    pub(crate) sender: usize,
    pub(crate) mesh: Mesh,
    pub(crate) pool: Pool,
    pub(crate) counters: Arc<WorkerCounters>,
    /// By port number. Fixed in size.
    pub ports: Box<[Option<Box<WorkerPort>>]>,
    /// RX rings with frames to be published. Holds each ring at most once.
    pub(crate) dirty: Vec<(PortId, u16)>,
    /// Apps that may sleep and were shown frames. Holds each at most once.
    pub(crate) pending_kick: Vec<PortId>,
    /// What the thread that wakes them is to do.
    pub(crate) requests: WakeRequests,
    /// Apps whose RX ring showed a fault. Holds each at most once.
    pub(crate) faults: Vec<(PortId, PeerFault)>,
    /// How many ICMP errors there may be.
    pub(crate) answers: ReplyLimit,
    pub(crate) routes: [Route; Batch::MAX],
    pub(crate) completed: Batch,
}

impl Outputs {
    /// Delivers for worker `index`. `sender` is the worker that sends for it if `wire` has no TX queue; `hz` are the ticks of
    /// the clock in a second.
    #[must_use]
    pub fn new(
        index: usize,
        (max_ports, hz): (usize, u64),
        wire: Wire,
        sender: usize,
        mesh: Mesh,
        pool: Pool,
        counters: Arc<WorkerCounters>,
    ) -> Self {
        let answers = ReplyLimit::new(mesh.workers(), max_ports, hz);
        let queue = |worker: usize| u8::try_from(worker).unwrap_or(u8::MAX);
        Self {
            index,
            handed: 0,
            queues: [queue(index), queue(if wire.sends() { index } else { sender })],
            workers: mesh.workers(),
            answers,
            wire,
            mirrors: Mirrors::new(),
            shaper: None,
            backlog: Backlog::AppRing(0),
            mark: Mark::NONE,
            sent: (0, 0),
            store: FrameStore::new(WAITING, WAITING_FLOWS),
            draining: VecDeque::with_capacity(WAITING),
            ready: Vec::with_capacity(Batch::MAX),
            sender,
            mesh,
            pool,
            counters,
            ports: (0..max_ports).map(|_| None).collect(),
            dirty: Vec::with_capacity(max_ports * kopi_ring::layout::MAX_QUEUES),
            pending_kick: Vec::with_capacity(max_ports),
            requests: WakeRequests::default(),
            faults: Vec::with_capacity(max_ports),
            routes: [Route::Free; Batch::MAX],
            completed: Batch::new(),
        }
    }

    /// The same, which has sleeping apps woken by `requests`.
    #[must_use]
    pub fn waking(self, requests: WakeRequests) -> Self {
        Self { requests, ..self }
    }

    /// The rings of port `id` here.
    #[inline]
    pub fn port_mut(&mut self, id: PortId) -> Option<&mut WorkerPort> {
        self.ports.get_mut(usize::from(id)).and_then(Option::as_deref_mut)
    }

    /// Takes a port in, and returns the one that it replaces.
    pub fn insert(&mut self, port: Box<WorkerPort>) -> Option<Box<WorkerPort>> {
        self.ports.get_mut(usize::from(port.id)).and_then(|slot| slot.replace(port))
    }

    /// Lets go of a port.
    pub fn remove(&mut self, id: PortId) -> Option<Box<WorkerPort>> {
        if let Some(tree) = self.tree(Direction::Egress) {
            tree.unlink(id);
        }
        self.ports.get_mut(usize::from(id)).and_then(Option::take)
    }

    /// Whether a whole burst from an app can be sent on: if not, the app's ring is left alone until it can.
    #[inline]
    #[must_use]
    pub fn takes_burst(&self) -> bool {
        if self.wire.sends() { self.wire.is_clear() } else { self.mesh.has_room(self.sender, Batch::MAX) }
    }

    /// Bytes that this worker has given to the wire so far, or to another worker for it, whether they were taken or not.
    #[inline]
    #[must_use]
    pub fn given(&self) -> u64 {
        let taken = self.counters.ports.first().map_or(0, |counters| counters.tx_bytes.get());
        let waiting: u64 = self.wire.waiting().iter().map(|mbuf| u64::from(mbuf.len())).sum();
        taken + waiting + self.handed
    }

    /// By what frames are told to capture sessions.
    #[inline]
    #[must_use]
    pub fn view<'a>(&self, snapshot: &'a Snapshot, policy_counters: &'a PolicyCounters, now: u64) -> View<'a> {
        let (epoch, wire_up, queues) = (snapshot.epoch(), snapshot.fib().wire_up(), self.queues);
        View { policy_counters, epoch, rss: snapshot.rss(), now, wire_up, queues }
    }

    #[cold]
    pub(crate) fn note_fault(&mut self, id: PortId, fault: PeerFault) {
        if self.faults.iter().all(|(other, _)| *other != id) {
            self.faults.push((id, fault));
        }
    }

    #[inline]
    pub(crate) fn towards_wire(&self) -> Route {
        if self.wire.sends() { Route::Wire } else { Route::Worker(self.sender, Target::Wire) }
    }

    /// Shows capture sessions a frame that app `id` gets, or for which reason it does not, and that no burst shows.
    pub(crate) fn show(
        &mut self,
        id: PortId,
        outcome: Result<(), DropReason>,
        counter_id: CounterId,
        mbuf: &Mbuf,
        queue: u8,
        view: &View<'_>,
    ) {
        if !self.mirrors.is_empty() {
            let record = match outcome {
                Ok(()) => PacketRecord::passed(id, false, id),
                Err(reason) => PacketRecord::dropped(id, false, id, reason),
            };
            self.mirrors.mirror_one(record, counter_id, mbuf, queue, view);
        }
    }

    /// Puts a frame into an RX ring of ours, unpublished.
    ///
    /// # Errors
    ///
    /// Why the app does not get it, which is counted already.
    #[inline]
    pub(crate) fn push(&mut self, frame: &[u8], id: PortId, ring: u16, notes: Notes) -> Result<(), DropReason> {
        let Some(counters) = self.counters.ports.get(usize::from(id)) else { return Err(DropReason::PortGone) };
        let port = self.ports.get_mut(usize::from(id)).and_then(Option::as_deref_mut);
        let Some(rx) = port.and_then(|port| port.rx.get_mut(usize::from(ring))).and_then(Option::as_mut) else {
            counters.drop(DropReason::PortGone, 1);
            return Err(DropReason::PortGone);
        };
        let len = u32::try_from(frame.len()).unwrap_or(u32::MAX);
        let slots = rx.ring.slots_for(len);
        match rx.ring.free(slots) {
            Ok(free) if free >= slots && rx.ring.push(frame, notes) => {
                counters.rx_packets.add(1);
                counters.rx_bytes.add(len.into());
                if !rx.dirty {
                    rx.dirty = true;
                    self.dirty.push((id, ring));
                }
                Ok(())
            }
            Ok(_) => {
                counters.drop(DropReason::RxRingFull, 1);
                Err(DropReason::RxRingFull)
            }
            Err(fault) => {
                counters.drop(DropReason::PortGone, 1);
                self.note_fault(id, fault);
                Err(DropReason::PortGone)
            }
        }
    }

    /// Shows the apps what was pushed.
    #[inline]
    pub(crate) fn publish(&mut self) {
        while let Some((id, ring)) = self.dirty.pop() {
            let port = self.ports.get_mut(usize::from(id)).and_then(Option::as_deref_mut);
            let Some(port) = port else { continue };
            if let Some(rx) =
                will_kick(&mut self.pending_kick, port).rx.get_mut(usize::from(ring)).and_then(Option::as_mut)
            {
                rx.dirty = false;
                rx.ring.publish();
            }
        }
    }

    /// Lets everything go that waits for the end of a burst.
    pub(crate) fn flush(&mut self) {
        self.completed.free_all();
        if let Some(counters) = self.counters.ports.first() {
            self.wire.flush(counters);
        }
        self.publish();
    }

    /// Retries what the wire did not take; with the wire down there is no point in waiting.
    #[inline]
    pub fn flush_wire(&mut self, view: &View<'_>) {
        if let Some(counters) = self.counters.ports.first() {
            self.wire.flush(counters);
            if !view.wire_up {
                self.mirrors.mirror_discarded(self.wire.waiting(), DropReason::WireDown, view);
                self.wire.give_up(counters, DropReason::WireDown);
            }
        }
    }

    /// The next app whose RX ring showed a fault.
    #[inline]
    pub fn take_fault(&mut self) -> Option<(PortId, PeerFault)> {
        self.faults.pop()
    }

    /// Accounts for everything that is still under way when the worker ends. All workers end together: each lets go of
    /// its queues to the others first, and takes in what they sent until they have let go, too.
    pub fn finish(&mut self, view: &View<'_>) {
        self.give_up_waiting(view);
        self.mesh.close();
        loop {
            let alone = self.mesh.is_closed();
            loop {
                if let Some(counters) = self.counters.ports.first() {
                    self.wire.flush(counters);
                    self.mirrors.mirror_discarded(self.wire.waiting(), DropReason::WireTxFull, view);
                    self.wire.give_up(counters, DropReason::WireTxFull);
                }
                self.note_idle();
                if self.serve_senders(view) + self.serve_workers(view) == 0 {
                    break;
                }
            }
            if alone {
                break;
            }
            std::hint::spin_loop();
        }
        self.ports.iter_mut().for_each(|slot| drop(slot.take()));
    }

    pub(crate) fn count_copies(&self, source: PortId, copies: u64) {
        if let Some(counters) = self.counters.ports.get(usize::from(source)) {
            counters.copies.add(copies);
        }
    }

    /// Counts a frame that app `id` does not get, and returns why.
    pub(crate) fn refuse_for(&self, id: PortId, reason: DropReason) -> DropReason {
        self.drop_for(id, reason, 1);
        reason
    }

    #[inline]
    pub(crate) fn drop_for(&self, id: PortId, reason: DropReason, frames: u64) {
        count_drop(&self.counters, id, reason, frames);
    }
}

/// Counts `frames` that port `id` has lost for this reason.
pub(crate) fn count_drop(counters: &WorkerCounters, id: PortId, reason: DropReason, frames: u64) {
    if let Some(counters) = counters.ports.get(usize::from(id)) {
        PortCounters::drop(counters, reason, frames);
    }
}
