//! A dump of some of a worker's flows. The worker copies a few into it in each iteration, so that traffic does not wait.

use crate::ids::{PortId, Verdict};
use crate::policy_counters::{CounterKey, PolicyCounters};
use crate::snapshot::Snapshot;
use crate::worker::flow_table::{Flow, FlowTable};
use kopi_config::policy::Decision;
use kopi_packet::FlowKey;
use kopi_ring::DropReason;
use std::sync::Arc;

/// Flows of a piece. Each is half a kilobyte of text later, for each connection of an operator that reads a list.
pub const PIECE: usize = 256;

/// Flows copied in one iteration, and buckets looked at for them: about as long as a few bursts take.
const FLOWS: usize = 128;
const BUCKETS: usize = 256;

/// One flow, as it was when it was copied.
#[derive(Clone, Copy, Debug)]
pub struct DumpedFlow {
    /// What its packets have in common.
    pub key: FlowKey,
    /// What is known about it.
    pub flow: Flow,
    /// What the policy said at the sender's and at the receiver's side.
    pub outcomes: [Option<CounterKey>; 2],
    /// Whether it was evaluated before the ports or the policy changed last. Its next frame has it evaluated anew.
    pub outdated: bool,
}

impl DumpedFlow {
    /// What its verdict says for the side of app `id`, as far as it is the policy's.
    #[must_use]
    pub fn decision(&self, id: PortId) -> Decision {
        let of_policy = |reason: DropReason| reason.stage() == "filter";
        match self.flow.verdict {
            Verdict::Drop(reason) if id == self.key.source() && of_policy(reason) => Decision::Drop,
            Verdict::Refuse(whose, reason) if id == whose && of_policy(reason) => Decision::Drop,
            Verdict::Reject(whose) if id == whose => Decision::Reject,
            _ => Decision::Accept,
        }
    }

    /// Number of its class at the sender's side, or at the receiver's with 1. One that was not judged by the policy of the list has none:
    /// its number is that of another policy's class.
    #[must_use]
    pub fn class(&self, side: usize) -> Option<u16> {
        self.outcomes.get(side).copied().flatten()?;
        self.flow.hooks.classes.get(side)?.checked_sub(1)
    }

    /// The app that gets its packets, or would get them if it were not for the policy.
    #[must_use]
    pub fn receiver(&self) -> Option<PortId> {
        match self.flow.verdict {
            Verdict::App(id) | Verdict::Refuse(id, _) => Some(id),
            Verdict::Reject(id) if id != self.key.source() => Some(id),
            _ => None,
        }
    }
}

/// Some flows of one worker, all evaluated under one snapshot. Never grows beyond its first capacity.
#[derive(Debug)]
pub struct FlowDump {
    /// Which piece it is, and of which worker.
    pub(crate) serial: u64,
    pub(crate) worker: usize,
    pub(crate) flows: Vec<DumpedFlow>,
    /// The bucket to go on with.
    pub(crate) next: usize,
    /// Whether there are more.
    pub(crate) has_more: bool,
    pub(crate) snapshot: Option<Arc<Snapshot>>,
}

impl FlowDump {
    /// Room for [`PIECE`] flows, all of it in memory.
    pub(crate) fn new() -> Self {
        let (_, key) = kopi_packet::parse(&[], 0);
        let mut flows = vec![DumpedFlow { key, flow: Flow::EMPTY, outcomes: [None; 2], outdated: false }; PIECE];
        flows.clear();
        Self { serial: 0, worker: 0, flows, next: 0, has_more: false, snapshot: None }
    }

    /// Begins piece `serial`, at `position`.
    pub(crate) fn begin(&mut self, serial: u64, position: Position) {
        self.flows.clear();
        (self.serial, self.worker, self.next, self.has_more) = (serial, position.worker, position.bucket, false);
    }

    /// Copies some more flows, evaluated under `snapshot` and counted in `policy_counters`, or not evaluated anew yet; returns whether these were the last ones.
    pub fn proceed(&mut self, table: &FlowTable, policy_counters: &PolicyCounters, snapshot: &Arc<Snapshot>) -> bool {
        let epoch = snapshot.epoch();
        if self.snapshot.get_or_insert_with(|| Arc::clone(snapshot)).epoch() != epoch {
            self.has_more = true;
            return true;
        }
        let full = self.flows.capacity().min(self.flows.len() + FLOWS) - FlowTable::WAYS;
        let to = table.buckets().min(self.next + BUCKETS);
        while self.next < to && self.flows.len() <= full {
            let flows = table.flows(self.next, self.next + 1).map(|flow| DumpedFlow {
                key: flow.key(),
                flow: *flow,
                outcomes: flow
                    .hooks
                    .counter_ids
                    .map(|counter_id| policy_counters.key(counter_id).filter(|_| flow.epoch == epoch)),
                outdated: flow.epoch != epoch,
            });
            self.flows.extend(flows);
            self.next += 1;
        }
        self.has_more = self.next < table.buckets();
        !self.has_more || self.flows.len() + FlowTable::WAYS > self.flows.capacity()
    }
}

/// Where a list goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    pub(crate) worker: usize,
    pub(crate) bucket: usize,
}
