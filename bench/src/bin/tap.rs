//! What a worker pays for a capture session, alone on one core: nanoseconds per frame by kind of session.
//!
//! The stages of a worker (parse, evaluate, deliver) run over bursts of 32 frames of 64 bytes, with no other thread and no
//! application, and each burst is timed. Sessions take turns, a few bursts each. As the medians are of thousands of
//! bursts, they hold on a machine that is busy with other things, where `kopi-bench capture` finds no quiet sample; but
//! taking frames out of an app's ring is not in them. Rings of sessions are emptied between bursts. Arguments, if there
//! are any, are the names of the sessions to be measured.
#![forbid(unsafe_code)]

use dpdk::{Batch, Bpf, Eal, Pool, PoolConfig, Port, PortConfig, tsc};
use kopi_config::policy::Tracking;
use kopi_dataplane::fib::{Fib, FibPort};
use kopi_dataplane::ids::{PortId, WIRE};
use kopi_dataplane::policy_counters::PolicyCounters;
use kopi_dataplane::snapshot::Snapshot;
use kopi_dataplane::stages::mirror::{Cell, Mirror, PortCounts, Selection, Which};
use kopi_dataplane::stages::policy::PolicyStage;
use kopi_dataplane::stages::{deliver, mirror, parse, policy, transmit};
use kopi_dataplane::worker::burst::Burst;
use kopi_dataplane::worker::counters::WorkerCounters;
use kopi_dataplane::worker::flow_table::FlowTable;
use kopi_dataplane::worker::handoff::Mesh;
use kopi_dataplane::worker::outputs::Outputs;
use kopi_dataplane::worker::port::WorkerPort;
use kopi_dataplane::worker::wire::Wire;
use kopi_packet::{LinkProtocols, Seed};
use kopi_policy::Connections;
use kopi_ring::message::Settings;
use kopi_ring::{Consumer, Geometry, HugePages, Region};
use std::error::Error;
use std::io::{self, Write};
use std::sync::Arc;

/// Bursts of one session until the next one has its turn, the first of which warm up: each flow comes twice in them.
const BURSTS: usize = 512;
const WARM_UP: usize = 64;
/// Turns of each session.
const TURNS: usize = 40;
/// Length of a frame.
const FRAME_LEN: u16 = 64;
/// Flows whose frames take turns, unless there is only one.
const FLOWS: usize = 1000;
/// Ports, the wire's included; the app's number.
const PORTS: usize = 4;
const APP: PortId = 1;
const MTU: u16 = 1500;
/// Lines of a session's ring.
const RING: usize = 1024;

/// A session: its name, its filter if there is one, what it wants, and one of how many.
type Arm = (&'static str, Option<&'static str>, Which, u32);

const ARMS: [Arm; 8] = [
    ("none", None, Which::All, 0),
    ("again", None, Which::All, 0),
    ("dropped", None, Which::Dropped, 1),
    ("port", Some("udp port 53"), Which::All, 1),
    ("host", Some("host 192.0.2.1 and tcp"), Which::All, 1),
    ("few", Some("udp src portrange 1990-1999"), Which::All, 1),
    ("sample", None, Which::All, 100),
    ("all", None, Which::All, 1),
];

/// A worker's parts, and the app's end of its ring.
struct Bench {
    pool: Pool,
    burst: Burst,
    flows: FlowTable,
    policy_stage: PolicyStage,
    snapshot: Snapshot,
    outputs: Outputs,
    app: Consumer,
    frames: Vec<[u8; FRAME_LEN as usize]>,
    next: usize,
    /// Dropped behind the queues that are its own.
    _port: Port,
}

impl Bench {
    fn new(eal: &Eal, frames: Vec<[u8; FRAME_LEN as usize]>, wire: u32) -> Result<Self, Box<dyn Error>> {
        let name = format!("tap-{wire}");
        let pool = Pool::new(eal, PoolConfig { name: &name, mbufs: 2047, cache: 64, frame_max: 2048, socket: None })?;
        let mut port = Port::by_devargs(eal, &format!("net_null{wire},no-rx=1"))?;
        port.configure(&PortConfig { one_pool: true, ..PortConfig::default() }, std::slice::from_ref(&pool))?;
        let (rx, tx) = port.start()?;
        let wire = Wire::new(rx.into_iter().next(), tx.into_iter().next());
        let counters = Arc::new(WorkerCounters::new(PORTS));
        let mesh = Mesh::among(1, PORTS).into_iter().next().ok_or("no mesh")?;
        let mut outputs = Outputs::new(0, (PORTS, eal.tsc_hz()), wire, 0, mesh, pool.clone(), counters);
        let geometry = Geometry::new(&[1024], &[1024], 2048)?;
        let region = Region::create(&geometry, HugePages::Off)?;
        let client = Region::open(region.fd().try_clone_to_owned()?, &geometry)?;
        outputs.insert(Box::new(WorkerPort::new(&region, APP, 1, 0, 1)));
        let app = client.rx_consumer(0).ok_or("no ring")?;
        let settings = Settings { mtu: MTU, macs: vec![[2, 0, 0, 0, 0, 1]], ..Settings::default() };
        let snapshot =
            Snapshot::new(1, Fib::new(true, MTU, &[FibPort { id: APP, settings, link: LinkProtocols::NONE }]));
        let seed = Seed::from_bytes([8; 64]);
        let connections = Arc::new(Connections::new(1024, seed, &Tracking::default(), eal.tsc_hz()));
        let (noted, _) = rtrb::RingBuffer::new(1);
        let policy_stage = PolicyStage::new(
            connections,
            Arc::new(PolicyCounters::new(0)),
            Seed::from_bytes([9; 64]),
            eal.tsc_hz(),
            noted,
        );
        let flows = FlowTable::new(65_536, PORTS, Seed::from_bytes([7; 64]));
        Ok(Self {
            pool,
            burst: Burst::new(),
            flows,
            policy_stage,
            snapshot,
            outputs,
            app,
            frames,
            next: 0,
            _port: port,
        })
    }

    /// Passes one burst from `source` on, and returns the cycles that it took.
    fn pass(&mut self, source: PortId) -> Result<u64, Box<dyn Error>> {
        if !self.pool.fill(&mut self.burst.batch, Batch::MAX) {
            return Err("no packet buffers".into());
        }
        for mbuf in self.burst.batch.iter_mut() {
            if let Some(frame) = self.frames.get(self.next) {
                mbuf.frame_mut(FRAME_LEN).copy_from_slice(frame);
            }
            self.next = if self.next + 1 >= self.frames.len() { 0 } else { self.next + 1 };
        }
        let begun = tsc();
        self.burst.mirrored = !self.outputs.mirrors.is_empty();
        if self.burst.mirrored && source != WIRE {
            self.burst.note_queue(0, 0);
        }
        let Self { burst, flows, policy_stage, outputs, snapshot, .. } = self;
        parse::run(burst, source, flows, None);
        policy::run(burst, source, policy_stage, flows, snapshot, begun);
        let fates = deliver::run(outputs, burst, source, snapshot, policy_stage, begun);
        let view = outputs.view(snapshot, policy_stage.policy_counters(), begun);
        mirror::run(&mut outputs.mirrors, burst, source, &outputs.ports, &view);
        transmit::run(outputs, burst, source, &fates, &view);
        let took = tsc() - begun;
        while self.app.poll()? > 0 {
            self.app.next()?;
        }
        self.app.release();
        Ok(took)
    }

    /// A turn of `arm`: appends the cycles of each burst to `times`.
    fn turn(&mut self, arm: &Arm, source: PortId, times: &mut Vec<u64>) -> Result<(), Box<dyn Error>> {
        let mut ring = self.mirror(arm)?;
        for burst in 0..BURSTS {
            let took = self.pass(source)?;
            if burst >= WARM_UP {
                times.push(took);
            }
            if let Some(ring) = &mut ring
                && let Ok(chunk) = ring.read_chunk(ring.slots())
            {
                chunk.commit_all();
            }
        }
        self.outputs.mirrors.remove(1);
        Ok(())
    }

    fn mirror(&mut self, &(_, filter, which, sample): &Arm) -> Result<Option<rtrb::Consumer<Cell>>, Box<dyn Error>> {
        if sample == 0 {
            return Ok(None);
        }
        let mut ports = vec![[true; 2]; PORTS];
        ports[usize::from(WIRE)] = [false; 2];
        let selection = Selection {
            session: 1,
            ports: ports.into(),
            strays: true,
            owners: None,
            which,
            rules: None,
            reasons: None,
            snap: 96,
            sample,
        };
        let (producer, consumer) = rtrb::RingBuffer::new(RING);
        let counts = (0..PORTS).map(|_| PortCounts::default()).collect();
        let mut mirror = Mirror::new(Arc::new(selection), producer, counts);
        if let Some(filter) = filter {
            mirror = mirror.filtered(Arc::new(Bpf::compile(filter)?));
        }
        self.outputs.mirrors.insert(Box::new(mirror)).map_err(|_| "too many mirrors")?;
        Ok(Some(consumer))
    }
}

/// Frames of UDP of so many flows, to the app or from it.
fn frames(flows: usize, to_app: bool) -> Vec<[u8; FRAME_LEN as usize]> {
    let frame = |flow: usize| {
        let mut frame = [0; FRAME_LEN as usize];
        let (app, peer) = ([2, 0, 0, 0, 0, 1], [2, 0, 0, 9, 9, 9]);
        let (to, from) = if to_app { (app, peer) } else { (peer, app) };
        frame[..6].copy_from_slice(&to);
        frame[6..12].copy_from_slice(&from);
        frame[12..24].copy_from_slice(&[8, 0, 0x45, 0, 0, 50, 0, 0, 0, 0, 64, 17]);
        frame[26..30].copy_from_slice(&[198, 19, 0, 1]);
        frame[30..34].copy_from_slice(&[198, 18, 0, 1]);
        let port = u16::try_from(1024 + flow).unwrap_or(u16::MAX);
        frame[34..36].copy_from_slice(&port.to_be_bytes());
        frame[36..40].copy_from_slice(&[0, 9, 0, 30]);
        frame
    };
    (0..flows).map(frame).collect()
}

/// The middle of `sorted`, and the middles of its halves.
fn quartiles(mut times: Vec<u64>) -> [u64; 3] {
    times.sort_unstable();
    [1, 2, 3].map(|quarter| times.get(times.len() * quarter / 4).copied().unwrap_or_default())
}

fn main() -> Result<(), Box<dyn Error>> {
    let prefix = format!("--file-prefix=kopi-bench-tap-{}", std::process::id());
    let args = ["--no-huge", "-m", "64", "--no-pci", "--no-telemetry", "--no-shconf", "-l", "0", &prefix];
    let eal = Eal::init(&args.map(str::to_owned))?;
    #[expect(clippy::cast_precision_loss, reason = "few cycles")]
    let ns = |cycles: u64| cycles as f64 * 1e9 / eal.tsc_hz() as f64 / Batch::MAX as f64;
    let mut out = io::stdout().lock();
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let arms: Vec<_> = ARMS.iter().filter(|(name, ..)| wanted.is_empty() || wanted.iter().any(|w| w == name)).collect();
    let cases = [("TX", APP, FLOWS), ("TX", APP, 1), ("RX", WIRE, FLOWS), ("RX", WIRE, 1)];
    for (number, (direction, source, flows)) in (0..).zip(cases) {
        let mut bench = Bench::new(&eal, frames(flows, source == WIRE), number)?;
        let mut times: Vec<Vec<u64>> = vec![Vec::new(); arms.len()];
        for _ in 0..TURNS {
            for (arm, times) in arms.iter().zip(&mut times) {
                bench.turn(arm, source, times)?;
            }
        }
        writeln!(out, "{direction}, {flows} flows: ns of a frame, by quartiles, and beyond the first")?;
        let mut first = None;
        for ((name, ..), times) in arms.iter().zip(times) {
            let [low, median, high] = quartiles(times).map(ns);
            let more = median - *first.get_or_insert(median);
            writeln!(out, "  {name:>8}  {median:6.2} ({low:6.2} to {high:6.2})  {more:+6.2}")?;
        }
    }
    Ok(())
}
