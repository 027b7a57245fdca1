//! The frames of the QoS benchmark: UDP, one flow for each app.

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
    let sum: u32 = frame[IP..UDP].chunks_exact(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let [_, _, high, low] = (!folded).to_be_bytes();
    frame[IP + 10..IP + 12].copy_from_slice(&[high, low]);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 1071: the sum over everything that the checksum covers, itself included, is all ones.
    #[test]
    fn the_header_is_valid() {
        for length in [64, 1518] {
            let frame = frame(7, [2, 0, 0, 0, 0, 7], length);
            let words = frame[IP..UDP].chunks_exact(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])));
            let sum: u32 = words.sum();
            assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff);
            assert_eq!(frame.len(), usize::from(length));
        }
    }
}
