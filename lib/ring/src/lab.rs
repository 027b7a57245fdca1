//! Rings of other shapes than ours, for the benchmark that chose between them. Not part of the contract; only built
//! with the feature `lab`.
//!
//! They are not in `bench`, because they need `unsafe`, which `bench` forbids, and the copies of `copy.rs` and the mapping of a
//! region, which nobody outside this crate may have.
//!
//! The two ends trust each other here, as both belong to the benchmark: what is compared is the cost of moving cache
//! lines, to which the checks of the real ring add nothing that crosses cores.

use crate::Region;
use crate::copy::{copy_in, copy_out, prefetch_read, prefetch_write, string_moves_from};
#[cfg(all(target_arch = "x86_64", not(miri)))]
use crate::copy::{copy_registers, copy_string};
use crate::mapping::Mapping;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU32, AtomicU64};

/// Where the descriptors are and who owns a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Descriptors apart from the data, one index for each side: the form of the real ring.
    Split,
    /// The descriptor in the first eight bytes of the slot, one index for each side.
    Inline,
    /// Descriptors apart from the data, with the owner in each of them and no index.
    Flags,
}

/// How bytes are copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mover {
    /// As the real ring does on either side.
    Real,
    /// A loop over 16-byte registers at any length.
    Registers,
    /// `rep movsb` at any length.
    String,
    /// A loop over 32-byte registers at any length from 64 bytes on. The processor must have AVX.
    Avx,
    /// A loop over 64-byte registers at any length from 64 bytes on. The processor must have AVX-512.
    Avx512,
    /// As `Real`, but stores go around the caches. For the producer.
    Stream,
}

/// One shape of a ring, but for its form and the way of copying.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Slots, a power of two.
    pub slots: u32,
    /// Bytes in one slot.
    pub slot_size: u32,
    /// Bytes between two slots.
    pub gap: u32,
    /// How many slots ahead of the one being read the consumer prefetches; 0 for none.
    pub read_ahead: u32,
    /// How many slots ahead of the one being written the producer prefetches; 0 for none.
    pub write_ahead: u32,
    /// Prefetch as many lines of the consumer's next slots as the present frame has, not only the first.
    pub read_whole: bool,
    /// The same for the producer.
    pub write_whole: bool,
    /// Shortest frame for which the producer prefetches.
    pub write_from: usize,
}

impl Shape {
    fn stride(&self) -> usize {
        (self.slot_size as usize).saturating_add(self.gap as usize)
    }

    /// Bytes before the first slot, and bytes of the whole ring.
    fn span(&self) -> (usize, usize) {
        let data = (self.slots as usize).saturating_mul(8).saturating_add(DESCRIPTORS).next_multiple_of(128);
        (data, (self.slots as usize).saturating_mul(self.stride()).saturating_add(data))
    }
}

/// Offset of the first descriptor in the ring.
const DESCRIPTORS: usize = 256;
/// Offset of the consumer's index in the ring.
const TAIL: usize = 128;
/// In a descriptor of [`Form::Flags`]: the slot is the consumer's.
const FULL: u64 = 1 << 63;
/// Bytes of a descriptor that lies in the slot.
const INLINE: usize = 8;

/// Memory for rings of any shape, in the place of a region's rings.
#[derive(Clone, Debug)]
pub struct Lab {
    mapping: Arc<Mapping>,
}

impl Lab {
    /// Uses all of `region` behind its header page. The region's own rings must not be in use.
    #[must_use]
    pub fn new(region: &Region) -> Self {
        Self { mapping: region.mapping() }
    }

    /// The two ends of an empty ring of the given shape, with form `F`, producer's mover `P` and consumer's mover `C`
    /// as numbers, so that the compiler makes code for each. Ends of an earlier ring must be gone.
    ///
    /// # Panics
    ///
    /// If the region is too small, or the number of slots is no power of two.
    #[must_use]
    pub fn ring<const F: u8, const P: u8, const C: u8>(&self, shape: Shape) -> (Filler<F, P>, Drainer<F, C>) {
        let (data, size) = shape.span();
        assert!(shape.slots.is_power_of_two() && shape.slot_size >= 64);
        let last = self.mapping.at(crate::layout::HEADER_SIZE.saturating_add(size));
        debug_assert!(!last.is_null());
        let base = self.mapping.at(crate::layout::HEADER_SIZE);
        let filler = Filler { end: End::new(&self.mapping, base, data, shape, true), head: 0, tail: 0 };
        filler.end.word(0).store(0, Relaxed);
        filler.end.word(TAIL).store(0, Relaxed);
        (0..shape.slots).for_each(|position| filler.end.descriptor(position).store(0, Relaxed));
        (filler, Drainer { end: End::new(&self.mapping, base, data, shape, false), head: 0, tail: 0, released: 0 })
    }
}

#[derive(Debug)]
struct End<const F: u8, const M: u8> {
    shape: Shape,
    base: *mut u8,
    data: *mut u8,
    stride: usize,
    mask: u32,
    /// Whether this is the producer's end, and from which length on it uses string moves.
    fills: bool,
    string_from: usize,
    _mapping: Arc<Mapping>,
}

// SAFETY: the pointers lead into the mapping, which is `Sync` and lives as long as the `Arc`.
unsafe impl<const F: u8, const M: u8> Send for End<F, M> {}

impl<const F: u8, const M: u8> End<F, M> {
    const FLAGS: bool = F == Form::Flags as u8;
    const INLINE: bool = F == Form::Inline as u8;

    fn new(mapping: &Arc<Mapping>, base: *mut u8, data: usize, shape: Shape, fills: bool) -> Self {
        Self {
            shape,
            base,
            data: base.wrapping_add(data),
            stride: shape.stride(),
            mask: shape.slots.wrapping_sub(1),
            fills,
            string_from: string_moves_from(),
            _mapping: Arc::clone(mapping),
        }
    }

    #[inline]
    fn word(&self, offset: usize) -> &AtomicU32 {
        #[expect(clippy::cast_ptr_alignment, reason = "the base is page-aligned and both offsets multiples of 128")]
        let at = self.base.wrapping_add(offset).cast::<u32>();
        // SAFETY: inside the mapping, as `ring` checked, aligned, and only ever used as an atomic.
        unsafe { AtomicU32::from_ptr(at) }
    }

    #[inline]
    fn slot(&self, position: u32) -> *mut u8 {
        self.data.wrapping_add(((position & self.mask) as usize).wrapping_mul(self.stride))
    }

    #[inline]
    fn descriptor(&self, position: u32) -> &AtomicU64 {
        let at = if Self::INLINE {
            self.slot(position)
        } else {
            let inside = (position & self.mask) as usize;
            self.base.wrapping_add(DESCRIPTORS).wrapping_add(inside.wrapping_mul(size_of::<u64>()))
        };
        #[expect(clippy::cast_ptr_alignment, reason = "a multiple of 8 behind a page-aligned base")]
        let at = at.cast::<u64>();
        // SAFETY: inside the mapping, as `ring` checked, aligned, and only ever used as an atomic.
        unsafe { AtomicU64::from_ptr(at) }
    }

    #[inline]
    fn bytes(&self, position: u32) -> *mut u8 {
        self.slot(position).wrapping_add(if Self::INLINE { INLINE } else { 0 })
    }

    /// Prefetches the slot at `position` for a frame of `len` bytes.
    #[inline]
    fn prefetch(&self, position: u32, len: usize, whole: bool, by: impl Fn(*const u8)) {
        let slot = self.slot(position);
        by(slot);
        if whole {
            let mut at = 64;
            while at < len {
                by(slot.wrapping_add(at));
                at = at.wrapping_add(64);
            }
        }
    }

    /// # Safety
    ///
    /// As for [`copy_in`].
    #[inline]
    unsafe fn copy(&self, to: *mut u8, from: *const u8, len: usize) {
        #[cfg(any(not(target_arch = "x86_64"), miri))]
        if self.fills {
            // SAFETY: the caller's word.
            unsafe { copy_in(to, from, len, self.string_from) }
        } else {
            // SAFETY: the caller's word.
            unsafe { copy_out(to, from, len) }
        }
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        if M == Mover::Registers as u8 {
            // SAFETY: the caller's word.
            unsafe { copy_registers(to, from, len) }
        } else if M == Mover::String as u8 {
            // SAFETY: the caller's word.
            unsafe { copy_string(to, from, len) }
        } else if M == Mover::Avx as u8 {
            // SAFETY: the caller's word.
            unsafe { copy_avx(to, from, len) }
        } else if M == Mover::Avx512 as u8 {
            // SAFETY: the caller's word.
            unsafe { copy_avx512(to, from, len) }
        } else if M == Mover::Stream as u8 {
            // SAFETY: the caller's word.
            unsafe { copy_around(to, from, len) }
        } else if self.fills {
            // SAFETY: the caller's word.
            unsafe { copy_in(to, from, len, self.string_from) }
        } else {
            // SAFETY: the caller's word.
            unsafe { copy_out(to, from, len) }
        }
    }
}

/// The filling end.
#[derive(Debug)]
pub struct Filler<const F: u8, const M: u8> {
    end: End<F, M>,
    head: u32,
    tail: u32,
}

impl<const F: u8, const M: u8> Filler<F, M> {
    /// Slots that may be filled now.
    #[inline]
    pub fn free(&mut self, want: u32) -> u32 {
        if End::<F, M>::FLAGS {
            // Slots are emptied in order, so if the last one is empty all before it are.
            let last = self.head.wrapping_add(want).wrapping_sub(1);
            return if self.end.descriptor(last).load(Acquire) & FULL == 0 { want } else { 0 };
        }
        let free = |tail: u32| self.end.shape.slots.wrapping_sub(self.head.wrapping_sub(tail));
        if free(self.tail) < want {
            self.tail = self.end.word(TAIL).load(Acquire);
        }
        free(self.tail)
    }

    /// Copies `frame` into the next slot, which must be free. Longer frames than a slot are cut.
    #[inline]
    pub fn push(&mut self, frame: &[u8]) {
        let ahead = self.end.shape.write_ahead;
        if ahead > 0 && frame.len() >= self.end.shape.write_from {
            let whole = self.end.shape.write_whole;
            self.end.prefetch(self.head.wrapping_add(ahead), frame.len(), whole, prefetch_write);
        }
        let len = frame.len().min(self.end.shape.slot_size as usize);
        let to = self.end.bytes(self.head);
        // SAFETY: the slot is free and holds `slot_size` bytes; with an inline descriptor, the gap holds the rest.
        unsafe { self.end.copy(to, frame.as_ptr(), len) };
        if End::<F, M>::FLAGS {
            self.end.descriptor(self.head).store(len as u64 | FULL, Release);
        } else {
            self.end.descriptor(self.head).store(len as u64, Relaxed);
        }
        self.head = self.head.wrapping_add(1);
    }

    /// Hands all pushed frames to the consumer.
    #[inline]
    pub fn publish(&mut self) {
        if M == Mover::Stream as u8 {
            store_fence();
        }
        if !End::<F, M>::FLAGS {
            self.end.word(0).store(self.head, Release);
        }
    }
}

/// The emptying end.
#[derive(Debug)]
pub struct Drainer<const F: u8, const M: u8> {
    end: End<F, M>,
    head: u32,
    tail: u32,
    released: u32,
}

impl<const F: u8, const M: u8> Drainer<F, M> {
    /// Copies the oldest frame to `to` and returns its length, or `None` if there is none.
    #[inline]
    pub fn take(&mut self, to: &mut [u8]) -> Option<usize> {
        let flags = End::<F, M>::FLAGS;
        if !flags && self.head == self.tail {
            self.head = self.end.word(0).load(Acquire);
            if self.head == self.tail {
                return None;
            }
        }
        let descriptor = self.end.descriptor(self.tail).load(if flags { Acquire } else { Relaxed });
        if flags && descriptor & FULL == 0 {
            return None;
        }
        let len = (descriptor & 0xffff).min(to.len() as u64).min(self.end.shape.slot_size.into()) as usize;
        let ahead = self.end.shape.read_ahead;
        if ahead > 0 && (flags || self.head.wrapping_sub(self.tail) > ahead) {
            let whole = self.end.shape.read_whole;
            self.end.prefetch(self.tail.wrapping_add(ahead), len, whole, prefetch_read);
        }
        // SAFETY: the slot holds `slot_size` bytes, with an inline descriptor the gap the rest; `to` holds `len`.
        unsafe { self.end.copy(to.as_mut_ptr(), self.end.bytes(self.tail), len) };
        self.tail = self.tail.wrapping_add(1);
        Some(len)
    }

    /// Gives the slots of all taken frames back.
    #[inline]
    pub fn release(&mut self) {
        if End::<F, M>::FLAGS {
            while self.released != self.tail {
                self.end.descriptor(self.released).store(0, Release);
                self.released = self.released.wrapping_add(1);
            }
        } else {
            self.end.word(TAIL).store(self.tail, Release);
        }
    }
}

/// Copies whole lines with stores that go around the caches, and the rest as usual. `dst` must be a multiple of 16.
///
/// # Safety
///
/// As for [`copy_in`].
#[cfg(all(target_arch = "x86_64", not(miri)))]
#[inline]
unsafe fn copy_around(dst: *mut u8, src: *const u8, len: usize) {
    use std::arch::asm;
    let mut at = 0_usize;
    while len.wrapping_sub(at) >= 64 {
        // SAFETY: 64 of the caller's bytes.
        unsafe {
            asm!(
                "movups {a}, [{s} + {at}]", "movups {b}, [{s} + {at} + 16]",
                "movups {c}, [{s} + {at} + 32]", "movups {d}, [{s} + {at} + 48]",
                "movntps [{t} + {at}], {a}", "movntps [{t} + {at} + 16], {b}",
                "movntps [{t} + {at} + 32], {c}", "movntps [{t} + {at} + 48], {d}",
                a = out(xmm_reg) _, b = out(xmm_reg) _, c = out(xmm_reg) _, d = out(xmm_reg) _,
                s = in(reg) src, t = in(reg) dst, at = in(reg) at, options(nostack, preserves_flags)
            );
        }
        at = at.wrapping_add(64);
    }
    // SAFETY: the rest of the caller's bytes.
    unsafe { copy_registers(dst.wrapping_add(at), src.wrapping_add(at), len.wrapping_sub(at)) };
}

/// Orders stores that went around the caches before those that follow.
#[cfg(all(target_arch = "x86_64", not(miri)))]
#[inline]
fn store_fence() {
    // SAFETY: a fence changes no memory.
    unsafe { std::arch::asm!("sfence", options(nostack, preserves_flags)) };
}

/// Copies with 32-byte registers, which the processor must have.
///
/// # Safety
///
/// As for [`copy_in`].
#[cfg(all(target_arch = "x86_64", not(miri)))]
#[inline]
unsafe fn copy_avx(dst: *mut u8, src: *const u8, len: usize) {
    use std::arch::asm;
    let block = |at: usize| {
        // SAFETY: 64 of the caller's bytes. The registers' low halves are named as changed; the high halves hold
        // nothing that compiled code without AVX could have put there.
        unsafe {
            asm!(
                "vmovdqu ymm0, [{s} + {at}]", "vmovdqu ymm1, [{s} + {at} + 32]",
                "vmovdqu [{t} + {at}], ymm0", "vmovdqu [{t} + {at} + 32], ymm1",
                s = in(reg) src, t = in(reg) dst, at = in(reg) at, out("xmm0") _, out("xmm1") _,
                options(nostack, preserves_flags)
            );
        }
    };
    if len < 64 {
        // SAFETY: the caller's word.
        unsafe { copy_registers(dst, src, len) };
        return;
    }
    let mut at = 0_usize;
    while len.wrapping_sub(at) >= 64 {
        block(at);
        at = at.wrapping_add(64);
    }
    if at < len {
        block(len.wrapping_sub(64));
    }
    // SAFETY: clears the high halves, so that code with 16-byte registers is not slowed down.
    unsafe { asm!("vzeroupper", out("xmm0") _, out("xmm1") _, options(nostack, preserves_flags, nomem)) };
}

/// Copies with 64-byte registers, which the processor must have.
///
/// # Safety
///
/// As for [`copy_in`].
#[cfg(all(target_arch = "x86_64", not(miri)))]
#[inline]
unsafe fn copy_avx512(dst: *mut u8, src: *const u8, len: usize) {
    use std::arch::asm;
    let block = |at: usize| {
        // SAFETY: 64 of the caller's bytes. The register is one that compiled code without AVX-512 cannot use.
        unsafe {
            asm!("vmovdqu64 zmm16, [{s} + {at}]", "vmovdqu64 [{t} + {at}], zmm16",
                s = in(reg) src, t = in(reg) dst, at = in(reg) at, options(nostack, preserves_flags));
        }
    };
    if len < 64 {
        // SAFETY: the caller's word.
        unsafe { copy_registers(dst, src, len) };
        return;
    }
    let mut at = 0_usize;
    while len.wrapping_sub(at) >= 64 {
        block(at);
        at = at.wrapping_add(64);
    }
    if at < len {
        block(len.wrapping_sub(64));
    }
}

/// Other processors, and Miri, do without.
#[cfg(any(not(target_arch = "x86_64"), miri))]
fn store_fence() {}
