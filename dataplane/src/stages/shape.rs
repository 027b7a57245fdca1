//! The shape stage: classes: what may go at once, and what waits for its turn.

use crate::ids::{Backlog, PortId};
use crate::rss::Rss;
use crate::stages::mirror::{PacketRecord, View};
use crate::worker::burst::Burst;
use crate::worker::flow_table::Hash;
use crate::worker::handoff::{Handoff, Target};
use crate::worker::outputs::{Outputs, Route, count_drop};
use crate::worker::port::worker_of;
use crate::worker::sched_tree::{Sample, SchedTree, Shaper, Waiting};
use dpdk::{Batch, Mbuf};
use kopi_config::policy::Direction;
use kopi_ring::{DropReason, PeerFault};
use std::ops::Range;

impl Outputs {
    /// The classes of one direction, if they are kept to.
    #[inline]
    pub fn tree(&mut self, direction: Direction) -> Option<&mut SchedTree> {
        self.shaper.as_deref_mut().and_then(|shaper| shaper.tree(direction))
    }

    /// Keeps to `shaper` from now on, and returns what was kept to before. What waits goes on waiting; what waits in a class
    /// that is no more goes as soon as the wire or the app takes it.
    #[cold]
    pub fn reshape(&mut self, shaper: Option<Box<Shaper>>, now: u64) -> Option<Box<Shaper>> {
        let mut old = std::mem::replace(&mut self.shaper, shaper);
        let Self { shaper, store, draining, .. } = self;
        for direction in [Direction::Egress, Direction::Ingress] {
            let before = old.as_deref_mut().and_then(|shaper| shaper.tree(direction));
            let after = shaper.as_deref_mut().and_then(|shaper| shaper.tree(direction));
            // There is room for everything that can wait.
            match (before, after) {
                (Some(before), Some(after)) => after.adopt(before, store, now, |waiting| draining.push_back(waiting)),
                (Some(before), None) => before.drain(store, |waiting| draining.push_back(waiting)),
                (None, _) => {}
            }
        }
        old
    }

    /// Sends what waited in classes that are no more, as far as the wire takes it.
    #[cold]
    pub fn serve_draining(&mut self, view: &View<'_>) -> usize {
        let mut moved = 0;
        while moved < Batch::MAX && self.takes_burst() {
            let Some(Waiting { handoff, charged }) = self.draining.pop_front() else { break };
            self.go(handoff, charged, view);
            moved += 1;
        }
        self.flush();
        moved
    }

    /// Drops everything that waits in classes, when the worker ends.
    pub(crate) fn give_up_waiting(&mut self, view: &View<'_>) {
        drop(self.reshape(None, view.now));
        while let Some(waiting) = self.draining.pop_front() {
            let reason = match waiting.handoff.target {
                Target::Wire => DropReason::WireTxFull,
                Target::App { .. } => DropReason::PortGone,
            };
            count_drop(&self.counters, waiting.charged, reason, 1);
            self.mirrors.mirror_late(late(&waiting, reason), &waiting.handoff.mbuf, 0, view);
        }
    }

    /// Whether app `id` has frames in its rings here.
    ///
    /// # Errors
    ///
    /// The app's fault, if it broke the contract.
    #[inline]
    pub fn has_frames(&mut self, id: PortId) -> Result<bool, PeerFault> {
        let Some(port) = self.port_mut(id) else { return Ok(false) };
        for ring in &mut port.tx {
            if ring.poll()? > 0 {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether app `id` has frames in the rings that come next, `most` of them. Takes those that were looked at from `most`.
    ///
    /// # Errors
    ///
    /// The app's fault, if it broke the contract.
    #[inline]
    pub fn poll(&mut self, id: PortId, most: &mut usize) -> Result<bool, PeerFault> {
        let Some(port) = self.port_mut(id) else { return Ok(false) };
        for _ in 0..port.tx.len().min(*most) {
            *most -= 1;
            if port.tx[port.next_tx].poll()? > 0 {
                return Ok(true);
            }
            port.next_tx = if port.next_tx + 1 < port.tx.len() { port.next_tx + 1 } else { 0 };
        }
        Ok(false)
    }

    /// Whether anything waits in a class that is no more.
    #[inline]
    #[must_use]
    pub fn has_draining(&self) -> bool {
        !self.draining.is_empty()
    }

    /// Sends a burst whose frames have their routes, or has them wait. Notes what went to the wire at once. `whole` if all of
    /// it goes there.
    pub(crate) fn send_shaped(&mut self, burst: &mut Burst, source: PortId, whole: bool, view: &View<'_>) {
        if whole && self.mark.is_none() && matches!(self.backlog, Backlog::AppRing(_)) {
            let frames = u32::try_from(burst.batch.len()).unwrap_or(0);
            self.sent = (frames, burst.bytes);
            if let Some(counters) = self.counters.ports.first() {
                self.wire.send_all(&mut burst.batch, burst.bytes, counters);
            }
            return;
        }
        self.sent = (0, 0);
        let mut batch = std::mem::take(&mut burst.batch);
        for (at, mbuf) in batch.drain().enumerate() {
            match self.routes.get(at).copied().unwrap_or(Route::Free) {
                Route::Free => drop(self.completed.push(mbuf)),
                Route::Wire | Route::Worker(_, Target::Wire) => match self.leaf_at(burst, at) {
                    Some(leaf) => {
                        self.wait(Direction::Egress, leaf, (mbuf, Target::Wire), source, burst.hash(at), view)
                    }
                    None => {
                        self.sent = (self.sent.0 + 1, self.sent.1 + u64::from(mbuf.len()));
                        self.go(Handoff { mbuf: self.marked(mbuf), target: Target::Wire }, source, view);
                    }
                },
                Route::Worker(worker, target) => self.hand_over(worker, Handoff { mbuf, target }, source, view),
                Route::Queue(leaf, target) => {
                    let charged = target.port();
                    self.wait(Direction::Ingress, leaf, (mbuf, target), charged, burst.hash(at), view);
                }
            }
        }
        burst.batch = batch;
        self.flush();
    }

    /// The leaf in whose queue frame `at`, which goes to the wire, has to wait; `None` if the rings of its app are its queue.
    fn leaf_at(&self, burst: &Burst, at: usize) -> Option<u32> {
        let Backlog::ClassQueue(default) = self.backlog else { return None };
        let tree = self.shaper.as_deref()?.egress.as_ref()?;
        Some(tree.leaf_of(burst.class(at, Direction::Egress)).unwrap_or(default))
    }

    fn marked(&self, mut mbuf: Mbuf) -> Mbuf {
        if !self.mark.is_none() {
            self.mark.apply(mbuf.data_mut());
        }
        mbuf
    }

    /// Has a frame wait in the queue of a leaf, behind those of its flow. The flow is told by the `hash` of the whole key, which names
    /// who sends and which nobody can work out: users may share a leaf, and none of them may choose to stand in another's place.
    fn wait(
        &mut self,
        direction: Direction,
        leaf: u32,
        (mbuf, target): (Mbuf, Target),
        charged: PortId,
        hash: Hash,
        view: &View<'_>,
    ) {
        let Self { shaper, store, counters, mirrors, .. } = self;
        let Some(tree) = shaper.as_deref_mut().and_then(|shaper| shaper.tree(direction)) else { return };
        let waiting = Waiting { handoff: Handoff { mbuf, target }, charged };
        tree.push(leaf, store, (waiting, hash.flow()), view.now, |waiting, reason| {
            count_drop(counters, waiting.charged, reason, 1);
            mirrors.mirror_late(late(&waiting, reason), &waiting.handoff.mbuf, 0, view);
        });
    }

    /// Serves the queue of a leaf, up to `bytes` with their overhead. Returns how many frames went.
    pub fn serve_queue(
        &mut self,
        direction: Direction,
        leaf: u32,
        bytes: u32,
        view: &View<'_>,
    ) -> (usize, Option<Sample>) {
        let mut ready = std::mem::take(&mut self.ready);
        let Self { shaper, store, counters, mirrors, .. } = self;
        let Some(tree) = shaper.as_deref_mut().and_then(|shaper| shaper.tree(direction)) else { return (0, None) };
        let now = view.now;
        // There is room for as many as a batch holds.
        let (frames, length, waited) = tree.pop(
            leaf,
            (Batch::MAX, bytes),
            store,
            now,
            |waiting| ready.push(waiting),
            |waiting, reason| {
                count_drop(counters, waiting.charged, reason, 1);
                mirrors.mirror_late(late(&waiting, reason), &waiting.handoff.mbuf, 0, view);
            },
        );
        let sample = tree.sent(leaf, (frames, length), now);
        let sample = sample.zip(waited).map(|(sample, ticks)| Sample { ticks, ..sample });
        let mark = tree.mark(leaf);
        for Waiting { mut handoff, charged } in ready.drain(..) {
            if !mark.is_none() {
                mark.apply(handoff.mbuf.data_mut());
            }
            self.go(handoff, charged, view);
        }
        self.ready = ready;
        self.flush();
        (frames as usize, sample)
    }

    /// Sends a frame that is charged to port `charged`, by way of the worker that owns its target if that is another one.
    fn go(&mut self, handoff: Handoff, charged: PortId, view: &View<'_>) {
        match handoff.target {
            Target::Wire if !self.wire.sends() => self.hand_over(self.sender, handoff, charged, view),
            Target::App { id, ring, .. } if worker_of(id, ring, self.workers) != self.index => {
                self.hand_over(worker_of(id, ring, self.workers), handoff, charged, view);
            }
            target => self.arrive(handoff.mbuf, target, view),
        }
    }

    /// Routes frames of a run to app `id` into the queues of their classes, if they have any and may have to wait. Returns whether it
    /// has, and else the run is for the ordinary way.
    pub(crate) fn queue_to_app(&mut self, burst: &Burst, run: Range<usize>, id: PortId, rss: &Rss) -> bool {
        let Some(tree) = self.shaper.as_deref().and_then(|shaper| shaper.ingress.as_ref()) else { return false };
        let leaf = |at: usize| tree.leaf_of(burst.class(at, Direction::Ingress));
        if run.clone().all(|at| leaf(at).is_none()) {
            return false;
        }
        if tree.is_free() {
            // A queue that is fair between flows costs more than all the rest of a frame's way.
            let mut start = run.start;
            while start < run.end {
                let class = burst.class(start, Direction::Ingress);
                let other = |at: &usize| burst.class(*at, Direction::Ingress) != class;
                let end = (start + 1..run.end).find(other).unwrap_or(run.end);
                let leaf = tree.leaf_of(class).unwrap_or_else(|| tree.unclassed());
                tree.went(leaf, end - start, burst.bytes(start..end));
                start = end;
            }
            return false;
        }
        let Some(port) = self.ports.get(usize::from(id)).and_then(Option::as_deref) else { return false };
        for at in run {
            let ring = port.ring_of(port.queue_for(rss, burst.notes(at), burst.from_wire));
            let target = Target::App { id, generation: port.generation, ring, notes: burst.notes(at) };
            // The verdict is the same for the whole run, and so is nearly always the class.
            let leaf = leaf(at).unwrap_or_else(|| tree.unclassed());
            if let Some(slot) = self.routes.get_mut(at) {
                *slot = Route::Queue(leaf, target);
            }
        }
        true
    }
}

/// How a frame is shown that waited in vain.
fn late(waiting: &Waiting, reason: DropReason) -> PacketRecord {
    let charged = waiting.charged;
    PacketRecord::dropped(charged, waiting.handoff.target == Target::Wire, charged, reason)
}
