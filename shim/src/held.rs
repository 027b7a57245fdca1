//! Packets that the daemon still reads.
//!
//! A packet that is sent by reference is freed when the daemon has emptied its slot, as a NIC's driver frees what the NIC has read: by
//! a later burst, when the application asks for it, or when the queue stops. Only the thread that uses the queue does so, for a pool may
//! belong to a single one.

use crate::sys;
use crate::sys::rte_mbuf;
use kopi_ring::{PeerFault, Producer};
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

/// From so many on, the daemon's counter is looked at for them: a burst, so that the look costs little for each.
const MANY: usize = 32;
/// All queues together hold at most one part in so many of a pool, and copy what is beyond: an application that has no packet left would
/// not come back to have any freed.
const PART: usize = 4;
/// TX queues of this process, each of which may send out of the same pool. Written when a queue is set up or released.
static QUEUES: AtomicUsize = AtomicUsize::new(0);

/// Packets that a queue holds, oldest first, with the places of their slots.
#[derive(Debug)]
pub(crate) struct Held {
    /// A ring of as many places as the queue has slots.
    places: Box<[(*mut rte_mbuf, u32)]>,
    /// Packets ever taken and ever freed.
    end: usize,
    begin: usize,
    /// The pool of the last one, and how many may be held of that by one of so many queues.
    pool: *mut sys::rte_mempool,
    most: usize,
    queues: usize,
}

impl Held {
    /// None yet, of a ring of `slots`.
    pub(crate) fn new(slots: u16) -> Self {
        let places = vec![(std::ptr::null_mut(), 0); usize::from(slots).next_power_of_two()].into_boxed_slice();
        QUEUES.fetch_add(1, Relaxed);
        Self { places, end: 0, begin: 0, pool: std::ptr::null_mut(), most: 0, queues: 0 }
    }

    /// Whether there are none.
    #[inline]
    pub(crate) const fn is_empty(&self) -> bool {
        self.end == self.begin
    }

    /// How many there are.
    const fn len(&self) -> usize {
        self.end.wrapping_sub(self.begin)
    }

    /// Whether one more packet of `pool` may be held.
    #[inline]
    pub(crate) fn takes(&mut self, pool: *mut sys::rte_mempool) -> bool {
        if pool != self.pool || QUEUES.load(Relaxed) != self.queues {
            self.learn(pool);
        }
        self.len() < self.most
    }

    #[cold]
    fn learn(&mut self, pool: *mut sys::rte_mempool) {
        (self.pool, self.queues) = (pool, QUEUES.load(Relaxed));
        // SAFETY: null or the pool of a valid packet, whose size never changes.
        let size = unsafe { pool.as_ref() }.map_or(0, |pool| pool.size);
        let part = PART.saturating_mul(self.queues.max(1));
        self.most = self.places.len().min((size as usize).checked_div(part).unwrap_or(0));
    }

    /// Forgets which pool the last packet was of: there may be another at its place by now.
    pub(crate) const fn forget_pool(&mut self) {
        self.pool = std::ptr::null_mut();
        self.most = 0;
    }

    /// Holds a packet as long as the slot at `position` is not empty. It [has to be taken](Self::takes).
    #[inline]
    pub(crate) fn push(&mut self, packet: *mut rte_mbuf, position: u32) {
        let mask = self.places.len().wrapping_sub(1);
        if let Some(place) = self.places.get_mut(self.end & mask) {
            *place = (packet, position);
            self.end = self.end.wrapping_add(1);
        }
    }

    /// Frees those whose slots `ring` has seen emptied; looks at the daemon's counter if there are many.
    #[inline]
    pub(crate) fn release(&mut self, ring: &mut Producer, one_pool: bool) -> Result<(), PeerFault> {
        if self.len() >= MANY {
            ring.free(u32::MAX)?;
        }
        self.free_emptied(ring, usize::MAX, one_pool);
        Ok(())
    }

    /// Frees up to `most` whose slots are empty, and returns how many.
    pub(crate) fn clean(&mut self, ring: &mut Producer, most: usize, one_pool: bool) -> usize {
        match ring.free(u32::MAX) {
            Ok(_) => self.free_emptied(ring, most, one_pool),
            // The next burst will meet it, too.
            Err(_) => 0,
        }
    }

    fn free_emptied(&mut self, ring: &Producer, most: usize, one_pool: bool) -> usize {
        self.free_while(most, one_pool, |position| ring.emptied(position))
    }

    /// Frees all, while the daemon may still be there and read: a ring that it goes on with is at fault where they were, so that what
    /// their buffers hold next is not sent for them. The port is lost in any case.
    pub(crate) fn revoke(&mut self, ring: Option<&mut Producer>) {
        if let Some(ring) = ring.filter(|_| !self.is_empty()) {
            let mask = self.places.len().wrapping_sub(1);
            let places = (0..self.len()).filter_map(|n| self.places.get(self.begin.wrapping_add(n) & mask));
            ring.revoke(places.map(|(_, position)| *position));
        }
        self.free_all();
    }

    /// Frees all: nobody reads them any more.
    fn free_all(&mut self) {
        self.free_while(usize::MAX, false, |_| true);
    }

    fn free_while(&mut self, most: usize, one_pool: bool, is_done: impl Fn(u32) -> bool) -> usize {
        let mask = self.places.len().wrapping_sub(1);
        let begin = self.begin;
        let mut batch = [std::ptr::null_mut(); MANY];
        let mut n = 0_usize;
        while !self.is_empty() && self.begin.wrapping_sub(begin) < most {
            let Some(&(packet, position)) = self.places.get(self.begin & mask) else { break };
            if !is_done(position) {
                break;
            }
            self.begin = self.begin.wrapping_add(1);
            if let Some(place) = batch.get_mut(n) {
                *place = packet;
                n = n.wrapping_add(1);
            }
            if n == batch.len() {
                free(&mut batch, one_pool);
                n = 0;
            }
        }
        if let Some(rest) = batch.get_mut(..n) {
            free(rest, one_pool);
        }
        self.begin.wrapping_sub(begin)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.free_all();
        QUEUES.fetch_sub(1, Relaxed);
    }
}

/// Gives packets back to their pools. `one_pool` says that all of them can go to that of the first one as they are.
#[inline]
pub(crate) fn free(packets: &mut [*mut rte_mbuf], one_pool: bool) {
    let count = u32::try_from(packets.len()).unwrap_or(0);
    let Some(&first) = packets.first() else { return };
    if one_pool {
        // SAFETY: a valid packet, whose pool nobody changes.
        let pool = unsafe { (*first).pool };
        // SAFETY: all packets are unshared, direct, of one segment and of this pool, as they were when they came from it.
        unsafe { sys::kopi_mempool_put_bulk(pool, packets.as_ptr().cast(), count) };
    } else {
        // SAFETY: `count` valid packets that are ours now.
        unsafe { sys::kopi_pktmbuf_return_bulk(packets.as_mut_ptr(), count) };
    }
}
