//! Whether the checksums of a received frame are right, in the words of a NIC.

use crate::crc32c::crc32c;
use crate::headers::{Fragment, Headers, Shape};
use crate::ip::{self, extension_length};
use crate::proto::{SCTP, TCP, UDP};
use crate::walk::{self, ETHERNET, IPV4, IPV6, be16, extension};
use crate::{ethertype, parse};

/// What is known of one checksum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing: there is none, it covers what is not here, or nobody asked.
    #[default]
    Unknown,
    /// It is right.
    Good,
    /// It is wrong.
    Bad,
    /// The sender has left it out, as UDP over IPv4 may.
    Absent,
}

/// The checksums that are asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// That of IPv4's header.
    pub ipv4: bool,
    /// TCP.
    pub tcp: bool,
    /// UDP.
    pub udp: bool,
    /// SCTP, which is no sum, and costs another look at all bytes.
    pub sctp: bool,
}

/// What is known of the checksums of a frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// That of IPv4's header.
    pub ipv4: Verdict,
    /// That of TCP, UDP or SCTP.
    pub l4: Verdict,
}

/// Added where sums are taken away, so that nothing falls below zero: a multiple of 65,535, which changes no checksum.
const SURPLUS: u64 = 0xffff << 32;

/// The sum of `bytes` in the order in which they lie: a number that leaves the same rest by 65,535 as the sum of the 16-bit words, an
/// odd last byte padded with zero. At most 2^32 times the number of words.
#[inline]
#[must_use]
pub fn raw_sum(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<4>();
    let total: u64 = words.iter().map(|word| u64::from(u32::from_ne_bytes(*word))).sum();
    let last = match *rest {
        [a] => [a, 0, 0, 0],
        [a, b] => [a, b, 0, 0],
        [a, b, c] => [a, b, c, 0],
        _ => [0; 4],
    };
    total + u64::from(u32::from_ne_bytes(last))
}

/// A word of the packet as it lies.
#[inline]
fn raw(word: u16) -> u64 {
    word.to_be().into()
}

/// Whether words with this sum have a right checksum among them. They are not all zero.
#[inline]
const fn is_right(sum: u64) -> bool {
    sum.is_multiple_of(0xffff)
}

#[inline]
const fn good_if(right: bool) -> Verdict {
    if right { Verdict::Good } else { Verdict::Bad }
}

/// Whether the checksums in `frame` are right, as far as they are `wanted`. `sum` is its [`raw_sum`], or a number that leaves the same
/// rest by 65,535: who copies a frame sums it up on the way, and here only what does not belong to the payload is looked at again.
///
/// Strict: a checksum that was left to a card (`CHECKSUM_PARTIAL` of Linux) is bad, for nobody has seen to the data.
///
/// - Of fragments only IPv4's header is checked.
/// - A length of UDP that does not fit is bad, like a checksum of zero over IPv6 (RFC 8200, 8.1).
/// - What has a source route, or a destination option of IPv6, is good or unknown: other addresses than those in the header may be
///   covered (RFC 8200, 8.1; RFC 6275, 11.3.1).
/// - Malformed packets are unknown, but for IPv4's header, if it is there.
///
/// Never panics, for any bytes and any `sum`.
#[inline]
#[must_use]
pub fn verify(frame: &[u8], sum: u64, wanted: Wanted) -> Verified {
    verify_short(frame, sum, wanted).unwrap_or_else(|| verify_long(frame, sum, wanted))
}

/// Whether `frame` is one of TCP over IPv4 (`true`), or of UDP (`false`), of which [`verify_short`] says that both checksums are good. `None`
/// says nothing of it. `sum` is as for [`verify`].
///
/// For who verifies every frame: as good as all are right, and to say so takes fewer instructions than to say what is wrong.
#[expect(clippy::inline_always, reason = "as below")]
#[inline(always)]
#[must_use]
pub fn good_tcp_or_udp(frame: &[u8], sum: u64) -> Option<bool> {
    let bytes = frame.first_chunk::<{ ETHERNET + IPV4 + 8 }>()?;
    let word = |at: usize| u64::from(u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]));
    let total = u16::from_be_bytes([bytes[16], bytes[17]]);
    let fragment = u16::from_ne_bytes([bytes[20], bytes[21]]) & 0x3fff_u16.to_be();
    let plain = [bytes[12], bytes[13], bytes[14]] == [8, 0, 0x45] && fragment == 0;
    if !plain || ETHERNET + usize::from(total) != frame.len() {
        return None;
    }
    // Not below zero: the frame has more bytes than those of Ethernet and IPv4.
    let length = total - 20;
    let proto = bytes[23];
    let tcp = match proto {
        TCP if length >= 20 => true,
        UDP if [bytes[38], bytes[39]] == length.to_be_bytes() && [bytes[40], bytes[41]] != [0, 0] => false,
        _ => return None,
    };
    let addresses = word(26) + word(30);
    let header = word(14) + word(18) + word(22) + addresses;
    let ethernet = word(0) + word(4) + word(8) + u64::from(u16::from_ne_bytes([8, 0]));
    // A right header leaves nothing; the addresses count once more, in the pseudo header.
    let payload = fold_once(sum) + SURPLUS + addresses + raw(u16::from(proto)) + raw(length) - ethernet;
    (is_right(header) && is_right(payload)).then_some(tcp)
}

/// What [`verify`] says of most frames: TCP and UDP over IPv4 without options, not a fragment, in a frame without padding. `None` for
/// all others, which are left to [`verify_long`].
///
/// For who verifies every frame: few instructions, which become part of the caller.
#[expect(clippy::inline_always, reason = "a call of its own, with its results in memory, costs half as much again")]
#[inline(always)]
#[must_use]
pub fn verify_short(frame: &[u8], sum: u64, wanted: Wanted) -> Option<Verified> {
    verify_plain(frame, sum, wanted, |_, _| None)
}

/// What [`verify`] says of any frame. For who has tried [`verify_short`].
#[inline(never)]
#[must_use]
pub fn verify_long(frame: &[u8], sum: u64, wanted: Wanted) -> Verified {
    let padding = |frame: &[u8], end| frame.get(end..).map(|padding| at_offset(padding, end));
    verify_plain(frame, sum, wanted, padding).unwrap_or_else(|| verify_any(frame, sum, wanted))
}

/// TCP and UDP over IPv4 without options, not a fragment; `padding` says what the sum of what stands behind the packet is, which ends there,
/// or that such frames are not to be verified here.
#[expect(clippy::inline_always, reason = "as above")]
#[inline(always)]
fn verify_plain(
    frame: &[u8],
    sum: u64,
    wanted: Wanted,
    padding: impl FnOnce(&[u8], usize) -> Option<u64>,
) -> Option<Verified> {
    let bytes = frame.first_chunk::<{ ETHERNET + IPV4 + 8 }>()?;
    let total = u16::from_be_bytes([bytes[16], bytes[17]]);
    let fragment = u16::from_be_bytes([bytes[20], bytes[21]]) & 0x3fff;
    if [bytes[12], bytes[13], bytes[14]] != [8, 0, 0x45] || fragment != 0 {
        return None;
    }
    let end = ETHERNET + usize::from(total);
    let padding = if end == frame.len() { 0 } else { padding(frame, end)? };
    let length = total.checked_sub(20)?;
    let proto = bytes[23];
    let asked = match proto {
        TCP if length >= 20 => wanted.tcp,
        UDP if length >= 8 && [bytes[38], bytes[39]] == length.to_be_bytes() && [bytes[40], bytes[41]] != [0, 0] => {
            wanted.udp
        }
        _ => return None,
    };
    let start = raw_sum(&bytes[ETHERNET..ETHERNET + 12]);
    let addresses = raw_sum(&bytes[ETHERNET + 12..ETHERNET + IPV4]);
    let outside = raw_sum(&bytes[..ETHERNET]) + start + padding;
    // The addresses are part of the pseudo header, and stay.
    let payload = fold_once(sum) + SURPLUS - outside + raw(u16::from(proto)) + raw(length);
    let ipv4 = if wanted.ipv4 { good_if(is_right(start + addresses)) } else { Verdict::Unknown };
    Some(Verified { ipv4, l4: if asked { good_if(is_right(payload)) } else { Verdict::Unknown } })
}

/// The same sum in less than 34 bits.
#[inline]
const fn fold_once(sum: u64) -> u64 {
    (sum & 0xffff_ffff) + (sum >> 32)
}

/// The sum of `bytes` as part of a frame in which they begin at `offset`: at an odd one, the bytes of all words change places. Below 2^41.
#[inline]
fn at_offset(bytes: &[u8], offset: usize) -> u64 {
    let sum = fold_once(raw_sum(bytes));
    if offset.is_multiple_of(2) { sum } else { sum << 8 }
}

/// The general way.
fn verify_any(frame: &[u8], sum: u64, wanted: Wanted) -> Verified {
    let (headers, _) = parse(frame, 0);
    let ipv4 = if wanted.ipv4 { verify_ipv4(frame, &headers) } else { Verdict::Unknown };
    let asked = match headers.proto {
        TCP => wanted.tcp,
        UDP => wanted.udp,
        SCTP => wanted.sctp,
        _ => false,
    };
    let l4 = if asked { verify_l4(frame, sum, &headers) } else { Verdict::Unknown };
    Verified { ipv4, l4 }
}

/// The checksum of IPv4's header, if that is there, whatever follows.
fn verify_ipv4(frame: &[u8], headers: &Headers) -> Verdict {
    if headers.ethertype != ethertype::IPV4 {
        return Verdict::Unknown;
    }
    let packet = frame.get(usize::from(headers.l3_offset)..).unwrap_or_default();
    let first = packet.first().copied().unwrap_or(0);
    let header = packet.get(..usize::from(first & 0x0f) * 4).filter(|header| first >> 4 == 4 && header.len() >= IPV4);
    header.map_or(Verdict::Unknown, |header| good_if(is_right(raw_sum(header))))
}

fn verify_l4(frame: &[u8], sum: u64, headers: &Headers) -> Verdict {
    let payload = ip::transport(frame, headers).filter(|_| headers.fragment == Fragment::None);
    let (Some(packet), Some(payload)) = (ip::packet(frame, headers), payload) else { return Verdict::Unknown };
    let v6 = headers.shape == Shape::Ipv6;
    if headers.proto == SCTP {
        return verify_sctp(payload);
    }
    let mut covered = payload;
    if headers.proto == UDP {
        let length = be16(payload, 4).map_or(0, usize::from);
        match payload.get(..length).filter(|datagram| datagram.len() >= 8) {
            Some(datagram) => covered = datagram,
            None => return Verdict::Bad,
        }
        if be16(payload, 6) == Some(0) {
            return if v6 { Verdict::Bad } else { Verdict::Absent };
        }
    }
    let addresses = if v6 { packet.get(8..IPV6) } else { packet.get(12..IPV4) }.unwrap_or_default();
    let Ok(length) = u16::try_from(covered.len()) else { return Verdict::Unknown };
    let pseudo = raw_sum(addresses) + raw(u16::from(headers.proto)) + raw(length);
    let right = is_right(sum_within(frame, sum, headers.l4_offset.into(), covered.len()) + pseudo);
    if !right && has_other_ends(packet, headers) { Verdict::Unknown } else { good_if(right) }
}

/// The sum of `len` bytes of `frame` from `start` on, which is even, by what is not among them.
fn sum_within(frame: &[u8], sum: u64, start: usize, len: usize) -> u64 {
    let before = frame.get(..start).unwrap_or_default();
    let behind = frame.get(start + len..).unwrap_or_default();
    fold_once(sum) + SURPLUS - fold_once(raw_sum(before)) - at_offset(behind, start + len)
}

/// The checksum of SCTP stands with the lowest byte first (RFC 9260, appendix A).
fn verify_sctp(packet: &[u8]) -> Verdict {
    let Some((&[s0, s1, d0, d1, t0, t1, t2, t3, c0, c1, c2, c3], chunks)) = packet.split_first_chunk::<12>() else {
        return Verdict::Unknown;
    };
    let right = crc32c(&[&[s0, s1, d0, d1, t0, t1, t2, t3, 0, 0, 0, 0], chunks]);
    good_if(u32::from_le_bytes([c0, c1, c2, c3]) == right)
}

/// Whether the ends of the connection may be others than the addresses in the header: the packet has a source route, or a destination
/// option.
#[cold]
fn has_other_ends(packet: &[u8], headers: &Headers) -> bool {
    /// Loose and strict source route (RFC 791, 3.1).
    const SOURCE_ROUTES: [u8; 2] = [131, 137];
    if headers.shape == Shape::Ipv4 {
        let length = packet.first().map_or(0, |first| usize::from(first & 0x0f) * 4);
        let mut options = packet.get(IPV4..length).unwrap_or_default();
        while let [kind, rest @ ..] = options {
            let length = match kind {
                0 => return false,
                1 => 1,
                kind if SOURCE_ROUTES.contains(kind) => return true,
                _ => rest.first().map_or(1, |length| usize::from(*length).max(2)),
            };
            options = options.get(length..).unwrap_or_default();
        }
        return false;
    }
    let mut kind = packet.get(6).copied().unwrap_or(extension::NO_NEXT_HEADER);
    let mut rest = packet.get(IPV6..).unwrap_or_default();
    while walk::is_extension(kind) {
        if matches!(kind, extension::ROUTING | extension::DESTINATION) {
            return true;
        }
        let &[next, length, ..] = rest else { return false };
        rest = rest.get(extension_length(kind, length)..).unwrap_or_default();
        kind = next;
    }
    false
}

#[cfg(test)]
mod tests;
