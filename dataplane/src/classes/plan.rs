//! The classes of one policy, made ready for the workers.

use super::{Row, Totals};
use crate::shaper::{ClassCounters, Lane, Leaf, Numbers, Shaper, Source};
use kopi_config::Policy;
use kopi_config::policy::{Class, Direction, Wire};
use kopi_packet::mark::Mark;
use kopi_policy::{Ruleset, Subject};
use kopi_qos::{ClassSpec, CodelConfig, Limit, Options, Queue, QueueConfig, Rate, Scheduler, SharedBucket};
use kopi_ring::layout::L2_OVERHEAD;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

/// The class of frames to the wire that have none. A policy may say what it gets.
const UNCLASSED: &str = "default";
/// Bytes of a queue for each packet that it may hold, at most: a full frame.
const PACKET: u64 = 1518;

/// The classes of one policy.
#[derive(Debug)]
pub struct Plan {
    lanes: Vec<LanePlan>,
}

/// The classes of one direction.
#[derive(Debug)]
struct LanePlan {
    direction: Direction,
    specs: Vec<ClassSpec>,
    options: Options,
    numbers: Numbers,
    /// By the scheduler's numbers.
    leaves: Vec<LeafPlan>,
    /// By worker.
    counters: Vec<Arc<[ClassCounters]>>,
}

#[derive(Debug)]
struct LeafPlan {
    /// Its index in the policy; `None` for what has no class and the policy says nothing of.
    index: Option<usize>,
    name: String,
    is_leaf: bool,
    config: QueueConfig,
    mark: Mark,
}

impl Plan {
    /// The classes of `policy` for `workers` workers; `None` if it says nothing of any.
    #[must_use]
    pub fn new(policy: &Policy, hz: u64, workers: usize, mtu: u16, now: u64) -> Option<Self> {
        let directions = [Direction::Egress, Direction::Ingress];
        let lanes = directions.into_iter().filter_map(|way| LanePlan::new(policy, way, (hz, workers, mtu), now));
        let lanes: Vec<_> = lanes.collect();
        (!lanes.is_empty()).then_some(Self { lanes })
    }

    /// What worker `worker` is to keep to, with ports below `ports`.
    ///
    /// # Panics
    ///
    /// If the policy's classes are no tree: it is checked when it is read.
    #[must_use]
    pub fn shaper(&self, worker: usize, ports: usize, now: u64) -> Box<Shaper> {
        let lane = |direction| {
            let plan = self.lanes.iter().find(|plan| plan.direction == direction)?;
            Some(plan.lane(worker, ports, now))
        };
        Box::new(Shaper { egress: lane(Direction::Egress), ingress: lane(Direction::Ingress) })
    }

    /// Where frames of an app to the wire wait: in its rings, if all of them are of one class.
    #[must_use]
    pub fn source(&self, ruleset: &Ruleset, subject: &Subject) -> Source {
        let Some(lane) = self.lanes.iter().find(|lane| lane.direction == Direction::Egress) else {
            return Source::Ring(0);
        };
        let own = ruleset.class_of(subject, Direction::Egress).and_then(|class| lane.leaf(class));
        let leaf = own.unwrap_or(lane.numbers.unclassed);
        if ruleset.has_class_rules(subject, Direction::Egress) { Source::Split(leaf) } else { Source::Ring(leaf) }
    }

    /// What each leaf has counted, by what it is known by.
    pub fn totals(&self) -> impl Iterator<Item = (u64, Totals)> + '_ {
        self.lanes.iter().flat_map(|lane| {
            lane.numbers.ids.iter().map(|(id, leaf)| {
                let mut totals = Totals::default();
                let counters = lane.counters.iter().filter_map(|counters| counters.get(*leaf as usize));
                counters.for_each(|counters| totals.add(counters));
                (*id, totals)
            })
        })
    }

    /// What is to be shown, in the order of the policy, what has no class last.
    pub fn rows(
        &self,
        totals: impl Fn(u64) -> Totals,
        rate: impl Fn(u64) -> u64,
        delay: impl Fn(&u64) -> Option<(u64, u64)>,
    ) -> Vec<Row> {
        self.lanes.iter().flat_map(|lane| lane.rows(&totals, &rate, &delay)).collect()
    }
}

impl LanePlan {
    fn new(policy: &Policy, direction: Direction, machine: (u64, usize, u16), now: u64) -> Option<Self> {
        let (hz, workers, mtu) = machine;
        let members: Vec<(usize, &Class)> =
            policy.classes.iter().enumerate().filter(|(_, class)| class.direction == direction).collect();
        let limited = direction == Direction::Egress && policy.wire.rate.is_some();
        if members.is_empty() && !limited {
            return None;
        }
        let frame = u32::from(mtu.saturating_add(L2_OVERHEAD)) + u32::from(policy.wire.overhead);
        let limits = Limits { hz, frame, shared: workers > 1, now };
        let options = options(&policy.wire, direction, &limits);
        let mut of_class = vec![u32::MAX; policy.classes.len()];
        (0..).zip(&members).for_each(|(at, (index, _))| of_class[*index] = at);
        let mut specs: Vec<ClassSpec> =
            members.iter().map(|(_, class)| spec(class, direction, &of_class, &limits)).collect();
        let mut leaves: Vec<LeafPlan> =
            members.iter().map(|(index, class)| LeafPlan::of_class(*index, class, hz, frame)).collect();
        let unclassed = match (0..).zip(&leaves).find(|(_, leaf)| leaf.name == UNCLASSED && leaf.is_leaf) {
            Some((at, _)) => at,
            None => {
                let class = Class::new(UNCLASSED.to_owned());
                specs.push(spec(&class, direction, &of_class, &limits));
                leaves.push(LeafPlan { index: None, ..LeafPlan::of_class(0, &class, hz, frame) });
                u32::try_from(leaves.len() - 1).unwrap_or(u32::MAX)
            }
        };
        let mut ids: Vec<(u64, u32)> = (0..)
            .zip(specs.iter().zip(&leaves))
            .filter(|(_, (_, leaf))| leaf.is_leaf)
            .map(|(at, (spec, _))| (spec.id, at))
            .collect();
        ids.sort_unstable();
        // Inner classes hold no frames.
        for (of, leaf) in of_class.iter_mut().zip(policy.classes.iter().map(|class| class.is_leaf)) {
            *of = if leaf { *of } else { u32::MAX };
        }
        let counters = (0..workers).map(|_| leaves.iter().map(|_| ClassCounters::default()).collect());
        let counters = counters.collect();
        let numbers = Numbers { of_class: of_class.into(), ids: ids.into(), unclassed };
        Some(Self { direction, specs, options, numbers, leaves, counters })
    }

    fn leaf(&self, class: u16) -> Option<u32> {
        self.numbers.of_class.get(usize::from(class)).copied().filter(|leaf| *leaf != u32::MAX)
    }

    fn lane(&self, worker: usize, ports: usize, now: u64) -> Lane {
        let scheduler = Scheduler::new(&self.specs, &self.options, now).expect("the policy's classes are a tree");
        // A queue takes no room in a store until it holds something, and its number is all that it takes from this one.
        let leaves = self
            .leaves
            .iter()
            .zip(&self.specs)
            .map(|(leaf, spec)| Leaf::new(spec.id, Queue::new(leaf.config), leaf.config, leaf.mark));
        let counters = self.counters.get(worker).cloned().unwrap_or_default();
        Lane::new(scheduler, leaves.collect(), &self.numbers, counters, ports)
    }

    fn rows(
        &self,
        totals: &impl Fn(u64) -> Totals,
        rate: &impl Fn(u64) -> u64,
        delay: &impl Fn(&u64) -> Option<(u64, u64)>,
    ) -> Vec<Row> {
        let mut rows: Vec<Row> = self
            .leaves
            .iter()
            .zip(&self.specs)
            .map(|(leaf, spec)| Row {
                name: leaf.name.clone(),
                parent: spec
                    .parent
                    .and_then(|parent| self.leaves.get(parent as usize))
                    .map(|parent| parent.name.clone()),
                direction: self.direction,
                index: leaf.index,
                is_leaf: leaf.is_leaf,
                totals: totals(spec.id),
                bits_per_second: rate(spec.id),
                delay_ns: delay(&spec.id),
            })
            .collect();
        // What is counted for a class is so for all above it.
        for at in 0..rows.len() {
            let (own, bits) = (rows[at].totals, rows[at].bits_per_second);
            let mut above = self.specs[at].parent.filter(|_| self.leaves[at].is_leaf);
            while let Some(parent) = above {
                let parent = parent as usize;
                rows[parent].totals.join(&own);
                rows[parent].bits_per_second += bits;
                above = self.specs[parent].parent;
            }
        }
        rows
    }
}

impl LeafPlan {
    fn of_class(index: usize, class: &Class, hz: u64, frame: u32) -> Self {
        let ticks =
            |time: Duration| u64::try_from(time.as_nanos() * u128::from(hz) / 1_000_000_000).unwrap_or(u64::MAX);
        let codel = CodelConfig { target: ticks(class.target), interval: ticks(class.interval), mtu: frame };
        let config = QueueConfig {
            packets: class.limit,
            bytes: u64::from(class.limit) * PACKET.max(frame.into()),
            quantum: frame,
            codel: Some(codel),
        };
        let mark = Mark { dscp: class.dscp, vlan_priority: class.vlan_priority };
        Self { index: Some(index), name: class.name.clone(), is_leaf: class.is_leaf, config, mark }
    }
}

/// What limits are made by.
struct Limits {
    hz: u64,
    frame: u32,
    /// Whether several workers keep to them together.
    shared: bool,
    now: u64,
}

impl Limits {
    fn limit(&self, bits: u64, burst: Option<u64>) -> Limit {
        let rate = Rate::from_bits(bits);
        let limit = Limit { burst, ..Limit::new(rate) };
        if !self.shared {
            return limit;
        }
        let burst = burst.unwrap_or_else(|| rate.burst(self.frame));
        limit.shared(Arc::new(SharedBucket::new(rate, burst, self.frame, self.hz, self.now)))
    }
}

fn options(wire: &Wire, direction: Direction, limits: &Limits) -> Options {
    let rate = wire.rate.filter(|_| direction == Direction::Egress);
    Options {
        frame: limits.frame,
        overhead: wire.overhead.into(),
        quantum: limits.frame.saturating_mul(2),
        wire: rate.map(|rate| limits.limit(rate.bits(), wire.burst.map(|burst| burst.bytes()))),
        ..Options::new(limits.hz)
    }
}

fn spec(class: &Class, direction: Direction, of_class: &[u32], limits: &Limits) -> ClassSpec {
    let parent = class.parent.and_then(|parent| of_class.get(parent)).copied();
    let rate = class.rate.map(|rate| limits.limit(rate.bits(), class.burst.map(|burst| burst.bytes())));
    let ceil = class.ceiling().map(|ceil| limits.limit(ceil.bits(), class.cburst.map(|burst| burst.bytes())));
    let (weight, priority) = (class.weight, class.priority);
    ClassSpec { parent, rate, ceil, weight, priority, ..ClassSpec::new(id_of(&class.name, direction)) }
}

/// By what a class is known across reloads.
fn id_of(name: &str, direction: Direction) -> u64 {
    // Always the same within one build of the program, and ids live no longer than that.
    let mut hasher = DefaultHasher::new();
    (name, direction).hash(&mut hasher);
    hasher.finish()
}
