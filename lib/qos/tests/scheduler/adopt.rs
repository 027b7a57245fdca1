//! A scheduler that takes over from another one.

use kopi_qos::{ClassSpec, Limit, Options, Pick, Rate, Scheduler, SharedBucket};
use std::sync::Arc;

use crate::sim::{HZ, MS, Sim, class, float, limit, wire};

/// Puts a scheduler for `classes` into the place of the one that runs.
fn reconfigure(sim: &mut Sim, classes: &[ClassSpec], options: &Options) {
    let mut next = Scheduler::new(classes, options, sim.now).unwrap();
    next.adopt(&mut sim.scheduler, sim.now);
    sim.scheduler = next;
}

/// Whoever reloads every millisecond gets no new burst out of it, neither at the wire nor at a class.
#[test]
fn a_reload_brings_no_tokens() {
    let mut one = class(0, None);
    one.ceil = Some(Limit::new(Rate::from_bits(10_000_000)).with_burst(50_000));
    let classes = [one, class(1, None)];
    let options = wire(100_000_000, 50_000);
    let mut sim = Sim::greedy(&classes, &options);
    for round in 1..=200 {
        sim.run(round * MS);
        reconfigure(&mut sim, &classes, &options);
    }
    assert!(sim.bytes[0] <= 250_000 + 50_000, "{}", sim.bytes[0]);
    assert!(sim.bytes[0] >= 250_000, "{}", sim.bytes[0]);
    let total: u64 = sim.bytes.iter().sum();
    assert!((2_500_000..=2_550_000).contains(&total), "{total}");
}

/// Nor does it change who is next: shares hold over many reloads, and leaves with packets stay so.
#[test]
fn a_reload_changes_no_shares() {
    let mut classes: Vec<_> = (0..6).map(|id| class(id, None)).collect();
    for (class, weight) in classes.iter_mut().zip(1..) {
        class.weight = weight;
    }
    let mut sim = Sim::greedy(&classes, &wire(1_000_000_000, 20_000));
    for round in 1..=400 {
        sim.run(round * MS / 4);
        reconfigure(&mut sim, &classes, &wire(1_000_000_000, 20_000));
        assert!((0..6).all(|leaf| sim.scheduler.is_active(leaf)));
    }
    for (bytes, weight) in sim.bytes.iter().zip(1..) {
        let share = float(*bytes) / (12_500_000.0 * f64::from(weight) / 21.0);
        assert!((share - 1.0).abs() < 0.03, "weight {weight}: {share}");
    }
}

/// Classes are known by their ids, wherever they stand; a new one begins, one that is gone is forgotten, and a leaf that has got a
/// child has no packets any more.
#[test]
fn classes_are_known_by_their_ids() {
    let options = Options::new(HZ);
    let mut old = Scheduler::new(&[class(30, None), class(10, None), class(20, None)], &options, 0).unwrap();
    for leaf in 0..3 {
        old.activate(leaf, 0);
    }
    let classes = [class(5, None), class(10, None), class(30, None), class(40, Some(2)), class(50, None)];
    let mut new = Scheduler::new(&classes, &options, 0).unwrap();
    new.adopt(&mut old, 0);
    let active: Vec<u32> = (0..5).filter(|leaf| new.is_active(*leaf)).collect();
    assert_eq!(active, [1]);
    assert!(matches!(new.pick(0), Pick::Serve { leaf: 1, .. }));
    new.deactivate(1, 0);
    assert_eq!(new.pick(0), Pick::Idle);
}

/// A debt goes over to a new rate, which then counts.
#[test]
fn a_new_rate_counts_from_the_reload_on() {
    let mut slow = class(0, None);
    slow.ceil = limit(1_000_000);
    let mut sim = Sim::greedy(&[slow.clone()], &Options::new(HZ));
    sim.run(100 * MS);
    slow.ceil = limit(1_000_000_000);
    reconfigure(&mut sim, &[slow.clone()], &Options::new(HZ));
    let (before, from) = (sim.bytes[0], sim.now);
    sim.run(from + 100 * MS);
    let bytes = sim.bytes[0] - before;
    // The debt is paid at the new rate, and the bucket was empty.
    assert!((12_490_000..=12_500_000 + 3084).contains(&bytes), "{bytes}");
}

/// What the old one had drawn from a shared bucket is neither lost nor doubled.
#[test]
fn chunks_go_over_or_back() {
    let rate = Rate::from_bits(80_000_000);
    let bucket = Arc::new(SharedBucket::new(rate, 20_000, 1542, HZ, 0));
    let mut one = class(0, None);
    one.ceil = Some(Limit::new(rate).with_burst(20_000).shared(Arc::clone(&bucket)));
    let mut sim = Sim::greedy(&[one.clone()], &Options::new(HZ));
    for round in 1..=100 {
        sim.run(round * MS);
        // Every other time the class is gone for a moment.
        if round % 2 == 0 {
            reconfigure(&mut sim, &[class(9, None)], &Options::new(HZ));
        }
        reconfigure(&mut sim, &[one.clone()], &Options::new(HZ));
    }
    let bytes = sim.bytes[0];
    assert!((1_000_000..=1_020_000 + bucket.chunk()).contains(&bytes), "{bytes}");
}
