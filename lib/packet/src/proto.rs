//! Protocols over IP: their numbers and names.

/// ICMP of IPv4 (RFC 792).
pub const ICMP: u8 = 1;
/// TCP (RFC 9293).
pub const TCP: u8 = 6;
/// UDP (RFC 768).
pub const UDP: u8 = 17;
/// ICMP of IPv6 (RFC 4443).
pub const ICMPV6: u8 = 58;
/// SCTP (RFC 9260).
pub const SCTP: u8 = 132;
/// UDP-Lite (RFC 3828).
pub const UDP_LITE: u8 = 136;

/// Protocol numbers (IANA) by the names that people know, in the order of the numbers.
const NAMES: [(u8, &str); 20] = [
    (0, "Options"),
    (ICMP, "ICMP"),
    (2, "IGMP"),
    (4, "IPIP"),
    (TCP, "TCP"),
    (UDP, "UDP"),
    (33, "DCCP"),
    (41, "IPv6"),
    (43, "Routing"),
    (44, "Fragment"),
    (47, "GRE"),
    (50, "ESP"),
    (51, "AH"),
    (ICMPV6, "ICMPv6"),
    (60, "Options"),
    (89, "OSPF"),
    (103, "PIM"),
    (112, "VRRP"),
    (SCTP, "SCTP"),
    (UDP_LITE, "UDPLite"),
];

/// The name of the protocol with this number, or of IPv6's extension header; `None` if few people know one.
#[must_use]
pub fn name(number: u8) -> Option<&'static str> {
    NAMES.iter().find(|(of, _)| *of == number).map(|(_, name)| *name)
}
