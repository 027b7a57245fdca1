//! Copying frames into and out of memory that somebody else may be writing.
//!
//! A plain `memcpy` from memory that another process writes is a data race, which the compiler may assume not to
//! happen. The accesses here are made by assembly on x86-64, where the hardware's memory model applies, and by relaxed
//! atomics elsewhere: a peer that scribbles gives wrong bytes, never undefined behaviour.

use std::fmt;

/// Length in bytes that divides short frames from long ones, for [`CopyRoutine::LongString`].
const LONG: usize = 1024;

/// How a producer copies frames into its ring.
///
/// Which is the quickest depends on the processor, and no flag of CPUID tells: of those that announce "fast short rep mov", a
/// Zen 4 takes 0.6 times as long by string moves as by registers at 64 bytes, a Zen 3 1.5 times as long. So the daemon measures it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyRoutine {
    /// By 16-byte registers.
    Registers,
    /// By the processor's string move (`rep movsb`) from 1024 bytes on, else by registers.
    LongString,
    /// By the processor's string move.
    String,
}

impl CopyRoutine {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Registers, Self::LongString, Self::String];

    /// What the processor recommends, for who cannot measure.
    #[must_use]
    pub fn by_cpuid() -> Self {
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        {
            use std::arch::x86_64::{__cpuid, __cpuid_count};
            // Leaf 7, EDX bit 4 is FSRM: Intel SDM volume 2A, CPUID; AMD APM volume 3, appendix E.
            let fast = __cpuid(0).eax >= 7 && __cpuid_count(7, 0).edx & 1 << 4 != 0;
            if fast { Self::String } else { Self::LongString }
        }
        #[cfg(any(not(target_arch = "x86_64"), miri))]
        Self::Registers
    }

    /// The length from which it moves strings.
    pub(crate) const fn string_from(self) -> usize {
        match self {
            Self::Registers => usize::MAX,
            Self::LongString => LONG,
            Self::String => 0,
        }
    }

    /// Its number in the header of a region. Zero is none.
    pub(crate) const fn code(self) -> u32 {
        match self {
            Self::Registers => 1,
            Self::LongString => 2,
            Self::String => 3,
        }
    }

    /// The one with this number.
    pub(crate) fn from_code(code: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|routine| routine.code() == code)
    }
}

impl fmt::Display for CopyRoutine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Registers => "registers",
            Self::LongString => "rep movsb from 1024 bytes",
            Self::String => "rep movsb",
        })
    }
}

/// The routine for each direction of frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyRoutines {
    /// From the app into TX rings.
    pub tx: CopyRoutine,
    /// From the daemon into RX rings.
    pub rx: CopyRoutine,
}

impl CopyRoutines {
    /// What the processor recommends.
    #[must_use]
    pub fn by_cpuid() -> Self {
        Self { tx: CopyRoutine::by_cpuid(), rx: CopyRoutine::by_cpuid() }
    }
}

/// Copies `len` bytes from private `src` to shared `dst`, by a string move if they are at least `string_from`.
///
/// String moves keep their place among other stores (Intel SDM volume 3A, 9.2.4), so a counter that is published
/// afterwards is seen after the bytes.
///
/// # Safety
///
/// - `src` is readable and `dst` is writable for `len` bytes, and the two do not overlap;
/// - no reference of this process covers the bytes at `dst`, and none that is unique covers those at `src`; other
///   processes may do to them what they like.
#[inline]
pub(crate) unsafe fn copy_in(dst: *mut u8, src: *const u8, len: usize, string_from: usize) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    if len >= string_from {
        // SAFETY: the same contract.
        unsafe { copy_string(dst, src, len) };
    } else {
        // SAFETY: the same contract.
        unsafe { copy_registers(dst, src, len) };
    }
    #[cfg(any(not(target_arch = "x86_64"), miri))]
    {
        let _ = string_from;
        // SAFETY: the same contract.
        unsafe { copy_to_shared(dst, src, len) };
    }
}

/// Copies `src` to shared `dst`, and returns the sum of its 16-bit words as they lie, an odd last byte padded with zero, with any carries
/// added at the low end: what the Internet checksum is made of (RFC 1071). Pieces of up to [`MAX_SLOT`](crate::layout::MAX_SLOT) bytes, so that no lane of a register overflows.
///
/// By registers at every length, since the bytes have to come into registers anyway.
///
/// # Safety
///
/// `dst` is writable for as many bytes as `src` has, which do not overlap; no reference of this process covers the bytes at `dst`.
#[inline]
pub(crate) unsafe fn copy_in_summing(dst: *mut u8, src: &[u8]) -> u64 {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: the same contract.
    unsafe {
        summing::copy(dst, src)
    }
    #[cfg(any(not(target_arch = "x86_64"), miri))]
    {
        // SAFETY: the same contract; the bytes of a slice are readable.
        unsafe { copy_to_shared(dst, src.as_ptr(), src.len()) };
        sum_words(src)
    }
}

/// What [`copy_in_summing`] returns, by its definition, with no carries added.
#[cfg(any(not(target_arch = "x86_64"), miri, test))]
fn sum_words(bytes: &[u8]) -> u64 {
    let word = |word: &[u8]| match *word {
        [a, b] => u64::from(u16::from_ne_bytes([a, b])),
        [a] => u64::from(u16::from_ne_bytes([a, 0])),
        _ => 0,
    };
    bytes.chunks(2).fold(0, |sum, pair| sum.wrapping_add(word(pair)))
}

/// Copies `len` bytes from shared `src` to private `dst`.
///
/// Registers at every length: the private lines are near, so a string move has nothing to save, and it takes twice as
/// long for 512 bytes.
///
/// # Safety
///
/// - `src` is readable and `dst` is writable for `len` bytes, and the two do not overlap;
/// - no reference of this process covers the bytes at `src`, and none but the caller's those at `dst`; other processes may do
///   to the bytes at `src` what they like.
#[inline]
pub(crate) unsafe fn copy_out(dst: *mut u8, src: *const u8, len: usize) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: the same contract.
    unsafe {
        copy_registers(dst, src, len);
    }
    #[cfg(any(not(target_arch = "x86_64"), miri))]
    // SAFETY: the same contract.
    unsafe {
        copy_from_shared(dst, src, len);
    }
}

/// Copies with the processor's own string move.
///
/// # Safety
///
/// As for [`copy_in`].
#[cfg(all(target_arch = "x86_64", not(miri)))]
#[inline]
pub(crate) unsafe fn copy_string(dst: *mut u8, src: *const u8, len: usize) {
    // SAFETY: the caller vouches for `len` bytes; the direction flag is clear by the ABI.
    unsafe {
        std::arch::asm!("rep movsb", inout("rcx") len => _, inout("rdi") dst => _, inout("rsi") src => _,
            options(nostack, preserves_flags));
    }
}

/// Copies with 16-byte registers, which every x86-64 processor has.
///
/// What is left of a frame after its whole lines is copied by pieces that overlap, which takes fewer instructions than a loop and,
/// from 32 bytes to 64, the same branches at every length.
///
/// # Safety
///
/// As for [`copy_in`].
#[cfg(all(target_arch = "x86_64", not(miri)))]
#[inline]
pub(crate) unsafe fn copy_registers(dst: *mut u8, src: *const u8, len: usize) {
    use std::arch::asm;
    if len == 64 {
        // No address depends on the length, which may still be under way from another processor. Measured: 20 of 300 ns of a round trip
        // of such frames.
        // SAFETY: these 64 are all.
        unsafe { copy_line(dst, src) };
    } else if len > 64 {
        let end = len.wrapping_sub(64);
        let mut at = 0_usize;
        while at < end {
            // SAFETY: 64 of the caller's `len` bytes.
            unsafe { copy_line(dst.wrapping_add(at), src.wrapping_add(at)) };
            at = at.wrapping_add(64);
        }
        // SAFETY: the last 64 of them.
        unsafe { copy_line(dst.wrapping_add(end), src.wrapping_add(end)) };
    } else if len >= 32 {
        // SAFETY: the first 32 and the last 32 of the caller's `len` bytes.
        unsafe {
            asm!(
                "movups {a}, [{s}]", "movups {b}, [{s} + 16]",
                "movups {c}, [{s} + {len} - 32]", "movups {d}, [{s} + {len} - 16]",
                "movups [{t}], {a}", "movups [{t} + 16], {b}",
                "movups [{t} + {len} - 32], {c}", "movups [{t} + {len} - 16], {d}",
                a = out(xmm_reg) _, b = out(xmm_reg) _, c = out(xmm_reg) _, d = out(xmm_reg) _,
                s = in(reg) src, t = in(reg) dst, len = in(reg) len, options(nostack, preserves_flags)
            );
        }
    } else if len >= 16 {
        // SAFETY: the first 16 and the last 16 of the caller's `len` bytes.
        unsafe {
            asm!("movups {a}, [{s}]", "movups {b}, [{s} + {len} - 16]",
                "movups [{t}], {a}", "movups [{t} + {len} - 16], {b}",
                a = out(xmm_reg) _, b = out(xmm_reg) _,
                s = in(reg) src, t = in(reg) dst, len = in(reg) len, options(nostack, preserves_flags)
            );
        }
    } else {
        // SAFETY: the same contract.
        unsafe { copy_string(dst, src, len) };
    }
}

/// Copies 64 bytes.
///
/// # Safety
///
/// As for [`copy_in`].
#[cfg(all(target_arch = "x86_64", not(miri)))]
#[inline]
unsafe fn copy_line(dst: *mut u8, src: *const u8) {
    // SAFETY: the caller vouches for 64 bytes.
    unsafe {
        std::arch::asm!(
            "movups {a}, [{s}]", "movups {b}, [{s} + 16]", "movups {c}, [{s} + 32]", "movups {d}, [{s} + 48]",
            "movups [{t}], {a}", "movups [{t} + 16], {b}", "movups [{t} + 32], {c}", "movups [{t} + 48], {d}",
            a = out(xmm_reg) _, b = out(xmm_reg) _, c = out(xmm_reg) _, d = out(xmm_reg) _,
            s = in(reg) src, t = in(reg) dst, options(nostack, preserves_flags)
        );
    }
}

/// The portable form of [`copy_in`]: relaxed atomics on the shared side, eight bytes at a time where both sides are aligned.
/// The private side is read as what it is, for there may be nothing but a shared reference to it.
///
/// # Safety
///
/// As for [`copy_in`].
#[cfg(any(not(target_arch = "x86_64"), miri, test))]
pub(crate) unsafe fn copy_to_shared(dst: *mut u8, src: *const u8, len: usize) {
    use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
    let mut at = 0_usize;
    if dst.addr().is_multiple_of(8) && src.addr().is_multiple_of(8) {
        while len.wrapping_sub(at) >= 8 {
            // SAFETY: inside `len` bytes, aligned, valid for writes by the caller's word.
            let to = unsafe { AtomicU64::from_ptr(words(dst).wrapping_byte_add(at)) };
            // SAFETY: inside `len` bytes, aligned, private and readable by the caller's word.
            let word = unsafe { words(src.cast_mut()).wrapping_byte_add(at).read() };
            to.store(word, Relaxed);
            at = at.wrapping_add(8);
        }
    }
    while at < len {
        // SAFETY: inside `len` bytes, valid for writes by the caller's word.
        let to = unsafe { AtomicU8::from_ptr(dst.wrapping_add(at)) };
        // SAFETY: inside `len` bytes, private and readable by the caller's word.
        let byte = unsafe { src.wrapping_add(at).read() };
        to.store(byte, Relaxed);
        at = at.wrapping_add(1);
    }
}

/// The portable form of [`copy_out`], likewise.
///
/// # Safety
///
/// As for [`copy_out`].
#[cfg(any(not(target_arch = "x86_64"), miri, test))]
pub(crate) unsafe fn copy_from_shared(dst: *mut u8, src: *const u8, len: usize) {
    use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
    let mut at = 0_usize;
    if dst.addr().is_multiple_of(8) && src.addr().is_multiple_of(8) {
        while len.wrapping_sub(at) >= 8 {
            // SAFETY: inside `len` bytes, aligned, in a mapping that can be written as well.
            let word = unsafe { AtomicU64::from_ptr(words(src.cast_mut()).wrapping_byte_add(at)) }.load(Relaxed);
            // SAFETY: inside `len` bytes, aligned, private and writable by the caller's word.
            unsafe { words(dst).wrapping_byte_add(at).write(word) };
            at = at.wrapping_add(8);
        }
    }
    while at < len {
        // SAFETY: inside `len` bytes, in a mapping that can be written as well.
        let byte = unsafe { AtomicU8::from_ptr(src.wrapping_add(at).cast_mut()) }.load(Relaxed);
        // SAFETY: inside `len` bytes, private and writable by the caller's word.
        unsafe { dst.wrapping_add(at).write(byte) };
        at = at.wrapping_add(1);
    }
}

/// The same address, for eight bytes at a time.
#[cfg(any(not(target_arch = "x86_64"), miri, test))]
const fn words(at: *mut u8) -> *mut u64 {
    at.cast()
}

/// Asks the processor to fetch the cache line at `at` for reading. A hint: any address will do.
#[inline]
pub(crate) fn prefetch_read(at: *const u8) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch never faults and changes no memory.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) };
    }
    #[cfg(any(not(target_arch = "x86_64"), miri))]
    let _ = at;
}

/// Asks the processor to fetch the cache line at `at` for writing. A hint: any address will do.
#[inline]
pub(crate) fn prefetch_write(at: *const u8) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: a prefetch never faults and changes no memory; processors without the instruction take it for a no-op.
    unsafe {
        std::arch::asm!("prefetchw [{at}]", at = in(reg) at, options(nostack, preserves_flags));
    }
    #[cfg(any(not(target_arch = "x86_64"), miri))]
    let _ = at;
}

/// Asks the processor to fetch the first cache line of `what` for reading.
#[inline]
pub fn prefetch<T>(what: &T) {
    prefetch_read(std::ptr::from_ref(what).cast());
}

#[cfg(all(target_arch = "x86_64", not(miri)))]
mod summing;

#[cfg(test)]
mod tests {
    use super::*;

    /// What is copied with a sum is copied exactly, and the sum is that of its words, at every length, and for bytes that are as large as
    /// can be.
    #[test]
    fn sums_are_those_of_the_bytes_copied() {
        let bytes: Vec<u8> = (0..16384_u32).map(|i| (i * 89 % 251) as u8).collect();
        let largest = vec![0xff; 16384];
        for source in [&bytes, &largest] {
            for len in (0..300).chain([1023, 1024, 1464, 1501, 9008, 16384]) {
                for shift in [0, 1, 7] {
                    let piece = &source[shift.min(16384 - len)..][..len];
                    let mut target = vec![0xee_u8; len + 32];
                    // SAFETY: the target is longer than `shift + len`.
                    let sum = unsafe { copy_in_summing(target.as_mut_ptr().wrapping_add(shift), piece) };
                    assert_eq!(sum % 0xffff, sum_words(piece) % 0xffff, "len {len} shift {shift}");
                    assert_eq!(sum == 0, sum_words(piece) == 0, "len {len} shift {shift}");
                    assert_eq!(&target[shift..shift + len], piece, "len {len} shift {shift}");
                    assert!(target[..shift].iter().chain(&target[shift + len..]).all(|b| *b == 0xee), "len {len}");
                }
            }
        }
    }

    /// All forms copy exactly the bytes asked for, at every length and alignment that a slot can meet.
    #[test]
    fn copies_exactly_the_given_bytes() {
        let mut source: Vec<u8> = (0..4096_u32).map(|i| (i % 251) as u8).collect();
        let from = source.as_mut_ptr().cast_const();
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        let forms = [copy_to_shared, copy_from_shared, copy_string, copy_registers];
        #[cfg(any(not(target_arch = "x86_64"), miri))]
        let forms = [copy_to_shared, copy_from_shared];
        for form in forms {
            for len in (0..300).chain([1023, 1024, 1518, 2048]) {
                for shift in [0, 1, 8, 15] {
                    let mut target = vec![0xee_u8; len + 32];
                    // SAFETY: both vectors are longer than `shift + len`.
                    unsafe { form(target.as_mut_ptr().wrapping_add(shift), from.wrapping_add(shift), len) };
                    assert_eq!(target[shift..shift + len], source[shift..shift + len], "len {len} shift {shift}");
                    assert!(target[..shift].iter().chain(&target[shift + len..]).all(|b| *b == 0xee), "len {len}");
                }
            }
        }
    }
}
