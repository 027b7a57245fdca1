//! Shares: weights, priorities, guarantees, and what becomes of what somebody leaves.

use crate::sim::{MS, Sim, Source, class, float, jain, limit, wire};
use kopi_qos::{Pick, Scheduler};

const GBIT: u64 = 1_000_000_000;
/// Most bytes of a pick: the quantum and the frame that reaches it.
const PICK: f64 = 3084.0 + 1542.0;

/// Weights 1:2:4 hold within the bound of theorem 1 of SFQ, for equal and for different sizes of frames.
#[test]
fn weights_divide_the_wire() {
    for lengths in [[1518, 1518, 1518], [64, 1518, 300], [1518, 64, 1000], [9000, 64, 1518]] {
        let mut classes = [class(0, None), class(1, None), class(2, None)];
        for (class, weight) in classes.iter_mut().zip([1, 2, 4]) {
            class.weight = weight;
        }
        let mut sim = Sim::new(&classes, &wire(GBIT, 20_000));
        for (leaf, length) in (0..).zip(lengths) {
            sim.set(leaf, Source::Greedy(vec![length]));
        }
        sim.run(100 * MS);
        let shares: Vec<f64> =
            sim.bytes.iter().zip([1.0, 2.0, 4.0]).map(|(bytes, weight)| float(*bytes) / weight).collect();
        let most = shares.iter().copied().fold(0.0, f64::max);
        let least = shares.iter().copied().fold(f64::MAX, f64::min);
        // A pick of a jumbo frame is longer; weights are off by a thousandth at most.
        let bound = (PICK + 9024.0) * 1.5 + most / 1000.0;
        assert!(most - least <= bound, "{lengths:?}: {shares:?}");
        assert!(most / least < 1.02, "{lengths:?}: {shares:?}");
    }
}

/// A weight of 1,000 against 1: right in the mean, and the small one never waits for more than its share takes.
#[test]
fn the_largest_ratio_of_weights_is_kept() {
    let mut classes = [class(0, None), class(1, None)];
    classes[1].weight = 1000;
    let mut sim = Sim::greedy(&classes, &wire(10 * GBIT, 40_000));
    sim.run(200 * MS);
    let ratio = float(sim.bytes[1]) / float(sim.bytes[0]);
    assert!((980.0..1020.0).contains(&ratio), "{ratio}");
    let turns: Vec<u64> = sim.log.iter().filter(|sent| sent.leaf == 0).map(|sent| sent.at).collect();
    let longest = turns.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
    // 1,001 picks of 3,084 bytes at 10 Gbit/s are 2.5 ms.
    assert!(longest < 3 * MS, "{longest}");
}

/// Eight equal classes get the same, whatever the sizes of their frames and however they burst.
#[test]
fn equal_classes_get_the_same() {
    let classes: Vec<_> = (0..8).map(|id| class(id, None)).collect();
    let mut sim = Sim::new(&classes, &wire(GBIT, 20_000));
    for (leaf, lengths) in (0..).zip([
        vec![64],
        vec![128],
        vec![256],
        vec![512],
        vec![1024],
        vec![1518],
        vec![64, 1518],
        vec![1518, 64, 64],
    ]) {
        sim.set(leaf, Source::Greedy(lengths));
    }
    // These two are silent half of the time in the small, and have enough in the mean.
    sim.set(2, Source::Bursts { length: 256, count: 400, every: 4 * MS });
    sim.set(5, Source::Bursts { length: 1518, count: 300, every: 20 * MS });
    sim.run(1000 * MS);
    let bytes: Vec<f64> = sim.bytes.iter().map(|bytes| float(*bytes)).collect();
    assert!(jain(&bytes) >= 0.99, "{bytes:?}");
    let total: f64 = bytes.iter().sum();
    assert!(total >= 0.99 * 125_000_000.0, "{total}");
}

/// What was equal stays equal within a pick each at any moment, not only in the end.
#[test]
fn two_equal_classes_are_never_a_pick_apart() {
    let mut sim = Sim::new(&[class(0, None), class(1, None)], &wire(GBIT, 20_000));
    sim.set(0, Source::Greedy(vec![64, 1518, 700]));
    sim.set(1, Source::Greedy(vec![1518]));
    for _ in 0..20_000 {
        sim.step(50);
        let apart = float(sim.bytes[0]) - float(sim.bytes[1]);
        assert!(apart.abs() <= 2.0 * PICK, "{apart}");
    }
}

/// The first priority takes what it wants; the guard leaves one part in 64, and no more, to the others.
#[test]
fn priority_is_strict_but_for_the_guard() {
    let mut classes = [class(0, None), class(1, None), class(2, None)];
    for (class, priority) in classes.iter_mut().zip([0, 3, 7]) {
        class.priority = priority;
    }
    let mut sim = Sim::greedy(&classes, &wire(GBIT, 20_000));
    sim.run(500 * MS);
    let total = float(sim.bytes.iter().sum());
    let shares: Vec<f64> = sim.bytes.iter().map(|bytes| float(*bytes) / total).collect();
    for share in &shares[1..] {
        assert!((share - 1.0 / 128.0).abs() < 0.0005, "{shares:?}");
    }
    // If the first wants a half, the next takes the rest.
    sim.set(0, Source::Bursts { length: 1226, count: 5, every: 100_000 });
    let from = sim.now;
    sim.run(from + 500 * MS);
    let bytes = sim.within(from, sim.now);
    assert!((float(bytes[0]) - 31_250_000.0).abs() < 20_000.0, "{bytes:?}");
    assert!(float(bytes[1]) > 0.48 * 62_500_000.0, "{bytes:?}");
}

/// A class of the first priority that begins to have packets is served next, but for a turn of the guard.
#[test]
fn priority_waits_for_nobody() {
    let mut classes: Vec<_> = (0..9).map(|id| class(id, None)).collect();
    classes[8].priority = 0;
    let mut sim = Sim::greedy(&classes, &wire(GBIT, 20_000));
    let mut late = 0;
    for round in 0..400_u64 {
        sim.set(8, Source::Silent);
        for _ in 0..round % 7 + 3 {
            sim.step(50);
        }
        sim.set(8, Source::Greedy(vec![64]));
        let before = sim.log.len();
        while sim.log.len() < before + 2 {
            sim.step(50);
        }
        let turn = sim.log[before..].iter().position(|sent| sent.leaf == 8);
        assert!(turn.is_some(), "round {round}");
        late += u32::from(turn != Some(0));
    }
    // It was the first for 800 picks of 3 KiB, of which the guard takes one in 64.
    assert!(late <= 13, "{late}");
}

/// Guarantees come before priorities, and what is left goes by priority.
#[test]
fn guarantees_come_first() {
    let mut classes = [class(0, None), class(1, None), class(2, None)];
    classes[0].priority = 0;
    classes[1].priority = 7;
    classes[1].rate = limit(300_000_000);
    classes[2].rate = limit(200_000_000);
    let mut sim = Sim::greedy(&classes, &wire(GBIT, 20_000));
    sim.run(400 * MS);
    // Bytes in 400 ms: 1 Gbit/s are 50,000,000.
    let [first, last, middle] = [0, 1, 2].map(|at| float(sim.bytes[at]) / 50e6);
    assert!((last - 0.3).abs() < 0.01, "{last}");
    assert!((middle - 0.2).abs() < 0.01, "{middle}");
    assert!((first - 0.5).abs() < 0.02, "{first}");
}

/// Weights divide what is left, not what is guaranteed: a class with a guarantee has that and an equal part of the rest.
#[test]
fn weights_divide_what_is_left() {
    let mut classes = [class(0, None), class(1, None)];
    classes[0].rate = limit(400_000_000);
    let mut sim = Sim::greedy(&classes, &wire(GBIT, 20_000));
    sim.run(400 * MS);
    let share = float(sim.bytes[0]) / 50e6;
    assert!((share - 0.7).abs() < 0.01, "{share}");
}

/// A ceiling just below the fair share is reached among a thousand others: whoever rests at its ceiling comes back to its
/// place.
#[test]
fn a_ceiling_just_below_the_share_is_reached() {
    let mut classes: Vec<_> = (0..1000).map(|id| class(id, None)).collect();
    classes[500].ceil = limit(9_900_000);
    let mut sim = Sim::greedy(&classes, &wire(10 * GBIT, 40_000));
    sim.run(1000 * MS);
    let bits = sim.bytes[500] * 8;
    assert!((9_700_000..9_925_000).contains(&bits), "{bits}");
}

/// Four levels: wire, users, apps, kinds of traffic. What one leaf leaves goes to its siblings first, within 10 ms.
#[test]
fn an_unused_share_stays_in_the_family() {
    let mut classes = vec![class(0, None), class(1, None)];
    classes[0].weight = 3;
    classes.extend([class(2, Some(0)), class(3, Some(0)), class(4, Some(2)), class(5, Some(2)), class(6, Some(1))]);
    let mut sim = Sim::greedy(&classes, &wire(GBIT, 20_000));
    let expect = |sim: &Sim, from: u64, shares: [f64; 4]| {
        let bytes = sim.within(from, sim.now);
        for (leaf, share) in [3, 4, 5, 6].into_iter().zip(shares) {
            let has = float(bytes[leaf]) / (float(sim.now - from) / 8.0);
            assert!((has - share).abs() < 0.02, "leaf {leaf} has {has}, not {share}, from {from}");
        }
    };
    sim.run(100 * MS);
    expect(&sim, 0, [0.375, 0.1875, 0.1875, 0.25]);
    sim.set(4, Source::Silent);
    let from = sim.now;
    sim.run(from + 10 * MS);
    expect(&sim, from, [0.375, 0.0, 0.375, 0.25]);
    sim.set(5, Source::Silent);
    let from = sim.now;
    sim.run(from + 10 * MS);
    expect(&sim, from, [0.75, 0.0, 0.0, 0.25]);
    sim.set(3, Source::Silent);
    let from = sim.now;
    sim.run(from + 10 * MS);
    expect(&sim, from, [0.0, 0.0, 0.0, 1.0]);
}

/// Who was silent for a while comes back to an equal share, and is not given what it did not ask for.
#[test]
fn silence_saves_nothing_up() {
    let mut sim = Sim::greedy(&[class(0, None), class(1, None)], &wire(GBIT, 20_000));
    sim.set(1, Source::Silent);
    sim.run(100 * MS);
    sim.set(1, Source::Greedy(vec![1518]));
    let from = sim.now;
    sim.run(from + MS);
    let bytes = sim.within(from, sim.now);
    assert!((float(bytes[0]) - float(bytes[1])).abs() <= 2.0 * PICK, "{bytes:?}");
}

/// A child that is promised more than its parent gets it, and does not put the parent's own promise into debt for long.
#[test]
fn a_promise_above_the_parents_is_no_debt_for_good() {
    let mut classes = vec![class(0, None), class(1, None), class(2, Some(0)), class(3, Some(0))];
    classes[0].rate = limit(100_000_000);
    classes[1].priority = 0;
    classes[2].rate = limit(200_000_000);
    let mut sim = Sim::greedy(&classes, &wire(GBIT, 20_000));
    sim.run(500 * MS);
    let share = float(sim.bytes[2]) / 62.5e6;
    assert!((share - 0.2).abs() < 0.02, "{share}");
    sim.set(2, Source::Silent);
    let from = sim.now + 10 * MS;
    sim.run(from + 50 * MS);
    let share = float(sim.within(from, sim.now)[3]) / 6.25e6;
    // And what the guard gives.
    assert!((0.095..0.12).contains(&share), "{share}");
}

/// A class whose packets go elsewhere takes its turns all the same: it has no more of them than the other, and uses up no limit.
#[test]
fn a_turn_without_bytes_is_a_turn() {
    let mut classes = [class(0, None), class(1, None)];
    classes[0].ceil = limit(GBIT / 1000);
    let mut scheduler = Scheduler::new(&classes, &wire(10 * GBIT, 40_000), 0).unwrap();
    (0..2).for_each(|leaf| scheduler.activate(leaf, 0));
    let mut had = [0_u64; 2];
    for now in (0..100 * MS).step_by(10_000) {
        let Pick::Serve { leaf, bytes } = scheduler.pick(now) else { panic!("there is nobody to serve") };
        had[leaf as usize] += u64::from(bytes);
        if leaf == 0 {
            scheduler.defer(leaf, bytes.into());
            scheduler.charge(leaf, 0, 0, true, now);
        } else {
            scheduler.charge(leaf, bytes.into(), 1, true, now);
        }
    }
    assert!(had[0].abs_diff(had[1]) <= had[0] / 20, "{had:?}");
    assert_eq!(scheduler.overlimits(0), 0);
}
