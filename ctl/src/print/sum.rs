//! The Internet checksum (RFC 1071).

use super::bytes::Bytes;
use kopi_packet::checksum::{checksum, sum};
use std::net::IpAddr;

/// What a checksum field says of the bytes that it protects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sum {
    /// Right.
    Good,
    /// Wrong; this would be right.
    Bad(u16),
}

/// Checks `bytes`, with the checksum at `at` in them; `None` if some were not kept.
pub(super) fn check(bytes: Bytes<'_>, at: usize) -> Option<Sum> {
    checked(bytes, at, &[])
}

/// The same for a protocol whose checksum covers the addresses, too (RFC 9293, 3.1; RFC 8200, 8.1).
pub(super) fn check_transport(bytes: Bytes<'_>, at: usize, ends: (IpAddr, IpAddr), proto: u8) -> Option<Sum> {
    let mut pseudo = Vec::with_capacity(40);
    for address in [ends.0, ends.1] {
        match address {
            IpAddr::V4(address) => pseudo.extend(address.octets()),
            IpAddr::V6(address) => pseudo.extend(address.octets()),
        }
    }
    pseudo.extend(u32::try_from(bytes.length()).ok()?.to_be_bytes());
    pseudo.extend(u32::from(proto).to_be_bytes());
    checked(bytes, at, &pseudo)
}

fn checked(bytes: Bytes<'_>, at: usize, pseudo: &[u8]) -> Option<Sum> {
    if !bytes.is_whole() {
        return None;
    }
    let stated = bytes.u16(at)?;
    // As it would be with zero in the field. Zero and all ones are the same number in one's complement.
    let rest = checksum(sum(pseudo) + sum(bytes.kept().get(..at)?) + sum(bytes.kept().get(at + 2..)?));
    let same = stated == rest || (stated == 0xffff && rest == 0);
    Some(if same { Sum::Good } else { Sum::Bad(rest) })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The header of the example that is known from textbooks is right, and no change of one bit stays unnoticed.
    #[test]
    fn one_changed_bit_is_noticed() {
        let header = [0x45, 0, 0, 0x73, 0, 0, 0x40, 0, 0x40, 0x11, 0xb8, 0x61, 0xc0, 0xa8, 0, 1, 0xc0, 0xa8, 0, 0xc7];
        let check = |header: &[u8]| check(Bytes::new(header, header.len()), 10);
        assert_eq!(check(&header), Some(Sum::Good));
        for bit in 0..header.len() * 8 {
            let mut changed = header;
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(check(&changed), Some(Sum::Bad(_))), "bit {bit}");
        }
        assert_eq!(super::check(Bytes::new(&header, 21), 10), None);
    }
}
