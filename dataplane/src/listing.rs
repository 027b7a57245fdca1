//! A list of a worker's flows, for operators.
//!
//! The control thread brings the memory, the worker copies a few buckets of its flow table into it in each turn, so that
//! traffic does not wait.

use crate::flow::{Flow, FlowTable};
use crate::ledger::{Ledger, Outcome};
use kopi_packet::FlowKey;

/// Buckets copied in one turn: about as long as a few bursts take.
const BUCKETS: usize = 16;

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
    /// What was copied so far.
    pub flows: Vec<Listed>,
    next: usize,
}

impl Listing {
    /// A list with room for `capacity` flows.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self { flows: Vec::with_capacity(capacity), next: 0 }
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
