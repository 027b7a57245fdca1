//! What a kernel leaves undone when it thinks that its NIC will do it: checksums, and cutting a large TCP segment
//! into frames.
//!
//! A frame and its [`VnetHeader`] become an [`Outgoing`], which is one frame or many. Everything that the header claims is
//! checked against the frame's own bytes; nothing is allocated.
//!
//! # Source
//!
//! What a segment is, is Linux' `net/ipv4/tcp_offload.c`, `tcp_gso_segment`, and `net/ipv4/af_inet.c`,
//! `inet_gso_segment`: payloads follow each other, the identification of IPv4 counts up, FIN and PSH go with the last
//! segment and CWR with the first.

use crate::checksum::{checksum, fold, sum};
use crate::tcp::flags;
use crate::vnet::{Segments, VnetHeader};
use crate::{ethertype, proto};
use core::ops::Range;

/// Most bytes of the headers of a segment: Ethernet with two tags, IPv6 with extension headers, TCP with options.
pub const MAX_HEADERS: usize = 256;
/// Where the checksum stands in a TCP header, and in a UDP header.
const TCP_CHECKSUM: u16 = 16;
const UDP_CHECKSUM: u16 = 6;
/// Bytes of an Ethernet header, and of IP headers without options.
const ETHERNET: usize = 14;
const IPV4: usize = 20;
const IPV6: usize = 40;
const TCP: usize = 20;

/// What is wrong with a frame and its header. The kernel does not make such frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The checksum would lie outside the frame.
    Checksum,
    /// It is to be cut as TCP, and is no TCP that can be.
    NotTcp,
    /// Its headers are cut short or too long.
    Headers,
    /// Segments without a size.
    Size,
}

/// A frame that is one or, cut into segments, many.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing<'a> {
    frame: &'a [u8],
    cut: Option<Cut>,
}

/// The headers of a TCP packet that is cut: where they lie, and what in them is counted from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Template {
    pub(crate) v6: bool,
    pub(crate) ip: usize,
    pub(crate) tcp: usize,
    /// Where the payload begins.
    pub(crate) payload: usize,
    id: u16,
    sequence: u32,
    flags: u8,
}

impl Template {
    /// Of the packet in `frame`, whose headers are said to lie there.
    pub(crate) fn read(frame: &[u8], v6: bool, (ip, tcp, payload): (usize, usize, usize)) -> Option<Self> {
        let sequence = u32::from_be_bytes(*frame.get(tcp + 4..)?.first_chunk()?);
        Some(Self { v6, ip, tcp, payload, id: word(frame, ip + 4)?, sequence, flags: *frame.get(tcp + 13)? })
    }

    /// Makes `headers` those of the segment number `at` with `body` bytes of payload, behind `before` bytes in others. The checksum of
    /// TCP is still to be written, and zero.
    pub(crate) fn write(&self, headers: &mut [u8], at: usize, before: usize, body: usize, last: bool) -> Option<()> {
        let Self { v6, ip, tcp, payload, id, sequence, flags: mut set } = *self;
        let length = payload - ip + body;
        if v6 {
            put(headers, ip + 4, &u16::try_from(length - IPV6).ok()?.to_be_bytes())?;
        } else {
            put(headers, ip + 2, &u16::try_from(length).ok()?.to_be_bytes())?;
            put(headers, ip + 4, &id.wrapping_add(u16::try_from(at & 0xffff).ok()?).to_be_bytes())?;
            put(headers, ip + 10, &[0, 0])?;
            let checksum = checksum(sum(headers.get(ip..tcp)?));
            put(headers, ip + 10, &checksum.to_be_bytes())?;
        }
        put(headers, tcp + 4, &sequence.wrapping_add(u32::try_from(before).ok()?).to_be_bytes())?;
        if !last {
            set &= !(flags::FIN | flags::PSH);
        }
        if at > 0 {
            set &= !flags::CWR;
        }
        put(headers, tcp + 13, &[set])?;
        put(headers, tcp + 16, &[0, 0])
    }
}

/// How a frame is cut.
#[derive(Clone, Copy, Debug)]
struct Cut {
    template: Template,
    size: usize,
    /// What stands in the checksum's place: the sum of the pseudo header for the whole.
    pseudo: u16,
}

/// One frame of an [`Outgoing`]: its headers, made for it, and the place of the rest in the whole.
#[derive(Clone, Debug)]
pub struct Piece {
    headers: [u8; MAX_HEADERS],
    length: usize,
    /// Where the rest of it lies in the frame.
    pub rest: Range<usize>,
}

impl Piece {
    /// Its headers; nothing if it is the frame as it was.
    #[must_use]
    pub fn headers(&self) -> &[u8] {
        self.headers.get(..self.length).unwrap_or_default()
    }
}

impl<'a> Outgoing<'a> {
    /// Writes the checksum that is missing in `frame`, or finds out how it is to be cut.
    ///
    /// # Errors
    ///
    /// [`Fault`], if header and frame do not fit together.
    pub fn new(frame: &'a mut [u8], header: &VnetHeader) -> Result<Self, Fault> {
        let cut = match header.segments {
            Some(segments) => Some(Cut::new(frame, segments, header.checksum)?),
            None => {
                if let Some(places) = header.checksum {
                    complete(frame, places)?;
                }
                None
            }
        };
        Ok(Self { frame, cut })
    }

    /// How many frames it is.
    #[must_use]
    pub fn len(&self) -> usize {
        self.cut.map_or(1, |cut| self.frame.len().saturating_sub(cut.template.payload).div_ceil(cut.size).max(1))
    }

    /// Whether it is none: never.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        false
    }

    /// The whole.
    #[must_use]
    pub const fn frame(&self) -> &'a [u8] {
        self.frame
    }

    /// Frame number `at`, counted from 0; `None` past the last.
    #[must_use]
    pub fn piece(&self, at: usize) -> Option<Piece> {
        let Some(cut) = self.cut else {
            return (at == 0).then_some(Piece { headers: [0; MAX_HEADERS], length: 0, rest: 0..self.frame.len() });
        };
        let last = self.len() - 1;
        let start = cut.template.payload + at.checked_mul(cut.size)?;
        let rest = start..self.frame.len().min(start + cut.size);
        (at <= last).then(|| cut.piece(self.frame, at, at == last, rest)).flatten()
    }
}

/// Writes the checksum of everything from `start` on, to `offset` behind it.
fn complete(frame: &mut [u8], (start, offset): (u16, u16)) -> Result<(), Fault> {
    let covered = frame.get_mut(usize::from(start)..).ok_or(Fault::Checksum)?;
    let place = usize::from(offset);
    let (Some(_), true) = (covered.get(place..place + 2), usize::from(start) >= ETHERNET) else {
        return Err(Fault::Checksum);
    };
    let mut checksum = checksum(sum(covered));
    // A datagram whose sum is zero says so with all ones (RFC 768).
    if checksum == 0 && offset == UDP_CHECKSUM {
        checksum = 0xffff;
    }
    covered.get_mut(place..place + 2).ok_or(Fault::Checksum)?.copy_from_slice(&checksum.to_be_bytes());
    Ok(())
}

/// Where what follows the last ethertype begins, and that type. Two VLAN tags are read.
pub(crate) fn network(frame: &[u8]) -> Option<(usize, u16)> {
    let mut at = ETHERNET;
    for _ in 0..3 {
        let kind = word(frame, at - 2)?;
        match kind {
            ethertype::VLAN | ethertype::SERVICE_VLAN => at += 4,
            kind => return Some((at, kind)),
        }
    }
    None
}

pub(crate) fn word(frame: &[u8], at: usize) -> Option<u16> {
    frame.get(at..)?.first_chunk().map(|bytes| u16::from_be_bytes(*bytes))
}

pub(crate) fn put(frame: &mut [u8], at: usize, bytes: &[u8]) -> Option<()> {
    frame.get_mut(at..at + bytes.len())?.copy_from_slice(bytes);
    Some(())
}

impl Cut {
    fn new(frame: &[u8], segments: Segments, checksum: Option<(u16, u16)>) -> Result<Self, Fault> {
        let Some((start, TCP_CHECKSUM)) = checksum else { return Err(Fault::NotTcp) };
        let (ip, kind) = network(frame).ok_or(Fault::Headers)?;
        let tcp = usize::from(start);
        let first = *frame.get(ip).ok_or(Fault::Headers)?;
        let fits = match (segments.v6, kind, first >> 4) {
            (false, ethertype::IPV4, 4) => {
                let length = usize::from(first & 0xf) * 4;
                length >= IPV4 && tcp == ip + length && frame.get(ip + 9) == Some(&proto::TCP)
            }
            // Where the extension headers end is what the kernel says.
            (true, ethertype::IPV6, 6) => tcp >= ip + IPV6,
            _ => false,
        };
        if !fits {
            return Err(Fault::NotTcp);
        }
        let offset = usize::from(*frame.get(tcp + 12).ok_or(Fault::Headers)? >> 4) * 4;
        let payload = tcp + offset;
        if offset < TCP || payload > frame.len() || payload > MAX_HEADERS {
            return Err(Fault::Headers);
        }
        let size = usize::from(segments.size);
        if size == 0 {
            return Err(Fault::Size);
        }
        let pseudo = word(frame, tcp + usize::from(TCP_CHECKSUM)).ok_or(Fault::Headers)?;
        let template = Template::read(frame, segments.v6, (ip, tcp, payload)).ok_or(Fault::Headers)?;
        Ok(Self { template, size, pseudo })
    }

    /// Segment `at` of `frame`, whose payload lies at `rest`.
    fn piece(&self, frame: &[u8], at: usize, last: bool, rest: Range<usize>) -> Option<Piece> {
        let Self { template, size, pseudo } = *self;
        let Template { tcp, payload, .. } = template;
        let mut headers = [0; MAX_HEADERS];
        put(&mut headers, 0, frame.get(..payload)?)?;
        let body = frame.get(rest.clone())?;
        template.write(&mut headers, at, at * size, body.len(), last)?;
        // Of the pseudo header only the length differs, and to subtract is to add the complement.
        let whole = fold(u64::try_from(frame.len() - tcp).ok()?);
        let here = u64::try_from(payload - tcp + body.len()).ok()?;
        let total = u64::from(pseudo) + u64::from(!whole) + here + sum(headers.get(tcp..payload)?);
        // The header's length is even, so the words of the payload lie as those of the whole do.
        let checksum = checksum(total + sum(body));
        put(&mut headers, tcp + 16, &checksum.to_be_bytes())?;
        Some(Piece { headers, length: payload, rest })
    }
}

#[cfg(test)]
pub(crate) mod tests;
