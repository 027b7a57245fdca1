//! The sending side: a TX queue and its burst function.

use crate::counters::Counters;
use crate::errno::{code, status};
use crate::held::{Held, free};
use crate::ring_slot::RingSlot;
use crate::sys;
use crate::sys::rte_mbuf;
use crate::tx_publisher::TxPublisher;
use kopi_ring::layout::{HEAD, MIN_FRAME, Notes};
use kopi_ring::{PeerFault, Producer};
use offload::{Job, Offloads};
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
    offloads: Offloads,
    /// The ring end of a daemon that broke the contract, until it can be retired.
    broken: Option<Box<TxPublisher>>,
    /// What the daemon reads from where it lies.
    held: Held,
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
    /// Of these, how many from the front on are freed already, or held.
    settled: usize,
    /// Packets of which only the head was copied.
    by_reference: u64,
    /// Frames put into the ring.
    sent: u64,
    /// Their bytes.
    bytes: u64,
    /// Whether some packet had several segments.
    segmented: bool,
    fault: Option<PeerFault>,
}

/// What became of one packet.
enum Fate {
    /// Copied into the ring, as so many frames with so many bytes in all.
    Sent {
        frames: u32,
        bytes: u64,
    },
    /// Put into the ring as one frame at this position, which refers to it.
    Referred {
        bytes: u64,
        position: u32,
    },
    Dropped,
    /// The ring has no room for it.
    Full,
}

impl TxQueue {
    /// A queue without ring.
    pub(crate) fn new(config: TxConfig) -> Self {
        let fast_free = config.offloads & sys::RTE_ETH_TX_OFFLOAD_MBUF_FAST_FREE != 0;
        let offloads = Offloads::new(config.offloads);
        let held = Held::new(config.descriptors);
        Self { publisher: None, shared: Arc::new(RingSlot::new()), fast_free, offloads, broken: None, held, config }
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
        self.let_go();
        self.publisher = None;
        self.broken = None;
    }

    /// Frees what is held. The daemon may be one that has only not answered in time, and still read the ring, so this comes
    /// before the ring goes.
    #[cold]
    fn let_go(&mut self) {
        let publisher = self.publisher.as_deref_mut().or(self.broken.as_deref_mut());
        self.held.revoke(publisher.map(|publisher| &mut publisher.ring));
        self.held.forget_pool();
    }

    /// Takes up what the control thread has changed, and returns whether to send.
    #[cold]
    #[inline(never)]
    fn update(&mut self) -> bool {
        self.shared.forget_changed();
        // A daemon that is away, or has made another ring, is to read nothing any more that was sent by the ring before.
        if self.shared.is_away() || self.shared.has_offer() {
            self.let_go();
            self.shared.swap(&mut self.publisher, &mut self.broken);
        }
        if self.shared.is_down()
            && let Some(publisher) = &mut self.publisher
        {
            // The daemon goes on reading what was sent before.
            self.held.clean(&mut publisher.ring, usize::MAX, self.fast_free);
        }
        if self.shared.is_away() {
            self.shared.retire(&mut self.publisher, &mut self.broken);
        }
        !self.shared.is_away() && !self.shared.is_down()
    }

    /// Sends packets from the front on, and returns how many are completed. Those are freed, at once or when the daemon has read
    /// them; the ring had no room for the rest.
    #[inline]
    fn send(&mut self, packets: &mut [*mut rte_mbuf]) -> u16 {
        if !self.offloads.is_empty() {
            self.send_many::<true>(packets)
        } else if packets.len() == 1 && self.send_one(packets) {
            1
        } else {
            self.send_many::<false>(packets)
        }
    }

    /// The short way for bursts of one: a packet that is copied as a whole, while nothing else is to be done. Whether it was.
    #[inline]
    fn send_one(&mut self, packets: &mut [*mut rte_mbuf]) -> bool {
        if let &mut [mbuf] = packets
            && self.shared.is_calm()
            && self.held.is_empty()
            && let Some(publisher) = &mut self.publisher
            && let Some(frame) = plain(mbuf, MIN_FRAME..=publisher.longest(self.shared.max_frame()), None)
            && matches!(publisher.ring.free(1), Ok(1..))
            && publisher.ring.push(frame, Notes::NONE)
        {
            let bytes = frame.len() as u64;
            publisher.publish();
            self.shared.counters().packets.add(1);
            self.shared.counters().bytes.add(bytes);
            free(packets, self.fast_free);
            return true;
        }
        false
    }

    /// `OFFLOADS` says whether packets may ask for something, so that a queue on which none can pays nothing for those that do.
    #[inline(never)]
    fn send_many<const OFFLOADS: bool>(&mut self, packets: &mut [*mut rte_mbuf]) -> u16 {
        if !self.shared.is_calm() && !self.update() {
            return 0;
        }
        let Some(publisher) = &mut self.publisher else { return 0 };
        if !self.held.is_empty() {
            // A fault is met again below, by who asks for room.
            let _released = self.held.release(&mut publisher.ring, self.fast_free);
        }
        let burst = fill::<OFFLOADS>(publisher, &mut self.held, &self.shared, packets, self.fast_free, self.offloads);
        if burst.sent > 0 {
            publisher.publish();
            self.shared.counters().packets.add(burst.sent);
            self.shared.counters().bytes.add(burst.bytes);
            if burst.by_reference > 0 {
                self.shared.counters().by_reference.add(burst.by_reference);
            }
        }
        if let Some(fault) = burst.fault {
            self.broken = self.publisher.take();
            self.shared.report(fault);
        }
        if let Some(completed) = packets.get_mut(burst.settled..burst.completed) {
            free(completed, self.fast_free && !burst.segmented);
        }
        u16::try_from(burst.completed).unwrap_or(u16::MAX)
    }

    /// Frees up to `most` packets that the daemon has read, and returns how many.
    fn clean(&mut self, most: usize) -> usize {
        if !self.shared.is_calm() && !self.update() && self.shared.is_away() {
            return 0;
        }
        let one_pool = self.fast_free;
        self.publisher.as_mut().map_or(0, |publisher| self.held.clean(&mut publisher.ring, most, one_pool))
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

/// Puts packets into the ring until it is full. `fast_free` says how they may be freed, `offloads` what they may ask for.
#[inline]
fn fill<const OFFLOADS: bool>(
    publisher: &mut TxPublisher,
    held: &mut Held,
    shared: &RingSlot<TxPublisher>,
    packets: &mut [*mut rte_mbuf],
    fast_free: bool,
    offloads: Offloads,
) -> Burst {
    let offloads = OFFLOADS.then_some(offloads);
    let mut burst = Burst::default();
    let max_frame = shared.max_frame();
    let longest = publisher.longest(max_frame);
    match publisher.ring.free(u32::try_from(packets.len()).unwrap_or(u32::MAX)) {
        Ok(0) => return burst,
        Ok(_) => {}
        Err(fault) => return Burst { fault: Some(fault), ..burst },
    }
    let mut job = Job::default();
    loop {
        let Some(&next) = packets.get(burst.completed) else { return burst };
        let (odd, fate);
        if let Some(offloads) = offloads.filter(|offloads| offloads.concern(next)) {
            let lengths = MIN_FRAME..=longest.min(publisher.ring.slot_size());
            if let Some(bytes) = offload::send_short(&mut publisher.ring, next, &lengths, offloads) {
                burst.sent = burst.sent.wrapping_add(1);
                burst.bytes = burst.bytes.wrapping_add(bytes);
                burst.completed = burst.completed.wrapping_add(1);
                continue;
            }
            odd = next;
            fate = offload::send(publisher, held, shared, odd, offloads, &mut job);
        } else {
            fill_plain::<OFFLOADS>(&mut publisher.ring, longest, packets, &mut burst, offloads);
            let Some(&next) = packets.get(burst.completed) else { return burst };
            if offloads.is_some_and(|offloads| offloads.concern(next))
                || publisher.memory.is_some()
                    && fill_long::<OFFLOADS>(publisher, held, max_frame, packets, &mut burst, fast_free, offloads)
            {
                continue;
            }
            odd = next;
            fate = send_odd(&mut publisher.ring, odd, max_frame, shared.counters());
        }
        match fate {
            Ok(Fate::Sent { frames, bytes }) => {
                burst.sent = burst.sent.wrapping_add(frames.into());
                burst.bytes = burst.bytes.wrapping_add(bytes);
            }
            Ok(Fate::Referred { bytes, position }) => {
                burst.hold(held, packets, position, fast_free);
                burst.sent = burst.sent.wrapping_add(1);
                burst.bytes = burst.bytes.wrapping_add(bytes);
            }
            Ok(Fate::Dropped) => {}
            Ok(Fate::Full) => return burst,
            Err(fault) => return Burst { fault: Some(fault), ..burst },
        }
        burst.segmented |= read!(odd, nb_segs) != 1;
        burst.completed = burst.completed.wrapping_add(1);
    }
}

impl Burst {
    /// Holds the next packet, to which the slot at `position` refers. Those before it that were copied are freed.
    #[inline]
    fn hold(&mut self, held: &mut Held, packets: &mut [*mut rte_mbuf], position: u32, fast_free: bool) {
        if let Some(copied) = packets.get_mut(self.settled..self.completed) {
            free(copied, fast_free && !self.segmented);
        }
        if let Some(&packet) = packets.get(self.completed) {
            held.push(packet, position);
        }
        self.settled = self.completed.wrapping_add(1);
        self.by_reference = self.by_reference.wrapping_add(1);
    }
}

/// Copies the next packets that lie in one segment, have at most `longest` bytes and fit one slot, until there is something else
/// or no slot is known to be free.
#[inline]
fn fill_plain<const OFFLOADS: bool>(
    ring: &mut Producer,
    longest: u32,
    packets: &[*mut rte_mbuf],
    burst: &mut Burst,
    offloads: Option<Offloads>,
) {
    // Known when compiled to be none, where there are none.
    let offloads = offloads.filter(|_| OFFLOADS);
    let packets = packets.get(burst.completed..).unwrap_or_default();
    let lengths = MIN_FRAME..=longest.min(ring.slot_size());
    let mut bytes = 0_u64;
    // Exactly those that the ring takes, for their bytes are counted here.
    let frames = packets.iter().take(ring.known_free() as usize).map_while(|&mbuf| {
        let frame = plain(mbuf, lengths.clone(), offloads)?;
        bytes = bytes.wrapping_add(frame.len() as u64);
        Some((frame, Notes::NONE))
    });
    let sent = ring.push_run(frames);
    burst.completed = burst.completed.wrapping_add(sent as usize);
    burst.sent = burst.sent.wrapping_add(sent.into());
    burst.bytes = burst.bytes.wrapping_add(bytes);
}

/// Sends the next packets that lie in one segment and have more bytes than a head: by reference where the daemon can read them, and
/// by a copy where it cannot, or where too many are held. Until there is something else or no slot is known to be free; returns
/// whether any was sent.
#[inline(never)]
fn fill_long<const OFFLOADS: bool>(
    publisher: &mut TxPublisher,
    held: &mut Held,
    max_frame: u32,
    packets: &mut [*mut rte_mbuf],
    burst: &mut Burst,
    fast_free: bool,
    offloads: Option<Offloads>,
) -> bool {
    let TxPublisher { ring, memory, last, .. } = publisher;
    let Some(memory) = memory else { return false };
    let lengths = u32::from(HEAD).saturating_add(1)..=max_frame;
    // Known when compiled to be none, where there are none.
    let offloads = offloads.filter(|_| OFFLOADS);
    let begun = burst.completed;
    while let Some(&mbuf) = packets.get(burst.completed) {
        let Some(frame) = plain(mbuf, lengths.clone(), offloads) else { break };
        let (head, rest) = frame.split_at(frame.len().min(HEAD.into()));
        let (position, length) = (ring.position(), u16::try_from(frame.len()).unwrap_or(0));
        let shared =
            memory.find(rest.as_ptr(), rest.len(), last).filter(|_| owns_buffer(mbuf) && held.takes(read!(mbuf, pool)));
        if let Some(at) = shared {
            if !ring.push_reference(head, length, at) {
                break;
            }
            burst.hold(held, packets, position, fast_free);
        } else if ring.push_run(std::iter::once((frame, Notes::NONE))) == 0 {
            // No slot is known to be free, or it takes several.
            break;
        }
        burst.completed = burst.completed.wrapping_add(1);
        burst.sent = burst.sent.wrapping_add(1);
        burst.bytes = burst.bytes.wrapping_add(length.into());
    }
    burst.completed != begun
}

/// Whether a packet's bytes lie in its own buffer. Those of any other are of another packet, whose pool may have few, or of the
/// application, which may wait for them.
#[inline]
fn owns_buffer(mbuf: *const rte_mbuf) -> bool {
    read!(mbuf, ol_flags) & (sys::RTE_MBUF_F_INDIRECT | sys::RTE_MBUF_F_EXTERNAL) == 0
}

/// The bytes of a packet that lies in one segment, of one of these lengths, and asks for none of `offloads`.
#[inline]
fn plain<'a>(mbuf: *const rte_mbuf, lengths: RangeInclusive<u32>, offloads: Option<Offloads>) -> Option<&'a [u8]> {
    if read!(mbuf, nb_segs) == 1
        && lengths.contains(&read!(mbuf, data_len).into())
        && offloads.is_none_or(|offloads| !offloads.concern(mbuf))
    {
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
            return Ok(Fate::Sent { frames: 1, bytes: len.into() });
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

/// Frees up to `most` packets that the daemon has read, all of those if that is 0, and returns how many.
///
/// # Safety
///
/// As for [`burst`].
pub(crate) unsafe extern "C" fn done_cleanup(queue: *mut c_void, most: u32) -> c_int {
    // SAFETY: null, or a queue that belongs to this thread during the call.
    let Some(queue) = (unsafe { queue.cast::<TxQueue>().as_mut() }) else { return code(libc::EINVAL) };
    let most = if most == 0 { usize::MAX } else { most as usize };
    c_int::try_from(queue.clean(most)).unwrap_or(c_int::MAX)
}

mod offload;
#[cfg(test)]
mod offload_tests;
#[cfg(test)]
mod reference_tests;
#[cfg(test)]
mod tests;
