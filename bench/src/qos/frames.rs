//! The frames of the QoS benchmark: UDP, one flow for each app.

use kopi_packet::checksum::{checksum, sum};

/// Where the IPv4 header begins, and where it ends.
const IP: usize = 14;
const UDP: usize = 34;
/// UDP port that they are from.
pub(super) const PORT: u16 = 1024;
/// A host on the wire.
const PEER: [u8; 6] = [0x02, 0, 0, 0x99, 0x99, 0x99];

/// The frame of app `number`, whose address is `mac`, of `length` bytes without the checksum.
pub(super) fn frame(number: u8, mac: [u8; 6], length: u16) -> Vec<u8> {
    let mut frame = vec![0; length.into()];
    let mut put = |at: usize, bytes: &[u8]| frame[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &PEER);
    put(6, &mac);
    put(12, &[8, 0, 0x45, 0]);
    put(IP + 2, &(length - 14).to_be_bytes());
    put(IP + 8, &[64, 17]);
    // RFC 2544's benchmarking network.
    put(IP + 12, &[198, 19, 0, number, 198, 18, 0, 1]);
    put(UDP, &PORT.to_be_bytes());
    put(UDP + 2, &9_u16.to_be_bytes());
    // No checksum: UDP over IPv4 may do without (RFC 768).
    put(UDP + 4, &(length - 34).to_be_bytes());
    let header = checksum(sum(&frame[IP..UDP]));
    frame[IP + 10..IP + 12].copy_from_slice(&header.to_be_bytes());
    frame
}

#[cfg(test)]
mod tests {
    use super::*;
    use kopi_packet::checksum::fold;

    /// RFC 1071: the sum over everything that the checksum covers, itself included, is all ones.
    #[test]
    fn the_header_is_valid() {
        for length in [64, 1518] {
            let frame = frame(7, [2, 0, 0, 0, 0, 7], length);
            assert_eq!(fold(sum(&frame[IP..UDP])), 0xffff);
            assert_eq!(frame.len(), usize::from(length));
        }
    }
}
