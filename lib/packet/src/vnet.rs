//! The header before each frame of a TAP interface: what is still to be done to the frame, or need not be done again.
//!
//! # Source
//!
//! virtio 1.2, 5.1.6, in its legacy form without `num_buffers`: numbers are in the machine's order (Linux,
//! `drivers/net/tun.c`).

/// Bytes of the header.
pub const LEN: usize = 10;

/// `VIRTIO_NET_HDR_F_NEEDS_CSUM`.
const NEEDS_CHECKSUM: u8 = 1;
/// `VIRTIO_NET_HDR_GSO_NONE`, `_TCPV4`, `_TCPV6` and the bit `_ECN`.
const NONE: u8 = 0;
const TCP4: u8 = 1;
const TCP6: u8 = 4;
const ECN: u8 = 0x80;

/// What is to be done to a frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VnetHeader {
    /// Where the checksum of the frame begins, and how far behind that it is to be written; `None` if it is written. What
    /// stands there is the sum of the pseudo header.
    pub checksum: Option<(u16, u16)>,
    /// What the frame is to be cut into; `None` if it goes as it is.
    pub segments: Option<Segments>,
    /// Bytes of all headers, as a hint.
    pub header_len: u16,
}

/// TCP segments that a frame is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segments {
    /// Whether they are of IPv6.
    pub v6: bool,
    /// Bytes of payload in each but the last.
    pub size: u16,
}

impl VnetHeader {
    /// Reads a header. `None` if it asks for what was not offered, such as segmentation of UDP.
    #[must_use]
    pub fn read(bytes: &[u8; LEN]) -> Option<Self> {
        let [flags, gso, h0, h1, s0, s1, c0, c1, o0, o1] = *bytes;
        let size = u16::from_ne_bytes([s0, s1]);
        let segments = match gso & !ECN {
            NONE => None,
            kind @ (TCP4 | TCP6) => Some(Segments { v6: kind == TCP6, size }),
            _ => return None,
        };
        let places = (u16::from_ne_bytes([c0, c1]), u16::from_ne_bytes([o0, o1]));
        let checksum = (flags & NEEDS_CHECKSUM != 0).then_some(places);
        Some(Self { checksum, segments, header_len: u16::from_ne_bytes([h0, h1]) })
    }

    /// The header's bytes.
    #[must_use]
    pub fn to_bytes(self) -> [u8; LEN] {
        let (gso, size) = match self.segments {
            None => (NONE, 0),
            Some(Segments { v6: false, size }) => (TCP4, size),
            Some(Segments { v6: true, size }) => (TCP6, size),
        };
        let (start, offset) = self.checksum.unwrap_or_default();
        let flags = if self.checksum.is_some() { NEEDS_CHECKSUM } else { 0 };
        let [h0, h1] = self.header_len.to_ne_bytes();
        let ([s0, s1], [c0, c1], [o0, o1]) = (size.to_ne_bytes(), start.to_ne_bytes(), offset.to_ne_bytes());
        [flags, gso, h0, h1, s0, s1, c0, c1, o0, o1]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A header comes back as it was written, and what was not offered is refused.
    #[test]
    fn headers_come_back() {
        let tcp =
            |v6| VnetHeader { checksum: Some((34, 16)), segments: Some(Segments { v6, size: 1448 }), header_len: 66 };
        for header in [VnetHeader::default(), tcp(false), tcp(true)] {
            assert_eq!(VnetHeader::read(&header.to_bytes()), Some(header));
        }
        assert_eq!(VnetHeader::default().to_bytes(), [0; LEN]);
        for gso in [2, 3, 5, 6, 0x83, 0xff] {
            assert_eq!(VnetHeader::read(&[0, gso, 0, 0, 0, 0, 0, 0, 0, 0]), None, "{gso}");
        }
    }
}
