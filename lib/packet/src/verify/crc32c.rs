//! CRC32c, the checksum of SCTP.

/// The polynomial of Castagnoli, its bits in reverse order.
const POLYNOMIAL: u32 = 0x82f6_3b78;

/// What each value of a byte does to the sum, if so many more bytes follow it at once.
static TABLES: [[u32; 256]; 8] = tables();

const fn tables() -> [[u32; 256]; 8] {
    let mut tables = [[0; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        #[expect(clippy::cast_possible_truncation, reason = "below 256")]
        let mut sum = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            sum = if sum & 1 == 0 { sum >> 1 } else { sum >> 1 ^ POLYNOMIAL };
            bit += 1;
        }
        tables[0][byte] = sum;
        byte += 1;
    }
    let mut follow = 1;
    while follow < 8 {
        let mut byte = 0;
        while byte < 256 {
            let before: u32 = tables[follow - 1][byte];
            tables[follow][byte] = before >> 8 ^ tables[0][(before & 0xff) as usize];
            byte += 1;
        }
        follow += 1;
    }
    tables
}

/// The sum of all `parts`, as if they were one.
///
/// # Source
///
/// RFC 9260, appendix A. Eight bytes at a time by as many tables: "A Systematic Approach to Building High Performance,
/// Software-based, CRC Generators", Kounavis and Berry, 2005.
#[must_use]
pub(super) fn crc32c(parts: &[&[u8]]) -> u32 {
    !parts.iter().fold(!0, |sum, part| {
        let (words, rest) = part.as_chunks::<8>();
        let sum = words.iter().fold(sum, |sum, word| {
            let mut word = *word;
            word.iter_mut().zip(sum.to_le_bytes()).for_each(|(to, from)| *to ^= from);
            // The first byte is followed by the most.
            let each = TABLES.iter().rev().zip(word).map(|(table, byte)| table[usize::from(byte)]);
            each.fold(0, |all, one| all ^ one)
        });
        rest.iter().fold(sum, |sum, byte| {
            let [low, ..] = sum.to_le_bytes();
            sum >> 8 ^ TABLES[0][usize::from(low ^ byte)]
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The published vectors: RFC 3720, B.4, and the check value of the catalogue of CRCs.
    #[test]
    fn published_sums() {
        let ascending: [u8; 32] = core::array::from_fn(|i| u8::try_from(i).unwrap());
        assert_eq!(crc32c(&[&[0; 32]]), 0x8a91_36aa);
        assert_eq!(crc32c(&[&[0xff; 32]]), 0x62a8_ab43);
        assert_eq!(crc32c(&[&ascending]), 0x46dd_794e);
        assert_eq!(crc32c(&[b"123456789"]), 0xe306_9283);
    }

    /// Bit by bit, as the definition says.
    fn slowly(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(!0_u32, |sum, byte| {
            (0..8).fold(sum ^ u32::from(*byte), |sum, _| if sum & 1 == 0 { sum >> 1 } else { sum >> 1 ^ POLYNOMIAL })
        })
    }

    proptest! {
        #[test]
        fn any_bytes_in_any_parts(bytes in prop::collection::vec(any::<u8>(), 0..200), at: prop::sample::Index) {
            let (first, second): (&[u8], &[u8]) = bytes.split_at(at.index(bytes.len() + 1));
            prop_assert_eq!(crc32c(&[first, second]), slowly(&bytes));
        }
    }
}
