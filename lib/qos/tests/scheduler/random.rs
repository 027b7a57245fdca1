//! Random trees with random traffic.

use kopi_qos::{ClassSpec, Limit, Options, Rate};
use proptest::prelude::*;

use crate::fluid;
use crate::oracle::Oracle;
use crate::sim::{HZ, MS, Sim, Source, float, wire};

const MBIT: u64 = 1_000_000;

/// Numbers from which a class is made: parent, ceiling, guarantee, weight, priority.
type Dice = (u32, Option<u64>, Option<u64>, u16, u8);

fn dice() -> impl Strategy<Value = Vec<Dice>> {
    let bits = |most: u64| prop::option::of(prop_oneof![1..most, 1..most * MBIT]);
    let weight = prop_oneof![1..10_u16, 1..=1000_u16];
    prop::collection::vec((any::<u32>(), bits(900), bits(60), weight, prop_oneof![Just(4_u8), 0..8_u8]), 1..20)
}

/// A tree of at most five levels.
fn tree(dice: &[Dice], guarantees: bool) -> Vec<ClassSpec> {
    let mut classes: Vec<ClassSpec> = Vec::new();
    let mut levels: Vec<u32> = Vec::new();
    for (id, &(parent, ceil, rate, weight, priority)) in (0..).zip(dice) {
        let mut class = ClassSpec::new(id);
        let at = parent % (u32::try_from(id).unwrap() + 1);
        let above = levels.get(at as usize).copied().filter(|level| *level < 5);
        class.parent = above.map(|_| at);
        class.ceil = ceil.map(|bits| Limit::new(Rate::from_bits(bits)).with_burst(bits % 40_000));
        class.rate = rate.filter(|_| guarantees).map(|bits| Limit::new(Rate::from_bits(bits)));
        (class.weight, class.priority) = (weight, priority);
        levels.push(above.map_or(1, |level| level + 1));
        classes.push(class);
    }
    classes
}

/// What leaves have to send, by a number for each.
fn source(number: u32) -> Source {
    match number % 5 {
        0 => Source::Silent,
        1 => Source::Greedy(vec![64]),
        2 => Source::Greedy(vec![1518, 64, 300]),
        3 => Source::Bursts { length: 64 + number % 1455, count: u64::from(number % 40) + 1, every: 200_000 },
        _ => Source::Bursts { length: 1518, count: 1, every: u64::from(number % 50_000) + 10_000 },
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whoever could send is served at once; nobody exceeds a ceiling in any window, neither its own nor one above it; out of the
    /// order of priorities there is only the guard.
    #[test]
    fn the_rules_hold_at_every_pick(
        dice in dice(), capacity in prop_oneof![Just(None), (1..2000_u64).prop_map(Some)],
        sources in prop::collection::vec((0..20_usize, any::<u32>()), 10..40),
    ) {
        let classes = tree(&dice, false);
        let options = capacity.map_or(Options::new(HZ), |mbit| wire(mbit * MBIT, 10_000));
        let mut sim = Sim::new(&classes, &options);
        let mut oracle = Oracle::new(&classes, &options);
        for (leaf, number) in sources {
            let leaf = u32::try_from(leaf % classes.len()).unwrap();
            if sim.scheduler.is_leaf(leaf) {
                sim.set(leaf, source(number));
            }
            for _ in 0..60 {
                oracle.step(&mut sim);
            }
        }
        oracle.finish(&options);
    }

    /// Over a long time each class gets what a fluid would give it, to within the bursts of the start; and where some come before
    /// others, the part that is the guard's.
    #[test]
    fn bytes_are_those_of_the_fluid(dice in dice(), capacity in 50..1000_u64, silent in any::<u32>(), equal in any::<bool>()) {
        let mut classes = tree(&dice, !equal);
        for class in &mut classes {
            // Where bursts are as long as the run, there is nothing to compare.
            class.priority = if equal { 4 } else { class.priority };
            class.ceil = class.ceil.take().map(|limit| Limit::new(limit.rate.max(Rate::from_bits(MBIT))));
        }
        let options = wire(capacity * MBIT, 10_000);
        let mut sim = Sim::greedy(&classes, &options);
        let mut greedy = vec![true; classes.len()];
        for leaf in 0..u32::try_from(classes.len()).unwrap() {
            if silent >> leaf & 1 == 1 && sim.scheduler.is_leaf(leaf) {
                sim.set(leaf, Source::Silent);
                greedy[leaf as usize] = false;
            }
        }
        sim.run(200 * MS);
        let capacity = float(capacity * MBIT);
        let rates = fluid::rates(&classes, &greedy, capacity);
        let mut bytes: Vec<f64> = sim.bytes.iter().map(|bytes| float(*bytes)).collect();
        for at in (0..classes.len()).rev() {
            if let Some(parent) = classes[at].parent {
                bytes[parent as usize] += bytes[at];
            }
        }
        let seconds = float(sim.now) / float(HZ);
        for (at, rate) in rates.iter().enumerate() {
            let due = rate * seconds / 8.0;
            // A full bucket, for this class and, out of its share, for all others.
            let burst = |class: &ClassSpec| class.ceil.as_ref().map_or(0, |limit| limit.rate.burst(1542));
            let bursts = float(classes.iter().map(burst).sum::<u64>()) + 10_000.0 + 10.0 * 4626.0;
            let guard = if equal { 0.0 } else { fluid::slack(capacity, 5) * seconds / 8.0 };
            let slack = bursts.min(0.01 * capacity * seconds / 8.0 + 70_000.0) + guard;
            prop_assert!((bytes[at] - due).abs() <= slack, "class {}: {} of {}, slack {}", at, bytes[at], due, slack);
        }
    }
}
