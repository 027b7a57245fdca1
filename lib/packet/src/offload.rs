//! What an application leaves to its port: checksums, VLAN tags, and cutting a TCP packet into frames.
//!
//! Whoever sends copies the packet, and a [`Job`] says what differs in the copy: it has the headers of each frame, and is told the sum
//! of what is copied behind them. Frame by frame: [`begin`](Job::begin); [`add`](Job::add) or [`add_bytes`](Job::add_bytes) for the
//! body; [`finish`](Job::finish). A job serves for any number of packets, one after the other ([`start`](Job::start)).
//!
//! A checksum is computed as a whole, whatever stood in its place. Most packets can go a [`Short`] way.
//!
//! # Source
//!
//! Checksums: [`checksum`](mod@crate::checksum) and [`crc32c`](crate::crc32c); segments: [`segment`](crate::segment); tags: IEEE 802.1Q,
//! 9.6.

use crate::checksum::{checksum, fold, sum};
use crate::crc32c::Crc32c;
use crate::segment::{MAX_HEADERS, Template, put, word};
use crate::{ethertype, proto};
pub use short::{Field, Short};

/// Bytes of an Ethernet header, of its two addresses, and of a tag.
const ETHERNET: usize = 14;
const ADDRESSES: usize = 12;
const TAG: usize = 4;
/// Bytes of IP headers without options, and of a TCP header likewise.
const IPV4: usize = 20;
const IPV6: usize = 40;
const TCP: usize = 20;

/// A protocol whose checksum a port can write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Transport {
    /// Bytes of its header without options.
    const fn header(self) -> usize {
        match self {
            Self::Tcp => TCP,
            Self::Udp => 8,
            Self::Sctp => 12,
        }
    }

    /// Where in it the checksum stands.
    const fn field(self) -> usize {
        match self {
            Self::Tcp => 16,
            Self::Udp => 6,
            Self::Sctp => 8,
        }
    }

    const fn number(self) -> u8 {
        match self {
            Self::Tcp => proto::TCP,
            Self::Udp => proto::UDP,
            Self::Sctp => proto::SCTP,
        }
    }
}

/// What is left to the port of one packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OffloadRequest {
    /// Bytes before the header of IP, and of that with its options or extension headers. Of no meaning for tags alone.
    pub l2: usize,
    /// See `l2`.
    pub l3: usize,
    /// Bytes of the TCP header. Only of meaning for a packet that is to be cut.
    pub l4: usize,
    /// Whether the checksum of IPv4's header is to be written. Nothing to do for IPv6.
    pub ipv4_checksum: bool,
    /// The protocol whose checksum is to be written.
    pub transport: Option<Transport>,
    /// The bytes of payload of each frame but the last, if the packet is to be cut as TCP. All checksums are written then.
    pub segment: Option<u16>,
    /// The outer tag to be inserted, in front of the other one.
    pub service_tag: Option<u16>,
    /// The tag to be inserted.
    pub tag: Option<u16>,
}

impl OffloadRequest {
    /// How many bytes of the packet [`Job::start`] has to see.
    #[inline]
    #[must_use]
    pub const fn head_len(&self) -> usize {
        match (self.segment, self.transport) {
            (Some(_), _) => self.l2 + self.l3 + self.l4,
            (None, Some(transport)) => self.l2 + self.l3 + transport.header(),
            (None, None) if self.ipv4_checksum => self.l2 + self.l3,
            (None, None) => ADDRESSES,
        }
    }

    /// Bytes of the tags that are to be inserted.
    #[inline]
    #[must_use]
    pub const fn tags_len(&self) -> usize {
        TAG * (self.service_tag.is_some() as usize + self.tag.is_some() as usize)
    }

    /// Whether any is for what is behind Ethernet.
    const fn reads_ip(&self) -> bool {
        self.ipv4_checksum || self.transport.is_some() || self.segment.is_some()
    }
}

/// A packet on its way, whose frames are being made.
#[derive(Clone, Debug)]
pub struct Job {
    /// The headers of the present frame.
    head: [u8; MAX_HEADERS],
    head_len: usize,
    /// Bytes of the packet behind those that the headers were made of.
    body: usize,
    check: Option<Check>,
    cut: Option<Cut>,
    /// What was computed for the present frame, and bytes of it that are still to be covered.
    sum: u64,
    odd: bool,
    crc: Crc32c,
    uncovered: usize,
}

/// A checksum over the payload of IP.
#[derive(Clone, Copy, Debug)]
struct Check {
    transport: Transport,
    /// Where its header begins.
    l4: usize,
    /// Bytes that it covers in a packet that is not cut.
    covered: usize,
    /// Sum of the pseudo header without the length.
    pseudo: u64,
}

#[derive(Clone, Copy, Debug)]
struct Cut {
    template: Template,
    size: usize,
}

impl Default for Job {
    fn default() -> Self {
        Self {
            head: [0; MAX_HEADERS],
            head_len: 0,
            body: 0,
            check: None,
            cut: None,
            sum: 0,
            odd: false,
            crc: Crc32c::default(),
            uncovered: 0,
        }
    }
}

impl Job {
    /// Turns to a packet of `length` bytes that begins with `first`, which is at least [`OffloadRequest::head_len`] long. Tags are inserted, and
    /// the checksum of IPv4 is written.
    ///
    /// `None` if the packet contradicts the request: headers are not where they are said to be, are of another protocol, are longer
    /// than [`MAX_HEADERS`] or than the packet, or claim more payload than there is. There is no frame then.
    #[must_use]
    pub fn start(&mut self, request: &OffloadRequest, first: &[u8], length: usize) -> Option<()> {
        let (taken, tags) = (request.head_len(), request.tags_len());
        let first = first.get(..taken)?;
        self.body = length.checked_sub(taken)?;
        self.head_len = taken + tags;
        (self.check, self.cut, self.uncovered) = (None, None, 0);
        if tags == 0 {
            self.head.get_mut(..taken)?.copy_from_slice(first);
        } else {
            insert_tags(request, &mut self.head, first)?;
        }
        if request.reads_ip() { self.read(request, request.l2 + tags) } else { Some(()) }
    }

    /// Reads IP, whose header lies at `ip` of the head.
    fn read(&mut self, request: &OffloadRequest, ip: usize) -> Option<()> {
        let l4 = ip + request.l3;
        let header = self.head.get(ip..l4)?;
        let v6 = match *header.first()? >> 4 {
            4 => false,
            6 => true,
            _ => return None,
        };
        let end = if v6 { End::of_ipv6(header) } else { End::of_ipv4(header) }?;
        if request.l2 < ETHERNET {
            return None;
        }
        if request.ipv4_checksum && !v6 {
            put(&mut self.head, ip + 10, &[0, 0])?;
            let right = checksum(sum(self.head.get(ip..l4)?));
            put(&mut self.head, ip + 10, &right.to_be_bytes())?;
        }
        let transport = if request.segment.is_some() { Some(Transport::Tcp) } else { request.transport };
        let Some(transport) = transport else { return Some(()) };
        // No fragment has all that a checksum covers.
        if end.fragment && request.segment.is_none() {
            return Some(());
        }
        if end.proto != transport.number() || end.fragment {
            return None;
        }
        let pseudo = end.addresses + u64::from(end.proto);
        let mut covered = 0;
        if let Some(size) = request.segment {
            self.cut = Some(self.cut(size, v6, (ip, l4))?);
        } else {
            let least = transport.header();
            let within = self.body + least;
            let payload = Some(end.payload).filter(|payload| (least..=within).contains(payload))?;
            covered = match transport {
                Transport::Udp => {
                    Some(word(&self.head, l4 + 4)?.into()).filter(|length| (least..=payload).contains(length))?
                }
                Transport::Tcp | Transport::Sctp => payload,
            };
        }
        let nothing = [0; 4];
        let field = if transport == Transport::Sctp { &nothing[..] } else { &nothing[..2] };
        put(&mut self.head, l4 + transport.field(), field)?;
        self.check = Some(Check { transport, l4, covered, pseudo });
        Some(())
    }

    /// How a packet of TCP is cut whose headers end with the head.
    fn cut(&self, size: u16, v6: bool, (ip, tcp): (usize, usize)) -> Option<Cut> {
        let payload = self.head_len;
        let header = payload.checked_sub(tcp).filter(|header| *header >= TCP)?;
        let offset = usize::from(*self.head.get(tcp + 12)? >> 4) * 4;
        let template = Template::read(&self.head, v6, (ip, tcp, payload))?;
        (offset == header && size > 0).then_some(Cut { template, size: size.into() })
    }

    /// How many frames the packet becomes.
    #[inline]
    #[must_use]
    pub fn frames(&self) -> usize {
        self.cut.map_or(1, |cut| self.body.div_ceil(cut.size).max(1))
    }

    /// Bytes of the headers of each.
    #[inline]
    #[must_use]
    pub const fn head_len(&self) -> usize {
        self.head_len
    }

    /// Bytes behind the headers of frame `at`; there are none past the last.
    #[inline]
    #[must_use]
    pub fn body_len(&self, at: usize) -> usize {
        match self.cut {
            None => self.body,
            Some(cut) => self.body.saturating_sub(at.saturating_mul(cut.size)).min(cut.size),
        }
    }

    /// Begins frame `at`, counted from 0. `None` if it would have no header.
    #[must_use]
    pub fn begin(&mut self, at: usize) -> Option<()> {
        let body = self.body_len(at);
        if let Some(Cut { template, size }) = self.cut {
            let last = at + 1 >= self.frames();
            template.write(&mut self.head, at, at.checked_mul(size)?, body, last)?;
        }
        if let Some(Check { transport, l4, covered, pseudo }) = self.check {
            let begun = self.head.get(l4..self.head_len)?;
            let covered = if self.cut.is_some() { begun.len() + body } else { covered };
            self.uncovered = covered.checked_sub(begun.len())?;
            if transport == Transport::Sctp {
                self.crc = Crc32c::default();
                self.crc.update(begun);
            } else {
                self.sum = pseudo + u64::try_from(covered).ok()? + sum(begun);
                self.odd = false;
            }
        }
        Some(())
    }

    /// How many of the bytes that come next the checksum covers.
    #[inline]
    #[must_use]
    pub const fn uncovered(&self) -> usize {
        self.uncovered
    }

    /// Whether the checksum is one that is summed up, and not a CRC.
    #[inline]
    #[must_use]
    pub fn sums(&self) -> bool {
        self.check.is_some_and(|check| check.transport != Transport::Sctp)
    }

    /// The next `length` bytes of what is covered have this sum: of their 16-bit words as they lie, in this machine's order, an odd last
    /// byte padded with zero.
    #[inline]
    pub fn add(&mut self, sum: u64, length: usize) {
        let word = u16::from_be(fold(sum));
        self.sum += u64::from(if self.odd { word.swap_bytes() } else { word });
        self.odd ^= length % 2 == 1;
        self.uncovered = self.uncovered.saturating_sub(length);
    }

    /// These are the next bytes of what is covered.
    pub fn add_bytes(&mut self, bytes: &[u8]) {
        if self.sums() {
            // In the machine's order, as the caller would have it.
            self.add(fold(sum(bytes)).to_be().into(), bytes.len());
        } else {
            self.crc.update(bytes);
            self.uncovered = self.uncovered.saturating_sub(bytes.len());
        }
    }

    /// The headers of the frame, whose body has been added.
    #[inline]
    #[must_use]
    pub fn finish(&mut self) -> &[u8] {
        if let Some(Check { transport, l4, .. }) = self.check {
            let at = l4 + transport.field();
            let crc = self.crc.bytes();
            let sum = checksum(self.sum);
            // In UDP zero stands for none (RFC 768).
            let sum = if sum == 0 && transport == Transport::Udp { 0xffff } else { sum };
            // Always there: it was zeroed.
            let _written = match transport {
                Transport::Sctp => put(&mut self.head, at, &crc),
                Transport::Tcp | Transport::Udp => put(&mut self.head, at, &sum.to_be_bytes()),
            };
        }
        self.head.get(..self.head_len).unwrap_or_default()
    }
}

/// Writes `first` with its tags to `head`.
fn insert_tags(request: &OffloadRequest, head: &mut [u8], first: &[u8]) -> Option<()> {
    let (addresses, rest) = first.split_at_checked(ADDRESSES)?;
    put(head, 0, addresses)?;
    let tags = [(ethertype::SERVICE_VLAN, request.service_tag), (ethertype::VLAN, request.tag)];
    let mut at = ADDRESSES;
    for (kind, tag) in tags {
        if let Some(tag) = tag {
            put(head, at, &kind.to_be_bytes())?;
            put(head, at + 2, &tag.to_be_bytes())?;
            at += TAG;
        }
    }
    put(head, at, rest)
}

/// What the headers of IP end in.
struct End {
    proto: u8,
    fragment: bool,
    /// Bytes behind them.
    payload: usize,
    /// Sum of the addresses in the pseudo header.
    addresses: u64,
}

impl End {
    /// `header` is all of it.
    #[inline]
    fn of_ipv4(header: &[u8]) -> Option<Self> {
        let fixed = header.first_chunk::<IPV4>()?;
        if usize::from(fixed[0] & 0xf) * 4 != header.len() {
            return None;
        }
        Some(Self {
            proto: fixed[9],
            fragment: u16::from_be_bytes([fixed[6], fixed[7]]) & 0x3fff != 0,
            payload: usize::from(u16::from_be_bytes([fixed[2], fixed[3]])).saturating_sub(header.len()),
            addresses: sum(&fixed[12..]),
        })
    }

    /// `headers` are the header and its extension headers. Of a packet on a source route, the pseudo header has the last address of that
    /// (RFC 8200, 8.1).
    fn of_ipv6(headers: &[u8]) -> Option<Self> {
        let fixed = headers.first_chunk::<IPV6>()?;
        let payload = usize::from(u16::from_be_bytes([fixed[4], fixed[5]]));
        let payload = payload.saturating_sub(headers.len() - IPV6);
        let mut end = Self { proto: fixed[6], fragment: false, payload, addresses: sum(&fixed[8..]) };
        let mut rest = headers.get(IPV6..)?;
        while let [next, units, ..] = *rest {
            let length = match end.proto {
                FRAGMENT => 8,
                AUTHENTICATION => (usize::from(units) + 2) * 4,
                HOP_BY_HOP | DESTINATION | ROUTING => (usize::from(units) + 1) * 8,
                _ => return None,
            };
            let (header, behind) = rest.split_at_checked(length)?;
            match end.proto {
                FRAGMENT => end.fragment |= word(header, 2)? & 0xfff9 != 0,
                ROUTING if *header.get(3)? > 0 => {
                    end.addresses = sum(&fixed[8..24]) + sum(final_destination(header)?);
                }
                _ => {}
            }
            (end.proto, rest) = (next, behind);
        }
        rest.is_empty().then_some(end)
    }
}

/// Extension headers of IPv6 (IANA).
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION: u8 = 60;

/// Where the packet with this routing header goes in the end. `None` for kinds of routing that are not known.
fn final_destination(routing: &[u8]) -> Option<&[u8]> {
    match *routing.get(2)? {
        // Source route, the last one is the end (RFC 2460, 4.4); a single home address (RFC 6275, 6.4.1).
        0 | 2 => routing.get(8..)?.last_chunk::<16>().map(|last| &last[..]),
        // Segment list, the first one is the end (RFC 8754, 2).
        4 => routing.get(8..24),
        _ => None,
    }
}

mod short;
#[cfg(test)]
mod tests;
