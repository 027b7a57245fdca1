//! The general way through a frame, header by header.

use crate::ip;
use crate::key::{Kind, is_echo, layer, tags};
use crate::{FlowKey, Fragment, Headers, Malformed, Shape, ethertype, proto};

/// Bytes of an Ethernet header without tags.
pub(crate) const ETHERNET: usize = 14;
/// Bytes of an IPv4 header without options.
pub(crate) const IPV4: usize = 20;
/// Bytes of an IPv6 header without extension headers.
pub(crate) const IPV6: usize = 40;
/// Bytes of an ARP packet for IPv4 over Ethernet.
const ARP: usize = 28;
/// Bytes of a VLAN tag.
pub(crate) const TAG: usize = 4;
/// Bytes of LLC and SNAP (IEEE 802.2; RFC 1042).
const SNAP: usize = 8;
/// Largest length that an IP header can claim, in bytes.
const MAX_PACKET: usize = 65_535;
/// Most VLAN tags that are parsed.
const MAX_TAGS: u8 = 2;
/// Most IPv6 extension headers that are followed.
pub(crate) const MAX_EXTENSIONS: u32 = 8;
/// Most bytes of IPv6 extension headers that are followed.
const MAX_EXTENSION_BYTES: usize = 256;

/// What switches put around tags before IEEE 802.1ad had a type of its own for that, and still do where they are told to.
const OLD_SERVICE_VLANS: [u16; 2] = [0x9100, 0x9200];
/// The lowest value of the type field that is a type; below it, it is a length (IEEE 802.3, 3.2.6).
pub(crate) const LOWEST_ETHERTYPE: u16 = 0x0600;

/// IPv6 extension headers (RFC 8200, 4; the registry of "IPv6 Extension Header Types" at IANA).
pub(crate) mod extension {
    pub(super) const HOP_BY_HOP: u8 = 0;
    pub(crate) const ROUTING: u8 = 43;
    pub(crate) const FRAGMENT: u8 = 44;
    pub(crate) const AUTHENTICATION: u8 = 51;
    pub(crate) const NO_NEXT_HEADER: u8 = 59;
    pub(crate) const DESTINATION: u8 = 60;
    pub(super) const MOBILITY: u8 = 135;
    pub(super) const HIP: u8 = 139;
    pub(super) const SHIM6: u8 = 140;
}

/// The big-endian 64-bit number at `at`, or `None` beyond the end.
#[inline]
pub(crate) fn be64(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// The big-endian 32-bit number at `at`, or `None` beyond the end.
#[inline]
pub(crate) fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// The big-endian 16-bit number at `at`, or `None` beyond the end.
#[inline]
pub(crate) fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// Everything from `at` to the end; nothing if `at` is beyond it.
#[inline]
fn tail(bytes: &[u8], at: usize) -> &[u8] {
    bytes.get(at..).unwrap_or_default()
}

/// Parses any frame. Not inlined, so that the short way stays short where it is.
#[inline(never)]
pub(crate) fn parse(frame: &[u8], source: u16) -> (Headers, FlowKey) {
    let mut walk = Walk { headers: Headers::default(), kind: Kind::default(), words: [0; 4], ends: [[0; 2]; 2] };
    walk.words[0] = u64::from(source);
    if let Err(reason) = walk.ethernet(frame) {
        walk.headers.shape = Shape::Malformed(reason);
        walk.kind.malformed = reason as u8;
    }
    walk.headers.proto = walk.kind.proto;
    walk.words[3] = walk.kind.to_word();
    let ([w0, w1, w2, w3], [w4, w5, w6, w7]) = (walk.words, FlowKey::address_words(walk.ends));
    (walk.headers, FlowKey::from_words([w0, w1, w2, w3, w4, w5, w6, w7]))
}

/// Whether more than the type itself is read of a frame of this type.
#[inline]
pub(crate) const fn has_layers(ethertype: u16) -> bool {
    matches!(ethertype, ethertype::IPV4 | ethertype::IPV6 | ethertype::ARP) || is_tag(ethertype)
}

/// Whether a VLAN tag stands behind a type.
pub(crate) const fn is_tag(ethertype: u16) -> bool {
    let [old, older] = OLD_SERVICE_VLANS;
    ethertype == ethertype::VLAN || ethertype == ethertype::SERVICE_VLAN || ethertype == old || ethertype == older
}

/// The type behind LLC and SNAP, if it is one of those that stand for types of Ethernet: those of RFC 1042, and of the bridge
/// tunnel encapsulation of IEEE 802.1H, which those who translate between media take for the same.
fn snap(payload: &[u8]) -> Option<u16> {
    const RFC_1042: u64 = 0xaaaa_0300_0000;
    const BRIDGE_TUNNEL: u64 = 0xaaaa_0300_00f8;
    let word = be64(payload, 0)?;
    matches!(word >> 16, RFC_1042 | BRIDGE_TUNNEL).then_some(be16(payload, 6)?)
}

/// What was found so far. Every step writes down what it knows before it checks the next thing, so that a malformed
/// packet keeps what came before its fault.
struct Walk {
    headers: Headers,
    kind: Kind,
    words: [u64; 4],
    ends: [[u64; 2]; 2],
}

impl Walk {
    fn ethernet(&mut self, frame: &[u8]) -> Result<(), Malformed> {
        let (Some(start), Some(middle), Some(mut ethertype)) = (be64(frame, 0), be64(frame, 6), be16(frame, 12)) else {
            return Ok(());
        };
        self.words[0] |= start & !0xffff;
        self.words[1] = middle & !0xffff;
        self.kind.layer = layer::OTHER;
        self.headers.shape = Shape::Other;

        let mut l3 = ETHERNET;
        let tagged = loop {
            self.headers.ethertype = ethertype;
            self.headers.l3_offset = offset(l3);
            if !is_tag(ethertype) {
                break Ok(());
            }
            match self.tag(ethertype, tail(frame, l3)) {
                Ok(next) => ethertype = next,
                Err(reason) => break Err(reason),
            }
            l3 += TAG;
        };
        // A tag behind SNAP is nothing that anybody sends, and left as it is.
        if let (true, Some(inside)) = (ethertype < LOWEST_ETHERTYPE, snap(tail(frame, l3))) {
            ethertype = inside;
            l3 += SNAP;
            self.headers.ethertype = ethertype;
            self.headers.l3_offset = offset(l3);
            self.kind.tags |= tags::SNAP;
        }
        // The length of an IEEE 802.3 frame would make a flow of every frame.
        let is_type = ethertype >= LOWEST_ETHERTYPE;
        self.words[1] |= if is_type { u64::from(ethertype) } else { 0 };
        tagged?;

        let packet = tail(frame, l3);
        let (payload, skipped) = match ethertype {
            ethertype::IPV4 => self.ipv4(packet)?,
            ethertype::IPV6 => self.ipv6(packet)?,
            ethertype::ARP => return self.arp(packet),
            _ => return Ok(()),
        };
        self.transport(payload, l3 + skipped)
    }

    /// Takes the tag at the start of `rest` down, and returns the ethertype behind it.
    fn tag(&mut self, tpid: u16, rest: &[u8]) -> Result<u16, Malformed> {
        if self.headers.vlans == MAX_TAGS {
            return Err(Malformed::VlanTooDeep);
        }
        let (Some(tci), Some(next)) = (be16(rest, 0), be16(rest, 2)) else {
            return Err(Malformed::VlanTruncated);
        };
        let (shift, service) = match self.headers.vlans {
            0 => (48, tags::OUTER_IS_SERVICE),
            _ => (32, tags::INNER_IS_SERVICE),
        };
        self.words[2] |= u64::from(tci) << shift;
        self.headers.vlans += 1;
        // The count is in the lowest bits, and no tag was counted twice.
        self.kind.tags += 1;
        if tpid != ethertype::VLAN {
            self.kind.tags |= service;
        }
        Ok(next)
    }

    /// ARP for IPv4 over Ethernet (RFC 826).
    fn arp(&mut self, packet: &[u8]) -> Result<(), Malformed> {
        /// Ethernet, IPv4, six bytes of hardware address and four of protocol address.
        const IPV4_OVER_ETHERNET: u64 = 0x0001_0800_0604;
        let (Some(_), Some(start)) = (packet.first_chunk::<ARP>(), be64(packet, 0)) else {
            return Err(Malformed::ArpTruncated);
        };
        if start >> 16 != IPV4_OVER_ETHERNET {
            return Err(Malformed::ArpHeader);
        }
        // Six bytes of hardware address are the upper part of the eight that start there. All are within the packet.
        let hardware = |at| be64(packet, at).map_or(0, |word| word >> 16);
        let protocol = |at| be32(packet, at).map_or(0, u64::from);
        self.words[2] |= (start & 0xffff) << 16;
        self.ends = [[hardware(8), protocol(14)], [hardware(18), protocol(24)]];
        self.kind.layer = layer::ARP;
        self.headers.shape = Shape::Arp;
        Ok(())
    }

    /// IPv4 (RFC 791). Returns its payload, and the length of the header before it.
    fn ipv4<'a>(&mut self, packet: &'a [u8]) -> Result<(&'a [u8], usize), Malformed> {
        let header = packet.first_chunk::<IPV4>().ok_or(Malformed::Ipv4Header)?;
        let header_length = usize::from(header[0] & 0x0f) * 4;
        if header[0] >> 4 != 4 || header_length < IPV4 || header_length > packet.len() {
            return Err(Malformed::Ipv4Header);
        }
        let [.., s0, s1, s2, s3, d0, d1, d2, d3] = *header;
        let [source, destination] =
            [[s0, s1, s2, s3], [d0, d1, d2, d3]].map(|bytes| u64::from(u32::from_be_bytes(bytes)));
        self.ends = [[0, source], [0, destination]];
        self.kind.layer = layer::IPV4;
        self.kind.dscp = header[1] >> 2;
        self.kind.proto = header[9];
        self.kind.options = u8::from(header_length > IPV4);
        self.headers.shape = Shape::Ipv4;

        let flags = u16::from_be_bytes([header[6], header[7]]);
        let fragment_offset = self.fragment(flags & 0x2000 != 0, flags & 0x1fff);
        let total_length = usize::from(u16::from_be_bytes([header[2], header[3]]));
        let payload = packet.get(header_length..total_length).ok_or(Malformed::Ipv4Length)?;
        ipv4_options(packet.get(IPV4..header_length).unwrap_or_default())?;
        self.fragment_fits(fragment_offset, total_length)?;
        Ok((payload, header_length))
    }

    /// IPv6 and its extension headers (RFC 8200). Returns the payload behind them, and the length of all headers.
    fn ipv6<'a>(&mut self, packet: &'a [u8]) -> Result<(&'a [u8], usize), Malformed> {
        let header = packet.first_chunk::<IPV6>().ok_or(Malformed::Ipv6Header)?;
        if header[0] >> 4 != 6 {
            return Err(Malformed::Ipv6Header);
        }
        for (word, at) in self.ends.as_flattened_mut().iter_mut().zip((8..).step_by(8)) {
            *word = be64(header, at).unwrap_or_default();
        }
        self.kind.layer = layer::IPV6;
        self.kind.dscp = (header[0] & 0x0f) << 2 | header[1] >> 6;
        self.kind.proto = header[6];
        self.headers.shape = Shape::Ipv6;

        let payload_length = usize::from(u16::from_be_bytes([header[4], header[5]]));
        let payload = packet.get(IPV6..IPV6 + payload_length).ok_or(Malformed::Ipv6Length)?;
        let skipped = self.extensions(payload)?;
        Ok((tail(payload, skipped), IPV6 + skipped))
    }

    /// Follows the extension headers at the start of `payload` and returns their length in bytes.
    fn extensions(&mut self, payload: &[u8]) -> Result<usize, Malformed> {
        let mut at = 0;
        for count in 0..=MAX_EXTENSIONS {
            let current = self.kind.proto;
            if !is_extension(current) {
                return Ok(at);
            }
            self.kind.options = 1;
            // Hop-by-hop options stand only at the very start (RFC 8200, 4.1).
            if count == MAX_EXTENSIONS || (current == extension::HOP_BY_HOP && count > 0) {
                break;
            }
            let rest = tail(payload, at);
            // All extension headers have at least eight bytes, and start with the next header and their length.
            let &[next, length, ..] = rest.first_chunk::<8>().ok_or(Malformed::Ipv6Extensions)?;
            // The fixed part of an authentication header alone has twelve bytes (RFC 4302, 2.2).
            if current == extension::AUTHENTICATION && length == 0 {
                break;
            }
            let length = ip::extension_length(current, length);
            let header = rest.get(..length).ok_or(Malformed::Ipv6Extensions)?;
            at += length;
            if at > MAX_EXTENSION_BYTES {
                break;
            }
            self.kind.proto = next;
            match current {
                extension::HOP_BY_HOP => hop_by_hop(header)?,
                extension::FRAGMENT => self.fragment_header(header, payload.len() - length)?,
                _ => {}
            }
            if self.headers.fragment == Fragment::Later {
                // What follows is the middle of a packet, whatever it looks like.
                return Ok(at);
            }
        }
        Err(Malformed::Ipv6Extensions)
    }

    /// The fragment header (RFC 8200, 4.5) of a packet with `others` bytes of payload beside it.
    fn fragment_header(&mut self, header: &[u8], others: usize) -> Result<(), Malformed> {
        // A second one would be a fragment of a fragment, which no sender makes.
        if self.headers.fragment != Fragment::None {
            return Err(Malformed::Ipv6Extensions);
        }
        let field = be16(header, 2).unwrap_or_default();
        let fragment_offset = self.fragment(field & 1 != 0, field >> 3);
        self.fragment_fits(fragment_offset, others)
    }

    /// Takes down which part of a packet this is, and returns its offset in bytes; `units` is the offset in units of
    /// eight bytes.
    fn fragment(&mut self, more: bool, units: u16) -> usize {
        let part = match (units, more) {
            (0, false) => Fragment::None,
            (0, true) => Fragment::First,
            _ => Fragment::Later,
        };
        self.headers.fragment = part;
        self.kind.fragment = part as u8;
        usize::from(units) * 8
    }

    /// Refuses a fragment that would overwrite the flags of a TCP header, or end beyond the largest packet.
    ///
    /// `length` is what its IP header claims for it, without the fragment header.
    fn fragment_fits(&self, offset: usize, length: usize) -> Result<(), Malformed> {
        let over_tcp = self.kind.proto == proto::TCP && offset == 8;
        let too_far = offset > 0 && offset + length > MAX_PACKET;
        if over_tcp || too_far { Err(Malformed::FragmentOffset) } else { Ok(()) }
    }

    /// The transport header at the start of `payload`, which lies at `at` in the frame.
    fn transport(&mut self, payload: &[u8], at: usize) -> Result<(), Malformed> {
        let (layer, proto) = (self.kind.layer, self.kind.proto);
        if self.headers.fragment == Fragment::Later {
            return Ok(());
        }
        let shortest = match (layer, proto) {
            (_, proto::TCP) => 20,
            (_, proto::UDP | proto::UDP_LITE) => 8,
            (_, proto::SCTP) => 12,
            (layer::IPV4, proto::ICMP) => 8,
            // Some messages are no longer than this (RFC 4286); an echo is, and is looked at below.
            (layer::IPV6, proto::ICMPV6) => 4,
            (layer::IPV6, extension::NO_NEXT_HEADER) => return Ok(()),
            _ => {
                self.headers.l4_offset = offset(at);
                return Ok(());
            }
        };
        if payload.len() < shortest {
            return Err(Malformed::L4Truncated);
        }
        let start = be32(payload, 0).ok_or(Malformed::L4Truncated)?;
        self.words[2] |= match proto {
            proto::ICMP | proto::ICMPV6 => {
                let [icmp_type, ..] = start.to_be_bytes();
                let id = match is_echo(layer, icmp_type) {
                    true if payload.len() < 8 => return Err(Malformed::L4Truncated),
                    true => be16(payload, 4).unwrap_or_default(),
                    false => 0,
                };
                u64::from(start & 0xffff_0000 | u32::from(id))
            }
            _ => u64::from(start),
        };
        self.headers.l4_offset = offset(at);
        Ok(())
    }
}

/// Walks the options of an IPv4 header (RFC 791, 3.1).
fn ipv4_options(mut options: &[u8]) -> Result<(), Malformed> {
    const END: u8 = 0;
    const NO_OPERATION: u8 = 1;
    while let Some((&kind, rest)) = options.split_first() {
        options = match (kind, rest.first()) {
            (END, _) => return Ok(()),
            (NO_OPERATION, _) => rest,
            (_, Some(&length)) if length >= 2 => options.get(usize::from(length)..).ok_or(Malformed::Ipv4Options)?,
            _ => return Err(Malformed::Ipv4Options),
        };
    }
    Ok(())
}

/// Walks the options of a hop-by-hop header and refuses the jumbo payload option (RFC 2675, 2).
fn hop_by_hop(header: &[u8]) -> Result<(), Malformed> {
    const PAD1: u8 = 0;
    const JUMBO: u8 = 0xc2;
    let mut options = tail(header, 2);
    while let Some((&kind, rest)) = options.split_first() {
        options = match (kind, rest.split_first()) {
            (PAD1, _) => rest,
            (JUMBO, _) => return Err(Malformed::Ipv6Jumbogram),
            (_, Some((&length, data))) => data.get(usize::from(length)..).ok_or(Malformed::Ipv6Extensions)?,
            (_, None) => return Err(Malformed::Ipv6Extensions),
        };
    }
    Ok(())
}

pub(crate) const fn is_extension(proto: u8) -> bool {
    matches!(
        proto,
        extension::HOP_BY_HOP
            | extension::ROUTING
            | extension::FRAGMENT
            | extension::AUTHENTICATION
            | extension::DESTINATION
            | extension::MOBILITY
            | extension::HIP
            | extension::SHIM6
    )
}

/// An offset within the headers, which end below 14 + 8 + 8 + 40 + 256 bytes.
fn offset(at: usize) -> u16 {
    u16::try_from(at).unwrap_or_default()
}

#[cfg(test)]
mod tests;
