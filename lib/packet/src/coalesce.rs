//! The reverse of [`segment`](crate::segment): TCP segments that follow each other are put together, so that the kernel
//! handles one large one instead of many.
//!
//! Only what a segmentation would give back: every header is the same but for lengths, identification and sequence number, the
//! payload goes on where it ended, and the checksum of each segment was looked at and is right. Everything else is passed on
//! as it came.
//!
//! # Source
//!
//! The conditions are those of Linux' `net/ipv4/tcp_offload.c`, `tcp_gro_receive`, and `net/ipv4/af_inet.c`,
//! `inet_gro_receive`; besides, windows have to be the same.

use crate::checksum::{checksum, fold, sum};
use crate::segment::{network, word};
use crate::tcp::flags::{ACK, PSH};
use crate::vnet::{LEN, Segments, VnetHeader};
use crate::{ethertype, proto};
use core::ops::Range;

/// Most bytes of IP that are put together: what the length field of IPv4 can say.
const MAX_PACKET: usize = 65535;
/// Most bytes of Ethernet with two tags.
const MAX_LINK: usize = 22;
const ROOM: usize = LEN + MAX_LINK + MAX_PACKET;
const IPV4: usize = 20;
const IPV6: usize = 40;
const TCP: usize = 20;

/// What was read of a segment that may be put together with others.
#[derive(Clone, Copy, Debug)]
pub struct Candidate {
    v6: bool,
    ip: usize,
    tcp: usize,
    payload: usize,
    /// Where the packet ends; what follows is padding.
    end: usize,
    sequence: u32,
    pushes: bool,
}

impl Candidate {
    /// Reads a segment with payload that consists of nothing unusual and whose checksums are right; `None` for everything else,
    /// which is passed on as it came.
    #[must_use]
    pub fn of(frame: &[u8]) -> Option<Self> {
        let (ip, kind) = network(frame)?;
        let packet = frame.get(ip..)?;
        let (v6, header, length) = match kind {
            // No options, and no fragment.
            ethertype::IPV4 if packet.first() == Some(&0x45) && word(packet, 6)? & 0x3fff == 0 => {
                (false, IPV4, usize::from(word(packet, 2)?))
            }
            ethertype::IPV6 if packet.first()? >> 4 == 6 => (true, IPV6, IPV6 + usize::from(word(packet, 4)?)),
            _ => return None,
        };
        let proto = *packet.get(if v6 { 6 } else { 9 })?;
        let packet = packet.get(..length)?;
        let segment = packet.get(header..)?;
        let offset = usize::from(*segment.get(12)? >> 4) * 4;
        let plain = (segment.get(13)? & !PSH) == ACK;
        if proto != proto::TCP || !plain || offset < TCP || offset >= segment.len() {
            return None;
        }
        let right = (v6 || checksum(sum(packet.get(..header)?)) == 0)
            && checksum(pseudo(packet, v6)? + u64::try_from(segment.len()).ok()? + sum(segment)) == 0;
        let sequence = u32::from_be_bytes(*segment.get(4..)?.first_chunk()?);
        let (tcp, pushes) = (ip + header, segment.get(13)? & PSH != 0);
        right.then_some(Self { v6, ip, tcp, payload: tcp + offset, end: ip + length, sequence, pushes })
    }

    const fn length(&self) -> usize {
        self.end - self.payload
    }
}

/// The sum of the pseudo header without its length (RFC 9293, 3.1; RFC 8200, 8.1).
fn pseudo(packet: &[u8], v6: bool) -> Option<u64> {
    let addresses: Range<usize> = if v6 { 8..40 } else { 12..20 };
    Some(sum(packet.get(addresses)?) + u64::from(proto::TCP))
}

/// What became of a segment that was offered to a [`Run`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    /// It is part of it now.
    Taken,
    /// It is of the same flow, and has to come after it.
    Follows,
    /// It is of another flow.
    Other,
}

/// Segments of one flow that are put together, with the header before them. Large: keep it in a box.
#[derive(Debug)]
pub struct Run {
    bytes: [u8; ROOM],
    /// The first segment; `None` if there is nothing.
    head: Option<Candidate>,
    length: usize,
    count: u32,
    /// Bytes of payload in each but the last.
    size: usize,
    next: u32,
    /// Whether no more may come behind the last.
    closed: bool,
}

impl Run {
    /// An empty one.
    #[must_use]
    pub const fn new() -> Self {
        Self { bytes: [0; ROOM], head: None, length: 0, count: 0, size: 0, next: 0, closed: false }
    }

    /// Whether nothing is in it.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Segments in it.
    #[must_use]
    pub const fn count(&self) -> u32 {
        self.count
    }

    /// Begins with `segment`, which was read from `frame`, whatever was in it before. It stays empty if the frame is another one.
    pub fn begin(&mut self, segment: &Candidate, frame: &[u8]) {
        self.clear();
        let frame = frame.get(..segment.end);
        let Some((frame, place)) = frame.zip(self.bytes.get_mut(LEN..LEN + segment.end)) else { return };
        place.copy_from_slice(frame);
        self.length = segment.end;
        self.count = 1;
        self.head = Some(*segment);
        self.size = segment.length();
        self.next = segment.sequence.wrapping_add(u32::try_from(self.size).unwrap_or(0));
        self.closed = segment.pushes;
    }

    /// Puts `segment`, which was read from `frame`, behind what is there, if it follows on it.
    pub fn offer(&mut self, segment: &Candidate, frame: &[u8]) -> Offer {
        let Some(head) = self.head else { return Offer::Other };
        let (Some(mine), Some(theirs)) = (self.frame().get(..head.payload), frame.get(..segment.payload)) else {
            return Offer::Follows;
        };
        if !is_same_flow(&head, mine, segment, theirs) {
            return Offer::Other;
        }
        let length = segment.length();
        let fits = !self.closed
            && segment.sequence == self.next
            && length <= self.size
            && self.length - head.ip + length <= MAX_PACKET
            && is_same_header(&head, mine, theirs)
            && self.counts_up(&head, frame);
        let place = self.bytes.get_mut(LEN + self.length..LEN + self.length + length);
        match (fits, place, frame.get(segment.payload..segment.end)) {
            (true, Some(place), Some(payload)) => place.copy_from_slice(payload),
            _ => return Offer::Follows,
        }
        self.length += length;
        self.count += 1;
        self.next = self.next.wrapping_add(u32::try_from(length).unwrap_or(0));
        self.closed = segment.pushes || length < self.size;
        if segment.pushes
            && let Some(flags) = self.bytes.get_mut(LEN + head.tcp + 13)
        {
            *flags |= PSH;
        }
        Offer::Taken
    }

    /// Whether the identification goes on counting, where it means something (RFC 6864, 4.1).
    fn counts_up(&self, head: &Candidate, frame: &[u8]) -> bool {
        let dont_fragment = word(frame, head.ip + 6).is_some_and(|flags| flags & 0x4000 != 0);
        let due = word(self.frame(), head.ip + 4).map(|id| id.wrapping_add(u16::try_from(self.count).unwrap_or(0)));
        head.v6 || dont_fragment || word(frame, head.ip + 4) == due
    }

    /// The frame.
    fn frame(&self) -> &[u8] {
        self.bytes.get(LEN..LEN + self.length).unwrap_or_default()
    }

    /// Header and frame as the kernel is to get them. What was put together has its lengths, and is marked as what it is: its
    /// checksum is left to be written, since those of its parts were right.
    pub fn finish(&mut self) -> &[u8] {
        let header = self.put_together().unwrap_or_default();
        if let Some(place) = self.bytes.first_chunk_mut() {
            *place = header.to_bytes();
        }
        self.bytes.get(..LEN + self.length).unwrap_or_default()
    }

    fn put_together(&mut self) -> Option<VnetHeader> {
        let head = self.head.filter(|_| self.count > 1)?;
        let Candidate { v6, ip, tcp, payload, .. } = head;
        let length = self.length;
        let frame = self.bytes.get_mut(LEN..LEN + length)?;
        let packet = frame.get_mut(ip..)?;
        let total = u16::try_from(length - ip).ok()?;
        if v6 {
            packet.get_mut(4..6)?.copy_from_slice(&(total - 40).to_be_bytes());
        } else {
            packet.get_mut(2..4)?.copy_from_slice(&total.to_be_bytes());
            packet.get_mut(10..12)?.fill(0);
            let checksum = checksum(sum(packet.get(..IPV4)?));
            packet.get_mut(10..12)?.copy_from_slice(&checksum.to_be_bytes());
        }
        let pseudo = fold(pseudo(packet, v6)? + u64::try_from(length - tcp).ok()?);
        frame.get_mut(tcp + 16..tcp + 18)?.copy_from_slice(&pseudo.to_be_bytes());
        Some(VnetHeader {
            checksum: Some((u16::try_from(tcp).ok()?, 16)),
            segments: Some(Segments { v6, size: u16::try_from(self.size).ok()? }),
            header_len: u16::try_from(payload).ok()?,
        })
    }

    /// Forgets what is in it.
    pub const fn clear(&mut self) {
        self.count = 0;
        self.length = 0;
        self.head = None;
        self.closed = false;
    }
}

impl Default for Run {
    fn default() -> Self {
        Self::new()
    }
}

/// Whether two segments go from the same host and port to the same, on the same way.
fn is_same_flow(head: &Candidate, mine: &[u8], other: &Candidate, theirs: &[u8]) -> bool {
    let addresses = if head.v6 { head.ip + 8..head.ip + 40 } else { head.ip + 12..head.ip + 20 };
    let part = |range: Range<usize>| mine.get(range.clone()) == theirs.get(range);
    (head.v6, head.ip, head.tcp) == (other.v6, other.ip, other.tcp)
        && part(0..head.ip)
        && part(addresses)
        && part(head.tcp..head.tcp + 4)
}

/// Whether what may not differ within a run does not: everything but lengths, identification, checksums, the sequence
/// number and PSH.
fn is_same_header(head: &Candidate, mine: &[u8], theirs: &[u8]) -> bool {
    let part = |range: Range<usize>| mine.get(range.clone()) == theirs.get(range);
    let ip = if head.v6 {
        part(head.ip..head.ip + 4) && part(head.ip + 6..head.ip + 8)
    } else {
        part(head.ip..head.ip + 2) && part(head.ip + 6..head.ip + 10)
    };
    // Data offset, acknowledgment, window, urgent pointer, options.
    let tcp = head.tcp;
    ip && mine.len() == theirs.len()
        && part(tcp + 8..tcp + 13)
        && part(tcp + 14..tcp + 16)
        && part(tcp + 18..head.payload)
}

#[cfg(test)]
mod tests;
