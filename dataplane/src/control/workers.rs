//! The workers, as the control thread sees them.

use crate::control::app_waker::{AppWaker, Reach};
use crate::control::copy_trial::CopyTrial;
use crate::control::hole_search::faults_of;
use crate::ids::{Generation, PortId};
use crate::policy_counters::PolicyCounters;
use crate::snapshot::Snapshot;
use crate::stages::mirror::{Mirror, Selection};
use crate::stages::policy::{EVENTS, Event, PolicyStage};
use crate::worker::command::{Change, Command, QUEUE, Reply};
use crate::worker::counters::{PortTotals, WorkerCounters};
use crate::worker::crowding::Crowding;
use crate::worker::flow_dump::FlowDump;
use crate::worker::flow_table::{Advise, FlowTable};
use crate::worker::handoff::Mesh;
use crate::worker::load::{Load, LongestTurn};
use crate::worker::port::{Caller, User, WorkerPort};
use crate::worker::sched_tree::{SAMPLES, Sample, Shaper};
use crate::worker::sleep::{SleepState, WireIrq, WorkerHandle};
use crate::worker::wire::Wire;
use crate::worker::{Parts, Worker};
use dpdk::{Handle, Pool, RxQueue, TxQueue};
use kopi_packet::Seed;
use kopi_policy::{Connections, Followed};
use kopi_ring::need_wakeup::barrier;
use kopi_ring::{Doorbell, Region, Window};
use rustix::io::Errno;
use rustix::thread::Pid;
use std::collections::VecDeque;
use std::sync::Arc;
use std::thread::JoinHandle;
use thiserror::Error;

/// What the dataplane is to be.
#[derive(Debug)]
pub struct Setup {
    /// Kernel CPU numbers, one worker each.
    pub cores: Vec<u16>,
    /// Flow-table entries of each worker.
    pub flows: usize,
    /// What is told of the memory of large tables.
    pub advise: Advise,
    /// Apps at most.
    pub apps: usize,
    /// Where packet buffers come from.
    pub pool: Pool,
    /// The wire's RX queues, for as many workers.
    pub rx: Vec<RxQueue>,
    /// The wire's TX queues, for as many workers.
    pub tx: Vec<TxQueue>,
    /// The first snapshot of the ports.
    pub snapshot: Arc<Snapshot>,
    /// The connections that all workers track.
    pub connections: Arc<Connections>,
    /// Whether workers sleep when there is nothing to do; if so, what wakes each for frames in its RX queue of the wire.
    pub sleep: Option<Vec<Option<WireIrq>>>,
    /// Whether checksums of the wire's frames are finished that were left to a NIC.
    pub finish: bool,
    /// How frames are copied into rings.
    pub copies: CopyTrial,
}

/// Why the dataplane did not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// A thread could not be made.
    #[error("cannot start a worker: {0}")]
    Thread(#[from] std::io::Error),
    /// A worker could not make itself ready.
    #[error("worker on CPU {cpu}: {problem}")]
    Worker {
        /// The CPU it was to run on.
        cpu: u16,
        /// What it said.
        problem: String,
    },
    /// A worker could not be given what it needs to sleep.
    #[error("a worker cannot sleep: {0}; idle = \"poll\" needs less")]
    Sleep(#[source] Errno),
    /// The kernel gave no random bytes for the flow tables' seed.
    #[error("no random bytes: {0}")]
    Random(#[from] Errno),
}

/// The running workers. They end with it.
#[derive(Debug)]
pub struct Dataplane {
    workers: Vec<WorkerThread>,
    /// Entries of each worker's flow table.
    flows: usize,
    /// Whether each has an RX queue of the wire, over which the device spreads flows.
    spread: bool,
    /// How frames are copied into rings.
    copies: CopyTrial,
    /// Behind the workers, which use it.
    waker: AppWaker,
}

/// One worker's handle.
#[derive(Debug)]
struct WorkerThread {
    cpu: u16,
    thread: JoinHandle<()>,
    /// The kernel's number of it.
    number: Pid,
    commands: rtrb::Producer<Command>,
    replies: rtrb::Consumer<Reply>,
    /// Replies that were taken out of the queue and not looked at yet.
    received: VecDeque<Reply>,
    /// Snapshots of the ports that it has given back.
    retired: u64,
    /// Snapshots that it was given and has not given back, with the policy counters that go with them; oldest first.
    open: VecDeque<(Arc<Snapshot>, Arc<PolicyCounters>)>,
    events: rtrb::Consumer<Event>,
    samples: rtrb::Consumer<Sample>,
    counters: Arc<WorkerCounters>,
    /// Packets in fragments that it follows.
    followed: Arc<Followed>,
    /// How it is woken, if it sleeps.
    handle: Option<WorkerHandle>,
    /// How it spends its time.
    load: Load,
    longest: LongestTurn,
    /// Whether its flow table is too small.
    crowding: Crowding,
}

impl Dataplane {
    /// Starts one worker for each core and waits until all of them are ready.
    ///
    /// # Errors
    ///
    /// [`StartError`] names the CPU and what was wrong.
    pub fn start(eal: &Handle, setup: Setup) -> Result<Self, StartError> {
        let Setup { cores, flows, advise, apps, pool, rx, tx, snapshot, connections, sleep, finish, copies } = setup;
        let (senders, spread) = (tx.len().max(1), rx.len() == cores.len());
        let mut sleep_states = sleep_states(cores.len(), eal.tsc_hz(), sleep)?;
        let wakers: Vec<_> =
            sleep_states.as_slice().iter().flatten().map(|sleep| Arc::clone(&sleep.handle().waker)).collect();
        let (mut rx, mut tx) = (rx.into_iter(), tx.into_iter());
        let (waker, requests) = AppWaker::start(cores.len(), apps + 1, eal.tsc_hz())?;
        // Should one not start, the others end with this.
        let mut dataplane = Self { workers: Vec::new(), flows, spread, copies, waker };
        let parts = cores.iter().copied().zip(Mesh::among(cores.len(), apps + 1)).zip(requests);
        for (index, ((cpu, mut mesh), requests)) in parts.enumerate() {
            let sleep_state = sleep_states.next().flatten();
            let handle = sleep_state.as_ref().map(|sleep| sleep.handle().clone());
            mesh.wakers.clone_from(&wakers);
            let (commands, orders) = rtrb::RingBuffer::new(QUEUE);
            // A reply for each command that waits, and a fault of each port.
            let (answers, replies) = rtrb::RingBuffer::new(QUEUE + apps + 1);
            let counters = Arc::new(WorkerCounters::new(apps + 1));
            let (noted, events) = rtrb::RingBuffer::new(EVENTS);
            let (sampled, samples) = rtrb::RingBuffer::new(SAMPLES);
            let policy_counters = Arc::new(PolicyCounters::new(0));
            let policy_stage = PolicyStage::new(
                Arc::clone(&connections),
                Arc::clone(&policy_counters),
                random_seed()?,
                eal.tsc_hz(),
                noted,
            );
            let followed = Arc::clone(policy_stage.followed());
            let parts = Parts {
                index,
                wire: Wire::new(rx.next(), tx.next()).finishing(finish.then(|| Arc::clone(&counters))),
                sender: index % senders,
                pool: pool.clone(),
                flows: FlowTable::advised(flows, apps + 1, random_seed()?, advise),
                policy_stage,
                mesh,
                counters: Arc::clone(&counters),
                commands: orders,
                replies: answers,
                samples: sampled,
                snapshot: Arc::clone(&snapshot),
                max_ports: apps + 1,
                clock: dpdk::tsc,
                tsc_hz: eal.tsc_hz(),
                sleep_state,
                requests,
            };
            let (thread, number) = spawn(eal.clone(), cpu, index, parts)?;
            dataplane.workers.push(WorkerThread {
                cpu,
                thread,
                number,
                commands,
                replies,
                received: VecDeque::new(),
                retired: 0,
                open: VecDeque::from([(Arc::clone(&snapshot), policy_counters)]),
                events,
                samples,
                counters,
                followed,
                handle,
                load: Load::default(),
                longest: LongestTurn::default(),
                crowding: Crowding::default(),
            });
        }
        Ok(dataplane)
    }

    /// How many workers there are.
    #[must_use]
    pub fn workers(&self) -> usize {
        self.workers.len()
    }

    /// Page faults of all workers so far.
    #[must_use]
    pub fn page_faults(&self) -> u64 {
        self.workers.iter().map(|worker| faults_of(worker.number)).sum()
    }

    /// RX rings that a queue of an app's may have, one for each worker; 1 if the wire does not bring frames to all of them.
    #[must_use]
    pub fn lanes(&self) -> u16 {
        if self.spread { u16::try_from(self.workers.len()).unwrap_or(1) } else { 1 }
    }

    /// Each worker's CPU and counters.
    pub fn counters(&self) -> impl Iterator<Item = (u16, &WorkerCounters)> {
        self.workers.iter().map(|worker| (worker.cpu, &*worker.counters))
    }

    /// How frames are copied into rings.
    #[must_use]
    pub const fn copies(&self) -> &CopyTrial {
        &self.copies
    }

    /// Frames of the wire whose checksum was left to a NIC, and was finished here.
    #[must_use]
    pub fn finished(&self) -> u64 {
        self.counters().map(|(_, counters)| counters.checksums_finished.get()).sum()
    }

    /// Looks how the workers spend their time, and whether their flow tables are too small, if it is time to; `now` is the TSC, of
    /// `hz` ticks a second.
    pub fn look(&mut self, now: u64, hz: u64) {
        let places = self.flow_capacity();
        for WorkerThread { cpu, load, longest, crowding, counters, .. } in &mut self.workers {
            load.look(counters, now, hz);
            longest.look(counters.longest_iteration.take(), now, hz);
            if let Some(evicted) = crowding.look(counters.flow_evictions.get(), places, now, hz) {
                log::warn!(
                    "the flow table of the worker on CPU {cpu} is too small: {evicted} flows had to make room for others within ten \
                     seconds, and are evaluated anew when they go on; it has {places} entries, `flows` in [dataplane] makes it larger"
                );
            }
        }
    }

    /// Entries of each worker's flow table.
    #[must_use]
    pub const fn flow_capacity(&self) -> u64 {
        self.flows as u64
    }

    /// Whether each worker's flow table was too small a moment ago.
    pub fn crowded(&self) -> impl Iterator<Item = bool> {
        self.workers.iter().map(|worker| worker.crowding.crowded)
    }

    /// How each worker spends its time.
    pub fn loads(&self) -> impl Iterator<Item = &Load> {
        self.workers.iter().map(|worker| &worker.load)
    }

    /// Cycles of each worker's longest iteration since somebody was last told, which is now.
    pub fn tell_longest(&self) -> impl Iterator<Item = u64> {
        self.workers.iter().map(|worker| worker.longest.tell(worker.counters.longest_iteration.take()))
    }

    /// Cycles of each worker's longest iteration of the last half minute to minute.
    pub fn longest_of_late(&self) -> impl Iterator<Item = u64> {
        self.workers.iter().map(|worker| worker.longest.of_late())
    }

    /// What all workers counted for a port since the start.
    #[must_use]
    pub fn totals(&self, id: PortId) -> PortTotals {
        PortTotals::of(self.counters().map(|(_, counters)| counters), id)
    }

    /// Packets in fragments that all workers follow on a port's account.
    #[must_use]
    pub fn fragments(&self, id: PortId) -> u64 {
        self.workers.iter().map(|worker| u64::from(worker.followed.in_zone(id))).sum()
    }

    /// Whether workers sleep at times.
    #[must_use]
    pub fn sleeps(&self) -> bool {
        self.workers.iter().any(|worker| worker.handle.is_some())
    }

    /// Has all workers wake up when somebody rings at the other end of `doorbell`, for port `id`, until it is closed.
    ///
    /// # Errors
    ///
    /// The kernel's, when memory is short.
    pub fn listen(&self, id: PortId, doorbell: &Doorbell) -> Result<(), Errno> {
        self.workers.iter().filter_map(|worker| worker.handle.as_ref()).try_for_each(|b| b.listen(id, doorbell))
    }

    /// Has all workers serve the rings of a region as port `id`, on the time of `user`, whose app is reached by `reach` and
    /// `chooses` how frames are spread over its queues, or is too old for that. Frames in the rings may refer to what is shared in the
    /// window.
    pub fn attach(
        &mut self,
        (region, window): (&Region, Option<&Arc<Window>>),
        (id, generation): (PortId, Generation),
        user: User,
        reach: Reach,
        chooses: bool,
    ) {
        let caller = reach.futex.is_some().then_some(Caller::App);
        self.waker.set(id, Some(reach));
        self.serve((region, window), (id, generation, user), (caller.as_ref(), None), chooses);
    }

    /// The same for the host's port, whose thread is woken by `call`, and rings `doorbell`.
    pub fn attach_host(
        &mut self,
        region: &Region,
        (id, generation): (PortId, Generation),
        call: Arc<Doorbell>,
        doorbell: Option<&Arc<Doorbell>>,
    ) {
        self.serve((region, None), (id, generation, User::Host), (Some(&Caller::Host(call)), doorbell), false);
    }

    fn serve(
        &mut self,
        (region, window): (&Region, Option<&Arc<Window>>),
        (id, generation, user): (PortId, Generation, User),
        (caller, doorbell): (Option<&Caller>, Option<&Arc<Doorbell>>),
        chooses: bool,
    ) {
        let workers = self.workers.len();
        for (index, worker) in self.workers.iter_mut().enumerate() {
            let port = WorkerPort::new(region, id, generation, index, workers);
            let port = if self.spread && !chooses { port.keeping(index, workers) } else { port };
            let port = port.of_user(user).sharing(window).waking(caller.cloned(), doorbell.cloned());
            worker.send(Command::Attach(Box::new(port)));
        }
    }

    /// Has all workers let go of port `id`. Each will answer.
    pub fn detach(&mut self, id: PortId) {
        self.waker.set(id, None);
        self.workers.iter_mut().for_each(|worker| worker.send(Command::Detach(id)));
    }

    /// Ports there can be, the wire included.
    #[must_use]
    pub fn ports(&self) -> usize {
        self.workers.first().map_or(0, |worker| worker.counters.ports.len())
    }

    /// Gives each worker one of `mirrors`.
    pub fn mirror(&mut self, mirrors: Vec<Box<Mirror>>) {
        self.workers.iter_mut().zip(mirrors).for_each(|(worker, mirror)| worker.send(Command::Mirror(mirror)));
    }

    /// Has all workers show capture sessions what `selections` say.
    pub fn select(&mut self, selections: &[Arc<Selection>]) {
        if !selections.is_empty() {
            self.workers.iter_mut().for_each(|worker| worker.send(Command::Select(selections.to_vec())));
        }
    }

    /// Has all workers let go of a capture session.
    pub fn unmirror(&mut self, session: u32) {
        self.workers.iter_mut().for_each(|worker| worker.send(Command::Unmirror(session)));
    }

    /// Has all workers use `snapshot`, show capture sessions what `selections` say of it, and keep to
    /// `shapers`, one for each, if there are any.
    pub fn forward(
        &mut self,
        snapshot: &Arc<Snapshot>,
        selections: &[Arc<Selection>],
        shapers: Option<Vec<Option<Box<Shaper>>>>,
    ) {
        let mut shapers = shapers.map(Vec::into_iter);
        let rules = snapshot.policies().map_or(0, |filter| filter.ruleset().rules().len());
        for worker in &mut self.workers {
            let policy_counters = Arc::new(PolicyCounters::new(rules));
            worker.open.push_back((Arc::clone(snapshot), Arc::clone(&policy_counters)));
            let shaper = shapers.as_mut().and_then(Iterator::next);
            let (snapshot, selections) = (Arc::clone(snapshot), selections.to_vec());
            worker.send(Command::Forward(Change { snapshot, policy_counters, selections, shaper }));
        }
    }

    /// The policy counters in use, with the snapshots that they belong to.
    pub fn policy_counters(&self) -> impl Iterator<Item = &(Arc<Snapshot>, Arc<PolicyCounters>)> {
        self.workers.iter().flat_map(|worker| worker.open.iter())
    }

    /// What the policy wants in the log.
    pub fn event(&mut self) -> Option<Event> {
        self.workers.iter_mut().find_map(|worker| worker.events.pop().ok())
    }

    /// The time that a packet has waited in its class.
    pub fn sample(&mut self) -> Option<Sample> {
        self.workers.iter_mut().find_map(|worker| worker.samples.pop().ok())
    }

    /// Has worker `worker` dump some of its flows, which comes as an [answer](Self::reply).
    pub fn dump(&mut self, worker: usize, dump: Box<FlowDump>) {
        if let Some(worker) = self.workers.get_mut(worker) {
            worker.send(Command::Dump(dump));
        }
    }

    /// The next answer of any worker. Dropping it frees what it carries.
    pub fn reply(&mut self) -> Option<Reply> {
        self.workers.iter_mut().find_map(WorkerThread::reply)
    }

    /// Snapshots of the ports that every worker has given back: it uses a later one than these.
    #[must_use]
    pub fn retired(&self) -> u64 {
        self.workers.iter().map(|worker| worker.retired).min().unwrap_or(u64::MAX)
    }

    /// Whether every worker's thread, and the one that wakes apps, still runs.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.waker.is_alive() && self.workers.iter().all(|worker| !worker.thread.is_finished())
    }
}

impl Drop for Dataplane {
    /// Ends all workers and waits for them. All are told first, because they end together.
    fn drop(&mut self) {
        self.workers.iter_mut().for_each(|worker| worker.send(Command::Stop));
        for worker in self.workers.drain(..) {
            if worker.thread.join().is_err() {
                log::error!("the worker on CPU {} had panicked", worker.cpu);
            }
        }
    }
}

impl WorkerThread {
    /// Tells the worker, waiting while its queue is full: a worker looks at it thousands of times a second.
    ///
    /// What it has answered is taken in before. So the queue of replies, which is longer than that of commands, never
    /// fills up, however many commands are given before anybody looks at the replies.
    fn send(&mut self, command: Command) {
        while let Ok(reply) = self.replies.pop() {
            self.received.push_back(reply);
        }
        let mut command = command;
        while let Err(rtrb::PushError::Full(back)) = self.commands.push(command) {
            command = back;
            if self.thread.is_finished() {
                return;
            }
            std::thread::yield_now();
        }
        if let Some(handle) = &self.handle {
            barrier();
            handle.waker.call();
        }
    }

    fn reply(&mut self) -> Option<Reply> {
        let reply = self.received.pop_front().or_else(|| self.replies.pop().ok())?;
        if let Reply::Retired(..) = reply {
            self.retired += 1;
            self.open.pop_front();
        }
        Some(reply)
    }
}

/// How each of `workers` sleeps, if they do.
fn sleep_states(
    workers: usize,
    hz: u64,
    sleep: Option<Vec<Option<WireIrq>>>,
) -> Result<std::vec::IntoIter<Option<SleepState>>, StartError> {
    let Some(wire) = sleep else { return Ok((0..workers).map(|_| None).collect::<Vec<_>>().into_iter()) };
    let mut wire = wire.into_iter();
    let sleep_states = (0..workers).map(|_| SleepState::new(hz, wire.next()).map(Some).map_err(StartError::Sleep));
    sleep_states.collect::<Result<Vec<_>, _>>().map(Vec::into_iter)
}

/// A secret that nobody outside can guess.
///
/// # Errors
///
/// The kernel's, if it has no random bytes.
pub fn random_seed() -> Result<Seed, Errno> {
    let mut bytes = [0; 64];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    Ok(Seed::from_bytes(bytes))
}

/// Starts a worker's thread, waits until it has pinned and registered itself, and returns it with the kernel's number of it.
fn spawn(eal: Handle, cpu: u16, index: usize, parts: Parts) -> Result<(JoinHandle<()>, Pid), StartError> {
    let (ready, is_ready) = std::sync::mpsc::channel();
    let thread = std::thread::Builder::new().name(format!("kopi-worker-{index}")).spawn(move || {
        let pinned = core_affinity::set_for_current(core_affinity::CoreId { id: cpu.into() });
        let registered = eal.register_thread();
        let outcome = match (&registered, pinned) {
            (_, false) => Err("the kernel does not let it run there".to_owned()),
            (Err(error), _) => Err(error.to_string()),
            (Ok(_), true) => Ok(rustix::thread::gettid()),
        };
        let failed = outcome.is_err();
        if ready.send(outcome).is_err() || failed {
            return;
        }
        // The guard and the handle must outlive the worker, which holds packet buffers.
        let mut worker = Worker::new(parts);
        worker.run();
        drop(worker);
        drop(registered);
    })?;
    match is_ready.recv() {
        Ok(Ok(number)) => Ok((thread, number)),
        Ok(Err(problem)) => Err(StartError::Worker { cpu, problem }),
        Err(_) => Err(StartError::Worker { cpu, problem: "it ended at once".into() }),
    }
}
