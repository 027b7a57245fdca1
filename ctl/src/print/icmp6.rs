//! ICMPv6 (RFC 4443), Neighbor Discovery (RFC 4861), and the names of multicast listener messages (RFC 3810).

use super::bytes::Bytes;
use super::line::Line;
use super::sum::{self, Sum};
use super::transport::Packet;
use kopi_packet::proto;

/// Bytes of the header in front of a quoted packet.
const HEADER: usize = 8;
/// Most options of a Neighbor Discovery message that are shown.
const OPTIONS_MAX: usize = 16;

/// Reads a message.
pub(super) fn print(line: &mut Line, packet: &Packet<'_>) {
    line.say(format_args!("ICMP6, "));
    if read(line, packet.payload).is_none() {
        return line.cut("icmp6");
    }
    line.say(format_args!(", length {}", packet.payload.length()));
    if line.is_verbose()
        && packet.fragment.is_none()
        && let Some(Sum::Bad(right)) = sum::check_transport(packet.payload, 2, (packet.src, packet.dst), 58)
    {
        line.say(format_args!(" (wrong icmp6 cksum, -> {right:#06x})"));
    }
}

fn read(line: &mut Line, message: Bytes<'_>) -> Option<()> {
    let (kind, code) = (message.u8(0)?, message.u8(1)?);
    match kind {
        1 => unreachable(line, code, message.after(HEADER))?,
        2 => line.say(format_args!("packet too big, mtu {}", message.u32(4)?)),
        3 if code == 0 => line.say(format_args!("time exceeded in-transit")),
        3 => line.say(format_args!("time exceeded in reassembly")),
        4 => line.say(format_args!("parameter problem, code {code}, octet {}", message.u32(4)?)),
        128 | 129 => {
            let what = if kind == 128 { "request" } else { "reply" };
            line.say(format_args!("echo {what}, id {}, seq {}", message.u16(4)?, message.u16(6)?));
        }
        130 => line.say(format_args!("multicast listener query")),
        131 => line.say(format_args!("multicast listener report")),
        132 => line.say(format_args!("multicast listener done")),
        133 => {
            line.say(format_args!("router solicitation"));
            options(line, message.after(8));
        }
        134 => {
            line.say(format_args!("router advertisement"));
            if line.is_verbose() {
                line.say(format_args!(", hop limit {}, router lifetime {}s", message.u8(4)?, message.u16(6)?));
            }
            options(line, message.after(16));
        }
        135 => {
            line.say(format_args!("neighbor solicitation, who has {}", message.ip6(8)?));
            options(line, message.after(24));
        }
        136 => {
            line.say(format_args!("neighbor advertisement, tgt is {}", message.ip6(8)?));
            if line.is_verbose() {
                advertised(line, message.u8(4)?);
            }
            options(line, message.after(24));
        }
        137 => {
            line.say(format_args!("redirect, {} to {}", message.ip6(24)?, message.ip6(8)?));
            options(line, message.after(40));
        }
        143 => line.say(format_args!("multicast listener report v2, {} group record(s)", message.u16(6)?)),
        _ => line.say(format_args!("type-#{kind}, code {code}")),
    }
    Some(())
}

fn advertised(line: &mut Line, flags: u8) {
    let names = [(0x80, "router"), (0x40, "solicited"), (0x20, "override")];
    let set: Vec<&str> = names.iter().filter(|(bit, _)| flags & bit > 0).map(|(_, name)| *name).collect();
    if !set.is_empty() {
        line.say(format_args!(", Flags [{}]", set.join(", ")));
    }
}

/// What could not be reached, as the quoted packet says.
fn unreachable(line: &mut Line, code: u8, quoted: Bytes<'_>) -> Option<()> {
    let dst = quoted.ip6(24)?;
    match code {
        0 => line.say(format_args!("destination unreachable, unreachable route {dst}")),
        1 => line.say(format_args!("destination unreachable, unreachable prohibited {dst}")),
        3 => line.say(format_args!("destination unreachable, unreachable address {dst}")),
        4 => {
            let (next, port) = (quoted.u8(6)?, quoted.u16(42)?);
            let name = proto::name(next).unwrap_or("unknown").to_lowercase();
            line.say(format_args!("destination unreachable, unreachable port, {dst} {name} port {port}"));
        }
        _ => line.say(format_args!("destination unreachable, code {code}, {dst}")),
    }
    Some(())
}

/// Options of Neighbor Discovery, if much is wanted. The link-layer addresses are those that get forged.
fn options(line: &mut Line, mut rest: Bytes<'_>) {
    if !line.is_verbose() {
        return;
    }
    for _ in 0..OPTIONS_MAX {
        if rest.length() == 0 {
            return;
        }
        let Some((kind, units)) = rest.u8(0).zip(rest.u8(1)) else {
            line.say(format_args!(", [|option]"));
            return;
        };
        let length = usize::from(units) * 8;
        match (kind, rest.mac(2)) {
            (1, Some(mac)) => line.say(format_args!(", source link-address {mac}")),
            (2, Some(mac)) => line.say(format_args!(", destination link-address {mac}")),
            (3, _) => match (rest.ip6(16), rest.u8(2)) {
                (Some(prefix), Some(bits)) => line.say(format_args!(", prefix {prefix}/{bits}")),
                _ => line.say(format_args!(", prefix [|option]")),
            },
            (5, _) => line.say(format_args!(", mtu {}", rest.u32(4).unwrap_or(0))),
            _ => line.say(format_args!(", option {kind}")),
        }
        if length == 0 {
            line.say(format_args!(", bad option length"));
            return;
        }
        rest = rest.after(length);
    }
}
