//! Evaluation of one frame: the policy at the sender's side, the forwarding table, the policy at the receiver's.

use super::{Admission, Event, PolicyStage, passes};
use crate::ids::{PortId, Verdict, WIRE};
use crate::policy_counters::{CounterId, CounterKey};
use crate::policy_table::PolicyTable;
use crate::rss::RssTable;
use crate::snapshot::Snapshot;
use crate::worker::flow_table::Flow;
use kopi_config::policy::{Decision, Direction, State};
use kopi_packet::{FlowKey, Fragment, Headers, LinkProtocol, dhcp, fragment_id, ndp};
use kopi_policy::{Cause, CtLookup, CtVersion, Evaluation, FragmentKey, Packet, Violation};
use kopi_ring::DropReason;

/// A frame with what was read of it.
#[derive(Clone, Copy, Debug)]
pub struct ParsedFrame<'a> {
    /// The whole frame.
    pub frame: &'a [u8],
    /// Where its headers are.
    pub headers: &'a Headers,
    /// Its flow.
    pub key: &'a FlowKey,
    /// The TSC of its burst.
    pub now: u64,
}

/// What one side says of a frame.
struct HookEvaluation {
    evaluation: Evaluation,
    lookup: Option<CtLookup>,
    counter_id: CounterId,
}

impl PolicyStage {
    /// Evaluates `frame` and keeps what was found in `flow`.
    #[inline(never)]
    pub(crate) fn evaluate(&mut self, flow: &mut Flow, frame: &[u8], key: &FlowKey, snapshot: &Snapshot, now: u64) {
        let news = flow.epoch != snapshot.epoch();
        let before = flow.verdict;
        flow.epoch = snapshot.epoch();
        flow.forget();
        self.decide(flow, frame, key, snapshot, (now, news));
        // Frames of it may be evaluated one by one, and it is worked out once: which queue, or that a flow rule drops them.
        match (before, flow.verdict) {
            (Verdict::Refuse(id, DropReason::FlowRule), Verdict::App(to)) if !news && id == to => flow.verdict = before,
            (before, found) if news || found != before => choose_queue(flow, key, snapshot.rss()),
            _ => {}
        }
    }

    /// The verdict on `frame`. `news` says whether it is the first one of its flow under `snapshot`.
    #[inline]
    fn decide(&mut self, flow: &mut Flow, frame: &[u8], key: &FlowKey, snapshot: &Snapshot, (now, news): (u64, bool)) {
        let source = key.source();
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
        let seen = ParsedFrame { frame, headers: &headers, key, now };
        let mut lookups = [None, None];
        if source != WIRE {
            let evaluated = self.pass(filter, source, Direction::Egress, seen, news);
            lookups[0] = flow.note(Direction::Egress, &evaluated.evaluation, evaluated.lookup, evaluated.counter_id);
            if dhcp::is_for_server(key) {
                // What a client says of itself stands behind what a key holds.
                flow.judge_each();
            }
            if let Some(refused) = refusal(source, source, &evaluated.evaluation) {
                flow.verdict = refused;
                flow.hooks.connections = self.known(lookups);
                return;
            }
        }
        flow.verdict = match snapshot.shared_address().filter(|_| link.is_none()) {
            Some(sharing) if self.is_of_another(sharing, source, lookups[0].as_ref(), seen) => {
                Verdict::Drop(DropReason::PortNotLeased)
            }
            Some(sharing) if destination == *sharing.mac() => self.owner_of(sharing, source, seen),
            _ => route(),
        };
        if let Verdict::App(id) = flow.verdict {
            let evaluated = self.pass(filter, id, Direction::Ingress, seen, news);
            lookups[1] = flow.note(Direction::Ingress, &evaluated.evaluation, evaluated.lookup, evaluated.counter_id);
            if let Some(refused) = refusal(id, source, &evaluated.evaluation) {
                flow.verdict = refused;
            }
        }
        if !passes(flow.verdict) {
            flow.hooks.connections = self.known(lookups);
            return;
        }
        let [out, into] = lookups;
        flow.hooks.connections = [
            out.and_then(|lookup| self.accept(&lookup, Direction::Egress, now)),
            into.and_then(|lookup| self.accept(&lookup, Direction::Ingress, now)),
        ];
    }

    /// The conditions of the connections of a frame that does not pass, and so changes nothing about them.
    fn known(&self, [out, into]: [Option<CtLookup>; 2]) -> [Option<CtVersion>; 2] {
        let version =
            |lookup: CtLookup, direction| self.connections.version(lookup.connection()?, direction, lookup.state());
        [
            out.and_then(|lookup| version(lookup, Direction::Egress)),
            into.and_then(|lookup| version(lookup, Direction::Ingress)),
        ]
    }

    /// Takes down that a frame was accepted, and returns the condition of its connection in which more of them need no
    /// lookup.
    fn accept(&self, lookup: &CtLookup, direction: Direction, now: u64) -> Option<CtVersion> {
        let of = self.connections.accept(lookup, now)?;
        self.connections.version(of, direction, lookup.state())
    }

    /// Evaluates one copy of a frame that goes to several apps, for app `id`, and counts it. The frame is parsed once for all of them.
    pub fn admit(&mut self, seen: ParsedFrame<'_>, id: PortId, snapshot: &Snapshot) -> Admission {
        let Some(filter) = snapshot.policies() else { return Admission::FREE };
        let (frame, now) = (seen.frame, seen.now);
        let evaluated = self.pass(filter, id, Direction::Ingress, seen, false);
        self.policy_counters.count(evaluated.counter_id, 1, frame.len() as u64);
        let refused = match evaluated.evaluation.decision {
            Decision::Accept => {
                if let Some(lookup) = evaluated.lookup {
                    // Which connection it is of is of no interest: each copy is evaluated by itself.
                    let _connection = self.connections.accept(&lookup, now);
                }
                None
            }
            Decision::Drop | Decision::Reject => Some(reason(&evaluated.evaluation)),
        };
        Admission { counter_id: evaluated.counter_id, refused }
    }

    /// One side of the way: that of app `id`.
    fn pass(
        &mut self,
        filter: &PolicyTable,
        id: PortId,
        direction: Direction,
        seen: ParsedFrame<'_>,
        news: bool,
    ) -> HookEvaluation {
        let ParsedFrame { frame, headers, key, now } = seen;
        let lookup = filter.tracks().then(|| self.connections.lookup(id, direction, (frame, headers, key), now));
        let Some(port_policy) = filter.port_policy(id) else {
            // The snapshot has every app that it delivers to; one without a policy of its own gets nothing.
            let evaluation =
                Evaluation { decision: Decision::Drop, cause: Cause::Default, passing: 0, class: None, log: false };
            return HookEvaluation { evaluation, lookup, counter_id: 0 };
        };
        let state = lookup.as_ref().map_or(State::Untracked, CtLookup::state);
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
        HookEvaluation { evaluation, lookup, counter_id: self.policy_counters.counter_of(&counter_key) }
    }
}

/// Chooses the queue for the frames of a flow, as the app has it that gets them: by a hash, or by a rule, which may also drop them. What
/// goes to several apps has the hash for those that have chosen nothing.
#[inline]
fn choose_queue(flow: &mut Flow, key: &FlowKey, table: &RssTable) {
    flow.set_rss(table.hash(key, flow.verdict));
    if let Verdict::App(id) = flow.verdict {
        match table.of(id).steer(key, flow.notes()) {
            Ok(notes) => flow.set_notes(notes),
            Err(reason) => flow.verdict = Verdict::Refuse(id, reason),
        }
    }
}

/// What becomes of a frame that app `id` does not let pass; `None` if it does.
pub(super) fn refusal(id: PortId, source: PortId, evaluation: &Evaluation) -> Option<Verdict> {
    match evaluation.decision {
        Decision::Accept => None,
        Decision::Reject => Some(Verdict::Reject(id)),
        Decision::Drop if id == source => Some(Verdict::Drop(reason(evaluation))),
        Decision::Drop => Some(Verdict::Refuse(id, reason(evaluation))),
    }
}

/// Why a frame is dropped that was evaluated so.
pub(super) fn reason(evaluation: &Evaluation) -> DropReason {
    match evaluation.cause {
        Cause::PortSecurity(Violation::Listen) => DropReason::PortNotLeased,
        Cause::PortSecurity(_) => DropReason::Spoofed,
        Cause::Malformed => DropReason::Malformed,
        Cause::Fragment => DropReason::Fragment,
        Cause::Rule(_) | Cause::Default if evaluation.decision == Decision::Reject => DropReason::Rejected,
        Cause::Rule(_) | Cause::Default => DropReason::Policy,
    }
}
