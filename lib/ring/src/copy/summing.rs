//! Copying with a sum, by registers of 16 bytes, which every x86-64 processor has.

use std::arch::asm;
use std::arch::x86_64::{
    __m128i, _mm_add_epi32, _mm_cvtsi128_si64, _mm_loadu_si128, _mm_madd_epi16, _mm_set1_epi16, _mm_setzero_si128,
    _mm_unpackhi_epi64, _mm_xor_si128,
};

/// Bytes in a register.
const WIDTH: usize = size_of::<__m128i>();

/// The words of several registers, added up in pairs. The processor only has a sum of products for words with a sign, so 32,768 is
/// subtracted from each of them first.
#[derive(Clone, Copy)]
struct Lanes(__m128i);

impl Lanes {
    #[inline]
    #[target_feature(enable = "sse2")]
    fn add(&mut self, words: __m128i) {
        let signed = _mm_xor_si128(words, _mm_set1_epi16(i16::MIN));
        self.0 = _mm_add_epi32(self.0, _mm_madd_epi16(signed, _mm_set1_epi16(1)));
    }

    /// The sum of the `words` words that were added.
    #[inline]
    #[target_feature(enable = "sse2")]
    fn total(self, words: usize) -> u64 {
        let halves = [_mm_cvtsi128_si64(self.0), _mm_cvtsi128_si64(_mm_unpackhi_epi64(self.0, self.0))];
        let signed = halves.map(|half| {
            let [a, b, c, d, e, f, g, h] = half.to_le_bytes();
            i64::from(i32::from_le_bytes([a, b, c, d])).wrapping_add(i32::from_le_bytes([e, f, g, h]).into())
        });
        let signed = signed.iter().fold(0_i64, |sum, half| sum.wrapping_add(*half));
        (words as u64).wrapping_mul(0x8000).wrapping_add_signed(signed)
    }
}

/// Stores a value by an instruction that has place `t` for the address and `v` for the value.
macro_rules! store {
    ($instruction:literal, $class:ident, $value:expr, $to:expr) => {{
        let (value, to) = ($value, $to);
        // SAFETY: the caller of this module vouches for the bytes at `to`, as many as the value has.
        unsafe { asm!($instruction, v = in($class) value, t = in(reg) to, options(nostack, preserves_flags)) }
    }};
}

/// See [`copy_in_summing`](super::copy_in_summing).
///
/// # Safety
///
/// As there.
#[inline]
#[target_feature(enable = "sse2")]
pub(super) unsafe fn copy(dst: *mut u8, src: &[u8]) -> u64 {
    let (blocks, rest) = src.as_chunks::<WIDTH>();
    let mut lanes = Lanes(_mm_setzero_si128());
    let mut to = dst;
    let (lines, others) = blocks.as_chunks::<4>();
    for [a, b, c, d] in lines {
        let words = [load(a), load(b), load(c), load(d)];
        lanes.add(words[0]);
        lanes.add(words[1]);
        lanes.add(words[2]);
        lanes.add(words[3]);
        // SAFETY: the caller vouches for the 64 bytes at `to`.
        unsafe {
            asm!(
                "movups [{t}], {a}", "movups [{t} + 16], {b}", "movups [{t} + 32], {c}", "movups [{t} + 48], {d}",
                a = in(xmm_reg) words[0], b = in(xmm_reg) words[1], c = in(xmm_reg) words[2], d = in(xmm_reg) words[3],
                t = in(reg) to, options(nostack, preserves_flags)
            );
        }
        to = to.wrapping_add(4 * WIDTH);
    }
    for block in others {
        let words = load(block);
        lanes.add(words);
        store!("movups [{t}], {v}", xmm_reg, words, to);
        to = to.wrapping_add(WIDTH);
    }
    let total = lanes.total(blocks.len().wrapping_mul(WIDTH / 2));
    // SAFETY: the caller vouches for the bytes that are left at `to`.
    total.wrapping_add(unsafe { copy_rest(to, rest) })
}

#[inline]
#[target_feature(enable = "sse2")]
fn load(block: &[u8; WIDTH]) -> __m128i {
    // SAFETY: a block has as many bytes as the register.
    unsafe { _mm_loadu_si128(block.as_ptr().cast()) }
}

/// The same for fewer bytes than a register has.
///
/// # Safety
///
/// As for [`copy`].
#[inline]
unsafe fn copy_rest(dst: *mut u8, src: &[u8]) -> u64 {
    let (mut to, mut rest, mut total) = (dst, src, 0_u64);
    if let Some((first, behind)) = rest.split_first_chunk::<8>() {
        let word = u64::from_le_bytes(*first);
        store!("mov [{t}], {v}", reg, word, to);
        total = (word & 0xffff_ffff).wrapping_add(word >> 32);
        (to, rest) = (to.wrapping_add(8), behind);
    }
    if let Some((first, behind)) = rest.split_first_chunk::<4>() {
        let word = u32::from_le_bytes(*first);
        store!("mov [{t}], {v:e}", reg, word, to);
        total = total.wrapping_add(word.into());
        (to, rest) = (to.wrapping_add(4), behind);
    }
    if let Some((first, behind)) = rest.split_first_chunk::<2>() {
        let word = u16::from_le_bytes(*first);
        store!("mov [{t}], {v:x}", reg, word, to);
        total = total.wrapping_add(word.into());
        (to, rest) = (to.wrapping_add(2), behind);
    }
    if let Some(last) = rest.first() {
        store!("mov [{t}], {v}", reg_byte, *last, to);
        total = total.wrapping_add((*last).into());
    }
    total
}
