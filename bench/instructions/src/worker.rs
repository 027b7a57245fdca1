//! kopid's worker, alone in this process: a real [`Worker`] over a real DPDK device, with both ends of the apps' rings.
//!
//! Time is counted, not read: each round of frames is a microsecond after the one before, so that every run takes the same way.

use crate::error::Failure;
use crate::frames::{self, Protocol, Way};
use dpdk::{Batch, Bpf, Eal, Pool, PoolConfig, Port, PortConfig, TxQueue};
use kopi_config::Policy;
use kopi_config::policy::Tracking;
use kopi_dataplane::control::classes::ShaperSpec;
use kopi_dataplane::fib::{Fib, FibPort};
use kopi_dataplane::ids::Backlog;
use kopi_dataplane::ids::WIRE;
use kopi_dataplane::policy_counters::PolicyCounters;
use kopi_dataplane::policy_table::{self, PolicyTable};
use kopi_dataplane::snapshot::Snapshot;
use kopi_dataplane::stages::mirror::{Mirror, PortCounts, Selection, Which};
use kopi_dataplane::stages::policy::PolicyStage;
use kopi_dataplane::worker::command::{Change, Command, QUEUE, Reply};
use kopi_dataplane::worker::counters::{PortTotals, WorkerCounters};
use kopi_dataplane::worker::flow_table::FlowTable;
use kopi_dataplane::worker::handoff::Mesh;
use kopi_dataplane::worker::port::WorkerPort;
use kopi_dataplane::worker::wake_requests::WakeRequests;
use kopi_dataplane::worker::wire::Wire;
use kopi_dataplane::worker::{Parts, Worker};
use kopi_packet::{LinkProtocols, MacAddr, Seed};
use kopi_policy::{Connections, Owner, Ruleset};
use kopi_ring::layout::Notes;
use kopi_ring::message::Settings;
use kopi_ring::{Consumer, Geometry, HugePages, Producer, Region};
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Rounds that are not counted, in which flows and buffers find their place: each of 1,000 flows comes twice.
const WARM_UP: usize = 75;
/// Rounds that are counted: each of 1,000 flows comes four times.
const ROUNDS: usize = 125;
/// Ticks of the clock in a second, and from one round to the next. All rounds of a case together are shorter than the
/// millisecond after which a worker looks for idle flows, so that only the first turn of all does.
const HZ: u64 = 2_000_000_000;
const ROUND: u64 = HZ / 1_000_000;
const BEGIN: u64 = 1 << 40;
/// Ticks that a burst takes, by the worker's clock: half a microsecond.
const BURST: u64 = HZ / 2_000_000;
/// Ports, the wire's included.
const PORTS: usize = 16;
/// Slots of each ring of an app, and bytes of a slot.
const SLOTS: u32 = 1024;
const SLOT_SIZE: u32 = 2048;
const MTU: u16 = 1500;
/// As many as kopid has by default.
const FLOW_TABLE: usize = 65_536;
/// Room for twice as many connections as there are flows.
const CONNECTIONS: usize = 2048;
/// Rules where there are many.
const RULES: u16 = 10_000;
/// Buffers that a thread of kopid keeps for itself.
const CACHE: u32 = 512;

/// Which way frames go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Traffic {
    /// From the apps to a wire that takes everything.
    Tx,
    /// From a wire to the apps.
    Rx,
    /// From an app to a wire that gives back what it takes, and so to the app again.
    Both,
    /// None.
    None,
}

/// What the worker is to look at frames for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Setting {
    Plain,
    Rule,
    Rules,
    State,
    Classes,
    Capture,
    /// The rules, the last of which asks for the connection's state, nine classes, and the capture.
    Everything,
}

/// What is counted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    traffic: Traffic,
    protocol: Protocol,
    len: u16,
    flows: usize,
    apps: u16,
    burst: usize,
    setting: Setting,
    crew: Crew,
}

/// The worker that is counted, and others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Crew {
    /// One of so many, which has rings of its own in each of the app's queues. The others have nothing to do, and are not counted.
    One(usize),
    /// Two, of which the first gets the frames, and the second has the app's only ring. Both are counted.
    HandingOver,
}

impl Crew {
    const fn workers(self) -> usize {
        match self {
            Self::One(workers) => workers,
            Self::HandingOver => 2,
        }
    }

    /// Those that are counted. Ring 0 of the first app is of worker 1, if there are several.
    fn members(self) -> std::ops::Range<usize> {
        match self {
            Self::One(1) => 0..1,
            Self::One(_) => 1..2,
            Self::HandingOver => 0..2,
        }
    }

    /// RX rings of the app's queue.
    const fn lanes(self) -> usize {
        match self {
            Self::One(workers) => workers,
            Self::HandingOver => 1,
        }
    }
}

const TX: Case = Case {
    traffic: Traffic::Tx,
    protocol: Protocol::Ipv4,
    len: 64,
    flows: 1,
    apps: 1,
    burst: Batch::MAX,
    setting: Setting::Plain,
    crew: Crew::One(1),
};
const RX: Case = Case { traffic: Traffic::Rx, ..TX };

/// All cases, in the order of the budgets.
pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for direction in [TX, RX] {
        for flows in [1, 1000] {
            for setting in [Setting::Plain, Setting::Rule, Setting::Classes, Setting::Capture] {
                cases.push(Case { flows, setting, ..direction });
            }
        }
        for setting in [Setting::Rules, Setting::State, Setting::Everything] {
            cases.push(Case { flows: 1000, setting, ..direction });
        }
        cases.push(Case { len: 1518, ..direction });
        cases.push(Case { len: 1518, setting: Setting::Classes, ..direction });
        cases.push(Case { protocol: Protocol::Ipv6, ..direction });
        cases.push(Case { protocol: Protocol::Zeros, ..direction });
        cases.push(Case { apps: 8, ..direction });
        cases.extend([2, 4, 8, 16].map(|workers| Case { crew: Crew::One(workers), ..direction }));
    }
    cases.push(Case { crew: Crew::HandingOver, ..RX });
    cases.push(Case { traffic: Traffic::Both, burst: 1, ..TX });
    cases.push(Case { traffic: Traffic::None, ..TX });
    cases
}

impl Case {
    /// What it is called in the budgets.
    pub(crate) fn name(&self) -> String {
        let traffic = match self.traffic {
            Traffic::Tx => "TX",
            Traffic::Rx => "RX",
            Traffic::Both => "one frame to the wire and back",
            Traffic::None => "a turn without frames",
        };
        let mut name = format!("worker, {traffic}");
        if matches!(self.traffic, Traffic::Tx | Traffic::Rx) {
            name += match (self.apps, self.flows) {
                (1, 1) => ", one flow",
                (1, _) => ", 1,000 flows",
                _ => ", 8 apps with a flow each",
            };
        }
        if self.len != TX.len {
            name += &format!(", {} bytes", self.len);
        }
        name += match self.protocol {
            Protocol::Ipv4 => "",
            Protocol::Ipv6 => ", IPv6",
            Protocol::Zeros => ", no IP",
        };
        name += match self.setting {
            Setting::Plain => "",
            Setting::Rule => ", a rule",
            Setting::Rules => ", 10,000 rules",
            Setting::State => ", a rule of state",
            Setting::Classes => ", classes",
            Setting::Capture => ", a capture that matches nothing",
            Setting::Everything => ", everything",
        };
        match self.crew {
            Crew::One(1) => {}
            Crew::One(workers) => name += &format!(", one of {workers} workers"),
            Crew::HandingOver => name += ", handed over between 2 workers",
        }
        name
    }

    /// Frames that are counted.
    fn frames(&self) -> usize {
        match self.traffic {
            Traffic::Tx => ROUNDS * self.burst * usize::from(self.apps),
            Traffic::Rx | Traffic::Both => ROUNDS * self.burst,
            Traffic::None => 0,
        }
    }

    /// What its instructions are divided by: frames, or turns if there are none.
    pub(crate) fn units(&self) -> usize {
        if self.traffic == Traffic::None { ROUNDS } else { self.frames() }
    }

    /// Turns of a round: a frame is sent in one, and comes back in the next; and eight apps of one user are served in two.
    const fn turns(&self) -> usize {
        match self.traffic {
            Traffic::Both => 2,
            Traffic::Tx if self.apps > 4 => 2,
            Traffic::Tx | Traffic::Rx | Traffic::None => 1,
        }
    }
}

/// DPDK, and a pool for all cases.
#[derive(Debug)]
pub(crate) struct Lab {
    eal: Eal,
    pool: Pool,
}

impl Lab {
    /// Starts DPDK, for a run whose files are in `folder`.
    pub(crate) fn new(folder: &Path) -> Result<Self, Failure> {
        let eal = Eal::init(&crate::eal_args(folder, crate::WORKER, &[]))?;
        let pool =
            Pool::new(&eal, PoolConfig { name: "frames", mbufs: 8191, cache: CACHE, frame_max: 2048, socket: None })?;
        Ok(Self { eal, pool })
    }

    /// Runs one case. `number` tells its device from those of others.
    pub(crate) fn run(&self, number: usize, case: &Case) -> Result<(), Failure> {
        let mut bench = Bench::new(self, number, case)?;
        for _ in 0..WARM_UP {
            bench.feed(case)?;
            for _ in 0..case.turns() {
                for member in &mut bench.crew {
                    black_box(member.worker.poll_once(CLOCK.load(Relaxed)));
                }
            }
            bench.drain()?;
        }
        let before = bench.delivered(case);
        for _ in 0..ROUNDS {
            bench.feed(case)?;
            for _ in 0..case.turns() {
                for member in &mut bench.crew {
                    black_box(counted(&mut member.worker, CLOCK.load(Relaxed)));
                }
            }
            bench.drain()?;
        }
        let done = bench.delivered(case) - before;
        if done != case.frames() as u64 {
            return Err(Failure::Said(format!("{}: {done} of {} frames came through", case.name(), case.frames())));
        }
        Ok(())
    }
}

/// A clock by which every burst takes the same time, so that each run shares it out in the same way.
static CLOCK: AtomicU64 = AtomicU64::new(BEGIN);

fn ticks() -> u64 {
    CLOCK.fetch_add(BURST, Relaxed) + BURST
}

/// The turn whose instructions are counted: callgrind looks for this function by its name.
#[inline(never)]
fn counted(worker: &mut Worker, now: u64) -> bool {
    black_box(worker.poll_once(now))
}

/// The workers that are counted, and everything around them.
struct Bench {
    crew: Vec<Member>,
    apps: Vec<App>,
    /// Where frames of the wire come from.
    feeder: Option<TxQueue>,
    pool: Pool,
    frames: Vec<Vec<u8>>,
    next: usize,
    now: u64,
    popped: u64,
    /// The others' ends of what workers hand over.
    _meshes: Vec<Mesh>,
    /// Dropped behind the queues that are its own.
    _port: Port,
}

/// One worker.
struct Member {
    index: usize,
    worker: Worker,
    counters: Arc<WorkerCounters>,
    commands: rtrb::Producer<Command>,
    replies: rtrb::Consumer<Reply>,
}

/// The app's end of its rings.
struct App {
    tx: Producer,
    rx: Vec<Consumer>,
    _region: Region,
}

impl Bench {
    fn new(lab: &Lab, number: usize, case: &Case) -> Result<Self, Failure> {
        let device = match case.traffic {
            Traffic::Tx | Traffic::None => format!("net_null{number},no-rx=1"),
            Traffic::Rx | Traffic::Both => format!("net_ring{number}"),
        };
        // A queue of net_ring receives what was sent by the queue of the same number: the first is for us to send.
        let tx_queues = if case.traffic == Traffic::Rx { 2 } else { 1 };
        let mut port = Port::by_devargs(&lab.eal, &device)?;
        let config = PortConfig { one_pool: true, tx_queues, ..PortConfig::default() };
        port.configure(&config, std::slice::from_ref(&lab.pool))?;
        let (rx, mut tx) = port.start()?;
        // The first of them has the wire's queues.
        let (mut rx, mut wire_tx) = (rx.into_iter(), tx.pop());
        let (mut crew, mut meshes) = (Vec::new(), Vec::new());
        for (index, mesh) in Mesh::among(case.crew.workers(), PORTS).into_iter().enumerate() {
            if case.crew.members().contains(&index) {
                crew.push(Member::new(lab, index, Wire::new(rx.next(), wire_tx.take()), mesh));
            } else {
                meshes.push(mesh);
            }
        }
        let mut bench = Self {
            crew,
            apps: Vec::new(),
            feeder: tx.pop(),
            pool: lab.pool.clone(),
            frames: Vec::new(),
            next: 0,
            now: BEGIN,
            popped: 0,
            _meshes: meshes,
            _port: port,
        };
        bench.set_up(case)?;
        Ok(bench)
    }

    /// Attaches the apps, and puts the policy and the capture session in force.
    fn set_up(&mut self, case: &Case) -> Result<(), Failure> {
        let mut members = Vec::new();
        for id in 1..=case.apps {
            let (workers, lanes) = (case.crew.workers(), case.crew.lanes());
            let geometry = Geometry::new(&[SLOTS], &vec![SLOTS; lanes], SLOT_SIZE)?;
            let geometry = geometry.with_lanes(u16::try_from(lanes).unwrap_or(0))?;
            let region = Region::create(&geometry, HugePages::Off)?;
            let client = Region::open(region.fd().try_clone_to_owned()?, &geometry)?;
            self.tell(|index| {
                let port = WorkerPort::new(&region, id, id.into(), index, workers);
                Ok(Command::Attach(Box::new(port.keeping(index, workers))))
            })?;
            let rx: Vec<_> = (0..lanes).filter_map(|ring| client.rx_consumer(ring)).collect();
            let Some(tx) = client.tx_producer(0).filter(|_| rx.len() == lanes) else {
                return Err(Failure::Said("the region has no rings".into()));
            };
            self.apps.push(App { tx, rx, _region: client });
            let macs = vec![frames::mac(id)];
            let promiscuous = case.traffic == Traffic::Both;
            let settings = Settings { mtu: MTU, promiscuous, all_multicast: false, macs };
            members.push(FibPort { id, settings, link: LinkProtocols::NONE });
        }
        let (filter, plan) = policy(case.setting, &members)?;
        let snapshot = Snapshot::new(2, Fib::new(true, MTU, &members)).with_policies(filter);
        let (snapshot, now) = (Arc::new(snapshot), self.now);
        self.tell(|index| {
            let shaper = plan.as_ref().map(|plan| Some(plan.shaper(index, PORTS, now)));
            let (snapshot, policy_counters) = (Arc::clone(&snapshot), Arc::new(PolicyCounters::new(64)));
            Ok(Command::Forward(Change { snapshot, policy_counters, selections: Vec::new(), shaper }))
        })?;
        if matches!(case.setting, Setting::Capture | Setting::Everything) {
            self.tell(|_| mirror().map(|mirror| Command::Mirror(Box::new(mirror))))?;
        }
        // The workers take all of this in a turn without frames.
        for member in &mut self.crew {
            member.worker.poll_once(self.now);
            while member.replies.pop().is_ok() {}
        }
        let way = match case.traffic {
            Traffic::Rx => Way::In,
            Traffic::Tx | Traffic::None => Way::Out,
            Traffic::Both => Way::Round,
        };
        self.frames = frames::all(way, case.protocol, case.flows.max(case.apps.into()), case.apps, case.len);
        Ok(())
    }

    /// Gives each worker the command that `command` makes for its number.
    fn tell(&mut self, command: impl Fn(usize) -> Result<Command, Failure>) -> Result<(), Failure> {
        self.crew.iter_mut().try_for_each(|member| {
            let told = member.commands.push(command(member.index)?);
            told.map_err(|_| Failure::Said("the worker does not take orders".into()))
        })
    }

    /// Puts the next round's frames where the worker will find them.
    fn feed(&mut self, case: &Case) -> Result<(), Failure> {
        self.now += ROUND;
        CLOCK.store(self.now, Relaxed);
        match case.traffic {
            Traffic::None => Ok(()),
            Traffic::Tx => (0..self.apps.len()).try_for_each(|app| self.push(app, case.burst)),
            Traffic::Rx => self.send(case.burst),
            Traffic::Both => self.push(0, case.burst),
        }
    }

    fn push(&mut self, app: usize, n: usize) -> Result<(), Failure> {
        let full = || Failure::Said("the app's ring is full".into());
        let apps = self.apps.len();
        let app_ring = self.apps.get_mut(app).ok_or_else(full)?;
        app_ring.tx.free(u32::try_from(n).unwrap_or(u32::MAX))?;
        for _ in 0..n {
            let frame = self.frames.get(if apps > 1 { app } else { self.next }).map_or(&[][..], Vec::as_slice);
            if !app_ring.tx.push(frame, Notes::NONE) {
                return Err(full());
            }
            self.next = (self.next + 1) % self.frames.len();
        }
        app_ring.tx.publish();
        Ok(())
    }

    fn send(&mut self, n: usize) -> Result<(), Failure> {
        let mut batch = Batch::new();
        if !self.pool.fill(&mut batch, n) {
            return Err(Failure::Said("no packet buffers".into()));
        }
        for mbuf in batch.iter_mut() {
            let frame = self.frames.get(self.next).map_or(&[][..], Vec::as_slice);
            if !mbuf.fill(frame) {
                return Err(Failure::Said("a frame does not fit a buffer".into()));
            }
            self.next = (self.next + 1) % self.frames.len();
        }
        let sent = self.feeder.as_mut().map_or(0, |feeder| feeder.send(&mut batch));
        if usize::from(sent) == n { Ok(()) } else { Err(Failure::Said("the wire is full".into())) }
    }

    /// Takes what the worker has put into the apps' rings.
    fn drain(&mut self) -> Result<(), Failure> {
        for ring in self.apps.iter_mut().flat_map(|app| &mut app.rx) {
            while ring.poll()? > 0 {
                ring.next()?;
                self.popped += 1;
            }
            ring.release();
        }
        Ok(())
    }

    /// Frames that have come where they were to go.
    fn delivered(&self, case: &Case) -> u64 {
        let wire = PortTotals::of(self.crew.iter().map(|member| &*member.counters), WIRE);
        if matches!(case.traffic, Traffic::Tx) { wire.tx_packets } else { self.popped }
    }
}

impl Member {
    fn new(lab: &Lab, index: usize, wire: Wire, mesh: Mesh) -> Self {
        let counters = Arc::new(WorkerCounters::new(PORTS));
        let (commands, orders) = rtrb::RingBuffer::new(QUEUE);
        let (answers, replies) = rtrb::RingBuffer::new(QUEUE + PORTS);
        let connections = Arc::new(Connections::new(CONNECTIONS, Seed::from_bytes([8; 64]), &Tracking::default(), HZ));
        let (noted, _) = rtrb::RingBuffer::new(1);
        let (samples, _) = rtrb::RingBuffer::new(1);
        let worker = Worker::new(Parts {
            index,
            wire,
            sender: 0,
            pool: lab.pool.clone(),
            flows: FlowTable::new(FLOW_TABLE, PORTS, Seed::from_bytes([7; 64])),
            policy_stage: PolicyStage::new(
                connections,
                Arc::new(PolicyCounters::new(0)),
                Seed::from_bytes([9; 64]),
                HZ,
                noted,
            ),
            mesh,
            counters: Arc::clone(&counters),
            commands: orders,
            replies: answers,
            samples,
            snapshot: Arc::new(Snapshot::new(1, Fib::new(true, MTU, &[]))),
            max_ports: PORTS,
            clock: ticks,
            tsc_hz: HZ,
            requests: WakeRequests::default(),
            sleep_state: None,
        });
        Self { index, worker, counters, commands, replies }
    }
}

/// The last rule lets all of the load pass, and nothing else; of the classes, none has a ceiling.
fn policy(setting: Setting, members: &[FibPort]) -> Result<(Option<PolicyTable>, Option<ShaperSpec>), Failure> {
    let load = "proto = [\"udp\", \"tcp\"], dst = \"198.18.0.0/15\"";
    let state = "state = [\"new\", \"established\"]";
    let text = match setting {
        Setting::Plain | Setting::Capture => return Ok((None, None)),
        Setting::Rule => rules(1, load),
        Setting::Rules => rules(RULES, load),
        Setting::State => rules(1, state),
        Setting::Classes => classes(2),
        Setting::Everything => rules(RULES, &format!("{load}, {state}")) + &classes(9),
    };
    let policy = Policy::parse(&text, "budget").map_err(|errors| Failure::Said(format!("{errors:?}")))?;
    let plan = ShaperSpec::new(&policy, HZ, 1, MTU, BEGIN);
    // Of all apps, if any is named.
    let entry = (!policy.apps.is_empty()).then_some(0);
    let ruleset = Ruleset::new(Arc::new(policy), &()).map_err(|error| Failure::Said(format!("{error:?}")))?;
    let ruleset = Arc::new(ruleset);
    let member = |member: &FibPort| {
        let macs: Vec<_> = member.settings.macs.iter().map(|mac| MacAddr::new(*mac)).collect();
        let port_policy = ruleset.port_policy(&Owner::unknown("app"), entry, &macs);
        let backlog = plan.as_ref().map_or(Backlog::AppRing(0), |plan| plan.backlog(&ruleset, &port_policy));
        policy_table::PolicyPort { id: member.id, generation: 1, port_policy, flows: u32::MAX, backlog }
    };
    let members = members.iter().map(member).collect();
    Ok((Some(PolicyTable::new(Arc::clone(&ruleset), members)), plan))
}

/// So many rules, of which the last one accepts what it matches and the others match nothing of the load.
fn rules(count: u16, matches: &str) -> String {
    let other = |n| {
        let [high, low] = u16::to_be_bytes(n);
        format!(
            "[[rule]]\nname = \"rule-{n}\"\nmatch = {{ proto = \"udp\", dst = \"203.0.{high}.{low}\", dst_port = {n} }}\n\
             action = \"drop\"\n"
        )
    };
    let others: String = (1..count).map(other).collect();
    format!(
        "default = {{ egress = \"drop\", ingress = \"drop\" }}\n{others}\
         [[rule]]\nname = \"load\"\nmatch = {{ {matches} }}\naction = \"accept\"\n"
    )
}

/// So many classes, for egress and for ingress in turn. The app has the first of each.
fn classes(count: usize) -> String {
    let class = |n: usize| {
        let direction = if n.is_multiple_of(2) { "egress" } else { "ingress" };
        format!("[[class]]\nname = \"c{n}\"\ndirection = \"{direction}\"\n")
    };
    let all: String = (0..count).map(class).collect();
    format!("{all}[[app]]\nname = \"app\"\nclass = [\"c0\", \"c1\"]\n")
}

/// A capture of all apps' frames whose filter none of the load passes.
fn mirror() -> Result<Mirror, Failure> {
    let mut ports = vec![[true; 2]; PORTS];
    ports[usize::from(WIRE)] = [false; 2];
    let selection = Selection {
        session: 1,
        ports: ports.into(),
        strays: true,
        owners: None,
        which: Which::All,
        rules: None,
        reasons: None,
        snap: 96,
        sample: 1,
    };
    let (ring, _) = rtrb::RingBuffer::new(1024);
    let counts = (0..PORTS).map(|_| PortCounts::default()).collect();
    let filter = Bpf::compile("udp port 53").map_err(|error| Failure::Said(error.to_string()))?;
    Ok(Mirror::new(Arc::new(selection), ring, counts).filtered(Arc::new(filter)))
}
