//! TCP (RFC 9293) and its options.

use super::bytes::Bytes;
use super::line::Line;
use super::sum::{self, Sum};
use super::transport::Packet;

/// Bytes of a header without options.
const HEADER_MIN: usize = 20;

/// The flags, in the order in which people know them.
const FLAGS: [(u16, char); 9] = [
    (0x001, 'F'),
    (0x002, 'S'),
    (0x004, 'R'),
    (0x008, 'P'),
    (0x010, '.'),
    (0x020, 'U'),
    (0x040, 'E'),
    (0x080, 'W'),
    (0x100, 'e'),
];
/// FIN, SYN and RST: a segment with one of them has a sequence number to look at.
const FLAGS_OF_SEQUENCE: u16 = 0x007;
const ACK: u16 = 0x010;
const URG: u16 = 0x020;

/// Reads a segment.
pub(super) fn print(line: &mut Line, packet: &Packet<'_>) {
    if read(line, packet).is_none() {
        line.cut("tcp");
    }
}

fn read(line: &mut Line, packet: &Packet<'_>) -> Option<()> {
    let segment = packet.payload;
    let (seq, ack, word) = (segment.u32(4)?, segment.u32(8)?, segment.u16(12)?);
    let header = usize::from(word >> 12) * 4;
    let length = segment.length().saturating_sub(header);
    if line.style.quick {
        line.say(format_args!("tcp {length}"));
        return Some(());
    }
    let set: String = FLAGS.iter().filter(|(bit, _)| word & bit > 0).map(|(_, letter)| *letter).collect();
    line.say(format_args!("Flags [{}]", if set.is_empty() { "none" } else { &set }));
    if header < HEADER_MIN || header > segment.length() {
        line.say(format_args!(", bad header length {header}, length {}", segment.length()));
        return Some(());
    }
    if line.is_verbose() && packet.fragment.is_none() {
        checksum(line, packet)?;
    }
    if length > 0 {
        // As everywhere in TCP, numbers are modulo 2^32.
        let end = seq.wrapping_add(u32::try_from(length).unwrap_or(0));
        line.say(format_args!(", seq {seq}:{end}"));
    } else if word & FLAGS_OF_SEQUENCE > 0 {
        line.say(format_args!(", seq {seq}"));
    }
    if word & ACK > 0 {
        line.say(format_args!(", ack {ack}"));
    }
    line.say(format_args!(", win {}", segment.u16(14)?));
    if word & URG > 0 {
        line.say(format_args!(", urg {}", segment.u16(18)?));
    }
    if header > HEADER_MIN {
        options(line, segment.first(header).after(HEADER_MIN));
    }
    line.say(format_args!(", length {length}"));
    Some(())
}

fn checksum(line: &mut Line, packet: &Packet<'_>) -> Option<()> {
    let stated = packet.payload.u16(16)?;
    match sum::check_transport(packet.payload, 16, (packet.src, packet.dst), 6) {
        Some(Sum::Good) => line.say(format_args!(", cksum {stated:#06x} (correct)")),
        Some(Sum::Bad(right)) => line.say(format_args!(", cksum {stated:#06x} (incorrect -> {right:#06x})")),
        None => {}
    }
    Some(())
}

fn options(line: &mut Line, mut rest: Bytes<'_>) {
    let mut gap = ", options [";
    while rest.length() > 0 {
        line.say(format_args!("{gap}"));
        gap = ",";
        match option(line, rest) {
            Some(0) => break,
            Some(length) => rest = rest.after(length),
            None => {
                line.cut("tcp");
                break;
            }
        }
    }
    line.say(format_args!("]"));
}

/// Reads one option, and returns its length: 0 for the last one.
fn option(line: &mut Line, bytes: Bytes<'_>) -> Option<usize> {
    let kind = bytes.u8(0)?;
    match kind {
        0 => {
            line.say(format_args!("eol"));
            return Some(0);
        }
        1 => {
            line.say(format_args!("nop"));
            return Some(1);
        }
        _ => {}
    }
    let length = usize::from(bytes.u8(1)?);
    if length < 2 || length > bytes.length() {
        line.say(format_args!("opt-{kind} with bad length {length}"));
        return Some(0);
    }
    let body = bytes.first(length).after(2);
    match (kind, body.length()) {
        (2, 2) => line.say(format_args!("mss {}", body.u16(0)?)),
        (3, 1) => line.say(format_args!("wscale {}", body.u8(0)?)),
        (4, 0) => line.say(format_args!("sackOK")),
        (5, 8 | 16 | 24 | 32) => {
            line.say(format_args!("sack {} ", body.length() / 8));
            for at in (0..body.length()).step_by(8) {
                line.say(format_args!("{{{}:{}}}", body.u32(at)?, body.u32(at + 4)?));
            }
        }
        (8, 8) => line.say(format_args!("TS val {} ecr {}", body.u32(0)?, body.u32(4)?)),
        _ => line.say(format_args!("opt-{kind} ({length} bytes)")),
    }
    Some(length)
}
