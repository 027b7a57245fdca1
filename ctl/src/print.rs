//! What a frame says, in tcpdump's words.
//!
//! [`frame`] reads whatever bytes there are, never fails and never panics: where a frame was cut it says so, as in
//! `[|tcp]`. Names are not looked up, and numbers are not made relative, so nothing is remembered between frames.
//!
//! | module | what is in it |
//! | --- | --- |
//! | `bytes` | the bytes that were kept of a frame, and how many there were |
//! | `line` | what is made of them: [`Line`] |
//! | `ethernet` | Ethernet, VLAN tags, ethertypes |
//! | `arp` | ARP |
//! | `ip4`, `ip6` | headers of IP, fragments, extension headers |
//! | `transport` | protocols over IP, UDP |
//! | `tcp` | TCP and its options |
//! | `icmp`, `icmp6` | ICMP and ICMPv6 with Neighbor Discovery |
//! | `sum` | the Internet checksum |
//! | `dump` | hexadecimal and ASCII |

mod arp;
mod bytes;
mod dump;
mod ethernet;
mod icmp;
mod icmp6;
mod ip4;
mod ip6;
mod line;
mod sum;
mod tcp;
mod transport;

pub(crate) use dump::{Dump, dump};
pub(crate) use line::{Line, Style};

use bytes::Bytes;

/// Reads `kept`, the beginning of an Ethernet frame of `length` bytes.
pub(crate) fn frame(kept: &[u8], length: usize, style: Style) -> Line {
    let mut line = Line::new(style);
    ethernet::print(&mut line, Bytes::new(kept, length));
    line
}

/// The word for IP's number of a protocol, as it is in policies and flows.
pub(crate) fn proto(number: u8) -> String {
    match (number, kopi_packet::proto::name(number)) {
        (kopi_packet::proto::ICMPV6, _) => "icmp6".into(),
        (_, Some(name)) => name.to_lowercase(),
        (_, None) => number.to_string(),
    }
}

#[cfg(test)]
mod tests;
