//! Frames between a station and the other end of its link, which no bridge forwards.
//!
//! They change what the link or the switch at its other end does: pause it, choose a root of the spanning tree, bundle
//! links, log a station in or out. So they are for whoever owns the link, and not for those who share it.

use crate::{FlowKey, ethertype};

/// The group addresses of IEEE 802.1Q-2018, 8.6.3, table 8-1: 01-80-C2-00-00-00 to -0F. What is for
/// them is for the next bridge at most, and for no other station of a network.
const RESERVED: u64 = 0x0180_c200_0000;
/// The bits of an address that tell whether it is one of these sixteen.
const RESERVED_MASK: u64 = 0xffff_ffff_fff0;
/// 01-00-0C-CC-CC-CC and -CD, at which Cisco's switches speak of the same matters, by SNAP: CDP, VTP, DTP, PAgP and UDLD at
/// the former, a spanning tree for each VLAN at the latter. Other bridges forward them.
const CISCO: u64 = 0x0100_0ccc_cccc;
/// All bits but that in which these two differ.
const CISCO_MASK: u64 = 0xffff_ffff_fffe;

/// An IEEE 802.3 frame has a length in the place of a type, for which the flow key has a zero.
const LENGTH: u16 = 0;

/// What a link control frame is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum LinkProtocol {
    /// Spanning tree protocols: everything with LLC to a reserved address (IEEE 802.1Q, 14.4).
    Stp,
    /// Link aggregation and the other slow protocols, such as OAM (IEEE 802.3, annex 57A).
    Lacp,
    /// Port-based network access control (IEEE 802.1X, 11).
    Eapol,
    /// Link layer discovery (IEEE 802.1AB, 7).
    Lldp,
    /// The peer delay messages of the precision time protocol (IEEE 1588, annex F). Its other messages have an address that
    /// bridges forward.
    Ptp,
    /// MAC control: PAUSE, priority-based flow control and what else has its EtherType, to whatever address (IEEE 802.3, 31).
    MacControl,
    /// Cisco's protocols between a station and its switch.
    Cdp,
    /// Anything else to a reserved address.
    Other,
}

impl LinkProtocol {
    /// What a frame is, by its flow key; `None` if it is not of link control.
    #[inline]
    #[must_use]
    pub const fn of(key: &FlowKey) -> Option<Self> {
        let (mac, ethertype) = (key.dst_mac().to_u64(), key.ethertype());
        if ethertype == ethertype::MAC_CONTROL {
            return Some(Self::MacControl);
        }
        if mac & CISCO_MASK == CISCO {
            return Some(Self::Cdp);
        }
        if mac & RESERVED_MASK != RESERVED {
            return None;
        }
        Some(match ethertype {
            ethertype::SLOW => Self::Lacp,
            ethertype::EAPOL => Self::Eapol,
            ethertype::LLDP => Self::Lldp,
            ethertype::PTP => Self::Ptp,
            LENGTH => Self::Stp,
            _ => Self::Other,
        })
    }
}

/// Some of the [`LinkProtocol`]s.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct LinkProtocols(u8);

impl LinkProtocols {
    /// None of them.
    pub const NONE: Self = Self(0);
    /// All of them.
    pub const ALL: Self = Self(u8::MAX);

    /// These and `protocol`.
    #[must_use]
    pub const fn with(self, protocol: LinkProtocol) -> Self {
        Self(self.0 | 1 << protocol as u8)
    }

    /// Whether `protocol` is one of them.
    #[inline]
    #[must_use]
    pub const fn contains(self, protocol: LinkProtocol) -> bool {
        self.0 >> protocol as u8 & 1 != 0
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse;
    use std::vec::Vec;

    fn protocol(dst: [u8; 6], kind: u16, payload: &[u8]) -> Option<LinkProtocol> {
        let frame: Vec<u8> = [&dst, &[2, 0, 0, 0, 0, 1], &kind.to_be_bytes()[..], payload, &[0; 46]].concat();
        LinkProtocol::of(&parse(&frame, 1).1)
    }

    /// Every address of table 8-1 is one that frames of any type are dropped at, and its neighbours are not.
    #[test]
    fn the_table_of_reserved_addresses_is_whole() {
        let reserved = |last| [0x01, 0x80, 0xc2, 0, 0, last];
        for last in 0..=u8::MAX {
            let is = last < 0x10;
            for kind in [0x0800, 0x86dd, 0x88b5, 0x88cc, 0x8100, 46] {
                assert_eq!(protocol(reserved(last), kind, &[0x42, 0x42, 3]).is_some(), is, "{last:#x} {kind:#x}");
            }
        }
        for near in [[0x03, 0x80, 0xc2, 0, 0, 0], [0x00, 0x80, 0xc2, 0, 0, 0], [0x01, 0x80, 0xc2, 0, 1, 0], [0xff; 6]] {
            assert_eq!(protocol(near, 0x88cc, &[]), None, "{near:x?}");
        }
    }

    /// What a frame is for follows from its address and type; MAC control is what it is at any address and behind any tag.
    #[test]
    fn protocols_are_told_apart() {
        const NEAREST: [u8; 6] = [0x01, 0x80, 0xc2, 0, 0, 0];
        const CISCO: [u8; 6] = [0x01, 0, 0x0c, 0xcc, 0xcc, 0xcc];
        for (dst, kind, payload, expected) in [
            (NEAREST, 38, &[0x42, 0x42, 3][..], LinkProtocol::Stp),
            (NEAREST, 0x8809, &[1, 1], LinkProtocol::Lacp),
            (NEAREST, 0x888e, &[1, 2], LinkProtocol::Eapol),
            (NEAREST, 0x88cc, &[2, 7], LinkProtocol::Lldp),
            (NEAREST, 0x88f7, &[2], LinkProtocol::Ptp),
            (NEAREST, 0x88f5, &[2], LinkProtocol::Other),
            (NEAREST, 0x8100, &[0, 7, 0x88, 0xcc], LinkProtocol::Lldp),
            (NEAREST, 0x8808, &[0, 1, 255, 255], LinkProtocol::MacControl),
            ([0xff; 6], 0x8808, &[0, 1, 255, 255], LinkProtocol::MacControl),
            ([2, 0, 0, 0, 0, 7], 0x8808, &[1, 1], LinkProtocol::MacControl),
            ([2, 0, 0, 0, 0, 7], 0x8100, &[0, 0, 0x88, 8], LinkProtocol::MacControl),
            (CISCO, 38, &[0xaa, 0xaa, 3, 0, 0, 0x0c, 0x20, 0], LinkProtocol::Cdp),
            ([0x01, 0, 0x0c, 0xcc, 0xcc, 0xcd], 38, &[0xaa, 0xaa, 3, 0, 0, 0x0c, 1, 0x0b], LinkProtocol::Cdp),
        ] {
            assert_eq!(protocol(dst, kind, payload), Some(expected), "{dst:x?} {kind:#x}");
            let only = LinkProtocols::NONE.with(expected);
            assert!(only.contains(expected) && LinkProtocols::ALL.contains(expected) && !only.is_empty());
            assert!(!LinkProtocols::NONE.contains(expected));
        }
        assert!(!LinkProtocols::NONE.with(LinkProtocol::Lldp).contains(LinkProtocol::MacControl));
        assert_eq!(protocol([2, 0, 0, 0, 0, 7], 0x8809, &[]), None);
    }
}
