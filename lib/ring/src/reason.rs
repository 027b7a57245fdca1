//! Why frames are dropped.

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $name:literal in $stage:literal,)*) => {
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

            /// The stage that it happens in, by the name that operators see: `forward` and `filter` are both of the policy stage.
            #[must_use]
            pub const fn stage(self) -> &'static str {
                match self { $(Self::$variant => $stage,)* }
            }
        }
    };
}

reasons! {
    /// Shorter than an Ethernet header.
    Runt = "runt" in "parse",
    /// Longer than the port's MTU allows.
    Oversize = "oversize" in "parse",
    /// The frame came from the wire and its unicast destination belongs to no app.
    UnknownUnicast = "unknown_unicast" in "forward",
    /// The frame is multicast or broadcast and no port wanted it.
    NoListener = "no_listener" in "forward",
    /// The frame would have gone back out of the port it came from.
    SamePort = "same_port" in "forward",
    /// The receiving app's ring was full.
    RxRingFull = "rx_ring_full" in "deliver",
    /// No packet buffer was free.
    NoMbuf = "no_mbuf" in "deliver",
    /// The wire did not take the frame and there was no way to push back.
    WireTxFull = "wire_tx_full" in "deliver",
    /// The wire's link is down or the wire is gone.
    WireDown = "wire_down" in "forward",
    /// The ring between two workers was full.
    HandoffFull = "handoff_full" in "deliver",
    /// The port of the sender or of the receiver went away while the frame was under way.
    PortGone = "port_gone" in "deliver",
    /// A rule of the policy, or its default, drops it.
    Policy = "policy" in "filter",
    /// A rule of the policy rejects it: its sender gets an answer.
    Rejected = "rejected" in "filter",
    /// An app sent from an address that is not its own.
    Spoofed = "spoofed" in "filter",
    /// The port at the app's side is not the app's to use.
    PortNotLeased = "port_not_leased" in "filter",
    /// It cannot be parsed to its end, and the policy drops such frames; or the wire's driver described it wrongly.
    Malformed = "malformed" in "filter",
    /// A later fragment of a packet whose first one was not seen.
    Fragment = "fragment" in "filter",
    /// The app has as many flows as it may have.
    FlowLimit = "flow_limit" in "filter",
    /// The queue of the frame's class was full.
    QueueFull = "queue_full" in "shape",
    /// The frame, and those before it, had waited too long in the queue of their class.
    Codel = "codel" in "shape",
    /// It is for the other end of the link alone (IEEE 802.1Q, 8.6.3; MAC control), and no `[[app]]` allows that.
    LinkControl = "link_control" in "forward",
    /// A flow rule of the receiving app's own drops it.
    FlowRule = "flow_rule" in "filter",
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
