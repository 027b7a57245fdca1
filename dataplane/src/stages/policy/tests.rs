//! What is kept of flows against the policy asked anew for every frame.

mod flow_rules;
mod frames;
mod shared_address;

use super::evaluate::{ParsedFrame, reason, refusal};
use super::*;
use crate::fib::{Fib, FibPort};
use crate::ids::Backlog;
use crate::policy_table::{PolicyPort, PolicyTable};
use crate::worker::flow_table::{FlowTable, Hash, Hooks};
use frames::{MACS, Step, broadcast_syn, frames, steps};
use kopi_config::policy::{Decision, Policy, Tracking};
use kopi_packet::{Fragment, LinkProtocols, MacAddr, fragment_id, ndp};
use kopi_policy::{CtLookup, FragmentKey, Owner, Packet, PortPolicy, Ruleset, TOUCH_SHIFT};
use kopi_ring::message::Settings;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

/// Ticks in a second: as many as pass between two touches of a connection, so that both ways know the same of time.
const HZ: u64 = 1 << TOUCH_SHIFT;
const CONNECTIONS: usize = 1 << 12;

fn seed() -> Seed {
    Seed::from_bytes(std::array::from_fn(|i| u8::try_from(i * 31 % 251).unwrap()))
}

/// What one rule of a random policy says.
fn rule() -> impl Strategy<Value = String> {
    let direction = prop_oneof![Just(""), Just("direction = \"egress\", "), Just("direction = \"ingress\", ")];
    let state = proptest::sample::select(&["", "", "new", "established", "related", "invalid", "untracked"][..]);
    let what = proptest::sample::select(
        &[
            "",
            "proto = \"tcp\"",
            "proto = \"udp\"",
            "proto = \"tcp\", dst_port = 1",
            "src_port = \"1-2\"",
            "proto = \"udp\", dst_port = 2",
            "dst = \"10.0.0.1\"",
            "src = \"10.0.0.2\"",
            "src = \"10.0.0.3\", dst_port = 1",
            "tcp_flags = \"syn/syn,ack,rst,fin\"",
            "tcp_flags = \"psh\"",
            "icmp_type = \"echo-request\"",
            "icmp_type = \"destination-unreachable\"",
            "fragment = true",
            "vlan = 5",
            "arp_op = 1",
            "ethertype = \"ipv6\"",
        ][..],
    );
    let action = proptest::sample::select(
        &["accept", "accept", "accept", "drop", "drop", "reject", "count", "log", "class"][..],
    );
    let owner = proptest::sample::select(&["", "", "owner = { uid = 1 }\n", "owner = { not = { uid = 1 } }\n"][..]);
    (direction, state, what, owner, action).prop_map(|(direction, state, what, owner, action)| {
        let state = if state.is_empty() { String::new() } else { format!("state = \"{state}\", ") };
        let matches = format!("{direction}{state}{what}");
        let matches = matches.trim_end_matches(", ");
        let class = match direction {
            "direction = \"egress\", " => "\"up\"",
            "direction = \"ingress\", " => "\"down\"",
            _ => "[\"up\", \"down\"]",
        };
        let class = if action == "class" { format!("class = {class}\n") } else { String::new() };
        format!("[[rule]]\nmatch = {{ {matches} }}\n{owner}action = \"{action}\"\n{class}")
    })
}

/// The text of a random policy.
fn policy() -> impl Strategy<Value = String> {
    let decision = || proptest::sample::select(&["accept", "accept", "drop", "reject"][..]);
    let passing = || proptest::sample::select(&["accept", "drop"][..]);
    let listen = proptest::sample::select(&["", "", "listen = [\"tcp/1\", \"udp/2\"]\n"][..]);
    let leases = proptest::sample::select(&["", "addresses = [\"10.0.0.1\"]\n"][..]);
    let default = (decision(), decision(), passing(), passing());
    (default, any::<bool>(), any::<bool>(), listen, leases, prop::collection::vec(rule(), 0..8)).prop_map(
        |((egress, ingress, fragments, malformed), window, loose, listen, leases, rules)| {
            format!(
                "[default]\negress = \"{egress}\"\ningress = \"{ingress}\"\nfragments = \"{fragments}\"\n\
                 malformed = \"{malformed}\"\n[tracking]\ntcp_window = {window}\ntcp_loose = {loose}\n\
                 [[class]]\nname = \"up\"\n\
                 [[class]]\nname = \"down\"\ndirection = \"ingress\"\n[[app]]\nname = \"one\"\n{listen}{leases}{}",
                rules.concat()
            )
        },
    )
}

/// A snapshot of two apps under `policy`.
fn snapshot(epoch: u32, policy: &Policy) -> Snapshot {
    let ruleset = Arc::new(Ruleset::new(Arc::new(policy.clone()), &()).unwrap());
    let ids: [PortId; 2] = [1, 2];
    let members = ids.map(|id| {
        let mac = MACS[usize::from(id) - 1];
        let settings = Settings { mtu: 1500, macs: vec![mac], all_multicast: true, ..Settings::default() };
        FibPort { id, settings, link: LinkProtocols::NONE }
    });
    let port_policies = ids.map(|id| {
        let owner = Owner { name: "one", uid: Some(id.into()), ..Owner::default() };
        let entry = (id == 1).then_some(0);
        let port_policy = ruleset.port_policy(&owner, entry, &[MacAddr::new(MACS[usize::from(id) - 1])]);
        PolicyPort { id, generation: id.into(), port_policy, flows: u32::MAX, backlog: Backlog::AppRing(0) }
    });
    let filter = PolicyTable::new(ruleset, port_policies.into());
    Snapshot::new(epoch, Fib::new(true, 1500, &members)).with_policies(Some(filter))
}

/// What becomes of a frame, and what was said at each side.
#[derive(Debug, PartialEq)]
struct Fate {
    verdict: Verdict,
    outcomes: [Option<CounterKey>; 2],
    classes: [u16; 2],
    /// Of a frame for several: who does not get it, and why.
    refused: Vec<(PortId, DropReason)>,
}

/// The policy without anything that is kept of flows: every frame takes the long way.
struct Plain {
    connections: Connections,
    fragments: Vec<(FragmentKey, u64, Evaluation)>,
}

impl Plain {
    fn new() -> Self {
        let connections = Connections::new(CONNECTIONS, seed(), &Tracking::default(), HZ);
        Self { connections, fragments: Vec::new() }
    }

    fn pass(
        &mut self,
        filter: &PolicyTable,
        id: PortId,
        direction: Direction,
        seen: ParsedFrame<'_>,
    ) -> (Evaluation, Option<CtLookup>) {
        let ParsedFrame { frame, headers, key, now } = seen;
        let port_policy: &PortPolicy = filter.port_policy(id).unwrap();
        let ruleset = filter.ruleset();
        let look = ruleset.uses_state().then(|| self.connections.lookup(id, direction, (frame, headers, key), now));
        let state = look.as_ref().map_or(State::Untracked, CtLookup::state);
        let packet = Packet { direction, key, state, ndp: ndp::message(frame, headers), dhcp: None };
        let part = fragment_id(frame, headers)
            .and_then(|part| FragmentKey::of(self.connections.holder(id), direction, key, part));
        let Some(part) = part else { return (ruleset.evaluate(port_policy, &packet), look) };
        if key.fragment() == Fragment::First {
            let evaluation = ruleset.evaluate(port_policy, &packet);
            self.fragments.push((part, now, evaluation));
            return (evaluation, look);
        }
        let first = self.fragments.iter().rev().find(|(other, ..)| *other == part);
        let first = first.filter(|(_, since, _)| now - since < kopi_policy::HOLD_SECONDS * HZ);
        let evaluation = match first {
            Some((.., first)) => ruleset.evaluate_fragment(port_policy, &packet, first),
            None => ruleset.evaluate(port_policy, &packet),
        };
        (evaluation, look)
    }

    fn evaluate(&mut self, frame: &[u8], source: PortId, snapshot: &Snapshot, now: u64) -> Fate {
        let filter = snapshot.policies().unwrap();
        let (headers, key) = kopi_packet::parse(frame, source);
        let flags = kopi_packet::tcp::flags_of(frame, &headers) & filter.ruleset().tcp_flags_mask();
        let key = key.with_tcp_flags(flags);
        let seen = ParsedFrame { frame, headers: &headers, key: &key, now };
        let destination = key.dst_mac().bytes();
        let verdict = Verdict::Drop(DropReason::PortGone);
        let mut fate = Fate { verdict, outcomes: [None; 2], classes: [0; 2], refused: Vec::new() };
        let mut looks = Vec::new();
        let mut side = |plain: &mut Self, id, direction, fate: &mut Fate| {
            let (evaluation, look) = plain.pass(filter, id, direction, seen);
            fate.outcomes[usize::from(direction == Direction::Ingress)] =
                Some(CounterKey::new(id, direction, &evaluation));
            fate.classes[usize::from(direction == Direction::Ingress)] = evaluation.class.map_or(0, |class| class + 1);
            looks.extend(look);
            refusal(id, source, &evaluation)
        };
        if source != WIRE
            && let Some(refused) = side(self, source, Direction::Egress, &mut fate)
        {
            return Fate { verdict: refused, ..fate };
        }
        fate.verdict = snapshot.fib().lookup(source, &destination);
        if let Verdict::App(id) = fate.verdict
            && let Some(refused) = side(self, id, Direction::Ingress, &mut fate)
        {
            return Fate { verdict: refused, ..fate };
        }
        if matches!(fate.verdict, Verdict::Drop(_)) {
            return fate;
        }
        for look in looks {
            let _connection = self.connections.accept(&look, now);
        }
        if fate.verdict == Verdict::Group {
            for id in snapshot.fib().listeners(&destination).iter().filter(|id| **id != source) {
                let (evaluation, look) = self.pass(filter, *id, Direction::Ingress, seen);
                if evaluation.decision == Decision::Accept {
                    let _connection = look.and_then(|look| self.connections.accept(&look, now));
                } else {
                    fate.refused.push((*id, reason(&evaluation)));
                }
            }
        }
        fate
    }
}

/// The policy as a worker asks it.
struct Cached {
    policy_stage: PolicyStage,
    flows: FlowTable,
    /// The frame before of the same burst: its source and key, whether it was alone, and whether what was found for it
    /// holds for its followers.
    before: Option<(FlowKey, bool, bool)>,
    _events: rtrb::Consumer<Event>,
}

impl Cached {
    fn new() -> Self {
        let connections = Arc::new(Connections::new(CONNECTIONS, seed(), &Tracking::default(), HZ));
        let (events, consumer) = rtrb::RingBuffer::new(EVENTS);
        let policy_stage = PolicyStage::new(connections, Arc::new(PolicyCounters::new(0)), seed(), HZ, events);
        Self { policy_stage, flows: FlowTable::new(1 << 12, 3, seed()), before: None, _events: consumer }
    }

    /// As [`crate::worker::burst::Burst`] does it.
    fn evaluate(&mut self, frame: &[u8], source: PortId, snapshot: &Snapshot, now: u64) -> Fate {
        let watch = snapshot.policies().unwrap().watch();
        let (headers, mut key) = kopi_packet::parse(frame, source);
        let alone = watch.complete(&mut key, frame, &headers);
        let hash: Hash = self.flows.hash(&key);
        let flow = self.flows.flow(&key, hash, u32::MAX, now).unwrap();
        let follows = self.before.is_some_and(|(last, was_alone, holds)| last == key && !was_alone && !alone && holds);
        let holds = follows || self.policy_stage.lookup(flow, frame, &key, alone, snapshot, now);
        self.before = Some((key, alone, holds));
        flow.count(1, 64, now);
        let Flow { verdict, hooks: Hooks { counter_ids, classes, .. }, .. } = *flow;
        let outcomes = counter_ids.map(|counter_id| self.policy_stage.policy_counters().key(counter_id));
        let mut fate = Fate { verdict, outcomes, classes, refused: Vec::new() };
        if verdict == Verdict::Group {
            for id in snapshot.fib().listeners(&key.dst_mac().bytes()).iter().filter(|id| **id != source) {
                let (headers, _) = kopi_packet::parse(frame, key.source());
                let seen = ParsedFrame { frame, headers: &headers, key: &key, now };
                if let Some(reason) = self.policy_stage.admit(seen, *id, snapshot).refused {
                    fate.refused.push((*id, reason));
                }
            }
        }
        fate
    }
}

fn compare(policies: &[String; 2], steps: &[Step]) -> Result<(), TestCaseError> {
    let policies = policies.each_ref().map(|text| Policy::parse(text, "random").unwrap());
    let (mut plain, mut cached) = (Plain::new(), Cached::new());
    let (mut epoch, mut now) = (0, 1000 * HZ);
    let mut current = None;
    let mut used = 1;
    for step in std::iter::once(&Step::Reload).chain(steps) {
        match step {
            Step::Wait(seconds) => {
                now += u64::from(*seconds) * HZ;
                cached.before = None;
                continue;
            }
            Step::Reload => {
                used = 1 - used;
                epoch += 1;
                let tracking = &policies[used].tracking;
                plain.connections.set_tracking(tracking);
                cached.policy_stage.connections.set_tracking(tracking);
                plain.fragments.clear();
                cached.before = None;
                drop(cached.policy_stage.turn_over(Arc::new(PolicyCounters::new(0)), true));
                current = Some(snapshot(epoch, &policies[used]));
                continue;
            }
            Step::Send(_) => {}
        }
        let snapshot = current.as_ref().unwrap();
        for (source, frame) in frames(step) {
            let expected = plain.evaluate(&frame, source, snapshot, now);
            let fate = cached.evaluate(&frame, source, snapshot, now);
            let key = kopi_packet::parse(&frame, source).1;
            prop_assert_eq!(&fate, &expected, "{} from {} {:02x?}", key, source, frame);
        }
    }
    Ok(())
}

fn config() -> ProptestConfig {
    let (cases, rng_seed) = (4_000, RngSeed::Fixed(1));
    ProptestConfig { cases, failure_persistence: None, rng_seed, max_shrink_iters: 20_000, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    /// Whatever the policies and the frames are, a frame meets the fate that it would meet if nothing were kept of its
    /// flow: the same verdict by the same rules at each side, also within a burst, after pauses and across reloads.
    #[test]
    fn cached_verdicts_are_those_of_the_policy(policies in [policy(), policy()], steps in steps()) {
        compare(&policies, &steps)?;
    }
}

/// A packet for one host does not get to a port that its app does not list by being sent to everybody on the link.
#[test]
fn broadcast_frames_are_no_way_around_a_lease() {
    let text = "[[app]]\nname = \"one\"\nlisten = \"tcp/1\"\n";
    let snapshot = snapshot(1, &Policy::parse(text, "test").unwrap());
    let fate = Cached::new().evaluate(&broadcast_syn(), WIRE, &snapshot, 1000 * HZ);
    assert_eq!((fate.verdict, fate.refused), (Verdict::Group, vec![(1, DropReason::PortNotLeased)]));
}
