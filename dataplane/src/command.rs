//! What the control thread and the workers tell each other.
//!
//! Each worker has a bounded queue in each direction. Objects change hands through them: the control thread builds,
//! the worker uses, the control thread drops. A worker thereby never allocates or frees.

use crate::forwarding::Forwarding;
use crate::ledger::Ledger;
use crate::listing::Listing;
use crate::port::WorkerPort;
use kopi_ring::PeerFault;
use std::sync::Arc;

/// From the control thread to a worker.
#[derive(Debug)]
pub enum Command {
    /// Serve these rings. They take the place of the port's earlier ones, if any.
    Attach(Box<WorkerPort>),
    /// Stop serving this port.
    Detach(crate::forwarding::PortId),
    /// Switch and judge by this picture from now on, and count in this ledger.
    Forward(Arc<Forwarding>, Arc<Ledger>),
    /// Fill in this list of flows.
    List(Box<Listing>),
    /// Send what is under way, and end.
    Stop,
}

/// From a worker to the control thread.
#[derive(Debug)]
pub enum Reply {
    /// These rings are no longer served: others took their place.
    Replaced(Box<WorkerPort>),
    /// The port asked to be detached is no longer served. Its rings come along, unless a fault had ended them before.
    Detached(crate::forwarding::PortId, Option<Box<WorkerPort>>),
    /// The app broke the contract; its rings are no longer served.
    Fault(Box<WorkerPort>, PeerFault),
    /// This picture is no longer used, nor this ledger.
    Retired(Arc<Forwarding>, Arc<Ledger>),
    /// The list is complete.
    Listed(Box<Listing>),
}

/// Commands that one queue holds. The one of replies holds more, so that a worker always has room for its answers.
pub const QUEUE: usize = 4096;
