//! To the kernel: frames from the host port's RX ring, into its stack.

use super::{Gone, HostCounters};
use kopi_packet::coalesce::{Candidate, Offer, Run};
use kopi_packet::vnet::{self, VnetHeader};
use kopi_ring::Consumer;
use rustix::fd::OwnedFd;
use rustix::io::Errno;

/// Frames taken from the ring in one iteration.
const BURST: usize = 128;
/// Flows that segments are put together of at a time.
const RUNS: usize = 8;
/// Bytes of the longest frame in a ring.
const LONGEST: usize = kopi_ring::layout::MAX_FRAME as usize;

/// The way to the kernel.
#[derive(Debug)]
pub struct TapTx {
    ring: Consumer,
    /// A header and the frame behind it.
    bytes: Box<[u8]>,
    /// Segments that are put together, if they are at all.
    runs: Vec<Box<Run>>,
    /// The run to be given up next.
    next: usize,
}

impl TapTx {
    /// Out of `ring`. Segments are put together if `coalesce`.
    #[must_use]
    pub fn new(ring: Consumer, coalesce: bool) -> Self {
        let runs = (0..if coalesce { RUNS } else { 0 }).map(|_| Box::new(Run::new())).collect();
        Self { ring, bytes: vec![0; vnet::LEN + LONGEST].into(), runs, next: 0 }
    }

    /// Moves what workers have put into the ring, up to a burst; returns how many frames. What the kernel does not take is
    /// lost, and counted.
    ///
    /// # Errors
    ///
    /// [`Gone`] if the interface is.
    pub fn poll_once(&mut self, file: &OwnedFd, counters: &HostCounters) -> Result<usize, Gone> {
        let mut moved = 0;
        let mut outcome = Ok(());
        // Workers keep to the contract of the ring, as they are kopid's own.
        while moved < BURST && outcome.is_ok() && self.ring.poll().is_ok_and(|ready| ready > 0) {
            let Ok(Some(frame)) = self.ring.next() else { break };
            let length = usize::try_from(frame.len()).unwrap_or(usize::MAX).min(LONGEST);
            if let Some(place) = self.bytes.get_mut(vnet::LEN..vnet::LEN + length) {
                self.ring.copy(&frame, place);
            }
            moved += 1;
            outcome = self.pass(length, file, counters);
        }
        self.ring.release();
        for run in &mut self.runs {
            let flushed = flush(run, file, counters);
            outcome = outcome.and(flushed);
        }
        outcome.map(|()| moved)
    }

    /// Empties the ring of an interface that is gone; returns how many frames were in it, up to a burst.
    pub fn discard(&mut self, counters: &HostCounters) -> usize {
        let mut lost = 0;
        while lost < BURST && self.ring.poll().is_ok_and(|ready| ready > 0) {
            if !matches!(self.ring.next(), Ok(Some(_))) {
                break;
            }
            lost += 1;
        }
        self.ring.release();
        counters.tap_down.add(u64::try_from(lost).unwrap_or(0));
        lost
    }

    /// Passes the frame that was copied on, at once or as part of a run.
    fn pass(&mut self, length: usize, file: &OwnedFd, counters: &HostCounters) -> Result<(), Gone> {
        let whole = self.bytes.get(..vnet::LEN + length).unwrap_or_default();
        let frame = whole.get(vnet::LEN..).unwrap_or_default();
        if self.runs.is_empty() {
            return write(whole, file, 1, counters);
        }
        let Some(segment) = Candidate::of(frame) else {
            // It may be of any of the flows, and must not overtake.
            self.runs.iter_mut().try_for_each(|run| flush(run, file, counters))?;
            return write(whole, file, 1, counters);
        };
        let mut free = None;
        for (at, run) in self.runs.iter_mut().enumerate() {
            match run.offer(&segment, frame) {
                Offer::Taken => return Ok(()),
                Offer::Other if run.is_empty() => free = Some(at),
                Offer::Other => {}
                Offer::Follows => {
                    free = Some(at);
                    break;
                }
            }
        }
        let at = free.unwrap_or_else(|| {
            self.next = (self.next + 1) % self.runs.len();
            self.next
        });
        let Some(run) = self.runs.get_mut(at) else { return Ok(()) };
        flush(run, file, counters)?;
        run.begin(&segment, frame);
        Ok(())
    }
}

fn flush(run: &mut Run, file: &OwnedFd, counters: &HostCounters) -> Result<(), Gone> {
    if run.is_empty() {
        return Ok(());
    }
    let outcome = write_run(run, file, counters);
    run.clear();
    outcome
}

fn write_run(run: &mut Run, file: &OwnedFd, counters: &HostCounters) -> Result<(), Gone> {
    let frames = run.count().into();
    write(run.finish(), file, frames, counters)
}

/// Gives the kernel a header with its frame, which is `frames` segments. Never waits.
fn write(bytes: &[u8], file: &OwnedFd, frames: u64, counters: &HostCounters) -> Result<(), Gone> {
    debug_assert!(bytes.first_chunk().is_some_and(|header| VnetHeader::read(header).is_some()));
    match rustix::io::write(file, bytes) {
        Ok(_) => counters.to_kernel.add(1),
        Err(Errno::AGAIN | Errno::NOBUFS | Errno::NOMEM | Errno::INTR) => counters.tap_full.add(frames),
        Err(Errno::IO) => counters.tap_down.add(frames),
        Err(Errno::BADFD) => {
            counters.tap_down.add(frames);
            return Err(Gone);
        }
        Err(_) => counters.tap_refused.add(frames),
    }
    Ok(())
}
