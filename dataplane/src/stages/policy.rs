//! The policy stage: a verdict for every frame.
//!
//! The first frame of a flow is evaluated (`evaluate.rs`): the policy at the sender's side, the forwarding table, the policy at the receiver's. The
//! flow table keeps what was found. It holds for the frames that follow until there is another snapshot, or a connection
//! enters another state.

mod evaluate;
mod shared_address;

pub use evaluate::ParsedFrame;

use crate::ids::{PortId, Verdict, WIRE};
use crate::policy_counters::{CounterId, CounterKey, PolicyCounters};
use crate::policy_table::PolicyTable;
use crate::snapshot::Snapshot;
use crate::worker::burst::Burst;
use crate::worker::flow_table::{Flow, FlowTable, Hooks};
use dpdk::Batch;
use kopi_config::policy::{Direction, State};
use kopi_packet::tcp::Segment;
use kopi_packet::{FlowKey, Seed};
use kopi_policy::{Connections, CtVersion, Evaluation, Followed, Fragments, Tuple};
use kopi_ring::DropReason;
use kopi_ring::layout::{MIN_FRAME, Notes};
use shared_address::may_move;
use std::ops::Range;
use std::sync::Arc;

/// Packets whose fragments a worker follows at a time.
pub const FRAGMENTED: usize = 4096;

/// Gives every frame of `burst`, from port `source`, its verdict: that of its flow in the flow table, which is evaluated if it has none
/// that holds. Counts frames to their flows.
#[inline(never)]
pub fn run(
    burst: &mut Burst,
    source: PortId,
    policy_stage: &mut PolicyStage,
    flows: &mut FlowTable,
    snapshot: &Snapshot,
    now: u64,
) {
    let max_frame = u32::from(snapshot.fib().max_frame(source));
    let limit = snapshot.policies().map_or(u32::MAX, |filter| filter.flow_limit(source));
    let epoch = snapshot.epoch();
    // Lengths are no part of the key. Mostly all are right; if not, each is looked at.
    let lengths_fit = !burst.runts && burst.longest <= max_frame;
    locate(burst, flows, snapshot.policies().is_some());
    if snapshot.policies().is_some_and(PolicyTable::tracks) {
        policy_stage.prefetch(burst, flows);
    }
    // A bit for each run's first frame, and one for the end.
    let mut bounds = u64::from(burst.firsts()) | 1 << burst.batch.len();
    let mut next = 0;
    burst.turns = 0;
    let mut ctx = PolicyCtx { policy_stage, flows, snapshot, now, limit, max_frame };
    // Frames that have to be looked at one by one, a bit each.
    let apart = if lengths_fit { burst.alone } else { u32::MAX };
    let mut before = Verdict::Drop(DropReason::PortGone);
    loop {
        bounds &= bounds - 1;
        if bounds == 0 {
            return;
        }
        let start = next % Batch::MAX;
        next = bounds.trailing_zeros() as usize;
        let (key, place) = (&burst.keys[start], burst.places[start]);
        let flow = ctx.flows.found(place, key).filter(|flow| {
            apart >> start & 1 == 0
                && flow.epoch == epoch
                && (flow.is_untracked() || ctx.policy_stage.is_unchanged(flow, burst.frame(start), key, snapshot, now))
        });
        let Some(flow) = flow else {
            ctx.evaluate_run(burst, start..next, lengths_fit);
            before = burst.verdicts[next - 1];
            continue;
        };
        if flow.verdict != before {
            before = flow.verdict;
            burst.turns |= 1 << start;
        }
        let counted = burst.decide(start..next, flow.verdict, flow.notes());
        count_run(flow, ctx.policy_stage, counted, now);
        if burst.noted {
            burst.note_hooks(start..next, &flow.hooks);
        }
    }
}

/// Counts packets of a flow, and their bytes.
#[inline]
fn count_run(flow: &mut Flow, policy_stage: &PolicyStage, (packets, bytes): (u16, u32), now: u64) {
    flow.count(packets, bytes, now);
    // What nobody has judged has nothing there, and would wait for its second cache line to say so.
    if flow.is_judged() {
        policy_stage.count(&flow.hooks, packets.into(), bytes.into());
    }
}

/// By what frames get their verdicts.
struct PolicyCtx<'a> {
    policy_stage: &'a mut PolicyStage,
    flows: &'a mut FlowTable,
    snapshot: &'a Snapshot,
    now: u64,
    /// Flows that the port may have.
    limit: u32,
    /// Bytes of the longest frame that it may send.
    max_frame: u32,
}

impl PolicyCtx<'_> {
    /// Gives the frames of a run their verdicts, where more is to be asked than their flow: it is new or evaluated anew, a connection has a say,
    /// a frame is to be evaluated by itself, or not all lengths of the burst are right.
    #[inline(never)]
    fn evaluate_run(&mut self, burst: &mut Burst, run: Range<usize>, lengths_fit: bool) {
        let (head, mut start) = (run.start, run.start);
        let (hash, place) = (burst.hashes[head], burst.places[head]);
        while start < run.end {
            let mut end = run.end;
            burst.turns |= 1 << start;
            let Some(flow) = self.flows.flow_at(place, &burst.keys[head], hash, self.limit, self.now) else {
                burst.decide(start..end, Verdict::Drop(DropReason::FlowLimit), Notes::NONE);
                burst.note_hooks(start..end, &Hooks::EMPTY);
                return;
            };
            let alone = burst.alone >> start & 1 != 0;
            let (frame, key) = (burst.frame(start), &burst.keys[head]);
            if !self.policy_stage.lookup(flow, frame, key, alone, self.snapshot, self.now) {
                // What follows has to be looked at by itself.
                end = start + 1;
            }
            let mut counted = burst.decide(start..end, flow.verdict, flow.notes());
            if !lengths_fit {
                (start..end).for_each(|at| burst.turns |= 1 << at);
                let verdicts = burst.verdicts.get_mut(start..end).unwrap_or_default();
                let lens = burst.lens.get(start..end).unwrap_or_default();
                counted = judge_each(verdicts, lens, flow.verdict, self.max_frame);
            }
            count_run(flow, self.policy_stage, counted, self.now);
            if burst.noted {
                burst.note_hooks(start..end, &flow.hooks);
            }
            start = end;
        }
    }
}

/// Where the flow of each run is, at the place of its first frame: all are asked for before the first is used, as a `whole` or not.
#[inline]
fn locate(burst: &mut Burst, flows: &FlowTable, whole: bool) {
    let mut firsts = burst.firsts();
    while firsts != 0 {
        let at = firsts.trailing_zeros() as usize;
        firsts &= firsts - 1;
        if let (Some(place), Some(hash)) = (burst.places.get_mut(at), burst.hashes.get(at)) {
            *place = flows.locate(*hash, whole);
        }
    }
}

/// Gives the frames of a run the verdict of their flow, unless their lengths forbid it. Returns how many have it, and
/// their bytes.
#[inline]
fn judge_each(verdicts: &mut [Verdict], lens: &[u32], of_flow: Verdict, max_frame: u32) -> (u16, u32) {
    let (mut packets, mut bytes) = (0, 0);
    for (verdict, len) in verdicts.iter_mut().zip(lens) {
        *verdict = if *len < MIN_FRAME {
            Verdict::Drop(DropReason::Runt)
        } else if *len > max_frame {
            Verdict::Drop(DropReason::Oversize)
        } else {
            packets += 1;
            bytes += *len;
            of_flow
        };
    }
    (packets, bytes)
}

/// A line that the policy wants in the log, for the first frame of a flow.
#[derive(Clone, Copy, Debug)]
pub struct Event {
    /// What the frame was.
    pub key: FlowKey,
    /// What was decided, and whose frame it was.
    pub counter_key: CounterKey,
}

/// Events that wait for the control thread. More are counted and lost.
pub const EVENTS: usize = 256;

/// One worker's side of the policy.
#[derive(Debug)]
pub struct PolicyStage {
    connections: Arc<Connections>,
    fragments: Fragments<Evaluation>,
    policy_counters: Arc<PolicyCounters>,
    events: rtrb::Producer<Event>,
}

/// What becomes of one copy of a frame that goes to several apps.
#[derive(Clone, Copy, Debug)]
pub struct Admission {
    /// What has counted it.
    pub counter_id: CounterId,
    /// Why the app does not get it; `None` if it does.
    pub refused: Option<DropReason>,
}

impl Admission {
    /// That of every copy without a policy.
    pub const FREE: Self = Self { counter_id: 0, refused: None };
}

impl PolicyStage {
    /// A policy stage with an empty memory, that counts in `policy_counters`. `hz` are the ticks of the clock in a second.
    #[must_use]
    pub fn new(
        connections: Arc<Connections>,
        policy_counters: Arc<PolicyCounters>,
        seed: Seed,
        hz: u64,
        events: rtrb::Producer<Event>,
    ) -> Self {
        Self { connections, fragments: Fragments::new(FRAGMENTED, seed, hz), policy_counters, events }
    }

    /// Counts in `policy_counters` from now on, for another snapshot, perhaps with other rules; returns the one that it replaces.
    pub fn turn_over(&mut self, policy_counters: Arc<PolicyCounters>, other_rules: bool) -> Arc<PolicyCounters> {
        if other_rules {
            self.fragments.clear();
        }
        self.fragments.forget_gone(|holder| self.connections.is_current(holder));
        std::mem::replace(&mut self.policy_counters, policy_counters)
    }

    /// How many packets in fragments of each app are followed, for others to read.
    #[must_use]
    pub const fn followed(&self) -> &Arc<Followed> {
        self.fragments.followed()
    }

    /// The counters, for those who want to know what a counter is of.
    #[must_use]
    pub const fn policy_counters(&self) -> &Arc<PolicyCounters> {
        &self.policy_counters
    }

    /// Has `flow` say what becomes of a frame with the key `key`, which is evaluated by itself if it is `alone`. Returns
    /// whether that holds for frames of the flow that come right after it, too, unless they are alone.
    #[inline(never)]
    #[must_use]
    pub fn lookup(
        &mut self,
        flow: &mut Flow,
        frame: &[u8],
        key: &FlowKey,
        alone: bool,
        snapshot: &Snapshot,
        now: u64,
    ) -> bool {
        if !alone && self.holds(flow, frame, key, snapshot, now) {
            return true;
        }
        self.evaluate(flow, frame, key, snapshot, now);
        !alone && self.holds(flow, frame, key, snapshot, now)
    }

    /// Whether what `flow` says still holds for one more frame of it.
    #[inline]
    #[must_use]
    fn holds(&self, flow: &Flow, frame: &[u8], key: &FlowKey, snapshot: &Snapshot, now: u64) -> bool {
        flow.epoch == snapshot.epoch() && (flow.is_untracked() || self.is_unchanged(flow, frame, key, snapshot, now))
    }

    /// The same, of a flow that a connection has a say in. Out of line: `holds` is asked twice, and is to be inlined.
    #[inline(never)]
    fn is_unchanged(&self, flow: &Flow, frame: &[u8], key: &FlowKey, snapshot: &Snapshot, now: u64) -> bool {
        if may_move(snapshot, flow.verdict, flow.states[1]) || flow.is_judged_each() {
            return false;
        }
        let touch = flow.is_to_be_touched(now);
        // What is refused does not keep its connection alive, so from time to time it is asked whether that still is.
        if touch && !passes(flow.verdict) {
            return false;
        }
        let same = |direction, state: Option<State>, stamp: Option<CtVersion>| match (state, stamp) {
            (None | Some(State::Untracked), _) => true,
            (Some(_), Some(stamp)) => self.connections.holds(stamp),
            // There may be room for a connection by now.
            (Some(State::New), None) if touch => false,
            (Some(state), None) => self.is_without_connection(flow, (key, direction), state, now),
        };
        let ([out, into], [stamp_out, stamp_into]) = (flow.states, flow.hooks.connections);
        same(Direction::Egress, out, stamp_out)
            && same(Direction::Ingress, into, stamp_into)
            && (!touch || self.touch(flow, frame, now))
    }

    /// Keeps the connections of a flow alive, with a frame of it that is as those before it were. False if one of them has to be
    /// looked at.
    #[cold]
    fn touch(&self, flow: &Flow, frame: &[u8], now: u64) -> bool {
        let (headers, _) = kopi_packet::parse(frame, WIRE);
        let segment = Segment::of(frame, &headers);
        let [out, into] = flow.hooks.connections;
        let alive = |stamp: Option<CtVersion>, direction| {
            stamp
                .and_then(CtVersion::connection)
                .is_none_or(|of| self.connections.touch(of, direction, segment.as_ref(), now))
        };
        alive(out, Direction::Egress) && alive(into, Direction::Ingress)
    }

    /// Whether a frame still has no connection at one side, so that its state is `state`. The frame by which that was said
    /// may have been a segment of another kind.
    #[cold]
    fn is_without_connection(
        &self,
        flow: &Flow,
        (key, direction): (&FlowKey, Direction),
        state: State,
        now: u64,
    ) -> bool {
        let tuple = zone(flow.verdict, key, direction).and_then(|zone| Tuple::of(zone, key, direction));
        tuple.is_none_or(|tuple| {
            self.connections.plain_without(&tuple, direction) == state && self.connections.find(&tuple, now).is_none()
        })
    }

    /// Asks for what says whether the connections still hold that the flows of `burst` belong to.
    #[inline]
    fn prefetch(&self, burst: &Burst, flows: &FlowTable) {
        let mut firsts = burst.firsts();
        // The last one is looked at right after this.
        while firsts & (firsts.wrapping_sub(1)) != 0 {
            let place = burst.places.get(firsts.trailing_zeros() as usize);
            firsts &= firsts - 1;
            if let Some(flow) = place.and_then(|place| flows.at(*place)).filter(|flow| !flow.is_untracked()) {
                for version in flow.hooks.connections.iter().flatten() {
                    self.connections.slot_of(*version).into_iter().for_each(kopi_ring::prefetch);
                }
            }
        }
    }

    /// Counts packets of a flow.
    #[inline]
    pub fn count(&self, hooks: &Hooks, packets: u64, bytes: u64) {
        let [out, into] = hooks.counter_ids;
        if out != 0 {
            self.policy_counters.count(out, packets, bytes);
        }
        if into != 0 {
            self.policy_counters.count(into, packets, bytes);
        }
    }
}

/// Whether a frame goes on to somebody. That each of several may refuse it makes no difference to its sender's side.
const fn passes(verdict: Verdict) -> bool {
    !matches!(verdict, Verdict::Drop(_) | Verdict::Refuse(..) | Verdict::Reject(_))
}

/// The app at whose side a frame of a flow was evaluated.
fn zone(verdict: Verdict, key: &FlowKey, direction: Direction) -> Option<PortId> {
    match (direction, verdict) {
        (Direction::Egress, _) => Some(key.source()),
        (Direction::Ingress, Verdict::App(id) | Verdict::Refuse(id, _) | Verdict::Reject(id)) => Some(id),
        (Direction::Ingress, _) => None,
    }
}

#[cfg(test)]
mod tests;
