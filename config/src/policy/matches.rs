//! What a frame has to be for a rule.

use super::addresses::Addresses;
use super::field::Field;

/// Which way a frame goes, from the app's side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Direction {
    /// From the app.
    Egress,
    /// To the app.
    Ingress,
}

impl Direction {
    pub(super) const WORDS: [(&'static str, Self); 2] = [("egress", Self::Egress), ("ingress", Self::Ingress)];

    /// As it stands in a file.
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Egress => "egress",
            Self::Ingress => "ingress",
        }
    }
}

/// What a frame has to be for a rule to match. Every field that is stated has to hold.
///
/// A frame without the field, such as ARP for a port, matches neither a field nor its negation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Match {
    /// Which way it goes; both if `None`.
    pub direction: Option<Direction>,
    /// Ethertype after VLAN tags.
    pub ethertype: Option<Field<u16>>,
    /// VLAN of the outermost tag; 0 for a frame without one.
    pub vlan: Option<Field<u16>>,
    /// VLAN of the second tag; 0 for a frame without one.
    pub inner_vlan: Option<Field<u16>>,
    /// Source MAC address, as [`to_u64`](kopi_packet::MacAddr::to_u64).
    pub src_mac: Option<Field<u64>>,
    /// Destination MAC address, as [`to_u64`](kopi_packet::MacAddr::to_u64).
    pub dst_mac: Option<Field<u64>>,
    /// IP protocol. `icmp` in a file is both 1 in IPv4 and 58 in IPv6.
    pub proto: Option<Field<u8>>,
    /// Differentiated services code point of IP, 0 to 63.
    pub dscp: Option<Field<u8>>,
    /// Source address of IP.
    pub src: Option<Addresses>,
    /// Destination address of IP.
    pub dst: Option<Addresses>,
    /// Source port.
    pub src_port: Option<Field<u16>>,
    /// Destination port.
    pub dst_port: Option<Field<u16>>,
    /// Type and code of ICMP, `type << 8 | code`.
    pub icmp: Option<Field<u16>>,
    /// The same for ICMPv6.
    pub icmp6: Option<Field<u16>>,
    /// Flags of TCP: `(flags & mask) == value`.
    pub tcp_flags: Option<TcpFlags>,
    /// Operation of ARP.
    pub arp_op: Option<Field<u16>>,
    /// Sender's protocol address of ARP.
    pub arp_src: Option<Addresses>,
    /// Target's protocol address of ARP.
    pub arp_dst: Option<Addresses>,
    /// Sender's hardware address of ARP, as [`to_u64`](kopi_packet::MacAddr::to_u64).
    pub arp_src_mac: Option<Field<u64>>,
    /// State of the connection.
    pub state: Option<States>,
    /// Whether it is a fragment of an IP packet, the first one too.
    pub fragment: Option<bool>,
}

/// Flags of TCP that have to be set and clear: `"syn/syn,ack"` is `value` 2 under `mask` 18 (RFC 9293, 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TcpFlags {
    /// Flags that are looked at.
    pub mask: u8,
    /// Which of them are set.
    pub value: u8,
}

/// What connection tracking says of a frame. The words are those of nftables' `ct state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum State {
    /// It belongs to no connection yet, or to one that has not been answered.
    New = 0,
    /// It belongs to a connection with packets in both directions.
    Established = 1,
    /// It belongs to no connection itself, but is about one: an ICMP error.
    Related = 2,
    /// It fits no connection and cannot begin one.
    Invalid = 3,
    /// Connections are not a notion of its protocol: ARP and other frames that are not IP, and multicast.
    Untracked = 4,
}

/// A set of [`State`]s.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct States(u8);

impl States {
    /// The set of `states`.
    #[must_use]
    pub fn of(states: impl IntoIterator<Item = State>) -> Self {
        Self(states.into_iter().fold(0, |set, state| set | 1 << state as u8))
    }

    /// Whether `state` is in it.
    #[must_use]
    pub const fn contains(self, state: State) -> bool {
        self.0 & 1 << state as u8 != 0
    }
}

impl States {
    /// Every state.
    pub(super) const ALL: [(&'static str, State); 5] = [
        ("new", State::New),
        ("established", State::Established),
        ("related", State::Related),
        ("invalid", State::Invalid),
        ("untracked", State::Untracked),
    ];

    /// Every state that is not in it.
    #[must_use]
    pub const fn negated(self) -> Self {
        Self(!self.0 & 0b1_1111)
    }

    /// What is in both `self` and `other`.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Whether no state is in it.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}
