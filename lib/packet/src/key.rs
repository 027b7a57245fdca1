//! The flow key: every field that a policy may consult, in 64 bytes.
//!
//! ```text
//! word    63            48            32            16             0
//!  0      | destination MAC                         | source port id |
//!  1      | source MAC                              | ethertype      |
//!  2      | outer TCI   | inner TCI   | L4 source   | L4 destination |
//!  3      | TCP  | tags | opts | DSCP | frag | bad  | layer  | proto |   eight bytes
//!  4      | source address              | destination address           |   IPv4, also of ARP; IPv6: the last 32 bits
//!  5      | source address: the first 64 bits of IPv6; the hardware address of ARP
//!  6      | destination address, in the same way
//!  7      | source address              | destination address           |   IPv6: the 32 bits between
//! ```
//!
//! So what is not IPv6 or ARP, IPv4 above all, has nothing in the last three words: its key is [short](FlowKey::is_short).
//!
//! L4 source and destination are the ports of TCP, UDP, UDP-Lite and SCTP. ICMP has type and code in the place of the
//! source port, and the identifier of an echo in that of the destination port. ARP has its operation in the place of
//! the source port. The highest byte of word 3 is for flags of TCP, and the parser leaves it zero: whoever has a policy
//! that looks at flags puts those into it that the policy looks at. What is not there is zero.
//!
//! Two packets share a key if and only if no policy can tell them apart. So a TTL, a checksum, a flow label, the two
//! ECN bits (a router sets them in the middle of a flow) and flags of TCP that no rule asks for are not in it, and
//! everything that says how much of the frame could be read is: a malformed packet never shares a key with a whole one.

use core::hash::{Hash, Hasher};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::proto::{ICMP, ICMPV6, SCTP, TCP, UDP, UDP_LITE};
use crate::{Fragment, MacAddr, Malformed, Shape};

/// What the address words hold; also the shape of a frame that is not malformed.
pub(crate) mod layer {
    pub(crate) const RUNT: u8 = 0;
    pub(crate) const OTHER: u8 = 1;
    pub(crate) const ARP: u8 = 2;
    pub(crate) const IPV4: u8 = 3;
    pub(crate) const IPV6: u8 = 4;
}

/// Bits of the byte `tags` in word 3.
pub(crate) mod tags {
    /// How many tags there are: 0, 1 or 2.
    pub(crate) const COUNT: u8 = 0b0011;
    /// The outer tag has the ethertype of a service tag (0x88a8, 0x9100 or 0x9200).
    pub(crate) const OUTER_IS_SERVICE: u8 = 0b0100;
    /// The same for the inner tag.
    pub(crate) const INNER_IS_SERVICE: u8 = 0b1000;
    /// The type stands behind LLC and SNAP.
    pub(crate) const SNAP: u8 = 0b1_0000;
}

/// Word 3 of a key, field by field.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Kind {
    pub(crate) proto: u8,
    pub(crate) layer: u8,
    /// Number of a [`Malformed`], or zero.
    pub(crate) malformed: u8,
    /// Number of a [`Fragment`].
    pub(crate) fragment: u8,
    pub(crate) dscp: u8,
    /// One if there are IPv4 options or IPv6 extension headers.
    pub(crate) options: u8,
    pub(crate) tags: u8,
    /// Flags of TCP, as far as the policy looks at them. The parser leaves them zero.
    pub(crate) tcp_flags: u8,
}

impl Kind {
    #[inline]
    pub(crate) const fn to_word(self) -> u64 {
        let Self { proto, layer, malformed, fragment, dscp, options, tags, tcp_flags } = self;
        u64::from_le_bytes([proto, layer, malformed, fragment, dscp, options, tags, tcp_flags])
    }

    #[inline]
    const fn from_word(word: u64) -> Self {
        let [proto, layer, malformed, fragment, dscp, options, tags, tcp_flags] = word.to_le_bytes();
        Self { proto, layer, malformed, fragment, dscp, options, tags, tcp_flags }
    }
}

/// One VLAN tag (IEEE 802.1Q).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct VlanTag {
    /// Tag control information: priority, drop eligibility, and the VLAN in the low twelve bits.
    pub tci: u16,
    /// Whether it is a service tag (ethertype 0x88a8, or 0x9100 and 0x9200 of before that), not a customer tag (0x8100).
    pub service: bool,
}

impl VlanTag {
    /// The number of the VLAN, 0 to 4095; 0 means that the tag only carries a priority.
    #[must_use]
    pub const fn id(self) -> u16 {
        self.tci & 0x0fff
    }
}

/// Every field of a packet that a policy may consult; packets with equal keys are of one flow.
///
/// Made by [`parse`](crate::parse). The fields that a malformed packet has before its fault are kept. The default is
/// the key of a runt from port 0, to fill a table with.
#[derive(Clone, Copy, Default, Eq)]
#[repr(C, align(64))]
pub struct FlowKey {
    words: [u64; 8],
}

impl PartialEq for FlowKey {
    // Without a branch for each word: the derived form calls memcmp, which costs more than the rest of a lookup.
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        let differ =
            |words: &[usize]| words.iter().fold(0, |differs, at| differs | (self.words[*at] ^ other.words[*at]));
        // Where flows differ, they mostly differ in ports and addresses.
        differ(&[2, 4]) == 0 && differ(&[0, 1, 3, 5, 6, 7]) == 0
    }
}

impl Hash for FlowKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.words.hash(state);
    }
}

// The flow table keeps one key per cache line.
const _: () = assert!(size_of::<FlowKey>() == 64 && align_of::<FlowKey>() == 64);

impl FlowKey {
    /// Words of a [short](Self::is_short) key that are not always zero.
    pub const SHORT: usize = 5;

    /// Makes a key from its words, which the caller has put together as the module says, or got from [`words`](Self::words).
    #[inline]
    #[must_use]
    pub const fn from_words(words: [u64; 8]) -> Self {
        Self { words }
    }

    /// Whether all words from number [`SHORT`](Self::SHORT) on are zero in every key whose first ones are those of this key, which say what
    /// kind of frame it is of.
    #[inline]
    #[must_use]
    pub const fn is_short(&self) -> bool {
        !matches!(self.kind().layer, layer::IPV6 | layer::ARP)
    }

    /// The eight words, in the layout that the module describes.
    #[inline]
    #[must_use]
    pub const fn words(&self) -> &[u64; 8] {
        &self.words
    }

    #[inline]
    pub(crate) const fn kind(&self) -> Kind {
        Kind::from_word(self.words[3])
    }

    /// Destination address of the frame; zero in a runt.
    #[inline]
    #[must_use]
    pub const fn dst_mac(&self) -> MacAddr {
        MacAddr::from_u64(self.words[0] >> 16)
    }

    /// Source address of the frame; zero in a runt.
    #[inline]
    #[must_use]
    pub const fn src_mac(&self) -> MacAddr {
        MacAddr::from_u64(self.words[1] >> 16)
    }

    /// The id of the port that the frame came from, as it was given to [`parse`](crate::parse).
    #[inline]
    #[must_use]
    pub const fn source(&self) -> u16 {
        quarter(self.words[0], 0)
    }

    /// The ethertype after all VLAN tags, and behind SNAP if it stands for one. Zero in a runt and in an IEEE 802.3 frame, whose length says nothing about
    /// its flow.
    #[inline]
    #[must_use]
    pub const fn ethertype(&self) -> u16 {
        quarter(self.words[1], 0)
    }

    /// Whether the type stands behind LLC and SNAP (RFC 1042, IEEE 802.1H) and not in the Ethernet header.
    #[inline]
    #[must_use]
    pub const fn is_snap(&self) -> bool {
        self.kind().tags & tags::SNAP != 0
    }

    /// How many VLAN tags were read: 0, 1 or 2.
    #[inline]
    #[must_use]
    pub const fn vlans(&self) -> u8 {
        self.kind().tags & tags::COUNT
    }

    /// The outer VLAN tag, or the only one.
    #[must_use]
    pub fn outer_vlan(&self) -> Option<VlanTag> {
        let service = self.kind().tags & tags::OUTER_IS_SERVICE != 0;
        (self.vlans() > 0).then_some(VlanTag { tci: quarter(self.words[2], 3), service })
    }

    /// The inner one of two VLAN tags.
    #[must_use]
    pub fn inner_vlan(&self) -> Option<VlanTag> {
        let service = self.kind().tags & tags::INNER_IS_SERVICE != 0;
        (self.vlans() > 1).then_some(VlanTag { tci: quarter(self.words[2], 2), service })
    }

    /// What kind of frame it is.
    #[must_use]
    pub fn shape(&self) -> Shape {
        let kind = self.kind();
        let reason = usize::from(kind.malformed).checked_sub(1).and_then(|index| Malformed::ALL.get(index));
        match (reason, kind.layer) {
            (Some(&reason), _) => Shape::Malformed(reason),
            (None, layer::RUNT) => Shape::Runt,
            (None, layer::ARP) => Shape::Arp,
            (None, layer::IPV4) => Shape::Ipv4,
            (None, layer::IPV6) => Shape::Ipv6,
            (None, _) => Shape::Other,
        }
    }

    /// Which part of a fragmented packet it is.
    #[must_use]
    pub const fn fragment(&self) -> Fragment {
        match self.kind().fragment {
            0 => Fragment::None,
            1 => Fragment::First,
            _ => Fragment::Later,
        }
    }

    /// IP protocol number after IPv6 extension headers; zero unless the frame is IP.
    #[inline]
    #[must_use]
    pub const fn proto(&self) -> u8 {
        self.kind().proto
    }

    /// Differentiated services code point, 0 to 63: the traffic class without the two ECN bits (RFC 2474).
    #[inline]
    #[must_use]
    pub const fn dscp(&self) -> u8 {
        self.kind().dscp
    }

    /// Whether there are IPv4 options or IPv6 extension headers.
    #[inline]
    #[must_use]
    pub const fn has_options(&self) -> bool {
        self.kind().options != 0
    }

    /// Source address of IP, or sender protocol address of ARP; `None` if the frame is neither, or so malformed that
    /// there is none.
    #[must_use]
    pub fn src_addr(&self) -> Option<IpAddr> {
        self.address(0)
    }

    /// Destination address of IP, or target protocol address of ARP.
    #[must_use]
    pub fn dst_addr(&self) -> Option<IpAddr> {
        self.address(1)
    }

    fn address(&self, end: usize) -> Option<IpAddr> {
        let [high, low] = self.ends()[end];
        match self.kind().layer {
            layer::IPV6 => Some(IpAddr::V6(Ipv6Addr::from_bits(u128::from(high) << 64 | u128::from(low)))),
            layer::IPV4 | layer::ARP => {
                let [_, _, _, _, a, b, c, d] = low.to_be_bytes();
                Some(IpAddr::V4(Ipv4Addr::new(a, b, c, d)))
            }
            _ => None,
        }
    }

    /// Source and destination, each with the first and the last 64 bits of its address. IPv4 is in the low half of the second; the
    /// hardware address of ARP is the first.
    pub(crate) const fn ends(&self) -> [[u64; 2]; 2] {
        let [.., last, src, dst, between] = self.words;
        [[src, between & !0 << 32 | last >> 32], [dst, between << 32 | last & 0xffff_ffff]]
    }

    /// The words from number 4 on, for ends such as [`ends`](Self::ends) returns.
    pub(crate) const fn address_words([[s0, s1], [d0, d1]]: [[u64; 2]; 2]) -> [u64; 4] {
        [s1 << 32 | d1 & 0xffff_ffff, s0, d0, s1 & !0 << 32 | d1 >> 32]
    }

    /// Whether the transport header was there to be read.
    #[inline]
    fn has_l4(&self) -> bool {
        let kind = self.kind();
        matches!(kind.layer, layer::IPV4 | layer::IPV6) && kind.malformed == 0 && kind.fragment != Fragment::Later as u8
    }

    #[inline]
    pub(crate) fn has_ports(&self) -> bool {
        self.has_l4() && matches!(self.proto(), TCP | UDP | UDP_LITE | SCTP)
    }

    /// Source port of TCP, UDP, UDP-Lite or SCTP; `None` for other protocols, later fragments and malformed packets.
    #[must_use]
    pub fn src_port(&self) -> Option<u16> {
        self.has_ports().then_some(quarter(self.words[2], 1))
    }

    /// Destination port of TCP, UDP, UDP-Lite or SCTP; `None` for other protocols, later fragments and malformed
    /// packets.
    #[must_use]
    pub fn dst_port(&self) -> Option<u16> {
        self.has_ports().then_some(quarter(self.words[2], 0))
    }

    /// Type and code of ICMP or ICMPv6.
    #[must_use]
    pub fn icmp(&self) -> Option<(u8, u8)> {
        let kind = self.kind();
        let icmp = matches!((kind.layer, kind.proto), (layer::IPV4, ICMP) | (layer::IPV6, ICMPV6));
        let [kind, code] = quarter(self.words[2], 1).to_be_bytes();
        (icmp && self.has_l4()).then_some((kind, code))
    }

    /// Identifier of an ICMP or ICMPv6 echo request or reply.
    #[must_use]
    pub fn icmp_id(&self) -> Option<u16> {
        let (kind, _) = self.icmp()?;
        is_echo(self.kind().layer, kind).then_some(quarter(self.words[2], 0))
    }

    /// The same key, as that of a frame that is not whole for this reason, and of which this protocol of IP is known.
    #[must_use]
    pub(crate) const fn with_malformed(mut self, reason: Malformed, proto: u8) -> Self {
        self.words[3] = Kind { malformed: reason as u8, proto, ..self.kind() }.to_word();
        self
    }

    /// The same key with `flags` of TCP in it, as `flags & mask` of a packet whose flags the policy looks at.
    #[inline]
    #[must_use]
    pub const fn with_tcp_flags(mut self, flags: u8) -> Self {
        self.words[3] = Kind { tcp_flags: flags, ..self.kind() }.to_word();
        self
    }

    /// The flags of TCP that [`with_tcp_flags`](Self::with_tcp_flags) has put there; zero if it has not.
    #[inline]
    #[must_use]
    pub const fn tcp_flags(&self) -> u8 {
        self.kind().tcp_flags
    }

    fn is_arp(&self) -> bool {
        self.kind().layer == layer::ARP
    }

    /// Operation of ARP: 1 is a request, 2 a reply (RFC 826).
    #[must_use]
    pub fn arp_operation(&self) -> Option<u16> {
        self.is_arp().then_some(quarter(self.words[2], 1))
    }

    /// Sender hardware address of ARP, which need not be the source address of the frame.
    #[must_use]
    pub fn arp_sender(&self) -> Option<MacAddr> {
        self.is_arp().then_some(MacAddr::from_u64(self.words[5]))
    }

    /// Target hardware address of ARP.
    #[must_use]
    pub fn arp_target(&self) -> Option<MacAddr> {
        self.is_arp().then_some(MacAddr::from_u64(self.words[6]))
    }
}

/// Whether an ICMP message of this type under IPv4 or IPv6 is an echo, and so has an identifier (RFC 792, RFC 4443).
#[inline]
pub(crate) const fn is_echo(layer: u8, icmp_type: u8) -> bool {
    matches!((layer, icmp_type), (layer::IPV4, 0 | 8) | (layer::IPV6, 128 | 129))
}

/// One of the four 16-bit quarters of a word; quarter zero is the low one.
#[inline]
const fn quarter(word: u64, index: u32) -> u16 {
    let [low, high, ..] = (word >> (16 * index)).to_le_bytes();
    u16::from_le_bytes([low, high])
}

#[cfg(test)]
mod tests {
    use crate::parse;
    use proptest::prelude::*;
    use std::string::ToString;

    proptest! {
        /// What a table leaves out of a short key is not there, whatever the frame.
        #[test]
        fn short_keys_are_zero_from_the_sixth_word_on(
            mut frame: [u8; 80],
            ethertype in prop_oneof![Just(0x0800_u16), Just(0x86dd), Just(0x0806), any::<u16>()],
            first in prop_oneof![Just(0x45_u8), Just(0x60), any::<u8>()],
            length in 0_usize..=80
        ) {
            frame[12..14].copy_from_slice(&ethertype.to_be_bytes());
            frame[14] = first;
            let key = parse(&frame[..length], 3).1;
            prop_assert!(!key.is_short() || key.words()[super::FlowKey::SHORT..] == [0; 3]);
        }

        /// Addresses are put together again as they were, of both kinds.
        #[test]
        fn addresses_fit_into_their_words(src: [u64; 2], dst: [u64; 2]) {
            let [w4, w5, w6, w7] = super::FlowKey::address_words([src, dst]);
            prop_assert_eq!(super::FlowKey::from_words([0, 0, 0, 0, w4, w5, w6, w7]).ends(), [src, dst]);
        }
    }

    proptest! {
        /// The flags have a place of their own: they change nothing else, and the parser never sets them.
        #[test]
        fn flags_of_tcp_change_the_key_and_nothing_that_it_says(frame: [u8; 64], flags: u8) {
            let plain = parse(&frame, 3).1;
            let key = plain.with_tcp_flags(flags);
            prop_assert_eq!((plain.tcp_flags(), key.tcp_flags()), (0, flags));
            prop_assert_eq!(key == plain, flags == 0);
            prop_assert_eq!(key.to_string(), plain.to_string());
            prop_assert_eq!((key.shape(), key.vlans(), key.proto()), (plain.shape(), plain.vlans(), plain.proto()));
            prop_assert_eq!(key.with_tcp_flags(0), plain);
        }
    }
}
