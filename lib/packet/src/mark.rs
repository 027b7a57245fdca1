//! What a class writes into its frames: the code point of IP, the priority of a VLAN tag.

use crate::checksum::checksum;
use crate::{Shape, parse};

/// Where the tag control information of the outer VLAN tag lies (IEEE 802.1Q, 9.3).
const TCI: usize = 14;
/// The two low bits of what was the type of service, which are those of congestion (RFC 3168, 5).
const ECN: u8 = 0b11;

/// What frames are marked with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// The differentiated services code point, 0 to 63, for IP packets.
    pub dscp: Option<u8>,
    /// The priority, 0 to 7, for frames with a VLAN tag.
    pub vlan_priority: Option<u8>,
}

impl Mark {
    /// Leaves frames as they are.
    pub const NONE: Self = Self { dscp: None, vlan_priority: None };

    /// Whether frames stay as they are.
    #[inline]
    #[must_use]
    pub const fn is_none(&self) -> bool {
        self.dscp.is_none() && self.vlan_priority.is_none()
    }

    /// Marks `frame`. What it does not have, or what cannot be read to its end, is left as it is.
    ///
    /// # Source
    ///
    /// RFC 2474, 3 for the field; RFC 1624, 3 (equation 3) for the checksum of IPv4.
    pub fn apply(&self, frame: &mut [u8]) {
        let (headers, _) = parse(frame, 0);
        if let (Some(priority), true) = (self.vlan_priority, headers.vlans > 0)
            && let Some(high) = frame.get_mut(TCI)
        {
            *high = *high & 0b1_1111 | (priority & 0b111) << 5;
        }
        let Some(dscp) = self.dscp.map(|dscp| (dscp & 0b11_1111) << 2) else { return };
        let start = usize::from(headers.l3_offset);
        match headers.shape {
            Shape::Ipv4 => {
                let Some(header) = frame.get_mut(start..).and_then(<[u8]>::first_chunk_mut::<20>) else { return };
                let before = u16::from_be_bytes([header[0], header[1]]);
                header[1] = dscp | header[1] & ECN;
                let after = u16::from_be_bytes([header[0], header[1]]);
                let sum = u16::from_be_bytes([header[10], header[11]]);
                [header[10], header[11]] = adjusted(sum, before, after).to_be_bytes();
            }
            Shape::Ipv6 => {
                let Some([first, second]) = frame.get_mut(start..).and_then(<[u8]>::first_chunk_mut::<2>) else {
                    return;
                };
                *first = *first & 0xf0 | dscp >> 4;
                *second = *second & 0b11_1111 | dscp << 4;
            }
            _ => {}
        }
    }
}

/// The checksum `sum` after a word that it covers was changed from `before` to `after`.
fn adjusted(sum: u16, before: u16, after: u16) -> u16 {
    checksum(u64::from(!sum) + u64::from(!before) + u64::from(after))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checksum::sum;
    use crate::describe::frame_of;
    use proptest::prelude::*;
    use std::vec::Vec;

    proptest! {
        /// IPv4 packets get the code point and keep a right checksum, a wrong one stays as wrong; the bits of congestion and
        /// everything else stay.
        #[test]
        fn ipv4_is_marked(dscp in 0_u8..64, tos in any::<u8>(), id in any::<u16>(), tagged in any::<bool>()) {
            let text = if tagged { "vlan 7 udp 10.0.0.1:1 > 10.0.0.2:2" } else { "udp 10.0.0.1:1 > 10.0.0.2:2" };
            let mut frame: Vec<u8> = frame_of(text).unwrap();
            let start = usize::from(parse(&frame, 0).0.l3_offset);
            frame[start + 1] = tos;
            frame[start + 4..start + 6].copy_from_slice(&id.to_be_bytes());
            frame[start + 10..start + 12].fill(0);
            let right = checksum(sum(&frame[start..start + 20])).to_be_bytes();
            frame[start + 10..start + 12].copy_from_slice(&right);
            let before = frame.clone();
            Mark { dscp: Some(dscp), vlan_priority: Some(5) }.apply(&mut frame);
            prop_assert_eq!(checksum(sum(&frame[start..start + 20])), 0);
            prop_assert_eq!(frame[start + 1], dscp << 2 | tos & 3);
            if tagged {
                prop_assert_eq!((frame[14] >> 5, frame[14] & 0x1f, frame[15]), (5, before[14] & 0x1f, before[15]));
            }
            frame[14] = before[14];
            frame[start + 1] = before[start + 1];
            frame[start + 10..start + 12].copy_from_slice(&before[start + 10..start + 12]);
            prop_assert_eq!(frame, before);
        }

        /// IPv6 packets get the code point, and keep version, flow label and the bits of congestion.
        #[test]
        fn ipv6_is_marked(dscp in 0_u8..64, class in any::<u8>(), label in any::<u16>()) {
            let mut frame: Vec<u8> = frame_of("udp [fe80::1]:1 > [fe80::2]:2").unwrap();
            frame[14] = 0x60 | class >> 4;
            frame[15] = class << 4 | 0xa;
            frame[16..18].copy_from_slice(&label.to_be_bytes());
            Mark { dscp: Some(dscp), vlan_priority: Some(1) }.apply(&mut frame);
            let word = u32::from_be_bytes([frame[14], frame[15], frame[16], frame[17]]);
            prop_assert_eq!(word >> 28, 6);
            prop_assert_eq!(word >> 22 & 0x3f, u32::from(dscp));
            prop_assert_eq!(word >> 20 & 3, u32::from(class & 3));
            prop_assert_eq!(word & 0xf_ffff, 0xa_0000 | u32::from(label));
        }

        /// Whatever the frame, nothing but the places of the marks changes, and nothing panics.
        #[test]
        fn any_frame_can_be_marked(frame in prop::collection::vec(any::<u8>(), 0..80)) {
            let mut marked = frame.clone();
            Mark { dscp: Some(46), vlan_priority: Some(7) }.apply(&mut marked);
            let changed = marked.iter().zip(&frame).filter(|(a, b)| a != b).count();
            prop_assert!(changed <= 5, "{} bytes", changed);
            let mut same = frame.clone();
            Mark::NONE.apply(&mut same);
            prop_assert_eq!(same, frame);
        }
    }
}
