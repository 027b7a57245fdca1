//! The words that stand for numbers, as nftables and /etc/protocols have them.

/// Words for numbers. Of several for one number, the first is written back.
pub(super) type Words<T> = &'static [(&'static str, &'static [T])];

/// IP protocols (IANA, "Protocol Numbers"). `icmp` is that of either family.
pub(super) const PROTOCOLS: Words<u8> = &[
    ("tcp", &[6]),
    ("udp", &[17]),
    ("icmp", &[1, 58]),
    ("icmp6", &[58]),
    ("icmpv6", &[58]),
    ("ipv6-icmp", &[58]),
    ("sctp", &[132]),
    ("udplite", &[136]),
    ("igmp", &[2]),
    ("ipip", &[4]),
    ("dccp", &[33]),
    ("gre", &[47]),
    ("esp", &[50]),
    ("ah", &[51]),
    ("ospf", &[89]),
    ("pim", &[103]),
    ("vrrp", &[112]),
    ("l2tp", &[115]),
];

/// IP protocols with ports.
pub(super) const PORT_PROTOCOLS: &[(&str, u8)] = &[("tcp", 6), ("udp", 17), ("sctp", 132), ("udplite", 136)];

/// Ethertypes (IANA, "IEEE 802 Numbers").
pub(super) const ETHERTYPES: Words<u16> = &[
    ("ipv4", &[0x0800]),
    ("ip", &[0x0800]),
    ("ipv6", &[0x86dd]),
    ("ip6", &[0x86dd]),
    ("arp", &[0x0806]),
    ("rarp", &[0x8035]),
    ("mpls", &[0x8847]),
    ("pppoe", &[0x8864]),
    ("eapol", &[0x888e]),
    ("lldp", &[0x88cc]),
    ("macsec", &[0x88e5]),
    ("ptp", &[0x88f7]),
];

/// Operations of ARP (RFC 826).
pub(super) const ARP_OPERATIONS: Words<u16> = &[("request", &[1]), ("reply", &[2])];

/// Differentiated services code points: class selectors (RFC 2474, 4.2.2), assured forwarding (RFC 2597, 6), expedited
/// forwarding (RFC 3246), admitted voice (RFC 5865), lower effort (RFC 8622).
pub(super) const DSCP: Words<u8> = &[
    ("ef", &[46]),
    ("cs0", &[0]),
    ("be", &[0]),
    ("cs1", &[8]),
    ("cs2", &[16]),
    ("cs3", &[24]),
    ("cs4", &[32]),
    ("cs5", &[40]),
    ("cs6", &[48]),
    ("cs7", &[56]),
    ("af11", &[10]),
    ("af12", &[12]),
    ("af13", &[14]),
    ("af21", &[18]),
    ("af22", &[20]),
    ("af23", &[22]),
    ("af31", &[26]),
    ("af32", &[28]),
    ("af33", &[30]),
    ("af41", &[34]),
    ("af42", &[36]),
    ("af43", &[38]),
    ("va", &[44]),
    ("le", &[1]),
];

/// Types of ICMP (IANA, "ICMP Type Numbers").
pub(super) const ICMP_TYPES: Words<u8> = &[
    ("echo-request", &[8]),
    ("echo-reply", &[0]),
    ("destination-unreachable", &[3]),
    ("source-quench", &[4]),
    ("redirect", &[5]),
    ("router-advertisement", &[9]),
    ("router-solicitation", &[10]),
    ("time-exceeded", &[11]),
    ("parameter-problem", &[12]),
    ("timestamp-request", &[13]),
    ("timestamp-reply", &[14]),
];

/// Types of ICMPv6 (IANA, "ICMPv6 type Numbers").
pub(super) const ICMP6_TYPES: Words<u8> = &[
    ("echo-request", &[128]),
    ("echo-reply", &[129]),
    ("destination-unreachable", &[1]),
    ("packet-too-big", &[2]),
    ("time-exceeded", &[3]),
    ("parameter-problem", &[4]),
    ("mld-listener-query", &[130]),
    ("mld-listener-report", &[131]),
    ("mld-listener-done", &[132]),
    ("nd-router-solicit", &[133]),
    ("nd-router-advert", &[134]),
    ("nd-neighbor-solicit", &[135]),
    ("nd-neighbor-advert", &[136]),
    ("nd-redirect", &[137]),
    ("mld2-listener-report", &[143]),
];

/// Flags of TCP in the order of their bits (RFC 9293, section 3.1).
pub(super) const TCP_FLAGS: [&str; 8] = ["fin", "syn", "rst", "psh", "ack", "urg", "ece", "cwr"];

/// A number up to 255 in decimal digits alone.
pub(super) fn decimal(text: &str) -> Option<u8> {
    text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()))
}
