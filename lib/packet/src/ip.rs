//! Where an IP packet ends within its frame, and the number that its fragments share.

use crate::walk::{self, IPV6, be16, be32, extension};
use crate::{Fragment, Headers, Shape, proto};

/// Length of one IPv6 extension header of type `kind` whose length field is `length`, in bytes (RFC 8200, 4;
/// RFC 4302, 2.2 for the authentication header).
pub(crate) const fn extension_length(kind: u8, length: u8) -> usize {
    match kind {
        extension::FRAGMENT => 8,
        extension::AUTHENTICATION => (length as usize + 2) * 4,
        _ => (length as usize + 1) * 8,
    }
}

/// The IP packet in the frame, from its header to the end that it claims for itself, without padding of the frame.
/// `None` unless it is a whole IP packet.
pub(crate) fn packet<'a>(frame: &'a [u8], headers: &Headers) -> Option<&'a [u8]> {
    let rest = frame.get(usize::from(headers.l3_offset)..)?;
    let length = match headers.shape {
        Shape::Ipv4 => usize::from(be16(rest, 2)?),
        Shape::Ipv6 => IPV6 + usize::from(be16(rest, 4)?),
        _ => return None,
    };
    rest.get(..length)
}

/// What lies in the packet from the transport header on. `None` if there is none to be read.
pub(crate) fn transport<'a>(frame: &'a [u8], headers: &Headers) -> Option<&'a [u8]> {
    let start = usize::from(headers.l4_offset.checked_sub(headers.l3_offset)?);
    packet(frame, headers)?.get(start..).filter(|_| headers.l4_offset > 0)
}

/// The transport header and what follows, if it is ICMP of the packet's family in a whole packet.
pub(crate) fn icmp_message<'a>(frame: &'a [u8], headers: &Headers) -> Option<&'a [u8]> {
    let icmp = matches!((headers.shape, headers.proto), (Shape::Ipv4, proto::ICMP) | (Shape::Ipv6, proto::ICMPV6));
    transport(frame, headers).filter(|_| icmp)
}

/// The identification that all fragments of one IP packet share: 16 bits in IPv4 (RFC 791, 3.1), 32 in IPv6 (RFC 8200,
/// 4.5). `None` if the packet is no fragment.
#[must_use]
pub fn fragment_id(frame: &[u8], headers: &Headers) -> Option<u32> {
    if headers.fragment == Fragment::None {
        return None;
    }
    let packet = packet(frame, headers)?;
    if headers.shape == Shape::Ipv4 {
        return be16(packet, 4).map(u32::from);
    }
    let (mut kind, mut at) = (*packet.get(6)?, IPV6);
    for _ in 0..walk::MAX_EXTENSIONS {
        let &[next, length, ..] = packet.get(at..)?.first_chunk::<8>()?;
        match kind {
            extension::FRAGMENT => return be32(packet, at + 4),
            _ if !walk::is_extension(kind) => return None,
            _ => at += extension_length(kind, length),
        }
        kind = next;
    }
    None
}
