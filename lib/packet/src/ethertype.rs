//! Ethertypes: their numbers and names.

/// IPv4.
pub const IPV4: u16 = 0x0800;
/// ARP (RFC 826).
pub const ARP: u16 = 0x0806;
/// The tag of a customer's VLAN (IEEE 802.1Q).
pub const VLAN: u16 = 0x8100;
/// IPv6.
pub const IPV6: u16 = 0x86dd;
/// MAC control, such as PAUSE (IEEE 802.3, 31).
pub const MAC_CONTROL: u16 = 0x8808;
/// Slow protocols, such as LACP (IEEE 802.3, 57A).
pub const SLOW: u16 = 0x8809;
/// EAP over LAN (IEEE 802.1X).
pub const EAPOL: u16 = 0x888e;
/// The tag of a provider's VLAN (IEEE 802.1ad).
pub const SERVICE_VLAN: u16 = 0x88a8;
/// LLDP (IEEE 802.1AB).
pub const LLDP: u16 = 0x88cc;
/// PTP (IEEE 1588).
pub const PTP: u16 = 0x88f7;

/// The names that people know (IEEE registration authority), in the order of the numbers.
const NAMES: [(u16, &str); 22] = [
    (IPV4, "IPv4"),
    (ARP, "ARP"),
    (0x0842, "Wake-on-LAN"),
    (0x8035, "RARP"),
    (VLAN, "802.1Q"),
    (IPV6, "IPv6"),
    (MAC_CONTROL, "MAC control"),
    (SLOW, "slow protocols"),
    (0x8847, "MPLS"),
    (0x8848, "MPLS multicast"),
    (0x8863, "PPPoE discovery"),
    (0x8864, "PPPoE"),
    (EAPOL, "EAPOL"),
    (0x8892, "PROFINET"),
    (0x88a4, "EtherCAT"),
    (SERVICE_VLAN, "802.1Q-QinQ"),
    (LLDP, "LLDP"),
    (0x88e5, "MACsec"),
    (PTP, "PTP"),
    (0x8902, "CFM"),
    (0x8915, "RoCE"),
    (0x9000, "loopback"),
];

/// The name of the ethertype with this number; `None` if few people know one.
#[must_use]
pub fn name(number: u16) -> Option<&'static str> {
    NAMES.iter().find(|(of, _)| *of == number).map(|(_, name)| *name)
}
