//! The short way for most packets whose checksums are left to the port: one frame, whose checksum of TCP or UDP covers all behind the
//! header of IP.

use super::{OffloadRequest, Transport};
use crate::checksum::fold;
use crate::segment::word;

/// Added where sums are taken away, so that nothing falls below zero: a multiple of 65,535, which changes no checksum.
const SURPLUS: u64 = 0xffff << 32;
/// Bytes of an Ethernet header, and of those of IP without options.
const ETHERNET: usize = 14;
const IPV4: usize = 20;
const IPV6: usize = 40;

/// Two bytes of a frame, and where they stand.
pub type Field = (usize, [u8; 2]);

/// The checksums of a packet that stays one frame, without tags: all its bytes are copied as they are, and summed up meanwhile; then
/// two fields are written over.
///
/// Like all sums here, they are of words as they lie in memory (RFC 1071, 2 (B)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Short {
    /// What the sum of the frame has to be added for that of what the checksum covers.
    start: u64,
    at: usize,
    udp: bool,
    ipv4: Option<Field>,
}

impl Short {
    /// Of a packet that lies in one piece. `None` for any that [`Job`](super::Job) has to look at: others than TCP and UDP, options and
    /// extension headers of IP, fragments, padding, and all that is malformed.
    #[inline]
    #[must_use]
    pub fn of(request: &OffloadRequest, frame: &[u8]) -> Option<Self> {
        let OffloadRequest { l2, l3, ipv4_checksum, segment: None, service_tag: None, tag: None, .. } = *request else {
            return None;
        };
        let (field, udp) = match request.transport {
            Some(transport @ (Transport::Tcp | Transport::Udp)) => (transport.field(), transport == Transport::Udp),
            _ => return None,
        };
        let (ethernet, packet) = frame.split_at_checked(l2)?;
        if l2 < ETHERNET || l2 % 2 == 1 {
            return None;
        }
        // The sum of what the checksum does not cover, what it covers besides the payload, and the protocol.
        let (before, l4, proto, ipv4) = if l3 == IPV4 {
            let header = packet.first_chunk::<IPV4>()?;
            let fragment = u16::from_be_bytes([header[6], header[7]]) & 0x3fff;
            let total = usize::from(u16::from_be_bytes([header[2], header[3]]));
            if header[0] != 0x45 || fragment != 0 || total != packet.len() {
                return None;
            }
            let before = raw(header.first_chunk::<12>()?);
            let addresses = raw(header.last_chunk::<8>()?);
            let old = u64::from(u16::from_ne_bytes([header[10], header[11]]));
            let right = complement(before + addresses + SURPLUS - old);
            (before, l2 + IPV4, header[9], ipv4_checksum.then_some((l2 + 10, right)))
        } else if l3 == IPV6 {
            let header = packet.first_chunk::<IPV6>()?;
            let length = usize::from(u16::from_be_bytes([header[4], header[5]]));
            if header[0] >> 4 != 6 || IPV6 + length != packet.len() {
                return None;
            }
            (raw(header.first_chunk::<8>()?), l2 + IPV6, header[6], None)
        } else {
            return None;
        };
        let payload = frame.get(l4..)?;
        let least = if udp { 8 } else { 20 };
        let right_proto = if udp { Transport::Udp } else { Transport::Tcp }.number();
        if proto != right_proto || payload.len() < least {
            return None;
        }
        if udp && usize::from(word(payload, 4)?) != payload.len() {
            return None;
        }
        let old = u64::from(u16::from_ne_bytes(*payload.get(field..)?.first_chunk()?));
        let length = u64::from(u16::try_from(payload.len()).ok()?.to_be());
        let outside = raw_ethernet(ethernet) + before + old;
        let start = SURPLUS - outside + u64::from(u16::from(proto).to_be()) + length;
        Some(Self { start, at: l4 + field, udp, ipv4 })
    }

    /// The field of TCP or UDP. `sum` is that of all bytes of the frame, below 2^48.
    #[inline]
    #[must_use]
    pub fn checksum(&self, sum: u64) -> Field {
        let right = complement(self.start + sum);
        // In UDP zero stands for none (RFC 768).
        (self.at, if self.udp && right == [0, 0] { [0xff; 2] } else { right })
    }

    /// The field of IPv4's header, if it is asked for.
    #[inline]
    #[must_use]
    pub const fn ipv4(&self) -> Option<Field> {
        self.ipv4
    }
}

#[inline]
fn complement(sum: u64) -> [u8; 2] {
    (!fold(sum)).to_ne_bytes()
}

/// The sum of few words, four bytes at a time.
#[inline]
fn raw<const N: usize>(bytes: &[u8; N]) -> u64 {
    let (words, _) = bytes.as_chunks::<4>();
    words.iter().map(|word| u64::from(u32::from_ne_bytes(*word))).sum()
}

/// The sum of an Ethernet header with any tags: an even number of bytes, 14 of them mostly.
#[inline]
fn raw_ethernet(bytes: &[u8]) -> u64 {
    let Some((plain, tags)) = bytes.split_first_chunk::<ETHERNET>() else { return 0 };
    let kind = u64::from(u16::from_ne_bytes([plain[12], plain[13]]));
    let (words, _) = tags.as_chunks::<2>();
    raw(plain) + words.iter().fold(kind, |sum, word| sum + u64::from(u16::from_ne_bytes(*word)))
}
