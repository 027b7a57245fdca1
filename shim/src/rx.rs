//! The receiving side: an RX queue and its burst function.
//!
//! What a queue may be asked to do to frames is in `offloads`. One that is asked for nothing never looks whether it is: the rings of one that
//! is are kept as lanes are, however many there are, and only who has lanes looks.

use crate::errno::{code, status};
use crate::irq_thread::IrqThread;
use crate::lanes::Lanes;
use crate::mbuf_cache::{AsCopied, Finish, MbufCache, Template};
use crate::ring_slot::{RingSlot, Stale};
use crate::steering::Steering;
use crate::sys;
use crate::sys::rte_mbuf;
use kopi_ring::Consumer;
use offloads::{RxOffloads, Timestamp};
use std::ffi::{c_int, c_void};
use std::mem::MaybeUninit;
use std::sync::Arc;

pub(crate) mod offloads;

/// One RX queue, as ethdev hands it to the burst function. Only one thread may use it at a time.
#[derive(Debug)]
#[repr(C, align(128))]
pub(crate) struct RxQueue {
    /// Its ring, if it has one lane, and does nothing to frames.
    ring: Option<Box<Lanes>>,
    shared: Arc<RingSlot<Lanes>>,
    mbufs: MbufCache,
    /// Its rings, if it has several, or does something to frames: so a burst from one ring need not ask how many there are.
    lanes: Option<Box<Lanes>>,
    /// The ring ends of a daemon that broke the contract, until they can be retired.
    broken: Option<Box<Lanes>>,
    config: RxConfig,
    /// What wakes the application for this queue, if it has interrupts.
    irq_thread: Option<Arc<IrqThread>>,
    /// What flow rules have it do with frames, and its number there.
    steering: Option<(Arc<Steering>, u16)>,
    /// What it does to frames. Away during a burst that does.
    offloads: Option<Box<RxOffloads>>,
    /// Whether it does anything to frames.
    finishes: bool,
}

/// How a queue was set up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RxConfig {
    /// Slots in the ring.
    pub(crate) descriptors: u16,
    /// Bytes of a frame that one buffer takes.
    pub(crate) room: u16,
    /// The offloads that it was set up with.
    pub(crate) offloads: u64,
    /// Where its packets have timestamps, if the offloads say that they have.
    pub(crate) timestamp: Option<Timestamp>,
}

impl RxConfig {
    /// Whether the application has asked for frames to be spread over several buffers where one is too small. They are in any case.
    pub(crate) const fn scatter(&self) -> bool {
        self.offloads & sys::RTE_ETH_RX_OFFLOAD_SCATTER != 0
    }
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
        let shared = Arc::new(RingSlot::new());
        let offloads = Some(Box::new(RxOffloads::new(config.offloads, config.timestamp)));
        shared.set_strip(config.offloads & sys::RTE_ETH_RX_OFFLOAD_VLAN_STRIP != 0);
        let (lanes, broken, irq_thread, steering) = (None, None, None, None);
        // The first burst looks what there is to do.
        Self { ring: None, shared, mbufs, lanes, broken, config, irq_thread, steering, offloads, finishes: false }
    }

    /// The effective offloads.
    pub(crate) fn offloads(&self) -> u64 {
        let strip = if self.shared.strips() { sys::RTE_ETH_RX_OFFLOAD_VLAN_STRIP } else { 0 };
        self.config.offloads & !sys::RTE_ETH_RX_OFFLOAD_VLAN_STRIP | strip
    }

    /// What the queue shares with the control thread.
    pub(crate) const fn shared(&self) -> &Arc<RingSlot<Lanes>> {
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

    /// Sets what flow rules have it do with frames; it is queue `index` of its port. The application does not poll now.
    pub(crate) fn set_steering(&mut self, steering: Arc<Steering>, index: u16) {
        self.steering = Some((steering, index));
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
        self.lanes = None;
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
            match ring.first.poll() {
                Ok(0) => return 0,
                Ok(1) => return self.receive_one(out),
                _ => {}
            }
        } else if self.lanes.is_some() {
            return self.receive_lanes(out);
        }
        self.receive_waiting(out)
    }

    /// The same with several lanes, which are mostly empty, too.
    #[inline(never)]
    fn receive_lanes(&mut self, out: &mut [MaybeUninit<*mut rte_mbuf>]) -> u16 {
        if self.shared.is_calm() {
            if self.lanes.as_deref_mut().is_some_and(Lanes::is_empty) {
                return 0;
            }
            if self.finishes {
                return self.receive_finished(out);
            }
        }
        self.receive_waiting(out)
    }

    /// The same with one frame in the ring.
    #[inline(never)]
    fn receive_one(&mut self, out: &mut [MaybeUninit<*mut rte_mbuf>]) -> u16 {
        if let (Some(ring), Some(to)) = (&mut self.ring, out.first_mut())
            && self.mbufs.receive_one(&mut ring.first, self.shared.counters(), to)
        {
            return 1;
        }
        self.receive_waiting(out)
    }

    /// The same, when there may be something: apart, so that a look into an empty ring saves no registers.
    #[inline(never)]
    fn receive_waiting(&mut self, out: &mut [MaybeUninit<*mut rte_mbuf>]) -> u16 {
        if !self.shared.is_calm() {
            return self.receive_changed(out);
        }
        self.receive_rings(out, &mut AsCopied)
    }

    /// The same, when the control thread has changed something. What there is to do to frames may be nothing.
    #[cold]
    #[inline(never)]
    fn receive_changed(&mut self, out: &mut [MaybeUninit<*mut rte_mbuf>]) -> u16 {
        if self.update() { self.receive_finished(out) } else { 0 }
    }

    /// The same, for who does something to frames.
    #[inline(never)]
    fn receive_finished(&mut self, out: &mut [MaybeUninit<*mut rte_mbuf>]) -> u16 {
        let Some(mut offloads) = self.offloads.take() else { return 0 };
        offloads.begin(self.shared.strips());
        let packets = self.receive_rings(out, &mut *offloads);
        self.offloads = Some(offloads);
        match &self.steering {
            // SAFETY: just received, and not yet given to the application.
            Some((steering, index)) if steering.is_active() => unsafe { steering.apply((*index).into(), out, packets) },
            _ => packets,
        }
    }

    /// Fills `out` from the rings, and finishes what came.
    #[inline]
    fn receive_rings(&mut self, out: &mut [MaybeUninit<*mut rte_mbuf>], finish: &mut impl Finish) -> u16 {
        let (counters, mut packets) = (self.shared.counters(), 0_u16);
        let (mut at, lanes) = self.lanes.as_mut().map_or((0, 1), |lanes| lanes.turn());
        let mut left = lanes;
        loop {
            // One place for both kinds, so that the copying is compiled into this function.
            let rings = self.ring.as_deref_mut().or(self.lanes.as_deref_mut());
            let Some(ring) = rings.and_then(|rings| rings.lane(at)) else { return packets };
            let Some(room) = out.get_mut(packets.into()..) else { return packets };
            let (more, fault) = self.mbufs.receive(ring, counters, room, finish);
            packets = packets.saturating_add(more);
            if let Some(fault) = fault {
                // They are one daemon's. What was received is good.
                self.broken = self.ring.take().or_else(|| self.lanes.take());
                self.shared.report(fault);
                return packets;
            }
            left = left.saturating_sub(1);
            if left == 0 || usize::from(packets) == out.len() {
                return packets;
            }
            at = at.saturating_add(1);
            if at == lanes {
                at = 0;
            }
        }
    }

    /// The rings, however many.
    fn rings(&mut self) -> Option<&mut Lanes> {
        self.ring.as_deref_mut().or(self.lanes.as_deref_mut())
    }

    /// Takes up what the control thread has changed: a ring that is offered, the link. Returns whether to receive frames.
    #[cold]
    #[inline(never)]
    fn update(&mut self) -> bool {
        self.shared.forget_changed();
        let strip = self.shared.strips();
        let steers = self.steering.as_ref().is_some_and(|(steering, _)| steering.is_active());
        self.finishes = steers || self.offloads.as_ref().is_some_and(|offloads| offloads.any(strip));
        let mut mine = self.ring.take().or_else(|| self.lanes.take());
        self.shared.swap(&mut mine, &mut self.broken);
        let away = self.shared.is_away();
        if away {
            // The region may be taken apart by now.
            self.shared.retire(&mut mine, &mut self.broken);
        }
        let single = !self.finishes && mine.as_ref().is_some_and(|mine| mine.is_single());
        *(if single { &mut self.ring } else { &mut self.lanes }) = mine;
        if away {
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
            let ends = self.shared.forget_stale();
            self.discard(Some(ends));
        }
        true
    }

    /// Discards the frames in the rings, all or those before `ends`.
    fn discard(&mut self, ends: Option<Stale>) {
        let Some(rings) = self.rings() else { return };
        let mut discarded = 0_u64;
        for (lane, ring) in rings.all_mut().enumerate() {
            let Ok(filled) = ring.filled() else {
                // The fault will be met again when the link is up.
                continue;
            };
            let end = ends.and_then(|ends| ends.get(lane).copied());
            while end.is_none_or(|end| before(ring, end, filled) > 0) {
                let Ok(Some(_)) = ring.next() else { break };
                discarded = discarded.wrapping_add(1);
            }
            ring.release();
        }
        self.shared.counters().link_down.add(discarded);
    }

    /// Frames in the rings, even if no burst has taken these yet. They stay offered: the caller may be another thread than
    /// the one that polls. Frames that the next burst will discard do not count.
    fn filled(&mut self) -> u32 {
        // Lanes may have more slots together than the application asked for.
        self.waiting().min(self.config.descriptors.into())
    }

    fn waiting(&mut self) -> u32 {
        if self.shared.is_away() || self.shared.is_down() {
            return 0;
        }
        let stale = self.shared.stale_to();
        let fresh = |lanes: &mut Lanes| {
            let each = lanes.all_mut().enumerate().map(|(lane, ring)| {
                let filled = ring.filled().unwrap_or(0);
                let end = stale.and_then(|ends| ends.get(lane).copied());
                filled.saturating_sub(end.map_or(0, |end| before(ring, end, filled)))
            });
            each.fold(0, u32::saturating_add)
        };
        if self.shared.is_offered() {
            return self.shared.with_view(fresh).unwrap_or(0);
        }
        self.rings().map_or(0, fresh)
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
mod offload_tests;
#[cfg(test)]
mod tests;
