//! To the kernel: frames from the host port's RX ring, into its stack.

use super::Tally;
use super::tap_thread::Gone;
use kopi_packet::coalesce::{Offer, Run, Segment};
use kopi_packet::vnet::{self, VnetHeader};
use kopi_ring::Consumer;
use rustix::fd::OwnedFd;
use rustix::io::Errno;

/// Frames taken from the ring in one turn.
const BURST: usize = 128;
/// Flows that segments are put together of at a time.
const TRAINS: usize = 8;
/// Bytes of the longest frame in a ring.
const LONGEST: usize = kopi_ring::layout::MAX_FRAME as usize;

/// The way to the kernel.
#[derive(Debug)]
pub struct TapTx {
    ring: Consumer,
    /// A header and the frame behind it.
    bytes: Box<[u8]>,
    /// Segments that are put together, if they are at all.
    trains: Vec<Box<Run>>,
    /// The train to be given up next.
    next: usize,
}

impl TapTx {
    /// Out of `ring`. Segments are put together if `coalesce`.
    #[must_use]
    pub fn new(ring: Consumer, coalesce: bool) -> Self {
        let trains = (0..if coalesce { TRAINS } else { 0 }).map(|_| Box::new(Run::new())).collect();
        Self { ring, bytes: vec![0; vnet::LEN + LONGEST].into(), trains, next: 0 }
    }

    /// Moves what workers have put into the ring, up to a burst; returns how many frames. What the kernel does not take is
    /// lost, and counted.
    ///
    /// # Errors
    ///
    /// [`Gone`] if the interface is.
    pub fn turn(&mut self, file: &OwnedFd, tally: &Tally) -> Result<usize, Gone> {
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
            outcome = self.pass(length, file, tally);
        }
        self.ring.release();
        for train in &mut self.trains {
            let flushed = flush(train, file, tally);
            outcome = outcome.and(flushed);
        }
        outcome.map(|()| moved)
    }

    /// Empties the ring of an interface that is gone; returns how many frames were in it, up to a burst.
    pub fn discard(&mut self, tally: &Tally) -> usize {
        let mut lost = 0;
        while lost < BURST && self.ring.poll().is_ok_and(|ready| ready > 0) {
            if !matches!(self.ring.next(), Ok(Some(_))) {
                break;
            }
            lost += 1;
        }
        self.ring.release();
        tally.tap_down.add(u64::try_from(lost).unwrap_or(0));
        lost
    }

    /// Passes the frame that was copied on, at once or as part of a train.
    fn pass(&mut self, length: usize, file: &OwnedFd, tally: &Tally) -> Result<(), Gone> {
        let whole = self.bytes.get(..vnet::LEN + length).unwrap_or_default();
        let frame = whole.get(vnet::LEN..).unwrap_or_default();
        if self.trains.is_empty() {
            return write(whole, file, 1, tally);
        }
        let Some(segment) = Segment::of(frame) else {
            // It may be of any of the flows, and must not overtake.
            self.trains.iter_mut().try_for_each(|train| flush(train, file, tally))?;
            return write(whole, file, 1, tally);
        };
        let mut free = None;
        for (at, train) in self.trains.iter_mut().enumerate() {
            match train.offer(&segment, frame) {
                Offer::Taken => return Ok(()),
                Offer::Other if train.is_empty() => free = Some(at),
                Offer::Other => {}
                Offer::Follows => {
                    free = Some(at);
                    break;
                }
            }
        }
        let at = free.unwrap_or_else(|| {
            self.next = (self.next + 1) % self.trains.len();
            self.next
        });
        let Some(train) = self.trains.get_mut(at) else { return Ok(()) };
        flush(train, file, tally)?;
        train.begin(&segment, frame);
        Ok(())
    }
}

fn flush(train: &mut Run, file: &OwnedFd, tally: &Tally) -> Result<(), Gone> {
    if train.is_empty() {
        return Ok(());
    }
    let outcome = write_train(train, file, tally);
    train.clear();
    outcome
}

fn write_train(train: &mut Run, file: &OwnedFd, tally: &Tally) -> Result<(), Gone> {
    let frames = train.count().into();
    write(train.finish(), file, frames, tally)
}

/// Gives the kernel a header with its frame, which is `frames` segments. Never waits.
fn write(bytes: &[u8], file: &OwnedFd, frames: u64, tally: &Tally) -> Result<(), Gone> {
    debug_assert!(bytes.first_chunk().is_some_and(|header| VnetHeader::read(header).is_some()));
    match rustix::io::write(file, bytes) {
        Ok(_) => tally.to_kernel.add(1),
        Err(Errno::AGAIN | Errno::NOBUFS | Errno::NOMEM | Errno::INTR) => tally.tap_full.add(frames),
        Err(Errno::IO) => tally.tap_down.add(frames),
        Err(Errno::BADFD) => {
            tally.tap_down.add(frames);
            return Err(Gone);
        }
        Err(_) => tally.tap_refused.add(frames),
    }
    Ok(())
}
