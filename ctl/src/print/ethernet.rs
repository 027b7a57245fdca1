//! Ethernet, VLAN tags and ethertypes.

use super::bytes::Bytes;
use super::line::Line;
use super::{arp, ip4, ip6};
use kopi_packet::ethertype;

/// Ethertypes of a tag: IEEE 802.1Q, 802.1ad, and the older ones for an outer tag.
const TAGS: [u16; 4] = [0x8100, 0x88a8, 0x9100, 0x9200];
/// Most tags that are followed.
const TAGS_MAX: usize = 8;
/// Most that the field says if it is a length (IEEE 802.3, 3.2.6).
const LENGTH_MAX: u16 = 1500;

/// Reads a whole frame.
pub(super) fn print(line: &mut Line, frame: Bytes<'_>) {
    if headers(line, frame).is_none() {
        line.cut("ether");
    }
}

fn headers(line: &mut Line, frame: Bytes<'_>) -> Option<()> {
    let (from, to) = (frame.mac(6)?, frame.mac(0)?);
    line.fields.macs = Some((from, to));
    let (mut kind, mut at) = (frame.u16(12)?, 14);
    if line.style.link {
        line.say(format_args!("{from} > {to}, {}, length {}: ", Kind(kind), frame.length()));
    }
    for _ in 0..TAGS_MAX {
        if !TAGS.contains(&kind) {
            break;
        }
        let tag = frame.u16(at)?;
        let (id, priority) = (tag & 0xfff, tag >> 13);
        let eligible = if tag & 0x1000 > 0 { ", DEI" } else { "" };
        line.fields.vlan.get_or_insert(id);
        line.say(format_args!("vlan {id}, p {priority}{eligible}, "));
        kind = frame.u16(at + 2)?;
        at += 4;
        if line.style.link {
            line.say(format_args!("{}, ", Kind(kind)));
        }
    }
    line.fields.ethertype = Some(kind);
    payload(line, kind, frame.after(at));
    Some(())
}

fn payload(line: &mut Line, kind: u16, payload: Bytes<'_>) {
    match kind {
        ethertype::IPV4 => ip4::print(line, payload, 0),
        ethertype::IPV6 => ip6::print(line, payload, 0),
        ethertype::ARP => arp::print(line, payload),
        _ => {
            if !line.style.link {
                if let Some((from, to)) = line.fields.macs {
                    line.say(format_args!("{from} > {to}, "));
                }
                line.say(format_args!("{}, ", Kind(kind)));
            }
            match (kind, payload.u8(0), payload.u8(1)) {
                (0..=LENGTH_MAX, Some(0x42), Some(0x42)) => line.say(format_args!("STP, ")),
                (0..=LENGTH_MAX, Some(to), Some(from)) => {
                    line.say(format_args!("LLC, dsap {to:#04x}, ssap {from:#04x}, "));
                }
                _ => {}
            }
            line.say(format_args!("length {}", payload.length()));
        }
    }
}

/// An ethertype, or the length that stands in its place.
struct Kind(u16);

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self(kind) = *self;
        match ethertype::name(kind) {
            Some(name) => write!(f, "ethertype {name} ({kind:#06x})"),
            None if kind <= LENGTH_MAX => write!(f, "802.3"),
            None => write!(f, "ethertype Unknown ({kind:#06x})"),
        }
    }
}
