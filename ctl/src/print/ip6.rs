//! IPv6 (RFC 8200) with its extension headers.

use super::bytes::Bytes;
use super::line::Line;
use super::transport::{self, Packet};
use kopi_packet::proto;

/// Bytes of the fixed header.
const HEADER: usize = 40;
/// Most extension headers that are followed.
const EXTENSIONS_MAX: usize = 16;

/// Reads a packet that is `depth` packets inside another one.
pub(super) fn print(line: &mut Line, packet: Bytes<'_>, depth: u8) {
    if !line.style.link || depth > 0 {
        line.say(format_args!("IP6 "));
    }
    if read(line, packet, depth).is_none() {
        line.cut("ip6");
    }
}

fn read(line: &mut Line, packet: Bytes<'_>, depth: u8) -> Option<()> {
    let word = packet.u32(0)?;
    if word >> 28 != 6 {
        line.say(format_args!("bad version {}, length {}", word >> 28, packet.length()));
        return Some(());
    }
    let (stated, next, hops) = (usize::from(packet.u16(4)?), packet.u8(6)?, packet.u8(7)?);
    let (src, dst) = (packet.ip6(8)?.into(), packet.ip6(24)?.into());
    if depth == 0 {
        line.fields.addresses = Some((src, dst));
        line.fields.proto = Some(next);
    }
    let rest = packet.after(HEADER);
    if stated > rest.length() {
        line.say(format_args!("truncated-ip6 - {} bytes missing! ", stated - rest.length()));
    }
    if line.is_verbose() {
        let (class, label) = ((word >> 20) & 0xff, word & 0xf_ffff);
        let name = proto::name(next).unwrap_or("unknown");
        line.say(format_args!("("));
        if class > 0 {
            line.say(format_args!("class {class:#04x}, "));
        }
        if label > 0 {
            line.say(format_args!("flowlabel {label:#07x}, "));
        }
        line.say(format_args!("hlim {hops}, next-header {name} ({next}) payload length: {stated}) "));
    }
    // A length of zero goes with a jumbogram (RFC 2675), or is what segmentation in hardware leaves behind.
    let payload = if stated == 0 { rest } else { rest.claimed(stated) };
    let packet = Packet { src, dst, proto: next, payload, fragment: None, depth };
    extensions(line, packet);
    Some(())
}

/// Follows the extension headers and reads what is behind them.
fn extensions(line: &mut Line, mut packet: Packet<'_>) {
    for _ in 0..EXTENSIONS_MAX {
        let name = match packet.proto {
            0 => "HBH",
            43 => "RT6",
            44 => "frag",
            60 => "DSTOPT",
            _ => break,
        };
        let Some(length) = one(&mut packet) else {
            line.say(format_args!("{} > {}: ", packet.src, packet.dst));
            return line.cut(name);
        };
        packet.payload = packet.payload.after(length);
        if packet.depth == 0 {
            line.fields.proto = Some(packet.proto);
        }
        if line.is_verbose() && name != "frag" {
            line.say(format_args!("{name} "));
        }
        if packet.fragment.is_some_and(|offset| offset > 0) {
            break;
        }
    }
    transport::print(line, &packet);
}

/// Reads one extension header, and returns its length in bytes.
fn one(packet: &mut Packet<'_>) -> Option<usize> {
    let bytes = packet.payload;
    let (next, units) = (bytes.u8(0)?, usize::from(bytes.u8(1)?));
    let length = if packet.proto == 44 {
        let word = bytes.u16(2)?;
        packet.fragment = Some(usize::from(word & 0xfff8));
        8
    } else {
        (units + 1) * 8
    };
    packet.proto = next;
    Some(length)
}
