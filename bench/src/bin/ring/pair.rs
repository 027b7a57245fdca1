//! A producer and a consumer on two cores, and what a frame costs between them.

use core_affinity::CoreId;
use kopi_ring::lab::{Drainer, Filler};
use kopi_ring::layout::Notes;
use kopi_ring::{Consumer, PeerFault, Producer};
use std::hint::black_box;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant};

/// Frames in a burst, as everywhere in kopi.
pub(crate) const BURST: u32 = 32;
/// The consumer's private buffers, taken in turn as a packet pool's are.
const SINKS: usize = 1024;
/// The producer's private buffers, fewer, as an application that sends takes them from its pool's cache.
const SOURCES: usize = 64;
/// Bytes from one private buffer to the next: 2,048 for the frame, and the distance that DPDK's pools keep, an odd
/// number of cache lines.
const BUFFER: usize = 37 * 64;
/// Bursts between two looks at the clock.
const BURSTS_PER_LOOK: u32 = 256;

/// The two processors.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cores {
    pub(crate) producer: usize,
    pub(crate) consumer: usize,
}

impl Cores {
    /// Binds the calling thread to a processor, if it can be done.
    pub(crate) fn pin(core: usize) -> bool {
        core_affinity::set_for_current(CoreId { id: core })
    }

    /// Both processors exist and are two.
    pub(crate) fn check(self) -> Result<(), String> {
        if self.producer == self.consumer {
            return Err("producer and consumer need a processor each".into());
        }
        for core in [self.producer, self.consumer] {
            if !thread::scope(|scope| scope.spawn(|| Self::pin(core)).join().unwrap_or(false)) {
                return Err(format!("cannot run on processor {core}"));
            }
        }
        Ok(())
    }
}

/// The filling end of some ring.
pub(crate) trait Fill: Send {
    fn free(&mut self, want: u32) -> Result<u32, PeerFault>;
    fn push(&mut self, frame: &[u8]);
    fn publish(&mut self);
}

/// The emptying end of some ring.
pub(crate) trait Drain: Send {
    /// Takes up to a burst of frames, copies each to the buffer that `to` gives for it, and releases them.
    fn burst<'b>(&mut self, to: impl FnMut() -> &'b mut [u8]) -> Result<u32, PeerFault>;
}

impl Fill for Producer {
    #[inline]
    fn free(&mut self, want: u32) -> Result<u32, PeerFault> {
        Self::free(self, want)
    }
    #[inline]
    fn push(&mut self, frame: &[u8]) {
        Self::push(self, frame, Notes::NONE);
    }
    #[inline]
    fn publish(&mut self) {
        Self::publish(self);
    }
}

impl Drain for Consumer {
    #[inline]
    fn burst<'b>(&mut self, mut to: impl FnMut() -> &'b mut [u8]) -> Result<u32, PeerFault> {
        let ready = self.poll()?.min(BURST);
        let mut taken = 0;
        while taken < ready {
            let Some(frame) = self.next()? else { break };
            let buffer = to();
            let len = (frame.len() as usize).min(buffer.len());
            if let Some(buffer) = buffer.get_mut(..len) {
                self.copy(&frame, buffer);
            }
            taken += 1;
        }
        if taken > 0 {
            self.release();
        }
        Ok(taken)
    }
}

impl Fill for Filler {
    #[inline]
    fn free(&mut self, want: u32) -> Result<u32, PeerFault> {
        Ok(Self::free(self, want))
    }
    #[inline]
    fn push(&mut self, frame: &[u8]) {
        Self::push(self, frame);
    }
    #[inline]
    fn publish(&mut self) {
        Self::publish(self);
    }
}

impl Drain for Drainer {
    #[inline]
    fn burst<'b>(&mut self, mut to: impl FnMut() -> &'b mut [u8]) -> Result<u32, PeerFault> {
        let mut taken = 0;
        while taken < BURST && self.take(to()).is_some() {
            taken += 1;
        }
        if taken > 0 {
            self.release();
        }
        Ok(taken)
    }
}

/// Drives frames of `len` bytes through the ring for `time`; publishes after every `publish` frames. Returns the
/// nanoseconds per frame that the consumer saw, which is what the slower side needs.
pub(crate) fn run(
    mut fill: impl Fill,
    mut drain: impl Drain,
    cores: Cores,
    len: usize,
    publish: u32,
    time: Duration,
) -> Result<f64, PeerFault> {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let producer = scope.spawn(|| {
            Cores::pin(cores.producer);
            let sources = vec![0x5a_u8; SOURCES * BUFFER];
            let mut frames = sources.chunks_exact(BUFFER).map(|buffer| &buffer[..len]).cycle();
            while !stop.load(Relaxed) {
                let free = fill.free(BURST)?.min(BURST);
                for pushed in 1..=free {
                    if let Some(frame) = frames.next() {
                        fill.push(black_box(frame));
                    }
                    if pushed % publish == 0 || pushed == free {
                        fill.publish();
                    }
                }
            }
            Ok(())
        });
        let consumer = scope.spawn(|| {
            Cores::pin(cores.consumer);
            let counted = drain_for(&mut drain, len, time);
            stop.store(true, Relaxed);
            counted
        });
        let counted = consumer.join().expect("the consumer does not panic");
        producer.join().expect("the producer does not panic")?;
        counted
    })
}

/// Empties the ring for `time`, and returns the nanoseconds per frame. The first tenth is not counted.
fn drain_for(drain: &mut impl Drain, len: usize, time: Duration) -> Result<f64, PeerFault> {
    let mut memory = vec![0_u8; SINKS * BUFFER];
    let mut sinks: Vec<&mut [u8]> = memory.chunks_exact_mut(BUFFER).map(|buffer| &mut buffer[..len]).collect();
    let mut next = 0_usize;
    let mut count = |time: Duration| {
        let start = Instant::now();
        let mut frames = 0_u64;
        loop {
            for _ in 0..BURSTS_PER_LOOK {
                // One buffer more than was filled may be taken here; the cost of that is one addition in a burst.
                frames += u64::from(burst(drain, &mut sinks, &mut next)?);
            }
            let elapsed = start.elapsed();
            if elapsed >= time {
                #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52 frames fit into a sample")]
                return Ok(elapsed.as_secs_f64() * 1e9 / frames.max(1) as f64);
            }
        }
    };
    count(time / 10)?;
    count(time)
}

#[inline]
fn burst(drain: &mut impl Drain, sinks: &mut [&mut [u8]], next: &mut usize) -> Result<u32, PeerFault> {
    // The closure hands out one buffer at a time; a buffer is done with before the next is asked for.
    drain.burst(sinks, next)
}
