//! The workers, as the control thread sees them.

use crate::command::{Command, QUEUE, Reply};
use crate::counters::{PortTotals, WorkerCounters};
use crate::flow::FlowTable;
use crate::forwarding::{Forwarding, Generation, PortId};
use crate::handoff::Mesh;
use crate::port::WorkerPort;
use crate::wire::Wire;
use crate::worker::{Parts, Worker};
use dpdk::{Handle, Pool, RxQueue, TxQueue};
use kopi_packet::Seed;
use kopi_ring::Region;
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
    /// Apps at most.
    pub apps: usize,
    /// Where packet buffers come from.
    pub pool: Pool,
    /// The wire's RX queues, for as many workers.
    pub rx: Vec<RxQueue>,
    /// The wire's TX queues, for as many workers.
    pub tx: Vec<TxQueue>,
    /// The first picture of the ports.
    pub forwarding: Arc<Forwarding>,
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
    /// The kernel gave no random bytes for the flow tables' seed.
    #[error("no random bytes: {0}")]
    Random(#[from] rustix::io::Errno),
}

/// The running workers. They end with it.
#[derive(Debug)]
pub struct Dataplane {
    workers: Vec<Helm>,
}

/// One worker's handle.
#[derive(Debug)]
struct Helm {
    cpu: u16,
    thread: JoinHandle<()>,
    commands: rtrb::Producer<Command>,
    replies: rtrb::Consumer<Reply>,
    /// Replies that were taken out of the queue and not looked at yet.
    heard: VecDeque<Reply>,
    /// Pictures of the ports that it has given back.
    retired: u64,
    counters: Arc<WorkerCounters>,
}

impl Dataplane {
    /// Starts one worker for each core and waits until all of them are ready.
    ///
    /// # Errors
    ///
    /// [`StartError`] names the CPU and what was wrong.
    pub fn start(eal: &Handle, setup: Setup) -> Result<Self, StartError> {
        let Setup { cores, flows, apps, pool, rx, tx, forwarding } = setup;
        let senders = tx.len().max(1);
        let (mut rx, mut tx) = (rx.into_iter(), tx.into_iter());
        // Should one not start, the others end with this.
        let mut dataplane = Self { workers: Vec::new() };
        for (index, (cpu, mesh)) in cores.iter().copied().zip(Mesh::among(cores.len())).enumerate() {
            let (commands, orders) = rtrb::RingBuffer::new(QUEUE);
            // A reply for each command that waits, and a fault of each port.
            let (answers, replies) = rtrb::RingBuffer::new(QUEUE + apps + 1);
            let counters = Arc::new(WorkerCounters::new(apps + 1));
            let mut seed = [0; 64];
            rustix::rand::getrandom(&mut seed, rustix::rand::GetRandomFlags::empty())?;
            let parts = Parts {
                index,
                wire: Wire::new(rx.next(), tx.next()),
                sender: index % senders,
                pool: pool.clone(),
                flows: FlowTable::new(flows, Seed::from_bytes(seed)),
                mesh,
                counters: Arc::clone(&counters),
                commands: orders,
                replies: answers,
                forwarding: Arc::clone(&forwarding),
                max_ports: apps + 1,
                tsc_hz: eal.tsc_hz(),
            };
            let thread = spawn(eal.clone(), cpu, index, parts)?;
            dataplane.workers.push(Helm {
                cpu,
                thread,
                commands,
                replies,
                heard: VecDeque::new(),
                retired: 0,
                counters,
            });
        }
        Ok(dataplane)
    }

    /// How many workers there are.
    #[must_use]
    pub fn workers(&self) -> usize {
        self.workers.len()
    }

    /// Each worker's CPU and counters.
    pub fn counters(&self) -> impl Iterator<Item = (u16, &WorkerCounters)> {
        self.workers.iter().map(|worker| (worker.cpu, &*worker.counters))
    }

    /// What all workers counted for a port since the start.
    #[must_use]
    pub fn totals(&self, id: PortId) -> PortTotals {
        PortTotals::of(self.counters().map(|(_, counters)| counters), id)
    }

    /// Has all workers serve the rings of `region` as port `id`.
    pub fn attach(&mut self, region: &Region, id: PortId, generation: Generation) {
        let workers = self.workers.len();
        for (index, worker) in self.workers.iter_mut().enumerate() {
            let port = WorkerPort::new(region, id, generation, index, workers);
            worker.tell(Command::Attach(Box::new(port)));
        }
    }

    /// Has all workers let go of port `id`. Each will answer.
    pub fn detach(&mut self, id: PortId) {
        self.workers.iter_mut().for_each(|worker| worker.tell(Command::Detach(id)));
    }

    /// Has all workers switch by `forwarding`.
    pub fn forward(&mut self, forwarding: &Arc<Forwarding>) {
        self.workers.iter_mut().for_each(|worker| worker.tell(Command::Forward(Arc::clone(forwarding))));
    }

    /// The next answer of any worker. Dropping it frees what it carries.
    pub fn reply(&mut self) -> Option<Reply> {
        self.workers.iter_mut().find_map(Helm::reply)
    }

    /// Pictures of the ports that every worker has given back: it uses a later one than these.
    #[must_use]
    pub fn retired(&self) -> u64 {
        self.workers.iter().map(|worker| worker.retired).min().unwrap_or(u64::MAX)
    }

    /// Whether every worker's thread still runs.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.workers.iter().all(|worker| !worker.thread.is_finished())
    }
}

impl Drop for Dataplane {
    /// Ends all workers and waits for them. All are told first, because they end together.
    fn drop(&mut self) {
        self.workers.iter_mut().for_each(|worker| worker.tell(Command::Stop));
        for worker in self.workers.drain(..) {
            if worker.thread.join().is_err() {
                log::error!("the worker on CPU {} had panicked", worker.cpu);
            }
        }
    }
}

impl Helm {
    /// Tells the worker, waiting while its queue is full: a worker looks at it thousands of times a second.
    ///
    /// What it has answered is taken in before. So the queue of replies, which is longer than that of commands, never
    /// fills up, however many commands are given before anybody looks at the replies.
    fn tell(&mut self, command: Command) {
        while let Ok(reply) = self.replies.pop() {
            self.heard.push_back(reply);
        }
        let mut command = command;
        while let Err(rtrb::PushError::Full(back)) = self.commands.push(command) {
            command = back;
            if self.thread.is_finished() {
                return;
            }
            std::thread::yield_now();
        }
    }

    fn reply(&mut self) -> Option<Reply> {
        let reply = self.heard.pop_front().or_else(|| self.replies.pop().ok())?;
        self.retired += u64::from(matches!(reply, Reply::Retired(_)));
        Some(reply)
    }
}

/// Starts a worker's thread, and waits until it has pinned and registered itself.
fn spawn(eal: Handle, cpu: u16, index: usize, parts: Parts) -> Result<JoinHandle<()>, StartError> {
    let (ready, is_ready) = std::sync::mpsc::channel();
    let thread = std::thread::Builder::new().name(format!("kopi-worker-{index}")).spawn(move || {
        let pinned = core_affinity::set_for_current(core_affinity::CoreId { id: cpu.into() });
        let registered = eal.register_thread();
        let outcome = match (&registered, pinned) {
            (_, false) => Err("the kernel does not let it run there".to_owned()),
            (Err(error), _) => Err(error.to_string()),
            (Ok(_), true) => Ok(()),
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
        Ok(Ok(())) => Ok(thread),
        Ok(Err(problem)) => Err(StartError::Worker { cpu, problem }),
        Err(_) => Err(StartError::Worker { cpu, problem: "it ended at once".into() }),
    }
}
