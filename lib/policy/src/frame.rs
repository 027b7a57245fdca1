//! What is evaluated, and what comes of it.

use kopi_config::policy::{Decision, Direction, State};
use kopi_packet::{FlowKey, dhcp, ndp};

/// A frame at the app side of one app, as the rules see it.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    /// Which way it goes, from that app's side.
    pub direction: Direction,
    /// Everything that rules can ask for. Which port the frame came from is not looked at; flags of TCP are those of
    /// [`FlowKey::with_tcp_flags`], of which only those in
    /// [`Ruleset::tcp_flags_mask`](crate::Ruleset::tcp_flags_mask) count.
    pub key: &'a FlowKey,
    /// What connection tracking says; not looked at unless [`Ruleset::uses_state`](crate::Ruleset::uses_state).
    pub state: State,
    /// What [`ndp::message`] says of a frame for which [`ndp::is_ndp`] is true. Such frames must not share an evaluation by
    /// their key. Looked at on egress only.
    pub ndp: Option<ndp::Message>,
    /// The same for [`dhcp::request`] and [`dhcp::is_for_server`].
    pub dhcp: Option<dhcp::Request>,
}

impl<'a> Packet<'a> {
    /// A frame that is neither of neighbour discovery nor for a server of DHCP.
    #[must_use]
    pub const fn new(direction: Direction, key: &'a FlowKey, state: State) -> Self {
        Self { direction, key, state, ndp: None, dhcp: None }
    }
}

/// What is to be done with a frame, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Evaluation {
    /// What is to be done.
    pub decision: Decision,
    /// Why.
    pub cause: Cause,
    /// Which rules matched on the way to it and went on: one bit each, see
    /// [`Ruleset::passing_rules`](crate::Ruleset::passing_rules).
    pub passing: u64,
    /// The class: that of the deciding rule, else of the last rule passed that has one, else of the app. An index into
    /// [`Policy::classes`](kopi_config::policy::Policy::classes).
    pub class: Option<u16>,
    /// Whether the deciding rule, or one that was passed, asks for a line in the log.
    pub log: bool,
}

/// What decided about a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Cause {
    /// The rule with this index.
    Rule(u32),
    /// No rule: the default of the direction.
    Default,
    /// What the frame uses is not the app's.
    PortSecurity(Violation),
    /// It could not be parsed to its end.
    Malformed,
    /// It is a later fragment, and its first one was not seen.
    Fragment,
}

impl Cause {
    /// The index of the rule, if it was one.
    #[must_use]
    pub const fn rule(self) -> Option<u32> {
        match self {
            Self::Rule(index) => Some(index),
            Self::Default | Self::PortSecurity(_) | Self::Malformed | Self::Fragment => None,
        }
    }
}

/// What a frame uses that is not its app's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Violation {
    /// The source address of the frame.
    Mac,
    /// The source address of IP.
    Ip,
    /// The sender's hardware or protocol address of ARP.
    Arp,
    /// The target or a link-layer address of neighbour discovery; or what claims to be of it cannot be read.
    Ndp,
    /// What only routers say: advertisements, redirects, questions for members of groups, election of a router.
    Router,
    /// What only servers of DHCP say, or what a client says of itself and is not true.
    Dhcp,
    /// A packet or frame inside, whose addresses nobody checks.
    Tunnel,
    /// The port at the app's side: another app lists it and this one does not, or a new connection comes to a port that is
    /// not on the app's list.
    Listen,
}

impl Violation {
    /// All of them.
    pub const ALL: [Self; 8] =
        [Self::Mac, Self::Ip, Self::Arp, Self::Ndp, Self::Router, Self::Dhcp, Self::Tunnel, Self::Listen];

    /// A stable name, for the command line and counters.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mac => "spoofed_mac",
            Self::Ip => "spoofed_ip",
            Self::Arp => "spoofed_arp",
            Self::Ndp => "spoofed_ndp",
            Self::Router => "spoofed_router",
            Self::Dhcp => "spoofed_dhcp",
            Self::Tunnel => "spoofed_tunnel",
            Self::Listen => "port_not_leased",
        }
    }
}
