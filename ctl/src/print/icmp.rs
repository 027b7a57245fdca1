//! ICMP (RFC 792).

use super::bytes::Bytes;
use super::line::Line;
use super::sum::{self, Sum};
use super::transport::Packet;
use kopi_packet::proto;

/// Bytes of the header in front of a quoted packet.
const HEADER: usize = 8;

/// Reads a message.
pub(super) fn print(line: &mut Line, packet: &Packet<'_>) {
    line.say(format_args!("ICMP "));
    if read(line, packet.payload).is_none() {
        return line.cut("icmp");
    }
    line.say(format_args!(", length {}", packet.payload.length()));
    if line.is_verbose()
        && packet.fragment.is_none()
        && let Some(Sum::Bad(right)) = sum::check(packet.payload, 2)
    {
        line.say(format_args!(" (wrong icmp cksum, -> {right:#06x})"));
    }
}

fn read(line: &mut Line, message: Bytes<'_>) -> Option<()> {
    let (kind, code) = (message.u8(0)?, message.u8(1)?);
    match kind {
        0 | 8 => {
            let what = if kind == 8 { "request" } else { "reply" };
            line.say(format_args!("echo {what}, id {}, seq {}", message.u16(4)?, message.u16(6)?));
        }
        3 => unreachable(line, code, message)?,
        4 => line.say(format_args!("source quench")),
        5 => {
            let whom = ["net", "host", "tos net", "tos host"].get(usize::from(code)).copied().unwrap_or("unknown");
            let quoted = message.after(HEADER).ip4(16)?;
            line.say(format_args!("redirect {quoted} to {whom} {}", message.ip4(4)?));
        }
        9 => line.say(format_args!("router advertisement")),
        10 => line.say(format_args!("router solicitation")),
        11 => match code {
            0 => line.say(format_args!("time exceeded in-transit")),
            1 => line.say(format_args!("ip reassembly time exceeded")),
            _ => line.say(format_args!("time exceeded-#{code}")),
        },
        12 => line.say(format_args!("parameter problem - octet {}", message.u8(4)?)),
        13 => line.say(format_args!("time stamp query id {} seq {}", message.u16(4)?, message.u16(6)?)),
        14 => line.say(format_args!("time stamp reply id {} seq {}", message.u16(4)?, message.u16(6)?)),
        _ => line.say(format_args!("type-#{kind}, code {code}")),
    }
    Some(())
}

/// What could not be reached, as the quoted packet says.
fn unreachable(line: &mut Line, code: u8, message: Bytes<'_>) -> Option<()> {
    let quoted = message.after(HEADER);
    let dst = quoted.ip4(16)?;
    match code {
        0 => line.say(format_args!("net {dst} unreachable")),
        1 => line.say(format_args!("host {dst} unreachable")),
        2 => line.say(format_args!("{dst} protocol {} unreachable", quoted.u8(9)?)),
        3 => {
            let header = usize::from(quoted.u8(0)? & 0xf) * 4;
            let (proto, port) = (quoted.u8(9)?, quoted.u16(header + 2)?);
            match proto::name(proto) {
                Some(name) => line.say(format_args!("{dst} {} port {port} unreachable", name.to_lowercase())),
                None => line.say(format_args!("{dst} protocol {proto} port {port} unreachable")),
            }
        }
        4 => line.say(format_args!("{dst} unreachable - need to frag (mtu {})", message.u16(6)?)),
        5 => line.say(format_args!("{dst} unreachable - source route failed")),
        6 => line.say(format_args!("net {dst} unreachable - unknown")),
        7 => line.say(format_args!("host {dst} unreachable - unknown")),
        9 => line.say(format_args!("net {dst} unreachable - admin prohibited")),
        10 => line.say(format_args!("host {dst} unreachable - admin prohibited")),
        13 => line.say(format_args!("{dst} unreachable - admin prohibited filter")),
        _ => line.say(format_args!("{dst} unreachable - #{code}")),
    }
    Some(())
}
