//! The answer to a packet that a policy rejects: a reset for TCP, an ICMP error for other IP.
//!
//! Both are written into a buffer of the caller's, in the name of the packet's destination, as if the destination had
//! refused it: the policy point has no address of its own. Link-layer addresses are swapped and VLAN tags kept, so that
//! the answer takes the packet's way back.

use core::net::{Ipv4Addr, Ipv6Addr};

use crate::checksum::{checksum, sum};
use crate::icmp::is_error_type;
use crate::proto::{ICMP, ICMPV6, TCP};
use crate::tcp::{Segment, flags};
use crate::walk::{ETHERNET, IPV4, IPV6, TAG};
use crate::{Fragment, Headers, Shape, ip};

/// Longest answer, in bytes of frame: two VLAN tags and an ICMPv6 error (RFC 4443, 3.1).
pub const MAX_LEN: usize = ETHERNET + 2 * TAG + MAX_IPV6;

/// Largest ICMP error in IPv4, with its IP header (RFC 1812, 4.3.2.3).
const MAX_IPV4: usize = 576;
/// Largest ICMP error in IPv6, with its IP header: the least MTU of IPv6 (RFC 4443, 2.4 (c)).
const MAX_IPV6: usize = 1280;
/// Bytes of a TCP header without options.
const TCP_HEADER: usize = 20;
/// Bytes of an ICMP header.
const ICMP_HEADER: usize = 8;
/// TTL and hop limit of answers (RFC 1700, "IP TIME TO LIVE").
const HOPS: u8 = 64;
/// Precedence "internetwork control", which ICMP errors have (RFC 1812, 4.3.2.5).
const INTERNETWORK_CONTROL: u8 = 0xc0;

/// Writes the reset that refuses the TCP segment in `frame` to `out`, and returns its length in bytes.
///
/// `headers` is what [`parse`](crate::parse) found in `frame`. `None`, with nothing useful in `out`, if there must be no
/// answer: to anything but a whole TCP segment, to a reset, and to what did not come from one host or was not for one;
/// or if `out` is shorter than the answer, which [`MAX_LEN`] always holds.
///
/// # Source
///
/// RFC 9293, 3.10.7.1: what a closed port answers. RFC 9293, 3.9.2.3 for multicast and broadcast addresses.
#[must_use]
pub fn tcp_reset(frame: &[u8], headers: &Headers, out: &mut [u8]) -> Option<usize> {
    let segment = Segment::of(frame, headers).filter(|segment| segment.whole && !segment.has(flags::RST))?;
    let received = ip::transport(frame, headers)?;
    let (seq, ack, flags) = match segment.has(flags::ACK) {
        true => (segment.ack, 0, flags::RST),
        false => (0, segment.end(), flags::RST | flags::ACK),
    };
    let mut header = [0; TCP_HEADER];
    header[..2].copy_from_slice(received.get(2..4)?);
    header[2..4].copy_from_slice(received.get(..2)?);
    header[4..8].copy_from_slice(&seq.to_be_bytes());
    header[8..12].copy_from_slice(&ack.to_be_bytes());
    // Five words of header.
    header[12] = 5 << 4;
    header[13] = flags;
    let back = Back::of(frame, headers)?;
    back.write(out, Envelope { proto: TCP, traffic_class: 0, checksum_at: 16 }, &header, &[])
}

/// Writes the ICMP error that refuses the IP packet in `frame` to `out`, and returns its length in bytes: port
/// unreachable, with as much of the packet as an error may hold.
///
/// `headers` is what [`parse`](crate::parse) found in `frame`. `None`, with nothing useful in `out`, if there must be no
/// answer: to anything but an intact IP packet, to later fragments, to ICMP errors, redirects and Neighbor Discovery,
/// and to what did not come from one host or was not for one; or if `out` is shorter than the answer, which [`MAX_LEN`]
/// always holds.
///
/// # Source
///
/// RFC 792 and RFC 1812, 4.3.2 (type 3, code 3, at most 576 bytes); RFC 4443, 2.4 and 3.1 (type 1, code 4, at most 1,280
/// bytes).
#[must_use]
pub fn unreachable(frame: &[u8], headers: &Headers, out: &mut [u8]) -> Option<usize> {
    let packet = ip::packet(frame, headers)?;
    if headers.fragment == Fragment::Later {
        return None;
    }
    let v6 = headers.shape == Shape::Ipv6;
    if let Some(&[kind, ..]) = ip::icmp_message(frame, headers)
        && (is_error_type(v6, kind) || (v6 && (133..=137).contains(&kind)))
    {
        return None;
    }
    let back = Back::of(frame, headers)?;
    let (proto, kind, code, room) = match v6 {
        true => (ICMPV6, 1, 4, MAX_IPV6 - IPV6 - ICMP_HEADER),
        false => (ICMP, 3, 3, MAX_IPV4 - IPV4 - ICMP_HEADER),
    };
    let header = [kind, code, 0, 0, 0, 0, 0, 0];
    let quoted = packet.get(..room).unwrap_or(packet);
    let traffic_class = if v6 { 0 } else { INTERNETWORK_CONTROL };
    back.write(out, Envelope { proto, traffic_class, checksum_at: 2 }, &header, quoted)
}

/// The way back to the sender of a packet.
struct Back<'a> {
    /// Ethernet header and VLAN tags of the packet.
    link: &'a [u8],
    /// IP addresses of the packet.
    hosts: Hosts<'a>,
}

enum Hosts<'a> {
    V4 { src: &'a [u8; 4], dst: &'a [u8; 4] },
    V6 { src: &'a [u8; 16], dst: &'a [u8; 16] },
}

/// What an answer's IP header says of it.
struct Envelope {
    proto: u8,
    traffic_class: u8,
    /// Where the checksum stands in the transport header.
    checksum_at: usize,
}

impl<'a> Back<'a> {
    /// `None` if the packet is not from one host to one host (RFC 1122, 3.2.2; RFC 4443, 2.4 (e)).
    fn of(frame: &'a [u8], headers: &Headers) -> Option<Self> {
        let packet = ip::packet(frame, headers)?;
        let link = frame.get(..usize::from(headers.l3_offset))?;
        // With LLC and SNAP, the length in the header would be that of the packet and not of the answer.
        if link.len() != ETHERNET + TAG * usize::from(headers.vlans) {
            return None;
        }
        let (to, from) = (*link.first()?, *link.get(6)?);
        if (to | from) & 1 != 0 {
            return None;
        }
        let hosts = match headers.shape {
            Shape::Ipv4 => {
                let (src, dst) = (packet.get(12..)?.first_chunk()?, packet.get(16..)?.first_chunk()?);
                let one_host = |octets: [u8; 4]| (1..224).contains(&octets[0]) && !Ipv4Addr::from(octets).is_loopback();
                (one_host(*src) && one_host(*dst)).then_some(Hosts::V4 { src, dst })
            }
            _ => {
                let (src, dst): (&[u8; 16], _) = (packet.get(8..)?.first_chunk()?, packet.get(24..)?.first_chunk()?);
                let one_host = |octets: [u8; 16]| {
                    let address = Ipv6Addr::from(octets);
                    !address.is_multicast() && !address.is_unspecified() && !address.is_loopback()
                };
                (one_host(*src) && one_host(*dst)).then_some(Hosts::V6 { src, dst })
            }
        }?;
        Some(Self { link, hosts })
    }

    /// Puts the whole frame together, with `header` and `payload` behind the IP header.
    fn write(&self, out: &mut [u8], envelope: Envelope, header: &[u8], payload: &[u8]) -> Option<usize> {
        let Envelope { proto, traffic_class, checksum_at } = envelope;
        let length = header.len() + payload.len();
        let l3 = self.link.len();
        let link = out.get_mut(..l3)?;
        link.copy_from_slice(self.link);
        link.get_mut(..6)?.copy_from_slice(self.link.get(6..12)?);
        link.get_mut(6..12)?.copy_from_slice(self.link.get(..6)?);

        let rest = out.get_mut(l3..)?;
        let (l4, addresses) = match self.hosts {
            Hosts::V4 { src, dst } => {
                let total = u16::try_from(IPV4 + length).ok()?.to_be_bytes();
                let ip = rest.first_chunk_mut::<IPV4>()?;
                // An identification is not needed by what may not be fragmented (RFC 6864, 4.1).
                ip[..10].copy_from_slice(&[0x45, traffic_class, total[0], total[1], 0, 0, 0x40, 0, HOPS, proto]);
                ip[10..12].fill(0);
                ip[12..16].copy_from_slice(dst);
                ip[16..].copy_from_slice(src);
                let checksum = checksum(sum(ip)).to_be_bytes();
                ip[10..12].copy_from_slice(&checksum);
                (IPV4, sum(src) + sum(dst))
            }
            Hosts::V6 { src, dst } => {
                let [l0, l1] = u16::try_from(length).ok()?.to_be_bytes();
                let ip = rest.first_chunk_mut::<IPV6>()?;
                ip[..8].copy_from_slice(&[0x60, 0, 0, 0, l0, l1, proto, HOPS]);
                ip[8..24].copy_from_slice(dst);
                ip[24..].copy_from_slice(src);
                (IPV6, sum(src) + sum(dst))
            }
        };
        let body = rest.get_mut(l4..l4 + length)?;
        body.get_mut(..header.len())?.copy_from_slice(header);
        body.get_mut(header.len()..)?.copy_from_slice(payload);
        // ICMP of IPv4 is summed without a pseudo header; its protocol number stands in no IPv6 header of ours.
        let pseudo = if proto == ICMP { 0 } else { addresses + u64::from(proto) + u64::try_from(length).ok()? };
        let checksum = checksum(pseudo + sum(body));
        body.get_mut(checksum_at..checksum_at + 2)?.copy_from_slice(&checksum.to_be_bytes());
        Some(l3 + l4 + length)
    }
}
