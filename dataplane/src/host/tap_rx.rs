//! From the kernel: frames that its stack sends, into the host port's TX ring.

use super::{Gone, HostCounters};
use kopi_packet::MacAddr;
use kopi_packet::segment::{Fault, Outgoing, Piece};
use kopi_packet::vnet::{self, VnetHeader};
use kopi_ring::layout::{MAX_FRAME, Notes};
use kopi_ring::message::Mac;
use kopi_ring::need_wakeup::barrier;
use kopi_ring::{Doorbell, Producer};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// Reads in one iteration.
const READS: usize = 32;
/// Bytes of the longest frame: what IP can say of itself, and Ethernet with two tags.
const LONGEST: usize = 65535 + 22;
/// Bytes of the longest frame that a ring takes.
const LONGEST_IN_RING: usize = MAX_FRAME as usize;

/// The way from the kernel.
#[derive(Debug)]
pub struct TapRx {
    ring: Producer,
    /// What wakes a worker that sleeps at times.
    doorbell: Option<Arc<Doorbell>>,
    /// The addresses that frames may come from.
    macs: Arc<[Mac]>,
    /// A header and the frame behind it.
    bytes: Box<[u8]>,
    /// What of `bytes` has yet to go into the ring.
    partial: Option<Partial>,
}

/// A frame that did not go into the ring as a whole.
#[derive(Clone, Copy, Debug)]
struct Partial {
    length: usize,
    header: VnetHeader,
    /// The piece that is next.
    next: usize,
}

impl TapRx {
    /// Into `ring`, whose worker is woken by `doorbell` if it sleeps, what comes from one of `macs`.
    #[must_use]
    pub fn new(ring: Producer, doorbell: Option<Arc<Doorbell>>, macs: Arc<[Mac]>) -> Self {
        Self { ring, doorbell, macs, bytes: vec![0; vnet::LEN + LONGEST].into(), partial: None }
    }

    /// Whether a frame waits for room in the ring.
    #[must_use]
    pub const fn is_stuck(&self) -> bool {
        self.partial.is_some()
    }

    /// Forgets a frame that waits, of an interface that is gone.
    pub const fn forget(&mut self) {
        self.partial = None;
    }

    /// Moves what the kernel has, up to some frames, as far as the ring has room; returns how many.
    ///
    /// # Errors
    ///
    /// [`Gone`] if the interface is.
    pub fn poll_once(&mut self, file: &OwnedFd, offload: bool, counters: &HostCounters) -> Result<usize, Gone> {
        let mut moved = 0;
        for _ in 0..READS {
            if self.partial.is_none() && !self.read(file, offload, counters)? {
                break;
            }
            moved += self.fill(counters);
            // Now, since one read may be 45 frames, which a worker sends while the next is read.
            self.publish();
            if self.partial.is_some() {
                break;
            }
        }
        Ok(moved)
    }

    fn publish(&mut self) {
        self.ring.publish();
        if let Some(doorbell) = &self.doorbell {
            barrier();
            if self.ring.take_need_wakeup() {
                doorbell.ring();
            }
        }
    }

    /// Reads a frame; returns whether there was one.
    fn read(&mut self, file: &OwnedFd, offload: bool, counters: &HostCounters) -> Result<bool, Gone> {
        let length = match rustix::io::read(file, &mut *self.bytes) {
            Ok(length) => length,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(false),
            Err(_) => return Err(Gone),
        };
        counters.from_kernel.add(1);
        // Behind the destination. What is shorter than that is nobody's.
        let source = self.bytes.get(vnet::LEN + 6..length).and_then(|rest| rest.first_chunk());
        if let Some(source) = source.filter(|source| !self.macs.contains(source)) {
            counters.foreign_mac.add(1);
            counters.new_foreign_mac.store(MacAddr::new(*source).to_u64(), Relaxed);
            return Ok(true);
        }
        let header = self.bytes.first_chunk().filter(|_| length > vnet::LEN).and_then(VnetHeader::read);
        let asked = |header: &VnetHeader| header.segments.is_some() || header.checksum.is_some();
        match header {
            // What was not offered is not made.
            Some(header) if offload || !asked(&header) => {
                self.partial = Some(Partial { length: length - vnet::LEN, header, next: 0 });
            }
            _ => counters.bad_offload.add(1),
        }
        Ok(true)
    }

    /// Puts the frame into the ring, or as many pieces of it as there is room for; returns how many.
    fn fill(&mut self, counters: &HostCounters) -> usize {
        let Some(Partial { length, header, next }) = self.partial.take() else { return 0 };
        let frame = self.bytes.get_mut(vnet::LEN..vnet::LEN + length).unwrap_or_default();
        // A checksum that is written already is not written again.
        let header = if next > 0 && header.segments.is_none() { VnetHeader::default() } else { header };
        let outgoing = match Outgoing::new(frame, &header) {
            Ok(outgoing) => outgoing,
            Err(Fault::Checksum | Fault::NotTcp | Fault::Headers | Fault::Size) => {
                counters.bad_offload.add(1);
                return 0;
            }
        };
        let mut moved = 0;
        for at in next..outgoing.len() {
            let Some(piece) = outgoing.piece(at) else { break };
            if piece.headers().len() + piece.rest.len() > LONGEST_IN_RING {
                // No port carries it, and there would never be room.
                counters.bad_offload.add(1);
            } else if !push(&mut self.ring, &piece, outgoing.frame()) {
                // A frame that is no segment is written once, so it may wait as a whole.
                let header = if header.segments.is_some() { header } else { VnetHeader::default() };
                self.partial = Some(Partial { length, header, next: at });
                break;
            }
            moved += 1;
        }
        moved
    }
}

/// Puts a piece into the ring; `false` if there is no room.
fn push(ring: &mut Producer, piece: &Piece, frame: &[u8]) -> bool {
    let rest = frame.get(piece.rest.clone()).unwrap_or_default();
    let length = u32::try_from(piece.headers().len() + rest.len()).unwrap_or(u32::MAX);
    let slots = ring.slots_for(length);
    let room = ring.free(slots).unwrap_or(0) >= slots;
    room && ring
        .begin(length, Notes::NONE)
        .is_some_and(|mut slots| slots.append(piece.headers()) && slots.append(rest) && slots.finish())
}
