//! What a worker shows to capture sessions.
//!
//! Each session has a mirror at each worker: what it wants to see, and a ring that the session's own thread empties. A worker
//! looks at a burst when all that happens to it is decided, and before its buffers are given away; it copies what is wanted
//! into the ring, and never waits: what does not fit is counted. Without a session this costs one branch for a burst.
//!
//! A frame is seen at each port that it passes, see [`PacketRecord`]: at the app that sends it, at the app that gets it, and on
//! the wire.

mod filter_cache;
mod record;

pub use record::{Cell, PacketRecord, RecordHeader};

use filter_cache::FilterCache;

use crate::ids::{PortId, Verdict, WIRE};
use crate::policy_counters::{CounterId, CounterKey, PolicyCounters};
use crate::rss::RssTable;
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
    fn wants(&self, record: &PacketRecord) -> bool {
        let port = self.ports.get(usize::from(record.port)).is_some_and(|wants| wants[usize::from(record.out)]);
        let which = match self.which {
            Which::All => true,
            Which::Passed => record.decision == Decision::Accept,
            Which::Dropped => record.decision != Decision::Accept,
        };
        let reason =
            self.reasons.is_none_or(|reasons| record.reason.is_some_and(|reason| reasons >> reason.index() & 1 == 1));
        let of = |owners: &[bool]| owners.get(usize::from(record.owner)).is_some_and(|wanted| *wanted);
        let owner = self.owners.as_deref().is_none_or(of);
        which && reason && owner && (port || self.strays && record.is_stray())
    }
}

/// What one mirror has counted for one port. The worker writes, the session reads.
#[derive(Debug, Default)]
pub struct PortCounts {
    /// Frames looked at, at each capture point that they pass.
    pub seen: Counter,
    /// Those that were wanted.
    pub received: Counter,
    /// Those of them that found no room in the ring.
    pub lost: Counter,
}

/// One session's mirror at one worker. The control thread makes it, the worker uses it, and it goes back.
#[derive(Debug)]
pub struct Mirror {
    selection: Arc<Selection>,
    /// Only frames that pass this filter are wanted.
    filter: Option<FilterCache>,
    ring: rtrb::Producer<Cell>,
    counts: Arc<[PortCounts]>,
    /// By port, what was lost since the last record. Nothing is, most of the time.
    lost: Box<[u32]>,
    /// What is to be left out before the next one of a sample.
    skip: u32,
    /// Counts the mirrors that are in use.
    in_use: Option<Arc<AtomicUsize>>,
}

/// What a worker knows of the frames that it mirrors.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// What the counters of flows stand for.
    pub policy_counters: &'a PolicyCounters,
    /// The snapshot of the ports.
    pub epoch: u32,
    /// How what the ports receive is spread over their queues.
    pub rss: &'a RssTable,
    /// TSC of the burst.
    pub now: u64,
    /// Whether the wire takes frames.
    pub wire_up: bool,
    /// The worker's own queues of the wire, RX and TX.
    pub queues: [u8; 2],
}

/// A burst whose verdicts are final.
struct MirrorCtx<'a> {
    burst: &'a Burst,
    /// Where it comes from.
    source: PortId,
    ports: &'a [Option<Box<WorkerPort>>],
    view: &'a View<'a>,
}

/// A frame at a port, with what counts it.
type Seen = (PacketRecord, CounterId);

impl Mirror {
    /// A mirror that writes into `ring` and counts in `counts`, which has a place for every port.
    #[must_use]
    pub fn new(selection: Arc<Selection>, ring: rtrb::Producer<Cell>, counts: Arc<[PortCounts]>) -> Self {
        let lost = vec![0; counts.len()].into();
        Self { selection, filter: None, ring, counts, lost, skip: 0, in_use: None }
    }

    /// The same, for frames only that pass `filter`.
    #[must_use]
    pub fn filtered(self, filter: Arc<Bpf>) -> Self {
        Self { filter: Some(FilterCache::new(filter)), ..self }
    }

    /// The same, which adds itself to `in_use` when its worker uses it.
    #[must_use]
    pub fn counted_in(self, in_use: Arc<AtomicUsize>) -> Self {
        Self { in_use: Some(in_use), ..self }
    }

    /// Looks at the frames of a burst whose verdicts are final.
    fn see(&mut self, ctx: &MirrorCtx<'_>) {
        let mut start = 0;
        while let Some((verdict, end)) = ctx.burst.run(start) {
            let records = records(ctx.source, verdict);
            let wanted = records.map(|record| record.filter(|record| self.selection.wants(record)));
            if wanted.iter().any(Option::is_some) {
                for record in wanted.iter().flatten() {
                    self.count_seen(record.port, (end - start) as u64);
                }
                self.look(ctx, start..end, wanted);
            }
            start = end;
        }
    }

    /// Takes those frames of a run that pass the filter, if there is one.
    fn look(&mut self, ctx: &MirrorCtx<'_>, run: Range<usize>, wanted: [Option<PacketRecord>; 2]) {
        let Some(filter) = &mut self.filter else { return self.take_all(ctx, run, wanted) };
        let mut passing = u64::from(filter.sift(ctx.burst, run));
        while passing != 0 {
            let first = passing.trailing_zeros();
            let end = first + (passing >> first).trailing_ones();
            passing &= u64::MAX << end;
            self.take_all(ctx, first as usize..end as usize, wanted);
        }
    }

    /// Takes frames that pass the filter, as far as they are in the sample.
    fn take_all(&mut self, ctx: &MirrorCtx<'_>, run: Range<usize>, wanted: [Option<PacketRecord>; 2]) {
        let places = u32::from(wanted[0].is_some()) + u32::from(wanted[1].is_some());
        let Range { start: mut at, end } = run;
        loop {
            if self.selection.rules.is_none() {
                at += self.leave_out(end - at, places);
            }
            let Some(mbuf) = ctx.burst.batch.get(at).filter(|_| at < end) else { return };
            for record in wanted.iter().flatten() {
                let queue = queue_of(record, at, ctx);
                self.take((*record, ctx.burst.counter_id(at, side_of(record))), mbuf, queue, ctx.view);
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
    fn take(&mut self, (record, counter_id): Seen, mbuf: &Mbuf, queue: u8, view: &View<'_>) {
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
        let outcome = outcome.filter(|outcome| outcome.decision == record.decision);
        let rule = match outcome.map(|outcome| outcome.cause) {
            Some(Cause::Rule(rule)) => Some(rule),
            _ => None,
        };
        let port = usize::from(record.port);
        let (Some(counts), Some(lost)) = (self.counts.get(port), self.lost.get_mut(port)) else { return };
        let header =
            RecordHeader { tsc: view.now, epoch: view.epoch, rule, len: mbuf.len(), lost: *lost, queue, record };
        counts.received.add(1);
        match self.ring.write_chunk_uninit(header.cells(self.selection.snap)) {
            Ok(chunk) => {
                let kept = mbuf.data().get(..header.kept(self.selection.snap)).unwrap_or_default();
                chunk.fill_from_iter(header.write(kept));
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
    fn mirror_one(&mut self, seen: Seen, mbuf: &Mbuf, queue: u8, view: &View<'_>) {
        if self.selection.wants(&seen.0) {
            self.count_seen(seen.0.port, 1);
            if self.filter.as_ref().is_none_or(|filter| filter.matches(mbuf)) {
                self.take(seen, mbuf, queue, view);
            }
        }
    }
}

/// The mirrors of one worker. Never grows beyond its first capacity.
#[derive(Debug)]
pub struct Mirrors {
    #[expect(clippy::vec_box, reason = "boxes go back as they came, so that no worker frees memory")]
    mirrors: Vec<Box<Mirror>>,
}

impl Mirrors {
    /// No mirrors, with room for [`SESSIONS`].
    #[must_use]
    pub fn new() -> Self {
        Self { mirrors: Vec::with_capacity(SESSIONS) }
    }

    /// Whether nobody looks.
    #[inline]
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.mirrors.is_empty()
    }

    /// Takes a mirror in.
    ///
    /// # Errors
    ///
    /// Gives it back if there are as many as there may be.
    pub fn insert(&mut self, mirror: Box<Mirror>) -> Result<(), Box<Mirror>> {
        if self.mirrors.len() >= SESSIONS {
            return Err(mirror);
        }
        if let Some(in_use) = &mirror.in_use {
            in_use.fetch_add(1, Relaxed);
        }
        self.mirrors.push(mirror);
        Ok(())
    }

    /// Lets go of a session's mirror.
    pub fn remove(&mut self, session: u32) -> Option<Box<Mirror>> {
        let at = self.mirrors.iter().position(|mirror| mirror.selection.session == session)?;
        Some(self.mirrors.swap_remove(at))
    }

    /// Has sessions look for what `selections` say from now on, and leaves in it what they have looked for.
    pub fn select(&mut self, selections: &mut [Arc<Selection>]) {
        for selection in selections {
            if let Some(mirror) = self.mirrors.iter_mut().find(|mirror| mirror.selection.session == selection.session) {
                std::mem::swap(&mut mirror.selection, selection);
            }
        }
    }

    /// Shows a burst, from port `source`, whose verdicts are final.
    pub fn mirror_burst(&mut self, burst: &Burst, source: PortId, ports: &[Option<Box<WorkerPort>>], view: &View<'_>) {
        let ctx = MirrorCtx { burst, source, ports, view };
        self.mirrors.iter_mut().for_each(|mirror| mirror.see(&ctx));
    }

    /// Shows one frame at one port, that no burst shows.
    #[cold]
    pub fn mirror_one(&mut self, record: PacketRecord, counter_id: CounterId, mbuf: &Mbuf, queue: u8, view: &View<'_>) {
        self.mirrors.iter_mut().for_each(|mirror| mirror.mirror_one((record, counter_id), mbuf, queue, view));
    }

    /// Shows where frame `at` of a burst, from port `source`, comes from, if it goes to a group: at its sender, and on the
    /// wire if it goes there.
    #[cold]
    pub fn mirror_group(&mut self, burst: &Burst, at: usize, source: PortId, mbuf: &Mbuf, view: &View<'_>) {
        if source == WIRE {
            return self.mirror_one(PacketRecord::passed(WIRE, false, WIRE), 0, mbuf, view.queues[0], view);
        }
        self.mirror_one(
            PacketRecord::passed(source, true, source),
            burst.counter_id(at, 0),
            mbuf,
            burst.queue(at),
            view,
        );
        if view.wire_up {
            self.mirror_one(
                PacketRecord::passed(WIRE, true, source),
                burst.counter_id(at, 0),
                mbuf,
                view.queues[1],
                view,
            );
        }
    }

    /// Shows one frame that was shown before as one that goes on, and was dropped after all.
    #[cold]
    pub fn mirror_late(&mut self, record: PacketRecord, mbuf: &Mbuf, queue: u8, view: &View<'_>) {
        // To others it would be there twice.
        let wants = |mirror: &&mut Box<Mirror>| mirror.selection.which == Which::Dropped;
        self.mirrors.iter_mut().filter(wants).for_each(|mirror| mirror.mirror_one((record, 0), mbuf, queue, view));
    }

    /// Shows frames that waited for the wire and were given up.
    #[cold]
    pub fn mirror_discarded(&mut self, waiting: &Batch, reason: DropReason, view: &View<'_>) {
        let record = PacketRecord::dropped(WIRE, true, WIRE, reason);
        waiting.iter().for_each(|mbuf| self.mirror_late(record, mbuf, view.queues[1], view));
    }
}

impl Default for Mirrors {
    fn default() -> Self {
        Self::new()
    }
}

/// Shows a burst, from port `source`, to capture sessions. Its verdicts are final, and its buffers are still here.
#[inline]
pub fn run(mirrors: &mut Mirrors, burst: &Burst, source: PortId, ports: &[Option<Box<WorkerPort>>], view: &View<'_>) {
    if !mirrors.is_empty() {
        mirrors.mirror_burst(burst, source, ports, view);
    }
}

/// Where a frame from port `source` with the final verdict `verdict` is seen. What goes to a group is shown when it is
/// copied.
fn records(source: PortId, verdict: Verdict) -> [Option<PacketRecord>; 2] {
    let from_wire = source == WIRE;
    let sent = if from_wire { None } else { Some(PacketRecord::passed(source, true, source)) };
    let at_wire = |record: PacketRecord| from_wire.then_some(PacketRecord { port: WIRE, ..record });
    match verdict {
        Verdict::Wire => [sent, Some(PacketRecord::passed(WIRE, true, source))],
        Verdict::App(id) => {
            let got = PacketRecord::passed(id, false, id);
            [sent.or_else(|| at_wire(got)), Some(got)]
        }
        Verdict::Drop(reason) => [Some(PacketRecord::dropped(source, !from_wire, source, reason)), None],
        Verdict::Refuse(id, reason) => refused(sent, at_wire, id, source, reason),
        Verdict::Reject(id) => refused(sent, at_wire, id, source, DropReason::Rejected),
        Verdict::Group | Verdict::Promiscuous => [None, None],
    }
}

/// Where a frame is seen that app `id` does not let pass: at its own side if it is the sender.
fn refused(
    sent: Option<PacketRecord>,
    at_wire: impl Fn(PacketRecord) -> Option<PacketRecord>,
    id: PortId,
    source: PortId,
    reason: DropReason,
) -> [Option<PacketRecord>; 2] {
    if id == source {
        return [Some(PacketRecord::dropped(id, true, id, reason)), None];
    }
    let kept_out = PacketRecord::dropped(id, false, id, reason);
    [sent.or_else(|| at_wire(kept_out)), Some(kept_out)]
}

/// Whose counter counts a frame where it is seen: the sender's (0) or the receiver's (1).
fn side_of(record: &PacketRecord) -> usize {
    usize::from(!record.out)
}

fn queue_of(record: &PacketRecord, at: usize, ctx: &MirrorCtx<'_>) -> u8 {
    match (record.port, record.out) {
        (WIRE, out) => ctx.view.queues[usize::from(out)],
        (_, true) => ctx.burst.queue(at),
        (id, false) => {
            let port = ctx.ports.get(usize::from(id)).and_then(Option::as_deref);
            let queue =
                |port: &WorkerPort| port.queue_for(ctx.view.rss.of(id), ctx.burst.notes(at), ctx.burst.from_wire);
            port.map_or(0, |port| u8::try_from(queue(port)).unwrap_or(u8::MAX))
        }
    }
}

#[cfg(test)]
mod tests;
