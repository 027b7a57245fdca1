//! The Internet checksum (RFC 1071).

/// The sum of the 16-bit words of `bytes`, in network order, an odd last byte padded with zero. At most 16 bits long, so
/// that a few may be added up.
///
/// Sums do not depend on the order of the bytes within the words, as long as the result is turned round (RFC 1071, 2 (B)), so
/// words are taken as they lie, four bytes at a time.
#[inline]
#[must_use]
pub fn sum(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<4>();
    let mut total: u64 = words.iter().map(|word| u64::from(u32::from_ne_bytes(*word))).sum();
    let mut last = [0; 4];
    for (to, from) in last.iter_mut().zip(rest) {
        *to = *from;
    }
    total += u64::from(u32::from_ne_bytes(last));
    u64::from(u16::from_be(fold(total)))
}

/// The sum as it is in 16 bits, with carries added at the low end.
#[inline]
#[must_use]
pub fn fold(sum: u64) -> u16 {
    let halves = (sum & 0xffff_ffff) + (sum >> 32);
    let mut folded = (halves & 0xffff) + (halves >> 16);
    // Below 2^18 by now.
    folded = (folded & 0xffff) + (folded >> 16);
    folded = (folded & 0xffff) + (folded >> 16);
    u16::try_from(folded).unwrap_or(u16::MAX)
}

/// The checksum of words with this sum.
#[inline]
#[must_use]
pub fn checksum(sum: u64) -> u16 {
    !fold(sum)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    proptest! {
        /// The sum is that of the words one by one, whatever the length and wherever the bytes lie.
        #[test]
        fn sum_is_that_of_the_words(bytes in prop::collection::vec(any::<u8>(), 0..200), skip in 0_usize..4) {
            let bytes: Vec<u8> = bytes.into_iter().skip(skip).collect();
            let mut one_by_one = 0_u32;
            for pair in bytes.chunks(2) {
                one_by_one += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
                one_by_one = (one_by_one & 0xffff) + (one_by_one >> 16);
            }
            let found = fold(sum(&bytes));
            // Zero has two forms, and words that are not all zero never sum up to the other one.
            prop_assert_eq!(u32::from(found), one_by_one);
        }
    }

    /// Folding keeps the value modulo 2^16 - 1, to the ends of the range.
    #[test]
    fn folding_is_modulo() {
        for sum in [0, 1, 0xffff, 0x1_0000, 0x1_fffe, 0xffff_ffff, u64::MAX, u64::MAX - 1, 0xffff_0000_0000_0001] {
            assert_eq!(u64::from(fold(sum)) % 0xffff, sum % 0xffff, "{sum:x}");
        }
    }
}
