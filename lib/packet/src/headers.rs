//! What the parser can find in a frame.

/// What the parser found in one Ethernet frame. The default is what is said about a runt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Headers {
    /// What kind of frame it is, or why that could not be told.
    pub shape: Shape,
    /// The type field after all VLAN tags that were read; zero in a runt. Below 0x0600 it is an IEEE 802.3 length.
    pub ethertype: u16,
    /// How many VLAN tags were read: 0, 1 or 2.
    pub vlans: u8,
    /// Where what follows the last ethertype begins, in bytes from the start of the frame; zero in a runt.
    pub l3_offset: u16,
    /// Where the payload of IP begins, in bytes from the start of the frame; zero if the packet has none that can be
    /// parsed: it is no IP, malformed, a later fragment, or ends with "no next header".
    pub l4_offset: u16,
    /// IP protocol number of that payload, after IPv6 extension headers; zero unless the frame is IP.
    ///
    /// In a malformed packet it is the last protocol that was read.
    pub proto: u8,
    /// Which part of a fragmented IP packet this is.
    pub fragment: Fragment,
}

/// What kind of frame it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Shape {
    /// Shorter than the 14 bytes of an Ethernet header.
    #[default]
    Runt,
    /// An ethertype that is not parsed.
    Other,
    /// ARP for IPv4 over Ethernet.
    Arp,
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
    /// A header contradicts itself or the length of the frame.
    Malformed(Malformed),
}

/// Which part of a fragmented IP packet a frame carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Fragment {
    /// A whole packet. An IPv6 packet with a fragment header but nothing missing (RFC 6946) counts as whole.
    #[default]
    None = 0,
    /// The first part, which has the transport header.
    First = 1,
    /// Another part: its ports are not known.
    Later = 2,
}

impl Fragment {
    /// A stable name, for the command line and counters.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::First => "first",
            Self::Later => "later",
        }
    }
}

/// Why a frame could not be parsed to its end.
///
/// Every reason is a place where another host might read the bytes differently than we do, so a policy must not treat
/// such a frame as the flow that it pretends to be. Checksums are not looked at: they do not change what is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
#[non_exhaustive]
pub enum Malformed {
    /// A third VLAN tag; two are parsed (IEEE 802.1Q and 802.1ad).
    VlanTooDeep = 1,
    /// The frame ends within a VLAN tag.
    VlanTruncated = 2,
    /// The IPv4 header is cut short, has another version, or an IHL below 5 (RFC 791, 3.1).
    Ipv4Header = 3,
    /// The total length is below the header length, or above what the frame holds (RFC 791, 3.1).
    Ipv4Length = 4,
    /// An IPv4 option has a length below 2, or runs over the end of the header (RFC 791, 3.1).
    Ipv4Options = 5,
    /// The IPv6 header is cut short or has another version (RFC 8200, 3).
    Ipv6Header = 6,
    /// The payload length is above what the frame holds (RFC 8200, 3).
    Ipv6Length = 7,
    /// The chain of extension headers is cut short, out of order, or longer than 8 headers or 256 bytes (RFC 8200, 4;
    /// RFC 7112; the limits are ours, as RFC 8504, 5.3 lets a node have).
    Ipv6Extensions = 8,
    /// An IPv6 jumbogram (RFC 2675), which no port here can carry.
    Ipv6Jumbogram = 9,
    /// A fragment that would overwrite the flags of a TCP header (RFC 1858, 3.2.2; RFC 3128) or reach beyond the
    /// largest packet (RFC 8200, 4.5).
    FragmentOffset = 10,
    /// The ARP packet is cut short (RFC 826).
    ArpTruncated = 11,
    /// ARP for something else than IPv4 over Ethernet.
    ArpHeader = 12,
    /// The packet, or its first fragment, ends within the TCP, UDP, UDP-Lite, SCTP or ICMP header (RFC 1858, 3.2.1;
    /// RFC 7112, 5). The key keeps the addresses, and has no ports.
    L4Truncated = 13,
}

impl Malformed {
    /// Every reason, in the order of their numbers, which start at one.
    pub const ALL: [Self; 13] = [
        Self::VlanTooDeep,
        Self::VlanTruncated,
        Self::Ipv4Header,
        Self::Ipv4Length,
        Self::Ipv4Options,
        Self::Ipv6Header,
        Self::Ipv6Length,
        Self::Ipv6Extensions,
        Self::Ipv6Jumbogram,
        Self::FragmentOffset,
        Self::ArpTruncated,
        Self::ArpHeader,
        Self::L4Truncated,
    ];

    /// A stable name, for the command line and counters.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::VlanTooDeep => "vlan_too_deep",
            Self::VlanTruncated => "vlan_truncated",
            Self::Ipv4Header => "ipv4_header",
            Self::Ipv4Length => "ipv4_length",
            Self::Ipv4Options => "ipv4_options",
            Self::Ipv6Header => "ipv6_header",
            Self::Ipv6Length => "ipv6_length",
            Self::Ipv6Extensions => "ipv6_extensions",
            Self::Ipv6Jumbogram => "ipv6_jumbogram",
            Self::FragmentOffset => "fragment_offset",
            Self::ArpTruncated => "arp_truncated",
            Self::ArpHeader => "arp_header",
            Self::L4Truncated => "l4_truncated",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// The key stores a reason by its number, and finds it again in `ALL`.
    #[test]
    fn all_reasons_are_listed_by_number_and_named_apart() {
        let mut names = BTreeSet::new();
        for (number, reason) in (1_u8..).zip(Malformed::ALL) {
            assert_eq!(reason as u8, number);
            assert!(names.insert(reason.name()));
        }
    }

    /// `Headers` is kept for every packet of a batch.
    #[test]
    fn headers_stay_small() {
        assert!(size_of::<Headers>() <= 16);
    }
}
