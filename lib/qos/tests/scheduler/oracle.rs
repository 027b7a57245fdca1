//! The rules of ceilings, priorities and work conservation, applied to every pick by somebody who looks at all classes anew.

use kopi_qos::{Bucket, ClassSpec, Limit, Options};

use crate::sim::{HZ, Sent, Sim, Step};

/// Watches one run. Guarantees are none of its business: no class may have one.
pub(crate) struct Oracle<'a> {
    classes: &'a [ClassSpec],
    ceilings: Vec<Option<Watched>>,
    wire: Option<Watched>,
    /// Bytes that each class and all below it have sent, and how many of these while a sibling of higher priority could have.
    sent: Vec<u64>,
    out_of_turn: Vec<u64>,
}

/// A ceiling.
struct Watched {
    /// As the scheduler has it, to know who may send.
    bucket: Bucket,
    /// The burst as a bucket that nobody may overdraw.
    strict: Bucket,
    /// A class that rests may do so until it has so many bytes.
    granule: u64,
    now: u64,
}

impl Watched {
    fn new(limit: &Limit, options: &Options) -> Self {
        let burst = limit.burst.unwrap_or_else(|| limit.rate.burst(options.frame)).max(options.frame.into());
        let depth = burst.saturating_sub(options.frame.into());
        let granule = (limit.rate.bits() / 8 / 65_536).min(options.quantum.into()).min(depth / 2);
        let strict = Bucket::new(limit.rate, burst, 0, HZ, 0);
        Self { bucket: Bucket::new(limit.rate, burst, options.frame, HZ, 0), strict, granule, now: 0 }
    }

    fn refill(&mut self, now: u64) {
        self.bucket.refill(now);
        self.strict.refill(now);
        self.now = now;
    }

    /// Whether it certainly lets a frame pass.
    fn is_open(&self) -> bool {
        // Not before the tick that the bucket itself says, which is tested by itself.
        self.bucket.is_open() && self.bucket.ready_at(self.granule).is_some_and(|ready| ready <= self.now)
    }

    fn charge(&mut self, sent: Sent) {
        assert!(self.bucket.is_open(), "{sent:?} went over a ceiling that was closed");
        assert!(
            self.strict.bytes() >= sent.bytes,
            "{sent:?} exceeds the burst: {} bytes are left",
            self.strict.bytes()
        );
        self.bucket.charge(sent.bytes);
        self.strict.charge(sent.bytes);
    }
}

impl<'a> Oracle<'a> {
    pub(crate) fn new(classes: &'a [ClassSpec], options: &Options) -> Self {
        let watched = |limit: &Limit| Watched::new(limit, options);
        Self {
            classes,
            ceilings: classes.iter().map(|class| class.ceil.as_ref().map(watched)).collect(),
            wire: options.wire.as_ref().map(watched),
            sent: vec![0; classes.len()],
            out_of_turn: vec![0; classes.len()],
        }
    }

    /// Takes a step of `sim` and checks it.
    pub(crate) fn step(&mut self, sim: &mut Sim) {
        sim.arrive();
        let now = sim.now;
        for ceiling in self.ceilings.iter_mut().chain([&mut self.wire]).flatten() {
            ceiling.refill(now);
        }
        let eligible: Vec<bool> = (0..self.classes.len()).map(|at| self.eligible(sim, at)).collect();
        let wire = self.wire.as_ref().is_none_or(Watched::is_open);
        match sim.step(50) {
            Step::Waited(_) => {
                let top = (0..self.classes.len()).find(|at| self.classes[*at].parent.is_none() && eligible[*at]);
                assert!(!wire || top.is_none(), "at {now} nobody was served, and class {top:?} could have been");
            }
            Step::Sent { leaf, bytes } => self.sent(Sent { at: now, leaf, bytes }, &eligible),
        }
    }

    /// Whether `at` certainly has something below it that may be sent, as far as it and what is below it go.
    fn eligible(&self, sim: &Sim, at: usize) -> bool {
        let number = u32::try_from(at).unwrap();
        let open = self.ceilings[at].as_ref().is_none_or(Watched::is_open);
        let has = |(child, class): (usize, &ClassSpec)| class.parent == Some(number) && self.eligible(sim, child);
        open && (sim.has(number) || self.classes.iter().enumerate().any(has))
    }

    fn sent(&mut self, sent: Sent, eligible: &[bool]) {
        if let Some(wire) = &mut self.wire {
            wire.charge(sent);
        }
        let mut at = Some(sent.leaf);
        while let Some(class) = at {
            let class = class as usize;
            let Class { parent, priority } = self.class(class);
            if let Some(ceiling) = &mut self.ceilings[class] {
                ceiling.charge(sent);
            }
            let first =
                |(other, of): (usize, &ClassSpec)| of.parent == parent && of.priority < priority && eligible[other];
            if self.classes.iter().enumerate().any(first) {
                self.out_of_turn[class] += sent.bytes;
            }
            self.sent[class] += sent.bytes;
            at = parent;
        }
    }

    fn class(&self, at: usize) -> Class {
        Class { parent: self.classes[at].parent, priority: self.classes[at].priority }
    }

    /// Checks the run as a whole: out of turn only what the guard gives, a part in 64 of what the parent got.
    pub(crate) fn finish(&self, options: &Options) {
        let pick = u64::from(options.quantum + options.frame);
        for parent in std::iter::once(None).chain((0..self.classes.len()).map(|at| u32::try_from(at).ok())) {
            let below = || (0..self.classes.len()).filter(|at| self.classes[*at].parent == parent);
            let total: u64 = below().map(|at| self.sent[at]).sum();
            let out_of_turn: u64 = below().map(|at| self.out_of_turn[at]).sum();
            assert!(out_of_turn <= total / 64 + 2 * pick, "below {parent:?}: {out_of_turn} of {total}");
        }
    }
}

struct Class {
    parent: Option<u32>,
    priority: u8,
}
