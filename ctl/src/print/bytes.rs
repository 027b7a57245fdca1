//! The bytes that were kept of a frame.

use kopi_packet::MacAddr;
use std::net::{Ipv4Addr, Ipv6Addr};

/// A part of a frame: the bytes that were kept of it, and how many it had.
///
/// Every reading method returns `None` beyond what was kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bytes<'f> {
    kept: &'f [u8],
    length: usize,
}

impl<'f> Bytes<'f> {
    /// `kept` of `length` bytes.
    pub(super) fn new(kept: &'f [u8], length: usize) -> Self {
        Self { kept, length: length.max(kept.len()) }
    }

    /// How many bytes there were, kept or not.
    pub(super) const fn length(self) -> usize {
        self.length
    }

    /// Those that were kept.
    pub(super) const fn kept(self) -> &'f [u8] {
        self.kept
    }

    /// Whether none is missing.
    pub(super) const fn is_whole(self) -> bool {
        self.kept.len() == self.length
    }

    /// What follows the first `at` bytes.
    pub(super) fn after(self, at: usize) -> Self {
        Self { kept: self.kept.get(at..).unwrap_or_default(), length: self.length.saturating_sub(at) }
    }

    /// The first `length` bytes, or all if there are fewer.
    pub(super) fn first(self, length: usize) -> Self {
        let length = length.min(self.length);
        Self { kept: self.kept.get(..length).unwrap_or(self.kept), length }
    }

    /// The first `length` bytes, of which some are missing if there are fewer.
    pub(super) fn claimed(self, length: usize) -> Self {
        Self { length, ..self.first(length) }
    }

    /// The byte at `at`.
    pub(super) fn u8(self, at: usize) -> Option<u8> {
        self.kept.get(at).copied()
    }

    /// The number at `at`, in network order, as are all.
    pub(super) fn u16(self, at: usize) -> Option<u16> {
        self.array(at).map(u16::from_be_bytes)
    }

    /// The number at `at`.
    pub(super) fn u32(self, at: usize) -> Option<u32> {
        self.array(at).map(u32::from_be_bytes)
    }

    /// The MAC address at `at`.
    pub(super) fn mac(self, at: usize) -> Option<MacAddr> {
        self.array(at).map(MacAddr::new)
    }

    /// The IPv4 address at `at`.
    pub(super) fn ip4(self, at: usize) -> Option<Ipv4Addr> {
        self.array::<4>(at).map(Ipv4Addr::from)
    }

    /// The IPv6 address at `at`.
    pub(super) fn ip6(self, at: usize) -> Option<Ipv6Addr> {
        self.array::<16>(at).map(Ipv6Addr::from)
    }

    fn array<const N: usize>(self, at: usize) -> Option<[u8; N]> {
        self.kept.get(at..)?.first_chunk().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// No way of cutting a part out of another one makes up bytes, or forgets how many there were.
    #[test]
    fn parts_stay_inside() {
        let frame = [1, 2, 3, 4];
        for length in 0..6 {
            for at in 0..6 {
                for first in 0..6 {
                    let whole = Bytes::new(&frame, length);
                    let part = whole.after(at).first(first);
                    assert!(part.kept().len() <= part.length() && part.length() <= first);
                    assert!(at + part.length() <= whole.length() || part.length() == 0);
                    assert_eq!(part.u8(0), frame.get(at).copied().filter(|_| first > 0));
                    assert_eq!(part.u8(first), None);
                }
            }
        }
    }
}
