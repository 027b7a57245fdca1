//! A dataplane inside the test: real workers over a wire that is a loop, and the apps' ends of the rings.

use dpdk::{Batch, Bpf, Eal, Pool, PoolConfig, Port, PortConfig};
use kopi_config::Policy;
use kopi_config::policy::Tracking;
use kopi_dataplane::control::classes::ShaperSpec;
use kopi_dataplane::fib::{Fib, FibPort};
use kopi_dataplane::ids::Backlog;
use kopi_dataplane::ids::{PortId, WIRE};
use kopi_dataplane::policy_counters::PolicyCounters;
use kopi_dataplane::policy_table::{self, PolicyTable};
use kopi_dataplane::rss::{Rss, RssTable};
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
use kopi_packet::{LinkProtocols, MacAddr, Seed, Toeplitz, rss_key_of_boot};
use kopi_policy::{Connections, Owner, Ruleset};
use kopi_ring::layout::Notes;
use kopi_ring::message::{Mac, Settings};
use kopi_ring::{Consumer, Geometry, HugePages, PeerFault, Producer, Region};
use std::cell::Cell;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Packet buffers: more than the loop, the queues between workers and all caches hold.
const MBUFS: u32 = 8191;
/// Bytes of the largest frame.
const FRAME_MAX: u16 = 9216;
/// MTU of the wire.
pub(crate) const MTU: u16 = 1500;
/// Port numbers, the wire's included.
const PORTS: usize = 8;
/// How long anything may take, on a machine that is busy with other things.
const SOON: Duration = Duration::from_secs(60);

/// Waits until `condition` holds.
pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < SOON, "waited in vain until {what}");
        std::thread::yield_now();
    }
}

/// Waits until `look`, which tells how far something has come and whether that is all, says that it is all. However slow
/// the machine is, it is only in vain if nothing moves any more.
pub(crate) fn wait_while_moving(what: &str, mut look: impl FnMut() -> (u64, bool)) {
    let (mut last, mut moved) = (0, Instant::now());
    loop {
        let (far, done) = look();
        if done {
            return;
        }
        if far != last {
            (last, moved) = (far, Instant::now());
        }
        assert!(moved.elapsed() < SOON, "waited in vain until {what}: {far} and no more");
        std::thread::yield_now();
    }
}

/// DPDK over ordinary pages, and a pool.
#[derive(Debug)]
pub(crate) struct Lab {
    eal: Eal,
    pool: Pool,
    /// Name of the folder that EAL leaves behind.
    folder: String,
    /// Wires made so far. `net_ring` does not free the memory of its rings, so each has its own name.
    wires: Cell<u32>,
}

impl Lab {
    /// Starts DPDK. Once in a process.
    #[must_use]
    pub(crate) fn new() -> Self {
        let folder = format!("kopi-dataplane-test-{}", std::process::id());
        let prefix = format!("--file-prefix={folder}");
        let args = ["--no-huge", "-m", "128", "--no-pci", "--no-telemetry", "--no-shconf", "-l", "0", &prefix];
        let eal = Eal::init(&args.map(str::to_owned)).expect("DPDK starts");
        let config = PoolConfig { name: "test", mbufs: MBUFS, cache: 64, frame_max: FRAME_MAX, socket: None };
        let pool = Pool::new(&eal, config).expect("there is memory for the pool");
        Self { eal, pool, folder, wires: Cell::new(0) }
    }

    /// A device of DPDK's, and the buffers for it.
    #[must_use]
    pub(crate) fn device(&self, devargs: &str) -> (Port, &Pool) {
        (Port::by_devargs(&self.eal, devargs).expect("DPDK has such devices"), &self.pool)
    }

    /// Ticks of the TSC in a second.
    #[must_use]
    pub(crate) fn hz(&self) -> u64 {
        self.eal.tsc_hz()
    }

    /// Puts these frames into an empty batch.
    pub(crate) fn fill(&self, batch: &mut Batch, frames: &[Vec<u8>]) {
        assert!(self.pool.fill(batch, frames.len()), "buffers run short");
        assert!(batch.iter_mut().zip(frames).all(|(mbuf, frame)| mbuf.fill(frame)));
    }

    /// Fails unless every packet buffer is back in the pool.
    pub(crate) fn check_buffers(&self) {
        assert_eq!(self.pool.available(), MBUFS, "packet buffers are missing");
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for base in [std::env::var("XDG_RUNTIME_DIR").unwrap_or_default(), "/var/run".into()] {
            drop(std::fs::remove_dir_all(Path::new(&base).join("dpdk").join(&self.folder)));
        }
    }
}

/// Running workers, and what the control thread would hold.
#[derive(Debug)]
pub(crate) struct Crew<'a> {
    lab: &'a Lab,
    port: Port,
    hands: Vec<Hand>,
    members: Vec<FibPort>,
    ruleset: Option<Arc<Ruleset>>,
    plan: Option<ShaperSpec>,
    /// Whether the workers have yet to hear of the classes.
    classes_changed: bool,
    /// Whether the workers take the wire for up.
    pub(crate) wire_up: bool,
    /// RX queues of each port.
    queues: Vec<(PortId, usize)>,
    /// Whether each worker has a queue of the wire.
    spread: bool,
    epoch: u32,
    generation: u32,
    /// Faults that the workers have found.
    pub(crate) faults: Vec<(PortId, PeerFault)>,
    /// Snapshots given back, and ports let go of, by all workers together.
    retired: usize,
    detached: usize,
}

#[derive(Debug)]
struct Hand {
    thread: JoinHandle<u64>,
    commands: rtrb::Producer<Command>,
    replies: rtrb::Consumer<Reply>,
    counters: Arc<WorkerCounters>,
}

impl<'a> Crew<'a> {
    /// Starts workers over a wire of one queue, whose ends are joined. `meter` is read on each worker's thread before and
    /// after it runs.
    #[must_use]
    pub(crate) fn start(lab: &'a Lab, workers: usize, meter: fn() -> u64) -> Self {
        Self::over(lab, workers, 1, meter)
    }

    /// The same, over a wire of as many queues as there are workers. What a worker sends comes back to it.
    #[must_use]
    pub(crate) fn spread(lab: &'a Lab, workers: u16) -> Self {
        Self::over(lab, workers.into(), workers, || 0)
    }

    fn over(lab: &'a Lab, workers: usize, wire_queues: u16, meter: fn() -> u64) -> Self {
        let wire = lab.wires.replace(lab.wires.get() + 1);
        let mut port = Port::by_devargs(&lab.eal, &format!("net_ring{wire}")).expect("DPDK has rings");
        let (rx_queues, tx_queues) = (wire_queues, wire_queues);
        let config = PortConfig { one_pool: true, rx_queues, tx_queues, ..PortConfig::default() };
        port.configure(&config, std::slice::from_ref(&lab.pool)).expect("a ring can be configured");
        let (rx, tx) = port.start().expect("a ring can be started");
        let (mut rx, mut tx) = (rx.into_iter(), tx.into_iter());
        let snapshot = Arc::new(Snapshot::new(1, Fib::new(true, MTU, &[])));
        let seed = Seed::from_bytes([8; 64]);
        let connections = Arc::new(Connections::new(1024, seed, &Tracking::default(), lab.eal.tsc_hz()));
        let hands = (0..workers).zip(Mesh::among(workers, PORTS)).map(|(index, mesh)| {
            let (commands, orders) = rtrb::RingBuffer::new(QUEUE);
            let (answers, replies) = rtrb::RingBuffer::new(QUEUE + PORTS);
            let counters = Arc::new(WorkerCounters::new(PORTS));
            // Nobody reads the events: they are lost, as when the log is behind.
            let (noted, _events) = rtrb::RingBuffer::new(1);
            let (samples, _) = rtrb::RingBuffer::new(1);
            let (seed, hz) = (Seed::from_bytes([9; 64]), lab.eal.tsc_hz());
            let policy_stage =
                PolicyStage::new(Arc::clone(&connections), Arc::new(PolicyCounters::new(0)), seed, hz, noted);
            let parts = Parts {
                index,
                wire: Wire::new(rx.next(), tx.next()),
                sender: 0,
                pool: lab.pool.clone(),
                flows: FlowTable::new(1024, PORTS, Seed::from_bytes([7; 64])),
                policy_stage,
                mesh,
                counters: Arc::clone(&counters),
                commands: orders,
                replies: answers,
                samples,
                snapshot: Arc::clone(&snapshot),
                max_ports: PORTS,
                clock: dpdk::tsc,
                tsc_hz: lab.eal.tsc_hz(),
                sleep_state: None,
                requests: WakeRequests::default(),
            };
            let handle = lab.eal.handle();
            let thread = std::thread::spawn(move || {
                let registered = handle.register_thread().expect("there is a place");
                let mut worker = Worker::new(parts);
                let before = meter();
                worker.run();
                let measured = meter() - before;
                drop(worker);
                drop(registered);
                measured
            });
            Hand { thread, commands, replies, counters }
        });
        let hands = hands.collect();
        Self {
            lab,
            port,
            hands,
            members: Vec::new(),
            ruleset: None,
            plan: None,
            classes_changed: false,
            wire_up: true,
            queues: Vec::new(),
            spread: wire_queues > 1,
            epoch: 1,
            generation: 0,
            faults: Vec::new(),
            retired: 0,
            detached: 0,
        }
    }

    fn tell(&mut self, worker: usize, command: Command) {
        assert!(self.hands[worker].commands.push(command).is_ok(), "commands are answered at once");
    }

    fn settle(&mut self) {
        for hand in &mut self.hands {
            while let Ok(reply) = hand.replies.pop() {
                match reply {
                    Reply::Retired(..) => self.retired += 1,
                    Reply::Detached(..) => self.detached += 1,
                    Reply::Fault(port, fault) => self.faults.push((port.id, fault)),
                    Reply::Unmirrored(mirror) => drop(mirror),
                    Reply::Dumped(_) | Reply::Selected(_) => {}
                }
            }
        }
    }

    /// Gives the workers a snapshot with all changes, and waits until they use it.
    pub(crate) fn publish(&mut self) {
        self.epoch += 1;
        let snapshot = Snapshot::new(self.epoch, Fib::new(self.wire_up, MTU, &self.members));
        let snapshot = Arc::new(snapshot.with_rss(self.rss()).with_policies(self.filter()));
        let due = self.retired + self.hands.len();
        let classes = std::mem::take(&mut self.classes_changed);
        for worker in 0..self.hands.len() {
            let (snapshot, policy_counters) = (Arc::clone(&snapshot), Arc::new(PolicyCounters::new(0)));
            let shaper = self.plan.as_ref().map(|plan| plan.shaper(worker, PORTS, dpdk::tsc()));
            let shaper = classes.then_some(shaper);
            self.tell(worker, Command::Forward(Change { snapshot, policy_counters, selections: Vec::new(), shaper }));
        }
        wait_until("the workers use a snapshot", || {
            self.settle();
            self.retired >= due
        });
    }

    fn rss(&self) -> RssTable {
        let toeplitz = Arc::new(Toeplitz::new(rss_key_of_boot(b"test")));
        let usual = |queues| Arc::new(Rss::usual(Arc::clone(&toeplitz), queues));
        RssTable::new(usual(1), self.queues.iter().map(|(id, queues)| (*id, usual(*queues))))
    }

    fn filter(&self) -> Option<PolicyTable> {
        let ruleset = self.ruleset.clone()?;
        let member = |member: &FibPort| {
            let macs: Vec<_> = member.settings.macs.iter().map(|mac| MacAddr::new(*mac)).collect();
            let port_policy = ruleset.port_policy(&Owner::unknown("app"), None, &macs);
            let backlog = self.plan.as_ref().map_or(Backlog::AppRing(0), |plan| plan.backlog(&ruleset, &port_policy));
            policy_table::PolicyPort { id: member.id, generation: 1, port_policy, flows: u32::MAX, backlog }
        };
        Some(PolicyTable::new(Arc::clone(&ruleset), self.members.iter().map(member).collect()))
    }

    /// Puts a policy in force.
    pub(crate) fn enforce(&mut self, policy: &str) {
        let policy = Policy::parse(policy, "test").expect("a policy");
        self.plan = ShaperSpec::new(&policy, self.lab.eal.tsc_hz(), self.hands.len(), MTU, dpdk::tsc());
        self.classes_changed = true;
        self.ruleset = Some(Arc::new(Ruleset::new(Arc::new(policy), &()).expect("a policy of few rules")));
        self.publish();
    }

    /// Attaches an app with `queues` rings of `slots` slots in each direction.
    pub(crate) fn attach(&mut self, id: PortId, settings: Settings, queues: usize, slots: u32) -> App {
        let app = self.give_rings(id, settings, queues, slots);
        self.publish();
        app
    }

    /// The same, but for the snapshot that has the app: workers have its rings and do not know it yet.
    pub(crate) fn give_rings(&mut self, id: PortId, settings: Settings, queues: usize, slots: u32) -> App {
        self.give_lanes(id, settings, (queues, 1), slots)
    }

    /// The same with so many RX rings for each queue.
    pub(crate) fn give_lanes(
        &mut self,
        id: PortId,
        settings: Settings,
        (queues, lanes): (usize, u16),
        slots: u32,
    ) -> App {
        let rings = queues * usize::from(lanes);
        let geometry = Geometry::new(&vec![slots; queues], &vec![slots; rings], 2048).expect("a geometry");
        let geometry = geometry.with_lanes(lanes).expect("a ring for each lane");
        let region = Region::create(&geometry, HugePages::Off).expect("there is memory for a region");
        let app = App::open(&region, id, rings);
        self.generation += 1;
        let workers = self.hands.len();
        for worker in 0..workers {
            let port = WorkerPort::new(&region, id, self.generation, worker, workers);
            let port = if self.spread { port.keeping(worker, workers) } else { port };
            self.tell(worker, Command::Attach(Box::new(port)));
        }
        self.members.push(FibPort { id, settings, link: LinkProtocols::NONE });
        self.queues.push((id, queues));
        app
    }

    /// Waits until every worker has had `iterations` more iterations.
    pub(crate) fn await_iterations(&self, iterations: u64) {
        let iterations_of = |hand: &Hand| hand.counters.iterations.get();
        let due: Vec<u64> = self.hands.iter().map(|hand| iterations_of(hand) + iterations).collect();
        wait_until("the workers go on", || self.hands.iter().zip(&due).all(|(hand, due)| iterations_of(hand) >= *due));
    }

    /// Changes an app's settings.
    pub(crate) fn change(&mut self, id: PortId, change: impl Fn(&mut Settings)) {
        self.members.iter_mut().filter(|member| member.id == id).for_each(|member| change(&mut member.settings));
        self.publish();
    }

    /// Detaches an app, and returns when no worker has its rings any more.
    pub(crate) fn detach(&mut self, id: PortId) {
        let due = self.detached + self.hands.len();
        for worker in 0..self.hands.len() {
            self.tell(worker, Command::Detach(id));
        }
        self.members.retain(|member| member.id != id);
        self.queues.retain(|(port, _)| *port != id);
        self.publish();
        wait_until("the workers let go of a port", || {
            self.settle();
            self.detached >= due
        });
    }

    /// Waits until the workers have found a fault.
    pub(crate) fn await_fault(&mut self) -> (PortId, PeerFault) {
        wait_until("a fault is found", || {
            self.settle();
            !self.faults.is_empty()
        });
        self.faults.remove(0)
    }

    /// Gives every worker a mirror whose ring nobody reads, for frames that come `out` of ports or go into them, as far as
    /// `which` says and `filter` lets them pass. Returns what each worker's mirror counts, by port.
    pub(crate) fn mirror(&mut self, session: u32, out: bool, which: Which, filter: &str) -> Vec<Arc<[PortCounts]>> {
        let filter = Arc::new(Bpf::compile(filter).expect("a filter"));
        let selection = Arc::new(Selection {
            session,
            ports: vec![[!out, out]; PORTS].into(),
            strays: false,
            owners: None,
            which,
            rules: None,
            reasons: None,
            snap: 100,
            sample: 1,
        });
        let mirrors = (0..self.hands.len()).map(|worker| {
            let (ring, _) = rtrb::RingBuffer::new(1000);
            let counts: Arc<[PortCounts]> = (0..PORTS).map(|_| PortCounts::default()).collect();
            let mirror = Mirror::new(Arc::clone(&selection), ring, Arc::clone(&counts)).filtered(Arc::clone(&filter));
            self.tell(worker, Command::Mirror(Box::new(mirror)));
            counts
        });
        mirrors.collect()
    }

    /// Has all workers let go of a mirror.
    pub(crate) fn unmirror(&mut self, session: u32) {
        for worker in 0..self.hands.len() {
            self.tell(worker, Command::Unmirror(session));
        }
        self.publish();
    }

    /// What all workers have counted for a port.
    #[must_use]
    pub(crate) fn totals(&self, id: PortId) -> PortTotals {
        PortTotals::of(self.hands.iter().map(|hand| &*hand.counters), id)
    }

    /// What each worker counts.
    #[must_use]
    pub(crate) fn counters(&self) -> Vec<Arc<WorkerCounters>> {
        self.hands.iter().map(|hand| Arc::clone(&hand.counters)).collect()
    }

    /// Ends the workers, and returns everything that they counted, by port, and what the meters measured.
    pub(crate) fn stop(mut self) -> (Vec<PortTotals>, u64) {
        for worker in 0..self.hands.len() {
            self.tell(worker, Command::Stop);
        }
        let Self { lab, mut port, hands, .. } = self;
        let (threads, rest): (Vec<_>, Vec<_>) = hands.into_iter().map(|h| (h.thread, (h.counters, h.replies))).unzip();
        let measured = threads.into_iter().map(|thread| thread.join().expect("a worker ends well")).sum();
        let counters: Vec<_> = rest.into_iter().map(|(counters, _)| counters).collect();
        let ports = (0..PORTS).map(|id| u16::try_from(id).expect("few"));
        let totals = ports.map(|id| PortTotals::of(counters.iter().map(|c| &**c), id)).collect();
        // What is under way on the wire would be lost to the pool with its device.
        port.stop().expect("its queues are gone");
        let (mut rx, tx) = port.start().expect("it can be started again");
        let mut batch = Batch::new();
        while rx.iter_mut().any(|rx| rx.receive(&mut batch) > 0) {
            batch.free_all();
        }
        drop((rx, tx, port));
        lab.check_buffers();
        (totals, measured)
    }
}

/// Both sides of the equation: what came in or was made by copying, and what went out or was dropped.
#[must_use]
pub(crate) fn books(totals: &[PortTotals]) -> (u64, u64) {
    let (mut debit, mut credit) = (0, 0);
    for (id, totals) in (0..).zip(totals) {
        // TX and RX are named from the app's side; on the wire they are the NIC's own.
        let on_wire = id == WIRE;
        debit += totals.copies + if on_wire { totals.rx_packets } else { totals.tx_packets };
        credit += totals.dropped() + if on_wire { totals.tx_packets } else { totals.rx_packets };
    }
    (debit, credit)
}

/// What the mirrors of all workers have seen at each port.
#[must_use]
pub(crate) fn seen(counts: &[Arc<[PortCounts]>]) -> Vec<u64> {
    (0..PORTS).map(|port| counts.iter().map(|counts| counts[port].seen.get()).sum()).collect()
}

/// Frames that pass the filters of the mirrors of all workers.
#[must_use]
pub(crate) fn received(counts: &[Arc<[PortCounts]>]) -> u64 {
    counts.iter().flat_map(|counts| counts.iter()).map(|count| count.received.get()).sum()
}

/// An app's side of its port.
#[derive(Debug)]
pub(crate) struct App {
    /// Number of the port.
    pub(crate) id: PortId,
    tx: Vec<Producer>,
    rx: Vec<Consumer>,
    client: Region,
    /// Frames put into its rings, and taken out of them.
    pub(crate) pushed: u64,
    pub(crate) popped: u64,
}

impl App {
    /// The app's side of `region`, which has `queues` rings in a direction at most.
    #[must_use]
    pub(crate) fn open(region: &Region, id: PortId, queues: usize) -> Self {
        let fd = region.fd().try_clone_to_owned().expect("a descriptor");
        let client = Region::open(fd, region.geometry()).expect("what the daemon made can be opened");
        let tx = (0..queues).filter_map(|q| client.tx_producer(q)).collect();
        let rx = (0..queues).filter_map(|q| client.rx_consumer(q)).collect();
        Self { id, tx, rx, client, pushed: 0, popped: 0 }
    }

    /// The address of the app with this number.
    #[must_use]
    pub(crate) fn mac(id: PortId) -> Mac {
        let [high, low] = id.to_be_bytes();
        [2, 0, 0, 0, high, low]
    }

    /// Puts a frame into a ring, unpublished, if there is room.
    pub(crate) fn push(&mut self, queue: usize, frame: &[u8]) -> bool {
        let ring = &mut self.tx[queue];
        let slots = ring.slots_for(u32::try_from(frame.len()).expect("short"));
        let free = ring.free(slots).expect("kopid keeps to the contract");
        let pushed = free >= slots && ring.push(frame, Notes::NONE);
        self.pushed += u64::from(pushed);
        pushed
    }

    /// Hands all pushed frames to the workers.
    pub(crate) fn publish(&mut self) {
        self.tx.iter_mut().for_each(Producer::publish);
    }

    /// Takes up to `most` frames out of each ring.
    pub(crate) fn pop(&mut self, most: u64) {
        for ring in &mut self.rx {
            let mut taken = 0;
            while taken < most && ring.poll().expect("kopid keeps to the contract") > 0 {
                ring.next().expect("kopid keeps to the contract");
                taken += 1;
            }
            ring.release();
            self.popped += taken;
        }
    }

    /// Takes the frames of 60 bytes in each ring, and returns them by ring.
    pub(crate) fn take(&mut self) -> Vec<Vec<[u8; 60]>> {
        let drain = |ring: &mut Consumer| {
            let mut frames = Vec::new();
            while ring.poll().expect("kopid keeps to the contract") > 0 {
                let Some(frame) = ring.next().expect("kopid keeps to the contract") else { break };
                let mut bytes = [0; 60];
                assert_eq!(frame.len(), 60);
                ring.copy(&frame, &mut bytes);
                frames.push(bytes);
            }
            ring.release();
            frames
        };
        let rings: Vec<_> = self.rx.iter_mut().map(drain).collect();
        self.popped += rings.iter().map(|frames| frames.len() as u64).sum::<u64>();
        rings
    }

    /// Slots that the workers have not emptied. Frames of one slot each are as many.
    pub(crate) fn unsent(&mut self) -> u64 {
        let filled = |ring: &mut Producer| ring.size() - ring.free(u32::MAX).expect("kopid keeps to the contract");
        self.tx.iter_mut().map(filled).map(u64::from).sum()
    }

    /// Writes over the descriptor of slot `slot` of the first TX ring, as a hostile app could.
    pub(crate) fn damage(&self, slot: usize) {
        let file = std::fs::File::from(self.client.fd().try_clone_to_owned().expect("a descriptor"));
        let layout = self.client.geometry().layout();
        let offset = layout.tx[0].descriptors() + slot * size_of::<u64>();
        std::os::unix::fs::FileExt::write_all_at(&file, &[0; 8], offset as u64).expect("a region can be written");
    }
}
