//! The entry point, and the short way through it.

use crate::key::{Kind, layer};
use crate::walk::{self, ETHERNET, IPV4, IPV6};
use crate::{FlowKey, Fragment, Headers, Shape, ethertype, proto};

/// Shortest total length of a plain packet: a TCP header, or a UDP header and twelve bytes. All but the smallest UDP
/// packets have it.
const SHORTEST: usize = IPV4 + 20;
/// Bytes of the shortest frame with such a packet.
const PLAIN_LEN: usize = ETHERNET + SHORTEST;

/// What frames of a flow have in common in the eight bytes from byte 14 on: all but the two bits of ECN, the identification, and the
/// flag that forbids fragments.
const START: u64 = 0xfffc_ffff_0000_3fff;

/// Finds headers and flow key of an Ethernet frame (without FCS) in one pass.
///
/// `source` is the dataplane's id of the port that the frame came from; it becomes part of the key.
///
/// Padding after the length that IP claims is not looked at. Checksums are not checked: they change nothing about what
/// is read, and a sender may leave them to be filled in. Never panics and never allocates, for any bytes.
#[inline]
#[must_use]
pub fn parse(frame: &[u8], source: u16) -> (Headers, FlowKey) {
    parse_short(frame, source).unwrap_or_else(|| parse_long(frame, source))
}

/// What [`parse`] finds, always by the general way. For who has tried [`parse_short`].
#[inline]
#[must_use]
pub fn parse_long(frame: &[u8], source: u16) -> (Headers, FlowKey) {
    walk::parse(frame, source)
}

/// What [`parse`] finds, for the frames that most traffic consists of: plain TCP and UDP over IPv4, and types of which
/// only the Ethernet header is read. `None` for all others, which are left to [`parse`].
///
/// For who parses every frame: it becomes part of the caller, so that key and headers never pass through memory.
#[expect(clippy::inline_always, reason = "a call of its own, with its results in memory, costs as much again")]
#[inline(always)]
#[must_use]
pub fn parse_short(frame: &[u8], source: u16) -> Option<(Headers, FlowKey)> {
    parse_plain(frame, source).or_else(|| unparsed(frame, source))
}

/// Whether `frame` is like `before` in its length and in all bytes that [`parse_short`] looks at: if that finds something
/// for the one, it finds the same for the other, given the same source.
///
/// A few instructions, for frames that come in a row. `false` says nothing.
#[inline]
#[must_use]
pub fn is_alike(frame: &[u8], before: &[u8]) -> bool {
    /// Words that are beside each other, which are compared together, and the bits of each that count. From byte 22 on these are
    /// protocol and source address, without the TTL and the checksum.
    const WORDS: [(usize, u64); 4] = [(0, !0), (8, !0xffff), (14, START), (22, MIDDLE)];
    const MIDDLE: u64 = 0x00ff_0000_ffff_ffff;
    if frame.len() != before.len() {
        return false;
    }
    let (Some(a), Some(b)) = (frame.first_chunk::<PLAIN_LEN>(), before.first_chunk::<PLAIN_LEN>()) else {
        return false;
    };
    let differ = |at, mask: u64| match (walk::be64(a, at), walk::be64(b, at)) {
        // The order of bytes is all the same, so that of the processor will do.
        (Some(a), Some(b)) => ((a ^ b) & mask).to_be(),
        _ => mask,
    };
    // Where flows differ, they mostly differ in destination or ports.
    differ(30, !0) == 0 && WORDS.map(|(at, mask)| differ(at, mask)).into_iter().fold(0, |all, word| all | word) == 0
}

/// Whether `frame` has the length of `before`, and its addresses of IPv4 and ports, where they are in most frames: what is
/// [alike](is_alike) has. So few instructions that they cost little where no frame is like the one before it.
#[inline]
#[must_use]
pub fn ends_alike(frame: &[u8], before: &[u8]) -> bool {
    match (frame.first_chunk::<PLAIN_LEN>(), before.first_chunk::<PLAIN_LEN>()) {
        (Some(a), Some(b)) => frame.len() == before.len() && walk::be64(a, 30) == walk::be64(b, 30),
        _ => false,
    }
}

/// Bytes from the start of a frame that [`begins_alike`] compares: headers of IPv6 without extensions, and the ports behind. Not more,
/// since what follows differs from packet to packet: TCP's sequence number, UDP's checksum.
const BEGINNING: usize = ETHERNET + IPV6 + 4;

/// Whether [`parse`] has read nothing of a frame behind the bytes that [`begins_alike`] compares, given the headers that it found.
#[inline]
#[must_use]
pub const fn ends_early(headers: &Headers) -> bool {
    // Nothing of a transport header is read but its first four bytes, or six of an echo of ICMP.
    let read = if matches!(headers.proto, proto::ICMP | proto::ICMPV6) { 6 } else { 4 };
    headers.l4_offset > 0 && headers.l4_offset as usize + read <= BEGINNING
}

/// Whether `frame` has the length of `before`, and begins with the same bytes: then [`parse`] finds the same in both, given the same
/// source, if it [ends early](ends_early) in one of them.
///
/// For what has no short way, above all IPv6, whose headers are mostly the same in all packets of a flow. `false` says nothing.
#[inline]
#[must_use]
pub fn begins_alike(frame: &[u8], before: &[u8]) -> bool {
    /// Words that cover all of these bytes.
    const WORDS: [usize; 8] = [0, 8, 16, 24, 32, 40, 48, BEGINNING - 8];
    let (Some(a), Some(b)) = (frame.first_chunk::<BEGINNING>(), before.first_chunk::<BEGINNING>()) else {
        return false;
    };
    let differ = WORDS.map(|at| walk::be64(a, at).zip(walk::be64(b, at)).map_or(1, |(a, b)| (a ^ b).to_be()));
    frame.len() == before.len() && differ.into_iter().fold(0, |all, word| all | word) == 0
}

/// Whether LLC and SNAP may stand behind the Ethernet header, as far as the bytes tell that [`is_alike`] compares: frames that are
/// alike have the same answer.
#[inline]
fn may_be_snap(frame: &[u8]) -> bool {
    /// LLC's two addresses, its control field, and the first byte of SNAP: all that it has in common with its sibling.
    const SNAP: u64 = 0xaaaa_0300_0000_0000;
    const MASK: u64 = START & !0 << 32;
    walk::be64(frame, ETHERNET).is_some_and(|word| (word ^ SNAP) & MASK == 0)
}

/// The frames of which only addresses and type are read. `None` if there is more to read, or something special about it.
#[inline]
fn unparsed(frame: &[u8], source: u16) -> Option<(Headers, FlowKey)> {
    let bytes = frame.first_chunk::<ETHERNET>()?;
    let dst_mac_and_more = walk::be64(bytes, 0)?;
    let src_mac_and_type = walk::be64(bytes, 6)?;
    let ethertype = u16::from_be_bytes([bytes[12], bytes[13]]);
    if walk::has_layers(ethertype) || ethertype < walk::LOWEST_ETHERTYPE && may_be_snap(frame) {
        return None;
    }
    let kept = if ethertype >= walk::LOWEST_ETHERTYPE { !0 } else { !0xffff };
    let kind = Kind { layer: layer::OTHER, ..Kind::default() };
    let first = dst_mac_and_more & !0xffff | u64::from(source);
    let key = FlowKey::from_words([first, src_mac_and_type & kept, 0, kind.to_word(), 0, 0, 0, 0]);
    let headers = Headers { shape: Shape::Other, ethertype, l3_offset: 14, ..Headers::default() };
    Some((headers, key))
}

/// The half of [`parse_short`] that finds something in most frames: no VLAN tag, IPv4 without options, not a fragment, TCP or
/// UDP, room for a TCP header, and every length right. `None` for all others.
///
/// Loads whole words at fixed offsets, and decides with as few instructions as can be, because every packet pays for it.
#[inline(always)]
#[must_use]
pub fn parse_plain(frame: &[u8], source: u16) -> Option<(Headers, FlowKey)> {
    /// Bits of the first word of an IPv4 header that must be as in [`PLAIN`]: version and IHL in the highest byte, the
    /// more-fragments flag and the fragment offset in the lowest 14 bits.
    const MASK: u64 = 0xff00_0000_0000_3fff;
    const PLAIN: u64 = 0x4500_0000_0000_0000;

    let bytes = frame.first_chunk::<PLAIN_LEN>()?;
    let dst_mac_and_more = walk::be64(bytes, 0)?;
    let src_mac_and_type = walk::be64(bytes, 6)?;
    let start = walk::be64(bytes, ETHERNET)?;
    let addresses = walk::be64(bytes, ETHERNET + 12)?;
    let ports = walk::be32(bytes, ETHERNET + IPV4)?;
    let proto = bytes[ETHERNET + 9];

    let different = (src_mac_and_type & 0xffff ^ u64::from(ethertype::IPV4)) | (start & MASK ^ PLAIN);
    let [_, tos, t0, t1, ..] = start.to_be_bytes();
    let total_length = usize::from(u16::from_be_bytes([t0, t1]));
    // What is below wraps around, and so is above.
    let length_fits = total_length.wrapping_sub(SHORTEST) <= frame.len() - PLAIN_LEN;
    let known = matches!(proto, proto::TCP | proto::UDP);
    if different != 0 || !length_fits || !known {
        return None;
    }

    let kind = Kind { proto, layer: layer::IPV4, dscp: tos >> 2, ..Kind::default() };
    let key = FlowKey::from_words([
        dst_mac_and_more & !0xffff | u64::from(source),
        src_mac_and_type,
        u64::from(ports),
        kind.to_word(),
        addresses,
        0,
        0,
        0,
    ]);
    let headers = Headers {
        shape: Shape::Ipv4,
        ethertype: ethertype::IPV4,
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
            if let Some(found) = parse_plain(&frame, source) {
                prop_assert_eq!(found, walk::parse(&frame, source));
            }
        }
    }

    /// Frames around the border between a length with LLC and SNAP behind it, one with anything else, and a type.
    fn nearly_snap() -> impl Strategy<Value = Vec<u8>> {
        let types = prop_oneof![Just(0_u16), Just(46), 0x05f0_u16..0x0610, any::<u16>()];
        let inside = prop_oneof![Just(0x0800_u16), Just(0x86dd), any::<u16>()];
        let patches = prop::collection::vec((12_usize..22, any::<u8>()), 0..3);
        (types, any::<bool>(), inside, 12_usize..=70, patches).prop_map(|(first, tunnel, inside, length, patches)| {
            let mut frame = Vec::from([0; 70]);
            frame[12..14].copy_from_slice(&first.to_be_bytes());
            frame[14..20].copy_from_slice(&[0xaa, 0xaa, 3, 0, 0, if tunnel { 0xf8 } else { 0 }]);
            frame[20..22].copy_from_slice(&inside.to_be_bytes());
            frame[22] = 0x45;
            for (at, value) in patches {
                frame[at] = value;
            }
            frame.truncate(length);
            frame
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]
        /// A length is no type: what stands behind LLC is found the general way, and never taken for the flow of what is alike.
        #[test]
        fn lengths_are_told_from_types(
            frame in nearly_snap(),
            patches in prop::collection::vec((12_usize..24, any::<u8>()), 0..3),
            source: u16
        ) {
            let mut other = frame.clone();
            for (at, value) in patches {
                other.get_mut(at).into_iter().for_each(|byte| *byte = value);
            }
            for frame in [&frame, &other] {
                if let Some(found) = parse_short(frame, source) {
                    prop_assert_eq!(found, walk::parse(frame, source));
                }
            }
            if let (true, Some(found)) = (is_alike(&other, &frame), parse_short(&frame, source)) {
                prop_assert_eq!(walk::parse(&other, source), found);
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]
        /// Frames that are alike have the same headers and key, whatever else is in them.
        #[test]
        fn alike_frames_are_of_one_flow(
            frame in nearly_plain(),
            patches in prop::collection::vec((0_usize..70, any::<u8>()), 0..4),
            source: u16
        ) {
            let mut other = frame.clone();
            for (at, value) in patches {
                other.get_mut(at).into_iter().for_each(|byte| *byte = value);
            }
            prop_assert!(ends_alike(&other, &frame) || !is_alike(&other, &frame));
            if let (true, Some(found)) = (is_alike(&other, &frame), parse_short(&frame, source)) {
                prop_assert_eq!(parse_short(&other, source), Some(found));
                prop_assert_eq!(walk::parse(&other, source), found);
            }
        }
    }

    /// A frame of any kind that is parsed, of every layer, with tags, options and extension headers.
    fn layered() -> impl Strategy<Value = Vec<u8>> {
        let tags = prop_oneof![Just(&[][..]), Just(&[0x81, 0, 0, 7][..]), Just(&[0x88, 0xa8, 0, 7, 0x81, 0, 0, 9][..])];
        let protos = prop_oneof![Just(6_u8), Just(17), Just(1), Just(58), Just(132), Just(0), Just(44), any::<u8>()];
        let inside = prop_oneof![Just(6_u8), Just(17), Just(58), any::<u8>()];
        let rest = (any::<[u8; 80]>(), inside, any::<bool>(), 0_u8..=2);
        (tags, any::<bool>(), protos, rest, 0_usize..=20).prop_map(
            |(tags, v6, proto, (mut rest, inside, plain, more), cut)| {
                let mut frame = Vec::from([2; 12]);
                frame.extend_from_slice(tags);
                // An extension header of eight bytes that is in order, or options that end at once; or whatever there is.
                if plain {
                    rest[32..40].copy_from_slice(&[inside, 0, 0, 0, 0, 0, 0, 0]);
                    rest[8..16].fill(0);
                }
                let ip = match v6 {
                    true => [0x86, 0xdd, 0x60, 0, 0, 0, 0, 30, proto, 64],
                    false => [8, 0, 0x45 + more, 0, 0, 60, 0, 0, 0, 0],
                };
                frame.extend_from_slice(&ip);
                if !v6 {
                    frame.extend_from_slice(&[64, proto]);
                }
                frame.extend_from_slice(&rest);
                frame.truncate(frame.len() - cut);
                frame
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]
        /// Whatever stands behind the bytes that are compared.
        #[test]
        fn frames_that_begin_alike_are_of_one_flow(
            frame in layered(),
            patches in prop::collection::vec((0_usize..100, any::<u8>()), 0..4),
            source: u16
        ) {
            let mut other = frame.clone();
            for (at, value) in patches {
                other.get_mut(at).into_iter().for_each(|byte| *byte = value);
            }
            let found = parse(&frame, source);
            if ends_early(&found.0) && begins_alike(&other, &frame) {
                prop_assert_eq!(parse(&other, source), found);
            }
        }
    }

    /// Guards the property above, and the speed of IPv6: what most traffic consists of ends early.
    #[test]
    fn plain_ipv6_begins_alike() {
        let mut frame = [0; 80];
        frame[12..22].copy_from_slice(&[0x86, 0xdd, 0x60, 0, 0, 0, 0, 26, 6, 64]);
        assert!(ends_early(&parse(&frame, 1).0));
        // Sequence number, acknowledgement, flags, checksum.
        let mut other = frame;
        other[58..74].fill(0xff);
        assert!(begins_alike(&other, &frame));
        other[57] = 1;
        assert!(!begins_alike(&other, &frame) && !begins_alike(&frame[..79], &frame));
        // An echo, whose identifier stands behind what is compared; an extension header.
        for (proto, kind) in [(58, 128), (60, 17)] {
            (frame[20], frame[54]) = (proto, kind);
            let (headers, _) = parse(&frame, 1);
            assert!(headers.l4_offset > 0 && !ends_early(&headers), "{headers:?}");
        }
    }

    /// What differs between the packets of a flow keeps them alike; every byte of the key tells them apart.
    #[test]
    fn packets_of_a_flow_are_alike() {
        let mut frame = [0; 60];
        frame[12..24].copy_from_slice(&[8, 0, 0x45, 0xfc, 0, 46, 0, 0, 0x40, 0, 64, 17]);
        let with = |at: usize, value: u8| {
            let mut other = frame;
            other[at] = value;
            is_alike(&other, &frame)
        };
        // The two ECN bits, the identification, the flag against fragments, the TTL, the checksums, the payload.
        for (at, value) in [(15, 0xff), (18, 7), (19, 7), (20, 0), (22, 3), (24, 3), (25, 3), (40, 9), (59, 1)] {
            assert!(with(at, value), "byte {at}");
        }
        for at in (0..18).chain([21, 23]).chain(26..38) {
            assert!(!with(at, frame[at] ^ 0x80), "byte {at}");
        }
        assert!(!is_alike(&frame[..59], &frame) && !is_alike(&frame[..53], &frame[..53]));
    }

    /// Guards the benchmark: were the short way never taken, the property above would still hold.
    #[test]
    fn plain_tcp_and_udp_take_the_short_way() {
        let mut frame = [0; 60];
        frame[12..24].copy_from_slice(&[8, 0, 0x45, 0xff, 0, 46, 1, 2, 0x40, 0, 1, 17]);
        assert!(parse_plain(&frame, 1).is_some());
        frame[23] = 6;
        assert!(parse_plain(&frame, 1).is_some());
        // A length, as that of a frame of zeros, and no SNAP.
        frame[12..14].copy_from_slice(&[0, 0]);
        assert!(parse_plain(&frame, 1).is_none() && parse_short(&frame, 1).is_some());
    }
}
