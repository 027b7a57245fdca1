//! Copying with a sum, by registers of 16 bytes, which every x86-64 processor has, and of 32 bytes where there are any.

use std::arch::asm;
use std::arch::x86_64::{
    __m128i, __m256i, _mm_add_epi32, _mm_cvtsi128_si64, _mm_loadu_si128, _mm_madd_epi16, _mm_set1_epi16,
    _mm_setzero_si128, _mm_unpackhi_epi64, _mm_xor_si128, _mm256_add_epi32, _mm256_castsi256_si128,
    _mm256_extracti128_si256, _mm256_loadu_si256, _mm256_madd_epi16, _mm256_set1_epi16, _mm256_setzero_si256,
    _mm256_xor_si256,
};

/// Bytes in a register.
const WIDTH: usize = size_of::<__m128i>();
/// Fewest bytes for which it pays to look for wider ones.
const LONG: usize = 128;

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
    let (wide, src) = if src.len() >= LONG && is_x86_feature_detected!("avx2") {
        src.as_chunks::<{ 4 * WIDTH }>()
    } else {
        (&[][..], src)
    };
    let mut lanes = Lanes(_mm_setzero_si128());
    if !wide.is_empty() {
        // SAFETY: the caller vouches for the bytes at `dst`, and the processor has such registers.
        lanes = unsafe { copy_wide(dst, wide) };
    }
    let mut to = dst.wrapping_add(wide.as_flattened().len());
    let (blocks, rest) = src.as_chunks::<WIDTH>();
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
    let words = wide.len().wrapping_mul(4).wrapping_add(blocks.len()).wrapping_mul(WIDTH / 2);
    let total = lanes.total(words);
    // SAFETY: the caller vouches for the bytes that are left at `to`.
    total.wrapping_add(unsafe { copy_rest(to, rest) })
}

/// Copies whole lines, and returns the sums of their words. A function by itself, at whose end the registers are as code for narrower ones
/// needs them.
///
/// # Safety
///
/// As for [`copy`].
#[inline(never)]
#[target_feature(enable = "avx2")]
unsafe fn copy_wide(dst: *mut u8, lines: &[[u8; 4 * WIDTH]]) -> Lanes {
    let (bias, ones) = (_mm256_set1_epi16(i16::MIN), _mm256_set1_epi16(1));
    let mut sums = [_mm256_setzero_si256(); 2];
    let mut to = dst;
    for line in lines {
        let from = line.as_ptr();
        // SAFETY: the first half of a line.
        let first: __m256i = unsafe { _mm256_loadu_si256(from.cast()) };
        // SAFETY: the other half of it.
        let second: __m256i = unsafe { _mm256_loadu_si256(from.wrapping_add(2 * WIDTH).cast()) };
        let products = [first, second].map(|words| _mm256_madd_epi16(_mm256_xor_si256(words, bias), ones));
        sums = [_mm256_add_epi32(sums[0], products[0]), _mm256_add_epi32(sums[1], products[1])];
        // SAFETY: the caller vouches for the 64 bytes at `to`.
        unsafe {
            asm!("vmovdqu [{t}], {a}", "vmovdqu [{t} + 32], {b}", a = in(ymm_reg) first, b = in(ymm_reg) second,
                t = in(reg) to, options(nostack, preserves_flags));
        }
        to = to.wrapping_add(4 * WIDTH);
    }
    let sum = _mm256_add_epi32(sums[0], sums[1]);
    Lanes(_mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256::<1>(sum)))
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
