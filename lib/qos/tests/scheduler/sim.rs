//! A wire, a clock, and leaves with packets.

use kopi_qos::{ClassSpec, Limit, Options, Pick, Rate, Scheduler};

/// Ticks of a second: nanoseconds.
pub(crate) const HZ: u64 = 1_000_000_000;
pub(crate) const MS: u64 = HZ / 1000;
pub(crate) const OVERHEAD: u64 = 24;

/// A leaf's packets, lengths in bytes.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    /// Never any.
    Silent,
    /// Always another one, of these lengths in turn.
    Greedy(Vec<u32>),
    /// Frames of a length in bursts of so many, one after so many ticks.
    Bursts { length: u32, count: u64, every: u64 },
}

#[derive(Clone, Debug)]
struct Leaf {
    source: Source,
    taken: u64,
}

impl Leaf {
    fn has(&self, now: u64) -> bool {
        match &self.source {
            Source::Silent => false,
            Source::Greedy(_) => true,
            Source::Bursts { count, every, .. } => self.taken < (now / every + 1) * count,
        }
    }

    fn take(&mut self) -> u64 {
        self.taken += 1;
        match &self.source {
            Source::Silent => unreachable!("a silent leaf was asked for a packet"),
            Source::Greedy(lengths) => {
                let at = usize::try_from(self.taken).unwrap() % lengths.len();
                lengths[at].into()
            }
            Source::Bursts { length, .. } => (*length).into(),
        }
    }
}

/// What was sent by one pick.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sent {
    pub(crate) at: u64,
    pub(crate) leaf: u32,
    /// Overhead counted.
    pub(crate) bytes: u64,
}

pub(crate) struct Sim {
    pub(crate) scheduler: Scheduler,
    pub(crate) now: u64,
    leaves: Vec<Leaf>,
    /// Bytes that each class has sent itself, overhead counted.
    pub(crate) bytes: Vec<u64>,
    pub(crate) log: Vec<Sent>,
}

/// What one step did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Sent {
        leaf: u32,
        bytes: u64,
    },
    /// The clock was put forward to this tick, since nobody could send before.
    Waited(u64),
}

pub(crate) fn wire(bits: u64, burst: u64) -> Options {
    let mut options = Options::new(HZ);
    options.wire = Some(Limit::new(Rate::from_bits(bits)).with_burst(burst));
    options
}

/// A class below `parent`.
pub(crate) fn class(id: u64, parent: Option<u32>) -> ClassSpec {
    let mut class = ClassSpec::new(id);
    class.parent = parent;
    class
}

pub(crate) fn limit(bits: u64) -> Option<Limit> {
    Some(Limit::new(Rate::from_bits(bits)))
}

impl Sim {
    pub(crate) fn new(classes: &[ClassSpec], options: &Options) -> Self {
        let scheduler = Scheduler::new(classes, options, 0).unwrap();
        let silent = Leaf { source: Source::Silent, taken: 0 };
        let leaves = vec![silent; classes.len()];
        Self { scheduler, now: 0, leaves, bytes: vec![0; classes.len()], log: Vec::new() }
    }

    /// The same with full frames at each leaf, all the time.
    pub(crate) fn greedy(classes: &[ClassSpec], options: &Options) -> Self {
        let mut sim = Self::new(classes, options);
        for leaf in (0..).take(classes.len()).filter(|leaf| sim.scheduler.is_leaf(*leaf)).collect::<Vec<_>>() {
            sim.set(leaf, Source::Greedy(vec![1518]));
        }
        sim
    }

    pub(crate) fn set(&mut self, leaf: u32, source: Source) {
        // What came in the past of a new source is not there.
        let taken = match &source {
            Source::Bursts { count, every, .. } => self.now / every * count,
            _ => 0,
        };
        self.leaves[leaf as usize] = Leaf { source, taken };
        self.arrive();
    }

    pub(crate) fn has(&self, leaf: u32) -> bool {
        self.leaves[leaf as usize].has(self.now)
    }

    /// Tells the scheduler which leaves have packets now.
    pub(crate) fn arrive(&mut self) {
        for (at, leaf) in (0..).zip(&self.leaves) {
            match (self.scheduler.is_active(at), leaf.has(self.now)) {
                (false, true) => self.scheduler.activate(at, self.now),
                (true, false) => self.scheduler.deactivate(at, self.now),
                _ => {}
            }
        }
    }

    /// Serves one pick, which takes `cost` ticks of the worker.
    pub(crate) fn step(&mut self, cost: u64) -> Step {
        self.arrive();
        match self.scheduler.pick(self.now) {
            Pick::Serve { leaf, bytes: budget } => {
                let (mut bytes, mut payload, mut frames) = (0, 0, 0);
                let packets = &mut self.leaves[leaf as usize];
                while bytes < u64::from(budget) && frames < 32 && packets.has(self.now) {
                    let length = packets.take();
                    payload += length;
                    bytes += length + OVERHEAD;
                    frames += 1;
                }
                assert!(frames > 0, "leaf {leaf} was picked and has nothing");
                let more = packets.has(self.now);
                self.scheduler.charge(leaf, payload, frames, more, self.now);
                self.bytes[leaf as usize] += bytes;
                self.log.push(Sent { at: self.now, leaf, bytes });
                self.now += cost;
                Step::Sent { leaf, bytes }
            }
            pick => {
                let next = self.leaves.iter().filter_map(|leaf| match leaf.source {
                    Source::Bursts { every, .. } => Some((self.now / every + 1) * every),
                    _ => None,
                });
                let wake = match pick {
                    Pick::WaitUntil(tick) => Some(tick),
                    _ => None,
                };
                self.now = next.chain(wake).min().unwrap_or(self.now + MS);
                Step::Waited(self.now)
            }
        }
    }

    /// Serves until tick `end`, with 50 ns for each pick.
    pub(crate) fn run(&mut self, end: u64) {
        while self.now < end {
            self.step(50);
        }
    }

    /// Bytes that went within `from..to`, by leaf.
    pub(crate) fn within(&self, from: u64, to: u64) -> Vec<u64> {
        let mut bytes = vec![0; self.bytes.len()];
        for sent in self.log.iter().filter(|sent| (from..to).contains(&sent.at)) {
            bytes[sent.leaf as usize] += sent.bytes;
        }
        bytes
    }
}

/// Jain's index of fairness: one if all are equal, one part in n if one has everything.
pub(crate) fn jain(values: &[f64]) -> f64 {
    let sum: f64 = values.iter().sum();
    let squares: f64 = values.iter().map(|value| value * value).sum();
    let count: f64 = values.iter().map(|_| 1.0).sum();
    sum * sum / (count * squares)
}

#[expect(clippy::cast_precision_loss, reason = "a test computes with shares")]
pub(crate) fn float(number: u64) -> f64 {
    number as f64
}
