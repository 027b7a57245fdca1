//! Ceilings and the wire, at every rate that there is.

use kopi_qos::{ClassSpec, Limit, Options, Pick, Rate, Scheduler, SharedBucket, SpecError};
use std::sync::Arc;

use crate::sim::{HZ, MS, Sent, Sim, Source, class, limit, wire};

/// Checks that no window of `log` has more than `rate * t + burst` bytes.
fn assert_within(log: &[Sent], rate: u64, burst: u64) {
    // Tokens of a bucket that is never in debt, in units of a byte divided by the ticks of a second.
    let (mut tokens, mut last) = (u128::from(burst) * u128::from(8 * HZ), 0);
    for sent in log {
        let full = u128::from(burst) * u128::from(8 * HZ);
        tokens = (tokens + u128::from(rate) * u128::from(sent.at - last)).min(full);
        last = sent.at;
        let cost = u128::from(sent.bytes) * u128::from(8 * HZ);
        assert!(cost <= tokens, "{} bytes at {} exceed the burst of {burst}", sent.bytes, sent.at);
        tokens -= cost;
    }
}

/// From 1 Mbit/s to 10 Gbit/s and from short frames to long ones: a ceiling is met within half a per cent over ten seconds,
/// or as long as it takes a hundred thousand frames, and no window has more than the burst.
#[test]
fn ceilings_are_met_and_never_exceeded() {
    for rate in [1_000_000, 33_000_000, 1_000_000_000, 10_000_000_000] {
        for length in [64, 594, 1518] {
            let mut one = class(0, None);
            one.ceil = limit(rate);
            let burst = Rate::from_bits(rate).burst(1542);
            let mut sim = Sim::greedy(&[one], &Options::new(HZ));
            sim.set(0, Source::Greedy(vec![length]));
            let span = (10 * HZ).min(u64::from(length + 24) * 8 * 100_000 * HZ / rate);
            sim.run(span);
            assert_within(&sim.log, rate, burst);
            let due = u64::try_from(u128::from(rate) * u128::from(sim.now) / u128::from(8 * HZ)).unwrap();
            let bytes = sim.bytes[0];
            assert!(bytes >= due - due / 200 && bytes <= due + burst, "{rate} {length}: {bytes} of {due}");
        }
    }
}

/// A worker that comes round only now and then loses nothing, as long as the burst covers the pause.
#[test]
fn a_late_worker_loses_nothing() {
    let rate = 100_000_000;
    let mut one = class(0, None);
    one.ceil = Some(Limit::new(Rate::from_bits(rate)).with_burst(20_000));
    let mut sim = Sim::greedy(&[one], &Options::new(HZ));
    while sim.now < 1000 * MS {
        // It looks every millisecond, in which 12,500 bytes come.
        while let Pick::Serve { .. } = sim.scheduler.pick(sim.now) {
            sim.step(0);
        }
        sim.now += MS;
    }
    assert_within(&sim.log, rate, 20_000);
    assert!(sim.bytes[0] >= 12_500_000 - 20_000, "{}", sim.bytes[0]);
}

/// A bit a second lets one frame pass, and the next when it is paid for, to the tick.
#[test]
fn a_bit_a_second() {
    let mut one = class(0, None);
    one.ceil = Some(Limit::new(Rate::from_bits(1)).with_burst(0));
    let mut sim = Sim::greedy(&[one], &Options::new(HZ));
    sim.run(HZ);
    assert_eq!(sim.bytes[0], 1542);
    sim.run(4 * 1542 * 8 * HZ);
    assert_eq!(sim.log.len(), 5);
    for (frames, sent) in (1..).zip(&sim.log[1..]) {
        // One byte was there at the start, and a frame may go as soon as there is more than nothing.
        assert_eq!(sent.at, (1542 * frames - 1) * 8 * HZ + 1);
    }
}

/// No limit is a limit: the largest rate never holds anybody up, for the wire and for classes.
#[test]
fn the_largest_rate_is_none() {
    let mut classes = [class(0, None), class(1, Some(0))];
    for class in &mut classes {
        class.ceil = limit(u64::MAX);
        class.rate = limit(u64::MAX);
    }
    let mut sim = Sim::greedy(&classes, &wire(u64::MAX, u64::MAX));
    sim.run(MS);
    assert_eq!(sim.log.len(), 20_000);
}

/// A rate of zero never lets anything pass, and is nothing to wait for.
#[test]
fn rate_zero_is_never() {
    let mut classes = [class(0, None), class(1, None)];
    classes[0].ceil = Some(Limit::new(Rate::from_bits(0)).with_burst(0));
    let mut scheduler = Scheduler::new(&classes, &Options::new(HZ), 0).unwrap();
    scheduler.activate(0, 0);
    // The token of the start.
    assert_eq!(scheduler.pick(0), Pick::Serve { leaf: 0, bytes: 1 });
    scheduler.charge(0, 1518, 1, true, 0);
    assert_eq!(scheduler.pick(u64::MAX / 2), Pick::Idle);
    scheduler.activate(1, u64::MAX / 2);
    assert!(matches!(scheduler.pick(u64::MAX / 2), Pick::Serve { leaf: 1, .. }));
}

/// After ten minutes of suspension everybody has a burst and no more; a clock that steps back stops nobody for good.
#[test]
fn ten_minutes_of_suspension() {
    let mut classes: Vec<_> = (0..50).map(|id| class(id, None)).collect();
    for class in &mut classes {
        class.ceil = limit(1_000_000);
        class.rate = limit(500_000);
    }
    let mut sim = Sim::greedy(&classes, &wire(1_000_000_000, 20_000));
    sim.run(100 * MS);
    sim.now += 600 * HZ;
    sim.run(sim.now + 100 * MS);
    assert_within(&sim.log, 1_000_000_000, 20_000);
    for leaf in 0..50 {
        let log: Vec<Sent> = sim.log.iter().copied().filter(|sent| sent.leaf == leaf).collect();
        assert_within(&log, 1_000_000, 3084);
        assert!(log.len() > 15, "{}", log.len());
    }
    let before = sim.log.len();
    sim.now -= MS;
    for _ in 0..500 {
        sim.step(50);
    }
    assert!(sim.log.len() > before + 10);
}

/// A class above holds all below it to its ceiling, guarantees or not.
#[test]
fn a_parents_ceiling_holds_for_all_below() {
    let mut classes = vec![class(0, None)];
    classes[0].ceil = limit(100_000_000);
    for id in 1..=5 {
        let mut child = class(id, Some(0));
        child.rate = limit(60_000_000);
        classes.push(child);
    }
    let mut sim = Sim::greedy(&classes, &wire(1_000_000_000, 20_000));
    sim.run(500 * MS);
    assert_within(&sim.log, 100_000_000, 12_500);
    let bytes: u64 = sim.bytes.iter().sum();
    assert!(bytes > 6_250_000 - 20_000, "{bytes}");
}

/// Three workers that share a ceiling keep to it together, within a chunk each, and one alone may have all of it.
#[test]
fn workers_share_a_ceiling() {
    let rate = Rate::from_bits(400_000_000);
    let burst = rate.burst(1542);
    let bucket = Arc::new(SharedBucket::new(rate, burst, 1542, HZ, 0));
    let mut one = class(0, None);
    one.ceil = Some(Limit::new(rate).shared(Arc::clone(&bucket)));
    let mut workers: Vec<Sim> = (0..3).map(|_| Sim::greedy(&[one.clone()], &Options::new(HZ))).collect();
    let run = |workers: &mut [Sim], end: u64| {
        while let Some(worker) = workers.iter_mut().filter(|worker| worker.now < end).min_by_key(|worker| worker.now) {
            worker.step(50);
        }
    };
    run(&mut workers, 500 * MS);
    let mut log: Vec<Sent> = workers.iter().flat_map(|worker| worker.log.clone()).collect();
    log.sort_by_key(|sent| sent.at);
    assert_within(&log, rate.bits(), burst + 3 * (bucket.chunk() + 1542));
    let bytes: u64 = workers.iter().map(|worker| worker.bytes[0]).sum();
    assert!(bytes >= 25_000_000 - 3 * (bucket.chunk() + 1542), "{bytes}");
    // The others fall silent, and hold nothing back.
    for worker in &mut workers[1..] {
        worker.set(0, Source::Silent);
    }
    let (from, before) = (workers[0].now, workers[0].bytes[0]);
    run(&mut workers, from + 100 * MS);
    let alone = workers[0].bytes[0] - before;
    assert!((4_990_000..=5_000_000 + 2 * bucket.chunk() + burst).contains(&alone), "{alone}");
}

/// What is no tree, or out of its limits, is refused and says where.
#[test]
fn wrong_classes_are_refused() {
    let refused = |classes: &[ClassSpec]| Scheduler::new(classes, &Options::new(HZ), 0).unwrap_err();
    assert_eq!(refused(&[class(0, Some(1))]), SpecError::NoParent(0));
    assert_eq!(refused(&[class(0, Some(1)), class(1, Some(0))]), SpecError::TooDeep(0));
    assert_eq!(refused(&[class(7, None), class(7, None)]), SpecError::SameId(7));
    let mut chain = vec![class(0, None)];
    chain.extend((1..9).map(|id| class(id, u32::try_from(id - 1).ok())));
    assert_eq!(refused(&chain), SpecError::TooDeep(8));
    assert!(Scheduler::new(&chain[..8], &Options::new(HZ), 0).is_ok());
    let many: Vec<_> = (0..65_536).map(|id| class(id, None)).collect();
    assert_eq!(refused(&many), SpecError::TooMany(65_536));
    assert_eq!(Scheduler::new(&many[..65_535], &Options::new(HZ), 0).unwrap().len(), 65_535);
    let mut heavy = class(0, None);
    heavy.weight = 0;
    assert_eq!(refused(&[heavy]), SpecError::Share(0));
}
