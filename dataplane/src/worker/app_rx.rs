//! Frames out of the apps' TX rings.

use super::Worker;
use crate::ids::PortId;
use crate::worker::port::ring_at;
use dpdk::batch::Fresh;
use dpdk::{Batch, Pool};
use kopi_ring::layout::MIN_FRAME;
use kopi_ring::{Consumer, PeerFault};

/// Bytes in a burst from an app: as many as in a full one of frames of 1,500 bytes. So few longer ones hold nobody up, not
/// even if each is copied for many.
const BURST_BYTES: i64 = 48 << 10;
/// [`MIN_FRAME`], as short as it is.
const SHORTEST: u16 = 14;
const _: () = assert!(SHORTEST as u32 == MIN_FRAME);

impl Worker {
    /// Takes one burst from an app, over all of its TX rings here, so that an app with many queues gets no more turns
    /// than one with a single queue.
    #[inline]
    pub(super) fn serve_app(&mut self, id: PortId, share: Share, now: u64) -> Result<Took, PeerFault> {
        // Mostly there is nothing.
        if self.outputs.has_frames(id)? { self.serve_rings(id, share, now) } else { Ok(Took::NOTHING) }
    }

    #[inline(never)]
    fn serve_rings(&mut self, id: PortId, share: Share, now: u64) -> Result<Took, PeerFault> {
        let max_frame = self.snapshot.fib().max_frame(id);
        // The rings of a new port come before the snapshot that has it. What was sent by then waits there.
        if max_frame == 0 {
            return Ok(Took::NOTHING);
        }
        let (mirrored, index, workers) = (!self.outputs.mirrors.is_empty(), self.index, self.workers);
        let Some(port) = self.outputs.port_mut(id) else { return Ok(Took::NOTHING) };
        let rings = port.tx.len();
        let mut taken = Taken::default();
        let (mut share, mut more) = (share, false);
        for _ in 0..rings {
            let at = port.next_tx;
            let ring = &mut port.tx[at];
            let budget = Batch::MAX - self.burst.batch.len() - taken.refused();
            let ready = ring.poll()?;
            if ready > 0 && budget > 0 && share.bytes > 0 {
                let first = self.burst.batch.len();
                take(
                    ring,
                    budget.min(ready as usize),
                    max_frame,
                    &self.pool,
                    &mut self.burst.batch,
                    &mut taken,
                    &mut share,
                )?;
                if mirrored {
                    let queue = ring_at(id, at, index, workers);
                    self.burst.note_queue(first, u8::try_from(queue).unwrap_or(u8::MAX));
                }
            }
            if self.burst.batch.len() + taken.refused() >= Batch::MAX || share.bytes <= 0 {
                more = port.tx[at].has_more() || rings > 1;
                break;
            }
            port.next_tx = if at + 1 == rings { 0 } else { at + 1 };
        }
        let n = self.burst.batch.len();
        if n + taken.refused() == 0 {
            return Ok(Took::NOTHING);
        }
        let bytes = self.run_stages(id, &taken, now);
        let frames = n + taken.refused();
        Ok(Took { frames, bytes: bytes + taken.refused_bytes, more })
    }
}

/// What an app may send in its turn.
#[derive(Clone, Copy, Debug)]
pub(super) struct Share {
    /// Bytes. The frame that uses them up may exceed them.
    pub(super) bytes: i64,
    /// What each frame costs besides its own bytes.
    pub(super) overhead: u32,
}

impl Share {
    /// As much as a burst has room for.
    pub(super) const ALL: Self = Self { bytes: BURST_BYTES, overhead: 0 };

    /// Takes from it what a frame of `len` bytes costs.
    #[inline]
    fn spend(&mut self, len: u32) {
        self.bytes -= i64::from(len) + i64::from(self.overhead);
    }
}

/// What was taken out of an app's rings in its turn.
#[derive(Clone, Copy, Debug)]
pub(super) struct Took {
    pub(super) frames: usize,
    pub(super) bytes: u64,
    /// Whether there may be more: the turn did not end because the rings were empty.
    pub(super) more: bool,
}

impl Took {
    pub(super) const NOTHING: Self = Self { frames: 0, bytes: 0, more: false };
}

/// What was taken out of an app's rings besides the frames in the batch.
#[derive(Debug, Default)]
pub(super) struct Taken {
    pub(super) runts: usize,
    pub(super) oversize: usize,
    pub(super) refused_bytes: u64,
}

impl Taken {
    pub(super) const fn refused(&self) -> usize {
        self.runts + self.oversize
    }
}

/// Copies up to `budget` frames out of `ring`, and out of the app's memory where they refer to that, into fresh buffers at the end of
/// `batch`. Frames of impossible length are counted in `taken` and not copied. With no buffers left, frames stay in the ring.
#[inline(never)]
fn take(
    ring: &mut Consumer,
    budget: usize,
    max_frame: u16,
    pool: &Pool,
    batch: &mut Batch,
    taken: &mut Taken,
    share: &mut Share,
) -> Result<(), PeerFault> {
    let Some(mut fresh) = pool.fresh(batch, budget) else { return Ok(()) };
    let mut left = budget;
    let mut outcome = Ok(());
    while left > 0 && share.bytes > 0 {
        // Copies that nobody else has seen are kept in registers.
        let (mut mine, mut own) = (fresh, *share);
        let place = |len: u16, _| {
            if own.bytes <= 0 {
                return None;
            }
            let place = mine.frame(len)?;
            own.spend(len.into());
            Some(place)
        };
        let lens = SHORTEST..=max_frame;
        left -= match left {
            1 => usize::from(ring.take_one(lens, place)),
            _ => ring.take_run(left, lens, place),
        };
        (fresh, *share) = (mine, own);
        if left == 0 || share.bytes <= 0 {
            break;
        }
        match take_odd(ring, left, max_frame, &mut fresh, taken, share) {
            Ok(0) => break,
            Ok(frames) => left -= frames,
            Err(fault) => {
                outcome = Err(fault);
                break;
            }
        }
    }
    ring.release();
    outcome
}

/// Takes out of `ring` frames that lie where the app has them, up to `most`; if there are none, one that is in several slots, is
/// to be refused, or breaks the contract. Returns how many it has taken.
#[inline(never)]
fn take_odd(
    ring: &mut Consumer,
    most: usize,
    max_frame: u16,
    fresh: &mut Fresh<'_>,
    taken: &mut Taken,
    share: &mut Share,
) -> Result<usize, PeerFault> {
    let referring = ring.take_references(most, SHORTEST..=max_frame, |len| {
        if share.bytes <= 0 {
            return None;
        }
        let place = fresh.frame(len)?;
        share.spend(len.into());
        Some(place)
    });
    if referring > 0 {
        return Ok(referring);
    }
    let Some(frame) = ring.next()? else { return Ok(0) };
    share.spend(frame.len());
    let len = u16::try_from(frame.len()).ok().filter(|len| (SHORTEST..=max_frame).contains(len));
    match len.and_then(|len| fresh.frame(len)) {
        Some(place) => ring.copy(&frame, place),
        None => {
            taken.refused_bytes += u64::from(frame.len());
            if frame.len() < MIN_FRAME { taken.runts += 1 } else { taken.oversize += 1 }
        }
    }
    Ok(1)
}
