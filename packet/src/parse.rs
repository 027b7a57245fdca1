//! The entry point, and the short way through it.

use crate::key::{self, Kind, layer};
use crate::walk::{self, ETHERNET, ETHERTYPE_IPV4, IPV4};
use crate::{FlowKey, Fragment, Headers, Shape};

/// Finds headers and flow key of an Ethernet frame (without FCS) in one pass.
///
/// `source` is the dataplane's id of the port that the frame came from; it becomes part of the key.
///
/// Padding after the length that IP claims is not looked at. Checksums are not checked: they change nothing about what
/// is read, and a sender may leave them to be filled in. Never panics and never allocates, for any bytes.
#[inline]
#[must_use]
pub fn parse(frame: &[u8], source: u16) -> (Headers, FlowKey) {
    match plain_ipv4(frame, source).or_else(|| unparsed(frame, source)) {
        Some(found) => found,
        None => {
            // Taken apart and put together again: so the compiler keeps the short way's eight words in registers until
            // the caller stores them. Without this it writes both ways' results to one place in memory and copies that
            // with wider loads than the stores were, which costs more than the whole parse.
            let (headers, key) = walk::parse(frame, source);
            let Headers { shape, ethertype, vlans, l3_offset, l4_offset, proto, fragment } = headers;
            let [k0, k1, k2, k3, k4, k5, k6, k7] = *key.words();
            let headers = Headers { shape, ethertype, vlans, l3_offset, l4_offset, proto, fragment };
            (headers, FlowKey::from_words([k0, k1, k2, k3, k4, k5, k6, k7]))
        }
    }
}

/// The frames of which only addresses and type are read. `None` if there is more to read, or something special about it.
#[inline]
fn unparsed(frame: &[u8], source: u16) -> Option<(Headers, FlowKey)> {
    let bytes = frame.first_chunk::<ETHERNET>()?;
    let dst_mac_and_more = walk::be64(bytes, 0)?;
    let src_mac_and_type = walk::be64(bytes, 6)?;
    let ethertype = u16::from_be_bytes([bytes[12], bytes[13]]);
    if walk::has_layers(ethertype) {
        return None;
    }
    let kept = if ethertype >= walk::LOWEST_ETHERTYPE { !0 } else { !0xffff };
    let kind = Kind { layer: layer::OTHER, ..Kind::default() };
    let first = dst_mac_and_more & !0xffff | u64::from(source);
    let key = FlowKey::from_words([first, src_mac_and_type & kept, 0, kind.to_word(), 0, 0, 0, 0]);
    let headers = Headers { shape: Shape::Other, ethertype, l3_offset: 14, ..Headers::default() };
    Some((headers, key))
}

/// Parses the frames that most traffic consists of: no VLAN tag, IPv4 without options, not a fragment, TCP or UDP, room
/// for a TCP header, and every length right. `None` sends anything else the general way, which would give the same
/// answer for these.
///
/// Loads whole words at fixed offsets, and decides with as few branches as can be, because every packet pays for it.
#[inline]
fn plain_ipv4(frame: &[u8], source: u16) -> Option<(Headers, FlowKey)> {
    /// Bits of the first word of an IPv4 header that must be as in [`PLAIN`]: version and IHL in the highest byte, the
    /// more-fragments flag and the fragment offset in the lowest 14 bits.
    const MASK: u64 = 0xff00_0000_0000_3fff;
    const PLAIN: u64 = 0x4500_0000_0000_0000;
    /// Shortest total length: a TCP header, or a UDP header and twelve bytes. All but the smallest UDP packets have it.
    const SHORTEST: usize = IPV4 + 20;
    /// One bit for each protocol.
    const PROTOCOLS: u32 = 1 << key::TCP | 1 << key::UDP;

    let bytes = frame.first_chunk::<{ ETHERNET + SHORTEST }>()?;
    let dst_mac_and_more = walk::be64(bytes, 0)?;
    let src_mac_and_type = walk::be64(bytes, 6)?;
    let start = walk::be64(bytes, ETHERNET)?;
    let addresses = walk::be64(bytes, ETHERNET + 12)?;
    let ports = walk::be32(bytes, ETHERNET + IPV4)?;
    let proto = bytes[ETHERNET + 9];

    let different = (src_mac_and_type & 0xffff ^ u64::from(ETHERTYPE_IPV4)) | (start & MASK ^ PLAIN);
    let [_, tos, t0, t1, ..] = start.to_be_bytes();
    let total_length = usize::from(u16::from_be_bytes([t0, t1]));
    let length_fits = (SHORTEST..=frame.len() - ETHERNET).contains(&total_length);
    let known = proto < 32 && PROTOCOLS >> proto & 1 != 0;
    if different != 0 || !length_fits || !known {
        return None;
    }

    let kind = Kind { proto, layer: layer::IPV4, dscp: tos >> 2, ..Kind::default() };
    let key = FlowKey::from_words([
        dst_mac_and_more & !0xffff | u64::from(source),
        src_mac_and_type,
        u64::from(ports),
        kind.to_word(),
        0,
        addresses >> 32,
        0,
        addresses & 0xffff_ffff,
    ]);
    let headers = Headers {
        shape: Shape::Ipv4,
        ethertype: ETHERTYPE_IPV4,
        vlans: 0,
        l3_offset: 14,
        l4_offset: 34,
        proto,
        fragment: Fragment::None,
    };
    Some((headers, key))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    /// Frames around the border of the short way: a plain one with a few bytes changed, cut or padded.
    fn nearly_plain() -> impl Strategy<Value = Vec<u8>> {
        let patches = prop::collection::vec((12_usize..48, any::<u8>()), 0..4);
        (any::<[u8; 70]>(), prop_oneof![Just(6_u8), Just(17), Just(1), any::<u8>()], 20_u8..60, 30_usize..=70, patches)
            .prop_map(|(mut frame, proto, total, length, patches)| {
                frame[12..15].copy_from_slice(&[8, 0, 0x45]);
                frame[16..18].copy_from_slice(&[0, total]);
                frame[20..22].copy_from_slice(&[0x40, 0]);
                frame[23] = proto;
                for (at, value) in patches {
                    frame[at] = value;
                }
                frame[..length].to_vec()
            })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]
        #[test]
        fn the_short_way_gives_the_answer_of_the_general_way(frame in nearly_plain(), source: u16) {
            if let Some(found) = plain_ipv4(&frame, source) {
                prop_assert_eq!(found, walk::parse(&frame, source));
            }
        }
    }

    /// Guards the benchmark: were the short way never taken, the property above would still hold.
    #[test]
    fn plain_tcp_and_udp_take_the_short_way() {
        let mut frame = [0; 60];
        frame[12..24].copy_from_slice(&[8, 0, 0x45, 0xff, 0, 46, 1, 2, 0x40, 0, 1, 17]);
        assert!(plain_ipv4(&frame, 1).is_some());
        frame[23] = 6;
        assert!(plain_ipv4(&frame, 1).is_some());
    }
}
