//! Why frames are dropped.

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// Why a frame was dropped. The order is part of the contract: the status page of a region has one counter for each.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum DropReason { $($(#[$doc])* $variant,)* }

        impl DropReason {
            /// Every reason, in the order of the counters.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The name that operators see.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

reasons! {
    /// Shorter than an Ethernet header.
    Runt = "runt",
    /// Longer than the port's MTU allows.
    Oversize = "oversize",
    /// The frame came from the wire and its unicast destination belongs to no app.
    UnknownUnicast = "unknown_unicast",
    /// The frame is multicast or broadcast and no port wanted it.
    NoListener = "no_listener",
    /// The frame would have gone back out of the port it came from.
    SamePort = "same_port",
    /// The receiving app's ring was full.
    RxRingFull = "rx_ring_full",
    /// No packet buffer was free.
    NoMbuf = "no_mbuf",
    /// The wire did not take the frame and there was no way to push back.
    WireTxFull = "wire_tx_full",
    /// The wire's link is down or the wire is gone.
    WireDown = "wire_down",
    /// The ring between two workers was full.
    HandoffFull = "handoff_full",
    /// The port of the sender or of the receiver went away while the frame was under way.
    PortGone = "port_gone",
    /// A rule of the policy, or its default, drops it.
    Policy = "policy",
    /// A rule of the policy rejects it: its sender gets an answer.
    Rejected = "rejected",
    /// An app sent from an address that is not its own.
    Spoofed = "spoofed",
    /// The port at the app's side is not the app's to use.
    PortNotLeased = "port_not_leased",
    /// It cannot be parsed to its end, and the policy drops such frames; or the wire's driver described it wrongly.
    Malformed = "malformed",
    /// A later fragment of a packet whose first one was not seen.
    Fragment = "fragment",
    /// The app has as many flows as it may have.
    FlowLimit = "flow_limit",
    /// The queue of the frame's class was full.
    QueueFull = "queue_full",
    /// The frame, and those before it, had waited too long in the queue of their class.
    Codel = "codel",
    /// It is for the other end of the link alone (IEEE 802.1Q, 8.6.3; MAC control), and no `[[app]]` allows that.
    LinkControl = "link_control",
}

impl DropReason {
    /// Index of this reason's counter.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::DROP_COUNTERS;

    /// Names are what scripts match on: unique, lower case, one word.
    #[test]
    fn names_are_unique_words() {
        for (i, a) in DropReason::ALL.iter().enumerate() {
            assert_eq!(a.index(), i);
            assert!(a.name().bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{a:?}");
            assert!(DropReason::ALL.iter().skip(i + 1).all(|b| b.name() != a.name()), "{a:?} twice");
        }
        assert!(DropReason::ALL.len() <= DROP_COUNTERS);
    }
}
