//! What a worker shows to capture sessions.
//!
//! Each session has a tap at each worker: what it wants to see, and a ring that the session's own thread empties. A worker
//! looks at a burst when all that happens to it is decided, and before its buffers are given away; it copies what is wanted
//! into the ring, and never waits: what does not fit is counted. Without a session this costs one branch for a burst.
//!
//! A frame is seen at each port that it passes, see [`Sighting`]: at the app that sends it, at the app that gets it, and on
//! the wire.

mod filter_cache;
mod record;

pub use record::{Head, Line, Sighting};

use filter_cache::FilterCache;

use crate::ids::{PortId, Verdict, WIRE};
use crate::policy_counters::{CounterId, CounterKey, PolicyCounters};
use crate::worker::burst::Burst;
use crate::worker::counters::Counter;
use crate::worker::port::WorkerPort;
use dpdk::{Batch, Bpf, Mbuf};
pub use kopi_api::request::Which;
use kopi_config::policy::Decision;
use kopi_policy::Cause;
use kopi_ring::DropReason;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Capture sessions at one time.
pub const SESSIONS: usize = 32;

/// Rules by one of which a frame was decided, or that it has passed on the way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// Rules that decide, by their number in the snapshot's policy.
    pub deciding: Vec<u32>,
    /// Rules that were passed, in the bits of [`CounterKey::passing`].
    pub passing: u64,
}

impl Rules {
    fn has(&self, outcome: Option<&CounterKey>) -> bool {
        outcome.is_some_and(|outcome| {
            let decided = matches!(outcome.cause, Cause::Rule(rule) if self.deciding.contains(&rule));
            decided || outcome.passing & self.passing != 0
        })
    }
}

/// What one session wants to see, under one snapshot of the ports. Immutable.
#[derive(Debug)]
pub struct Selection {
    /// The session's number.
    pub session: u32,
    /// For every port number, whether frames are wanted that go in and that come out.
    pub ports: Box<[[bool; 2]]>,
    /// Whether frames from the wire are wanted that go to no app, besides those that `ports` says.
    pub strays: bool,
    /// Only frames of these apps, by port number, if there is anything asked of owners.
    pub owners: Option<Box<[bool]>>,
    /// By what has become of them.
    pub which: Which,
    /// Only frames that these rules were for, if there are any.
    pub rules: Option<Rules>,
    /// Only frames dropped for these reasons, a bit each.
    pub reasons: Option<u64>,
    /// Bytes kept of a frame.
    pub snap: u32,
    /// One of so many is kept, 1 for all.
    pub sample: u32,
}

impl Selection {
    #[inline]
    fn wants(&self, sighting: &Sighting) -> bool {
        let port = self.ports.get(usize::from(sighting.port)).is_some_and(|wants| wants[usize::from(sighting.out)]);
        let which = match self.which {
            Which::All => true,
            Which::Passed => sighting.decision == Decision::Accept,
            Which::Dropped => sighting.decision != Decision::Accept,
        };
        let reason =
            self.reasons.is_none_or(|reasons| sighting.reason.is_some_and(|reason| reasons >> reason.index() & 1 == 1));
        let of = |owners: &[bool]| owners.get(usize::from(sighting.owner)).is_some_and(|wanted| *wanted);
        let owner = self.owners.as_deref().is_none_or(of);
        which && reason && owner && (port || self.strays && sighting.is_stray())
    }
}

/// What one tap has counted for one port. The worker writes, the session reads.
#[derive(Debug, Default)]
pub struct PortCounts {
    /// Sightings looked at.
    pub seen: Counter,
    /// Those that were wanted.
    pub received: Counter,
    /// Those of them that found no room in the ring.
    pub lost: Counter,
}

/// One session's tap at one worker. The control thread makes it, the worker uses it, and it goes back.
#[derive(Debug)]
pub struct Tap {
    selection: Arc<Selection>,
    /// Only frames that pass this filter are wanted.
    filter: Option<FilterCache>,
    ring: rtrb::Producer<Line>,
    counts: Arc<[PortCounts]>,
    /// By port, what was lost since the last record. Nothing is, most of the time.
    lost: Box<[u32]>,
    /// What is to be left out before the next one of a sample.
    skip: u32,
    /// Counts the taps that are in use.
    begun: Option<Arc<AtomicUsize>>,
}

/// By what a worker tells what it sees.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// What the counters of flows stand for.
    pub policy_counters: &'a PolicyCounters,
    /// The snapshot of the ports.
    pub epoch: u32,
    /// TSC of the burst.
    pub now: u64,
    /// Whether the wire takes frames.
    pub wire_up: bool,
    /// The worker's own queues of the wire, RX and TX.
    pub queues: [u8; 2],
}

/// A burst whose verdicts are final.
struct Scene<'a> {
    burst: &'a Burst,
    /// Where it comes from.
    source: PortId,
    ports: &'a [Option<Box<WorkerPort>>],
    view: &'a View<'a>,
}

/// A frame at a port, with what counts it.
type Seen = (Sighting, CounterId);

impl Tap {
    /// A tap that writes into `ring` and counts in `counts`, which has a place for every port.
    #[must_use]
    pub fn new(selection: Arc<Selection>, ring: rtrb::Producer<Line>, counts: Arc<[PortCounts]>) -> Self {
        let lost = vec![0; counts.len()].into();
        Self { selection, filter: None, ring, counts, lost, skip: 0, begun: None }
    }

    /// The same, for frames only that pass `filter`.
    #[must_use]
    pub fn filtered(self, filter: Arc<Bpf>) -> Self {
        Self { filter: Some(FilterCache::new(filter)), ..self }
    }

    /// The same, which adds itself to `begun` when its worker uses it.
    #[must_use]
    pub fn telling(self, begun: Arc<AtomicUsize>) -> Self {
        Self { begun: Some(begun), ..self }
    }

    /// Looks at the frames of a burst whose verdicts are final.
    fn see(&mut self, scene: &Scene<'_>) {
        let mut start = 0;
        while let Some((verdict, end)) = scene.burst.run_again(start) {
            let sightings = sightings(scene.source, verdict);
            let wanted = sightings.map(|sighting| sighting.filter(|sighting| self.selection.wants(sighting)));
            if wanted.iter().any(Option::is_some) {
                for sighting in wanted.iter().flatten() {
                    self.count_seen(sighting.port, (end - start) as u64);
                }
                self.look(scene, start..end, wanted);
            }
            start = end;
        }
    }

    /// Takes those frames of a run that pass the filter, if there is one.
    fn look(&mut self, scene: &Scene<'_>, run: Range<usize>, wanted: [Option<Sighting>; 2]) {
        let Some(filter) = &mut self.filter else { return self.take_all(scene, run, wanted) };
        let mut passing = u64::from(filter.sift(scene.burst, run));
        while passing != 0 {
            let first = passing.trailing_zeros();
            let end = first + (passing >> first).trailing_ones();
            passing &= u64::MAX << end;
            self.take_all(scene, first as usize..end as usize, wanted);
        }
    }

    /// Takes frames that pass the filter, as far as they are in the sample.
    fn take_all(&mut self, scene: &Scene<'_>, run: Range<usize>, wanted: [Option<Sighting>; 2]) {
        let places = u32::from(wanted[0].is_some()) + u32::from(wanted[1].is_some());
        let Range { start: mut at, end } = run;
        loop {
            if self.selection.rules.is_none() {
                at += self.leave_out(end - at, places);
            }
            let Some(mbuf) = scene.burst.batch.get(at).filter(|_| at < end) else { return };
            for sighting in wanted.iter().flatten() {
                let queue = queue_of(sighting, at, scene);
                self.take((*sighting, scene.burst.counter_id(at, side_of(sighting))), mbuf, queue, scene.view);
            }
            at += 1;
        }
    }

    /// Leaves out of the sample as many of `frames` frames that are wanted, at `places` ports each, as have to be before
    /// the next one is taken. Returns how many those are.
    fn leave_out(&mut self, frames: usize, places: u32) -> usize {
        let left_out = self.skip.checked_div(places).map_or(0, |most| frames.min(most as usize));
        self.skip -= u32::try_from(left_out).unwrap_or(0) * places;
        left_out
    }

    /// Writes one frame down that passes the filter, if the rules that it met are those that are asked for.
    fn take(&mut self, (sighting, counter_id): Seen, mbuf: &Mbuf, queue: u8, view: &View<'_>) {
        let outcome = view.policy_counters.key(counter_id);
        if self.selection.rules.as_ref().is_some_and(|rules| !rules.has(outcome.as_ref())) {
            return;
        }
        if let Some(skip) = self.skip.checked_sub(1) {
            self.skip = skip;
            return;
        }
        self.skip = self.selection.sample.saturating_sub(1);
        // What happened to a frame after its evaluation is no rule's doing.
        let outcome = outcome.filter(|outcome| outcome.decision == sighting.decision);
        let rule = match outcome.map(|outcome| outcome.cause) {
            Some(Cause::Rule(rule)) => Some(rule),
            _ => None,
        };
        let port = usize::from(sighting.port);
        let (Some(counts), Some(lost)) = (self.counts.get(port), self.lost.get_mut(port)) else { return };
        let head = Head { tsc: view.now, epoch: view.epoch, rule, len: mbuf.len(), lost: *lost, queue, sighting };
        counts.received.add(1);
        match self.ring.write_chunk_uninit(head.lines(self.selection.snap)) {
            Ok(chunk) => {
                let kept = mbuf.data().get(..head.kept(self.selection.snap)).unwrap_or_default();
                chunk.fill_from_iter(head.write(kept));
                *lost = 0;
            }
            Err(_) => {
                *lost = lost.saturating_add(1);
                counts.lost.add(1);
            }
        }
    }

    fn count_seen(&self, port: PortId, frames: u64) {
        if let Some(counts) = self.counts.get(usize::from(port)) {
            counts.seen.add(frames);
        }
    }

    /// Looks at one frame.
    fn see_one(&mut self, seen: Seen, mbuf: &Mbuf, queue: u8, view: &View<'_>) {
        if self.selection.wants(&seen.0) {
            self.count_seen(seen.0.port, 1);
            if self.filter.as_ref().is_none_or(|filter| filter.matches(mbuf)) {
                self.take(seen, mbuf, queue, view);
            }
        }
    }
}

/// The taps of one worker. Never grows beyond its first capacity.
#[derive(Debug)]
pub struct Taps {
    #[expect(clippy::vec_box, reason = "boxes go back as they came, so that no worker frees memory")]
    taps: Vec<Box<Tap>>,
}

impl Taps {
    /// No taps, with room for [`SESSIONS`].
    #[must_use]
    pub fn new() -> Self {
        Self { taps: Vec::with_capacity(SESSIONS) }
    }

    /// Whether nobody looks.
    #[inline]
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.taps.is_empty()
    }

    /// Takes a tap in.
    ///
    /// # Errors
    ///
    /// Gives it back if there are as many as there may be.
    pub fn insert(&mut self, tap: Box<Tap>) -> Result<(), Box<Tap>> {
        if self.taps.len() >= SESSIONS {
            return Err(tap);
        }
        if let Some(begun) = &tap.begun {
            begun.fetch_add(1, Relaxed);
        }
        self.taps.push(tap);
        Ok(())
    }

    /// Lets go of a session's tap.
    pub fn remove(&mut self, session: u32) -> Option<Box<Tap>> {
        let at = self.taps.iter().position(|tap| tap.selection.session == session)?;
        Some(self.taps.swap_remove(at))
    }

    /// Has sessions look for what `selections` say from now on, and leaves in it what they have looked for.
    pub fn select(&mut self, selections: &mut [Arc<Selection>]) {
        for selection in selections {
            if let Some(tap) = self.taps.iter_mut().find(|tap| tap.selection.session == selection.session) {
                std::mem::swap(&mut tap.selection, selection);
            }
        }
    }

    /// Shows a burst, from port `source`, whose verdicts are final.
    pub fn see(&mut self, burst: &Burst, source: PortId, ports: &[Option<Box<WorkerPort>>], view: &View<'_>) {
        let scene = Scene { burst, source, ports, view };
        self.taps.iter_mut().for_each(|tap| tap.see(&scene));
    }

    /// Shows one frame at one port, that no burst shows.
    #[cold]
    pub fn see_one(&mut self, sighting: Sighting, counter_id: CounterId, mbuf: &Mbuf, queue: u8, view: &View<'_>) {
        self.taps.iter_mut().for_each(|tap| tap.see_one((sighting, counter_id), mbuf, queue, view));
    }

    /// Shows where frame `at` of a burst, from port `source`, comes from, if it goes to a group: at its sender, and on the
    /// wire if it goes there.
    #[cold]
    pub fn see_group(&mut self, burst: &Burst, at: usize, source: PortId, mbuf: &Mbuf, view: &View<'_>) {
        if source == WIRE {
            return self.see_one(Sighting::passed(WIRE, false, WIRE), 0, mbuf, view.queues[0], view);
        }
        self.see_one(Sighting::passed(source, true, source), burst.counter_id(at, 0), mbuf, burst.queue(at), view);
        if view.wire_up {
            self.see_one(Sighting::passed(WIRE, true, source), burst.counter_id(at, 0), mbuf, view.queues[1], view);
        }
    }

    /// Shows one frame that was shown before as one that goes on, and was dropped after all.
    #[cold]
    pub fn see_late(&mut self, sighting: Sighting, mbuf: &Mbuf, queue: u8, view: &View<'_>) {
        // To others it would be there twice.
        let wants = |tap: &&mut Box<Tap>| tap.selection.which == Which::Dropped;
        self.taps.iter_mut().filter(wants).for_each(|tap| tap.see_one((sighting, 0), mbuf, queue, view));
    }

    /// Shows frames that waited for the wire and were given up.
    #[cold]
    pub fn see_given_up(&mut self, waiting: &Batch, reason: DropReason, view: &View<'_>) {
        let sighting = Sighting::dropped(WIRE, true, WIRE, reason);
        waiting.iter().for_each(|mbuf| self.see_late(sighting, mbuf, view.queues[1], view));
    }
}

impl Default for Taps {
    fn default() -> Self {
        Self::new()
    }
}

/// Shows a burst, from port `source`, to capture sessions. Its verdicts are final, and its buffers are still here.
#[inline]
pub fn run(taps: &mut Taps, burst: &Burst, source: PortId, ports: &[Option<Box<WorkerPort>>], view: &View<'_>) {
    if !taps.is_empty() {
        taps.see(burst, source, ports, view);
    }
}

/// Where a frame from port `source` with the final verdict `verdict` is seen. What goes to a group is shown when it is
/// copied.
fn sightings(source: PortId, verdict: Verdict) -> [Option<Sighting>; 2] {
    let from_wire = source == WIRE;
    let sent = if from_wire { None } else { Some(Sighting::passed(source, true, source)) };
    let at_wire = |sighting: Sighting| from_wire.then_some(Sighting { port: WIRE, ..sighting });
    match verdict {
        Verdict::Wire => [sent, Some(Sighting::passed(WIRE, true, source))],
        Verdict::App(id) => {
            let got = Sighting::passed(id, false, id);
            [sent.or_else(|| at_wire(got)), Some(got)]
        }
        Verdict::Drop(reason) => [Some(Sighting::dropped(source, !from_wire, source, reason)), None],
        Verdict::Refuse(id, reason) => refused(sent, at_wire, id, source, reason),
        Verdict::Reject(id) => refused(sent, at_wire, id, source, DropReason::Rejected),
        Verdict::Group | Verdict::Promiscuous => [None, None],
    }
}

/// Where a frame is seen that app `id` does not let pass: at its own side if it is the sender.
fn refused(
    sent: Option<Sighting>,
    at_wire: impl Fn(Sighting) -> Option<Sighting>,
    id: PortId,
    source: PortId,
    reason: DropReason,
) -> [Option<Sighting>; 2] {
    if id == source {
        return [Some(Sighting::dropped(id, true, id, reason)), None];
    }
    let kept_out = Sighting::dropped(id, false, id, reason);
    [sent.or_else(|| at_wire(kept_out)), Some(kept_out)]
}

/// Whose counter counts a frame where it is seen: the sender's (0) or the receiver's (1).
fn side_of(sighting: &Sighting) -> usize {
    usize::from(!sighting.out)
}

fn queue_of(sighting: &Sighting, at: usize, scene: &Scene<'_>) -> u8 {
    match (sighting.port, sighting.out) {
        (WIRE, out) => scene.view.queues[usize::from(out)],
        (_, true) => scene.burst.queue(at),
        (id, false) => {
            let port = scene.ports.get(usize::from(id)).and_then(Option::as_deref);
            port.map_or(0, |port| u8::try_from(port.queue_for(scene.burst.rss(at))).unwrap_or(u8::MAX))
        }
    }
}

#[cfg(test)]
mod tests;
