//! What the control thread and the workers tell each other.
//!
//! Each worker has a bounded queue in each direction. Objects change hands through them: the control thread builds,
//! the worker uses, the control thread drops. A worker thereby never allocates or frees.

use crate::forwarding::Forwarding;
use crate::ledger::Ledger;
use crate::listing::Listing;
use crate::port::WorkerPort;
use crate::tap::{Selection, Tap};
use kopi_ring::PeerFault;
use std::sync::Arc;

/// From the control thread to a worker.
#[derive(Debug)]
pub enum Command {
    /// Serve these rings. They take the place of the port's earlier ones, if any.
    Attach(Box<WorkerPort>),
    /// Stop serving this port.
    Detach(crate::forwarding::PortId),
    /// Switch and judge by this picture from now on, count in this ledger, and show capture sessions what they want under it.
    Forward(Arc<Forwarding>, Arc<Ledger>, Vec<Arc<Selection>>),
    /// Fill in this list of flows.
    List(Box<Listing>),
    /// Show a capture session what it wants.
    Tap(Box<Tap>),
    /// Show capture sessions something else.
    Select(Vec<Arc<Selection>>),
    /// Show this capture session nothing more.
    Untap(u32),
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
    /// This picture is no longer used, nor this ledger, nor these selections.
    Retired(Arc<Forwarding>, Arc<Ledger>, Vec<Arc<Selection>>),
    /// The list is complete.
    Listed(Box<Listing>),
    /// These selections are no longer used.
    Selected(Vec<Arc<Selection>>),
    /// This tap is no longer used.
    Untapped(Box<Tap>),
}

/// Commands that one queue holds. The one of replies holds more, so that a worker always has room for its answers.
pub const QUEUE: usize = 4096;
