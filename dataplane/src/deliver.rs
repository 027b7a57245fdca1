//! The last stage: frames go to where their verdict says.

use crate::burst::Burst;
use crate::counters::{PortCounters, WorkerCounters};
use crate::forwarding::{Forwarding, PortId, Verdict, WIRE};
use crate::gate::Gate;
use crate::handoff::{Handoff, Mesh, Target};
use crate::port::{WorkerPort, worker_of};
use crate::wire::Wire;
use dpdk::{Batch, Mbuf, Pool};
use kopi_packet::reply;
use kopi_ring::layout::Notes;
use kopi_ring::{DropReason, PeerFault};
use std::ops::Range;
use std::sync::Arc;

/// Protocol number of TCP.
const TCP: u8 = 6;

/// What happens to a frame's buffer once its copies are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Route {
    /// It is done with.
    Free,
    /// It goes on the wire.
    Wire,
    /// Another worker takes it.
    Worker(usize, Target),
}

/// A burst that is delivered, and what is asked about it.
struct Scene<'a> {
    burst: &'a Burst,
    source: PortId,
    forwarding: &'a Forwarding,
    gate: &'a mut Gate,
    now: u64,
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
    workers: usize,
    /// The worker's share of the wire.
    pub wire: Wire,
    /// The worker that sends for this one, if it has no TX queue.
    sender: usize,
    mesh: Mesh,
    pool: Pool,
    counters: Arc<WorkerCounters>,
    /// By port number. Fixed in size.
    ports: Box<[Option<Box<WorkerPort>>]>,
    /// RX rings with frames to be published. Holds each ring at most once.
    dirty: Vec<(PortId, u16)>,
    /// Apps whose RX ring showed a fault. Holds each at most once.
    faults: Vec<(PortId, PeerFault)>,
    routes: [Route; Batch::MAX],
    spent: Batch,
}

impl Delivery {
    /// Delivers for worker `index`. `sender` is the worker that sends for it if `wire` has no TX queue.
    #[must_use]
    pub fn new(
        index: usize,
        max_ports: usize,
        wire: Wire,
        sender: usize,
        mesh: Mesh,
        pool: Pool,
        counters: Arc<WorkerCounters>,
    ) -> Self {
        Self {
            index,
            workers: mesh.out.len(),
            wire,
            sender,
            mesh,
            pool,
            counters,
            ports: (0..max_ports).map(|_| None).collect(),
            dirty: Vec::with_capacity(max_ports * kopi_ring::layout::MAX_QUEUES),
            faults: Vec::with_capacity(max_ports),
            routes: [Route::Free; Batch::MAX],
            spent: Batch::new(),
        }
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
    pub fn deliver(&mut self, burst: &mut Burst, source: PortId, forwarding: &Forwarding, gate: &mut Gate, now: u64) {
        let n = burst.batch.len();
        let mut fates = Fates { to_wire: 0, to_workers: 0 };
        let mut start = 0;
        while let Some((verdict, end)) = burst.run(start) {
            match verdict {
                Verdict::Wire => {
                    let route = self.towards_wire();
                    self.routes.get_mut(start..end).unwrap_or_default().fill(route);
                    fates.to_wire += end - start;
                }
                Verdict::App(id) => self.run_to_app(burst, start..end, id, forwarding, &mut fates),
                Verdict::Drop(reason) => self.drop_run(start..end, source, reason),
                Verdict::Refuse(id, reason) => self.drop_run(start..end, id, reason),
                Verdict::Reject(id) => {
                    self.drop_run(start..end, id, DropReason::Rejected);
                    burst.batch.iter().take(end).skip(start).for_each(|mbuf| self.answer(mbuf.data(), source));
                }
                Verdict::Group | Verdict::Promiscuous => {
                    let mut scene = Scene { burst, source, forwarding, gate, now };
                    for at in start..end {
                        let route = self.spread(&mut scene, at, verdict);
                        self.set_route(at, route, &mut fates);
                    }
                }
            }
            start = end;
        }
        if fates.to_wire == n && self.wire.sends() {
            if let Some(counters) = self.counters.ports.first() {
                self.wire.send_all(&mut burst.batch, counters);
            }
        } else if fates.to_wire + fates.to_workers == 0 {
            burst.batch.free_all();
        } else {
            self.send_each(&mut burst.batch, source);
        }
        self.publish();
    }

    fn drop_run(&mut self, run: Range<usize>, account: PortId, reason: DropReason) {
        let frames = run.len() as u64;
        self.routes.get_mut(run).unwrap_or_default().fill(Route::Free);
        self.drop_for(account, reason, frames);
    }

    /// Tells the sender of a frame from port `source` that it was rejected, as iptables' REJECT does. The answer counts as
    /// a copy: a frame that came into being here.
    #[cold]
    fn answer(&mut self, frame: &[u8], source: PortId) {
        let (headers, key) = kopi_packet::parse(frame, source);
        let mut bytes = [0; reply::MAX_LEN];
        let len = reply::tcp_reset(frame, &headers, &mut bytes).or_else(|| {
            let wanted = key.proto() != TCP;
            wanted.then(|| reply::unreachable(frame, &headers, &mut bytes)).flatten()
        });
        let Some(answer) = len.and_then(|len| bytes.get(..len)) else { return };
        if source != WIRE {
            // Into the first queue: nothing is known of the flow that the answer belongs to.
            self.answer_app(answer, source);
        } else if let Some(mbuf) = self.pool.take().and_then(|mut mbuf| mbuf.fill(answer).then_some(mbuf)) {
            self.answer_wire(mbuf);
        }
    }

    fn answer_app(&mut self, answer: &[u8], id: PortId) {
        let Some(port) = self.port_mut(id).filter(|port| port.rx_queues > 0) else { return };
        let (generation, owner) = (port.generation, worker_of(id, 0, self.workers));
        if owner == self.index {
            self.count_copies(id, 1);
            self.push(answer, id, 0, Notes::NONE);
        } else if let Some(mbuf) = self.pool.take().and_then(|mut mbuf| mbuf.fill(answer).then_some(mbuf)) {
            let target = Target::App { id, generation, queue: 0, notes: Notes::NONE };
            let sent = self.mesh.send(owner, Handoff { mbuf, target }).is_ok();
            self.count_copies(id, sent.into());
        }
    }

    fn answer_wire(&mut self, mbuf: Mbuf) {
        let sent = match self.counters.ports.first() {
            Some(counters) if self.wire.sends() => {
                self.wire.send(mbuf, counters);
                self.wire.flush(counters);
                true
            }
            _ => self.mesh.send(self.sender, Handoff { mbuf, target: Target::Wire }).is_ok(),
        };
        self.count_copies(WIRE, sent.into());
    }

    #[inline]
    fn set_route(&mut self, at: usize, route: Route, fates: &mut Fates) {
        match route {
            Route::Free => {}
            Route::Wire => fates.to_wire += 1,
            Route::Worker(..) => fates.to_workers += 1,
        }
        if let Some(slot) = self.routes.get_mut(at) {
            *slot = route;
        }
    }

    /// A run of frames to one app. With one RX ring, and that ours, the ring is looked up and published once.
    fn run_to_app(&mut self, burst: &Burst, run: Range<usize>, id: PortId, f: &Forwarding, fates: &mut Fates) {
        let index = self.index;
        let workers = self.workers;
        let max_frame = u32::from(f.max_frame(id));
        let counters = self.counters.ports.get(usize::from(id));
        let port = self.ports.get_mut(usize::from(id)).and_then(Option::as_deref_mut);
        let single = port.filter(|port| port.rx_queues == 1 && worker_of(id, 0, workers) == index);
        let rx = single.and_then(|port| port.rx.first_mut()).and_then(Option::as_mut);
        let (Some(rx), Some(counters)) = (rx, counters) else {
            for at in run {
                let route = self.deliver_to_app(burst, at, id, f, false);
                self.set_route(at, route, fates);
            }
            return;
        };
        self.routes.get_mut(run.clone()).unwrap_or_default().fill(Route::Free);
        let (mut packets, mut bytes, mut full, mut oversize) = (0, 0, 0, 0);
        let mut chained = false;
        // The app's counter is looked at once: for a full ring once a frame would mean one cache miss a frame.
        let wanted = u32::try_from(run.len()).unwrap_or(u32::MAX);
        let mut fault = rx.ring.free(wanted).err();
        for (at, mbuf) in burst.batch.iter().enumerate().take(run.end).skip(run.start) {
            let len = mbuf.len();
            if fault.is_some() {
                break;
            } else if len > max_frame {
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
                    Ok(_) => full += 1,
                    Err(found) => fault = Some(found),
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
    }

    fn spread(&mut self, scene: &mut Scene<'_>, at: usize, verdict: Verdict) -> Route {
        match verdict {
            Verdict::Group => self.deliver_to_group(scene, at),
            _ => self.deliver_to_many(scene, at),
        }
    }

    #[cold]
    fn note_fault(&mut self, id: PortId, fault: PeerFault) {
        if self.faults.iter().all(|(other, _)| *other != id) {
            self.faults.push((id, fault));
        }
    }

    fn send_each(&mut self, batch: &mut Batch, source: PortId) {
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
                Route::Worker(worker, target) => {
                    if self.mesh.send(worker, Handoff { mbuf, target }).is_err() {
                        let blamed = match target {
                            Target::Wire => source,
                            Target::App { id, .. } => id,
                        };
                        count_drop(&self.counters, blamed, DropReason::HandoffFull, 1);
                    }
                }
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

    /// To one app: into its ring if the ring is ours, else by way of its worker. With `copy`, the burst's own buffer is
    /// needed elsewhere, so another worker gets a copy.
    #[inline]
    fn deliver_to_app(&mut self, burst: &Burst, at: usize, id: PortId, forwarding: &Forwarding, copy: bool) -> Route {
        let Some(mbuf) = burst.batch.get(at) else { return Route::Free };
        if mbuf.len() > u32::from(forwarding.max_frame(id)) {
            self.drop_for(id, DropReason::Oversize, 1);
            return Route::Free;
        }
        let notes = burst.notes(at);
        let Some(port) = self.ports.get_mut(usize::from(id)).and_then(Option::as_deref_mut) else {
            self.drop_for(id, DropReason::PortGone, 1);
            return Route::Free;
        };
        let queue = port.queue_for(burst.rss(at));
        let generation = port.generation;
        let owner = worker_of(id, queue, self.workers);
        if owner == self.index {
            self.push(mbuf.data(), id, queue, notes);
            return Route::Free;
        }
        let target = Target::App { id, generation, queue, notes };
        if !copy {
            return Route::Worker(owner, target);
        }
        let Some(clone) = self.pool.take().and_then(|mut clone| clone.fill(mbuf.data()).then_some(clone)) else {
            self.drop_for(id, DropReason::NoMbuf, 1);
            return Route::Free;
        };
        if self.mesh.send(owner, Handoff { mbuf: clone, target }).is_err() {
            self.drop_for(id, DropReason::HandoffFull, 1);
        }
        Route::Free
    }

    fn deliver_to_group(&mut self, scene: &mut Scene<'_>, at: usize) -> Route {
        let (source, forwarding) = (scene.source, scene.forwarding);
        let listeners = forwarding.listeners(&scene.burst.destination(at));
        let copies = self.copy_to(scene, at, listeners);
        let to_wire = source != WIRE && forwarding.wire_up();
        match (to_wire, copies) {
            (true, copies) => {
                self.count_copies(source, copies);
                self.towards_wire()
            }
            (false, 0) => {
                let reason = if source == WIRE { DropReason::NoListener } else { DropReason::WireDown };
                self.drop_for(source, reason, 1);
                Route::Free
            }
            (false, copies) => {
                self.count_copies(source, copies - 1);
                Route::Free
            }
        }
    }

    fn deliver_to_many(&mut self, scene: &mut Scene<'_>, at: usize) -> Route {
        let source = scene.source;
        match self.copy_to(scene, at, scene.forwarding.promiscuous()) {
            0 => self.drop_for(source, DropReason::NoListener, 1),
            copies => self.count_copies(source, copies - 1),
        }
        Route::Free
    }

    /// Copies a frame to all of `ports` but its source, as far as the policy lets each have it, and returns to how many.
    fn copy_to(&mut self, scene: &mut Scene<'_>, at: usize, ports: &[PortId]) -> u64 {
        let Scene { burst, source, forwarding, now, .. } = *scene;
        let Some(mbuf) = burst.batch.get(at) else { return 0 };
        let mut copies = 0;
        for id in ports.iter().copied().filter(|id| *id != source) {
            match scene.gate.admit(mbuf.data(), &burst.key(at), id, forwarding, now) {
                Ok(()) => {
                    let route = self.deliver_to_app(burst, at, id, forwarding, true);
                    debug_assert_eq!(route, Route::Free);
                }
                Err(reason) => self.drop_for(id, reason, 1),
            }
            copies += 1;
        }
        copies
    }

    /// Puts a frame into an RX ring of ours, unpublished.
    #[inline]
    fn push(&mut self, frame: &[u8], id: PortId, queue: u16, notes: Notes) {
        let Some(counters) = self.counters.ports.get(usize::from(id)) else { return };
        let port = self.ports.get_mut(usize::from(id)).and_then(Option::as_deref_mut);
        let Some(rx) = port.and_then(|port| port.rx.get_mut(usize::from(queue))).and_then(Option::as_mut) else {
            counters.drop(DropReason::PortGone, 1);
            return;
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
            }
            Ok(_) => counters.drop(DropReason::RxRingFull, 1),
            Err(fault) => {
                counters.drop(DropReason::PortGone, 1);
                self.note_fault(id, fault);
            }
        }
    }

    /// Shows the apps what was pushed.
    #[inline]
    fn publish(&mut self) {
        while let Some((id, queue)) = self.dirty.pop() {
            let rx = self.port_mut(id).and_then(|port| port.rx.get_mut(usize::from(queue))).and_then(Option::as_mut);
            if let Some(rx) = rx {
                rx.dirty = false;
                rx.ring.publish();
            }
        }
    }

    /// Delivers what other workers have judged, up to a burst from each, and returns how many frames moved.
    #[inline]
    pub fn serve_workers(&mut self) -> usize {
        let mut moved = 0;
        for worker in 0..self.mesh.inbox.len() {
            for _ in 0..Batch::MAX {
                let Some(inbox) = self.mesh.inbox.get_mut(worker).and_then(Option::as_mut) else { break };
                match inbox.peek() {
                    // Frames for a busy wire wait where they are, and their sender stops draining its apps.
                    Ok(handoff) if handoff.target == Target::Wire && !self.wire.is_clear() => break,
                    Ok(_) => {}
                    Err(_) => break,
                }
                let Ok(Handoff { mbuf, target }) = inbox.pop() else { break };
                moved += 1;
                self.arrive(mbuf, target);
            }
        }
        if moved > 0 {
            self.publish();
            self.spent.free_all();
        }
        moved
    }

    fn arrive(&mut self, mbuf: Mbuf, target: Target) {
        match target {
            Target::Wire => {
                if let Some(counters) = self.counters.ports.first() {
                    self.wire.send(mbuf, counters);
                    self.wire.flush(counters);
                }
            }
            Target::App { id, generation, queue, notes } => {
                if self.port_mut(id).is_some_and(|port| port.generation == generation) {
                    self.push(mbuf.data(), id, queue, notes);
                } else {
                    self.drop_for(id, DropReason::PortGone, 1);
                }
                if let Err(mbuf) = self.spent.push(mbuf) {
                    self.spent.free_all();
                    drop(mbuf);
                }
            }
        }
    }

    /// Retries what the wire did not take; with the wire down there is no point in waiting.
    #[inline]
    pub fn end_turn(&mut self, wire_up: bool) {
        if self.wire.is_clear() {
            return;
        }
        if let Some(counters) = self.counters.ports.first() {
            self.wire.flush(counters);
            if !wire_up {
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
    pub fn finish(&mut self) {
        self.mesh.out.clear();
        loop {
            let alone = self.mesh.inbox.iter().flatten().all(rtrb::Consumer::is_abandoned);
            loop {
                if let Some(counters) = self.counters.ports.first() {
                    self.wire.flush(counters);
                    self.wire.give_up(counters, DropReason::WireTxFull);
                }
                if self.serve_workers() == 0 {
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

    #[inline]
    fn drop_for(&self, id: PortId, reason: DropReason, frames: u64) {
        count_drop(&self.counters, id, reason, frames);
    }
}

fn count_drop(counters: &WorkerCounters, id: PortId, reason: DropReason, frames: u64) {
    if let Some(counters) = counters.ports.get(usize::from(id)) {
        PortCounters::drop(counters, reason, frames);
    }
}
