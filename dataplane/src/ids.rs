//! Numbers of ports, and what is decided about a frame: where it goes, and where it waits.

use kopi_ring::DropReason;

/// Number of a port: 0 is the wire, apps count from 1.
pub type PortId = u16;

/// The wire's number.
pub const WIRE: PortId = 0;

/// Which use of a port number is meant: numbers are used again, generations are not (they wrap at 2^32).
pub type Generation = u32;

/// Where a frame goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// To the physical port.
    Wire,
    /// To one app.
    App(PortId),
    /// To every app that wants this group address and, if it came from an app, to the wire.
    Group,
    /// To every app that [takes](crate::snapshot::Snapshot::takers) what is for nobody in particular: for an address that nobody owns, those
    /// that are promiscuous.
    Promiscuous,
    /// Nowhere; charged to the sender.
    Drop(DropReason),
    /// Nowhere; charged to this app, for which it was.
    Refuse(PortId, DropReason),
    /// Nowhere, because of this app's policy, and its sender is told.
    Reject(PortId),
}

/// Where an app's frames to the wire wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backlog {
    /// In its rings: all of them are of this leaf.
    AppRing(u32),
    /// In queues, by their classes; those without are of this leaf.
    ClassQueue(u32),
}
