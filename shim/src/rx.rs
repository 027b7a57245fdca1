//! The receiving side: an RX queue and its burst function.

use crate::errno::{code, status};
use crate::irq_thread::IrqThread;
use crate::mbuf_cache::{MbufCache, Template};
use crate::ring_slot::RingSlot;
use dpdk_sys as sys;
use dpdk_sys::rte_mbuf;
use kopi_ring::Consumer;
use std::ffi::{c_int, c_void};
use std::mem::MaybeUninit;
use std::sync::Arc;

/// One RX queue, as ethdev hands it to the burst function. Only one thread may use it at a time.
#[derive(Debug)]
#[repr(C, align(128))]
pub(crate) struct RxQueue {
    ring: Option<Box<Consumer>>,
    shared: Arc<RingSlot<Consumer>>,
    mbufs: MbufCache,
    /// The ring end of a daemon that broke the contract, until it can be retired.
    broken: Option<Box<Consumer>>,
    config: RxConfig,
    /// What wakes the application for this queue, if it has interrupts.
    irq_thread: Option<Arc<IrqThread>>,
}

/// How a queue was set up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RxConfig {
    /// Slots in the ring.
    pub(crate) descriptors: u16,
    /// Bytes of a frame that one buffer takes.
    pub(crate) room: u16,
    /// Whether frames may be spread over several buffers.
    pub(crate) scatter: bool,
    /// The effective offloads.
    pub(crate) offloads: u64,
}

impl RxQueue {
    /// A queue of port `port` over buffers of `pool`.
    ///
    /// # Safety
    ///
    /// `pool` is a pool of packet buffers that outlives the queue, with at least the headroom and `config.room` bytes
    /// in each.
    pub(crate) unsafe fn new(pool: *mut sys::rte_mempool, port: u16, config: RxConfig) -> Self {
        let hashed = config.offloads & sys::RTE_ETH_RX_OFFLOAD_RSS_HASH != 0;
        // SAFETY: a pool of packet buffers, by the caller's word.
        let template = unsafe { Template::new(pool, port, config.room, hashed) };
        // SAFETY: by the caller's word, the pool is valid while the queue is, and its buffers take what the template says.
        let mbufs = unsafe { MbufCache::new(pool, template) };
        Self { ring: None, shared: Arc::new(RingSlot::new()), mbufs, broken: None, config, irq_thread: None }
    }

    /// What the queue shares with the control thread.
    pub(crate) const fn shared(&self) -> &Arc<RingSlot<Consumer>> {
        &self.shared
    }

    /// How it was set up.
    pub(crate) const fn config(&self) -> &RxConfig {
        &self.config
    }

    /// What wakes the application for this queue, if it has interrupts.
    pub(crate) const fn irq_thread(&self) -> Option<&Arc<IrqThread>> {
        self.irq_thread.as_ref()
    }

    /// Sets what wakes the application for this queue. The application does not poll now.
    pub(crate) fn set_irq_thread(&mut self, irq_thread: Option<&Arc<IrqThread>>) {
        self.irq_thread = irq_thread.cloned();
    }

    /// Where its buffers come from.
    pub(crate) const fn pool(&self) -> *mut sys::rte_mempool {
        self.mbufs.pool()
    }

    /// Drops its rings and buffers. The application does not poll now, and the control thread offers no ring.
    pub(crate) fn reset(&mut self) {
        self.shared.set_away();
        self.shared.collect();
        self.ring = None;
        self.broken = None;
        self.mbufs.clear();
    }

    /// Fills `out` with packets from the front on and returns how many.
    #[inline]
    fn receive(&mut self, out: &mut [MaybeUninit<*mut rte_mbuf>]) -> u16 {
        // Applications that poll find nothing most of the time, and one frame next to that.
        if self.shared.is_calm()
            && let Some(ring) = &mut self.ring
        {
            match ring.poll() {
                Ok(0) => return 0,
                Ok(1) => return self.receive_one(out),
                _ => {}
            }
        }
        self.receive_waiting(out)
    }

    /// The same with one frame in the ring.
    #[inline(never)]
    fn receive_one(&mut self, out: &mut [MaybeUninit<*mut rte_mbuf>]) -> u16 {
        if let (Some(ring), Some(to)) = (&mut self.ring, out.first_mut())
            && self.mbufs.receive_one(ring, self.shared.counters(), to)
        {
            return 1;
        }
        self.receive_waiting(out)
    }

    /// The same, when there may be something: apart, so that a look into an empty ring saves no registers.
    #[inline(never)]
    fn receive_waiting(&mut self, out: &mut [MaybeUninit<*mut rte_mbuf>]) -> u16 {
        if !self.shared.is_calm() && !self.update() {
            return 0;
        }
        let Some(ring) = &mut self.ring else { return 0 };
        let (packets, fault) = self.mbufs.receive(ring, self.shared.counters(), out);
        if let Some(fault) = fault {
            self.broken = self.ring.take();
            self.shared.report(fault);
        }
        packets
    }

    /// Takes up what the control thread has changed: a ring that is offered, the link. Returns whether to receive frames.
    #[cold]
    #[inline(never)]
    fn update(&mut self) -> bool {
        self.shared.swap(&mut self.ring, &mut self.broken);
        if self.shared.is_away() {
            // The region may be taken apart by now.
            self.shared.retire(&mut self.ring, &mut self.broken);
            return false;
        }
        if self.shared.is_down() {
            self.discard(None);
            return false;
        }
        if self.shared.stale_to().is_some() {
            if self.shared.is_offered() {
                // Our ring is an old one, and the one that is offered cannot be taken yet.
                return false;
            }
            let end = self.shared.forget_stale();
            self.discard(Some(end));
        }
        true
    }

    /// Discards the frames in the ring, all or those before `end`.
    fn discard(&mut self, end: Option<u32>) {
        let Some(ring) = &mut self.ring else { return };
        let Ok(filled) = ring.filled() else {
            // The fault will be met again when the link is up.
            return;
        };
        let mut discarded = 0_u64;
        while end.is_none_or(|end| before(ring, end, filled) > 0) {
            let Ok(Some(_)) = ring.next() else { break };
            discarded = discarded.wrapping_add(1);
        }
        ring.release();
        self.shared.counters().link_down.add(discarded);
    }

    /// Frames in the ring, even if no burst has taken that ring yet. The ring stays offered: the caller may be another thread than
    /// the one that polls. Frames that the next burst will discard do not count.
    fn filled(&mut self) -> u32 {
        if self.shared.is_away() || self.shared.is_down() {
            return 0;
        }
        let stale = self.shared.stale_to();
        let fresh = |ring: &mut Consumer| {
            let filled = ring.filled().unwrap_or(0);
            filled.saturating_sub(stale.map_or(0, |end| before(ring, end, filled)))
        };
        if self.shared.is_offered() {
            return self.shared.with_view(fresh).unwrap_or(0);
        }
        self.ring.as_mut().map_or(0, |ring| fresh(ring))
    }
}

/// How many of the next `filled` slots of `ring` lie before `end`.
const fn before(ring: &Consumer, end: u32, filled: u32) -> u32 {
    match end.wrapping_sub(ring.position()) {
        slots if slots <= filled => slots,
        // The queue was polled, and has passed that place.
        _ => 0,
    }
}

impl Drop for RxQueue {
    fn drop(&mut self) {
        self.reset();
    }
}

/// The burst function.
///
/// # Safety
///
/// As ethdev calls it: `queue` is an [`RxQueue`] that no other thread uses now, `packets` takes `n` pointers.
pub(crate) unsafe extern "C" fn burst(queue: *mut c_void, packets: *mut *mut rte_mbuf, n: u16) -> u16 {
    // SAFETY: the queue belongs to this thread during the call.
    let queue = unsafe { &mut *queue.cast::<RxQueue>() };
    if n == 0 {
        return 0;
    }
    // SAFETY: an array of `n` pointers, which may hold anything before.
    let out = unsafe { std::slice::from_raw_parts_mut(packets.cast::<MaybeUninit<*mut rte_mbuf>>(), n.into()) };
    queue.receive(out)
}

/// How many frames wait in the ring.
///
/// # Safety
///
/// As for [`burst`].
pub(crate) unsafe extern "C" fn count(queue: *mut c_void) -> sys::QueueCount {
    // SAFETY: the queue belongs to this thread during the call.
    let queue = unsafe { &mut *queue.cast::<RxQueue>() };
    sys::QueueCount::try_from(queue.filled()).unwrap_or(0)
}

/// Whether the slot `offset` places after the next one to be read has a frame.
///
/// # Safety
///
/// As for [`burst`].
pub(crate) unsafe extern "C" fn descriptor_status(queue: *mut c_void, offset: u16) -> c_int {
    // SAFETY: the queue belongs to this thread during the call.
    let queue = unsafe { &mut *queue.cast::<RxQueue>() };
    if offset >= queue.config.descriptors {
        return code(libc::EINVAL);
    }
    let done = u32::from(offset) < queue.filled();
    status(if done { sys::RTE_ETH_RX_DESC_DONE } else { sys::RTE_ETH_RX_DESC_AVAIL })
}

#[cfg(test)]
mod tests;
