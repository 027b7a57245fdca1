//! The sending side: a TX queue and its burst function.

use crate::counters::Counters;
use crate::errno::{code, status};
use crate::ring_slot::RingSlot;
use crate::tx_publisher::TxPublisher;
use dpdk_sys as sys;
use dpdk_sys::rte_mbuf;
use kopi_ring::layout::{MIN_FRAME, Notes};
use kopi_ring::{PeerFault, Producer};
use std::ffi::{c_int, c_void};
use std::ops::RangeInclusive;
use std::sync::Arc;

/// One TX queue, as ethdev hands it to the burst function. Only one thread may use it at a time.
#[derive(Debug)]
#[repr(C, align(128))]
pub(crate) struct TxQueue {
    publisher: Option<Box<TxPublisher>>,
    shared: Arc<RingSlot<TxPublisher>>,
    /// The application promises that all packets come from one pool and are not shared.
    fast_free: bool,
    /// The ring end of a daemon that broke the contract, until it can be retired.
    broken: Option<Box<TxPublisher>>,
    config: TxConfig,
}

/// How a queue was set up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TxConfig {
    /// Slots in the ring.
    pub(crate) descriptors: u16,
    /// The effective offloads.
    pub(crate) offloads: u64,
}

/// What one burst did.
#[derive(Debug, Default)]
struct Burst {
    /// Packets completed: sent or dropped.
    completed: usize,
    /// Packets put into the ring.
    sent: u64,
    /// Their bytes.
    bytes: u64,
    /// Whether some packet had several segments.
    segmented: bool,
    fault: Option<PeerFault>,
}

/// What became of one packet.
enum Fate {
    /// So many bytes.
    Sent(u32),
    Dropped,
    /// The ring has no room for it.
    Full,
}

impl TxQueue {
    /// A queue without ring.
    pub(crate) fn new(config: TxConfig) -> Self {
        let fast_free = config.offloads & sys::RTE_ETH_TX_OFFLOAD_MBUF_FAST_FREE != 0;
        Self { publisher: None, shared: Arc::new(RingSlot::new()), fast_free, broken: None, config }
    }

    /// What the queue shares with the control thread.
    pub(crate) const fn shared(&self) -> &Arc<RingSlot<TxPublisher>> {
        &self.shared
    }

    /// How it was set up.
    pub(crate) const fn config(&self) -> &TxConfig {
        &self.config
    }

    /// Drops its rings. The application does not send now, and the control thread offers no ring.
    pub(crate) fn reset(&mut self) {
        self.shared.set_away();
        self.shared.collect();
        self.publisher = None;
        self.broken = None;
    }

    /// Sends packets from the front on, and returns how many are completed. Those are freed; the ring had no room for the rest.
    #[inline]
    fn send(&mut self, packets: &mut [*mut rte_mbuf]) -> u16 {
        if !self.shared.is_calm() {
            self.shared.swap(&mut self.publisher, &mut self.broken);
            if self.shared.is_away() {
                self.shared.retire(&mut self.publisher, &mut self.broken);
                return 0;
            }
            if self.shared.is_down() {
                return 0;
            }
        }
        let Some(publisher) = &mut self.publisher else { return 0 };
        let burst = fill(&mut publisher.ring, &self.shared, packets);
        if burst.sent > 0 {
            publisher.publish();
            self.shared.counters().packets.add(burst.sent);
            self.shared.counters().bytes.add(burst.bytes);
        }
        if let Some(fault) = burst.fault {
            self.broken = self.publisher.take();
            self.shared.report(fault);
        }
        if let Some(completed) = packets.get_mut(..burst.completed) {
            free(completed, self.fast_free && !burst.segmented);
        }
        u16::try_from(burst.completed).unwrap_or(u16::MAX)
    }

    /// Slots that can be filled now. In a ring that no burst has seen yet, that is all of them.
    fn room(&mut self) -> u32 {
        if self.shared.is_away() || self.shared.is_down() {
            return 0;
        }
        if self.shared.is_offered() {
            return self.config.descriptors.into();
        }
        self.publisher.as_mut().and_then(|publisher| publisher.ring.free(u32::MAX).ok()).unwrap_or(0)
    }
}

impl Drop for TxQueue {
    fn drop(&mut self) {
        self.reset();
    }
}

/// Reads one field of a packet's description, and no byte beside it: the count of references may be changed at any
/// time by others who share the packet, so no reference to the whole description may exist.
macro_rules! read {
    ($mbuf:expr, $field:ident) => {{
        let mbuf: *const rte_mbuf = $mbuf;
        // SAFETY: the application gives us valid packets, and nobody changes this field of them during the call.
        unsafe { (*mbuf).$field }
    }};
}

/// Copies packets into the ring until it is full.
#[inline]
fn fill(ring: &mut Producer, shared: &RingSlot<TxPublisher>, packets: &[*mut rte_mbuf]) -> Burst {
    let mut burst = Burst::default();
    let max_frame = shared.max_frame();
    if let &[mbuf] = packets
        && let Some(frame) = plain(mbuf, MIN_FRAME..=max_frame)
        && matches!(ring.free(1), Ok(1..))
        && ring.push(frame, Notes::NONE)
    {
        // The short way for bursts of one.
        return Burst { completed: 1, sent: 1, bytes: frame.len() as u64, ..burst };
    }
    match ring.free(u32::try_from(packets.len()).unwrap_or(u32::MAX)) {
        Ok(0) => return burst,
        Ok(_) => {}
        Err(fault) => return Burst { fault: Some(fault), ..burst },
    }
    loop {
        fill_plain(ring, max_frame, packets, &mut burst);
        let Some(&odd) = packets.get(burst.completed) else { return burst };
        match send_odd(ring, odd, max_frame, shared.counters()) {
            Ok(Fate::Sent(bytes)) => {
                burst.sent = burst.sent.wrapping_add(1);
                burst.bytes = burst.bytes.wrapping_add(bytes.into());
            }
            Ok(Fate::Dropped) => {}
            Ok(Fate::Full) => return burst,
            Err(fault) => return Burst { fault: Some(fault), ..burst },
        }
        burst.segmented |= read!(odd, nb_segs) != 1;
        burst.completed = burst.completed.wrapping_add(1);
    }
}

/// Sends the next packets that lie in one segment and fit one slot, until there is something else or no slot is known to be free.
#[inline]
fn fill_plain(ring: &mut Producer, max_frame: u32, packets: &[*mut rte_mbuf], burst: &mut Burst) {
    let packets = packets.get(burst.completed..).unwrap_or_default();
    let lengths = MIN_FRAME..=max_frame.min(ring.slot_size());
    let mut bytes = 0_u64;
    // Exactly those that the ring takes, for their bytes are counted here.
    let frames = packets.iter().take(ring.known_free() as usize).map_while(|&mbuf| {
        let frame = plain(mbuf, lengths.clone())?;
        bytes = bytes.wrapping_add(frame.len() as u64);
        Some((frame, Notes::NONE))
    });
    let sent = ring.push_run(frames);
    burst.completed = burst.completed.wrapping_add(sent as usize);
    burst.sent = burst.sent.wrapping_add(sent.into());
    burst.bytes = burst.bytes.wrapping_add(bytes);
}

/// The bytes of a packet that lies in one segment, of one of these lengths.
#[inline]
fn plain<'a>(mbuf: *const rte_mbuf, lengths: RangeInclusive<u32>) -> Option<&'a [u8]> {
    if read!(mbuf, nb_segs) == 1 && lengths.contains(&read!(mbuf, data_len).into()) {
        // SAFETY: a valid packet of the application's, which it leaves alone during the call.
        Some(unsafe { data(mbuf) })
    } else {
        None
    }
}

/// Sends or drops a packet that is not a plain one, or for which no slot was known to be free.
#[cold]
fn send_odd(
    ring: &mut Producer,
    mbuf: *const rte_mbuf,
    max_frame: u32,
    counters: &Counters,
) -> Result<Fate, PeerFault> {
    let len = read!(mbuf, pkt_len);
    if len < MIN_FRAME {
        counters.runt.add(1);
        return Ok(Fate::Dropped);
    }
    if len > max_frame {
        counters.oversize.add(1);
        return Ok(Fate::Dropped);
    }
    let slots = ring.slots_for(len);
    if slots <= ring.size() && ring.free(slots)? < slots {
        return Ok(Fate::Full);
    }
    if let Some(mut frame) = ring.begin(len, Notes::NONE) {
        let mut next = mbuf;
        let mut whole = true;
        while whole && !next.is_null() {
            // SAFETY: the segments of a valid packet are valid.
            whole = frame.append(unsafe { data(next) });
            next = read!(next, next);
        }
        if whole && frame.finish() {
            return Ok(Fate::Sent(len));
        }
    }
    counters.malformed.add(1);
    Ok(Fate::Dropped)
}

/// The bytes of a segment.
///
/// # Safety
///
/// A valid segment, whose bytes nobody changes as long as the result lives.
#[inline]
unsafe fn data<'a>(mbuf: *const rte_mbuf) -> &'a [u8] {
    let len = usize::from(read!(mbuf, data_len));
    // A segment without bytes may have no buffer either.
    if len == 0 {
        return &[];
    }
    let begin = read!(mbuf, buf_addr).cast::<u8>().cast_const().wrapping_add(read!(mbuf, data_off).into());
    // SAFETY: the application vouches for the data of its packet, and leaves it alone during the call.
    unsafe { std::slice::from_raw_parts(begin, len) }
}

/// Gives packets back to their pools. `one_pool` says that all of them can go to that of the first one as they are.
#[inline]
fn free(packets: &mut [*mut rte_mbuf], one_pool: bool) {
    let count = u32::try_from(packets.len()).unwrap_or(0);
    let Some(&first) = packets.first() else { return };
    if one_pool {
        let pool = read!(first, pool);
        // SAFETY: all packets are unshared, direct, of one segment and of this pool, as they were when they came from it.
        unsafe { sys::kopi_mempool_put_bulk(pool, packets.as_ptr().cast(), count) };
    } else {
        // SAFETY: `count` valid packets that are ours now.
        unsafe { sys::kopi_pktmbuf_return_bulk(packets.as_mut_ptr(), count) };
    }
}

/// The burst function.
///
/// # Safety
///
/// As ethdev calls it: `queue` is a [`TxQueue`] that no other thread uses now, `packets` are `n` valid packets.
pub(crate) unsafe extern "C" fn burst(queue: *mut c_void, packets: *mut *mut rte_mbuf, n: u16) -> u16 {
    // SAFETY: the queue belongs to this thread during the call.
    let queue = unsafe { &mut *queue.cast::<TxQueue>() };
    if n == 0 {
        return 0;
    }
    // SAFETY: an array of `n` pointers, which nobody else uses during the call.
    let packets = unsafe { std::slice::from_raw_parts_mut(packets, n.into()) };
    queue.send(packets)
}

/// Whether the slot `offset` places after the next one to be filled is free.
///
/// # Safety
///
/// As for [`burst`].
pub(crate) unsafe extern "C" fn descriptor_status(queue: *mut c_void, offset: u16) -> c_int {
    // SAFETY: the queue belongs to this thread during the call.
    let queue = unsafe { &mut *queue.cast::<TxQueue>() };
    if offset >= queue.config.descriptors {
        return code(libc::EINVAL);
    }
    let free = u32::from(offset) < queue.room();
    status(if free { sys::RTE_ETH_TX_DESC_DONE } else { sys::RTE_ETH_TX_DESC_FULL })
}

#[cfg(test)]
mod tests;
