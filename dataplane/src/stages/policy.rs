//! What one worker asks before a frame passes: the policy at the sender's side, the switch, the policy at the receiver's.
//!
//! The first frame of a flow takes the long way. What it finds is kept in the flow table, and holds for the frames that
//! follow until there is another snapshot of the ports, or a connection enters another state.

mod shared_address;

use crate::ids::{PortId, Verdict, WIRE};
use crate::policy_counters::{CounterId, CounterKey, PolicyCounters};
use crate::policy_table::PolicyTable;
use crate::snapshot::Snapshot;
use crate::worker::flow_table::{Flow, Hooks};
use kopi_config::policy::{Decision, Direction, State};
use kopi_packet::tcp::Segment;
use kopi_packet::{FlowKey, Fragment, Headers, LinkProtocol, Seed, dhcp, fragment_id, ndp};
use kopi_policy::{
    Cause, Connections, CtLookup, CtVersion, Evaluation, Followed, FragmentKey, Fragments, Packet, Tuple, Violation,
};
use kopi_ring::DropReason;
use shared_address::may_move;
use std::sync::Arc;

/// Packets whose fragments a worker follows at a time.
pub const FRAGMENTED: usize = 4096;

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

/// A frame with what was read of it.
#[derive(Clone, Copy)]
struct Seen<'a> {
    frame: &'a [u8],
    headers: &'a Headers,
    key: &'a FlowKey,
    now: u64,
}

/// What one side says of a frame.
struct HookEvaluation {
    evaluation: Evaluation,
    look: Option<CtLookup>,
    counter_id: CounterId,
}

/// What becomes of one copy of a frame that goes to several apps.
#[derive(Clone, Copy, Debug)]
pub struct Admission {
    /// What has counted it.
    pub counter_id: CounterId,
    /// Why the app does not get it; `None` if it does.
    pub refused: Option<DropReason>,
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
    #[inline]
    #[must_use]
    pub fn lookup<'a>(
        &mut self,
        flow: &mut Flow,
        frame: impl Fn() -> &'a [u8],
        key: &FlowKey,
        alone: bool,
        snapshot: &Snapshot,
        now: u64,
    ) -> bool {
        if !alone && self.holds(flow, &frame, key, snapshot, now) {
            return true;
        }
        self.evaluate(flow, frame(), key, snapshot, now);
        !alone && self.holds(flow, &frame, key, snapshot, now)
    }

    /// Whether what `flow` says still holds for one more frame of it.
    #[inline]
    #[must_use]
    fn holds<'a>(
        &self,
        flow: &Flow,
        frame: impl Fn() -> &'a [u8],
        key: &FlowKey,
        snapshot: &Snapshot,
        now: u64,
    ) -> bool {
        let unchanged =
            || !may_move(snapshot, flow.verdict, flow.states[1]) && self.is_unchanged(flow, frame, key, now);
        flow.epoch == snapshot.epoch() && (flow.is_untracked() || unchanged())
    }

    #[inline]
    fn is_unchanged<'a>(&self, flow: &Flow, frame: impl Fn() -> &'a [u8], key: &FlowKey, now: u64) -> bool {
        if flow.is_judged_each() {
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
            && (!touch || self.touch(flow, frame(), now))
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

    /// Judges `frame`, of port `source`, and has `flow` say what was found. The long way.
    #[inline(never)]
    fn evaluate(&mut self, flow: &mut Flow, frame: &[u8], key: &FlowKey, snapshot: &Snapshot, now: u64) {
        let source = key.source();
        let news = flow.epoch != snapshot.epoch();
        flow.epoch = snapshot.epoch();
        flow.forget();
        let destination = key.dst_mac().bytes();
        let link = LinkProtocol::of(key);
        let route = || match link {
            Some(protocol) => snapshot.fib().lookup_link(source, &destination, protocol),
            None => snapshot.fib().lookup(source, &destination),
        };
        let Some(filter) = snapshot.policies() else {
            flow.verdict = route();
            return;
        };
        let (headers, _) = kopi_packet::parse(frame, source);
        let seen = Seen { frame, headers: &headers, key, now };
        let mut looks = [None, None];
        if source != WIRE {
            let evaluated = self.pass(filter, source, Direction::Egress, seen, news);
            looks[0] = flow.note(Direction::Egress, &evaluated.evaluation, evaluated.look, evaluated.counter_id);
            if dhcp::is_for_server(key) {
                // What a client says of itself stands behind what a key holds.
                flow.judge_each();
            }
            if let Some(refused) = refusal(source, source, &evaluated.evaluation) {
                flow.verdict = refused;
                flow.hooks.connections = self.known(looks);
                return;
            }
        }
        flow.verdict = match snapshot.shared_address().filter(|_| link.is_none()) {
            Some(sharing) if self.is_of_another(sharing, source, looks[0].as_ref(), seen) => {
                Verdict::Drop(DropReason::PortNotLeased)
            }
            Some(sharing) if destination == *sharing.mac() => self.owner_of(sharing, source, seen),
            _ => route(),
        };
        if let Verdict::App(id) = flow.verdict {
            let evaluated = self.pass(filter, id, Direction::Ingress, seen, news);
            looks[1] = flow.note(Direction::Ingress, &evaluated.evaluation, evaluated.look, evaluated.counter_id);
            if let Some(refused) = refusal(id, source, &evaluated.evaluation) {
                flow.verdict = refused;
            }
        }
        if !passes(flow.verdict) {
            flow.hooks.connections = self.known(looks);
            return;
        }
        let [out, into] = looks;
        flow.hooks.connections = [
            out.and_then(|look| self.accept(&look, Direction::Egress, now)),
            into.and_then(|look| self.accept(&look, Direction::Ingress, now)),
        ];
    }

    /// The conditions of the connections of a frame that does not pass, and so changes nothing about them.
    fn known(&self, [out, into]: [Option<CtLookup>; 2]) -> [Option<CtVersion>; 2] {
        let stamp = |look: CtLookup, direction| self.connections.version(look.connection()?, direction, look.state());
        [out.and_then(|look| stamp(look, Direction::Egress)), into.and_then(|look| stamp(look, Direction::Ingress))]
    }

    /// Takes down that a frame was accepted, and returns the condition of its connection in which more of them need no
    /// look.
    fn accept(&self, look: &CtLookup, direction: Direction, now: u64) -> Option<CtVersion> {
        let of = self.connections.accept(look, now)?;
        self.connections.version(of, direction, look.state())
    }

    /// Judges one copy of a frame that goes to several apps, for app `id`, and counts it.
    pub fn admit(&mut self, frame: &[u8], key: &FlowKey, id: PortId, snapshot: &Snapshot, now: u64) -> Admission {
        let Some(filter) = snapshot.policies() else { return Admission { counter_id: 0, refused: None } };
        let (headers, _) = kopi_packet::parse(frame, key.source());
        let seen = Seen { frame, headers: &headers, key, now };
        let evaluated = self.pass(filter, id, Direction::Ingress, seen, false);
        self.policy_counters.count(evaluated.counter_id, 1, frame.len() as u64);
        let refused = match evaluated.evaluation.decision {
            Decision::Accept => {
                if let Some(look) = evaluated.look {
                    // Which connection it is of is of no interest: each copy is evaluated by itself.
                    let _connection = self.connections.accept(&look, now);
                }
                None
            }
            Decision::Drop | Decision::Reject => Some(reason(&evaluated.evaluation)),
        };
        Admission { counter_id: evaluated.counter_id, refused }
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

    /// One side of the way: that of app `id`.
    fn pass(
        &mut self,
        filter: &PolicyTable,
        id: PortId,
        direction: Direction,
        seen: Seen<'_>,
        news: bool,
    ) -> HookEvaluation {
        let Seen { frame, headers, key, now } = seen;
        let look = filter.tracks().then(|| self.connections.lookup(id, direction, (frame, headers, key), now));
        let Some(port_policy) = filter.port_policy(id) else {
            // The snapshot has every app that it delivers to; one without a policy of its own gets nothing.
            let evaluation =
                Evaluation { decision: Decision::Drop, cause: Cause::Default, passing: 0, class: None, log: false };
            return HookEvaluation { evaluation, look, counter_id: 0 };
        };
        let state = look.as_ref().map_or(State::Untracked, CtLookup::state);
        let ndp = if ndp::is_ndp(key) { ndp::message(frame, headers) } else { None };
        let dhcp = if dhcp::is_for_server(key) { dhcp::request(frame, headers) } else { None };
        let packet = Packet { direction, key, state, ndp, dhcp };
        let fragment = match key.fragment() {
            Fragment::None => None,
            _ => fragment_id(frame, headers)
                .and_then(|part| FragmentKey::of(self.connections.holder(id), direction, key, part)),
        };
        let first = fragment.as_ref().filter(|_| key.fragment() == Fragment::Later);
        let evaluation = match first.and_then(|key| self.fragments.recall(key, now)) {
            Some(first) => filter.ruleset().evaluate_fragment(port_policy, &packet, &first),
            None => filter.ruleset().evaluate(port_policy, &packet),
        };
        if let (Some(fragment), Fragment::First) = (fragment, key.fragment()) {
            self.fragments.remember(&fragment, self.connections.charged(id, key.source()), evaluation, now);
        }
        let counter_key = CounterKey::new(id, direction, &evaluation);
        if evaluation.log && news {
            // With the queue full, the log is behind anyway, and says how much it left out.
            let _lost = self.events.push(Event { key: *key, counter_key });
        }
        HookEvaluation { evaluation, look, counter_id: self.policy_counters.counter_of(&counter_key) }
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

/// What becomes of a frame that app `id` does not let pass; `None` if it does.
fn refusal(id: PortId, source: PortId, evaluation: &Evaluation) -> Option<Verdict> {
    match evaluation.decision {
        Decision::Accept => None,
        Decision::Reject => Some(Verdict::Reject(id)),
        Decision::Drop if id == source => Some(Verdict::Drop(reason(evaluation))),
        Decision::Drop => Some(Verdict::Refuse(id, reason(evaluation))),
    }
}

fn reason(evaluation: &Evaluation) -> DropReason {
    match evaluation.cause {
        Cause::PortSecurity(Violation::Listen) => DropReason::PortNotLeased,
        Cause::PortSecurity(_) => DropReason::Spoofed,
        Cause::Malformed => DropReason::Malformed,
        Cause::Fragment => DropReason::Fragment,
        Cause::Rule(_) | Cause::Default if evaluation.decision == Decision::Reject => DropReason::Rejected,
        Cause::Rule(_) | Cause::Default => DropReason::Policy,
    }
}

#[cfg(test)]
mod tests;
