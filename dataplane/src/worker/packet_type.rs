//! What an app is told about the frames that it gets, so that it need not find it out again.

use kopi_packet::{FlowKey, Fragment, Shape};

/// The L2, L3 and L4 nibbles of `RTE_PTYPE_*` (DPDK, `rte_mbuf_ptype.h`) for a frame.
#[must_use]
pub fn packet_type(key: &FlowKey) -> u16 {
    const UNTAGGED_OR_TAGGED: [u16; 3] = [0x1, 0x6, 0x7];
    let l2 = UNTAGGED_OR_TAGGED.get(usize::from(key.vlans())).copied().unwrap_or(0x1);
    let l3 = match (key.shape(), key.has_options()) {
        (Shape::Arp, _) => return 0x3,
        (Shape::Ipv4, false) => 0x10,
        (Shape::Ipv4, true) => 0x30,
        (Shape::Ipv6, false) => 0x40,
        (Shape::Ipv6, true) => 0xc0,
        (Shape::Runt | Shape::Other | Shape::Malformed(_), _) => return l2,
    };
    let l4 = match (key.fragment(), key.proto()) {
        (Fragment::First | Fragment::Later, _) => 0x300,
        (Fragment::None, 6) => 0x100,
        (Fragment::None, 17) => 0x200,
        (Fragment::None, 132) => 0x400,
        (Fragment::None, 1 | 58) => 0x500,
        _ => 0,
    };
    l2 | l3 | l4
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ptype(frame: &[u8]) -> u16 {
        packet_type(&kopi_packet::parse(frame, 1).1)
    }

    /// Packet types are those that DPDK's own software parser would give.
    #[test]
    fn packet_types_follow_the_headers() {
        let mut frame = [0_u8; 64];
        assert_eq!(ptype(&frame), 0x1);
        frame[12..14].copy_from_slice(&[8, 0]);
        frame[14..24].copy_from_slice(&[0x45, 0, 0, 50, 0, 0, 0, 0, 64, 17]);
        frame[38..40].copy_from_slice(&[0, 30]);
        assert_eq!(ptype(&frame), 0x211);
        frame[23] = 6;
        frame[46] = 0x50;
        assert_eq!(ptype(&frame), 0x111);
        frame[20] = 0x20;
        assert_eq!(ptype(&frame), 0x311);
    }
}
