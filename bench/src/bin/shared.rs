//! What workers share, and what it costs them: nanoseconds per operation of one worker alone, and of two at once.
//!
//! Two threads, on a processor each, do what two workers do with a table that all workers share. Each sample is 5 ms, of one
//! worker alone and then of both, and counts if neither thread has waited for its processor meanwhile. A word that both add
//! to says what a line costs that moves with each operation, in the state in which the two processors are.
//!
//! An operation costs two workers what it costs one as long as no line is written by both. How the cost grows with more than
//! two cannot be measured on two processors.
#![forbid(unsafe_code)]

use clap::Parser;
use core_affinity::CoreId;
use dpdk::{Batch, Eal, Pool, PoolConfig};
use kopi_config::policy::{Direction, Tracking};
use kopi_dataplane::ids::PortId;
use kopi_dataplane::worker::counters::{PortTotals, WorkerCounters};
use kopi_dataplane::worker::handoff::{Handoff, Mesh, Target};
use kopi_packet::{Seed, parse};
use kopi_policy::{Connections, Ref, Sort, Tuple};
use kopi_qos::{Rate, SharedBucket};
use kopi_ring::layout::Notes;
use std::error::Error;
use std::fs;
use std::hint::black_box;
use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};
use std::sync::atomic::{AtomicU32, AtomicU64};
use std::sync::{Arc, LazyLock};
use std::thread;
use std::time::{Duration, Instant};

/// Operations between two looks at the clock.
const BATCH: u32 = 256;
/// Length of a sample.
const SAMPLE: Duration = Duration::from_millis(5);
/// The part of a sample, one of so many, that a thread may have waited for its processor.
const WAITED: u32 = 50;
/// Connections of each worker.
const TUPLES: u32 = 8192;
/// Places in the table of connections: kopid's default.
const CONNECTIONS: usize = 65_536;
/// Ticks in a second of the clock that is made up.
const HZ: u64 = 1_000_000_000;
/// Ports, the wire's included, as kopid has by default.
const PORTS: usize = 65;

/// What two workers share, and what it costs.
#[derive(Debug, Parser)]
#[command(name = "kopi-bench-shared", version)]
struct Options {
    /// Processors of the two workers.
    #[arg(long, value_delimiter = ',', default_values_t = [0, 1])]
    cores: Vec<usize>,
    /// Samples that each case needs.
    #[arg(long, default_value_t = 200)]
    samples: usize,
    /// Seconds after which a case ends, whatever it has.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Only the cases whose names have this in them.
    #[arg(long, default_value = "")]
    only: String,
}

/// [`BATCH`] operations of one worker.
type Work = Box<dyn FnMut() + Send>;

/// What one worker does alone, and what two do at once.
struct Works {
    alone: Work,
    both: [Work; 2],
}

/// What is shared, and the operations on it.
struct Case {
    name: &'static str,
    works: Works,
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse();
    let [first, second] = *options.cores.as_slice() else { return Err("--cores needs two processors".into()) };
    let folder = format!("kopi-bench-shared-{}", std::process::id());
    let prefix = format!("--file-prefix={folder}");
    let args = ["--no-huge", "-m", "64", "--no-pci", "--no-telemetry", "--no-shconf", "-l", "0", &prefix];
    let eal = Eal::init(&args.map(str::to_owned))?;
    let config = PoolConfig { name: "frames", mbufs: 1023, cache: 64, frame_max: 2048, socket: None };
    let pool = Pool::new(&eal, config)?;
    let mut out = io::stdout().lock();
    writeln!(out, "| what | one worker, ns | two workers, ns | ratio | samples |\n| --- | --: | --: | --: | --: |")?;
    for Case { name, works } in cases(&pool)?.into_iter().filter(|case| case.name.contains(&options.only)) {
        let [alone, both] = measure(&options, [first, second], works)?;
        let (count, [alone, both]) = (both.len(), [alone, both].map(median));
        writeln!(out, "| {name} | {alone:.1} | {both:.1} | {:.2} | {count} |", both / alone)?;
    }
    for base in [std::env::var("XDG_RUNTIME_DIR").unwrap_or_default(), "/var/run".into()] {
        let _gone = fs::remove_dir_all(Path::new(&base).join("dpdk").join(&folder));
    }
    Ok(())
}

/// Nanoseconds per operation of one worker alone, and the mean of two at once, for each sample.
fn measure(options: &Options, cores: [usize; 2], works: Works) -> Result<[Vec<f64>; 2], Box<dyn Error>> {
    let Works { alone: mut one, both: [mut first, mut second] } = works;
    let end = Instant::now() + Duration::from_secs(options.seconds);
    let (mut alone, mut both) = (Vec::new(), Vec::new());
    while both.len() < options.samples && Instant::now() < end {
        let (ready, all) = (AtomicU32::new(0), AtomicU32::new(0));
        let single = thread::scope(|scope| scope.spawn(|| sample(cores[0], &mut one, &ready, 1)).join());
        let pair = thread::scope(|scope| {
            let a = scope.spawn(|| sample(cores[0], &mut first, &all, 2));
            let b = scope.spawn(|| sample(cores[1], &mut second, &all, 2));
            (a.join(), b.join())
        });
        let (Ok(single), (Ok(a), Ok(b))) = (single, pair) else { return Err("an operation panicked".into()) };
        if let (Some(single), Some(a), Some(b)) = (single, a, b) {
            alone.push(single);
            both.push(f64::midpoint(a, b));
        }
    }
    if both.is_empty() {
        return Err("the processors are never free: no sample counts".into());
    }
    Ok([alone, both])
}

/// Nanoseconds per operation of one sample, which begins when as many threads as `wanted` are `ready`; `None` if this one has waited
/// for its processor, or could not run there.
fn sample(core: usize, work: &mut Work, ready: &AtomicU32, wanted: u32) -> Option<f64> {
    let pinned = core_affinity::set_for_current(CoreId { id: core });
    ready.fetch_add(1, AcqRel);
    while ready.load(Acquire) < wanted {
        std::hint::spin_loop();
    }
    let (waited, start, mut batches) = (waited(), Instant::now(), 0_u32);
    while start.elapsed() < SAMPLE {
        work();
        batches += 1;
    }
    let elapsed = start.elapsed();
    // The other one may still be at it, or never has begun to be: its part of the sample was not with this one's.
    ready.fetch_add(1, AcqRel);
    while ready.load(Acquire) < 2 * wanted {
        work();
    }
    let calm = self::waited().saturating_sub(waited) < elapsed / WAITED;
    let operations = f64::from(batches) * f64::from(BATCH);
    (pinned && calm && elapsed < 2 * SAMPLE).then(|| elapsed.as_secs_f64() * 1e9 / operations)
}

/// How long the calling thread has waited for its processor while ready to run.
fn waited() -> Duration {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    Duration::from_nanos(text.split_whitespace().nth(1).and_then(|field| field.parse().ok()).unwrap_or_default())
}

fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_unstable_by(f64::total_cmp);
    samples.get(samples.len() / 2).copied().unwrap_or(f64::NAN)
}

fn cases(pool: &Pool) -> Result<Vec<Case>, Box<dyn Error>> {
    let mut cases = vec![
        case(
            "a word that both add to",
            || Arc::new(AtomicU64::new(0)),
            |word, _| {
                Box::new(move || {
                    for _ in 0..BATCH {
                        black_box(word.fetch_add(1, Relaxed));
                    }
                })
            },
        ),
        case("connections: lookup of a known one, apps of two users", table, |table, worker| {
            known(table, 2 + worker, worker, false)
        }),
        case("connections: lookup of a known one, the same at both", table, |table, _| known(table, 2, 0, false)),
        case("connections: the same, and noted as alive", table, |table, _| known(table, 2, 0, true)),
        case("connections: begin, apps of two users", table, |table, worker| begin(table, 2 + 512 * worker, worker)),
        case("connections: begin, neighbouring ports of two users", table, |table, worker| {
            begin(table, 2 + worker, worker)
        }),
        case("connections: begin, two apps of one user", table, |table, worker| begin(table, 10 + worker, worker)),
        case("connections: begin, one app", table, |table, worker| begin(table, 2, worker)),
        case(
            "class tokens: draws from two limits",
            || [Arc::new(bucket()), Arc::new(bucket())],
            |buckets, worker| draw(Arc::clone(&buckets[usize::from(worker)])),
        ),
        case("class tokens: draws from one limit", || Arc::new(bucket()), |bucket, _| draw(bucket)),
        case("counters: each its own", counters, |counters, worker| count(&counters[usize::from(worker)])),
        case("counters: the second reads all of them, over and over", counters, |counters, worker| match worker {
            0 => count(&counters[0]),
            _ => read(counters),
        }),
    ];
    cases.push(hand_over(pool)?);
    Ok(cases)
}

/// A case in which both workers do `work` with what is `shared`, each as the worker that it is, and one alone with another such.
fn case<S: Clone>(name: &'static str, shared: fn() -> S, work: fn(S, u16) -> Work) -> Case {
    let (alone, shared) = (work(shared(), 0), shared());
    Case { name, works: Works { alone, both: [0, 1].map(|worker| work(shared.clone(), worker)) } }
}

/// A table with apps 2, 3 and 514 of a user each, and apps 10 and 11 of one.
fn table() -> Arc<Connections> {
    let table = Connections::new(CONNECTIONS, Seed::from_bytes([8; 64]), &Tracking::default(), HZ);
    [(2, 2), (3, 3), (514, 4), (10, 5), (11, 5)].into_iter().for_each(|(zone, account)| table.open_zone(zone, account));
    Arc::new(table)
}

/// UDP from app `zone`, whose sources are those of `worker`.
fn tuples(zone: PortId, worker: u16) -> Vec<Tuple> {
    let of = |number: u32| {
        let mut frame = [0_u8; 64];
        frame[12..24].copy_from_slice(&[8, 0, 0x45, 0, 0, 50, 0, 0, 0, 0, 64, 17]);
        let [_, a, b, c] = (u32::from(worker) << 20 | number).to_be_bytes();
        frame[26..34].copy_from_slice(&[10, a, b, c, 10, 255, 0, 1]);
        frame[34..40].copy_from_slice(&[0, 53, 0, 53, 0, 30]);
        match Sort::of(zone, &parse(&frame, zone).1, Direction::Egress) {
            Sort::Tracked(tuple) => Some(tuple),
            Sort::Error | Sort::Clear(_) => None,
        }
    };
    (0..TUPLES).filter_map(of).collect()
}

/// Looks known connections up; `alive` says whether they are noted as alive instead, by a clock that is so fast that each time is a
/// later one.
fn known(table: Arc<Connections>, zone: PortId, worker: u16, alive: bool) -> Work {
    /// Of the clock's time to the time that passes.
    const FASTER: u64 = 10_000;
    static BEGIN: LazyLock<Instant> = LazyLock::new(Instant::now);
    let tuples = tuples(zone, worker);
    let begin = move |table: &Connections, tuple: &Tuple, now| table.create(tuple, Direction::Egress, None, now);
    let mut known: Vec<Option<Ref>> = tuples.iter().map(|tuple| begin(&table, tuple, HZ)).collect();
    let mut next = 0;
    Box::new(move || {
        let now = HZ + u64::try_from(BEGIN.elapsed().as_nanos()).unwrap_or(0) * FASTER;
        for _ in 0..BATCH {
            next = (next + 1) % tuples.len();
            if !alive {
                black_box(table.find(&tuples[next], HZ));
            } else if !known[next].is_some_and(|of| table.touch(of, Direction::Egress, None, now)) {
                // Between two samples its time was up.
                known[next] = begin(&table, &tuples[next], now);
            }
        }
    })
}

/// Begins connections in the places of ones whose time is up.
fn begin(table: Arc<Connections>, zone: PortId, worker: u16) -> Work {
    let tuples = tuples(zone, worker);
    let (mut next, mut now) = (0, HZ);
    Box::new(move || {
        for _ in 0..BATCH {
            next = (next + 1) % tuples.len();
            now += u64::from(next == 0) * 1000 * HZ;
            black_box(table.create(&tuples[next], Direction::Egress, None, now));
        }
    })
}

/// 10 Gbit/s.
fn bucket() -> SharedBucket {
    SharedBucket::new(Rate::from_bits(10_000_000_000), 1 << 20, 1518, HZ, 0)
}

/// Draws a chunk at a time, as the limit gives them.
fn draw(bucket: Arc<SharedBucket>) -> Work {
    let (chunk, mut now) = (bucket.chunk(), 0);
    Box::new(move || {
        for _ in 0..BATCH {
            now += HZ / 10_000;
            black_box(bucket.draw(chunk, now));
        }
    })
}

fn counters() -> [Arc<WorkerCounters>; 2] {
    [0, 1].map(|_| Arc::new(WorkerCounters::new(PORTS)))
}

fn count(counters: &Arc<WorkerCounters>) -> Work {
    let counters = Arc::clone(counters);
    Box::new(move || {
        for at in 0..BATCH {
            let port = &counters.ports[at as usize % 2];
            port.tx_packets.add(32);
            port.tx_bytes.add(2048);
        }
    })
}

fn read(counters: [Arc<WorkerCounters>; 2]) -> Work {
    Box::new(move || {
        for at in 0..BATCH {
            let port = u16::try_from(at as usize % 2).unwrap_or(0);
            black_box(PortTotals::of(counters.iter().map(|counters| &**counters), port));
        }
    })
}

/// The ends of the queues that one worker has, and the frames that it has now.
struct End {
    mesh: Mesh,
    other: usize,
    frames: Vec<Handoff>,
}

impl End {
    /// Hands on what it has, and takes in what has come.
    fn turn(&mut self) -> usize {
        for handoff in self.frames.drain(..) {
            // There is room for all frames that there are.
            drop(self.mesh.send(self.other, handoff));
        }
        self.frames.extend(std::iter::from_fn(|| self.mesh.receive(self.other)).take(Batch::MAX));
        self.frames.len()
    }
}

/// Frames between two workers, a burst each on its way at first: an operation is one that has come. One worker alone hands to itself.
fn hand_over(pool: &Pool) -> Result<Case, Box<dyn Error>> {
    let ends = || -> Result<[End; 2], Box<dyn Error>> {
        let mut meshes = Mesh::among(2, PORTS).into_iter();
        let (Some(first), Some(second)) = (meshes.next(), meshes.next()) else { return Err("no mesh".into()) };
        let mut frames = Vec::new();
        for _ in 0..2 {
            let mut burst = Vec::with_capacity(4 * Batch::MAX);
            for _ in 0..Batch::MAX {
                let mbuf = pool.take().ok_or("no packet buffers")?;
                let target = Target::App { id: 1, generation: 1, ring: 0, notes: Notes::NONE };
                burst.push(Handoff { mbuf, target });
            }
            frames.push(burst);
        }
        let (second_frames, first_frames) = (frames.pop().unwrap_or_default(), frames.pop().unwrap_or_default());
        Ok([End { mesh: first, other: 1, frames: first_frames }, End { mesh: second, other: 0, frames: second_frames }])
    };
    let [mut first, mut second] = ends()?;
    let alone: Work = Box::new(move || {
        let mut moved = 0;
        while moved < BATCH as usize {
            moved += first.turn() + second.turn();
        }
    });
    let both = ends()?.map(|mut end| -> Work {
        Box::new(move || {
            let (mut moved, mut idle) = (0, 0);
            // The other one may have ended.
            while moved < BATCH as usize && idle < 1_000_000 {
                let n = end.turn();
                moved += n;
                idle = if n == 0 { idle + 1 } else { 0 };
            }
        })
    });
    Ok(Case { name: "frames handed over from worker to worker", works: Works { alone, both } })
}
