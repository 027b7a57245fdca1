//! How a queue gets its ring while the application may be polling it.
//!
//! A burst function must not wait, and memory that it uses must not go away under it. So the control thread offers a new ring
//! end, the next burst swaps it for the old one and retires that, and the control thread drops what was retired. In steady state
//! a burst reads one word of a cache line that nobody writes.

use crate::counters::Counters;
use crate::lanes::Lanes;
use kopi_ring::layout::{MAX_FRAME, MAX_QUEUES};
use kopi_ring::{Consumer, PeerFault};
use std::ptr::null_mut;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32};
use std::sync::{Mutex, PoisonError};

/// A ring end is offered.
const OFFERED: u32 = 1;
/// The daemon is away: what is put into the ring will not be read.
const AWAY: u32 = 2;
/// The application has taken the link down.
const DOWN: u32 = 4;
/// The ring may hold frames that came while the link was down.
const STALE: u32 = 8;
/// What the queue is to do to frames may have changed.
const CHANGED: u32 = 16;

/// Where what is stale ends, in each lane of a queue.
pub(crate) type Stale = [u32; MAX_QUEUES];

/// What a queue and the control thread share. `E` is the queue's end of a ring.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct RingSlot<E> {
    shared: Shared<E>,
    counters: Counters,
    /// Another end of the ring that is offered, by which frames are counted until the queue takes its own end.
    view: Mutex<Option<E>>,
}

/// Written by the control thread, and by the queue only when it takes an offer.
#[derive(Debug)]
#[repr(C, align(128))]
struct Shared<E> {
    flags: AtomicU32,
    /// Longest frame to be sent, in bytes.
    max_frame: AtomicU32,
    /// Each lane's counter of filled slots when the link came up again: what lies before is stale.
    stale_to: [AtomicU32; MAX_QUEUES],
    offered: AtomicPtr<E>,
    retired: AtomicPtr<E>,
    /// Number of a [`PeerFault`] that the queue ran into, or 0.
    fault: AtomicU32,
    /// Whether VLAN tags are stripped.
    strip: AtomicBool,
}

impl<E> RingSlot<E> {
    /// Nothing offered, nothing counted, the daemon away.
    pub(crate) fn new() -> Self {
        Self {
            shared: Shared {
                flags: AtomicU32::new(AWAY),
                max_frame: AtomicU32::new(MAX_FRAME),
                stale_to: [const { AtomicU32::new(0) }; MAX_QUEUES],
                offered: AtomicPtr::new(null_mut()),
                retired: AtomicPtr::new(null_mut()),
                fault: AtomicU32::new(0),
                strip: AtomicBool::new(false),
            },
            counters: Counters::default(),
            view: Mutex::new(None),
        }
    }

    /// What the queue has counted.
    #[inline]
    pub(crate) const fn counters(&self) -> &Counters {
        &self.counters
    }

    // The control side. Its calls are serialised by the lock of the port's state.

    /// Offers a ring end, in place of one that was offered and not yet taken. Until it is taken, `view` answers for it.
    pub(crate) fn offer(&self, end: Box<E>, view: Option<E>) {
        self.set_view(view);
        let skipped = self.shared.offered.swap(Box::into_raw(end), AcqRel);
        drop(owned(skipped));
        self.shared.fault.store(0, Relaxed);
        // Whoever looks while this is written may have missed that something else had changed.
        self.shared.flags.store(OFFERED | CHANGED | self.down(), Release);
    }

    /// Marks the daemon as away. A ring that was offered is withdrawn.
    pub(crate) fn set_away(&self) {
        self.shared.flags.store(AWAY | self.down(), Release);
        drop(owned(self.shared.offered.swap(null_mut(), AcqRel)));
        self.set_view(None);
    }

    /// Stops the queue from passing frames, or lets it pass them again.
    pub(crate) fn set_down(&self, down: bool) {
        if down {
            self.shared.flags.fetch_or(DOWN, AcqRel);
        } else {
            self.shared.flags.fetch_and(!DOWN, AcqRel);
        }
    }

    /// Has the queue look again at what it is to do to frames, which has been written before.
    pub(crate) fn set_changed(&self) {
        self.shared.flags.fetch_or(CHANGED, AcqRel);
    }

    /// Has the queue strip VLAN tags from its next burst on, or leave them.
    pub(crate) fn set_strip(&self, strip: bool) {
        self.shared.strip.store(strip, Relaxed);
        self.shared.flags.fetch_or(CHANGED, AcqRel);
    }

    fn down(&self) -> u32 {
        self.shared.flags.load(Relaxed) & DOWN
    }

    fn set_view(&self, view: Option<E>) {
        *self.view.lock().unwrap_or_else(PoisonError::into_inner) = view;
    }

    /// Drops the ring end that the queue has retired, if any.
    pub(crate) fn collect(&self) {
        drop(owned(self.shared.retired.swap(null_mut(), AcqRel)));
    }

    /// Sets the longest frame to be sent, in bytes.
    pub(crate) fn set_max_frame(&self, bytes: u32) {
        self.shared.max_frame.store(bytes, Relaxed);
    }

    /// Takes the fault that the queue reported, as its name.
    pub(crate) fn take_fault(&self) -> Option<&'static str> {
        match self.shared.fault.swap(0, Relaxed) {
            0 => None,
            number => Some(fault_name(number)),
        }
    }

    // The queue's side.

    /// Whether the queue goes on as before: the answer in steady state.
    #[inline]
    pub(crate) fn is_calm(&self) -> bool {
        self.shared.flags.load(Relaxed) == 0
    }

    /// Whether the queue strips VLAN tags.
    pub(crate) fn strips(&self) -> bool {
        self.shared.strip.load(Relaxed)
    }

    /// The queue is about to look at what it is to do to frames: what is written later makes it look again.
    pub(crate) fn forget_changed(&self) {
        if self.shared.flags.load(Relaxed) & CHANGED != 0 {
            self.shared.flags.fetch_and(!CHANGED, AcqRel);
        }
    }

    /// Whether the daemon is away.
    pub(crate) fn is_away(&self) -> bool {
        self.shared.flags.load(Relaxed) & AWAY != 0
    }

    /// Whether the application has taken the link down.
    pub(crate) fn is_down(&self) -> bool {
        self.down() != 0
    }

    /// Whether a ring is offered that the queue has not used yet. The queue's present ring does not matter any more.
    pub(crate) fn is_offered(&self) -> bool {
        self.shared.flags.load(Acquire) & (OFFERED | AWAY | DOWN) == OFFERED
    }

    /// Whether a ring is offered, whatever else there is.
    pub(crate) fn has_offer(&self) -> bool {
        self.shared.flags.load(Acquire) & OFFERED != 0
    }

    /// Calls `look` with the view of the ring that is offered. `None` if there is none, or another thread looks at it now.
    pub(crate) fn with_view<T>(&self, look: impl FnOnce(&mut E) -> T) -> Option<T> {
        self.view.try_lock().ok()?.as_mut().map(look)
    }

    /// The position in each lane from which on frames came with the link up, if stale ones may lie before it. It refers to the rings
    /// that are offered, if any are.
    pub(crate) fn stale_to(&self) -> Option<Stale> {
        (self.shared.flags.load(Acquire) & STALE != 0).then(|| self.stale_ends())
    }

    /// The queue is about to discard the stale frames, and gets the positions of their ends. They are read only after the flag is
    /// cleared: a later end sets the flag again.
    pub(crate) fn forget_stale(&self) -> Stale {
        self.shared.flags.fetch_and(!STALE, AcqRel);
        self.stale_ends()
    }

    fn stale_ends(&self) -> Stale {
        self.shared.stale_to.each_ref().map(|end| end.load(Relaxed))
    }

    /// The longest frame to be sent, in bytes.
    #[inline]
    pub(crate) fn max_frame(&self) -> u32 {
        self.shared.max_frame.load(Relaxed)
    }

    /// Swaps `mine` for the ring end that is offered, if any, and returns whether it did. The old end, or `broken` if there is
    /// none, is retired: the control thread drops it. While an earlier one is still retired, nothing changes.
    #[cold]
    pub(crate) fn swap(&self, mine: &mut Option<Box<E>>, broken: &mut Option<Box<E>>) -> bool {
        if self.shared.flags.load(Acquire) & OFFERED == 0 || !self.shared.retired.load(Acquire).is_null() {
            return false;
        }
        // The flag goes first: an offer made after this line sets it again.
        self.shared.flags.fetch_and(!OFFERED, AcqRel);
        let Some(new) = owned(self.shared.offered.swap(null_mut(), AcqRel)) else { return false };
        if let Some(old) = mine.replace(new).or_else(|| broken.take()) {
            self.shared.retired.store(Box::into_raw(old), Release);
        }
        true
    }

    /// The daemon is away: retires `mine`, or `broken`, which are of no use any more. As long as any end is left, the region's memory
    /// counts for the user, and may be missing for the rings that come next.
    #[cold]
    pub(crate) fn retire(&self, mine: &mut Option<Box<E>>, broken: &mut Option<Box<E>>) {
        if !self.shared.retired.load(Acquire).is_null() {
            return;
        }
        if let Some(old) = mine.take().or_else(|| broken.take()) {
            self.shared.retired.store(Box::into_raw(old), Release);
        }
    }

    /// Reports that the daemon broke the contract. Faults in the rings of a daemon that is gone are ignored.
    #[cold]
    pub(crate) fn report(&self, fault: PeerFault) {
        if self.shared.flags.load(Relaxed) & !CHANGED == 0 {
            self.shared.fault.store(fault_number(fault), Relaxed);
        }
    }
}

impl RingSlot<Lanes> {
    /// Takes the link of the queue down or up. After it is up, the queue receives what comes from now on: it discards what has come
    /// by now, whether or not it was polled meanwhile. A ring that is offered later has no such frames.
    pub(crate) fn set_rx_down(&self, down: bool) {
        if !down
            && self.is_down()
            && !self.is_away()
            && let Some(lanes) = self.view.lock().unwrap_or_else(PoisonError::into_inner).as_ref()
        {
            let heads = lanes.all().map(Consumer::head);
            self.shared.stale_to.iter().zip(heads).for_each(|(end, head)| end.store(head, Relaxed));
            // Before the other flag goes, so that no burst finds neither.
            self.shared.flags.fetch_or(STALE, AcqRel);
        }
        self.set_down(down);
    }
}

impl<E> Drop for RingSlot<E> {
    fn drop(&mut self) {
        drop(owned(*self.shared.offered.get_mut()));
        self.collect();
    }
}

/// The box that was stored as a raw pointer.
fn owned<E>(end: *mut E) -> Option<Box<E>> {
    if end.is_null() {
        return None;
    }
    // SAFETY: only boxes are stored there, and a swap takes each out once.
    Some(unsafe { Box::from_raw(end) })
}

const fn fault_number(fault: PeerFault) -> u32 {
    match fault {
        PeerFault::HeadJump { .. } => 1,
        PeerFault::TailJump { .. } => 2,
        PeerFault::Length { .. } => 3,
        PeerFault::Reserved { .. } => 4,
        PeerFault::Chain { .. } => 5,
        PeerFault::Page => 6,
        PeerFault::Reference { .. } => 7,
    }
}

const fn fault_name(number: u32) -> &'static str {
    match number {
        1 => "the head of an RX ring jumped",
        2 => "the tail of a TX ring jumped",
        3 => "a descriptor has an impossible length",
        4 => "a descriptor has reserved bits set",
        5 => "a chain of descriptors has no end",
        7 => "a descriptor refers to memory that is not shared",
        _ => "a page of the region went away",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    /// An end that counts how many of its kind are alive.
    struct Probe(u32, #[expect(dead_code, reason = "it is there to be counted")] Arc<()>);

    /// A queue gets the newest offer, the old end is dropped by the control side only, and none is lost.
    #[test]
    fn newest_offer_wins_and_nothing_leaks() {
        let alive = Arc::new(());
        let slot = RingSlot::new();
        let offer = |n| slot.offer(Box::new(Probe(n, Arc::clone(&alive))), Some(Probe(n, Arc::clone(&alive))));
        let mut mine = None;
        assert!(!slot.swap(&mut mine, &mut None) && slot.is_away());
        offer(1);
        offer(2);
        assert_eq!((Arc::strong_count(&alive), slot.with_view(|probe| probe.0)), (3, Some(2)));
        assert!(slot.swap(&mut mine, &mut None) && !slot.is_calm());
        slot.forget_changed();
        assert!(slot.is_calm());
        offer(3);
        assert!(slot.swap(&mut mine, &mut None));
        offer(4);
        assert!(!slot.swap(&mut mine, &mut None), "the retired end is still there");
        assert_eq!(mine.as_ref().map(|p| p.0), Some(3));
        slot.collect();
        assert!(slot.swap(&mut mine, &mut None));
        assert_eq!(mine.as_ref().map(|p| p.0), Some(4));
        offer(5);
        slot.set_away();
        assert!(!slot.swap(&mut mine, &mut None) && slot.is_away());
        assert_eq!((Arc::strong_count(&alive), slot.with_view(|probe| probe.0)), (3, None));
        offer(6);
        slot.collect();
        assert!(slot.swap(&mut mine, &mut None));
        slot.collect();
        slot.set_away();
        slot.retire(&mut mine, &mut None);
        assert!(mine.is_none() && Arc::strong_count(&alive) == 2);
        slot.collect();
        assert_eq!(Arc::strong_count(&alive), 1, "nothing is held while the daemon is away");
        offer(7);
        drop((slot, mine));
        assert_eq!(Arc::strong_count(&alive), 1);
    }

    /// Two threads offer and swap ends without pause: each is dropped once, and the queue only ever sees newer ones.
    #[test]
    fn ends_survive_a_race() {
        let rounds: u32 = 20_000;
        let alive = Arc::new(());
        let slot = RingSlot::new();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for n in 1..=rounds {
                    slot.offer(Box::new(Probe(n, Arc::clone(&alive))), None);
                    slot.collect();
                }
                while !done.load(Relaxed) {
                    slot.collect();
                }
            });
            let mut mine: Option<Box<Probe>> = None;
            let mut last = 0;
            while last < rounds {
                if slot.swap(&mut mine, &mut None) {
                    let now = mine.as_ref().map_or(0, |probe| probe.0);
                    assert!(now > last, "{now} after {last}");
                    last = now;
                }
            }
            done.store(true, Relaxed);
        });
        drop(slot);
        assert_eq!(Arc::strong_count(&alive), 1);
    }
}
