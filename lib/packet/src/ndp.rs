//! Addresses in messages of Neighbor Discovery (RFC 4861), in which a liar could claim somebody else's.

use core::net::Ipv6Addr;

use crate::ip;
use crate::walk::be64;
use crate::{FlowKey, Fragment, Headers, MacAddr, Shape};

/// What a message of Neighbor Discovery says about addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// What kind of message it is.
    pub kind: Kind,
    /// The target address: whose link-layer address is asked for or told (RFC 4861, 4.3 and 4.4), or the better first
    /// hop of a redirect (4.5).
    pub target: Option<Ipv6Addr>,
    /// The source link-layer address option (RFC 4861, 4.6.1).
    pub source_link: Option<MacAddr>,
    /// The target link-layer address option (RFC 4861, 4.6.1).
    pub target_link: Option<MacAddr>,
}

/// The messages of RFC 4861, 4, under their types in ICMPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A host asks for routers.
    RouterSolicitation = 133,
    /// A router tells of itself.
    RouterAdvertisement = 134,
    /// Somebody asks for the target's link-layer address.
    NeighborSolicitation = 135,
    /// Somebody tells the target's link-layer address.
    NeighborAdvertisement = 136,
    /// A router names a better first hop.
    Redirect = 137,
}

impl Kind {
    const fn of(icmp_type: u8) -> Option<Self> {
        Some(match icmp_type {
            133 => Self::RouterSolicitation,
            134 => Self::RouterAdvertisement,
            135 => Self::NeighborSolicitation,
            136 => Self::NeighborAdvertisement,
            137 => Self::Redirect,
            _ => return None,
        })
    }

    /// Bytes before the options, and where the target address stands.
    const fn layout(self) -> (usize, Option<usize>) {
        match self {
            Self::RouterSolicitation => (8, None),
            Self::RouterAdvertisement => (16, None),
            Self::NeighborSolicitation | Self::NeighborAdvertisement => (24, Some(8)),
            Self::Redirect => (40, Some(8)),
        }
    }
}

/// Whether a packet is of Neighbor Discovery, by its type alone: one for which [`message`] gives `None` is malformed.
#[must_use]
pub fn is_ndp(key: &FlowKey) -> bool {
    key.shape() == Shape::Ipv6 && key.icmp().is_some_and(|(kind, _)| Kind::of(kind).is_some())
}

/// Reads the message of Neighbor Discovery in a frame; `headers` is what [`parse`](crate::parse) found in the frame.
///
/// `None` if it is none, or is not as RFC 4861 has it: too short, an option of length zero (4.6) or beyond the end, a
/// fragment (RFC 6980, 5), or two options of the same kind with different addresses, of which hosts may take either.
/// Hop limit, code and checksum are left to the receiver, which has to check them (7.1).
#[must_use]
pub fn message(frame: &[u8], headers: &Headers) -> Option<Message> {
    const SOURCE_LINK: u8 = 1;
    const TARGET_LINK: u8 = 2;
    let bytes = ip::icmp_message(frame, headers).filter(|_| headers.shape == Shape::Ipv6)?;
    let kind = Kind::of(*bytes.first()?).filter(|_| headers.fragment == Fragment::None)?;
    let (fixed, target) = kind.layout();
    let mut options = bytes.get(fixed..)?;
    let target = target.and_then(|at| address(bytes, at));
    let mut message = Message { kind, target, source_link: None, target_link: None };
    while let Some((&option, rest)) = options.split_first() {
        let length = usize::from(*rest.first()?) * 8;
        let body = options.get(..length).filter(|body| !body.is_empty())?;
        let place = match option {
            SOURCE_LINK => Some(&mut message.source_link),
            TARGET_LINK => Some(&mut message.target_link),
            _ => None,
        };
        if let Some(place) = place {
            let link = MacAddr::new(*body.get(2..)?.first_chunk()?);
            if place.replace(link).is_some_and(|before| before != link) {
                return None;
            }
        }
        options = options.get(length..)?;
    }
    Some(message)
}

/// The target address of a message that has one; see [`message`].
#[must_use]
pub fn target(frame: &[u8], headers: &Headers) -> Option<Ipv6Addr> {
    message(frame, headers)?.target
}

fn address(bytes: &[u8], at: usize) -> Option<Ipv6Addr> {
    Some(Ipv6Addr::from_bits(u128::from(be64(bytes, at)?) << 64 | u128::from(be64(bytes, at + 8)?)))
}
