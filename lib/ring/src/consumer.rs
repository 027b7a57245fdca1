//! The emptying end of a ring.

use crate::PeerFault;
use crate::copy::{copy_out, prefetch_read};
use crate::copy_sum::{SumRoutine, copy_out_summed};
use crate::index::ConsumerIndex;
use crate::layout::{Descriptor, HEAD, LINE, MAX_FRAME, Notes};
use crate::need_wakeup;
use crate::ring_memory::RingMemory;
use crate::window::Window;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed};

/// How many slots ahead of the one being read are prefetched, with as many lines as the present frame has.
///
/// Measured (`bench/results`, questions `read-ahead` and `long`): a tenth to a fifth off 512 to 1,024 bytes where the
/// cores are near, nothing lost elsewhere; distances from 1 to 4 are alike.
const PREFETCH: u32 = 2;

/// The emptying end of a ring: the daemon's for TX, the app's for RX.
///
/// A burst is: [`poll`](Self::poll) once, [`next`](Self::next) and [`copy`](Self::copy) for each frame or
/// [`take_run`](Self::take_run) for many ([`take_one`](Self::take_one) if there is one), [`release`](Self::release) once.
#[derive(Debug)]
pub struct Consumer {
    memory: RingMemory,
    index: ConsumerIndex,
    /// Whether descriptors of this direction carry notes.
    notes: bool,
    /// What frames may refer to, if they may.
    window: Option<Arc<Window>>,
}

/// A frame in the ring, taken but not yet released. Its bytes may change under the reader until they are copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    position: u32,
    len: u32,
    notes: Notes,
    /// Where in the window the bytes behind the head lie, if not in the ring.
    referred: Option<u64>,
}

impl Frame {
    /// Bytes of the frame, over all its slots.
    #[inline]
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a frame in a ring has at least one byte")]
    pub const fn len(&self) -> u32 {
        self.len
    }

    /// The daemon's notes about it.
    #[inline]
    #[must_use]
    pub const fn notes(&self) -> Notes {
        self.notes
    }
}

impl Consumer {
    pub(crate) const fn new(memory: RingMemory, notes: bool) -> Self {
        let size = memory.mask.wrapping_add(1);
        Self { memory, index: ConsumerIndex::new(size, 0), notes, window: None }
    }

    /// The same, whose frames may refer to what is shared in `window`. For the daemon.
    #[must_use]
    pub fn sharing(self, window: Option<Arc<Window>>) -> Self {
        Self { window, ..self }
    }

    /// Slots in the ring.
    #[inline]
    #[must_use]
    pub const fn size(&self) -> u32 {
        self.memory.mask.wrapping_add(1)
    }

    /// Looks for new slots if none are known, and returns how many are ready.
    ///
    /// # Errors
    ///
    /// [`PeerFault::HeadJump`] if the producer's counter makes no sense.
    #[inline]
    pub fn poll(&mut self) -> Result<u32, PeerFault> {
        self.index.ready(1, &self.memory.counters().head)
    }

    /// Whether slots are known to be filled that were not taken yet, without a look at shared memory.
    #[inline]
    #[must_use]
    pub const fn has_more(&self) -> bool {
        self.index.known() > 0
    }

    /// Looks at the producer's counter and returns how many slots are filled.
    ///
    /// # Errors
    ///
    /// As for [`poll`](Self::poll).
    pub fn filled(&mut self) -> Result<u32, PeerFault> {
        self.index.ready(u32::MAX, &self.memory.counters().head)
    }

    /// The producer's counter as it stands: slots before it were filled by now.
    #[must_use]
    pub fn head(&self) -> u32 {
        self.memory.counters().head.load(Acquire)
    }

    /// The counter of the next slot to be taken.
    #[must_use]
    pub const fn position(&self) -> u32 {
        self.index.tail()
    }

    /// Takes the oldest frame among the slots that the last [`poll`](Self::poll) found.
    ///
    /// # Errors
    ///
    /// [`PeerFault`] if its descriptors are malformed; the ring stays where it was.
    #[inline]
    #[expect(clippy::should_implement_trait, reason = "a consumer is polled, it never ends as an iterator does")]
    pub fn next(&mut self) -> Result<Option<Frame>, PeerFault> {
        let known = self.index.known();
        if known == 0 {
            return Ok(None);
        }
        let position = self.index.tail();
        let descriptor = self.descriptor(position)?;
        if let Some(at) = descriptor.referred() {
            self.find(descriptor.length(), at)?;
            self.index.advance(1);
            let len = descriptor.length().into();
            return Ok(Some(Frame { position, len, notes: Notes::NONE, referred: Some(at) }));
        }
        if known > PREFETCH {
            self.prefetch(position.wrapping_add(PREFETCH), descriptor.length());
        }
        if descriptor.more() {
            return self.next_chain(position, known, descriptor).map(Some);
        }
        self.index.advance(1);
        let (len, notes) = (descriptor.length().into(), descriptor.notes());
        Ok(Some(Frame { position, len, notes, referred: None }))
    }

    /// Takes the `most` oldest frames, as far as each lies in one slot and has a length in `lens`, and copies them to the places
    /// that `place` gives for their lengths and notes; it ends the run by giving none. Returns how many frames that were.
    ///
    /// The same as [`next`](Self::next) and [`copy`](Self::copy) for each of them, with the checks of the ring made once and
    /// those of a descriptor together. What it leaves is for `next`, which says what is wrong with it.
    #[inline]
    pub fn take_run<'a>(
        &mut self,
        most: usize,
        lens: RangeInclusive<u16>,
        mut place: impl FnMut(u16, Notes) -> Option<&'a mut [u8]>,
    ) -> usize {
        let (known, begun) = (self.index.known(), self.index.tail());
        let most = u32::try_from(most).unwrap_or(u32::MAX).min(known);
        let Some(plain) = self.plain(&lens) else { return 0 };
        // What is not published yet is left to the producer.
        let ahead = known.saturating_sub(PREFETCH);
        let mut taken = 0_u32;
        'run: while taken < most {
            let mut stretch = self.memory.stretch(begun.wrapping_add(taken), most.wrapping_sub(taken));
            for descriptor in stretch.descriptors {
                let descriptor = Descriptor(descriptor.load(Relaxed));
                if !plain.has(descriptor) {
                    break 'run;
                }
                let len = descriptor.length();
                let Some(to) = place(len, descriptor.notes()) else { break 'run };
                if taken < ahead {
                    stretch.prefetch_ahead(PREFETCH, len.into());
                }
                // SAFETY: the slot holds `slot_size` bytes, no fewer than `len`; `to` is ours alone and outside the region.
                unsafe { copy_out(to.as_mut_ptr(), stretch.slot, to.len().min(len.into())) };
                stretch.next_slot();
                taken = taken.wrapping_add(1);
            }
        }
        self.index.advance(taken);
        taken as usize
    }

    /// The same as [`take_run`](Self::take_run), for who goes on with each frame while it is near: `place` gives something of the
    /// caller's beside the place, and `copied` gets both when the frame is there. With a `routine` it also gets the frame's sum: a
    /// number that leaves the same rest by 65,535 as the sum of its 16-bit words in the order in which they lie, an odd last byte padded
    /// with zero. Without one it gets zero.
    #[inline]
    pub fn take_run_summed<'a, T>(
        &mut self,
        most: usize,
        lens: RangeInclusive<u16>,
        routine: Option<SumRoutine>,
        mut place: impl FnMut(u16, Notes) -> Option<(T, &'a mut [u8])>,
        mut copied: impl FnMut(T, &'a mut [u8], u64),
    ) -> usize {
        let (known, begun) = (self.index.known(), self.index.tail());
        let most = u32::try_from(most).unwrap_or(u32::MAX).min(known);
        let Some(plain) = self.plain(&lens) else { return 0 };
        // What is not published yet is left to the producer.
        let ahead = known.saturating_sub(PREFETCH);
        let mut taken = 0_u32;
        'run: while taken < most {
            let mut stretch = self.memory.stretch(begun.wrapping_add(taken), most.wrapping_sub(taken));
            for descriptor in stretch.descriptors {
                let descriptor = Descriptor(descriptor.load(Relaxed));
                if !plain.has(descriptor) {
                    break 'run;
                }
                let len = descriptor.length();
                let Some((more, to)) = place(len, descriptor.notes()) else { break 'run };
                let Some(to) = to.get_mut(..len.into()) else { break 'run };
                let sum = if let Some(routine) = routine {
                    let next = if taken < ahead { stretch.ahead(PREFETCH) } else { stretch.slot.cast_const() };
                    // SAFETY: the slot holds `slot_size` bytes, no fewer than `len`; `to` is ours alone and outside the region.
                    unsafe { copy_out_summed(to, stretch.slot, next, routine) }
                } else {
                    if taken < ahead {
                        stretch.prefetch_ahead(PREFETCH, len.into());
                    }
                    // SAFETY: as above.
                    unsafe { copy_out(to.as_mut_ptr(), stretch.slot, to.len()) };
                    0
                };
                copied(more, to, sum);
                stretch.next_slot();
                taken = taken.wrapping_add(1);
            }
        }
        self.index.advance(taken);
        taken as usize
    }

    /// Takes the oldest frame alone, as [`take_run`](Self::take_run) would, and returns whether it did: the short way for bursts
    /// of one.
    #[inline]
    pub fn take_one<'a>(
        &mut self,
        lens: RangeInclusive<u16>,
        place: impl FnOnce(u16, Notes) -> Option<&'a mut [u8]>,
    ) -> bool {
        let position = self.index.tail();
        let Some(plain) = self.plain(&lens).filter(|_| self.has_more()) else { return false };
        let descriptor = Descriptor(self.memory.descriptor(position).load(Relaxed));
        if !plain.has(descriptor) {
            return false;
        }
        let len = descriptor.length();
        let Some(to) = place(len, descriptor.notes()) else { return false };
        // SAFETY: the slot holds `slot_size` bytes, no fewer than `len`; `to` is ours alone and outside the region.
        unsafe { copy_out(to.as_mut_ptr(), self.memory.slot(position), to.len().min(len.into())) };
        self.index.advance(1);
        true
    }

    /// The descriptors of frames in one slot that have one of the lengths. `None` if no slot can hold any.
    #[inline]
    fn plain(&self, lens: &RangeInclusive<u16>) -> Option<Plain> {
        let (shortest, longest) =
            (u64::from(*lens.start()).max(1), u64::from(*lens.end()).min(self.memory.slot_size.into()));
        // Only a length is left where nothing else may stand.
        let mask = if self.notes { Descriptor::BARE } else { u64::MAX };
        Some(Plain { mask, shortest, span: longest.checked_sub(shortest)? })
    }

    /// Prefetches a slot, in the expectation that its frame is as long as the present one.
    #[inline]
    fn prefetch(&self, position: u32, length: u16) {
        let slot = self.memory.slot(position);
        for at in (0..usize::from(length)).step_by(LINE) {
            prefetch_read(slot.wrapping_add(at));
        }
    }

    /// All slots of a chain but the last are full, so that a byte's place follows from its offset.
    #[cold]
    fn next_chain(&mut self, position: u32, known: u32, first: Descriptor) -> Result<Frame, PeerFault> {
        let slot_size = self.memory.slot_size;
        let (mut len, mut slots, mut last) = (u32::from(first.length()), 1_u32, first);
        while last.more() {
            if u32::from(last.length()) != slot_size {
                return Err(PeerFault::Length { length: last.length(), slot_size });
            }
            if slots >= known || len > MAX_FRAME {
                return Err(PeerFault::Chain { slots });
            }
            last = self.descriptor(position.wrapping_add(slots))?;
            if last.referred().is_some() {
                return Err(PeerFault::Reserved { bits: Descriptor::REFERENCE });
            }
            len = len.saturating_add(last.length().into());
            slots = slots.wrapping_add(1);
        }
        if len > MAX_FRAME {
            return Err(PeerFault::Chain { slots });
        }
        self.index.advance(slots);
        Ok(Frame { position, len, notes: first.notes(), referred: None })
    }

    /// Reads a descriptor once, and checks it.
    #[inline]
    fn descriptor(&self, position: u32) -> Result<Descriptor, PeerFault> {
        let descriptor = Descriptor(self.memory.descriptor(position).load(Relaxed));
        let (length, slot_size) = (descriptor.length(), self.memory.slot_size);
        if descriptor.referred().is_some() && self.window.is_some() {
            let bits = descriptor.reserved_of_reference();
            if bits != 0 {
                return Err(PeerFault::Reserved { bits });
            }
            if length <= HEAD || u32::from(length) > MAX_FRAME {
                return Err(PeerFault::Length { length, slot_size });
            }
            return Ok(descriptor);
        }
        let bits = descriptor.reserved(self.notes);
        if bits != 0 {
            return Err(PeerFault::Reserved { bits });
        }
        if length == 0 || u32::from(length) > slot_size {
            return Err(PeerFault::Length { length, slot_size });
        }
        Ok(descriptor)
    }

    /// Takes the `most` oldest frames, as far as each is a reference and has a length in `lens`, and copies them as
    /// [`take_run`](Self::take_run) does: the head from the slot, the rest from where the app has it.
    #[inline]
    pub fn take_references<'a>(
        &mut self,
        most: usize,
        lens: RangeInclusive<u16>,
        mut place: impl FnMut(u16) -> Option<&'a mut [u8]>,
    ) -> usize {
        let (known, begun) = (self.index.known(), self.index.tail());
        let Some(window) = &self.window else { return 0 };
        let most = u32::try_from(most).unwrap_or(u32::MAX).min(known);
        let lens = (*lens.start()).max(HEAD.saturating_add(1))..=*lens.end();
        let mut taken = 0_u32;
        while taken < most {
            let position = begun.wrapping_add(taken);
            let descriptor = Descriptor(self.memory.descriptor(position).load(Relaxed));
            let (Some(at), length) = (descriptor.referred(), descriptor.length()) else { break };
            if descriptor.reserved_of_reference() != 0 || !lens.contains(&length) {
                break;
            }
            let Some(from) = window.find(at, length.saturating_sub(HEAD).into()) else { break };
            let Some(to) = place(length) else { break };
            let (head, rest) = to.split_at_mut(to.len().min(HEAD.into()));
            // SAFETY: the slot holds no fewer bytes than a head has; `head` is ours alone and outside the region.
            unsafe { copy_out(head.as_mut_ptr(), self.memory.slot(position), head.len()) };
            let len = rest.len().min(length.saturating_sub(HEAD).into());
            // SAFETY: the window has so many bytes at `from`, which its owner may write but not take away; `rest` is ours alone.
            unsafe { copy_out(rest.as_mut_ptr(), from, len) };
            taken = taken.wrapping_add(1);
        }
        self.index.advance(taken);
        taken as usize
    }

    /// Where the rest of a frame of `length` bytes lies, which is said to be `at` bytes into the window.
    #[inline]
    fn find(&self, length: u16, at: u64) -> Result<*const u8, PeerFault> {
        let found = self.window.as_ref().and_then(|window| window.find(at, length.saturating_sub(HEAD).into()));
        found.ok_or_else(|| self.no_reference(at))
    }

    /// Why nothing was found there.
    #[cold]
    fn no_reference(&self, at: u64) -> PeerFault {
        let punched = self.window.as_ref().is_some_and(|window| window.punched());
        if punched { PeerFault::Page } else { PeerFault::Reference { at } }
    }

    /// Copies bytes of a frame that refers to `at` from `offset` on, as [`copy_from`](Self::copy_from) does. If the memory is not
    /// shared any more, it reads as zeros.
    #[cold]
    fn copy_referred(&self, frame: &Frame, at: u64, offset: u32, to: &mut [u8]) -> usize {
        let wanted = to.len().min(frame.len.saturating_sub(offset) as usize);
        let Some(to) = to.get_mut(..wanted) else { return 0 };
        let inside = usize::from(HEAD).saturating_sub(offset as usize).min(wanted);
        let (head, rest) = to.split_at_mut(inside);
        let from = self.memory.slot(frame.position).wrapping_add(offset as usize);
        // SAFETY: `offset + head.len()` is at most a head, which every slot holds; `head` is ours alone and outside the region.
        unsafe { copy_out(head.as_mut_ptr(), from, head.len()) };
        let skipped = offset.saturating_sub(HEAD.into());
        match self.window.as_ref().and_then(|window| window.find(at.saturating_add(skipped.into()), rest.len())) {
            // SAFETY: the window has so many bytes there, which its owner may write but not take away; `rest` is ours alone.
            Some(from) => unsafe { copy_out(rest.as_mut_ptr(), from, rest.len()) },
            None => rest.fill(0),
        }
        wanted
    }

    /// Copies the first bytes of `frame` to `to`, as many as both have.
    #[inline]
    pub fn copy(&self, frame: &Frame, to: &mut [u8]) {
        let len = to.len().min(frame.len as usize);
        if let Some(at) = frame.referred {
            self.copy_referred(frame, at, 0, to);
            return;
        }
        if len > self.memory.slot_size as usize {
            self.copy_from(frame, 0, to);
            return;
        }
        // SAFETY: the slot holds `slot_size` bytes, no fewer than `len`; `to` is ours alone and outside the region.
        unsafe { copy_out(to.as_mut_ptr(), self.memory.slot(frame.position), len) };
    }

    /// Copies bytes of `frame` from `offset` on to `to`, as many as both have, and returns how many.
    #[inline]
    pub fn copy_from(&self, frame: &Frame, offset: u32, to: &mut [u8]) -> usize {
        if let Some(at) = frame.referred {
            return self.copy_referred(frame, at, offset, to);
        }
        let slot_size = self.memory.slot_size;
        let mut at = offset;
        let mut rest = to;
        let mut copied = 0_usize;
        while at < frame.len && !rest.is_empty() {
            let inside = at.checked_rem(slot_size).unwrap_or(0);
            let here = slot_size.wrapping_sub(inside).min(frame.len.wrapping_sub(at)) as usize;
            let (now, later) = rest.split_at_mut(here.min(rest.len()));
            let position = frame.position.wrapping_add(at.checked_div(slot_size).unwrap_or(0));
            let from = self.memory.slot(position).wrapping_add(inside as usize);
            // SAFETY: `inside + now.len()` is at most `slot_size`; `now` is ours alone and outside the region.
            unsafe { copy_out(now.as_mut_ptr(), from, now.len()) };
            at = at.wrapping_add(u32::try_from(now.len()).unwrap_or(0));
            copied = copied.wrapping_add(now.len());
            rest = later;
        }
        copied
    }

    /// Gives the slots of all taken frames back to the producer.
    #[inline]
    pub fn release(&mut self) {
        self.index.publish(&self.memory.counters().tail);
    }

    /// Asks to be woken by the next frame. Pass a [`barrier`](need_wakeup::barrier) and [`poll`](Self::poll) before you sleep.
    pub fn set_need_wakeup(&self) {
        need_wakeup::set(&self.memory.counters().need_wakeup);
    }

    /// Asks not to be woken any more.
    pub fn clear_need_wakeup(&self) {
        need_wakeup::clear(&self.memory.counters().need_wakeup);
    }

    /// Puts the oldest taken frame back: the next [`next`](Self::next) gives the frame at `frame` again. Only for the
    /// frame taken last, and before [`release`](Self::release).
    pub fn put_back(&mut self, frame: &Frame) {
        let behind = self.index.tail().wrapping_sub(frame.position);
        self.index.advance(0_u32.wrapping_sub(behind));
    }
}

/// What the descriptors of plain frames have in common.
#[derive(Clone, Copy, Debug)]
struct Plain {
    /// The bits of which only a length may be left.
    mask: u64,
    shortest: u64,
    /// How much longer the longest is.
    span: u64,
}

impl Plain {
    /// Whether the descriptor is one of these. All is asked at once: a bit beyond the length makes too large a number.
    #[inline]
    const fn has(self, descriptor: Descriptor) -> bool {
        (descriptor.0 & self.mask).wrapping_sub(self.shortest) <= self.span
    }
}
