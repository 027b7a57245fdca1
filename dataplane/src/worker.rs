//! A worker: one thread, one core, run to completion.
//!
//! A turn takes what has come, in bursts of at most [`Batch::MAX`]: from each app's TX rings, from the wire, from the
//! other workers. Every burst passes the stages at once: parse, judge, deliver. Nothing here blocks, allocates, logs or
//! makes a system call, but to wake another of kopid's threads, or to sleep when there is nothing to do; the clock is read once a turn. The
//! one lock is that of a bucket of tracked connections, held for as long as it takes to write down a new one.

mod idle;
mod shaped;

use crate::app_waker::WakeRequests;
use crate::burst::Burst;
use crate::command::{Change, Command, Reply};
use crate::counters::WorkerCounters;
use crate::deliver::Delivery;
use crate::filter::Filter;
use crate::flow::{FlowTable, IDLE_SECONDS};
use crate::forwarding::{Forwarding, PortId, WIRE};
use crate::gate::Gate;
use crate::handoff::Mesh;
use crate::listing::Listing;
use crate::port::queue_at;
use crate::rest::Rest;
use crate::shaper::{Sample, Source};
use crate::tap::Sighting;
use crate::wire::Wire;
use dpdk::{Batch, Pool};
use kopi_ring::layout::MIN_FRAME;
use kopi_ring::{Consumer, DropReason, PeerFault};
use std::sync::Arc;

/// How often idle flows are looked for, as a fraction of a second.
const SWEEPS_PER_SECOND: u64 = 1000;
/// How many of these are made up for at one time.
const SWEEPS_AT_ONCE: u64 = 15;

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
    pub gate: Gate,
    /// The first picture of the ports.
    pub forwarding: Arc<Forwarding>,
    /// Ports there can be, the wire included.
    pub max_ports: usize,
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
    gate: Gate,
    delivery: Delivery,
    forwarding: Arc<Forwarding>,
    pool: Pool,
    counters: Arc<WorkerCounters>,
    commands: rtrb::Consumer<Command>,
    replies: rtrb::Producer<Reply>,
    samples: rtrb::Producer<Sample>,
    /// Ports with TX rings here, in the order they are served. Never grows beyond its first capacity.
    served: Vec<PortId>,
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
        let Parts { index, wire, sender, pool, flows, gate, mesh, counters, commands, replies, samples, .. } = parts;
        let workers = mesh.out.len();
        let sized = (parts.max_ports, parts.tsc_hz);
        let delivery = Delivery::new(index, sized, wire, sender, mesh, pool.clone(), Arc::clone(&counters));
        let delivery = delivery.waking(parts.requests);
        Self {
            index,
            workers,
            burst: Burst::new(),
            flows,
            gate,
            delivery,
            forwarding: parts.forwarding,
            pool,
            counters,
            commands,
            replies,
            samples,
            served: Vec::with_capacity(parts.max_ports),
            tsc_hz: parts.tsc_hz,
            rest: parts.rest,
            next_sweep: 0,
            listing: None,
            running: true,
        }
    }

    /// Works until told to stop.
    pub fn run(&mut self) {
        let mut now = dpdk::tsc();
        while self.running {
            let busy = self.turn(now);
            let end = dpdk::tsc();
            self.counters.turns.add(1);
            self.counters.longest_turn.note(end.wrapping_sub(now));
            if busy {
                self.counters.busy_turns.add(1);
                self.counters.busy_cycles.add(end.wrapping_sub(now));
            }
            now = self.rest(busy, end);
        }
        let view = self.delivery.view(&self.forwarding, &self.gate, now);
        self.delivery.finish(&view);
    }

    /// One turn; `now` is the TSC. Returns whether any frame moved. [`run`](Self::run) does this until told to stop.
    pub fn turn(&mut self, now: u64) -> bool {
        while let Ok(command) = self.commands.pop() {
            self.obey(command, now);
            // New rings have no alarms yet.
            self.stir(now);
        }
        let mut moved = self.serve_wire(now);
        // Also without classes: there may have been some a moment ago.
        if self.delivery.has_orphans() {
            let view = self.delivery.view(&self.forwarding, &self.gate, now);
            moved += self.delivery.serve_orphans(&view);
        }
        moved += if self.delivery.shaper.is_some() { self.serve_shaped(now) } else { self.serve_apps(now) };
        let view = self.delivery.view(&self.forwarding, &self.gate, now);
        moved += self.delivery.serve_workers(&view);
        self.delivery.end_turn(&view);
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
        moved > 0
    }

    /// Takes a burst from each app.
    fn serve_apps(&mut self, now: u64) -> usize {
        let (mut moved, mut at) = (0, 0);
        while let Some(id) = self.served.get(at).copied() {
            match self.serve_app(id, Share::ALL, now) {
                Ok(n) => {
                    moved += n;
                    at += 1;
                }
                Err(fault) => self.expel(id, fault, now),
            }
        }
        moved
    }

    fn serve_wire(&mut self, now: u64) -> usize {
        let counters = self.counters.ports.first();
        let n = self.delivery.wire.receive(&mut self.burst.batch, counters);
        if n > 0 {
            self.burst.tapped = !self.delivery.taps.is_empty();
            let bytes = self.burst.parse(WIRE, &self.flows, self.forwarding.filter().map(Filter::watch));
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
    fn serve_app(&mut self, id: PortId, share: Share, now: u64) -> Result<usize, PeerFault> {
        if !self.delivery.takes_burst() && matches!(self.delivery.source, Source::Ring(_)) {
            return Ok(0);
        }
        let max_frame = self.forwarding.max_frame(id);
        let counters = self.counters.ports.get(usize::from(id));
        let (tapped, index, workers) = (!self.delivery.taps.is_empty(), self.index, self.workers);
        let (Some(port), Some(counters)) = (self.delivery.port_mut(id), counters) else { return Ok(0) };
        let rings = port.tx.len();
        self.burst.tapped = tapped;
        let mut taken = Taken::default();
        let mut share = share;
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
                break;
            }
            port.next_tx = if at + 1 == rings { 0 } else { at + 1 };
        }
        let n = self.burst.batch.len();
        if n + taken.refused() == 0 {
            return Ok(0);
        }
        let bytes = self.burst.parse(id, &self.flows, self.forwarding.filter().map(Filter::watch));
        counters.tx_packets.add((n + taken.refused()) as u64);
        counters.tx_bytes.add(bytes + taken.refused_bytes);
        if taken.refused() > 0 {
            counters.drop(DropReason::Runt, taken.runts as u64);
            counters.drop(DropReason::Oversize, taken.oversize as u64);
        }
        self.pass(id, now);
        Ok(n + taken.refused())
    }

    /// Judges and delivers the burst, which came from port `source`.
    #[inline]
    fn pass(&mut self, source: PortId, now: u64) {
        self.burst.classed = self.delivery.shaper.is_some();
        self.burst.judge(source, &mut self.flows, &mut self.gate, &self.forwarding, now);
        self.delivery.deliver(&mut self.burst, source, &self.forwarding, &mut self.gate, now);
    }

    fn obey(&mut self, command: Command, now: u64) {
        match command {
            Command::Attach(port) => {
                let id = port.id;
                let serves = !port.tx.is_empty();
                if let Some(old) = self.delivery.insert(port) {
                    self.reply(Reply::Replaced(old));
                }
                self.served.retain(|other| *other != id);
                if serves {
                    self.served.push(id);
                }
            }
            Command::Detach(id) => {
                self.served.retain(|other| *other != id);
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

    /// Takes another picture, and gives the one before back.
    fn turn_to(&mut self, change: Change, now: u64) {
        let Change { forwarding, ledger, mut selections, shaper } = change;
        let forwarding = std::mem::replace(&mut self.forwarding, forwarding);
        let rules = |picture: &Forwarding| picture.filter().map(|filter| Arc::as_ptr(filter.ruleset()));
        let ledger = self.gate.turn_over(ledger, rules(&forwarding) != rules(&self.forwarding));
        self.delivery.taps.select(&mut selections);
        let shaper = shaper.map(|shaper| self.delivery.reshape(shaper, now));
        self.link();
        self.reply(Reply::Retired(Change { forwarding, ledger, selections, shaper }));
    }

    /// Ends an app that broke the contract, and no other.
    #[cold]
    fn expel(&mut self, id: PortId, fault: PeerFault, now: u64) {
        self.served.retain(|other| *other != id);
        // What it sent before its fault, and what was taken of this burst, goes with it.
        if let Some(counters) = self.counters.ports.get(usize::from(id)) {
            counters.tx_packets.add(self.burst.batch.len() as u64);
            counters.drop(DropReason::PortGone, self.burst.batch.len() as u64);
        }
        let view = self.delivery.view(&self.forwarding, &self.gate, now);
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

    /// Goes on with a list of flows, a few buckets in each turn.
    #[cold]
    fn list(&mut self) {
        if let Some(mut listing) = self.listing.take() {
            if listing.proceed(&self.flows, self.gate.ledger(), self.forwarding.epoch()) {
                self.reply(Reply::Listed(listing));
            } else {
                self.listing = Some(listing);
            }
        }
    }

    #[cold]
    fn sweep(&mut self, now: u64) {
        let period = self.tsc_hz / SWEEPS_PER_SECOND;
        // A worker that has slept makes up for some of what it has left out.
        let missed = now.saturating_sub(self.next_sweep) / period.max(1);
        self.next_sweep = now + period;
        let expired = now.saturating_sub(IDLE_SECONDS * self.tsc_hz);
        let buckets = self.flows.buckets() as u64 / SWEEPS_PER_SECOND + 1;
        for _ in 0..buckets * (1 + missed.min(SWEEPS_AT_ONCE)) {
            self.flows.sweep(expired, |id| id != WIRE && self.forwarding.max_frame(id) == 0);
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
    const ALL: Self = Self { bytes: i64::MAX, overhead: 0 };
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
