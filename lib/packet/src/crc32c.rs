//! The checksum of SCTP, CRC32c.
//!
//! # Source
//!
//! RFC 9260, appendix A, with eight bytes looked up at a time ("slicing by 8"): Kounavis and Berry, "Novel Table Lookup-Based Algorithms
//! for High-Performance CRC Generation", IEEE Transactions on Computers 57(11), 2008.

/// The polynomial of Castagnoli, its lowest power in the highest bit.
const POLYNOMIAL: u32 = 0x82f6_3b78;

/// What a byte does to the CRC, by how many bytes come behind it.
static TABLES: [[u32; 256]; 8] = tables();

const fn tables() -> [[u32; 256]; 8] {
    let mut tables = [[0; 256]; 8];
    let mut byte = 0_u32;
    while byte < 256 {
        let mut crc = byte;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ POLYNOMIAL } else { crc >> 1 };
            bit += 1;
        }
        tables[0][byte as usize] = crc;
        byte += 1;
    }
    let mut at = 0;
    while at < 256 {
        let mut behind = 1;
        while behind < 8 {
            let crc = tables[behind - 1][at];
            tables[behind][at] = crc >> 8 ^ tables[0][(crc & 0xff) as usize];
            behind += 1;
        }
        at += 1;
    }
    tables
}

/// A CRC that is being computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crc32c(u32);

impl Default for Crc32c {
    fn default() -> Self {
        Self(u32::MAX)
    }
}

impl Crc32c {
    /// Goes on with `bytes`.
    pub fn update(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        let look = |behind: usize, byte: u8| TABLES[behind][usize::from(byte)];
        let crc = words.iter().fold(self.0, |crc, word| {
            let [a, b, c, d, e, f, g, h] = (u64::from_le_bytes(*word) ^ u64::from(crc)).to_le_bytes();
            look(7, a) ^ look(6, b) ^ look(5, c) ^ look(4, d) ^ look(3, e) ^ look(2, f) ^ look(1, g) ^ look(0, h)
        });
        self.0 = rest.iter().fold(crc, |crc, byte| {
            let [low, ..] = crc.to_le_bytes();
            crc >> 8 ^ look(0, low ^ byte)
        });
    }

    /// The CRC, in the order in which its bytes are sent.
    #[must_use]
    pub const fn bytes(self) -> [u8; 4] {
        (!self.0).to_le_bytes()
    }
}

/// The CRC of `parts`, one after the other.
#[must_use]
pub fn crc32c(parts: &[&[u8]]) -> u32 {
    let mut crc = Crc32c::default();
    parts.iter().for_each(|part| crc.update(part));
    u32::from_le_bytes(crc.bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    /// RFC 3720, B.4, and the check value of catalogues of CRCs.
    #[test]
    fn published_values_come_out() {
        let ascending: Vec<u8> = (0..32).collect();
        let descending: Vec<u8> = (0..32).rev().collect();
        assert_eq!(crc32c(&[b"123456789"]), 0xe306_9283);
        assert_eq!(crc32c(&[&[0; 32]]), 0x8a91_36aa);
        assert_eq!(crc32c(&[&[0xff; 32]]), 0x62a8_ab43);
        assert_eq!((crc32c(&[&ascending]), crc32c(&[&descending])), (0x46dd_794e, 0x113f_db5c));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Whatever the pieces, the CRC is that of a division bit by bit.
        #[test]
        fn pieces_make_no_difference(bytes in prop::collection::vec(any::<u8>(), 0..200), at in 0..200_usize) {
            let mut plain = u32::MAX;
            for byte in &bytes {
                plain ^= u32::from(*byte);
                for _ in 0..8 {
                    plain = if plain & 1 == 1 { plain >> 1 ^ POLYNOMIAL } else { plain >> 1 };
                }
            }
            let (first, second) = bytes.split_at(at.min(bytes.len()));
            let mut crc = Crc32c::default();
            crc.update(first);
            crc.update(second);
            prop_assert_eq!(crc.bytes(), (!plain).to_le_bytes());
        }
    }
}
