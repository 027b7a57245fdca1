//! ARP (RFC 826) for IPv4 over Ethernet.

use super::bytes::Bytes;
use super::line::Line;
use kopi_packet::MacAddr;

/// Reads a message.
pub(super) fn print(line: &mut Line, message: Bytes<'_>) {
    if !line.style.link {
        line.say(format_args!("ARP, "));
    }
    if read(line, message).is_none() {
        line.cut("arp");
    }
}

fn read(line: &mut Line, message: Bytes<'_>) -> Option<()> {
    let (hardware, protocol) = (message.u16(0)?, message.u16(2)?);
    let (hardware_bytes, protocol_bytes) = (message.u8(4)?, message.u8(5)?);
    let operation = message.u16(6)?;
    if (hardware, protocol, hardware_bytes, protocol_bytes) != (1, 0x0800, 6, 4) {
        line.say(format_args!(
            "hardware {hardware} (len {hardware_bytes}), protocol {protocol:#06x} (len {protocol_bytes}), operation \
             {operation}, length {}",
            message.length()
        ));
        return Some(());
    }
    if line.is_verbose() {
        line.say(format_args!("Ethernet (len 6), IPv4 (len 4), "));
    }
    let (from_mac, from) = (message.mac(8)?, message.ip4(14)?);
    let (to_mac, to) = (message.mac(18)?, message.ip4(24)?);
    line.fields.addresses = Some((from.into(), to.into()));
    match operation {
        1 if to_mac == MacAddr::ZERO => line.say(format_args!("Request who-has {to} tell {from}")),
        1 => line.say(format_args!("Request who-has {to} ({to_mac}) tell {from}")),
        2 => line.say(format_args!("Reply {from} is-at {from_mac}")),
        _ => line.say(format_args!("operation {operation}, {from} ({from_mac}) > {to} ({to_mac})")),
    }
    // The two differ if a frame was forged, or if one station answers for another.
    if let Some((frame_mac, _)) = line.fields.macs
        && frame_mac != from_mac
    {
        line.say(format_args!(" (sender {from_mac} in a frame from {frame_mac})"));
    }
    line.say(format_args!(", length {}", message.length()));
    Some(())
}
