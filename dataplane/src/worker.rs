//! A worker: one thread, one core, run to completion.
//!
//! A turn takes what has come, in bursts of at most [`Batch::MAX`]: from the wire, from the apps' TX rings, from the
//! other workers. Every burst passes the stages at once: parse, evaluate, deliver. Nothing here blocks, allocates, logs or
//! makes a system call, but to wake another of kopid's threads, or to sleep when there is nothing to do; the clock is read once a burst. The
//! one lock is that of a bucket of tracked connections, held for as long as it takes to write down a new one.
//!
//! A worker's time is shared out. The apps have theirs in rounds (`rounds.rs`), by user. The wire has a burst in each turn,
//! and more until it has had as much time as all apps together in the turn before; so have the other workers.

pub mod burst;
pub mod command;
pub mod counters;
pub mod flow_dump;
pub mod flow_table;
pub mod handoff;
pub mod idle;
pub mod load;
pub mod packet_type;
pub mod port;
mod rest_steps;
mod rounds;
mod shaped;
pub mod wire;
mod wire_cost;

use crate::control::app_waker::WakeRequests;
use crate::ids::{PortId, WIRE};
use crate::policy_table::PolicyTable;
use crate::snapshot::Snapshot;
use crate::stages::deliver::Delivery;
use crate::stages::mirror::Sighting;
use crate::stages::policy::PolicyStage;
use crate::stages::shape::Sample;
use crate::worker::burst::Burst;
use crate::worker::command::{Change, Command, Reply};
use crate::worker::counters::WorkerCounters;
use crate::worker::flow_dump::Listing;
use crate::worker::flow_table::{FlowTable, IDLE_SECONDS};
use crate::worker::handoff::Mesh;
use crate::worker::idle::Rest;
use crate::worker::port::queue_at;
use crate::worker::wire::Wire;
use dpdk::{Batch, Pool};
use kopi_config::policy::Direction;
use kopi_ring::layout::MIN_FRAME;
use kopi_ring::{Consumer, DropReason, PeerFault};
use rounds::Rounds;
use std::sync::Arc;
use wire_cost::WireCost;

/// How often idle flows are looked for, as a fraction of a second.
const SWEEPS_PER_SECOND: u64 = 1000;
/// How many of these are made up for at one time.
const SWEEPS_AT_ONCE: u64 = 15;
/// The time that a round gives to each user, as a fraction of a second: one or two bursts of short frames.
const QUANTA_PER_SECOND: u64 = 500_000;
/// The time that apps get in one turn, as a fraction of a second: so the wire waits no longer, however many there are.
const SLICES_PER_SECOND: u64 = 40_000;
/// The most that a burst is charged, as a fraction of a second. What takes longer is not the app's doing: the kernel has run
/// something else meanwhile.
const CHARGES_PER_SECOND: u64 = 500;
/// Bytes in a burst from an app: as many as in a full one of frames of 1,500 bytes. So few longer ones hold nobody up, not
/// even if each is copied for many.
const BURST_BYTES: i64 = 48 << 10;
/// Rings of idle apps that are looked at in a turn, and in a turn that follows one in which nothing moved.
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
    pub rest: Option<Rest>,
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
    delivery: Delivery,
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
    /// Ticks that all apps have used in the turn before.
    used: u64,
    /// What a byte costs on the wire, and bytes that it was given when somebody was charged last.
    wire_cost: WireCost,
    given: u64,
    /// Rings of idle apps to be looked at in the next turn.
    looks: usize,
    /// Ticks of a quantum.
    quantum: u64,
    clock: fn() -> u64,
    tsc_hz: u64,
    rest: Option<Rest>,
    next_sweep: u64,
    /// A list of flows that is being made.
    listing: Option<Box<Listing>>,
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
        let delivery = Delivery::new(index, sized, wire, sender, mesh, pool.clone(), Arc::clone(&counters));
        let delivery = delivery.waking(parts.requests);
        Self {
            index,
            workers,
            burst: Burst::new(),
            flows,
            policy_stage,
            delivery,
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
            looks: IDLE_RINGS,
            quantum: parts.tsc_hz / QUANTA_PER_SECOND,
            clock: parts.clock,
            tsc_hz: parts.tsc_hz,
            rest: parts.rest,
            next_sweep: 0,
            listing: None,
            running: true,
        }
    }

    /// Works until told to stop.
    pub fn run(&mut self) {
        let mut now = (self.clock)();
        while self.running {
            let busy = self.turn(now);
            let end = (self.clock)();
            self.counters.turns.add(1);
            self.counters.longest_turn.note(end.wrapping_sub(now));
            if busy {
                self.counters.busy_turns.add(1);
                self.counters.busy_cycles.add(end.wrapping_sub(now));
            }
            now = self.rest(busy, end);
        }
        let view = self.delivery.view(&self.snapshot, &self.policy_stage, now);
        self.delivery.finish(&view);
    }

    /// One turn; `now` is the TSC. Returns whether any frame moved. [`run`](Self::run) does this until told to stop.
    pub fn turn(&mut self, now: u64) -> bool {
        while let Ok(command) = self.commands.pop() {
            self.obey(command, now);
            // New rings have no `need_wakeup` set yet.
            self.stir(now);
        }
        self.mark = now;
        let mut moved = self.serve_wire(now);
        // Also without classes: there may have been some a moment ago.
        if self.delivery.has_orphans() {
            let view = self.delivery.view(&self.snapshot, &self.policy_stage, now);
            moved += self.delivery.serve_orphans(&view);
        }
        if self.workers > 1 {
            moved += self.serve_senders(now);
        }
        let begun = self.mark;
        let only = self.rounds.only().filter(|_| self.delivery.shaper.is_none());
        let found = only.is_none() && self.poll_idle(now);
        moved += match only {
            Some(id) => self.serve_only(id, now),
            None if self.delivery.shaper.is_some() => self.serve_shaped(now),
            None => self.serve_apps(now),
        };
        self.used = self.mark.wrapping_sub(begun);
        if self.workers > 1 {
            moved += self.serve_workers(now);
        }
        if !self.delivery.wire.is_clear() {
            let view = self.delivery.view(&self.snapshot, &self.policy_stage, now);
            self.delivery.flush_wire(&view);
        }
        self.delivery.wake();
        while let Some((id, fault)) = self.delivery.take_fault() {
            self.expel(id, fault, now);
        }
        if now >= self.next_sweep {
            self.sweep(now);
        }
        if self.listing.is_some() {
            self.list();
        }
        self.looks = if moved > 0 { IDLE_RINGS } else { IDLE_RINGS_AT_REST };
        found || moved > 0
    }

    /// Serves apps, each user and app for as long as it may, until the round is over, its time is up, or the wire is full.
    fn serve_apps(&mut self, now: u64) -> usize {
        let until = self.mark + self.tsc_hz / SLICES_PER_SECOND;
        let mut moved = 0;
        // What others have sent meanwhile is not the next app's.
        self.given = self.delivery.given();
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
                Err(fault) => self.expel(id, fault, now),
            }
        }
        if moved == 0 && self.rounds.busy_users() == 0 {
            self.delivery.note_idle();
        }
        moved
    }

    /// Serves the only app there is, for a quantum.
    #[inline]
    fn serve_only(&mut self, id: PortId, now: u64) -> usize {
        let until = self.mark + self.quantum;
        let (mut moved, mut had) = (0, false);
        while self.delivery.takes_burst() {
            had = true;
            match self.serve_app(id, Share::ALL, now) {
                Ok(Took { frames: 0, .. }) => break,
                Ok(took) => {
                    moved += took.frames;
                    self.mark = (self.clock)();
                    self.delivery.note_sent(took.frames, 1);
                    if !took.more || self.mark >= until {
                        break;
                    }
                }
                Err(fault) => {
                    self.expel(id, fault, now);
                    break;
                }
            }
        }
        if had && moved == 0 {
            self.delivery.note_idle();
        }
        moved
    }

    /// Charges the app whose turn it is for the burst that was just done with: for the worker's time, and for the wire's where
    /// that is scarce.
    #[inline]
    fn charge(&mut self, took: Took) {
        let end = (self.clock)();
        let ticks = end.wrapping_sub(self.mark).min(self.tsc_hz / CHARGES_PER_SECOND);
        let given = self.delivery.given();
        let wire = self.wire_cost.of(given.saturating_sub(self.given));
        self.given = given;
        self.rounds.sent(ticks + wire, took.more);
        self.delivery.note_sent(took.frames, self.rounds.busy_users());
        self.mark = end;
    }

    /// Whether the wire takes a burst.
    #[inline]
    fn takes_burst(&mut self) -> bool {
        let takes = self.delivery.takes_burst();
        if takes != self.wire_cost.takes() {
            self.wire_cost.note(takes, self.mark, self.delivery.given());
        }
        takes
    }

    /// Looks at a few rings of apps that had nothing to send for a while. Returns whether there is anything.
    #[inline]
    fn poll_idle(&mut self, now: u64) -> bool {
        let mut found = false;
        let (mut rings, mut apps) = (self.looks, self.rounds.idle_apps());
        while rings > 0 && apps > 0 {
            apps -= 1;
            let Some(id) = self.rounds.next_idle() else { break };
            match self.delivery.poll(id, &mut rings) {
                Ok(true) => {
                    self.rounds.activate(id);
                    // What waits for its class is nothing new.
                    found |= !self.delivery.lane(Direction::Egress).is_some_and(|lane| lane.is_linked(id));
                }
                Ok(false) => {}
                Err(fault) => self.expel(id, fault, now),
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
    fn serve_workers(&mut self, now: u64) -> usize {
        let until = self.mark + self.used;
        let mut moved = 0;
        loop {
            let view = self.delivery.view(&self.snapshot, &self.policy_stage, now);
            let n = self.delivery.serve_workers(&view);
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
    #[inline]
    fn serve_senders(&mut self, now: u64) -> usize {
        let view = self.delivery.view(&self.snapshot, &self.policy_stage, now);
        let moved = self.delivery.serve_senders(&view);
        if moved > 0 {
            self.mark = (self.clock)();
        }
        moved
    }

    fn receive(&mut self, now: u64) -> usize {
        let counters = self.counters.ports.first();
        let n = self.delivery.wire.receive(&mut self.burst.batch, counters);
        if n > 0 {
            self.burst.tapped = !self.delivery.taps.is_empty();
            let bytes = self.burst.parse(WIRE, &self.flows, self.snapshot.policies().map(PolicyTable::watch));
            if let Some(counters) = counters {
                counters.rx_packets.add(n.into());
                counters.rx_bytes.add(bytes);
            }
            self.pass(WIRE, now);
        }
        n.into()
    }

    /// Takes one burst from an app, over all of its TX rings here, so that an app with many queues gets no more turns
    /// than one with a single queue.
    fn serve_app(&mut self, id: PortId, share: Share, now: u64) -> Result<Took, PeerFault> {
        let max_frame = self.snapshot.fib().max_frame(id);
        // The rings of a new port come before the snapshot that has it. What was sent by then waits there.
        if max_frame == 0 {
            return Ok(Took::NOTHING);
        }
        let counters = self.counters.ports.get(usize::from(id));
        let (tapped, index, workers) = (!self.delivery.taps.is_empty(), self.index, self.workers);
        let (Some(port), Some(counters)) = (self.delivery.port_mut(id), counters) else { return Ok(Took::NOTHING) };
        let rings = port.tx.len();
        self.burst.tapped = tapped;
        let mut taken = Taken::default();
        let (mut share, mut more) = (share, false);
        for _ in 0..rings {
            let at = port.next_tx;
            let ring = &mut port.tx[at];
            let budget = Batch::MAX - self.burst.batch.len() - taken.refused();
            let ready = ring.poll()?;
            if ready > 0 && budget > 0 && share.bytes > 0 {
                let first = self.burst.batch.len();
                take(
                    ring,
                    budget.min(ready as usize),
                    max_frame,
                    &self.pool,
                    &mut self.burst.batch,
                    &mut taken,
                    &mut share,
                )?;
                if tapped {
                    let queue = queue_at(id, at, index, workers);
                    self.burst.note_queue(first, u8::try_from(queue).unwrap_or(u8::MAX));
                }
            }
            if self.burst.batch.len() + taken.refused() >= Batch::MAX || share.bytes <= 0 {
                more = port.tx[at].has_more() || rings > 1;
                break;
            }
            port.next_tx = if at + 1 == rings { 0 } else { at + 1 };
        }
        let n = self.burst.batch.len();
        if n + taken.refused() == 0 {
            return Ok(Took::NOTHING);
        }
        let bytes = self.burst.parse(id, &self.flows, self.snapshot.policies().map(PolicyTable::watch));
        counters.tx_packets.add((n + taken.refused()) as u64);
        counters.tx_bytes.add(bytes + taken.refused_bytes);
        if taken.refused() > 0 {
            counters.drop(DropReason::Runt, taken.runts as u64);
            counters.drop(DropReason::Oversize, taken.oversize as u64);
        }
        self.pass(id, now);
        let frames = n + taken.refused();
        Ok(Took { frames, bytes: bytes + taken.refused_bytes, more })
    }

    /// Judges and delivers the burst, which came from port `source`.
    #[inline]
    fn pass(&mut self, source: PortId, now: u64) {
        self.burst.classed = self.delivery.shaper.is_some();
        self.burst.evaluate(source, &mut self.flows, &mut self.policy_stage, &self.snapshot, now);
        self.delivery.deliver(&mut self.burst, source, &self.snapshot, &mut self.policy_stage, now);
    }

    fn obey(&mut self, command: Command, now: u64) {
        match command {
            Command::Attach(port) => {
                let (id, user) = (port.id, port.user);
                let serves = !port.tx.is_empty();
                if let Some(old) = self.delivery.insert(port) {
                    self.reply(Reply::Replaced(old));
                }
                match serves {
                    true => self.rounds.insert(id, user),
                    false => self.rounds.remove(id),
                }
            }
            Command::Detach(id) => {
                self.rounds.remove(id);
                let port = self.delivery.remove(id);
                self.reply(Reply::Detached(id, port));
            }
            Command::Forward(change) => self.turn_to(change, now),
            Command::List(list) => self.listing = Some(list),
            Command::Tap(tap) => {
                if let Err(tap) = self.delivery.taps.insert(tap) {
                    self.reply(Reply::Untapped(tap));
                }
            }
            Command::Select(mut selections) => {
                self.delivery.taps.select(&mut selections);
                self.reply(Reply::Selected(selections));
            }
            Command::Untap(session) => {
                if let Some(tap) = self.delivery.taps.remove(session) {
                    self.reply(Reply::Untapped(tap));
                }
            }
            Command::Stop => self.running = false,
        }
    }

    /// Takes another snapshot, and gives the one before back.
    #[cold]
    fn turn_to(&mut self, change: Change, now: u64) {
        let Change { snapshot, policy_counters, mut selections, shaper } = change;
        let snapshot = std::mem::replace(&mut self.snapshot, snapshot);
        let rules = |snapshot: &Snapshot| snapshot.policies().map(|filter| Arc::as_ptr(filter.ruleset()));
        let policy_counters = self.policy_stage.turn_over(policy_counters, rules(&snapshot) != rules(&self.snapshot));
        self.delivery.taps.select(&mut selections);
        let shaper = shaper.map(|shaper| self.delivery.reshape(shaper, now));
        self.reply(Reply::Retired(Change { snapshot, policy_counters, selections, shaper }));
    }

    /// Ends an app that broke the contract, and no other.
    #[cold]
    fn expel(&mut self, id: PortId, fault: PeerFault, now: u64) {
        self.rounds.remove(id);
        // What it sent before its fault, and what was taken of this burst, goes with it.
        if let Some(counters) = self.counters.ports.get(usize::from(id)) {
            counters.tx_packets.add(self.burst.batch.len() as u64);
            counters.drop(DropReason::PortGone, self.burst.batch.len() as u64);
        }
        let view = self.delivery.view(&self.snapshot, &self.policy_stage, now);
        for mbuf in self.burst.batch.iter() {
            let gone = Sighting::dropped(id, true, id, DropReason::PortGone);
            self.delivery.taps.see_one(gone, 0, mbuf, 0, &view);
        }
        self.burst.batch.free_all();
        if let Some(port) = self.delivery.remove(id) {
            self.reply(Reply::Fault(port, fault));
        }
    }

    /// The queue has room for an answer to every command and for a fault of every port. If it ever had not, a port's
    /// number would stay taken, and memory would be freed here.
    fn reply(&mut self, reply: Reply) {
        let pushed = self.replies.push(reply);
        debug_assert!(pushed.is_ok(), "the control thread does not read its replies");
    }

    /// Goes on with a piece of a list of flows, a few in each turn.
    #[cold]
    fn list(&mut self) {
        if let Some(mut listing) = self.listing.take() {
            if listing.proceed(&self.flows, self.policy_stage.policy_counters(), &self.snapshot) {
                self.reply(Reply::Listed(listing));
            } else {
                self.listing = Some(listing);
            }
        }
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
        for _ in 0..buckets * (1 + missed.min(SWEEPS_AT_ONCE)) {
            self.flows.sweep(now, idle, |id| id != WIRE && self.snapshot.fib().max_frame(id) == 0);
        }
        self.counters.flows.set(self.flows.used() as u64);
        self.counters.flow_misses.set(self.flows.misses());
        self.counters.flow_evictions.set(self.flows.evictions());
    }
}

/// What an app may send in its turn.
#[derive(Clone, Copy, Debug)]
struct Share {
    /// Bytes. The frame that uses them up may exceed them.
    bytes: i64,
    /// What each frame costs besides its own bytes.
    overhead: u32,
}

impl Share {
    /// As much as a burst has room for.
    const ALL: Self = Self { bytes: BURST_BYTES, overhead: 0 };
}

/// What was taken out of an app's rings in its turn.
#[derive(Clone, Copy, Debug)]
struct Took {
    frames: usize,
    bytes: u64,
    /// Whether there may be more: the turn did not end because the rings were empty.
    more: bool,
}

impl Took {
    const NOTHING: Self = Self { frames: 0, bytes: 0, more: false };
}

/// What was taken out of an app's rings besides the frames in the batch.
#[derive(Debug, Default)]
struct Taken {
    runts: usize,
    oversize: usize,
    refused_bytes: u64,
}

impl Taken {
    const fn refused(&self) -> usize {
        self.runts + self.oversize
    }
}

/// Copies up to `budget` frames out of `ring` into fresh buffers at the end of `batch`. Frames of impossible length are
/// counted in `taken` and not copied. With no buffers left, frames stay in the ring.
fn take(
    ring: &mut Consumer,
    budget: usize,
    max_frame: u16,
    pool: &Pool,
    batch: &mut Batch,
    taken: &mut Taken,
    share: &mut Share,
) -> Result<(), PeerFault> {
    let first = batch.len();
    if !pool.fill(batch, budget) {
        return Ok(());
    }
    let mut used = first;
    let mut outcome = Ok(());
    for _ in 0..budget {
        if share.bytes <= 0 {
            break;
        }
        let frame = match ring.next() {
            Ok(Some(frame)) => frame,
            Ok(None) => break,
            Err(fault) => {
                outcome = Err(fault);
                break;
            }
        };
        share.bytes -= i64::from(frame.len()) + i64::from(share.overhead);
        match u16::try_from(frame.len()) {
            Ok(len) if len <= max_frame && frame.len() >= MIN_FRAME => {
                if let Some(mbuf) = batch.get_mut(used) {
                    ring.copy(&frame, mbuf.frame_mut(len));
                    used += 1;
                }
            }
            _ => {
                taken.refused_bytes += u64::from(frame.len());
                if frame.len() < MIN_FRAME { taken.runts += 1 } else { taken.oversize += 1 }
            }
        }
    }
    ring.release();
    // Chains and refused frames leave buffers unused; they are the last of the batch.
    while batch.len() > used {
        drop(batch.pop());
    }
    outcome
}
