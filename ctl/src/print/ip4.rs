//! IPv4 (RFC 791).

use super::bytes::Bytes;
use super::line::Line;
use super::sum::{self, Sum};
use super::transport::{self, Packet};
use kopi_packet::proto;

/// Bytes of a header without options.
const HEADER_MIN: usize = 20;

/// Reads a packet that is `depth` packets inside another one.
pub(super) fn print(line: &mut Line, packet: Bytes<'_>, depth: u8) {
    if !line.style.link || depth > 0 {
        line.say(format_args!("IP "));
    }
    if read(line, packet, depth).is_none() {
        line.cut("ip");
    }
}

fn read(line: &mut Line, packet: Bytes<'_>, depth: u8) -> Option<()> {
    let first = packet.u8(0)?;
    let header = usize::from(first & 0xf) * 4;
    if first >> 4 != 4 {
        line.say(format_args!("bad version {}, length {}", first >> 4, packet.length()));
        return Some(());
    }
    if header < HEADER_MIN {
        line.say(format_args!("bad header length {header}, length {}", packet.length()));
        return Some(());
    }
    let stated = usize::from(packet.u16(2)?);
    // A length of zero is what segmentation in hardware leaves behind.
    let total = if stated == 0 { packet.length() } else { stated };
    if total < header {
        line.say(format_args!("bad length {stated}, length {}", packet.length()));
        return Some(());
    }
    let (word, proto) = (packet.u16(6)?, packet.u8(9)?);
    let (src, dst) = (packet.ip4(12)?.into(), packet.ip4(16)?.into());
    if depth == 0 {
        line.fields.addresses = Some((src, dst));
        line.fields.proto = Some(proto);
    }
    if total > packet.length() {
        line.say(format_args!("truncated-ip - {} bytes missing! ", total - packet.length()));
    }
    if line.is_verbose() {
        details(line, packet, header)?;
    }
    let (offset, more) = (usize::from(word & 0x1fff) * 8, word & 0x2000 > 0);
    let fragment = (offset > 0 || more).then_some(offset);
    let payload = packet.claimed(total).after(header);
    transport::print(line, &Packet { src, dst, proto, payload, fragment, depth });
    Some(())
}

fn details(line: &mut Line, packet: Bytes<'_>, header: usize) -> Option<()> {
    let (tos, total, id, word) = (packet.u8(1)?, packet.u16(2)?, packet.u16(4)?, packet.u16(6)?);
    let (ttl, proto) = (packet.u8(8)?, packet.u8(9)?);
    let ecn = ["", ",ECT(1)", ",ECT(0)", ",CE"][usize::from(tos & 3)];
    let flags: Vec<&str> = [(0x4000, "DF"), (0x2000, "+"), (0x8000, "evil")]
        .iter()
        .filter(|(bit, _)| word & bit > 0)
        .map(|(_, name)| *name)
        .collect();
    let flags = if flags.is_empty() { "none".to_owned() } else { flags.join(",") };
    let offset = u32::from(word & 0x1fff) * 8;
    let proto_name = proto::name(proto).unwrap_or("unknown");
    line.say(format_args!(
        "(tos {tos:#x}{ecn}, ttl {ttl}, id {id}, offset {offset}, flags [{flags}], proto {proto_name} ({proto}), length \
         {total}"
    ));
    if header > HEADER_MIN {
        line.say(format_args!(", options {} bytes", header - HEADER_MIN));
    }
    if let Some(Sum::Bad(right)) = sum::check(packet.first(header), 10) {
        line.say(format_args!(", bad cksum {:x} (->{right:x})!", packet.u16(10)?));
    }
    line.say(format_args!(")\n    "));
    Some(())
}
