//! The last stage: frames go to where their verdict says.

mod answer;
mod copies;
mod limit;
mod shaped;
mod sleepers;
mod workers;

use crate::control::app_waker::WakeRequests;
use crate::ids::{PortId, Verdict};
use crate::policy_counters::CounterId;
use crate::snapshot::Snapshot;
use crate::stages::mirror::{Sighting, Taps, View};
use crate::stages::policy::PolicyStage;
use crate::stages::shape::{Shaper, Source, Waiting, Waits};
use crate::worker::burst::{Burst, fill};
use crate::worker::counters::{PortCounters, WorkerCounters};
use crate::worker::handoff::{Handoff, Mesh, Target};
use crate::worker::port::{WorkerPort, worker_of};
use crate::worker::wire::Wire;
use copies::ReplicateCtx;
use dpdk::{Batch, Mbuf, Pool};
use kopi_config::policy::Direction;
use kopi_packet::mark::Mark;
use kopi_ring::layout::Notes;
use kopi_ring::{DropReason, PeerFault, Producer};
use limit::AnswerLimit;
use sleepers::note_shown;
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

/// Frames that wait in classes, at one worker.
const WAITING: usize = 8192;
/// Flows of these.
const WAITING_FLOWS: usize = 4096;
/// Frames for which it pays to prepare for a run.
const RUN: usize = 4;

/// What happens to a frame's buffer once its copies are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Route {
    /// It is done with.
    Free,
    /// It goes on the wire.
    Wire,
    /// Another worker takes it.
    Worker(usize, Target),
    /// It waits in the queue of a leaf of the classes of ingress.
    Queue(u32, Target),
}

/// How many buffers of a burst are needed beyond it.
#[derive(Debug)]
struct Fates {
    to_wire: usize,
    to_workers: usize,
}

/// Everything that one worker can deliver to.
#[derive(Debug)]
pub struct Delivery {
    index: usize,
    /// The queues of the wire that it has, or another one has for it: RX and TX.
    queues: [u8; 2],
    /// Bytes for the wire that were handed to another worker.
    handed: u64,
    workers: usize,
    /// The worker's share of the wire.
    pub wire: Wire,
    /// What capture sessions want to see.
    pub taps: Taps,
    /// The classes, if the policy has any.
    pub shaper: Option<Box<Shaper>>,
    /// Where the frames of the burst that is delivered wait, if they go to the wire.
    pub source: Source,
    /// What those frames are marked with that need not wait.
    pub mark: Mark,
    /// Frames, and their bytes, of the last burst that went to the wire at once. Only known with classes.
    pub sent: (u32, u64),
    /// What waits in classes.
    waits: Waits,
    /// What waited in classes that are no more.
    orphans: VecDeque<Waiting>,
    /// What a queue has just given. Holds a batch at most.
    ready: Vec<Waiting>,
    /// The worker that sends for this one, if it has no TX queue.
    sender: usize,
    mesh: Mesh,
    pool: Pool,
    counters: Arc<WorkerCounters>,
    /// By port number. Fixed in size.
    ports: Box<[Option<Box<WorkerPort>>]>,
    /// RX rings with frames to be published. Holds each ring at most once.
    dirty: Vec<(PortId, u16)>,
    /// Apps that may sleep and were shown frames. Holds each at most once.
    shown: Vec<PortId>,
    /// What the thread that wakes them is to do.
    requests: WakeRequests,
    /// Apps whose RX ring showed a fault. Holds each at most once.
    faults: Vec<(PortId, PeerFault)>,
    /// How many ICMP errors there may be.
    answers: AnswerLimit,
    routes: [Route; Batch::MAX],
    spent: Batch,
}

impl Delivery {
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
        let answers = AnswerLimit::new(mesh.workers(), max_ports, hz);
        let queue = |worker: usize| u8::try_from(worker).unwrap_or(u8::MAX);
        Self {
            index,
            handed: 0,
            queues: [queue(index), queue(if wire.sends() { index } else { sender })],
            workers: mesh.workers(),
            answers,
            wire,
            taps: Taps::new(),
            shaper: None,
            source: Source::Ring(0),
            mark: Mark::NONE,
            sent: (0, 0),
            waits: Waits::new(WAITING, WAITING_FLOWS),
            orphans: VecDeque::with_capacity(WAITING),
            ready: Vec::with_capacity(Batch::MAX),
            sender,
            mesh,
            pool,
            counters,
            ports: (0..max_ports).map(|_| None).collect(),
            dirty: Vec::with_capacity(max_ports * kopi_ring::layout::MAX_QUEUES),
            shown: Vec::with_capacity(max_ports),
            requests: WakeRequests::default(),
            faults: Vec::with_capacity(max_ports),
            routes: [Route::Free; Batch::MAX],
            spent: Batch::new(),
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
        if let Some(lane) = self.lane(Direction::Egress) {
            lane.unlink(id);
        }
        self.ports.get_mut(usize::from(id)).and_then(Option::take)
    }

    /// Whether a whole burst from an app can be sent on: if not, the app's ring is left alone until it can.
    #[inline]
    #[must_use]
    pub fn takes_burst(&self) -> bool {
        if self.wire.sends() { self.wire.is_clear() } else { self.mesh.has_room(self.sender, Batch::MAX) }
    }

    /// Sends every frame of `burst`, from port `source`, where its verdict says, and leaves the burst empty.
    ///
    /// Frames of a burst mostly go the same way, so runs of equal verdicts are handled at once.
    pub fn deliver(
        &mut self,
        burst: &mut Burst,
        source: PortId,
        snapshot: &Snapshot,
        policy_stage: &mut PolicyStage,
        now: u64,
    ) {
        let n = burst.batch.len();
        let mut fates = Fates { to_wire: 0, to_workers: 0 };
        let mut start = 0;
        while let Some((verdict, end)) = burst.run(start) {
            match verdict {
                Verdict::Wire => {
                    let route = self.towards_wire();
                    fill(&mut self.routes, start..end, route);
                    fates.to_wire += end - start;
                }
                Verdict::App(id) if self.shaper.is_some() && self.queue_to_app(burst, start..end, id) => {}
                Verdict::App(id) => self.run_to_app(burst, start..end, id, snapshot, &mut fates),
                Verdict::Drop(reason) => self.drop_run(start..end, source, reason),
                Verdict::Refuse(id, reason) => self.drop_run(start..end, id, reason),
                Verdict::Reject(id) => {
                    self.drop_run(start..end, id, DropReason::Rejected);
                    let view = self.view(snapshot, policy_stage, now);
                    let limited =
                        snapshot.policies().is_some_and(|filter| filter.ruleset().policy().default.limits_answers);
                    for mbuf in burst.batch.iter().take(end).skip(start) {
                        self.answer(mbuf.data(), (source, id), limited, &view);
                    }
                }
                Verdict::Group | Verdict::Promiscuous => {
                    let mut ctx = ReplicateCtx { burst, source, snapshot, policy_stage, now };
                    for at in start..end {
                        let route = self.spread(&mut ctx, at, verdict);
                        self.set_route(at, route, &mut fates);
                    }
                }
            }
            start = end;
        }
        let view = self.view(snapshot, policy_stage, now);
        if !self.taps.is_empty() {
            // The buffers are still here, and what becomes of each frame is known.
            self.taps.see(burst, source, &self.ports, &view);
        }
        if self.shaper.is_some() {
            let whole = fates.to_wire == n && self.wire.sends();
            self.send_shaped(burst, source, whole, &view);
        } else if fates.to_wire == n && self.wire.sends() {
            if let Some(counters) = self.counters.ports.first() {
                self.wire.send_all(&mut burst.batch, counters);
            }
        } else if fates.to_wire + fates.to_workers == 0 {
            burst.batch.free_all();
        } else {
            self.send_each(&mut burst.batch, source, &view);
        }
        self.publish();
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
    pub fn view<'a>(&self, snapshot: &Snapshot, policy_stage: &'a PolicyStage, now: u64) -> View<'a> {
        let (epoch, wire_up, queues) = (snapshot.epoch(), snapshot.fib().wire_up(), self.queues);
        View { policy_counters: policy_stage.policy_counters(), epoch, now, wire_up, queues }
    }

    fn drop_run(&mut self, run: Range<usize>, account: PortId, reason: DropReason) {
        let frames = run.len() as u64;
        fill(&mut self.routes, run, Route::Free);
        self.drop_for(account, reason, frames);
    }

    #[inline]
    fn set_route(&mut self, at: usize, route: Route, fates: &mut Fates) {
        match route {
            Route::Free => {}
            Route::Wire => fates.to_wire += 1,
            Route::Worker(..) | Route::Queue(..) => fates.to_workers += 1,
        }
        if let Some(slot) = self.routes.get_mut(at) {
            *slot = route;
        }
    }

    /// A run of frames to one app. With one RX ring, and that ours, the ring is looked up and published once.
    fn run_to_app(&mut self, burst: &mut Burst, run: Range<usize>, id: PortId, f: &Snapshot, fates: &mut Fates) {
        let (index, workers) = (self.index, self.workers);
        let max_frame = u32::from(f.fib().max_frame(id));
        let counters = self.counters.ports.get(usize::from(id));
        let port = self.ports.get_mut(usize::from(id)).and_then(Option::as_deref_mut);
        let single = port.filter(|port| port.rx_queues == 1 && worker_of(id, 0, workers) == index);
        let rx = single.and_then(|port| note_shown(&mut self.shown, port).rx.first_mut()).and_then(Option::as_mut);
        let (Some(rx), Some(counters)) = (rx, counters) else {
            return self.each_to_app(burst, run, id, f, fates);
        };
        fill(&mut self.routes, run.clone(), Route::Free);
        let (mut full, mut oversize) = (0, 0);
        // Frames that were refused, a bit each: for a full ring, and for their length.
        let (mut refused, mut long) = (0_u32, 0_u32);
        let mut done = run.end;
        let mut chained = false;
        // The app's counter is looked at once: for a full ring once a frame would mean one cache miss a frame.
        let wanted = u32::try_from(run.len()).unwrap_or(u32::MAX);
        let mut fault = rx.ring.free(wanted).err();
        let first = if fault.is_none() { push_run(&mut rx.ring, burst, run.clone(), max_frame) } else { run.start };
        let mut packets = (first - run.start) as u64;
        let mut bytes = if packets > 0 { burst.bytes(run.start..first) } else { 0 };
        for (at, mbuf) in burst.batch.iter().enumerate().take(run.end).skip(first) {
            let len = mbuf.len();
            if fault.is_some() {
                done = at;
                break;
            } else if len > max_frame {
                long |= 1 << at;
                oversize += 1;
            } else if rx.ring.push(mbuf.data(), burst.notes(at)) {
                packets += 1;
                bytes += u64::from(len);
                chained |= rx.ring.slots_for(len) > 1;
            } else {
                // Frames of several slots use up more than was asked for, and only then it is worth another look.
                let slots = rx.ring.slots_for(len);
                chained |= slots > 1;
                let room = if chained { rx.ring.free(slots) } else { Ok(0) };
                match room {
                    Ok(free) if free >= slots && rx.ring.push(mbuf.data(), burst.notes(at)) => {
                        packets += 1;
                        bytes += u64::from(len);
                    }
                    Ok(_) => {
                        refused |= 1 << at;
                        full += 1;
                    }
                    Err(found) => {
                        done = at;
                        fault = Some(found);
                    }
                }
            }
        }
        rx.ring.publish();
        counters.rx_packets.add(packets);
        counters.rx_bytes.add(bytes);
        let lost = run.len() as u64 - packets - full - oversize;
        for (reason, frames) in
            [(DropReason::RxRingFull, full), (DropReason::Oversize, oversize), (DropReason::PortGone, lost)]
        {
            if frames > 0 {
                counters.drop(reason, frames);
            }
        }
        if let Some(fault) = fault {
            self.note_fault(id, fault);
        }
        if burst.tapped && lost + full + oversize > 0 {
            amend(burst, run.start..done, refused, Verdict::Refuse(id, DropReason::RxRingFull));
            amend(burst, run.start..done, long, Verdict::Refuse(id, DropReason::Oversize));
            amend(burst, done..run.end, u32::MAX, Verdict::Refuse(id, DropReason::PortGone));
        }
    }

    /// The same, with several RX rings or rings of other workers.
    fn each_to_app(&mut self, burst: &mut Burst, run: Range<usize>, id: PortId, f: &Snapshot, fates: &mut Fates) {
        for at in run {
            let route = self.deliver_to_app(burst, at, id, f, None).unwrap_or_else(|reason| {
                burst.amend(at, Verdict::Refuse(id, reason));
                Route::Free
            });
            self.set_route(at, route, fates);
        }
    }

    #[cold]
    fn note_fault(&mut self, id: PortId, fault: PeerFault) {
        if self.faults.iter().all(|(other, _)| *other != id) {
            self.faults.push((id, fault));
        }
    }

    fn send_each(&mut self, batch: &mut Batch, source: PortId, view: &View<'_>) {
        for (mbuf, route) in batch.drain().zip(self.routes) {
            match route {
                Route::Free => {
                    // It cannot be full: it holds at most one batch.
                    drop(self.spent.push(mbuf));
                }
                Route::Wire => {
                    if let Some(counters) = self.counters.ports.first() {
                        self.wire.send(mbuf, counters);
                    }
                }
                Route::Worker(worker, target) => self.hand_over(worker, Handoff { mbuf, target }, source, view),
                // Without classes nothing waits.
                Route::Queue(..) => drop(mbuf),
            }
        }
        self.spent.free_all();
        if let Some(counters) = self.counters.ports.first() {
            self.wire.flush(counters);
        }
    }

    #[inline]
    fn towards_wire(&self) -> Route {
        if self.wire.sends() { Route::Wire } else { Route::Worker(self.sender, Target::Wire) }
    }

    /// To one app: into its ring if the ring is ours, else by way of its worker. If it is a `copy` of a frame of some port, the
    /// burst's own buffer is needed elsewhere, so another worker gets a buffer of its own.
    ///
    /// # Errors
    ///
    /// Why the app does not get it, which is counted already.
    #[inline]
    fn deliver_to_app(
        &mut self,
        burst: &Burst,
        at: usize,
        id: PortId,
        snapshot: &Snapshot,
        copy: Option<PortId>,
    ) -> Result<Route, DropReason> {
        let Some(mbuf) = burst.batch.get(at) else { return Ok(Route::Free) };
        if mbuf.len() > u32::from(snapshot.fib().max_frame(id)) {
            return Err(self.refuse_for(id, DropReason::Oversize));
        }
        let notes = burst.notes(at);
        let Some(port) = self.ports.get_mut(usize::from(id)).and_then(Option::as_deref_mut) else {
            return Err(self.refuse_for(id, DropReason::PortGone));
        };
        let queue = port.queue_for(burst.rss(at));
        let generation = port.generation;
        let owner = worker_of(id, queue, self.workers);
        if owner == self.index {
            return self.push(mbuf.data(), id, queue, notes).map(|()| Route::Free);
        }
        let target = Target::App { id, generation, queue, notes };
        let Some(source) = copy else { return Ok(Route::Worker(owner, target)) };
        let Some(clone) = self.pool.take().and_then(|mut clone| clone.fill(mbuf.data()).then_some(clone)) else {
            return Err(self.refuse_for(id, DropReason::NoMbuf));
        };
        match self.mesh.send(owner, Handoff { mbuf: clone, target }) {
            Ok(()) => Ok(Route::Free),
            Err(_) => Err(self.refuse_for(workers::blamed(source, target).0, DropReason::HandoffFull)),
        }
    }

    /// Shows capture sessions a frame that app `id` gets, or for which reason it does not, and that no burst shows.
    fn show(
        &mut self,
        id: PortId,
        outcome: Result<(), DropReason>,
        counter_id: CounterId,
        mbuf: &Mbuf,
        queue: u8,
        view: &View<'_>,
    ) {
        if !self.taps.is_empty() {
            let sighting = match outcome {
                Ok(()) => Sighting::passed(id, false, id),
                Err(reason) => Sighting::dropped(id, false, id, reason),
            };
            self.taps.see_one(sighting, counter_id, mbuf, queue, view);
        }
    }

    /// Puts a frame into an RX ring of ours, unpublished.
    ///
    /// # Errors
    ///
    /// Why the app does not get it, which is counted already.
    #[inline]
    fn push(&mut self, frame: &[u8], id: PortId, queue: u16, notes: Notes) -> Result<(), DropReason> {
        let Some(counters) = self.counters.ports.get(usize::from(id)) else { return Err(DropReason::PortGone) };
        let port = self.ports.get_mut(usize::from(id)).and_then(Option::as_deref_mut);
        let Some(rx) = port.and_then(|port| port.rx.get_mut(usize::from(queue))).and_then(Option::as_mut) else {
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
                    self.dirty.push((id, queue));
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
    fn publish(&mut self) {
        while let Some((id, queue)) = self.dirty.pop() {
            let port = self.ports.get_mut(usize::from(id)).and_then(Option::as_deref_mut);
            let Some(port) = port else { continue };
            if let Some(rx) = note_shown(&mut self.shown, port).rx.get_mut(usize::from(queue)).and_then(Option::as_mut)
            {
                rx.dirty = false;
                rx.ring.publish();
            }
        }
    }

    /// Lets everything go that waits for the end of a burst.
    fn flush(&mut self) {
        self.spent.free_all();
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
                self.taps.see_given_up(self.wire.waiting(), DropReason::WireDown, view);
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
                    self.taps.see_given_up(self.wire.waiting(), DropReason::WireTxFull, view);
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

    fn count_copies(&self, source: PortId, copies: u64) {
        if let Some(counters) = self.counters.ports.get(usize::from(source)) {
            counters.copies.add(copies);
        }
    }

    /// Counts a frame that app `id` does not get, and returns why.
    fn refuse_for(&self, id: PortId, reason: DropReason) -> DropReason {
        self.drop_for(id, reason, 1);
        reason
    }

    #[inline]
    fn drop_for(&self, id: PortId, reason: DropReason, frames: u64) {
        count_drop(&self.counters, id, reason, frames);
    }
}

/// Puts the first frames of a run into an app's ring, and returns where the others begin. Mostly there are none: all have a
/// length that the app takes, fit a slot, and find room.
#[inline]
fn push_run(ring: &mut Producer, burst: &Burst, run: Range<usize>, max_frame: u32) -> usize {
    if run.len() < RUN || burst.longest() > max_frame {
        return run.start;
    }
    run.start + ring.push_run(burst.frames(run)) as usize
}

/// Notes what became of those frames of `range` whose bit is set in `frames`.
#[cold]
fn amend(burst: &mut Burst, range: Range<usize>, frames: u32, verdict: Verdict) {
    range.filter(|at| frames >> at & 1 == 1).for_each(|at| burst.amend(at, verdict));
}

fn count_drop(counters: &WorkerCounters, id: PortId, reason: DropReason, frames: u64) {
    if let Some(counters) = counters.ports.get(usize::from(id)) {
        PortCounters::drop(counters, reason, frames);
    }
}
