//! Frames that carry other frames or packets, whose addresses nobody looks at here.

use crate::walk::is_tag;
use crate::{FlowKey, Shape};

/// Whether a frame carries another packet or frame behind a header that is not followed: labels, tunnels over Ethernet, and
/// those over IP with a protocol number of their own. Whoever unpacks it at the other end takes what is in it as sent by
/// whom it says. Tunnels over UDP have ports, and are not among these.
///
/// # Source
///
/// IEEE 802 Numbers and Protocol Numbers, both at IANA.
#[must_use]
pub fn encapsulates(key: &FlowKey) -> bool {
    match key.shape() {
        Shape::Other => is_carrier(key.ethertype()),
        Shape::Ipv4 | Shape::Ipv6 => is_carrier_over_ip(key.proto()),
        Shape::Runt | Shape::Arp | Shape::Malformed(_) => false,
    }
}

const fn is_carrier(ethertype: u16) -> bool {
    matches!(
        ethertype,
        0x22f3 // TRILL (RFC 6325)
            | 0x6558 // Transparent Ethernet bridging (RFC 1701)
            | 0x8847 | 0x8848 // MPLS (RFC 3032)
            | 0x8863 | 0x8864 // PPPoE, discovery and session (RFC 2516)
            | 0x8870 // LLC in frames longer than its length can say
            | 0x880b // PPP
            | 0x88e7 // Backbone service instance tag (IEEE 802.1ah)
            | 0x8926 // VN-tag
            | 0x893f // E-tag (IEEE 802.1BR)
            | 0x894f // Network service header (RFC 8300)
                     // A tag behind SNAP.
    ) || is_tag(ethertype)
}

const fn is_carrier_over_ip(proto: u8) -> bool {
    matches!(
        proto,
        4 | 41 // IPv4 and IPv6 (RFC 2003, RFC 2473)
            | 47 // GRE (RFC 2784)
            | 55 // Minimal encapsulation (RFC 2004)
            | 94 // IP within IP, as KA9Q had it
            | 97 // Ethernet (RFC 3378)
            | 98 // Encapsulation header (RFC 1241)
            | 115 // L2TP, version 3 (RFC 3931)
            | 137 // MPLS (RFC 4023)
            | 143 // Ethernet (RFC 8986)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse;
    use std::vec;
    use std::vec::Vec;

    fn is(frame: &[u8]) -> bool {
        encapsulates(&parse(frame, 1).1)
    }

    fn ethernet(kind: u16, payload: &[u8]) -> Vec<u8> {
        [&[2; 12][..], &kind.to_be_bytes(), payload, &[0; 46]].concat()
    }

    /// Carriers are found by their type, behind tags and SNAP as well, and by their protocol in either family; what ends at
    /// its own header is none.
    #[test]
    fn carriers_are_told_from_ends() {
        for kind in [0x8847, 0x8848, 0x8864, 0x8863, 0x88e7, 0x22f3] {
            let [high, low] = u16::to_be_bytes(kind);
            assert!(is(&ethernet(kind, &[])) && is(&ethernet(0x9100, &[0, 7, high, low])), "{kind:#x}");
            assert!(is(&ethernet(46, &[0xaa, 0xaa, 3, 0, 0, 0, high, low])), "{kind:#x}");
        }
        assert!(is(&ethernet(46, &[0xaa, 0xaa, 3, 0, 0, 0, 0x81, 0, 0, 7, 8, 0])), "a tag behind SNAP");
        for kind in [0x88cc, 0x0806, 0x88b5, 46] {
            assert!(!is(&ethernet(kind, &[])), "{kind:#x}");
        }
        for (proto, carries) in [(4, true), (41, true), (47, true), (115, true), (6, false), (17, false), (50, false)] {
            let mut v4 = vec![0x45, 0, 0, 60, 0, 0, 0, 0, 64, proto, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
            v4.resize(60, 0);
            assert_eq!(is(&ethernet(0x0800, &v4)), carries, "{proto}");
            let mut v6 = vec![0x60, 0, 0, 0, 0, 40, 60, 64];
            v6.resize(40, 1);
            v6.extend([proto, 0, 1, 4, 0, 0, 0, 0]);
            v6.resize(80, 0);
            assert_eq!(is(&ethernet(0x86dd, &v6)), carries, "{proto} behind an extension header");
        }
    }
}
