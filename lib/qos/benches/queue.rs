//! What a queue of packets costs: `cargo bench -p kopi-qos --bench queue`.
//!
//! Nanoseconds for a packet that is pushed and popped again, on one core, by the number of flows and of packets that wait.
//! The median of many rounds is printed, and the best one beside it.
#![expect(clippy::print_stdout, reason = "a benchmark prints its result")]

use std::hint::black_box;
use std::time::Instant;

use kopi_qos::{CodelConfig, PacketStore, Pushed, Queue, QueueConfig};

/// Ticks in a second of the clock that the benchmark makes up.
const HZ: u64 = 3_000_000_000;
const PACKETS: u32 = 32_000;
const BURST: u32 = 32;
const ROUNDS: usize = 201;

/// One queue, and what is done with it.
struct Run {
    name: &'static str,
    flows: u32,
    /// Packets that are popped for each burst that is pushed.
    pops: u32,
    queue: Queue,
    store: PacketStore<u64>,
    now: u64,
    times: Vec<f64>,
}

fn main() {
    println!("ns per push and pop                               median     best");
    let mut runs: Vec<Run> = [
        ("1 flow, empty", 1, 0, 1000),
        ("1 flow, 500 packets wait", 1, 500, 1000),
        ("32 flows, 500 packets wait", 32, 500, 1000),
        ("1,024 flows, 10,000 packets wait", 1024, 10_000, 20_000),
        ("1 flow, full: every other push drops one", 1, 1000, 1000),
        ("1,024 flows, full: every other push drops one", 1024, 10_000, 10_000),
    ]
    .into_iter()
    .map(|(name, flows, waiting, limit)| build(name, flows, waiting, limit))
    .collect();
    for _ in 0..ROUNDS {
        for run in &mut runs {
            let start = Instant::now();
            round(run);
            run.times.push(start.elapsed().as_secs_f64() * 1e9 / f64::from(PACKETS));
        }
    }
    for run in &mut runs {
        run.times.sort_by(f64::total_cmp);
        println!("{:48} {:7.1}  {:7.1}", run.name, run.times[run.times.len() / 2], run.times[0]);
    }
}

fn build(name: &'static str, flows: u32, waiting: u32, limit: u32) -> Run {
    let mut store = PacketStore::new(32_768, 4096);
    let codel = Some(CodelConfig::new(HZ, 1514));
    let config = QueueConfig { packets: limit, bytes: u64::MAX, quantum: 1514, codel };
    let mut queue = Queue::new(config);
    for number in 0..waiting {
        let packet = Pushed { item: 0, length: 1000, hash: number % flows };
        queue.push(&mut store, packet, 0, |_, _| ()).expect("there is room");
    }
    let pops = if waiting == limit { BURST / 2 } else { BURST };
    Run { name, flows, pops, queue, store, now: 0, times: Vec::with_capacity(ROUNDS) }
}

/// Bursts come and go, at a pace at which nobody waits for long.
fn round(run: &mut Run) {
    let Run { flows, queue, store, now, pops, .. } = run;
    let sink = |item| {
        black_box(item);
    };
    for burst in 0..PACKETS / BURST {
        for number in 0..BURST {
            let hash = (burst * BURST + number).wrapping_mul(0x9e37_79b1) >> 8;
            let packet = Pushed { item: u64::from(number), length: 1000, hash: hash % *flows };
            queue.push(store, packet, *now, |item, _| sink(item)).expect("there is room");
        }
        *now += 1;
        for _ in 0..*pops {
            black_box(queue.pop(store, *now, |item, _| sink(item)));
        }
    }
}
