//! The filling end of a ring.

use crate::PeerFault;
use crate::copy::{CopyRoutine, copy_in, copy_in_summing, prefetch_write};
use crate::index::{ProducerIndex, SharedIndex};
use crate::layout::{Descriptor, HEAD, LINE, MAX_FRAME, MIN_SLOT, Notes};
use crate::need_wakeup;
use crate::ring_memory::RingMemory;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::{AtomicU32, fence};

impl SharedIndex for AtomicU32 {
    #[inline]
    fn load(&self) -> u32 {
        Self::load(self, Acquire)
    }
    #[inline]
    fn store(&self, value: u32) {
        Self::store(self, value, Release);
    }
}

/// Shortest piece of a frame, in bytes, for which the next slot is prefetched for writing.
///
/// Measured (`bench/results`, questions `write-ahead` and `long`): half off 1,024 to 1,518 bytes where the cores are far
/// apart, nothing lost where they are near; nothing gained at 768 bytes, and twice the cost at 64 and 512.
const WRITE_AHEAD_MIN: usize = 1024;

// A head fits every slot.
const _: () = assert!(HEAD as u32 <= MIN_SLOT);

/// The filling end of a ring: the app's for TX, the daemon's for RX.
///
/// A burst is: [`free`](Self::free) once, [`push`](Self::push) for each frame or [`push_run`](Self::push_run) for many,
/// [`publish`](Self::publish) once.
#[derive(Debug)]
pub struct Producer {
    memory: RingMemory,
    index: ProducerIndex,
    /// Shortest frame that is copied by a string move.
    string_from: usize,
}

impl Producer {
    pub(crate) fn new(memory: RingMemory, copy: CopyRoutine) -> Self {
        let size = memory.mask.wrapping_add(1);
        Self { memory, index: ProducerIndex::new(size, 0), string_from: copy.string_from() }
    }

    /// Copies frames by `routine` from now on.
    pub const fn copy_by(&mut self, routine: CopyRoutine) {
        self.string_from = routine.string_from();
    }

    /// Slots in the ring.
    #[inline]
    #[must_use]
    pub const fn size(&self) -> u32 {
        self.memory.mask.wrapping_add(1)
    }

    /// Slots that may be filled now; looks at the peer's counter only when fewer than `want` are known to be free.
    ///
    /// # Errors
    ///
    /// [`PeerFault::TailJump`] if the consumer's counter makes no sense.
    #[inline]
    pub fn free(&mut self, want: u32) -> Result<u32, PeerFault> {
        self.index.free(want, &self.memory.counters().tail)
    }

    /// Slots known to be free, without a look at shared memory.
    #[inline]
    #[must_use]
    pub const fn known_free(&self) -> u32 {
        self.size().wrapping_sub(self.index.filled())
    }

    /// Bytes in a slot.
    #[inline]
    #[must_use]
    pub const fn slot_size(&self) -> u32 {
        self.memory.slot_size
    }

    /// Slots filled and not yet emptied, as last seen.
    #[must_use]
    pub const fn filled(&self) -> u32 {
        self.index.filled()
    }

    /// Slots that a frame of `len` bytes takes.
    #[inline]
    #[must_use]
    pub const fn slots_for(&self, len: u32) -> u32 {
        if len <= self.memory.slot_size { 1 } else { len.div_ceil(self.memory.slot_size) }
    }

    /// Copies `frame` into the ring, unpublished. `false` if it has no bytes, is longer than [`MAX_FRAME`], or the
    /// slots known to be free do not suffice: call [`free`](Self::free) first.
    #[inline]
    pub fn push(&mut self, frame: &[u8], notes: Notes) -> bool {
        let Ok(len) = u16::try_from(frame.len()) else { return false };
        if len == 0 || u32::from(len) > self.memory.slot_size {
            return self.push_chain(frame, notes);
        }
        if self.index.filled() > self.memory.mask {
            return false;
        }
        let position = self.index.head();
        self.prefetch_next(position, frame.len());
        // SAFETY: the slot is ours until published and holds `slot_size` bytes, which the frame does not exceed; no
        // reference to slots exists in this process.
        unsafe { copy_in(self.memory.slot(position), frame.as_ptr(), frame.len(), self.string_from) };
        self.memory.descriptor(position).store(Descriptor::new(len, false, notes).0, Relaxed);
        self.index.advance(1);
        true
    }

    /// Copies `frame` into the ring as [`push`](Self::push) does, and writes over the `fields` of the copy, two bytes each, which may
    /// depend on its sum: that of [`append_summing`](Slots::append_summing). `false`, and no frame, also if it needs more than one slot, or
    /// a field is not in it.
    #[inline]
    pub fn push_summing<const N: usize>(
        &mut self,
        frame: &[u8],
        notes: Notes,
        fields: impl FnOnce(u64) -> [Option<(usize, [u8; 2])>; N],
    ) -> bool {
        let Ok(len) = u16::try_from(frame.len()) else { return false };
        if len == 0 || u32::from(len) > self.memory.slot_size || self.index.filled() > self.memory.mask {
            return false;
        }
        let position = self.index.head();
        self.prefetch_next(position, frame.len());
        let slot = self.memory.slot(position);
        // SAFETY: the slot is ours until published and holds `slot_size` bytes, which the frame does not exceed; no
        // reference to slots exists in this process.
        let sum = unsafe { copy_in_summing(slot, frame) };
        for (at, field) in fields(sum).into_iter().flatten() {
            if at.checked_add(field.len()).is_none_or(|end| end > frame.len()) {
                return false;
            }
            // SAFETY: as above; the field lies in the frame.
            unsafe { copy_in(slot.wrapping_add(at), field.as_ptr(), field.len(), usize::MAX) };
        }
        self.memory.descriptor(position).store(Descriptor::new(len, false, notes).0, Relaxed);
        self.index.advance(1);
        true
    }

    /// Copies the first of `frames` into the ring, a slot each, unpublished, and returns how many. It ends where the next one
    /// has no bytes, needs more than one slot, or finds no slot that is known to be free.
    ///
    /// The same as [`push`](Self::push) for each of them, with the checks of the ring made once.
    #[inline]
    pub fn push_run<'a>(&mut self, mut frames: impl Iterator<Item = (&'a [u8], Notes)>) -> u32 {
        let (slot_size, string_from, begun) = (self.memory.slot_size, self.string_from, self.index.head());
        let room = self.known_free();
        let mut pushed = 0_u32;
        'run: while pushed < room {
            let mut stretch = self.memory.stretch(begun.wrapping_add(pushed), room.wrapping_sub(pushed));
            for descriptor in stretch.descriptors {
                let Some((frame, notes)) = frames.next() else { break 'run };
                let Ok(len) = u16::try_from(frame.len()) else { break 'run };
                if len == 0 || u32::from(len) > slot_size {
                    break 'run;
                }
                self.prefetch_next(begun.wrapping_add(pushed), frame.len());
                // SAFETY: the slot is ours until published and holds `slot_size` bytes, which the frame does not exceed; no
                // reference to slots exists in this process.
                unsafe { copy_in(stretch.slot, frame.as_ptr(), frame.len(), string_from) };
                descriptor.store(Descriptor::new(len, false, notes).0, Relaxed);
                stretch.next_slot();
                pushed = pushed.wrapping_add(1);
            }
        }
        self.index.advance(pushed);
        pushed
    }

    /// Prefetches the slot behind `position`, in the expectation that it gets as many bytes as that one.
    #[inline]
    fn prefetch_next(&self, position: u32, len: usize) {
        if len >= WRITE_AHEAD_MIN {
            let next = self.memory.slot(position.wrapping_add(1));
            for at in (0..len).step_by(LINE) {
                prefetch_write(next.wrapping_add(at));
            }
        }
    }

    /// Puts a frame into the ring of which only the first bytes, `head`, are copied; the others, to `length` in all, are to be read `at`
    /// bytes into the window. They have to stay as they are until the [slot is empty](Self::emptied). `false` as for
    /// [`push`](Self::push), or if the head is not [`HEAD`] bytes long, or is all there is.
    #[inline]
    pub fn push_reference(&mut self, head: &[u8], length: u16, at: u64) -> bool {
        let Some(descriptor) = Descriptor::reference(length, at) else { return false };
        if head.len() != usize::from(HEAD) || self.index.filled() > self.memory.mask {
            return false;
        }
        let position = self.index.head();
        // SAFETY: the slot is ours until published and holds no fewer bytes than a head has; no reference to slots exists in
        // this process.
        unsafe { copy_in(self.memory.slot(position), head.as_ptr(), head.len(), self.string_from) };
        self.memory.descriptor(position).store(descriptor.0, Relaxed);
        self.index.advance(1);
        true
    }

    /// The position that the next frame gets.
    #[inline]
    #[must_use]
    pub const fn position(&self) -> u32 {
        self.index.head()
    }

    /// Whether the consumer had emptied the slot of a frame at `position` when its counter was last looked at.
    #[inline]
    #[must_use]
    pub const fn emptied(&self, position: u32) -> bool {
        // Counted back from the next slot to be filled: those that are still filled come first.
        self.index.head().wrapping_sub(position) > self.index.filled()
    }

    /// Makes the frames at these positions, if their slots are not known to be empty, ones that the consumer takes for a fault: those
    /// that come to them find no length. What they refer to may then be used for something else. A consumer that is in the
    /// middle of one reads it to its end.
    #[cold]
    pub fn revoke(&mut self, positions: impl Iterator<Item = u32>) {
        for position in positions.filter(|position| !self.emptied(*position)) {
            self.memory.descriptor(position).store(0, Release);
        }
        // Before anything is written by whoever gets their memory next.
        fence(SeqCst);
    }

    #[cold]
    fn push_chain(&mut self, frame: &[u8], notes: Notes) -> bool {
        let Ok(len) = u32::try_from(frame.len()) else { return false };
        self.begin(len, notes).is_some_and(|mut slots| slots.append(frame) && slots.finish())
    }

    /// Starts a frame of `len` bytes that comes in pieces. `None` as for [`push`](Self::push).
    #[inline]
    pub fn begin(&mut self, len: u32, notes: Notes) -> Option<Slots<'_>> {
        let free = self.known_free();
        if len == 0 || len > MAX_FRAME || self.slots_for(len) > free {
            return None;
        }
        Some(Slots { producer: self, len, done: 0, missing: 0, notes })
    }

    /// Hands all pushed frames to the consumer.
    #[inline]
    pub fn publish(&mut self) {
        self.index.publish(&self.memory.counters().head);
    }

    /// Returns whether the consumer sleeps and the caller has to wake it. Call it after [`publish`](Self::publish) and a
    /// [`barrier`](need_wakeup::barrier). True once for each sleep of the consumer.
    #[inline]
    #[must_use]
    pub fn take_need_wakeup(&self) -> bool {
        need_wakeup::take(&self.memory.counters().need_wakeup)
    }
}

/// A frame under construction in its slots. Dropped unfinished, it leaves no trace.
#[derive(Debug)]
pub struct Slots<'ring> {
    producer: &'ring mut Producer,
    len: u32,
    done: u32,
    /// Bytes in front that are still to be written.
    missing: u32,
    notes: Notes,
}

impl Slots<'_> {
    /// Copies the next piece. `false`, and nothing copied, if it would make the frame longer than announced.
    #[inline]
    pub fn append(&mut self, piece: &[u8]) -> bool {
        self.append_by(piece, |producer, to, part| {
            // SAFETY: `append_by` gives places in slots of ours, with room for the part.
            unsafe { copy_in(to, part.as_ptr(), part.len(), producer.string_from) };
        })
    }

    /// Copies the next piece, and returns the sum of its 16-bit words as they lie, an odd last byte padded with zero, with any carries
    /// added at the low end (RFC 1071). `None`, and nothing copied, as for [`append`](Self::append).
    #[inline]
    pub fn append_summing(&mut self, piece: &[u8]) -> Option<u64> {
        let (mut total, mut odd) = (0_u64, false);
        let fits = self.append_by(piece, |_, to, part| {
            // SAFETY: `append_by` gives places in slots of ours, with room for the part, which is no longer than a slot.
            let sum = unsafe { copy_in_summing(to, part) };
            // Behind an odd number of bytes, those of a word have changed their places (RFC 1071, 2 (B)).
            total = total.wrapping_add(if odd { swapped(sum) } else { sum });
            odd ^= part.len() % 2 == 1;
        });
        fits.then_some(total)
    }

    #[inline]
    fn append_by(&mut self, mut piece: &[u8], mut copy: impl FnMut(&Producer, *mut u8, &[u8])) -> bool {
        if !u32::try_from(piece.len()).is_ok_and(|n| n <= self.len.wrapping_sub(self.done)) {
            return false;
        }
        let slot_size = self.producer.memory.slot_size;
        while !piece.is_empty() {
            let (slot, fill) = if self.len <= slot_size {
                (0, self.done)
            } else {
                // A slot size is never zero; the remainder is the fill of the current slot.
                (self.done.checked_div(slot_size).unwrap_or(0), self.done.checked_rem(slot_size).unwrap_or(0))
            };
            let room = slot_size.wrapping_sub(fill) as usize;
            let (now, later) = piece.split_at(room.min(piece.len()));
            let position = self.producer.index.head().wrapping_add(slot);
            self.producer.prefetch_next(position, now.len());
            // `begin` found all slots of the frame free, hence ours; `now` ends inside its slot; no reference to slots exists in this
            // process.
            copy(self.producer, self.producer.memory.slot(position).wrapping_add(fill as usize), now);
            self.done = self.done.wrapping_add(u32::try_from(now.len()).unwrap_or(0));
            piece = later;
        }
        true
    }

    /// Leaves the first `bytes` to [`put_head`](Self::put_head). `false`, and nothing changed, if the frame has begun, or they are more
    /// than the frame has, or than any slot ([`MIN_SLOT`]).
    #[inline]
    pub const fn leave_head(&mut self, bytes: u32) -> bool {
        let fits = self.done == 0 && bytes <= self.len && bytes <= MIN_SLOT;
        if fits {
            self.done = bytes;
            self.missing = bytes;
        }
        fits
    }

    /// Copies the bytes that were left out in front. `false`, and nothing copied, if these are more or fewer.
    #[inline]
    pub fn put_head(&mut self, head: &[u8]) -> bool {
        if head.len() != self.missing as usize {
            return false;
        }
        let to = self.producer.memory.slot(self.producer.index.head());
        // By registers: a string move of so little that was just written takes longer.
        // SAFETY: `begin` found the slot free, hence ours, and `leave_head` that it has room; no reference to slots exists in this process.
        unsafe { copy_in(to, head.as_ptr(), head.len(), usize::MAX) };
        self.missing = 0;
        true
    }

    /// Writes the descriptors, unpublished. `false`, and no frame, if bytes are missing.
    #[inline]
    pub fn finish(self) -> bool {
        if self.done != self.len || self.missing > 0 {
            return false;
        }
        let slot_size = self.producer.memory.slot_size;
        let mut left = self.len;
        loop {
            let here = left.min(slot_size);
            left = left.wrapping_sub(here);
            let descriptor = Descriptor::new(u16::try_from(here).unwrap_or(0), left > 0, self.notes);
            self.producer.memory.descriptor(self.producer.index.head()).store(descriptor.0, Relaxed);
            self.producer.index.advance(1);
            if left == 0 {
                return true;
            }
        }
    }
}

/// The sum of words of which each has its bytes changed over.
#[cold]
fn swapped(mut sum: u64) -> u64 {
    while let Some(more) = sum.checked_shr(16).filter(|more| *more > 0) {
        sum = (sum & 0xffff).wrapping_add(more);
    }
    u16::try_from(sum).unwrap_or(0).swap_bytes().into()
}
