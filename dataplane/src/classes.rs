//! The policy's classes, as the control thread has them: what workers are to keep to, and what they have counted.

mod plan;

pub use plan::Plan;

use crate::dataplane::Dataplane;
use crate::shaper::{ClassCounters, Sample, Shaper, Source};
use hdrhistogram::Histogram;
use kopi_config::Policy;
use kopi_config::policy::Direction;
use kopi_policy::{Ruleset, Subject};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Over what time rates are measured, and how often what is known of delays begins anew.
const RATE_PERIOD: Duration = Duration::from_secs(1);
const DELAY_PERIOD: Duration = Duration::from_secs(10);
/// Longest delay that is told apart, in nanoseconds, and with how many digits.
const DELAY_MAX: u64 = 100_000_000_000;
const DELAY_DIGITS: u8 = 2;

/// What was counted for a class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
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
    /// How often the class was at its ceiling.
    pub overlimits: u64,
}

impl Totals {
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

/// What is shown of a class.
#[derive(Clone, Debug)]
pub struct Row {
    /// Its name.
    pub name: String,
    /// The name of its parent; `None` for the wire.
    pub parent: Option<String>,
    /// Which way its frames go.
    pub direction: Direction,
    /// Its index in the policy; `None` for the class of what has none.
    pub index: Option<usize>,
    /// Whether it has none below it.
    pub is_leaf: bool,
    /// What was counted, for it and those below it.
    pub totals: Totals,
    /// Bits per second over the last second, overhead not counted.
    pub bits_per_second: u64,
    /// Median and 99th percentile of how long packets have waited, in nanoseconds, over the last 10 to 20 seconds.
    pub delay_ns: Option<(u64, u64)>,
}

/// What is known about how long packets of a class have waited.
#[derive(Debug)]
struct Delays {
    now: Histogram<u64>,
    before: Histogram<u64>,
}

/// The classes in force, and what has become of earlier ones.
#[derive(Debug)]
pub struct Classes {
    hz: u64,
    workers: usize,
    ports: usize,
    mtu: u16,
    plan: Option<Plan>,
    /// Plans that workers may still keep to, with the picture that ends them.
    leaving: Vec<(u64, Plan)>,
    /// What classes had counted under plans that are no more.
    past: BTreeMap<u64, Totals>,
    delays: BTreeMap<u64, Delays>,
    delays_began: Instant,
    /// Bytes of each class at the last look, and what that makes in a second.
    rates: BTreeMap<u64, (u64, u64)>,
    rates_began: Instant,
}

impl Classes {
    /// No classes yet, for `workers` workers over a TSC of `hz` ticks a second, a wire with MTU `mtu`, and ports below `ports`.
    #[must_use]
    pub fn new(hz: u64, workers: usize, ports: usize, mtu: u16) -> Self {
        let (delays, rates, past) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let now = Instant::now();
        let (delays_began, rates_began) = (now, now);
        Self {
            hz,
            workers,
            ports,
            mtu,
            plan: None,
            leaving: Vec::new(),
            past,
            delays,
            delays_began,
            rates,
            rates_began,
        }
    }

    /// Puts the classes of `policy` in force, which workers will keep to with picture `picture`. Returns what each worker is
    /// to keep to.
    pub fn replace(&mut self, policy: Option<&Policy>, picture: u64, now: u64) -> Vec<Option<Box<Shaper>>> {
        let plan = policy.and_then(|policy| Plan::new(policy, self.hz, self.workers, self.mtu, now));
        let shapers = (0..self.workers).map(|worker| plan.as_ref().map(|plan| plan.shaper(worker, self.ports, now)));
        let shapers = shapers.collect();
        if let Some(old) = std::mem::replace(&mut self.plan, plan) {
            self.leaving.push((picture, old));
        }
        shapers
    }

    /// Whether classes are kept to.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.plan.is_none()
    }

    /// Where frames of an app to the wire wait.
    #[must_use]
    pub fn source(&self, ruleset: &Ruleset, subject: &Subject) -> Source {
        self.plan.as_ref().map_or(Source::Ring(0), |plan| plan.source(ruleset, subject))
    }

    /// Takes in what workers say, and looks at rates. To be called now and then.
    pub fn tick(&mut self, dataplane: &mut Dataplane) {
        while let Some(sample) = dataplane.sample() {
            self.note(sample);
        }
        let retired = dataplane.retired();
        for (_, plan) in self.leaving.extract_if(.., |(picture, _)| *picture <= retired) {
            for (id, totals) in plan.totals() {
                let totals = Totals { backlog: (0, 0), ..totals };
                self.past.entry(id).or_default().join(&totals);
            }
        }
        let elapsed = self.rates_began.elapsed();
        if elapsed >= RATE_PERIOD {
            self.rates_began = Instant::now();
            let totals = self.totals();
            for (id, totals) in &totals {
                let (bytes, rate) = self.rates.entry(*id).or_insert((totals.bytes, 0));
                let bits = u128::from(totals.bytes.saturating_sub(*bytes)) * 8_000;
                *rate = u64::try_from(bits / elapsed.as_millis().max(1)).unwrap_or(u64::MAX);
                *bytes = totals.bytes;
            }
            self.rates.retain(|id, _| totals.contains_key(id));
        }
        if self.delays_began.elapsed() >= DELAY_PERIOD {
            self.delays_began = Instant::now();
            for delays in self.delays.values_mut() {
                std::mem::swap(&mut delays.now, &mut delays.before);
                delays.now.reset();
            }
            self.delays.retain(|_, delays| !delays.before.is_empty());
        }
    }

    fn note(&mut self, sample: Sample) {
        let ns = u128::from(sample.ticks) * 1_000_000_000 / u128::from(self.hz.max(1));
        let ns = u64::try_from(ns).unwrap_or(DELAY_MAX).clamp(1, DELAY_MAX);
        let made = || {
            let one = || Histogram::new_with_bounds(1, DELAY_MAX, DELAY_DIGITS).ok();
            Some(Delays { now: one()?, before: one()? })
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

    /// What each leaf has counted, now and before.
    fn totals(&self) -> BTreeMap<u64, Totals> {
        let mut totals = BTreeMap::new();
        let Some(plan) = &self.plan else { return totals };
        for (id, counted) in plan.totals() {
            let mut sum = counted;
            let leaving = self.leaving.iter().flat_map(|(_, plan)| plan.totals()).filter(|(other, _)| *other == id);
            leaving.for_each(|(_, totals)| sum.join(&totals));
            sum.join(&self.past.get(&id).copied().unwrap_or_default());
            totals.insert(id, sum);
        }
        totals
    }

    /// What is to be shown, parents before their children.
    #[must_use]
    pub fn rows(&self) -> Vec<Row> {
        let Some(plan) = &self.plan else { return Vec::new() };
        let totals = self.totals();
        let delay = |id: &u64| {
            let delays = self.delays.get(id)?;
            let mut both = delays.now.clone();
            let added = both.add(&delays.before);
            debug_assert!(added.is_ok(), "both have the same bounds");
            (!both.is_empty()).then(|| (both.value_at_quantile(0.5), both.value_at_quantile(0.99)))
        };
        plan.rows(
            |id| totals.get(&id).copied().unwrap_or_default(),
            |id| self.rates.get(&id).map_or(0, |(_, rate)| *rate),
            delay,
        )
    }
}
