//! A worker: one thread, one core, run to completion.
//!
//! An iteration takes what has come, in bursts of at most [`Batch::MAX`], from the wire and from the apps' TX rings; each passes the
//! [stages](crate::stages) at once. What other workers hand over has passed theirs: it only goes into an app's RX ring, or to the wire. Nothing here blocks, allocates, logs or
//! makes a system call, but to wake another of kopid's threads, or to sleep when there is nothing to do; the clock is read once a burst. The
//! one lock is that of a bucket of tracked connections, held for as long as it takes to write down a new one.
//!
//! A worker's time is shared out. The apps have theirs in rounds (`rounds.rs`), by user. The wire has a burst in each iteration,
//! and more until it has had as much time as all apps together in the iteration before; so have the other workers.

mod app_rx;
pub mod burst;
pub mod command;
mod commands;
pub mod counters;
pub mod crowding;
pub mod flow_dump;
pub mod flow_table;
pub mod handoff;
mod idle;
pub mod load;
pub mod outputs;
pub mod packet_type;
pub mod port;
pub mod reply_limit;
mod rounds;
mod sched;
pub mod sched_tree;
pub mod sleep;
pub mod wake_requests;
pub mod wire;
mod wire_cost;

use crate::ids::{PortId, WIRE};
use crate::policy_table::PolicyTable;
use crate::snapshot::Snapshot;
use crate::stages::policy::PolicyStage;
use crate::stages::{deliver, mirror, parse, policy, transmit};
use crate::worker::burst::Burst;
use crate::worker::command::{Command, Reply};
use crate::worker::counters::WorkerCounters;
use crate::worker::flow_dump::FlowDump;
use crate::worker::flow_table::{FlowTable, IDLE_SECONDS};
use crate::worker::handoff::Mesh;
use crate::worker::outputs::Outputs;
use crate::worker::sched_tree::Sample;
use crate::worker::sleep::SleepState;
use crate::worker::wake_requests::WakeRequests;
use crate::worker::wire::Wire;
use app_rx::{Share, Taken, Took};
use dpdk::{Batch, Pool};
use kopi_config::policy::Direction;
use kopi_ring::DropReason;
use rounds::Rounds;
use std::sync::Arc;
use wire_cost::WireCost;

/// How often idle flows are looked for, as a fraction of a second.
const SWEEPS_PER_SECOND: u64 = 1000;
/// How many of these are made up for at one time.
const SWEEPS_AT_ONCE: u64 = 15;
/// The time that a round gives to each user, as a fraction of a second: one or two bursts of short frames.
const QUANTA_PER_SECOND: u64 = 500_000;
/// The time that apps get in one iteration, as a fraction of a second: so the wire waits no longer, however many there are.
const SLICES_PER_SECOND: u64 = 40_000;
/// The most that a burst is charged, as a fraction of a second. What takes longer is not the app's doing: the kernel has run
/// something else meanwhile.
const CHARGES_PER_SECOND: u64 = 500;
/// Rings of idle apps that are polled in an iteration, and in one that follows one in which nothing moved.
const IDLE_RINGS: usize = 4;
const IDLE_RINGS_AT_REST: usize = 64;

/// What a worker is made of.
#[derive(Debug)]
pub struct Parts {
    /// Its number, from 0.
    pub index: usize,
    /// Its share of the wire.
    pub wire: Wire,
    /// Which worker sends for it, if it has no TX queue of its own.
    pub sender: usize,
    /// Where its packet buffers come from.
    pub pool: Pool,
    /// Its flows.
    pub flows: FlowTable,
    /// The queues to and from the other workers.
    pub mesh: Mesh,
    /// Its counters, which only it writes.
    pub counters: Arc<WorkerCounters>,
    /// Orders from the control thread.
    pub commands: rtrb::Consumer<Command>,
    /// Answers to it.
    pub replies: rtrb::Producer<Reply>,
    /// How long packets have waited in their classes, for the control thread.
    pub samples: rtrb::Producer<Sample>,
    /// What it asks about frames.
    pub policy_stage: PolicyStage,
    /// The first snapshot of the ports.
    pub snapshot: Arc<Snapshot>,
    /// Ports there can be, the wire included.
    pub max_ports: usize,
    /// The clock: what the TSC says. Looked at once a burst.
    pub clock: fn() -> u64,
    /// Ticks of the clock in a second.
    pub tsc_hz: u64,
    /// How it sleeps, if it does.
    pub sleep_state: Option<SleepState>,
    /// By what it has sleeping apps woken.
    pub requests: WakeRequests,
}

/// One worker of the dataplane.
#[derive(Debug)]
pub struct Worker {
    index: usize,
    workers: usize,
    burst: Burst,
    flows: FlowTable,
    policy_stage: PolicyStage,
    outputs: Outputs,
    snapshot: Arc<Snapshot>,
    pool: Pool,
    counters: Arc<WorkerCounters>,
    commands: rtrb::Consumer<Command>,
    replies: rtrb::Producer<Reply>,
    samples: rtrb::Producer<Sample>,
    /// The apps with TX rings here, and whose turn it is.
    rounds: Rounds,
    /// The TSC when the last burst was done with.
    mark: u64,
    /// Ticks that all apps have used in the iteration before.
    used: u64,
    /// What a byte costs on the wire, and bytes that it was given when somebody was charged last.
    wire_cost: WireCost,
    given: u64,
    /// Rings of idle apps to be polled in the next iteration.
    idle_polls: usize,
    /// Ticks of a quantum.
    quantum: u64,
    clock: fn() -> u64,
    tsc_hz: u64,
    sleep_state: Option<SleepState>,
    next_sweep: u64,
    /// A list of flows that is being made.
    flow_dump: Option<Box<FlowDump>>,
    running: bool,
}

impl Worker {
    /// A worker made of `parts`. Allocates everything that it will ever need.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let Parts {
            index, wire, sender, pool, flows, policy_stage, mesh, counters, commands, replies, samples, ..
        } = parts;
        let workers = mesh.workers();
        let sized = (parts.max_ports, parts.tsc_hz);
        let outputs = Outputs::new(index, sized, wire, sender, mesh, pool.clone(), Arc::clone(&counters));
        let outputs = outputs.waking(parts.requests);
        Self {
            index,
            workers,
            burst: Burst::new(),
            flows,
            policy_stage,
            outputs,
            snapshot: parts.snapshot,
            pool,
            counters,
            commands,
            replies,
            samples,
            rounds: Rounds::new(parts.max_ports, parts.tsc_hz / QUANTA_PER_SECOND),
            mark: 0,
            used: 0,
            wire_cost: WireCost::new(parts.tsc_hz),
            given: 0,
            idle_polls: IDLE_RINGS,
            quantum: parts.tsc_hz / QUANTA_PER_SECOND,
            clock: parts.clock,
            tsc_hz: parts.tsc_hz,
            sleep_state: parts.sleep_state,
            next_sweep: 0,
            flow_dump: None,
            running: true,
        }
    }

    /// Works until told to stop.
    pub fn run(&mut self) {
        let mut now = (self.clock)();
        while self.running {
            let busy = self.poll_once(now);
            let end = (self.clock)();
            self.counters.iterations.add(1);
            self.counters.longest_iteration.note(end.wrapping_sub(now));
            if busy {
                self.counters.busy_iterations.add(1);
                self.counters.busy_cycles.add(end.wrapping_sub(now));
            }
            now = self.idle(busy, end);
        }
        let view = self.outputs.view(&self.snapshot, self.policy_stage.policy_counters(), now);
        self.outputs.finish(&view);
    }

    /// THE ITERATION: commands of the control thread; the wire; what waits in classes that are no more; other workers' frames for the
    /// wire; a look at some idle rings; the apps, alone, in rounds or under classes; other workers' frames for apps; what the wire has
    /// not taken yet; wake-ups; apps that broke the contract; now and then a sweep of the flow table, a piece of a flow dump.
    ///
    /// `now` is the TSC. Returns whether any frame moved. [`run`](Self::run) does this until told to stop.
    pub fn poll_once(&mut self, now: u64) -> bool {
        if !self.commands.is_empty() {
            self.handle_all(now);
        }
        self.mark = now;
        let mut moved = self.serve_wire(now);
        // Also without classes: there may have been some a moment ago.
        if self.outputs.has_draining() {
            let view = self.outputs.view(&self.snapshot, self.policy_stage.policy_counters(), now);
            moved += self.outputs.serve_draining(&view);
        }
        if self.workers > 1 {
            moved += self.serve_senders(now);
        }
        let begun = self.mark;
        let only = self.rounds.only().filter(|_| self.outputs.shaper.is_none());
        let found = only.is_none() && self.poll_idle(now);
        moved += match only {
            Some(id) => self.serve_only(id, now),
            None if self.outputs.shaper.is_some() => self.serve_shaped(now),
            None => self.serve_apps(now),
        };
        self.used = self.mark.wrapping_sub(begun);
        if self.workers > 1 {
            moved += self.serve_workers(now);
        }
        if !self.outputs.wire.is_clear() {
            let view = self.outputs.view(&self.snapshot, self.policy_stage.policy_counters(), now);
            self.outputs.flush_wire(&view);
        }
        self.outputs.wake();
        while let Some((id, fault)) = self.outputs.take_fault() {
            self.detach(id, fault, now);
        }
        if now >= self.next_sweep {
            self.sweep(now);
        }
        if self.flow_dump.is_some() {
            self.dump_flows();
        }
        self.idle_polls = if moved > 0 { IDLE_RINGS } else { IDLE_RINGS_AT_REST };
        found || moved > 0
    }

    /// Does what the control thread has ordered.
    #[cold]
    fn handle_all(&mut self, now: u64) {
        while let Ok(command) = self.commands.pop() {
            self.handle(command, now);
            // New rings have no `need_wakeup` set yet.
            self.note_work(now);
        }
    }

    /// Serves apps, each user and app for as long as it may, until the round is over, its time is up, or the wire is full.
    #[inline(never)]
    fn serve_apps(&mut self, now: u64) -> usize {
        let until = self.mark + self.tsc_hz / SLICES_PER_SECOND;
        let mut moved = 0;
        // What others have sent meanwhile is not the next app's.
        self.given = self.outputs.given();
        while let Some(id) = self.rounds.next() {
            if !self.takes_burst() {
                return moved;
            }
            match self.serve_app(id, Share::ALL, now) {
                Ok(Took { frames: 0, .. }) => self.rounds.empty(),
                Ok(took) => {
                    moved += took.frames;
                    self.charge(took);
                    if self.mark >= until {
                        return moved;
                    }
                }
                Err(fault) => self.detach(id, fault, now),
            }
        }
        if moved == 0 && self.rounds.busy_users() == 0 {
            self.outputs.note_idle();
        }
        moved
    }

    /// Serves the only app there is, for a quantum.
    #[inline]
    fn serve_only(&mut self, id: PortId, now: u64) -> usize {
        let until = self.mark + self.quantum;
        let (mut moved, mut had) = (0, false);
        while self.outputs.takes_burst() {
            had = true;
            match self.serve_app(id, Share::ALL, now) {
                Ok(Took { frames: 0, .. }) => break,
                Ok(took) => {
                    moved += took.frames;
                    self.mark = (self.clock)();
                    self.outputs.note_sent(took.frames, 1);
                    if !took.more || self.mark >= until {
                        break;
                    }
                }
                Err(fault) => {
                    self.detach(id, fault, now);
                    break;
                }
            }
        }
        if had && moved == 0 {
            self.outputs.note_idle();
        }
        moved
    }

    /// Charges the app whose turn it is for the burst that was just done with: for the worker's time, and for the wire's where
    /// that is scarce.
    #[inline]
    fn charge(&mut self, took: Took) {
        let end = (self.clock)();
        let ticks = end.wrapping_sub(self.mark).min(self.tsc_hz / CHARGES_PER_SECOND);
        let given = self.outputs.given();
        let wire = self.wire_cost.of(given.saturating_sub(self.given));
        self.given = given;
        self.rounds.sent(ticks + wire, took.more);
        self.outputs.note_sent(took.frames, self.rounds.busy_users());
        self.mark = end;
    }

    /// Whether the wire takes a burst.
    #[inline]
    fn takes_burst(&mut self) -> bool {
        let takes = self.outputs.takes_burst();
        if takes != self.wire_cost.takes() {
            self.wire_cost.note(takes, self.mark, self.outputs.given());
        }
        takes
    }

    /// Looks at a few rings of apps that had nothing to send for a while. Returns whether there is anything.
    #[inline(never)]
    fn poll_idle(&mut self, now: u64) -> bool {
        let mut found = false;
        let (mut rings, mut apps) = (self.idle_polls, self.rounds.idle_apps());
        while rings > 0 && apps > 0 {
            apps -= 1;
            let Some(id) = self.rounds.next_idle() else { break };
            match self.outputs.poll(id, &mut rings) {
                Ok(true) => {
                    self.rounds.activate(id);
                    // What waits for its class is nothing new.
                    found |= !self.outputs.tree(Direction::Egress).is_some_and(|tree| tree.is_linked(id));
                }
                Ok(false) => {}
                Err(fault) => self.detach(id, fault, now),
            }
        }
        found
    }

    /// Takes a burst from the wire, and more until it has had as much time as the apps.
    fn serve_wire(&mut self, now: u64) -> usize {
        let until = self.mark + self.used;
        let mut moved = 0;
        loop {
            let n = self.receive(now);
            moved += n;
            if n > 0 {
                self.mark = (self.clock)();
            }
            if n < Batch::MAX || self.mark >= until {
                return moved;
            }
        }
    }

    /// The same for what the other workers have handed over.
    #[inline(never)]
    fn serve_workers(&mut self, now: u64) -> usize {
        let until = self.mark + self.used;
        let mut moved = 0;
        loop {
            let view = self.outputs.view(&self.snapshot, self.policy_stage.policy_counters(), now);
            let n = self.outputs.serve_workers(&view);
            moved += n;
            if n > 0 {
                self.mark = (self.clock)();
            }
            if n < Batch::MAX || self.mark >= until {
                return moved;
            }
        }
    }

    /// Sends what the other workers have for the wire, before this worker's own apps fill it again.
    #[inline(never)]
    fn serve_senders(&mut self, now: u64) -> usize {
        let view = self.outputs.view(&self.snapshot, self.policy_stage.policy_counters(), now);
        let moved = self.outputs.serve_senders(&view);
        if moved > 0 {
            self.mark = (self.clock)();
        }
        moved
    }

    fn receive(&mut self, now: u64) -> usize {
        let n = self.outputs.wire.receive(&mut self.burst.batch, self.counters.ports.first());
        if n > 0 {
            self.run_stages(WIRE, &Taken::default(), now);
        }
        n.into()
    }

    /// THE LIST OF STAGES. Passes the burst, which came from port `source` besides what was `refused`, through all of them; returns
    /// its bytes.
    ///
    /// ```text
    /// parse     which flow each frame is of
    /// policy    what becomes of it, once for each flow; the forwarding table is asked there
    /// deliver   into apps' RX rings; copies for several (replicate), answers to what is rejected (reply)
    /// mirror    to capture sessions, before buffers are given away
    /// transmit  to the wire, other workers, queues of classes (shape)
    /// ```
    #[inline]
    fn run_stages(&mut self, source: PortId, refused: &Taken, now: u64) -> u64 {
        let Self { burst, flows, policy_stage, outputs, snapshot, counters, .. } = self;
        burst.mirrored = !outputs.mirrors.is_empty();
        burst.classed = outputs.shaper.is_some();
        burst.noted = burst.mirrored || burst.classed;
        let bytes = parse::run(burst, source, flows, snapshot.policies().map(PolicyTable::watch));
        count(counters, source, burst, bytes, refused);
        policy::run(burst, source, policy_stage, flows, snapshot, now);
        let fates = deliver::run(outputs, burst, source, snapshot, policy_stage, now);
        let view = outputs.view(snapshot, policy_stage.policy_counters(), now);
        mirror::run(&mut outputs.mirrors, burst, source, &outputs.ports, &view);
        transmit::run(outputs, burst, source, &fates, &view);
        bytes
    }

    #[cold]
    fn sweep(&mut self, now: u64) {
        self.wire_cost.forget(now);
        let period = self.tsc_hz / SWEEPS_PER_SECOND;
        // A worker that has slept makes up for some of what it has left out.
        let missed = now.saturating_sub(self.next_sweep) / period.max(1);
        self.next_sweep = now + period;
        let idle = IDLE_SECONDS * self.tsc_hz;
        let buckets = self.flows.buckets() as u64 / SWEEPS_PER_SECOND + 1;
        let buckets = if self.flows.used() > 0 { buckets * (1 + missed.min(SWEEPS_AT_ONCE)) } else { 0 };
        for _ in 0..buckets {
            self.flows.sweep(now, idle, |id| id != WIRE && self.snapshot.fib().max_frame(id) == 0);
        }
        self.counters.flows.set(self.flows.used() as u64);
        self.counters.flow_misses.set(self.flows.misses());
        self.counters.flow_evictions.set(self.flows.evictions());
    }
}

/// Counts what came from port `source`: the frames of `burst`, and what was `refused`.
#[inline]
fn count(counters: &WorkerCounters, source: PortId, burst: &Burst, bytes: u64, refused: &Taken) {
    let Some(counters) = counters.ports.get(usize::from(source)) else { return };
    let frames = (burst.batch.len() + refused.refused()) as u64;
    if source == WIRE {
        counters.rx_packets.add(frames);
        counters.rx_bytes.add(bytes);
        return;
    }
    counters.tx_packets.add(frames);
    counters.tx_bytes.add(bytes + refused.refused_bytes);
    if refused.refused() > 0 {
        counters.drop(DropReason::Runt, refused.runts as u64);
        counters.drop(DropReason::Oversize, refused.oversize as u64);
    }
}
