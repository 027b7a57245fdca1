//! The classes of one policy, made ready for the workers.

use super::{ClassRow, ClassTotals};
use crate::ids::Backlog;
use crate::worker::sched_tree::{ClassCounters, Leaf, Numbers, SchedTree, Shaper};
use kopi_config::Policy;
use kopi_config::policy::{Class, Direction, WireLimit};
use kopi_packet::mark::Mark;
use kopi_policy::{PortPolicy, Ruleset};
use kopi_qos::{ClassSpec, CodelConfig, Limit, Options, Queue, QueueConfig, Rate, Scheduler, SharedBucket};
use kopi_ring::layout::L2_OVERHEAD;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// The class of frames to the wire that have none. A policy may say what it gets.
const UNCLASSED: &str = "default";
/// Bytes of a queue for each packet that it may hold, at most: a full frame.
const PACKET: u64 = 1518;

/// The classes of one policy.
#[derive(Debug)]
pub struct ShaperSpec {
    trees: Vec<TreeSpec>,
    begun: Instant,
}

/// The classes of one direction.
#[derive(Debug)]
struct TreeSpec {
    direction: Direction,
    specs: Vec<ClassSpec>,
    options: Options,
    numbers: Numbers,
    /// By the scheduler's numbers.
    leaves: Vec<LeafSpec>,
    /// By worker.
    counters: Vec<Arc<[ClassCounters]>>,
    /// Of each class that is a leaf. The control thread writes them.
    rates: Box<[LeafRate]>,
    /// The leaves at or below each class.
    below: (Box<[u32]>, Box<[u32]>),
}

/// How fast a class is.
#[derive(Debug, Default)]
struct LeafRate {
    /// Bytes at the last look, when that was in milliseconds after the beginning, and bits per second before it.
    bytes: AtomicU64,
    at_ms: AtomicU64,
    bits: AtomicU64,
}

#[derive(Debug)]
struct LeafSpec {
    /// Its index in the policy; `None` for what has no class and the policy says nothing of.
    index: Option<usize>,
    name: String,
    is_leaf: bool,
    config: QueueConfig,
    mark: Mark,
}

impl ShaperSpec {
    /// The classes of `policy` for `workers` workers; `None` if it says nothing of any.
    #[must_use]
    pub fn new(policy: &Policy, hz: u64, workers: usize, mtu: u16, now: u64) -> Option<Self> {
        let directions = [Direction::Egress, Direction::Ingress];
        let trees = directions.into_iter().filter_map(|way| TreeSpec::new(policy, way, (hz, workers, mtu), now));
        let trees: Vec<_> = trees.collect();
        (!trees.is_empty()).then(|| Self { trees, begun: Instant::now() })
    }

    /// What worker `worker` is to keep to, with ports below `ports`.
    ///
    /// # Panics
    ///
    /// If the policy's classes are no tree: it is checked when it is read.
    #[must_use]
    pub fn shaper(&self, worker: usize, ports: usize, now: u64) -> Box<Shaper> {
        let tree = |direction| {
            let spec = self.trees.iter().find(|spec| spec.direction == direction)?;
            Some(spec.tree(worker, ports, now))
        };
        Box::new(Shaper { egress: tree(Direction::Egress), ingress: tree(Direction::Ingress) })
    }

    /// Where frames of an app to the wire wait: in its rings, if all of them are of one class.
    #[must_use]
    pub fn backlog(&self, ruleset: &Ruleset, port_policy: &PortPolicy) -> Backlog {
        let Some(tree) = self.trees.iter().find(|tree| tree.direction == Direction::Egress) else {
            return Backlog::AppRing(0);
        };
        let own = ruleset.class_of(port_policy, Direction::Egress).and_then(|class| tree.leaf(class));
        let leaf = own.unwrap_or(tree.numbers.unclassed);
        if ruleset.has_class_rules(port_policy, Direction::Egress) {
            Backlog::ClassQueue(leaf)
        } else {
            Backlog::AppRing(leaf)
        }
    }

    /// How many leaves there are, in all directions.
    #[must_use]
    pub fn leaf_count(&self) -> usize {
        self.trees.iter().map(|tree| tree.numbers.ids.len()).sum()
    }

    /// How many classes there are, in all directions.
    #[must_use]
    pub fn class_count(&self) -> usize {
        self.trees.iter().map(|tree| tree.leaves.len()).sum()
    }

    /// What leaves in `range`, as far as there are so many, have counted, by what they are known by.
    pub fn leaves(&self, range: Range<usize>) -> impl Iterator<Item = (u64, ClassTotals)> + '_ {
        let leaves = self.trees.iter().flat_map(|tree| tree.numbers.ids.iter().map(move |leaf| (tree, *leaf)));
        leaves.skip(range.start).take(range.len()).map(|(tree, (id, leaf))| (id, tree.counted(leaf)))
    }

    /// What the leaf known as `id` has counted, and its number among all leaves.
    #[must_use]
    pub fn counted(&self, id: u64) -> Option<(usize, ClassTotals)> {
        let mut before = 0;
        for tree in &self.trees {
            let ids = &tree.numbers.ids;
            if let Some((at, (_, leaf))) =
                ids.binary_search_by_key(&id, |(id, _)| *id).ok().and_then(|at| Some((at, ids.get(at)?)))
            {
                return Some((before + at, tree.counted(*leaf)));
            }
            before += ids.len();
        }
        None
    }

    /// Works out the rates of the leaves in `range`, as far as there are so many.
    pub fn rate(&self, range: Range<usize>, now: Instant) {
        let leaves = self.trees.iter().flat_map(|tree| tree.numbers.ids.iter().map(move |leaf| (tree, *leaf)));
        for (tree, (_, leaf)) in leaves.skip(range.start).take(range.len()) {
            if let Some(rate) = tree.rates.get(leaf as usize) {
                rate.note(tree.counted(leaf).bytes, now.saturating_duration_since(self.begun));
            }
        }
    }

    /// The id of class number `at`.
    #[must_use]
    pub fn id(&self, at: usize) -> Option<u64> {
        let (tree, at) = self.find(at)?;
        tree.specs.get(at).map(|spec| spec.id)
    }

    /// Counts for a leaf at each worker.
    #[cfg(test)]
    pub(super) fn count(&self, name: &str, packets: u64, bytes: u64) {
        let tree = &self.trees[0];
        let at = tree.leaves.iter().position(|leaf| leaf.name == name).unwrap();
        for counters in &tree.counters {
            counters[at].packets.add(packets);
            counters[at].bytes.add(bytes);
        }
    }

    /// The tree of class number `at`, and its number there.
    fn find(&self, mut at: usize) -> Option<(&TreeSpec, usize)> {
        for tree in &self.trees {
            if at < tree.leaves.len() {
                return Some((tree, at));
            }
            at -= tree.leaves.len();
        }
        None
    }

    /// What is to be shown of class number `at`: in the order of the policy, what has no class last in its direction. `totals` makes of what
    /// a leaf known as this has counted what it has counted under all policies.
    pub(super) fn row(&self, at: usize, totals: impl Fn(u64, ClassTotals) -> ClassTotals) -> Option<ClassRow> {
        let (tree, at) = self.find(at)?;
        let (leaf, spec) = (tree.leaves.get(at)?, tree.specs.get(at)?);
        let (mut sum, mut bits_per_second) = (ClassTotals::default(), 0);
        for below in tree.below(at) {
            let Some(id) = tree.specs.get(*below as usize).map(|spec| spec.id) else { continue };
            sum.join(&totals(id, tree.counted(*below)));
            bits_per_second += tree.rates.get(*below as usize).map_or(0, |rate| rate.bits.load(Relaxed));
        }
        Some(ClassRow {
            name: leaf.name.clone(),
            parent: spec.parent.and_then(|parent| tree.leaves.get(parent as usize)).map(|parent| parent.name.clone()),
            direction: tree.direction,
            index: leaf.index,
            is_leaf: leaf.is_leaf,
            totals: sum,
            bits_per_second,
            delay_ns: None,
        })
    }
}

impl LeafRate {
    /// Notes that there are `bytes` by now, `at` after the beginning.
    fn note(&self, bytes: u64, at: Duration) {
        let at = u64::try_from(at.as_millis()).unwrap_or(u64::MAX);
        let more = bytes.saturating_sub(self.bytes.swap(bytes, Relaxed));
        let passed = at.saturating_sub(self.at_ms.swap(at, Relaxed)).max(1);
        let bits = u128::from(more) * 8_000 / u128::from(passed);
        self.bits.store(u64::try_from(bits).unwrap_or(u64::MAX), Relaxed);
    }
}

/// The leaves at or below each class: where those of each class begin in a list of all, and the list.
fn leaves_below(specs: &[ClassSpec], leaves: &[LeafSpec]) -> (Box<[u32]>, Box<[u32]>) {
    let above = |at: usize| {
        let first = u32::try_from(at).ok();
        std::iter::successors(first, |at| specs.get(*at as usize).and_then(|spec| spec.parent))
    };
    let numbers = || (0..leaves.len()).filter(|at| leaves[*at].is_leaf);
    let mut starts = vec![0_u32; leaves.len() + 1];
    for class in numbers().flat_map(above) {
        starts[class as usize + 1] += 1;
    }
    (1..starts.len()).for_each(|at| starts[at] += starts[at - 1]);
    let mut next = starts.clone();
    let mut below = vec![0; starts.last().map_or(0, |all| *all as usize)];
    for at in numbers() {
        for class in above(at) {
            let place = &mut next[class as usize];
            below[*place as usize] = u32::try_from(at).unwrap_or(u32::MAX);
            *place += 1;
        }
    }
    (starts.into(), below.into())
}

impl TreeSpec {
    fn new(policy: &Policy, direction: Direction, machine: (u64, usize, u16), now: u64) -> Option<Self> {
        let (hz, workers, mtu) = machine;
        let members: Vec<(usize, &Class)> =
            policy.classes.iter().enumerate().filter(|(_, class)| class.direction == direction).collect();
        let limited = direction == Direction::Egress && policy.wire.rate.is_some();
        if members.is_empty() && !limited {
            return None;
        }
        let frame = u32::from(mtu.saturating_add(L2_OVERHEAD)) + u32::from(policy.wire.overhead);
        let limits = Machine { hz, frame, shared: workers > 1, now };
        let options = options(&policy.wire, direction, &limits);
        let mut of_class = vec![u32::MAX; policy.classes.len()];
        (0..).zip(&members).for_each(|(at, (index, _))| of_class[*index] = at);
        let mut specs: Vec<ClassSpec> =
            members.iter().map(|(_, class)| spec(class, direction, &of_class, &limits)).collect();
        let mut leaves: Vec<LeafSpec> =
            members.iter().map(|(index, class)| LeafSpec::of_class(*index, class, hz, frame)).collect();
        let unclassed = match (0..).zip(&leaves).find(|(_, leaf)| leaf.name == UNCLASSED && leaf.is_leaf) {
            Some((at, _)) => at,
            None => {
                let class = Class::new(UNCLASSED.to_owned());
                specs.push(spec(&class, direction, &of_class, &limits));
                leaves.push(LeafSpec { index: None, ..LeafSpec::of_class(0, &class, hz, frame) });
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
        let rates = leaves.iter().map(|_| LeafRate::default()).collect();
        let below = leaves_below(&specs, &leaves);
        Some(Self { direction, specs, options, numbers, leaves, counters, rates, below })
    }

    fn leaf(&self, class: u16) -> Option<u32> {
        self.numbers.of_class.get(usize::from(class)).copied().filter(|leaf| *leaf != u32::MAX)
    }

    fn tree(&self, worker: usize, ports: usize, now: u64) -> SchedTree {
        let scheduler = Scheduler::new(&self.specs, &self.options, now).expect("the policy's classes are a tree");
        // A queue takes no room in a store until it holds something, and its number is all that it takes from this one.
        let leaves = self
            .leaves
            .iter()
            .zip(&self.specs)
            .map(|(leaf, spec)| Leaf::new(spec.id, Queue::new(leaf.config), leaf.config, leaf.mark));
        let counters = self.counters.get(worker).cloned().unwrap_or_default();
        SchedTree::new(scheduler, leaves.collect(), &self.numbers, counters, ports)
    }

    /// What leaf number `leaf` has counted at all workers.
    fn counted(&self, leaf: u32) -> ClassTotals {
        let mut totals = ClassTotals::default();
        let counters = self.counters.iter().filter_map(|counters| counters.get(leaf as usize));
        counters.for_each(|counters| totals.add(counters));
        totals
    }

    /// Numbers of the leaves at or below class number `at`.
    fn below(&self, at: usize) -> &[u32] {
        let (starts, leaves) = &self.below;
        let ends = starts.get(at).zip(starts.get(at + 1));
        ends.and_then(|(from, to)| leaves.get(*from as usize..*to as usize)).unwrap_or_default()
    }
}

impl LeafSpec {
    fn of_class(index: usize, class: &Class, hz: u64, frame: u32) -> Self {
        let ticks = |time| dpdk::tsc::ticks(time, hz);
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
struct Machine {
    hz: u64,
    frame: u32,
    /// Whether several workers keep to them together.
    shared: bool,
    now: u64,
}

impl Machine {
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

fn options(wire: &WireLimit, direction: Direction, limits: &Machine) -> Options {
    let rate = wire.rate.filter(|_| direction == Direction::Egress);
    Options {
        frame: limits.frame,
        overhead: wire.overhead.into(),
        quantum: limits.frame.saturating_mul(2),
        wire: rate.map(|rate| limits.limit(rate.bits(), wire.burst.map(|burst| burst.bytes()))),
        ..Options::new(limits.hz)
    }
}

fn spec(class: &Class, direction: Direction, of_class: &[u32], limits: &Machine) -> ClassSpec {
    let parent = class.parent.and_then(|parent| of_class.get(parent)).copied();
    let rate = class.rate.map(|rate| limits.limit(rate.bits(), class.burst.map(|burst| burst.bytes())));
    let ceil = class.ceiling().map(|ceil| limits.limit(ceil.bits(), class.cburst.map(|burst| burst.bytes())));
    let (weight, priority) = (class.weight, class.priority);
    ClassSpec { parent, rate, ceil, weight, priority, ..ClassSpec::new(id_of(&class.name, direction)) }
}

/// The id of a class, which is the same across reloads.
fn id_of(name: &str, direction: Direction) -> u64 {
    // Always the same within one build of the program, and ids live no longer than that.
    let mut hasher = DefaultHasher::new();
    (name, direction).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::port::User;
    use crate::worker::sched_tree::Dequeue;

    /// Who is alone in a tree without limits has turns of a whole burst. Users who share a class have short ones, or one with long frames
    /// would have the more of the wire.
    #[test]
    fn turns_are_long_for_who_is_alone() {
        let policy = Policy::parse("[[class]]\nname = \"up\"\n", "policy.toml").unwrap();
        let spec = ShaperSpec::new(&policy, 1_000_000_000, 1, 1500, 0).unwrap();
        let mut tree = spec.shaper(0, 8, 0).egress.unwrap();
        let leaf = tree.unclassed();
        let mut turns = |apps: &[u16]| {
            apps.iter().for_each(|app| tree.link(*app, User::Id((*app).into()), leaf, 0));
            let turns: Vec<_> = (0..4)
                .map(|_| match tree.next(0) {
                    Dequeue::AppRing { port, bytes, .. } => {
                        tree.sent(leaf, (1, bytes.into()), 0);
                        (port, bytes)
                    }
                    other => panic!("{other:?}"),
                })
                .collect();
            apps.iter().for_each(|app| tree.unlink(*app));
            turns
        };
        assert!(turns(&[1]).iter().all(|(port, bytes)| *port == 1 && *bytes >= 32 * 1500));
        let shared = turns(&[1, 2]);
        assert!(shared.iter().all(|(_, bytes)| *bytes < 4 * 1600), "{shared:?}");
        assert_eq!(shared.iter().filter(|(port, _)| *port == 1).count(), 2, "{shared:?}");
    }
}
