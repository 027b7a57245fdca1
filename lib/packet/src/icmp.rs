//! The packet that an ICMP error is about.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::ip;
use crate::key::{is_echo, layer};
use crate::walk::{self, IPV4, IPV6, be16, be64, extension};
use crate::{FlowKey, Headers, Shape, proto};

/// Bytes of an ICMP header, behind which the quoted packet begins (RFC 792; RFC 4443, 3).
const HEADER: usize = 8;

/// The start of a packet that an ICMP error quotes: as much as is needed to find the connection that it belonged to.
///
/// It went the other way than the error does: its source is whom the error is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quoted {
    /// Source address.
    pub src: IpAddr,
    /// Destination address, of the same family.
    pub dst: IpAddr,
    /// IP protocol, after IPv6 extension headers.
    pub proto: u8,
    /// Source and destination port of TCP, UDP, UDP-Lite or SCTP.
    pub ports: Option<(u16, u16)>,
    /// Type of ICMP, and the identifier if it is an echo, else zero.
    pub icmp: Option<(u8, u16)>,
}

/// Whether a packet is an ICMP or ICMPv6 error, and so quotes another packet.
///
/// # Source
///
/// RFC 792 (destination unreachable, source quench, redirect, time exceeded, parameter problem) and RFC 4443, 2.1 (every
/// type below 128).
#[must_use]
pub fn is_error(key: &FlowKey) -> bool {
    let v6 = key.kind().layer == layer::IPV6;
    key.icmp().is_some_and(|(kind, _)| is_error_type(v6, kind))
}

pub(crate) const fn is_error_type(v6: bool, kind: u8) -> bool {
    if v6 { kind < 128 } else { matches!(kind, 3 | 4 | 5 | 11 | 12) }
}

/// The packet that the ICMP error in a frame is about; `headers` is what [`parse`](crate::parse) found in the frame.
///
/// `None` if the frame is no such error, or quotes too little to tell, or a later fragment, which has no ports. The
/// quoted packet is cut short as a rule, so its lengths and checksums are not checked; only what is there is read.
#[must_use]
pub fn embedded(frame: &[u8], headers: &Headers) -> Option<Quoted> {
    let message = ip::icmp_message(frame, headers)?;
    let v6 = headers.shape == Shape::Ipv6;
    if !is_error_type(v6, *message.first()?) {
        return None;
    }
    let packet = message.get(HEADER..)?;
    if v6 { quoted_v6(packet) } else { quoted_v4(packet) }
}

fn quoted_v4(packet: &[u8]) -> Option<Quoted> {
    let header = packet.first_chunk::<IPV4>()?;
    let length = usize::from(header[0] & 0x0f) * 4;
    let offset = u16::from_be_bytes([header[6], header[7]]) & 0x1fff;
    if header[0] >> 4 != 4 || length < IPV4 || offset != 0 {
        return None;
    }
    let [.., s0, s1, s2, s3, d0, d1, d2, d3] = *header;
    let addresses = (Ipv4Addr::new(s0, s1, s2, s3).into(), Ipv4Addr::new(d0, d1, d2, d3).into());
    transport(addresses, layer::IPV4, header[9], packet.get(length..)?)
}

fn quoted_v6(packet: &[u8]) -> Option<Quoted> {
    let header = packet.first_chunk::<IPV6>()?;
    if header[0] >> 4 != 6 {
        return None;
    }
    let address =
        |at| Some(Ipv6Addr::from_bits(u128::from(be64(header, at)?) << 64 | u128::from(be64(header, at + 8)?)));
    let addresses = (address(8)?.into(), address(24)?.into());
    let (mut kind, mut at) = (header[6], IPV6);
    for _ in 0..walk::MAX_EXTENSIONS {
        if !walk::is_extension(kind) {
            break;
        }
        let extension = packet.get(at..)?.first_chunk::<8>()?;
        if kind == extension::FRAGMENT && be16(extension, 2)? & 0xfff8 != 0 {
            return None;
        }
        at += ip::extension_length(kind, extension[1]);
        kind = extension[0];
    }
    if walk::is_extension(kind) {
        return None;
    }
    transport(addresses, layer::IPV6, kind, packet.get(at..)?)
}

/// The transport header at the start of `payload`, of which eight bytes are there as a rule (RFC 792).
fn transport((src, dst): (IpAddr, IpAddr), layer: u8, proto: u8, payload: &[u8]) -> Option<Quoted> {
    let plain = Quoted { src, dst, proto, ports: None, icmp: None };
    match (layer, proto) {
        (_, proto::TCP | proto::UDP | proto::UDP_LITE | proto::SCTP) => {
            Some(Quoted { ports: Some((be16(payload, 0)?, be16(payload, 2)?)), ..plain })
        }
        (layer::IPV4, proto::ICMP) | (layer::IPV6, proto::ICMPV6) => {
            let kind = *payload.first()?;
            let id = if is_echo(layer, kind) { be16(payload, 4)? } else { 0 };
            Some(Quoted { icmp: Some((kind, id)), ..plain })
        }
        _ => Some(plain),
    }
}
