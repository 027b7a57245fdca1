//! Copying frames out of shared memory, and summing them up on the way.
//!
//! What is summed are the bytes that were stored, not those that the other process may have written since: a checksum is judged by
//! what its reader gets.

use crate::copy::copy_out;

/// Blocks of which the wide routine copies as many as there are.
#[cfg(all(target_arch = "x86_64", not(miri)))]
const BLOCK: usize = 32;

/// How frames are summed up while they are copied: one that the processor can.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SumRoutine(Kind);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// By 32-byte registers, in the same loop.
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    Avx2,
    /// After the copy, by whatever the compiler makes of a plain loop.
    Portable,
}

impl SumRoutine {
    /// The one that every processor can.
    pub const PORTABLE: Self = Self(Kind::Portable);

    /// The quickest one that the processor can.
    #[must_use]
    pub fn detect() -> Self {
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        if std::is_x86_feature_detected!("avx2") {
            return Self(Kind::Avx2);
        }
        Self::PORTABLE
    }
}

/// Copies `to.len()` bytes from shared `from` into `to`, and returns their sum: a number that leaves the same rest by 65,535 as the sum
/// of the 16-bit words in the order in which they lie, an odd last byte padded with zero. `ahead` is where bytes lie, likewise many,
/// that will be read soon: a hint.
///
/// # Safety
///
/// - `from` is readable for `to.len()` bytes, and they do not overlap with `to`;
/// - no reference of this process covers the bytes at `from`; other processes may do to them what they like.
// Its registers would be missing in the loop that calls it.
#[inline(never)]
pub(crate) unsafe fn copy_out_summed(to: &mut [u8], from: *const u8, ahead: *const u8, routine: SumRoutine) -> u64 {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    if routine.0 == Kind::Avx2 && to.len() >= BLOCK {
        // SAFETY: the caller's contract, at least one block, and a processor that has AVX2: `detect` has looked.
        let sum = unsafe { copy_blocks(to, from, ahead) };
        let rest = to.len() & !(BLOCK.wrapping_sub(1));
        return sum.wrapping_add(sum_of_few(to.get(rest..).unwrap_or_default()));
    }
    let _ = (ahead, routine);
    // SAFETY: the caller's contract.
    unsafe { copy_out(to.as_mut_ptr(), from, to.len()) };
    sum_of(to)
}

/// The sum of private bytes. Four at a time: their two words end up in one number, which does not matter to the rest by 65,535.
#[inline]
fn sum_of(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<4>();
    // No more than 2^16 bytes.
    let total = words.iter().fold(0_u64, |sum, word| sum.wrapping_add(u32::from_ne_bytes(*word).into()));
    total.wrapping_add(last(rest).into())
}

/// The same of less than a block, without loops.
#[cfg(all(target_arch = "x86_64", not(miri)))]
#[inline]
fn sum_of_few(bytes: &[u8]) -> u64 {
    let (mut sum, mut rest) = (0_u64, bytes);
    let halves = |word: &[u8; 8]| {
        let word = u64::from_ne_bytes(*word);
        (word & 0xffff_ffff).wrapping_add(word >> 32)
    };
    if let Some((words, more)) = rest.split_first_chunk::<16>() {
        let (words, _) = words.as_chunks::<8>();
        sum = words.iter().map(halves).fold(sum, u64::wrapping_add);
        rest = more;
    }
    if let Some((word, more)) = rest.split_first_chunk::<8>() {
        sum = sum.wrapping_add(halves(word));
        rest = more;
    }
    if let Some((word, more)) = rest.split_first_chunk::<4>() {
        sum = sum.wrapping_add(u32::from_ne_bytes(*word).into());
        rest = more;
    }
    sum.wrapping_add(last(rest).into())
}

/// The number of less than four bytes.
#[inline]
fn last(bytes: &[u8]) -> u32 {
    u32::from_ne_bytes(match *bytes {
        [a] => [a, 0, 0, 0],
        [a, b] => [a, b, 0, 0],
        [a, b, c] => [a, b, c, 0],
        _ => [0; 4],
    })
}

/// Copies all bytes, and sums up those in whole blocks.
///
/// Each lane of 32 bits has two sums: that of all its numbers, of which carries are lost, and that of their upper halves, which has
/// room for them. From the two follows the sum of the lower halves. That is three instructions for each register, and no more than
/// 65,535 bytes keep all of them in their 32 bits.
///
/// # Safety
///
/// As for [`copy_out_summed`]. The processor has AVX2, and there is at least one block.
#[cfg(all(target_arch = "x86_64", not(miri)))]
#[expect(clippy::too_many_lines, reason = "one block of assembly, an instruction a line")]
#[inline]
unsafe fn copy_blocks(to: &mut [u8], from: *const u8, ahead: *const u8) -> u64 {
    let len = to.len();
    let (long, blocks) = (len & !127, len & !(BLOCK.wrapping_sub(1)));
    let sum: u64;
    // Registers that are named here belong to the block, and `vzeroupper` clears the upper halves of all.
    // SAFETY: the caller vouches for `len` bytes at both places, and for AVX2. The last 32 bytes go first: what of them lies in a block is
    // copied again, so that what is summed is what stays.
    unsafe {
        std::arch::asm!(
            "vmovdqu ymm0, [{s} + {len} - 32]",
            "vmovdqu [{d} + {len} - 32], ymm0",
            "vpxor xmm0, xmm0, xmm0",
            "vpxor xmm1, xmm1, xmm1",
            // Counted upwards to zero, from the ends.
            "add {s}, {long}",
            "add {d}, {long}",
            "add {p}, {long}",
            "sub {blocks}, {long}",
            "neg {long}",
            "jz 3f",
            ".p2align 4",
            "2:",
            "vmovdqu ymm2, [{s} + {long}]",
            "vmovdqu ymm3, [{s} + {long} + 32]",
            "vmovdqu ymm4, [{s} + {long} + 64]",
            "vmovdqu ymm5, [{s} + {long} + 96]",
            "prefetcht0 [{p} + {long}]",
            "prefetcht0 [{p} + {long} + 64]",
            "vmovdqu [{d} + {long}], ymm2",
            "vmovdqu [{d} + {long} + 32], ymm3",
            "vmovdqu [{d} + {long} + 64], ymm4",
            "vmovdqu [{d} + {long} + 96], ymm5",
            "vpaddd ymm0, ymm0, ymm2",
            "vpsrld ymm2, ymm2, 16",
            "vpaddd ymm0, ymm0, ymm3",
            "vpsrld ymm3, ymm3, 16",
            "vpaddd ymm0, ymm0, ymm4",
            "vpsrld ymm4, ymm4, 16",
            "vpaddd ymm0, ymm0, ymm5",
            "vpsrld ymm5, ymm5, 16",
            "vpaddd ymm1, ymm1, ymm2",
            "vpaddd ymm1, ymm1, ymm3",
            "vpaddd ymm1, ymm1, ymm4",
            "vpaddd ymm1, ymm1, ymm5",
            "sub {long}, -128",
            "jnz 2b",
            "3:",
            "prefetcht0 [{p}]",
            "add {s}, {blocks}",
            "add {d}, {blocks}",
            "neg {blocks}",
            "jz 5f",
            "4:",
            "vmovdqu ymm2, [{s} + {blocks}]",
            "vmovdqu [{d} + {blocks}], ymm2",
            "vpaddd ymm0, ymm0, ymm2",
            "vpsrld ymm2, ymm2, 16",
            "vpaddd ymm1, ymm1, ymm2",
            "add {blocks}, 32",
            "jnz 4b",
            "5:",
            // The lower halves are what is left; then both together, over all lanes.
            "vpslld ymm2, ymm1, 16",
            "vpsubd ymm0, ymm0, ymm2",
            "vpaddd ymm0, ymm0, ymm1",
            "vextracti128 xmm1, ymm0, 1",
            "vpaddd xmm0, xmm0, xmm1",
            "vpshufd xmm1, xmm0, 0x4e",
            "vpaddd xmm0, xmm0, xmm1",
            "vpshufd xmm1, xmm0, 0xb1",
            "vpaddd xmm0, xmm0, xmm1",
            "vmovd {sum:e}, xmm0",
            "vzeroupper",
            s = inout(reg) from => _,
            d = inout(reg) to.as_mut_ptr() => _,
            p = inout(reg) ahead => _,
            len = in(reg) len,
            long = inout(reg) long => _,
            blocks = inout(reg) blocks => _,
            sum = lateout(reg) sum,
            out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _, out("xmm4") _, out("xmm5") _, out("xmm6") _, out("xmm7") _,
            out("xmm8") _, out("xmm9") _, out("xmm10") _, out("xmm11") _, out("xmm12") _, out("xmm13") _, out("xmm14") _, out("xmm15") _,
            options(nostack)
        );
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The sum as RFC 1071 defines it, word by word.
    fn slowly(bytes: &[u8]) -> u64 {
        let word = |pair: &[u8]| u64::from(u16::from_ne_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
        bytes.chunks(2).map(word).sum()
    }

    /// Each routine that the processor has copies exactly the bytes asked for, and sums up exactly those, at every length and
    /// alignment that a slot can meet; with the largest numbers, too, which make the most carries.
    #[test]
    fn copies_and_sums_exactly_the_given_bytes() {
        let mixed: Vec<u8> = (0..70_000_u32).map(|i| (i * 7919).to_le_bytes()[1]).collect();
        let largest = vec![0xff_u8; 70_000];
        for source in [mixed, largest] {
            for routine in [SumRoutine::detect(), SumRoutine::PORTABLE] {
                for len in (0..400).chain([1023, 1024, 1407, 1408, 1409, 1517, 1518, 2048, 9022, 65_535]) {
                    for shift in [0, 1, 8, 31] {
                        let mut target = vec![0xee_u8; len + 64];
                        let from = source.as_ptr().wrapping_add(shift);
                        // SAFETY: both vectors are longer than `shift + len`, and the routine is one that the processor has.
                        let sum = unsafe { copy_out_summed(&mut target[shift..shift + len], from, from, routine) };
                        let expected = &source[shift..shift + len];
                        assert_eq!(&target[shift..shift + len], expected, "len {len} shift {shift}");
                        assert_eq!(sum % 0xffff, slowly(expected) % 0xffff, "{routine:?}, len {len} shift {shift}");
                        assert!(target[..shift].iter().chain(&target[shift + len..]).all(|b| *b == 0xee), "len {len}");
                    }
                }
            }
        }
    }
}
