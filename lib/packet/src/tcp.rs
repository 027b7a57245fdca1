//! What connection tracking reads of a TCP segment.

use crate::ip;
use crate::proto::TCP;
use crate::walk::{be16, be32};
use crate::{Fragment, Headers};

/// Flags of TCP (RFC 9293, 3.1; RFC 3168, 6.1 for the last two).
pub mod flags {
    /// No more data from the sender.
    pub const FIN: u8 = 0x01;
    /// Synchronize sequence numbers.
    pub const SYN: u8 = 0x02;
    /// Reset the connection.
    pub const RST: u8 = 0x04;
    /// Push.
    pub const PSH: u8 = 0x08;
    /// The acknowledgment number counts.
    pub const ACK: u8 = 0x10;
    /// The urgent pointer counts.
    pub const URG: u8 = 0x20;
    /// ECN echo.
    pub const ECE: u8 = 0x40;
    /// Congestion window reduced.
    pub const CWR: u8 = 0x80;
}

/// Bytes of a TCP header without options.
const HEADER: usize = 20;
/// The largest shift count of the window scale option (RFC 7323, 2.3).
const MAX_SCALE: u8 = 14;

/// One TCP segment, as far as connection tracking looks at it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// The [`flags`], all eight.
    pub flags: u8,
    /// Sequence number of the first byte, or of the SYN.
    pub seq: u32,
    /// Acknowledgment number, if [`flags::ACK`] is set.
    pub ack: u32,
    /// Window as it stands in the header, not scaled.
    pub window: u16,
    /// Bytes of data, SYN and FIN not counted. In a first fragment, those that are in it.
    pub payload_len: u16,
    /// Shift count of the window scale option, 14 at most (RFC 7323, 2.3). Only looked for in a SYN.
    pub window_scale: Option<u8>,
    /// Whether this is all of the segment, and not only its first fragment.
    pub whole: bool,
}

impl Segment {
    /// Reads the TCP header of a frame; `headers` is what [`parse`](crate::parse) found in the same frame.
    ///
    /// `None` if the frame has no TCP header, or one whose data offset points into the header itself or beyond the
    /// packet (RFC 9293, 3.1): nobody can say which bytes are data in such a segment. The first fragment of a segment
    /// has to hold all options.
    #[must_use]
    pub fn of(frame: &[u8], headers: &Headers) -> Option<Self> {
        let segment = ip::transport(frame, headers).filter(|_| headers.proto == TCP)?;
        let &[offset, flags] = segment.get(12..)?.first_chunk()?;
        let data_offset = usize::from(offset >> 4) * 4;
        let options = segment.get(HEADER..data_offset)?;
        let syn = flags & flags::SYN != 0;
        Some(Self {
            flags,
            seq: be32(segment, 4)?,
            ack: be32(segment, 8)?,
            window: be16(segment, 14)?,
            payload_len: u16::try_from(segment.len() - data_offset).ok()?,
            window_scale: if syn { window_scale(options) } else { None },
            whole: headers.fragment == Fragment::None,
        })
    }

    /// Whether one of `flags` is set.
    #[inline]
    #[must_use]
    pub const fn has(&self, flags: u8) -> bool {
        self.flags & flags != 0
    }

    /// The sequence number behind the segment: SYN and FIN take one each (RFC 9293, 3.4).
    #[must_use]
    pub const fn end(&self) -> u32 {
        let controls = self.has(flags::SYN) as u32 + self.has(flags::FIN) as u32;
        self.seq.wrapping_add(self.payload_len as u32).wrapping_add(controls)
    }
}

/// The flags of the TCP header in a frame; zero if it has none. For a worker that has to know for every frame whether
/// connection tracking wants to see it.
#[inline]
#[must_use]
pub fn flags_of(frame: &[u8], headers: &Headers) -> u8 {
    match headers.proto {
        TCP if headers.l4_offset > 0 => frame.get(usize::from(headers.l4_offset) + 13).copied().unwrap_or(0),
        _ => 0,
    }
}

/// Whether a TCP segment is anything but an acknowledgment, with or without data: it begins or ends a connection, has no
/// acknowledgment, or a header that contradicts its packet, so that [`Segment::of`] gives nothing. What it is to its
/// connection does not follow from its flow key. Never so for a frame without a TCP header.
#[inline]
#[must_use]
pub fn is_special(frame: &[u8], headers: &Headers) -> bool {
    const CONTROLS: u8 = flags::FIN | flags::SYN | flags::RST | flags::ACK;
    const PLAIN: u8 = 5;
    if headers.proto != TCP || headers.l4_offset == 0 {
        return false;
    }
    let start = frame.get(usize::from(headers.l4_offset) + 12..);
    match start.and_then(|start| start.first_chunk()) {
        // The parser has seen to it that a header without options is there.
        Some(&[offset, flags]) if flags & CONTROLS == flags::ACK && offset >> 4 == PLAIN => false,
        Some(&[_, flags]) if flags & CONTROLS == flags::ACK => Segment::of(frame, headers).is_none(),
        _ => true,
    }
}

/// The shift count of the window scale option (RFC 7323, 2.2). Options behind a broken one are not looked at.
fn window_scale(mut options: &[u8]) -> Option<u8> {
    const END: u8 = 0;
    const NO_OPERATION: u8 = 1;
    const WINDOW_SCALE: u8 = 3;
    loop {
        options = match *options {
            [] | [END, ..] => return None,
            [NO_OPERATION, ref rest @ ..] => rest,
            [WINDOW_SCALE, 3, shift, ..] => return Some(shift.min(MAX_SCALE)),
            [_, length, ..] if length >= 2 => options.get(usize::from(length)..)?,
            _ => return None,
        };
    }
}
