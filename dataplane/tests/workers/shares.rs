//! Users share a worker's time, whatever they send and however many apps they have.
//!
//! One worker takes its turns on this thread, and between them the rings are filled. What counts is the time of the turns on
//! the CPU: so it does not matter what else this machine does.

use crate::lab::{App, Lab, MTU};
use dpdk::{Port, PortConfig, RxQueue, TxQueue};
use kopi_config::policy::Tracking;
use kopi_dataplane::fib::{Fib, FibPort};
use kopi_dataplane::ids::{PortId, WIRE};
use kopi_dataplane::policy_counters::PolicyCounters;
use kopi_dataplane::snapshot::Snapshot;
use kopi_dataplane::stages::policy::PolicyStage;
use kopi_dataplane::worker::command::{Change, Command, QUEUE};
use kopi_dataplane::worker::counters::WorkerCounters;
use kopi_dataplane::worker::flow_table::FlowTable;
use kopi_dataplane::worker::handoff::Mesh;
use kopi_dataplane::worker::port::{User, WorkerPort};
use kopi_dataplane::worker::wake_requests::WakeRequests;
use kopi_dataplane::worker::wire::Wire;
use kopi_dataplane::worker::{Parts, Worker};
use kopi_packet::{LinkProtocols, Seed};
use kopi_policy::Connections;
use kopi_ring::message::Settings;
use kopi_ring::{Geometry, HugePages, Region};
use rustix::time::{ClockId, clock_gettime};
use std::sync::Arc;
use std::time::Duration;

const PORTS: usize = 70;
/// How long is counted, on the CPU.
const WINDOW: Duration = Duration::from_millis(60);
/// How often a pair of measurements is made. The best one counts: whatever else there is, only takes.
const PAIRS: usize = 5;
/// The app that is honest, and its user. The others are of another.
pub(crate) const HONEST: PortId = 1;

/// What an app does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Silent,
    /// Frames of so many bytes.
    Flood(usize),
    /// Frames of 60 bytes, each of a flow of its own.
    Fresh,
    /// Frames of so many bytes for everybody.
    Broadcast(usize),
}

pub(crate) struct Sender {
    app: App,
    kind: Kind,
    frame: Vec<u8>,
    made: u32,
    pub(crate) on: bool,
}

/// A worker that takes its turns when it is told to.
pub(crate) struct Rig {
    pub(crate) worker: Worker,
    commands: rtrb::Producer<Command>,
    counters: Arc<WorkerCounters>,
    pub(crate) senders: Vec<Sender>,
    members: Vec<FibPort>,
    _replies: rtrb::Consumer<kopi_dataplane::worker::command::Reply>,
    _port: Port,
}

impl Rig {
    fn new(lab: &Lab, device: &str) -> Self {
        Self::by(lab, device, (dpdk::tsc, lab.hz()), Wire::new)
    }

    /// By a clock, with its ticks in a second, on the wire that `wire` makes of the device's queues.
    pub(crate) fn by(
        lab: &Lab,
        device: &str,
        (clock, hz): (fn() -> u64, u64),
        wire: impl FnOnce(Option<RxQueue>, Option<TxQueue>) -> Wire,
    ) -> Self {
        let (mut port, pool) = lab.device(device);
        port.configure(&PortConfig { one_pool: true, ..PortConfig::default() }, std::slice::from_ref(pool))
            .expect("a null device can be configured");
        let (rx, tx) = port.start().expect("a null device can be started");
        let (commands, orders) = rtrb::RingBuffer::new(QUEUE);
        let (answers, replies) = rtrb::RingBuffer::new(QUEUE + PORTS);
        let counters = Arc::new(WorkerCounters::new(PORTS));
        let (noted, _) = rtrb::RingBuffer::new(1);
        let (samples, _) = rtrb::RingBuffer::new(1);
        let connections = Arc::new(Connections::new(1024, Seed::from_bytes([8; 64]), &Tracking::default(), hz));
        let policy_stage =
            PolicyStage::new(connections, Arc::new(PolicyCounters::new(0)), Seed::from_bytes([9; 64]), hz, noted);
        let worker = Worker::new(Parts {
            index: 0,
            wire: wire(rx.into_iter().next(), tx.into_iter().next()),
            sender: 0,
            pool: pool.clone(),
            flows: FlowTable::new(65_536, PORTS, Seed::from_bytes([7; 64])),
            policy_stage,
            mesh: Mesh::among(1, PORTS).remove(0),
            counters: Arc::clone(&counters),
            commands: orders,
            replies: answers,
            samples,
            snapshot: Arc::new(Snapshot::new(1, Fib::new(true, MTU, &[]))),
            max_ports: PORTS,
            clock,
            tsc_hz: hz,
            sleep_state: None,
            requests: WakeRequests::default(),
        });
        Self { worker, commands, counters, senders: Vec::new(), members: Vec::new(), _replies: replies, _port: port }
    }

    /// Attaches an app with `queues` rings of 64 slots for each of its `kind`.
    pub(crate) fn attach(&mut self, id: PortId, kind: Kind, queues: usize, reads: bool) {
        let slots = if kind == Kind::Silent { 64 } else { 512 };
        let geometry = Geometry::new(&vec![slots; queues], &[64], 2048).expect("a geometry");
        let region = Region::create(&geometry, HugePages::Off).expect("there is memory for a region");
        let user = User::Id(if id == HONEST { 1000 } else { 1001 });
        let port = WorkerPort::new(&region, id, u32::from(id), 0, 1).of_user(user);
        assert!(self.commands.push(Command::Attach(Box::new(port))).is_ok(), "the worker takes orders");
        let settings = Settings { mtu: 9000, macs: vec![App::mac(id)], all_multicast: reads, promiscuous: false };
        self.members.push(FibPort { id, settings, link: LinkProtocols::NONE });
        let len = match kind {
            Kind::Flood(len) | Kind::Broadcast(len) => len,
            Kind::Fresh | Kind::Silent => 60,
        };
        let mut frame = vec![0; len];
        let to = if matches!(kind, Kind::Broadcast(_)) { [0xff; 6] } else { [2, 0, 0, 0, 0xff, 0xff] };
        frame[..6].copy_from_slice(&to);
        frame[6..12].copy_from_slice(&App::mac(id));
        frame[12..16].copy_from_slice(&[8, 0, 0x45, 0]);
        frame[16..18].copy_from_slice(&u16::try_from(len - 14).expect("short").to_be_bytes());
        frame[22..24].copy_from_slice(&[64, 17]);
        frame[38..40].copy_from_slice(&u16::try_from(len - 34).expect("short").to_be_bytes());
        let app = App::open(&region, id, queues);
        self.senders.push(Sender { app, kind, frame, made: 0, on: id == HONEST });
    }

    pub(crate) fn publish(&mut self) {
        let snapshot = Arc::new(Snapshot::new(2, Fib::new(true, 9000, &self.members)));
        let policy_counters = Arc::new(PolicyCounters::new(0));
        let change = Change { snapshot, policy_counters, selections: Vec::new(), shaper: None };
        assert!(self.commands.push(Command::Forward(change)).is_ok(), "the worker takes orders");
        self.worker.poll_once(dpdk::tsc());
    }

    /// Has the worker take turns, with all rings of whoever is on full at each. Returns the frames of `port` for each
    /// nanosecond of its time.
    fn rate(&mut self, port: PortId) -> f64 {
        let count = |rig: &Self| {
            let counters = &rig.counters.ports[usize::from(port)];
            if port == WIRE { counters.rx_packets.get() } else { counters.tx_packets.get() }
        };
        let (mut used, mut before) = (Duration::ZERO, 0);
        for warm in [true, false] {
            (used, before) = (Duration::ZERO, count(self));
            while used < if warm { WINDOW / 4 } else { WINDOW } {
                self.senders.iter_mut().for_each(Sender::fill);
                let begun = cpu_time();
                for _ in 0..4 {
                    self.worker.poll_once(dpdk::tsc());
                }
                used += cpu_time() - begun;
            }
        }
        #[expect(clippy::cast_precision_loss, reason = "counts of a test are small")]
        let rate = (count(self) - before) as f64 / used.as_nanos() as f64;
        rate
    }

    /// Checks that `port` gets `part` of what it gets alone when the others send, too.
    fn keeps(&mut self, what: &str, port: PortId, part: f64) {
        self.publish();
        let mut seen = Vec::new();
        for _ in 0..PAIRS {
            self.senders.iter_mut().for_each(|sender| sender.on = sender.app.id == port);
            let alone = self.rate(port);
            self.senders.iter_mut().for_each(|sender| sender.on = true);
            let beside = self.rate(port);
            seen.push(beside / alone);
            if beside >= part * alone {
                return;
            }
        }
        panic!("beside {what}, less than {part} of what is had alone: {seen:.3?}");
    }
}

impl Rig {
    /// How long a frame of the honest app waits until it is taken, while all others send, in ninety-nine cases of a hundred.
    fn wait(&mut self) -> Duration {
        self.publish();
        self.senders.iter_mut().for_each(|sender| sender.on = sender.app.id != HONEST);
        let mut waits: Vec<_> = (0..400).map(|_| self.wait_once()).collect();
        waits.sort_unstable();
        waits[waits.len() - 1 - waits.len() / 100]
    }

    fn wait_once(&mut self) -> Duration {
        // It comes at any time.
        self.senders.iter_mut().for_each(Sender::fill);
        self.worker.poll_once(dpdk::tsc());
        let honest = &mut self.senders[0];
        assert!(honest.app.id == HONEST && honest.app.push(0, &honest.frame), "its ring is empty");
        honest.app.publish();
        let mut wait = Duration::ZERO;
        while self.senders[0].app.unsent() > 0 {
            self.senders.iter_mut().for_each(Sender::fill);
            let begun = cpu_time();
            self.worker.poll_once(dpdk::tsc());
            wait += cpu_time() - begun;
        }
        wait
    }
}

impl Sender {
    pub(crate) fn fill(&mut self) {
        if self.on && self.kind != Kind::Silent {
            loop {
                if self.kind == Kind::Fresh {
                    self.made = self.made.wrapping_add(1);
                    self.frame[26..30].copy_from_slice(&(self.made | 0x0a00_0000).to_be_bytes());
                }
                if !self.app.push(0, &self.frame) {
                    break;
                }
            }
            self.app.publish();
        }
        self.app.pop(u64::MAX);
    }
}

/// What this thread has had of a CPU.
fn cpu_time() -> Duration {
    clock_gettime(ClockId::ThreadCPUTime).try_into().expect("time passes")
}

/// Runs all checks.
pub(crate) fn check(lab: &Lab) {
    // Two users who both want all of a worker: each gets half of its time, with a fifth off for what the other leaves of the caches, in
    // which who is alone finds everything. The fewer instructions a frame takes, the more that is.
    const HALF: f64 = 0.4;
    let quiet = |number: &str| format!("net_null{number},no-rx=1");

    // Rings in which nothing is cost next to nothing.
    let mut rig = Rig::new(lab, &quiet("20"));
    rig.attach(HONEST, Kind::Flood(60), 1, false);
    (2..64).for_each(|id| rig.attach(id, Kind::Silent, 16, false));
    rig.keeps("992 rings without frames", HONEST, 0.9);
    drop(rig);

    // Frames that cost more are the loss of who sends them, and so are more apps.
    let costly = [
        ("frames of new flows", 1, Kind::Fresh, HALF),
        ("frames of 1,514 bytes", 1, Kind::Flood(1514), HALF),
        ("broadcasts", 1, Kind::Broadcast(60), HALF),
        // They leave nothing in the caches, so in its half of the time the honest app gets less done.
        ("broadcasts of 9,000 bytes", 1, Kind::Broadcast(9000), 0.36),
        ("eight apps", 8, Kind::Flood(60), HALF),
    ];
    for (at, (what, apps, kind, part)) in costly.into_iter().enumerate() {
        let mut rig = Rig::new(lab, &quiet(&format!("{}", 21 + at)));
        rig.attach(HONEST, Kind::Flood(60), 1, false);
        (2..2 + apps).for_each(|id| rig.attach(id, kind, 1, false));
        if matches!(kind, Kind::Broadcast(_)) {
            (20..60).for_each(|id| rig.attach(id, Kind::Silent, 1, true));
        }
        rig.keeps(what, HONEST, part);
    }

    // Beside all of that at once, from one user, a frame of somebody else's does not wait for long.
    let mut rig = Rig::new(lab, &quiet("30"));
    rig.attach(HONEST, Kind::Flood(60), 1, false);
    let kinds = [Kind::Fresh, Kind::Flood(1514), Kind::Broadcast(60), Kind::Broadcast(9000), Kind::Flood(60)];
    (2..20).zip(kinds.into_iter().cycle()).for_each(|(id, kind)| rig.attach(id, kind, 1, false));
    (20..60).for_each(|id| rig.attach(id, Kind::Silent, 16, true));
    let best = (0..PAIRS).map(|_| rig.wait()).min().unwrap_or_default();
    assert!(best < Duration::from_millis(1), "a frame waits for {best:?} beside 58 apps of another user");
    drop(rig);

    // What the wire brings is served as much as all apps together.
    let mut rig = Rig::new(lab, "net_null40,size=60");
    (2..42).for_each(|id| rig.attach(id, Kind::Flood(60), 1, false));
    rig.keeps("forty apps", WIRE, HALF);
}
