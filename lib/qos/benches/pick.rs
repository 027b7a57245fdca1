//! What the scheduler costs: `cargo bench -p kopi-qos --bench pick`.
//!
//! Nanoseconds for a pick and its charge, on one core, by the number of classes that are configured and that have packets,
//! and by what they have to keep to. Active classes lie spread over all that are configured. The median of many rounds is
//! printed, and the best one beside it.
#![expect(clippy::print_stdout, reason = "a benchmark prints its result")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use kopi_qos::{ClassSpec, Limit, Options, Pick, Rate, Scheduler, SharedBucket};

/// Ticks in a second of the clock that the benchmark makes up.
const HZ: u64 = 3_000_000_000;
const PICKS: u32 = 20_000;
const ROUNDS: usize = 201;

/// How the classes are configured.
#[derive(Clone, Copy)]
struct Shape {
    name: &'static str,
    /// Classes without children.
    leaves: u32,
    active: u32,
    /// Leaves under each parent, if there are parents.
    users: Option<u32>,
    class: fn() -> ClassSpec,
}

fn main() {
    println!("ns per pick and charge                            median     best");
    let [plain, limits, shared]: [fn() -> ClassSpec; 3] = [|| ClassSpec::new(0), guaranteed, sharing];
    let shape = |name, leaves, active, users, class| Shape { name, leaves, active, users, class };
    let shapes = [
        shape("8 active of 8, weights", 8, 8, None, plain),
        shape("8 active of 10,000, weights", 10_000, 8, None, plain),
        shape("8 active of 65,000, weights", 65_000, 8, None, plain),
        shape("64 active of 64, weights", 64, 64, None, plain),
        shape("1,024 active of 1,024, weights", 1024, 1024, None, plain),
        shape("8 active of 8, rate and ceil", 8, 8, None, limits),
        shape("8 active of 10,000, rate and ceil", 10_000, 8, None, limits),
        shape("1,024 active of 1,024, rate and ceil", 1024, 1024, None, limits),
        shape("8 active of 8, shared rate and ceil", 8, 8, None, shared),
        shape("8 active of 8, 4 users, rate and ceil", 8, 8, Some(2), limits),
        shape("8 active of 10,000, users of 2, rate and ceil", 10_000, 8, Some(2), limits),
    ];
    // Interleaved, so that a slow second of the machine is not one shape's alone.
    let mut runs: Vec<(Scheduler, u64)> = shapes.iter().map(|shape| (build(shape), 0)).collect();
    let mut times = vec![Vec::with_capacity(ROUNDS); shapes.len()];
    for _ in 0..ROUNDS {
        for ((scheduler, now), times) in runs.iter_mut().zip(&mut times) {
            let start = Instant::now();
            *now = round(scheduler, *now);
            times.push(start.elapsed().as_secs_f64() * 1e9 / f64::from(PICKS));
        }
    }
    for (shape, times) in shapes.iter().zip(&mut times) {
        times.sort_by(f64::total_cmp);
        println!("{:48} {:7.1}  {:7.1}", shape.name, times[times.len() / 2], times[0]);
    }
}

/// A guarantee of 100 Mbit/s, and at most 9 Gbit/s.
fn guaranteed() -> ClassSpec {
    let mut class = ClassSpec::new(0);
    class.rate = Some(Limit::new(Rate::from_bits(100_000_000)));
    class.ceil = Some(Limit::new(Rate::from_bits(9_000_000_000)));
    class
}

/// The same, shared with other workers.
fn sharing() -> ClassSpec {
    let mut class = guaranteed();
    for limit in [&mut class.rate, &mut class.ceil].into_iter().flatten() {
        limit.shared = Some(Arc::new(SharedBucket::new(limit.rate, limit.rate.burst(1542), 1542, HZ, 0)));
    }
    class
}

fn build(shape: &Shape) -> Scheduler {
    let users = shape.users.map_or(0, |each| shape.leaves / each);
    let mut classes = Vec::new();
    for id in 0..users {
        let mut user = (shape.class)();
        user.id = id.into();
        classes.push(user);
    }
    for leaf in 0..shape.leaves {
        let mut class = (shape.class)();
        class.id = u64::from(users + leaf);
        class.parent = shape.users.map(|each| leaf / each);
        classes.push(class);
    }
    let mut options = Options::new(HZ);
    options.wire = Some(Limit::new(Rate::from_bits(10_000_000_000)));
    let mut scheduler = Scheduler::new(&classes, &options, 0).expect("a tree");
    for active in 0..shape.active {
        scheduler.activate(users + active * (shape.leaves / shape.active), 0);
    }
    scheduler
}

/// Lets the scheduler pick while the wire is busy: the clock goes on by what was sent.
fn round(scheduler: &mut Scheduler, mut now: u64) -> u64 {
    for _ in 0..PICKS {
        match black_box(scheduler.pick(now)) {
            Pick::Serve { leaf, bytes } => {
                scheduler.charge(leaf, u64::from(bytes) - 48, 2, true, now);
                // Ten bits are three ticks.
                now += u64::from(bytes) * 12 / 5;
            }
            Pick::WaitUntil(tick) => now = tick,
            Pick::Idle => {}
        }
    }
    now
}
