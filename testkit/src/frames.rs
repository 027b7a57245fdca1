//! Frames as hosts send them, with right lengths and checksums, so that a kernel takes them for real.

use std::net::{Ipv4Addr, Ipv6Addr};

/// Six bytes of a MAC address.
pub type Mac = [u8; 6];

/// IP protocol numbers.
pub const ICMP: u8 = 1;
/// TCP.
pub const TCP: u8 = 6;
/// UDP.
pub const UDP: u8 = 17;
/// ICMPv6.
pub const ICMPV6: u8 = 58;

/// Flags of TCP (RFC 9293, 3.1).
pub mod flags {
    /// No more data.
    pub const FIN: u8 = 1;
    /// Begin.
    pub const SYN: u8 = 2;
    /// Break off.
    pub const RST: u8 = 4;
    /// Hand on at once.
    pub const PSH: u8 = 8;
    /// There is an acknowledgement.
    pub const ACK: u8 = 16;
}

/// Ethertypes.
const IPV4: u16 = 0x0800;
const ARP: u16 = 0x0806;
const IPV6: u16 = 0x86dd;

/// RFC 1071, over all `parts` as if they were one; every part but the last has an even length.
#[must_use]
pub fn checksum(parts: &[&[u8]]) -> u16 {
    let words = parts.iter().flat_map(|part| part.chunks(2));
    let sum: u64 = words.map(|pair| u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0))).sum();
    let mut folded = sum;
    while folded > 0xffff {
        folded = (folded & 0xffff) + (folded >> 16);
    }
    !u16::try_from(folded).expect("folded")
}

fn size(bytes: usize) -> u16 {
    u16::try_from(bytes).expect("tests send short packets")
}

/// An Ethernet frame.
#[must_use]
pub fn ethernet(destination: Mac, source: Mac, ethertype: u16, payload: &[u8]) -> Vec<u8> {
    [&destination[..], &source[..], &ethertype.to_be_bytes()[..], payload].concat()
}

/// An Ethernet frame around an IP packet of either version.
#[must_use]
pub fn framed(destination: Mac, source: Mac, packet: &[u8]) -> Vec<u8> {
    let ethertype = if packet.first().is_some_and(|first| first >> 4 == 6) { IPV6 } else { IPV4 };
    ethernet(destination, source, ethertype, packet)
}

/// A message of ARP: `operation` 1 is a request and goes to everybody, 2 a reply and goes to `target`.
#[must_use]
pub fn arp(from: Mac, operation: u16, sender: (Mac, Ipv4Addr), target: (Mac, Ipv4Addr)) -> Vec<u8> {
    let mut message = vec![0, 1, 8, 0, 6, 4];
    message.extend(operation.to_be_bytes());
    for (mac, ip) in [sender, target] {
        message.extend(mac);
        message.extend(ip.octets());
    }
    let destination = if operation == 1 { [0xff; 6] } else { target.0 };
    ethernet(destination, from, ARP, &message)
}

/// The two ends of an IPv4 packet, and the number by which it can be told from others.
#[derive(Clone, Copy, Debug)]
pub struct Ends {
    /// Who sends it.
    pub source: Ipv4Addr,
    /// Whom it is for.
    pub destination: Ipv4Addr,
    /// The identification of its header.
    pub id: u16,
}

impl Ends {
    /// An IPv4 packet around `payload`.
    #[must_use]
    pub fn packet(&self, protocol: u8, payload: &[u8]) -> Vec<u8> {
        self.fragment(protocol, 0x4000, payload)
    }

    /// The same with these flags and this offset of a fragment.
    #[must_use]
    pub fn fragment(&self, protocol: u8, flags_and_offset: u16, payload: &[u8]) -> Vec<u8> {
        let mut header = vec![0x45, 0];
        header.extend(size(20 + payload.len()).to_be_bytes());
        header.extend(self.id.to_be_bytes());
        header.extend(flags_and_offset.to_be_bytes());
        header.extend([64, protocol, 0, 0]);
        header.extend(self.source.octets());
        header.extend(self.destination.octets());
        let sum = checksum(&[&header]);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        header.extend(payload);
        header
    }

    fn sum(&self, protocol: u8, payload: &[u8]) -> [u8; 2] {
        let [source, destination] = [self.source.octets(), self.destination.octets()];
        let length = size(payload.len()).to_be_bytes();
        checksum(&[&source, &destination, &[0, protocol], &length, payload]).to_be_bytes()
    }

    /// A UDP packet from and to these ports.
    #[must_use]
    pub fn udp(&self, (from, to): (u16, u16), data: &[u8]) -> Vec<u8> {
        let mut datagram = [from, to, size(8 + data.len()), 0].map(u16::to_be_bytes).concat();
        datagram.extend(data);
        let sum = self.sum(UDP, &datagram);
        datagram[6..8].copy_from_slice(&sum);
        self.packet(UDP, &datagram)
    }

    /// A TCP segment from and to these ports; `numbers` are sequence and acknowledgement.
    #[must_use]
    pub fn tcp(&self, (from, to): (u16, u16), flags: u8, numbers: (u32, u32), data: &[u8]) -> Vec<u8> {
        let mut segment = [from, to].map(u16::to_be_bytes).concat();
        segment.extend(numbers.0.to_be_bytes());
        segment.extend(numbers.1.to_be_bytes());
        segment.extend([0x50, flags, 0x40, 0, 0, 0, 0, 0]);
        segment.extend(data);
        let sum = self.sum(TCP, &segment);
        segment[16..18].copy_from_slice(&sum);
        self.packet(TCP, &segment)
    }

    /// A message of ICMP; `rest` is what follows the checksum.
    #[must_use]
    pub fn icmp(&self, kind: u8, code: u8, rest: &[u8]) -> Vec<u8> {
        self.packet(ICMP, &icmp(&[], kind, code, rest))
    }

    /// An echo request (`kind` 8) or its reply (`kind` 0).
    #[must_use]
    pub fn echo(&self, kind: u8, identifier: u16, number: u16) -> Vec<u8> {
        let mut rest = [identifier, number].map(u16::to_be_bytes).concat();
        rest.extend(*b"kopi");
        self.icmp(kind, 0, &rest)
    }

    /// The error that packet `about` has met: its header and eight bytes are quoted (RFC 792).
    #[must_use]
    pub fn error(&self, kind: u8, code: u8, about: &[u8]) -> Vec<u8> {
        let quoted = &about[..about.len().min(28)];
        self.icmp(kind, code, &[&[0; 4], quoted].concat())
    }
}

fn icmp(pseudo: &[u8], kind: u8, code: u8, rest: &[u8]) -> Vec<u8> {
    let mut message = vec![kind, code, 0, 0];
    message.extend(rest);
    let sum = checksum(&[pseudo, &message]);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    message
}

/// An IPv6 packet with hop limit 255, as neighbour discovery wants it.
#[must_use]
pub fn ipv6(source: Ipv6Addr, destination: Ipv6Addr, next: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend(size(payload.len()).to_be_bytes());
    packet.extend([next, 255]);
    packet.extend(source.octets());
    packet.extend(destination.octets());
    packet.extend(payload);
    packet
}

/// A neighbour advertisement: `target` is at `link` (RFC 4861, 4.4).
#[must_use]
pub fn advertisement(source: Ipv6Addr, destination: Ipv6Addr, target: Ipv6Addr, link: Mac) -> Vec<u8> {
    let mut rest = vec![0x20, 0, 0, 0];
    rest.extend(target.octets());
    rest.extend([2, 1]);
    rest.extend(link);
    let length = u32::from(size(rest.len() + 4)).to_be_bytes();
    let pseudo = [&source.octets()[..], &destination.octets(), &length, &[0, 0, 0, ICMPV6]].concat();
    ipv6(source, destination, ICMPV6, &icmp(&pseudo, 136, 0, &rest))
}

/// The identification of an IPv4 packet in an Ethernet frame.
#[must_use]
pub fn id_of(frame: &[u8]) -> Option<u16> {
    let id = frame.get(18..20).filter(|_| frame.get(12..14) == Some(&IPV4.to_be_bytes()))?;
    Some(u16::from_be_bytes([id[0], id[1]]))
}

/// Bytes as text that stands in one word.
#[must_use]
pub fn to_hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a String takes everything");
        text
    })
}

/// The bytes behind [`to_hex`]; `None` for other text.
#[must_use]
pub fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).ok());
    digits.map(|pair| u8::from_str_radix(pair?, 16).ok()).collect()
}
