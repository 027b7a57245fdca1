//! How a queue gets its ring while the application may be polling it.
//!
//! A burst function must not wait, and memory that it uses must not go away under it. So the control thread offers a
//! new ring end in a slot, the burst function takes it at its next turn and puts the old end into another slot, and the
//! control thread drops it from there. In steady state a burst reads one word of a cache line that nobody writes.

use kopi_ring::layout::MAX_FRAME;
use kopi_ring::{Consumer, PeerFault};
use std::ptr::null_mut;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64};
use std::sync::{Mutex, PoisonError};

/// A ring end waits to be taken.
const OFFERED: u32 = 1;
/// The daemon is away: what is put into the ring will not be read.
const AWAY: u32 = 2;
/// The application has taken the link down.
const DOWN: u32 = 4;
/// The ring may hold frames that came while the link was down.
const STALE: u32 = 8;

/// What a queue and the control thread share. `E` is the queue's end of a ring.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Handoff<E> {
    slots: Slots<E>,
    counters: Counters,
    /// Another end of the ring that is offered, to be looked at until the queue takes its own.
    view: Mutex<Option<E>>,
}

/// Written by the control thread, and by the queue only when it takes an offer.
#[derive(Debug)]
#[repr(C, align(128))]
struct Slots<E> {
    flags: AtomicU32,
    /// Longest frame to be sent, in bytes.
    max_frame: AtomicU32,
    /// The ring's counter of filled slots when the link came up again: what lies before is stale.
    stale_to: AtomicU32,
    offered: AtomicPtr<E>,
    retired: AtomicPtr<E>,
    /// Number of a [`PeerFault`] that the queue ran into, or 0.
    fault: AtomicU32,
}

/// Written by the core that polls the queue, read by anybody.
#[derive(Debug, Default)]
#[repr(C, align(128))]
pub(crate) struct Counters {
    /// Frames handed over.
    pub(crate) packets: Counter,
    /// Their bytes.
    pub(crate) bytes: Counter,
    /// Frames dropped here because they are shorter than an Ethernet header.
    pub(crate) runt: Counter,
    /// Frames dropped here because they are longer than the MTU allows.
    pub(crate) oversize: Counter,
    /// Frames dropped here because their segments do not add up.
    pub(crate) malformed: Counter,
    /// Frames thrown away because they came while the application had the link down.
    pub(crate) link_down: Counter,
    /// Times that no packet buffer could be had.
    pub(crate) no_mbuf: Counter,
}

/// A counter with one writer.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`. Only the one writer may.
    #[inline]
    pub(crate) fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// The count so far.
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

impl<E> Handoff<E> {
    /// Nothing offered, nothing counted, the daemon away.
    pub(crate) fn new() -> Self {
        Self {
            slots: Slots {
                flags: AtomicU32::new(AWAY),
                max_frame: AtomicU32::new(MAX_FRAME),
                stale_to: AtomicU32::new(0),
                offered: AtomicPtr::new(null_mut()),
                retired: AtomicPtr::new(null_mut()),
                fault: AtomicU32::new(0),
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
        let skipped = self.slots.offered.swap(Box::into_raw(end), AcqRel);
        drop(owned(skipped));
        self.slots.fault.store(0, Relaxed);
        self.slots.flags.store(OFFERED | self.down(), Release);
    }

    /// Tells the queue that the daemon is away. What was offered is taken back.
    pub(crate) fn set_away(&self) {
        self.slots.flags.store(AWAY | self.down(), Release);
        drop(owned(self.slots.offered.swap(null_mut(), AcqRel)));
        self.set_view(None);
    }

    /// Has the queue pass nothing, or what comes again.
    pub(crate) fn set_down(&self, down: bool) {
        if down {
            self.slots.flags.fetch_or(DOWN, AcqRel);
        } else {
            self.slots.flags.fetch_and(!DOWN, AcqRel);
        }
    }

    fn down(&self) -> u32 {
        self.slots.flags.load(Relaxed) & DOWN
    }

    fn set_view(&self, view: Option<E>) {
        *self.view.lock().unwrap_or_else(PoisonError::into_inner) = view;
    }

    /// Drops the ring end that the queue has put aside, if any.
    pub(crate) fn collect(&self) {
        drop(owned(self.slots.retired.swap(null_mut(), AcqRel)));
    }

    /// Sets the longest frame to be sent, in bytes.
    pub(crate) fn set_max_frame(&self, bytes: u32) {
        self.slots.max_frame.store(bytes, Relaxed);
    }

    /// Takes the fault that the queue reported, as its name.
    pub(crate) fn take_fault(&self) -> Option<&'static str> {
        match self.slots.fault.swap(0, Relaxed) {
            0 => None,
            number => Some(fault_name(number)),
        }
    }

    // The queue's side.

    /// Whether there is nothing to look at: the answer in steady state.
    #[inline]
    pub(crate) fn is_calm(&self) -> bool {
        self.slots.flags.load(Relaxed) == 0
    }

    /// Whether the daemon is away.
    pub(crate) fn is_away(&self) -> bool {
        self.slots.flags.load(Relaxed) & AWAY != 0
    }

    /// Whether the application has taken the link down.
    pub(crate) fn is_down(&self) -> bool {
        self.down() != 0
    }

    /// Whether a ring waits to be taken, in which the queue has done nothing yet. Its own is of no interest any more.
    pub(crate) fn is_offered(&self) -> bool {
        self.slots.flags.load(Acquire) & (OFFERED | AWAY | DOWN) == OFFERED
    }

    /// Looks at the ring that waits to be taken. `None` if there is none, or somebody else looks at it at this moment.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&mut E) -> T) -> Option<T> {
        self.view.try_lock().ok()?.as_mut().map(look)
    }

    /// Where in the ring the frames begin that came with the link up, if there may be others. It is a place in the ring that is
    /// offered, if one is.
    pub(crate) fn stale_to(&self) -> Option<u32> {
        (self.slots.flags.load(Acquire) & STALE != 0).then(|| self.slots.stale_to.load(Relaxed))
    }

    /// The queue deals with what is stale. Only then it reads where that ends: a later end is announced again.
    pub(crate) fn forget_stale(&self) -> u32 {
        self.slots.flags.fetch_and(!STALE, AcqRel);
        self.slots.stale_to.load(Relaxed)
    }

    /// The longest frame to be sent, in bytes.
    #[inline]
    pub(crate) fn max_frame(&self) -> u32 {
        self.slots.max_frame.load(Relaxed)
    }

    /// Puts the offered ring end, if any, in the place of `mine`, and tells whether it did. The old one, or `spent` if
    /// there is none, is put aside for the control thread; while an earlier one still waits there, nothing changes.
    #[cold]
    pub(crate) fn take(&self, mine: &mut Option<Box<E>>, spent: &mut Option<Box<E>>) -> bool {
        if self.slots.flags.load(Acquire) & OFFERED == 0 || !self.slots.retired.load(Acquire).is_null() {
            return false;
        }
        // The flag goes first: an offer made after this line sets it again.
        self.slots.flags.fetch_and(!OFFERED, AcqRel);
        let Some(new) = owned(self.slots.offered.swap(null_mut(), AcqRel)) else { return false };
        if let Some(old) = mine.replace(new).or_else(|| spent.take()) {
            self.slots.retired.store(Box::into_raw(old), Release);
        }
        true
    }

    /// Reports that the daemon broke the contract. What becomes of the rings of a daemon that is gone is of no interest.
    #[cold]
    pub(crate) fn report(&self, fault: PeerFault) {
        if self.is_calm() {
            self.slots.fault.store(fault_number(fault), Relaxed);
        }
    }
}

impl Handoff<Consumer> {
    /// Has the queue receive nothing, or what comes from now on: whether or not it was polled meanwhile, it is to throw away what
    /// has come by now. A ring that is offered later has nothing of the kind.
    pub(crate) fn bar(&self, down: bool) {
        if !down && self.is_down() && !self.is_away() {
            let head = self.view.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(Consumer::head);
            if let Some(head) = head {
                self.slots.stale_to.store(head, Relaxed);
                // Before the other flag goes, so that no burst finds neither.
                self.slots.flags.fetch_or(STALE, AcqRel);
            }
        }
        self.set_down(down);
    }
}

impl<E> Drop for Handoff<E> {
    fn drop(&mut self) {
        drop(owned(*self.slots.offered.get_mut()));
        self.collect();
    }
}

/// The box that went into a slot as a raw pointer.
fn owned<E>(end: *mut E) -> Option<Box<E>> {
    if end.is_null() {
        return None;
    }
    // SAFETY: only boxes go into the slots, and a swap takes each out once.
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
    }
}

const fn fault_name(number: u32) -> &'static str {
    match number {
        1 => "the head of an RX ring jumped",
        2 => "the tail of a TX ring jumped",
        3 => "a descriptor has an impossible length",
        4 => "a descriptor has reserved bits set",
        5 => "a chain of descriptors has no end",
        _ => "a page of the region went away",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;

    /// An end that counts how many of its kind are alive.
    struct Probe(u32, #[expect(dead_code, reason = "it is there to be counted")] Arc<()>);

    /// A queue gets the newest offer, the old end is dropped by the control side only, and none is lost.
    #[test]
    fn newest_offer_wins_and_nothing_leaks() {
        let alive = Arc::new(());
        let handoff = Handoff::new();
        let offer = |n| handoff.offer(Box::new(Probe(n, Arc::clone(&alive))), Some(Probe(n, Arc::clone(&alive))));
        let mut mine = None;
        assert!(!handoff.take(&mut mine, &mut None) && handoff.is_away());
        offer(1);
        offer(2);
        assert_eq!((Arc::strong_count(&alive), handoff.look(|probe| probe.0)), (3, Some(2)));
        assert!(handoff.take(&mut mine, &mut None) && handoff.is_calm());
        offer(3);
        assert!(handoff.take(&mut mine, &mut None));
        offer(4);
        assert!(!handoff.take(&mut mine, &mut None), "the end put aside is still there");
        assert_eq!(mine.as_ref().map(|p| p.0), Some(3));
        handoff.collect();
        assert!(handoff.take(&mut mine, &mut None));
        assert_eq!(mine.as_ref().map(|p| p.0), Some(4));
        offer(5);
        handoff.set_away();
        assert!(!handoff.take(&mut mine, &mut None) && handoff.is_away());
        assert_eq!((Arc::strong_count(&alive), handoff.look(|probe| probe.0)), (3, None));
        offer(6);
        drop((handoff, mine));
        assert_eq!(Arc::strong_count(&alive), 1);
    }

    /// Two threads hand ends over without pause: each is dropped once, and the queue only ever sees newer ones.
    #[test]
    fn ends_survive_a_race() {
        let rounds: u32 = 20_000;
        let alive = Arc::new(());
        let handoff = Handoff::new();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for n in 1..=rounds {
                    handoff.offer(Box::new(Probe(n, Arc::clone(&alive))), None);
                    handoff.collect();
                }
                while !done.load(Relaxed) {
                    handoff.collect();
                }
            });
            let mut mine: Option<Box<Probe>> = None;
            let mut last = 0;
            while last < rounds {
                if handoff.take(&mut mine, &mut None) {
                    let now = mine.as_ref().map_or(0, |probe| probe.0);
                    assert!(now > last, "{now} after {last}");
                    last = now;
                }
            }
            done.store(true, Relaxed);
        });
        drop(handoff);
        assert_eq!(Arc::strong_count(&alive), 1);
    }
}
