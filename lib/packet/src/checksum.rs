//! The Internet checksum (RFC 1071), and whether those of a packet are right.

use crate::headers::{Fragment, Headers, Shape};
use crate::ip;
use crate::proto::{ICMP, ICMPV6, TCP, UDP, UDP_LITE};
use crate::walk::be16;

/// The sum of the 16-bit words of `bytes`, in network order, an odd last byte padded with zero. At most 16 bits long, so
/// that a few may be added up.
///
/// Sums do not depend on the order of the bytes within the words, as long as the result is turned round (RFC 1071, 2 (B)), so
/// words are taken as they lie, four bytes at a time.
#[inline]
#[must_use]
pub fn sum(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<4>();
    let mut total: u64 = words.iter().map(|word| u64::from(u32::from_ne_bytes(*word))).sum();
    let mut last = [0; 4];
    for (to, from) in last.iter_mut().zip(rest) {
        *to = *from;
    }
    total += u64::from(u32::from_ne_bytes(last));
    u64::from(u16::from_be(fold(total)))
}

/// The sum as it is in 16 bits, with carries added at the low end.
#[inline]
#[must_use]
pub fn fold(sum: u64) -> u16 {
    let halves = (sum & 0xffff_ffff) + (sum >> 32);
    let mut folded = (halves & 0xffff) + (halves >> 16);
    // Below 2^18 by now.
    folded = (folded & 0xffff) + (folded >> 16);
    folded = (folded & 0xffff) + (folded >> 16);
    u16::try_from(folded).unwrap_or(u16::MAX)
}

/// The checksum of words with this sum.
#[inline]
#[must_use]
pub fn checksum(sum: u64) -> u16 {
    !fold(sum)
}

/// Whether a receiver takes the packet in `frame` for undamaged: the checksum of IPv4's header, and that of TCP, UDP, UDP-Lite
/// or ICMP. `headers` is what [`parse`](crate::parse) found in the frame.
///
/// True for what has no such checksum: other protocols, UDP without one, and fragments, whose checksum covers parts that are
/// not here. Also true if only the sum of the pseudo header stands there, which a kernel leaves for a NIC to complete
/// (`CHECKSUM_PARTIAL` of Linux): on a virtual wire such frames arrive as they are, and their receiver takes them.
///
/// # Source
///
/// RFC 791, 3.1; RFC 9293, 3.1; RFC 768; RFC 3828, 3.1 (UDP-Lite); RFC 792; RFC 4443, 2.3; RFC 8200, 8.1 (pseudo header). UDP
/// over IPv6 may go without (RFC 6935), as Linux' connection tracking has it.
#[must_use]
pub fn is_intact(frame: &[u8], headers: &Headers) -> bool {
    let Some(packet) = ip::packet(frame, headers) else { return true };
    let v6 = headers.shape == Shape::Ipv6;
    let header = packet.first().map_or(0, |first| usize::from(first & 0x0f) * 4);
    if !v6 && packet.get(..header).is_some_and(|header| checksum(sum(header)) != 0) {
        return false;
    }
    match ip::transport(frame, headers).filter(|_| headers.fragment == Fragment::None) {
        Some(payload) => is_payload_intact(packet, payload, headers.proto, v6).unwrap_or(false),
        None => true,
    }
}

/// `None` if a length contradicts the packet.
fn is_payload_intact(packet: &[u8], payload: &[u8], proto: u8, v6: bool) -> Option<bool> {
    let Some(Place { field, covered, pseudo }) = Place::of(packet, payload, proto, v6)? else { return Some(true) };
    let found = be16(payload, field)?;
    if proto == UDP && found == 0 {
        return Some(true);
    }
    let is_partial = matches!(proto, TCP | UDP) && found == fold(pseudo);
    Some(is_partial || checksum(pseudo + sum(payload.get(..covered)?)) == 0)
}

/// Where the checksum of a payload of IP stands, what it covers, and the sum of the pseudo header.
struct Place {
    field: usize,
    covered: usize,
    pseudo: u64,
}

impl Place {
    /// `Some(None)` for a protocol without one that we know; `None` if a length contradicts the packet.
    fn of(packet: &[u8], payload: &[u8], proto: u8, v6: bool) -> Option<Option<Self>> {
        let addresses = if v6 { packet.get(8..40)? } else { packet.get(12..20)? };
        let whole = payload.len();
        let within = |length: u16| Some(usize::from(length)).filter(|length| (8..=whole).contains(length));
        let (field, covered, length) = match proto {
            TCP => (16, whole, whole),
            UDP => {
                let length = within(be16(payload, 4)?)?;
                (6, length, length)
            }
            UDP_LITE => match be16(payload, 4)? {
                0 => (6, whole, whole),
                coverage => (6, within(coverage)?, whole),
            },
            ICMP if !v6 => return Some(Some(Self { field: 2, covered: whole, pseudo: 0 })),
            ICMPV6 if v6 => (2, whole, whole),
            _ => return Some(None),
        };
        let pseudo = sum(addresses) + u64::from(proto) + u64::try_from(length).ok()?;
        Some(Some(Self { field, covered, pseudo }))
    }

    /// In the payload that begins at the frame's `l4_offset`. `None` for fragments, too, of which none has all of the payload.
    fn in_frame(frame: &[u8], headers: &Headers) -> Option<Self> {
        let payload = ip::transport(frame, headers).filter(|_| headers.fragment == Fragment::None)?;
        Self::of(ip::packet(frame, headers)?, payload, headers.proto, headers.shape == Shape::Ipv6)?
    }
}

/// Writes the checksums of the packet in `frame` that [`is_intact`] looks at. For frames that are made up: it sums up all of
/// the packet.
pub fn complete(frame: &mut [u8], headers: &Headers) {
    let (l3, l4) = (usize::from(headers.l3_offset), usize::from(headers.l4_offset));
    let v6 = headers.shape == Shape::Ipv6;
    if ip::packet(frame, headers).is_none() {
        return;
    }
    let header = frame.get(l3).map_or(0, |first| usize::from(first & 0x0f) * 4);
    if !v6 && put(frame, l3 + 10, 0).is_some() {
        let right = frame.get(l3..l3 + header).map_or(0, |header| checksum(sum(header)));
        put(frame, l3 + 10, right);
    }
    if let Some(Place { field, covered, pseudo }) = Place::in_frame(frame, headers)
        && put(frame, l4 + field, 0).is_some()
    {
        let right = frame.get(l4..l4 + covered).map_or(0, |covered| checksum(pseudo + sum(covered)));
        // In UDP zero stands for none (RFC 768).
        put(frame, l4 + field, if right == 0 && headers.proto == UDP { 0xffff } else { right });
    }
}

/// Completes the checksum of TCP or UDP in `frame` if only the sum of the pseudo header stands there, as a NIC does for a kernel that
/// has left it to the NIC (`CHECKSUM_PARTIAL` of Linux). Returns whether that was so.
///
/// By chance that sum is the right checksum, once in 65,536 frames; then the frame stays as it is.
pub fn finish(frame: &mut [u8], headers: &Headers) -> bool {
    if !matches!(headers.proto, TCP | UDP) {
        return false;
    }
    let Some(Place { field, covered, pseudo }) = Place::in_frame(frame, headers) else { return false };
    let l4 = usize::from(headers.l4_offset);
    // A sum of something is never zero, which in UDP stands for no checksum.
    let Some(found) = be16(frame, l4 + field).filter(|found| *found == fold(pseudo)) else { return false };
    // What stands in the field is the pseudo header's part of the sum.
    let right = frame.get(l4..l4 + covered).map_or(found, |covered| checksum(sum(covered)));
    let right = if right == 0 && headers.proto == UDP { 0xffff } else { right };
    put(frame, l4 + field, right);
    right != found
}

fn put(frame: &mut [u8], at: usize, value: u16) -> Option<()> {
    frame.get_mut(at..at + 2)?.copy_from_slice(&value.to_be_bytes());
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{parse, reply};
    use proptest::prelude::*;
    use std::vec;
    use std::vec::Vec;

    /// A packet of IPv4 or IPv6 with this payload, whose checksum stands at `field`.
    fn packet(v6: bool, proto: u8, payload: &[u8], field: usize) -> Vec<u8> {
        let length = u16::try_from(payload.len()).unwrap();
        let mut frame = vec![2; 12];
        let addresses = if v6 {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            frame.extend(length.to_be_bytes());
            frame.extend([proto, 64]);
            frame.extend([0xfd; 32]);
            sum(&[0xfd; 32])
        } else {
            frame.extend([8, 0, 0x45, 0]);
            frame.extend((length + 20).to_be_bytes());
            frame.extend([0, 0, 0, 0, 64, proto, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
            let right = checksum(sum(&frame[14..])).to_be_bytes();
            frame[24..26].copy_from_slice(&right);
            sum(&[10, 0, 0, 1, 10, 0, 0, 2])
        };
        let start = frame.len();
        frame.extend(payload);
        let pseudo = if proto == ICMP { 0 } else { addresses + u64::from(proto) + u64::from(length) };
        let right = checksum(pseudo + sum(payload)).to_be_bytes();
        frame[start + field..start + field + 2].copy_from_slice(&right);
        frame.extend([7; 5]);
        frame
    }

    fn intact(frame: &[u8]) -> bool {
        is_intact(frame, &parse(frame, 1).0)
    }

    /// TCP, UDP, UDP-Lite, ICMP and ICMPv6 with right checksums, and where their payload begins.
    fn all() -> Vec<(u8, usize, Vec<u8>)> {
        let tcp = [&[0, 1, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4, 0x50, 0x10, 1, 0, 0, 0, 0, 0][..], b"hello"].concat();
        let udp = [&[0, 1, 0, 2, 0, 13, 0, 0][..], b"hello"].concat();
        let icmp = |kind| [&[kind, 0, 0, 0, 0, 7, 0, 1][..], b"hello"].concat();
        let v4 = |proto, payload: &[u8], field| (proto, 34, packet(false, proto, payload, field));
        let v6 = |proto, payload: &[u8], field| (proto, 54, packet(true, proto, payload, field));
        vec![
            v4(TCP, &tcp, 16),
            v6(TCP, &tcp, 16),
            v4(UDP, &udp, 6),
            v6(UDP, &udp, 6),
            v4(UDP_LITE, &udp, 6),
            v4(ICMP, &icmp(8), 2),
            v6(ICMPV6, &icmp(128), 2),
        ]
    }

    /// One bit that is wrong anywhere in payload or checksum is found, and padding of the frame does not matter.
    #[test]
    fn a_damaged_payload_is_found_whatever_the_protocol() {
        for (proto, start, frame) in all() {
            assert!(intact(&frame), "{proto}: {frame:02x?}");
            for at in start..frame.len() - 5 {
                let mut damaged = frame.clone();
                damaged[at] ^= 0x04;
                let reads_otherwise = parse(&damaged, 1).0 != parse(&frame, 1).0;
                assert!(reads_otherwise || !intact(&damaged), "{proto}: byte {at}");
            }
        }
    }

    #[test]
    fn a_damaged_header_of_ipv4_is_found_and_what_has_no_checksum_is_intact() {
        let (_, _, mut frame) = all().swap_remove(2);
        frame[22] ^= 1;
        assert!(!intact(&frame), "another TTL");
        let mut without = packet(false, UDP, &[0, 1, 0, 2, 0, 8, 0, 0], 6);
        without[40..42].fill(0);
        assert!(intact(&without), "RFC 768");
        assert!(intact(&packet(false, 47, &[1; 9], 0)), "no checksum that we know");
        assert!(intact(&[0; 60]) && intact(&[]));
        let mut later = packet(false, TCP, &[0; 30], 16);
        later[20] = 0x20;
        let right = checksum(sum(&later[14..24]) + sum(&later[26..34])).to_be_bytes();
        later[24..26].copy_from_slice(&right);
        later[40] ^= 1;
        assert!(intact(&later), "the checksum covers what is not here");
    }

    /// What Linux leaves to a NIC: the sum of the pseudo header, not turned round.
    #[test]
    fn a_checksum_that_is_left_to_the_card_counts_as_intact() {
        for (proto, start, mut frame) in all().into_iter().filter(|(proto, ..)| matches!(*proto, TCP | UDP)) {
            let field = start + if proto == TCP { 16 } else { 6 };
            let length = u64::try_from(frame.len() - 5 - start).unwrap();
            let addresses = if start == 34 { &frame[26..34] } else { &frame[22..54] };
            let pseudo = fold(sum(addresses) + u64::from(proto) + length).to_be_bytes();
            frame[field..field + 2].copy_from_slice(&pseudo);
            assert!(intact(&frame), "{proto}");
            frame[field] ^= 1;
            assert!(!intact(&frame), "{proto}");
        }
    }

    /// What Linux has left to the NIC is finished as a NIC does it, and nothing else is touched: no right checksum, no wrong one,
    /// none that is missing.
    #[test]
    fn what_is_left_to_the_card_is_finished() {
        for (proto, start, frame) in all() {
            let headers = parse(&frame, 1).0;
            let mut same = frame.clone();
            assert!(!finish(&mut same, &headers) && same == frame, "{proto} is right already");
            let mut wrong = frame.clone();
            wrong[start + 9] ^= 0x04;
            let before = wrong.clone();
            assert!(!finish(&mut wrong, &headers) && wrong == before, "{proto} is wrong and stays so");
            let mut partial = frame.clone();
            let field = start + if proto == TCP { 16 } else { 6 };
            let length = u64::try_from(frame.len() - 5 - start).unwrap();
            let addresses = if start == 34 { &frame[26..34] } else { &frame[22..54] };
            let pseudo = fold(sum(addresses) + u64::from(proto) + length).to_be_bytes();
            partial[field..field + 2].copy_from_slice(&pseudo);
            if matches!(proto, TCP | UDP) {
                assert!(finish(&mut partial, &headers) && partial == frame, "{proto}");
            }
        }
        let mut without = packet(false, UDP, &[0, 1, 0, 2, 0, 8, 0, 0], 6);
        without[40..42].fill(0);
        let headers = parse(&without, 1).0;
        assert!(!finish(&mut without, &headers) && without[40..42] == [0, 0], "UDP without a checksum");
    }

    /// A fragment has only a part of what the checksum covers, so nothing is finished there.
    #[test]
    fn fragments_are_not_finished() {
        let (_, _, mut frame) = all().swap_remove(2);
        frame[20] = 0x20;
        let headers = parse(&frame, 1).0;
        let pseudo = fold(sum(&frame[26..34]) + u64::from(UDP) + 13).to_be_bytes();
        frame[40..42].copy_from_slice(&pseudo);
        let before = frame.clone();
        assert!(!finish(&mut frame, &headers) && frame == before);
    }

    #[test]
    fn checksums_that_are_written_are_right() {
        for (proto, start, frame) in all() {
            let mut changed = frame.clone();
            changed[start + 9] ^= 0x55;
            changed[start - 1] ^= 1;
            let headers = parse(&changed, 1).0;
            complete(&mut changed, &headers);
            assert!(intact(&changed), "{proto}");
            let headers = parse(&frame, 1).0;
            complete(&mut changed, &headers);
            changed[start + 9] ^= 0x55;
            changed[start - 1] ^= 1;
            complete(&mut changed, &headers);
            assert_eq!(changed, frame, "{proto}");
        }
    }

    #[test]
    fn our_own_answers_are_intact() {
        let mut out = [0; reply::MAX_LEN];
        for (_, _, frame) in all() {
            let headers = parse(&frame, 1).0;
            for answer in [reply::tcp_reset, reply::unreachable] {
                let length = answer(&frame, &headers, &mut out);
                assert!(length.is_none_or(|length| intact(&out[..length])), "{frame:02x?}");
            }
        }
    }

    proptest! {
        /// Whatever the payload, what is finished is what `complete` would write, also where the sum of the pseudo header happens to be
        /// right.
        #[test]
        fn finished_is_complete(payload in prop::collection::vec(any::<u8>(), 0..64), v6: bool, udp: bool, chance: bool) {
            let (proto, field, mut head) = match udp {
                true => (UDP, 6, vec![0, 1, 0, 2, 0, 0, 0, 0]),
                false => (TCP, 16, vec![0, 1, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4, 0x50, 0x10, 1, 0, 0, 0, 0, 0]),
            };
            head.extend(&payload);
            let length = u16::try_from(head.len()).unwrap();
            if udp {
                head[4..6].copy_from_slice(&length.to_be_bytes());
            }
            let mut frame = packet(v6, proto, &head, field);
            let start = if v6 { 54 } else { 34 };
            let addresses = if v6 { sum(&frame[22..54]) } else { sum(&frame[26..34]) };
            let pseudo = fold(addresses + u64::from(proto) + u64::from(length));
            if chance {
                // The source port makes up for everything else.
                put(&mut frame, start, 0);
                put(&mut frame, start + field, pseudo);
                let all = u64::from(pseudo) + sum(&frame[start..start + usize::from(length)]);
                put(&mut frame, start, checksum(all));
                prop_assert!(intact(&frame));
            }
            let headers = parse(&frame, 1).0;
            complete(&mut frame, &headers);
            let whole = frame.clone();
            put(&mut frame, start + field, pseudo);
            let finished = finish(&mut frame, &headers);
            prop_assert_eq!(finished, !chance && whole[start + field..][..2] != pseudo.to_be_bytes());
            prop_assert_eq!(frame, whole);
        }

        /// The sum is that of the words one by one, whatever the length and wherever the bytes lie.
        #[test]
        fn sum_is_that_of_the_words(bytes in prop::collection::vec(any::<u8>(), 0..200), skip in 0_usize..4) {
            let bytes: Vec<u8> = bytes.into_iter().skip(skip).collect();
            let mut one_by_one = 0_u32;
            for pair in bytes.chunks(2) {
                one_by_one += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
                one_by_one = (one_by_one & 0xffff) + (one_by_one >> 16);
            }
            let found = fold(sum(&bytes));
            // Zero has two forms, and words that are not all zero never sum up to the other one.
            prop_assert_eq!(u32::from(found), one_by_one);
        }
    }

    /// Folding keeps the value modulo 2^16 - 1, to the ends of the range.
    #[test]
    fn folding_is_modulo() {
        for sum in [0, 1, 0xffff, 0x1_0000, 0x1_fffe, 0xffff_ffff, u64::MAX, u64::MAX - 1, 0xffff_0000_0000_0001] {
            assert_eq!(u64::from(fold(sum)) % 0xffff, sum % 0xffff, "{sum:x}");
        }
    }
}
