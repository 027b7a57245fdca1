//! Packets of which the application leaves something to its port: they are finished while they are copied, so that the ring has frames
//! as they are on the wire. The application's own buffers are only read.

use super::{Fate, data, owns_buffer};
use crate::held::Held;
use crate::ring_slot::RingSlot;
use crate::sys;
use crate::sys::rte_mbuf;
use crate::tx_publisher::TxPublisher;
pub(super) use kopi_packet::offload::Job;
use kopi_packet::offload::{OffloadRequest, Short, Transport};
use kopi_packet::segment::MAX_HEADERS;
use kopi_ring::layout::{HEAD, MIN_FRAME, Notes};
use kopi_ring::{PeerFault, Producer, Slots};
use std::ops::RangeInclusive;

/// What a queue does for packets that ask for it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Offloads {
    /// As in the queue's configuration.
    configured: u64,
    /// The flags of packets that ask for any of it.
    flags: u64,
}

/// Offloads, and the flags by which packets ask for them.
const FLAGS: [(u64, u64); 7] = [
    (sys::RTE_ETH_TX_OFFLOAD_VLAN_INSERT, sys::RTE_MBUF_F_TX_VLAN),
    (sys::RTE_ETH_TX_OFFLOAD_QINQ_INSERT, sys::RTE_MBUF_F_TX_QINQ),
    (sys::RTE_ETH_TX_OFFLOAD_IPV4_CKSUM, sys::RTE_MBUF_F_TX_IP_CKSUM),
    (sys::RTE_ETH_TX_OFFLOAD_TCP_CKSUM, sys::RTE_MBUF_F_TX_TCP_CKSUM),
    (sys::RTE_ETH_TX_OFFLOAD_UDP_CKSUM, sys::RTE_MBUF_F_TX_UDP_CKSUM),
    (sys::RTE_ETH_TX_OFFLOAD_SCTP_CKSUM, sys::RTE_MBUF_F_TX_SCTP_CKSUM),
    (sys::RTE_ETH_TX_OFFLOAD_TCP_TSO, sys::RTE_MBUF_F_TX_TCP_SEG),
];

impl Offloads {
    /// Of a queue with these offloads.
    pub(super) fn new(configured: u64) -> Self {
        let flags = FLAGS.iter().filter(|(offload, _)| configured & offload != 0).fold(0, |all, (_, flag)| all | flag);
        Self { configured, flags }
    }

    /// Whether there are none.
    #[inline]
    pub(super) const fn is_empty(self) -> bool {
        self.flags == 0
    }

    /// Whether the packet may ask for something.
    #[inline]
    pub(super) fn concern(self, mbuf: *const rte_mbuf) -> bool {
        read!(mbuf, ol_flags) & self.flags != 0
    }

    /// What a packet asks for that asks for checksums alone, that of TCP or UDP among them.
    #[inline]
    fn request_sums(self, mbuf: *const rte_mbuf) -> Option<OffloadRequest> {
        const OTHERS: u64 = sys::RTE_MBUF_F_TX_VLAN | sys::RTE_MBUF_F_TX_QINQ | sys::RTE_MBUF_F_TX_TCP_SEG;
        let (flags, lengths) = (read!(mbuf, ol_flags), read!(mbuf, tx_offload));
        let does = |offload: u64| self.configured & offload != 0;
        let transport = match flags & sys::RTE_MBUF_F_TX_L4_MASK {
            sys::RTE_MBUF_F_TX_TCP_CKSUM if does(sys::RTE_ETH_TX_OFFLOAD_TCP_CKSUM) => Transport::Tcp,
            sys::RTE_MBUF_F_TX_UDP_CKSUM if does(sys::RTE_ETH_TX_OFFLOAD_UDP_CKSUM) => Transport::Udp,
            _ => return None,
        };
        if flags & self.flags & OTHERS != 0 {
            return None;
        }
        let (l2, l3) = layers(lengths);
        let ipv4_checksum = flags & self.flags & sys::RTE_MBUF_F_TX_IP_CKSUM != 0;
        Some(OffloadRequest { l2, l3, ipv4_checksum, transport: Some(transport), ..OffloadRequest::default() })
    }

    /// What the packet asks for, as far as the queue does it.
    #[inline]
    fn request(self, mbuf: *const rte_mbuf) -> OffloadRequest {
        let (flags, lengths) = (read!(mbuf, ol_flags), read!(mbuf, tx_offload));
        let does = |offload: u64| self.configured & offload != 0;
        let asks = |offload: u64, flag: u64| does(offload) && flags & flag != 0;
        let (l2, l3) = layers(lengths);
        let transport = match flags & sys::RTE_MBUF_F_TX_L4_MASK {
            sys::RTE_MBUF_F_TX_TCP_CKSUM if does(sys::RTE_ETH_TX_OFFLOAD_TCP_CKSUM) => Some(Transport::Tcp),
            sys::RTE_MBUF_F_TX_UDP_CKSUM if does(sys::RTE_ETH_TX_OFFLOAD_UDP_CKSUM) => Some(Transport::Udp),
            sys::RTE_MBUF_F_TX_SCTP_CKSUM if does(sys::RTE_ETH_TX_OFFLOAD_SCTP_CKSUM) => Some(Transport::Sctp),
            _ => None,
        };
        let two = asks(sys::RTE_ETH_TX_OFFLOAD_QINQ_INSERT, sys::RTE_MBUF_F_TX_QINQ);
        let one = two || asks(sys::RTE_ETH_TX_OFFLOAD_VLAN_INSERT, sys::RTE_MBUF_F_TX_VLAN);
        OffloadRequest {
            l2,
            l3,
            l4: usize::try_from(lengths >> 16 & 0xff).unwrap_or(0),
            ipv4_checksum: asks(sys::RTE_ETH_TX_OFFLOAD_IPV4_CKSUM, sys::RTE_MBUF_F_TX_IP_CKSUM),
            transport,
            segment: asks(sys::RTE_ETH_TX_OFFLOAD_TCP_TSO, sys::RTE_MBUF_F_TX_TCP_SEG)
                .then(|| u16::try_from(lengths >> 24 & 0xffff).unwrap_or(0)),
            service_tag: two.then(|| read!(mbuf, vlan_tci_outer)),
            tag: one.then(|| read!(mbuf, vlan_tci)),
        }
    }
}

/// The bytes of an Ethernet header, and of IP's, out of bit fields of DPDK's: of 7, 9, 8 and 16 bits.
#[inline]
fn layers(lengths: u64) -> (usize, usize) {
    let part = |from: u32, bits: u64| usize::try_from(lengths >> from & bits).unwrap_or(0);
    (part(0, 0x7f), part(7, 0x1ff))
}

/// The short way for most packets: one segment, in one slot, with checksums alone, of one of these lengths. Returns its bytes, or `None`,
/// and no frame, where [`send`] has to look, also for that no slot is known to be free.
#[inline]
pub(super) fn send_short(
    ring: &mut Producer,
    mbuf: *const rte_mbuf,
    lengths: &RangeInclusive<u32>,
    offloads: Offloads,
) -> Option<u64> {
    if read!(mbuf, nb_segs) != 1 || !lengths.contains(&read!(mbuf, data_len).into()) {
        return None;
    }
    // SAFETY: a valid packet of the application's, which it leaves alone during the call.
    let frame = unsafe { data(mbuf) };
    let short = Short::of(&offloads.request_sums(mbuf)?, frame)?;
    let sent = ring.push_summing(frame, Notes::NONE, |sum| [Some(short.checksum(sum)), short.ipv4()]);
    sent.then_some(frame.len() as u64)
}

/// Finishes one packet and puts it into the ring, as one frame or as many: all of them, or none while there is no room.
#[inline(never)]
pub(super) fn send(
    publisher: &mut TxPublisher,
    held: &mut Held,
    shared: &RingSlot<TxPublisher>,
    mbuf: *const rte_mbuf,
    offloads: Offloads,
    job: &mut Job,
) -> Result<Fate, PeerFault> {
    let counters = shared.counters();
    let single = read!(mbuf, nb_segs) == 1;
    let length = if single { u32::from(read!(mbuf, data_len)) } else { read!(mbuf, pkt_len) };
    if length < MIN_FRAME {
        counters.runt.add(1);
        return Ok(Fate::Dropped);
    }
    let request = offloads.request(mbuf);
    let mut body = if single { Pieces { next: std::ptr::null(), ..Pieces::of(mbuf) } } else { Pieces::of(mbuf) };
    let started = match body.split(request.head_len()) {
        Some(head) => job.start(&request, head, length as usize),
        None => body.gather(request.head_len()).and_then(|head| job.start(&request, &head, length as usize)),
    };
    if started.is_none() {
        counters.malformed.add(1);
        return Ok(Fate::Dropped);
    };
    let Some((slots, bytes)) = room_for(job, &publisher.ring, shared.max_frame()) else {
        counters.oversize.add(1);
        return Ok(Fate::Dropped);
    };
    if publisher.ring.free(slots)? < slots {
        return Ok(Fate::Full);
    }
    if single
        && let Some(memory) = &publisher.memory
        && job.frames() == 1
        && let Some(reference) = Reference::of(job, body.here)
        && let Some(at) = memory.find(reference.rest.as_ptr(), reference.rest.len(), &mut publisher.last)
        && owns_buffer(mbuf)
        && held.takes(read!(mbuf, pool))
    {
        let position = publisher.ring.position();
        if reference.push(job, &mut publisher.ring, at) {
            return Ok(Fate::Referred { bytes, position });
        }
        counters.malformed.add(1);
        return Ok(Fate::Dropped);
    }
    match copy(job, &mut publisher.ring, body, single) {
        Some(frames) => Ok(Fate::Sent { frames, bytes }),
        None => {
            counters.malformed.add(1);
            Ok(Fate::Dropped)
        }
    }
}

/// The slots that all frames take, and their bytes. `None` if a frame is longer than the port's, or the ring too small for all.
#[inline]
fn room_for(job: &Job, ring: &Producer, max_frame: u32) -> Option<(u32, u64)> {
    let frame = |at| u32::try_from(job.head_len().saturating_add(job.body_len(at))).ok();
    let last = job.frames().saturating_sub(1);
    let (first, rest) = (frame(0)?, frame(last)?);
    if first > max_frame {
        return None;
    }
    let others = u32::try_from(last).ok()?;
    let slots = ring.slots_for(first).checked_mul(others)?.checked_add(ring.slots_for(rest))?;
    let bytes = u64::from(first).saturating_mul(others.into()).saturating_add(rest.into());
    (slots <= ring.size()).then_some((slots, bytes))
}

/// Copies all frames of a packet behind whose head `body` lies, and returns how many there are. `None`, and no frame, if its segments do
/// not add up to its length.
#[inline]
fn copy(job: &mut Job, ring: &mut Producer, mut body: Pieces<'_>, single: bool) -> Option<u32> {
    let frames = job.frames();
    // Nothing may be missing when some frames are in the ring already.
    if !single && body.clone().length() != (0..frames).fold(0, |sum: usize, at| sum.saturating_add(job.body_len(at))) {
        return None;
    }
    for at in 0..frames {
        let (head, rest) = (job.head_len(), job.body_len(at));
        job.begin(at)?;
        let mut slots = ring.begin(u32::try_from(head.saturating_add(rest)).ok()?, Notes::NONE)?;
        if !slots.leave_head(u32::try_from(head).ok()?) || !append(&mut slots, job, &mut body, rest) {
            return None;
        }
        if !slots.put_head(job.finish()) || !slots.finish() {
            return None;
        }
    }
    u32::try_from(frames).ok()
}

/// Appends the next `length` bytes of a packet to a frame. Whether there were as many.
#[inline]
fn append(slots: &mut Slots<'_>, job: &mut Job, body: &mut Pieces<'_>, mut length: usize) -> bool {
    while length > 0 {
        let Some(piece) = body.next(length) else { return false };
        length = length.saturating_sub(piece.len());
        let (covered, rest) = piece.split_at(job.uncovered().min(piece.len()));
        let done = if job.sums() {
            slots.append_summing(covered).map(|sum| job.add(sum, covered.len())).is_some()
        } else {
            job.add_bytes(covered);
            slots.append(covered)
        };
        if !done || !slots.append(rest) {
            return false;
        }
    }
    true
}

/// A frame whose head is finished in its slot, while the daemon reads the rest where it lies.
struct Reference<'a> {
    /// What lies between the headers and the rest.
    between: &'a [u8],
    rest: &'a [u8],
}

impl<'a> Reference<'a> {
    /// Of a frame with this body. `None` if the headers are longer than a head, or there is nothing behind one.
    fn of(job: &Job, body: &'a [u8]) -> Option<Self> {
        let between = usize::from(HEAD).checked_sub(job.head_len())?;
        let (between, rest) = body.split_at_checked(between)?;
        (!rest.is_empty()).then_some(Self { between, rest })
    }

    /// Puts it into the ring, where a slot is free. The rest lies `at` bytes into the window.
    fn push(&self, job: &mut Job, ring: &mut Producer, at: u64) -> bool {
        let Some(length) = job.head_len().checked_add(self.between.len()).and_then(|n| n.checked_add(self.rest.len()))
        else {
            return false;
        };
        if job.begin(0).is_none() {
            return false;
        }
        for piece in [self.between, self.rest] {
            job.add_bytes(piece.get(..job.uncovered()).unwrap_or(piece));
        }
        let mut head = [0; HEAD as usize];
        let headers = job.finish();
        let Some((to, behind)) = head.split_at_mut_checked(headers.len()) else { return false };
        to.copy_from_slice(headers);
        behind.copy_from_slice(self.between);
        ring.push_reference(&head, u16::try_from(length).unwrap_or(0), at)
    }
}

/// The bytes of a packet, piece by piece.
#[derive(Clone)]
struct Pieces<'a> {
    /// What is left of the present segment.
    here: &'a [u8],
    next: *const rte_mbuf,
}

impl<'a> Pieces<'a> {
    /// All of a packet.
    #[inline]
    fn of(mbuf: *const rte_mbuf) -> Self {
        // SAFETY: a valid packet of the application's, which it leaves alone during the call.
        Self { here: unsafe { data(mbuf) }, next: read!(mbuf, next) }
    }

    /// The next bytes, at most so many. `None` if there are no more.
    #[inline]
    fn next(&mut self, most: usize) -> Option<&'a [u8]> {
        while self.here.is_empty() {
            let mbuf = self.next;
            if mbuf.is_null() {
                return None;
            }
            // The segments of a valid packet are valid.
            *self = Self::of(mbuf);
        }
        let (piece, rest) = self.here.split_at(most.min(self.here.len()));
        self.here = rest;
        Some(piece)
    }

    /// The first `length` bytes, if they are in one segment.
    #[inline]
    fn split(&mut self, length: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.here.split_at_checked(length)?;
        self.here = rest;
        Some(head)
    }

    /// The first `length` bytes, out of several segments.
    #[cold]
    fn gather(&mut self, length: usize) -> Option<[u8; MAX_HEADERS]> {
        let mut room = [0; MAX_HEADERS];
        let mut missing = room.get_mut(..length)?;
        while !missing.is_empty() {
            let piece = self.next(missing.len())?;
            let (to, others) = missing.split_at_mut_checked(piece.len())?;
            to.copy_from_slice(piece);
            missing = others;
        }
        Some(room)
    }

    /// How many bytes there are.
    fn length(mut self) -> usize {
        let mut length = 0_usize;
        while let Some(piece) = self.next(usize::MAX) {
            length = length.saturating_add(piece.len());
        }
        length
    }
}
