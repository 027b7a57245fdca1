//! What a frame is to connection tracking, and the tuple by which it finds its connection.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use kopi_config::policy::{Direction, State};
use kopi_packet::icmp::{self, Quoted};
use kopi_packet::{FlowKey, Fragment, Shape, proto};

/// What a frame is to connection tracking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sort {
    /// It belongs to the connection with this tuple, or may begin it.
    Tracked(Tuple),
    /// An ICMP error: what it is about stands in its payload.
    Error,
    /// Its state is clear without a lookup in the table: [`State::Untracked`] or [`State::Invalid`].
    Clear(State),
}

/// By what a frame finds its connection: the zone, which is the app's port number, so that each app has its own view of
/// its connections; VLANs; protocol; and addresses and ports of both ends, local first, so that both directions find the
/// same.
///
/// ```text
/// word 0   zone:16 | protocol:8 | family and who asks:8 | outer VLAN:16 | inner VLAN:16
///      1   local port:16 | remote port:16 | 0:32 (the table puts the life of the zone here)
///   2, 3   local address: IPv6, or IPv4 in the low half of word 3
///   4, 5   remote address
/// ```
///
/// ICMP requests that have replies have their identifier in the place of the local port, if they are echoes, and their
/// type in that of the remote port; both ends may ask at once with the same identifier, so it matters who does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuple {
    pub(crate) words: [u64; 6],
}

const FAMILY: u8 = 0x0f;
const V4: u8 = 4;
const V6: u8 = 6;
/// The remote end asks and the local one replies.
const REMOTE_ASKS: u8 = 0x80;

/// What both a frame and a quotation of one have to say.
struct Ends {
    zone: u16,
    vlans: (u16, u16),
    direction: Direction,
    proto: u8,
    src: IpAddr,
    dst: IpAddr,
    ports: Option<(u16, u16)>,
    /// Type and identifier.
    icmp: Option<(u8, u16)>,
}

impl Sort {
    /// What the frame with this key is, at the policy hook of app `zone`, which it leaves or reaches.
    #[must_use]
    pub fn of(zone: u16, key: &FlowKey, direction: Direction) -> Self {
        let (src, dst) = match (key.shape(), key.src_addr(), key.dst_addr()) {
            (Shape::Malformed(_), ..) => return Self::Clear(State::Invalid),
            (Shape::Ipv4 | Shape::Ipv6, Some(src), Some(dst)) => (src, dst),
            _ => return Self::Clear(State::Untracked),
        };
        // The addresses of IP count, not that of Ethernet: a host may take what comes by broadcast for its own.
        if is_group(dst) || is_discovery(key) {
            return Self::Clear(State::Untracked);
        }
        if key.fragment() == Fragment::Later {
            return Self::Clear(State::Invalid);
        }
        if icmp::is_error(key) {
            return Self::Error;
        }
        let ends = Ends {
            zone,
            vlans: vlans(key),
            direction,
            proto: key.proto(),
            src,
            dst,
            ports: key.src_port().zip(key.dst_port()),
            icmp: key.icmp().map(|(kind, _)| (kind, key.icmp_id().unwrap_or(0))),
        };
        Tuple::new(&ends).map_or(Self::Clear(State::Invalid), Self::Tracked)
    }
}

fn vlans(key: &FlowKey) -> (u16, u16) {
    (key.outer_vlan().map_or(0, |tag| tag.id()), key.inner_vlan().map_or(0, |tag| tag.id()))
}

fn is_group(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_multicast() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_multicast(),
    }
}

/// Neighbor Discovery and Multicast Listener Discovery (RFC 2710, RFC 3810, RFC 4861), which Linux does not track.
fn is_discovery(key: &FlowKey) -> bool {
    let icmpv6 = key.shape() == Shape::Ipv6 && key.proto() == proto::ICMPV6;
    icmpv6 && key.icmp().is_some_and(|(kind, _)| matches!(kind, 130..=137 | 143))
}

/// The type of the request, and whether this is it and not the reply. `None` for messages that do not come in pairs.
const fn question(v6: bool, kind: u8) -> Option<(u8, bool)> {
    Some(match (v6, kind) {
        // Echo, timestamp, information, address mask (RFC 792, RFC 950).
        (false, 8 | 13 | 15 | 17) => (kind, true),
        (false, 0) => (8, false),
        (false, 14 | 16 | 18) => (kind - 1, false),
        // Echo, node information (RFC 4443, RFC 4620).
        (true, 128 | 139) => (kind, true),
        (true, 129 | 140) => (kind - 1, false),
        _ => return None,
    })
}

impl Tuple {
    /// The tuple of the frame with this key; `None` if it has none, as [`Sort::of`] tells.
    #[must_use]
    pub fn of(zone: u16, key: &FlowKey, direction: Direction) -> Option<Self> {
        match Sort::of(zone, key, direction) {
            Sort::Tracked(tuple) => Some(tuple),
            Sort::Error | Sort::Clear(_) => None,
        }
    }

    /// The tuple of the packet that an ICMP error is about. `key` and `direction` are the error's; the packet went the
    /// other way.
    ///
    /// `None` if the packet could not have had a connection, or the error is for somebody else than who sent the packet.
    #[must_use]
    pub fn quoted(zone: u16, key: &FlowKey, direction: Direction, quoted: &Quoted) -> Option<Self> {
        let direction = match direction {
            Direction::Egress => Direction::Ingress,
            Direction::Ingress => Direction::Egress,
        };
        let &Quoted { src, dst, proto, ports, icmp } = quoted;
        let for_sender = key.dst_addr() == Some(src);
        let ends = Ends { zone, vlans: vlans(key), direction, proto, src, dst, ports, icmp };
        Self::new(&ends).filter(|_| for_sender)
    }

    fn new(ends: &Ends) -> Option<Self> {
        let &Ends { zone, vlans, direction, proto, src, dst, ports, icmp } = ends;
        let egress = direction == Direction::Egress;
        let (local, remote) = if egress { (src, dst) } else { (dst, src) };
        let v6 = src.is_ipv6();
        let (asks, local_port, remote_port) = match (icmp, ports) {
            (Some((kind, id)), _) => {
                let (request, is_request) = question(v6, kind)?;
                (if is_request == egress { 0 } else { REMOTE_ASKS }, id, u16::from(request))
            }
            (None, Some((src, dst))) if egress => (0, src, dst),
            (None, Some((src, dst))) => (0, dst, src),
            (None, None) => (0, 0, 0),
        };
        let [z0, z1] = zone.to_be_bytes();
        let [o0, o1] = vlans.0.to_be_bytes();
        let [i0, i1] = vlans.1.to_be_bytes();
        let family = asks | if v6 { V6 } else { V4 };
        let ports = u64::from(local_port) << 48 | u64::from(remote_port) << 32;
        let ([l0, l1], [r0, r1]) = (halves(local), halves(remote));
        Some(Self { words: [u64::from_be_bytes([z0, z1, proto, family, o0, o1, i0, i1]), ports, l0, l1, r0, r1] })
    }

    /// The app whose view it is.
    #[must_use]
    pub const fn zone(&self) -> u16 {
        quarter(self.words[0], 3)
    }

    /// IP protocol.
    #[must_use]
    pub const fn proto(&self) -> u8 {
        self.words[0].to_be_bytes()[2]
    }

    /// VLANs of the outer and the inner tag; 0 for a tag that is not there.
    #[must_use]
    pub const fn vlans(&self) -> (u16, u16) {
        (quarter(self.words[0], 1), quarter(self.words[0], 0))
    }

    const fn kind(&self) -> u8 {
        self.words[0].to_be_bytes()[3]
    }

    /// The app's address.
    #[must_use]
    pub const fn local(&self) -> IpAddr {
        self.address(2)
    }

    /// The other end's address.
    #[must_use]
    pub const fn remote(&self) -> IpAddr {
        self.address(4)
    }

    const fn address(&self, word: usize) -> IpAddr {
        let (high, low) = (self.words[word], self.words[word + 1]);
        if self.kind() & FAMILY == V6 {
            return IpAddr::V6(Ipv6Addr::from_bits((high as u128) << 64 | low as u128));
        }
        let [_, _, _, _, a, b, c, d] = low.to_be_bytes();
        IpAddr::V4(Ipv4Addr::new(a, b, c, d))
    }

    const fn is_icmp(&self) -> bool {
        matches!((self.kind() & FAMILY, self.proto()), (V4, proto::ICMP) | (V6, proto::ICMPV6))
    }

    /// Local and remote port; `None` for protocols without ports, or whose ports are not read.
    #[must_use]
    pub const fn ports(&self) -> Option<(u16, u16)> {
        // The protocols for which the parser finds ports.
        match self.proto() {
            proto::TCP | proto::UDP | proto::UDP_LITE | proto::SCTP => {
                Some((quarter(self.words[1], 3), quarter(self.words[1], 2)))
            }
            _ => None,
        }
    }

    /// Type of the request and identifier of ICMP; the identifier is zero unless it is an echo.
    #[must_use]
    pub const fn icmp(&self) -> Option<(u8, u16)> {
        let [_, request] = quarter(self.words[1], 2).to_be_bytes();
        if self.is_icmp() { Some((request, quarter(self.words[1], 3))) } else { None }
    }

    /// Which way a request of ICMP goes; `None` for what is not ICMP.
    pub(crate) const fn asked(&self) -> Option<Direction> {
        if !self.is_icmp() {
            return None;
        }
        Some(if self.kind() & REMOTE_ASKS != 0 { Direction::Ingress } else { Direction::Egress })
    }
}

fn halves(address: IpAddr) -> [u64; 2] {
    match address {
        IpAddr::V4(v4) => [0, u64::from(v4.to_bits())],
        IpAddr::V6(v6) => {
            let [a, b, c, d, e, f, g, h, rest @ ..] = v6.octets();
            [u64::from_be_bytes([a, b, c, d, e, f, g, h]), u64::from_be_bytes(rest)]
        }
    }
}

/// One of the four 16-bit quarters of a word; quarter zero is the low one.
const fn quarter(word: u64, index: u32) -> u16 {
    let [low, high, ..] = (word >> (16 * index)).to_le_bytes();
    u16::from_le_bytes([low, high])
}
