//! The sending side: a TX queue and its burst function.

use crate::handoff::{Counters, Handoff};
use dpdk_sys as sys;
use dpdk_sys::rte_mbuf;
use kopi_ring::layout::{MIN_FRAME, Notes};
use kopi_ring::{PeerFault, Producer};
use std::ffi::{c_int, c_void};
use std::sync::Arc;

/// One TX queue, as ethdev hands it to the burst function. Only one thread may use it at a time.
#[derive(Debug)]
#[repr(C, align(128))]
pub(crate) struct TxQueue {
    ring: Option<Box<Producer>>,
    shared: Arc<Handoff<Producer>>,
    /// The application promises that all packets come from one pool and are not shared.
    fast_free: bool,
    /// The ring end of a daemon that broke the contract, until it can be put aside.
    spent: Option<Box<Producer>>,
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
    /// Packets done with, sent or dropped.
    done: usize,
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
    Sent,
    Dropped,
    /// The ring has no room for it.
    Full,
}

impl TxQueue {
    /// A queue without ring.
    pub(crate) fn new(config: TxConfig) -> Self {
        let fast_free = config.offloads & sys::RTE_ETH_TX_OFFLOAD_MBUF_FAST_FREE != 0;
        Self { ring: None, shared: Arc::new(Handoff::new()), fast_free, spent: None, config }
    }

    /// What the queue shares with the control thread.
    pub(crate) const fn shared(&self) -> &Arc<Handoff<Producer>> {
        &self.shared
    }

    /// How it was set up.
    pub(crate) const fn config(&self) -> &TxConfig {
        &self.config
    }

    /// Lets go of rings. The application does not send now, and the control thread makes no offer.
    pub(crate) fn reset(&mut self) {
        self.shared.set_away();
        self.shared.collect();
        self.ring = None;
        self.spent = None;
    }

    /// Sends packets from the front on, and returns how many it is done with. Those are freed; the ring had no room for
    /// the rest.
    #[inline]
    fn send(&mut self, packets: &mut [*mut rte_mbuf]) -> u16 {
        if !self.shared.is_calm() {
            self.shared.take(&mut self.ring, &mut self.spent);
            if self.shared.is_away() {
                return 0;
            }
        }
        let Some(ring) = &mut self.ring else { return 0 };
        let burst = fill(ring, &self.shared, packets);
        if burst.sent > 0 {
            ring.publish();
            self.shared.counters().packets.add(burst.sent);
            self.shared.counters().bytes.add(burst.bytes);
        }
        if let Some(fault) = burst.fault {
            self.spent = self.ring.take();
            self.shared.report(fault);
        }
        if let Some(done) = packets.get_mut(..burst.done) {
            free(done, self.fast_free && !burst.segmented);
        }
        u16::try_from(burst.done).unwrap_or(u16::MAX)
    }

    /// Slots that can be filled now.
    fn room(&mut self) -> u32 {
        self.ring.as_mut().and_then(|ring| ring.free(u32::MAX).ok()).unwrap_or(0)
    }
}

impl Drop for TxQueue {
    fn drop(&mut self) {
        self.reset();
    }
}

/// Copies packets into the ring until it is full.
#[inline]
fn fill(ring: &mut Producer, shared: &Handoff<Producer>, packets: &[*mut rte_mbuf]) -> Burst {
    let mut burst = Burst::default();
    match ring.free(u32::try_from(packets.len()).unwrap_or(u32::MAX)) {
        Ok(0) => return burst,
        Ok(_) => {}
        Err(fault) => return Burst { fault: Some(fault), ..burst },
    }
    let max_frame = shared.max_frame();
    for packet in packets {
        // SAFETY: the application gives us valid packets of which no other thread changes the description.
        let mbuf = unsafe { &**packet };
        let len = u32::from(mbuf.data_len);
        let plain = mbuf.nb_segs == 1 && (MIN_FRAME..=max_frame).contains(&len);
        let fate = if plain && ring.push(data(mbuf), Notes::NONE) {
            burst.bytes = burst.bytes.wrapping_add(len.into());
            Fate::Sent
        } else {
            burst.segmented |= mbuf.nb_segs != 1;
            match send_odd(ring, mbuf, max_frame, shared.counters()) {
                Ok((fate, bytes)) => {
                    burst.bytes = burst.bytes.wrapping_add(bytes.into());
                    fate
                }
                Err(fault) => {
                    burst.fault = Some(fault);
                    break;
                }
            }
        };
        match fate {
            Fate::Sent => burst.sent = burst.sent.wrapping_add(1),
            Fate::Dropped => {}
            Fate::Full => break,
        }
        burst.done = burst.done.wrapping_add(1);
    }
    burst
}

/// Sends or drops a packet that is not a plain one, or for which no slot was known to be free.
#[cold]
fn send_odd(
    ring: &mut Producer,
    mbuf: &rte_mbuf,
    max_frame: u32,
    counters: &Counters,
) -> Result<(Fate, u32), PeerFault> {
    let len = mbuf.pkt_len;
    if len < MIN_FRAME {
        counters.runt.add(1);
        return Ok((Fate::Dropped, 0));
    }
    if len > max_frame {
        counters.oversize.add(1);
        return Ok((Fate::Dropped, 0));
    }
    let slots = ring.slots_for(len);
    if slots <= ring.size() && ring.free(slots)? < slots {
        return Ok((Fate::Full, 0));
    }
    if let Some(mut frame) = ring.begin(len, Notes::NONE) {
        let mut next: *const rte_mbuf = mbuf;
        let mut whole = true;
        while whole && !next.is_null() {
            // SAFETY: the segments of a valid packet are valid.
            let segment = unsafe { &*next };
            whole = frame.append(data(segment));
            next = segment.next;
        }
        if whole && frame.finish() {
            return Ok((Fate::Sent, len));
        }
    }
    counters.malformed.add(1);
    Ok((Fate::Dropped, 0))
}

/// The bytes of a segment.
#[inline]
fn data(mbuf: &rte_mbuf) -> &[u8] {
    let begin = mbuf.buf_addr.cast::<u8>().cast_const().wrapping_add(mbuf.data_off.into());
    // SAFETY: the application vouches for the data of its packet, and leaves it alone during the call.
    unsafe { std::slice::from_raw_parts(begin, mbuf.data_len.into()) }
}

/// Gives packets back to their pools.
#[inline]
fn free(packets: &mut [*mut rte_mbuf], one_pool: bool) {
    let count = u32::try_from(packets.len()).unwrap_or(0);
    let Some(&first) = packets.first() else { return };
    if one_pool {
        // SAFETY: a valid packet that is ours now.
        let pool = unsafe { (*first).pool };
        // SAFETY: the application has promised that all packets are unshared, direct and of this pool; all of them have
        // one segment, as they had when they came from the pool.
        unsafe { sys::kopi_mempool_put_bulk(pool, packets.as_ptr().cast(), count) };
    } else {
        // SAFETY: `count` valid packets that are ours now.
        unsafe { sys::rte_pktmbuf_free_bulk(packets.as_mut_ptr(), count) };
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
        return crate::ops::code(libc::EINVAL);
    }
    let free = u32::from(offset) < queue.room();
    crate::ops::status(if free { sys::RTE_ETH_TX_DESC_DONE } else { sys::RTE_ETH_TX_DESC_FULL })
}
