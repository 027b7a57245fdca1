//! The policy's classes, as the control thread has them: what workers are to keep to, and what they have counted.

mod delays;
mod rows;
mod spec;

pub use delays::{DELAY_BOUNDS, DelayCounts};
pub use rows::{ClassPart, ClassRow};
pub use spec::ShaperSpec;

use crate::control::workers::Dataplane;
use crate::ids::Backlog;
use crate::worker::sched_tree::{ClassCounters, Sample, Shaper};
use hdrhistogram::Histogram;
use kopi_config::Policy;
use kopi_policy::{PortPolicy, Ruleset};
use rows::Draining;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Over what time rates are measured, and how often what is known of delays begins anew.
const RATE_PERIOD: Duration = Duration::from_secs(1);
const DELAY_PERIOD: Duration = Duration::from_secs(10);
/// Longest delay that is told apart, in nanoseconds, and with how many digits.
const DELAY_MAX: u64 = 100_000_000_000;
const DELAY_DIGITS: u8 = 2;

/// Leaves that are looked at in one go, and those of whose delays: the control thread is away for a millisecond or two.
const STEP: usize = 4096;
const DELAYS_STEP: usize = 256;
/// In leaves, the least cost of entering what an older tree has counted.
const SPEC_COST: usize = 16;

/// What was counted for a class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClassTotals {
    /// Packets sent.
    pub packets: u64,
    /// Bytes of those, overhead not counted.
    pub bytes: u64,
    /// Packets dropped because the queue was full.
    pub full: u64,
    /// Packets dropped because they had waited too long.
    pub late: u64,
    /// Packets and bytes that wait in kopid.
    pub backlog: (u64, u64),
    /// Times that the class was at its ceiling.
    pub overlimits: u64,
}

impl ClassTotals {
    fn add(&mut self, counters: &ClassCounters) {
        self.packets += counters.packets.get();
        self.bytes += counters.bytes.get();
        self.full += counters.full.get();
        self.late += counters.late.get();
        self.backlog.0 += counters.backlog_packets.get();
        self.backlog.1 += counters.backlog_bytes.get();
        self.overlimits += counters.overlimits.get();
    }

    fn join(&mut self, other: &Self) {
        self.packets += other.packets;
        self.bytes += other.bytes;
        self.full += other.full;
        self.late += other.late;
        self.backlog.0 += other.backlog.0;
        self.backlog.1 += other.backlog.1;
        self.overlimits += other.overlimits;
    }
}

/// What is known about how long packets of a class have waited.
#[derive(Debug)]
struct Delays {
    now: Histogram<u64>,
    before: Histogram<u64>,
    /// Since when `now` is.
    since: Instant,
}

/// The classes in force, and what has become of earlier ones.
#[derive(Debug)]
pub struct Classes {
    hz: u64,
    workers: usize,
    ports: usize,
    mtu: u16,
    spec: Option<Arc<ShaperSpec>>,
    /// Trees that workers may still keep to, or that are not entered yet.
    draining: Vec<Draining>,
    /// What classes had counted under trees that are no more.
    past: Arc<BTreeMap<u64, ClassTotals>>,
    delays: BTreeMap<u64, Delays>,
    /// The same since the start, in less detail.
    delay_counts: BTreeMap<u64, DelayCounts>,
    /// Which of them are looked at next.
    delays_next: u64,
    /// Leaves whose rate was looked at in this round, and when it began.
    rated: usize,
    rates_began: Instant,
}

impl Classes {
    /// No classes yet, for `workers` workers over a TSC of `hz` ticks a second, a wire with MTU `mtu`, and ports below `ports`.
    #[must_use]
    pub fn new(hz: u64, workers: usize, ports: usize, mtu: u16) -> Self {
        Self {
            hz,
            workers,
            ports,
            mtu,
            spec: None,
            draining: Vec::new(),
            past: Arc::default(),
            delays: BTreeMap::new(),
            delay_counts: BTreeMap::new(),
            delays_next: 0,
            rated: usize::MAX,
            rates_began: Instant::now(),
        }
    }

    /// Puts the classes of `policy` in force, which workers will keep to with snapshot `snapshot`. Returns what each worker is
    /// to keep to.
    pub fn replace(&mut self, policy: Option<&Policy>, snapshot: u64, now: u64) -> Vec<Option<Box<Shaper>>> {
        let spec = policy.and_then(|policy| ShaperSpec::new(policy, self.hz, self.workers, self.mtu, now));
        let shapers = (0..self.workers).map(|worker| spec.as_ref().map(|spec| spec.shaper(worker, self.ports, now)));
        let shapers = shapers.collect();
        if let Some(spec) = std::mem::replace(&mut self.spec, spec.map(Arc::new)) {
            self.draining.push(Draining { snapshot, spec, entered: 0 });
        }
        self.rated = 0;
        // Samples of an older tree may still come. What they make goes with the next policy.
        let known: BTreeSet<_> =
            self.spec.iter().flat_map(|spec| spec.leaves(0..spec.leaf_count())).map(|(id, _)| id).collect();
        self.delay_counts.retain(|id, _| known.contains(id));
        shapers
    }

    /// Whether classes are kept to.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.spec.is_none()
    }

    /// How many there are, in all directions, those of what has none included.
    #[must_use]
    pub fn count(&self) -> usize {
        self.spec.as_ref().map_or(0, |spec| spec.class_count())
    }

    /// Where frames of an app to the wire wait.
    #[must_use]
    pub fn backlog(&self, ruleset: &Ruleset, port_policy: &PortPolicy) -> Backlog {
        self.spec.as_ref().map_or(Backlog::AppRing(0), |spec| spec.backlog(ruleset, port_policy))
    }

    /// Takes in what workers say, and looks at rates. To be called now and then.
    pub fn tick(&mut self, dataplane: &mut Dataplane) {
        while let Some(sample) = dataplane.sample() {
            self.note(sample);
        }
        self.enter(dataplane.retired());
        self.rate();
        self.forget_delays();
    }

    /// Enters what some classes have counted under trees that no worker keeps to since snapshot `retired` was given back.
    fn enter(&mut self, retired: u64) {
        let mut left = STEP;
        for Draining { spec, entered, .. } in self.draining.iter_mut().filter(|spec| spec.snapshot <= retired) {
            if left == 0 {
                break;
            }
            // Copied only while an operator is being answered.
            let past = Arc::make_mut(&mut self.past);
            let step = left.min(spec.leaf_count().saturating_sub(*entered));
            for (id, totals) in spec.leaves(*entered..*entered + step) {
                past.entry(id).or_default().join(&ClassTotals { backlog: (0, 0), ..totals });
            }
            *entered += step;
            // A tree costs something even without a leaf.
            left -= step.max(SPEC_COST).min(left);
        }
        self.draining.retain(|draining| draining.snapshot > retired || draining.entered < draining.spec.leaf_count());
    }

    /// Looks at the rates of some classes, and at each of them once a second if there are not too many.
    fn rate(&mut self) {
        let Some(spec) = &self.spec else { return };
        if self.rated >= spec.leaf_count() {
            if self.rates_began.elapsed() < RATE_PERIOD {
                return;
            }
            (self.rated, self.rates_began) = (0, Instant::now());
        }
        spec.rate(self.rated..self.rated + STEP, Instant::now());
        self.rated += STEP;
    }

    /// Begins anew with what is known of delays, for some classes for which it is time.
    fn forget_delays(&mut self) {
        let ids: Vec<_> = self.delays.range(self.delays_next..).take(DELAYS_STEP).map(|(id, _)| *id).collect();
        self.delays_next = ids.last().filter(|_| ids.len() == DELAYS_STEP).map_or(0, |last| last.wrapping_add(1));
        for id in ids {
            let Some(delays) = self.delays.get_mut(&id).filter(|delays| delays.since.elapsed() >= DELAY_PERIOD) else {
                continue;
            };
            delays.since = Instant::now();
            std::mem::swap(&mut delays.now, &mut delays.before);
            delays.now.reset();
            if delays.before.is_empty() {
                self.delays.remove(&id);
            }
        }
    }

    fn note(&mut self, sample: Sample) {
        let ns = dpdk::tsc::nanoseconds(sample.ticks, self.hz).clamp(1, DELAY_MAX);
        self.delay_counts.entry(sample.class).or_default().note(ns);
        let made = || {
            let one = || Histogram::new_with_bounds(1, DELAY_MAX, DELAY_DIGITS).ok();
            Some(Delays { now: one()?, before: one()?, since: Instant::now() })
        };
        if !self.delays.contains_key(&sample.class)
            && let Some(delays) = made()
        {
            self.delays.insert(sample.class, delays);
        }
        if let Some(delays) = self.delays.get_mut(&sample.class) {
            delays.now.saturating_record(ns);
        }
    }

    /// The same as [`part`](Self::part) without what is known of delays over the last seconds, but with what is since the start.
    #[must_use]
    pub fn part_for_metrics(&self, from: usize, count: usize) -> Option<(ClassPart, Vec<Option<DelayCounts>>)> {
        let spec = Arc::clone(self.spec.as_ref()?);
        let range = from..spec.class_count().min(from.saturating_add(count));
        let counts = range.clone().map(|at| self.delay_counts.get(&spec.id(at)?).cloned()).collect();
        let (draining, past) = (self.draining.clone(), Arc::clone(&self.past));
        Some((ClassPart { spec, draining, past, range, delays: Vec::new() }, counts))
    }

    /// What is to be shown of `count` classes from number `from` on, parents before their children, and whether there are more. Nothing,
    /// if no policy asks for classes.
    #[must_use]
    pub fn part(&self, from: usize, count: usize) -> Option<(ClassPart, bool)> {
        let spec = Arc::clone(self.spec.as_ref()?);
        let range = from..spec.class_count().min(from + count);
        let delay = |at| self.delays.get(&spec.id(at)?).and_then(rows::quantiles);
        let delays = range.clone().map(delay).collect();
        let has_more = range.end < spec.class_count();
        Some((
            ClassPart { spec, draining: self.draining.clone(), past: Arc::clone(&self.past), range, delays },
            has_more,
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Write;

    const LEAVES: u64 = 10_000;
    const WORKERS: usize = 2;

    /// So many leaves, each below one of ten classes, which are below one.
    fn policy() -> Policy {
        let mut text = "[[class]]\nname = \"all\"\n".to_owned();
        (0..10).for_each(|n| write!(text, "[[class]]\nname = \"part{n}\"\nparent = \"all\"\n").unwrap());
        (0..LEAVES).for_each(|n| write!(text, "[[class]]\nname = \"{n}\"\nparent = \"part{}\"\n", n % 10).unwrap());
        Policy::parse(text, "test").unwrap()
    }

    /// Packets and bits per second of every class, by name, from parts as an operator gets them.
    fn rows(classes: &Classes) -> BTreeMap<String, (u64, u64)> {
        let (mut rows, mut from) = (BTreeMap::new(), 0);
        while let Some((part, has_more)) = classes.part(from, 100) {
            assert!(part.rows().count() <= 100);
            rows.extend(part.rows().map(|row| (row.name, (row.totals.packets, row.bits_per_second))));
            from += 100;
            if !has_more {
                break;
            }
        }
        rows
    }

    /// Counts `n` packets of 1,000 bytes at each worker for leaf number `n`.
    fn count(classes: &Classes) {
        (0..LEAVES).for_each(|n| classes.spec.as_ref().unwrap().count(&n.to_string(), n, n * 1000));
    }

    /// What is counted for a class is so for all above it, whatever part of the answer they are in; and it is the same before, while and
    /// after what was counted under an older tree is entered, some classes at a time.
    #[test]
    fn classes_have_what_is_below_them_under_all_plans() {
        let mut classes = Classes::new(1_000_000_000, WORKERS, 2, 1500);
        let policy = policy();
        drop(classes.replace(Some(&policy), 1, 0));
        count(&classes);
        let check = |classes: &Classes, times: u64| {
            let (rows, workers) = (rows(classes), WORKERS as u64);
            assert_eq!(rows.len() as u64, LEAVES + 12, "with the class of what has none");
            assert_eq!(rows["all"].0, times * workers * LEAVES * (LEAVES - 1) / 2);
            for part in 0..10 {
                let sum: u64 = (0..LEAVES).filter(|n| n % 10 == part).sum();
                assert_eq!(rows[&format!("part{part}")].0, times * workers * sum);
            }
            assert!((0..LEAVES).all(|n| rows[&n.to_string()].0 == times * workers * n));
        };
        check(&classes, 1);
        drop(classes.replace(Some(&policy), 5, 0));
        check(&classes, 1);
        count(&classes);
        check(&classes, 2);
        classes.enter(4);
        assert_eq!(classes.draining.len(), 1, "a worker may keep to it still");
        let mut steps = 0;
        while !classes.draining.is_empty() {
            classes.enter(5);
            steps += 1;
            check(&classes, 2);
        }
        assert_eq!(steps, 3, "the control thread is not away for long");
        // The first look tells nothing of before.
        while classes.rated < classes.spec.as_ref().unwrap().leaf_count() {
            classes.rate();
        }
        let rates = rows(&classes);
        assert!(rates["9999"].1 > 0 && rates["0"].1 == 0);
        assert_eq!(rates["all"].1, (0..10).map(|n| rates[&format!("part{n}")].1).sum::<u64>());
    }
}
