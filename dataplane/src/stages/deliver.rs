//! The deliver stage: frames into the apps' rings, as their verdicts say.
//!
//! A frame for one app is copied into its RX ring, one for several is [replicated](super::replicate), one that is rejected
//! gets a [reply](super::reply). What goes on, to the wire, to another worker or into the queue of a class, gets a route for the
//! stage [transmit](super::transmit).

use super::replicate::ReplicateCtx;
use crate::ids::{PortId, Verdict};
use crate::rss::Rss;
use crate::snapshot::Snapshot;
use crate::stages::mirror::View;
use crate::stages::policy::PolicyStage;
use crate::worker::burst::{Burst, fill};
use crate::worker::handoff::{Handoff, Target};
use crate::worker::outputs::wake::will_kick;
use crate::worker::outputs::{Outputs, Route, blamed};
use crate::worker::port::worker_of;
use kopi_ring::layout::Notes;
use kopi_ring::{DropReason, PeerFault, Producer};
use std::ops::Range;

/// How many buffers of a burst are needed beyond it.
#[derive(Debug)]
pub struct Fates {
    /// By the wire.
    pub to_wire: usize,
    /// By other workers, and queues of classes.
    pub to_workers: usize,
}

/// Delivers the frames of `burst`, from port `source`, to apps, and routes all others. Returns how many buffers are needed beyond it.
///
/// Frames of a burst mostly go the same way, so runs of equal verdicts are handled at once.
#[inline]
pub fn run(
    outputs: &mut Outputs,
    burst: &mut Burst,
    source: PortId,
    snapshot: &Snapshot,
    policy_stage: &mut PolicyStage,
    now: u64,
) -> Fates {
    let mut fates = Fates { to_wire: 0, to_workers: 0 };
    let mut start = 0;
    while let Some((verdict, end)) = burst.run(start) {
        match verdict {
            Verdict::Wire => {
                let route = outputs.towards_wire();
                outputs.route(start..end, route, burst);
                fates.to_wire += end - start;
            }
            Verdict::App(id)
                if outputs.shaper.is_some() && outputs.queue_to_app(burst, start..end, id, snapshot.rss().of(id)) => {}
            Verdict::App(id) => outputs.run_to_app(burst, start..end, id, snapshot, &mut fates),
            Verdict::Drop(reason) => outputs.drop_run(burst, start..end, source, reason),
            Verdict::Refuse(id, reason) => outputs.drop_run(burst, start..end, id, reason),
            Verdict::Reject(id) => {
                let view = outputs.view(snapshot, policy_stage.policy_counters(), now);
                outputs.reject_run(burst, start..end, (source, id), snapshot, &view);
            }
            Verdict::Group | Verdict::Promiscuous => {
                let mut ctx = ReplicateCtx { burst, source, snapshot, policy_stage, now };
                for at in start..end {
                    let route = outputs.spread(&mut ctx, at, verdict);
                    outputs.set_route(at, route, &mut fates);
                }
            }
        }
        start = end;
    }
    fates
}

impl Outputs {
    /// Routes a run of `burst`. Nobody asks for the routes of a whole burst that leaves as one.
    #[inline]
    fn route(&mut self, run: Range<usize>, route: Route, burst: &Burst) {
        let leaves_as_one =
            run.len() == burst.batch.len() && !burst.classed && matches!(route, Route::Wire | Route::Free);
        if !leaves_as_one {
            fill(&mut self.routes, run, route);
        }
    }

    /// Drops a run of frames from one port to another, and tells the one.
    #[inline(never)]
    fn reject_run(
        &mut self,
        burst: &Burst,
        run: Range<usize>,
        (source, id): (PortId, PortId),
        snapshot: &Snapshot,
        view: &View<'_>,
    ) {
        self.drop_run(burst, run.clone(), id, DropReason::Rejected);
        let limited = snapshot.policies().is_some_and(|filter| filter.ruleset().policy().default.limits_answers);
        for mbuf in burst.batch.get(run).unwrap_or_default() {
            self.answer(mbuf.data(), (source, id), limited, view);
        }
    }

    fn drop_run(&mut self, burst: &Burst, run: Range<usize>, charged: PortId, reason: DropReason) {
        let frames = run.len() as u64;
        self.route(run, Route::Free, burst);
        self.drop_for(charged, reason, frames);
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

    /// A run of frames to one app. With one RX ring for them, and that ours, the ring is looked up and published once.
    #[inline]
    fn run_to_app(&mut self, burst: &mut Burst, run: Range<usize>, id: PortId, f: &Snapshot, fates: &mut Fates) {
        let max_frame = u32::from(f.fib().max_frame(id));
        self.route(run.clone(), Route::Free, burst);
        let counters = self.counters.ports.get(usize::from(id));
        let port = self.ports.get_mut(usize::from(id)).and_then(Option::as_deref_mut);
        let single = port.filter(|port| port.has_sole_ring());
        let rx = single.and_then(|port| will_kick(&mut self.pending_kick, port).sole_ring());
        let (Some(rx), Some(counters)) = (rx, counters) else {
            return self.each_to_app(burst, run, id, f, fates);
        };
        // The app's counter is looked at once: for a full ring once a frame would mean one cache miss a frame.
        let wanted = u32::try_from(run.len()).unwrap_or(u32::MAX);
        let fault = rx.ring.free(wanted).err();
        let first = if fault.is_none() { push_run(&mut rx.ring, burst, run.clone(), max_frame) } else { run.start };
        let mut pushed = Pushed { fault, ..Pushed::default() };
        if first > run.start {
            pushed.packets = (first - run.start) as u64;
            pushed.bytes = burst.bytes(run.start..first);
        }
        if first < run.end {
            push_each(&mut rx.ring, burst, first..run.end, max_frame, &mut pushed);
        }
        rx.ring.publish();
        counters.rx_packets.add(pushed.packets);
        counters.rx_bytes.add(pushed.bytes);
        if first < run.end {
            self.note_refused(burst, run, id, pushed);
        }
    }

    /// Counts those frames of a run that an app did not get, and notes what became of them.
    #[inline(never)]
    fn note_refused(&mut self, burst: &mut Burst, run: Range<usize>, id: PortId, pushed: Pushed) {
        let (full, long) = (u64::from(pushed.full.count_ones()), u64::from(pushed.long.count_ones()));
        let lost = run.len() as u64 - pushed.packets - full - long;
        let reasons = [(DropReason::RxRingFull, full), (DropReason::Oversize, long), (DropReason::PortGone, lost)];
        for (reason, frames) in reasons.into_iter().filter(|(_, frames)| *frames > 0) {
            if let Some(counters) = self.counters.ports.get(usize::from(id)) {
                counters.drop(reason, frames);
            }
        }
        if let Some(fault) = pushed.fault {
            self.note_fault(id, fault);
        }
        if burst.mirrored && lost + full + long > 0 {
            let done = run.end - usize::try_from(lost).unwrap_or(0);
            amend(burst, run.start..done, pushed.full, Verdict::Refuse(id, DropReason::RxRingFull));
            amend(burst, run.start..done, pushed.long, Verdict::Refuse(id, DropReason::Oversize));
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

    /// To one app: into its ring if the ring is ours, else by way of its worker. If it is a `copy` of a frame of some port, the
    /// burst's own buffer is needed elsewhere, so another worker gets a buffer of its own, and the app has a hash and rules of its own for it.
    ///
    /// # Errors
    ///
    /// Why the app does not get it, which is counted already.
    #[inline]
    pub(crate) fn deliver_to_app(
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
        let rss = snapshot.rss().of(id);
        let notes = match copy {
            Some(_) => notes_of_copy(burst, at, rss).map_err(|reason| self.refuse_for(id, reason))?,
            None => burst.notes(at),
        };
        let Some(port) = self.ports.get_mut(usize::from(id)).and_then(Option::as_deref_mut) else {
            return Err(self.refuse_for(id, DropReason::PortGone));
        };
        let ring = port.ring_of(port.queue_for(rss, notes, burst.from_wire));
        let generation = port.generation;
        let owner = worker_of(id, ring, self.workers);
        if owner == self.index {
            return self.push(mbuf.data(), id, ring, notes).map(|()| Route::Free);
        }
        let target = Target::App { id, generation, ring, notes };
        let Some(source) = copy else { return Ok(Route::Worker(owner, target)) };
        let Some(clone) = self.pool.take().and_then(|mut clone| clone.fill(mbuf.data()).then_some(clone)) else {
            return Err(self.refuse_for(id, DropReason::NoMbuf));
        };
        match self.send_over(owner, Handoff { mbuf: clone, target }) {
            Ok(()) => Ok(Route::Free),
            Err(_) => Err(self.refuse_for(blamed(source, target).0, DropReason::HandoffFull)),
        }
    }
}

/// What one of several receivers, whose port has `rss`, is told about its copy of frame `at`.
///
/// # Errors
///
/// Why it does not get one.
#[inline]
pub(super) fn notes_of_copy(burst: &Burst, at: usize, rss: &Rss) -> Result<Notes, DropReason> {
    rss.steer_copy(&burst.key(at), burst.notes(at))
}

/// What became of a run of frames for one app.
#[derive(Debug, Default)]
struct Pushed {
    /// Frames in its ring, and their bytes.
    packets: u64,
    bytes: u64,
    /// Frames of the burst, a bit each, that found a full ring.
    full: u32,
    /// Those that are longer than the app takes.
    long: u32,
    /// Why those behind them were lost.
    fault: Option<PeerFault>,
}

/// Puts the first frames of a run into an app's ring, and returns where the others begin. Mostly there are none: all have a
/// length that the app takes, fit a slot, and find room.
#[inline]
fn push_run(ring: &mut Producer, burst: &Burst, run: Range<usize>, max_frame: u32) -> usize {
    if burst.longest() > max_frame {
        return run.start;
    }
    // One frame is not worth the preparations for many.
    match run.len() {
        1 => run.start + usize::from(ring.push(burst.frame(run.start), burst.notes(run.start))),
        _ => run.start + ring.push_run(burst.frames(run)) as usize,
    }
}

/// The same for frames that have to be looked at one by one.
#[inline(never)]
fn push_each(ring: &mut Producer, burst: &Burst, range: Range<usize>, max_frame: u32, pushed: &mut Pushed) {
    let mut chained = false;
    for at in range {
        let Some(mbuf) = burst.batch.get(at).filter(|_| pushed.fault.is_none()) else { return };
        let (len, notes) = (mbuf.len(), burst.notes(at));
        if len > max_frame {
            pushed.long |= 1 << at;
            continue;
        }
        let slots = ring.slots_for(len);
        let mut found_room = ring.push(mbuf.data(), notes);
        // Frames of several slots use up more than was asked for, and only then it is worth another look.
        chained |= slots > 1;
        if !found_room && chained {
            match ring.free(slots) {
                Ok(free) => found_room = free >= slots && ring.push(mbuf.data(), notes),
                Err(fault) => {
                    pushed.fault = Some(fault);
                    return;
                }
            }
        }
        if found_room {
            pushed.packets += 1;
            pushed.bytes += u64::from(len);
        } else {
            pushed.full |= 1 << at;
        }
    }
}

/// Notes what became of those frames of `range` whose bit is set in `frames`.
#[cold]
fn amend(burst: &mut Burst, range: Range<usize>, frames: u32, verdict: Verdict) {
    range.filter(|at| frames >> at & 1 == 1).for_each(|at| burst.amend(at, verdict));
}
