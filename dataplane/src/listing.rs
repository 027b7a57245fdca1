//! A list of a worker's flows, for operators.
//!
//! The control thread brings the memory, the worker copies a few buckets of its flow table into it in each turn, so that
//! traffic does not wait. Nor does the control thread: what workers have filled in comes with their other answers, and goes to the
//! thread of the operator who has asked.

use crate::dataplane::Dataplane;
use crate::flow::{Flow, FlowTable};
use crate::ledger::{Ledger, Outcome};
use kopi_packet::FlowKey;
use kopi_policy::Ruleset;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

/// Buckets copied in one turn: about as long as a few bursts take.
const BUCKETS: usize = 16;

/// How long workers may take. What one does not give in time is left out.
const PATIENCE: Duration = Duration::from_millis(500);

/// One flow, as it was when it was copied.
#[derive(Clone, Copy, Debug)]
pub struct Listed {
    /// What its packets have in common.
    pub key: FlowKey,
    /// What is known about it.
    pub flow: Flow,
    /// What the policy said at the sender's and at the receiver's side.
    pub outcomes: [Option<Outcome>; 2],
}

/// Flows of one worker. Never grows beyond its first capacity.
#[derive(Debug)]
pub struct Listing {
    /// Which list it is a part of.
    pub serial: u64,
    /// What was copied so far.
    pub flows: Vec<Listed>,
    next: usize,
}

impl Listing {
    /// A part of list `serial`, with room for `capacity` flows.
    #[must_use]
    pub fn new(serial: u64, capacity: usize) -> Self {
        Self { serial, flows: Vec::with_capacity(capacity), next: 0 }
    }

    /// Copies some more flows, judged under `epoch` into `ledger` or not judged anew yet; returns whether these were the last ones.
    pub fn proceed(&mut self, table: &FlowTable, ledger: &Ledger, epoch: u32) -> bool {
        let to = self.next + BUCKETS;
        let room = self.flows.capacity() - self.flows.len();
        let flows = table.flows(self.next, to).take(room).map(|(key, flow)| Listed {
            key: *key,
            flow: *flow,
            outcomes: flow.points.tallies.map(|tally| ledger.outcome(tally).filter(|_| flow.epoch == epoch)),
        });
        self.flows.extend(flows);
        self.next = to;
        to >= table.buckets() || self.flows.len() == self.flows.capacity()
    }
}

/// The lists that operators wait for, one at a time. All who wait when one is begun get the same.
#[derive(Debug, Default)]
pub struct Lists {
    waiting: Vec<SyncSender<Arc<Filled>>>,
    current: Option<List>,
    serial: u64,
}

/// The list that workers fill in.
#[derive(Debug)]
struct List {
    parts: Vec<Listing>,
    workers: usize,
    until: Instant,
    to: Vec<SyncSender<Arc<Filled>>>,
}

/// A list that workers have filled in.
#[derive(Debug)]
pub struct Filled {
    /// From each worker.
    pub parts: Vec<Listing>,
    /// The rules in force since then.
    pub ruleset: Option<Arc<Ruleset>>,
}

impl Lists {
    /// Asks for a list of all flows. It comes when workers have filled it in.
    pub fn ask(&mut self) -> Receiver<Arc<Filled>> {
        let (to, list) = sync_channel(1);
        self.waiting.push(to);
        list
    }

    /// Whether any is asked for.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.current.is_some() || !self.waiting.is_empty()
    }

    /// Takes what a worker has filled in.
    pub fn take(&mut self, part: Listing) {
        if let Some(list) = self.current.as_mut().filter(|_| part.serial == self.serial) {
            list.parts.push(part);
        }
    }

    /// Gives away the list that is complete, or late, and has workers begin with the next one. `ruleset` is in force.
    pub fn proceed(&mut self, dataplane: &mut Dataplane, ruleset: Option<&Arc<Ruleset>>) {
        let over = |list: &mut List| list.parts.len() >= list.workers || Instant::now() >= list.until;
        if let Some(list) = self.current.take_if(over) {
            let filled = Arc::new(Filled { parts: list.parts, ruleset: ruleset.cloned() });
            // Whoever does not wait any more does not need it.
            list.to.iter().for_each(|to| drop(to.try_send(Arc::clone(&filled))));
        }
        if self.current.is_none() && !self.waiting.is_empty() {
            let to = std::mem::take(&mut self.waiting);
            self.serial += 1;
            let workers = dataplane.list(self.serial);
            self.current = Some(List { parts: Vec::new(), workers, until: Instant::now() + PATIENCE, to });
        }
    }
}
