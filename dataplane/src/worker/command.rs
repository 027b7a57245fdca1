//! What the control thread and the workers tell each other.
//!
//! Each worker has a bounded queue in each direction. Objects change hands through them: the control thread builds,
//! the worker uses, the control thread drops. A worker thereby never allocates or frees.

use crate::policy_counters::PolicyCounters;
use crate::snapshot::Snapshot;
use crate::stages::mirror::{Mirror, Selection};
use crate::worker::flow_dump::FlowDump;
use crate::worker::port::WorkerPort;
use crate::worker::sched_tree::Shaper;
use kopi_ring::PeerFault;
use std::sync::Arc;

/// A snapshot, and what goes with it.
#[derive(Debug)]
pub struct Change {
    /// Forwarding table and policy.
    pub snapshot: Arc<Snapshot>,
    /// In what is counted.
    pub policy_counters: Arc<PolicyCounters>,
    /// What capture sessions want to see.
    pub selections: Vec<Arc<Selection>>,
    /// The classes to keep to, `None` inside for none; `None` if they stay as they are.
    pub shaper: Option<Option<Box<Shaper>>>,
}

/// From the control thread to a worker.
#[derive(Debug)]
pub enum Command {
    /// Serve these rings. The port's earlier ones have been detached, if there were any.
    Attach(Box<WorkerPort>),
    /// Stop serving this port.
    Detach(crate::ids::PortId),
    /// Use another snapshot from now on.
    Forward(Change),
    /// Fill in this piece of a dump of flows.
    Dump(Box<FlowDump>),
    /// Show a capture session what it wants.
    Mirror(Box<Mirror>),
    /// Show capture sessions something else.
    Select(Vec<Arc<Selection>>),
    /// Show this capture session nothing more.
    Unmirror(u32),
    /// Send what is under way, and end.
    Stop,
}

/// From a worker to the control thread.
#[derive(Debug)]
pub enum Reply {
    /// The port asked to be detached is no longer served. Its rings come along, unless a fault had ended them before.
    Detached(crate::ids::PortId, Option<Box<WorkerPort>>),
    /// The app broke the contract; its rings are no longer served.
    Fault(Box<WorkerPort>, PeerFault),
    /// All this is no longer used.
    Retired(Change),
    /// The piece is complete.
    Dumped(Box<FlowDump>),
    /// These selections are no longer used.
    Selected(Vec<Arc<Selection>>),
    /// This mirror is no longer used.
    Unmirrored(Box<Mirror>),
}

/// Commands that one queue holds. The one of replies holds more, so that a worker always has room for its answers.
pub const QUEUE: usize = 4096;
