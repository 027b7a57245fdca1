//! Protocols over IP.

use super::bytes::Bytes;
use super::line::Line;
use super::sum::{self, Sum};
use super::{icmp, icmp6, ip4, ip6, tcp};
use kopi_packet::proto;
use std::net::IpAddr;

/// Most packets inside packets that are read.
const DEPTH_MAX: u8 = 3;
/// Bytes of UDP's header.
const UDP_HEADER: usize = 8;

/// A packet of either version of IP.
#[derive(Clone, Copy, Debug)]
pub(super) struct Packet<'f> {
    pub(super) src: IpAddr,
    pub(super) dst: IpAddr,
    pub(super) proto: u8,
    /// Behind the header and its extensions.
    pub(super) payload: Bytes<'f>,
    /// Where it belongs in the whole, in bytes, if it is a fragment.
    pub(super) fragment: Option<usize>,
    /// How many packets there are around it.
    pub(super) depth: u8,
}

/// Reads what `packet` carries.
pub(super) fn print(line: &mut Line, packet: &Packet<'_>) {
    let Packet { src, dst, proto, payload, fragment, depth } = *packet;
    let is_first = fragment.is_none_or(|offset| offset == 0);
    if is_first && matches!(proto, 6 | 17 | 33 | 132 | 136) {
        let Some((from, to)) = payload.u16(0).zip(payload.u16(2)) else {
            line.say(format_args!("{src} > {dst}: "));
            return line.cut(&proto::name(proto).unwrap_or("ip").to_lowercase());
        };
        if depth == 0 {
            line.fields.ports = Some((from, to));
        }
        line.say(format_args!("{src}.{from} > {dst}.{to}: "));
    } else {
        line.say(format_args!("{src} > {dst}: "));
    }
    if let Some(offset) = fragment {
        line.say(format_args!("frag ({offset}|{}) ", payload.length()));
    }
    if !is_first {
        return match proto::name(proto) {
            Some(name) => line.say(format_args!("{}", name.to_lowercase())),
            None => line.say(format_args!("ip-proto-{proto}")),
        };
    }
    match proto {
        1 => icmp::print(line, packet),
        4 if depth < DEPTH_MAX => ip4::print(line, payload, depth + 1),
        6 => tcp::print(line, packet),
        17 => udp(line, packet),
        41 if depth < DEPTH_MAX => ip6::print(line, payload, depth + 1),
        50 => match payload.u32(0).zip(payload.u32(4)) {
            Some((spi, seq)) => {
                line.say(format_args!("ESP(spi={spi:#010x},seq={seq:#x}), length {}", payload.length()))
            }
            None => line.cut("esp"),
        },
        58 => icmp6::print(line, packet),
        59 => line.say(format_args!("no next header")),
        _ => match proto::name(proto) {
            Some(name) => line.say(format_args!("{name}, length {}", payload.length())),
            None => line.say(format_args!("ip-proto-{proto}, length {}", payload.length())),
        },
    }
}

/// UDP (RFC 768).
fn udp(line: &mut Line, packet: &Packet<'_>) {
    let payload = packet.payload;
    let Some(stated) = payload.u16(4).map(usize::from) else { return line.cut("udp") };
    // A length of zero goes with a jumbogram (RFC 2675).
    let length = if stated == 0 { payload.length() } else { stated };
    if length < UDP_HEADER {
        return line.say(format_args!("UDP, bad length {length}"));
    }
    if line.is_verbose() && packet.fragment.is_none() && length <= payload.length() {
        udp_sum(line, packet, length);
    }
    let data = length - UDP_HEADER;
    if length > payload.length() && packet.fragment.is_none() {
        let there = payload.length().saturating_sub(UDP_HEADER);
        line.say(format_args!("UDP, bad length {data} > {there}"));
    } else {
        line.say(format_args!("UDP, length {data}"));
    }
}

fn udp_sum(line: &mut Line, packet: &Packet<'_>, length: usize) {
    let Some(stated) = packet.payload.u16(6) else { return };
    if stated == 0 && packet.src.is_ipv4() {
        return line.say(format_args!("[no cksum] "));
    }
    match sum::check_transport(packet.payload.first(length), 6, (packet.src, packet.dst), 17) {
        Some(Sum::Good) => line.say(format_args!("[udp sum ok] ")),
        Some(Sum::Bad(right)) => line.say(format_args!("[bad udp cksum {stated:#06x} -> {right:#06x}!] ")),
        None => {}
    }
}
