//! Frames that go to several receivers: each gets a copy, as far as the policy lets it.

use crate::ids::{PortId, Verdict, WIRE};
use crate::snapshot::Snapshot;
use crate::stages::deliver::notes_of_copy;
use crate::stages::mirror::PacketRecord;
use crate::stages::policy::{Admission, ParsedFrame, PolicyStage};
use crate::worker::burst::Burst;
use crate::worker::outputs::{Outputs, Route};
use kopi_packet::LinkProtocol;
use kopi_ring::DropReason;

/// A burst that is delivered, and what is asked about it.
pub(crate) struct ReplicateCtx<'a> {
    pub(super) burst: &'a mut Burst,
    pub(super) source: PortId,
    pub(super) snapshot: &'a Snapshot,
    pub(super) policy_stage: &'a mut PolicyStage,
    pub(super) now: u64,
}

impl Outputs {
    /// Not inlined: what it needs would be loaded for every burst.
    #[inline(never)]
    pub(crate) fn spread(&mut self, ctx: &mut ReplicateCtx<'_>, at: usize, verdict: Verdict) -> Route {
        match verdict {
            Verdict::Group => self.deliver_to_group(ctx, at),
            _ => self.deliver_to_many(ctx, at),
        }
    }

    fn deliver_to_group(&mut self, ctx: &mut ReplicateCtx<'_>, at: usize) -> Route {
        let (source, snapshot) = (ctx.source, ctx.snapshot);
        let listeners = snapshot.fib().listeners(&ctx.burst.destination(at));
        let to_wire = source != WIRE && snapshot.fib().wire_up();
        if ctx.burst.mirrored && to_wire {
            self.show_sent(ctx, at);
        }
        let copies = self.copy_to(ctx, at, listeners);
        match (to_wire, copies) {
            (true, copies) => {
                self.count_copies(source, copies);
                self.towards_wire()
            }
            (false, 0) => {
                let reason = if source == WIRE { DropReason::NoListener } else { DropReason::WireDown };
                self.drop_for(source, reason, 1);
                ctx.burst.amend(at, Verdict::Drop(reason));
                Route::Free
            }
            (false, copies) => {
                self.count_copies(source, copies - 1);
                Route::Free
            }
        }
    }

    fn deliver_to_many(&mut self, ctx: &mut ReplicateCtx<'_>, at: usize) -> Route {
        let source = ctx.source;
        match self.copy_to(ctx, at, ctx.snapshot.takers(&ctx.burst.destination(at))) {
            0 => {
                self.drop_for(source, DropReason::NoListener, 1);
                ctx.burst.amend(at, Verdict::Drop(DropReason::NoListener));
            }
            copies => self.count_copies(source, copies - 1),
        }
        Route::Free
    }

    /// Shows capture sessions where a frame to a group comes from, before they are shown who gets it.
    fn show_sent(&mut self, ctx: &ReplicateCtx<'_>, at: usize) {
        let Some(mbuf) = ctx.burst.batch.get(at) else { return };
        let view = self.view(ctx.snapshot, ctx.policy_stage.policy_counters(), ctx.now);
        self.mirrors.mirror_group(ctx.burst, at, ctx.source, mbuf, &view);
    }

    /// Copies a frame to all of `ports` but its source, as far as the policy lets each have it, and returns to how many.
    fn copy_to(&mut self, ctx: &mut ReplicateCtx<'_>, at: usize, ports: &[PortId]) -> u64 {
        let ReplicateCtx { ref burst, source, snapshot, now, .. } = *ctx;
        let Some(mbuf) = burst.batch.get(at) else { return 0 };
        if burst.mirrored && (source == WIRE || !snapshot.fib().wire_up()) && ports.iter().any(|id| *id != source) {
            self.show_sent(ctx, at);
        }
        let ReplicateCtx { ref burst, .. } = *ctx;
        let mut copies = 0;
        let key = burst.key(at);
        let mut headers = None;
        let protocol = LinkProtocol::of(&key);
        for id in ports.iter().copied().filter(|id| *id != source && snapshot.hears(*id, &key, protocol)) {
            let admission = if snapshot.policies().is_some() {
                let headers = headers.get_or_insert_with(|| kopi_packet::parse(mbuf.data(), source).0);
                ctx.policy_stage.admit(ParsedFrame { frame: mbuf.data(), headers, key: &key, now }, id, snapshot)
            } else {
                Admission::FREE
            };
            let outcome = match admission.refused {
                None => self.deliver_to_app(burst, at, id, snapshot, Some(source)).map(|route| {
                    debug_assert_eq!(route, Route::Free);
                }),
                Some(reason) => Err(self.refuse_for(id, reason)),
            };
            if burst.mirrored {
                let view = self.view(snapshot, ctx.policy_stage.policy_counters(), now);
                let queue = self.ports.get(usize::from(id)).and_then(Option::as_deref);
                let rss = snapshot.rss().of(id);
                let notes = notes_of_copy(burst, at, rss).unwrap_or_else(|_| burst.notes(at));
                let queue = queue.map_or(0, |port| port.queue_for(rss, notes, burst.from_wire));
                let queue = u8::try_from(queue).unwrap_or(u8::MAX);
                if outcome == Err(DropReason::HandoffFull) && source != WIRE {
                    // The loss of who has sent too much.
                    let record = PacketRecord::dropped(source, true, source, DropReason::HandoffFull);
                    self.mirrors.mirror_late(record, mbuf, queue, &view);
                } else {
                    self.show(id, outcome, admission.counter_id, mbuf, queue, &view);
                }
            }
            copies += 1;
        }
        copies
    }
}
