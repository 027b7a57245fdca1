//! Packet buffers in batches.

use std::mem::MaybeUninit;
use std::ops::{Deref, DerefMut};

use dpdk_sys as sys;

use crate::mbuf::Mbuf;

/// Up to [`Batch::MAX`] packet buffers, oldest first. Never allocates. Dropping it frees them in bulk.
///
/// It is a slice of [`Mbuf`] for reading and changing them in place.
pub struct Batch {
    /// At most `MAX`; the first `len` places of `mbufs` hold a buffer each, the others nothing.
    len: usize,
    mbufs: [MaybeUninit<Mbuf>; Batch::MAX],
}

impl Batch {
    /// Buffers that a batch can hold: the burst of DPDK's vectorised drivers.
    pub const MAX: usize = 32;

    /// An empty batch.
    #[must_use]
    pub const fn new() -> Self {
        Self { len: 0, mbufs: [const { MaybeUninit::uninit() }; Self::MAX] }
    }

    /// Buffers that still fit.
    #[must_use]
    #[inline]
    pub fn room(&self) -> usize {
        Self::MAX - self.len
    }

    /// Whether no further buffer fits.
    #[must_use]
    #[inline]
    pub fn is_full(&self) -> bool {
        self.room() == 0
    }

    /// Puts `mbuf` at the end.
    ///
    /// # Errors
    ///
    /// Gives `mbuf` back if the batch is full.
    #[inline]
    pub fn push(&mut self, mbuf: Mbuf) -> Result<(), Mbuf> {
        let Some(place) = self.mbufs.get_mut(self.len) else { return Err(mbuf) };
        place.write(mbuf);
        self.len += 1;
        Ok(())
    }

    /// Takes the newest buffer.
    #[inline]
    pub fn pop(&mut self) -> Option<Mbuf> {
        self.len = self.len.checked_sub(1)?;
        let place = self.mbufs.get(self.len)?;
        // SAFETY: the place was below `len` and so holds a buffer; it no longer is, so nobody takes it again.
        Some(unsafe { place.assume_init_read() })
    }

    /// Takes all buffers, oldest first. Those that the iterator is not asked for are freed.
    #[inline]
    pub fn drain(&mut self) -> Drain<'_> {
        let end = std::mem::take(&mut self.len);
        Drain { places: &mut self.mbufs, next: 0, end }
    }

    /// Frees all buffers, in bulk.
    #[inline]
    pub fn free_all(&mut self) {
        let len = std::mem::take(&mut self.len);
        // SAFETY: the first `len` places held a buffer each, and `len` is 0 now, so nobody takes them again.
        unsafe { free(self.mbufs.get_mut(..len).unwrap_or_default()) };
    }

    /// The places that hold nothing.
    #[inline]
    pub(crate) fn spare(&mut self) -> &mut [MaybeUninit<Mbuf>] {
        self.mbufs.get_mut(self.len..).unwrap_or_default()
    }

    /// Counts the first `n` places of [`Batch::spare`] in.
    ///
    /// # Safety
    ///
    /// They exist, and each holds a buffer that belongs to this batch now.
    #[inline]
    pub(crate) unsafe fn grow(&mut self, n: usize) {
        debug_assert!(n <= self.room());
        self.len += n;
    }

    /// Forgets the first `n` buffers, and moves the others to the front.
    ///
    /// # Safety
    ///
    /// The batch has at least `n` buffers, and the first `n` belong to somebody else now.
    #[inline]
    pub(crate) unsafe fn forget_front(&mut self, n: usize) {
        debug_assert!(n <= self.len);
        let rest = self.len - n;
        self.len = rest;
        if n > 0 && rest > 0 {
            self.rotate(n, rest);
        }
    }

    /// Moves `rest` buffers behind the first `n` places to the front. Apart, for most bursts leave nothing.
    #[inline(never)]
    fn rotate(&mut self, n: usize, rest: usize) {
        // Pointers are moved and nothing is dropped, for the places are `MaybeUninit`.
        if let Some(held) = self.mbufs.get_mut(..n + rest) {
            held.rotate_left(n);
        }
    }
}

impl Default for Batch {
    fn default() -> Self {
        Self::new()
    }
}

impl Deref for Batch {
    type Target = [Mbuf];

    #[inline]
    fn deref(&self) -> &[Mbuf] {
        // SAFETY: the first `len` places hold a buffer each.
        unsafe { std::slice::from_raw_parts(self.mbufs.as_ptr().cast(), self.len) }
    }
}

impl DerefMut for Batch {
    #[inline]
    fn deref_mut(&mut self) -> &mut [Mbuf] {
        // SAFETY: the first `len` places hold a buffer each.
        unsafe { std::slice::from_raw_parts_mut(self.mbufs.as_mut_ptr().cast(), self.len) }
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        self.free_all();
    }
}

impl std::fmt::Debug for Batch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter().map(Mbuf::len)).finish()
    }
}

/// The buffers of a batch, one by one. From [`Batch::drain`].
#[derive(Debug)]
pub struct Drain<'a> {
    /// Those from `next` to `end` hold a buffer each.
    places: &'a mut [MaybeUninit<Mbuf>; Batch::MAX],
    next: usize,
    end: usize,
}

impl Iterator for Drain<'_> {
    type Item = Mbuf;

    #[inline]
    fn next(&mut self) -> Option<Mbuf> {
        if self.next == self.end {
            return None;
        }
        let place = self.places.get(self.next)?;
        self.next += 1;
        // SAFETY: the place lay between `next` and `end` and so holds a buffer; it no longer does, so nobody takes it
        // again.
        Some(unsafe { place.assume_init_read() })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.end - self.next;
        (left, Some(left))
    }
}

impl ExactSizeIterator for Drain<'_> {}

impl Drop for Drain<'_> {
    fn drop(&mut self) {
        // SAFETY: these places hold a buffer each, and the batch has forgotten them.
        unsafe { free(self.places.get_mut(self.next..self.end).unwrap_or_default()) };
    }
}

/// Buffers that a pool has just given, to be made frames one by one at the end of a batch. Those that are left over go back to
/// the pool. From [`Pool::fresh`](crate::Pool::fresh).
#[derive(Debug)]
pub struct Fresh<'a> {
    /// Length of the batch, to which the frames are added in the end.
    len: &'a mut usize,
    /// How many there were.
    all: usize,
    /// The places behind the batch whose buffers are no frames yet.
    left: std::slice::IterMut<'a, MaybeUninit<Mbuf>>,
    /// Bytes that a frame can have.
    room: u16,
}

impl<'a> Fresh<'a> {
    /// The buffers in the first `n` places behind the end of `batch`.
    ///
    /// # Safety
    ///
    /// There are so many places, and each holds a buffer that belongs to the batch now, as
    /// [`Mbuf::begin`] wants it, with `room` bytes.
    #[inline]
    pub(crate) unsafe fn new(batch: &'a mut Batch, n: usize, room: u16) -> Self {
        let Batch { len, mbufs } = batch;
        let left = mbufs.get_mut(*len..*len + n).unwrap_or_default().iter_mut();
        Self { len, all: left.len(), left, room }
    }

    /// The bytes of one more frame of `len` bytes, to be written: all of them, for they hold what an earlier frame left there. `None` if
    /// no buffer is left, or none has so much room.
    #[inline]
    pub fn frame(&mut self, len: u16) -> Option<&'a mut [u8]> {
        if len > self.room {
            return None;
        }
        let place = self.left.next()?;
        // SAFETY: the place holds a buffer, as whoever made this has seen to, and it is asked for once.
        let mbuf = unsafe { place.assume_init_mut() };
        // SAFETY: the buffer is as `begin` wants it, and `len` within its room.
        Some(unsafe { mbuf.begin(len) })
    }

    /// Puts all that are left at the end of the batch, as frames without bytes.
    pub(crate) fn keep_empty(mut self) {
        while self.frame(0).is_some() {}
    }
}

impl Drop for Fresh<'_> {
    #[inline]
    fn drop(&mut self) {
        let left = std::mem::take(&mut self.left).into_slice();
        *self.len += self.all - left.len();
        if !left.is_empty() {
            // SAFETY: these places hold a buffer each, and the batch does not count them in.
            unsafe { free(left) };
        }
    }
}

/// Frees the buffers in `places`.
///
/// # Safety
///
/// Each of these places holds a buffer, and nobody takes it afterwards.
#[inline]
unsafe fn free(places: &mut [MaybeUninit<Mbuf>]) {
    if let (false, Ok(count)) = (places.is_empty(), u32::try_from(places.len())) {
        // SAFETY: `count` pointers to buffers that the caller gives away; `Mbuf` is a transparent pointer.
        unsafe { sys::kopi_pktmbuf_return_bulk(places.as_mut_ptr().cast(), count) };
    }
}
